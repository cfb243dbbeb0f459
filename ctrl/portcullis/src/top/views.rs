//! Which tables there are, and what stands in them.

use super::figures::{Figures, nic, port, reason, rule, worker};
use super::table::{Cell, Row, Sort, Table};
use super::words::{moment, share};

/// A worker that is busy for more of its time than this is soon behind.
const BUSY: f64 = 0.95;

/// What is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum View {
    Overview,
    Ports,
    Workers,
    Nics,
    Rules,
    Drops,
    Connections,
    Commits,
    Health,
}

impl View {
    /// In the order of their keys, from 1 on.
    pub const ALL: [View; 9] = [
        View::Overview,
        View::Ports,
        View::Workers,
        View::Nics,
        View::Rules,
        View::Drops,
        View::Connections,
        View::Commits,
        View::Health,
    ];

    pub fn name(self) -> &'static str {
        match self {
            View::Overview => "Overview",
            View::Ports => "Ports",
            View::Workers => "Workers",
            View::Nics => "NICs",
            View::Rules => "Rules",
            View::Drops => "Drops",
            View::Connections => "Conns",
            View::Commits => "Commits",
            View::Health => "Health",
        }
    }

    /// How it is sorted until somebody wants it otherwise.
    pub fn sort(self) -> Sort {
        let (column, descending) = match self {
            View::Overview | View::Ports | View::Workers => (0, false),
            View::Nics | View::Rules | View::Connections => (1, true),
            View::Drops => (2, true),
            View::Commits => (0, true),
            View::Health => (1, true),
        };
        Sort { column, descending }
    }

    pub fn table(self, figures: &Figures) -> Table {
        match self {
            View::Overview => Table::default(),
            View::Ports => ports(figures),
            View::Workers => workers(figures),
            View::Nics => nics(figures),
            View::Rules => rules(figures),
            View::Drops => drops(figures),
            View::Connections => connections(figures),
            View::Commits => commits(figures),
            View::Health => problems(figures),
        }
    }
}

fn text(text: impl Into<String>) -> Cell {
    Cell::Text(text.into())
}

fn ports(figures: &Figures) -> Table {
    let columns = [
        ("port", 0),
        ("wire", 2),
        ("side", 2),
        ("link", 0),
        ("received/s", 0),
        ("sent/s", 0),
        ("rx Mbit/s", 1),
        ("tx Mbit/s", 1),
        ("lost/s", 0),
        ("received", 3),
        ("sent", 3),
        ("rx lost", 1),
        ("tx lost", 1),
    ];
    let row = |its: &super::figures::Port| {
        let (wire, side) = its.wire.clone().unwrap_or_else(|| ("-".to_owned(), "-".to_owned()));
        let lost = its.counts.rate_of(&[port::LOST_RX, port::LOST_TX]);
        let rate = |at| its.counts.rate_of(&[at]);
        let total = |at: usize| Cell::Count(its.counts.total[at]);
        Row {
            is_marked: !its.up || lost > Some(0.0),
            cells: vec![
                text(&its.name),
                text(wire),
                text(side),
                text(if its.up { "up" } else { "down" }),
                Cell::Rate(rate(port::RECEIVED)),
                Cell::Rate(rate(port::SENT)),
                Cell::Megabits(rate(port::RX_BYTES)),
                Cell::Megabits(rate(port::TX_BYTES)),
                Cell::Rate(lost),
                total(port::RECEIVED),
                total(port::SENT),
                total(port::LOST_RX),
                total(port::LOST_TX),
            ],
        }
    };
    Table::new(&columns, figures.ports.iter().map(row).collect())
}

fn workers(figures: &Figures) -> Table {
    let columns = [
        ("worker", 0),
        ("core", 1),
        ("load", 0),
        ("burst", 0),
        ("pass/s", 0),
        ("drop/s", 0),
        ("Mbit/s", 1),
        ("connections", 1),
        ("of", 1),
        ("full", 0),
        ("opened/s", 0),
        ("generation", 2),
        ("pass", 3),
        ("drop", 3),
    ];
    let row = |its: &super::figures::Worker| {
        let rate = |at| its.counts.rate_of(&[at]);
        let load = share(rate(worker::BUSY), its.counts.rate_of(&[worker::BUSY, worker::IDLE]));
        let held = its.connections + its.tombstones;
        let full = share(Some(held as f64), Some(its.capacity as f64));
        let is_behind = its.generation != figures.generation;
        Row {
            is_marked: load > Some(BUSY) || is_behind || full > Some(BUSY),
            cells: vec![
                text(&its.id),
                text(&its.core),
                Cell::Percent(load),
                Cell::Hundredths(share(rate(worker::FRAMES), rate(worker::BURSTS))),
                Cell::Rate(rate(worker::PASS)),
                Cell::Rate(rate(worker::DROP)),
                Cell::Megabits(rate(worker::BYTES)),
                Cell::Count(held),
                Cell::Count(its.capacity),
                Cell::Percent(full),
                Cell::Rate(rate(worker::OPENED)),
                Cell::Count(its.generation),
                Cell::Count(its.counts.total[worker::PASS]),
                Cell::Count(its.counts.total[worker::DROP]),
            ],
        }
    };
    Table::new(&columns, figures.workers.iter().map(row).collect())
}

