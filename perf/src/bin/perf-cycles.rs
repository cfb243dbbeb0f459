//! Cycles a packet on one core, case by case: see [`perf::cases`]. One JSON object on stdout, progress on stderr.

use std::error::Error;

use clap::Parser;
use perf::cases::{self, Figure, Runs};
use perf::world::{Shape, World};
use serde_json::{Map, Value, json};

/// Cycles a packet on one core: established, denied and new connections, SYN flood.
#[derive(Parser)]
struct Options {
    /// One case alone, as `established:10000`, `denied:50`, `new:1000000`, `flood:1000000`, `udp:10000`, `v6:10000`,
    /// `vxlan:10000`, `nics:10000`.
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
}

const ALL: &[&str] = &[
    "established:1",
    "established:10000",
    "established:100000",
    "established:1000000",
    "established:10000000",
    "cold:1",
    "hot:10000",
    "udp:10000",
    "v6:10000",
    "vxlan:10000",
    "nics:1",
    "nics:10000",
    "denied:50",
    "denied:250",
    "denied:1000",
    "new:1000000",
    "flood:1000000",
];

fn main() -> Result<(), Box<dyn Error>> {
    let options = Options::parse();
    if let Some(core) = options.core {
        core_affinity::set_for_current(core_affinity::CoreId { id: core });
    }
    let names: Vec<String> = match options.case.is_empty() {
        true => ALL.iter().map(|name| (*name).to_owned()).collect(),
        false => options.case,
    };
    let mut figures = Map::new();
    for name in names {
        let figure = run(&name, options.runs, options.frames)?;
        eprintln!("{name}: {}", figure.json());
        figures.insert(name, figure.json());
    }
    println!("{}", json!({ "cycles": Value::Object(figures) }));
    Ok(())
}

fn run(name: &str, runs: usize, frames: usize) -> Result<Figure, Box<dyn Error>> {
    let (case, number) = name.split_once(':').ok_or_else(|| format!("{name}: a case is NAME:NUMBER"))?;
    let n: u32 = number.parse()?;
    let long = Runs { runs, frames: frames.max(n as usize) };
    let short = Runs { runs, frames };
    let usual = World::USUAL;
    Ok(match case {
        "established" => cases::established(&usual, n, n > 1, long),
        "cold" => cases::established(&usual, n, true, long),
        "hot" => cases::established(&usual, n, false, long),
        "udp" => cases::datagrams(&usual, n, true, long),
        "v6" => cases::established(&World { shape: Shape::V6, ..usual }, n, true, long),
        "vxlan" => cases::established(&World { shape: Shape::Vxlan, ..usual }, n, true, long),
        "nics" => cases::established(&World { nics: n, ..usual }, 10_000, true, short),
        "denied" => cases::denied(&World { rules: n, ..usual }, short),
        "new" => cases::new_connections(&usual, n, runs),
        "flood" => cases::syn_flood(&usual, n, short),
        _ => return Err(format!("{name}: no such case").into()),
    })
}
