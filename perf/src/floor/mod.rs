//! The appliance against DPDK's own forwarder: the traffic, the two programs, and the arithmetic.

pub mod appliance;
pub mod cpu;
pub mod testpmd;
pub mod traffic;

use std::{
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use rustix::thread::sched_getaffinity;

/// What one measurement of one program says.
#[derive(Clone, Copy, Debug)]
pub struct Rate {
    /// Millions of packets forwarded a second.
    pub mpps: f64,
    /// The share of a core that it had for this: 1 on a machine of its own.
    pub core_share: f64,
}

impl Rate {
    /// What it would forward with a core of its own.
    pub fn per_core(&self) -> f64 {
        self.mpps / self.core_share
    }
}

/// No huge pages, and memory: the same for both programs.
pub const EAL_MEMORY: [&str; 3] = ["--no-huge", "-m", "1024"];

/// The two programs' ports: captures that are received again and again, and what is sent is swallowed.
pub fn vdevs(captures: &traffic::Captures) -> [String; 2] {
    let vdev =
        |index, file: &PathBuf| format!("--vdev=net_pcap{index},rx_pcap={},infinite_rx=1", file.display());
    [vdev(0, &captures.inside), vdev(1, &captures.outside)]
}

/// The core for everything else, and the one that is measured: the first and the last of those that this process may use.
pub fn cores() -> io::Result<(usize, usize)> {
    let allowed = sched_getaffinity(None)?;
    let mut cores = (0..1024).filter(|&core| allowed.is_set(core));
    let first = cores.next().ok_or(io::ErrorKind::Unsupported)?;
    match cores.next_back() {
        Some(last) => Ok((first, last)),
        None => Err(io::Error::other("a comparison needs two cores: one is polled without end")),
    }
}

/// Rates of both over `flows` flows, the appliance's first, a round each in turn: a machine that slows down slows both down.
/// Progress goes to stderr.
pub fn in_turn(
    binary: &Path,
    directory: &Path,
    rounds: u32,
    time: Duration,
    flows: u32,
) -> io::Result<(Vec<Rate>, Vec<Rate>)> {
    let (others, core) = cores()?;
    let captures = traffic::write(directory, flows)?;
    let (mut ours, mut floor) = (Vec::new(), Vec::new());
    for round in 1..=rounds {
        let appliance = appliance::Appliance::start(binary, directory, &captures, core)?;
        let measured = appliance.measure(time);
        appliance.stop()?;
        let (mine, testpmds) = (measured?, testpmd::measure(&captures, others, core, time)?);
        eprintln!(
            "round {round} of {rounds}: portcullis {:.2} Mpps, testpmd {:.2} Mpps",
            mine.mpps, testpmds.mpps
        );
        ours.push(mine);
        floor.push(testpmds);
    }
    Ok((ours, floor))
}

/// The value in the middle.
pub fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    match sorted.len() {
        0 => 0.0,
        len if len % 2 == 1 => sorted[len / 2],
        len => (sorted[len / 2 - 1] + sorted[len / 2]) / 2.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_in_the_middle() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), 2.5);
        assert_eq!(median(&[]), 0.0);
    }
}
