//! The flow log of a replay holds exactly what the verdicts say.

mod replay;

use std::collections::BTreeMap;
use std::fs;

use replay::*;
use serde_json::Value;
use testkit::frame::*;
use testkit::pcap::{self, Format, Record};

const SECOND: u64 = 1_000_000_000;
const CLIENT: &str = "198.51.100.9";

const RULES: &str = r#"
vpcs: [{ name: lab, segment: { untagged: true } }]
security_groups:
  - name: my web
    project: shop
    rules:
      - { direction: inbound, protocol: tcp, ports: 22 }
      - { direction: inbound, protocol: tcp, ports: 23, action: deny, priority: 1 }
      - { direction: inbound, protocol: udp, ports: 53 }
      - { direction: inbound, protocol: icmp, icmp_type: 8 }
      - { direction: outbound }
nics:
  - { name: server, project: shop, vpc: lab, addresses: [10.5.6.7, "2001:db8::7"], security_groups: [my web] }
  - { name: other, vpc: lab, addresses: [10.5.6.8], security_groups: [] }
"#;

/// One line of an `aws` log.
#[derive(Debug)]
struct Line(Vec<String>);

impl Line {
    fn all(text: &str) -> Vec<Line> {
        text.lines().map(|line| Line(line.split(' ').map(str::to_owned).collect())).collect()
    }

    fn number(&self, at: usize) -> u64 {
        self.0[at].parse().unwrap_or_else(|_| panic!("{self:?}"))
    }

    /// Source, destination, ports, protocol, action, rule, and the reason of a refusal.
    fn key(&self) -> String {
        let reason = if self.0[12] == "REJECT" { &self.0[15] } else { "" };
        [&self.0[3..8], &[self.0[12].clone(), reason.to_owned(), self.0[14].clone()]].concat().join(" ")
    }
}

/// Client and server talk over TCP: opened, some data, closed; times are in milliseconds.
fn session(port: u16, at: u64) -> Vec<(u64, bool, Vec<u8>)> {
    let to = || tcp(format!("{CLIENT}:{port}").as_str(), "10.5.6.7:22");
    let from = || tcp("10.5.6.7:22", format!("{CLIENT}:{port}").as_str());
    vec![
        (at, false, to().syn().seq(100).frame()),
        (at + 1, true, from().syn().seq(500).ack(101).frame()),
        (at + 2, false, to().seq(101).ack(501).frame()),
        (at + 3, false, to().seq(101).ack(501).payload([1; 100]).frame()),
        (at + 4, true, from().seq(501).ack(201).payload([2; 1000]).frame()),
        (at + 5, false, to().seq(201).ack(1501).frame()),
        (at + 6, false, to().fin().seq(201).ack(1501).frame()),
        (at + 7, true, from().fin().seq(1501).ack(202).frame()),
        (at + 8, false, to().seq(202).ack(1502).frame()),
    ]
}

/// Of every kind some packets, over three intervals.
fn traffic() -> Vec<(u64, bool, Vec<u8>)> {
    let mut all = Vec::new();
    for n in 0..40u16 {
        all.extend(session(40_000 + n, 1_000 + 1_700 * u64::from(n)));
        let at = 2_000 + 1_500 * u64::from(n);
        let client = format!("{CLIENT}:{}", 50_000 + n);
        // Refused: by no rule, by one, by nobody's NIC, as no part of anything.
        all.push((at, false, tcp(client.as_str(), "10.5.6.7:80").syn().seq(1).frame()));
        all.push((at + 1, false, tcp(client.as_str(), "10.5.6.7:23").syn().seq(1).frame()));
        all.push((at + 2, false, tcp(client.as_str(), "10.5.6.8:22").syn().seq(1).frame()));
        all.push((at + 3, false, udp(client.as_str(), "10.5.6.99:53").payload([0; 9]).frame()));
        all.push((at + 4, false, tcp(client.as_str(), "10.5.6.7:22").seq(9).ack(9).frame()));
        // Passed: both ways, one way, IPv6, ICMP, in fragments.
        all.push((at + 5, false, udp(client.as_str(), "10.5.6.7:53").payload([7; 30]).frame()));
        all.push((at + 6, true, udp("10.5.6.7:53", client.as_str()).payload([8; 300]).frame()));
        all.push((at + 7, true, udp("[2001:db8::7]:5000", "[2001:db8::9]:53").payload("six").frame()));
        all.push((at + 8, false, echo_request(CLIENT, "10.5.6.7", n, 1).frame()));
        all.push((at + 9, true, echo_reply("10.5.6.7", CLIENT, n, 1).frame()));
        for (piece, frame) in
            (10..).zip(udp(client.as_str(), "10.5.6.7:53").payload([9; 2000]).id(77).fragments(1000))
        {
            all.push((at + piece, false, frame));
        }
    }
    // A long one, which lasts over intervals; and one that is reset.
    for second in 0..170 {
        all.push((
            500 + 1_000 * second,
            false,
            udp("198.51.100.9:7", "10.5.6.7:53").payload([7; 30]).frame(),
        ));
    }
    let to = || tcp("198.51.100.9:999", "10.5.6.7:22");
    all.push((80_000, false, to().syn().seq(100).frame()));
    all.push((80_001, true, tcp("10.5.6.7:22", "198.51.100.9:999").rst().seq(0).ack(101).frame()));
    all.sort_by_key(|(at, ..)| *at);
    all
}

