//! Semantics §3: rules, groups, quotas.

use control::document::{Limits, parse_policy};
use testkit::frame::*;
use testkit::scenario::{Scenario, one, policy, rule::*};

const C: &str = "198.51.100.9:40000";

fn refused(document: &str) -> String {
    parse_policy(document, "policy", &Limits::default()).map(|_| ()).unwrap_err().to_string()
}

/// The verdict on a first UDP datagram to the NIC `a` under one inbound rule.
fn under(rule: &str, packet: impl Build) -> String {
    Scenario::new(&one(&[&format!("{{direction: inbound, {rule}}}")])).outside(packet)
}

#[test]
fn rules_3_1_a_direction() {
    let mut s = Scenario::new(&one(&["{direction: inbound, protocol: udp, ports: 53}"]));
    assert_eq!(s.outside(udp(C, "10.0.0.1:53")), "new by web#0");
    assert_eq!(s.inside(udp("10.0.0.1:9", "198.51.100.9:53")), "no-rule");
    assert!(refused(&one(&["{protocol: udp}"])).contains("direction"));
}

#[test]
fn rules_3_1_an_ethertype_or_both() {
    let both = |rule: &str| {
        let nic: &[_] = &[("a", "10.0.0.1, \"2001:db8::1\"", &["web"] as &[_])];
        let mut s = Scenario::new(&policy(&[("web", &[rule])], nic));
        [s.outside(udp(C, "10.0.0.1:53")), s.outside(udp("[2001:db8::9]:5", "[2001:db8::1]:53"))]
    };
    assert_eq!(both("{direction: inbound, ethertype: IPv4}"), ["new by web#0", "no-rule"]);
    assert_eq!(both("{direction: inbound, ethertype: IPv6}"), ["no-rule", "new by web#0"]);
    assert_eq!(both("{direction: inbound}"), ["new by web#0", "new by web#0"]);
    assert_eq!(both("{direction: inbound, remote: 0.0.0.0/0}"), ["new by web#0", "no-rule"]);
}

#[test]
fn rules_3_1_a_protocol_by_number_or_any() {
    let packet = |protocol| ip("198.51.100.9", "10.0.0.1", protocol);
    for number in [0, 47, 255] {
        assert_eq!(under(&format!("protocol: {number}"), packet(number)), "new by web#0");
        assert_eq!(under("protocol: any", packet(number)), "new by web#0");
        assert_eq!(under("protocol: 46", packet(number)), "no-rule");
    }
    assert!(refused(&one(&["{direction: inbound, protocol: 256}"])).contains("0-255"));
}

#[test]
fn rules_3_1_a_destination_port_or_range_within_1_to_65535() {
    let to = |port: u16| udp(C, ("10.0.0.1", port));
    for (port, verdict) in
        [(7999, "no-rule"), (8000, "new by web#0"), (8099, "new by web#0"), (8100, "no-rule")]
    {
        assert_eq!(under("protocol: udp, ports: 8000-8099", to(port)), verdict, "{port}");
    }
    for (port, verdict) in [(52, "no-rule"), (53, "new by web#0"), (54, "no-rule")] {
        assert_eq!(under("protocol: udp, ports: 53", to(port)), verdict, "{port}");
    }
    for port in [1, 65535] {
        assert_eq!(under("protocol: udp, ports: 1-65535", to(port)), "new by web#0");
    }
    for ports in ["0", "0-9", "65536"] {
        let rule = format!("{{direction: inbound, protocol: udp, ports: {ports}}}");
        assert!(refused(&one(&[&rule])).contains("1-65535"));
    }
}

#[test]
fn rules_3_1_of_icmp_type_and_code() {
    let message = |kind, code| icmp("198.51.100.9", "10.0.0.1", kind, code);
    assert_eq!(under("protocol: icmp, icmp_type: 8", message(8, 3)), "new by web#0");
    assert_eq!(under("protocol: icmp, icmp_type: 8", message(13, 3)), "no-rule");
    assert_eq!(under("protocol: icmp, icmp_type: 8, icmp_code: 0", message(8, 0)), "new by web#0");
    assert_eq!(under("protocol: icmp, icmp_type: 8, icmp_code: 0", message(8, 3)), "no-rule");
}

