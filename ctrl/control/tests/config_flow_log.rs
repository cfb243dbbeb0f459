//! `[[flow_log]]`: what it says, and every refusal with its place.

use std::path::PathBuf;
use std::time::Duration;

use control::config::{FlowKind, FlowLog, FlowTarget, FlowWhat, check_config, parse_config};

fn logs(text: &str) -> Vec<FlowLog> {
    parse_config(text, "c").unwrap_or_else(|error| panic!("{error}")).flow_logs
}

fn refusals(text: &str) -> Vec<String> {
    check_config(text, "c").unwrap_err().iter().map(ToString::to_string).collect()
}

#[test]
fn defaults_and_all_keys() {
    let text = r#"
        [[flow_log]]
        kind = "aws"
        path = "/tmp/flow.log"
        [[flow_log]]
        kind = "json"
        path = "/tmp/flow.json"
        interval = 5
        what = "refused"
        rotate_bytes = 4096
        rotate_keep = 1
        [[flow_log]]
        kind = "netflow9"
        collector = "127.0.0.1:2055"
        what = "accepted"
        [[flow_log]]
        kind = "ipfix"
        collector = "[2001:db8::1]:4739"
        [[flow_log]]
        kind = "aws"
        path = "other.log"
        header = true
    "#;
    let file = |path: &str, rotate_bytes, rotate_keep, header| FlowTarget::File {
        path: PathBuf::from(path),
        rotate_bytes,
        rotate_keep,
        header,
    };
    let seconds = Duration::from_secs;
    let logs = logs(text);
    let expected = [
        (FlowKind::Aws, file("/tmp/flow.log", 100 << 20, 10, false), seconds(60), FlowWhat::All),
        (FlowKind::Json, file("/tmp/flow.json", 4096, 1, false), seconds(5), FlowWhat::Refused),
        (
            FlowKind::NetFlow9,
            FlowTarget::Collector("127.0.0.1:2055".parse().unwrap()),
            seconds(60),
            FlowWhat::Accepted,
        ),
        (
            FlowKind::Ipfix,
            FlowTarget::Collector("[2001:db8::1]:4739".parse().unwrap()),
            seconds(60),
            FlowWhat::All,
        ),
        (FlowKind::Aws, file("other.log", 100 << 20, 10, true), seconds(60), FlowWhat::All),
    ];
    let expected = expected.map(|(kind, target, interval, what)| FlowLog { kind, target, interval, what });
    assert_eq!(logs, expected);
    assert_eq!(logs[0].name(), "aws:/tmp/flow.log");
    assert_eq!(logs[3].name(), "ipfix:[2001:db8::1]:4739");
}

#[test]
fn connections_are_counted_with_a_flow_log_or_by_wish() {
    let counts = |text: &str| parse_config(text, "c").unwrap().counts_connections();
    assert!(!counts(""));
    assert!(counts("[conntrack]\ncount = true\n"));
    assert!(counts("[[flow_log]]\nkind = \"aws\"\npath = \"x\"\n"));
}

#[test]
fn every_refusal_has_its_place() {
    const COLLECTOR: &str = "allowed: an IP address and a port, such as 127.0.0.1:2055 or [2001:db8::1]:4739; names are not looked up";
    let one = |more: &str| refusals(&format!("[[flow_log]]\n{more}\n"));
    let cases = [
        ("path = \"x\"", "c:1:1: flow_log[0]: the key kind is missing"),
        ("kind = \"syslog\"", "c:2:8: flow_log[0].kind: "),
        ("kind = \"aws\"", "c:1:1: flow_log[0]: the key path is missing"),
        ("kind = \"ipfix\"", "c:1:1: flow_log[0]: the key collector is missing"),
        ("kind = \"aws\"\npath = \"\"", "c:3:8: flow_log[0].path: "),
        (
            "kind = \"aws\"\npath = \"x\"\ncollector = \"127.0.0.1:1\"",
            "c:4:13: flow_log[0].collector: collector with kind \"aws\"; allowed with it: path",
        ),
        (
            "kind = \"ipfix\"\ncollector = \"127.0.0.1:1\"\npath = \"x\"",
            "c:4:8: flow_log[0].path: path with kind \"ipfix\"; allowed with it: collector",
        ),
        ("kind = \"json\"\npath = \"x\"\nheader = true", "c:4:10: flow_log[0].header: "),
        ("kind = \"aws\"\npath = \"x\"\ninterval = 0", "c:4:12: flow_log[0].interval: "),
        ("kind = \"aws\"\npath = \"x\"\ninterval = 1.5", "c:4:12: flow_log[0].interval: "),
        ("kind = \"aws\"\npath = \"x\"\nwhat = \"some\"", "c:4:8: flow_log[0].what: "),
        ("kind = \"aws\"\npath = \"x\"\nrotate_bytes = 1", "c:4:16: flow_log[0].rotate_bytes: "),
        ("kind = \"aws\"\npath = \"x\"\nrotate_keep = 0", "c:4:15: flow_log[0].rotate_keep: "),
        ("kind = \"aws\"\npath = \"x\"\nsample = 2", "c:4:1: flow_log[0]: "),
    ];
    for (text, message) in cases {
        let found = one(text);
        assert!(found.len() == 1 && found[0].starts_with(message), "{text}: {found:?}");
    }
    // Names are not looked up, and nobody listens at port 0 or at no address.
    for collector in ["localhost:2055", "127.0.0.1", "127.0.0.1:0", "0.0.0.0:2055", "224.0.0.1:2055"] {
        let found = one(&format!("kind = \"netflow9\"\ncollector = \"{collector}\""));
        assert!(found.len() == 1 && found[0].contains(COLLECTOR), "{found:?}");
        assert!(found[0].starts_with("c:3:13: flow_log[0].collector: "), "{found:?}");
    }
    let twice = "[[flow_log]]\nkind = \"aws\"\npath = \"x\"\n".repeat(2);
    assert_eq!(refusals(&twice), ["c:6:8: flow_log[1].path: x is in use above; allowed: once"]);
    assert!(refusals("flow_log = 1")[0].starts_with("c:1:12: flow_log: "));
}