struct Played {
    aws: Vec<Line>,
    json: Vec<Value>,
    /// By the key of a line: packets and bytes, as the verdicts have them.
    truth: BTreeMap<String, (u64, u64)>,
    reasons: BTreeMap<String, u64>,
}

/// What a packet's line is filed under, but for what the verdict adds. Later fragments are filed as their first.
fn tuple(frame: &[u8]) -> String {
    let v6 = frame[12..14] == [0x86, 0xDD];
    let ip = &frame[14..];
    let (proto, l4) = if v6 { (ip[6], &ip[40..]) } else { (ip[9], &ip[20..]) };
    let text = |bytes: &[u8]| match <[u8; 4]>::try_from(bytes) {
        Ok(four) => std::net::IpAddr::from(four).to_string(),
        Err(_) => std::net::IpAddr::from(<[u8; 16]>::try_from(bytes).unwrap()).to_string(),
    };
    let (src, dst) =
        if v6 { (text(&ip[8..24]), text(&ip[24..40])) } else { (text(&ip[12..16]), text(&ip[16..20])) };
    let is_later = !v6 && (ip[6] & 0x1F, ip[7]) != (0, 0);
    let port = |at: usize| u16::from_be_bytes([l4[at], l4[at + 1]]);
    let (sport, dport) = if proto == 1 {
        (0, 0)
    } else if is_later {
        (1, 1)
    } else {
        (port(0), port(2))
    };
    format!("{src} {dst} {sport} {dport} {proto}")
}

fn play(setup: &Setup, traffic: &[(u64, bool, Vec<u8>)], more: &[&str]) -> Played {
    setup.write("policy.yaml", RULES);
    let base = 1_700_000_000 * SECOND;
    let mut frames = [Vec::new(), Vec::new()];
    for (name, is_inside) in [("o.pcap", false), ("i.pcap", true)] {
        let records: Vec<_> = traffic
            .iter()
            .filter(|(_, inside, _)| *inside == is_inside)
            .map(|(at, _, frame)| Record::new(base + at * 1_000_000, frame.clone()))
            .collect();
        frames[usize::from(is_inside)] = records.iter().map(|record| record.data.clone()).collect();
        setup.write(name, pcap::encode(Format::MICRO, &records));
    }
    let arguments = [&["--inside", "i.pcap", "--outside", "o.pcap", "--flow-log"][..]].concat();
    let lines = setup.lines(&[&arguments[..], &["aws.log"], more].concat());
    setup.stdout(&[&arguments[..], &["json.log", "--flow-log-kind", "json"], more].concat());
    let mut truth: BTreeMap<String, (u64, u64)> = BTreeMap::new();
    let mut reasons = BTreeMap::new();
    let mut rules = BTreeMap::new();
    // Later fragments here all are of the datagram that came before them.
    let mut last = String::new();
    for line in lines {
        let line: Value = serde_json::from_str(&line).unwrap();
        let side = usize::from(line["from"] == "inside");
        let frame = &frames[side][line["index"].as_u64().unwrap() as usize];
        let (reason, passes) = (line["reason"].as_str().unwrap(), line["verdict"] == "pass");
        *reasons.entry(reason.to_owned()).or_insert(0) += 1;
        let its = tuple(frame);
        let its = if its.contains(" 1 1 ") { last.clone() } else { its };
        last.clone_from(&its);
        let direction = if side == 1 { "outbound" } else { "inbound" };
        let key = match passes {
            true => format!("{its} ACCEPT  {direction}"),
            false => format!("{its} REJECT {reason} {direction}"),
        };
        rules.insert(key.clone(), line["rule"].clone());
        let sum = truth.entry(key).or_default();
        (sum.0, sum.1) = (sum.0 + 1, sum.1 + frame.len() as u64);
    }
    let read = |name: &str| fs::read_to_string(setup.path(name)).unwrap();
    let json = read("json.log").lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    Played { aws: Line::all(&read("aws.log")), json, truth, reasons }
}

fn sums(lines: &[Line]) -> BTreeMap<String, (u64, u64)> {
    let mut sums: BTreeMap<String, (u64, u64)> = BTreeMap::new();
    for line in lines {
        let sum = sums.entry(line.key()).or_default();
        (sum.0, sum.1) = (sum.0 + line.number(8), sum.1 + line.number(9));
    }
    sums
}

