//! The policy that fits a plan's traffic: what is to be admitted is, and nothing else.

use std::fmt::Write;

use crate::flow::Flows;
use crate::plan::{Plan, Versions};
use crate::template::inside_mac;

/// As a document for `portcullis`.
pub fn policy(plan: &Plan) -> String {
    let mut text = String::new();
    let segment = plan.vlan.map_or("untagged: true".to_owned(), |vlan| format!("vlan: {vlan}"));
    let (port, denied) = (plan.port, plan.denied_port);
    let _ = writeln!(
        text,
        "# What portcullis-pktgen sends to port {port} is admitted; what it sends to port {denied} is denied."
    );
    let _ = writeln!(text, "vpcs:\n  - {{ name: pktgen, segment: {{ {segment} }} }}");
    let _ = writeln!(text, "security_groups:\n  - name: pktgen\n    rules:");
    let has = |version| plan.versions == Versions::Both || plan.versions == version;
    let [a, b, ..] = plan.outside_v4.octets();
    let v4 = has(Versions::V4).then(|| format!("{a}.{b}.0.0/16"));
    let v6 = has(Versions::V6).then(|| format!("\"{}/96\"", network_v6(plan.outside_v6)));
    for direction in ["inbound", "outbound"] {
        for protocol in ["tcp", "udp"] {
            let _ = writeln!(
                text,
                "      - {{ direction: {direction}, protocol: {protocol}, ports: {denied}, action: deny, priority: 10 }}"
            );
            for remote in v4.iter().chain(&v6) {
                let _ = writeln!(
                    text,
                    "      - {{ direction: {direction}, protocol: {protocol}, ports: {port}, remote: {remote} }}"
                );
            }
        }
    }
    let _ = writeln!(text, "nics:");
    for server in 0..plan.servers {
        let mac = inside_mac(server).map(|byte| format!("{byte:02x}")).join(":");
        let addresses: Vec<_> = has(Versions::V4)
            .then(|| server_v4(plan, server))
            .into_iter()
            .chain(has(Versions::V6).then(|| format!("\"{}\"", server_v6(plan, server))))
            .collect();
        let _ = writeln!(
            text,
            "  - {{ name: server-{server}, vpc: pktgen, mac: \"{mac}\", addresses: [{}], security_groups: [pktgen] }}",
            addresses.join(", ")
        );
    }
    text
}

fn server_v4(plan: &Plan, server: u32) -> String {
    let net = u32::from(plan.inside_v4) & 0xFFFF_0000;
    std::net::Ipv4Addr::from(net | Flows::host_of(server)).to_string()
}

fn network_v6(address: std::net::Ipv6Addr) -> std::net::Ipv6Addr {
    std::net::Ipv6Addr::from(u128::from(address) & !0xFFFF_FFFF)
}

fn server_v6(plan: &Plan, server: u32) -> std::net::Ipv6Addr {
    std::net::Ipv6Addr::from(u128::from(network_v6(plan.inside_v6)) | u128::from(Flows::host_of(server)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::Spec;

    #[test]
    fn every_server_is_a_nic_with_its_address_and_mac() {
        let plan =
            Plan::new(Spec { servers: 300, versions: Versions::Both, vlan: Some(7), ..Spec::default() })
                .unwrap();
        let text = policy(&plan);
        assert!(text.contains("segment: { vlan: 7 }"), "{text}");
        assert!(text.contains(
            "  - { name: server-299, vpc: pktgen, mac: \"02:50:00:00:01:2b\", addresses: [198.19.1.44, \"2001:2:0:1::12c\"], \
             security_groups: [pktgen] }"
        ), "{text}");
        assert_eq!(text.matches("direction: inbound").count(), 6);
        assert!(text.contains("protocol: tcp, ports: 80, remote: \"2001:2:0:2::/96\""), "{text}");
    }
}
