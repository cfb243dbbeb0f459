//! `trace`, `why`, `capture` and `extcap` on the running appliance, by real ports.

mod appliance;

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use appliance::*;
use rustix::process::Signal;
use serde_json::{Value, json};
use testkit::frame::*;
use testkit::lab::{At, INSIDE, Lab, OUTSIDE, Process, Wire};
use testkit::pcap::{self, Format};

const SECOND: Duration = Duration::from_secs(1);
const CLIENT: &str = "198.51.100.9";

/// A lab, with the appliance in it and the client's end of its wire.
struct Bed {
    appliance: Appliance,
    wire: Wire,
    _lab: Lab,
}

impl Bed {
    fn new() -> Option<Bed> {
        if let Some(reason) = Lab::missing() {
            eprintln!("skipped: {reason}");
            return None;
        }
        let lab = Lab::new().unwrap();
        let setup =
            Setup::new(&format!("net_af_packet0,iface={INSIDE}"), &format!("net_af_packet1,iface={OUTSIDE}"));
        let policy = setup.write("policy.yaml", POLICY);
        let mut command = lab.command(At::Appliance, PORTCULLIS);
        command.args(setup.command(Some(&policy)).get_args());
        let appliance = setup.spawn(command);
        let wire = lab.wire(At::Client, "eth0").unwrap();
        Some(Bed { appliance, wire, _lab: lab })
    }

    /// A client that goes on, once it has begun.
    fn begun(&self, args: &[&str], said: &str) -> Process {
        let mut command = Command::new(PORTCULLIS);
        command.args(args).env("PORTCULLIS_SOCKET", self.appliance.setup.socket());
        let process = Process::start(command).unwrap();
        process.wait_for(said, 5 * SECOND).unwrap();
        process
    }

    /// Sends frames from outside, and waits until that many of this test's have been judged.
    fn send(&self, frames: &[Vec<u8>]) {
        let before = judged(&self.appliance.show("counters"));
        for (sent, frame) in (1..).zip(frames) {
            self.wire.send(frame).unwrap();
            if sent % 100 == 0 {
                self.wait_for_judged(before + sent);
            }
        }
        self.wait_for_judged(before + frames.len() as u64);
    }

    fn wait_for_judged(&self, count: u64) {
        self.appliance.wait_for_counters("frames", |counters| judged(counters) >= count);
    }

    fn why(&self, tuple: &str) -> Value {
        serde_json::from_str(&self.appliance.text(["why", tuple, "-o", "json"])).unwrap()
    }
}

/// Packets of the client's addresses, as far as counters tell: those of the lab's own kernels are neighbour discovery.
fn judged(counters: &Value) -> u64 {
    let of = |reason: &str| counters["reasons"][reason].as_u64().unwrap_or(0);
    ["new", "no-rule", "invalid", "established", "tombstone", "unknown-destination"].map(of).iter().sum()
}

fn syn(from: u16, to: u16) -> Vec<u8> {
    tcp(format!("{CLIENT}:{from}").as_str(), format!("10.5.6.7:{to}").as_str()).syn().seq(7).frame()
}

/// Two of three are denied: by no rule, or as invalid.
fn mixed(count: u16) -> Vec<Vec<u8>> {
    let one = |n: u16| match n % 3 {
        0 => syn(10_000 + n, 22),
        1 => syn(10_000 + n, 80),
        _ => tcp(format!("{CLIENT}:{}", 10_000 + n).as_str(), "10.5.6.7:22").ack(1).frame(),
    };
    (0..count).map(one).collect()
}

fn lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// What `replay` says of frames from outside.
fn replayed(setup: &Setup, capture: &Path) -> Vec<Value> {
    let output = Command::new(PORTCULLIS)
        .args(["replay", "--verdicts", "-", "--policy"])
        .arg(setup.path("policy.yaml"))
        .arg("--outside")
        .arg(capture)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    lines(&String::from_utf8(output.stdout).unwrap())
}

/// What a decision is.
fn decision(line: &Value) -> Value {
    let keys = ["from", "nic", "direction", "verdict", "reason", "rule", "rule_id"];
    keys.into_iter().map(|key| (key.to_owned(), line[key].clone())).collect::<serde_json::Map<_, _>>().into()
}

