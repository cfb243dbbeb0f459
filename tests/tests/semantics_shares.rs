//! Semantics §6.1, fair shares: one NIC's flood, answered or not, closes no other's connections and keeps none from opening.

use control::config::{Config, parse_config};
use engine::Side::{Inside, Outside};
use engine::{Reason, Side};
use testkit::frame::*;
use testkit::scenario::{Scenario, policy, rule::*};
use testkit::sim::{SimWorkers, Steering};

const A: &str = "10.0.0.1:53";
const B: &str = "10.0.0.2:53";
const B_SSH: &str = "10.0.0.2:22";

/// A client's address and port by number: 60,000 a remote address.
fn client(n: u32) -> String {
    format!("198.51.{}.{}:{}", n / 60_000 / 250, n / 60_000 % 250 + 1, 1024 + n % 60_000)
}

fn query(n: u32, server: &str) -> Packet<Udp> {
    udp(client(n).as_str(), server)
}

fn reply(n: u32, server: &str) -> Packet<Udp> {
    udp(server, client(n).as_str())
}

fn two_nics() -> String {
    policy(&[("web", &[DNS, SSH])], &[("a", "10.0.0.1", &["web"]), ("b", "10.0.0.2", &["web"])])
}

fn settings(capacity: u32, share: f64) -> String {
    format!("[conntrack]\ncapacity = {capacity}\nunconfirmed_share = {share:?}\n")
}

fn with_capacity(capacity: u32) -> Scenario {
    Scenario::with(&settings(capacity, 1.0), &two_nics())
}

/// An answered datagram: its connection is confirmed.
fn answered(s: &mut Scenario, n: u32, server: &str) -> String {
    let said = s.outside(query(n, server));
    s.inside(reply(n, server));
    said
}

/// The clients, by port, that have connections with a NIC.
fn clients(s: &mut Scenario, nic: &str) -> Vec<u16> {
    let of_nic = |line: &&String| line.starts_with(&format!("{nic} "));
    let port = |line: &String| line.split(' ').nth(4)?.rsplit(':').next()?.parse().ok();
    s.connections().iter().filter(of_nic).filter_map(port).collect()
}

#[test]
fn share_6_1_what_is_idle_is_lent() {
    let mut s = with_capacity(100);
    for n in 0..100 {
        assert_eq!(answered(&mut s, n, A), "new by web#0");
    }
    assert_eq!(
        s.outside(query(100, A)),
        "table-full",
        "it may have more than its share, and no more than all"
    );
    assert_eq!(clients(&mut s, "a").len(), 100);
}

#[test]
fn share_6_1_a_nic_below_its_share_takes_from_one_above_up_to_an_equal_part() {
    for (capacity, part) in [(100, 50), (64, 32), (33, 16), (20, 10), (8, 4), (2, 1)] {
        let mut s = with_capacity(capacity);
        (0..capacity).for_each(|n| drop(answered(&mut s, n, A)));
        for n in 0..part {
            assert_eq!(answered(&mut s, n, B), "new by web#0", "{n} of {capacity}");
        }
        assert_eq!(s.outside(query(part, B)), "table-full", "of {capacity}: it has its share");
        assert_eq!(s.outside(query(capacity, A)), "table-full");
        assert_eq!(clients(&mut s, "b").len() as u32, part);
        assert_eq!(s.len(), capacity);
    }
}

#[test]
fn share_6_1_is_of_at_least_16_connections_where_many_nics_share_the_table() {
    let names: Vec<String> = (1..=50).map(|n| format!("n{n}")).collect();
    let addresses: Vec<String> = (1..=50).map(|n| format!("10.0.0.{n}")).collect();
    let nics: Vec<(&str, &str, &[&str])> =
        names.iter().zip(&addresses).map(|(n, a)| (n.as_str(), a.as_str(), &["web"][..])).collect();
    // An equal part would be of two connections.
    let mut s = Scenario::with(&settings(100, 1.0), &policy(&[("web", &[DNS])], &nics));
    (0..100).for_each(|n| drop(answered(&mut s, n, A)));
    for n in 0..16 {
        assert_eq!(answered(&mut s, n, B), "new by web#0");
    }
    assert_eq!(s.outside(query(16, B)), "table-full");
}

