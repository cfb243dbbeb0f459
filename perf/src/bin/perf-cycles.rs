//! Cycles a packet on one core, case by case: see [`perf::cases`]. One JSON object on stdout, or a
//! table; progress on stderr.

use std::error::Error;

use clap::Parser;
use perf::cases::watched::{self, Cost};
use perf::cases::{ALL, COUNTED, Runs, count, round, run_named};
use perf::world::World;
use serde_json::{Map, Value, json};

/// Cycles a packet on one core: established, denied and new connections, fragments, floods, a full
/// table, a flush.
#[derive(Parser)]
struct Options {
    /// One case alone, as `established:10000`, `cold:1`, `hot:10000`, `udp:10000`, `v6:10000`,
    /// `vxlan:10000`, `nics:10000`, `fragments:4000`, `denied:50`, `new:1000000`, `flood:1000000`,
    /// `full:1000000`, `flush:1000000`.
    #[arg(long)]
    case: Vec<String>,
    /// Runs of which the median counts.
    #[arg(long, default_value_t = 9)]
    runs: usize,
    /// Frames a side and run; more where there are more flows.
    #[arg(long, default_value_t = 300_000)]
    frames: usize,
    /// The core to run on.
    #[arg(long)]
    core: Option<usize>,
    /// Plays frames of one case, as `established:10000`, once and untimed, and tells how many;
    /// `list` tells the cases. For `scripts/count-instructions`.
    #[arg(long, value_name = "CASE")]
    count: Option<String>,
    /// What it costs to be seen, instead of the cases: established packets of 100,000 connections
    /// and packets that open some, with nothing told, with the history of decisions, with
    /// connections counted, and with a flow log and a trace of one packet in 100.
    #[arg(long, conflicts_with_all = ["case", "count", "table"])]
    watched: bool,
    /// A table instead of JSON.
    #[arg(long)]
    table: bool,
}

/// Frames a side of a counted case: some hundred polls.
const COUNTED_FRAMES: usize = 20_000;

fn main() -> Result<(), Box<dyn Error>> {
    let options = Options::parse();
    if let Some(core) = options.core {
        core_affinity::set_for_current(core_affinity::CoreId { id: core });
    }
    if let Some(case) = options.count {
        if case == "list" {
            println!("{}", COUNTED.join(" "));
            return Ok(());
        }
        println!("{}", count(&case, COUNTED_FRAMES)?);
        return Ok(());
    }
    if options.watched {
        println!("{}", watched_json(options.runs, options.frames));
        return Ok(());
    }
    let names: Vec<String> = match options.case.is_empty() {
        true => ALL.iter().map(|name| (*name).to_owned()).collect(),
        false => options.case,
    };
    let mut figures = Map::new();
    if options.table {
        println!("{:<24}{:>8}{:>8}{:>8}  cycles a packet; beside", "case", "engine", "bare", "calib");
    }
    for name in names {
        let named = run_named(&name, Runs { runs: options.runs, frames: options.frames })?;
        if options.table {
            let bare = named.figure.bare.map_or("-".to_owned(), |bare| format!("{bare:.1}"));
            let beside: Vec<String> = named.beside.iter().map(|(what, c)| format!("{what} {c:.1}")).collect();
            let (engine, calib) = (named.figure.engine, named.figure.calib);
            println!("{name:<24}{engine:>8.1}{bare:>8}{calib:>8.1}  {}", beside.join(", "));
        } else {
            eprintln!("{name}: {}", named.json());
        }
        figures.insert(name, named.json());
    }
    if !options.table {
        println!("{}", json!({ "cycles": Value::Object(figures) }));
    }
    Ok(())
}

/// Cycles at each level, and their ratio to those with nothing told.
fn watched_json(runs: usize, frames: usize) -> Value {
    let of = |costs: Vec<Cost>| -> Value {
        let named = |cost: &Cost| {
            let ratio = (cost.ratio * 1000.0).round() / 1000.0;
            (cost.seen.name().to_owned(), json!({ "engine": round(cost.engine), "ratio": ratio }))
        };
        Value::Object(costs.iter().map(named).collect())
    };
    let world = World::USUAL;
    json!({ "watched": {
        "established:100000": of(watched::established(&world, 100_000, runs, frames)),
        "new:1000000": of(watched::new_connections(&world, 1_000_000, runs)),
    } })
}
