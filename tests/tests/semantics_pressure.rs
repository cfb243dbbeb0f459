//! Semantics §6: room, limits, hostile frames, counting; and §5's transactions as workers see them.

use std::sync::atomic::Ordering;
use std::time::Duration;

use control::config::{Config, parse_config};
use engine::timer_wheel::EvictionClass;
use engine::{Direction, NicSlot, Reason, Side};
use rcu::Parked;
use testkit::frame::*;
use testkit::hostile;
use testkit::scenario::{Scenario, one, policy, rule::*};
use testkit::sim::{SimWorkers, Steering, Verdicts};

const D: &str = "10.0.0.1:53";

/// The `n`th client.
fn query(n: u16) -> Packet<Udp> {
    udp(("198.51.100.9", n), D)
}

fn reply(n: u16) -> Packet<Udp> {
    udp(D, ("198.51.100.9", n))
}

fn with_capacity(capacity: u32) -> Scenario {
    let config = format!("[conntrack]\ncapacity = {capacity}\nunconfirmed_share = 1.0\n");
    Scenario::with(&config, &one(&[DNS, SSH, PING, OUT]))
}

/// The clients that have connections.
fn clients(s: &mut Scenario) -> Vec<u16> {
    let of = |line: &String| line.split(' ').nth(4)?.rsplit(':').next()?.parse().ok();
    s.connections().iter().filter_map(of).collect()
}

#[test]
fn room_6_1_all_of_the_capacity_is_usable_in_either_family_and_it_is_never_exceeded() {
    for (six, d, c) in [(false, D, "198.51.100.9"), (true, "[2001:db8::1]:53", "2001:db8:9::9")] {
        let config = "[conntrack]\ncapacity = 1000\nunconfirmed_share = 1.0\n";
        let text = policy(&[("web", &[DNS, OUT])], &[("a", "10.0.0.1, \"2001:db8::1\"", &["web"])]);
        let mut s = Scenario::with(config, &text);
        for n in 1..=900u16 {
            assert_eq!(s.outside(udp((c, n), d)), "new by web#0", "IPv6: {six}");
            assert_eq!(s.inside(udp(d, (c, n))), "established");
        }
        for n in 901..=1100u16 {
            s.outside(udp((c, n), d));
            s.inside(udp(d, (c, n)));
            assert!(s.len() <= 1000);
        }
        assert_eq!(s.outside(udp((c, 2000), d)), "table-full");
        assert_eq!(s.inside(udp(d, (c, 1))), "established", "an old one");
    }
}

#[test]
fn room_6_1_four_workers_share_a_capacity_of_100() {
    let config = parse_config("[conntrack]\ncapacity = 100\nunconfirmed_share = 1.0\n", "config").unwrap();
    let mut farm = SimWorkers::new(&config, &one(&[DNS, OUT]), 4, 1024, Steering::Rss);
    for n in 1..=1000u16 {
        farm.arrive(Side::Outside, &query(n).frame());
        farm.drain();
        farm.arrive(Side::Inside, &reply(n).frame());
        farm.drain();
    }
    let lens: Vec<u32> = farm.workers().iter().map(|worker| worker.firewall().shard().len()).collect();
    assert_eq!(lens.iter().sum::<u32>(), 100, "{lens:?}");
}

#[test]
fn room_6_1_a_newcomer_takes_the_place_of_an_expired_one_first() {
    let mut s = with_capacity(2);
    s.outside(query(1));
    s.inside(reply(1));
    s.wait(170.0);
    s.outside(query(2));
    s.wait(10.5);
    // 1 is expired, 2 is unconfirmed and must not give way. All of it in one turn, before any upkeep.
    assert_eq!(s.burst(&[(Side::Outside, query(3).frame())]), ["new by web#0"]);
    assert_eq!(clients(&mut s), [2, 3]);
}

#[test]
fn room_6_1_then_of_one_that_a_change_ended() {
    let config = "[conntrack]\ncapacity = 3\nunconfirmed_share = 1.0\n";
    let both = policy(&[("web", &[DNS])], &[("a", "10.0.0.1", &["web"]), ("b", "10.0.0.2", &["web"])]);
    let mut s = Scenario::with(&format!("{config}[policy]\nflush_scope = \"joined\"\n"), &both);
    s.outside(query(1));
    s.outside(udp("198.51.100.9:7", "10.0.0.2:53"));
    s.inside(udp("10.0.0.2:53", "198.51.100.9:7"));
    s.outside(query(2));
    s.apply(&one(&[DNS]));
    assert_eq!(s.len(), 3, "it still lies there");
    assert_eq!(s.outside(query(3)), "new by web#0");
    assert_eq!(clients(&mut s), [1, 2, 3]);
}

