//! More than one worker: the verdicts are those of one, however frames are spread over the queues.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use control::commit::Committer;
use control::compile::shard_config;
use control::config::Config;
use control::document::{Limits, parse_policy};
use engine::burst::{Firewall, FirewallConfig};
use engine::conntrack::Secret;
use engine::counters::{ConnectionCounts, EngineCounters};
use engine::worker::{Wire, Worker, mesh, ring_size};
use engine::{Reason, Side};
use testkit::frame::*;
use testkit::hostile;
use testkit::rng::Rng;
use testkit::sim::{SimFrame, SimQueue, SimWorkers, Steering, Verdicts};

const POLICY: &str = r#"
vpcs: [{name: prod, segment: {untagged: true}}]
security_groups:
  - name: web
    rules:
      - {direction: inbound, protocol: tcp, ports: 22}
      - {direction: inbound, protocol: udp, ports: 53}
      - {direction: inbound, protocol: icmp}
      - {direction: inbound, protocol: icmpv6}
      - {direction: outbound}
nics:
  - {name: a, vpc: prod, addresses: [10.0.0.1, "2001:db8::1"], security_groups: [web]}
  - {name: b, vpc: prod, addresses: [10.0.0.2, "2001:db8::2"], security_groups: [web]}
"#;

fn config(capacity: u32) -> Config {
    let mut config = Config::default();
    config.conntrack.capacity = capacity;
    config
}

/// A conversation's frames with the sides they come from.
type Frames = Vec<(Side, Vec<u8>)>;

fn session(client: &str, server: &str, isn: u32) -> Frames {
    use Side::{Inside, Outside};
    let (c, s) = (client, server);
    vec![
        (Outside, tcp(c, s).syn().seq(isn).window(60_000).wscale(7).frame()),
        (Inside, tcp(s, c).syn().seq(900).ack(isn + 1).window(60_000).wscale(7).frame()),
        (Outside, tcp(c, s).seq(isn + 1).ack(901).window(500).frame()),
        (Outside, tcp(c, s).seq(isn + 1).ack(901).window(500).payload(b"hello").frame()),
        (Inside, icmp_error("10.0.0.1", "198.51.100.9", 3, 4, &tcp(c, s).seq(isn + 1).packet()).frame()),
        (Inside, tcp(s, c).seq(901).ack(isn + 6).window(500).payload(b"world").frame()),
        (Outside, tcp(c, s).rst().seq(isn + 6).window(0).frame()),
        (Inside, tcp(s, c).seq(906).ack(isn + 6).window(500).frame()),
    ]
}

fn traffic() -> Frames {
    use Side::{Inside, Outside};
    let mut conversations: Vec<Frames> = Vec::new();
    for n in 0..120u16 {
        let client = format!("198.51.100.{}:{}", n % 250 + 1, 20_000 + n);
        conversations.push(session(&client, "10.0.0.1:22", u32::from(n) * 77_777));
        let peer = format!("[2001:db8:ffff::{n:x}]:{}", 3000 + n);
        conversations.push(vec![
            (Outside, udp(peer.as_str(), "[2001:db8::2]:53").payload(b"q").frame()),
            (Inside, udp("[2001:db8::2]:53", peer.as_str()).payload(b"a").frame()),
        ]);
        let asker = format!("203.0.113.{}", n % 250 + 1);
        conversations.push(vec![
            (Outside, echo_request(asker.as_str(), "10.0.0.2", n, 1).frame()),
            (Inside, echo_reply("10.0.0.2", asker.as_str(), n, 1).frame()),
            (Inside, echo_reply("10.0.0.2", asker.as_str(), n ^ 0x8000, 1).frame()),
        ]);
        let big = udp(format!("203.0.113.9:{}", 1000 + n).as_str(), "10.0.0.1:53")
            .id(u32::from(n) + 1)
            .payload(vec![7; 3000]);
        conversations.push(big.fragments(1000).into_iter().map(|frame| (Outside, frame)).collect());
    }
    conversations.push(hostile::frames(7, 2000).map(|frame| (Outside, frame)).collect());
    interleave(conversations)
}

/// Each conversation in its own order, all of them mixed.
fn interleave(conversations: Vec<Frames>) -> Frames {
    let mut rng = Rng::new(42);
    let mut queues: Vec<_> = conversations.into_iter().map(|c| c.into_iter()).collect();
    let mut all = Vec::new();
    while !queues.is_empty() {
        let at = rng.below(queues.len());
        match queues[at].next() {
            Some(frame) => all.push(frame),
            None => drop(queues.swap_remove(at)),
        }
    }
    all
}

