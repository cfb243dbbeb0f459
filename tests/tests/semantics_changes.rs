//! Semantics §5.1–5.6: what a change does to connections.

use engine::Side;
use testkit::frame::*;
use testkit::scenario::{Scenario, one, policy, rule::*};

const C: &str = "198.51.100.9:40000";
const S: &str = "10.0.0.1:22";
const Q: &str = "198.51.100.9:5000";
const D: &str = "10.0.0.1:53";

/// A packet of the connection that [`Scenario::connect`] opened.
fn data(s: &mut Scenario) -> String {
    s.outside(tcp(C, S).seq(1001).ack(5001))
}

/// Whether this change of the rules of `web` disconnects an inbound connection.
fn cuts(before: &[&str], after: &[&str]) -> bool {
    let mut s = Scenario::new(&one(before));
    s.connect(C, S);
    let (flushed, _) = s.apply(&one(after));
    let verdict = data(&mut s);
    assert_eq!(verdict == "tombstone", flushed == ["a"]);
    verdict == "tombstone"
}

#[test]
fn flush_5_1_a_rule_added_changed_or_taken_away_disconnects() {
    assert!(cuts(&[SSH, OUT], &[SSH, OUT, DNS]), "added");
    assert!(cuts(&[SSH, OUT, DNS], &[SSH, OUT, "{direction: inbound, protocol: udp, ports: 54}"]), "changed");
    assert!(cuts(&[SSH, OUT, DNS], &[SSH, OUT]), "taken away");
    assert!(!cuts(&[SSH, OUT], &[SSH, OUT]));
}

#[test]
fn flush_5_1_inbound_or_outbound() {
    assert!(cuts(&[SSH], &[SSH, OUT]));
    assert!(cuts(&[SSH, OUT], &[SSH, OUT6]));
    assert!(cuts(&[SSH, OUT], &[SSH]));
    assert!(cuts(
        &[SSH, OUT],
        &[SSH, OUT, "{direction: inbound, protocol: tcp, action: deny, priority: 100, ports: 9}"]
    ));
}

#[test]
fn flush_5_1_every_nic_of_the_group_whichever_group_let_the_connection_in() {
    let text = |rules: &[&str]| {
        policy(
            &[("web", rules), ("ssh", &[SSH]), ("apart", &[SSH])],
            &[("a", "10.0.0.1", &["ssh", "web"]), ("b", "10.0.0.2", &["web"]), ("c", "10.0.0.3", &["apart"])],
        )
    };
    let mut s = Scenario::new(&text(&[DNS]));
    s.connect(C, S);
    s.connect(C, "10.0.0.3:22");
    s.outside(udp(Q, "10.0.0.2:53"));
    assert_eq!(s.apply(&text(&[DNS, PING])).0, ["a", "b"]);
    assert_eq!(data(&mut s), "tombstone", "let in by the group ssh");
    assert_eq!(s.outside(udp(Q, "10.0.0.2:53")), "tombstone");
    assert_eq!(s.outside(tcp(C, "10.0.0.3:22").seq(1001).ack(5001)), "established", "not in the group");
}

#[test]
fn flush_5_1_a_nic_that_joins_or_leaves_flushes_the_group() {
    let text = |b: &[&str]| {
        policy(
            &[("web", &[SSH, OUT]), ("other", &[OUT])],
            &[("a", "10.0.0.1", &["web"]), ("b", "10.0.0.2", b), ("c", "10.0.0.3", &["other"])],
        )
    };
    for (before, after, flushed) in
        [(&["other"][..], &["other", "web"][..], ["a", "b"]), (&["other", "web"], &["other"], ["a", "b"])]
    {
        let mut s = Scenario::new(&text(before));
        s.connect(C, S);
        if before.contains(&"web") {
            s.connect(C, "10.0.0.2:22");
        }
        assert_eq!(s.apply(&text(after)).0, flushed, "before or after, and nobody else");
        assert_eq!(data(&mut s), "tombstone");
        if before.contains(&"web") {
            assert_eq!(s.outside(tcp(C, "10.0.0.2:22").seq(1001).ack(5001)), "tombstone", "who left");
        }
    }
}

