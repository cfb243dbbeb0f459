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
    assert_eq!(s.bytes(Side::Outside, pieces[1].clone()), "fragment-no-first");
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
    assert_eq!(s.outside(whole.clone().slice(24..64).fragment(3, false)), "fragment-no-first");
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
    assert_eq!(s.outside(later(CLIENT, "10.0.0.2", 17, 9)), "fragment-no-first", "another NIC");
    assert_eq!(s.outside(later(CLIENT, "10.0.0.3", 17, 9)), "fragment-no-first", "another destination");
    assert_eq!(s.outside(later("198.51.100.8", "10.0.0.1", 17, 9)), "fragment-no-first", "another source");
    assert_eq!(s.outside(later(CLIENT, "10.0.0.1", 6, 9)), "fragment-no-first", "another protocol");
    assert_eq!(s.outside(later(CLIENT, "10.0.0.1", 17, 8)), "fragment-no-first", "another identification");
    assert_eq!(s.inside(later("10.0.0.1", CLIENT, 17, 9)), "fragment-no-first", "the other direction");
    assert_eq!(s.outside(later(CLIENT, "10.0.0.1", 17, 9)), "fragment");
}

#[test]
fn fragments_4_6_in_ipv6_the_protocol_is_what_the_fragment_header_names() {
    let mut s = scenario();
    let whole = udp("[2001:db8:9::9]:5000", "[2001:db8::1]:53").id(9).payload([0; 64]);
    let first = whole.clone().fragment(0, true).ext(Ext::destination_options()).slice(0..48);
    assert_eq!(s.outside(first), "new by web#0");
    let later = |protocol: u8| whole.clone().lie_protocol(protocol).slice(40..64).fragment(6, false);
    assert_eq!(s.outside(later(17)), "fragment-no-first");
    assert_eq!(s.outside(later(60)), "fragment");
}

#[test]
fn fragments_4_6_are_remembered_for_5_s_from_the_first() {
    let mut s = scenario();
    let pieces = datagram(D);
    s.bytes(Side::Outside, pieces[0].clone());
    s.wait(4.9);
    assert_eq!(s.bytes(Side::Outside, pieces[2].clone()), "fragment");
    s.wait(0.3);
    assert_eq!(s.bytes(Side::Outside, pieces[2].clone()), "fragment-no-first");
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
    assert_eq!(s.bytes(Side::Outside, datagram(D)[1].clone()), "fragment-no-first");
    assert_eq!(s.bytes(Side::Outside, dropped[1].clone()), "fragment-no-first");
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
    assert_eq!(s.bytes(Side::Outside, datagram(D)[2].clone()), "fragment-no-first");
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
    assert_eq!(s.bytes(Side::Inside, outbound[2].clone()), "fragment-no-first");
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

#[test]
fn fragments_4_6_the_memory_is_bounded_and_the_oldest_goes() {
    let mut s = scenario();
    let first = |id: u32| ip(CLIENT, "10.0.0.1", 99).id(id).payload([0; 64]).slice(0..48).fragment(0, true);
    let later = |id: u32| ip(CLIENT, "10.0.0.1", 99).id(id).payload([0; 64]).slice(48..64).fragment(6, false);
    for id in 1..=8193 {
        s.outside(first(id));
    }
    assert_eq!(s.outside(later(1)), "fragment-no-first");
    assert_eq!(s.outside(later(2)), "fragment");
    assert_eq!(s.outside(later(8193)), "fragment");
}