/// Verdicts of all frames, one poll of everybody after every `step` frames.
fn verdicts(workers: u32, steering: Steering, step: usize) -> Vec<String> {
    let mut farm = SimWorkers::new(&config(4000), POLICY, workers, 4096, steering);
    for (n, (side, bytes)) in traffic().into_iter().enumerate() {
        farm.arrive(side, &bytes);
        if n % step == 0 {
            // Two ports' queues have no order between them: a conversation's next frame comes when this one is through.
            farm.drain();
        }
    }
    farm.drain();
    assert!(farm.acknowledged());
    let verdicts: Vec<String> = (0..farm.arrived()).map(|id| farm.verdict(id)).collect();
    let passed = farm.verdicts.0.iter().flatten().filter(|verdict| verdict.passes()).count();
    let left = farm.left(Side::Inside).len() + farm.left(Side::Outside).len();
    assert_eq!(left, passed, "what passes leaves, and nothing else");
    assert_eq!(farm.alive().load(Ordering::Relaxed), 0, "every frame was given back");
    verdicts
}

#[test]
fn the_verdicts_of_2_and_4_workers_are_those_of_one() {
    let one = verdicts(1, Steering::Rss, 1);
    assert!(one.iter().filter(|v| *v == "established").count() > 500);
    assert!(one.iter().filter(|v| *v == "related").count() > 100);
    assert!(one.iter().filter(|v| *v == "fragment").count() > 200);
    for workers in [2, 4] {
        assert_eq!(verdicts(workers, Steering::Rss, 1), one, "{workers} workers");
    }
}

#[test]
fn frames_on_the_wrong_queue_get_the_same_verdicts() {
    let one = verdicts(1, Steering::Rss, 1);
    for (workers, steering) in [(2, Steering::Wrong), (4, Steering::Wrong), (3, Steering::RoundRobin)] {
        assert_eq!(verdicts(workers, steering, 1), one, "{workers} workers, {steering:?}");
    }
}

#[test]
fn a_full_ring_drops_with_a_reason_and_never_spins() {
    let mut farm = SimWorkers::new(&config(1000), POLICY, 2, 8, Steering::Wrong);
    for n in 0..200u16 {
        farm.arrive(Side::Outside, &udp(("203.0.113.9", 1000 + n), "10.0.0.1:53").frame());
    }
    farm.drain();
    let full: u64 = farm.counters().iter().map(|counters| counters.total(1, Reason::HandoffFull)).sum();
    let new: u64 = farm.counters().iter().map(|counters| counters.total(10, Reason::New)).sum();
    assert!(full > 0);
    assert_eq!(full + new, 200);
    assert_eq!(farm.left(Side::Inside).len() as u64, new);
    assert_eq!(farm.alive().load(Ordering::Relaxed), 0);
}

#[test]
fn what_a_port_refuses_is_counted_as_tx_full_and_not_as_passed() {
    let mut farm = SimWorkers::new(&config(1000), POLICY, 1, 8, Steering::Rss);
    farm.queues(Side::Inside)[0].refuse(3);
    for n in 0..10u16 {
        farm.arrive(Side::Outside, &udp(("203.0.113.9", 1000 + n), "10.0.0.1:53").frame());
    }
    farm.drain();
    let counters = &farm.counters()[0];
    assert_eq!((counters.total(10, Reason::New), counters.total(10, Reason::TxFull)), (7, 3));
    let left: Vec<usize> = farm.left(Side::Inside).iter().map(|frame| frame.id).collect();
    assert_eq!(left, [0, 1, 2, 3, 4, 5, 6]);
    assert_eq!(farm.alive().load(Ordering::Relaxed), 0);
}

/// More frames than two bursts a side, none of which has a connection.
fn rush(farm: &mut SimWorkers, sides: &[Side]) {
    for n in 0..300u16 {
        for side in sides {
            let frame = match side {
                Side::Outside => udp(("203.0.113.9", 1000 + n), "10.0.0.1:53").frame(),
                Side::Inside => udp("10.0.0.2:53", ("203.0.113.9", 5000 + n)).frame(),
            };
            farm.arrive(*side, &frame);
        }
    }
}