#[test]
fn flush_5_1_making_or_deleting_a_member_is_joining_or_leaving() {
    let (alone, both) = (
        one(&[SSH, OUT]),
        policy(&[("web", &[SSH, OUT])], &[("a", "10.0.0.1", &["web"]), ("b", "10.0.0.2", &["web"])]),
    );
    for (before, after) in [(&alone, &both), (&both, &alone)] {
        let mut s = Scenario::new(before);
        s.connect(C, S);
        assert!(s.apply(after).0.contains(&"a".to_owned()));
        assert_eq!(data(&mut s), "tombstone");
    }
}

#[test]
fn flush_5_1_inbound_rules_leaves_out_changes_of_outbound_ones() {
    let mut s = Scenario::with("[policy]\ninbound_flush = \"inbound-rules\"\n", &one(&[SSH, OUT]));
    s.connect(C, S);
    assert!(s.apply(&one(&[SSH, OUT6])).0.is_empty());
    assert_eq!(data(&mut s), "established");
    assert_eq!(s.apply(&one(&[SSH, DNS, OUT6])).0, ["a"]);
    assert_eq!(data(&mut s), "tombstone");
}

#[test]
fn flush_5_1_joined_flushes_only_who_moved_and_rules_still_flush_all() {
    let text = |b: &[&str], rules: &[&str]| {
        policy(&[("web", rules), ("other", &[])], &[("a", "10.0.0.1", &["web"]), ("b", "10.0.0.2", b)])
    };
    let mut s = Scenario::with("[policy]\nflush_scope = \"joined\"\n", &text(&["other"], &[SSH]));
    s.connect(C, S);
    assert_eq!(s.apply(&text(&["other", "web"], &[SSH])).0, ["b"]);
    assert_eq!(s.apply(&text(&["other"], &[SSH])).0, ["b"]);
    assert_eq!(data(&mut s), "established");
    assert_eq!(s.apply(&text(&["other", "web"], &[SSH, DNS])).0, ["a", "b"]);
    assert_eq!(data(&mut s), "tombstone");
}

#[test]
fn flush_5_1_order_descriptions_and_spelling_are_no_change() {
    let v4 = "{direction: inbound, protocol: tcp, ports: 22, ethertype: IPv4}";
    let spelled = "{direction: inbound, protocol: 6, ports: 22-22, remote: 0.0.0.0/0, description: hi}";
    assert!(!cuts(&[v4, OUT], &[OUT, spelled]));
    assert!(!cuts(&[SSH, OUT], &[OUT, SSH]));
    assert!(cuts(&[v4, OUT], &[SSH, OUT]), "both ethertypes are more than one");
}

#[test]
fn flush_5_1_a_renamed_group_is_another_group() {
    let named = |name: &str| policy(&[(name, &[SSH, OUT])], &[("a", "10.0.0.1", &[name])]);
    let mut s = Scenario::new(&named("web"));
    s.connect(C, S);
    assert_eq!(s.apply(&named("www")).0, ["a"]);
    assert_eq!(data(&mut s), "tombstone");
}

#[test]
fn the_vendors_example_a_ping_is_cut_at_the_change_and_comes_back_30_s_after_the_last_echo() {
    let mut s = Scenario::new(&one(&[PING, OUT]));
    let (c, w) = ("198.51.100.9", "10.0.0.1");
    for second in 0..=50 {
        s.at(f64::from(second));
        if second == 10 {
            let (flushed, _) = s.apply(&one(&[PING, SSH, OUT]));
            assert_eq!(flushed, ["a"]);
        }
        let verdict = s.outside(echo_request(c, w, 7, second as u16));
        let expected = match second {
            0 => "new by web#0",
            1..=9 => "established",
            // The last accepted packet was the reply at 9 s.
            10..=38 => "tombstone",
            39 => "new by web#0",
            _ => "established",
        };
        assert_eq!(verdict, expected, "at {second} s");
        if s.passed() {
            assert_eq!(s.inside(echo_reply(w, c, 7, second as u16)), "established");
        } else {
            assert_eq!(s.inside(echo_reply(w, c, 7, second as u16)), "tombstone", "nor does the reply pass");
        }
        if second == 10 {
            assert_eq!(s.outside(echo_request(c, w, 8, 0)), "new by web#0", "another id at once");
        }
    }
}

#[test]
fn tombstone_5_2_both_directions_drop_and_other_tuples_are_judged_at_once() {
    let mut s = Scenario::new(&one(&[SSH, OUT]));
    s.connect(C, S);
    s.apply(&one(&[SSH, OUT6]));
    assert_eq!(data(&mut s), "tombstone");
    assert_eq!(s.inside(tcp(S, C).seq(5001).ack(1001)), "tombstone");
    assert_eq!(s.outside(tcp("198.51.100.9:40001", S).syn()), "new by web#0");
    assert_eq!(s.inside(tcp("10.0.0.1:6001", "192.0.2.1:80").syn()), "no-rule");
}

