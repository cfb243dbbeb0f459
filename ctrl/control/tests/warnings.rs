//! What is accepted and yet likely a mistake is told with its place, and nothing else is.

use control::config::check_config;
use control::document::{Limits, RuleEdit, RuleSelector, check_policy, edit_rule, parse_policy, put};
use control::model::Key;

/// Two VPCs that do not reach each other, a third that reaches the first; groups with NICs in each, and one without.
fn document(rules: &str) -> String {
    format!(
        "vpcs:
  - {{ name: a, segment: {{ vlan: 1 }}, peers: [c] }}
  - {{ name: b, segment: {{ vlan: 2 }} }}
  - {{ name: c, segment: {{ vlan: 3 }} }}
address_groups:
  - {{ name: v4, addresses: [10.0.0.0/8, 192.0.2.0/24] }}
  - {{ name: v6, addresses: [\"2001:db8::/32\"] }}
  - {{ name: inner, addresses: [10.1.0.0/16, 192.0.2.7] }}
  - {{ name: none, addresses: [] }}
nics:
  - {{ name: one, vpc: a, security_groups: [g] }}
  - {{ name: two, vpc: b, security_groups: [far] }}
  - {{ name: three, vpc: c, security_groups: [near] }}
security_groups:
  - {{ name: far }}
  - {{ name: near }}
  - {{ name: unused, rules: [{{ direction: inbound, remote_group: unused }}] }}
  - name: g
    rules:
{rules}"
    )
}

fn warnings(rules: &[&str]) -> Vec<String> {
    let lines: String =
        rules.iter().map(|rule| format!("      - {{ direction: inbound, {rule} }}\n")).collect();
    let parsed = check_policy(&document(&lines), "p", &Limits::default()).unwrap();
    parsed.warnings.iter().map(ToString::to_string).collect()
}

/// The only warning, about the last of these rules, behind its place.
fn warning(rules: &[&str]) -> String {
    let mut all = warnings(rules);
    let (line, place) = (19 + rules.len(), rules.len() - 1);
    assert_eq!(all.len(), 1, "{rules:?}: {all:?}");
    let told = all.remove(0);
    let head = format!("p:{line}:9: security_groups[3].rules[{place}]: the rule can match nothing: ");
    told.strip_prefix(&head).unwrap_or_else(|| panic!("{told}")).to_owned()
}

#[test]
fn host_bits_are_told_where_they_stand() {
    assert_eq!(
        warnings(&[
            "remote: 10.0.0.5/24",
            "remote: 10.0.1.0/24",
            "remote: 10.0.2.5",
            "remote: \"2001:db8::1/64\""
        ]),
        [
            "p:20:39: security_groups[3].rules[0].remote: \"10.0.0.5/24\" has host bits, which are masked off: it is 10.0.0.0/24",
            "p:23:39: security_groups[3].rules[3].remote: \"2001:db8::1/64\" has host bits, which are masked off: it is 2001:db8::/64",
        ]
    );
    let list = "address_groups: [{ name: l, addresses: [192.0.2.0/24, 192.0.2.1/25, 0.0.0.1/0] }]";
    let told = parse_policy(list, "p", &Limits::default()).unwrap().warnings;
    let told: Vec<String> = told.iter().map(|warning| warning.to_string()).collect();
    assert_eq!(
        told,
        [
            "p:1:55: address_groups[0].addresses[1]: \"192.0.2.1/25\" has host bits, which are masked off: it is 192.0.2.0/25",
            "p:1:69: address_groups[0].addresses[2]: \"0.0.0.1/0\" has host bits, which are masked off: it is 0.0.0.0/0",
        ]
    );
    let checked =
        check_config("[policy]\npass_multicast = [\"224.0.0.5/24\", \"ff02::/16\"]\n", "c").unwrap();
    let told: Vec<String> = checked.warnings.iter().map(ToString::to_string).collect();
    assert_eq!(
        told,
        [
            "c:2:19: policy.pass_multicast[0]: \"224.0.0.5/24\" has host bits, which are masked off: it is 224.0.0.0/24"
        ]
    );
}

#[test]
fn an_icmp_rule_that_nothing_opens_by_is_told() {
    for kind in [0, 3, 5, 9, 10, 11, 12, 14, 16, 18, 30, 43, 255] {
        let told = warning(&[&format!("protocol: icmp, icmp_type: {kind}")]);
        assert!(
            told.starts_with(&format!(
                "ICMP type {kind} opens no connection; those that do are 8, 13, 15, 17, 42"
            )),
            "{told}"
        );
    }
    for kind in [1, 2, 129, 133, 135, 143, 161] {
        let told = warning(&[&format!("protocol: icmpv6, icmp_type: {kind}, icmp_code: 0, action: deny")]);
        assert!(
            told.contains(&format!("ICMPv6 type {kind} opens no connection; those that do are 128, 160")),
            "{told}"
        );
    }
    assert_eq!(warning(&["protocol: icmp, ethertype: IPv6"]), "icmp is IPv4's; that of IPv6 is icmpv6");
    assert_eq!(warning(&["protocol: 1, remote: \"::/0\""]), "icmp is IPv4's; that of IPv6 is icmpv6");
    assert_eq!(warning(&["protocol: icmpv6, remote: 10.0.0.0/8"]), "icmpv6 is IPv6's; that of IPv4 is icmp");
    assert_eq!(
        warning(&["protocol: icmp, remote_address_group: v6"]),
        "icmp is IPv4's; that of IPv6 is icmpv6"
    );
    for good in [
        "protocol: icmp, icmp_type: 8",
        "protocol: icmp, icmp_type: 42, icmp_code: 3",
        "protocol: icmpv6, icmp_type: 128",
        "protocol: icmpv6",
        "protocol: icmp, remote_group: g",
        "protocol: icmp, ethertype: IPv4",
    ] {
        assert_eq!(warnings(&[good]), [""; 0], "{good}");
    }
}

#[test]
fn a_remote_that_is_nobody_is_told() {
    assert_eq!(warning(&["remote_group: unused"]), "the group \"unused\" has no NICs");
    assert_eq!(warning(&["remote_group: far"]), "no NIC of the group \"far\" is in reach");
    assert_eq!(warning(&["remote_address_group: none"]), "the address group \"none\" has no prefixes");
    assert_eq!(
        warning(&["remote_address_group: v6, ethertype: IPv4"]),
        "the address group \"v6\" has no prefixes of IPv4"
    );
    assert_eq!(
        warning(&["remote_address_group: v4, ethertype: IPv6"]),
        "the address group \"v4\" has no prefixes of IPv6"
    );
    // Peers are in reach, members of the own group are, and one family is enough.
    for good in
        ["remote_group: near", "remote_group: g", "remote_address_group: v4", "remote_address_group: v6"]
    {
        assert_eq!(warnings(&[good]), [""; 0], "{good}");
    }
}

#[test]
fn a_rule_that_an_earlier_one_decides_is_told_with_that_one() {
    let shadowed = |rules: &[&str]| warning(rules);
    let by_first = "shadowed by g#0 in line 20, decided first";
    for (first, second) in [
        ("remote: 0.0.0.0/0", "protocol: tcp, ports: 22, remote: 10.0.0.0/8"),
        ("protocol: tcp", "protocol: tcp, ports: 22"),
        ("protocol: tcp", "protocol: tcp, remote_group: near"),
        ("protocol: tcp, ports: 20-30", "protocol: tcp, ports: 25, remote: 10.0.0.0/8"),
        ("remote: 10.0.0.0/8", "remote: 10.1.0.0/16"),
        ("remote_group: near", "remote_group: near, protocol: udp"),
        ("remote_address_group: v4", "remote_address_group: inner"),
        ("remote_address_group: v4", "remote: 192.0.2.8/29"),
        ("protocol: icmp", "protocol: icmp, icmp_type: 8"),
        ("protocol: icmp, icmp_type: 8", "protocol: icmp, icmp_type: 8, icmp_code: 0"),
        ("protocol: tcp, priority: 99, action: deny", "protocol: tcp, ports: 80"),
        ("action: deny", "remote: 10.0.0.0/8"),
        ("priority: 1", "action: deny, priority: 2"),
        ("ethertype: IPv4", "remote_address_group: inner"),
    ] {
        assert_eq!(shadowed(&[first, second]), by_first, "{first} before {second}");
    }
    // Together: ports by two, families by two.
    assert_eq!(
        shadowed(&[
            "protocol: tcp, ports: 1-80",
            "protocol: tcp, ports: 70-90",
            "protocol: tcp, ports: 79-90, remote: 10.0.0.0/8"
        ]),
        "shadowed by g#0 in line 20 and g#1 in line 21, decided first"
    );
    assert_eq!(
        shadowed(&["ethertype: IPv4", "ethertype: IPv6", "protocol: tcp"]),
        "shadowed by g#0 in line 20 and g#1 in line 21, decided first"
    );
    // The stronger one stands later: order in the list does not count before priority and action.
    let told = warnings(&["protocol: tcp, ports: 22", "action: deny, priority: 5"]);
    assert_eq!(
        told,
        [
            "p:20:9: security_groups[3].rules[0]: the rule can match nothing: shadowed by g#1 in line 21, decided first"
        ]
    );
}

#[test]
fn a_rule_that_decides_anything_is_not_taken_for_shadowed() {
    for (first, second) in [
        // The first is weaker, by number or by action.
        ("protocol: tcp", "protocol: tcp, ports: 22, priority: 99"),
        ("protocol: tcp", "protocol: tcp, ports: 22, action: deny"),
        // It matches less.
        ("protocol: tcp, ports: 22", "protocol: tcp"),
        ("protocol: tcp, ports: 1-65535", "protocol: tcp"),
        ("protocol: tcp, ports: 22", "protocol: udp, ports: 22"),
        ("protocol: tcp, ports: 1-21", "protocol: tcp, ports: 21-22"),
        ("ethertype: IPv4", "protocol: tcp"),
        ("ethertype: IPv6", "remote_address_group: v4"),
        ("remote: 10.0.0.0/8", "remote: 0.0.0.0/0"),
        ("remote: 10.0.0.0/8", "remote: 11.0.0.0/8"),
        ("remote_address_group: inner", "remote_address_group: v4"),
        ("remote_group: near", "remote_group: g"),
        ("remote: 0.0.0.0/1", "remote_group: near"),
        ("protocol: icmp, icmp_type: 8", "protocol: icmp"),
        ("protocol: icmp, icmp_type: 8, icmp_code: 0", "protocol: icmp, icmp_type: 8"),
        ("protocol: icmp, icmp_type: 8", "protocol: icmp, icmp_type: 13"),
    ] {
        assert_eq!(warnings(&[first, second]), [""; 0], "{first} before {second}");
    }
    let gap = [
        "protocol: tcp, ports: 1-80",
        "protocol: tcp, ports: 82-90",
        "protocol: tcp, ports: 80-82, remote: 10.0.0.0/8",
    ];
    assert_eq!(warnings(&gap), [""; 0]);
    let other_way = document(
        "      - { direction: outbound }\n      - { direction: inbound, protocol: tcp, ports: 22 }\n",
    );
    assert_eq!(check_policy(&other_way, "p", &Limits::default()).unwrap().warnings, []);
}

#[test]
fn the_repositorys_own_documents_earn_no_warning() {
    let templates = control::init::templates("eth1", "eth2").unwrap();
    let parsed = check_policy(&templates.policy, "policy.yaml", &Limits::default()).unwrap();
    assert_eq!(parsed.warnings, []);
    assert_eq!(check_config(&templates.config, "portcullis.toml").unwrap().warnings, []);
}

#[test]
fn every_fault_is_told_in_the_order_of_the_document() {
    let text = "vpcs:
  - { name: a, segment: { vlan: 0 } }
nics:
  - { name: one, vpc: a, mac: x, addresses: [10.0.0.1, 10.0.0.300], colour: red }
  - { name: two, vpc: b, security_groups: [g, h] }
security_groups:
  - name: g
    rules:
      - { direction: in, protocol: tcpp, ports: 0, priority: 101 }
      - { protocol: udp, ports: 70000, remote: 10.0.0.0/33 }
      - { direction: inbound, remote_group: h }
";
    let faults = check_policy(text, "p", &Limits::default()).unwrap_err();
    let places: Vec<_> = faults.iter().map(|fault| (fault.line, fault.column)).collect();
    assert_eq!(
        places,
        [
            (2, 33),
            (4, 31),
            (4, 56),
            (4, 69),
            (5, 23),
            (5, 47),
            (9, 22),
            (9, 36),
            (9, 62),
            (10, 9),
            (10, 33),
            (10, 48),
            (11, 45)
        ],
        "{faults:#?}"
    );
    assert_eq!(parse_policy(text, "p", &Limits::default()).unwrap_err(), faults[0]);
    let config = "[timeouts]\nicmp = 0\ntcp_fim = 3\n[[wire]]\nname = \"w\"\ninside = \"a b\"\n[workers]\ncores = [\"x\"]\n[log]\nlevel = \"loud\"\n";
    let faults = check_config(config, "c").unwrap_err();
    let lines: Vec<_> = faults.iter().map(|fault| fault.line).collect();
    assert_eq!(lines, [2, 3, 4, 6, 8, 10], "{faults:#?}");
}

#[test]
fn among_many_names_the_near_ones_are_told() {
    let vpcs: String =
        (0..20).map(|at| format!("  - {{ name: vpc-{at}, segment: {{ vlan: {} }} }}\n", at + 1)).collect();
    let text = format!("vpcs:\n{vpcs}nics:\n  - {{ name: n, vpc: vcp-7 }}\n");
    let fault = parse_policy(&text, "p", &Limits::default()).unwrap_err().to_string();
    assert_eq!(
        fault,
        "p:23:21: nics[0].vpc: \"vcp-7\" is no VPC; allowed: one of 20; near names: vpc-7, vpc-0, vpc-1, vpc-2, vpc-3"
    );
}

#[test]
fn edits_warn_of_what_they_say_and_of_nothing_else() {
    let limits = Limits::default();
    let present = document("      - { direction: inbound, protocol: tcp }\n");
    let present = parse_policy(&present, "p", &limits).unwrap().policy;
    let group = Key::in_default("g");
    let edited = |edit: RuleEdit| {
        let edited = edit_rule(&present, &group, &edit, &limits).unwrap();
        edited.warnings.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    let ssh = "{ direction: inbound, protocol: tcp, ports: 22 }";
    assert_eq!(
        edited(RuleEdit::Add(ssh.to_owned())),
        ["rule of g:1:1: the rule can match nothing: shadowed by g#0, decided first"]
    );
    assert_eq!(edited(RuleEdit::Set(RuleSelector::Position(0), ssh.to_owned())), [""; 0]);
    assert_eq!(
        edited(RuleEdit::Add("{ direction: inbound, remote_group: far }".to_owned())),
        ["rule of g:1:1: the rule can match nothing: no NIC of the group \"far\" is in reach"]
    );
    // A stronger one is no mistake because it takes others' place.
    assert_eq!(
        edited(RuleEdit::Add("{ direction: inbound, action: deny, priority: 1 }".to_owned())),
        [""; 0]
    );
    let key = control::document::ObjectKey::AddressGroup(Key::in_default("v4"));
    let put = put(&present, &key, "{ name: v4, addresses: [10.0.0.1/8] }", &limits).unwrap();
    assert_eq!(put.warnings.len(), 1);
}