#[test]
fn what_was_received_ahead_of_the_next_turn_is_judged_and_sent_before_the_end() {
    for workers in [1, 2] {
        let mut farm = SimWorkers::new(&config(1000), POLICY, workers, 1024, Steering::Wrong);
        rush(&mut farm, &[Side::Outside, Side::Inside]);
        let mut turns = 0;
        while farm.workers().iter().all(|worker| worker.frames_in_hand() == 0) {
            assert!(farm.poll() > 0, "a burst is held only by who has more to do");
            turns += 1;
        }
        let waiting =
            |farm: &SimWorkers, side| farm.queues(side).iter().map(|queue| queue.waiting()).sum::<usize>();
        let taken = farm.arrived() - waiting(&farm, Side::Outside) - waiting(&farm, Side::Inside);
        assert_eq!(turns, 1);
        assert!(farm.verdicts.0.iter().flatten().count() < taken);
        // As the appliance does: each says so once the others have handed over what they held.
        for _ in 0..2 {
            let mut verdicts = std::mem::take(&mut farm.verdicts);
            farm.workers().iter_mut().for_each(|worker| _ = worker.drain(2_000_000_000, &mut verdicts));
            farm.verdicts = verdicts;
        }
        assert!(farm.workers().iter().all(|worker| worker.frames_in_hand() == 0));
        assert_eq!(farm.verdicts.0.iter().flatten().count(), taken, "{workers} workers");
        assert_eq!(farm.left(Side::Outside).len() + farm.left(Side::Inside).len(), taken);
    }
}

#[test]
fn ports_take_turns_and_a_busy_one_does_not_wait_for_an_idle_one() {
    for (sides, a_turn) in [
        (&[Side::Outside][..], [128, 0]),
        (&[Side::Inside], [0, 128]),
        (&[Side::Outside, Side::Inside], [64, 64]),
    ] {
        let mut farm = SimWorkers::new(&config(1000), POLICY, 1, 8, Steering::Rss);
        rush(&mut farm, sides);
        for _ in 0..2 {
            assert_eq!(farm.poll(), 128);
            let left = [Side::Inside, Side::Outside].map(|side| farm.left(side));
            assert_eq!(left.each_ref().map(Vec::len), a_turn);
            for frames in left {
                assert!(frames.is_sorted_by_key(|frame| frame.id), "in the order of their arrival");
            }
        }
        farm.drain();
        assert_eq!(farm.poll(), 0);
        assert_eq!(farm.workers()[0].frames_in_hand(), 0, "nobody holds frames while it finds none");
        assert_eq!(farm.verdicts.0.iter().flatten().count(), farm.arrived());
    }
}

#[test]
fn a_turn_takes_a_burst_a_port_though_nobody_hands_anything_over() {
    let mut farm = SimWorkers::new(&config(1000), POLICY, 2, 8, Steering::Rss);
    rush(&mut farm, &[Side::Outside]);
    assert!((1..=2 * 128).contains(&farm.poll()), "{} frames wait", farm.arrived());
    farm.drain();
    assert_eq!(farm.verdicts.0.iter().flatten().count(), farm.arrived());
}

#[test]
fn an_idle_worker_loses_nothing_of_what_another_hands_over_from_all_of_many_ports() {
    const WIRES: usize = 12;
    let mut committer = Committer::new(config(10_000));
    let parsed = parse_policy(POLICY, "policy", &Limits::default()).unwrap();
    let snapshot = committer.commit(parsed.policy, 0).unwrap().unwrap().snapshot;
    let (_publisher, readers) = rcu::domain(snapshot, 2);
    let (connection_counts, alive) = (Arc::new(ConnectionCounts::new()), Arc::default());
    let (mut workers, mut ports, mut counts) = (Vec::new(), Vec::new(), Vec::new());
    for ((me, reader), rings) in (0..2).zip(readers).zip(mesh(2, ring_size(WIRES))) {
        let shard = shard_config(&config(10_000), me, 2);
        let firewall = FirewallConfig { shard, secret: Secret::new([3, 5]), grace_end_ns: 0 };
        let counters = Arc::new(EngineCounters::new());
        let firewall = Firewall::new(&firewall, counters.clone(), connection_counts.clone());
        let queues: Vec<[SimQueue; 2]> = (0..WIRES).map(|_| Default::default()).collect();
        let wire =
            |[inside, outside]: &[SimQueue; 2]| Wire { inside: inside.clone(), outside: outside.clone() };
        let wires = queues.iter().map(wire).collect();
        let (_, questions) = crossbeam::channel::bounded(1);
        workers.push(Worker::new(me, firewall, reader, wires, rings, questions));
        ports.push(queues);
        counts.push(counters);
    }
    // Of both sides' frames the other worker owns every one: there is one flow, and it is not the first one's.
    let outside = udp("203.0.113.9:1000", "10.0.0.1:53").payload([0; 20]).frame();
    let inside = udp("10.0.0.1:53", "203.0.113.9:1000").payload([0; 20]).frame();
    let (mut verdicts, turns) = (Verdicts::default(), 50);
    let mut id = 0;
    let mut fill = |port: &SimQueue, bytes: &Vec<u8>| {
        (0..64).for_each(|_| {
            port.arrive(SimFrame::new(id, bytes.clone(), &alive));
            id += 1;
        });
    };
    fill(&ports[0][0][1], &outside);
    workers[0].poll(1, &mut verdicts);
    workers[1].poll(1, &mut verdicts);
    // Who was given them is who does not own them.
    let (giver, owner) = if counts[1].taken_over() > 0 { (0, 1) } else { (1, 0) };
    for turn in 0..turns {
        for [in_port, out_port] in &ports[giver] {
            fill(in_port, &inside);
            fill(out_port, &outside);
        }
        workers[giver].poll(2 + turn, &mut verdicts);
        workers[owner].poll(2 + turn, &mut verdicts);
    }
    (0..4).for_each(|_| workers.iter_mut().for_each(|worker| _ = worker.poll(100, &mut verdicts)));
    let full: u64 = counts.iter().map(|counters| counters.total(1, Reason::HandoffFull)).sum();
    assert_eq!(full, 0);
    assert_eq!(verdicts.0.iter().flatten().count(), id, "all are judged");
    let (received, over, taken) =
        (counts[giver].received(), counts[giver].handed_over(), counts[owner].taken_over());
    assert_eq!((over, taken), (received, received), "and counted on their way");
}

