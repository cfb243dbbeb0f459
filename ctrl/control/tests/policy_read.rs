//! What good documents mean.

use control::document::{Limits, Parsed, parse_policy};
use control::model::{
    Action, Direction, Ethertypes, Key, Mac, Mode, Policy, Prefix, Remote, Rule, SecurityGroup, Segment,
};

/// The example of interfaces.md, with the parts it names.
const EXAMPLE: &str = include_str!("data/example.yaml");

fn parsed(text: &str) -> Parsed {
    parse_policy(text, "p.yaml", &Limits::default()).unwrap_or_else(|d| panic!("{d}\n{text}"))
}

fn policy(text: &str) -> Policy {
    parsed(text).policy
}

/// The rules of a document's only group `g`.
fn rules(rules: &str) -> Vec<Rule> {
    let mut policy = policy(&format!("security_groups:\n  - name: g\n    rules: {rules}\n"));
    policy.security_groups.remove(&Key::in_default("g")).map(|group| group.rules.clone()).unwrap_or_default()
}

fn rule(text: &str) -> Rule {
    rules(&format!("[{text}]")).remove(0)
}

fn prefix(text: &str) -> Prefix {
    text.parse().expect("a prefix")
}

#[test]
fn the_example_of_the_interfaces_page_means_what_it_says() {
    let Parsed { policy, empty, warnings } = parsed(EXAMPLE);
    assert_eq!(warnings, []);
    assert!(!empty);
    assert_eq!(policy.vpcs["prod"].segment, Segment::Vlan(100));
    let office = &policy.address_groups[&Key::in_default("office")];
    let expected = ["203.0.113.0/24", "2001:db8::/32", "198.51.100.7/32"].map(prefix);
    assert_eq!(office.prefixes, expected);

    let group = &policy.security_groups[&Key::in_default("sg-AB")];
    assert_eq!(group.description, "example of the vendor's Table 2");
    assert_eq!(group.rules.len(), 7);
    assert_eq!(group.rules[0].remote, Remote::Group(Key::in_default("sg-AB")));
    assert_eq!(group.rules[0].ethertypes, Ethertypes::BOTH);
    assert_eq!(group.rules[1].ethertypes, Ethertypes::V4);
    assert_eq!(group.rules[1].protocol, Some(6));
    assert_eq!(group.rules[1].ports, Some((22, 22)));
    let deny = &group.rules[4];
    assert_eq!((deny.action, deny.priority, deny.ports), (Action::Deny, 10, Some((8000, 8099))));
    assert_eq!(deny.remote, Remote::AddressGroup(Key::in_default("office")));
    assert_eq!(group.rules[5].icmp, Some((8, Some(0))));
    assert_eq!(group.rules[6].direction, Direction::Outbound);

    let nic = &policy.nics[&Key::in_default("web-1")];
    assert_eq!(nic.mac, Mac::new([2, 0, 0, 0, 0, 1]));
    assert_eq!(nic.addresses.len(), 2);
    assert_eq!(nic.allowed_addresses.len(), 1);
    assert_eq!(nic.security_groups, [Key::in_default("sg-AB")]);
    assert_eq!(nic.max_connections, Some(100_000));
    assert_eq!(nic.mode, None);
}

#[test]
fn a_policy_is_read_from_json_as_from_yaml() {
    let json = r#"{"vpcs":[{"name":"v","segment":{"untagged":true}}],
	"nics":[{"name":"na\u00efve","vpc":"v","addresses":["10.0.0.1"],"security_groups":[],"mode":"observe"}]}"#;
    let policy = policy(json);
    let nic = &policy.nics[&Key::in_default("naïve")];
    assert!(nic.security_groups.is_empty());
    assert_eq!(nic.mode, Some(Mode::Observe));
    assert_eq!(policy.vpcs["v"].segment, Segment::Untagged);
}

