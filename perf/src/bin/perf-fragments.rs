//! Cycles a fragment in the hand-off router's table, chosen by a stranger and random: see
//! [`perf::fragments`]. A table, or JSON. Fails where a chosen fragment costs more than twice a
//! random one.

use std::error::Error;

use clap::Parser;
use perf::fragments::costs;
use serde_json::json;

/// What fragments of a stranger's choice cost beside random ones.
#[derive(Parser)]
struct Options {
    /// Runs of which the median counts.
    #[arg(long, default_value_t = 31)]
    runs: usize,
    /// The core to run on.
    #[arg(long)]
    core: Option<usize>,
    /// One JSON object instead of a table.
    #[arg(long)]
    json: bool,
}

fn main() -> Result<(), Box<dyn Error>> {
    let options = Options::parse();
    if let Some(core) = options.core {
        core_affinity::set_for_current(core_affinity::CoreId { id: core });
    }
    let costs = costs(options.runs);
    let random = costs[0].router;
    if options.json {
        let figures: serde_json::Map<_, _> =
            costs.iter().map(|cost| (cost.choice.to_owned(), json!(cost.router))).collect();
        println!("{}", json!(figures));
    } else {
        for cost in &costs {
            println!("{:<20}{:>8.1} cycles{:>8.2} × random", cost.choice, cost.router, cost.router / random);
        }
    }
    match costs.iter().find(|cost| cost.router > 2.0 * random) {
        Some(cost) => Err(format!("{}: more than twice a random one", cost.choice).into()),
        None => Ok(()),
    }
}
