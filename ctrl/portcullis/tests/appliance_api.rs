//! The API by its own description, and `explain` by the policy in force.

mod appliance;

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;

use appliance::*;
use serde_json::Value;
use testkit::frame::*;

fn quiet() -> Appliance {
    Setup::new("net_null0,no-rx=1", "net_null1,no-rx=1").start(POLICY)
}

/// One request over the socket: the status and the body.
fn ask(appliance: &Appliance, head: &str, body: &[u8]) -> (u16, String, String) {
    let mut stream = UnixStream::connect(appliance.setup.socket()).unwrap();
    let length = body.len();
    let head = format!("{head} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n");
    stream.write_all(head.as_bytes()).unwrap();
    // Of a body that is too long it need not read the end.
    let _ = stream.write_all(body);
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head[9..12].parse().unwrap(), head.to_lowercase(), body.to_owned())
}

#[test]
fn it_describes_itself_as_the_documentation_does() {
    let appliance = quiet();
    let checked_in =
        std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/openapi.json"))
            .unwrap();
    for path in ["/openapi.json", "/v1/openapi.json"] {
        let (status, head, body) = ask(&appliance, &format!("GET {path}"), b"");
        assert_eq!(status, 200);
        assert!(head.contains("content-type: application/json"), "{head}");
        assert!(body == checked_in, "{path} is not docs/openapi.json");
    }
    appliance.end();
}

#[test]
fn every_refusal_is_one_line_of_json() {
    let appliance = quiet();
    let long = vec![b' '; (1 << 20) + 1];
    for (request, body, expected, told) in [
        ("POST /v1/explain", &long[..], 413, "too long"),
        ("GET /v1/nowhere", b"", 404, "no such path"),
        ("DELETE /v1/policy", b"", 405, "no such method"),
        ("POST /v1/policy?dry=true", b"", 400, "dry"),
        ("POST /v1/policy?generation=1", b"", 400, "generation"),
        ("POST /v1/policy", b"\xff", 422, "no UTF-8"),
        ("PUT /v1/nics/default/x", b"\xff", 422, "no UTF-8"),
        ("POST /v1/rollback", b"", 400, "generation"),
        ("POST /v1/rollback?generation=99", b"", 404, "99"),
        ("GET /v1/generations/one", b"", 400, "one"),
        ("GET /v1/generations/1?wait=acknowledged&timeout=61", b"", 400, "0 to 60 seconds"),
        ("PUT /v1/security-groups/default/sg-AB/rules/x", b"{}", 400, "x"),
        ("PUT /v1/security-groups/default/sg-AB/rules/9", b"{direction: inbound}", 404, "sg-AB#9"),
        ("GET /v1/vpcs/a%23b", b"", 400, "holds '#'"),
        ("POST /v1/explain", b"{", 400, "EOF"),
        ("POST /v1/explain", b"{}", 422, "allowed: "),
        ("POST /v1/explain", b"{\"nick\":\"x\"}", 422, "nick"),
        ("POST /v1/connections/flush", b"", 400, "all=true"),
    ] {
        let (status, head, body) = ask(&appliance, request, body);
        assert_eq!(status, expected, "{request}: {body}");
        assert!(head.contains("content-type: application/json"), "{request}: {head}");
        let refusal: Value = serde_json::from_str(&body).unwrap();
        let error = refusal["error"].as_str().unwrap();
        assert!(error.contains(told) && error.lines().count() == 1, "{request}: {error}");
    }
    appliance.end();
}

fn explained(appliance: &Appliance, arguments: &[&str]) -> Value {
    let all: Vec<&str> = ["explain", "-o", "json"].iter().chain(arguments).copied().collect();
    serde_json::from_str(&appliance.text(all)).unwrap()
}

