//! Screens of a fixed page, as docs/top.md shows them, and what keys do.

mod fixed;

use std::fmt::Write;
use std::path::Path;

use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::buffer::Buffer;
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use ratatui::style::Color;

use super::app::{App, Then};
use super::draw::{Look, draw};
use super::figures::Figures;
use super::views::View;
use super::{draw, once, words};
use fixed::{SECOND, page};

const WIDE: (u16, u16) = (200, 50);

/// What an appliance shows that runs for an hour.
fn figures() -> Figures {
    Figures::of(&page(3601)).since(&Figures::of(&page(3600)))
}

fn now(figures: &Figures) -> u64 {
    figures.written + SECOND / 2
}

fn drawn(app: &mut App, size: (u16, u16), look: Look, now: u64) -> Buffer {
    let mut terminal = Terminal::new(TestBackend::new(size.0, size.1)).unwrap();
    terminal.draw(|frame| draw(app, frame.buffer_mut(), look, now)).unwrap();
    terminal.backend().buffer().clone()
}

/// The screen as text, without blanks at the ends of lines.
fn screen(app: &mut App, size: (u16, u16), now: u64) -> String {
    let buffer = drawn(app, size, Look { colours: true }, now);
    let mut text = String::new();
    for y in 0..size.1 {
        // What takes two columns stands in the first of them.
        let (mut line, mut taken) = (String::new(), 0);
        for x in 0..usize::from(size.0) {
            let symbol = buffer[(x as u16, y)].symbol();
            if x >= taken {
                line += symbol;
                taken = x + words::width(symbol).max(1);
            }
        }
        writeln!(text, "{}", line.trim_end()).unwrap();
    }
    text
}

fn press(app: &mut App, keys: &str) -> Then {
    let mut then = Then::Go;
    for key in keys.chars() {
        let code = match key {
            '\n' => KeyCode::Enter,
            '\u{1b}' => KeyCode::Esc,
            '→' => KeyCode::Right,
            '↓' => KeyCode::Down,
            key => KeyCode::Char(key),
        };
        then = app.on_key(KeyEvent::new(code, KeyModifiers::NONE));
    }
    then
}

/// The first column of what a view shows, row by row.
fn names(app: &mut App, size: (u16, u16), head: &str) -> Vec<String> {
    let now = now(&app.figures);
    let text = screen(app, size, now);
    let rows = text.lines().skip_while(|line| !line.contains(head)).skip(1);
    rows.take_while(|line| !line.contains(" to "))
        .filter_map(|line| Some(line.trim_start_matches(['!', ' ']).split(' ').next()?.to_owned()))
        .filter(|name| !name.is_empty())
        .collect()
}

/// Each screen in docs/top.md stands behind a comment that names it. RENEW_TOP=1 writes them anew.
#[test]
fn the_screens_are_those_of_the_documentation() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/top.md");
    let told = std::fs::read_to_string(&path).unwrap();
    let mut renewed = told.clone();
    let mut screens: Vec<(String, String)> = Vec::new();
    for (name, size, keys) in [
        ("overview 80x24", draw::LEAST, "1"),
        ("ports 80x24", draw::LEAST, "2"),
        ("workers 80x24", draw::LEAST, "3"),
        ("nics 80x24", draw::LEAST, "4"),
        ("rules 80x24", draw::LEAST, "5"),
        ("drops 80x24", draw::LEAST, "6"),
        ("connections 80x24", draw::LEAST, "7"),
        ("commits 80x24", draw::LEAST, "8"),
        ("health 80x24", draw::LEAST, "9"),
        ("help 80x24", draw::LEAST, "?"),
        ("overview 200x50", WIDE, "1"),
        ("rules 200x50", WIDE, "5"),
    ] {
        let mut app = App::new(figures());
        press(&mut app, keys);
        let now = now(&app.figures);
        screens.push((name.to_owned(), screen(&mut app, size, now)));
    }
    for (name, screen) in &screens {
        let mark = format!("<!-- screen {name} -->\n```text\n");
        let begin = renewed.find(&mark).unwrap_or_else(|| panic!("docs/top.md has no {name}")) + mark.len();
        let end = begin + renewed[begin..].find("```").unwrap();
        renewed.replace_range(begin..end, screen);
    }
    if std::env::var_os("RENEW_TOP").is_some_and(|value| value == "1") {
        std::fs::write(&path, renewed).unwrap();
        return;
    }
    assert!(told == renewed, "screens differ from docs/top.md; RENEW_TOP=1 writes them anew\n{renewed}");
    for (key, _) in draw::KEYS {
        assert!(told.contains(key), "docs/top.md says nothing of {key}");
    }
}