#[test]
fn a_capture_of_denied_frames_holds_exactly_those_and_replayed_gives_the_same_verdicts() {
    let Some(bed) = Bed::new() else { return };
    let setup = &bed.appliance.setup;
    let path = setup.path("denied.pcapng");
    let name = path.to_str().unwrap();
    // Neighbour discovery of the lab's kernels is no drop of the client's.
    let filter = ["--remote", CLIENT];
    let denied = [&["capture", "--write", name, "--verdict", "drop"][..], &filter].concat();
    let capture = bed.begun(&denied, "portcullis: capturing");
    let trace = bed.begun(&[&["trace", "-o", "json"][..], &filter].concat(), "portcullis: tracing");
    let few = bed
        .begun(&[&["trace", "-o", "json", "--rate", "10", "--count", "30"][..], &filter].concat(), "tracing");
    let frames = mixed(900);
    bed.send(&frames);
    let few = few.finish(5 * SECOND).unwrap();
    assert_eq!((few.status.code(), lines(&few.stdout).len()), (Some(0), 30), "{}", few.stderr);
    wait_for("all of them traced", || (trace.stdout().lines().count() == 900).then_some(()));
    let capture = capture.interrupt(5 * SECOND).unwrap();
    assert!(capture.stderr.contains("portcullis: 600 frames captured, 0 lost\n"), "{}", capture.stderr);
    assert_eq!(capture.status.code(), Some(0));
    let traced = lines(&trace.terminate(5 * SECOND).unwrap().stdout);

    let sent = setup.path("sent.pcap");
    pcap::write(&sent, Format::MICRO, &pcap::records(0, frames)).unwrap();
    let expected: Vec<Value> = replayed(setup, &sent).iter().map(decision).collect();
    let of_trace: Vec<Value> = traced.iter().map(decision).collect();
    assert_eq!(of_trace, expected);
    let drops: Vec<Value> = expected.into_iter().filter(|line| line["verdict"] == "drop").collect();
    let again: Vec<Value> = replayed(setup, &path).iter().map(decision).collect();
    assert_eq!(again, drops, "exactly those, with the same verdicts");

    let first = &traced[0];
    assert_eq!(
        (&first["worker"], &first["generation"], &first["bytes"]),
        (&json!(0), &json!(1), &json!(mixed(1)[0].len()))
    );
    assert!(
        first["packet"].as_str().unwrap().contains("tcp 198.51.100.9:10000 > 10.5.6.7:22, SYN"),
        "{first}"
    );
    assert_eq!(first["rule"], "sg-AB#0");
    assert!(first["rule_id"].as_str().unwrap().starts_with("r-") && first["why"].is_string(), "{first}");
    bed.appliance.end();
}

#[test]
fn why_answers_for_a_decision_under_a_rule_that_was_deleted_two_commits_ago() {
    let Some(bed) = Bed::new() else { return };
    bed.send(&[syn(40_000, 22), syn(40_000, 80)]);
    let without = POLICY.replace("ports: 22", "ports: 2222");
    assert_eq!(bed.appliance.apply(&without, &[]).0, 0);
    assert_eq!(bed.appliance.apply(&without.replace("icmp_type: 8", "icmp_type: 13"), &[]).0, 0);
    bed.send(&[syn(40_000, 22)]);
    let tuple = format!("tcp {CLIENT}:40000 > 10.5.6.7:22");
    let told = bed.why(&tuple);
    let decisions = told["decisions"].as_array().unwrap();
    assert_eq!(decisions.len(), 2, "{told}");
    let (opened, met) = (&decisions[0], &decisions[1]);
    assert_eq!(
        (&opened["verdict"], &opened["reason"], &opened["generation"]),
        (&json!("pass"), &json!("new"), &json!(1))
    );
    assert_eq!(
        (&opened["rule"], &opened["rule_text"]),
        (&json!("sg-AB#0"), &json!("allow inbound tcp 22 from 0.0.0.0/0"))
    );
    assert!(opened["rule_id"].as_str().unwrap().starts_with("r-"));
    assert_eq!(
        (&met["verdict"], &met["reason"], &met["generation"]),
        (&json!("drop"), &json!("tombstone"), &json!(3))
    );
    assert_eq!(met["disconnected"]["generation"], 2, "the flush of generation 3 came later: {met}");
    assert!(met["disconnected"]["by"].as_str().unwrap().ends_with("(api)"), "{met}");
    let left = met["disconnected"]["expires_in"].as_f64().unwrap();
    assert!(left > 20.0 && left <= 30.0, "{met}");
    assert!(told["since"].as_f64() < opened["time"].as_f64() && told["lost"] == 0, "{told}");
    // Up to the first decision, one way, and for people.
    let at = format!("{:.6}", opened["time"].as_f64().unwrap() + 0.000_01);
    let upto = bed.appliance.text(["why", &tuple, "--at", &at]);
    assert!(upto.contains("pass: new") && !upto.contains("tombstone"), "{upto}");
    let other_way = bed.why(&format!("outbound {tuple}"));
    assert_eq!(other_way["decisions"], json!([]));
    let bad = bed.appliance.client(["why", "tcp 1.1.1.1 2.2.2.2"]);
    assert_eq!(bad.status.code(), Some(2));
    bed.appliance.end();
}

