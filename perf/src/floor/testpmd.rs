//! DPDK's own forwarder on the same ports: `5tswap` reads and swaps the five-tuple and knows no connection. It is the floor: what
//! receiving, touching the headers and sending cost by themselves.

use std::{io, process::Command, time::Duration};

use testkit::lab::Process;

use super::{EAL_MEMORY, median, traffic::Captures, vdevs};

/// Millions of packets forwarded a second, over about this time.
pub fn measure(captures: &Captures, others: usize, core: usize, time: Duration) -> io::Result<f64> {
    let mut command = Command::new("dpdk-testpmd");
    command.args(["-l", &format!("{others},{core}"), "--main-lcore", &others.to_string()]);
    command.args(["--no-pci", "--no-telemetry", &format!("--file-prefix=floor{}", std::process::id())]);
    command.args(EAL_MEMORY).args(vdevs(captures));
    command.args(["--", "--forward-mode=5tswap", "--nb-cores=1", "--no-flush-rx", "--no-lsc-interrupt"]);
    command.args(["--total-num-mbufs=65536", "--stats-period=1"]);
    let testpmd = Process::start(command)?;
    testpmd.wait_for("Tx-pps", Duration::from_secs(30))?;
    // Its own warm-up, and the seconds that are measured.
    std::thread::sleep(Duration::from_secs(1) + time);
    let said = testpmd.stdout();
    testpmd.interrupt(Duration::from_secs(10))?;
    let rates = rates(&said);
    // The first two lie in the start.
    match rates.get(2..) {
        Some(rates @ [_, ..]) => Ok(median(rates) / 1e6),
        _ => Err(io::Error::other(format!("no rates from dpdk-testpmd:\n{said}"))),
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
