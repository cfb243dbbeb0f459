//! Connections of a running appliance: listed, counted, previewed, disconnected.

mod appliance;

use appliance::*;
use serde_json::{Value, json};
use testkit::frame::*;
use testkit::pcap::{self, Format};

/// Ten connections to port 22 opened, one ping, one query of the instance's own.
fn with_connections() -> Appliance {
    let setup = Setup::new("net_pcap0,rx_pcap=IN,tx_pcap=OUT", "net_pcap1,rx_pcap=IN,tx_pcap=OUT");
    let mut outside: Vec<_> = (0..10)
        .map(|n| tcp(format!("198.51.100.9:{}", 40_000 + n).as_str(), "10.5.6.7:22").syn().frame())
        .collect();
    outside.push(echo_request("203.0.113.5", "10.5.6.7", 7, 1).frame());
    let inside = vec![udp("10.5.6.7:5000", "198.51.100.9:53").payload("query").frame()];
    for (name, frames) in [("inside", inside), ("outside", outside)] {
        pcap::write(setup.path(&format!("{name}.pcap")), Format::MICRO, &pcap::records(0, frames)).unwrap();
    }
    let appliance = setup.fill("inside", "outside").start(POLICY);
    appliance.wait_for_counters("all frames", |c| c["reasons"]["new"] == 12);
    appliance
}

fn count(appliance: &Appliance, filter: &[&str]) -> String {
    appliance.text([&["connections", "count"][..], filter].concat()).trim().to_owned()
}

#[test]
fn connections_are_listed_and_counted_by_what_they_have_in_common() {
    let appliance = with_connections();
    for (filter, expected) in [
        (&[][..], "12"),
        (&["--nic", "web-1", "--vpc", "prod"], "12"),
        (&["--protocol", "tcp", "--state", "syn-sent", "--rule", "sg-AB#0"], "10"),
        (&["--opened", "outbound"], "1"),
        (&["--remote", "203.0.113.0/24"], "1"),
        (&["--remote", "198.51.100.9", "--protocol", "17"], "1"),
        (&["--tombstone"], "0"),
        (&["--since", "2"], "0"),
    ] {
        assert_eq!(count(&appliance, filter), expected, "{filter:?}");
    }
    let listed: Vec<Value> =
        serde_json::from_str(&appliance.text(["connections", "list", "--protocol", "icmp", "-o", "json"]))
            .unwrap();
    assert_eq!((&listed[0]["remote"], &listed[0]["state"]), (&json!("203.0.113.5"), &json!("icmp")));
    let refused = appliance.client(["connections", "list", "--state", "open"]);
    assert_eq!(refused.status.code(), Some(2));
    let error = String::from_utf8(refused.stderr).unwrap();
    assert!(error.contains("--state: open; allowed: syn-sent, syn-received"), "{error}");
    appliance.end();
}

#[test]
fn pages_of_connections_hold_each_once() {
    let appliance = with_connections();
    let page = |words: &[&str]| -> Vec<Value> {
        let words = [&["connections", "list", "-o", "json"], words].concat();
        serde_json::from_str(&appliance.text(words)).unwrap()
    };
    let id = |connection: &Value| connection["id"].as_str().unwrap().to_owned();
    let mut all: Vec<String> = page(&[]).iter().map(id).collect();
    all.sort();
    for limit in ["1", "5", "11", "12", "100"] {
        let (mut seen, mut after) = (Vec::new(), None);
        loop {
            let more: Vec<&str> = after.iter().flat_map(|after: &String| ["--after", after]).collect();
            let ids: Vec<String> = page(&[&["--limit", limit], &more[..]].concat()).iter().map(id).collect();
            assert!(ids.len() <= limit.parse().unwrap());
            let Some(last) = ids.last() else { break };
            after = Some(last.clone());
            seen.extend(ids);
        }
        seen.sort();
        assert_eq!(seen, all, "by {limit}");
    }
    // The condition and the page together: of those that fit, so many.
    let tcp = page(&["--protocol", "tcp", "--limit", "7"]);
    assert_eq!((tcp.len(), tcp.iter().all(|c| c["protocol"] == "tcp")), (7, true));
    assert_eq!(page(&["--after", "7-0"]), Vec::<Value>::new(), "no such worker");
    for (option, value, said) in
        [("--after", "x", "--after: \"x\" is no connection's id"), ("--limit", "0", "1..=100000")]
    {
        let refused = appliance.client(["connections", "list", option, value]);
        let error = String::from_utf8(refused.stderr).unwrap();
        assert_eq!((refused.status.code(), error.contains(said)), (Some(2), true), "{error}");
    }
    appliance.end();
}