#[test]
fn room_6_1_then_of_an_unconfirmed_one_the_oldest_first() {
    let mut s = with_capacity(4);
    for n in 1..=4 {
        s.outside(query(n));
        s.wait(1.0);
    }
    s.inside(reply(1));
    assert_eq!(s.outside(query(5)), "new by web#0");
    assert_eq!(clients(&mut s), [1, 3, 4, 5], "2 was the oldest unconfirmed");
    assert_eq!(s.outside(query(6)), "new by web#0");
    assert_eq!(clients(&mut s), [1, 4, 5, 6]);
    let mut s = with_capacity(3);
    for n in 1..=5 {
        s.outside(query(n));
    }
    assert_eq!(clients(&mut s), [3, 4, 5], "in the order in which they came, of one moment");
}

#[test]
fn room_6_1_unconfirmed_are_half_open_tcp_and_what_one_side_alone_was_heard_of() {
    let (c, w) = ("192.0.2.1:6000", "10.0.0.1:22");
    let gives_way = |packets: &[(Side, Vec<u8>)]| {
        let mut s = with_capacity(1);
        for (side, bytes) in packets {
            s.bytes(*side, bytes.clone());
        }
        assert_eq!(s.len(), 1);
        s.outside(query(1)) == "new by web#0"
    };
    let syn = (Side::Outside, tcp(c, w).syn().seq(1).frame());
    let syn_ack = (Side::Inside, tcp(w, c).syn().seq(9).ack(2).frame());
    let ack = (Side::Outside, tcp(c, w).seq(2).ack(10).frame());
    assert!(gives_way(std::slice::from_ref(&syn)));
    assert!(gives_way(&[syn.clone(), syn_ack.clone()]));
    assert!(!gives_way(&[syn, syn_ack, ack]));
    let ping = (Side::Outside, echo_request("192.0.2.1", "10.0.0.1", 7, 1).frame());
    let pong = (Side::Inside, echo_reply("10.0.0.1", "192.0.2.1", 7, 1).frame());
    assert!(gives_way(std::slice::from_ref(&ping)));
    assert!(!gives_way(&[ping, pong]));
    assert!(gives_way(&[(Side::Inside, esp("10.0.0.1", "192.0.2.1", 1, 1).frame())]));
}

#[test]
fn room_6_1_never_of_an_established_one_and_a_tombstone_last_of_all() {
    let mut s = with_capacity(3);
    s.outside(query(1));
    s.inside(reply(1));
    s.apply(&one(&[DNS, SSH, OUT]));
    s.outside(query(2));
    s.inside(reply(2));
    s.outside(query(3));
    assert_eq!(s.outside(query(4)), "new by web#0");
    assert_eq!(clients(&mut s), [1, 2, 4], "3 was unconfirmed");
    s.inside(reply(4));
    assert_eq!(s.outside(query(5)), "new by web#0");
    assert_eq!(clients(&mut s), [2, 4, 5], "the tombstone, and it is gone:");
    s.inside(reply(5));
    assert_eq!(s.outside(query(1)), "table-full");
}

#[test]
fn room_6_1_unconfirmed_ones_hold_at_most_their_share() {
    let config = "[conntrack]\ncapacity = 10\nunconfirmed_share = 0.3\n";
    let mut s = Scenario::with(config, &one(&[DNS, OUT]));
    for n in 1..=20u16 {
        assert_eq!(s.outside(query(n)), "new by web#0");
        s.wait(0.5);
    }
    assert_eq!(clients(&mut s), [18, 19, 20]);
    s.inside(reply(20));
    s.outside(query(21));
    assert_eq!(clients(&mut s), [18, 19, 20, 21], "20 does not count any more");
}

#[test]
fn limit_6_2_counts_live_connections_and_tombstones_and_comes_after_the_rules() {
    let nic = |rules: &[&str]| one(rules).replace("addresses:", "max_connections: 2, addresses:");
    let mut s = Scenario::new(&nic(&[DNS, OUT]));
    s.outside(query(1));
    s.inside(udp("10.0.0.1:7", "192.0.2.1:7"));
    assert_eq!(s.outside(query(3)), "nic-limit");
    assert_eq!(s.inside(udp("10.0.0.1:8", "192.0.2.1:7")), "nic-limit");
    assert_eq!(s.outside(udp("198.51.100.9:3", "10.0.0.1:54")), "no-rule");
    assert_eq!(s.outside(query(1)), "established");
    s.apply(&nic(&[DNS, SSH, OUT]));
    assert_eq!(s.outside(query(3)), "nic-limit", "a tombstone and a live one");
    s.wait(30.5);
    assert_eq!(s.outside(query(3)), "new by web#0");
}

