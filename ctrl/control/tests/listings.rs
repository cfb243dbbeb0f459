//! Every listing of the API, by filter and by page, against a plain filter over all rows.

use std::sync::Arc;
use std::time::Instant;

use axum::body::Body;
use axum::http::{Request, StatusCode};
use control::api;
use control::commit::Committer;
use control::config::Config;
use control::document::{Limits, parse_policy};
use control::live::{Author, Change, Live, Parts, WorkerHandle};
use crossbeam::channel::{Receiver, bounded};
use engine::conntrack::Connection;
use engine::conntrack::{Entry, STATES, key_meta};
use engine::counters::{ConnectionCounts, EngineCounters};
use engine::snapshot::Snapshot;
use engine::time::Now;
use engine::worker::{WorkerReply, WorkerRequest};
use engine::{FlowIndex, Generation, RuleId};
use serde_json::Value;
use tower::ServiceExt;

/// A generator of numbers that are the same for ever (SplitMix64).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }

    fn pick<T: Clone>(&mut self, of: &[T]) -> T {
        of[self.below(of.len())].clone()
    }
}

/// Names that sort otherwise by their text than by project and name: `a-b/x` stands before `a/x` in one order, behind it in the other.
const PROJECTS: [&str; 3] = ["a", "a-b", "b"];

fn policy() -> String {
    let mut text = String::from(
        "vpcs: [{ name: red, segment: { vlan: 1 } }, { name: blue, segment: { vlan: 2 } }]\nsecurity_groups:\n",
    );
    for project in PROJECTS {
        for group in ["g", "g2", "h"] {
            text += &format!("  - name: {group}\n    project: {project}\n    rules:\n");
            for port in [22, 443, 8000] {
                text += &format!("      - {{ direction: inbound, protocol: tcp, ports: {port} }}\n");
            }
            text += "      - { direction: inbound, protocol: icmp }\n      - { direction: outbound }\n";
            text += "      - { direction: inbound, protocol: udp, staged: true }\n";
        }
        // One without rules lists none.
        text += &format!("  - {{ name: none, project: {project} }}\n");
    }
    text += "nics:\n";
    for (number, project) in PROJECTS.iter().enumerate() {
        for nic in ["one", "two", "two-b"] {
            let vpc = if nic == "two" { "blue" } else { "red" };
            let at = number * 10 + nic.len();
            text += &format!(
                "  - {{ name: {nic}, project: {project}, vpc: {vpc}, addresses: [10.{number}.0.{at}, \"2001:db8:{number}::{at}\"], \
                 security_groups: [g, h] }}\n"
            );
        }
    }
    text
}

/// Answers as a worker does: the places from where it is asked on, as many as there is room for.
fn answer(questions: &Receiver<WorkerRequest>, table: &[Option<Connection>]) {
    while let Ok(WorkerRequest { from, mut connections, reply: answer, .. }) = questions.recv() {
        let room = connections.capacity() - connections.len();
        let end = (from as usize).saturating_add(room).min(table.len());
        connections.extend(table[(from as usize).min(end)..end].iter().flatten());
        let next = (end < table.len()).then_some(end as u32);
        let (now, len) = (Now { tick: 100, ceil: 100 }, table.len() as u32);
        let _ = answer.send(WorkerReply { connections, watch_set: None, next, now, len, ended: 0 });
    }
}

