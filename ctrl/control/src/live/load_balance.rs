//! How evenly the work is spread over the workers, and how near they are to their devices.

use std::fs;

use super::Inner;
use crate::api::types::PortCounters;

/// With fewer frames nothing is said of how they are spread.
const MANY: u64 = 10_000;
/// A worker whose queues bring so much more than an equal part, in percent of it, is told.
const UNEVEN: u64 = 160;

/// What one worker's queues bring.
pub(super) struct QueueLoad {
    /// Its core.
    pub core: usize,
    /// The NUMA node of its core, where the machine has nodes.
    pub numa_node: Option<u32>,
    /// Frames that its queues brought.
    pub received: u64,
    /// Of them, those that belong to others.
    pub handed_over: u64,
}

impl QueueLoad {
    /// In percent of an equal part of all.
    pub fn received_percent(&self, all: &[QueueLoad]) -> u64 {
        let sum: u64 = all.iter().map(|load| load.received).sum();
        self.received * all.len() as u64 * 100 / sum.max(1)
    }
}

/// The NUMA node of a core.
fn node_of(core: usize) -> Option<u32> {
    let entries = fs::read_dir(format!("/sys/devices/system/cpu/cpu{core}")).ok()?;
    let mut names = entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned());
    names.find_map(|name| name.strip_prefix("node")?.parse().ok())
}

impl Inner {
    /// What each worker's queues have brought by now.
    pub(super) fn loads(&self) -> Vec<QueueLoad> {
        let load = |handle: &super::WorkerHandle| QueueLoad {
            core: handle.core,
            numa_node: node_of(handle.core),
            received: handle.counters.received(),
            handed_over: handle.counters.handed_over(),
        };
        self.workers.iter().map(load).collect()
    }
}

impl super::Live {
    /// What an operator should know of how the work is spread: a worker and a sentence each. Nothing while a change is worked out.
    pub fn unevenness(&self) -> Vec<(usize, String)> {
        let Some(inner) = self.inner_now() else { return Vec::new() };
        let (loads, ports) = (inner.loads(), inner.ports_now());
        let of = |id: usize| notes(&loads, id, &ports).into_iter().map(move |note| (id, note));
        (0..loads.len()).flat_map(of).collect()
    }
}

/// What is to be known of one worker.
pub(super) fn notes(all: &[QueueLoad], id: usize, ports: &[PortCounters]) -> Vec<String> {
    let Some(load) = all.get(id) else { return Vec::new() };
    let mut notes = Vec::new();
    let sum: u64 = all.iter().map(|load| load.received).sum();
    if all.len() > 1 && sum >= MANY && load.received_percent(all) >= UNEVEN {
        let (share, even) = (load.received * 100 / sum, 100 / all.len());
        notes.push(format!(
            "its queues bring {share} % of all frames, where {even} % were even: the devices' RSS spreads them so, or few \
             flows carry most"
        ));
    }
    if load.received >= MANY && load.handed_over * 2 > load.received {
        let own: Vec<&str> =
            ports.iter().filter(|port| !port.symmetric_rss).map(|port| port.name.as_str()).collect();
        let why = match &own[..] {
            [] => String::new(),
            ports => format!(": {} take no symmetric key", ports.join(", ")),
        };
        let share = load.handed_over * 100 / load.received;
        notes.push(format!("{share} % of what its queues bring belongs to other workers{why}"));
    }
    for port in ports {
        if let (Some(mine), Some(its)) = (load.numa_node, port.numa_node)
            && mine != its
        {
            notes.push(format!(
                "its core {} is at NUMA node {mine}, {} at node {its}: each frame crosses between them",
                load.core, port.name
            ));
        }
    }
    notes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(numa_node: Option<u32>, received: u64, handed_over: u64) -> QueueLoad {
        QueueLoad { core: 3, numa_node, received, handed_over }
    }

    fn port(name: &str, numa_node: Option<u32>, symmetric_rss: bool) -> PortCounters {
        PortCounters { name: name.to_owned(), numa_node, symmetric_rss, ..PortCounters::default() }
    }

    #[test]
    fn a_queue_that_brings_most_is_told_and_an_even_spread_is_not() {
        let told = |received: [u64; 2]| {
            let all = received.map(|received| load(None, received, 0));
            [0, 1].map(|id| notes(&all, id, &[]).join(" "))
        };
        assert_eq!(told([50_000, 40_000]), ["", ""]);
        // Too few to say anything.
        assert_eq!(told([9_000, 0]), ["", ""]);
        let [most, least] = told([90_000, 10_000]);
        let said = most.split_once(':').map(|(said, _)| said);
        assert_eq!(said, Some("its queues bring 90 % of all frames, where 50 % were even"));
        assert_eq!(least, "");
        // One worker brings all, of course.
        assert!(notes(&[load(None, 90_000, 0)], 0, &[]).is_empty());
    }

    #[test]
    fn frames_of_others_and_a_core_far_from_a_device_are_told_with_the_ports() {
        let all = [load(Some(1), 20_000, 15_000), load(Some(0), 20_000, 10_000)];
        let ports = [port("a", Some(0), true), port("b", None, false)];
        let told = notes(&all, 0, &ports);
        assert_eq!(
            told,
            [
                "75 % of what its queues bring belongs to other workers: b take no symmetric key",
                "its core 3 is at NUMA node 1, a at node 0: each frame crosses between them"
            ]
        );
        assert!(notes(&all, 1, &ports).is_empty());
    }
}
