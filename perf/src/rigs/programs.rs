//! The programs of a rig: the appliance, DPDK's own forwarder in its place, and the generator.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use engine::rss::RSS_PATTERN;
use serde_json::Value;
use testkit::lab::Process;

/// Until a program is ready, or has ended.
const PATIENCE: Duration = Duration::from_secs(20);

/// A name for sockets and EAL's files that nothing else on this machine has.
pub fn unique() -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    format!("rig-{}-{}", std::process::id(), COUNT.fetch_add(1, Relaxed))
}

/// Where the programs and their files are, and on which cores they run.
#[derive(Clone, Debug)]
pub struct Bench {
    /// `portcullis`.
    pub portcullis: PathBuf,
    /// `portcullis-pktgen`.
    pub pktgen: PathBuf,
    /// For files, which the caller removes.
    pub directory: PathBuf,
    /// The generator's core, and that of programs which only wait.
    pub generator: usize,
    /// The core of who forwards.
    pub forwarder: usize,
}

impl Bench {
    /// The binaries beside `portcullis`; the core that devices interrupt least is the forwarder's,
    /// another one the generator's.
    pub fn new(portcullis: &Path, directory: &Path) -> io::Result<Bench> {
        let (generator, forwarder) = crate::cores::cores()?;
        let pktgen = portcullis.with_file_name("portcullis-pktgen");
        Ok(Bench {
            portcullis: portcullis.to_owned(),
            pktgen,
            directory: directory.to_owned(),
            generator,
            forwarder,
        })
    }

    /// Starts the appliance between the ports `inside` and `outside` of `vdevs`, a worker on each
    /// core, and waits until it is ready.
    pub fn appliance(
        &self,
        (ports, vdevs): ([&str; 2], &[String]),
        policy: &str,
        cores: &[usize],
    ) -> io::Result<Appliance> {
        let name = unique();
        let path = |what: &str| self.directory.join(format!("{name}.{what}"));
        let (config, document, socket) = (path("toml"), path("yaml"), path("sock"));
        let mut args = vec!["--no-pci".to_owned(), "--no-huge".to_owned()];
        args.extend_from_slice(vdevs);
        fs::write(
            &config,
            format!(
                "[eal]\nargs = {args:?}\n[[wire]]\nname = \"rig\"\ninside = {:?}\noutside = {:?}\n[workers]\ncores = {cores:?}\n\
                 [api]\nsocket = {socket:?}\n",
                ports[0], ports[1]
            ),
        )?;
        fs::write(&document, policy)?;
        let mut command = Command::new(&self.portcullis);
        command.arg("run").arg("--config").arg(config).arg("--policy").arg(document);
        // Captures are made for workers that own what this says.
        command.env("PORTCULLIS_RSS_PATTERN", format!("{RSS_PATTERN:04x}"));
        let process = Process::start(command)?;
        process.wait_for("portcullis: ready", PATIENCE)?;
        Ok(Appliance { process, binary: self.portcullis.clone(), socket })
    }

    /// Starts `dpdk-testpmd` between the two ports of `vdevs` on these cores, and waits until it
    /// forwards. It reports each `period` seconds, and nothing before the first is over.
    pub fn testpmd(
        &self,
        vdevs: &[String],
        mode: &str,
        cores: &[usize],
        options: &[String],
        period: u32,
    ) -> io::Result<Process> {
        // What it prints is late through a pipe's buffer.
        let mut command = Command::new("stdbuf");
        command.args(["-oL", "dpdk-testpmd", "--no-pci", "--no-telemetry", "--no-huge", "-m", "512"]);
        let lcores = cores.iter().enumerate().map(|(at, core)| format!(",{}@{core}", at + 1));
        command.arg(format!("--lcores=0@{}{}", self.generator, lcores.collect::<String>()));
        command.args(["--main-lcore=0", &format!("--file-prefix={}", unique())]).args(vdevs);
        command.args(["--", &format!("--forward-mode={mode}"), &format!("--nb-cores={}", cores.len())]);
        command.args(["--no-flush-rx", "--no-lsc-interrupt", "--total-num-mbufs=65536", "--auto-start"]);
        // Without a period it would end with its input.
        command.arg(format!("--stats-period={period}")).args(options);
        let process = Process::start(command)?;
        process.wait_for("start packet forwarding", PATIENCE)?;
        Ok(process)
    }

