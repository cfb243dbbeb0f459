//! Semantics §4.6: fragments.

use engine::Side;
use testkit::frame::*;
use testkit::scenario::{Scenario, one, policy, rule::*};

const CLIENT: &str = "198.51.100.9";
const C: &str = "198.51.100.9:5000";
const D: &str = "10.0.0.1:53";

fn scenario() -> Scenario {
    Scenario::new(&policy(
        &[("web", &[DNS, SSH, "{direction: inbound, protocol: 99}", OUT])],
        &[("a", "10.0.0.1, \"2001:db8::1\"", &["web"])],
    ))
}

/// A datagram to the NIC in four pieces.
fn datagram(to: &str) -> Vec<Vec<u8>> {
    udp(C, to).id(9).payload(vec![1; 3000]).fragments(1000)
}

#[test]
fn fragments_4_6_the_first_is_judged_as_a_packet_and_those_behind_it_follow() {
    let mut s = scenario();
    let pieces = datagram(D);
    assert_eq!(s.bytes(Side::Outside, pieces[1].clone()), "held");
    assert_eq!(s.bytes(Side::Outside, pieces[0].clone()), "new by web#0");
    assert_eq!(s.bytes(Side::Outside, pieces[1].clone()), "fragment");
    assert_eq!(s.bytes(Side::Outside, pieces[3].clone()), "fragment");
    assert_eq!(s.bytes(Side::Outside, pieces[0].clone()), "established");
}

#[test]
fn fragments_4_6_the_first_must_hold_the_l4_header_or_is_malformed_and_not_remembered() {
    let mut s = scenario();
    let whole = tcp(C, "10.0.0.1:22").syn().id(4).option(&[1; 4]).payload([0; 64]);
    assert_eq!(s.outside(whole.clone().slice(0..16).fragment(0, true)), "malformed");
    assert_eq!(s.outside(whole.clone().slice(24..64).fragment(3, false)), "held");
    assert_eq!(s.outside(whole.clone().slice(0..24).fragment(0, true)), "new by web#1");
    assert_eq!(s.outside(whole.slice(24..64).fragment(3, false)), "fragment");
}

#[test]
fn fragments_4_6_behind_a_dropped_first_drop_for_its_reason() {
    let mut s = scenario();
    let pieces = datagram("10.0.0.1:54");
    assert_eq!(s.bytes(Side::Outside, pieces[0].clone()), "no-rule");
    assert_eq!(s.bytes(Side::Outside, pieces[1].clone()), "no-rule");
    let mut s = Scenario::new(&one(&[SSH, "{direction: inbound, protocol: udp, action: deny}"]));
    assert_eq!(s.bytes(Side::Outside, datagram(D)[0].clone()), "denied by web#1");
    assert_eq!(s.bytes(Side::Outside, datagram(D)[1].clone()), "denied by web#1");
}

#[test]
fn fragments_4_6_nic_direction_addresses_protocol_and_identification_tell_datagrams_apart() {
    let two = policy(
        &[("web", &[DNS, OUT])],
        &[("a", "10.0.0.1, 10.0.0.3", &["web"]), ("b", "10.0.0.2", &["web"])],
    );
    let mut s = Scenario::new(&two);
    s.bytes(Side::Outside, datagram(D)[0].clone());
    let later = |from: &str, to: &str, protocol: u8, id: u32| {
        ip(from, to, protocol).id(id).payload([0; 64]).slice(24..64).fragment(3, false)
    };
    assert_eq!(s.outside(later(CLIENT, "10.0.0.2", 17, 9)), "held", "another NIC");
    assert_eq!(s.outside(later(CLIENT, "10.0.0.3", 17, 9)), "held", "another destination");
    assert_eq!(s.outside(later("198.51.100.8", "10.0.0.1", 17, 9)), "held", "another source");
    assert_eq!(s.outside(later(CLIENT, "10.0.0.1", 6, 9)), "held", "another protocol");
    assert_eq!(s.outside(later(CLIENT, "10.0.0.1", 17, 8)), "held", "another identification");
    assert_eq!(s.inside(later("10.0.0.1", CLIENT, 17, 9)), "held", "the other direction");
    assert_eq!(s.outside(later(CLIENT, "10.0.0.1", 17, 9)), "fragment");
}

