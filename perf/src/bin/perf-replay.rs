//! How fast `replay` is, and how much memory it takes: a large capture of small packets, on one
//! core. Prints JSON; progress goes to stderr.
//!
//! `PORTCULLIS_BIN=target/release/portcullis perf-replay [ROUNDS [MILLIONS OF PACKETS [CONNECTIONS
//! [pcapng]]]]`

use std::{
    env,
    error::Error,
    fs, io,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use perf::{
    conversations::{self, Conversations, Encoding},
    cores::cores,
    floor::{cpu::Cpu, median},
};

/// One run.
struct Run {
    seconds: f64,
    /// The share of the core that it had.
    core_share: f64,
    /// The most memory of its own that it was seen to have, and of mapped files, in kB.
    anonymous_kb: u64,
    mapped_kb: u64,
}

fn main() -> Result<(), Box<dyn Error>> {
    let binary = PathBuf::from(env::var_os("PORTCULLIS_BIN").ok_or("PORTCULLIS_BIN names no binary")?);
    let mut arguments: Vec<String> = env::args().skip(1).collect();
    let encoding = match arguments.pop_if(|last| last == "pcapng") {
        Some(_) => Encoding::Pcapng,
        None => Encoding::Pcap,
    };
    let numbers: Vec<u64> = arguments.iter().map(|number| number.parse()).collect::<Result<_, _>>()?;
    let argument = |at: usize, default| numbers.get(at).copied().unwrap_or(default);
    let (rounds, packets, clients) = (argument(0, 5), argument(1, 20) * 1_000_000, argument(2, 10_000));

    let directory = env::temp_dir().join(format!("perf-replay-{}", std::process::id()));
    fs::create_dir_all(&directory)?;
    eprintln!("writing {packets} packets of {clients} connections");
    let measured = conversations::write(&directory, encoding, packets, clients as u32)
        .map_err(Box::from)
        .and_then(|captures| measure(&binary, &captures, rounds, packets));
    fs::remove_dir_all(&directory)?;
    let (bytes, runs) = measured?;

    let rates: Vec<f64> = runs.iter().map(|run| packets as f64 / run.seconds / 1e6).collect();
    let shares: Vec<f64> = runs.iter().map(|run| run.core_share).collect();
    let per_core: Vec<f64> = rates.iter().zip(&shares).map(|(rate, share)| rate / share).collect();
    let most = |of: fn(&Run) -> u64| runs.iter().map(of).max();
    let result = serde_json::json!({
        "packets": packets,
        "connections": clients,
        "encoding": format!("{encoding:?}"),
        "capture_bytes": bytes,
        "mpps": median(&rates),
        "mpps_per_core": median(&per_core),
        "rounds_mpps": rates,
        "rounds_core_share": shares,
        "peak_anonymous_kb": most(|run| run.anonymous_kb),
        "peak_mapped_kb": most(|run| run.mapped_kb),
    });
    println!("{}", serde_json::to_string_pretty(&result)?);
    Ok(())
}

fn measure(
    binary: &Path,
    captures: &Conversations,
    rounds: u64,
    packets: u64,
) -> Result<(u64, Vec<Run>), Box<dyn Error>> {
    let (_, core) = cores()?;
    let bytes = fs::metadata(&captures.inside)?.len() + fs::metadata(&captures.outside)?.len();
    let mut runs = Vec::new();
    for round in 1..=rounds {
        let run = run(binary, captures, core, packets)?;
        let rate = packets as f64 / run.seconds / 1e6;
        eprintln!("round {round} of {rounds}: {rate:.2} Mpps, {} kB of its own", run.anonymous_kb);
        runs.push(run);
    }
    Ok((bytes, runs))
}

/// One run on this core; an error unless every packet passed.
fn run(binary: &Path, captures: &Conversations, core: usize, packets: u64) -> Result<Run, Box<dyn Error>> {
    let mut command = Command::new("taskset");
    command.args(["-c", &core.to_string()]).arg(binary).args(["replay", "-o", "json"]);
    command.arg("--policy").arg(&captures.policy);
    command.arg("--inside").arg(&captures.inside).arg("--outside").arg(&captures.outside);
    let start = Instant::now();
    let child = command.stdout(Stdio::piped()).spawn()?;
    let (core_share, [anonymous_kb, mapped_kb]) = watch(&child)?;
    let output = child.wait_with_output()?;
    let seconds = start.elapsed().as_secs_f64();
    let summary: serde_json::Value = serde_json::from_slice(&output.stdout)?;
    if summary["packets"]["pass"] != packets {
        return Err(format!("{packets} packets should pass: {summary}").into());
    }
    Ok(Run { seconds, core_share, anonymous_kb, mapped_kb })
}

/// Until it ends: its share of the core, and the most memory that it has, its own and of mapped
/// files.
fn watch(child: &Child) -> io::Result<(f64, [u64; 2])> {
    let begin = Cpu::of(child.id())?;
    let (mut share, mut most) = (0.0, [0, 0]);
    while let Ok((own, files)) = resident(child.id()) {
        most = [most[0].max(own), most[1].max(files)];
        share = Cpu::of(child.id())?.share_since(begin);
        thread::sleep(Duration::from_millis(5));
    }
    Ok((share, most))
}

/// `RssAnon` and `RssFile` of a process that runs.
fn resident(process: u32) -> io::Result<(u64, u64)> {
    let status = fs::read_to_string(format!("/proc/{process}/status"))?;
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        line.trim().strip_suffix(" kB")?.trim().parse().ok()
    };
    // One that has ended has none.
    field("RssAnon:").zip(field("RssFile:")).ok_or_else(|| io::ErrorKind::NotFound.into())
}
