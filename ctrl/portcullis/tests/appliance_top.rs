//! `top` in a real terminal, of both sizes, on a running appliance and on what a killed one has left behind.

mod appliance;

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use appliance::*;
use serde_json::Value;
use testkit::frame::*;
use testkit::pcap::{self, Format};

const STAGED: &str = r#"
vpcs: [{ name: prod, segment: { untagged: true } }]
security_groups:
  - name: web
    rules:
      - { direction: inbound, protocol: tcp, ports: 22 }
      - { direction: inbound, protocol: tcp, ports: 22, action: deny, staged: true, description: "no more" }
nics:
  - { name: web-1, vpc: prod, addresses: [10.5.6.7], security_groups: [web] }
  - { name: web-2, vpc: prod, addresses: [10.5.6.8], security_groups: [web] }
"#;

/// A terminal of some size in a server of its own, which ends with it.
struct Terminal {
    server: PathBuf,
    /// Of the server, to be ended with it.
    process: i32,
}

impl Terminal {
    fn open(server: PathBuf, (columns, rows): (u16, u16), command: &str, colours: bool) -> Terminal {
        let mut terminal = Terminal { server, process: 0 };
        let (columns, rows) = (columns.to_string(), rows.to_string());
        let no_colour = if colours { "NO_COLOR=" } else { "NO_COLOR=1" };
        let begin = ["-f", "/dev/null", "new-session", "-d", "-x", &columns, "-y", &rows, "-e", no_colour];
        // The status that it ends with stays in a file.
        let told = format!("{command}; echo $? > {}", terminal.status().display());
        // The server stays, so that its number is nobody else's when it is ended.
        let words = [&begin[..], &["sh", "-c", &told, ";", "set-option", "remain-on-exit", "on"]].concat();
        terminal.tmux(&words);
        terminal.process = terminal.tmux(&["display-message", "-p", "#{pid}"]).trim().parse().unwrap();
        terminal
    }

