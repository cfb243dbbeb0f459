//! Open vSwitch over DPDK, its userspace datapath with connection tracking, as it comes:
//! exact-match cache on, signature cache off.
//!
//! The instance is private: database, sockets and logs lie in a directory of its own, and the
//! system's is neither read nor touched.

use std::{
    fs, io,
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::{Duration, Instant},
};

use testkit::lab::Process;

use super::{Bench, Rate, Setting, cpu::Cpu, devices, eal_memory, lacks, rules};

/// Where Debian's package has the switch; what is called `ovs-vswitchd` may be the one without
/// DPDK.
const SWITCH: &str = "/usr/lib/openvswitch-switch-dpdk/ovs-vswitchd-dpdk";
/// Where Debian's package has the database's shape.
const SCHEMA: &str = "/usr/share/openvswitch/vswitch.ovsschema";
/// Buffers of the pool that its ports share: its own constant, in `lib/netdev-dpdk.c`.
const BUFFERS: u32 = 262_144;
/// How long a command or a start may take.
const PATIENCE: Duration = Duration::from_secs(30);
/// The part of the packets that two samples may differ by: counters are read while packets pass.
const TOLERANCE: f64 = 0.01;

/// What this machine lacks for it.
pub fn missing() -> Option<String> {
    let lacked = [SWITCH, SCHEMA].iter().find(|file| !Path::new(file).exists());
    lacked.map(|file| format!("{file} is missing (Debian: openvswitch-switch-dpdk)")).or_else(|| {
        lacks(
            &["ovsdb-tool", "ovsdb-server", "ovs-vsctl", "ovs-ofctl", "ovs-appctl"],
            "openvswitch-switch-dpdk",
        )
    })
}

/// Why it cannot hold so many flows' frames.
pub fn left_out(setting: Setting) -> Option<String> {
    // Beside the frames: rings, caches, and what is in hand.
    let needed = 2 * setting.flows + 16_384;
    (needed > BUFFERS).then(|| format!("its pool of {BUFFERS} buffers cannot hold the captures"))
}

/// How fast it forwards over this time; an error unless all of it was tracked, established and
/// sent.
pub fn measure(bench: &Bench<'_>, setting: Setting, time: Duration) -> io::Result<Rate> {
    let switch = Switch::start(bench, setting)?;
    switch.await_connections(setting.flows)?;
    // Caches and clocks settle.
    thread::sleep(Duration::from_millis(500));
    switch.ask(&["dpif-netdev/pmd-stats-clear"])?;
    let (before, cpu) = (switch.sample()?, Cpu::of(switch.switch.id())?);
    thread::sleep(time);
    let (after, core_share) = (switch.sample()?, Cpu::of(switch.switch.id())?.share_since(cpu));
    let passes = Passes::of(&switch.ask(&["dpif-netdev/pmd-stats-show"])?)?;
    let connections = switch.connections()?;
    switch.stop()?;

    let (received, sent) = (after.received - before.received, after.sent - before.sent);
    let differ = |a: u64, b: u64| a.abs_diff(b) as f64 > b as f64 * TOLERANCE;
    if differ(sent, received) || differ(passes.tracked, passes.received) || connections != setting.flows {
        return Err(io::Error::other(format!(
            "{received} packets received and {sent} sent, {} of {} tracked, {connections} connections",
            passes.tracked, passes.received
        )));
    }
    Ok(Rate { mpps: sent as f64 / (after.at - before.at).as_secs_f64() / 1e6, core_share })
}

/// A private instance: dropping it ends both of its processes.
struct Switch {
    switch: Process,
    database: Process,
    directory: PathBuf,
}

/// What its ports counted, and when that was.
struct Sample {
    at: Instant,
    received: u64,
    sent: u64,
}