#[test]
fn rules_3_1_a_remote_is_a_prefix() {
    let from = |source: &str| udp((source, 5), "10.0.0.1:53");
    for (source, verdict) in [
        ("198.51.99.255", "no-rule"),
        ("198.51.100.0", "new by web#0"),
        ("198.51.100.255", "new by web#0"),
        ("198.51.101.0", "no-rule"),
    ] {
        assert_eq!(under("remote: 198.51.100.0/24", from(source)), verdict, "{source}");
    }
    assert_eq!(under("remote: 198.51.100.9", from("198.51.100.9")), "new by web#0");
    assert_eq!(under("remote: 198.51.100.9", from("198.51.100.8")), "no-rule");
}

#[test]
fn rules_3_1_a_remote_is_an_address_group() {
    let rules = [
        "{direction: inbound, remote_address_group: office}",
        "{direction: outbound, ethertype: IPv4, remote_address_group: office}",
    ];
    let text = policy(&[("web", &rules)], &[("a", "10.0.0.1, \"2001:db8::1\"", &["web"])])
        + "address_groups: [{name: office, addresses: [203.0.113.0/24, \"2001:db8:9::/48\", 198.51.100.7]}]\n";
    let mut s = Scenario::new(&text);
    let mut from = |source: &str| {
        let to = if source.contains(':') { "[2001:db8::1]:5" } else { "10.0.0.1:5" };
        s.outside(udp((source, 5), to))
    };
    assert_eq!(from("203.0.113.255"), "new by web#0");
    assert_eq!(from("198.51.100.7"), "new by web#0");
    assert_eq!(from("198.51.100.8"), "no-rule");
    assert_eq!(from("2001:db8:9:1::1"), "new by web#0");
    assert_eq!(from("2001:db8:a::1"), "no-rule");
    assert_eq!(s.inside(udp("10.0.0.1:9", "203.0.113.1:9")), "new by web#1");
    assert_eq!(s.inside(udp("[2001:db8::1]:9", "[2001:db8:9::1]:9")), "no-rule", "of the other family");
}

#[test]
fn rules_3_1_an_action_that_allows_and_a_priority_of_100_unless_said() {
    let with = |rule: &str| {
        Scenario::new(&one(&[IN, &format!("{{direction: inbound, {rule}}}")])).outside(udp(C, "10.0.0.1:53"))
    };
    assert_eq!(with("protocol: udp"), "new by web#0");
    assert_eq!(with("protocol: udp, action: deny"), "denied by web#1");
    assert_eq!(with("protocol: udp, action: deny, priority: 100"), "denied by web#1");
    let with = |priority: u8| {
        let allow = format!("{{direction: inbound, priority: {priority}}}");
        let s = &mut Scenario::new(&one(&["{direction: inbound, protocol: udp, action: deny}", &allow]));
        s.outside(udp(C, "10.0.0.1:53"))
    };
    assert_eq!(with(99), "new by web#1", "the deny is at 100");
    assert_eq!(with(1), "new by web#1");
    for priority in ["0", "101"] {
        let rule = format!("{{direction: inbound, priority: {priority}}}");
        assert!(refused(&one(&[&rule])).contains("1-100"), "{priority}");
    }
}

#[test]
fn rules_3_2_of_all_groups_count_and_without_any_both_directions_are_closed() {
    let mut s = Scenario::new(&policy(&[("x", &[DNS]), ("y", &[SSH])], &[("a", "10.0.0.1", &["x", "y"])]));
    assert_eq!(s.outside(udp(C, "10.0.0.1:53")), "new by x#0");
    assert_eq!(s.outside(tcp(C, "10.0.0.1:22").syn()), "new by y#0");
    assert_eq!(s.outside(tcp(C, "10.0.0.1:23").syn()), "no-rule");
    let mut s = Scenario::new(&one(&[]));
    assert_eq!(s.outside(udp(C, "10.0.0.1:53")), "no-rule");
    assert_eq!(s.inside(udp("10.0.0.1:53", C)), "no-rule");
}