#[test]
fn every_line_of_every_view_fits_into_every_width() {
    for columns in 80..=200 {
        let mut app = App::new(figures());
        for key in "123456789?".chars() {
            press(&mut app, &key.to_string());
            let now = now(&app.figures);
            let text = screen(&mut app, (columns, 24), now);
            assert!(text.contains("portcullis 0.1.0, generation 7"), "{text}");
            assert!(text.lines().last().unwrap().contains("q quit"), "{text}");
        }
    }
}

#[test]
fn rates_are_those_between_two_moments() {
    let figures = figures();
    assert_eq!(figures.seconds, Some(1.0));
    let one = figures.nics.iter().find(|nic| nic.name == "server-2").unwrap();
    assert_eq!(one.counts.rate, Some([200.0, 2.0, 25_000.0, 12_500.0]));
    let text = once::text(&figures);
    assert!(
        text.contains("in 3000/s, pass 2850/s (4.560 Mbit/s), drop 150/s, 65135 of 131072 connections"),
        "{text}"
    );
    let json = once::json(&figures);
    let nic = json["nics"].as_array().unwrap().iter().find(|nic| nic["nic"] == "server-2").unwrap();
    assert_eq!((&nic["per_second"]["pass"], &nic["total"]["drop"]), (&200.0.into(), &(2 * 3601).into()));
    assert_eq!((&json["workers"][0]["load"], &json["workers"][0]["burst"]), (&0.25.into(), &8.0.into()));
    // Of another start nothing can be compared.
    let mut later = page(3601);
    later.started += 1;
    assert_eq!(Figures::of(&later).since(&Figures::of(&page(3600))).seconds, None);
}

#[test]
fn keys_sort_filter_and_turn_round() {
    let mut app = App::new(figures());
    press(&mut app, "4");
    assert_eq!(names(&mut app, draw::LEAST, "packets/s")[..2], ["server-12", "server-11"]);
    press(&mut app, "r");
    let reversed = names(&mut app, WIDE, "packets/s");
    assert!(reversed[0].starts_with("shop/warehouse-"), "{reversed:?}");
    assert_eq!(reversed[reversed.len() - 2..], ["server-11", "server-12"]);
    // By name, where numbers count: the column before the packets.
    press(&mut app, "S");
    let sorted = names(&mut app, WIDE, "packets/s");
    let at = |name: &str| sorted.iter().position(|its| its == name).unwrap();
    assert!(at("server-2") < at("server-10"));
    press(&mut app, "/ver-1");
    assert_eq!(names(&mut app, WIDE, "packets/s"), ["server-1", "server-10", "server-11", "server-12"]);
    let text = screen(&mut app, draw::LEAST, 0);
    assert!(text.contains("filter: ver-1_"), "{text}");
    press(&mut app, "q\n");
    assert!(screen(&mut app, draw::LEAST, 0).contains("none that has \"ver-1q\" in a name"));
    press(&mut app, "\u{1b}");
    assert_eq!(names(&mut app, WIDE, "packets/s").len(), sorted.len());
    assert_eq!(press(&mut app, "?q"), Then::Quit);
    assert_eq!(press(&mut app, "q"), Then::Quit);
    let control_c = KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL);
    press(&mut app, "/");
    assert_eq!(app.on_key(control_c), Then::Quit);
}

