//! DPDK's own forwarder on the same ports: `5tswap` reads and swaps the five-tuple and knows no
//! connection. It is the floor: what receiving, touching the headers and sending cost by
//! themselves.

use std::{
    io,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use testkit::lab::Process;

use super::{Bench, Rate, Setting, cpu::Cpu, eal_memory, median, vdevs};

/// Reports that lie in its start.
const WARM_UP: usize = 2;

/// How fast it forwards over so many seconds.
pub fn measure(bench: &Bench<'_>, setting: Setting, time: Duration) -> io::Result<Rate> {
    let (others, core) = (bench.others, bench.core);
    // Its reports come once a second, and late through a pipe's buffer.
    let mut command = Command::new("stdbuf");
    command.args([
        "-oL",
        "dpdk-testpmd",
        "-l",
        &format!("{others},{core}"),
        "--main-lcore",
        &others.to_string(),
    ]);
    command.args(["--no-pci", "--no-telemetry", &format!("--file-prefix=floor{}", std::process::id())]);
    command.args(eal_memory(setting.flows)).args(vdevs(&bench.captures));
    command.args(["--", "--forward-mode=5tswap", "--nb-cores=1", "--no-flush-rx", "--no-lsc-interrupt"]);
    command.args([&format!("--total-num-mbufs={}", 65_536 + 2 * setting.flows), "--stats-period=1"]);
    let testpmd = Process::start(command)?;
    await_reports(&testpmd, WARM_UP)?;
    let before = Cpu::of(testpmd.id())?;
    let rates = await_reports(&testpmd, WARM_UP + time.as_secs().max(1) as usize)?;
    let core_share = Cpu::of(testpmd.id())?.share_since(before);
    testpmd.interrupt(Duration::from_secs(10))?;
    Ok(Rate { mpps: median(&rates[WARM_UP..]) / 1e6, core_share })
}

fn await_reports(testpmd: &Process, wanted: usize) -> io::Result<Vec<f64>> {
    let until = Instant::now() + Duration::from_secs(90 + wanted as u64);
    loop {
        let rates = rates(&testpmd.stdout());
        if rates.len() >= wanted {
            return Ok(rates);
        }
        if Instant::now() > until {
            let (said, complained) = (testpmd.stdout(), testpmd.stderr());
            return Err(io::Error::other(format!("no rates from dpdk-testpmd:\n{said}\n{complained}")));
        }
        thread::sleep(Duration::from_millis(10));
    }
}

/// Packets a second sent by both ports, each second.
fn rates(said: &str) -> Vec<f64> {
    let each: Vec<f64> = said
        .lines()
        .filter_map(|line| line.trim().strip_prefix("Tx-pps:")?.split_whitespace().next()?.parse().ok())
        .collect();
    each.chunks_exact(2).map(|ports| ports.iter().sum()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rates_of_both_ports_add_up() {
        let said = "  Rx-pps:  9  Rx-bps: 0\n  Tx-pps:            5          Tx-bps:            0\n\
                      Tx-pps:            7          Tx-bps:            0\n  Tx-pps:  1 Tx-bps: 0\n";
        assert_eq!(rates(said), [12.0]);
    }
}
