//! A policy survives its own export, and a diff tells what differs.

use control::delta::Delta;
use control::diff::{Kind, MAX_LINES, Object, diff, lines};
use control::document::{Limits, Parsed, parse_policy};
use control::export::export;
use control::model::{
    Action, AddressGroup, AllowedAddress, Direction, Ethertypes, Key, Mac, Mode, Nic, Policy, Prefix, Remote,
    Rule, SecurityGroup, Segment, Vpc, protocol,
};
use proptest::prelude::*;
use std::collections::{BTreeSet, HashSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

fn parsed(text: &str) -> Parsed {
    let limits = Limits { rules_per_group: 1000, groups_per_nic: 1000 };
    parse_policy(text, "p.yaml", &limits).unwrap_or_else(|d| panic!("{d}\n{text}"))
}

fn policy(text: &str) -> Policy {
    parsed(text).policy
}

/// Names that YAML would take for something else, and plain ones.
fn name() -> impl Strategy<Value = Arc<str>> {
    let odd = vec![
        "true",
        "null",
        "~",
        "1",
        "-1",
        "1e3",
        "0x1f",
        "022",
        "1_0",
        ".inf",
        "yes",
        "- a",
        "a: b",
        "a, b",
        "{",
        "[x",
        "*a",
        "&a",
        "!t",
        "%d",
        "@x",
        "`",
        "'",
        "\"",
        "\\",
        "?",
        "-",
        "--",
        "---",
        "...",
        ":",
        "<<",
        "=",
        " lead",
        "trail ",
        "2001-01-01",
        "1:30",
        "é",
        "\u{2028}",
        "\u{feff}",
        "\u{a0}",
        "😀",
        "|",
        ">",
        "default",
        "a\u{300}",
        "=x",
        "+1",
        "0o7",
        "1.",
        ".5",
        "NaN",
        "on",
        "y",
        "${x}",
        "$x",
        "a:",
        "{}",
        "[]",
        "!!str",
    ];
    prop_oneof![
        prop::sample::select(odd).prop_map(str::to_owned),
        "[a-z][a-z0-9-]{0,8}",
        "[^/#\\p{Cc}]{1,8}",
    ]
    .prop_map(Arc::from)
}

fn description() -> impl Strategy<Value = String> {
    prop_oneof![
        3 => Just(String::new()),
        1 => "[ -~]{0,30}",
        1 => "(?s).{0,12}",
        1 => any::<String>(),
        1 => "[ \n\r\ta:#-]{1,8}",
        1 => "[a-z ]{80,200}",
    ]
}

fn key() -> impl Strategy<Value = Key> {
    let project = prop_oneof![3 => Just(Arc::from("default")), 1 => name()];
    (project, name()).prop_map(|(project, name)| Key { project, name })
}

fn prefix() -> impl Strategy<Value = Prefix> {
    prop_oneof![
        (any::<u32>(), 0u8..=32).prop_map(|(a, len)| (IpAddr::from(Ipv4Addr::from(a)), len)),
        (any::<u128>(), 0u8..=128).prop_map(|(a, len)| (IpAddr::from(Ipv6Addr::from(a)), len)),
    ]
    .prop_filter_map("a prefix", |(addr, len)| Prefix::new(addr, len))
}

fn mac() -> impl Strategy<Value = Mac> {
    any::<[u8; 6]>().prop_filter_map("a station", Mac::new)
}

/// A rule whose remote is a number, to be pointed at one of the policy's groups.
fn rule() -> impl Strategy<Value = (Rule, usize, usize)> {
    let protocol = prop_oneof![
        Just(None),
        any::<u8>().prop_map(Some),
        prop::sample::select(protocol::NAMES.to_vec()).prop_map(|(_, n)| Some(n)),
    ];
    let direction = prop_oneof![Just(Direction::Inbound), Just(Direction::Outbound)];
    let ethertypes = prop_oneof![Just(Ethertypes::BOTH), Just(Ethertypes::V4), Just(Ethertypes::V6)];
    let action = prop_oneof![Just(Action::Allow), Just(Action::Deny)];
    let ports = prop::option::of((1u16.., 1u16..).prop_map(|(a, b)| (a.min(b), a.max(b))));
    let icmp = any::<Option<(u8, Option<u8>)>>();
    let priority = prop_oneof![Just(100), 1u8..=100];
    (
        (direction, ethertypes, protocol, ports, icmp),
        (action, priority, description(), prefix(), 0usize..4, any::<usize>()),
    )
        .prop_map(
            |(
                (direction, ethertypes, protocol, ports, icmp),
                (action, priority, description, prefix, kind, which),
            )| {
                let rule = Rule {
                    direction,
                    ethertypes: if kind == 1 { Ethertypes::of(&prefix) } else { ethertypes },
                    protocol,
                    ports: ports.filter(|_| protocol.is_some_and(protocol::has_ports)),
                    icmp: icmp.filter(|_| protocol.is_some_and(protocol::is_icmp)),
                    remote: if kind == 1 { Remote::Prefix(prefix) } else { Remote::Any },
                    action,
                    priority,
                    description,
                    staged: which % 5 == 0,
                };
                (rule, kind, which)
            },
        )
}

prop_compose! {
    fn valid_policy()(
        vpcs in prop::collection::btree_set(name(), 1..4),
        tunnels in any::<bool>(),
        peered in any::<bool>(),
        address_groups in prop::collection::btree_map(key(), (description(), prop::collection::btree_set(prefix(), 0..4)), 0..4),
        security_groups in prop::collection::btree_map(key(), (description(), prop::collection::vec(rule(), 0..6)), 0..4),
        nics in prop::collection::btree_map(key(), (description(), prop::option::of(mac()), 0u8..4, prop::collection::vec(prop::option::of(mac()), 0..3), any::<[usize; 2]>(), prop::option::of(any::<u32>()), 0u8..3), 0..5),
    ) -> Policy {
        let mut policy = Policy::default();
        let names: Vec<Arc<str>> = vpcs.into_iter().collect();
        for (index, name) in (1u16..).zip(&names) {
            let segment = if tunnels { Segment::Vni(u32::from(index) - 1) } else { Segment::Vlan(index) };
            let peers = names.iter().filter(|peer| peered && *peer != name).cloned().collect();
            policy.vpcs.insert(name.clone(), Vpc { name: name.clone(), segment, peers }.into());
        }
        for (key, (description, prefixes)) in address_groups {
            let group = AddressGroup { key: key.clone(), description, prefixes: prefixes.into_iter().collect() };
            policy.address_groups.insert(key, group.into());
        }
        let keys: Vec<Key> = security_groups.keys().cloned().collect();
        let address_keys: Vec<Key> = policy.address_groups.keys().cloned().collect();
        for (key, (description, drafts)) in security_groups {
            let of_project = |keys: &[Key], which: usize| -> Option<Key> {
                let keys: Vec<&Key> = keys.iter().filter(|k| k.project == key.project).collect();
                (!keys.is_empty()).then(|| keys[which % keys.len()].clone())
            };
            let mut meanings = HashSet::new();
            let mut rules = Vec::new();
            let staged = drafts.first().is_some_and(|(_, _, which)| which % 4 == 0);
            for (mut rule, kind, which) in drafts {
                rule.staged |= staged;
                match kind {
                    2 => rule.remote = of_project(&keys, which).map_or(Remote::Any, Remote::Group),
                    3 => rule.remote = of_project(&address_keys, which).map_or(Remote::Any, Remote::AddressGroup),
                    _ => {}
                }
                if meanings.insert(rule.meaning()) {
                    rules.push(rule);
                }
            }
            policy.security_groups.insert(key.clone(), SecurityGroup { key, description, rules, implied: false, staged }.into());
        }
        let mut next = 0x0a00_0000u32;
        for (key, (description, mac, addresses, allowed, groups, max_connections, mode)) in nics {
            let mut address = || { next += 1; IpAddr::from(Ipv4Addr::from(next)) };
            let own: Vec<Key> = keys.iter().filter(|k| k.project == key.project).cloned().collect();
            let mut security_groups: Vec<Key> = Vec::new();
            for which in groups.iter().take(usize::from(mode)) {
                let key = own.get(which % own.len().max(1)).cloned().unwrap_or(Key::default_group_of(&key.project));
                if !security_groups.contains(&key) {
                    security_groups.push(key);
                }
            }
            let nic = Nic {
                description,
                vpc: names[groups[0] % names.len()].clone(),
                mac,
                addresses: (0..addresses).map(|_| address()).collect(),
                allowed_addresses: allowed.into_iter().map(|mac| AllowedAddress { address: address(), mac }).collect(),
                security_groups,
                max_connections,
                mode: [None, Some(Mode::Enforce), Some(Mode::Observe)][usize::from(mode)],
                key: key.clone(),
            };
            let default = Key::default_group_of(&key.project);
            policy.security_groups.entry(default).or_insert_with(|| SecurityGroup::implied_default(&key.project).into());
            policy.nics.insert(key, nic.into());
        }
        policy
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1500, ..ProptestConfig::default() })]

    #[test]
    fn an_export_parses_back_to_an_equal_policy(policy in valid_policy()) {
        let text = export(&policy);
        let read = parsed(&text);
        prop_assert_eq!(&read.policy, &policy, "{}", text);
        prop_assert!(!read.empty);
        prop_assert!(diff(&policy, &read.policy).is_empty());
    }

    #[test]
    fn rules_in_another_order_mean_the_same(policy in valid_policy()) {
        let mut turned = policy.clone();
        for (key, group) in &policy.security_groups {
            let mut group = group.clone();
            std::sync::Arc::make_mut(&mut group).rules.reverse();
            turned.security_groups.insert(key.clone(), group);
        }
        let diff = diff(&policy, &turned);
        prop_assert!(!diff.changes_meaning());
        prop_assert!(diff.added.is_empty() && diff.removed.is_empty());
    }

    #[test]
    fn what_one_direction_adds_the_other_removes(one in valid_policy(), other in valid_policy()) {
        let (there, back) = (diff(&one, &other), diff(&other, &one));
        prop_assert_eq!(&there.added, &back.removed);
        prop_assert_eq!(&there.removed, &back.added);
        prop_assert_eq!(&there.changed, &back.changed);
        prop_assert_eq!(there.changes_meaning(), back.changes_meaning());
    }
}