/// Every key against what it does to a view of many rows, of which five have room.
#[test]
fn each_key_does_its_own_thing_and_no_other() {
    let of = |code: KeyCode, first: usize| {
        let mut app = App::new(figures());
        press(&mut app, "4/a\n");
        (app.first, app.room, app.rows) = (first, 5, 20);
        let then = app.on_key(KeyEvent::new(code, KeyModifiers::NONE));
        (app, then)
    };
    let plain = |view: View, first: usize| (view, first, "a".to_owned(), [false; 3]);
    let state =
        |app: &App| (app.view, app.first, app.filter.clone(), [app.is_typing, app.is_helping, app.is_paused]);
    let (at, views) = (3, View::ALL);
    let key = KeyCode::Char;
    let mut table = vec![
        (key('?'), 9, (views[at], 9, "a".to_owned(), [false, true, false])),
        (key('h'), 9, (views[at], 9, "a".to_owned(), [false, true, false])),
        (key('/'), 9, (views[at], 9, "a".to_owned(), [true, false, false])),
        (key('p'), 9, (views[at], 9, "a".to_owned(), [false, false, true])),
        (key(' '), 9, (views[at], 9, "a".to_owned(), [false, false, true])),
        (KeyCode::Esc, 9, (views[at], 0, String::new(), [false; 3])),
        (key('0'), 9, plain(views[at], 9)),
        (key('x'), 9, plain(views[at], 9)),
    ];
    for (number, view) in views.into_iter().enumerate() {
        table.push((key(char::from_digit(number as u32 + 1, 10).unwrap()), 9, plain(view, 0)));
    }
    for (codes, view) in
        [([KeyCode::Right, KeyCode::Tab], views[at + 1]), ([KeyCode::Left, KeyCode::BackTab], views[at - 1])]
    {
        table.extend(codes.map(|code| (code, 9, plain(view, 0))));
    }
    // To the first row and to the last page at most.
    for (codes, moves) in [
        (vec![KeyCode::Down, key('j')], [(0, 1), (14, 15), (15, 15)]),
        (vec![KeyCode::Up, key('k')], [(15, 14), (1, 0), (0, 0)]),
        (vec![KeyCode::PageDown], [(0, 5), (9, 14), (11, 15)]),
        (vec![KeyCode::PageUp], [(15, 10), (5, 0), (4, 0)]),
        (vec![KeyCode::Home, key('g')], [(15, 0), (1, 0), (0, 0)]),
        (vec![KeyCode::End, key('G')], [(0, 15), (7, 15), (15, 15)]),
    ] {
        for code in codes {
            table.extend(moves.map(|(from, to)| (code, from, plain(views[at], to))));
        }
    }
    let sort_of = |app: &mut App| {
        let view = app.view;
        let sort = app.sheet(view).sort;
        (sort.column, sort.descending)
    };
    let before = sort_of(&mut of(key('x'), 9).0);
    for (code, first, expected) in table {
        let (mut app, then) = of(code, first);
        assert_eq!((state(&app), then), (expected, Then::Go), "{code:?} at {first}");
        if app.view == views[at] {
            assert_eq!(sort_of(&mut app), before, "{code:?}");
        }
    }
    assert_eq!(of(key('q'), 9).1, Then::Quit);
    // Sorting goes round all columns, one way and back, and shows the first rows.
    let (mut app, _) = of(key('x'), 9);
    let columns = app.sheet(views[at]).table.columns.len();
    for by in [1, columns - 1] {
        let key = if by == 1 { 's' } else { 'S' };
        for step in 1..=columns {
            app.first = 9;
            press(&mut app, &key.to_string());
            let expected = (before.0 + by * step) % columns;
            assert_eq!((sort_of(&mut app).0, app.first), (expected, 0), "{key} {step}");
        }
    }
    let (mut app, _) = of(key('r'), 9);
    assert_eq!((sort_of(&mut app), app.first), ((before.0, !before.1), 0));
    // The last view is followed by the first.
    press(&mut app, "9→");
    assert_eq!(app.view, views[0]);
    app.on_key(KeyEvent::new(KeyCode::Left, KeyModifiers::NONE));
    assert_eq!(app.view, views[views.len() - 1]);
    // A filter has 64 characters at most, and gives them back one by one.
    press(&mut app, &format!("\u{1b}/{}", "b".repeat(70)));
    assert_eq!((app.filter.len(), app.is_typing), (64, true));
    app.on_key(KeyEvent::new(KeyCode::Backspace, KeyModifiers::NONE));
    assert_eq!(app.filter.len(), 63);
    press(&mut app, "\u{1b}");
    assert_eq!((app.filter.as_str(), app.is_typing), ("", false));
}

#[test]
fn the_overview_begins_with_what_wants_a_look() {
    let mut app = App::new(figures());
    assert_eq!(names(&mut app, draw::LEAST, "received/s")[..2], ["eth3", "eth0"]);
    let now = now(&app.figures);
    let text = screen(&mut app, draw::LEAST, now);
    assert!(text.contains("\n! 1       3     98 %"), "{text}");
    press(&mut app, "2");
    assert_eq!(names(&mut app, draw::LEAST, "received/s"), ["eth0", "eth1", "eth2", "eth3"]);
}

#[test]
fn staged_rules_are_counted_apart_and_have_no_columns_where_there_are_none() {
    let mut app = App::new(figures());
    press(&mut app, "5");
    let now = now(&app.figures);
    let text = screen(&mut app, draw::LEAST, now);
    let line = text.lines().find(|line| line.contains("database#10")).unwrap();
    let cells: Vec<&str> = line.split_whitespace().take(6).collect();
    assert_eq!(cells, ["database#10", "0", "0", "0", "25207", "7202"]);
    let rules = &once::json(&app.figures)["rules"];
    let staged = rules.as_array().unwrap().iter().find(|rule| rule["rule"] == "database#10").unwrap();
    assert_eq!((&staged["staged"], &staged["total"]["staged_differing"]), (&true.into(), &7202.into()));
    assert_eq!(staged["per_second"]["staged"], 7.0);
    app.figures.rules.iter_mut().for_each(|rule| rule.is_staged = false);
    let figures = app.figures.clone();
    app.update(figures);
    assert!(!screen(&mut app, draw::LEAST, now).contains("staged"));
}