#[test]
fn a_name_that_nothing_has_is_refused_with_those_near_it_and_a_rule_that_is_gone_is_known() {
    let appliance = with_connections();
    for (filter, expected) in [
        (["--nic", "web-2"], "--nic: no NIC \"web-2\"; near names: web-1"),
        (["--vpc", "prd"], "--vpc: no VPC \"prd\"; near names: prod"),
        (["--rule", "sg-BA#0"], "--rule: no sg-BA#0; near names: sg-AB#0"),
        (["--rule", "sg-AB#7"], "--rule: no sg-AB#7; the group has sg-AB#0 to sg-AB#2"),
        (["--rule", "r-0123456789"], "--rule: no r-0123456789; near names: r-"),
        (["--rule", "sg-AB"], "--rule: no \"sg-AB\"; allowed: GROUP#POSITION, or a rule's id"),
        (["--worker", "7"], "--worker: no 7; allowed: 0 to 0"),
    ] {
        for what in ["list", "count", "flush"] {
            let refused = appliance.client([&["connections", what][..], &filter].concat());
            assert_eq!((refused.status.code(), refused.stdout), (Some(2), Vec::new()), "{filter:?}");
            let error = String::from_utf8(refused.stderr).unwrap();
            assert!(error.contains(expected), "{filter:?}: {error}");
        }
    }
    // The rule goes; what it let out lives on, and still names it.
    let groups = appliance.show("groups");
    let group = groups.as_array().unwrap().iter().find(|group| group["group"] == "sg-AB").unwrap();
    let id = group["rules"][2]["rule_id"].as_str().unwrap().to_owned();
    assert_eq!(
        (count(&appliance, &["--rule", "sg-AB#2"]), count(&appliance, &["--rule", &id])),
        ("1".into(), "1".into())
    );
    let without = POLICY.replace("      - { direction: outbound }\n", "");
    appliance.apply(&without, &[]);
    assert_eq!(
        (count(&appliance, &["--rule", "sg-AB#2"]), count(&appliance, &["--rule", &id])),
        ("1".into(), "1".into())
    );
    // A rule of a group that no NIC has let in nothing, and is there.
    appliance.text(["group", "add", "spare"]);
    appliance.text(["rule", "add", "spare", "{direction: inbound, protocol: udp}"]);
    assert_eq!(count(&appliance, &["--rule", "spare#0"]), "0");
    appliance.end();
}