#[test]
fn fragments_4_6_in_ipv6_the_next_header_does_not_tell_datagrams_apart() {
    let mut s = scenario();
    let whole = udp("[2001:db8:9::9]:5000", "[2001:db8::1]:53").id(9).payload([0; 64]);
    let first = whole.clone().fragment(0, true).ext(Ext::destination_options()).slice(0..48);
    let later = |protocol: u8| whole.clone().lie_protocol(protocol).slice(40..64).fragment(6, false);
    assert_eq!(s.outside(later(6)), "held");
    assert_eq!(s.outside(first), "new by web#0");
    assert_eq!(s.released(), ["fragment"]);
    // RFC 8200, 4.5: the first one's is used, whatever the others say.
    for protocol in [17, 60, 6, 58] {
        assert_eq!(s.outside(later(protocol)), "fragment");
    }
}

#[test]
fn fragments_4_6_are_remembered_for_5_s_from_the_first() {
    let mut s = scenario();
    let pieces = datagram(D);
    s.bytes(Side::Outside, pieces[0].clone());
    s.wait(4.9);
    assert_eq!(s.bytes(Side::Outside, pieces[2].clone()), "fragment");
    s.wait(0.3);
    assert_eq!(s.bytes(Side::Outside, pieces[2].clone()), "held");
}

#[test]
fn fragments_4_6_that_reach_back_into_the_headers_of_a_passed_first_are_malformed() {
    let mut s = scenario();
    let segment = tcp(C, "10.0.0.1:22").syn().id(3).option(&[1; 20]).payload([0; 64]);
    assert_eq!(s.outside(segment.clone().slice(0..48).fragment(0, true)), "new by web#1");
    assert_eq!(s.outside(segment.clone().slice(32..72).fragment(4, false)), "malformed");
    assert_eq!(s.nic().as_deref(), Some("a"), "and names its NIC");
    assert_eq!(s.outside(segment.slice(40..80).fragment(5, false)), "fragment", "behind 40 bytes");
    let refused = tcp(C, "10.0.0.1:23").syn().id(4).payload([0; 64]);
    assert_eq!(s.outside(refused.clone().slice(0..48).fragment(0, true)), "no-rule");
    assert_eq!(s.outside(refused.slice(8..48).fragment(1, false)), "no-rule", "a first that dropped");
}

#[test]
fn fragments_4_6_the_headers_are_counted_from_behind_the_fragment_header() {
    let mut s = scenario();
    let whole = udp("[2001:db8:9::9]:5000", "[2001:db8::1]:53").id(9).payload([0; 64]);
    // Hop-by-hop options before the fragment header do not count, destination options behind it do: 8 + 8 bytes.
    let first =
        whole.clone().ext(Ext::hop_by_hop()).fragment(0, true).ext(Ext::destination_options()).slice(0..48);
    assert_eq!(s.outside(first), "new by web#0");
    let later = |offset: u16| {
        let whole = whole.clone().ext(Ext::hop_by_hop()).lie_protocol(60);
        whole.slice(0..8).fragment(offset, false)
    };
    assert_eq!(s.outside(later(1)), "malformed");
    assert_eq!(s.outside(later(2)), "fragment");
}

#[test]
fn fragments_4_6_a_flush_forgets_those_of_inbound_connections_and_of_drops_alone() {
    let mut s = Scenario::new(&one(&[DNS, OUT]));
    let outbound = udp("10.0.0.1:7", "192.0.2.1:7").id(5).payload(vec![1; 3000]).fragments(1000);
    let dropped = udp(C, "10.0.0.1:54").id(6).payload(vec![1; 3000]).fragments(1000);
    for piece in [&datagram(D)[0], &dropped[0]] {
        s.bytes(Side::Outside, piece.clone());
    }
    s.bytes(Side::Inside, outbound[0].clone());
    s.apply(&one(&[DNS, SSH, OUT]));
    assert_eq!(s.bytes(Side::Outside, datagram(D)[1].clone()), "held");
    assert_eq!(s.bytes(Side::Outside, dropped[1].clone()), "held");
    assert_eq!(s.bytes(Side::Inside, outbound[1].clone()), "fragment");
}

const OFFICE: &str = "{direction: inbound, protocol: udp, remote_address_group: office}";

fn office(addresses: &str) -> String {
    one(&[OFFICE, OUT]) + &format!("address_groups: [{{name: office, addresses: [{addresses}]}}]\n")
}

#[test]
fn fragments_4_6_judge_nothing_again_and_a_tombstones_are_forgotten() {
    let mut s = Scenario::new(&office("198.51.100.0/24"));
    s.bytes(Side::Outside, datagram(D)[0].clone());
    s.apply(&office(""));
    assert_eq!(s.bytes(Side::Outside, datagram(D)[1].clone()), "fragment", "nobody asked the rules yet");
    assert_eq!(s.outside(udp(C, D)), "tombstone");
    assert_eq!(s.bytes(Side::Outside, datagram(D)[2].clone()), "held");
}

