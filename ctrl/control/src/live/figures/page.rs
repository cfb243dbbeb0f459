//! What the stats page shows beside what `/metrics` does: all that `portcullis top` needs and no label of a metric may be, such as
//! times and texts. The families of `/metrics` are those of the interfaces page; these are ours, and bounded, too.

use std::fmt::Write;
use std::sync::Arc;

use stats::{Family, Kind};

use super::super::{Live, lenient_settings};
use super::Sample;
use crate::api::types::{Confirmation, PortCounters, Problem, Record, State};

/// Generations that are shown, the newest first.
const COMMITS: usize = 50;
/// Objects that are named of each.
const NAMED: usize = 8;

pub(super) fn families(live: &Live, taken: &Sample, ports: &[PortCounters], nics: usize) -> Vec<Family> {
    let config = live.config();
    let mut wires = Family::new("wire", Kind::Info, &["wire", "side", "port"], "The ports of the wires.");
    for wire in &config.wires {
        for (side, port) in [("inside", &wire.inside), ("outside", &wire.outside)] {
            wires.push([wire.name.as_str().into(), side.into(), port.as_str().into()], 1);
        }
    }
    let mut bytes =
        Family::new("port_bytes", Kind::Counter, &["port", "way"], "Bytes that ports received and sent.");
    for port in ports {
        for (way, count) in [("received", port.rx_bytes), ("sent", port.tx_bytes)] {
            bytes.push([port.name.as_str().into(), way.into()], count);
        }
    }
    let all = Family::new("nics", Kind::Gauge, &[], "NICs of the policy, also those that have no series.");
    let mut settings =
        Family::new("setting", Kind::Info, &["setting"], "What lets pass what the defaults would not.");
    for setting in lenient_settings(&config, &taken.policy) {
        settings.push([setting.into()], 1);
    }
    let (_, found) = live.shared.board.list();
    let [cores, bursts, frames] = workers(taken);
    let history = live.history_page(None, COMMITS);
    let counted = all.with([], nics as u64);
    vec![wires, bytes, cores, bursts, frames, counted, settings, commits(&history), problems(&found)]
}

fn workers(taken: &Sample) -> [Family; 3] {
    let mut cores = Family::new("worker", Kind::Info, &["worker", "core"], "Where a worker runs.");
    let mut bursts = Family::new(
        "worker_bursts",
        Kind::Counter,
        &["worker"],
        "Times that a worker took frames from a port, of turns that found some.",
    );
    let mut frames =
        Family::new("worker_burst_frames", Kind::Counter, &["worker"], "Frames of these bursts.");
    for (id, met) in taken.workers.iter().enumerate() {
        let id: Arc<str> = id.to_string().into();
        let (sizes, all) = met.counters.worker.bursts();
        cores.push([id.clone(), met.core.to_string().into()], 1);
        bursts.push([id.clone()], sizes.iter().sum());
        frames.push([id], all);
    }
    [cores, bursts, frames]
}

/// As `history` lists them. The value is what each has disconnected.
fn commits(history: &[Record]) -> Family {
    let mut family = Family::new(
        "commit",
        Kind::Gauge,
        &["generation", "at", "by", "origin", "state", "what"],
        "The last generations, the newest first: connections that each has disconnected.",
    );
    for record in history {
        let state = match (record.confirmation, record.state) {
            (Some(Confirmation::Awaited), _) => "unconfirmed",
            (Some(Confirmation::TakenBack), _) => "taken back",
            (_, State::Pending) => "pending",
            _ => "acknowledged",
        };
        let labels: [Arc<str>; 6] = [
            record.generation.to_string().into(),
            format!("{:.6}", record.at).into(),
            record.who.as_str().into(),
            record.origin.as_str().into(),
            state.into(),
            what(record).into(),
        ];
        family.push(labels, record.disconnected + record.disconnected_by_rejudging);
    }
    family
}

/// What it changed, the first of it by name.
fn what(record: &Record) -> String {
    let mut text = record.back_to.map_or(String::new(), |to| format!("back to {to}"));
    let lists = [('+', &record.added), ('~', &record.changed), ('-', &record.removed)];
    let all = lists.iter().flat_map(|(sign, names)| names.iter().map(move |name| (sign, name)));
    for (sign, name) in all.clone().take(NAMED) {
        // Writing to a text does not fail.
        let _ = write!(text, "{}{sign}{name}", if text.is_empty() { "" } else { " " });
    }
    match all.count().saturating_sub(NAMED) {
        0 => text,
        more => format!("{text} and {more} more"),
    }
}

fn problems(found: &[Problem]) -> Family {
    let mut family = Family::new(
        "problem",
        Kind::Gauge,
        &["what", "since", "ended", "problem", "cure"],
        "What is wrong, or was within the last hour: 1 while it lasts.",
    );
    for Problem { what, since, problem, cure, ended } in found {
        let ended_at = ended.map_or(String::new(), |ended| ended.to_string());
        let labels: [Arc<str>; 5] = [
            what.as_str().into(),
            since.to_string().into(),
            ended_at.into(),
            problem.as_str().into(),
            cure.as_str().into(),
        ];
        family.push(labels, u64::from(ended.is_none()));
    }
    family
}
