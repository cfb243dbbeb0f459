//! Two processes with shared memory between them: the generator here, the appliance or
//! `dpdk-testpmd` there.

use std::io;
use std::time::Duration;

use serde_json::Value;

use super::measure::{CATCH_UP, FLOWS, Load, Rig, SERVERS, WARM_UP, Who};
use super::programs::{Bench, Sample, unique};

/// The ports' names, inside first, in both processes.
const PORTS: [&str; 2] = ["net_memif0", "net_memif1"];

/// Seconds between reports that nobody reads.
const NEVER: u32 = 600;

/// The rig. Each measurement starts both processes anew: the driver's counters end with a peer, and
/// so may the memory under a forwarder's hands.
pub struct Memif {
    bench: Bench,
    /// What the appliance had counted at the end of the last measurement.
    pub counted: Option<Sample>,
}

impl Memif {
    /// With these programs.
    pub fn new(bench: Bench) -> Memif {
        Memif { bench, counted: None }
    }
}

/// Both ports of one process.
fn vdevs(sockets: &str, role: &str) -> [String; 2] {
    [0, 1].map(|n| format!("--vdev={},role={role},socket-abstract=yes,socket={sockets}-{n}", PORTS[n]))
}

/// The generator's arguments for a load. It waits for both links before it sends.
fn arguments(load: &Load) -> Vec<String> {
    let ms = |time: Duration| format!("{}ms", time.as_millis());
    let mut args = vec!["--servers".to_owned(), SERVERS.to_string()];
    let mut add = |pairs: &[(&str, String)]| {
        for (option, value) in pairs {
            args.extend([(*option).to_owned(), value.clone()]);
        }
    };
    let udp = [("--from", "both".to_owned()), ("--warmup", ms(WARM_UP)), ("--catch-up", ms(CATCH_UP))];
    match *load {
        Load::Search { max_pps, trial } => {
            add(&udp);
            add(&[
                ("--flows", FLOWS.to_string()),
                ("--search", "ndr".to_owned()),
                ("--max-rate", max_pps.to_string()),
                ("--trial", ms(trial)),
            ]);
        }
        Load::Rate { flows, pps, time } => {
            add(&udp);
            add(&[("--flows", flows.to_string()), ("--rate", pps.to_string()), ("--duration", ms(time))]);
        }
        Load::Connections(count) => add(&[
            ("--mode", "stateful".to_owned()),
            ("--flows", "200".to_owned()),
            ("--connections", count.to_string()),
            ("--requests", "3".to_owned()),
            ("--rate", "4000".to_owned()),
            ("--drain", "1s".to_owned()),
            ("--timeout", "5s".to_owned()),
        ]),
    }
    args
}

impl Rig for Memif {
    fn name(&self) -> &'static str {
        "memif"
    }

    fn floor(&self) -> &'static str {
        "dpdk-testpmd macswap"
    }

    fn generate(&mut self, who: Who, load: &Load) -> io::Result<Value> {
        let (sockets, args) = (unique(), arguments(load));
        let (servers, clients) = (vdevs(&sockets, "server"), vdevs(&sockets, "client"));
        self.counted = None;
        match who {
            Who::Portcullis => {
                let policy = self.bench.policy(&args)?;
                let appliance = self.bench.appliance((PORTS, &servers), &policy, &[self.bench.forwarder])?;
                let result = self.bench.generate(PORTS, &args, &clients)?;
                self.counted = Some(appliance.sample()?);
                appliance.stop()?;
                Ok(result)
            }
            Who::Floor => {
                // It reads and writes each frame's Ethernet header and lets the rest be, so that
                // the generator knows its frames again.
                let testpmd = self.bench.testpmd(&servers, "macswap", &[self.bench.forwarder], &[], NEVER)?;
                let result = self.bench.generate(PORTS, &args, &clients)?;
                // How it ends is its own affair: the memory under it went with the generator.
                let _ = testpmd.interrupt(Duration::from_secs(10))?;
                Ok(result)
            }
        }
    }
}
