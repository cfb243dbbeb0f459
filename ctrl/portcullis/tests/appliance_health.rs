//! What goes wrong beside the packets: nothing of it ends the appliance, and health names it.

mod appliance;

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use appliance::*;
use serde_json::Value;

fn quiet() -> Setup {
    Setup::new("net_null0,no-rx=1", "net_null1,no-rx=1")
}

fn with_port(port: u16) -> String {
    POLICY.replace("ports: 22", &format!("ports: {port}"))
}

/// The problem about `what` that lasts, or that is over.
fn problem(appliance: &Appliance, what: &str, is_over: bool) -> Option<Value> {
    let health = appliance.show("health");
    let mut problems = health["problems"].as_array().unwrap().iter();
    problems.find(|p| p["what"] == what && p["ended"].is_null() != is_over).cloned()
}

fn wait_for_problem(appliance: &Appliance, what: &str) -> Value {
    wait_for(what, || problem(appliance, what, false))
}

fn wait_for_end(appliance: &Appliance, what: &str) {
    wait_for(&format!("{what}: over"), || {
        problem(appliance, what, true).filter(|_| problem(appliance, what, false).is_none())
    });
}

#[test]
fn a_policy_file_that_is_refused_is_in_health_until_it_is_mended() {
    let appliance = quiet().start(POLICY);
    let health = appliance.show("health");
    assert_eq!((health["status"].as_str(), health["problems"].as_array().unwrap().len()), (Some("ok"), 0));
    appliance.setup.write("policy.yaml", "vpcs: 7\n");
    let found = wait_for_problem(&appliance, "policy file");
    assert!(found["problem"].as_str().unwrap().contains("policy.yaml:1:7"), "{found}");
    assert!(found["since"].as_u64().unwrap() > 1_700_000_000 && found["cure"].is_string(), "{found}");
    assert_eq!(appliance.show("health")["status"], "degraded");
    let text = appliance.text(["show", "health"]);
    assert!(text.starts_with("degraded, generation 1\npolicy file (since 20"), "{text}");
    appliance.setup.write("policy.yaml", with_port(23));
    wait_for_end(&appliance, "policy file");
    assert_eq!(appliance.show("health")["status"], "ok");
    appliance.end();
}

/// Starts the appliance with a log that goes elsewhere.
fn start_with_log(setup: Setup, log: impl Into<Stdio>) -> (Child, Setup) {
    let policy = setup.write("policy.yaml", POLICY);
    let mut command = setup.command(Some(&policy));
    let mut child = command.stderr(log).stdout(Stdio::piped()).spawn().unwrap();
    let mut ready = [0; 17];
    child.stdout.as_mut().unwrap().read_exact(&mut ready).unwrap();
    assert_eq!(&ready, b"portcullis: ready");
    (child, setup)
}

/// Has the appliance write that many lines of its log.
fn make_it_talk(setup: &Setup, changes: u16) {
    for n in 0..changes {
        let file = setup.write("talk.yaml", with_port(1000 + n));
        let applied = client(setup, &["apply", file.to_str().unwrap()]);
        assert!(applied.status.success(), "{}", String::from_utf8_lossy(&applied.stderr));
    }
}

fn client(setup: &Setup, args: &[&str]) -> std::process::Output {
    Command::new(PORTCULLIS).args(args).env("PORTCULLIS_SOCKET", setup.socket()).output().unwrap()
}

fn end(mut child: Child) {
    // SAFETY: a signal to a process of ours that has not been waited for.
    unsafe { libc::kill(child.id() as i32, libc::SIGTERM) };
    let status = wait_for("the end", || child.try_wait().unwrap());
    assert!(status.success(), "{status}");
}

#[test]
fn a_log_that_nobody_reads_any_more_ends_nothing_and_its_lines_are_counted() {
    let (reader, writer) = std::io::pipe().unwrap();
    let (child, setup) = start_with_log(quiet(), writer);
    drop(reader);
    make_it_talk(&setup, 5);
    wait_for("the lost lines in health", || {
        let health = client(&setup, &["show", "health", "-o", "json"]).stdout;
        String::from_utf8(health).unwrap().contains("\"what\":\"log\"").then_some(())
    });
    end(child);
}

#[test]
fn a_full_pipe_behind_the_log_holds_nobody_up() {
    let (reader, mut writer) = std::io::pipe().unwrap();
    let log = writer.try_clone().unwrap();
    let (child, setup) = start_with_log(quiet(), log);
    rustix::io::ioctl_fionbio(&writer, true).unwrap();
    while writer.write(&[b'x'; 4096]).is_ok() {}
    rustix::io::ioctl_fionbio(&writer, false).unwrap();
    make_it_talk(&setup, 5);
    end(child);
    drop(reader);
}