#[test]
fn tombstone_5_2_it_lasts_until_the_deadline_that_it_had_and_nothing_moves_or_ends_it_sooner() {
    let mut s = Scenario::new(&one(&[SSH, OUT]));
    s.connect(C, S);
    s.at(100.0);
    s.apply(&one(&[SSH, DNS, OUT]));
    for second in [100, 200, 400, 599] {
        s.at(f64::from(second));
        assert_eq!(s.outside(tcp(C, S).syn().seq(77)), "tombstone");
        assert_eq!(s.outside(tcp(C, S).rst().seq(1001)), "tombstone");
        assert_eq!(s.inside(tcp(S, C).fin().seq(5001).ack(1001)), "tombstone");
        assert_eq!(s.inside(tcp(S, C).rst().seq(5001)), "tombstone");
        assert_eq!(s.inside(tcp(S, C).syn().seq(1)), "tombstone", "nor may the server reopen it as outbound");
        assert_eq!(
            s.connections(),
            [format!("a inbound 6 10.0.0.1:22 198.51.100.9:40000 established {}.0 tombstone", 600 - second)]
        );
    }
    s.at(600.5);
    assert_eq!(s.outside(tcp(C, S).syn().seq(77)), "new by web#0");
}

#[test]
fn tombstone_5_2_after_it_the_rules_of_now_decide() {
    let mut s = Scenario::new(&one(&[DNS, OUT]));
    s.outside(udp(Q, D));
    s.apply(&one(&[OUT]));
    assert_eq!(s.outside(udp(Q, D)), "tombstone");
    s.wait(30.25);
    assert_eq!(s.outside(udp(Q, D)), "no-rule");
    s.apply(&one(&[DNS, OUT]));
    assert_eq!(s.outside(udp(Q, D)), "new by web#0");
}

#[test]
fn tombstone_5_2_the_servers_packet_does_not_reopen_it_as_outbound_for_udp_icmp_and_others() {
    let gre_in = "{direction: inbound, protocol: gre}";
    let mut s = Scenario::new(&one(&[DNS, PING, gre_in, OUT]));
    s.outside(udp(Q, D));
    s.inside(udp(D, Q));
    s.outside(echo_request("198.51.100.9", "10.0.0.1", 7, 1));
    s.outside(gre("198.51.100.9", "10.0.0.1", 0x800, b""));
    s.apply(&one(&[DNS, PING, gre_in, SSH, OUT]));
    assert_eq!(s.inside(udp(D, Q)), "tombstone");
    assert_eq!(s.inside(echo_reply("10.0.0.1", "198.51.100.9", 7, 1)), "tombstone");
    assert_eq!(s.inside(gre("10.0.0.1", "198.51.100.9", 0x800, b"")), "tombstone");
    assert!(s.connections().iter().all(|line| line.contains(" inbound ") && line.ends_with("tombstone")));
}

#[test]
fn tombstone_5_2_rejudge_setting_keeps_what_todays_rules_allow() {
    let mut s = Scenario::with("[policy]\non_flush = \"rejudge\"\n", &one(&[SSH, DNS, OUT]));
    s.connect(C, S);
    s.outside(udp(Q, D));
    let (flushed, rejudged) = s.apply(&one(&[SSH, OUT]));
    assert_eq!((flushed.len(), rejudged), (0, vec!["a".to_owned()]));
    assert_eq!(data(&mut s), "established");
    assert_eq!(s.outside(udp(Q, D)), "tombstone");
}