#[test]
fn rules_3_3_the_order_of_allowing_rules_changes_no_verdict() {
    let rules = [
        SSH,
        DNS,
        "{direction: inbound, protocol: udp, priority: 3}",
        "{direction: inbound, remote: 192.0.2.0/24}",
    ];
    for order in [[0, 1, 2, 3], [3, 2, 1, 0], [2, 0, 3, 1]] {
        let mut s = Scenario::new(&one(&order.map(|n: usize| rules[n])));
        let passes = [
            s.outside(tcp(C, "10.0.0.1:22").syn()),
            s.outside(udp(C, "10.0.0.1:54")),
            s.outside(tcp("192.0.2.1:5", "10.0.0.1:80").syn()),
            s.outside(tcp(C, "10.0.0.1:80").syn()),
        ];
        assert_eq!(passes.map(|verdict| verdict.starts_with("new")), [true, true, true, false], "{order:?}");
    }
}

#[test]
fn rules_3_3_the_lowest_number_wins_and_at_the_same_one_deny() {
    let deny =
        |priority: u8| format!("{{direction: inbound, protocol: tcp, action: deny, priority: {priority}}}");
    let verdict = |deny_at: u8| {
        let rules = ["{direction: inbound, priority: 50}", &deny(deny_at)];
        Scenario::new(&one(&rules)).outside(tcp(C, "10.0.0.1:22").syn())
    };
    assert_eq!(verdict(49), "denied by web#1");
    assert_eq!(verdict(50), "denied by web#1");
    assert_eq!(verdict(51), "new by web#0");
}

#[test]
fn rules_3_3_the_winner_is_named_by_number_then_deny_then_groups_then_position() {
    let (first, second) = ("{direction: inbound, protocol: tcp}", "{direction: inbound, protocol: any}");
    let groups = |order: &[&str], x: &[&str], y: &[&str]| {
        Scenario::new(&policy(&[("x", x), ("y", y)], &[("a", "10.0.0.1", order)]))
            .outside(tcp(C, "10.0.0.1:22").syn())
    };
    let low = "{direction: inbound, protocol: tcp, priority: 99}";
    assert_eq!(groups(&["x", "y"], &[first], &[low]), "new by y#0", "the number comes first");
    let (deny, deny_any) =
        ("{direction: inbound, protocol: tcp, action: deny}", "{direction: inbound, action: deny}");
    assert_eq!(groups(&["x", "y"], &[first], &[deny]), "denied by y#0", "then deny");
    assert_eq!(groups(&["y", "x"], &[first], &[second]), "new by y#0", "then the order of the groups");
    assert_eq!(groups(&["x", "y"], &[deny], &[deny_any]), "denied by x#0");
    assert_eq!(groups(&["x"], &[SSH, first, second], &[]), "new by x#0", "then the position");
    assert_eq!(groups(&["x"], &[second, first], &[]), "new by x#0");
}

#[test]
fn rules_3_4_the_port_is_the_opening_packets_destination() {
    let mut s = Scenario::new(&one(&[DNS, "{direction: outbound, protocol: udp, ports: 123}"]));
    assert_eq!(s.outside(udp("198.51.100.9:9", "10.0.0.1:53")), "new by web#0");
    assert_eq!(s.outside(udp("198.51.100.9:53", "10.0.0.1:9")), "no-rule");
    assert_eq!(s.inside(udp("10.0.0.1:9", "198.51.100.8:123")), "new by web#1");
    assert_eq!(s.inside(udp("10.0.0.1:123", "198.51.100.8:9")), "no-rule");
}

#[test]
fn rules_3_4_port_0_is_matched_only_without_ports() {
    assert_eq!(under("protocol: udp, ports: 1-65535", udp("198.51.100.9:0", "10.0.0.1:0")), "no-rule");
    assert_eq!(under("protocol: udp", udp("198.51.100.9:0", "10.0.0.1:0")), "new by web#0");
    assert_eq!(under("protocol: any", udp("198.51.100.9:0", "10.0.0.1:0")), "new by web#0");
}