#[test]
fn a_document_that_says_nothing_is_known_as_empty() {
    for text in ["", "\n\n", "# all gone\n", "---\n", "{}", "nics: []\nvpcs: []\n", "null"] {
        assert_eq!(parsed(text), Parsed { empty: true, ..Policy::default().into() }, "{text:?}");
    }
    assert!(!parsed("vpcs: [{ name: v, segment: { vni: 0 } }]").empty);
}

#[test]
fn a_rule_left_bare_is_everything_of_its_direction() {
    let expected = Rule {
        direction: Direction::Inbound,
        ethertypes: Ethertypes::BOTH,
        protocol: None,
        ports: None,
        icmp: None,
        remote: Remote::Any,
        action: Action::Allow,
        priority: 100,
        description: String::new(),
        staged: false,
    };
    assert_eq!(rule("{ direction: inbound }"), expected);
    assert_eq!(rule("{ direction: inbound, protocol: any, action: allow, priority: 100 }"), expected);
}

#[test]
fn protocols_have_names_and_numbers() {
    for (name, number) in [
        ("tcp", 6),
        ("udp", 17),
        ("icmp", 1),
        ("icmpv6", 58),
        ("sctp", 132),
        ("gre", 47),
        ("esp", 50),
        ("ah", 51),
        ("ipip", 4),
        ("dccp", 33),
        ("udplite", 136),
        ("vrrp", 112),
        ("0", 0),
        ("255", 255),
        ("\"89\"", 89),
    ] {
        let read = rule(&format!("{{ direction: inbound, protocol: {name} }}"));
        assert_eq!(read.protocol, Some(number), "{name}");
        assert_eq!(read.ethertypes, Ethertypes::BOTH, "{name}");
    }
}

#[test]
fn ports_are_numbers_texts_and_ranges_of_every_protocol_that_has_ports() {
    for protocol in ["tcp", "udp", "sctp", "udplite", "dccp", "6", "17", "132", "136", "33"] {
        for (ports, expected) in [
            ("22", (22, 22)),
            ("\"22\"", (22, 22)),
            ("1-65535", (1, 65535)),
            ("'80-80'", (80, 80)),
            ("0x50", (80, 80)),
        ] {
            let read = rule(&format!("{{ direction: inbound, protocol: {protocol}, ports: {ports} }}"));
            assert_eq!(read.ports, Some(expected), "{protocol} {ports}");
        }
    }
}

#[test]
fn an_icmp_type_may_stand_without_a_code_and_with_either_protocol() {
    let read = rule("{ direction: inbound, protocol: icmp, icmp_type: 3 }");
    assert_eq!(read.icmp, Some((3, None)));
    let read = rule("{ direction: inbound, protocol: 58, icmp_type: 128, icmp_code: 0 }");
    assert_eq!(read.icmp, Some((128, Some(0))));
}

#[test]
fn host_bits_of_a_remote_are_masked_off_and_a_bare_address_is_one_host() {
    for (remote, expected, ethertypes) in [
        ("10.5.6.30/8", "10.0.0.0/8", Ethertypes::V4),
        ("10.5.6.30", "10.5.6.30/32", Ethertypes::V4),
        ("0.0.0.0/0", "0.0.0.0/0", Ethertypes::V4),
        ("\"2001:db8::1/32\"", "2001:db8::/32", Ethertypes::V6),
        ("\"::/0\"", "::/0", Ethertypes::V6),
    ] {
        let read = rule(&format!("{{ direction: outbound, remote: {remote} }}"));
        assert_eq!(read.remote, Remote::Prefix(prefix(expected)), "{remote}");
        assert_eq!(read.ethertypes, ethertypes, "{remote}");
    }
}

