//! The lab with an appliance at work in it.

use std::time::{Duration, Instant};

use rustix::thread::sched_getaffinity;
use testkit::lab::{At, INSIDE, Lab, OUTSIDE, Process};

use super::{Scratch, number, portcullis, run, stdout_of};

/// Until a test gives up on what should come at once.
pub const LATE: Duration = Duration::from_secs(30);

/// An appliance between client and server.
pub struct Rig {
    pub appliance: Process,
    pub lab: Lab,
    pub scratch: Scratch,
}

impl Rig {
    /// In a lab of its own under this policy, with `more` in its configuration; `None`, said aloud, where there can be no lab.
    pub fn start(name: &str, more: &str, policy: &str) -> Option<Rig> {
        if let Some(reason) = Lab::missing() {
            eprintln!("skipped: {reason}");
            return None;
        }
        Some(Rig::start_in(Lab::new().unwrap(), name, more, policy))
    }

    /// The same in a lab that is there.
    pub fn start_in(lab: Lab, name: &str, more: &str, policy: &str) -> Rig {
        let scratch = Scratch::new(name);
        // The last core of those that this process may use: the first is for the kernels at both ends.
        let cores = sched_getaffinity(None).unwrap();
        let core = (0..1024).rev().find(|&core| cores.is_set(core)).unwrap();
        let config = format!(
            r#"
[eal]
args = ["--no-pci", "--no-huge", "-m", "256", "--no-telemetry", "--file-prefix={prefix}",
    "--vdev=net_af_packet0,iface={INSIDE}", "--vdev=net_af_packet1,iface={OUTSIDE}"]
[[wire]]
name = "lab"
inside = "net_af_packet0"
outside = "net_af_packet1"
[workers]
cores = [{core}]
[api]
socket = "{socket}"
{more}
"#,
            prefix = lab.name(),
            socket = scratch.path("api.sock"),
        );
        let config = scratch.write("portcullis.toml", &config);
        let policy = scratch.write("policy.yaml", policy);
        let binary = portcullis().to_str().unwrap();
        let appliance =
            lab.spawn(At::Appliance, [binary, "run", "--config", &config, "--policy", &policy]).unwrap();
        let mut rig = Rig { appliance, lab, scratch };
        rig.wait_until_ready();
        rig
    }

    fn wait_until_ready(&mut self) {
        let until = Instant::now() + Duration::from_secs(10);
        loop {
            let socket = self.scratch.path("api.sock");
            if run(&["show", "snapshot", "--socket", &socket]).status.success() {
                return;
            }
            let said = || format!("{}{}", self.appliance.stdout(), self.appliance.stderr());
            assert!(Instant::now() < until, "not ready after 10 s:\n{}", said());
            if !self.appliance.is_running() {
                panic!("the appliance ended:\n{}{}", self.appliance.stdout(), self.appliance.stderr());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// What a client of the appliance prints.
    pub fn ask(&self, arguments: &[&str]) -> String {
        let socket = self.scratch.path("api.sock");
        stdout_of(&[arguments, &["--socket", &socket, "-o", "json"]].concat())
    }

    /// Makes this document the policy; the receipt.
    pub fn apply(&self, policy: &str) -> String {
        let document = self.scratch.write("next.yaml", policy);
        self.ask(&["apply", &document])
    }

    /// Ends the appliance as an operator does; what it counted must add up.
    pub fn end(self) {
        let counters = self.ask(&["show", "counters"]);
        let [seen, passed, dropped] = ["in", "pass", "drop"].map(|key| number(&counters, key));
        assert!(seen > 0 && seen == passed + dropped, "{counters}");
        let before = Instant::now();
        let finished = self.appliance.terminate(LATE).unwrap().success().unwrap();
        assert!(before.elapsed() < Duration::from_secs(1), "SIGTERM took {:?}", before.elapsed());
        assert!(finished.stdout.contains("established"), "no counters at the end:\n{}", finished.stdout);
    }
}