#[test]
fn a_log_on_a_full_disk_ends_nothing() {
    let full = fs::File::options().write(true).open("/dev/full").unwrap();
    let (child, setup) = start_with_log(quiet(), full);
    make_it_talk(&setup, 3);
    end(child);
}

#[test]
fn every_change_is_logged_with_who_and_what_as_text_or_json() {
    for (format, told) in
        [("text", " by root (api): changed sg-AB;"), ("json", "\"message\":\"generation 2 by root (api)")]
    {
        let appliance = quiet().more(&format!("[log]\nformat = {format:?}\n")).start(POLICY);
        appliance.apply(&with_port(23), &[]);
        let (finished, _) = appliance.end();
        assert!(finished.stderr.contains(told), "{}", finished.stderr);
    }
    let setup = quiet();
    let refused = setup.command(None).env("PORTCULLIS_LOG", "loud").output().unwrap();
    let told = String::from_utf8(refused.stderr).unwrap();
    assert_eq!(
        (refused.status.code(), told.contains("PORTCULLIS_LOG: loud; allowed: off, error")),
        (Some(2), true),
        "{told}"
    );
}

/// A file system of its own for a store, so small that it can be filled; unmounted when dropped.
struct Disk(PathBuf);

impl Disk {
    fn new(at: &Path) -> Disk {
        fs::create_dir_all(at).unwrap();
        let mounted =
            Command::new("mount").args(["-t", "tmpfs", "-o", "size=8m", "none"]).arg(at).status().unwrap();
        assert!(mounted.success(), "mounting needs root");
        Disk(at.to_owned())
    }

    fn fill(&self) {
        let filler = fs::File::create(self.0.join("filler")).unwrap();
        let mut at = 0;
        while let Ok(written @ 1..) = filler.write_at(&[1; 4096], at) {
            at += written as u64;
        }
    }