#[test]
fn an_export_leaves_out_what_is_implied() {
    let text = export(&policy(
        "vpcs: [{ name: v, segment: { untagged: true } }]\nnics: [{ name: n, vpc: v }, { name: m, vpc: v, security_groups: [] }]",
    ));
    assert!(!text.contains("- name: default"), "{text}");
    assert!(text.contains("[default]") && text.contains("security_groups: []"), "{text}");
}

#[test]
fn the_example_exports_to_a_document_that_changes_nothing() {
    let example = policy(include_str!("data/example.yaml"));
    let again = policy(&export(&example));
    assert_eq!(again, example);
    assert_eq!(export(&again), export(&example));
    let empty = parsed(&export(&Policy::default()));
    assert!(empty.empty);
}

const BASE: &str = "vpcs:
  - { name: v, segment: { vlan: 1 } }
  - { name: w, segment: { vlan: 2 } }
address_groups:
  - { name: office, addresses: [10.0.0.0/8, 11.0.0.0/8] }
security_groups:
  - name: g
    rules:
      - { direction: inbound, protocol: tcp, ports: 22, remote: 0.0.0.0/0 }
      - { direction: outbound }
  - { name: h, project: blue }
nics:
  - { name: n, vpc: v, addresses: [10.0.0.1, 10.0.0.2], security_groups: [g] }