#[test]
fn outbound_5_3_lives_on_whatever_changes() {
    let text = |rules: &[&str], office: &str, groups: &[&str]| {
        policy(&[("web", rules), ("other", &[DNS])], &[("a", "10.0.0.1", groups)])
            + &format!("address_groups: [{{name: office, addresses: [{office}]}}]\n")
    };
    let to_office = "{direction: outbound, remote_address_group: office}";
    let from_office = "{direction: inbound, remote_address_group: office}";
    let (c, w) = ("10.0.0.1:6000", "192.0.2.1:80");
    let mut s = Scenario::new(&text(&[to_office, from_office], "192.0.2.0/24", &["web"]));
    s.inside(tcp(c, w).syn().seq(1));
    s.outside(tcp(w, c).syn().seq(9).ack(2));
    assert_eq!(s.inside(tcp(c, w).seq(2).ack(10)), "established");
    s.inside(udp("10.0.0.1:7", "192.0.2.1:7"));
    for after in [
        text(&[to_office, from_office], "", &["web"]),
        text(&[], "", &["web"]),
        text(&[], "", &["other"]),
        text(&[], "", &[]),
    ] {
        s.apply(&after);
        assert_eq!(s.inside(tcp(c, w).seq(2).ack(10)), "established");
        assert_eq!(s.outside(tcp(w, c).seq(10).ack(2)), "established");
        assert_eq!(s.inside(udp("10.0.0.1:7", "192.0.2.1:7")), "established", "heard from one side only");
    }
    assert_eq!(s.inside(tcp(c, w).fin().seq(2).ack(10)), "established");
}

const FROM_OFFICE: &str = "{direction: inbound, protocol: udp, ports: 53, remote_address_group: office}";

fn office(rules: &[&str], addresses: &str) -> String {
    one(rules) + &format!("address_groups: [{{name: office, addresses: [{addresses}]}}]\n")
}

#[test]
fn rejudge_5_4_an_address_group_that_shrinks_makes_tombstones_of_whom_it_no_longer_names() {
    let text = |addresses: &str| office(&[FROM_OFFICE, OUT], addresses);
    let mut s = Scenario::new(&text("198.51.100.0/24, 203.0.113.0/24"));
    s.outside(udp(Q, D));
    s.outside(udp("203.0.113.9:5000", D));
    let (flushed, rejudged) = s.apply(&text("198.51.100.0/24"));
    assert_eq!((flushed.len(), rejudged), (0, vec!["a".to_owned()]));
    s.wait(1.0);
    assert_eq!(s.outside(udp(Q, D)), "established");
    assert_eq!(s.outside(udp("203.0.113.9:5000", D)), "tombstone");
    s.apply(&text("198.51.100.0/24, 203.0.113.0/24"));
    assert_eq!(s.outside(udp("203.0.113.9:5000", D)), "tombstone", "once refused");
    s.wait(28.9);
    assert_eq!(s.inside(udp(D, "203.0.113.9:5000")), "tombstone", "until the deadline that it had");
    s.wait(0.4);
    assert_eq!(s.outside(udp("203.0.113.9:5000", D)), "new by web#0");
}

#[test]
fn rejudge_5_4_at_the_next_packet_of_then_and_not_before() {
    let text = |addresses: &str| office(&[FROM_OFFICE, OUT], addresses);
    let mut s = Scenario::new(&text("198.51.100.0/24"));
    s.outside(udp(Q, D));
    s.apply(&text(""));
    s.apply(&text("198.51.100.0/24"));
    assert_eq!(s.outside(udp(Q, D)), "established", "no packet came while it was refused");
}

#[test]
fn rejudge_5_4_members_and_addresses_of_a_referenced_group_count() {
    let text = |app: &str, address: &str| {
        policy(
            &[
                ("db", &["{direction: inbound, protocol: udp, remote_group: app}"]),
                ("app", &[OUT]),
                ("x", &[]),
            ],
            &[("db-1", "10.0.0.1", &["db"]), ("app-1", address, &[app])],
        )
    };
    let packet = || udp("10.0.0.2:5", "10.0.0.1:5");
    let mut s = Scenario::new(&text("app", "10.0.0.2"));
    assert_eq!(s.outside(packet()), "new by db#0");
    let (flushed, rejudged) = s.apply(&text("app", "10.0.0.2, 10.0.0.3"));
    assert_eq!((flushed.len(), rejudged), (0, vec!["db-1".to_owned()]));
    assert_eq!(s.outside(packet()), "established");
    s.apply(&text("app", "10.0.0.3"));
    assert_eq!(s.outside(packet()), "tombstone", "its address");
    let mut s = Scenario::new(&text("app", "10.0.0.2"));
    s.outside(packet());
    s.apply(&text("x", "10.0.0.2"));
    assert_eq!(s.outside(packet()), "tombstone", "its members");
}

