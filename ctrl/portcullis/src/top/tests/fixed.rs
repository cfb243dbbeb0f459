//! A page that is always the same.

use std::sync::Arc;

use stats::{Family, Kind, Page, Reader, Writer};

use crate::top::figures::{Counts, Figures, Nic};

/// In nanoseconds.
pub const SECOND: u64 = 1_000_000_000;

fn family(
    name: &'static str,
    kind: Kind,
    labels: &'static [&'static str],
    rows: &[(&[&str], u64)],
) -> Family {
    let mut family = Family::new(name, kind, labels, "");
    for (labels, value) in rows {
        family.push(labels.iter().map(|label| Arc::from(*label)).collect::<Vec<_>>(), *value);
    }
    family
}

/// What two workers, two ports and fourteen NICs have done in `n` seconds.
pub fn page(n: u64) -> Page {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("stats");
    let mut writer = Writer::create(&path).unwrap();
    let mut all = appliance(n);
    all.extend(ports(n));
    all.extend(workers(n));
    all.extend(policy(n));
    writer.write(&all).unwrap();
    let mut page = Reader::open(&path).unwrap().read().unwrap();
    (page.started, page.written, page.ended, page.process) = (0, n * SECOND, None, 4711);
    page
}

fn appliance(n: u64) -> Vec<Family> {
    let commit: &[&str] = &["generation", "at", "by", "origin", "state", "what"];
    let problem: &[&str] = &["what", "since", "ended", "problem", "cure"];
    vec![
        family("build", Kind::Info, &["version"], &[(&["0.1.0"], 1)]),
        family("generation", Kind::Gauge, &[], &[(&[], 7)]),
        family("nics", Kind::Gauge, &[], &[(&[], 20)]),
        family("disconnected", Kind::Counter, &[], &[(&[], 12)]),
        family("setting", Kind::Info, &["setting"], &[(&["mode: observe on 1 of 20 NICs"], 1)]),
        family(
            "commits",
            Kind::Counter,
            &["outcome"],
            &[
                (&["acknowledged"], 5),
                (&["pending"], 1),
                (&["unconfirmed"], 0),
                (&["unchanged"], 3),
                (&["refused"], 2),
            ],
        ),
        family(
            "commit",
            Kind::Gauge,
            commit,
            &[
                (&["7", "3590.5", "uid 0", "api", "pending", "~group web"], 0),
                (&["6", "1800", "uid 1000", "api", "acknowledged", "~group web +nic server-12"], 12),
                (&["5", "60", "policy.yaml", "file", "taken back", "back to 3"], 0),
                (&["4", "1", "portcullis", "start", "acknowledged", ""], 0),
            ],
        ),
        family(
            "problem",
            Kind::Gauge,
            problem,
            &[
                (&["port eth3", "3500", "", "its link is down", "look at the cable, or the peer"], 1),
                (&["worker 1", "100", "160", "its table was full", "[conntrack] capacity"], 0),
            ],
        ),
        family("flow_records", Kind::Counter, &["sink", "outcome"], &[(&["aws", "sent"], n)]),
    ]
}

fn ports(n: u64) -> Vec<Family> {
    let way: &[&str] = &["port", "way"];
    let mut packets = Family::new("port_packets", Kind::Counter, &["port", "way"], "");
    for (port, received, sent, lost) in [("eth0", 1600, 1350, 0), ("eth1", 1400, 1500, 0), ("eth2", 0, 0, 0)]
    {
        for (way, count) in [("received", received), ("sent", sent), ("lost-rx", lost), ("lost-tx", lost)] {
            packets.push([port.into(), way.into()], n * count);
        }
    }
    packets.push(["eth3".into(), "lost-tx".into()], n * 3);
    vec![
        packets,
        family(
            "port_up",
            Kind::Gauge,
            &["port"],
            &[(&["eth0"], 1), (&["eth1"], 1), (&["eth2"], 1), (&["eth3"], 0)],
        ),
        family(
            "port_bytes",
            Kind::Counter,
            way,
            &[
                (&["eth0", "received"], n * 250_000),
                (&["eth0", "sent"], n * 320_000),
                (&["eth1", "received"], n * 350_000),
                (&["eth1", "sent"], n * 250_000),
            ],
        ),
        family(
            "wire",
            Kind::Info,
            &["wire", "side", "port"],
            &[
                (&["north", "inside", "eth0"], 1),
                (&["north", "outside", "eth1"], 1),
                (&["a-wire-with-a-long-name", "inside", "eth2"], 1),
                (&["a-wire-with-a-long-name", "outside", "eth3"], 1),
            ],
        ),
    ]
}