#[test]
fn everyone_of_ipv4_means_the_same_however_it_is_spelled() {
    let read = |text| rule(text).meaning();
    let everyone = read("{ direction: inbound, ethertype: IPv4 }");
    assert_eq!(read("{ direction: inbound, remote: 0.0.0.0/0 }"), everyone);
    assert_eq!(read("{ direction: inbound, remote: 10.1.1.1/0, ethertype: IPv4, description: x }"), everyone);
    assert_ne!(read("{ direction: inbound }"), everyone);
    assert_ne!(read("{ direction: inbound, remote: \"::/0\" }"), everyone);
    assert_ne!(read("{ direction: inbound, ethertype: IPv4, priority: 99 }"), everyone);
    assert_ne!(read("{ direction: inbound, ethertype: IPv4, action: deny }"), everyone);
    assert_ne!(read("{ direction: outbound, ethertype: IPv4 }"), everyone);
}

#[test]
fn every_port_is_not_the_same_as_no_port_given() {
    // Port 0 is matched by a rule without ports alone.
    let both = rules(
        "[{ direction: inbound, protocol: tcp }, { direction: inbound, protocol: tcp, ports: 1-65535 }]",
    );
    assert_ne!(both[0].meaning(), both[1].meaning());
}

#[test]
fn a_rule_for_both_families_is_no_duplicate_of_one_for_one() {
    let read = rules("[{ direction: inbound }, { direction: inbound, ethertype: IPv4 }]");
    assert_eq!(read.len(), 2);
}

#[test]
fn allow_and_deny_of_the_same_are_two_rules() {
    assert_eq!(rules("[{ direction: inbound }, { direction: inbound, action: deny }]").len(), 2);
}

const ONE_NIC: &str = "vpcs: [{ name: v, segment: { vlan: 1 } }]\nnics:\n  - ";

#[test]
fn a_nic_without_groups_is_in_default_and_one_with_an_empty_list_in_none() {
    let default = Key::in_default("default");
    let nic =
        |text: &str| policy(&format!("{ONE_NIC}{text}")).nics.values().next().cloned().expect("one NIC");
    assert_eq!(nic("{ name: n, vpc: v }").security_groups, [default]);
    assert!(nic("{ name: n, vpc: v, security_groups: [] }").security_groups.is_empty());
}

#[test]
fn the_group_default_is_there_from_the_first_nic_of_a_project() {
    let policy = policy(&format!("{ONE_NIC}{{ name: n, project: blue, vpc: v, security_groups: [] }}"));
    let blue = "blue".into();
    let key = Key::default_group_of(&blue);
    assert_eq!(policy.security_groups.len(), 1);
    let group = &policy.security_groups[&key];
    assert_eq!(**group, SecurityGroup::implied_default(&blue));
    assert_eq!(group.rules[0].remote, Remote::Group(key));
    assert_eq!(group.rules[1].remote, Remote::Any);
    assert_eq!(group.rules[1].direction, Direction::Outbound);
}

#[test]
fn the_group_default_is_there_from_its_first_use() {
    let policy = policy(
        "security_groups:\n  - { name: g, project: p, rules: [{ direction: inbound, remote_group: default }] }",
    );
    assert!(policy.security_groups[&Key::new("p", "default")].implied);
    assert_eq!(policy.security_groups.len(), 2);
}

#[test]
fn a_document_may_define_the_group_default() {
    let policy = policy(&format!("security_groups: [{{ name: default }}]\n{ONE_NIC}{{ name: n, vpc: v }}"));
    let group = &policy.security_groups[&Key::in_default("default")];
    assert!(group.rules.is_empty() && !group.implied);
}

#[test]
fn names_are_looked_up_in_the_own_project() {
    let policy = policy(
        "vpcs: [{ name: v, segment: { vlan: 1 } }]
address_groups:
  - { name: a, addresses: [10.0.0.1] }
  - { name: a, project: blue, addresses: [10.0.0.2] }
security_groups:
  - { name: g, rules: [{ direction: inbound, remote_address_group: a }] }
  - { name: g, project: blue, rules: [{ direction: inbound, remote_address_group: blue/a }] }
nics:
  - { name: n, vpc: v, security_groups: [g] }
  - { name: n, project: blue, vpc: v, security_groups: [blue/g] }",
    );
    let blue = &policy.security_groups[&Key::new("blue", "g")];
    assert_eq!(blue.rules[0].remote, Remote::AddressGroup(Key::new("blue", "a")));
    assert_eq!(policy.nics[&Key::new("blue", "n")].security_groups, [Key::new("blue", "g")]);
    assert_eq!(policy.nics[&Key::in_default("n")].security_groups, [Key::in_default("g")]);
    assert_eq!(Key::new("blue", "n").to_string(), "blue/n");
    assert_eq!(Key::in_default("n").to_string(), "n");
}

