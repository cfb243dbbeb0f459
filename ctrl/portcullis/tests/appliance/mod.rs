//! What the tests of the running appliance share: a directory of its own, a configuration, the process, its clients.

#![allow(dead_code)]

use std::ffi::OsStr;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;
use testkit::lab::{Finished, Process};

pub const PORTCULLIS: &str = env!("CARGO_BIN_EXE_portcullis");
pub const READY: Duration = Duration::from_secs(10);
/// How long the appliance may take to end.
pub const END: Duration = Duration::from_secs(1);

/// One NIC, 10.5.6.7, that everybody may reach by TCP on port 22, and that reaches everybody.
pub const POLICY: &str = r#"
vpcs: [{ name: prod, segment: { untagged: true } }]
security_groups:
  - name: sg-AB
    rules:
      - { direction: inbound, protocol: tcp, ports: 22, remote: 0.0.0.0/0 }
      - { direction: inbound, protocol: icmp, icmp_type: 8 }
      - { direction: outbound }
nics:
  - { name: web-1, vpc: prod, addresses: [10.5.6.7, "2001:db8::7"], security_groups: [sg-AB] }
"#;

/// Files of a test, and what is written in its configuration.
pub struct Setup {
    directory: TempDir,
    vdevs: Vec<String>,
    args: Vec<String>,
    more: String,
    cores: Vec<usize>,
    idle: &'static str,
}

/// A running appliance; killed when dropped.
pub struct Appliance {
    pub process: Process,
    pub setup: Setup,
}

impl Setup {
    /// A wire between two devices, each a vdev with its arguments.
    pub fn new(inside: &str, outside: &str) -> Setup {
        // The worker's core leaves one to everything else, where there is one.
        let cores = vec![usize::from(std::thread::available_parallelism().is_ok_and(|n| n.get() > 1))];
        let vdevs = vec![inside.to_owned(), outside.to_owned()];
        let directory = tempfile::tempdir().unwrap();
        Setup {
            directory,
            vdevs,
            args: vec!["--no-pci".to_owned()],
            more: String::new(),
            cores,
            idle: "poll",
        }
    }

    /// Other cores, one a worker.
    pub fn cores(mut self, cores: &[usize]) -> Setup {
        self.cores = cores.to_vec();
        self
    }

    /// Other devices.
    pub fn devices(mut self, vdevs: [String; 2]) -> Setup {
        self.vdevs = vdevs.to_vec();
        self
    }

    /// What idle workers do.
    pub fn idle(mut self, idle: &'static str) -> Setup {
        self.idle = idle;
        self
    }

    /// One more argument for EAL.
    pub fn arg(mut self, arg: &str) -> Setup {
        self.args.push(arg.to_owned());
        self
    }

    /// More lines of the configuration, beginning with a table's head.
    pub fn more(mut self, toml: &str) -> Setup {
        self.more += toml;
        self
    }

    /// Without any of those.
    pub fn no_more(mut self) -> Setup {
        self.more.clear();
        self
    }

    /// Names the captures that `net_pcap` devices read and write: IN is `NAME.pcap`, OUT is `to-NAME.pcap`.
    pub fn fill(mut self, inside: &str, outside: &str) -> Setup {
        let directory = self.directory.path().display().to_string();
        for (vdev, name) in self.vdevs.iter_mut().zip([inside, outside]) {
            *vdev = vdev.replace("=IN", &format!("={directory}/{name}.pcap"));
            *vdev = vdev.replace("=OUT2", &format!("={directory}/to-{name}-2.pcap"));
            *vdev = vdev.replace("=OUT", &format!("={directory}/to-{name}.pcap"));
        }
        self
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub fn write(&self, name: &str, text: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        std::fs::write(&path, text).unwrap();
        path
    }

    pub fn socket(&self) -> PathBuf {
        self.path("run/api.sock")
    }

    pub fn config(&self) -> PathBuf {
        let vdevs: Vec<String> = self.vdevs.iter().map(|vdev| format!("--vdev={vdev}")).collect();
        let args = [&self.args[..], &vdevs].concat();
        let name = |vdev: &String| vdev.split(',').next().unwrap().to_owned();
        let text = format!(
            "[eal]\nargs = {args:?}\n[[wire]]\nname = \"wire0\"\ninside = {:?}\noutside = {:?}\n[workers]\ncores = {:?}\nidle = {:?}\n\
             [api]\nsocket = {:?}\n{}",
            name(&self.vdevs[0]),
            name(&self.vdevs[1]),
            self.cores,
            self.idle,
            self.socket(),
            self.more
        );
        self.write("portcullis.toml", text)
    }

    /// The command that runs the appliance.
    pub fn command(&self, policy: Option<&Path>) -> Command {
        let mut command = Command::new(PORTCULLIS);
        command.arg("run").arg("--config").arg(self.config());
        if let Some(policy) = policy {
            command.arg("--policy").arg(policy);
        }
        command
    }

    /// Runs it, with a policy of this text.
    pub fn start(self, policy: &str) -> Appliance {
        let policy = self.write("policy.yaml", policy);
        let command = self.command(Some(&policy));
        self.spawn(command)
    }

    pub fn spawn(self, command: Command) -> Appliance {
        let process = Process::start(command).unwrap();
        process.wait_for("portcullis: ready", READY).unwrap();
        Appliance { process, setup: self }
    }

    /// Runs what is expected to be refused; its status and what it complained.
    pub fn refused(&self, policy: Option<&Path>) -> (i32, String) {
        let Finished { status, stdout, stderr } =
            Process::start(self.command(policy)).unwrap().finish(READY).unwrap();
        assert_eq!(stdout, "");
        (status.code().unwrap(), stderr)
    }
}

impl Appliance {
    /// Runs a client.
    pub fn client<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Output {
        Command::new(PORTCULLIS).args(args).env("PORTCULLIS_SOCKET", self.setup.socket()).output().unwrap()
    }