const PEERED: &str = r#"
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

fn to_db(s: &mut Scenario, source: &str) -> String {
    s.outside(tcp((source, 5000), "10.1.0.1:5432").syn().vlan(1))
}

#[test]
fn groups_3_5_stand_for_fixed_and_allowed_addresses_in_the_vpc_and_one_hop_of_peering() {
    let mut s = Scenario::new(PEERED);
    assert_eq!(to_db(&mut s, "10.1.0.2"), "new by db#0", "fixed");
    assert_eq!(to_db(&mut s, "10.1.0.3"), "new by db#0", "allowed");
    assert_eq!(to_db(&mut s, "10.2.0.2"), "new by db#0", "peered");
    assert_eq!(to_db(&mut s, "10.3.0.2"), "no-rule", "two hops");
    assert_eq!(to_db(&mut s, "10.1.0.9"), "no-rule", "nobody's");
}

#[test]
fn groups_3_5_an_address_of_another_vpc_without_peering_does_not_count() {
    let mut s = Scenario::new(&PEERED.replace(", peers: [two]", ""));
    assert_eq!(to_db(&mut s, "10.2.0.2"), "no-rule");
    let apart = PEERED.replace(", peers: [two]", "").replace("10.2.0.2", "10.1.0.4");
    assert_eq!(to_db(&mut Scenario::new(&apart), "10.1.0.4"), "no-rule", "the same digits elsewhere");
}

#[test]
fn groups_3_5_mean_who_is_in_them_now() {
    let mut s = Scenario::new(PEERED);
    let joined =
        PEERED.to_owned() + "  - {name: app-4, vpc: one, addresses: [10.1.0.9], security_groups: [app]}\n";
    assert_eq!(to_db(&mut s, "10.1.0.9"), "no-rule");
    s.apply(&joined);
    assert_eq!(to_db(&mut s, "10.1.0.9"), "new by db#0");
    s.apply(PEERED);
    assert_eq!(s.outside(tcp("10.1.0.9:5001", "10.1.0.1:5432").syn().vlan(1)), "no-rule");
}

#[test]
fn groups_3_5_may_name_themselves_and_empty_or_out_of_reach_match_nobody() {
    let itself = policy(
        &[("web", &["{direction: inbound, remote_group: web}"])],
        &[("a", "10.0.0.1", &["web"]), ("b", "10.0.0.2", &["web"])],
    );
    assert_eq!(Scenario::new(&itself).outside(udp("10.0.0.2:5", "10.0.0.1:5")), "new by web#0");
    let empty = policy(
        &[("web", &["{direction: inbound, remote_group: nobody}"]), ("nobody", &[])],
        &[("a", "10.0.0.1", &["web"])],
    );
    assert_eq!(Scenario::new(&empty).outside(udp("10.0.0.2:5", "10.0.0.1:5")), "no-rule");
    let only_far: String = PEERED
        .lines()
        .filter(|line| !line.contains("app-1") && !line.contains("app-2"))
        .collect::<Vec<_>>()
        .join("\n");
    assert_eq!(to_db(&mut Scenario::new(&only_far), "10.3.0.2"), "no-rule");
}

#[test]
fn groups_3_5_are_named_and_used_within_their_project() {
    let vpc = "vpcs: [{name: prod, segment: {untagged: true}}]\n";
    let groups = |remote: &str| {
        format!(
            "security_groups:\n  - {{name: theirs, project: blue}}\n  - {{name: ours, rules: [{{direction: inbound, remote_group: {remote}}}]}}\n"
        )
    };
    assert!(refused(&format!("{vpc}{}", groups("theirs"))).contains("no security group of the project"));
    assert!(refused(&format!("{vpc}{}", groups("blue/theirs"))).contains("remote_group"));
    let nic = |group: &str| format!("nics: [{{name: n, vpc: prod, security_groups: [{group}]}}]\n");
    assert!(
        refused(&format!("{vpc}{}{}", groups("ours"), nic("theirs")))
            .contains("no security group of the project")
    );
    assert!(refused(&format!("{vpc}{}{}", groups("ours"), nic("blue/theirs"))).contains("security_groups"));
    assert!(
        parse_policy(&format!("{vpc}{}{}", groups("ours"), nic("ours")), "policy", &Limits::default())
            .is_ok()
    );
}