/// A NIC of these addresses that may have 1,000 connections, under rules that a number tells apart.
fn of_addresses(addresses: &str, number: u16) -> String {
    let rule = format!("{{direction: inbound, protocol: tcp, ports: {number}}}");
    policy(&[("web", &[OUT, &rule])], &[("a", addresses, &["web"])])
        .replace("addresses:", "max_connections: 1000, addresses:")
}

#[test]
fn limit_6_2_does_not_count_what_a_change_has_ended_found_or_not() {
    let mut s = Scenario::new(&of_addresses("10.0.0.1, 10.0.0.2", 1));
    for n in 1..=1000u16 {
        assert_eq!(s.inside(udp(("10.0.0.1", n), "192.0.2.1:7")), "new by web#0");
    }
    assert_eq!(s.inside(udp(("10.0.0.2", 1), "192.0.2.1:7")), "nic-limit");
    s.apply(&of_addresses("10.0.0.2", 1));
    for n in 1..=1000u16 {
        assert_eq!(s.inside(udp(("10.0.0.2", n), "192.0.2.1:7")), "new by web#0", "{n}");
    }
    assert_eq!(s.inside(udp(("10.0.0.2", 1001), "192.0.2.1:7")), "nic-limit");
}

/// Entries that a change has ended and that have been found.
fn found_ended(s: &Scenario) -> u32 {
    let mut found = 0;
    s.firewall()
        .shard()
        .list(0, u32::MAX, |_, entry| found += u32::from(entry.class() == EvictionClass::Ended));
    found
}

#[test]
fn what_a_change_has_ended_is_found_if_the_table_grows_before_it_is_looked_for() {
    let mut s = Scenario::new(&of_addresses("10.0.0.1, 10.0.0.2", 1));
    s.inside(udp("10.0.0.1:7", "192.0.2.1:7"));
    s.apply(&of_addresses("10.0.0.1, 10.0.0.2", 2));
    s.idle();
    s.apply(&of_addresses("10.0.0.2", 3));
    assert_eq!(s.inside(udp("10.0.0.2:7", "192.0.2.1:7")), "new by web#0");
    assert_eq!(found_ended(&s), 1);
}

#[test]
fn what_a_change_has_ended_is_found_however_often_there_is_another_change() {
    let mut s = Scenario::new(&of_addresses("10.0.0.1, 10.0.0.2", 1));
    for n in 1..=500u16 {
        s.inside(udp(("10.0.0.1", n), "192.0.2.1:7"));
    }
    let mut before = 0;
    for number in 2..=100 {
        s.apply(&of_addresses("10.0.0.2", number));
        s.inside(udp("10.0.0.2:7", "192.0.2.1:7"));
        let now = found_ended(&s);
        assert!(now > before || now == 500, "{now} after {before}");
        before = now;
    }
    assert_eq!(before, 500);
}

#[test]
fn limit_6_2_is_of_one_nic_over_all_workers() {
    let text = policy(&[("web", &[DNS])], &[("a", "10.0.0.1", &["web"]), ("b", "10.0.0.2", &["web"])])
        .replace("addresses: [10.0.0.1]", "max_connections: 10, addresses: [10.0.0.1]");
    let mut farm = SimWorkers::new(&Config::default(), &text, 3, 1024, Steering::Rss);
    for n in 1..=50u16 {
        farm.arrive(Side::Outside, &query(n).frame());
        farm.arrive(Side::Outside, &udp(("198.51.100.9", n), "10.0.0.2:53").frame());
    }
    farm.drain();
    let verdicts: Vec<String> = (0..farm.arrived()).map(|id| farm.verdict(id)).collect();
    assert_eq!(verdicts.iter().filter(|verdict| *verdict == "nic-limit").count(), 40);
    assert_eq!(verdicts.iter().filter(|verdict| verdict.starts_with("new")).count(), 60);
}