#[test]
fn peering_is_symmetric_and_one_hop() {
    let policy = policy(
        "vpcs:
  - { name: a, segment: { vlan: 1 }, peers: [b] }
  - { name: b, segment: { vlan: 2 } }
  - { name: c, segment: { vlan: 3 }, peers: [b] }",
    );
    let peers = |name: &str| policy.vpcs[name].peers.iter().map(|p| &**p).collect::<Vec<_>>();
    assert_eq!(peers("a"), ["b"]);
    assert_eq!(peers("b"), ["a", "c"]);
    assert_eq!(peers("c"), ["b"]);
}

#[test]
fn addresses_may_repeat_where_nobody_confuses_them() {
    // In VPCs that are not peered, and as a failover pair's virtual address.
    let policy = policy(
        "vpcs: [{ name: v, segment: { vlan: 1 } }, { name: w, segment: { vlan: 2 } }]
nics:
  - { name: a, vpc: v, addresses: [10.0.0.1], allowed_addresses: [10.0.0.100] }
  - name: b
    vpc: v
    addresses: [10.0.0.2]
    allowed_addresses:
      - { address: 10.0.0.100, mac: 02-00-5E-00-00-AA }
  - { name: c, vpc: w, addresses: [10.0.0.1] }",
    );
    let shared = &policy.nics[&Key::in_default("b")].allowed_addresses[0];
    assert_eq!(shared.mac.map(|mac| mac.to_string()).as_deref(), Some("02:00:5e:00:00:aa"));
}

#[test]
fn quotas_are_settable() {
    let text =
        "security_groups:\n  - name: g\n    rules: [{ direction: inbound }, { direction: outbound }]\n";
    let limits = Limits { rules_per_group: 1, groups_per_nic: 1 };
    let told = parse_policy(text, "p.yaml", &limits).expect_err("beyond the quota").to_string();
    let expected = r#"p.yaml:3:37: security_groups[0].rules[1]: 2 rules in the group "g"; allowed: 1 (policy.rules_per_group)"#;
    assert_eq!(told, expected);
    assert!(parse_policy(text, "p.yaml", &Limits { rules_per_group: 2, groups_per_nic: 1 }).is_ok());
}

#[test]
fn fifty_rules_fit_a_group_and_a_fifty_first_does_not() {
    let text = |count: u16| {
        let rules: Vec<String> = (1..=count)
            .map(|port| format!("      - {{ direction: inbound, protocol: tcp, ports: {port} }}\n"))
            .collect();
        format!("security_groups:\n  - name: g\n    rules:\n{}", rules.concat())
    };
    assert!(parse_policy(&text(50), "p", &Limits::default()).is_ok());
    let told = parse_policy(&text(51), "p", &Limits::default()).expect_err("beyond the quota");
    assert_eq!((told.line, told.column), (54, 9));
}

#[test]
fn names_reach_255_characters_of_any_script() {
    for (name, fits) in [("ü".repeat(255), true), ("ü".repeat(256), false)] {
        let text = format!("security_groups: [{{ name: \"{name}\" }}]");
        assert_eq!(parse_policy(&text, "p", &Limits::default()).is_ok(), fits);
    }
}

#[test]
fn merge_keys_and_anchors_save_typing() {
    let read = rules("[&a { direction: inbound, protocol: tcp, ports: 22 }, { <<: *a, ports: 23 }]");
    assert_eq!(read[1].ports, Some((23, 23)));
    assert_eq!(read[1].protocol, Some(6));
}