const DEFAULTS: &str = "
vpcs: [{name: prod, segment: {untagged: true}}]
nics:
  - {name: a, vpc: prod, addresses: [10.0.0.1, \"2001:db8::1\"]}
  - {name: b, vpc: prod, addresses: [10.0.0.2]}
  - {name: shut, vpc: prod, addresses: [10.0.0.3], security_groups: []}
";

#[test]
fn default_3_7_admits_its_members_and_lets_out_everything() {
    let mut s = Scenario::new(DEFAULTS);
    assert_eq!(s.outside(udp("10.0.0.2:1", "10.0.0.1:1")), "new by default#0");
    assert_eq!(s.outside(udp("192.0.2.1:1", "10.0.0.1:1")), "no-rule");
    assert_eq!(s.outside(udp("10.0.0.3:1", "10.0.0.1:1")), "no-rule", "shut is no member");
    assert_eq!(s.inside(udp("10.0.0.1:9", "192.0.2.1:9")), "new by default#1");
    assert_eq!(s.inside(udp("[2001:db8::1]:9", "[2001:db8:9::9]:9")), "new by default#1");
}

#[test]
fn default_3_7_an_empty_list_is_no_group_and_nothing_passes() {
    let mut s = Scenario::new(DEFAULTS);
    assert_eq!(s.inside(udp("10.0.0.3:9", "192.0.2.1:9")), "no-rule");
    assert_eq!(s.outside(udp("10.0.0.2:9", "10.0.0.3:9")), "no-rule");
}

#[test]
fn default_3_7_is_what_the_document_says_where_it_defines_it() {
    let mut s = Scenario::new(
        &(DEFAULTS.to_owned() + &format!("security_groups: [{{name: default, rules: [{DNS}]}}]\n")),
    );
    assert_eq!(s.outside(udp("192.0.2.1:1", "10.0.0.1:53")), "new by default#0");
    assert_eq!(s.outside(udp("10.0.0.2:1", "10.0.0.1:1")), "no-rule");
    assert_eq!(s.inside(udp("10.0.0.1:9", "192.0.2.1:9")), "no-rule");
}

/// So many rules, alternately of both directions.
fn many_rules(count: usize) -> String {
    let rule = |n: usize| {
        let direction = if n.is_multiple_of(2) { "inbound" } else { "outbound" };
        format!("{{direction: {direction}, protocol: tcp, ports: {}}}", n + 1)
    };
    let rules: Vec<String> = (0..count).map(rule).collect();
    one(&rules.iter().map(String::as_str).collect::<Vec<_>>())
}

#[test]
fn quotas_3_8_50_rules_a_group_of_both_directions_together() {
    assert!(parse_policy(&many_rules(50), "policy", &Limits::default()).is_ok());
    assert!(refused(&many_rules(51)).contains("allowed: 50"));
}

#[test]
fn quotas_3_8_5_groups_a_nic() {
    let text = |count: usize| {
        let names = ["u", "v", "w", "x", "y", "z"];
        let groups: Vec<(&str, &[&str])> = names.iter().map(|name| (*name, &[] as &[&str])).collect();
        policy(&groups, &[("a", "10.0.0.1", &names[..count])])
    };
    assert!(parse_policy(&text(5), "policy", &Limits::default()).is_ok());
    assert!(refused(&text(6)).contains("allowed: 5"));
}

#[test]
fn quotas_3_8_can_be_set() {
    let mut s = Scenario::with("[policy]\nrules_per_group = 60\ngroups_per_nic = 6\n", &many_rules(60));
    assert_eq!(s.outside(tcp(C, "10.0.0.1:59").syn()), "new by web#58");
}