    fn tmux(&self, words: &[&str]) -> String {
        let output = Command::new("tmux").arg("-S").arg(&self.server).args(words).output().unwrap();
        assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    fn status(&self) -> PathBuf {
        self.server.with_extension("status")
    }

    fn screen(&self) -> String {
        self.tmux(&["capture-pane", "-p"])
    }

    fn is_coloured(&self) -> bool {
        let text = self.tmux(&["capture-pane", "-p", "-e"]);
        let codes =
            text.split("\u{1b}[").skip(1).filter_map(|rest| rest.split_once('m')).map(|(codes, _)| codes);
        codes.flat_map(|codes| codes.split(';')).any(|code| {
            let code = code.parse().unwrap_or(0);
            matches!(code, 30..=38 | 40..=48 | 90..=107)
        })
    }

    fn press(&self, key: &str) {
        self.tmux(&["send-keys", key]);
    }

    fn wait_for(&self, what: &str) -> String {
        let mut last = String::new();
        let until = Instant::now() + Duration::from_secs(5);
        while !last.contains(what) {
            assert!(Instant::now() < until, "no {what:?} in\n{last}");
            std::thread::sleep(Duration::from_millis(20));
            last = self.screen();
        }
        last
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // Its socket may be gone by now.
        let process = rustix::process::Pid::from_raw(self.process);
        process.map(|process| rustix::process::kill_process(process, rustix::process::Signal::TERM));
    }
}

fn once(page: &Path, options: &[&str]) -> String {
    let mut command = Command::new(PORTCULLIS);
    let output = command.args(["top", "--once", "--page"]).arg(page).args(options).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Both ends of a terminal.
fn pseudo_terminal() -> (OwnedFd, OwnedFd) {
    use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
    let ours = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
    grantpt(&ours).unwrap();
    unlockpt(&ours).unwrap();
    let name = ptsname(&ours, Vec::new()).unwrap();
    let path = std::path::PathBuf::from(name.into_string().unwrap());
    let flags = rustix::fs::OFlags::RDWR | rustix::fs::OFlags::NOCTTY;
    let theirs = rustix::fs::open(path, flags, rustix::fs::Mode::empty()).unwrap();
    (ours, theirs)
}

/// Twenty connections by a rule that would be denied, and what nobody lets in.
fn appliance() -> Appliance {
    let setup = Setup::new("net_pcap0,rx_pcap=IN,tx_pcap=OUT", "net_pcap1,rx_pcap=IN,tx_pcap=OUT");
    let mut frames = Vec::new();
    for n in 0..20u16 {
        let from = format!("198.51.100.9:{}", 20_000 + n);
        frames.push(tcp(from.as_str(), "10.5.6.7:22").syn().seq(1).frame());
        frames.push(udp(from.as_str(), "10.5.6.8:53").payload("nobody asks").frame());
    }
    pcap::write(setup.path("outside.pcap"), Format::MICRO, &pcap::records(0, frames)).unwrap();
    pcap::write(setup.path("inside.pcap"), Format::MICRO, &[]).unwrap();
    let appliance = setup.fill("inside", "outside").start(STAGED);
    appliance.wait_for_counters("all frames", |counters| counters["packets"]["in"] == 40);
    appliance
}

#[test]
fn a_running_appliance_and_one_that_was_killed_are_shown_in_terminals_of_two_sizes() {
    let appliance = appliance();
    let page = appliance.setup.path("run/stats");
    let command = format!("{PORTCULLIS} top --interval 0.2 --page {}", page.display());
    let small = Terminal::open(appliance.setup.path("small"), (80, 24), &command, true);
    let large = Terminal::open(appliance.setup.path("large"), (200, 50), &command, false);

    // The page is up to a second old, and rates need a second one.
    let screen = wait_for("rates", || {
        Some(small.screen()).filter(|screen| screen.contains("20 of ") && !screen.contains(" -/s"))
    });
    assert!(screen.starts_with("portcullis 0.1.0, generation 1, up "), "{screen}");
    for head in ["▲port", "▲worker", "▼packets/s", "▼drop/s", "▼hits/s", "▼generation"] {
        assert!(screen.contains(head), "{head} in {screen}");
    }
    assert_eq!(screen.lines().count(), 24);
    assert!(screen.lines().last().unwrap().starts_with("q quit"), "{screen}");
    let screen = large.wait_for("wire0");
    assert!(screen.contains("web#0") && screen.contains("web-1") && screen.contains("no-rule"), "{screen}");
    assert_eq!(screen.lines().count(), 50);
    assert!(small.is_coloured() && !large.is_coloured());

    small.press("5");
    let rules = small.wait_for("1 to 4 of 4");
    let line = |rule: &str| {
        let line = rules.lines().find(|line| line.trim_start().starts_with(rule)).unwrap();
        line.split_whitespace().map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(line("web#0")[2..6], ["20", "20", "0", "-"], "{rules}");
    assert_eq!(line("web#1")[5..], ["20", "20", "no", "more"], "{rules}");
    small.press("/");
    small.press("web#1");
    small.press("Enter");
    assert!(!small.wait_for("1 to 1 of 1").contains("web#0"));

    let json: Value = serde_json::from_str(&once(&page, &["--interval", "1.2", "-o", "json"])).unwrap();
    assert_eq!(json["generation"], 1);
    let nic = |name: &str| json["nics"].as_array().unwrap().iter().find(|nic| nic["nic"] == name).unwrap();
    assert_eq!((&nic("web-1")["connections"], &nic("web-2")["total"]["drop"]), (&20.into(), &20.into()));
    assert_eq!(nic("web-1")["per_second"]["pass"], 0.0);
    assert_eq!(json["workers"][0]["total"]["pass"], 20);

    // Whoever looks does not need the one who is looked at.
    let setup = appliance.kill();
    wait_longer_for("the page is stale", Duration::from_secs(8), || {
        Some(large.screen()).filter(|screen| screen.contains("STALE since") && screen.contains("20 of "))
    });
    let text = once(&setup.path("run/stats"), &[]);
    assert!(text.contains("STALE: nothing was written for "), "{text}");
    assert!(text.contains("in -/s, pass -/s (- Mbit/s), drop -/s, 20 of "), "{text}");
    // A terminal that goes away without a word to who reads from it.
    let (ours, theirs) = pseudo_terminal();
    let stdio = || std::process::Stdio::from(theirs.try_clone().unwrap());
    let mut looks = Command::new(PORTCULLIS);
    looks
        .args(["top", "--page"])
        .arg(&page)
        .env("TERM", "xterm")
        .stdin(stdio())
        .stdout(stdio())
        .stderr(stdio());
    let mut looks = looks.spawn().unwrap();
    drop(theirs);
    std::thread::sleep(Duration::from_millis(500));
    drop(ours);
    let ended = wait_for("the end with the terminal", || looks.try_wait().unwrap());
    assert!(ended.success(), "{ended}");
    for (terminal, key) in [(&small, "q"), (&large, "C-c")] {
        terminal.press(key);
        let status = || std::fs::read_to_string(terminal.status()).ok().filter(|text| text.ends_with('\n'));
        assert_eq!(wait_for("its end", status), "0\n");
    }
}

#[test]
fn what_top_cannot_do_it_says() {
    let directory = tempfile::tempdir().unwrap();
    let page = directory.path().join("stats");
    let run = |options: &[&str]| {
        let mut command = Command::new(PORTCULLIS);
        let output = command.args(["top", "--page"]).arg(&page).args(options).output().unwrap();
        (output.status.code().unwrap(), String::from_utf8(output.stderr).unwrap())
    };
    let (status, told) = run(&["--once"]);
    assert_eq!(status, 1);
    assert!(told.contains("stats: ") && told.contains("--page names another"), "{told}");
    std::fs::write(&page, "no page").unwrap();
    let (status, told) = run(&["--once"]);
    assert_eq!(status, 1, "{told}");
    // Here is no terminal.
    let (status, told) = run(&[]);
    assert_eq!(status, 2);
    assert!(told.contains("top needs a terminal") && told.contains("--once"), "{told}");
    assert_eq!(run(&["-o", "json"]).0, 2);
    assert_eq!(run(&["--once", "--interval", "0"]).0, 2);
}