#[test]
fn a_dry_run_names_what_a_change_would_disconnect_and_a_limit_refuses_it() {
    let appliance = with_connections();
    let changed = POLICY.replace("ports: 22", "ports: 23");
    let (status, receipt, _) = appliance.apply(&changed, &["--dry-run"]);
    assert_eq!((status, &receipt["state"], &receipt["disconnected"]), (0, &json!("dry-run"), &json!(11)));
    let affected = &receipt["affected"];
    assert_eq!(affected["by_nic"], json!({"web-1": 11}));
    assert_eq!(affected["by_rule"], json!({"sg-AB#0": 10, "sg-AB#1": 1}));
    assert_eq!(affected["connections"].as_array().unwrap().len(), 11);
    let changes: Vec<(&str, &str)> = receipt["changes"]
        .as_array()
        .unwrap()
        .iter()
        .map(|line| (line["change"].as_str().unwrap(), line["text"].as_str().unwrap()))
        .collect();
    assert_eq!(
        changes,
        [
            ("changed", ""),
            ("removed", "allow inbound tcp 22 from 0.0.0.0/0"),
            ("added", "allow inbound tcp 23 from 0.0.0.0/0")
        ]
    );
    assert_eq!(
        (&receipt["changes"][1]["rule"], &receipt["changes"][1]["kind"], &receipt["changes"][1]["object"]),
        (&json!("sg-AB#0"), &json!("rule"), &json!("sg-AB"))
    );
    assert!(receipt["changes"][1]["rule_id"].as_str().unwrap().starts_with("r-"), "{receipt}");
    // For people: the rules and each connection, a line each.
    let file = appliance.setup.write("changed.yaml", &changed);
    let text = appliance.text(["apply", file.to_str().unwrap(), "--dry-run"]);
    let lines: Vec<&str> = text.lines().collect();
    assert!(lines.contains(&"~ group sg-AB"), "{text}");
    for (sign, port) in [('-', 22), ('+', 23)] {
        let is_it = |line: &&&str| {
            line.starts_with(&format!("{sign} rule sg-AB#0 (r-"))
                && line.ends_with(&format!("): allow inbound tcp {port} from 0.0.0.0/0"))
        };
        assert_eq!(lines.iter().filter(is_it).count(), 1, "{text}");
    }
    assert!(
        lines.contains(&"    web-1: inbound tcp 198.51.100.9:40007 > 10.5.6.7:22, syn-sent, by sg-AB#0"),
        "{text}"
    );
    assert_eq!(lines.iter().filter(|line| line.starts_with("    web-1: inbound ")).count(), 11, "{text}");
    assert_eq!(count(&appliance, &["--tombstone"]), "0");
    let diff = appliance.client(["diff", file.to_str().unwrap()]);
    assert_eq!(diff.status.code(), Some(2));
    let diff = String::from_utf8(diff.stdout).unwrap();
    assert!(diff.contains("\n- rule sg-AB#0 (r-") && diff.contains("\n+ rule sg-AB#0 (r-"), "{diff}");
    let (status, receipt, error) = appliance.apply(&changed, &["--max-disconnect", "10"]);
    assert_eq!((status, &receipt["disconnected"]), (2, &json!(11)));
    assert!(error.contains("it would disconnect 11 live connections; allowed: at most 10"), "{error}");
    let (status, receipt, _) = appliance.apply(&changed, &["--max-disconnect", "11"]);
    assert_eq!(
        (status, &receipt["state"], &receipt["disconnected"]),
        (0, &json!("acknowledged"), &json!(11))
    );
    assert_eq!(count(&appliance, &["--tombstone"]), "11");
    let back: Value =
        serde_json::from_str(&appliance.text(["rollback", "1", "--dry-run", "-o", "json"])).unwrap();
    assert_eq!(back["affected"]["revived"], 11);
    appliance.text(["rollback", "1"]);
    assert_eq!(count(&appliance, &["--tombstone", "false"]), "12");
    appliance.end();
}

#[test]
fn connections_are_disconnected_by_hand_and_no_rollback_brings_them_back() {
    let appliance = with_connections();
    let refused = appliance.client(["connections", "flush"]);
    assert_eq!(refused.status.code(), Some(2));
    assert!(String::from_utf8(refused.stderr).unwrap().contains("no filter is given; allowed"));
    assert_eq!(
        appliance.text(["connections", "flush", "--protocol", "tcp"]),
        "10 connections disconnected\n"
    );
    assert_eq!((count(&appliance, &["--tombstone"]), count(&appliance, &[])), ("10".into(), "12".into()));
    appliance.text(["connections", "flush", "--opened", "outbound"]);
    assert_eq!(count(&appliance, &[]), "11");
    appliance.apply(&POLICY.replace("ports: 22", "ports: 23"), &[]);
    appliance.text(["rollback", "1"]);
    assert_eq!(count(&appliance, &["--tombstone"]), "10");
    assert_eq!(appliance.text(["connections", "flush", "--all"]), "1 connections disconnected\n");
    appliance.end();
}

#[test]
fn shells_are_told_how_to_complete() {
    let script = std::process::Command::new(PORTCULLIS).args(["completion", "bash"]).output().unwrap();
    assert!(script.status.success());
    assert!(String::from_utf8(script.stdout).unwrap().contains("rollback"));
}

/// What the running appliance makes of a packet.
fn explained(appliance: &Appliance, args: &[&str]) -> Value {
    serde_json::from_str(&appliance.text([&["explain", "-o", "json"], args].concat())).unwrap()
}