#[test]
fn rejudge_5_4_a_peering_counts() {
    let text = |peers: &str| {
        format!(
            "
vpcs:
  - {{name: one, segment: {{vlan: 1}}{peers}}}
  - {{name: two, segment: {{vlan: 2}}}}
security_groups: [{{name: app, rules: [{{direction: inbound, remote_group: app}}]}}]
nics:
  - {{name: a, vpc: one, addresses: [10.0.0.1], security_groups: [app]}}
  - {{name: b, vpc: two, addresses: [10.0.0.2], security_groups: [app]}}
"
        )
    };
    let packet = || udp("10.0.0.2:5", "10.0.0.1:5").vlan(1);
    let mut s = Scenario::new(&text(", peers: [two]"));
    assert_eq!(s.outside(packet()), "new by app#0");
    let (flushed, rejudged) = s.apply(&text(""));
    assert_eq!((flushed.len(), rejudged), (0, vec!["a".to_owned(), "b".to_owned()]));
    assert_eq!(s.outside(packet()), "tombstone");
}

#[test]
fn rejudge_5_4_by_the_packet_that_opened_it_of_icmp_by_type_and_code() {
    let exactly = "{direction: inbound, protocol: icmp, icmp_type: 8, icmp_code: 5}";
    let from_office = "{direction: inbound, protocol: icmp, remote_address_group: office}";
    let with_code = |code: u8| echo_request("198.51.100.9", "10.0.0.1", u16::from(code), 1).code(code);
    let mut s = Scenario::new(&office(&[from_office, exactly], "198.51.100.0/24"));
    s.outside(with_code(5));
    s.outside(with_code(6));
    s.apply(&office(&[from_office, exactly], ""));
    assert_eq!(s.outside(with_code(5)), "established");
    assert_eq!(s.outside(with_code(6)), "tombstone");
    let on_53 = "{direction: inbound, protocol: udp, ports: 53}";
    let all = "{direction: inbound, remote_address_group: office}";
    let mut s = Scenario::new(&office(&[all, on_53], "198.51.100.0/24"));
    s.outside(udp(Q, D));
    s.outside(udp("198.51.100.9:53", "10.0.0.1:5000"));
    s.apply(&office(&[all, on_53], ""));
    assert_eq!(s.inside(udp(D, Q)), "established", "the port of the packet that opened it, not of this one");
    assert_eq!(s.inside(udp("10.0.0.1:5000", "198.51.100.9:53")), "tombstone");
}

#[test]
fn rejudge_5_4_by_all_rules_of_then() {
    let by_prefix = "{direction: inbound, protocol: udp, remote: 198.51.100.0/24}";
    let mut s = Scenario::new(&office(&[FROM_OFFICE, by_prefix], "198.51.100.0/24"));
    s.outside(udp(Q, D));
    s.apply(&office(&[FROM_OFFICE, by_prefix], ""));
    assert_eq!(s.outside(udp(Q, D)), "established", "another rule allows it");
    let banned = "{direction: inbound, action: deny, priority: 1, remote_address_group: office}";
    let mut s = Scenario::new(&office(&[DNS, banned], ""));
    s.outside(udp(Q, D));
    s.apply(&office(&[DNS, banned], "198.51.100.0/24"));
    assert_eq!(s.outside(udp(Q, D)), "tombstone", "a denying one comes first");
}

#[test]
fn rejudge_5_4_before_anything_else_about_the_packet() {
    let from_office = "{direction: inbound, remote_address_group: office}";
    for packet in [tcp(C, S).seq(900_000).ack(5001), tcp(C, S).rst().seq(1001), tcp(C, S).syn().seq(7)] {
        let mut s = Scenario::new(&office(&[from_office], "198.51.100.0/24"));
        s.connect(C, S);
        s.apply(&office(&[from_office], ""));
        assert_eq!(s.outside(packet), "tombstone");
        assert_eq!(data(&mut s), "tombstone");
    }
}

#[test]
fn rejudge_5_4_concerns_only_whose_inbound_rules_refer_to_what_changed() {
    let text = |addresses: &str| {
        policy(
            &[
                ("web", &[FROM_OFFICE]),
                ("out", &[DNS, "{direction: outbound, remote_address_group: office}"]),
                ("apart", &[DNS]),
            ],
            &[("a", "10.0.0.1", &["web"]), ("b", "10.0.0.2", &["out"]), ("c", "10.0.0.3", &["apart"])],
        ) + &format!(
            "address_groups: [{{name: office, addresses: [{addresses}]}}, {{name: other, addresses: []}}]\n"
        )
    };
    let mut s = Scenario::new(&text("198.51.100.0/24"));
    assert_eq!(s.apply(&text("")).1, ["a"]);
    let other = text("").replace("other, addresses: []", "other, addresses: [192.0.2.1]");
    assert!(s.apply(&other).1.is_empty());
}

