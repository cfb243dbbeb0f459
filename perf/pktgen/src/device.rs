//! DPDK's environment for a generator, and its ports.

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use pmd::{Config, DEFAULT_DATA_ROOM, Eal, Mempool, Started};

use crate::port::{DpdkPort, Ports};
use crate::report::PortCounts;

/// Options that say which cores there are, or how much of which memory.
const CORES: [&str; 4] = ["-l", "-c", "--lcores", "--main-lcore"];
const MEMORY: [&str; 6] =
    ["--no-huge", "--in-memory", "--socket-mem", "--socket-limit", "--huge-dir", "--legacy-mem"];
const FILES: [&str; 5] = ["--file-prefix", "--no-shconf", "--in-memory", "--proc-type", "--huge-unlink"];

/// What is opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Devices {
    /// The port's name at the inside; `None` if there is only one port.
    pub inside: Option<String>,
    /// The port's name at the outside.
    pub outside: String,
    /// EAL's arguments, as its user gave them.
    pub eal: Vec<String>,
    /// The core of EAL's own thread.
    pub core: usize,
    /// Frames of a port's receive and transmit rings.
    pub ring: u16,
    /// How long to wait for both links.
    pub wait: Duration,
}

/// Started ports. They close when this and the queues are dropped.
pub struct Open {
    /// Dropped first: while it lives, a device may be polled.
    ports: Vec<pmd::Port<Started>>,
    eal: Arc<Eal>,
}

impl Devices {
    /// EAL's arguments: the user's, and what they leave open.
    pub fn arguments(&self, has_hugepages: bool) -> Vec<String> {
        let has = |options: &[&str]| {
            self.eal.iter().any(|arg| {
                options.iter().any(|option| {
                    arg.strip_prefix(option).is_some_and(|rest| rest.is_empty() || rest.starts_with('='))
                })
            })
        };
        let mut args = Vec::new();
        if !has(&CORES) {
            args.push(format!("--lcores=0@{}", self.core));
        }
        if !has_hugepages && !has(&MEMORY) {
            args.push("--no-huge".to_owned());
        }
        let no_huge = args.iter().any(|arg| arg == "--no-huge") || has(&["--no-huge"]);
        if no_huge && !self.eal.iter().any(|arg| arg.starts_with("-m")) {
            args.extend([
                "-m".to_owned(),
                pmd::megabytes_without_huge_pages(self.buffers(), DEFAULT_DATA_ROOM).to_string(),
            ]);
        }
        if !has(&FILES) && !has(&["--legacy-mem"]) {
            if no_huge {
                args.extend([
                    "--no-shconf".to_owned(),
                    format!("--file-prefix=pktgen-{}", std::process::id()),
                ]);
            } else {
                args.push("--in-memory".to_owned());
            }
        }
        if !has(&["--telemetry", "--no-telemetry"]) {
            args.push("--no-telemetry".to_owned());
        }
        args.extend(self.eal.iter().cloned());
        args
    }

    /// Buffers that never run out: all rings full, and what is in hand.
    fn buffers(&self) -> u32 {
        4 * u32::from(self.ring) + 4096
    }

    /// Starts EAL and the ports, and waits for their links. The thread that polls registers with
    /// [`Open::eal`] first.
    pub fn open(&self) -> Result<(Open, Ports<DpdkPort>), pmd::Error> {
        let eal = Arc::new(Eal::init(&self.arguments(Eal::has_hugepages()))?);
        let pool = Arc::new(Mempool::new(&eal, "pktgen", self.buffers(), DEFAULT_DATA_ROOM)?);
        let config = Config { queues: 1, rx_ring: self.ring, tx_ring: self.ring, ..Config::default() };
        let names = self.inside.iter().chain([&self.outside]);
        // All are configured before any starts: what can't be is known before a frame moves.
        let configured: Vec<_> =
            names.map(|name| pmd::Port::configure(&eal, name, &config, &pool)).collect::<Result<_, _>>()?;
        let (mut ports, mut queues) = (Vec::new(), Vec::new());
        for port in configured {
            let (port, of_port) = port.start()?;
            ports.push(port);
            queues.extend(of_port);
        }
        wait_for_links(&ports, self.wait)?;
        let mut queues = queues.into_iter().map(|queue| DpdkPort::new(queue, pool.clone()));
        let first = queues.next().expect("a started port has the queue that was asked for");
        let open = match queues.next() {
            Some(outside) => Ports::pair(first, outside),
            None => Ports::single(first),
        };
        Ok((Open { ports, eal }, open))
    }
}

fn wait_for_links(ports: &[pmd::Port<Started>], wait: Duration) -> Result<(), pmd::Error> {
    let until = Instant::now() + wait;
    for port in ports {
        while !port.link().up {
            if Instant::now() > until {
                let reason = format!("there is no link within {wait:?}: is its other end there?");
                return Err(pmd::Error::Port { port: port.name().to_owned(), step: "come up", reason });
            }
            thread::sleep(Duration::from_millis(10));
        }
    }
    // Shared-memory devices say that the link is up before they are through with it.
    if ports.iter().any(|port| port.driver() == "net_memif") {
        thread::sleep(Duration::from_millis(200));
    }
    Ok(())
}

impl Open {
    /// DPDK's environment: the thread that polls registers with it ([`Eal::register_thread`]), so
    /// that it has caches of buffers of its own.
    pub fn eal(&self) -> &Arc<Eal> {
        &self.eal
    }

    /// What the devices count.
    pub fn counts(&self) -> Vec<PortCounts> {
        let of = |port: &pmd::Port<Started>| {
            let stats = port.stats();
            PortCounts {
                name: port.name().to_owned(),
                driver: port.driver().to_owned(),
                rx_packets: stats.rx_packets,
                tx_packets: stats.tx_packets,
                rx_missed: stats.rx_missed,
                rx_errors: stats.rx_errors,
                tx_errors: stats.tx_errors,
                rx_no_buffer: stats.rx_no_buffer,
                rx_oversize: stats.rx_oversize,
                tx_oversize: stats.tx_oversize,
            }
        };
        self.ports.iter().map(of).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arguments(given: &[&str], has_hugepages: bool) -> Vec<String> {
        let eal = given.iter().map(ToString::to_string).collect();
        let devices =
            Devices { inside: None, outside: "x".into(), eal, core: 3, ring: 1024, wait: Duration::ZERO };
        devices.arguments(has_hugepages)
    }

    #[test]
    fn what_its_user_leaves_open_is_filled_in() {
        let args = arguments(&["--no-pci"], false);
        assert_eq!(args[..4], ["--lcores=0@3", "--no-huge", "-m", "132"]);
        assert_eq!(args.last().unwrap(), "--no-pci");
        assert!(args.iter().any(|arg| arg.starts_with("--file-prefix=pktgen-")));
        assert_eq!(arguments(&[], true), ["--lcores=0@3", "--in-memory", "--no-telemetry"]);
        let given = ["-l", "0", "--no-huge", "-m", "64", "--file-prefix=a", "--no-telemetry"];
        assert_eq!(arguments(&given, false), given);
    }
}
