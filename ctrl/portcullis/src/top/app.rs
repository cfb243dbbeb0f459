//! What is looked at, and what keys do about it.

use std::collections::BTreeMap;

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyEventKind, KeyModifiers};

use super::figures::Figures;
use super::table::{Look, Sort, Table};
use super::views::View;

/// What comes of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Then {
    Go,
    Quit,
}

/// A view's table as it is looked at.
pub struct Sheet {
    pub table: Table,
    pub look: Look,
    pub sort: Sort,
}

/// All that a screen is drawn from.
pub struct App {
    /// What is shown: of a moment ago, while it is paused.
    pub figures: Figures,
    /// What came since, while it is paused.
    waiting: Option<Figures>,
    pub view: View,
    sorts: BTreeMap<View, Sort>,
    /// Tables of these figures, made when they are first looked at.
    sheets: BTreeMap<View, Sheet>,
    pub filter: String,
    /// The filter is being typed.
    pub is_typing: bool,
    pub is_paused: bool,
    pub is_helping: bool,
    /// The first row that is shown.
    pub first: usize,
    /// Rows that had room, and rows that there were, when it was drawn last.
    pub room: usize,
    pub rows: usize,
    /// Why the page could not be read again.
    pub failure: Option<String>,
}

impl App {
    pub fn new(figures: Figures) -> App {
        App {
            figures,
            waiting: None,
            view: View::Overview,
            sorts: BTreeMap::new(),
            sheets: BTreeMap::new(),
            filter: String::new(),
            is_typing: false,
            is_paused: false,
            is_helping: false,
            first: 0,
            room: 0,
            rows: 0,
            failure: None,
        }
    }

    /// What the page says now.
    pub fn update(&mut self, figures: Figures) {
        self.failure = None;
        if self.is_paused {
            self.waiting = Some(figures);
            return;
        }
        self.figures = figures;
        self.sheets.clear();
    }

    /// The page cannot be read any more: what it said last stays.
    pub fn fail(&mut self, why: String) {
        self.failure = Some(why);
        if !self.is_paused {
            self.figures = std::mem::take(&mut self.figures).stale();
            self.sheets.clear();
        }
    }

    pub fn sheet(&mut self, view: View) -> &Sheet {
        let sort = self.sort(view);
        let (figures, filter) = (&self.figures, &self.filter);
        self.sheets.entry(view).or_insert_with(|| {
            let table = view.table(figures);
            let look = table.look(sort, filter);
            Sheet { table, look, sort }
        })
    }

    fn sort(&self, view: View) -> Sort {
        self.sorts.get(&view).copied().unwrap_or_else(|| view.sort())
    }

    fn sort_by(&mut self, sort: Sort) {
        self.sorts.insert(self.view, sort);
        self.sheets.remove(&self.view);
        self.first = 0;
    }

    fn look_at(&mut self, view: View) {
        self.view = view;
        self.first = 0;
    }

    fn filter_by(&mut self, filter: String) {
        self.filter = filter;
        self.sheets.clear();
        self.first = 0;
    }

    /// Scrolls, to the last page at most.
    fn scroll(&mut self, by: isize) {
        let last = self.rows.saturating_sub(self.room);
        self.first = self.first.saturating_add_signed(by).min(last);
    }

    pub fn on_key(&mut self, key: KeyEvent) -> Then {
        if key.kind == KeyEventKind::Release {
            return Then::Go;
        }
        if key.modifiers.contains(KeyModifiers::CONTROL) {
            return if key.code == KeyCode::Char('c') { Then::Quit } else { Then::Go };
        }
        if self.is_typing {
            self.type_filter(key.code);
            return Then::Go;
        }
        if self.is_helping {
            self.is_helping = false;
            return if key.code == KeyCode::Char('q') { Then::Quit } else { Then::Go };
        }
        let at = View::ALL.iter().position(|view| *view == self.view).unwrap_or_default();
        let views = View::ALL.len();
        match key.code {
            KeyCode::Char('q') => return Then::Quit,
            KeyCode::Char('?' | 'h') => self.is_helping = true,
            KeyCode::Char('/') => self.is_typing = true,
            KeyCode::Esc => self.filter_by(String::new()),
            KeyCode::Char('p' | ' ') => self.pause(),
            KeyCode::Char(digit @ '1'..='9') => self.look_at(View::ALL[digit as usize - '1' as usize]),
            KeyCode::Right | KeyCode::Tab => self.look_at(View::ALL[(at + 1) % views]),
            KeyCode::Left | KeyCode::BackTab => self.look_at(View::ALL[(at + views - 1) % views]),
            KeyCode::Down | KeyCode::Char('j') => self.scroll(1),
            KeyCode::Up | KeyCode::Char('k') => self.scroll(-1),
            KeyCode::PageDown => self.scroll(self.room as isize),
            KeyCode::PageUp => self.scroll(-(self.room as isize)),
            KeyCode::Home | KeyCode::Char('g') => self.first = 0,
            KeyCode::End | KeyCode::Char('G') => self.scroll(isize::MAX),
            KeyCode::Char('s') => self.sort_next(1),
            KeyCode::Char('S') => self.sort_next(-1),
            KeyCode::Char('r') if self.view != View::Overview => {
                let sort = self.sort(self.view);
                self.sort_by(Sort { descending: !sort.descending, ..sort });
            }
            _ => {}
        }
        Then::Go
    }

    fn type_filter(&mut self, code: KeyCode) {
        match code {
            KeyCode::Enter => self.is_typing = false,
            KeyCode::Esc => {
                self.is_typing = false;
                self.filter_by(String::new());
            }
            KeyCode::Backspace => {
                let mut filter = self.filter.clone();
                filter.pop();
                self.filter_by(filter);
            }
            KeyCode::Char(c) if self.filter.chars().count() < 64 => {
                self.filter_by(format!("{}{c}", self.filter));
            }
            _ => {}
        }
    }

    fn pause(&mut self) {
        self.is_paused = !self.is_paused;
        if let Some(figures) = self.waiting.take_if(|_| !self.is_paused) {
            self.figures = figures;
            self.sheets.clear();
        }
    }

    fn sort_next(&mut self, by: isize) {
        if self.view == View::Overview {
            return;
        }
        let view = self.view;
        let sheet = self.sheet(view);
        let columns = sheet.table.columns.len() as isize;
        let next = (sheet.sort.column as isize + by).rem_euclid(columns.max(1));
        let sort = sheet.table.natural_way(next as usize);
        self.sort_by(sort);
    }
}