fn workers(n: u64) -> Vec<Family> {
    let of_worker = |name, values: [u64; 2]| {
        family(name, Kind::Counter, &["worker"], &[(&["0"], values[0]), (&["1"], values[1])])
    };
    let gauge = |name, values: [u64; 2]| {
        family(name, Kind::Gauge, &["worker"], &[(&["0"], values[0]), (&["1"], values[1])])
    };
    let packets: &[&str] = &["worker", "direction", "verdict", "reason"];
    vec![
        family(
            "packets",
            Kind::Counter,
            packets,
            &[
                (&["0", "inbound", "pass", "established"], n * 1400),
                (&["0", "inbound", "pass", "new"], n * 20),
                (&["0", "inbound", "drop", "no-rule"], n * 90),
                (&["0", "inbound", "pass", "no-rule"], n * 10),
                (&["0", "inbound", "drop", "denied"], n * 30),
                (&["0", "inbound", "drop", "spoofed"], 0),
                (&["1", "outbound", "pass", "established"], n * 1420),
                (&["1", "outbound", "drop", "spoofed"], n * 30),
            ],
        ),
        family(
            "bytes",
            Kind::Counter,
            &["worker", "direction", "verdict"],
            &[
                (&["0", "inbound", "pass"], n * 300_000),
                (&["0", "inbound", "drop"], n * 7_000),
                (&["1", "outbound", "pass"], n * 270_000),
            ],
        ),
        family(
            "connections",
            Kind::Gauge,
            &["worker", "state"],
            &[
                (&["0", "established"], 120),
                (&["0", "syn"], 3),
                (&["1", "established"], 65_000),
                (&["1", "tombstone"], 12),
            ],
        ),
        gauge("connections_capacity", [65_536, 65_536]),
        of_worker("connections_opened", [n * 20, 0]),
        family(
            "connections_ended",
            Kind::Counter,
            &["worker", "how"],
            &[(&["0", "closed"], n * 18), (&["0", "expired"], n), (&["1", "flushed"], 12)],
        ),
        family(
            "worker_cycles",
            Kind::Counter,
            &["worker", "state"],
            &[
                (&["0", "busy"], n * 500_000_000),
                (&["0", "idle"], n * 1_500_000_000),
                (&["1", "busy"], n * 1_960_000_000),
                (&["1", "idle"], n * 40_000_000),
            ],
        ),
        gauge("worker_generation", [7, 6]),
        family("worker", Kind::Info, &["worker", "core"], &[(&["0", "2"], 1), (&["1", "3"], 1)]),
        of_worker("worker_bursts", [n * 200, n * 25]),
        of_worker("worker_burst_frames", [n * 1600, n * 1600]),
    ]
}

fn policy(n: u64) -> Vec<Family> {
    const NIC: &[&str] = &["project", "nic", "direction", "verdict"];
    let mut packets = Family::new("nic_packets", Kind::Counter, NIC, "");
    let mut bytes = Family::new("nic_bytes", Kind::Counter, NIC, "");
    let mut connections = Family::new("nic_connections", Kind::Gauge, &["project", "nic"], "");
    let mut names: Vec<(String, String)> =
        (1..13).map(|n| ("default".to_owned(), format!("server-{n}"))).collect();
    names.extend((1..8).map(|n| ("shop".to_owned(), format!("warehouse-of-the-north-{n}"))));
    for (at, (project, name)) in (1..).zip(&names) {
        // Those of the shop are quiet.
        let weight = if project == "shop" { u64::from(at == 13) } else { at };
        for (direction, verdict, count, size) in [
            ("inbound", "pass", 75, 12_500),
            ("inbound", "drop", 1, 60),
            ("outbound", "pass", 25, 6_250),
            ("outbound", "drop", 0, 0),
        ] {
            let labels: [Arc<str>; 4] =
                [project.as_str().into(), name.as_str().into(), direction.into(), verdict.into()];
            packets.push(labels.clone(), n * weight * count);
            bytes.push(labels, n * weight * size);
        }
        connections.push([project.as_str().into(), name.as_str().into()], weight * 10);
    }
    let rules: [(&str, &str, &str, &str, u64, u64, &str); 5] = [
        ("default", "web", "r-0123456789abcdef", "0", 15, 0, "the shop's customers"),
        (
            "default",
            "web",
            "r-23456789abcdef01",
            "1",
            0,
            30,
            "a pest, see ticket 4711: whoever comes from there wants nothing good",
        ),
        ("default", "database", "r-456789abcdef0123", "0", 5, 0, ""),
        // It is staged, below.
        ("default", "database", "r-6789abcdef012345", "10", 0, 0, "服务器 in two columns each"),
        ("shop", "a-group-with-a-rather-long-name", "r-89abcdef01234567", "2", 0, 0, "\u{1b}[31mred"),
    ];
    const RULE: &[&str] = &["project", "group", "rule_id"];
    let mut opened = Family::new("rule_connections", Kind::Counter, RULE, "");
    let mut denied = Family::new("rule_denied_packets", Kind::Counter, RULE, "");
    let mut info =
        Family::new("rule", Kind::Info, &["project", "group", "rule_id", "position", "description"], "");
    for (project, group, id, position, opens, denies, description) in rules {
        let labels: [Arc<str>; 3] = [project.into(), group.into(), id.into()];
        opened.push(labels.clone(), n * opens);
        denied.push(labels.clone(), n * denies);
        let [project, group, id] = labels;
        info.push([project, group, id, position.into(), description.into()], 1);
    }
    let mut staged = Family::new(
        "rule_staged_packets",
        Kind::Counter,
        &["project", "group", "rule_id", "would", "verdict"],
        "",
    );
    for (would, verdict, count) in
        [("pass", "pass", 5), ("pass", "drop", 2), ("drop", "drop", 0), ("drop", "pass", 0)]
    {
        let labels = ["default", "database", "r-6789abcdef012345", would, verdict];
        staged.push(labels.map(Arc::from), n * count);
    }
    vec![packets, bytes, connections, opened, denied, staged, info]
}

/// So many NICs, of which some have the same traffic.
pub fn many(nics: u64) -> Figures {
    let nic = |n: u64| {
        let total = [n * 7919 % 5000, n % 3, n * 100, n * 50];
        let counts = Counts { total, rate: Some(total.map(|n| n as f64)) };
        Nic { name: format!("server-{n}"), connections: n % 100, counts }
    };
    Figures { nics: (0..nics).map(nic).collect(), seconds: Some(1.0), ..Figures::default() }
}