/// A table with gaps, some of them as long as what is asked at once.
fn table(worker: usize, places: usize, snapshot: &Snapshot, rules: u32) -> Vec<Option<Connection>> {
    let mut random = Random(worker as u64 + 1);
    let mut each = |place: usize| {
        if place / 600 == 1 || random.below(4) == 0 {
            return None;
        }
        let binding = &snapshot.bindings()[random.below(snapshot.bindings().len())];
        let state = random.pick(&STATES);
        let name = state.name();
        let protocol = match name {
            "icmp" => {
                if binding.is_v6() {
                    58
                } else {
                    1
                }
            }
            "one-way" | "two-way" => random.pick(&[17, 132, 47, 253]),
            _ => 6,
        };
        let ports = random.pick(&[22u32, 443, 65_535, 0]) << 16 | random.pick(&[1024u32, 22, 65_535]);
        let remote: u128 = if binding.is_v6() {
            0x2001_0db8_00ff << 80 | random.below(4) as u128
        } else {
            0x0a09_0000 | random.pick(&[0u128, 1, 255, 256])
        };
        let mut entry = Entry::new(
            binding.id,
            remote as u32,
            ports,
            key_meta(protocol, binding.is_v6()),
            random.below(3) > 0,
        );
        entry.set_state(state);
        entry.set_class(state.class());
        entry.deadline = 101 + random.below(800) as u32;
        entry.stamp = Generation(1 + random.below(4) as u32);
        entry.set_dead(random.below(5) == 0);
        if random.below(5) > 0 {
            entry.set_rule(RuleId(random.below(rules as usize) as u32));
        }
        let flow = FlowIndex(place as u32);
        Some(Connection { flow, entry, remote, last_syn: Default::default(), totals: None })
    };
    (0..places).map(&mut each).collect()
}

struct Rig {
    live: Live,
    _readers: Vec<rcu::Reader<Snapshot>>,
    routes: axum::Router,
}

impl Rig {
    fn new() -> Rig {
        let document = |text: &str| parse_policy(text, "test", &Limits::default()).unwrap();
        let mut committer = Committer::new(Config::default());
        let snapshot = committer.commit(document(&policy()).policy, 0).unwrap().unwrap().snapshot;
        let rules = committer.compiler().rules().len() as u32;
        let tables = [table(0, 1700, &snapshot, rules), table(1, 512, &snapshot, rules)];
        let (publisher, mut readers) = rcu::domain(snapshot, 2);
        let worker = |(core, table): (usize, Vec<Option<Connection>>)| {
            let (asked, heard) = bounded(1);
            std::thread::spawn(move || answer(&heard, &table));
            let counters = Arc::new(EngineCounters::new());
            WorkerHandle {
                core,
                counters,
                questions: asked,
                waker: None,
                capacity: 4096,
                polls: Box::new(Default::default),
            }
        };
        let live = Live::new(Parts {
            committer,
            publisher,
            workers: tables.into_iter().enumerate().map(worker).collect(),
            connection_counts: Arc::new(ConnectionCounts::new()),
            ports: Box::new(Vec::new),
            start: Instant::now(),
            board: Default::default(),
            governing_file: None,
            store: None,
        });
        readers.iter_mut().for_each(rcu::Reader::offline);
        // Generations to list: each opens a port more to one NIC that has no connection's rule.
        for generation in 2..8u16 {
            let more = policy().replace("ports: 8000", &format!("ports: {}", 8000 + generation));
            run(live.apply(Change::to(document(&more), Author::client("test")))).unwrap();
        }
        Rig { routes: api::router(live.clone()), live, _readers: readers }
    }

    fn get(&self, path: &str) -> (StatusCode, Value) {
        let request = Request::get(path).body(Body::empty()).unwrap();
        run(async {
            let response = self.routes.clone().oneshot(request).await.unwrap();
            let (head, body) = response.into_parts();
            let bytes = axum::body::to_bytes(body, usize::MAX).await.unwrap();
            (head.status, serde_json::from_slice(&bytes).unwrap())
        })
    }

    fn rows(&self, path: &str) -> Vec<Value> {
        let (status, body) = self.get(path);
        assert_eq!(status, 200, "{path}: {body}");
        let Value::Array(rows) = body else { panic!("{path}: {body}") };
        rows
    }

