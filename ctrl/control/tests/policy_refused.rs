//! Every way to get a policy document wrong, and what the operator is told.

use control::document::{Limits, parse_policy};

/// Documents and the diagnostics that refuse them, behind the file's name.
#[rustfmt::skip]
const REFUSED: &[(&str, &str)] = &[
    (
        "vpcs: [",
        "1:7: no YAML: unclosed bracket '['; allowed: one document of YAML or JSON",
    ),
    (
        "vpcs: []
vpcs: []",
        "2:1: the key vpcs stands twice; allowed: once",
    ),
    (
        "vpcs: []
---
nics: []",
        "3:1: a second YAML document begins here; allowed: one document a file",
    ),
    (
        "- a",
        "1:1: a list is no mapping; allowed: a mapping with the keys vpcs, address_groups, security_groups, nics",
    ),
    (
        "hello",
        r#"1:1: "hello" is no mapping; allowed: a mapping with the keys vpcs, address_groups, security_groups, nics"#,
    ),
    (
        "vpc: []",
        r#"1:1: "vpc" is no key here; allowed: vpcs, address_groups, security_groups, nics"#,
    ),
    (
        "vpcs:",
        "1:5: vpcs: null is no list; allowed: a list of VPCs, [] for none",
    ),
    (
        "vpcs: {}",
        "1:7: vpcs: a mapping is no list; allowed: a list of VPCs, [] for none",
    ),
    (
        r#"{"vpcs": [{"name": "a", "segment": {"vlan": 1}, "nmae": 1}]}"#,
        r#"1:49: vpcs[0]: "nmae" is no key here; allowed: name, segment, peers"#,
    ),
    (
        "vpcs:
  - segment: { vlan: 1 }",
        "2:5: vpcs[0]: the key name is missing; it is required",
    ),
    (
        "vpcs:
  - { name: a }",
        "2:5: vpcs[0]: the key segment is missing; it is required",
    ),
    (
        "vpcs:
  - { name: 12, segment: { vlan: 1 } }",
        "2:13: vpcs[0].name: 12 is no name; allowed: 1-255 characters, no control characters, no '/', no '#' (text that looks like a number goes in quotes)",
    ),
    (
        r#"vpcs:
  - { name: "", segment: { vlan: 1 } }"#,
        r#"2:13: vpcs[0].name: "" is empty; allowed: 1-255 characters, no control characters, no '/', no '#'"#,
    ),
    (
        r#"vpcs:
  - { name: "a/b", segment: { vlan: 1 } }"#,
        r#"2:13: vpcs[0].name: "a/b" holds '/'; allowed: 1-255 characters, no control characters, no '/', no '#'"#,
    ),
    (
        r#"vpcs:
  - { name: "a#b", segment: { vlan: 1 } }"#,
        r#"2:13: vpcs[0].name: "a#b" holds '#'; allowed: 1-255 characters, no control characters, no '/', no '#'"#,
    ),
    (
        r#"vpcs:
  - { name: "a\tb", segment: { vlan: 1 } }"#,
        r#"2:13: vpcs[0].name: "a\tb" holds '\t'; allowed: 1-255 characters, no control characters, no '/', no '#'"#,
    ),
    (
        "vpcs:
  - { name: a, segment: { vlan: 0 } }",
        "2:33: vpcs[0].segment.vlan: 0 is no VLAN id; allowed: 1-4094",
    ),
    (
        "vpcs:
  - { name: a, segment: { vlan: 4095 } }",
        "2:33: vpcs[0].segment.vlan: 4095 is no VLAN id; allowed: 1-4094",
    ),
    (
        r#"vpcs:
  - { name: a, segment: { vlan: "7" } }"#,
        r#"2:33: vpcs[0].segment.vlan: "7" is no VLAN id; allowed: 1-4094"#,
    ),
    (
        "vpcs:
  - { name: a, segment: { vni: 16777216 } }",
        "2:32: vpcs[0].segment.vni: 16777216 is no VNI; allowed: 0-16777215",
    ),
    (
        "vpcs:
  - { name: a, segment: { vni: -1 } }",
        "2:32: vpcs[0].segment.vni: -1 is no VNI; allowed: 0-16777215",
    ),
    (
        "vpcs:
  - { name: a, segment: { untagged: false } }",
        "2:37: vpcs[0].segment.untagged: false is no segment; allowed: one of { untagged: true }, { vlan: 1-4094 }, { vni: 0-16777215 }",
    ),
    (
        "vpcs:
  - { name: a, segment: { untagged: yes } }",
        r#"2:37: vpcs[0].segment.untagged: "yes" is no switch; allowed: true, false"#,
    ),
    (
        "vpcs:
  - { name: a, segment: { vlan: 1, vni: 2 } }",
        "2:25: vpcs[0].segment: several of the segment's keys are given; allowed: one of { untagged: true }, { vlan: 1-4094 }, { vni: 0-16777215 }",
    ),
    (
        "vpcs:
  - { name: a, segment: {} }",
        "2:25: vpcs[0].segment: none of the segment's keys are given; allowed: one of { untagged: true }, { vlan: 1-4094 }, { vni: 0-16777215 }",
    ),
    (
        "vpcs:
  - { name: a, segment: untagged }",
        r#"2:25: vpcs[0].segment: "untagged" is no mapping; allowed: a mapping with the keys untagged, vlan, vni"#,
    ),
    (
        "vpcs:
  - { name: a, segment: { vlan: 1 } }
  - { name: a, segment: { vlan: 2 } }",
        r#"3:13: vpcs[1].name: the VPC "a" stands in line 2 already; allowed: once"#,
    ),
    (
        "vpcs:
  - { name: a, segment: { vlan: 1 } }
  - { name: b, segment: { vlan: 1 } }",
        "3:25: vpcs[1].segment: the segment VLAN 1 stands in line 2 already; allowed: once",
    ),
    (
        "vpcs:
  - { name: a, segment: { untagged: true } }
  - { name: b, segment: { vni: 5 } }",
        "3:25: vpcs[1].segment: an untagged VPC beside one with a VNI; allowed: one of the two kinds",
    ),
    (
        "vpcs:
  - { name: a, segment: { vlan: 1 }, peers: [b] }",
        r#"2:46: vpcs[0].peers[0]: "b" is no VPC; allowed: a"#,
    ),
    (
        "vpcs:
  - { name: a, segment: { vlan: 1 }, peers: [a] }",
        r#"2:46: vpcs[0].peers[0]: "a" is the VPC itself; allowed: other VPCs"#,
    ),
    (
        "vpcs:
  - { name: a, segment: { vlan: 1 }, peers: [b, b] }
  - { name: b, segment: { vlan: 2 } }",
        r#"2:49: vpcs[0].peers[1]: the peer "b" stands in line 2 already; allowed: once"#,
    ),
    (
        "address_groups:
  - { name: office, addresses: [10.0.0.0/33] }",
        r#"2:33: address_groups[0].addresses[0]: "10.0.0.0/33" is no prefix; allowed: an IPv4 or IPv6 prefix ADDRESS/LENGTH or address"#,
    ),
    (
        "address_groups:
  - { name: office, addresses: [10.0.0.0/8, 10.1.0.0/8] }",
        "2:45: address_groups[0].addresses[1]: the prefix 10.0.0.0/8 stands in line 2 already; allowed: once",
    ),
    (
        "address_groups:
  - { name: office }",
        "2:5: address_groups[0]: the key addresses is missing; it is required",
    ),
    (
        "address_groups:
  - { name: office, addresses: [] }
  - { name: office, project: default, addresses: [] }",
        r#"3:13: address_groups[1].name: the address group "office" stands in line 2 already; allowed: once"#,
    ),
    (
        "security_groups:
  - { name: g }
  - { name: g, project: default }",
        r#"3:13: security_groups[1].name: the security group "g" stands in line 2 already; allowed: once"#,
    ),
    (
        "nics:
  - { name: n, vpc: v }",
        r#"2:21: nics[0].vpc: "v" is no VPC; allowed: none is defined"#,
    ),
    (
        "vpcs: [{ name: v, segment: { vlan: 1 } }]
nics:
  - { name: n, vpc: v, security_groups: }",
        "3:39: nics[0].security_groups: null is no list; allowed: a list of names of groups, [] for none",
    ),
    (
        "vpcs: [{ name: v, segment: { vlan: 1 } }]
nics:
  - { name: n, vpc: v, security_groups: [g] }",
        r#"3:42: nics[0].security_groups[0]: "g" is no security group of the project "default"; allowed: default"#,
    ),
    (
        "vpcs: [{ name: v, segment: { vlan: 1 } }]
nics:
  - { name: n, vpc: v, security_groups: [default, default] }",
        r#"3:51: nics[0].security_groups[1]: the group "default" stands in line 3 already; allowed: once"#,
    ),
    (
        r#"vpcs: [{ name: v, segment: { vlan: 1 } }]
nics:
  - { name: n, vpc: v, mac: "01:00:5e:00:00:01" }"#,
        r#"3:29: nics[0].mac: "01:00:5e:00:00:01" is no MAC address of a station; allowed: "xx:xx:xx:xx:xx:xx", neither zero nor multicast"#,
    ),
    (
        r#"vpcs: [{ name: v, segment: { vlan: 1 } }]
nics:
  - { name: n, vpc: v, mac: "00:00:00:00:00:00" }"#,
        r#"3:29: nics[0].mac: "00:00:00:00:00:00" is no MAC address of a station; allowed: "xx:xx:xx:xx:xx:xx", neither zero nor multicast"#,
    ),
    (
        r#"vpcs: [{ name: v, segment: { vlan: 1 } }]
nics:
  - { name: n, vpc: v, mac: "02:00:00:00:01" }"#,
        r#"3:29: nics[0].mac: "02:00:00:00:01" is no MAC address of a station; allowed: "xx:xx:xx:xx:xx:xx", neither zero nor multicast"#,
    ),
    (
        "vpcs: [{ name: v, segment: { vlan: 1 } }]
nics:
  - { name: n, vpc: v, addresses: [224.0.0.5] }",
        r#"3:36: nics[0].addresses[0]: "224.0.0.5" is no address of a NIC; allowed: a unicast IPv4 or IPv6 address"#,
    ),
    (
        r#"vpcs: [{ name: v, segment: { vlan: 1 } }]
nics:
  - { name: n, vpc: v, addresses: ["::"] }"#,
        r#"3:36: nics[0].addresses[0]: "::" is no address of a NIC; allowed: a unicast IPv4 or IPv6 address"#,
    ),
    (
        "vpcs: [{ name: v, segment: { vlan: 1 } }]
nics:
  - { name: n, vpc: v, addresses: [10.0.0.0/24] }",
        r#"3:36: nics[0].addresses[0]: "10.0.0.0/24" is no address of a NIC; allowed: a unicast IPv4 or IPv6 address"#,
    ),
    (
        "vpcs: [{ name: v, segment: { vlan: 1 } }]
nics:
  - { name: n, vpc: v, addresses: [10.0.0.1, 10.0.0.1] }",
        "3:46: nics[0].addresses[1]: the address 10.0.0.1 stands in line 3 already; allowed: once",
    ),
    (
        "vpcs: [{ name: v, segment: { vlan: 1 } }]
nics:
  - { name: n, vpc: v, addresses: [10.0.0.1] }
  - { name: m, vpc: v, addresses: [10.0.0.1] }",
        r#"4:36: nics[1].addresses[0]: 10.0.0.1 is an address of the NIC "n" in the VPC "v" too; allowed: a fixed address is one NIC's alone"#,
    ),
    (
        "vpcs: [{ name: v, segment: { vlan: 1 } }]
nics:
  - { name: n, vpc: v, addresses: [10.0.0.1] }
  - { name: m, vpc: v, allowed_addresses: [10.0.0.1] }",
        r#"4:44: nics[1].allowed_addresses[0]: 10.0.0.1 is an address of the NIC "n" in the VPC "v" too; allowed: a fixed address is one NIC's alone"#,
    ),
    (
        r#"vpcs: [{ name: v, segment: { vlan: 1 } }]
nics:
  - { name: n, vpc: v, allowed_addresses: [{ address: 10.0.0.1, mca: "02:00:00:00:00:01" }] }"#,
        r#"3:65: nics[0].allowed_addresses[0]: "mca" is no key here; allowed: address, mac"#,
    ),
    (
        "vpcs:
  - { name: v, segment: { vlan: 1 }, peers: [w] }
  - { name: w, segment: { vlan: 2 } }
nics:
  - { name: n, vpc: v, addresses: [10.0.0.1] }
  - { name: m, vpc: w, addresses: [10.0.0.1] }",
        r#"6:36: nics[1].addresses[0]: 10.0.0.1 is an address of the NIC "n" in the peered VPC "v" too; allowed: one of the two"#,
    ),
    (
        "vpcs: [{ name: v, segment: { vlan: 1 } }]
nics:
  - { name: n, vpc: v }
  - { name: n, vpc: v }",
        r#"4:13: nics[1].name: the NIC "n" stands in line 3 already; allowed: once"#,
    ),
    (
        "vpcs: [{ name: v, segment: { vlan: 1 } }]
nics:
  - { name: n, vpc: v, max_connections: -1 }",
        "3:41: nics[0].max_connections: -1 is no number of connections; allowed: 0-4294967295",
    ),
    (
        "vpcs: [{ name: v, segment: { vlan: 1 } }]
nics:
  - { name: n, vpc: v, max_connections: many }",
        r#"3:41: nics[0].max_connections: "many" is no number of connections; allowed: 0-4294967295"#,
    ),
    (
        "vpcs: [{ name: v, segment: { vlan: 1 } }]
nics:
  - { name: n, vpc: v, mode: dry-run }",
        r#"3:30: nics[0].mode: "dry-run" is no mode; allowed: enforce, observe"#,
    ),
    (
        "vpcs: [{ name: v, segment: { vlan: 1 } }]
security_groups: [{ name: a }, { name: b }, { name: c }, { name: d }, { name: e }, { name: f }]
nics:
  - { name: n, vpc: v, security_groups: [a, b, c, d, e, f] }",
        r#"4:57: nics[0].security_groups[5]: 6 groups of the NIC "n"; allowed: 5 (policy.groups_per_nic)"#,
    ),
    (
        "nics: *all",
        "1:7: no YAML: alias references unknown anchor; allowed: one document of YAML or JSON",
    ),
    (
        "vpcs:
  - { name: !secret v, segment: { vlan: 1 } }",
        "2:21: no YAML: unsupported tag `!secret`; allowed: one document of YAML or JSON",
    ),
    (
        r#"security_groups:
  - { name: g, rules: [{ direction: inbound, remote: "::ffff:198.51.100.9/120" }] }"#,
        r#"2:54: security_groups[0].rules[0].remote: "::ffff:198.51.100.9/120" is IPv4-mapped; allowed: 198.51.100.0/24"#,
    ),
    (
        r#"address_groups:
  - { name: a, addresses: ["::ffff:0:0/95", "::fffe:0:0/96", "::FFFF:c633:6407"] }"#,
        r#"2:62: address_groups[0].addresses[2]: "::FFFF:c633:6407" is IPv4-mapped; allowed: 198.51.100.7"#,
    ),
    (
        r#"address_groups:
  - { name: a, addresses: ["::ffff:0:0/96"] }"#,
        r#"2:28: address_groups[0].addresses[0]: "::ffff:0:0/96" is IPv4-mapped; allowed: 0.0.0.0/0"#,
    ),
    (
        r#"vpcs: [{ name: v, segment: { vlan: 1 } }]
nics: [{ name: n, vpc: v, addresses: ["::ffff:10.0.0.1"] }]"#,
        r#"2:39: nics[0].addresses[0]: "::ffff:10.0.0.1" is IPv4-mapped; allowed: 10.0.0.1"#,
    ),
    (
        r#"vpcs: [{ name: v, segment: { vlan: 1 } }]
nics: [{ name: n, vpc: v, allowed_addresses: ["10.0.0.1", { address: "::ffff:10.0.0.2" }] }]"#,
        r#"2:70: nics[0].allowed_addresses[1].address: "::ffff:10.0.0.2" is IPv4-mapped; allowed: 10.0.0.2"#,
    ),
    (
        "1: [a]",
        "1:1: 1 is no key; allowed: text",
    ),
    (
        "vpcs: [{ name: v, segment: { vlan: .inf } }]",
        "1:36: vpcs[0].segment.vlan: inf is no VLAN id; allowed: 1-4094",
    ),
    (
        "vpcs: [[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]",
        "1:39: nested too deep; allowed: 32 levels",
    ),
    (
        "vpcs: [{ name: v, segment: { vlan: 1 } }]
address_groups:
  - { name: office, addresses: [no] }
nics:
  - { name: n, vpc: w, addresses: [10.0.0.1] }",
        r#"3:33: address_groups[0].addresses[0]: "no" is no prefix; allowed: an IPv4 or IPv6 prefix ADDRESS/LENGTH or address"#,
    ),
    (
        "vpcs: [{ name: v, segment: { vlan: 1 } }]
nics:
  - { name: n, vpc: v, addresses: &a [10.0.0.1, 10.0.0.300] }
  - { name: m, vpc: v, addresses: *a }",
        r#"3:49: nics[0].addresses[1]: "10.0.0.300" is no address of a NIC; allowed: a unicast IPv4 or IPv6 address"#,
    ),
    (
        "security_groups:
  - name: g
    description: 2024",
        "3:18: security_groups[0].description: 2024 is no description; allowed: text (text that looks like a number goes in quotes)",
    ),
    (
        "vpcs:
	- name: v",
        "2:2: no YAML: tabs disallowed within this context (block indentation); allowed: one document of YAML or JSON",
    ),
    (
        "vpcs:
  - { name: v, segment: { vlan: 1 }, name: w }",
        "2:38: the key name stands twice; allowed: once",
    ),
];

#[test]
fn a_bad_document_is_refused_with_place_finding_and_what_is_allowed() {
    for (document, expected) in REFUSED {
        match parse_policy(document, "p.yaml", &Limits::default()) {
            Ok(_) => panic!("accepted:\n{document}"),
            Err(diagnostic) => {
                assert_eq!(diagnostic.to_string(), format!("p.yaml:{expected}"), "\n{document}")
            }
        }
    }
}