#[test]
fn fragments_4_6_of_a_nic_that_is_gone_are_forgotten() {
    let without = policy(&[("web", &[DNS, OUT])], &[("b", "10.0.0.9", &["web"])]);
    let with = policy(&[("web", &[DNS, OUT])], &[("a", "10.0.0.1", &["web"]), ("b", "10.0.0.9", &["web"])]);
    let mut s = Scenario::new(&with);
    let outbound = udp("10.0.0.1:7", "192.0.2.1:7").id(5).payload(vec![1; 3000]).fragments(1000);
    s.bytes(Side::Inside, outbound[0].clone());
    assert_eq!(s.bytes(Side::Inside, outbound[1].clone()), "fragment");
    s.apply(&without);
    s.apply(&with);
    assert_eq!(s.bytes(Side::Inside, outbound[2].clone()), "held");
}

#[test]
fn fragments_4_6_behind_the_first_move_no_deadline() {
    let mut s = scenario();
    s.bytes(Side::Outside, datagram(D)[0].clone());
    s.wait(4.0);
    assert_eq!(s.bytes(Side::Outside, datagram(D)[1].clone()), "fragment");
    assert!(s.connections()[0].ends_with("one-way 26.0"));
}

#[test]
fn fragments_4_6_of_what_no_rule_judges_are_remembered_too() {
    let mut s = scenario();
    let offer = udp("192.0.2.1:67", "10.0.0.1:68").id(7).payload(vec![1; 3000]).fragments(1000);
    assert_eq!(s.bytes(Side::Outside, offer[0].clone()), "control");
    assert_eq!(s.bytes(Side::Outside, offer[1].clone()), "fragment");
    let rogue = udp("10.0.0.1:67", "192.0.2.1:68").id(7).payload(vec![1; 3000]).fragments(1000);
    assert_eq!(s.bytes(Side::Inside, rogue[0].clone()), "rogue");
    assert_eq!(s.bytes(Side::Inside, rogue[1].clone()), "rogue");
}

/// A first fragment and one behind it, of a datagram of protocol 99 from this client.
fn pair(client: &str, to: &str, id: u32) -> (Packet<Raw>, Packet<Raw>) {
    let whole = ip(client, to, 99).id(id).payload([0; 64]);
    (whole.clone().slice(0..48).fragment(0, true), whole.slice(48..64).fragment(6, false))
}

#[test]
fn fragments_4_6_the_memory_is_bounded_and_the_oldest_goes() {
    let mut s = scenario();
    let of = |id| pair(CLIENT, "10.0.0.1", id);
    for id in 1..=60_000 {
        s.outside(of(id).0);
    }
    assert_eq!(s.outside(of(1).1), "held");
    assert_eq!(s.outside(of(2).1), "held");
    assert_eq!(s.outside(of(59_000).1), "fragment");
    assert_eq!(s.outside(of(60_000).1), "fragment");
}

/// NICs `a` (10.0.0.1) to `e` (10.0.0.5).
fn five() -> String {
    let addresses = ["10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.4", "10.0.0.5"];
    let nics: Vec<_> = ["a", "b", "c", "d", "e"].into_iter().zip(addresses).collect();
    let nics: Vec<_> = nics.iter().map(|(name, address)| (*name, *address, &["web"][..])).collect();
    policy(&[("web", &["{direction: inbound, protocol: 99}", OUT])], &nics)
}

#[test]
fn fragments_4_6_one_nics_flood_has_nobody_elses_forgotten() {
    let mut s = Scenario::new(&five());
    for id in 0..50 {
        assert_eq!(
            s.outside(pair(CLIENT, "10.0.0.2", id).0).split(' ').next(),
            Some(["new", "established"][usize::from(id > 0)])
        );
    }
    // 20,000 first fragments a second, of which none passes, and some of others among them.
    let denied = |id: u32| udp(C, "10.0.0.1:54").id(id).payload([0; 64]).slice(0..48).fragment(0, true);
    for id in 0..80_000 {
        s.outside(denied(id));
        if id % 400 == 0 {
            s.outside(pair(CLIENT, "10.0.0.3", id / 400).0);
        }
        if id % 2_000 == 0 {
            s.wait(0.1);
        }
    }
    let known = |s: &mut Scenario, to: &str, ids: u32| {
        (0..ids).filter(|id| s.outside(pair(CLIENT, to, *id).1) == "fragment").count()
    };
    assert_eq!((known(&mut s, "10.0.0.2", 50), known(&mut s, "10.0.0.3", 200)), (50, 200));
}

