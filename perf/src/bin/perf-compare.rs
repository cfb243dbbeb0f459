//! The appliance's figures and its peers' in one run: cycles a packet by flows and rules against bare lookups, packets a second
//! against DPDK's own forwarder on the same ports and core. `scripts/compare` builds and runs it.

use std::{env, error::Error, fs, path::PathBuf, time::Duration};

use clap::Parser;
use perf::cases::{self, Figure, Runs, round};
use perf::compare::{Floor, svg};
use perf::floor::{cores, median};
use perf::world::World;
use serde_json::{Map, Value, json};

/// Compares the appliance with its floor: one table, or one JSON object.
#[derive(Parser)]
struct Options {
    /// Fewer runs, no 10 million flows, no plot: less than 50 seconds.
    #[arg(long)]
    quick: bool,
    /// One JSON object on standard output and nothing else.
    #[arg(long)]
    json: bool,
    /// Where the plot goes.
    #[arg(long, default_value = "target/compare.svg")]
    plot: PathBuf,
}

fn main() -> Result<(), Box<dyn Error>> {
    let options = Options::parse();
    let binary = PathBuf::from(env::var_os("PORTCULLIS_BIN").ok_or("PORTCULLIS_BIN names no binary")?);
    let (_, core) = cores()?;
    let cycles = on_core(core, || measure(options.quick));
    let (rounds, seconds) = if options.quick { (2, 2) } else { (5, 3) };
    let directory = tempfile::tempdir()?;
    let floor = Floor::measure(&binary, directory.path(), rounds, Duration::from_secs(seconds))?;
    let result = result(&cycles, &floor);
    if options.json {
        println!("{result}");
    } else {
        print_table(&cycles, &floor);
    }
    if !options.quick {
        fs::write(&options.plot, svg(&cycles.established, &cycles.denied))?;
        eprintln!("plot: {}", options.plot.display());
    }
    Ok(())
}

/// The cycle cases.
struct Measured {
    established: Vec<(u32, Figure)>,
    denied: Vec<(u32, Figure)>,
    new: Figure,
}

fn measure(quick: bool) -> Measured {
    let runs = 9;
    let flows: &[u32] =
        if quick { &[1, 10_000, 100_000, 1_000_000] } else { &[1, 10_000, 100_000, 1_000_000, 10_000_000] };
    let rules: &[u32] = if quick { &[50, 1000] } else { &[1, 50, 250, 1000] };
    let usual = World::USUAL;
    let frames = if quick { 200_000 } else { 1_000_000 };
    let established = flows.iter().map(|&flows| {
        eprintln!("established, {flows} flows");
        let frames = if quick { frames } else { frames.max(flows as usize) };
        (flows, cases::established(&usual, flows, flows > 1, Runs { runs, frames }))
    });
    let established = established.collect();
    let denied = rules.iter().map(|&rules| {
        eprintln!("denied, {rules} rules");
        (rules, cases::denied(&World { rules, ..usual }, Runs { runs, frames }))
    });
    let denied = denied.collect();
    eprintln!("new connections");
    Measured { established, denied, new: cases::new_connections(&usual, 1_000_000, runs) }
}

/// Runs it on a thread that is pinned to a core: what follows inherits nothing.
fn on_core<T: Send>(core: usize, run: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let measuring = scope.spawn(|| {
            core_affinity::set_for_current(core_affinity::CoreId { id: core });
            run()
        });
        measuring.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

fn by_number(figures: &[(u32, Figure)], of: impl Fn(&Figure) -> Option<f64>) -> Value {
    let each = figures.iter().filter_map(|(n, figure)| Some((n.to_string(), round(of(figure)?))));
    Value::Object(each.collect::<Map<_, _>>())
}

fn result(cycles: &Measured, floor: &Floor) -> Value {
    let all = cycles.established.iter().chain(&cycles.denied).map(|(_, figure)| figure);
    let calib: Vec<f64> = all.chain([&cycles.new]).map(|figure| figure.calib).collect();
    json!({
        "calib": round(median(&calib)),
        "bare_cycles": by_number(&cycles.established, |figure| figure.bare),
        "engine_cycles": by_number(&cycles.established, |figure| Some(figure.engine)),
        "denied_cycles": by_number(&cycles.denied, |figure| Some(figure.engine)),
        "new_connection_cycles": round(cycles.new.engine),
        "mpps": floor.ours,
        "floor_mpps": floor.testpmd,
        "floor_ratio": floor.ratio(),
        "ovs_ratio": Value::Null,
    })
}

fn print_table(cycles: &Measured, floor: &Floor) {
    println!("{:<28}{:>10}{:>10}{:>10}", "cycles a packet", "engine", "bare", "calib");
    let row = |name: String, figure: &Figure| {
        let bare = figure.bare.map_or("-".to_owned(), |bare| format!("{bare:.1}"));
        println!("{name:<28}{:>10.1}{bare:>10}{:>10.1}", figure.engine, figure.calib);
    };
    for (flows, figure) in &cycles.established {
        row(format!("established, {flows} flows"), figure);
    }
    for (rules, figure) in &cycles.denied {
        row(format!("denied, {rules} rules"), figure);
    }
    row("new, at 1000000 held".to_owned(), &cycles.new);
    println!(
        "\nMpps, 10000 flows: portcullis {:.2}, testpmd 5tswap {:.2}, ratio {:.2}",
        floor.ours,
        floor.testpmd,
        floor.ratio()
    );
}
