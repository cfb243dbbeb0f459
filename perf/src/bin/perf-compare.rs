//! The appliance's figures and its peers' in one run: cycles a packet by flows and rules against
//! bare lookups, packets a second against DPDK's own forwarder, Open vSwitch over DPDK and the
//! kernel on the same traffic, rules and core. `scripts/compare` builds and runs it.

use std::{collections::BTreeSet, env, error::Error, fs, path::PathBuf, process::ExitCode, time::Duration};

use clap::Parser;
use perf::cases::{self, Figure, Runs, round};
use perf::compare::Rates;
use perf::cores::cores;
use perf::floor::{Program, Setting, median};
use perf::plot::svg;
use perf::world::World;
use serde_json::{Map, Value, json};

/// Compares the appliance with bare look-ups, DPDK's testpmd, Open vSwitch over DPDK, and the
/// kernel: tables, or one JSON object.
///
/// Cycles a packet are counted on a port in memory; packets a second on two net_pcap ports (the
/// kernel: two veth pairs), one core, a frame a flow and direction, every packet of an established
/// connection but for testpmd and plain forwarding, which know none. Takes about 10 minutes, root,
/// and two cores; progress goes to stderr.
#[derive(Parser)]
struct Options {
    /// Less than 50 seconds: no 10 million flows, packets a second against testpmd alone (ovs_ratio
    /// is null), no plot.
    #[arg(long)]
    quick: bool,
    /// One JSON object on standard output and nothing else.
    #[arg(long)]
    json: bool,
    /// Rounds of every program at 10,000 flows and 50 rules; of other numbers there are two at
    /// most.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..), conflicts_with = "quick")]
    rounds: u32,
    /// Seconds that each program is measured in a round.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u64).range(1..), conflicts_with = "quick")]
    seconds: u64,
    /// Where the plot goes.
    #[arg(long, default_value = "target/compare.svg")]
    plot: PathBuf,
}

fn main() -> ExitCode {
    match run(&Options::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("compare: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> Result<(), Box<dyn Error>> {
    let binary = PathBuf::from(env::var_os("PORTCULLIS_BIN").ok_or("PORTCULLIS_BIN names no binary")?);
    // Known before minutes have gone into cycles.
    let wanted = if options.quick { &Program::ALL[..2] } else { &Program::ALL[..] };
    let missing: Vec<String> = wanted
        .iter()
        .filter_map(|program| program.missing().map(|what| format!("{}: {what}", program.name())))
        .collect();
    if !missing.is_empty() {
        return Err(missing.join("; ").into());
    }
    let (_, core) = cores()?;
    let cycles = on_core(core, || measure(options.quick));
    let directory = tempfile::tempdir()?;
    let rates = match options.quick {
        true => Rates::quick(&binary, directory.path())?,
        false => {
            let time = Duration::from_secs(options.seconds);
            Rates::whole(&binary, directory.path(), options.rounds, time)?
        }
    };
    if options.json {
        println!("{}", result(&cycles, &rates, options.quick));
    } else {
        print_cycles(&cycles);
        print_rates(&rates);
    }
    if !options.quick {
        fs::write(&options.plot, svg(&cycles.established, &cycles.denied, &rates))?;
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

fn result(cycles: &Measured, rates: &Rates, quick: bool) -> Value {
    let all = cycles.established.iter().chain(&cycles.denied).map(|(_, figure)| figure);
    let calib: Vec<f64> = all.chain([&cycles.new]).map(|figure| figure.calib).collect();
    let mut result = json!({
        "calib": round(median(&calib)),
        "bare_cycles": by_number(&cycles.established, |figure| figure.bare),
        "engine_cycles": by_number(&cycles.established, |figure| Some(figure.engine)),
        "denied_cycles": by_number(&cycles.denied, |figure| Some(figure.engine)),
        "new_connection_cycles": round(cycles.new.engine),
        "mpps": rates.usual.mpps(Program::Portcullis),
        "floor_mpps": rates.usual.mpps(Program::Testpmd),
        "floor_ratio": rates.usual.ratio_to(Program::Testpmd),
        "ovs_ratio": rates.usual.ratio_to(Program::Ovs),
    });
    if !quick {
        result["nftables_ratio"] = json!(rates.usual.ratio_per_core(Program::Nftables));
        result["rates"] = rates.json();
    }
    result
}

fn print_cycles(cycles: &Measured) {
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
}

fn print_rates(rates: &Rates) {
    print!("\n{:<28}", "Mpps");
    let programs: Vec<Program> = rates.usual.rates.iter().map(|(program, _)| *program).collect();
    programs.iter().for_each(|program| print!("{:>12}", program.name()));
    println!();
    let mut left_out = BTreeSet::new();
    for row in [&rates.usual].into_iter().chain(&rates.others) {
        let Setting { flows, rules } = row.setting;
        print!("{:<28}", format!("{flows} flows, {rules} rules"));
        for (program, rate) in &row.rates {
            match rate {
                Ok(rate) => print!("{:>12.2}", rate.mpps),
                Err(why) => {
                    print!("{:>12}", "-");
                    left_out.insert(format!("{}, {flows} flows, {rules} rules: {why}", program.name()));
                }
            }
        }
        println!();
    }
    for program in &programs[1..] {
        let ratios = rates.usual.ratio_to(*program).zip(rates.usual.ratio_per_core(*program));
        if let (Some((measured, per_core)), Some(rate)) = (ratios, rates.usual.rate(*program)) {
            println!(
                "portcullis / {}: {measured:.2}; with a core each {per_core:.2} ({} had {:.2} of one)",
                program.name(),
                program.name(),
                rate.core_share
            );
        }
    }
    for why in left_out {
        println!("left out: {why}");
    }
}
