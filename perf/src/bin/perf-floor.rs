//! Rates of some programs, on the same traffic and core, in turns. Prints JSON; progress goes to
//! stderr.
//!
//! `PORTCULLIS_BIN=target/release/portcullis perf-floor [ROUNDS [SECONDS [FLOWS [RULES]]]]
//! [PROGRAM…]`
//!
//! Programs are `portcullis`, `testpmd`, `ovs`, `nftables` and `forwarding`; the first two, if none
//! is named.

use std::{env, error::Error, fs, path::PathBuf, time::Duration};

use perf::floor::{Program, Rate, Setting, in_turn, median};
use serde_json::Value;

fn main() -> Result<(), Box<dyn Error>> {
    let binary = PathBuf::from(env::var_os("PORTCULLIS_BIN").ok_or("PORTCULLIS_BIN names no binary")?);
    let words: Vec<String> = env::args().skip(1).collect();
    let first_name = words.iter().position(|word| word.parse::<u32>().is_err()).unwrap_or(words.len());
    let (numbers, names) = words.split_at(first_name);
    let argument = |at: usize, default| numbers.get(at).and_then(|word| word.parse().ok()).unwrap_or(default);
    let (rounds, seconds) = (argument(0, 5), argument(1, 3));
    let setting = Setting { flows: argument(2, 10_000), rules: argument(3, 50) };
    let programs = match names {
        [] => vec![Program::Portcullis, Program::Testpmd],
        names => names.iter().map(|name| program(name)).collect::<Result<_, _>>()?,
    };

    let directory = env::temp_dir().join(format!("perf-floor-{}", std::process::id()));
    fs::create_dir_all(&directory)?;
    let time = Duration::from_secs(seconds.into());
    let measured = in_turn(&binary, &directory, &programs, setting, (rounds, time));
    fs::remove_dir_all(&directory)?;

    let mut result = serde_json::json!({ "flows": setting.flows, "rules": setting.rules });
    for (program, rates) in programs.iter().zip(measured?) {
        result[program.name()] = summary(&rates);
    }
    let ratio = |key: &str| Some(result["portcullis"][key].as_f64()? / result["testpmd"][key].as_f64()?);
    let ratios = [ratio("mpps"), ratio("mpps_per_core")];
    if let [Some(mpps), Some(per_core)] = ratios {
        result["ratio"] = mpps.into();
        result["ratio_per_core"] = per_core.into();
    }
    println!("{}", serde_json::to_string_pretty(&result)?);
    Ok(())
}

fn program(name: &str) -> Result<Program, String> {
    let all = Program::ALL.map(Program::name).join(", ");
    let found = Program::ALL.into_iter().find(|program| program.name() == name);
    found.ok_or(format!("{name:?} is neither a number nor one of {all}"))
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