impl Switch {
    fn start(bench: &Bench<'_>, setting: Setting) -> io::Result<Switch> {
        let directory = bench.directory.join("ovs");
        if directory.exists() {
            fs::remove_dir_all(&directory)?;
        }
        fs::create_dir(&directory)?;
        let file = |name: &str| directory.join(name);
        run(&directory, "ovsdb-tool", ["create".as_ref(), file("conf.db").as_os_str(), SCHEMA.as_ref()])?;
        let mut server = command(&directory, "ovsdb-server");
        server
            .arg(file("conf.db"))
            .arg(format!("--remote=punix:{}", file("db.sock").display()))
            .arg("-vsyslog:off");
        let database = Process::start(server)?;
        await_file(&file("db.sock"), &database)?;

        let config = ["--no-wait", "init", "--", "set", "Open_vSwitch", "."].map(str::to_owned);
        let mut eal = vec![
            "--no-pci".to_owned(),
            "--no-telemetry".to_owned(),
            format!("--file-prefix=ovs{}", std::process::id()),
        ];
        // EAL's own wish without huge pages, which the switch would contradict if it did not see
        // it.
        eal.push("--legacy-mem".to_owned());
        // A buffer of it is larger, and its pool as large as it can be, whatever the flows.
        eal.extend(eal_memory(BUFFERS / 2));
        let settings = [
            "other_config:dpdk-init=true".to_owned(),
            format!("other_config:dpdk-extra=\"{}\"", eal.join(" ")),
            format!("other_config:dpdk-lcore-mask={:#x}", 1u64 << bench.others),
            format!("other_config:pmd-cpu-mask={:#x}", 1u64 << bench.core),
        ];
        vsctl(&directory, config.into_iter().chain(settings))?;

        // In a network of its own: the bridge has an interface of the kernel's, by name.
        let mut switch = command(&directory, "unshare");
        switch.args(["--net", SWITCH]);
        switch.arg(database_of(&directory)).arg(format!("--unixctl={}", file("switch.ctl").display()));
        switch.args(["-vsyslog:off", "-vconsole:warn"]);
        let switch = Process::start(switch)?;
        await_file(&file("switch.ctl"), &switch)?;
        let started = Switch { switch, database, directory };
        started
            .connect(bench, setting)
            .map_err(|error| io::Error::other(format!("{error}\n{}", started.switch.stderr())))?;
        Ok(started)
    }

    /// The bridge, its rules, and only then its ports: the first packet finds everything in place.
    fn connect(&self, bench: &Bench<'_>, setting: Setting) -> io::Result<()> {
        let bridge =
            ["add-br", "br", "--", "set", "Bridge", "br", "datapath_type=netdev", "fail-mode=secure"];
        vsctl(&self.directory, bridge.map(str::to_owned))?;
        let flows = self.directory.join("flows");
        fs::write(&flows, rules::openflow(setting.rules))?;
        let management = self.management();
        run(
            &self.directory,
            "ovs-ofctl",
            [
                "--protocols=OpenFlow13".as_ref(),
                "replace-flows".as_ref(),
                management.as_ref(),
                flows.as_os_str(),
            ],
        )?;
        for (number, device) in (1..).zip(devices(&bench.captures)) {
            let port = format!("port{number}");
            let mut words = vec!["add-port", "br", &port, "--", "set", "Interface", &port, "type=dpdk"];
            let (request, arguments) =
                (format!("ofport_request={number}"), format!("options:dpdk-devargs=\"{device}\""));
            words.extend([request.as_str(), &arguments]);
            vsctl(&self.directory, words.into_iter().map(str::to_owned))?;
        }
        Ok(())
    }

    fn management(&self) -> String {
        format!("unix:{}", self.directory.join("br.mgmt").display())
    }

    /// A command of the switch's own, and its answer.
    fn ask(&self, words: &[&str]) -> io::Result<String> {
        let target = self.directory.join("switch.ctl");
        run(
            &self.directory,
            "ovs-appctl",
            ["-t".as_ref(), target.as_os_str()].into_iter().chain(words.iter().map(|word| word.as_ref())),
        )
    }

    fn sample(&self) -> io::Result<Sample> {
        let before = Instant::now();
        let said = run(&self.directory, "ovs-ofctl", ["dump-ports", &self.management()])?;
        let at = before + before.elapsed() / 2;
        let [received, sent] =
            ports(&said).ok_or_else(|| io::Error::other(format!("no counters in {said}")))?;
        Ok(Sample { at, received, sent })
    }

    /// Connections that it tracks.
    fn connections(&self) -> io::Result<u32> {
        let said = self.ask(&["dpctl/ct-get-nconns"])?;
        said.trim().parse().map_err(|_| io::Error::other(format!("a number of connections: {said:?}")))
    }

    fn await_connections(&self, wanted: u32) -> io::Result<()> {
        let until = Instant::now() + PATIENCE;
        loop {
            let tracked = self.connections()?;
            if tracked >= wanted {
                return Ok(());
            }
            if Instant::now() > until {
                let said = self.switch.stderr();
                return Err(io::Error::other(format!("{tracked} connections of {wanted}\n{said}")));
            }
            thread::sleep(Duration::from_millis(50));
        }
    }

