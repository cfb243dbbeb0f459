//! Semantics §5.7: a rollback.

use engine::Side;
use testkit::frame::*;
use testkit::scenario::Scenario;

const C: &str = "198.51.100.9:40000";
const S: &str = "10.0.0.1:22";
const OUT: &str = "{direction: outbound}";

fn policy(rules: &[&str], nics: &[&str]) -> String {
    format!(
        "vpcs: [{{name: prod, segment: {{untagged: true}}}}]
address_groups: [{{name: admins, addresses: [198.51.100.0/24]}}]
security_groups: [{{name: web, rules: [{}]}}]
nics: [{}]",
        rules.join(", "),
        nics.join(", ")
    )
}

const SSH: &str = "{direction: inbound, protocol: tcp, ports: 22}";
const WEB: &str = "{direction: inbound, protocol: tcp, ports: 80}";
const A: &str = "{name: a, vpc: prod, addresses: [10.0.0.1], security_groups: [web]}";
const B: &str = "{name: b, vpc: prod, addresses: [10.0.0.2], security_groups: [web]}";

fn one(rules: &[&str]) -> String {
    policy(rules, &[A])
}

fn connect(s: &mut Scenario, client: &str, server: &str) {
    s.outside(tcp(client, server).syn().seq(1000));
    s.inside(tcp(server, client).syn().seq(5000).ack(1001));
    assert_eq!(data(s, client, server), "established");
}

fn data(s: &mut Scenario, client: &str, server: &str) -> String {
    s.outside(tcp(client, server).seq(1001).ack(5001))
}

#[test]
fn what_only_later_commits_disconnected_is_live_again() {
    let mut s = Scenario::new(&one(&[SSH, OUT]));
    connect(&mut s, C, S);
    s.apply(&one(&[SSH, WEB, OUT]));
    assert_eq!(data(&mut s, C, S), "tombstone");
    s.apply(&one(&[WEB, OUT]));
    assert_eq!(data(&mut s, C, S), "tombstone");
    assert_eq!(s.rollback(1), ["a"]);
    assert_eq!(s.generation(), 4, "a rollback is a generation of its own");
    assert_eq!(data(&mut s, C, S), "established");
    assert_eq!(s.inside(tcp(S, C).seq(5001).ack(1001)), "established");
}

#[test]
fn what_an_earlier_commit_disconnected_stays_so() {
    let mut s = Scenario::new(&one(&[SSH, OUT]));
    connect(&mut s, C, S);
    s.apply(&one(&[SSH, WEB, OUT]));
    s.apply(&one(&[SSH, OUT]));
    s.rollback(2);
    assert_eq!(data(&mut s, C, S), "tombstone");
    s.rollback(1);
    assert_eq!(data(&mut s, C, S), "established");
}

#[test]
fn a_deadline_is_not_moved_by_it() {
    let mut s = Scenario::new(&one(&[SSH, OUT]));
    connect(&mut s, C, S);
    s.wait(500.0);
    s.apply(&one(&[OUT]));
    s.wait(90.0);
    s.rollback(1);
    assert_eq!(s.connections(), ["a inbound 6 10.0.0.1:22 198.51.100.9:40000 established 10.0"]);
    s.wait(11.0);
    assert_eq!(data(&mut s, C, S), "invalid", "its time was over");
}

#[test]
fn inbound_connections_opened_since_are_judged_again_and_outbound_ones_live_on() {
    let mut s = Scenario::new(&one(&[SSH]));
    s.apply(&one(&[SSH, WEB, OUT]));
    connect(&mut s, C, "10.0.0.1:80");
    connect(&mut s, C, S);
    assert_eq!(s.inside(udp("10.0.0.1:5000", "198.51.100.9:53")), "new by web#2");
    s.rollback(1);
    assert_eq!(data(&mut s, C, "10.0.0.1:80"), "tombstone");
    assert_eq!(data(&mut s, C, S), "established");
    assert_eq!(s.outside(udp("198.51.100.9:53", "10.0.0.1:5000")), "established");
    assert_eq!(s.inside(udp("10.0.0.1:5001", "198.51.100.9:53")), "no-rule");
}

#[test]
fn a_rollback_of_a_rollback_flushes_nothing_either() {
    let mut s = Scenario::new(&one(&[SSH, OUT]));
    connect(&mut s, C, S);
    let silent = "198.51.100.9:40001";
    connect(&mut s, silent, S);
    s.apply(&one(&[SSH, WEB, OUT]));
    connect(&mut s, C, "10.0.0.1:80");
    s.rollback(1);
    assert_eq!(data(&mut s, C, S), "established");
    assert_eq!(data(&mut s, C, "10.0.0.1:80"), "tombstone");
    // Back to the commit that had disconnected them: they were live, and whether a packet came meanwhile is the same.
    s.rollback(2);
    assert_eq!(data(&mut s, C, S), "established");
    assert_eq!(data(&mut s, silent, S), "established");
    assert_eq!(data(&mut s, C, "10.0.0.1:80"), "established", "refused only by the rollback taken back");
    s.rollback(3);
    assert_eq!(data(&mut s, C, "10.0.0.1:80"), "tombstone");
    assert_eq!(data(&mut s, C, S), "established");
}

#[test]
fn a_flush_after_a_rollback_holds_for_what_it_brought_back() {
    let mut s = Scenario::new(&one(&[SSH, OUT]));
    connect(&mut s, C, S);
    s.apply(&one(&[OUT]));
    s.rollback(1);
    s.apply(&one(&[SSH, WEB, OUT]));
    assert_eq!(data(&mut s, C, S), "tombstone");
    s.rollback(3);
    assert_eq!(data(&mut s, C, S), "established");
}