";

/// What a textual change of [`BASE`] comes to: names added, changed and removed, and whether it means anything.
fn change(from: &str, to: &str) -> (Vec<String>, Vec<String>, Vec<String>, bool) {
    assert!(BASE.contains(from), "{from}");
    let diff = diff(&policy(BASE), &policy(&BASE.replace(from, to)));
    let meaning = diff.changes_meaning();
    assert_eq!(diff.is_empty(), diff.added.is_empty() && diff.changed.is_empty() && diff.removed.is_empty());
    (diff.added, diff.changed, diff.removed, meaning)
}

fn names(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

#[test]
fn spelling_is_no_change_at_all() {
    for (from, to) in [
        ("remote: 0.0.0.0/0", "ethertype: IPv4"),
        ("ports: 22", "ports: \"22-22\""),
        ("protocol: tcp", "protocol: 6"),
        ("10.0.0.0/8", "10.9.9.9/8"),
        ("{ direction: outbound }", "{ direction: outbound, protocol: any, priority: 100, action: allow }"),
        ("name: n, vpc: v", "name: n, project: default, vpc: v"),
    ] {
        assert_eq!(change(from, to), (vec![], vec![], vec![], false), "{to}");
    }
}

#[test]
fn descriptions_and_order_are_changes_without_meaning() {
    for (from, to, name) in [
        ("name: g\n", "name: g\n    description: x\n", "g"),
        ("{ direction: outbound }", "{ direction: outbound, description: x }", "g"),
        ("[10.0.0.0/8, 11.0.0.0/8]", "[11.0.0.0/8, 10.0.0.0/8]", "office"),
        ("[10.0.0.1, 10.0.0.2]", "[10.0.0.2, 10.0.0.1]", "n"),
        ("name: n, vpc: v", "name: n, description: x, vpc: v", "n"),
        ("name: h, project: blue", "name: h, project: blue, description: x", "blue/h"),
    ] {
        assert_eq!(change(from, to), (vec![], names(&[name]), vec![], false), "{to}");
    }
}

#[test]
fn what_is_enforced_differently_is_a_change_with_meaning() {
    for (from, to, name) in [
        ("ports: 22", "ports: 23", "g"),
        ("      - { direction: outbound }\n", "", "g"),
        ("[10.0.0.0/8, 11.0.0.0/8]", "[10.0.0.0/8]", "office"),
        ("{ vlan: 1 }", "{ vlan: 3 }", "v"),
        ("name: n, vpc: v", "name: n, vpc: w", "n"),
        ("name: n, vpc: v", "name: n, max_connections: 1, vpc: v", "n"),
        ("security_groups: [g]", "security_groups: [g, default]", "n"),
        ("security_groups: [g]", "security_groups: []", "n"),
    ] {
        assert_eq!(change(from, to), (vec![], names(&[name]), vec![], true), "{to}");
    }
    let peered = change("{ vlan: 1 } }", "{ vlan: 1 }, peers: [w] }");
    assert_eq!(peered, (vec![], names(&["v", "w"]), vec![], true));
}

#[test]
fn objects_come_and_go_by_name() {
    let changes = change("name: n, vpc", "name: m, vpc");
    assert_eq!(changes, (names(&["m"]), vec![], names(&["n"]), true));
    let changes = change("name: h, project: blue", "name: h, project: red");
    assert_eq!(changes, (names(&["red/h"]), vec![], names(&["blue/h"]), true));
}

#[test]
fn the_implied_default_group_is_nobodys_change() {
    let nothing = policy("vpcs: [{ name: v, segment: { vlan: 1 } }]");
    let nic = "vpcs: [{ name: v, segment: { vlan: 1 } }]\nnics: [{ name: n, vpc: v }]\n";
    let with_nic = policy(nic);
    assert_eq!(diff(&nothing, &with_nic).added, ["n"]);
    assert_eq!(diff(&with_nic, &nothing).removed, ["n"]);

    let defined = policy(&format!("{nic}security_groups: [{{ name: default }}]\n"));
    let change = diff(&with_nic, &defined);
    let key = Key::in_default("default");
    assert_eq!(change.objects, [(Object::SecurityGroup(key), Kind::Changed { meaning: true })]);

    let same = "rules: [{ direction: inbound, remote_group: default }, { direction: outbound }]";
    let spelled = policy(&format!("{nic}security_groups: [{{ name: default, {same} }}]\n"));
    assert!(diff(&with_nic, &spelled).is_empty() && diff(&spelled, &with_nic).is_empty());
}

#[test]
fn the_meaning_of_a_group_is_a_set() {
    let group = policy(BASE).security_groups.remove(&Key::in_default("g")).expect("the group");
    let mut turned = SecurityGroup::clone(&group);
    turned.rules.reverse();
    turned.rules[0].description = "x".into();
    assert_ne!(*group, turned);
    assert_eq!(group.meaning(), turned.meaning());
    assert_eq!(group.meaning().len(), 2);
    assert_eq!(BTreeSet::from_iter(group.rules.iter().map(Rule::meaning)), group.meaning());
}

/// Each line as people read it, but for the identities of rules.
fn told(old: &str, new: &str) -> Vec<String> {
    let (old, new) = (policy(old), policy(new));
    let (lines, left_out) = lines(&diff(&old, &new), &Delta::between(&old, &new), &new);
    assert_eq!(left_out, 0);
    let line = |line: control::api::types::ChangeLine| {
        assert_eq!(line.rule.is_some(), line.rule_id.is_some());
        let name = line.rule.unwrap_or(line.object);
        format!("{:?} {:?} {name}: {}", line.change, line.kind, line.text)
    };
    lines.into_iter().map(line).collect()
}

#[test]
fn a_change_is_told_line_by_line_down_to_its_rules() {
    let one = |from: &str, to: &str| told(BASE, &BASE.replace(from, to));
    let group = "    rules:\n";
    assert!(BASE.contains(group), "{BASE}");
    assert_eq!(
        one(group, "    rules:\n      - { direction: inbound, protocol: tcp, ports: 443 }\n"),
        ["Changed Group g: ", "Added Rule g#0: allow inbound tcp 443 from everyone"],
        "those that move down are no change"
    );
    assert_eq!(
        one("      - { direction: outbound }\n", ""),
        ["Changed Group g: ", "Removed Rule g#1: allow outbound any to everyone"]
    );
    assert_eq!(
        one("{ direction: outbound }", "{ direction: outbound, description: x }"),
        ["Changed Group g: ", "Changed Rule g#1: allow outbound any to everyone"]
    );
    assert_eq!(
        one("name: g\n", "name: g\n    description: x\n"),
        ["Changed Group g: description none -> \"x\""]
    );
    assert_eq!(
        one("[10.0.0.0/8, 11.0.0.0/8]", "[10.0.0.0/8, 12.0.0.0/8]"),
        ["Changed AddressGroup office: added 12.0.0.0/8; removed 11.0.0.0/8"]
    );
    assert_eq!(
        one("[10.0.0.0/8, 11.0.0.0/8]", "[11.0.0.0/8, 10.0.0.0/8]"),
        ["Changed AddressGroup office: in another order"]
    );
    assert_eq!(one("{ vlan: 1 }", "{ vlan: 3 }"), ["Changed Vpc v: segment VLAN 1 -> VLAN 3"]);
    assert_eq!(one("security_groups: [g]", "security_groups: []"), ["Changed Nic n: groups g -> none"]);
    let renamed = one("name: n, vpc: v", "name: m, vpc: v");
    assert_eq!(renamed.len(), 2);
    assert!(renamed[0].starts_with("Added Nic m: vpc v; ") && renamed[0].contains("groups g"), "{renamed:?}");
    assert!(renamed[1].starts_with("Removed Nic n: vpc v; "), "{renamed:?}");
}

#[test]
fn rules_in_another_order_are_a_line_of_their_group() {
    let a = "- { direction: inbound }";
    let b = "- { direction: outbound }";
    let with = |rules: &[&str]| {
        format!("security_groups:\n  - name: g\n    rules:\n      {}\n", rules.join("\n      "))
    };
    assert_eq!(told(&with(&[a, b]), &with(&[b, a])), ["Changed Group g: rules in another order"]);
    assert_eq!(
        told(&with(&[a]), "{}"),
        ["Removed Group g: ", "Removed Rule g#0: allow inbound any from everyone"]
    );
}

#[test]
fn as_many_lines_are_told_as_are_of_use_and_the_others_counted() {
    let nics: String =
        (0..MAX_LINES + 7).map(|n| format!("  - {{ name: n-{n}, vpc: v, security_groups: [] }}\n")).collect();
    let old = policy("vpcs: [{ name: v, segment: { vlan: 1 } }]\n");
    let new = policy(&format!("vpcs: [{{ name: v, segment: {{ vlan: 1 }} }}]\nnics:\n{nics}"));
    let (lines, left_out) = lines(&diff(&old, &new), &Delta::between(&old, &new), &new);
    assert_eq!((lines.len(), left_out), (MAX_LINES, 7));
}
