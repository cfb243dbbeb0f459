//! The two profiles of docs/profiles.md, with the very files that users take, on real TCP.

mod common;

use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use common::number;
use common::rig::{LATE, Rig};
use testkit::lab::{At, CLIENT_V4, INSIDE, Lab, OUTSIDE, Probe, Process, SERVER_V4};

const SOON: Duration = Duration::from_secs(2);
/// How long something is awaited that must not come.
const NEVER: Duration = Duration::from_millis(800);
const AUTOSCALING: &str = include_str!("../../profiles/autoscaling.toml");
const LIVE_INSERTION: &str = include_str!("../../profiles/live-insertion.toml");

/// Client and server as members of one group, which lets its members reach each other by these ports, and `others` beside.
fn fleet(ports: &str, others: &[&str]) -> String {
    let member = |name: &str, address: &str| {
        format!("  - {{ name: {name}, vpc: lab, addresses: [{address}], security_groups: [fleet] }}\n")
    };
    let others: String =
        others.iter().zip(100..).map(|(name, n)| member(name, &format!("10.5.6.{n}"))).collect();
    format!(
        "vpcs: [{{ name: lab, segment: {{ untagged: true }} }}]
security_groups:
  - name: fleet
    rules:
      - {{ direction: inbound, protocol: tcp, ports: {ports}, remote_group: fleet }}
      - {{ direction: outbound }}
nics:
{}{}{others}",
        member("server", SERVER_V4),
        member("client", CLIENT_V4),
    )
}

/// A bulk transfer between the two members that goes on until it is ended, and has begun.
fn transfer(rig: &Rig) -> (Process, Process) {
    let server = rig.lab.iperf3_server(At::Server, 5201).unwrap();
    let options = ["-t", "12", "-i", "1", "-b", "100M"];
    let transfer = rig.lab.iperf3(At::Client, SERVER_V4, 5201, &options).unwrap();
    transfer.wait_for("bits/sec", LATE).unwrap();
    (server, transfer)
}