    fn free(&self) {
        fs::remove_file(self.0.join("filler")).unwrap();
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Lazily: the appliance may have it open still where a test fails.
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

fn stored() -> Setup {
    let setup = quiet();
    let store = setup.path("disk/policy.redb");
    setup.more(&format!("[store]\npath = {store:?}\n"))
}

/// True where file systems can be mounted; says so where not.
fn can_mount() -> bool {
    let is_root = rustix::process::geteuid().is_root();
    if !is_root {
        eprintln!("SKIPPED: mounting needs root");
    }
    is_root
}

#[test]
fn a_full_disk_refuses_changes_and_when_it_is_freed_they_go_on_without_a_restart() {
    if !can_mount() {
        return;
    }
    let setup = stored();
    let disk = Disk::new(&setup.path("disk"));
    let appliance = setup.start(POLICY);
    disk.fill();
    // As many as the store has room for within its file, at least one is refused.
    let refused =
        (0..2000).map(|n| appliance.apply(&with_port(1000 + n), &[])).find(|(status, ..)| *status != 0);
    let (status, _, told) = refused.unwrap();
    assert_eq!(status, 1, "{told}");
    let found = wait_for_problem(&appliance, "store");
    let durable =
        format!("generation {} is the last that is durable", appliance.show("snapshot")["generation"]);
    assert!(found["problem"].as_str().unwrap().contains(&durable), "{found}: {durable}");
    disk.free();
    wait_for_end(&appliance, "store");
    assert_eq!(appliance.apply(&with_port(999), &[]).0, 0);
    appliance.end();
}

#[test]
fn a_change_that_nobody_confirms_is_taken_back_whatever_the_disk_says() {
    let appliance = stored().start(POLICY);
    let (store, elsewhere) =
        (appliance.setup.path("disk/policy.redb"), appliance.setup.path("disk/away.redb"));
    let (status, receipt, told) = appliance.apply(&with_port(23), &["--confirm", "2"]);
    assert_eq!((status, receipt["state"].as_str()), (0, Some("unconfirmed")), "{told}");
    fs::rename(&store, &elsewhere).unwrap();
    wait_for("the rollback", || appliance.text(["export"]).contains("ports: 22").then_some(()));
    assert_eq!(appliance.show("snapshot")["generation"], 3);
    let found = wait_for_problem(&appliance, "store");
    assert!(found["problem"].as_str().unwrap().contains("generation 2 was the last"), "{found}");
    assert_eq!(appliance.apply(&with_port(24), &[]).0, 1, "nothing is built upon what is not durable");
    fs::rename(&elsewhere, &store).unwrap();
    // Written by itself, without another change.
    wait_for_end(&appliance, "store");
    let setup = appliance.kill();
    let command = setup.command(Some(&setup.path("policy.yaml")));
    let appliance = setup.spawn(command);
    assert_eq!(appliance.show("snapshot")["generation"], 3);
    assert!(appliance.text(["export"]).contains("ports: 22"));
    appliance.end();
}

#[test]
fn a_store_that_is_taken_away_takes_no_changes_until_it_is_back() {
    let appliance = stored().start(POLICY);
    let (store, elsewhere) =
        (appliance.setup.path("disk/policy.redb"), appliance.setup.path("disk/away.redb"));
    fs::rename(&store, &elsewhere).unwrap();
    let found = wait_for_problem(&appliance, "store");
    assert!(found["problem"].as_str().unwrap().contains("is not there any more"), "{found}");
    let (status, _, told) = appliance.apply(&with_port(23), &[]);
    assert_eq!((status, told.contains("is not there any more")), (1, true), "{told}");
    assert_eq!(appliance.show("snapshot")["generation"], 1, "nothing is half applied");
    // Another file in its place is not it.
    fs::copy(&elsewhere, &store).unwrap();
    assert_eq!(appliance.apply(&with_port(23), &[]).0, 1);
    fs::rename(&elsewhere, &store).unwrap();
    wait_for_end(&appliance, "store");
    assert_eq!(appliance.apply(&with_port(23), &[]).0, 0);
    appliance.end();
}

#[test]
fn a_table_that_is_nearly_full_is_in_health_with_who_fills_it() {
    let setup = Setup::new("net_null0,no-rx=1", "net_pcap1,rx_pcap=IN,tx_pcap=OUT").fill("", "outside");
    let syns = (1..=100u16).map(|port| {
        testkit::frame::Build::frame(&testkit::frame::tcp(("198.51.100.9", port), ("10.5.6.7", 22)).syn())
    });
    testkit::pcap::write(
        setup.path("outside.pcap"),
        testkit::pcap::Format::NANO,
        &testkit::pcap::records(1, syns),
    )
    .unwrap();
    let setup = setup.more("[conntrack]\ncapacity = 100\nunconfirmed_share = 1.0\n");
    let other = "\n  - { name: idle, vpc: prod, addresses: [10.5.6.8], security_groups: [sg-AB] }\n";
    let appliance = setup.start(&(POLICY.to_owned() + other));
    let found = wait_for_problem(&appliance, "connections");
    assert!(found["problem"].as_str().unwrap().contains("above their fair share: web-1 ("), "{found}");
    appliance.end();
}

/// Holds its memory to what it has now and `more` bytes, or lets it have all again.
fn limit_memory(appliance: &Appliance, more: Option<u64>) {
    use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit};
    let process = Pid::from_raw(appliance.process.id() as i32).unwrap();
    let status = fs::read_to_string(format!("/proc/{}/status", appliance.process.id())).unwrap();
    let kilobytes = status.lines().find_map(|line| line.strip_prefix("VmData:")).unwrap();
    let kilobytes: u64 = kilobytes.trim().trim_end_matches(" kB").parse().unwrap();
    let Rlimit { current, maximum } = getrlimit(Resource::Data);
    let current = more.map(|more| (kilobytes << 10) + more).or(current);
    prlimit(Some(process), Resource::Data, Rlimit { current, maximum }).unwrap();
}

#[test]
fn a_change_for_which_there_is_no_memory_waits_or_is_refused_while_packets_go_on() {
    let appliance = Setup::new("net_null0", "net_null1,no-rx=1").start(POLICY);
    // Once clients are served: that takes memory, too.
    appliance.show("health");
    let packets = || appliance.show("counters")["ports"].to_string();
    let packets_go_on = || {
        let before = packets();
        wait_for("packets", || (packets() != before).then_some(()));
    };
    // A body that can't even be read.
    limit_memory(&appliance, Some(0));
    let padding = format!("# {}\n", "x".repeat(997)).repeat(60_000);
    let (status, _, told) = appliance.apply(&(with_port(23) + &padding), &[]);
    assert_eq!((status, told.contains("there is no memory for a body of this length")), (1, true), "{told}");
    packets_go_on();
    // One whose NICs are too many.
    let nics = (0..40_000u32).map(|n| {
        let address = std::net::Ipv4Addr::from_bits(0x0b00_0000 + n);
        format!("  - {{ name: n{n}, vpc: prod, addresses: [{address}], security_groups: [sg-AB] }}\n")
    });
    let file = appliance.setup.write("large.yaml", with_port(23) + "\n" + &nics.collect::<String>());
    // Wherever the memory ends: it waits, or is refused, and the same change does once there is enough.
    let apply = || {
        let mut client = Command::new(PORTCULLIS);
        client.arg("apply").arg(&file).env("PORTCULLIS_SOCKET", appliance.setup.socket());
        client.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
    };
    for more in [0, 4, 8, 16, 32] {
        limit_memory(&appliance, Some(more << 20));
        let mut client = apply();
        std::thread::sleep(Duration::from_secs(1));
        limit_memory(&appliance, None);
        client.wait().unwrap();
        packets_go_on();
    }
    assert!(apply().wait().unwrap().success());
    assert_eq!(appliance.show("snapshot")["nics"], 40_001);
    appliance.end();
}
