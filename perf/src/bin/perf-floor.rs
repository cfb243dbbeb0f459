//! The appliance against `dpdk-testpmd`, on the same ports and core, in turns. Prints JSON; progress goes to stderr.
//!
//! `PORTCULLIS_BIN=target/release/portcullis perf-floor [ROUNDS [SECONDS [FLOWS]]]`

use std::{env, error::Error, fs, path::PathBuf, time::Duration};

use perf::floor::{Rate, in_turn, median};
use serde_json::Value;

fn main() -> Result<(), Box<dyn Error>> {
    let binary = PathBuf::from(env::var_os("PORTCULLIS_BIN").ok_or("PORTCULLIS_BIN names no binary")?);
    let numbers: Vec<u32> = env::args().skip(1).map(|number| number.parse()).collect::<Result<_, _>>()?;
    let argument = |at: usize, default| numbers.get(at).copied().unwrap_or(default);
    let (rounds, seconds, flows) = (argument(0, 5), argument(1, 3), argument(2, 10_000));

    let directory = env::temp_dir().join(format!("perf-floor-{}", std::process::id()));
    fs::create_dir_all(&directory)?;
    let compared = in_turn(&binary, &directory, rounds, Duration::from_secs(seconds.into()), flows);
    fs::remove_dir_all(&directory)?;
    let (ours, floor) = compared?;

    let (ours, floor) = (summary(&ours), summary(&floor));
    let ratio = |key: &str| ours[key].as_f64().zip(floor[key].as_f64()).map(|(ours, floor)| ours / floor);
    let result = serde_json::json!({
        "flows": flows,
        "ratio": ratio("mpps"),
        "ratio_per_core": ratio("mpps_per_core"),
        "portcullis": ours,
        "testpmd_5tswap": floor,
    });
    println!("{}", serde_json::to_string_pretty(&result)?);
    Ok(())
}

/// Medians, and what they are the medians of.
fn summary(rates: &[Rate]) -> Value {
    let each = |of: fn(&Rate) -> f64| rates.iter().map(of).collect::<Vec<_>>();
    let (mpps, per_core) = (each(|rate| rate.mpps), each(Rate::per_core));
    serde_json::json!({
        "mpps": median(&mpps),
        "mpps_per_core": median(&per_core),
        "rounds_mpps": mpps,
        "rounds_core_share": each(|rate| rate.core_share),
    })
}
