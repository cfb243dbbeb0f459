//! Semantics §3.3–3.7, §5 and §6: rules, changes, limits.

use testkit::frame::*;
use testkit::scenario::Scenario;

/// A policy of one VPC, of these groups (as rule lists) and these NICs.
fn policy(groups: &[(&str, &[&str])], nics: &[(&str, &str, &[&str])]) -> String {
    let mut text = String::from("vpcs: [{name: prod, segment: {untagged: true}}]\nsecurity_groups:\n");
    for (name, rules) in groups {
        text += &format!("  - {{name: {name}, rules: [{}]}}\n", rules.join(", "));
    }
    text += "nics:\n";
    for (name, address, groups) in nics {
        text += &format!(
            "  - {{name: {name}, vpc: prod, addresses: [{address}], security_groups: [{}]}}\n",
            groups.join(", ")
        );
    }
    text
}

const SSH: &str = "{direction: inbound, protocol: tcp, ports: 22}";
const DNS: &str = "{direction: inbound, protocol: udp, ports: 53}";
const PING: &str = "{direction: inbound, protocol: icmp}";
const OUT: &str = "{direction: outbound}";
const OUT6: &str = "{direction: outbound, ethertype: IPv6}";

const C: &str = "198.51.100.9:40000";
const S: &str = "10.0.0.1:22";

fn one(rules: &[&str]) -> String {
    policy(&[("web", rules)], &[("a", "10.0.0.1", &["web"])])
}

fn connect(s: &mut Scenario, client: &str, server: &str) {
    s.outside(tcp(client, server).syn().seq(1000));
    s.inside(tcp(server, client).syn().seq(5000).ack(1001));
    assert_eq!(s.outside(tcp(client, server).seq(1001).ack(5001)), "established");
}

#[test]
fn rules_3_3_priority_then_deny_then_order_of_groups_and_positions() {
    let allow_all = "{direction: inbound, protocol: tcp}";
    let deny = "{direction: inbound, protocol: tcp, ports: 22, action: deny}";
    let deny_first = "{direction: inbound, protocol: tcp, ports: 23, action: deny, priority: 10}";
    let allow_first = "{direction: inbound, protocol: tcp, ports: 23, priority: 9, remote: 198.51.100.0/24}";
    let mut s = Scenario::new(&policy(
        &[("x", &[allow_all, deny_first]), ("y", &[deny, allow_first])],
        &[("a", "10.0.0.1", &["x", "y"])],
    ));
    assert_eq!(s.outside(tcp(C, "10.0.0.1:22").syn()), "denied by y#0");
    assert_eq!(s.outside(tcp(C, "10.0.0.1:23").syn()), "new by y#1");
    assert_eq!(s.outside(tcp("203.0.113.1:1", "10.0.0.1:23").syn()), "denied by x#1");
    assert_eq!(s.outside(tcp(C, "10.0.0.1:24").syn()), "new by x#0");
}

#[test]
fn rules_3_4_port_0_is_matched_only_without_ports() {
    let mut s = Scenario::new(&one(&["{direction: inbound, protocol: udp, ports: 1-65535}"]));
    assert_eq!(s.outside(udp("198.51.100.9:0", "10.0.0.1:0")), "no-rule");
    s.apply(&one(&["{direction: inbound, protocol: udp}"]));
    assert_eq!(s.outside(udp("198.51.100.9:0", "10.0.0.1:0")), "new by web#0");
}

#[test]
fn rules_3_5_a_group_is_its_members_addresses_in_the_vpc_and_one_hop_of_peering() {
    let text = r#"
vpcs:
  - {name: one, segment: {vlan: 1}, peers: [two]}
  - {name: two, segment: {vlan: 2}, peers: [three]}
  - {name: three, segment: {vlan: 3}}
security_groups:
  - {name: db, rules: [{direction: inbound, protocol: tcp, remote_group: app}]}
  - {name: app}
nics:
  - {name: db-1, vpc: one, addresses: [10.1.0.1], security_groups: [db]}
  - {name: app-1, vpc: one, addresses: [10.1.0.2], allowed_addresses: [10.1.0.3], security_groups: [app]}
  - {name: app-2, vpc: two, addresses: [10.2.0.2], security_groups: [app]}
  - {name: app-3, vpc: three, addresses: [10.3.0.2], security_groups: [app]}
"#;
    let mut s = Scenario::new(text);
    let mut from =
        |source: &str| s.outside(tcp(format!("{source}:5000").as_str(), "10.1.0.1:5432").syn().vlan(1));
    assert_eq!(from("10.1.0.2"), "new by db#0");
    assert_eq!(from("10.1.0.3"), "new by db#0");
    assert_eq!(from("10.2.0.2"), "new by db#0");
    assert_eq!(from("10.3.0.2"), "no-rule");
    assert_eq!(from("10.9.9.9"), "no-rule");
}