#[test]
fn identity_5_5_a_nic_that_is_deleted_ends_its_connections_and_one_made_anew_inherits_none() {
    let with = one(&[DNS, OUT]);
    let without = policy(&[("web", &[DNS, OUT])], &[("b", "10.0.0.9", &["web"])]);
    let mut s = Scenario::new(&with);
    s.outside(udp(Q, D));
    s.inside(udp("10.0.0.1:7", "192.0.2.1:7"));
    s.apply(&without);
    assert_eq!(s.outside(udp(Q, D)), "unknown-destination");
    assert!(s.connections().is_empty());
    s.apply(&with);
    assert_eq!(s.outside(udp("192.0.2.1:7", "10.0.0.1:7")), "no-rule");
    assert_eq!(s.outside(udp(Q, D)), "new by web#0");
}

#[test]
fn identity_5_5_a_nic_moved_to_another_vpc_inherits_none() {
    let text = |vpc: &str| {
        one(&[DNS, OUT])
            .replace(
                "[{name: prod, segment: {untagged: true}}]",
                "[{name: prod, segment: {vlan: 1}}, {name: far, segment: {vlan: 2}}]",
            )
            .replace("vpc: prod,", &format!("vpc: {vpc},"))
    };
    let mut s = Scenario::new(&text("prod"));
    s.inside(udp("10.0.0.1:7", "192.0.2.1:7").vlan(1));
    s.apply(&text("far"));
    assert_eq!(s.outside(udp("192.0.2.1:7", "10.0.0.1:7").vlan(2)), "no-rule");
    s.apply(&text("prod"));
    assert_eq!(s.outside(udp("192.0.2.1:7", "10.0.0.1:7").vlan(1)), "no-rule", "nor does it when it is back");
}

#[test]
fn identity_5_5_an_address_taken_away_ends_its_connections_also_if_it_comes_back() {
    let two = |addresses: &str| policy(&[("web", &[DNS, OUT])], &[("a", addresses, &["web"])]);
    let mut s = Scenario::new(&two("10.0.0.1, 10.0.0.2"));
    s.inside(udp("10.0.0.2:7", "192.0.2.1:7"));
    s.inside(udp("10.0.0.1:7", "192.0.2.1:7"));
    s.apply(&two("10.0.0.2"));
    assert_eq!(s.connections().len(), 1);
    s.apply(&two("10.0.0.1, 10.0.0.2"));
    assert_eq!(s.outside(udp("192.0.2.1:7", "10.0.0.1:7")), "no-rule");
    assert_eq!(s.outside(udp("192.0.2.1:7", "10.0.0.2:7")), "established");
}

#[test]
fn identity_5_5_another_mac_limit_or_description_touches_no_connection() {
    let nic = |more: &str| {
        one(&[DNS, OUT]).replace("addresses: [10.0.0.1],", &format!("addresses: [10.0.0.1], {more}"))
    };
    for more in ["mac: \"02:00:00:00:00:01\",", "max_connections: 5,", "description: x,"] {
        let mut s = Scenario::new(&nic(""));
        s.outside(udp(Q, D));
        let (flushed, rejudged) = s.apply(&nic(more));
        assert!(flushed.is_empty() && rejudged.is_empty(), "{more}");
        assert_eq!(s.generation(), 2, "{more} is a change");
        assert_eq!(s.outside(udp(Q, D)), "established");
    }
}

#[test]
fn nothing_5_6_applying_what_is_in_force_changes_and_flushes_nothing() {
    let mut s = Scenario::new(&one(&[SSH, OUT]));
    s.connect(C, S);
    let before = s.generation();
    assert!(s.apply(&one(&[SSH, OUT])).0.is_empty());
    assert_eq!(s.generation(), before);
    assert_eq!(data(&mut s), "established");
}

#[test]
fn flush_5_1_between_two_packets_of_one_burst_there_is_no_change() {
    let mut s = Scenario::new(&one(&[DNS, OUT]));
    let frames = [(Side::Outside, udp(Q, D).frame()), (Side::Inside, udp(D, Q).frame())];
    assert_eq!(s.burst(&frames), ["new by web#0", "established"]);
    s.apply(&one(&[DNS, SSH, OUT]));
    assert_eq!(s.burst(&frames), ["tombstone", "tombstone"]);
}