#[test]
fn share_6_1_the_longest_idle_goes_first_and_of_the_nic_furthest_above() {
    let three = policy(
        &[("web", &[DNS])],
        &[("a", "10.0.0.1", &["web"]), ("b", "10.0.0.2", &["web"]), ("c", "10.0.0.3", &["web"])],
    );
    let mut s = Scenario::with(&settings(48, 1.0), &three);
    let c = "10.0.0.3:53";
    // c has 20, a has 28, and the share is of 16.
    (0..20).for_each(|n| drop(answered(&mut s, n, c)));
    for n in 0..28 {
        answered(&mut s, n, A);
        s.wait(1.0);
    }
    // 0 and 1 of a's are heard of again.
    s.outside(query(0, A));
    s.inside(reply(1, A));
    answered(&mut s, 0, B);
    answered(&mut s, 1, B);
    let left = clients(&mut s, "a");
    assert!(left.contains(&1024) && left.contains(&1025), "those heard of last stay: {left:?}");
    assert!(!left.contains(&1026) && !left.contains(&1027), "2 and 3 were idle for longest: {left:?}");
    assert_eq!((left.len(), clients(&mut s, "c").len()), (26, 20), "c is less far above");
    // When a has no more than c, both give.
    (2..16).for_each(|n| drop(answered(&mut s, n, B)));
    assert_eq!([clients(&mut s, "a").len(), clients(&mut s, "c").len()], [16, 16]);
}

#[test]
fn share_6_1_what_is_unconfirmed_of_a_nic_above_its_share_goes_before_what_is_confirmed() {
    let mut s = with_capacity(100);
    (0..90).for_each(|n| drop(answered(&mut s, n, A)));
    (90..100).for_each(|n| drop(s.outside(query(n, A))));
    for n in 0..10 {
        assert_eq!(answered(&mut s, n, B), "new by web#0");
    }
    let left = clients(&mut s, "a");
    assert_eq!(left.len(), 90);
    assert!(left.iter().all(|port| *port < 1024 + 90), "{left:?}");
}

#[test]
fn share_6_1_a_nic_that_has_its_share_takes_its_own_and_never_closes_another() {
    let mut s = with_capacity(100);
    // b has a few half-open ones, a all the rest.
    (0..5).for_each(|n| drop(s.outside(query(n, B))));
    (0..95).for_each(|n| drop(answered(&mut s, n, A)));
    assert_eq!(s.outside(query(95, A)), "table-full");
    for n in 0..5 {
        assert_eq!(s.inside(reply(n, B)), "established", "{n} of b is there");
    }
    // With one of its own that nobody has answered yet it goes on with that.
    s.wait(200.0);
    (0..99).for_each(|n| drop(answered(&mut s, n, A)));
    s.outside(query(99, A));
    assert_eq!(s.outside(query(100, A)), "new by web#0");
    assert_eq!(clients(&mut s, "a").len(), 100);
}

#[test]
fn share_6_1_the_unconfirmed_are_divided_likewise() {
    let mut s = Scenario::with(&settings(400, 0.25), &two_nics());
    let syn = |n: u32, server: &str| tcp(client(n).as_str(), server).syn().seq(1).frame();
    let syn_ack = |n: u32| tcp(B_SSH, client(n).as_str()).syn().seq(9).ack(2).frame();
    // 50 are b's part of the hundred, and a floods before and behind each.
    (0..100).for_each(|n| drop(s.bytes(Outside, syn(n, "10.0.0.1:22"))));
    for n in 0..50 {
        assert_eq!(s.bytes(Outside, syn(n, B_SSH)), "new by web#1");
        for flood in 0..20 {
            assert_eq!(s.bytes(Outside, syn(1000 + n * 20 + flood, "10.0.0.1:22")), "new by web#1");
        }
        s.wait(0.1);
    }
    assert_eq!([clients(&mut s, "a").len(), clients(&mut s, "b").len()], [50, 50]);
    // One more of b's takes the place of its own oldest.
    s.bytes(Outside, syn(50, B_SSH));
    assert_eq!([clients(&mut s, "a").len(), clients(&mut s, "b").len()], [50, 50]);
    assert_eq!(s.bytes(Inside, syn_ack(0)), "invalid", "the oldest");
    for n in 1..=50 {
        assert_eq!(s.bytes(Inside, syn_ack(n)), "established", "{n}");
    }
}