fn hex(frame: &[u8]) -> String {
    frame.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn explain_judges_a_packet_as_the_workers_would_now() {
    let appliance = with_connections();
    let ssh = ["--nic", "web-1", "inbound tcp 198.51.100.9:40003 > 10.5.6.7:22"];
    let fresh = [&["--fresh"], &ssh[..]].concat();
    let other = ["--nic", "web-1", "inbound tcp 198.51.100.9:41000 > 10.5.6.7:22"];

    // Its connection is there, and another SYN of its opener is part of it.
    let told = explained(&appliance, &ssh);
    assert_eq!((&told["verdict"], &told["reason"]), (&json!("pass"), &json!("established")), "{told}");
    let connection = &told["connection"];
    assert_eq!(
        (&connection["remote_port"], &connection["state"], &connection["tombstone"], &connection["rule"]),
        (&json!(40_003), &json!("syn-sent"), &json!(false), &json!("sg-AB#0")),
        "{told}"
    );
    assert!(connection["expires_in"].as_f64().is_some_and(|left| left > 1.0 && left <= 30.0), "{told}");
    let told = explained(&appliance, &fresh);
    assert_eq!((&told["reason"], &told["connection"]), (&json!("new"), &Value::Null), "{told}");
    let told = explained(&appliance, &other);
    assert_eq!((&told["reason"], &told["connection"]), (&json!("new"), &Value::Null), "{told}");

    // The answer to the instance's query, which no rule lets in; an error about it; a reply to the ping.
    let answer = udp("198.51.100.9:53", "10.5.6.7:5000").payload("answer").frame();
    let query = udp("10.5.6.7:5000", "198.51.100.9:53").payload("query").packet();
    let error = icmp_error("192.0.2.1", "10.5.6.7", 3, 3, &query).frame();
    for (frame, reason) in [(&answer, "established"), (&error, "related")] {
        let told = explained(&appliance, &["--from", "outside", "--packet", &hex(frame)]);
        assert_eq!(told["reason"], json!(reason), "{told}");
        let connection = &told["connection"];
        assert_eq!(
            (&connection["protocol"], &connection["opened"]),
            (&json!("udp"), &json!("outbound")),
            "{told}"
        );
        let told = explained(&appliance, &["--fresh", "--from", "outside", "--packet", &hex(frame)]);
        assert_eq!(told["verdict"], json!("drop"), "{told}");
    }
    let pong = echo_reply("10.5.6.7", "203.0.113.5", 7, 1).frame();
    let told = explained(&appliance, &["--from", "inside", "--packet", &hex(&pong)]);
    assert_eq!(
        (&told["reason"], &told["connection"]["protocol"]),
        (&json!("established"), &json!("icmp")),
        "{told}"
    );
    // To ask changes nothing.
    let counters = appliance.show("counters");
    assert_eq!((&counters["packets"]["in"], count(&appliance, &[])), (&json!(12), "12".into()));

    // The rule goes: a tombstone holds its packets off, whatever the rules say of the first of a connection.
    appliance.apply(&POLICY.replace("ports: 22", "ports: 23"), &[]);
    let told = explained(&appliance, &ssh);
    assert_eq!((&told["verdict"], &told["reason"]), (&json!("drop"), &json!("tombstone")), "{told}");
    assert_eq!(told["connection"]["tombstone"], json!(true), "{told}");
    assert_eq!(explained(&appliance, &fresh)["reason"], json!("no-rule"));
    assert_eq!(explained(&appliance, &other)["reason"], json!("no-rule"));
    appliance.apply(POLICY, &[]);
    assert_eq!(explained(&appliance, &ssh)["reason"], json!("tombstone"));
    assert_eq!(explained(&appliance, &fresh)["reason"], json!("new"));
    let table = appliance.text([&["explain"], &ssh[..]].concat());
    let line =
        "connection: inbound tcp 198.51.100.9:40003 > 10.5.6.7:22, syn-sent, disconnected (a tombstone)";
    assert!(table.contains(line), "{table}");
    // A rollback brings it back.
    appliance.text(["rollback", "1"]);
    let told = explained(&appliance, &ssh);
    assert_eq!(
        (&told["reason"], &told["connection"]["tombstone"]),
        (&json!("established"), &json!(false)),
        "{told}"
    );
    appliance.end();
}

#[test]
fn explain_counts_the_connections_of_a_nic_with_a_limit() {
    let appliance = with_connections();
    appliance.apply(&POLICY.replace("web-1, vpc", "web-1, max_connections: 12, vpc"), &[]);
    let other = ["--nic", "web-1", "inbound tcp 198.51.100.9:41000 > 10.5.6.7:22"];
    let told = explained(&appliance, &other);
    assert_eq!((&told["verdict"], &told["reason"]), (&json!("drop"), &json!("nic-limit")), "{told}");
    assert_eq!(explained(&appliance, &[&["--fresh"], &other[..]].concat())["reason"], json!("new"));
    appliance.end();
}