#[test]
fn fragments_4_6_later_ones_are_held_for_their_first_and_follow_it() {
    let mut s = scenario();
    let pieces = datagram(D);
    for piece in [3, 1, 2] {
        assert_eq!(s.bytes(Side::Outside, pieces[piece].clone()), "held");
        assert!(!s.passed());
    }
    s.wait(0.875);
    assert_eq!(s.released(), [""; 0]);
    assert_eq!(s.bytes(Side::Outside, pieces[0].clone()), "new by web#0");
    let released = s.released_by_number();
    let expected: Vec<(usize, String)> = (0..3).map(|number| (number, "fragment".to_owned())).collect();
    assert_eq!(released, expected, "in their order");
    assert!(s.connections()[0].ends_with("one-way 30.0"), "and move nothing");
    // In one burst, too, and from inside.
    let outbound = udp("[2001:db8::1]:7", "[2001:db8:9::9]:7").id(5).payload(vec![1; 3000]).fragments(1000);
    let burst: Vec<_> = outbound.into_iter().rev().map(|piece| (Side::Inside, piece)).collect();
    assert_eq!(s.burst(&burst), ["held", "held", "held", "new by web#3"]);
    assert_eq!(s.released(), ["fragment"; 3]);
}

#[test]
fn fragments_4_6_those_held_get_what_their_first_got() {
    let mut s =
        Scenario::new(&one(&[SSH, "{direction: inbound, protocol: udp, ports: 53, action: deny}", OUT]));
    let denied = datagram(D);
    assert_eq!(s.bytes(Side::Outside, denied[1].clone()), "held");
    assert_eq!(s.bytes(Side::Outside, denied[0].clone()), "denied by web#1");
    assert_eq!(s.released(), ["denied by web#1"]);
    // One that reaches back into the headers is malformed, early or late.
    let segment = tcp(C, "10.0.0.1:22").syn().id(3).option(&[1; 20]).payload([0; 64]);
    assert_eq!(s.outside(segment.clone().slice(32..72).fragment(4, true)), "held");
    assert_eq!(s.outside(segment.clone().slice(40..80).fragment(5, true)), "held");
    assert_eq!(s.outside(segment.slice(0..48).fragment(0, true)), "new by web#0");
    assert_eq!(s.released(), ["malformed", "fragment"]);
    let offer = udp("192.0.2.1:67", "10.0.0.1:68").id(7).payload(vec![1; 3000]).fragments(1000);
    assert_eq!(s.bytes(Side::Outside, offer[1].clone()), "held");
    assert_eq!(s.bytes(Side::Outside, offer[0].clone()), "control");
    assert_eq!(s.released(), ["fragment"]);
}

#[test]
fn fragments_4_6_are_held_for_1_s_and_no_longer() {
    let mut s = scenario();
    let pieces = datagram(D);
    assert_eq!(s.bytes(Side::Outside, pieces[1].clone()), "held");
    s.wait(0.95);
    assert_eq!(s.bytes(Side::Outside, pieces[2].clone()), "held");
    s.wait(0.2);
    assert_eq!(s.released(), ["fragment-no-first"], "the first of them");
    assert_eq!(s.bytes(Side::Outside, pieces[0].clone()), "new by web#0");
    assert_eq!(s.released(), ["fragment"], "the second");
}

#[test]
fn fragments_4_6_a_first_that_is_not_remembered_releases_nobody() {
    let mut s = scenario();
    let whole = tcp(C, "10.0.0.1:22").syn().id(4).option(&[1; 4]).payload([0; 64]);
    let own = udp("10.0.0.1:5", "192.0.2.1:5").id(6).payload([0; 64]);
    assert_eq!(s.outside(whole.clone().slice(24..64).fragment(3, false)), "held");
    assert_eq!(s.inside(own.clone().slice(48..72).fragment(6, false)), "held");
    assert_eq!(s.outside(whole.slice(0..16).fragment(0, true)), "malformed");
    // Forged from outside: of another direction at any rate.
    assert_eq!(s.outside(own.slice(0..48).fragment(0, true)), "unknown-destination");
    assert_eq!(s.released(), [""; 0]);
    s.wait(1.2);
    assert_eq!(s.released(), ["fragment-no-first"; 2]);
}

