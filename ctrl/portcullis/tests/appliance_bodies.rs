//! Bodies that are long, slow or many, and what HTTP says around documents.

mod appliance;

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use appliance::*;
use serde_json::{Value, json};

fn quiet() -> Appliance {
    Setup::new("net_null0,no-rx=1", "net_null1,no-rx=1").start(POLICY)
}

fn connect(appliance: &Appliance) -> UnixStream {
    let stream = UnixStream::connect(appliance.setup.socket()).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    stream
}

/// One request; the head of its answer in small letters, and the body.
fn ask(appliance: &Appliance, head: &str, body: &str) -> (u16, String, String) {
    let mut stream = connect(appliance);
    let length = body.len();
    let text = format!("{head}\r\nHost: x\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}");
    stream.write_all(text.as_bytes()).unwrap();
    answer(&mut stream)
}

fn answer(stream: &mut UnixStream) -> (u16, String, String) {
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head[9..12].parse().unwrap(), head.to_lowercase(), body.to_owned())
}

/// The most memory that it has had, in MB.
fn peak_mb(appliance: &Appliance) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", appliance.process.id())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() >> 10
}

#[test]
fn who_sends_too_much_reads_that_it_is_too_much() {
    let appliance = quiet();
    // It says so, and has not sent it.
    let mut stream = connect(&appliance);
    let begin = Instant::now();
    stream
        .write_all(b"POST /v1/policy HTTP/1.1\r\nHost: x\r\nContent-Length: 900000000\r\n\r\n# only this")
        .unwrap();
    let mut answer = [0; 12];
    stream.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"HTTP/1.1 413");
    assert!(begin.elapsed() < Duration::from_secs(5), "{:?}", begin.elapsed());
    // It does not say so, and sends all of it before it reads.
    let mut stream = connect(&appliance);
    stream.write_all(b"POST /v1/policy HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n").unwrap();
    let chunk = vec![b'#'; 1 << 20];
    for _ in 0..160 {
        stream.write_all(format!("{:x}\r\n", chunk.len()).as_bytes()).unwrap();
        stream.write_all(&chunk).unwrap();
        stream.write_all(b"\r\n").unwrap();
    }
    stream.write_all(b"0\r\n\r\n").unwrap();
    let mut text = [0; 12];
    stream.read_exact(&mut text).unwrap();
    assert_eq!(&text, b"HTTP/1.1 413");
    appliance.end();
}

#[test]
fn many_long_bodies_take_no_more_memory_than_one() {
    let appliance = quiet();
    let before = peak_mb(&appliance);
    let body = "#".repeat(100 << 20);
    let statuses: Vec<u16> = std::thread::scope(|scope| {
        let senders: Vec<_> =
            (0..8).map(|_| scope.spawn(|| ask(&appliance, "POST /v1/policy HTTP/1.1", &body).0)).collect();
        senders.into_iter().map(|sender| sender.join().unwrap()).collect()
    });
    // Comments alone are an empty document, which is refused; who found no room is told to try again.
    assert!(statuses.iter().all(|status| matches!(status, 409 | 503)), "{statuses:?}");
    assert!(statuses.contains(&409) && statuses.contains(&503), "{statuses:?}");
    let more = peak_mb(&appliance) - before;
    assert!(more < 450, "{more} MB more");
    // And then there is room again.
    assert_eq!(ask(&appliance, "POST /v1/policy HTTP/1.1", &body).0, 409);
    appliance.end();
}

#[test]
fn a_body_that_stops_coming_is_not_waited_for_for_ever() {
    let appliance = quiet();
    let mut stream = connect(&appliance);
    stream.write_all(b"POST /v1/policy HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\nvpcs:").unwrap();
    let begin = Instant::now();
    let mut answer = [0; 12];
    stream.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"HTTP/1.1 408");
    assert!(begin.elapsed() < Duration::from_secs(15), "{:?}", begin.elapsed());
    appliance.end();
}

#[test]
fn documents_are_json_where_that_is_asked_for_and_as_good_as_the_others() {
    let appliance = quiet();
    for path in ["/v1/policy", "/v1/generations/1/policy", "/v1/nics/default/web-1"] {
        let (status, head, body) = ask(&appliance, &format!("GET {path} HTTP/1.1"), "");
        assert!(status == 200 && head.contains("content-type: application/yaml"), "{path}: {head}");
        assert!(serde_json::from_str::<Value>(&body).is_err(), "{body}");
        let (status, head, body) =
            ask(&appliance, &format!("GET {path} HTTP/1.1\r\nAccept: application/json"), "");
        assert!(status == 200 && head.contains("content-type: application/json"), "{path}: {head}");
        assert!(head.contains("etag: \"1\""), "{head}");
        let json: Value = serde_json::from_str(&body).unwrap();
        let nic = if path.ends_with("web-1") { &json } else { &json["nics"][0] };
        assert_eq!(nic["addresses"], json!(["10.5.6.7", "2001:db8::7"]), "{path}");
        if path == "/v1/policy" {
            let (_, _, receipt) = ask(&appliance, "POST /v1/policy HTTP/1.1", &body);
            assert!(receipt.contains("\"unchanged\""), "{receipt}");
        }
    }
    appliance.end();
}