    /// Runs a client that succeeds; what it printed.
    pub fn text<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> String {
        let output = self.client(args);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{}: {stderr}", output.status);
        String::from_utf8(output.stdout).unwrap()
    }

    /// `show … -o json`
    pub fn show(&self, what: &str) -> Value {
        serde_json::from_str(&self.text(["show", what, "-o", "json"])).unwrap()
    }

    /// `apply … -o json` of a document with this text: status, receipt (null if refused), complaints.
    pub fn apply(&self, text: &str, options: &[&str]) -> (i32, Value, String) {
        let file = self.setup.write("applied.yaml", text);
        let args = [&["apply", file.to_str().unwrap(), "-o", "json"][..], options].concat();
        let output = self.client(args);
        let receipt = serde_json::from_slice(&output.stdout).unwrap_or(Value::Null);
        (output.status.code().unwrap(), receipt, String::from_utf8_lossy(&output.stderr).into_owned())
    }

    /// Waits until the counters are as they should be, and shows them.
    pub fn wait_for_counters(&self, what: &str, holds: impl Fn(&Value) -> bool) -> Value {
        wait_for(what, || Some(self.show("counters")).filter(|counters| holds(counters)))
    }

    /// The name of each of its threads, and the first word of each line of its status.
    pub fn threads(&self) -> Vec<(String, std::collections::HashMap<String, String>)> {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", self.process.id())).unwrap().flatten();
        let status = |task: std::fs::DirEntry| {
            let text = std::fs::read_to_string(task.path().join("status")).ok()?;
            let word = |line: &str| {
                let (key, rest) = line.split_once(':')?;
                Some((key.to_owned(), rest.split_whitespace().next().unwrap_or_default().to_owned()))
            };
            let words: std::collections::HashMap<_, _> = text.lines().filter_map(word).collect();
            Some((words["Name"].clone(), words))
        };
        tasks.filter_map(status).collect()
    }

    /// Ends it by SIGKILL; what it leaves behind.
    pub fn kill(self) -> Setup {
        let Appliance { process, setup } = self;
        drop(process);
        setup
    }

    /// Ends it by SIGTERM, in time, with status 0, its counters printed and nothing leaked.
    pub fn end(self) -> (Finished, Setup) {
        let begin = Instant::now();
        let finished = self.process.terminate(READY).unwrap();
        let took = begin.elapsed();
        assert!(took <= END, "it took {took:?} to end");
        let Finished { status, stdout, stderr } = &finished;
        assert!(status.success(), "{status}: {stderr}");
        assert!(stdout.contains("packets: in ") && stdout.contains("pickup_grace"), "{stdout}");
        assert!(!stderr.contains("leaked"), "{stderr}");
        assert!(!self.setup.socket().exists(), "the socket is left behind");
        (finished, self.setup)
    }
}

/// An answer's head and body, read at once.
pub fn get(socket: &Path, path: &str, accept: &str) -> (String, String) {
    let mut stream = UnixStream::connect(socket).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    // HTTP/1.0: the body as it is, up to its end.
    write!(stream, "GET {path} HTTP/1.0\r\nHost: localhost\r\nAccept: {accept}\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.to_owned(), body.to_owned())
}

/// Tries until there is something, for five seconds.
pub fn wait_for<T>(what: &str, look: impl FnMut() -> Option<T>) -> T {
    wait_longer_for(what, Duration::from_secs(5), look)
}

/// Tries until there is something, for as long as that.
pub fn wait_longer_for<T>(what: &str, patience: Duration, mut look: impl FnMut() -> Option<T>) -> T {
    let until = Instant::now() + patience;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < until, "not within {patience:?}: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// The packets of `counters` add up, over all of its views.
pub fn assert_adds_up(counters: &Value) {
    let number = |value: &Value, key: &str| value[key].as_u64().unwrap();
    let all = &counters["packets"];
    assert_eq!(number(all, "in"), number(all, "pass") + number(all, "drop"), "{counters}");
    let reasons: u64 = counters["reasons"].as_object().unwrap().values().map(|n| n.as_u64().unwrap()).sum();
    assert_eq!(reasons, number(all, "in"), "{counters}");
    for key in ["in", "pass", "drop"] {
        let workers: u64 =
            counters["workers"].as_array().unwrap().iter().map(|worker| number(worker, key)).sum();
        assert_eq!(workers, number(all, key), "{counters}");
    }
}
