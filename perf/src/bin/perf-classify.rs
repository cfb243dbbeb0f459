//! The classifier alone beside `dpdk-test-acl`: sets of rules after ClassBench, the same headers,
//! the same core, in turn. A table, or JSON. Exit status 1 if the two differ over a header, or
//! DPDK's program is not there.

use std::error::Error;

use clap::Parser;
use perf::cases::round;
use perf::classify::{Outcome, Plan, compare};
use perf::cores::cores;
use serde_json::json;

/// Cycles a header of the classifier alone, beside DPDK's.
#[derive(Parser)]
struct Options {
    /// How many rules a set has.
    #[arg(long, default_values_t = [50, 250, 1000, 10_000])]
    rules: Vec<usize>,
    /// Rounds in turn of which the median counts.
    #[arg(long, default_value_t = 9)]
    runs: usize,
    /// Passes through the 65,536 headers a round.
    #[arg(long, default_value_t = 30)]
    passes: usize,
    /// What sets and headers are drawn from.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// One JSON object instead of a table.
    #[arg(long)]
    json: bool,
}

fn main() -> Result<(), Box<dyn Error>> {
    let options = Options::parse();
    let (_, core) = cores()?;
    core_affinity::set_for_current(core_affinity::CoreId { id: core });
    let Options { runs, passes, seed, .. } = options;
    let plan = Plan { runs, passes, core, seed };
    let directory = tempfile::tempdir()?;
    let mut outcomes = Vec::new();
    for rules in options.rules {
        eprintln!("{rules} rules");
        outcomes.push(compare(rules, &plan, directory.path())?);
    }
    if options.json {
        let object = |o: &Outcome| {
            let each: serde_json::Map<_, _> =
                o.each.iter().map(|(name, c)| ((*name).to_owned(), round(*c))).collect();
            let counters = json!({
                "portcullis": round(o.ours), "test_acl": round(o.acl), "algorithm": o.algorithm,
                "hits_percent": round(o.hits), "ratio": (o.ratio() * 100.0).round() / 100.0, "algorithms": each,
            });
            (o.rules.to_string(), counters)
        };
        println!(
            "{}",
            json!({ "classify_cycles": outcomes.iter().map(object).collect::<serde_json::Map<_, _>>() })
        );
        return Ok(());
    }
    println!(
        "{:>7}{:>8}{:>12}{:>10}{:>7}  cycles a header; all of test-acl's ways",
        "rules", "hits %", "portcullis", "test-acl", "ratio"
    );
    for o in &outcomes {
        let each: Vec<String> = o.each.iter().map(|(name, cycles)| format!("{name} {cycles:.0}")).collect();
        println!(
            "{:>7}{:>8.1}{:>12.1}{:>10.1}{:>7.2}  {}",
            o.rules,
            o.hits,
            o.ours,
            o.acl,
            o.ratio(),
            each.join(", ")
        );
    }
    Ok(())
}
