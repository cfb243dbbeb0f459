//! The rigs of two cores: see [`perf::rigs`]. `scripts/bench-rigs` builds and runs it.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, ValueEnum};
use perf::floor::median;
use perf::rigs::measure::{Effort, Measured, Rig, measure, medians};
use perf::rigs::memif::Memif;
use perf::rigs::programs::Bench;
use perf::rigs::rings::Rings;
use perf::rigs::workers::{self, Row};
use serde_json::{Map, Value, json};

/// Two cores: the highest rate without loss and latencies below it, over net_memif and net_ring,
/// and two workers against one.
#[derive(Parser)]
struct Options {
    /// Only this one; several times for several [default: all]
    #[arg(long, value_enum)]
    rig: Vec<Name>,
    /// Rounds, of which medians count
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=99))]
    rounds: u32,
    /// Seconds of each measurement of latencies and of workers
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u64).range(1..=60))]
    seconds: u64,
    /// Milliseconds of a trial of the search
    #[arg(long, default_value_t = 500, value_parser = clap::value_parser!(u64).range(10..=60_000))]
    trial: u64,
    /// The highest rate tried, in millions of packets a second
    #[arg(long, default_value_t = 12.0)]
    max_rate: f64,
    /// Flows of the two workers
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(16..=1_000_000))]
    flows: u32,
    /// What to print
    #[arg(short, long, value_enum, default_value_t = Output::Table)]
    output: Output,
    /// The appliance; the generator lies beside it
    #[arg(long, env = "PORTCULLIS_BIN", default_value = "target/release/portcullis")]
    portcullis: PathBuf,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Name {
    /// Two processes over shared memory.
    Memif,
    /// One process, buffers passed on.
    Ring,
    /// Two workers against one.
    Workers,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Output {
    /// For people.
    Table,
    /// One object.
    Json,
}

fn main() -> Result<ExitCode, Box<dyn Error>> {
    let options = Options::parse();
    let directory = tempfile::tempdir()?;
    let Ok(portcullis) = options.portcullis.canonicalize() else {
        eprintln!(
            "--portcullis {}: no such file; allowed: a binary that was built",
            options.portcullis.display()
        );
        return Ok(ExitCode::from(2));
    };
    let result = run(&options, &portcullis, directory.path())?;
    if options.output == Output::Json {
        println!("{}", Value::Object(result));
    }
    Ok(ExitCode::SUCCESS)
}

fn run(options: &Options, portcullis: &Path, directory: &Path) -> Result<Map<String, Value>, Box<dyn Error>> {
    let bench = Bench::new(portcullis, directory)?;
    let wants = |name| options.rig.is_empty() || options.rig.contains(&name);
    let is_table = options.output == Output::Table;
    let effort = Effort {
        rounds: options.rounds,
        max_pps: options.max_rate * 1e6,
        trial: Duration::from_millis(options.trial),
        time: Duration::from_secs(options.seconds),
    };
    let mut result = Map::new();
    if wants(Name::Memif) {
        generated(&mut Memif::new(bench.clone()), &effort, is_table, &mut result)?;
    }
    if wants(Name::Workers) {
        let alone: Vec<f64> = (0..options.rounds.max(3))
            .map(|_| on_thread(|| workers::arithmetic([bench.generator, bench.forwarder])))
            .collect();
        let arithmetic = median(&alone);
        let rows = workers::measure(&bench, options.flows, options.rounds, effort.time)?;
        if is_table {
            print_workers(&rows);
            println!("arithmetic that shares nothing, two cores of one: {arithmetic:.2}\n");
        }
        let told: Vec<Value> = rows.iter().map(|row| row.json(&rows)).collect();
        result.insert("workers".to_owned(), json!({"rows": told, "arithmetic": arithmetic}));
    }
    // Last: EAL's threads of this process stay until it ends.
    if wants(Name::Ring) {
        generated(&mut Rings::new((bench.generator, bench.forwarder))?, &effort, is_table, &mut result)?;
    }
    Ok(result)
}

/// What pins itself leaves this thread where it was.
fn on_thread<T: Send>(run: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        scope.spawn(run).join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// A rig with a generator.
fn generated(
    rig: &mut impl Rig,
    effort: &Effort,
    is_table: bool,
    result: &mut Map<String, Value>,
) -> std::io::Result<()> {
    let measured = measure(rig, effort)?;
    if is_table {
        print_generated(rig, &measured);
    }
    let [ours, floor] = &measured;
    let ratio =
        |of: fn(&Measured) -> &[perf::rigs::measure::Delay]| medians(of(ours))[2] / medians(of(floor))[2];
    let told = json!({
        "portcullis": ours.json(),
        "floor": floor.json(),
        "floor_is": rig.floor(),
        "ndr_ratio": median(&ours.ndr) / median(&floor.ndr),
        "p99_9_ratio_at_80_of_own": ratio(|measured| &measured.own),
        "p99_9_ratio_at_80_of_smaller": ratio(|measured| &measured.common),
    });
    result.insert(rig.name().to_owned(), told);
    Ok(())
}

fn print_generated(rig: &impl Rig, [ours, floor]: &[Measured; 2]) {
    println!("{}: UDP of 64 bytes both ways, 10,000 flows; the floor is {}", rig.name(), rig.floor());
    println!(
        "{:<12}{:>10}{:>8}{:>34}{:>34}",
        "", "NDR", "", "at 80 % of its own, us", "at 80 % of the smaller, us"
    );
    println!(
        "{:<12}{:>10}{:>8}{:>34}{:>34}",
        "", "Mpps", "", "p50 / p99 / p99.9  lost", "p50 / p99 / p99.9  lost"
    );
    for (name, measured) in [("portcullis", ours), ("floor", floor)] {
        let delay = |delays: &[perf::rigs::measure::Delay]| {
            let [p50, p99, p99_9] = medians(delays).map(|ns| ns / 1000.0);
            let lost: u64 = delays.iter().map(|delay| delay.lost).sum();
            format!("{p50:.1} / {p99:.1} / {p99_9:.1}  {lost}")
        };
        let note = if measured.at_maximum { "(most)" } else { "" };
        println!(
            "{name:<12}{:>10.2}{note:>8}{:>34}{:>34}",
            median(&measured.ndr) / 1e6,
            delay(&measured.own),
            delay(&measured.common)
        );
    }
    println!();
}

fn print_workers(rows: &[Row]) {
    println!("workers: net_pcap, every packet established");
    println!(
        "{:<30}{:>10}{:>10}{:>14}{:>16}{:>16}",
        "", "Mpps", "cores", "of 1 core", "% handoff-full", "round trip, ns"
    );
    for row in rows {
        let cores = median(&row.rates.iter().map(|rate| rate.core_share).collect::<Vec<_>>());
        let (mpps, full) = (row.mpps(), 100.0 * median(&row.full));
        let (scaling, trip) = (row.scaling(rows), median(&row.round_trips));
        println!("{:<30}{mpps:>10.2}{cores:>10.2}{scaling:>14.2}{full:>16.2}{trip:>16.0}", row.case.name);
    }
    println!();
}