#[test]
fn packets_and_bytes_of_every_tuple_are_those_of_the_verdicts() {
    let setup = Setup::new();
    let Played { aws, json, truth, reasons } = play(&setup, &traffic(), &[]);
    let found = sums(&aws);
    let others: Vec<_> = truth.iter().filter(|(key, sum)| found.get(*key) != Some(sum)).collect();
    assert!(others.is_empty() && found.len() == truth.len(), "{others:?} of {found:?}");
    for reason in ["established", "new", "fragment", "no-rule", "denied", "invalid", "unknown-destination"] {
        assert!(reasons[reason] > 0, "{reasons:?}");
    }
    assert!(aws.iter().all(|line| line.0.len() == 18 && line.0[0] == "2" && line.0[13] == "OK"));
    // Every session has ended by its FINs, which is told by one record a direction.
    let sessions: Vec<_> =
        aws.iter().filter(|line| ("40000".."40040").contains(&line.0[5].as_str())).collect();
    let of_sessions: Vec<_> = sessions
        .iter()
        .map(|line| (line.0[14].as_str(), line.0[15].as_str(), line.number(8), line.number(9)))
        .filter(|(direction, ..)| *direction == "inbound")
        .collect();
    assert_eq!(of_sessions, [("inbound", "closed", 6, 6 * 54 + 100); 40]);
    let closed = aws.iter().find(|line| line.0[15] == "closed").unwrap();
    assert_eq!(
        closed.0[..3].iter().chain(&closed.0[16..]).map(String::as_str).collect::<Vec<_>>(),
        ["2", "shop", "server", "shop/my%20web#0", "1"]
    );
    assert_eq!((closed.number(10), closed.number(11)), (1_700_000_001, 1_700_000_001));
    // What lasts is told once an interval; its stretches follow each other.
    let long: Vec<_> = aws.iter().filter(|line| line.0[5] == "7").collect();
    let told: Vec<_> =
        long.iter().map(|line| (line.0[15].as_str(), line.number(10), line.number(11))).collect();
    let t = 1_700_000_000;
    assert_eq!(
        told,
        [("active", t, t + 59), ("active", t + 59, t + 119), ("active", t + 119, t + 169)],
        "{long:?}"
    );
    assert!(aws.iter().any(|line| line.0[15] == "reset" && line.0[6] == "999"));
    assert!(aws.iter().any(|line| line.0[15] == "expired" && line.0[7] == "1"));
    // The JSON form says the same, both directions in one.
    let of_json = |which: &str| -> u64 {
        let both = |line: &Value| {
            line[which]["inbound"].as_u64().unwrap() + line[which]["outbound"].as_u64().unwrap()
        };
        json.iter().map(both).sum()
    };
    assert_eq!(of_json("packets"), truth.values().map(|(packets, _)| packets).sum::<u64>());
    assert_eq!(of_json("bytes"), truth.values().map(|(_, bytes)| bytes).sum::<u64>());
    let denied = json.iter().find(|line| line["reason"] == "denied").unwrap();
    assert_eq!(
        (denied["nic"].as_str(), denied["rule"].as_str()),
        (Some("shop/server"), Some("shop/my web#1"))
    );
    assert_eq!(denied["rule_id"].as_str().map(str::len), Some(12));
}

#[test]
fn a_flush_ends_connections_at_once_and_their_tombstones_refuse() {
    let setup = Setup::new();
    let mut traffic: Vec<_> = session(40_000, 1_000).into_iter().take(6).collect();
    // The answer to the last of them comes after the rule has gone.
    let late = tcp("198.51.100.9:40000", "10.5.6.7:22").seq(201).ack(1501).payload([1; 10]).frame();
    traffic.push((30_000, false, late.clone()));
    traffic.push((31_000, false, late));
    let changed = RULES.replace("ports: 22 }", "ports: 2222 }");
    setup.write("changed.yaml", &changed);
    setup.write("events.yaml", "- { at: 1700000020, file: changed.yaml }\n");
    let Played { aws, truth, .. } = play(&setup, &traffic, &["--events", "events.yaml"]);
    assert_eq!(sums(&aws), truth);
    let told: Vec<_> =
        aws.iter().map(|line| (line.0[12].as_str(), line.0[15].as_str(), line.number(8))).collect();
    assert_eq!(told, [("ACCEPT", "flushed", 4), ("ACCEPT", "flushed", 2), ("REJECT", "tombstone", 2)]);
    // The connection is told under the generation that let it open, the refusal under that which refused.
    assert_eq!(aws.iter().map(|line| line.number(17)).collect::<Vec<_>>(), [1, 1, 2]);
}

#[test]
fn what_would_be_refused_and_passes_is_accepted_with_its_reason() {
    let setup = Setup::new();
    setup.write("config.toml", "[policy]\nmode = \"observe\"\n");
    let refused = tcp("198.51.100.9:1", "10.5.6.7:80").syn().seq(1).frame();
    let Played { aws, json, .. } = play(&setup, &[(1, false, refused)], &["--config", "config.toml"]);
    assert_eq!((aws[0].0[12].as_str(), aws[0].0[15].as_str()), ("ACCEPT", "no-rule"));
    assert_eq!(json[0]["observed"], true);
}