#[test]
fn tshark_lists_the_extcap_and_captures_through_it() {
    let tshark = Command::new("tshark").arg("--version").output();
    if !tshark.is_ok_and(|found| found.status.success()) {
        return eprintln!("skipped: no tshark");
    }
    let Some(bed) = Bed::new() else { return };
    let folder = bed.appliance.setup.path("extcap");
    std::fs::create_dir(&folder).unwrap();
    std::os::unix::fs::symlink(PORTCULLIS, folder.join("portcullis")).unwrap();
    // For root it knows no other folder than its own, so that this one is mounted there, where nobody else sees it.
    let folders = Command::new("tshark").args(["-G", "folders"]).output().unwrap();
    let folders = String::from_utf8_lossy(&folders.stdout).into_owned();
    let own = folders.lines().find(|line| line.starts_with("Extcap path:")).unwrap();
    let own = own.split_whitespace().last().unwrap().to_owned();
    let tshark = |args: &[&str]| {
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-c", "mount --bind \"$0\" \"$1\" && shift && exec tshark \"$@\""]);
        command.arg(&folder).arg(&own).args(args);
        command.env("PORTCULLIS_SOCKET", bed.appliance.setup.socket());
        command
    };
    let listed = tshark(&["-D"]).output().unwrap();
    let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
    assert!(listed.contains("portcullis (Portcullis: frames with their verdicts)"), "{listed}");
    let option = "extcap.portcullis.remote:198.51.100.9";
    let fields = ["-T", "fields", "-e", "tcp.dstport", "-e", "frame.comment", "-e", "frame.interface_name"];
    let capture = [&["-i", "portcullis", "-o", option, "-c", "20", "-l"][..], &fields].concat();
    let process = Process::start(tshark(&capture)).unwrap();
    // Nothing tells when it has begun.
    let captured = wait_longer_for("20 frames", 20 * SECOND, || {
        bed.send(&[syn(1, 80)]);
        (process.stdout().lines().filter(|line| line.contains(CLIENT) || line.starts_with("80\t")).count()
            >= 20)
            .then(|| process.stdout())
    });
    let line = captured.lines().find(|line| line.starts_with("80\t")).unwrap();
    assert!(
        line.contains(
            "verdict=drop reason=no-rule rule=- rule_id=- nic=web-1 direction=inbound generation=1"
        ),
        "{line}"
    );
    assert!(line.ends_with("\tnet_af_packet1"), "{line}");
    assert!(process.finish(10 * SECOND).unwrap().status.success());
    bed.appliance.end();
}

#[test]
fn a_reader_that_stands_still_loses_records_and_holds_nothing_up() {
    let appliance = Setup::new("net_null0", "net_null1").start(POLICY);
    let mut command = Command::new(PORTCULLIS);
    command.args(["trace", "-o", "json"]).env("PORTCULLIS_SOCKET", appliance.setup.socket());
    let trace = Process::start(command).unwrap();
    trace.wait_for("portcullis: tracing", 5 * SECOND).unwrap();
    trace.signal(Signal::STOP).unwrap();
    let judged = |appliance: &Appliance| appliance.show("counters")["packets"]["in"].as_u64().unwrap();
    let before = judged(&appliance);
    std::thread::sleep(2 * SECOND);
    assert!(judged(&appliance) > before + 100_000);
    let (status, receipt, _) = appliance.apply(&POLICY.replace("22", "23"), &[]);
    assert_eq!((status, &receipt["state"]), (0, &json!("acknowledged")));
    trace.signal(Signal::CONT).unwrap();
    trace.wait_for("records lost", 5 * SECOND).unwrap();
    trace.terminate(5 * SECOND).unwrap();
    appliance.end();
}

#[test]
fn names_that_nothing_has_and_senseless_filters_are_refused_with_what_is_allowed() {
    let appliance = Setup::new("net_null0", "net_null1").more("[trace]\nhistory = 0\n").start(POLICY);
    for (args, told) in [
        (&["trace", "--nic", "wbe-1"][..], "--nic: no NIC \"wbe-1\"; near names: web-1"),
        (&["trace", "--group", "sg-AC"], "near names: sg-AB"),
        (&["trace", "--rule", "sg-AB#7"], "--rule: no sg-AB#7; the group has sg-AB#0 to sg-AB#2"),
        (&["trace", "--reason", "no"], "--reason: no; allowed: established, new"),
        (&["trace", "--verdict", "deny"], "--verdict: deny; allowed: pass, drop"),
        (
            &["trace", "--remote", "::ffff:10.0.0.1"],
            "--remote: ::ffff:10.0.0.1 is IPv4-mapped; allowed: 10.0.0.1",
        ),
        (&["trace", "--protocol", "tcpp"], "--protocol: tcpp; allowed: "),
        (&["capture", "--write", "/dev/null", "--from", "above"], "--from: above; allowed: inside, outside"),
        (&["trace", "--seconds", "0"], "--seconds: 0; allowed: above 0"),
        (&["why", "tcp 1.1.1.1:1 > 2.2.2.2:2"], "no decisions are kept: [trace] history is 0"),
    ] {
        let output = appliance.client(args);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{args:?}: {stderr}");
        assert!(stderr.contains(told), "{args:?}: {stderr}");
    }
    // Without a history, and with nobody who watches, a trace works all the same, and ends by itself.
    let traced = appliance.text(["trace", "--count", "5", "-o", "json"]);
    assert_eq!(lines(&traced).len(), 5);
    appliance.end();
}
