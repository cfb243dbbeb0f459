//! What DPDK's telemetry answers for the appliance: `/portcullis/…`, read by `dpdk-telemetry.py` and by what speaks as it does. It comes
//! from the stats page and from the board of health; no worker is asked.

use std::ffi::CStr;
use std::path::PathBuf;

use control::api::types::Status;
use control::health::HealthBoard;
use control::live::Live;
use pmd::{Answer, Eal, Field};
use stats::Reader;
use tracing::warn;

use crate::top::figures::{Figures, port, reason, worker};

const INFO: &CStr = c"/portcullis/info";
const HEALTH: &CStr = c"/portcullis/health";
const GENERATION: &CStr = c"/portcullis/generation";
const WORKERS: &CStr = c"/portcullis/workers";
const PORTS: &CStr = c"/portcullis/ports";
const DROPS: &CStr = c"/portcullis/drops";
const CONNECTIONS: &CStr = c"/portcullis/connections";

const COMMANDS: [(&CStr, &CStr); 7] = [
    (INFO, c"Returns the version, and how long the appliance has run. Takes no parameters"),
    (HEALTH, c"Returns the status and the problems that last. Takes no parameters"),
    (
        GENERATION,
        c"Returns the generation of the policy, and the oldest that a worker judges by. Takes no parameters",
    ),
    (WORKERS, c"Returns the workers, or a worker's counters. Parameters: int worker (optional)"),
    (PORTS, c"Returns the ports, or a port's counters. Parameters: string port (optional)"),
    (DROPS, c"Returns packets dropped, by reason. Takes no parameters"),
    (
        CONNECTIONS,
        c"Returns connections by state, their number since the start, and how many fit. Takes no parameters",
    ),
];

/// Registers the commands. Where that fails, the appliance goes on without.
pub fn start(eal: &Eal, live: &Live, has_page: bool) {
    let page = has_page.then(|| live.config().stats_page());
    let board = live.board().clone();
    let answered = eal.answer_telemetry(&COMMANDS, move |command, parameter| {
        answer(command, parameter, &board, page.as_ref())
    });
    if let Err(error) = answered {
        warn!("DPDK's telemetry tells nothing of the appliance: {error}");
    }
}

fn error(text: impl Into<String>) -> Answer {
    Answer::Fields(vec![("error".to_owned(), Field::Text(text.into()))])
}

fn number(name: &str, value: u64) -> (String, Field) {
    (name.to_owned(), Field::Number(value))
}

fn text(name: &str, value: impl Into<String>) -> (String, Field) {
    (name.to_owned(), Field::Text(value.into()))
}

fn answer(command: &str, parameter: &str, board: &HealthBoard, page: Option<&PathBuf>) -> Answer {
    let command =
        COMMANDS.iter().map(|(command, _)| *command).find(|its| its.to_bytes() == command.as_bytes());
    let Some(command) = command else { return error("no such command") };
    if !parameter.is_empty() && ![WORKERS, PORTS].contains(&command) {
        return error(format!("takes no parameter, got {parameter:?}"));
    }
    if command == HEALTH {
        return health(board);
    }
    let Some(path) = page else {
        return error("there is no stats page; the log says why, [stats] page names a place");
    };
    let figures = match Reader::open(path).and_then(|mut reader| reader.read()) {
        Ok(page) => Figures::of(&page),
        Err(why) => return error(format!("{}: {why}", path.display())),
    };
    match command {
        _ if command == INFO => info(&figures),
        _ if command == GENERATION => generation(&figures),
        _ if command == WORKERS => workers(&figures, parameter),
        _ if command == PORTS => ports(&figures, parameter),
        _ if command == DROPS => drops(&figures),
        _ => connections(&figures),
    }
}

fn health(board: &HealthBoard) -> Answer {
    let (status, problems) = board.list();
    let status = match status {
        Status::Ok => "ok",
        Status::Degraded => "degraded",
        Status::Failed => "failed",
    };
    let lasting = problems.iter().filter(|problem| problem.ended.is_none());
    let told = lasting.map(|its| format!("{}: {}; {}", its.what, its.problem, its.cure)).collect();
    Answer::Fields(vec![text("status", status), ("problems".to_owned(), Field::Texts(told))])
}

