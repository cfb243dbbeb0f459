//! What runs of the simulator came down to: orders of events that nobody thinks of.

use control::config::Config;
use engine::Side::{Inside, Outside};
use testkit::frame::*;
use testkit::scenario::{Scenario, one, policy, rule, rule::*};
use testkit::sim::{SimWorkers, Steering};

#[test]
fn share_6_1_a_connection_that_opens_afresh_in_its_place_keeps_within_the_share_too() {
    let config = "[conntrack]\ncapacity = 4\nunconfirmed_share = 0.3\n";
    let mut s = Scenario::with(config, &one(&[rule::SSH, rule::DNS]));
    let (c, d) = ("198.51.100.9:40000", "10.0.0.1:22");
    s.connect(c, d);
    assert_eq!(s.outside(udp("198.51.100.9:1000", "10.0.0.1:53")), "new by web#1");
    s.outside(tcp(c, d).fin().seq(1001).ack(5001).window(8000));
    s.inside(tcp(d, c).fin().seq(5001).ack(1002).window(8000));
    // The share is one of four: the datagram's connection makes room.
    assert_eq!(s.outside(tcp(c, d).syn().seq(90_000)), "new by web#0");
    assert_eq!(s.connections(), ["a inbound 6 10.0.0.1:22 198.51.100.9:40000 syn-sent 30.0"]);
}

#[test]
fn fragments_4_6_a_forged_first_says_nothing_about_its_victims_fragments() {
    let document = one(&[rule::OUT]).replace("{name: a,", "{name: a, mac: '02:00:00:00:00:01',");
    let mut s = Scenario::new(&document);
    let own = Mac([2, 0, 0, 0, 0, 1]);
    let pieces = |mac| {
        let datagram = udp("10.0.0.1:1000", "198.51.100.9:53").id(7).payload(vec![7; 200]).src_mac(mac);
        datagram.fragments(100)
    };
    assert_eq!(s.bytes(Inside, pieces(own).remove(0)), "new by web#0");
    assert_eq!(s.bytes(Inside, pieces(Mac([2, 0, 0, 0, 0, 9])).remove(0)), "spoofed");
    assert_eq!(s.bytes(Inside, pieces(own).remove(1)), "fragment");
}

#[test]
fn undo_5_7_what_is_refused_after_a_rollback_stays_a_tombstone_until_its_deadline() {
    let listed = |addresses: &str| {
        let groups = format!("address_groups: [{{name: list, addresses: [{addresses}]}}]\n");
        groups + &one(&["{direction: inbound, remote_address_group: list}"])
    };
    let (nobody, client) = (listed(""), listed("198.51.100.9"));
    let datagram = || udp("198.51.100.9:1000", "10.0.0.1:53");
    let mut s = Scenario::new(&nobody);
    let before = s.generation();
    s.apply(&client);
    assert_eq!(s.outside(datagram()), "new by web#0");
    s.rollback(before);
    assert_eq!(s.outside(datagram()), "tombstone");
    // An ordinary change of what the rule depends on: nothing is disconnected by it, and nothing comes back.
    s.apply(&client);
    assert_eq!(s.outside(datagram()), "tombstone");
    s.wait(30.5);
    assert_eq!(s.outside(datagram()), "new by web#0");
}

#[test]
fn undo_5_7_what_a_rollback_takes_back_of_a_nic_that_it_ends_stays_taken_back() {
    let groups: &[(&str, &[&str])] = &[("web", &[rule::DNS]), ("other", &[])];
    let nobody = policy(groups, &[("b", "10.0.0.2", &[])]);
    let member = policy(groups, &[("a", "10.0.0.1", &["web"])]);
    let flushed = policy(groups, &[("a", "10.0.0.1", &["web", "other"])]);
    let datagram = || udp("198.51.100.9:1000", "10.0.0.1:53");
    let mut s = Scenario::new(&nobody);
    let without = s.generation();
    s.apply(&member);
    assert_eq!(s.outside(datagram()), "new by web#0");
    s.apply(&flushed);
    let with = s.generation();
    assert_eq!(s.outside(datagram()), "tombstone");
    // This one takes the flush back, whether or not the NIC is there; the next one flushes nothing.
    s.rollback(without);
    s.rollback(with);
    assert_eq!(s.outside(datagram()), "established");
}

#[test]
fn fragments_4_6_a_malformed_first_leads_nobodys_fragments_astray_between_workers() {
    let mut config = control::config::Config::default();
    config.conntrack.capacity = 1000;
    for id in 1..30 {
        let datagram = udp("198.51.100.9:1000", "10.0.0.1:53").id(id).payload(vec![7; 200]);
        let pieces = datagram.fragments(100);
        let mut farm = SimWorkers::new(&config, &one(&[rule::DNS]), 4, 64, Steering::Rss);
        let malformed = datagram.clone().lie_length(3).fragments(100).remove(0);
        let verdicts = [&pieces[0], &malformed, &pieces[1]].map(|frame| {
            let id = farm.arrive(Outside, frame);
            farm.drain();
            farm.verdict(id)
        });
        assert_eq!(verdicts, ["new by web#0", "malformed", "fragment"], "identification {id}");
    }
}

