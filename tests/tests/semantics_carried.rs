//! What connections carry and what is refused is told exactly once, by how it ended.

use testkit::frame::*;
use testkit::scenario::{Scenario, one, rule::*};

const C: &str = "198.51.100.9:40000";
const S: &str = "10.0.0.1:22";
const COUNT: &str = "[conntrack]\ncount = true\n";

fn scenario(config: &str) -> Scenario {
    Scenario::with(&format!("{COUNT}{config}"), &one(&[SSH, DNS, OUT]))
}

/// Its handshake, 2 packets in and 1 out, and some data.
fn established(config: &str) -> Scenario {
    let mut s = scenario(config);
    s.connect(C, S);
    assert_eq!(s.outside(tcp(C, S).seq(1001).ack(5001).payload([1; 100])), "established");
    s
}

#[test]
fn carried_6_4_what_was_told_is_not_told_again() {
    let mut s = established("");
    assert_eq!(s.told(), ["active 3/262 1/54"]);
    assert_eq!(s.told(), [""; 0]);
    assert_eq!(s.inside(tcp(S, C).seq(5001).ack(1101)), "established");
    assert_eq!(s.told(), ["active 0/0 1/54"]);
    // What ends without having carried more is told all the same.
    s.wait(700.0);
    assert_eq!(s.told(), ["expired 0/0 0/0"]);
}

#[test]
fn carried_6_4_closed_is_told_when_both_fins_are_acknowledged_and_the_rest_behind_it() {
    let mut s = established("");
    s.inside(tcp(S, C).fin().seq(5001).ack(1101));
    s.outside(tcp(C, S).fin().seq(1101).ack(5002));
    s.idle();
    assert_eq!(s.inside(tcp(S, C).seq(5002).ack(1102)), "established");
    assert_eq!(s.told(), ["closed 4/316 3/162"]);
    // The last acknowledgement came again; it is told as the entry goes.
    s.inside(tcp(S, C).seq(5002).ack(1102));
    assert_eq!(s.told(), [""; 0]);
    s.wait(40.0);
    assert_eq!(s.told(), ["closed 0/0 1/54"]);
    // Of one that is not acknowledged, the time after the FINs says it.
    let mut s = established("");
    s.inside(tcp(S, C).fin().seq(5001).ack(1101));
    s.outside(tcp(C, S).fin().seq(1101).ack(5002));
    s.wait(40.0);
    assert_eq!(s.told(), ["closed 4/316 2/108"]);
}

#[test]
fn carried_6_4_a_reset_is_one_of_its_packets() {
    let mut s = established("");
    assert_eq!(s.outside(tcp(C, S).rst().seq(1101)), "established");
    assert_eq!(s.told(), ["reset 4/316 1/54"]);
    assert_eq!(s.outside(tcp(C, S).seq(1101).ack(5001)), "invalid");
    assert_eq!(s.told(), ["invalid 1/54"]);
}

#[test]
fn carried_6_4_a_flush_ends_it_whatever_becomes_of_its_tombstone() {
    let other = one(&["{direction: inbound, protocol: tcp, ports: 23}", OUT]);
    for on_flush in ["tombstone", "rejudge"] {
        let mut s = established(&format!("[policy]\non_flush = \"{on_flush}\"\n"));
        s.apply(&other);
        if on_flush == "rejudge" {
            // Its next packet asks the rules.
            assert_eq!(s.outside(tcp(C, S).seq(1101).ack(5001)), "tombstone");
            assert_eq!(s.told(), ["flushed 3/262 1/54", "tombstone 1/54"]);
        } else {
            assert_eq!(s.told(), ["flushed 3/262 1/54"]);
            assert_eq!(s.outside(tcp(C, S).seq(1101).ack(5001)), "tombstone");
            assert_eq!(s.told(), ["tombstone 1/54"]);
        }
        s.wait(700.0);
        assert_eq!(s.told(), [""; 0], "{on_flush}");
    }
    // A rollback brings it back, and it ends once more.
    let mut s = established("");
    let before = s.generation();
    s.apply(&other);
    assert_eq!(s.told(), ["flushed 3/262 1/54"]);
    s.rollback(before);
    assert_eq!(s.outside(tcp(C, S).seq(1101).ack(5001)), "established");
    assert_eq!(s.told(), ["active 1/54 0/0"]);
    // So does one whose NIC goes before the sweep comes by.
    s.apply("vpcs: [{name: prod, segment: {untagged: true}}]");
    assert_eq!(s.told(), ["flushed 0/0 0/0"]);
}

#[test]
fn carried_6_4_fragments_are_their_connections_and_errors_are_nobodys() {
    let mut s = scenario("");
    let pieces = udp("198.51.100.9:5000", "10.0.0.1:53").payload([7; 2000]).id(9).fragments(1000);
    let bytes: usize = pieces.iter().map(Vec::len).sum();
    let verdicts: Vec<_> = pieces.iter().map(|piece| s.bytes(engine::Side::Outside, piece.clone())).collect();
    assert_eq!(verdicts[..2], ["new by web#1", "fragment"]);
    let quoted = udp("198.51.100.9:5000", "10.0.0.1:53").payload([7; 20]);
    assert_eq!(s.inside(icmp_error("10.0.0.1", "198.51.100.9", 3, 3, &quoted.packet())), "related");
    assert_eq!(s.told(), [format!("active {}/{bytes} 0/0", pieces.len())]);
}

#[test]
fn carried_6_4_refused_packets_are_counted_by_tuple_and_reason() {
    let mut s = scenario("");
    for _ in 0..3 {
        s.outside(tcp(C, "10.0.0.1:80").syn().seq(1));
        s.outside(tcp("198.51.100.9:40001", "10.0.0.1:80").syn().seq(1));
        s.outside(tcp(C, "10.0.0.9:22").syn().seq(1));
    }
    let mut told = s.told();
    told.sort();
    assert_eq!(told, ["no-rule 3/162", "no-rule 3/162", "unknown-destination 3/162"]);
    assert_eq!(s.told(), [""; 0]);
}
