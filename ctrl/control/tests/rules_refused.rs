//! Every way to get a rule wrong, and what the operator is told.

use control::document::{Limits, parse_policy};

/// Documents and the diagnostics that refuse them, behind the file's name.
#[rustfmt::skip]
const REFUSED: &[(&str, &str)] = &[
    (
        "security_groups:
  - name: g
    rules:
      - { protocol: tcp }",
        "4:9: security_groups[0].rules[0]: the key direction is missing; it is required",
    ),
    (
        "security_groups:
  - name: g
    rules:
      - { direction: in }",
        r#"4:22: security_groups[0].rules[0].direction: "in" is no direction; allowed: inbound, outbound"#,
    ),
    (
        "security_groups:
  - name: g
    rules:
      - { direction: inbound, protocol: tpc }",
        r#"4:41: security_groups[0].rules[0].protocol: "tpc" is no protocol; allowed: any, 0-255, tcp, udp, icmp, icmpv6, sctp, gre, esp, ah, ipip, dccp, udplite, vrrp"#,
    ),
    (
        "security_groups:
  - name: g
    rules:
      - { direction: inbound, protocol: 256 }",
        "4:41: security_groups[0].rules[0].protocol: 256 is no protocol; allowed: any, 0-255, tcp, udp, icmp, icmpv6, sctp, gre, esp, ah, ipip, dccp, udplite, vrrp",
    ),
    (
        r#"security_groups:
  - name: g
    rules:
      - { direction: inbound, protocol: tcp, ports: 22 }
      - direction: inbound
        protocol: tcp
        ports: "0-99""#,
        r#"7:16: security_groups[0].rules[1].ports: "0-99" is no port range; allowed: N or LOW-HIGH in 1-65535"#,
    ),
    (
        "security_groups:
  - name: g
    rules:
      - { direction: inbound, protocol: tcp, ports: 99-22 }",
        r#"4:53: security_groups[0].rules[0].ports: "99-22" is no port range; allowed: N or LOW-HIGH in 1-65535"#,
    ),
    (
        "security_groups:
  - name: g
    rules:
      - { direction: inbound, protocol: tcp, ports: 65536 }",
        "4:53: security_groups[0].rules[0].ports: 65536 is no port range; allowed: N or LOW-HIGH in 1-65535",
    ),
    (
        "security_groups:
  - name: g
    rules:
      - { direction: inbound, protocol: tcp, ports: 022 }",
        r#"4:53: security_groups[0].rules[0].ports: "022" is no port range; allowed: N or LOW-HIGH in 1-65535"#,
    ),
    (
        "security_groups:
  - name: g
    rules:
      - { direction: inbound, protocol: tcp, ports: [22, 80] }",
        "4:53: security_groups[0].rules[0].ports: a list is no port range; allowed: N or LOW-HIGH in 1-65535",
    ),
    (
        "security_groups:
  - name: g
    rules:
      - { direction: inbound, ports: 22 }",
        "4:38: security_groups[0].rules[0].ports: ports with protocol any; allowed: only with tcp, udp, sctp, udplite, dccp",
    ),
    (
        "security_groups:
  - name: g
    rules:
      - { direction: inbound, protocol: icmp, ports: 22 }",
        "4:54: security_groups[0].rules[0].ports: ports with protocol icmp; allowed: only with tcp, udp, sctp, udplite, dccp",
    ),
    (
        "security_groups:
  - name: g
    rules:
      - { direction: inbound, protocol: gre, ports: 22 }",
        "4:53: security_groups[0].rules[0].ports: ports with protocol gre; allowed: only with tcp, udp, sctp, udplite, dccp",
    ),
    (
        "security_groups:
  - name: g
    rules:
      - { direction: inbound, protocol: tcp, icmp_type: 8 }",
        "4:57: security_groups[0].rules[0].icmp_type: an ICMP type with protocol tcp; allowed: only with icmp, icmpv6",
    ),
    (
        "security_groups:
  - name: g
    rules:
      - { direction: inbound, protocol: icmp, icmp_code: 0 }",
        "4:58: security_groups[0].rules[0].icmp_code: an ICMP code without a type; allowed: icmp_code beside icmp_type",
    ),
    (
        "security_groups:
  - name: g
    rules:
      - { direction: inbound, protocol: icmp, icmp_type: 256 }",
        "4:58: security_groups[0].rules[0].icmp_type: 256 is no ICMP type; allowed: 0-255",
    ),
    (
        "security_groups:
  - name: g
    rules:
      - { direction: inbound, ethertype: ipv4 }",
        r#"4:42: security_groups[0].rules[0].ethertype: "ipv4" is no ethertype; allowed: IPv4, IPv6"#,
    ),
    (
        "security_groups:
  - name: g
    rules:
      - { direction: inbound, ethertype: IPv6, remote: 0.0.0.0/0 }",
        r#"4:42: security_groups[0].rules[0].ethertype: "IPv6" contradicts the remote 0.0.0.0/0; allowed: IPv4, or left out"#,
    ),
    (
        "security_groups:
  - name: g
    rules:
      - { direction: inbound, remote: example.com }",
        r#"4:39: security_groups[0].rules[0].remote: "example.com" is no prefix; allowed: an IPv4 or IPv6 prefix ADDRESS/LENGTH or address"#,
    ),
    (
        "security_groups:
  - name: g
    rules:
      - { direction: inbound, remote: 10.0.0.1, remote_group: g }",
        "4:63: security_groups[0].rules[0].remote_group: remote_group beside remote; allowed: at most one of remote, remote_group, remote_address_group",
    ),
    (
        "security_groups:
  - name: g
    rules:
      - { direction: inbound, remote_group: h }",
        r#"4:45: security_groups[0].rules[0].remote_group: "h" is no security group of the project "default"; allowed: g"#,
    ),
    (
        "security_groups:
  - { name: h, project: blue }
  - name: g
    rules:
      - { direction: inbound, remote_group: blue/h }",
        r#"5:45: security_groups[1].rules[0].remote_group: "blue/h" is of another project than "default"; allowed: the name of one of the same project"#,
    ),
    (
        "security_groups:
  - name: g
    rules:
      - { direction: inbound, remote_address_group: office }",
        r#"4:53: security_groups[0].rules[0].remote_address_group: "office" is no address group of the project "default"; allowed: none is defined"#,
    ),
    (
        "security_groups:
  - name: g
    rules:
      - { direction: inbound, action: reject }",
        r#"4:39: security_groups[0].rules[0].action: "reject" is no action; allowed: allow, deny"#,
    ),
    (
        "security_groups:
  - name: g
    rules:
      - { direction: inbound, priority: 0 }",
        "4:41: security_groups[0].rules[0].priority: 0 is no priority; allowed: 1-100",
    ),
    (
        "security_groups:
  - name: g
    rules:
      - { direction: inbound, priority: 101 }",
        "4:41: security_groups[0].rules[0].priority: 101 is no priority; allowed: 1-100",
    ),
    (
        "security_groups:
  - name: g
    rules:
      - { direction: inbound, port: 22 }",
        r#"4:31: security_groups[0].rules[0]: "port" is no key here; allowed: direction, ethertype, protocol, ports, icmp_type, icmp_code, remote, remote_group, remote_address_group, action, priority, description, staged"#,
    ),
    (
        "security_groups:
  - name: g
    rules:
      - { direction: inbound, ethertype: IPv4, protocol: tcp, ports: 22 }
      - { direction: inbound, remote: 0.0.0.0/0, protocol: 6, ports: 22-22, description: again }",
        "5:9: security_groups[0].rules[1]: a rule of the same meaning stands in line 4 already; allowed: once",
    ),
    (
        "vpcs: [{ name: v, segment: { vlan: 1 } }]
nics:
  - { name: n, vpc: w }
  - { name: n, vpc: v }
security_groups:
  - { name: g, rules: [{ direction: inbound, remote_group: h }] }",
        r#"3:21: nics[0].vpc: "w" is no VPC; allowed: v"#,
    ),
    (
        "security_groups:
  - name: g
    rules:
      - &ssh { direction: inbound, protocol: tcp, ports: 22 }
      - *ssh",
        "5:9: security_groups[0].rules[1]: a rule of the same meaning stands in line 4 already; allowed: once",
    ),
    (
        "
security_groups:
  - name: g
    rules: [{ direction: inbound, staged: later }]",
        "4:43: security_groups[0].rules[0].staged: \"later\" is no switch; allowed: true, false",
    ),
    (
        "
security_groups:
  - name: g
    staged: true
    rules: [{ direction: inbound, staged: false }]",
        "5:43: security_groups[0].rules[0].staged: false in a group that is staged; allowed: true, or left out: all of its rules are",
    ),
];

#[test]
fn a_bad_rule_is_refused_with_place_finding_and_what_is_allowed() {
    for (document, expected) in REFUSED {
        match parse_policy(document, "p.yaml", &Limits::default()) {
            Ok(_) => panic!("accepted:\n{document}"),
            Err(diagnostic) => {
                assert_eq!(diagnostic.to_string(), format!("p.yaml:{expected}"), "\n{document}")
            }
        }
    }
}