    fn stop(self) -> io::Result<()> {
        self.ask(&["exit"])?;
        self.switch.finish(PATIENCE)?.success().map_err(io::Error::other)?;
        self.database.terminate(PATIENCE).map(|_| ())
    }
}

/// A program of Open vSwitch's, with everything it would look for elsewhere in this directory; it
/// ends when we do.
fn command(directory: &Path, program: &str) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", program]);
    for variable in ["OVS_RUNDIR", "OVS_LOGDIR", "OVS_DBDIR", "OVS_SYSCONFDIR"] {
        command.env(variable, directory);
    }
    command
}

/// Runs it to its end; what it printed.
fn run<S: AsRef<std::ffi::OsStr>>(
    directory: &Path,
    program: &str,
    words: impl IntoIterator<Item = S>,
) -> io::Result<String> {
    let mut command = command(directory, program);
    command.args(words);
    Ok(Process::start(command)?.finish(PATIENCE)?.success()?.stdout)
}

fn database_of(directory: &Path) -> String {
    format!("unix:{}", directory.join("db.sock").display())
}

/// Configures it, and waits until it has taken that.
fn vsctl(directory: &Path, words: impl IntoIterator<Item = String>) -> io::Result<()> {
    let database = format!("--db={}", database_of(directory));
    let patience = format!("--timeout={}", PATIENCE.as_secs());
    run(directory, "ovs-vsctl", [database, patience].into_iter().chain(words)).map(|_| ())
}

fn await_file(file: &Path, process: &Process) -> io::Result<()> {
    let until = Instant::now() + PATIENCE;
    while !file.exists() {
        if Instant::now() > until {
            return Err(io::Error::other(format!("no {}\n{}", file.display(), process.stderr())));
        }
        thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}

/// Packets received and sent, of all ports, from `ovs-ofctl dump-ports`.
fn ports(said: &str) -> Option<[u64; 2]> {
    let count = |word: &str| -> Option<u64> {
        let counts = said.lines().filter_map(|line| line.split_once(word));
        let each = counts.map(|(_, rest)| rest.split(',').next()?.trim().parse::<u64>().ok());
        each.sum()
    };
    let [received, sent] = ["rx pkts=", "tx pkts="].map(count);
    Some([received?, sent?]).filter(|[received, _]| *received > 0)
}

/// What its polling threads counted.
#[derive(Debug, PartialEq, Eq)]
struct Passes {
    received: u64,
    /// Packets that came out of connection tracking into the second table.
    tracked: u64,
}

impl Passes {
    /// From `dpif-netdev/pmd-stats-show`.
    fn of(said: &str) -> io::Result<Passes> {
        let count = |name: &str| -> u64 {
            let counts = said.lines().filter_map(|line| line.trim().strip_prefix(name));
            counts.filter_map(|rest| rest.trim().parse::<u64>().ok()).sum()
        };
        match (count("packets received:"), count("packet recirculations:")) {
            (0, _) => Err(io::Error::other(format!("no counters of polling threads:\n{said}"))),
            (received, tracked) => Ok(Passes { received, tracked }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_add_up() {
        let said = "OFPST_PORT reply (xid=0x2): 3 ports\n  port LOCAL: rx pkts=0, bytes=0, drop=0, errs=0\n\
                    \x20          tx pkts=0, bytes=0, drop=0, errs=0, coll=0\n\
                    \x20 port  1: rx pkts=48, bytes=9, drop=0\n           tx pkts=3, bytes=9\n\
                    \x20 port  2: rx pkts=50, bytes=9, drop=0\n           tx pkts=4, bytes=9\n";
        assert_eq!(ports(said), Some([98, 7]));
        assert_eq!(ports("OFPST_PORT reply (xid=0x2): 0 ports\n"), None);
        assert_eq!(ports("  port 1: rx pkts=?, bytes=?\n tx pkts=?, bytes=?\n"), None);
    }

    #[test]
    fn passes_of_all_threads_add_up() {
        let said = "pmd thread numa_id 0 core_id 1:\n  packets received: 10\n  packet recirculations: 9\n  \
                    emc hits: 4\nmain thread:\n  packets received: 1\n  packet recirculations: 0\n";
        assert_eq!(Passes::of(said).unwrap(), Passes { received: 11, tracked: 9 });
        assert!(Passes::of("main thread:\n").is_err());
    }

    #[test]
    fn a_pool_that_is_too_small_is_told() {
        assert_eq!(left_out(Setting { flows: 100_000, rules: 50 }), None);
        assert!(left_out(Setting { flows: 1_000_000, rules: 50 }).is_some());
    }
}
