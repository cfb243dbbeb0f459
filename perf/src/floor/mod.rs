//! The appliance and its peers on the same traffic, rules and core: the programs, and the
//! arithmetic.

pub mod appliance;
pub mod cpu;
pub mod kernel;
pub mod ovs;
pub mod rules;
mod source;
pub mod testpmd;
pub mod traffic;

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

use crate::cores::cores;

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

/// How many flows there are, and rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Setting {
    /// Flows, a frame each and direction.
    pub flows: u32,
    /// Rules, of which one admits them.
    pub rules: u32,
}

impl Setting {
    /// 10,000 flows and 50 rules.
    pub const USUAL: Setting = Setting { flows: 10_000, rules: 50 };
}

/// Where and on what the programs run.
#[derive(Debug)]
pub struct Bench<'a> {
    /// The appliance.
    pub binary: &'a Path,
    /// For captures, configurations and sockets.
    pub directory: &'a Path,
    /// What all programs are given.
    pub captures: traffic::Captures,
    /// The core for everything else.
    pub others: usize,
    /// The core that is measured.
    pub core: usize,
}

/// Who forwards.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Program {
    /// The appliance, one worker.
    Portcullis,
    /// DPDK's forwarder, which knows no connection and no rule: the floor.
    Testpmd,
    /// Open vSwitch's userspace switch over DPDK, with its own connection tracking.
    Ovs,
    /// The kernel, with connection tracking and nftables.
    Nftables,
    /// The kernel, forwarding without either.
    Forwarding,
}

impl Program {
    /// All of them.
    pub const ALL: [Program; 5] =
        [Program::Portcullis, Program::Testpmd, Program::Ovs, Program::Nftables, Program::Forwarding];

    /// In tables and in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Program::Portcullis => "portcullis",
            Program::Testpmd => "testpmd",
            Program::Ovs => "ovs",
            Program::Nftables => "nftables",
            Program::Forwarding => "forwarding",
        }
    }

    /// What this machine lacks for it; `None` if it can be measured here.
    pub fn missing(self) -> Option<String> {
        match self {
            Program::Portcullis => None,
            Program::Testpmd => lacks(&["dpdk-testpmd", "stdbuf"], "dpdk-dev"),
            Program::Ovs => ovs::missing(),
            Program::Nftables | Program::Forwarding => kernel::missing(),
        }
    }

    /// Why it is left out of this setting; `None` if it is not. Rules are nothing to testpmd and
    /// plain forwarding: they are measured in the usual number only.
    pub fn left_out(self, setting: Setting) -> Option<String> {
        let knows_rules = !matches!(self, Program::Testpmd | Program::Forwarding);
        if !knows_rules && setting.rules != Setting::USUAL.rules {
            return Some("knows no rules".to_owned());
        }
        match self {
            Program::Portcullis | Program::Testpmd => memory_for(setting.flows),
            Program::Ovs => ovs::left_out(setting),
            Program::Nftables => kernel::left_out(setting),
            Program::Forwarding => None,
        }
    }

    /// How fast it forwards over this time, from its start to its end.
    pub fn measure(self, bench: &Bench<'_>, setting: Setting, time: Duration) -> io::Result<Rate> {
        let rate = match self {
            Program::Portcullis => appliance::measure(bench, setting, time),
            Program::Testpmd => testpmd::measure(bench, setting, time),
            Program::Ovs => ovs::measure(bench, setting, time),
            Program::Nftables => kernel::measure(bench, setting, kernel::Work::Filter, time),
            Program::Forwarding => kernel::measure(bench, setting, kernel::Work::Forward, time),
        };
        rate.map_err(|error| io::Error::other(format!("{}, {setting:?}: {error}", self.name())))
    }
}

/// The first of these commands that is not there, and whose package it is.
fn lacks(commands: &[&str], package: &str) -> Option<String> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let directories: Vec<PathBuf> = std::env::split_paths(&path).collect();
    let absent = commands
        .iter()
        .find(|command| !directories.iter().any(|directory| directory.join(command).is_file()))?;
    Some(format!("{absent} is missing (Debian: {package})"))
}

/// Megabytes of buffers for a frame of every flow and direction, which `infinite_rx` keeps.
fn buffers_mb(flows: u32) -> u64 {
    /// A page each, for no buffer crosses one without huge pages, and what else grows with them.
    const BUFFER: u64 = 4352;
    (u64::from(flows) * 2 * BUFFER) >> 20
}

