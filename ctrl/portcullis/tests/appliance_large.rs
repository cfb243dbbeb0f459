//! Changes of many NICs: health is told and signals are minded while they are worked out.

mod appliance;

use std::fmt::Write as _;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use appliance::*;
use serde_json::Value;

const NICS: u32 = 40_000;

fn large() -> String {
    let mut text = "vpcs: [{ name: prod, segment: { untagged: true } }]\nnics:\n".to_owned();
    for n in 0..NICS {
        let [_, a, b, c] = n.to_be_bytes();
        writeln!(text, "- {{ name: n{n}, vpc: prod, addresses: [10.{a}.{b}.{c}] }}").unwrap();
    }
    text
}

/// Without a process for each.
fn health(socket: &Path) -> Value {
    let mut stream = UnixStream::connect(socket).unwrap();
    stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    serde_json::from_str(answer.split_once("\r\n\r\n").unwrap().1).unwrap()
}

#[test]
fn health_answers_while_a_large_change_is_worked_out() {
    let appliance = Setup::new("net_null0,no-rx=1", "net_null1,no-rx=1").start(&large());
    let socket = appliance.setup.socket();
    let rollback = |to: &str| {
        Command::new(PORTCULLIS).args(["rollback", to]).env("PORTCULLIS_SOCKET", &socket).spawn().unwrap()
    };
    // Nothing to read: all of it is planning, compiling and drawing.
    for to in ["0", "1"] {
        let before = appliance.show("snapshot")["generation"].as_u64().unwrap();
        let mut change = rollback(to);
        let mut meanwhile = 0;
        while change.try_wait().unwrap().is_none() {
            let health = health(&socket);
            assert_eq!(health["status"], "ok", "{health}");
            meanwhile += u32::from(health["generation"] == before);
            std::thread::sleep(Duration::from_millis(1));
        }
        assert!(change.wait().unwrap().success());
        // To end them all takes a moment, to bring them back a second.
        assert!(to == "0" || meanwhile >= 3, "{meanwhile} answers while going back to {to}");
    }
    assert_eq!(appliance.show("snapshot")["nics"], NICS);
    // Page by page, and as one list.
    let listed: serde_json::Value =
        serde_json::from_str(&appliance.text(["show", "nics", "-o", "json"])).unwrap();
    let listed = listed.as_array().unwrap();
    assert_eq!(listed.len(), NICS as usize);
    assert!(listed.iter().enumerate().all(|(n, nic)| nic["nic"] == format!("n{n}")));
    appliance.end();
}