#[test]
fn what_is_longer_than_the_screen_is_scrolled_to_its_end_and_no_further() {
    let mut app = App::new(figures());
    press(&mut app, "4");
    app.first = 0;
    drawn(&mut app, draw::LEAST, Look { colours: true }, 0);
    let (rows, room) = (app.rows, app.room);
    assert!(rows > room, "{rows} in {room}");
    press(&mut app, "↓");
    assert_eq!(app.first, 1);
    press(&mut app, "G");
    assert_eq!(app.first, rows - room);
    assert!(screen(&mut app, draw::LEAST, 0).contains(&format!("to {rows} of {rows}")));
    press(&mut app, "g→");
    assert_eq!((app.first, app.view), (0, View::Rules));
}

#[test]
fn a_pause_holds_what_is_shown_and_ends_with_what_is_new() {
    let mut app = App::new(Figures::of(&page(10)));
    press(&mut app, "p");
    app.update(Figures::of(&page(11)));
    let now = now(&app.figures);
    assert!(screen(&mut app, draw::LEAST, now).contains("PAUSED at 00:00:10 UTC"));
    press(&mut app, " ");
    assert_eq!(app.figures.written, page(11).written);
    assert!(!screen(&mut app, draw::LEAST, now).contains("PAUSED"));
}

#[test]
fn figures_that_nobody_writes_any_more_say_since_when_and_have_no_rates() {
    let mut figures = figures().stale();
    let later = figures.written + 61 * SECOND;
    let mut app = App::new(figures.clone());
    let text = screen(&mut app, draw::LEAST, later);
    assert!(text.contains("STALE since 01:00:01 UTC, 1 min 01 s"), "{text}");
    assert!(text.contains("in -/s, pass -/s (- Mbit/s), drop -/s, 65135 of 131072 connections"), "{text}");
    figures.ended = Some(figures.written);
    let text = screen(&mut App::new(figures), draw::LEAST, later);
    assert!(text.contains("ENDED at 01:00:01 UTC, 1 min 01 s ago"), "{text}");
    app.fail("/run/portcullis/stats: gone".to_owned());
    assert!(screen(&mut app, draw::LEAST, later).contains("! /run/portcullis/stats: gone"));
}

#[test]
fn a_terminal_that_is_too_small_says_so_and_may_grow() {
    let mut app = App::new(figures());
    for size in [(79, 24), (80, 23), (20, 5), (1, 1)] {
        let text = screen(&mut app, size, 0);
        let told = format!("this terminal has {} × {};", size.0, size.1);
        assert_eq!(text.lines().next(), Some(&*words::cut(&told, size.0.into())));
    }
    assert!(screen(&mut app, (79, 24), 0).contains("portcullis top needs 80 × 24 (q quits)"));
    assert!(screen(&mut app, draw::LEAST, 0).contains("[1 Overview]"));
}

#[test]
fn nothing_is_coloured_where_nobody_wants_it_and_nothing_is_told_by_colour_alone() {
    let mut app = App::new(figures());
    for view in "123456789".chars() {
        press(&mut app, &view.to_string());
        let now = now(&app.figures);
        let plain = drawn(&mut app, draw::LEAST, Look { colours: false }, now);
        assert!(plain.content.iter().all(|cell| cell.fg == Color::Reset && cell.bg == Color::Reset));
        let coloured = drawn(&mut app, draw::LEAST, Look { colours: true }, now);
        let allowed = [Color::Reset, Color::Cyan, Color::Yellow];
        assert!(coloured.content.iter().all(|cell| allowed.contains(&cell.fg)));
        for y in 3..23 {
            let is_yellow = (0..80).any(|x| coloured[(x, y)].fg == Color::Yellow);
            assert!(!is_yellow || coloured[(0, y)].symbol() == "!", "line {y} is told by colour alone");
        }
    }
}

#[test]
fn words_of_the_page_steer_no_terminal() {
    let mut app = App::new(figures());
    press(&mut app, "5");
    let now = now(&app.figures);
    let text = screen(&mut app, WIDE, now) + &once::text(&app.figures);
    assert!(text.contains("\u{fffd}[31mred"), "{text}");
    assert!(!text.contains('\u{1b}'));
}

/// As many NICs as an appliance is made for, and keys all the same.
#[test]
fn ten_thousand_nics_are_drawn_without_a_wait() {
    let mut app = App::new(Figures::default());
    let figures = fixed::many(10_000);
    let begin = std::time::Instant::now();
    app.update(figures);
    press(&mut app, "4");
    for key in "sSr↓".chars() {
        press(&mut app, &key.to_string());
        assert!(screen(&mut app, WIDE, 0).contains("of 10000"));
    }
    // Five sorts and screens of 10,000 rows, unoptimised.
    assert!(begin.elapsed() < std::time::Duration::from_secs(1), "{:?}", begin.elapsed());
}