fn nics(figures: &Figures) -> Table {
    let columns = [
        ("nic", 0),
        ("packets/s", 0),
        ("drop/s", 0),
        ("in Mbit/s", 0),
        ("out Mbit/s", 0),
        ("connections", 0),
        ("packets", 1),
        ("drop", 1),
    ];
    let row = |its: &super::figures::Nic| {
        let rate = |which: &[usize]| its.counts.rate_of(which);
        Row {
            is_marked: false,
            cells: vec![
                text(&its.name),
                Cell::Rate(rate(&[nic::PASS, nic::DROP])),
                Cell::Rate(rate(&[nic::DROP])),
                Cell::Megabits(rate(&[nic::IN_BYTES])),
                Cell::Megabits(rate(&[nic::OUT_BYTES])),
                Cell::Count(its.connections),
                Cell::Count(its.counts.total_of(&[nic::PASS, nic::DROP])),
                Cell::Count(its.counts.total[nic::DROP]),
            ],
        }
    };
    Table::new(&columns, figures.nics.iter().map(row).collect())
}

fn rules(figures: &Figures) -> Table {
    // Where no rule is staged, these columns say nothing.
    let staged = if figures.rules.iter().any(|its| its.is_staged) { 0 } else { 5 };
    let columns = [
        ("rule", 0),
        ("hits/s", 0),
        ("hits", 0),
        ("opened/s", 3),
        ("denied/s", 3),
        ("opened", 2),
        ("denied", 2),
        ("staged", staged),
        ("differing", staged),
        ("id", 4),
        ("description", 1),
    ];
    let row = |its: &super::figures::Rule| {
        let rate = |which: &[usize]| its.counts.rate_of(which);
        Row {
            is_marked: false,
            cells: vec![
                text(&its.name),
                Cell::Rate(rate(&[rule::OPENED, rule::DENIED])),
                Cell::Count(its.counts.total_of(&[rule::OPENED, rule::DENIED])),
                Cell::Rate(rate(&[rule::OPENED])),
                Cell::Rate(rate(&[rule::DENIED])),
                Cell::Count(its.counts.total[rule::OPENED]),
                Cell::Count(its.counts.total[rule::DENIED]),
                Cell::Optional(its.is_staged.then_some(its.counts.total[rule::STAGED])),
                Cell::Optional(its.is_staged.then_some(its.counts.total[rule::DIFFERING])),
                text(&its.id),
                text(&its.description),
            ],
        }
    };
    Table::new(&columns, figures.rules.iter().map(row).collect())
}

/// Reasons that something was dropped for.
fn drops(figures: &Figures) -> Table {
    let columns = [
        ("reason", 0),
        ("direction", 0),
        ("drop/s", 0),
        ("share", 0),
        ("drop", 0),
        ("observed/s", 1),
        ("observed", 0),
    ];
    let all: f64 = figures.reasons.iter().filter_map(|its| its.counts.rate_of(&[reason::DROPPED])).sum();
    let row = |its: &super::figures::Reason| {
        let rate = |at| its.counts.rate_of(&[at]);
        Row {
            is_marked: false,
            cells: vec![
                text(&its.name),
                text(&its.direction),
                Cell::Rate(rate(reason::DROPPED)),
                Cell::Percent(share(rate(reason::DROPPED), Some(all))),
                Cell::Count(its.counts.total[reason::DROPPED]),
                Cell::Rate(rate(reason::OBSERVED)),
                Cell::Count(its.counts.total[reason::OBSERVED]),
            ],
        }
    };
    let counted = figures.reasons.iter().filter(|its| its.counts.total != [0, 0]);
    Table::new(&columns, counted.map(row).collect())
}

/// Connections of NICs; which ones they are the page does not say.
fn connections(figures: &Figures) -> Table {
    let columns = [("nic", 0), ("connections", 0), ("in Mbit/s", 0), ("out Mbit/s", 0), ("packets/s", 0)];
    let row = |its: &super::figures::Nic| {
        let rate = |which: &[usize]| its.counts.rate_of(which);
        Row {
            is_marked: false,
            cells: vec![
                text(&its.name),
                Cell::Count(its.connections),
                Cell::Megabits(rate(&[nic::IN_BYTES])),
                Cell::Megabits(rate(&[nic::OUT_BYTES])),
                Cell::Rate(rate(&[nic::PASS, nic::DROP])),
            ],
        }
    };
    Table::new(&columns, figures.nics.iter().filter(|its| its.connections > 0).map(row).collect())
}

fn commits(figures: &Figures) -> Table {
    let columns =
        [("generation", 0), ("at (UTC)", 0), ("by", 1), ("state", 0), ("disconnected", 0), ("what", 0)];
    let row = |its: &super::figures::Commit| Row {
        is_marked: matches!(&*its.state, "pending" | "unconfirmed"),
        cells: vec![
            Cell::Count(its.generation),
            text(moment(its.at)),
            text(format!("{} ({})", its.by, its.origin)),
            text(&its.state),
            Cell::Count(its.disconnected),
            text(if its.what.is_empty() { "-" } else { &its.what }),
        ],
    };
    Table::new(&columns, figures.commits.iter().map(row).collect())
}

fn problems(figures: &Figures) -> Table {
    let columns = [("what", 0), ("since (UTC)", 1), ("ended (UTC)", 2), ("problem", 0), ("cure", 0)];
    let row = |its: &super::figures::Problem| Row {
        is_marked: its.ended.is_none(),
        cells: vec![
            text(&its.what),
            text(moment(its.since as f64)),
            text(its.ended.map_or_else(|| "lasts".to_owned(), |ended| moment(ended as f64))),
            text(&its.problem),
            text(&its.cure),
        ],
    };
    Table::new(&columns, figures.problems.iter().map(row).collect()).wordy(18)
}