fn hex(frame: &impl Build) -> String {
    frame.frame().iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn explain_tells_what_the_policy_in_force_makes_of_a_packet() {
    let appliance = quiet();
    let ssh = ["--nic", "web-1", "inbound tcp 198.51.100.9:40000 > 10.5.6.7:22"];
    let told = explained(&appliance, &ssh);
    assert_eq!(
        (&told["verdict"], &told["reason"], &told["rule"]),
        (&"pass".into(), &"new".into(), &"sg-AB#0".into())
    );
    assert_eq!(told["generation"], 1);

    appliance.apply(&POLICY.replace("ports: 22", "ports: 23"), &[]);
    let told = explained(&appliance, &ssh);
    assert_eq!(
        (&told["verdict"], &told["reason"], &told["generation"]),
        (&"drop".into(), &"no-rule".into(), &2.into())
    );
    assert_eq!(told["nearest"][0]["mismatch"], serde_json::json!(["ports"]));

    // The same as by the document, but for the generation.
    let document = appliance.setup.write("exported.yaml", appliance.text(["export"]));
    let mut offline = explained(&appliance, &[&ssh[..], &["--policy", document.to_str().unwrap()]].concat());
    offline["generation"] = told["generation"].clone();
    assert_eq!(offline, told);

    // Frames and captures, too; nothing of it is counted or opens anything.
    let syn = hex(&tcp("198.51.100.9:1", "10.5.6.7:23").syn());
    let told = explained(&appliance, &["--from", "outside", "--packet", &syn]);
    assert_eq!((&told["reason"], &told["nic"]), (&"new".into(), &"web-1".into()));
    let stranger = tcp("10.5.6.8:1", "198.51.100.9:80").syn().frame();
    let record = testkit::pcap::Record::new(0, stranger);
    let capture =
        appliance.setup.write("one.pcap", testkit::pcap::encode(testkit::pcap::Format::NANO, &[record]));
    let told = explained(&appliance, &["--from", "inside", "--pcap", capture.to_str().unwrap()]);
    assert_eq!((&told["reason"], &told["nic"]), (&"unknown-source".into(), &Value::Null));
    assert_eq!(appliance.show("counters")["packets"]["in"], 0);
    assert_eq!(appliance.show("connections"), serde_json::json!([]));

    for (arguments, expected) in [
        (&["--nic", "web-9", ssh[2]][..], "no NIC \"web-9\"; near names: web-1"),
        (&["--nic", "web-1", "inbound tcp nonsense"], "allowed: "),
        (&["--from", "outside", "--nic", "web-1", "--packet", "0200"], "the packet is judged as no NIC's"),
    ] {
        let output = appliance.client([&["explain"][..], arguments].concat());
        let error = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{error}");
        assert!(error.contains(expected), "{error}");
    }
    appliance.end();
    let nobody = std::process::Command::new(PORTCULLIS)
        .args(["explain", "--socket", "/nowhere/api.sock"])
        .args(ssh)
        .output()
        .unwrap();
    assert_eq!(nobody.status.code(), Some(1));
}

#[test]
fn listings_are_in_the_order_in_which_people_look_for_names() {
    let numbers = [10, 2, 1, 100, 9];
    let nics: String = numbers
        .iter()
        .map(|n| format!("  - {{ name: server-{n}, vpc: prod, security_groups: [sg-{n}] }}\n"))
        .collect();
    let groups: String = numbers.iter().map(|n| format!("  - {{ name: sg-{n} }}\n")).collect();
    let policy = format!(
        "vpcs: [{{ name: prod, segment: {{ untagged: true }} }}]\nsecurity_groups:\n{groups}nics:\n{nics}"
    );
    let appliance = Setup::new("net_null0,no-rx=1", "net_null1,no-rx=1").start(&policy);
    for (what, key, first, name) in
        [("nics", "nic", None, "server"), ("groups", "group", Some("default"), "sg")]
    {
        let numbered = [1, 2, 9, 10, 100].map(|n| format!("{name}-{n}"));
        let expected: Vec<String> = first.map(str::to_owned).into_iter().chain(numbered).collect();
        let listed = appliance.show(what);
        let listed: Vec<&str> =
            listed.as_array().unwrap().iter().map(|one| one[key].as_str().unwrap()).collect();
        assert_eq!(listed, expected);
        let table = appliance.text(["show", what]);
        let listed: Vec<&str> = table.lines().skip(1).filter_map(|line| line.split(' ').next()).collect();
        assert_eq!(listed, expected, "{table}");
    }
    appliance.end();
}