#[test]
fn fragments_4_6_those_held_are_judged_by_the_policy_of_then_and_end_with_their_nic() {
    let mut s = Scenario::new(&one(&[DNS, OUT]));
    assert_eq!(s.bytes(Side::Outside, datagram(D)[1].clone()), "held");
    s.apply(&one(&[SSH, OUT]));
    assert_eq!(s.bytes(Side::Outside, datagram(D)[0].clone()), "no-rule");
    assert_eq!(s.released(), ["no-rule"]);
    // Another NIC of the same name and address has nothing to do with it.
    let (with, without) = (one(&[DNS, OUT]), one(&[DNS, OUT]).replace("10.0.0.1", "10.0.0.9"));
    let mut s = Scenario::new(&with);
    assert_eq!(s.bytes(Side::Outside, datagram(D)[1].clone()), "held");
    s.apply(&without);
    s.apply(&with);
    assert_eq!(s.bytes(Side::Outside, datagram(D)[0].clone()), "new by web#0");
    assert_eq!(s.released(), [""; 0]);
    s.wait(1.2);
    assert_eq!(s.released(), ["fragment-no-first"]);
    // Nobody has its address when its time is over.
    assert_eq!(
        s.bytes(Side::Outside, udp(C, D).id(8).payload(vec![1; 3000]).fragments(1000)[1].clone()),
        "held"
    );
    s.apply(&without);
    s.wait(1.2);
    assert_eq!(s.released(), ["unknown-destination"]);
}

#[test]
fn fragments_4_6_of_a_datagram_64_are_held_of_a_nic_256_and_1024_in_all() {
    let mut s = Scenario::new(&five());
    let later = |to: &str, id: u32| pair(CLIENT, to, id).1;
    for _ in 0..64 {
        assert_eq!(s.outside(later("10.0.0.1", 1)), "held");
    }
    assert_eq!(s.outside(later("10.0.0.1", 1)), "fragment-no-first", "a datagram's 65th");
    for id in 2..2 + 256 - 64 {
        assert_eq!(s.outside(later("10.0.0.1", id)), "held");
    }
    assert_eq!(s.outside(later("10.0.0.1", 1000)), "fragment-no-first", "a NIC's 257th");
    for nic in ["10.0.0.2", "10.0.0.3", "10.0.0.4"] {
        for id in 0..256 {
            assert_eq!(s.outside(later(nic, id)), "held");
        }
    }
    // All are there, and a newcomer's NIC has none: it takes from those that have most.
    assert_eq!(s.released(), [""; 0]);
    for id in 0..20 {
        assert_eq!(s.outside(later("10.0.0.5", id)), "held");
    }
    assert_eq!(s.released(), ["fragment-no-first"; 20]);
    assert_eq!(s.outside(pair(CLIENT, "10.0.0.5", 7).0), "new by web#0");
    assert_eq!(s.released(), ["fragment"]);
    s.wait(1.2);
    assert_eq!(s.released().len(), 1023);
}

#[test]
fn fragments_4_6_a_frame_that_is_held_is_counted_once() {
    let mut s = scenario();
    let total = |s: &Scenario| {
        engine::Reason::ALL.iter().map(|reason| s.firewall().counters().total(4, *reason)).sum::<u64>()
    };
    let pieces = datagram(D);
    s.bytes(Side::Outside, pieces[2].clone());
    assert_eq!(total(&s), 0, "while it waits it is in hand");
    s.bytes(Side::Outside, pieces[0].clone());
    assert_eq!(total(&s), 2);
    s.bytes(Side::Outside, udp(C, D).id(8).payload(vec![1; 3000]).fragments(1000)[1].clone());
    s.wait(1.2);
    s.released();
    assert_eq!(total(&s), 3);
}

#[test]
fn fragments_4_6_are_held_under_observation_too_and_go_on_then() {
    let mut s = Scenario::with("[policy]\nmode = \"observe\"\n", &one(&[SSH]));
    assert_eq!(s.bytes(Side::Outside, datagram(D)[1].clone()), "held");
    assert_eq!(s.bytes(Side::Outside, datagram(D)[0].clone()), "no-rule (observed)");
    assert_eq!(s.released(), ["no-rule (observed)"]);
    assert_eq!(
        s.bytes(Side::Outside, udp(C, D).id(8).payload(vec![1; 3000]).fragments(1000)[1].clone()),
        "held"
    );
    s.wait(1.2);
    assert_eq!(s.released(), ["fragment-no-first (observed)"]);
}
