//! `replay --trace`, `--capture` and `--why`: the same verdicts as `--verdicts`, by what the running appliance tells.

mod replay;

use engine::Side;
use replay::*;
use serde_json::{Value, json};
use testkit::frame::*;
use testkit::oracle::{FrameView, Oracle};
use testkit::pcap::{self, Format};
use testkit::rng::Rng;

fn value(line: &str) -> Value {
    serde_json::from_str(line).unwrap_or_else(|error| panic!("{line}: {error}"))
}

/// A hundred thousand packets of every kind: questions and answers, of few ends, so that all reasons come up.
fn traffic(setup: &Setup) -> [Vec<pcap::Record>; 2] {
    traffic_of(setup, 500)
}

/// The same from so many ports of each end.
fn traffic_of(setup: &Setup, ports: usize) -> [Vec<pcap::Record>; 2] {
    let mut rng = Rng::new(41);
    let mut one = |side: usize| -> Vec<u8> {
        let (port, other) = (4000 + rng.below(ports) as u16, [53, 54, 80][rng.below(3)]);
        let remote = format!("192.0.2.{}:{port}", 1 + rng.below(20));
        let local = format!("10.5.6.{}:{other}", 7 + rng.below(10) / 9);
        let (src, dst) = if side == 0 { (&local, &remote) } else { (&remote, &local) };
        match rng.below(12) {
            0 => tcp(src.as_str(), dst.as_str()).syn().frame(),
            1 => echo_request("192.0.2.9", "10.5.6.7", 1, 1).frame(),
            2 => arp_request("02:00:00:00:00:01", "10.5.6.7", "10.5.6.1").frame(),
            3 => udp(src.as_str(), dst.as_str()).frame()[..30].to_vec(),
            _ => udp(src.as_str(), dst.as_str()).payload([7; 20]).frame(),
        }
    };
    [(0, "inside"), (1, "outside")].map(|(side, name)| {
        let frames: Vec<_> = (0..50_000).map(|_| one(side)).collect();
        let mut records = pcap::records(1_700_000_000_000_000_000, frames);
        for (record, n) in records.iter_mut().zip(0..) {
            record.time = 1_700_000_000_000_000_000 + n * 1_000_000;
        }
        pcap::write(setup.path(&format!("{name}.pcap")), Format::MICRO, &records).unwrap();
        records
    })
}

const BOTH: [&str; 4] = ["--inside", "inside.pcap", "--outside", "outside.pcap"];

#[test]
fn trace_and_verdicts_agree_on_a_hundred_thousand_packets_and_a_capture_of_drops_is_what_they_dropped() {
    let setup = Setup::new();
    traffic(&setup);
    let more = ["--verdicts", "verdicts", "--trace", "trace"];
    setup.stdout(&[&BOTH[..], &more].concat());
    let read = |name: &str| std::fs::read_to_string(setup.path(name)).unwrap();
    let (verdicts, trace) = (read("verdicts"), read("trace"));
    let (mut packets, mut reasons) = (0, std::collections::BTreeSet::new());
    for (verdict, told) in verdicts.lines().zip(trace.lines()) {
        let (verdict, told) = (value(verdict), value(told));
        for (key, expected) in verdict.as_object().unwrap() {
            assert_eq!(told[key], *expected, "{key}: {told}");
        }
        assert!(told["worker"] == 0 && told["generation"] == 1, "{told}");
        assert!(told["bytes"].is_u64() && told["packet"].is_string() && told["why"].is_string(), "{told}");
        reasons.insert(verdict["reason"].as_str().unwrap().to_owned());
        packets += 1;
    }
    assert_eq!((packets, verdicts.lines().count(), trace.lines().count()), (100_000, 100_000, 100_000));
    assert!(reasons.len() >= 7, "{reasons:?}");

    setup.stdout(
        &[&BOTH[..], &["--capture", "drops.pcapng", "--verdict", "drop", "--from", "outside"]].concat(),
    );
    let drops: Vec<Value> = verdicts.lines().map(value).collect();
    let drops: Vec<&Value> =
        drops.iter().filter(|line| line["verdict"] == "drop" && line["from"] == "outside").collect();
    let again = setup.lines(&["--outside", "drops.pcapng"]);
    assert_eq!(again.len(), drops.len());
    for (line, expected) in again.iter().zip(drops) {
        let line = value(line);
        for key in ["nic", "direction", "verdict", "reason", "rule", "rule_id"] {
            assert_eq!(line[key], expected[key], "{key}: {line} {expected}");
        }
        // Nanoseconds of today are more digits than a float has.
        let apart = line["time"].as_f64().unwrap() - expected["time"].as_f64().unwrap();
        assert!(apart.abs() < 1e-6, "{line} {expected}");
    }
}