#[test]
fn a_worker_does_not_sleep_over_frames_that_another_handed_to_it() {
    let mut farm = SimWorkers::new(&Config::default(), &one(&[DNS]), 2, 64, Steering::Wrong);
    let (mut parker, _) = rcu::parker().unwrap();
    let mut verdicts = Verdicts::default();
    for n in 1..=20 {
        farm.arrive(Side::Outside, &query(n).frame());
    }
    for worker in farm.workers() {
        worker.poll(2_000_000_000, &mut verdicts);
    }
    let judged = verdicts.0.iter().flatten().count();
    assert!(judged < 20, "what the second worker handed to the first waits");
    let first = &mut farm.workers()[0];
    assert_eq!(first.park(&mut parker, Duration::from_secs(20)), Parked::Work);
    first.poll(2_000_000_000, &mut verdicts);
    assert_eq!(verdicts.0.iter().flatten().count(), 20);
    assert_eq!(first.park(&mut parker, Duration::ZERO), Parked::TimedOut, "nothing is left to do");
}

/// Packets counted, over all NICs, reasons and directions.
fn counted(farm: &SimWorkers, which: impl Fn(Reason) -> bool) -> u64 {
    let reasons = Reason::ALL.iter().filter(|reason| which(**reason));
    let total =
        |reason: &Reason| farm.counters().iter().map(|counters| counters.total(10, *reason)).sum::<u64>();
    reasons.map(total).sum()
}

#[test]
fn hostile_6_3_no_frame_stops_a_worker_and_6_4_all_are_counted_once() {
    for (workers, steering) in [(1, Steering::Rss), (3, Steering::Wrong)] {
        let mut farm = SimWorkers::new(&Config::default(), &one(&[IN, OUT]), workers, 4096, steering);
        let frames: Vec<_> = hostile::frames(11, 20_000).collect();
        for (n, bytes) in frames.iter().enumerate() {
            farm.arrive(if n % 2 == 0 { Side::Outside } else { Side::Inside }, bytes);
            if n % 200 == 0 {
                farm.drain();
            }
        }
        farm.drain();
        let left = farm.left(Side::Inside).len() + farm.left(Side::Outside).len();
        assert_eq!(counted(&farm, Reason::passes), left as u64, "passed is what left");
        assert_eq!(counted(&farm, |_| true), frames.len() as u64, "in is passed plus dropped");
        assert_eq!(farm.alive().load(Ordering::Relaxed), 0, "every frame was given back");
    }
}

#[test]
fn counting_6_4_is_by_reason_nic_direction_and_worker() {
    let text = policy(&[("web", &[DNS])], &[("a", "10.0.0.1", &["web"]), ("b", "10.0.0.2", &["web"])]);
    let mut farm = SimWorkers::new(&Config::default(), &text, 2, 64, Steering::Rss);
    let frames = [
        (Side::Outside, query(1)),
        (Side::Outside, udp("198.51.100.9:1", "10.0.0.1:54")),
        (Side::Inside, udp("10.0.0.1:9", "198.51.100.9:1")),
        (Side::Outside, udp("198.51.100.9:1", "10.0.0.2:54")),
    ];
    for (side, packet) in frames {
        farm.arrive(side, &packet.frame());
    }
    farm.drain();
    let slot = |name: &str| farm.committer.nic_slot(&control::model::Key::in_default(name)).unwrap();
    let get = |nic: NicSlot, direction, reason| {
        farm.counters().iter().map(|counters| counters.get(nic, direction, reason)).collect::<Vec<u64>>()
    };
    let sum = |nic, direction, reason| get(nic, direction, reason).iter().sum::<u64>();
    let (a, b) = (slot("a"), slot("b"));
    assert_eq!(sum(a, Direction::Inbound, Reason::New), 1);
    assert_eq!(sum(a, Direction::Inbound, Reason::NoRule), 1);
    assert_eq!(sum(a, Direction::Outbound, Reason::NoRule), 1);
    assert_eq!(sum(b, Direction::Inbound, Reason::NoRule), 1);
    assert_eq!(sum(b, Direction::Outbound, Reason::NoRule), 0);
    for id in 0..4u64 {
        farm.arrive(Side::Outside, &udp(("198.51.100.9", 100 + id as u16), "10.0.0.2:54").frame());
    }
    farm.drain();
    let by_worker: Vec<u64> =
        farm.counters().iter().map(|counters| counters.get(b, Direction::Inbound, Reason::NoRule)).collect();
    assert!(by_worker.iter().all(|n| *n > 0) && by_worker.iter().sum::<u64>() == 5, "{by_worker:?}");
}