#[test]
fn fragments_4_6_two_vpcs_datagrams_that_look_alike_keep_apart_between_workers() {
    let mut config = control::config::Config::default();
    config.conntrack.capacity = 1000;
    let document = one(&[rule::DNS]).replace(
        "[{name: prod, segment: {untagged: true}}]",
        "[{name: prod, segment: {vlan: 100}}, {name: test, segment: {vlan: 101}}]",
    ) + "  - {name: b, vpc: test, addresses: [10.0.0.1], security_groups: [web]}\n";
    for id in 1..30 {
        let pieces = |vlan, port| {
            let datagram = udp(("198.51.100.9", port), "10.0.0.1:53").id(id).payload(vec![7; 200]);
            datagram.vlan(vlan).fragments(100)
        };
        let (one, other) = (pieces(100, 1000), pieces(101, 2001));
        let mut farm = SimWorkers::new(&config, &document, 4, 64, Steering::Rss);
        let verdicts = [&one[0], &other[0], &one[1], &other[1]].map(|frame| {
            let id = farm.arrive(Outside, frame);
            farm.drain();
            farm.verdict(id)
        });
        let expected = ["new by web#0", "new by web#0", "fragment", "fragment"];
        assert_eq!(verdicts, expected, "identification {id}");
    }
}

#[test]
fn undo_5_7_an_address_that_is_another_again_is_there_though_no_document_differs() {
    let with = |addresses: &str| policy(&[("web", &[rule::OUT])], &[("a", addresses, &["web"])]);
    let (first, both) = (with("10.0.0.1"), with("10.0.0.1, 10.0.0.2"));
    let mut s = Scenario::new(&first);
    let without = s.generation();
    s.apply(&both);
    let with = s.generation();
    s.rollback(without);
    // The address is given anew, and then is the one that it was.
    s.apply(&both);
    s.rollback(with);
    assert_eq!(s.inside(udp("10.0.0.2:1000", "198.51.100.9:53")), "new by web#0");
}

#[test]
fn settings_2_8_link_local_frames_pass_before_anybody_looks_for_tunnels_in_them() {
    let document = one(&[rule::OUT]).replace("untagged: true", "vni: 5001");
    let mut s = Scenario::with("[policy]\npass_link_local = true\n", &document);
    let bridges = Mac([1, 0x80, 0xc2, 0, 0, 2]);
    // No VXLAN header in it.
    let frame = udp("192.0.2.1:1000", "192.0.2.2:4789").payload([0; 3]);
    assert_eq!(s.inside(frame.clone()), "malformed");
    assert_eq!(s.inside(frame.clone().dst_mac(bridges)), "control");
    // A second tag that is cut: the link header itself.
    let mut cut = frame.dst_mac(bridges).vlan(1).vlan(2).frame();
    cut.truncate(20);
    assert_eq!(s.bytes(Inside, cut), "malformed");
}

#[test]
fn fragments_4_6_come_together_between_workers_in_whatever_order() {
    let rules = policy(&[("web", &[DNS, OUT])], &[("a", "10.0.0.1, \"2001:db8::1\"", &["web"])]);
    for (workers, steering) in
        [(2, Steering::Rss), (2, Steering::Wrong), (3, Steering::RoundRobin), (4, Steering::RoundRobin)]
    {
        let mut farm = SimWorkers::new(&Config::default(), &rules, workers, 256, steering);
        let (mut sent, mut last) = (0, Vec::new());
        for n in 0..200u16 {
            let (from, to) =
                [("198.51.100.9", "10.0.0.1"), ("2001:db8:9::9", "2001:db8::1")][usize::from(n % 2)];
            let datagram = udp((from, 5000 + n), (to, 53)).id(u32::from(n)).payload(vec![n as u8; 400]);
            let mut pieces = datagram.fragments(100);
            // The first of them last, in the middle, or where it belongs; in one burst or one by one.
            let by = usize::from(n) % pieces.len();
            pieces.rotate_left(by);
            for piece in &pieces {
                farm.arrive(Outside, piece);
                sent += 1;
                if n % 3 == 0 {
                    farm.poll();
                }
            }
            farm.wait_ms(u64::from(n % 7) * 20);
            // Of one in four the first never comes.
            last.push(farm.arrive(Outside, &datagram.clone().id(60_000 + u32::from(n)).fragments(100)[1]));
            sent += 1;
        }
        farm.drain();
        assert_eq!(farm.left(Inside).len(), sent - last.len(), "{workers} workers, {steering:?}");
        assert!(last[190..].iter().all(|id| farm.verdict(*id) == "not judged"), "still held");
        farm.wait_ms(1_200);
        farm.drain();
        assert!(last.iter().all(|id| farm.verdict(*id) == "fragment-no-first"));
        assert_eq!(farm.alive().load(std::sync::atomic::Ordering::Relaxed), 0);
        let counted: u64 =
            farm.counters().iter().map(|counters| counters.total(4, engine::Reason::Fragment)).sum();
        assert_eq!(counted, 200 * 4, "each once");
    }
}

#[test]
fn fragments_4_6_held_when_a_worker_ends_are_dropped_and_counted() {
    let rules = policy(&[("web", &[DNS, OUT])], &[("a", "10.0.0.1", &["web"])]);
    let mut farm = SimWorkers::new(&Config::default(), &rules, 2, 256, Steering::RoundRobin);
    for n in 0..100u16 {
        let datagram =
            udp(("198.51.100.9", 5000 + n), ("10.0.0.1", 53)).id(u32::from(n)).payload(vec![1; 400]);
        farm.arrive(Outside, &datagram.fragments(100)[1]);
    }
    farm.drain();
    assert_eq!(farm.alive().load(std::sync::atomic::Ordering::Relaxed), 100, "all are held");
    for worker in farm.workers() {
        let mut drained = 1;
        while drained > 0 {
            drained = worker.drain(2_000_000_000, &mut ()).frames;
        }
    }
    assert_eq!(farm.alive().load(std::sync::atomic::Ordering::Relaxed), 0);
    let counted: u64 =
        farm.counters().iter().map(|counters| counters.total(4, engine::Reason::FragmentNoFirst)).sum();
    assert_eq!(counted, 100);
}
