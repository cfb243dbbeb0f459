//! NICs that come and go for as long as an appliance runs: memory does not grow with them.

use std::sync::Arc;
use std::time::Instant;

use control::config::Config;
use control::document::{Limits, parse_policy};
use control::live::{Author, Change, Live, Parts, begin};
use control::store::Store;
use engine::counters::ConnectionCounts;

/// NICs that each change replaces.
const REPLACED: usize = 20;

/// Bytes of memory that this process has.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10
}

fn document(round: usize) -> control::document::Parsed {
    let mut text =
        "vpcs: [{ name: prod, segment: { untagged: true } }]\nsecurity_groups: [{ name: a, rules: [{ \
                    direction: inbound, protocol: tcp, ports: 22 }] }]\nnics:\n"
            .to_owned();
    for n in 0..REPLACED {
        let [a, b] = ((round * REPLACED + n) as u16).to_be_bytes();
        text += &format!(
            "- {{ name: n{round}-{n}, vpc: prod, addresses: [10.0.{a}.{b}], security_groups: [a] }}\n"
        );
    }
    parse_policy(&text, "test", &Limits::default()).unwrap()
}

/// `CHURN=10000` goes on for longer.
#[test]
fn memory_stays_what_it_is_while_nics_come_and_go() {
    let rounds = std::env::var("CHURN").map_or(2400, |n| n.parse().unwrap());
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store");
    let mut config = Config::default();
    config.store.path = Some(path.clone());
    let began = begin(config, Some(Store::open(&path).unwrap()), None, None, false).unwrap();
    let live = Live::new(Parts {
        publisher: rcu::domain(began.snapshot, 0).0,
        committer: began.committer,
        workers: Vec::new(),
        connection_counts: Arc::new(ConnectionCounts::new()),
        ports: Box::new(Vec::new),
        start: Instant::now(),
        board: Default::default(),
        governing_file: None,
        store: began.store,
    });
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (mut before, mut stored) = (0, 0);
    let size = || std::fs::metadata(&path).unwrap().len();
    for round in 1..=rounds {
        runtime.block_on(live.apply(Change::to(document(round), Author::client("test")))).unwrap();
        // By then the history is as long as it gets.
        if round == 1200 {
            (before, stored) = (resident(), size());
        }
    }
    let (now, stored_now) = (resident(), size());
    println!("{} MB, {} MB; stored {} MB, {} MB", before >> 20, now >> 20, stored >> 20, stored_now >> 20);
    assert!(now * 10 <= before * 13, "{before} bytes after 1,200 changes, {now} after {rounds}");
    assert!(stored_now * 10 <= stored * 13, "{stored} bytes in the store, {stored_now}");
    assert!(live.nics().len() == REPLACED && live.history().len() == 1025);
}

/// Documents of a megabyte, one after the other: the history forgets sooner.
#[test]
fn the_history_is_bounded_in_bytes_and_leads_back_a_generation_all_the_same() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store");
    let began = begin(Config::default(), Some(Store::open(&path).unwrap()), None, None, false).unwrap();
    let live = Live::new(Parts {
        publisher: rcu::domain(began.snapshot, 0).0,
        committer: began.committer,
        workers: Vec::new(),
        connection_counts: Arc::new(ConnectionCounts::new()),
        ports: Box::new(Vec::new),
        start: Instant::now(),
        board: Default::default(),
        governing_file: None,
        store: began.store,
    });
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let large = |round: u32| {
        let prefixes: Vec<String> = (0..100_000u32)
            .map(|n| format!("{}/32", std::net::Ipv4Addr::from((round << 24) + 2 * n + (1 << 23))))
            .collect();
        let text = format!("address_groups: [{{ name: l, addresses: [{}] }}]", prefixes.join(", "));
        parse_policy(&text, "test", &Limits::default()).unwrap()
    };
    let apply = |round: u32| {
        let change = Change { allow_empty: true, ..Change::to(large(round), Author::client("test")) };
        runtime.block_on(live.apply(change)).unwrap();
    };
    (1..=34).for_each(apply);
    let kept = live.history().len();
    // 2.4 MB each.
    assert!((20..34).contains(&kept), "{kept}");
    let oldest = 35 - kept as u32;
    assert!(live.policy_at(oldest).is_ok() && live.policy_at(oldest - 1).is_err());
    runtime.block_on(live.apply(Change::back_to(33, Author::client("test")))).unwrap();
    assert!(live.policy() == large(33).policy);
    drop((live, runtime));
    let contents = Store::open(&path).unwrap().1.unwrap();
    assert_eq!(contents.generation, 35);
    assert!(contents.history.len() <= kept, "{} in the store, {kept}", contents.history.len());
}