    /// All that is found in pages of so many and of so many milliseconds, each behind where the one before says. How many pages it took.
    fn in_time(&self, path: &str, limit: usize, within: u32, all: &[Value]) -> usize {
        let (mut got, mut after, mut pages) = (Vec::new(), String::new(), 0);
        loop {
            let asked = format!("{path}&limit={limit}&within={within}{after}");
            let request = Request::get(&asked).body(Body::empty()).unwrap();
            let (head, page) = run(async {
                let (head, body) = self.routes.clone().oneshot(request).await.unwrap().into_parts();
                let bytes = axum::body::to_bytes(body, usize::MAX).await.unwrap();
                (head, serde_json::from_slice::<Vec<Value>>(&bytes).unwrap())
            });
            assert_eq!(head.status, 200, "{asked}");
            assert!(page.len() <= limit, "{asked}: {}", page.len());
            got.extend(page);
            pages += 1;
            let Some(next) = head.headers.get("portcullis-next") else { break };
            after = format!("&after={}", next.to_str().unwrap());
            assert!(pages <= all.len() + 100, "{asked} does not end");
        }
        assert_eq!(got, all, "{path} by {limit} within {within}");
        pages
    }

    /// All pages of so many, one after the other: together they are what is listed at once, and each but the last is full.
    fn in_pages(&self, path: &str, limit: usize, all: &[Value], after: impl Fn(&Value) -> String) {
        let (mut got, mut place) = (Vec::new(), String::new());
        let sign = if path.contains('?') { '&' } else { '?' };
        loop {
            let page = self.rows(&format!("{path}{sign}limit={limit}{place}"));
            assert!(page.len() <= limit, "{path} by {limit}: {}", page.len());
            let is_last = page.len() < limit;
            got.extend(page);
            let Some(last) = got.last() else { break };
            if is_last {
                break;
            }
            place = format!("&after={}", after(last));
            assert!(got.len() <= all.len(), "{path} by {limit} does not end");
        }
        assert_eq!(got, all, "{path} by {limit}");
    }
}

fn run<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

/// What one condition says of a row, read off the row alone.
fn holds(row: &Value, name: &str, value: &str) -> bool {
    let text = |key: &str| row[key].as_str().unwrap_or_default().to_owned();
    let within = |key: &str| {
        let (network, bits) = value.split_once('/').unwrap_or((value, ""));
        let wide = |text: &str| {
            let address: std::net::IpAddr = text.parse().unwrap();
            match address {
                std::net::IpAddr::V4(v4) => (4, u128::from(u32::from(v4)) << 96),
                std::net::IpAddr::V6(v6) => (6, u128::from(v6)),
            }
        };
        let ((family, network), (other, address)) = (wide(network), wide(&text(key)));
        let bits: u32 = bits.parse().unwrap_or(if family == 4 { 32 } else { 128 });
        family == other && (bits == 0 || (network ^ address) >> (128 - bits) == 0)
    };
    match name {
        "vpc" => (text("nic").ends_with("/two") || text("nic") == "two") == (value == "blue"),
        "remote" | "local" => within(name),
        "remote_port" | "local_port" => row[name].as_u64() == Some(value.parse().unwrap()),
        "tombstone" => row[name] == (value == "true"),
        "rule" => text("rule") == value || text("rule_id") == value,
        "since" => row["generation"].as_u64().unwrap() >= value.parse().unwrap(),
        "worker" => row[name].as_u64() == Some(value.parse().unwrap()),
        _ => text(name) == value,
    }
}