fn info(figures: &Figures) -> Answer {
    let seconds = figures.written.saturating_sub(figures.started) / 1_000_000_000;
    Answer::Fields(vec![
        text("version", &figures.version),
        number("pid", figures.process.into()),
        number("uptime_seconds", seconds),
        // When the others are of.
        number("written", figures.written / 1_000_000_000),
    ])
}

fn generation(figures: &Figures) -> Answer {
    let oldest = figures.workers.iter().map(|its| its.generation).min().unwrap_or(figures.generation);
    let disconnected = number("disconnected", figures.disconnected);
    Answer::Fields(vec![
        number("generation", figures.generation),
        number("oldest_of_workers", oldest),
        disconnected,
    ])
}

/// One of a list, or the whole list by name.
fn one_of<T>(
    list: &[T],
    parameter: &str,
    (what, name): (&str, impl Fn(&T) -> &str),
    told: impl Fn(&T) -> Vec<(String, Field)>,
) -> Answer {
    let names = || list.iter().map(&name);
    if parameter.is_empty() {
        return Answer::Texts(names().map(str::to_owned).collect());
    }
    match list.iter().find(|its| name(its) == parameter) {
        Some(found) => Answer::Fields(told(found)),
        None => {
            error(format!("no {what} {parameter:?}; there are {}", names().collect::<Vec<_>>().join(", ")))
        }
    }
}

fn workers(figures: &Figures, parameter: &str) -> Answer {
    one_of(&figures.workers, parameter, ("worker", |its| &its.id), |its| {
        let total = &its.counts.total;
        vec![
            text("core", &its.core),
            number("generation", its.generation),
            number("pass", total[worker::PASS]),
            number("drop", total[worker::DROP]),
            number("bytes_pass", total[worker::BYTES]),
            number("busy_cycles", total[worker::BUSY]),
            number("idle_cycles", total[worker::IDLE]),
            number("bursts", total[worker::BURSTS]),
            number("burst_frames", total[worker::FRAMES]),
            number("connections", its.connections),
            number("tombstones", its.tombstones),
            number("capacity", its.capacity),
            number("opened", total[worker::OPENED]),
        ]
    })
}

fn ports(figures: &Figures, parameter: &str) -> Answer {
    one_of(&figures.ports, parameter, ("port", |its| &its.name), |its| {
        let total = &its.counts.total;
        let (wire, side) = its.wire.clone().unwrap_or_default();
        vec![
            text("wire", wire),
            text("side", side),
            number("up", its.up.into()),
            number("received", total[port::RECEIVED]),
            number("sent", total[port::SENT]),
            number("rx_lost", total[port::LOST_RX]),
            number("tx_lost", total[port::LOST_TX]),
            number("rx_bytes", total[port::RX_BYTES]),
            number("tx_bytes", total[port::TX_BYTES]),
        ]
    })
}

/// Both directions together.
fn drops(figures: &Figures) -> Answer {
    let mut fields: Vec<(String, u64)> = Vec::new();
    for its in &figures.reasons {
        let dropped = its.counts.total[reason::DROPPED];
        match fields.iter_mut().find(|(name, _)| *name == its.name) {
            Some((_, sum)) => *sum += dropped,
            None => fields.push((its.name.clone(), dropped)),
        }
    }
    Answer::Fields(fields.into_iter().map(|(name, dropped)| number(&name, dropped)).collect())
}

fn connections(figures: &Figures) -> Answer {
    let mut fields: Vec<_> = figures.states.iter().map(|(state, count)| number(state, *count)).collect();
    fields.push(number("capacity", figures.workers.iter().map(|its| its.capacity).sum()));
    fields.push(number("opened", figures.all_workers().total[worker::OPENED]));
    let ended = figures.ends.iter().map(|(how, counts)| number(&format!("ended_{how}"), counts.total[0]));
    fields.extend(ended);
    Answer::Fields(fields)
}
