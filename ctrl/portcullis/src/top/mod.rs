//! `top`: the running appliance, or the last of one that is gone, at a glance. It reads the stats page and nothing else: the appliance
//! does not notice, and need not be there.

mod app;
mod draw;
pub mod figures;
mod once;
mod source;
mod table;
#[cfg(test)]
mod tests;
mod views;
mod words;

use std::io::{self, IsTerminal};
use std::mem::ManuallyDrop;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use ratatui::crossterm::event::{self, Event};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM};

use crate::cli::{self, Output};
use crate::failure::{Failure, print};
use app::{App, Then};
use draw::Look;
use figures::Figures;
use source::{Source, is_stale, now};

/// How long a key or a signal waits at most.
const SOON: Duration = Duration::from_millis(100);
/// How often the page is written: rates are known after that.
const WRITTEN_EVERY: Duration = Duration::from_secs(1);

/// The command.
pub fn run(args: &cli::Top) -> Result<ExitCode, Failure> {
    let interval = Duration::from_secs_f64(args.interval);
    let path = args.page.clone().unwrap_or_else(|| page_beside(&args.socket));
    let has_terminal = io::stdout().is_terminal() && io::stdin().is_terminal();
    let is_dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
    if !args.once && (!has_terminal || is_dumb) {
        return Err(Failure::input(
            "top needs a terminal that it can draw on; without one: portcullis top --once, with -o json for programs",
        ));
    }
    let mut source = Source::open(&path)?;
    if args.once {
        let figures = rated(&mut source, interval)?;
        match args.output {
            Output::Table => print(&once::text(&figures), false),
            Output::Json => print(&format!("{}\n", once::json(&figures)), false),
        }
        return Ok(ExitCode::SUCCESS);
    }
    watch(source, interval)?;
    Ok(ExitCode::SUCCESS)
}

/// The stats page of the appliance with this socket, where its configuration names no other.
fn page_beside(socket: &std::path::Path) -> PathBuf {
    socket.with_file_name("stats")
}

/// Figures with rates; those of a page that nobody writes any more have none.
fn rated(source: &mut Source, interval: Duration) -> Result<Figures, Failure> {
    let mut figures = source.read()?;
    std::thread::sleep(if is_stale(&figures, now()) { Duration::ZERO } else { interval });
    while figures.seconds.is_none() && !is_stale(&figures, now()) {
        std::thread::sleep(Duration::from_millis(20));
        figures = source.read()?;
    }
    Ok(figures)
}

/// The terminal, which is as it was once this is gone. (A panic gives it back before it is told.)
/// What it is made of is never dropped: it would complain of a terminal that is gone, to that terminal.
struct Screen(ManuallyDrop<ratatui::DefaultTerminal>);

impl Screen {
    fn open() -> io::Result<Screen> {
        ratatui::try_init().map(|terminal| Screen(ManuallyDrop::new(terminal)))
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        let _ = self.0.show_cursor();
        let _ = ratatui::try_restore();
    }
}

fn watch(mut source: Source, interval: Duration) -> Result<(), Failure> {
    let ends = Arc::new(AtomicBool::new(false));
    for signal in [SIGTERM, SIGINT, SIGHUP, SIGQUIT] {
        signal_hook::flag::register(signal, ends.clone()).map_err(Failure::runtime)?;
    }
    let colours = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let mut app = App::new(source.read()?);
    let mut screen = Screen::open().map_err(Failure::runtime)?;
    let ended = follow(&mut screen, &mut app, &mut source, Look { colours }, (interval, &ends));
    drop(screen);
    ended.map_err(|error| Failure::runtime(format!("the terminal: {error}")))
}

/// Draws, reads and obeys until it is told to end.
fn follow(
    screen: &mut Screen,
    app: &mut App,
    source: &mut Source,
    look: Look,
    (interval, ends): (Duration, &AtomicBool),
) -> io::Result<()> {
    let mut due = Instant::now();
    // The library has read more than it has told.
    let mut may_be_more = false;
    while !ends.load(Relaxed) {
        if due <= Instant::now() {
            match source.read() {
                Ok(figures) => app.update(figures),
                Err(failure) => app.fail(failure.message().to_owned()),
            }
            let is_rated = app.figures.seconds.is_some();
            due = Instant::now() + if is_rated { interval } else { interval.min(WRITTEN_EVERY) };
        }
        screen.0.draw(|frame| draw::draw(app, frame.buffer_mut(), look, now()))?;
        // What is told is no older than a second, though nothing comes.
        let next = (Instant::now() + WRITTEN_EVERY).min(due);
        loop {
            let wait = next.saturating_duration_since(Instant::now()).min(SOON);
            if ends.load(Relaxed) || !waits_for_a_key(if may_be_more { Duration::ZERO } else { wait }) {
                return Ok(());
            }
            may_be_more = event::poll(Duration::ZERO)?;
            if may_be_more {
                match event::read()? {
                    Event::Key(key) if app.on_key(key) == Then::Quit => return Ok(()),
                    Event::Key(_) | Event::Resize(..) => break,
                    _ => {}
                }
            }
            if Instant::now() >= next {
                break;
            }
        }
    }
    Ok(())
}

/// Waits for a key, a signal (a terminal that changes its size sends one), or so long. False once the terminal is gone: not everybody gets
/// a signal then, and the library that reads keys would try to for ever.
fn waits_for_a_key(wait: Duration) -> bool {
    let stdin = io::stdin();
    let mut polled = [PollFd::new(&stdin, PollFlags::IN)];
    let wait = Timespec::try_from(wait).unwrap_or_default();
    let told = poll(&mut polled, Some(&wait));
    told.is_err() || !polled[0].revents().intersects(PollFlags::HUP | PollFlags::ERR | PollFlags::NVAL)
}