/// Conditions, with values at every boundary of what the table holds.
fn conditions(rows: &[Value]) -> Vec<(&'static str, Vec<String>)> {
    let found = |key: &str| {
        let values = rows.iter().filter_map(|row| match &row[key] {
            Value::Null => None,
            Value::String(text) => Some(text.clone()),
            other => Some(other.to_string()),
        });
        values.collect::<std::collections::BTreeSet<String>>().into_iter().collect::<Vec<_>>()
    };
    let texts = |values: &[&str]| values.iter().map(ToString::to_string).collect::<Vec<_>>();
    let prefixes = |key: &str, more: &[&str]| {
        let addresses = found(key);
        let hosts = addresses
            .iter()
            .map(|address| format!("{address}/{}", if address.contains(':') { 128 } else { 32 }));
        [addresses.clone(), hosts.collect(), texts(more)].concat()
    };
    let v4 = ["0.0.0.0/0", "::/0", "10.9.0.0/31", "10.9.0.0/24", "10.9.1.0/24", "10.8.0.0/15", "192.0.2.1"];
    vec![
        ("nic", found("nic")),
        ("vpc", texts(&["red", "blue"])),
        ("remote", prefixes("remote", &[&v4[..], &["2001:db8:ff::/127", "2001:db8:ff::2/127"]].concat())),
        ("local", prefixes("local", &[&v4[..], &["10.0.0.0/8", "10.1.0.0/16", "2001:db8:1::/48"]].concat())),
        ("remote_port", texts(&["22", "1024", "65535", "0", "1023", "1025", "65534"])),
        ("local_port", texts(&["22", "443", "65535", "0", "1", "444"])),
        ("protocol", texts(&["tcp", "udp", "sctp", "icmp", "icmpv6", "gre", "253"])),
        (
            "state",
            texts(&[
                "syn-sent",
                "syn-received",
                "established",
                "fin-wait",
                "closing",
                "one-way",
                "two-way",
                "icmp",
            ]),
        ),
        ("opened", texts(&["inbound", "outbound"])),
        ("tombstone", texts(&["true", "false"])),
        ("rule", [found("rule"), found("rule_id")].concat().into_iter().step_by(5).collect()),
        ("since", (0..7).map(|generation| generation.to_string()).collect()),
        ("worker", texts(&["0", "1"])),
    ]
}

fn query(chosen: &[(&str, String)]) -> String {
    let encoded = |value: &str| value.replace('#', "%23").replace('/', "%2F");
    chosen.iter().map(|(name, value)| format!("{name}={}", encoded(value))).collect::<Vec<_>>().join("&")
}

#[test]
fn connections_are_those_that_a_plain_filter_leaves_in_whatever_pages() {
    let rig = Rig::new();
    let rows = rig.rows("/v1/connections");
    let distinct: std::collections::BTreeSet<_> = rows.iter().map(|row| row["id"].to_string()).collect();
    assert!(rows.len() > 900 && distinct.len() == rows.len(), "{} rows", rows.len());
    let conditions = conditions(&rows);
    let check = |chosen: &[(&str, String)]| {
        let expected: Vec<Value> = rows
            .iter()
            .filter(|row| chosen.iter().all(|(name, value)| holds(row, name, value)))
            .cloned()
            .collect();
        let query = query(chosen);
        assert_eq!(rig.rows(&format!("/v1/connections?{query}")), expected, "{query}");
        let (_, count) = rig.get(&format!("/v1/connections/count?{query}"));
        assert_eq!(count["count"], expected.len(), "{query}");
        expected
    };
    // Each condition by itself with each value; each leaves some and takes some, with one value or another.
    for (name, values) in &conditions {
        let mut sizes = Vec::new();
        for value in values {
            sizes.push(check(&[(name, value.clone())]).len());
        }
        let is_met = sizes.iter().any(|size| (1..rows.len()).contains(size));
        assert!(is_met, "{name}: {sizes:?}");
    }
    // Several at once, in pages of any size.
    let mut random = Random(17);
    for _ in 0..60 {
        let mut chosen: Vec<(&str, String)> = Vec::new();
        for (name, values) in &conditions {
            if random.below(6) == 0 {
                chosen.push((name, random.pick(values)));
            }
        }
        let expected = check(&chosen);
        let (some, many) = (1 + random.below(40), expected.len().max(2));
        let limit = random.pick(&[some, 511, 512, 513, many - 1, many, many + 1, 100_000]);
        let path = format!("/v1/connections?{}", query(&chosen));
        if expected.len() / limit < 40 {
            rig.in_pages(&path, limit, &expected, |row| row["id"].as_str().unwrap().to_owned());
            rig.in_time(&path, limit, 10_000, &expected);
        }
    }
    // In the least time that may be given: slice by slice, also where nothing is found in most of them.
    let mut pages = 0;
    let queries = ["protocol=tcp", "remote_port=1", "worker=1", "tombstone=true"];
    for query in queries {
        let path = format!("/v1/connections?{query}");
        pages += rig.in_time(&path, 100_000, 1, &rig.rows(&path));
    }
    assert!(pages > queries.len(), "none took longer than its time");
    // Behind a place that nobody has, behind the last, and behind what no worker has.
    for after in ["0-599", "0-1199", "0-1699", "0-4000", "1-0", "1-511", "1-600", "2-0", "999999999-0"] {
        let (worker, place) = after.split_once('-').unwrap();
        let (worker, place): (u64, u64) = (worker.parse().unwrap(), place.parse().unwrap());
        let is_behind = |row: &&Value| {
            let id = row["id"].as_str().unwrap().split_once('-').unwrap();
            (id.0.parse::<u64>().unwrap(), id.1.parse::<u64>().unwrap()) > (worker, place)
        };
        let expected: Vec<_> = rows.iter().filter(is_behind).cloned().collect();
        assert_eq!(rig.rows(&format!("/v1/connections?after={after}")), expected, "{after}");
    }
}