/// Why a DPDK program cannot hold a frame of each flow in this machine's memory; `None` if it can.
fn memory_for(flows: u32) -> Option<String> {
    let needed = 3072 + buffers_mb(flows);
    let available = fs::read_to_string("/proc/meminfo").ok().and_then(|text| available_mb(&text))?;
    (needed > available).then(|| format!("needs {needed} MB, {available} are free"))
}

fn available_mb(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    Some(line.split_whitespace().next()?.parse::<u64>().ok()? >> 10)
}

/// No huge pages, and memory: the same for all programs.
fn eal_memory(flows: u32) -> [String; 3] {
    ["--no-huge".to_owned(), "-m".to_owned(), (1024 + buffers_mb(flows)).to_string()]
}

/// The DPDK programs' ports: captures that are received again and again, and what is sent is
/// swallowed.
fn vdevs(captures: &traffic::Captures) -> [String; 2] {
    devices(captures).map(|device| format!("--vdev={device}"))
}

/// The same as DPDK's arguments of a device: inside, outside.
fn devices(captures: &traffic::Captures) -> [String; 2] {
    let device = |index, file: &PathBuf| format!("net_pcap{index},rx_pcap={},infinite_rx=1", file.display());
    [device(0, &captures.inside), device(1, &captures.outside)]
}

/// Rates of these programs, a round of each in turn: a machine that slows down slows all of them
/// down. Progress goes to stderr.
pub fn in_turn(
    binary: &Path,
    directory: &Path,
    programs: &[Program],
    setting: Setting,
    (rounds, time): (u32, Duration),
) -> io::Result<Vec<Vec<Rate>>> {
    let (others, core) = cores()?;
    let captures = traffic::write(directory, setting.flows)?;
    let bench = Bench { binary, directory, captures, others, core };
    let mut rates = vec![Vec::new(); programs.len()];
    for round in 1..=rounds {
        let mut said = Vec::new();
        for (program, rates) in programs.iter().zip(&mut rates) {
            let rate = program.measure(&bench, setting, time)?;
            said.push(format!("{} {:.2}", program.name(), rate.mpps));
            rates.push(rate);
        }
        let Setting { flows, rules } = setting;
        eprintln!("{flows} flows, {rules} rules, round {round} of {rounds}, Mpps: {}", said.join(", "));
    }
    Ok(rates)
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

/// The rate and the share of the core in the middle.
pub fn median_rate(rates: &[Rate]) -> Rate {
    let each = |of: fn(&Rate) -> f64| median(&rates.iter().map(of).collect::<Vec<_>>());
    Rate { mpps: each(|rate| rate.mpps), core_share: each(|rate| rate.core_share) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_in_the_middle() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), 2.5);
        assert_eq!(median(&[]), 0.0);
        let rate = |mpps, core_share| Rate { mpps, core_share };
        let middle = median_rate(&[rate(3.0, 0.5), rate(1.0, 1.0), rate(2.0, 0.4)]);
        assert_eq!((middle.mpps, middle.core_share, middle.per_core()), (2.0, 0.5, 4.0));
    }

    #[test]
    fn memory_is_read_and_grows_with_the_flows() {
        assert_eq!(available_mb("MemTotal: 1 kB\nMemAvailable:   2097152 kB\n"), Some(2048));
        assert_eq!(buffers_mb(1 << 20), 8704);
        assert!(memory_for(u32::MAX).is_some_and(|why| why.contains("MB")));
    }

    #[test]
    fn who_knows_no_rules_is_measured_once() {
        let thousand = Setting { rules: 1000, ..Setting::USUAL };
        for program in Program::ALL {
            let knows_none = matches!(program, Program::Testpmd | Program::Forwarding);
            assert_eq!(program.left_out(thousand).is_some(), knows_none, "{program:?}");
        }
    }

    #[test]
    fn what_is_missing_is_named() {
        assert_eq!(lacks(&["sh"], "dash"), None);
        let said = lacks(&["sh", "no-such-command"], "nowhere");
        assert_eq!(said.as_deref(), Some("no-such-command is missing (Debian: nowhere)"));
    }
}