#[test]
fn a_failed_rejudging_is_taken_back_too() {
    let by_list = "{direction: inbound, protocol: tcp, ports: 22, remote_address_group: admins}";
    let mut s = Scenario::new(&one(&[by_list, OUT]));
    connect(&mut s, C, S);
    s.apply(&one(&[by_list, OUT]).replace("198.51.100.0/24", "203.0.113.0/24"));
    assert_eq!(data(&mut s, C, S), "tombstone");
    s.rollback(1);
    assert_eq!(data(&mut s, C, S), "established");
    // A flush after it disconnects it, though the failed judging is still undone.
    let mut s = Scenario::new(&one(&[by_list, OUT]));
    connect(&mut s, C, S);
    s.apply(&one(&[by_list, OUT]).replace("198.51.100.0/24", "203.0.113.0/24"));
    assert_eq!(data(&mut s, C, S), "tombstone");
    s.rollback(1);
    s.apply(&one(&[by_list, WEB, OUT]));
    assert_eq!(data(&mut s, C, S), "tombstone");
}

#[test]
fn a_deleted_nic_comes_back_with_its_connections_of_both_directions() {
    let mut s = Scenario::new(&policy(&[SSH, OUT], &[A, B]));
    connect(&mut s, C, S);
    assert_eq!(s.inside(udp("10.0.0.1:5000", "198.51.100.9:53")), "new by web#1");
    assert_eq!((s.live_inbound("a"), s.connection_counts("a")), (1, 2));
    s.apply(&policy(&[SSH, OUT], &[B]));
    assert_eq!(data(&mut s, C, S), "unknown-destination");
    assert_eq!(s.connections(), [""; 0]);
    s.rollback(1);
    assert_eq!(s.outside(udp("198.51.100.9:53", "10.0.0.1:5000")), "established");
    assert_eq!((s.live_inbound("a"), s.connection_counts("a")), (1, 2));
    assert_eq!(data(&mut s, C, S), "established");
    assert_eq!((s.live_inbound("a"), s.connection_counts("a")), (1, 2));
}

#[test]
fn a_nic_made_anew_gives_way_to_the_one_that_comes_back() {
    let mut s = Scenario::new(&policy(&[SSH, OUT], &[A, B]));
    connect(&mut s, C, S);
    s.apply(&policy(&[SSH, OUT], &[B]));
    s.apply(&policy(&[SSH, OUT], &[A, B]));
    assert_eq!(data(&mut s, C, S), "invalid", "the new NIC inherits nothing");
    let other = "198.51.100.9:40001";
    connect(&mut s, other, S);
    s.rollback(1);
    assert_eq!(data(&mut s, C, S), "established");
    assert_eq!(data(&mut s, other, S), "invalid");
    // And that one is back when this is taken back.
    s.rollback(3);
    assert_eq!(data(&mut s, other, S), "established");
    assert_eq!(data(&mut s, C, S), "invalid");
}

#[test]
fn an_address_taken_away_comes_back_with_its_connections() {
    let two = A.replace("[10.0.0.1]", "[10.0.0.1, 10.0.0.9]");
    let mut s = Scenario::new(&policy(&[SSH, OUT], &[&two]));
    connect(&mut s, C, "10.0.0.9:22");
    s.apply(&policy(&[SSH, OUT], &[A]));
    s.apply(&policy(&[SSH, OUT], &[&two]));
    assert_eq!(data(&mut s, C, "10.0.0.9:22"), "invalid", "it does not come back by itself");
    s.rollback(2);
    assert_eq!(data(&mut s, C, "10.0.0.9:22"), "unknown-destination");
    s.rollback(1);
    assert_eq!(data(&mut s, C, "10.0.0.9:22"), "established");
}

#[test]
fn a_nic_that_nothing_touched_is_not_judged_again() {
    let other = "{name: b, vpc: prod, addresses: [10.0.0.2], security_groups: []}";
    let mut s = Scenario::new(&policy(&[SSH, OUT], &[A, other]));
    s.apply(&policy(&[SSH, WEB, OUT], &[A, other]));
    assert_eq!(s.rollback(1), ["a"]);
}

#[test]
fn fragments_of_before_are_forgotten() {
    let mut s = Scenario::new(&one(&[OUT]));
    s.apply(&one(&["{direction: inbound, protocol: udp}", OUT]));
    let fragments = udp(C, "10.0.0.1:53").payload([7; 64]).fragments(32);
    assert_eq!(s.bytes(Side::Outside, fragments[0].clone()), "new by web#0");
    assert_eq!(s.bytes(Side::Outside, fragments[1].clone()), "fragment");
    s.rollback(1);
    assert_eq!(s.bytes(Side::Outside, fragments[2].clone()), "held");
}

#[test]
fn live_connections_are_counted_anew() {
    let mut s = Scenario::new(&one(&[SSH, OUT]));
    for port in 0..10 {
        connect(&mut s, &format!("198.51.100.9:{}", 41000 + port), S);
    }
    assert_eq!(s.live_inbound("a"), 10);
    s.apply(&one(&[SSH, WEB, OUT]));
    assert_eq!((s.live_inbound("a"), s.connection_counts("a")), (0, 10));
    connect(&mut s, C, "10.0.0.1:80");
    connect(&mut s, C, S);
    assert_eq!(s.live_inbound("a"), 2);
    s.rollback(1);
    assert_eq!((s.live_inbound("a"), s.connection_counts("a")), (11, 12));
    assert_eq!(data(&mut s, "198.51.100.9:41003", S), "established");
    assert_eq!(s.live_inbound("a"), 11);
    assert_eq!(s.outside(tcp("198.51.100.9:41003", S).rst().seq(1001)), "established");
    assert_eq!(s.live_inbound("a"), 10);
}