#[test]
fn changes_are_made_on_the_conditions_of_the_rfc() {
    let appliance = quiet();
    let nic = "{ name: web-1, vpc: prod, addresses: [10.5.6.7], security_groups: [sg-AB] }";
    let put = |condition: &str, name: &str, body: &str| {
        let head = format!("PUT /v1/nics/default/{name}?dry_run=true HTTP/1.1\r\nIf-Match: {condition}");
        ask(&appliance, &head, body).0
    };
    for (condition, expected) in [
        ("\"1\"", 200),
        ("\"7\", \"1\"", 200),
        ("*", 200),
        ("\"2\"", 412),
        ("W/\"1\"", 412),
        ("\"somebody's\"", 412),
        ("1", 200),
        ("\"1", 400),
    ] {
        assert_eq!(put(condition, "web-1", nic), expected, "{condition}");
    }
    assert_eq!(
        put("*", "web-2", &nic.replace("web-1", "web-2").replace("6.7", "6.8")),
        412,
        "it is not there"
    );
    appliance.end();
}

#[test]
fn every_change_is_logged_with_who_and_what() {
    let appliance = quiet();
    appliance.apply(&POLICY.replace("ports: 22", "ports: 23"), &["--confirm", "60"]);
    appliance.text(["confirm"]);
    appliance.text(["rollback", "1"]);
    appliance.text(["connections", "flush", "--nic", "web-1"]);
    appliance.setup.write("policy.yaml", POLICY.replace("ports: 22", "ports: 24"));
    appliance.process.wait_for("generation 4 by", READY).unwrap();
    let (finished, _) = appliance.end();
    for part in [
        "generation 2 by root (api): changed sg-AB; 1 NICs flushed",
        "generation 2 is confirmed by root (api)",
        "generation 3 by root (api): changed sg-AB;",
        "0 connections disconnected by root (api): nic=web-1",
        "policy.yaml (file): changed sg-AB;",
    ] {
        assert!(finished.stderr.contains(part), "{part:?} is not in:\n{}", finished.stderr);
    }
}

#[test]
fn a_flush_that_names_nothing_and_a_filter_that_is_none_are_refused_in_the_words_of_options() {
    let appliance = quiet();
    let refused = |args: &[&str]| {
        let output = appliance.client(args);
        assert_eq!(output.status.code(), Some(2), "{args:?}");
        String::from_utf8(output.stderr).unwrap()
    };
    assert!(refused(&["connections", "flush"]).contains("--all for every connection"));
    assert!(refused(&["connections", "list", "--nic", "web-2"]).contains("--nic: no NIC \"web-2\""));
    assert!(refused(&["connections", "list", "--state", "x"]).contains("--state: x; allowed: "));
    let packet = refused(&["explain", "--from", "outside", "--packet", "02 0g"]);
    assert!(packet.starts_with("portcullis: --packet: 'g' at character 5"), "{packet}");
    appliance.end();
}

#[test]
fn counters_are_watched_with_their_rates() {
    let appliance = quiet();
    let mut command = std::process::Command::new(PORTCULLIS);
    command
        .args(["show", "counters", "--watch", "0.1", "-o", "json", "--socket"])
        .arg(appliance.setup.socket());
    let watch = testkit::lab::Process::start(command).unwrap();
    watch.wait_for("\"per_second\":{\"bytes\":{\"drop\":0.0,\"in\":0.0,\"pass\":0.0},\"nics\":[],\"packets\":{\"drop\":0.0,\"in\":0.0,\"pass\":0.0}", READY).unwrap();
    drop(watch);
    appliance.end();
}

#[test]
fn a_supervisor_is_told_of_start_reload_and_end() {
    let setup = Setup::new("net_null0,no-rx=1", "net_null1,no-rx=1");
    let path = setup.path("notify");
    let supervisor = std::os::unix::net::UnixDatagram::bind(&path).unwrap();
    supervisor.set_read_timeout(Some(READY)).unwrap();
    let told = || {
        let mut text = [0; 256];
        let length = supervisor.recv(&mut text).unwrap();
        String::from_utf8(text[..length].to_vec()).unwrap()
    };
    let policy = setup.write("policy.yaml", POLICY);
    let mut command = setup.command(Some(&policy));
    command.env("NOTIFY_SOCKET", &path).env("WATCHDOG_USEC", "10000000");
    let appliance = setup.spawn(command);
    // As long as no worker stands still, once a second.
    let calls = std::cell::Cell::new(0);
    let told = || {
        loop {
            match told() {
                call if call == "WATCHDOG=1" => calls.set(calls.get() + 1),
                other => return other,
            }
        }
    };
    assert_eq!(told(), "READY=1");
    std::thread::sleep(Duration::from_millis(2500));
    appliance.process.signal(rustix::process::Signal::HUP).unwrap();
    assert!(told().starts_with("RELOADING=1\nMONOTONIC_USEC="));
    assert_eq!(told(), "READY=1");
    appliance.end();
    assert_eq!(told(), "STOPPING=1");
    assert!(calls.get() > 0, "the watchdog was not fed");
}