#[test]
fn a_transfer_between_members_goes_on_while_the_fleet_grows_shrinks_and_changes_its_rules() {
    let Some(rig) = Rig::start("autoscaling", AUTOSCALING, &fleet("5000-6000", &[])) else { return };
    let _echo = rig.lab.echo_server(At::Server, 5000).unwrap();
    let mut session = rig.lab.connect(At::Client, (SERVER_V4, 5000), SOON).unwrap();
    let (_server, transfer) = transfer(&rig);
    for others in [&["new-1"][..], &["new-1", "new-2"], &["new-2"], &[]] {
        let receipt = rig.apply(&fleet("5000-6000", others));
        // Nobody who was there before is flushed, and nobody who stays is disconnected.
        assert!(receipt.contains(r#""flushed":[]"#) && number(&receipt, "disconnected") == 0, "{receipt}");
        assert!(session.echo(b"still there", SOON).unwrap(), "{others:?}");
    }
    // The group itself changes: what the new rules allow goes on, what they refuse is shut.
    let receipt = rig.apply(&fleet("5200-6000", &[]));
    assert!(receipt.contains(r#""rejudged":["client","server"]"#), "{receipt}");
    assert!(!session.echo(b"not any more", NEVER).unwrap(), "the rules refuse it, and it goes on");
    transfer.finish(LATE).unwrap().success().unwrap();
    let connections = rig.ask(&["connections", "list", "--tombstone"]);
    assert!(connections.contains(r#""local_port":5000"#), "{connections}");
    assert!(!connections.contains(r#""local_port":5201"#), "{connections}");
    rig.end();
}

/// What the profile is for: by the defaults the same step cuts everybody's connections.
#[test]
fn without_the_profile_a_new_member_flushes_the_whole_fleet() {
    let Some(rig) = Rig::start("wide", "", &fleet("5000-6000", &[])) else { return };
    let _echo = rig.lab.echo_server(At::Server, 5000).unwrap();
    let mut session = rig.lab.connect(At::Client, (SERVER_V4, 5000), SOON).unwrap();
    assert!(session.echo(b"hello", SOON).unwrap());
    let receipt = rig.apply(&fleet("5000-6000", &["new-1"]));
    assert_eq!(number(&receipt, "disconnected"), 1, "{receipt}");
    assert!(!session.echo(b"hello", NEVER).unwrap());
    rig.end();
}

/// The lab's server, which may be reached by port 22 and may reach everybody; `mode`: its own, if any.
fn server(mode: &str) -> String {
    format!(
        "vpcs: [{{ name: lab, segment: {{ untagged: true }} }}]
security_groups:
  - name: sg
    rules: [{{ direction: inbound, protocol: tcp, ports: 22 }}, {{ direction: outbound }}]
nics: [{{ name: server, vpc: lab, addresses: [{SERVER_V4}], security_groups: [sg] {mode} }}]
"
    )
}

/// Bytes that go there and come back without a pause, for as long as this lives.
struct Transfer {
    echoed: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Transfer {
    fn start(mut stream: TcpStream) -> Transfer {
        let (echoed, stop) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let (counted, stopped) = (echoed.clone(), stop.clone());
        let thread = std::thread::spawn(move || {
            let piece = [7; 16_384];
            while !stopped.load(Ordering::Relaxed) && stream.echo(&piece, LATE).unwrap_or(false) {
                counted.fetch_add(piece.len() as u64, Ordering::Relaxed);
            }
        });
        Transfer { echoed, stop, thread: Some(thread) }
    }

    /// More of it comes, from now on.
    fn goes_on(&self) {
        let (before, until) = (self.echoed.load(Ordering::Relaxed), Instant::now() + LATE);
        while self.echoed.load(Ordering::Relaxed) < before + 200_000 {
            assert!(Instant::now() < until, "the transfer has stopped after {before} bytes");
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Transfer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

#[test]
fn an_appliance_put_in_front_of_running_connections_takes_up_what_the_rules_allow_and_shuts_the_rest() {
    if let Some(reason) = Lab::missing() {
        eprintln!("skipped: {reason}");
        return;
    }
    // Before there is an appliance: a bridge in its place, and connections of all kinds.
    let lab = Lab::bridged().unwrap();
    let _ssh = lab.echo_server(At::Server, 22).unwrap();
    let _telnet = lab.echo_server(At::Server, 23).unwrap();
    let _outer = lab.echo_server(At::Client, 443).unwrap();
    let mut allowed = lab.connect(At::Client, (SERVER_V4, 22), SOON).unwrap();
    let mut forbidden = lab.connect(At::Client, (SERVER_V4, 23), SOON).unwrap();
    let mut own = lab.connect(At::Server, (CLIENT_V4, 443), SOON).unwrap();
    let _sink = lab.echo_server(At::Client, 5201).unwrap();
    let transfer = Transfer::start(lab.connect(At::Server, (CLIENT_V4, 5201), SOON).unwrap());
    transfer.goes_on();
    for session in [&mut allowed, &mut forbidden, &mut own] {
        assert!(session.echo(b"before", SOON).unwrap());
    }

    // The bridge goes, the appliance comes.
    for port in [INSIDE, OUTSIDE] {
        lab.run(At::Appliance, ["ip", "link", "set", port, "nomaster"], SOON).unwrap().success().unwrap();
    }
    let grace = Duration::from_secs(12);
    let profile = LIVE_INSERTION.replace("3600", &grace.as_secs().to_string());
    let inserted = Instant::now();
    let rig = Rig::start_in(lab, "insertion", &profile, &server(""));
    for session in [&mut allowed, &mut forbidden, &mut own] {
        // Frames of the moment without bridge and appliance are lost, and the kernels send them again.
        assert!(session.echo(b"observed", LATE).unwrap(), "observe mode dropped something");
    }
    transfer.goes_on();
    let counters = rig.ask(&["show", "counters"]);
    assert!(number(&counters, "no-rule") > 0, "what enforcing would shut is not told: {counters}");
    let listed = |filter: &[&str]| rig.ask(&[&["connections", "list"], filter].concat());
    assert!(listed(&["--local-port", "22"]).contains(r#""opened":"inbound""#), "{}", listed(&[]));
    for port in ["443", "5201"] {
        assert!(listed(&["--remote-port", port]).contains(r#""opened":"outbound""#), "{}", listed(&[]));
    }
    // What the rules forbid inbound, and allow outbound, looks like the server's own as soon as the server answers.
    let taken_up = ["--opened", "outbound", "--local-port", "23"];
    assert!(listed(&taken_up).contains(r#""nic":"server""#), "{}", listed(&[]));

    // The time of grace is over: what is ended now is not taken up again.
    std::thread::sleep(grace.saturating_sub(inserted.elapsed()) + SOON);
    let flushed = rig.ask(&[&["connections", "flush"], &taken_up[..]].concat());
    assert_eq!(number(&flushed, "count"), 1, "{flushed}");
    // Enforced, without a restart, and nothing that the rules allow notices.
    let receipt = rig.apply(&server(", mode: enforce"));
    assert!(receipt.contains(r#""flushed":[]"#) && number(&receipt, "disconnected") == 0, "{receipt}");
    for session in [&mut allowed, &mut own] {
        assert!(session.echo(b"enforced", SOON).unwrap(), "it was allowed, and is gone");
    }
    assert!(!forbidden.echo(b"enforced", NEVER).unwrap(), "the rules forbid it, and it goes on");
    assert!(rig.lab.connect(At::Client, (SERVER_V4, 23), NEVER).is_err());
    assert!(rig.lab.connect(At::Client, (SERVER_V4, 22), SOON).is_ok());
    transfer.goes_on();
    rig.end();
}