#[test]
fn why_answers_by_the_rules_of_then_on_the_captures_clock() {
    let setup = Setup::new();
    let frames = [question(), question(), question()];
    let mut records = pcap::records(1_700_000_000_000_000_000, frames);
    for (record, seconds) in records.iter_mut().zip([0, 5, 20]) {
        record.time = 1_700_000_000_000_000_000 + seconds * 1_000_000_000;
    }
    pcap::write(setup.path("outside.pcap"), Format::MICRO, &records).unwrap();
    setup.write("next.yaml", POLICY.replace("ports: 53", "ports: 54"));
    setup.write("last.yaml", POLICY.replace("ports: 53", "ports: 55"));
    setup.write("events.yaml", "[{at: 1700000010, file: next.yaml}, {at: 1700000011, file: last.yaml}]");
    let asked =
        ["--outside", "outside.pcap", "--events", "events.yaml", "--why", "udp 192.0.2.9:4000 > 10.5.6.7:53"];
    let whys = value(&setup.stdout(&[&asked[..], &["-o", "json"]].concat()));
    let told = whys["decisions"].as_array().unwrap();
    assert_eq!(told.len(), 2, "the second was of an established connection, or none: {whys}");
    assert_eq!(
        (&told[0]["reason"], &told[0]["rule_text"]),
        (&json!("new"), &json!("allow inbound udp 53 from everyone"))
    );
    assert_eq!((&told[1]["reason"], &told[1]["generation"]), (&json!("tombstone"), &json!(3)));
    let disconnected = &told[1]["disconnected"];
    assert_eq!((&disconnected["generation"], &disconnected["by"]), (&json!(2), &json!("--events")));
    let early = setup.stdout(&[&asked[..], &["--at", "1700000001"]].concat());
    assert!(early.contains("pass: new") && !early.contains("tombstone"), "{early}");
}

#[test]
fn what_makes_no_sense_is_refused_before_anything_is_written() {
    let setup = Setup::new();
    pcap::write(setup.path("outside.pcap"), Format::MICRO, &pcap::records(0, [question()])).unwrap();
    for (arguments, told) in [
        (&["--trace", "t", "--nic", "serve"][..], "--nic: no NIC \"serve\"; near names: server"),
        (&["--trace", "t", "--reason", "no"], "--reason: no; allowed: "),
        (&["--nic", "server"], "required beside: --trace or --capture"),
        (&["--why", "udp 1.1.1.1"], "--why: "),
        (&["--trace", "t", "--verdicts", "t"], "--verdicts and --trace name the same file"),
        (&["--capture", "outside.pcap"], "--outside and --capture name the same file"),
    ] {
        let refusal = setup.refusal(&[&["--outside", "outside.pcap"], arguments].concat());
        assert!(refusal.contains(told), "{arguments:?}: {refusal}");
    }
    assert!(setup.others(&["policy.yaml", "outside.pcap"]).is_empty());
    // A NIC that only an event brings is one all the same.
    setup.write("second.yaml", POLICY.replace("server", "second"));
    setup.write("events.yaml", "[{at: 1, file: second.yaml}]");
    let late = ["--outside", "outside.pcap", "--events", "events.yaml", "--trace", "-", "--nic", "second"];
    assert_eq!(setup.stdout(&late), "");
}

#[test]
fn trace_verdicts_and_oracle_agree_on_a_hundred_thousand_packets_and_a_capture_of_all_holds_them() {
    // Nothing ends by itself, so that no verdict is a matter of moments.
    const LASTING: &str = "[timeouts]\ntcp_syn = 3600\nicmp = 3600\none_way = 3600\ntwo_way = 3600\n";
    let setup = Setup::new();
    let sides = traffic_of(&setup, 20);
    setup.write("config.toml", LASTING);
    let more =
        ["--config", "config.toml", "--verdicts", "verdicts", "--trace", "trace", "--capture", "all.pcapng"];
    setup.stdout(&[&BOTH[..], &more].concat());
    let read = |name: &str| std::fs::read_to_string(setup.path(name)).unwrap();
    let (verdicts, trace) = (read("verdicts"), read("trace"));
    let comments = std::fs::read(setup.path("all.pcapng")).unwrap();
    let comments = String::from_utf8_lossy(&comments);
    let mut comments = comments.split("verdict=").skip(1);
    let config = control::config::parse_config(LASTING, "config").unwrap();
    let policy = control::document::parse_policy(POLICY, "policy", &config.policy.limits).unwrap().policy;
    let start_ns = sides[0][0].time;
    let mut oracle = Oracle::new(&config, start_ns, 1);
    let generation = oracle.commit(&policy, start_ns).unwrap();
    oracle.adopt(0, generation);
    let mut lines = verdicts.lines().zip(trace.lines());
    for (inside, outside) in sides[0].iter().zip(&sides[1]) {
        for (record, side) in [(inside, Side::Inside), (outside, Side::Outside)] {
            let expected = oracle.judge(&FrameView {
                worker: 0,
                time_ns: record.time,
                side,
                frame: &record.data,
                original_len: record.data.len(),
                refusal: None,
                holds: None,
                in_vain: false,
            });
            assert!(!expected.ambiguous);
            let (verdict, told) = lines.next().unwrap();
            let comment = comments.next().unwrap();
            for line in [value(verdict), value(told)] {
                let pass = if expected.pass { "pass" } else { "drop" };
                assert_eq!([&line["verdict"], &line["reason"]], [pass, expected.reason], "{line}");
                assert_eq!(
                    [&line["nic"], &line["rule"]],
                    [&json!(expected.nic), &json!(expected.rule)],
                    "{line}"
                );
                let rule = expected.rule.as_deref().unwrap_or("-");
                let said = format!("{pass} reason={} rule={rule} ", expected.reason);
                assert!(comment.starts_with(&said), "{said}");
            }
        }
    }
    assert!(lines.next().is_none() && comments.next().is_none());
}