#[test]
fn nics_groups_rules_and_generations_are_the_same_in_whatever_pages() {
    let rig = Rig::new();
    let encoded = |value: &Value| value.as_str().unwrap().replace('/', "%2F").replace('#', "%23");
    for (path, key, len) in [("/v1/nics", "nic", 9), ("/v1/groups", "group", 15)] {
        let all = rig.rows(path);
        assert_eq!(all.len(), len, "{path}");
        for limit in 1..=len + 2 {
            rig.in_pages(path, limit, &all, |row| encoded(&row[key]));
        }
        // In the order of projects, then names; behind any name, whether or not it is there.
        let place = |name: &str| name.split_once('/').map(|(p, n)| (p.to_owned(), n.to_owned())).unwrap();
        let names: Vec<_> = all.iter().map(|row| place(row[key].as_str().unwrap())).collect();
        assert!(names.is_sorted(), "{names:?}");
        for after in ["a/a", "a/g", "a/two", "a/zz", "a-b/g1", "a-b/two-b", "b/h", "b/two-b", "b/zz", "c/a"] {
            let expected: Vec<_> = all
                .iter()
                .zip(&names)
                .filter(|(_, name)| **name > place(after))
                .map(|(row, _)| row.clone())
                .collect();
            assert_eq!(
                rig.rows(&format!("{path}?after={}", after.replace('/', "%2F"))),
                expected,
                "{path} {after}"
            );
        }
    }
    // Rules come by whole groups: as many as it takes.
    let rules = rig.rows("/v1/rules");
    let mut groups: Vec<usize> =
        rules.chunk_by(|one, next| one["group"] == next["group"]).map(<[_]>::len).collect();
    assert_eq!(groups.iter().filter(|len| **len == 6).count(), 9, "{groups:?}");
    groups.push(0);
    for limit in 1..=rules.len() + 7 {
        let (mut got, mut after, mut left) = (Vec::new(), String::new(), groups.iter());
        while got.len() < rules.len() {
            let page = rig.rows(&format!("/v1/rules?limit={limit}{after}"));
            let mut expected = 0;
            while expected < limit
                && let Some(len) = left.next()
            {
                expected += len;
            }
            assert_eq!(page.len(), expected, "by {limit}, behind {}", got.len());
            got.extend(page);
            after = format!("&after={}", encoded(&got.last().unwrap()["group"]));
        }
        assert_eq!(got, rules, "by {limit}");
    }
    let history = rig.rows("/v1/history");
    let generations: Vec<_> = history.iter().map(|row| row["generation"].as_u64().unwrap()).collect();
    assert_eq!(generations, (1..=7).rev().collect::<Vec<_>>());
    assert_eq!(rig.live.snapshot().generation, 7);
    for limit in 1..=9 {
        rig.in_pages("/v1/history", limit, &history, |row| row["generation"].to_string());
    }
    for before in 0..=9u64 {
        let expected: Vec<_> =
            history.iter().filter(|row| row["generation"].as_u64().unwrap() < before).cloned().collect();
        assert_eq!(rig.rows(&format!("/v1/history?after={before}")), expected, "before {before}");
    }
}