#[test]
fn rules_3_7_the_default_group_lets_members_in_and_everything_out() {
    let text = "vpcs: [{name: prod, segment: {untagged: true}}]
nics:
  - {name: a, vpc: prod, addresses: [10.0.0.1]}
  - {name: b, vpc: prod, addresses: [10.0.0.2]}
  - {name: shut, vpc: prod, addresses: [10.0.0.3], security_groups: []}
";
    let mut s = Scenario::new(text);
    assert_eq!(s.outside(udp("10.0.0.2:1", "10.0.0.1:1")), "new by default#0");
    assert_eq!(s.outside(udp("192.0.2.1:1", "10.0.0.1:1")), "no-rule");
    assert_eq!(s.inside(udp("10.0.0.1:9", "192.0.2.1:9")), "new by default#1");
    assert_eq!(s.inside(udp("10.0.0.3:9", "192.0.2.1:9")), "no-rule");
    assert_eq!(s.outside(udp("10.0.0.2:9", "10.0.0.3:9")), "no-rule");
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
fn flush_5_1_any_rule_of_the_group_disconnects_inbound_and_leaves_outbound_alive() {
    let mut s = Scenario::new(&one(&[SSH, OUT]));
    connect(&mut s, C, S);
    s.inside(tcp("10.0.0.1:6000", "192.0.2.1:80").syn().seq(1));
    s.outside(tcp("192.0.2.1:80", "10.0.0.1:6000").syn().seq(9).ack(2));
    assert_eq!(s.inside(tcp("10.0.0.1:6000", "192.0.2.1:80").seq(2).ack(10)), "established");
    assert_eq!(s.apply(&one(&[SSH, OUT6])).0, ["a"]);
    assert_eq!(s.outside(tcp(C, S).seq(1001).ack(5001)), "tombstone");
    assert_eq!(s.inside(tcp(S, C).seq(5001).ack(1001)), "tombstone");
    assert_eq!(s.inside(tcp("10.0.0.1:6000", "192.0.2.1:80").seq(2).ack(10)), "established");
    assert_eq!(s.inside(tcp("10.0.0.1:6001", "192.0.2.1:80").syn()), "no-rule");
    assert_eq!(s.outside(tcp("198.51.100.9:40001", S).syn()), "new by web#0");
}

#[test]
fn flush_5_1_reordering_descriptions_and_spelling_are_no_change() {
    let v4 = "{direction: inbound, protocol: tcp, ports: 22, ethertype: IPv4}";
    let spelled = "{direction: inbound, protocol: 6, ports: 22-22, remote: 0.0.0.0/0, description: hi}";
    let mut s = Scenario::new(&one(&[v4, OUT]));
    connect(&mut s, C, S);
    assert!(s.apply(&one(&[OUT, spelled])).0.is_empty());
    assert_eq!(s.outside(tcp(C, S).seq(1001).ack(5001)), "established");
    let before = s.generation();
    s.apply(&one(&[OUT, spelled]));
    assert_eq!(s.generation(), before, "5.6: identical is nothing");
}

#[test]
fn flush_5_1_membership_flushes_the_group_or_only_who_moved() {
    let both = |b: &[&str]| {
        policy(
            &[("web", &[SSH, OUT]), ("other", &[OUT])],
            &[("a", "10.0.0.1", &["web"]), ("b", "10.0.0.2", b)],
        )
    };
    for (config, flushed_by_join) in
        [("", vec!["a", "b"]), ("[policy]\nflush_scope = \"joined\"\n", vec!["b"])]
    {
        let mut s = Scenario::with(config, &both(&["other"]));
        connect(&mut s, C, S);
        assert_eq!(s.apply(&both(&["other", "web"])).0, flushed_by_join);
        assert_eq!(s.apply(&both(&["other"])).0, flushed_by_join, "leaving counts like joining");
        let expected = if config.is_empty() { "tombstone" } else { "established" };
        assert_eq!(s.outside(tcp(C, S).seq(1001).ack(5001)), expected);
    }
}

#[test]
fn flush_5_1_inbound_rules_narrows_rule_changes_to_inbound_ones() {
    let mut s = Scenario::with("[policy]\ninbound_flush = \"inbound-rules\"\n", &one(&[SSH, OUT]));
    connect(&mut s, C, S);
    assert!(s.apply(&one(&[SSH, OUT6])).0.is_empty());
    assert_eq!(s.outside(tcp(C, S).seq(1001).ack(5001)), "established");
    assert_eq!(s.apply(&one(&[SSH, DNS, OUT6])).0, ["a"]);
    assert_eq!(s.outside(tcp(C, S).seq(1001).ack(5001)), "tombstone");
}

#[test]
fn tombstone_5_2_nothing_moves_its_deadline_and_nothing_ends_it_sooner() {
    let mut s = Scenario::new(&one(&[SSH, OUT]));
    connect(&mut s, C, S);
    s.at(100.0);
    s.apply(&one(&[SSH, DNS, OUT]));
    for second in [100, 200, 400, 599] {
        s.at(f64::from(second));
        assert_eq!(s.outside(tcp(C, S).syn().seq(77)), "tombstone");
        assert_eq!(s.outside(tcp(C, S).rst().seq(1001)), "tombstone");
        assert_eq!(s.inside(tcp(S, C).fin().seq(5001).ack(1001)), "tombstone");
        assert_eq!(s.inside(tcp(S, C).syn().seq(1)), "tombstone", "nor may the server reopen it as outbound");
    }
    s.at(600.5);
    assert_eq!(s.outside(tcp(C, S).syn().seq(77)), "new by web#0");
}

#[test]
fn tombstone_5_2_the_servers_packet_does_not_reopen_it_as_outbound_for_udp_and_icmp() {
    let mut s = Scenario::new(&one(&[DNS, PING, OUT]));
    s.outside(udp("198.51.100.9:5000", "10.0.0.1:53"));
    s.inside(udp("10.0.0.1:53", "198.51.100.9:5000"));
    s.outside(echo_request("198.51.100.9", "10.0.0.1", 7, 1));
    s.apply(&one(&[DNS, PING, SSH, OUT]));
    assert_eq!(s.inside(udp("10.0.0.1:53", "198.51.100.9:5000")), "tombstone");
    assert_eq!(s.inside(echo_reply("10.0.0.1", "198.51.100.9", 7, 1)), "tombstone");
}

#[test]
fn tombstone_5_2_icmp_errors_about_it_are_invalid_and_its_fragments_forgotten() {
    let mut s = Scenario::new(&one(&[DNS, OUT]));
    let whole = udp("198.51.100.9:5000", "10.0.0.1:53").id(9).payload(vec![1; 3000]);
    let pieces = whole.fragments(1000);
    s.bytes(engine::Side::Outside, pieces[0].clone());
    s.apply(&one(&[DNS, SSH, OUT]));
    assert_eq!(s.bytes(engine::Side::Outside, pieces[1].clone()), "fragment-no-first");
    let quoted = udp("10.0.0.1:53", "198.51.100.9:5000").packet();
    assert_eq!(s.outside(icmp_error("192.0.2.254", "10.0.0.1", 3, 1, &quoted)), "invalid");
}

#[test]
fn flush_5_2_rejudge_setting_keeps_what_todays_rules_allow() {
    let mut s = Scenario::with("[policy]\non_flush = \"rejudge\"\n", &one(&[SSH, DNS, OUT]));
    connect(&mut s, C, S);
    s.outside(udp("198.51.100.9:5000", "10.0.0.1:53"));
    let (flushed, rejudged) = s.apply(&one(&[SSH, OUT]));
    assert_eq!((flushed.len(), rejudged), (0, vec!["a".to_owned()]));
    assert_eq!(s.outside(tcp(C, S).seq(1001).ack(5001)), "established");
    assert_eq!(s.outside(udp("198.51.100.9:5000", "10.0.0.1:53")), "tombstone");
}

#[test]
fn rejudge_5_4_an_address_group_that_shrinks_makes_tombstones_of_whom_it_no_longer_names() {
    let text = |addresses: &str| {
        one(&["{direction: inbound, protocol: udp, ports: 53, remote_address_group: office}", OUT])
            + &format!("address_groups: [{{name: office, addresses: [{addresses}]}}]\n")
    };
    let mut s = Scenario::new(&text("198.51.100.0/24, 203.0.113.0/24"));
    s.outside(udp("198.51.100.9:5000", "10.0.0.1:53"));
    s.outside(udp("203.0.113.9:5000", "10.0.0.1:53"));
    s.inside(udp("10.0.0.1:999", "203.0.113.9:999"));
    let (flushed, rejudged) = s.apply(&text("198.51.100.0/24"));
    assert_eq!((flushed.len(), rejudged), (0, vec!["a".to_owned()]));
    s.wait(1.0);
    assert_eq!(s.outside(udp("198.51.100.9:5000", "10.0.0.1:53")), "established");
    assert_eq!(s.outside(udp("203.0.113.9:5000", "10.0.0.1:53")), "tombstone");
    assert_eq!(s.outside(udp("203.0.113.9:999", "10.0.0.1:999")), "established", "5.3: outbound lives on");
    s.apply(&text("198.51.100.0/24, 203.0.113.0/24"));
    assert_eq!(s.outside(udp("203.0.113.9:5000", "10.0.0.1:53")), "tombstone");
    s.wait(29.5);
    assert_eq!(s.outside(udp("203.0.113.9:5000", "10.0.0.1:53")), "new by web#0");
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
    let mut s = Scenario::new(&text("app", "10.0.0.2"));
    assert_eq!(s.outside(udp("10.0.0.2:5", "10.0.0.1:5")), "new by db#0");
    let (flushed, rejudged) = s.apply(&text("app", "10.0.0.2, 10.0.0.3"));
    assert_eq!((flushed.len(), rejudged), (0, vec!["db-1".to_owned()]));
    assert_eq!(s.outside(udp("10.0.0.2:5", "10.0.0.1:5")), "established");
    s.apply(&text("x", "10.0.0.2"));
    assert_eq!(s.outside(udp("10.0.0.2:5", "10.0.0.1:5")), "tombstone");
}

#[test]
fn identity_5_5_a_nic_or_address_that_comes_back_inherits_nothing() {
    let with = one(&[DNS, OUT]);
    let without = policy(&[("web", &[DNS, OUT])], &[("b", "10.0.0.9", &["web"])]);
    let mut s = Scenario::new(&with);
    s.outside(udp("198.51.100.9:5000", "10.0.0.1:53"));
    s.inside(udp("10.0.0.1:7", "192.0.2.1:7"));
    s.apply(&without);
    assert_eq!(s.outside(udp("198.51.100.9:5000", "10.0.0.1:53")), "unknown-destination");
    assert!(s.connections().is_empty());
    s.apply(&with);
    assert_eq!(s.outside(udp("192.0.2.1:7", "10.0.0.1:7")), "no-rule");
    assert_eq!(s.outside(udp("198.51.100.9:5000", "10.0.0.1:53")), "new by web#0");

    let two = |addresses: &str| policy(&[("web", &[DNS, OUT])], &[("a", addresses, &["web"])]);
    let mut s = Scenario::new(&two("10.0.0.1, 10.0.0.2"));
    s.inside(udp("10.0.0.2:7", "192.0.2.1:7"));
    s.inside(udp("10.0.0.1:7", "192.0.2.1:7"));
    s.apply(&two("10.0.0.1"));
    s.apply(&two("10.0.0.1, 10.0.0.2"));
    assert_eq!(s.outside(udp("192.0.2.1:7", "10.0.0.2:7")), "no-rule");
    assert_eq!(s.outside(udp("192.0.2.1:7", "10.0.0.1:7")), "established");
}

#[test]
fn identity_5_5_another_mac_limit_or_description_touches_no_connection() {
    let nic = |more: &str| {
        one(&[DNS, OUT]).replace("addresses: [10.0.0.1],", &format!("addresses: [10.0.0.1], {more}"))
    };
    let mut s = Scenario::new(&nic(""));
    s.outside(udp("198.51.100.9:5000", "10.0.0.1:53"));
    assert!(s.apply(&nic("mac: \"02:00:00:00:00:01\", max_connections: 5, description: x,")).0.is_empty());
    assert_eq!(s.outside(udp("198.51.100.9:5000", "10.0.0.1:53")), "established");
}

#[test]
fn limits_6_2_a_nics_limit_counts_tombstones_and_comes_after_the_rules() {
    let nic = |more: &str, rules: &[&str]| {
        one(rules).replace("addresses: [10.0.0.1],", &format!("addresses: [10.0.0.1], {more}"))
    };
    let mut s = Scenario::new(&nic("max_connections: 2,", &[DNS, OUT]));
    let c = |n: u16| udp(("198.51.100.9", n), "10.0.0.1:53");
    s.outside(c(1));
    s.outside(c(2));
    assert_eq!(s.outside(c(3)), "nic-limit");
    assert_eq!(s.outside(udp("198.51.100.9:3", "10.0.0.1:54")), "no-rule");
    assert_eq!(s.outside(c(1)), "established");
    s.apply(&nic("max_connections: 2,", &[DNS, SSH, OUT]));
    assert_eq!(s.outside(c(3)), "nic-limit");
    s.wait(30.5);
    assert_eq!(s.outside(c(3)), "new by web#0");
}

#[test]
fn pressure_6_1_a_full_table_gives_up_expired_then_unconfirmed_never_established_tombstones_last() {
    let config = "[conntrack]\ncapacity = 4\nunconfirmed_share = 1.0\n";
    let mut s = Scenario::with(config, &one(&[SSH, DNS, OUT]));
    let c = |n: u16| udp(("198.51.100.9", n), "10.0.0.1:53");
    let reply = |n: u16| udp("10.0.0.1:53", ("198.51.100.9", n));
    for n in 1..=4 {
        s.outside(c(n));
        s.wait(1.0);
    }
    s.inside(reply(1));
    assert_eq!(s.outside(c(5)), "new by web#1", "in the place of the oldest unconfirmed, 2");
    let ports = |s: &mut Scenario| {
        s.connections()
            .iter()
            .filter_map(|l| l.split(' ').nth(4)?.split(':').next_back()?.parse().ok())
            .collect::<Vec<u16>>()
    };
    assert_eq!(ports(&mut s), [1, 3, 4, 5]);
    for n in [3, 4, 5] {
        s.inside(reply(n));
    }
    assert_eq!(s.outside(c(6)), "table-full");
    s.apply(&one(&[SSH, DNS, PING, OUT]));
    assert_eq!(s.outside(c(6)), "new by web#1", "a tombstone goes when nothing else may");
    assert_eq!(s.len(), 4);
}

#[test]
fn pressure_6_1_unconfirmed_ones_hold_at_most_their_share() {
    let config = "[conntrack]\ncapacity = 10\nunconfirmed_share = 0.3\n";
    let mut s = Scenario::with(config, &one(&[DNS, OUT]));
    for n in 1..=20u16 {
        assert_eq!(s.outside(udp(("198.51.100.9", n), "10.0.0.1:53")), "new by web#0");
    }
    assert_eq!(s.len(), 3);
}

#[test]
fn pressure_6_1_ninety_percent_of_the_capacity_is_usable_in_either_family_and_it_is_never_exceeded() {
    for six in [false, true] {
        let config = "[conntrack]\ncapacity = 1000\nunconfirmed_share = 1.0\n";
        let text = policy(&[("web", &[DNS, OUT])], &[("a", "10.0.0.1, \"2001:db8::1\"", &["web"])]);
        let mut s = Scenario::with(config, &text);
        for n in 1..=1000u16 {
            let (c, d) =
                if six { ("2001:db8:9::9", "[2001:db8::1]:53") } else { ("198.51.100.9", "10.0.0.1:53") };
            assert_eq!(s.outside(udp((c, n), d)), "new by web#0");
            assert_eq!(s.inside(udp(d, (c, n))), "established");
        }
        assert_eq!(s.len(), 1000);
        let d = if six { "[2001:db8::1]:53" } else { "10.0.0.1:53" };
        let c = if six { "2001:db8:9::9" } else { "198.51.100.9" };
        assert_eq!(s.outside(udp((c, 2000), d)), "table-full");
    }
}

#[test]
fn observe_2_8_judges_and_tracks_as_it_would_and_lets_everything_pass() {
    let mut s = Scenario::with("[policy]\nmode = \"observe\"\n", &one(&[DNS, OUT]));
    assert_eq!(s.outside(tcp(C, S).syn()), "no-rule (observed)");
    assert!(s.passed());
    assert!(s.connections().is_empty());
    s.outside(udp("198.51.100.9:5000", "10.0.0.1:53"));
    s.apply(&one(&[DNS, SSH, OUT]));
    assert_eq!(s.outside(udp("198.51.100.9:5000", "10.0.0.1:53")), "tombstone (observed)");
    assert!(s.passed());
}

#[test]
fn a_clock_that_jumps_a_year_and_timeouts_of_a_day_hold() {
    let config = "[timeouts]\ntwo_way = 86400\n";
    let mut s = Scenario::with(config, &one(&[DNS, OUT]));
    s.outside(udp("198.51.100.9:5000", "10.0.0.1:53"));
    s.inside(udp("10.0.0.1:53", "198.51.100.9:5000"));
    s.wait(86_399.0);
    assert_eq!(s.outside(udp("198.51.100.9:5000", "10.0.0.1:53")), "established");
    s.wait(86_400.5);
    assert_eq!(s.outside(udp("198.51.100.9:5000", "10.0.0.1:53")), "new by web#0");
    s.wait(365.0 * 86_400.0);
    assert_eq!(s.inside(udp("10.0.0.1:53", "198.51.100.9:5000")), "new by web#1");
    assert_eq!(s.len(), 1);
}