/// The frames of one of b's connections: opened, answered, used and reset.
fn session(n: u32) -> [(Side, Vec<u8>); 4] {
    let c = client(n);
    let c = c.as_str();
    [
        (Outside, tcp(c, B_SSH).syn().seq(1000).window(8000).frame()),
        (Inside, tcp(B_SSH, c).syn().seq(5000).ack(1001).window(8000).frame()),
        (Outside, tcp(c, B_SSH).seq(1001).ack(5001).window(8000).frame()),
        (Outside, tcp(c, B_SSH).rst().seq(1001).window(0).frame()),
    ]
}

#[test]
fn share_6_1_an_answered_flood_keeps_nobody_else_from_opening_at_any_size() {
    for (capacity, share) in [(8, 1.0), (8, 0.5), (64, 0.5), (1000, 0.5), (100_000, 0.5)] {
        let mut s = Scenario::with(&settings(capacity, share), &two_nics());
        let mut flood = 0..;
        let mut one_more = |s: &mut Scenario| {
            let n = flood.next().unwrap_or_default();
            s.outside(query(n, A));
            s.inside(reply(n, A));
        };
        (0..2 * capacity).for_each(|_| one_more(&mut s));
        assert_eq!(s.len(), capacity);
        let sessions = if capacity > 10_000 { 3000 } else { 20_000 };
        let mut failed = 0;
        for n in 0..sessions {
            for (step, (side, bytes)) in session(n).into_iter().enumerate() {
                let expected = if step == 0 { "new by web#1" } else { "established" };
                failed += u32::from(s.bytes(side, bytes) != expected);
                // Some new ones of the flood's between any two of its frames.
                (0..1 + n % 3).for_each(|_| one_more(&mut s));
            }
            s.wait(0.001);
        }
        assert_eq!(failed, 0, "of {sessions} in a table of {capacity}");
        assert_eq!(s.len(), capacity);
    }
}

#[test]
fn share_6_1_a_flood_of_a_nic_that_has_little_of_the_table_is_found_too() {
    let names: Vec<String> = (1..=100).map(|n| format!("n{n}")).collect();
    let addresses: Vec<String> = (1..=100).map(|n| format!("10.0.0.{n}")).collect();
    let nics: Vec<(&str, &str, &[&str])> =
        names.iter().zip(&addresses).map(|(n, a)| (n.as_str(), a.as_str(), &["web"][..])).collect();
    let mut s = Scenario::with(&settings(10_000, 1.0), &policy(&[("web", &[DNS])], &nics));
    // All but the first two have all of their share.
    for nic in 3..=100 {
        let server = format!("10.0.0.{nic}:53");
        (0..100).for_each(|n| drop(answered(&mut s, n, &server)));
    }
    (0..300).for_each(|n| drop(answered(&mut s, n, A)));
    for n in 0..100 {
        assert_eq!(answered(&mut s, n, B), "new by web#0", "{n}");
        answered(&mut s, 1000 + n, A);
    }
    assert_eq!(clients(&mut s, "n50").len(), 100);
}

/// A sample of 256 places finds 24 of 48,000 once in eight times.
#[test]
fn share_6_1_who_came_to_a_full_table_above_its_part_is_remembered() {
    const NICS: u32 = 3_000;
    let address = |nic: u32| format!("10.0.{}.{}", nic / 250, nic % 250 + 1);
    let names: Vec<String> = (0..NICS).map(|nic| format!("n{nic}")).collect();
    let addresses: Vec<String> = (0..NICS).map(address).collect();
    let nics: Vec<(&str, &str, &[&str])> =
        names.iter().zip(&addresses).map(|(n, a)| (n.as_str(), a.as_str(), &["web"][..])).collect();
    let mut s = Scenario::with(&settings((NICS - 2) * 16 + 24, 1.0), &policy(&[("web", &[DNS])], &nics));
    for nic in 2..NICS {
        let server = format!("{}:53", address(nic));
        (0..16).for_each(|n| drop(answered(&mut s, n, &server)));
    }
    (0..24).for_each(|n| drop(answered(&mut s, n, A)));
    assert_eq!(s.outside(query(24, A)), "table-full");
    for n in 0..8 {
        assert_eq!(answered(&mut s, n, B), "new by web#0", "{n}");
    }
    assert_eq!(clients(&mut s, "n0").len(), 16);
}