#[test]
fn headers_across_segments_are_read_and_the_frame_leaves_as_it_came() {
    for size in [1, 7, 14, 20, 33, 40] {
        let mut farm = SimWorkers::new(&config(1000), POLICY, 1, 8, Steering::Rss);
        let bytes = udp("203.0.113.9:1000", "10.0.0.1:53").payload(vec![9; 300]).frame();
        let frame = SimFrame::new(0, bytes.clone(), farm.alive()).segmented(size);
        let id = farm.arrive_as(Side::Outside, frame);
        farm.drain();
        assert_eq!(farm.verdict(id), "new by web#1", "segments of {size}");
        assert_eq!(farm.left(Side::Inside)[0].bytes(), bytes);
    }
}

#[test]
fn a_tag_beside_the_data_counts_and_is_back_in_its_place_when_the_frame_leaves() {
    let policy = POLICY.replace("untagged: true", "vlan: 100");
    let mut farm = SimWorkers::new(&config(1000), &policy, 2, 8, Steering::Wrong);
    let bytes = udp("203.0.113.9:1000", "10.0.0.1:53").vlan(100).frame();
    let frame = SimFrame::new(0, bytes.clone(), farm.alive()).tag_stripped();
    let id = farm.arrive_as(Side::Outside, frame);
    farm.drain();
    assert_eq!(farm.verdict(id), "new by web#1");
    assert_eq!(farm.left(Side::Inside)[0].bytes(), bytes);
}

#[test]
fn the_frames_of_one_connection_in_one_burst_get_the_verdicts_of_one_at_a_time() {
    // Client's side alone: between two ports' queues there is no order.
    let (c, s) = ("198.51.100.9:40000", "10.0.0.1:22");
    let frames = [
        tcp(c, s).syn().seq(1).frame(),
        tcp(c, s).seq(2).ack(500).payload(b"early").frame(),
        tcp(c, s).rst().seq(2).frame(),
        tcp(c, s).syn().seq(70).frame(),
        tcp(c, s).seq(71).ack(501).frame(),
    ];
    let mut orders = vec![];
    permute(&mut (0..frames.len()).collect::<Vec<_>>(), 0, &mut orders);
    for order in orders {
        let run = |burst: usize| {
            let mut farm = SimWorkers::new(&config(1000), POLICY, 1, 8, Steering::Rss);
            farm.queues(Side::Outside)[0].at_most(burst);
            for &n in &order {
                farm.arrive(Side::Outside, &frames[n]);
            }
            farm.drain();
            (0..frames.len()).map(|id| farm.verdict(id)).collect::<Vec<_>>()
        };
        let one_at_a_time = run(1);
        for burst in [2, 3, 4, 64] {
            assert_eq!(run(burst), one_at_a_time, "order {order:?}, bursts of {burst}");
        }
    }
}

fn permute(items: &mut Vec<usize>, from: usize, all: &mut Vec<Vec<usize>>) {
    if from == items.len() {
        all.push(items.clone());
    }
    for at in from..items.len() {
        items.swap(from, at);
        permute(items, from + 1, all);
        items.swap(from, at);
    }
}