#[test]
fn counting_6_4_full_rings_drop_as_handoff_full_both_ways_and_never_spin() {
    let mut farm = SimWorkers::new(&Config::default(), &one(&[DNS]), 2, 8, Steering::Wrong);
    for n in 1..=400u16 {
        farm.arrive(Side::Outside, &query(n).frame());
    }
    farm.drain();
    let full: Vec<u64> =
        farm.counters().iter().map(|counters| counters.total(1, Reason::HandoffFull)).collect();
    assert!(full.iter().all(|n| *n > 0), "of each worker: {full:?}");
    assert_eq!(counted(&farm, |_| true), 400);
    assert_eq!(farm.left(Side::Inside).len() as u64, counted(&farm, Reason::passes));
    assert_eq!(farm.alive().load(Ordering::Relaxed), 0);
}

#[test]
fn counting_6_4_what_a_port_refuses_is_tx_full_and_not_passed() {
    let mut farm = SimWorkers::new(&Config::default(), &one(&[DNS]), 1, 8, Steering::Rss);
    farm.queues(Side::Inside)[0].refuse(3);
    for n in 1..=10u16 {
        farm.arrive(Side::Outside, &query(n).frame());
    }
    farm.drain();
    assert_eq!(counted(&farm, |reason| reason == Reason::New), 7);
    assert_eq!(counted(&farm, |reason| reason == Reason::TxFull), 3);
    assert_eq!(farm.left(Side::Inside).len(), 7);
    assert_eq!(farm.alive().load(Ordering::Relaxed), 0);
}

#[test]
fn counting_6_4_what_finds_nobody_behind_a_port_is_tx_down_and_neither_passed_nor_tx_full() {
    let mut farm = SimWorkers::new(&Config::default(), &one(&[DNS]), 1, 8, Steering::Rss);
    farm.queues(Side::Inside)[0].set_down(true);
    farm.queues(Side::Inside)[0].refuse(3);
    for n in 1..=10u16 {
        farm.arrive(Side::Outside, &query(n).frame());
    }
    farm.drain();
    assert_eq!(counted(&farm, |reason| reason == Reason::New), 7);
    assert_eq!(counted(&farm, |reason| reason == Reason::TxDown), 3);
    assert_eq!(counted(&farm, |_| true), 10);
    assert_eq!(farm.left(Side::Inside).len(), 7);
    assert_eq!(farm.alive().load(Ordering::Relaxed), 0);
}

#[test]
fn transaction_5_0_an_acknowledged_change_is_what_every_later_packet_is_judged_by() {
    for workers in [1, 3] {
        let mut farm = SimWorkers::new(&Config::default(), &one(&[DNS]), workers, 64, Steering::Wrong);
        for n in 1..=50u16 {
            farm.arrive(Side::Outside, &query(n).frame());
        }
        farm.publish(&one(&[SSH]));
        assert!(!farm.acknowledged(), "no worker has looked yet");
        let mut old = farm.arrived();
        while !farm.acknowledged() && old < 200 {
            farm.poll();
            farm.arrive(Side::Outside, &query(1000 + old as u16).frame());
            old += 1;
        }
        assert!(farm.acknowledged());
        for n in 100..=150u16 {
            farm.arrive(Side::Outside, &query(n).frame());
        }
        farm.drain();
        for id in old..farm.arrived() {
            assert_eq!(farm.verdict(id), "no-rule", "{workers} workers");
        }
    }
}

#[test]
fn transaction_5_0_no_packet_is_lost_or_held_up_by_changes() {
    let mut farm = SimWorkers::new(&Config::default(), &one(&[DNS, OUT]), 2, 1024, Steering::Rss);
    for round in 0..50u16 {
        for n in 0..20 {
            farm.arrive(Side::Outside, &query(1 + round * 20 + n).frame());
        }
        farm.publish(&one(&[
            DNS,
            OUT,
            &format!("{{direction: inbound, protocol: tcp, ports: {}}}", round + 1),
        ]));
        farm.poll();
        let judged = farm.verdicts.0.iter().flatten().count();
        assert_eq!(judged, farm.arrived(), "all of it in the very next turn");
    }
    farm.drain();
    assert_eq!(farm.left(Side::Inside).len(), farm.arrived());
}

#[test]
fn transaction_5_0_a_refused_document_changes_nothing() {
    let mut s = Scenario::new(&one(&[DNS, OUT]));
    s.outside(query(1));
    let broken = one(&[SSH, "{direction: inbound, protocol: tpc}"]);
    assert!(control::document::parse_policy(&broken, "policy", &Default::default()).is_err());
    assert_eq!(s.generation(), 1);
    assert_eq!(s.outside(query(1)), "established");
    assert_eq!(s.outside(tcp("192.0.2.1:1", "10.0.0.1:22").syn()), "no-rule");
}