#[test]
fn share_6_1_is_of_all_workers_tables_together() {
    for capacity in [64, 1000, 100_000] {
        let config: Config = parse_config(&settings(capacity, 0.5), "config").unwrap();
        let mut farm = SimWorkers::new(&config, &two_nics(), 2, 4096, Steering::Wrong);
        let mut flood = 0..;
        // A burst of new ones, then their answers.
        let mut more = |farm: &mut SimWorkers, count: usize| {
            let some: Vec<u32> = flood.by_ref().take(count).collect();
            for n in &some {
                farm.arrive(Outside, &query(*n, A).frame());
            }
            farm.drain();
            for n in &some {
                farm.arrive(Inside, &reply(*n, A).frame());
            }
            farm.drain();
        };
        (0..capacity / 100 * 2 + 4).for_each(|_| more(&mut farm, 100));
        let opened = |farm: &SimWorkers, reason| -> u64 {
            let nic = farm.committer.nic_slot(&control::model::Key::in_default("b")).unwrap();
            let of =
                |direction| farm.counters().iter().map(move |counters| counters.get(nic, direction, reason));
            of(engine::Direction::Inbound).chain(of(engine::Direction::Outbound)).sum()
        };
        // As many at a time as its share surely has room for with each worker.
        let (at_once, rounds) = (4.min(capacity / 16), 500u32);
        for round in 0..rounds {
            let sessions: Vec<_> = (0..at_once).map(|n| session(round * at_once + n)).collect();
            for step in 0..4 {
                for session in &sessions {
                    farm.arrive(session[step].0, &session[step].1);
                }
                farm.drain();
                more(&mut farm, 3);
            }
        }
        let all = u64::from(at_once * rounds);
        assert_eq!(opened(&farm, Reason::New), all, "of {capacity}");
        assert_eq!(opened(&farm, Reason::Established), 3 * all, "of {capacity}");
        let lens: Vec<u32> = farm.workers().iter().map(|w| w.firewall().shard().len()).collect();
        assert!(lens.iter().sum::<u32>() <= capacity, "{lens:?}");
    }
}

#[test]
fn share_6_1_no_tombstone_goes_while_an_unconfirmed_one_is_left_at_any_size() {
    for capacity in [100, 6000, 20_000] {
        let with = |number: u16| {
            let rule = format!("{{direction: inbound, protocol: tcp, ports: {number}}}");
            policy(&[("web", &[DNS, OUT, &rule])], &[("a", "10.0.0.1", &["web"])])
        };
        let mut s = Scenario::with(&settings(capacity, 1.0), &with(1));
        // Half are inbound, and a flush makes tombstones of them: nobody has looked at those yet.
        (0..capacity / 2).for_each(|n| drop(s.outside(query(n, A))));
        for n in capacity / 2..capacity {
            s.inside(udp("10.0.0.1:7", client(n).as_str()));
        }
        s.apply(&with(2));
        let burst: Vec<_> = (0..40).map(|n| (Outside, query(capacity + n, A).frame())).collect();
        assert!(s.burst(&burst).iter().all(|verdict| verdict == "new by web#0"));
        let tombstones = s.connections().iter().filter(|line| line.ends_with("tombstone")).count();
        assert_eq!(tombstones as u32, capacity / 2, "of {capacity}");
    }
}

#[test]
fn limit_6_2_what_has_expired_does_not_count_though_others_expired_before() {
    let text = policy(&[("web", &[DNS])], &[("a", "10.0.0.1", &["web"]), ("b", "10.0.0.2", &["web"])])
        .replace("addresses: [10.0.0.2]", "max_connections: 58, addresses: [10.0.0.2]");
    let mut s = Scenario::with(&settings(100_000, 1.0), &text);
    (0..50_000).for_each(|n| drop(s.outside(query(n, A))));
    s.wait(0.2);
    (0..58).for_each(|n| assert_eq!(s.outside(query(n, B)), "new by web#0"));
    assert_eq!(s.outside(query(58, B)), "nic-limit");
    s.wait(31.0);
    // All have expired, and all of it comes in one burst.
    let burst: Vec<_> = (100..158).map(|n| (Outside, query(n, B).frame())).collect();
    assert!(s.burst(&burst).iter().all(|verdict| verdict == "new by web#0"));
    assert_eq!(s.outside(query(158, B)), "nic-limit");
}