    /// Runs the generator on two ports, inside first, to its end; its result.
    pub fn generate(&self, ports: [&str; 2], args: &[String], eal: &[String]) -> io::Result<Value> {
        let mut command = Command::new(&self.pktgen);
        command.args(["--inside", ports[0], "--outside", ports[1]]);
        command.args(["-o", "json", "--core", &self.generator.to_string()]).args(args);
        command.args(["--", "--no-pci", "--no-huge"]).args(eal);
        // It ends by itself, and whoever looked for that now and then would take time from it.
        let output = command.output().map_err(|error| named(&self.pktgen, &error))?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            return Err(io::Error::other(format!("{command:?}: {}: {said}", output.status)));
        }
        Ok(serde_json::from_slice(&output.stdout)?)
    }

    /// The policy that admits what the generator sends with these arguments.
    pub fn policy(&self, args: &[String]) -> io::Result<String> {
        let mut command = Command::new(&self.pktgen);
        command.arg("--print-policy").args(args);
        let output = command.output().map_err(|error| named(&self.pktgen, &error))?;
        String::from_utf8(output.stdout).map_err(io::Error::other)
    }
}

fn named(path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

/// A running appliance.
pub struct Appliance {
    process: Process,
    binary: PathBuf,
    socket: PathBuf,
}

/// What an appliance counted, and when that was.
pub struct Sample {
    /// When it was asked, within the time that asking takes.
    pub at: Instant,
    /// `show counters`.
    pub counters: Value,
}

impl Sample {
    /// Packets that passed because their connection is established.
    pub fn established(&self) -> u64 {
        self.reason("established")
    }

    /// Packets that passed or dropped for a reason.
    pub fn reason(&self, name: &str) -> u64 {
        self.counters["reasons"][name].as_u64().unwrap_or(0)
    }

    /// `in`, `pass` or `drop` of all packets.
    pub fn packets(&self, what: &str) -> u64 {
        self.counters["packets"][what].as_u64().unwrap_or(0)
    }

    /// Packets by worker.
    pub fn workers(&self) -> Vec<u64> {
        let workers = self.counters["workers"].as_array().into_iter().flatten();
        workers.map(|worker| worker["in"].as_u64().unwrap_or(0)).collect()
    }
}

impl Appliance {
    /// Its process.
    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// What it has counted so far.
    pub fn sample(&self) -> io::Result<Sample> {
        let mut command = Command::new(&self.binary);
        command.args(["show", "counters", "-o", "json", "--socket"]).arg(&self.socket);
        let before = Instant::now();
        let output = Process::start(command)?.finish(PATIENCE)?.success()?;
        Ok(Sample { at: before + before.elapsed() / 2, counters: serde_json::from_str(&output.stdout)? })
    }

    /// Waits until its counts are as they should be.
    pub fn wait_for(&self, what: &str, done: impl Fn(&Sample) -> bool) -> io::Result<Sample> {
        let until = Instant::now() + PATIENCE;
        loop {
            let sample = self.sample()?;
            if done(&sample) {
                return Ok(sample);
            }
            if Instant::now() > until {
                return Err(io::Error::other(format!(
                    "{what}: not within {PATIENCE:?}: {}",
                    sample.counters
                )));
            }
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// Ends it.
    pub fn stop(self) -> io::Result<()> {
        self.process.terminate(PATIENCE)?.success().map(|_| ())
    }
}