#[test]
fn staged_rules_are_told_alike_by_verdicts_trace_capture_and_summary_and_change_no_verdict() {
    const STAGED: &str = r#"
      - { direction: inbound, protocol: tcp, ports: 53-80, staged: true }
      - { direction: inbound, protocol: udp, remote: 192.0.2.0/29, action: deny, priority: 1, staged: true }
"#;
    let setup = Setup::new();
    traffic(&setup);
    let reasons = |line: &str| [value(line)["reason"].clone(), value(line)["rule"].clone()];
    let plain: Vec<_> = setup.lines(&BOTH).iter().map(|line| reasons(line)).collect();
    let rule = "      - { direction: outbound, protocol: udp }\n";
    setup.write("policy.yaml", POLICY.replace(rule, &format!("{rule}{}", STAGED.trim_start_matches('\n'))));
    let more = ["--verdicts", "verdicts", "--trace", "trace", "-o", "json"];
    let summary = value(&setup.stdout(&[&BOTH[..], &more].concat()));
    let read = |name: &str| std::fs::read_to_string(setup.path(name)).unwrap();
    let (verdicts, trace) = (read("verdicts"), read("trace"));
    assert_eq!(verdicts.lines().map(reasons).collect::<Vec<_>>(), plain);
    let mut counts = [[0u64; 2]; 2];
    for (verdict, told) in verdicts.lines().zip(trace.lines()) {
        let (verdict, told) = (value(verdict), value(told));
        assert_eq!(verdict["staged"], told["staged"], "{told}");
        let Some(staged) = verdict["staged"].as_object() else { continue };
        let (rule, would) = (staged["rule"].as_str().unwrap(), staged["verdict"].as_str().unwrap());
        assert_eq!(would, if rule == "open#2" { "pass" } else { "drop" });
        assert_eq!(staged["differs"], (would == "pass") != (verdict["reason"] == "new"), "{verdict}");
        assert!(told["why"].as_str().unwrap().contains("if it were enforced"), "{told}");
        let count = &mut counts[usize::from(would == "drop")];
        count[0] += 1;
        count[1] += u64::from(staged["differs"] == true);
    }
    assert!(counts.iter().all(|count| count[0] > 100) && counts[1][1] > 10, "{counts:?}");
    let [[pass, pass_dropped], [drop, drop_passed]] = counts;
    assert_eq!(
        [&summary["staged"][0]["would"], &summary["staged"][1]["would"]],
        [
            &json!({ "pass": pass, "pass_dropped": pass_dropped, "drop": 0, "drop_passed": 0 }),
            &json!({ "pass": 0, "pass_dropped": 0, "drop": drop, "drop_passed": drop_passed }),
        ]
    );
    let table = setup.stdout(&BOTH);
    let line = format!("would pass 0 (0 of them dropped) and drop {drop} ({drop_passed} of them passed)\n");
    assert!(table.contains("staged: open#3 (r-") && table.contains(&line), "{table}");
    // A filter by a staged rule finds what it would decide.
    setup.stdout(
        &[&BOTH[..], &["--trace", "trace", "--rule", "open#3", "--capture", "staged.pcapng"]].concat(),
    );
    assert_eq!(read("trace").lines().count() as u64, drop);
    let captured = std::fs::read(setup.path("staged.pcapng")).unwrap();
    let comment = b" staged=open#3 staged_id=r-";
    let comments = captured.windows(comment.len()).filter(|bytes| bytes == comment).count();
    assert_eq!(comments as u64, drop);
}