#[test]
fn a_listing_of_names_with_a_text_in_them_is_all_of_those_and_comes_in_pages() {
    let rig = Rig::new();
    let encoded =
        |text: &str| text.replace('/', "%2F").replace(':', "%3A").replace('#', "%23").replace(' ', "%20");
    for (path, key) in [("/v1/nics", "nic"), ("/v1/groups", "group"), ("/v1/rules", "group")] {
        let all = rig.rows(path);
        let mut sizes = std::collections::BTreeSet::new();
        for text in ["", "a", "a/", "two", "b/t", "g1", "10.", "0.1", "::", "/", "A", "no such"] {
            let has = |row: &&Value| {
                let addresses = row["addresses"].as_array().into_iter().flatten();
                let mut texts = addresses.chain([&row[key]]).map(|found| found.as_str().unwrap());
                texts.any(|found| found.contains(text))
            };
            let expected: Vec<_> = all.iter().filter(has).cloned().collect();
            let asked = format!("{path}?contains={}", encoded(text));
            assert_eq!(rig.rows(&asked), expected, "{asked}");
            sizes.insert(expected.len());
            if path != "/v1/rules" {
                for limit in [1, 2, 5] {
                    rig.in_pages(&asked, limit, &expected, |row| encoded(row[key].as_str().unwrap()));
                }
            }
        }
        assert!(sizes.len() > 2, "{path}: the texts tell hardly any apart: {sizes:?}");
    }
    assert_eq!(rig.get(&format!("/v1/nics?contains={}", "x".repeat(255))).0.as_u16(), 200);
    assert_eq!(rig.get(&format!("/v1/nics?contains={}", "x".repeat(256))).0.as_u16(), 400);
}

#[test]
fn a_page_or_a_condition_that_makes_no_sense_is_refused_and_one_at_its_bound_is_not() {
    let rig = Rig::new();
    let status = |path: &str| rig.get(path).0.as_u16();
    for list in ["nics", "groups", "rules", "history", "connections"] {
        for (limit, expected) in [
            ("0", 400),
            ("1", 200),
            ("100000", 200),
            ("100001", 400),
            ("-1", 400),
            ("x", 400),
            ("4294967296", 400),
        ] {
            assert_eq!(status(&format!("/v1/{list}?limit={limit}")), expected, "{list} {limit}");
        }
        assert_eq!(status(&format!("/v1/{list}?limits=1")), 400, "{list}");
    }
    for (query, expected) in [
        ("within=0", 400),
        ("within=1", 200),
        ("within=10000", 200),
        ("within=10001", 400),
        ("within=-1", 400),
        ("after=0", 400),
        ("after=0-", 400),
        ("after=-1", 400),
        ("after=0-4294967295", 400),
        ("after=0-4294967294", 200),
        ("worker=1", 200),
        ("worker=2", 404),
        ("nic=a%2Fone", 200),
        ("nic=a%2Ftree", 404),
        ("vpc=red", 200),
        ("vpc=rot", 404),
        ("rule=a%2Fg%230", 200),
        ("rule=a%2Fg%235", 200),
        ("rule=a%2Fg%236", 404),
        ("rule=a%2Fnone%230", 404),
        ("rule=a%2Fg", 404),
        ("state=established", 200),
        ("state=open", 400),
        ("opened=both", 400),
        ("protocol=255", 200),
        ("protocol=256", 400),
        ("remote_port=65535", 200),
        ("remote_port=65536", 400),
        ("local=10.0.0.0%2F33", 400),
        ("remote=::ffff:10.0.0.1", 400),
        ("since=4294967295", 200),
        ("since=4294967296", 400),
        ("tombstone=yes", 400),
    ] {
        assert_eq!(status(&format!("/v1/connections?{query}")), expected, "{query}");
        // What is counted is asked in the same way, but has no pages.
        let of_count = if query.starts_with("after") || query.starts_with("within") { 400 } else { expected };
        assert_eq!(status(&format!("/v1/connections/count?{query}")), of_count, "count {query}");
    }
}
