//! The appliance under load.

use std::{
    fs, io,
    path::PathBuf,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;
use testkit::lab::Process;

use super::{Bench, Rate, Setting, cpu::Cpu, eal_memory, rules, vdevs};

/// A running appliance with one worker.
pub struct Appliance {
    process: Process,
    binary: PathBuf,
    socket: PathBuf,
}

/// What it counted since it started, and when that was.
struct Sample {
    at: Instant,
    passed: u64,
    established: u64,
    dropped: u64,
}

impl Appliance {
    /// Starts it on the captures and waits until every flow is established.
    pub fn start(bench: &Bench<'_>, setting: Setting) -> io::Result<Appliance> {
        let (directory, core) = (bench.directory, bench.core);
        let socket = directory.join("api.sock");
        let mut args = vec!["--no-pci".to_owned(), format!("--file-prefix=perf{}", std::process::id())];
        args.extend(eal_memory(setting.flows));
        args.extend(vdevs(&bench.captures));
        let args: Vec<String> = args.iter().map(|arg| format!("\"{arg}\"")).collect();
        let config = directory.join("portcullis.toml");
        fs::write(
            &config,
            format!(
                "[eal]\nargs = [{}]\n[[wire]]\nname = \"perf\"\ninside = \"net_pcap0\"\noutside = \"net_pcap1\"\n\
                 [workers]\ncores = [{core}]\n[api]\nsocket = \"{}\"\n\
                 [conntrack]\ncapacity = {}\n[policy]\ngroups_per_nic = {}\n",
                args.join(", "),
                socket.display(),
                // Room for every flow, and never less than the default.
                (2 * setting.flows).max(1 << 20),
                rules::groups(setting.rules).max(5),
            ),
        )?;
        let policy = directory.join("policy.yaml");
        fs::write(&policy, rules::policy(setting.rules))?;
        let mut command = Command::new(bench.binary);
        command.arg("run").arg("--config").arg(config).arg("--policy").arg(policy);
        let mut appliance =
            Appliance { process: Process::start(command)?, binary: bench.binary.to_owned(), socket };
        appliance.wait_until_ready()?;
        Ok(appliance)
    }

    fn wait_until_ready(&mut self) -> io::Result<()> {
        let until = Instant::now() + Duration::from_secs(90);
        loop {
            match self.sample() {
                Ok(sample) if sample.established > 0 => break,
                Err(error) if !self.process.is_running() || Instant::now() > until => {
                    return Err(io::Error::other(format!("{error}\n{}", self.process.stderr())));
                }
                _ => thread::sleep(Duration::from_millis(20)),
            }
        }
        // Caches and clocks settle, and the first rounds through the captures are over.
        thread::sleep(Duration::from_millis(500));
        Ok(())
    }

    fn sample(&self) -> io::Result<Sample> {
        let mut command = Command::new(&self.binary);
        command.args(["show", "counters", "-o", "json", "--socket"]).arg(&self.socket);
        let before = Instant::now();
        let output = Process::start(command)?.finish(Duration::from_secs(5))?.success()?;
        let counters: Value = serde_json::from_str(&output.stdout)?;
        let number = |value: &Value| value.as_u64().unwrap_or(0);
        Ok(Sample {
            at: before + before.elapsed() / 2,
            passed: number(&counters["packets"]["pass"]),
            established: number(&counters["reasons"]["established"]),
            dropped: number(&counters["packets"]["drop"]),
        })
    }

    /// How fast it forwards over this time; an error unless every packet was `established`.
    pub fn measure(&self, time: Duration) -> io::Result<Rate> {
        let (before, cpu) = (self.sample()?, Cpu::of(self.process.id())?);
        thread::sleep(time);
        let (after, core_share) = (self.sample()?, Cpu::of(self.process.id())?.share_since(cpu));
        let passed = after.passed - before.passed;
        if after.dropped != before.dropped || after.established - before.established != passed {
            return Err(io::Error::other(format!(
                "{passed} packets passed, {} of them established, and {} dropped",
                after.established - before.established,
                after.dropped - before.dropped
            )));
        }
        Ok(Rate { mpps: passed as f64 / (after.at - before.at).as_secs_f64() / 1e6, core_share })
    }

    /// Ends it.
    pub fn stop(self) -> io::Result<()> {
        self.process.terminate(Duration::from_secs(10))?.success().map(|_| ())
    }
}

/// How fast it forwards over this time, from its start to its end.
pub fn measure(bench: &Bench<'_>, setting: Setting, time: Duration) -> io::Result<Rate> {
    let appliance = Appliance::start(bench, setting)?;
    let measured = appliance.measure(time);
    appliance.stop()?;
    measured
}
