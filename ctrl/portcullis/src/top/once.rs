//! `top --once`: the same tables, whole, as text or as JSON.

use std::fmt::Write;

use serde_json::{Map, Value, json};

use super::draw::{notes, summary};
use super::figures::{Counts, Figures, nic, port, reason, rule, worker};
use super::source::{is_stale, now};
use super::views::View;
use super::words::{clock, lasting, moment, share};

/// Wider than any table.
const ROOM: usize = 1 << 20;

/// As text: every view that has something.
pub fn text(figures: &Figures) -> String {
    let mut text = String::new();
    // Writing to a text does not fail.
    let _ = writeln!(
        text,
        "portcullis {}, generation {}, as of {}",
        figures.version,
        figures.generation,
        moment(figures.written as f64 / 1e9) + " UTC"
    );
    if let Some(ended) = figures.ended {
        let _ = writeln!(text, "ENDED at {}", clock(ended));
    } else if is_stale(figures, now()) {
        let ago = lasting(now().saturating_sub(figures.written));
        let _ = writeln!(text, "STALE: nothing was written for {ago}");
    }
    let _ = writeln!(text, "{}", summary(figures)[0]);
    for view in View::ALL.into_iter().skip(1) {
        let table = view.table(figures);
        let look = table.look(view.sort(), "");
        let notes = notes(figures, view);
        if look.shown.is_empty() && notes.is_empty() {
            continue;
        }
        let name = if view == View::Connections { "Connections" } else { view.name() };
        let _ = writeln!(text, "\n{name}");
        notes.iter().filter(|note| !note.is_empty()).for_each(|note| _ = writeln!(text, "{note}"));
        if !look.shown.is_empty() {
            let lines = table.lines(&look, None, ROOM, 0..look.shown.len());
            lines.iter().for_each(|(line, _)| _ = writeln!(text, "{line}"));
        }
    }
    text
}

/// Totals by name, and the same by the second where that is known.
fn counted<const N: usize>(counts: &Counts<N>, names: [&str; N]) -> Map<String, Value> {
    let mut all = Map::new();
    let totals: Map<_, _> =
        names.iter().zip(counts.total).map(|(name, n)| ((*name).to_owned(), json!(n))).collect();
    let rates = counts.rate.map(|rates| {
        let rates = names.iter().zip(rates).map(|(name, n)| ((*name).to_owned(), json!(n)));
        rates.collect::<Map<_, _>>()
    });
    all.insert("total".to_owned(), Value::Object(totals));
    all.insert("per_second".to_owned(), rates.map_or(Value::Null, Value::Object));
    all
}

fn with(mut all: Map<String, Value>, more: Value) -> Value {
    if let Value::Object(more) = more {
        all.extend(more);
    }
    Value::Object(all)
}

const PORT: [&str; port::ALL] = ["received", "sent", "rx_lost", "tx_lost", "rx_bytes", "tx_bytes"];
const WORKER: [&str; worker::ALL] =
    ["pass", "drop", "bytes_pass", "busy_cycles", "idle_cycles", "bursts", "burst_frames", "opened"];
const NIC: [&str; nic::ALL] = ["pass", "drop", "bytes_inbound_pass", "bytes_outbound_pass"];
const RULE: [&str; rule::ALL] = ["connections", "denied", "staged", "staged_differing"];
const REASON: [&str; reason::ALL] = ["drop", "observed"];

/// As one JSON object.
pub fn json(figures: &Figures) -> Value {
    let of_port = |its: &super::figures::Port| {
        let (wire, side) = its.wire.clone().unzip();
        with(counted(&its.counts, PORT), json!({"port": its.name, "wire": wire, "side": side, "up": its.up}))
    };
    let of_worker = |its: &super::figures::Worker| {
        let rate = |which: &[usize]| its.counts.rate_of(which);
        let load = share(rate(&[worker::BUSY]), rate(&[worker::BUSY, worker::IDLE]));
        let burst = share(rate(&[worker::FRAMES]), rate(&[worker::BURSTS]));
        let more = json!({
            "id": its.id.parse::<u64>().ok(), "core": its.core.parse::<u64>().ok(), "generation": its.generation,
            "connections": its.connections, "tombstones": its.tombstones, "capacity": its.capacity,
            "load": load, "burst": burst
        });
        with(counted(&its.counts, WORKER), more)
    };
    let of_nic = |its: &super::figures::Nic| {
        with(counted(&its.counts, NIC), json!({"nic": its.name, "connections": its.connections}))
    };
    let of_rule = |its: &super::figures::Rule| {
        let more = json!({"rule": its.name, "rule_id": its.id, "description": its.description, "staged": its.is_staged});
        with(counted(&its.counts, RULE), more)
    };
    let of_reason = |its: &super::figures::Reason| {
        with(counted(&its.counts, REASON), json!({"reason": its.name, "direction": its.direction}))
    };
    let commits = figures.commits.iter().map(|its| {
        json!({
            "generation": its.generation, "at": its.at, "by": its.by, "origin": its.origin, "state": its.state,
            "what": its.what, "disconnected": its.disconnected
        })
    });
    let problems = figures.problems.iter().map(|its| {
        json!({
            "what": its.what, "since": its.since, "ended": its.ended, "problem": its.problem, "cure": its.cure
        })
    });
    let ended = figures.ends.iter().map(|(how, counts)| (how.clone(), json!(counts.total[0])));
    json!({
        "version": figures.version,
        "generation": figures.generation,
        "written": figures.written as f64 / 1e9,
        "started": figures.started as f64 / 1e9,
        "ended": figures.ended.map(|ended| ended as f64 / 1e9),
        "stale": is_stale(figures, now()),
        "process": figures.process,
        "seconds": figures.seconds,
        "settings": figures.settings,
        "ports": figures.ports.iter().map(of_port).collect::<Vec<_>>(),
        "workers": figures.workers.iter().map(of_worker).collect::<Vec<_>>(),
        "nics": figures.nics.iter().map(of_nic).collect::<Vec<_>>(),
        "nics_left_out": figures.nics_left_out(),
        "rules": figures.rules.iter().map(of_rule).collect::<Vec<_>>(),
        "reasons": figures.reasons.iter().map(of_reason).collect::<Vec<_>>(),
        "connections": {"states": figures.states, "ended": ended.collect::<Map<_, _>>()},
        "outcomes": figures.outcomes,
        "disconnected": figures.disconnected,
        "commits": commits.collect::<Vec<_>>(),
        "problems": problems.collect::<Vec<_>>(),
    })
}
