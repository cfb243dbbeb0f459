//! Semantics §2.6: what no rule judges, cell by cell. The NICs have no groups: only `control` passes.

use testkit::frame::*;
use testkit::scenario::Scenario;

const MAC1: &str = "02:00:00:00:00:01";
const MAC2: &str = "02:00:00:00:00:02";
const BAD: &str = "02:00:00:00:00:66";

/// `a` and `b` list MACs, `c` lists none.
fn scenario() -> Scenario {
    Scenario::new(&policy())
}

fn policy() -> String {
    format!(
        r#"
vpcs: [{{name: prod, segment: {{untagged: true}}}}]
nics:
  - {{name: a, vpc: prod, mac: "{MAC1}", addresses: [10.0.0.1, "2001:db8::1"], security_groups: []}}
  - {{name: b, vpc: prod, mac: "{MAC2}", addresses: [10.0.0.2, "2001:db8::2"], security_groups: []}}
  - {{name: c, vpc: prod, addresses: [10.0.0.3, "2001:db8::3"], security_groups: []}}
"#
    )
}

#[test]
fn arp_2_6_from_inside_is_of_a_nics_own_address_with_its_mac_twice() {
    let mut s = scenario();
    assert_eq!(s.inside(arp_request(MAC1, "10.0.0.1", "10.0.0.254")), "control");
    assert_eq!(s.inside(arp_reply(MAC1, "10.0.0.1", BAD, "10.0.0.254")), "control");
    assert_eq!(s.inside(arp_request(MAC1, "10.0.0.99", "10.0.0.254")), "spoofed", "nobody's");
    assert_eq!(s.inside(arp_request(MAC1, "10.0.0.2", "10.0.0.254")), "spoofed", "another's");
    assert_eq!(s.inside(arp_request(MAC1, "10.0.0.1", "10.0.0.254").src_mac(MAC2)), "spoofed", "sent by");
    assert_eq!(s.inside(arp_request(MAC2, "10.0.0.1", "10.0.0.254").src_mac(MAC1)), "spoofed", "says");
    assert_eq!(s.inside(arp_request(BAD, "10.0.0.3", "10.0.0.254").src_mac(MAC1)), "control", "lists none");
}

#[test]
fn arp_2_6_a_probe_is_for_a_nics_own_address_with_its_mac_twice() {
    let mut s = scenario();
    assert_eq!(s.inside(arp_request(MAC1, "0.0.0.0", "10.0.0.1")), "control");
    assert_eq!(s.inside(arp_request(MAC1, "0.0.0.0", "10.0.0.2")), "spoofed");
    assert_eq!(s.inside(arp_request(MAC1, "0.0.0.0", "10.0.0.99")), "spoofed");
    assert_eq!(s.inside(arp_request(MAC1, "0.0.0.0", "10.0.0.1").src_mac(MAC2)), "spoofed");
    assert_eq!(s.inside(arp_request(MAC2, "0.0.0.0", "10.0.0.1").src_mac(MAC1)), "spoofed");
}

#[test]
fn arp_2_6_from_outside_passes() {
    let mut s = scenario();
    assert_eq!(s.outside(arp_request(BAD, "10.0.0.1", "10.0.0.2")), "control");
    assert_eq!(s.outside(arp_request(BAD, "10.0.0.254", "10.0.0.99")), "control");
}

#[test]
fn arp_2_6_that_is_cut_or_of_something_else_is_malformed_on_both_sides() {
    for bad in [
        arp_request(MAC1, "10.0.0.1", "10.0.0.254").cut(41),
        arp_request(MAC1, "10.0.0.1", "10.0.0.254").lie_hardware(6, 6),
        arp_request(MAC1, "10.0.0.1", "10.0.0.254").lie_hardware(1, 8),
        arp_request(MAC1, "10.0.0.1", "10.0.0.254").lie_protocol(0x86DD, 4),
        arp_request(MAC1, "10.0.0.1", "10.0.0.254").lie_protocol(0x0800, 16),
    ] {
        assert_eq!(scenario().inside(bad.clone()), "malformed");
        assert_eq!(scenario().outside(bad), "malformed");
    }
}

/// Router solicitation, neighbour solicitation and advertisement from this address; the latter of `target`.
fn neighbours(source: &str, target: &str) -> [Packet<Icmp>; 3] {
    [
        router_solicitation(source).src_mac(MAC1),
        neighbor_solicitation(MAC1, source, "2001:db8::99"),
        neighbor_advertisement(MAC1, source, "ff02::1", target),
    ]
}

#[test]
fn nd_2_6_passes_from_nobodys_link_local_and_a_nics_address() {
    for source in ["::", "fe80::1", "febf::1", "2001:db8::1"] {
        for packet in neighbours(source, "2001:db8::1") {
            assert_eq!(scenario().inside(packet), "control", "{source}");
        }
    }
    for source in ["2001:db8::55", "2001:db8::2", "fec0::1"] {
        for packet in neighbours(source, source) {
            assert_eq!(scenario().inside(packet), "spoofed", "{source}");
        }
    }
}

#[test]
fn nd_2_6_an_advertisement_is_of_that_nics_address_or_a_link_local_one() {
    let mut s = scenario();
    let of = |source: &str, target: &str| neighbor_advertisement(MAC1, source, "ff02::1", target);
    assert_eq!(s.inside(of("2001:db8::1", "fe80::1")), "control");
    assert_eq!(s.inside(of("2001:db8::1", "2001:db8::2")), "spoofed", "another NIC's");
    assert_eq!(s.inside(of("2001:db8::1", "2001:db8::99")), "spoofed", "nobody's");
    assert_eq!(s.inside(of("fe80::1", "fe80::1")), "control");
    assert_eq!(s.inside(of("fe80::1", "2001:db8::1")), "control");
    assert_eq!(s.inside(of("fe80::1", "2001:db8::2")), "spoofed");
    assert_eq!(s.inside(of("fe80::1", "2001:db8::99")), "spoofed");
    assert_eq!(s.inside(of("::", "2001:db8::99")), "spoofed");
}

#[test]
fn nd_2_6_the_mac_fits_where_the_nic_lists_one() {
    for packet in neighbours("2001:db8::1", "2001:db8::1") {
        assert_eq!(scenario().inside(packet.src_mac(BAD)), "spoofed");
    }
    for packet in neighbours("2001:db8::3", "2001:db8::3") {
        assert_eq!(scenario().inside(packet.src_mac(BAD)), "control");
    }
}

#[test]
fn nd_2_6_from_outside_passes_but_for_redirects_and_routers_are_outside() {
    let mut s = scenario();
    for packet in neighbours("2001:db8::77", "2001:db8::77") {
        assert_eq!(s.outside(packet), "control");
    }
    assert_eq!(s.outside(router_advertisement("fe80::1", "ff02::1")), "control");
    assert_eq!(s.inside(router_advertisement("fe80::1", "ff02::1")), "rogue");
    assert_eq!(s.inside(router_advertisement("2001:db8::1", "ff02::1").src_mac(MAC1)), "rogue");
}

#[test]
fn nd_2_6_a_redirect_is_rogue_on_both_sides() {
    let redirect = redirect("fe80::1", "2001:db8::1", "2001:db8::5", "2001:db8::6");
    assert_eq!(scenario().inside(redirect.clone()), "rogue");
    assert_eq!(scenario().outside(redirect), "rogue");
}

#[test]
fn nd_2_6_routed_fragmented_or_too_short_is_malformed_on_both_sides() {
    // Each kind with its least length (RFC 4861 §4).
    for (kind, length) in [(133, 8), (134, 16), (135, 24), (136, 24), (137, 40)] {
        let whole = icmp("fe80::1", "ff02::1", kind, 0).ttl(255).payload(vec![0; length - 8]).src_mac(MAC1);
        assert_ne!(scenario().outside(whole.clone()), "malformed", "{kind}");
        for bad in
            [whole.clone().ttl(254), whole.clone().fragment(0, false), whole.clone().slice(0..length - 1)]
        {
            assert_eq!(scenario().inside(bad.clone()), "malformed", "{kind}");
            assert_eq!(scenario().outside(bad), "malformed", "{kind}");
        }
    }
}

fn dhcp(source: &str) -> Packet<Udp> {
    udp((source, 68), "255.255.255.255:67").src_mac(MAC1)
}

fn dhcpv6(source: &str) -> Packet<Udp> {
    dhcpv6_client(source).src_mac(MAC1)
}

#[test]
fn dhcp_2_6_from_a_client_without_an_address_or_with_its_own() {
    let mut s = scenario();
    assert_eq!(s.inside(dhcp_client(BAD)), "control", "0.0.0.0 is anybody's");
    assert_eq!(s.inside(dhcpv6("fe80::9").src_mac(BAD)), "control");
    for (own, wrong_mac) in [
        (dhcp("10.0.0.1"), dhcp("10.0.0.1").src_mac(BAD)),
        (dhcpv6("2001:db8::1"), dhcpv6("2001:db8::1").src_mac(BAD)),
    ] {
        assert_eq!(s.inside(own), "control");
        assert_eq!(s.inside(wrong_mac), "spoofed");
    }
    assert_eq!(s.inside(dhcp("10.0.0.99")), "spoofed");
    assert_eq!(s.inside(dhcpv6("2001:db8::99")), "spoofed");
    assert_eq!(s.inside(dhcpv6("::")), "spoofed");
    assert_eq!(s.inside(dhcp("10.0.0.2")), "spoofed");
}

#[test]
fn dhcp_2_6_from_clients_outside_the_rules_decide() {
    let rules = "security_groups: [{name: server, rules: [{direction: inbound, protocol: udp, ports: 67}, {direction: inbound, protocol: udp, ports: 547}]}]\n";
    let text = policy().replacen("security_groups: []", "security_groups: [server]", 1) + rules;
    let mut s = Scenario::new(&text);
    assert_eq!(s.outside(udp("192.0.2.1:68", "10.0.0.1:67")), "new by server#0");
    assert_eq!(s.outside(udp("[2001:db8:9::1]:546", "[2001:db8::1]:547")), "new by server#1");
    assert_eq!(s.outside(udp("192.0.2.1:68", "10.0.0.2:67")), "no-rule");
}

#[test]
fn dhcp_2_6_servers_are_outside() {
    let mut s = scenario();
    assert_eq!(s.outside(dhcp_server("192.0.2.1", "10.0.0.1", MAC1)), "control");
    assert_eq!(s.outside(dhcpv6_server("fe80::1", "2001:db8::1")), "control");
    assert_eq!(s.inside(dhcp_server("10.0.0.1", "10.0.0.2", MAC2).src_mac(MAC1)), "rogue");
    assert_eq!(s.inside(dhcpv6_server("2001:db8::1", "2001:db8::2").src_mac(MAC1)), "rogue");
    assert_eq!(s.outside(udp("192.0.2.1:547", "10.0.0.1:546")), "no-rule", "IPv6's ports in IPv4");
}

#[test]
fn igmp_and_mld_2_6_from_inside_bear_no_address_or_the_nics_own() {
    let igmp = |source: &str| igmp_report(source, "239.1.1.1").src_mac(MAC1);
    let mut s = scenario();
    assert_eq!(s.inside(igmp("0.0.0.0").src_mac(BAD)), "control");
    assert_eq!(s.inside(igmp("10.0.0.1")), "control");
    assert_eq!(s.inside(igmp("10.0.0.1").src_mac(BAD)), "spoofed");
    assert_eq!(s.inside(igmp("10.0.0.9")), "spoofed");
    for kind in [130, 131, 132, 143] {
        let mld = |source: &str| mld_report(source, "ff02::1:3").kind(kind).src_mac(MAC1);
        assert_eq!(s.inside(mld("::")), "control");
        assert_eq!(s.inside(mld("fe80::1")), "control");
        assert_eq!(s.inside(mld("2001:db8::1")), "control");
        assert_eq!(s.inside(mld("2001:db8::1").src_mac(BAD)), "spoofed");
        assert_eq!(s.inside(mld("2001:db8::9")), "spoofed");
    }
}

#[test]
fn igmp_and_mld_2_6_from_outside_pass() {
    let mut s = scenario();
    assert_eq!(s.outside(igmp_report("192.0.2.1", "239.1.1.1")), "control");
    for kind in [130, 131, 132, 143] {
        assert_eq!(s.outside(mld_report("2001:db8:9::1", "ff02::1:3").kind(kind)), "control");
    }
    assert_eq!(s.outside(icmp("2001:db8:9::1", "2001:db8::1", 144, 0)), "invalid", "no MLD");
}

#[test]
fn ethertypes_2_6_drop_unless_listed() {
    let (lldp, other) = (ethernet(0x88CC, &[0; 50]), ethernet(0x88CD, &[0; 50]));
    let mut s = Scenario::with("[policy]\npass_ethertypes = [0x88cc]\n", &policy());
    assert_eq!(s.inside(lldp.clone()), "control");
    assert_eq!(s.outside(lldp.clone()), "control");
    assert_eq!(s.inside(other.clone()), "not-ip");
    assert_eq!(s.outside(other), "not-ip");
    assert_eq!(scenario().inside(lldp.clone()), "not-ip");
    assert_eq!(scenario().outside(lldp), "not-ip");
}

/// The NIC that the verdict on a frame from inside names.
fn nic_inside(frame: impl Build) -> Option<String> {
    let mut s = scenario();
    s.inside(frame);
    s.nic()
}

fn nic_outside(frame: impl Build) -> Option<String> {
    let mut s = scenario();
    s.outside(frame);
    s.nic()
}

#[test]
fn names_2_6_from_inside_the_owner_of_the_source() {
    assert_eq!(nic_inside(arp_request(MAC1, "10.0.0.1", "10.0.0.2")).as_deref(), Some("a"));
    assert_eq!(nic_inside(neighbor_solicitation(MAC1, "2001:db8::1", "2001:db8::2")).as_deref(), Some("a"));
    assert_eq!(nic_inside(dhcp("10.0.0.1")).as_deref(), Some("a"));
    assert_eq!(nic_inside(igmp_report("10.0.0.1", "239.1.1.1").src_mac(MAC1)).as_deref(), Some("a"));
    assert_eq!(nic_inside(router_advertisement("2001:db8::2", "ff02::1")).as_deref(), Some("b"));
    assert_eq!(nic_inside(dhcp_server("10.0.0.2", "10.0.0.1", MAC1)).as_deref(), Some("b"));
    let of = neighbor_advertisement(MAC1, "fe80::1", "ff02::1", "2001:db8::1");
    assert_eq!(nic_inside(of).as_deref(), Some("a"), "from a link-local address: of the target");
}

#[test]
fn names_2_6_from_outside_the_owner_of_the_destination() {
    assert_eq!(nic_outside(arp_request(BAD, "10.0.0.1", "10.0.0.2")).as_deref(), Some("b"));
    assert_eq!(nic_outside(dhcp_server("192.0.2.1", "10.0.0.1", MAC1)).as_deref(), Some("a"));
    let of = neighbor_advertisement(BAD, "2001:db8::9", "2001:db8::2", "2001:db8::9");
    assert_eq!(nic_outside(of).as_deref(), Some("b"));
}

#[test]
fn names_2_6_nobody_where_there_is_no_owner() {
    assert_eq!(nic_inside(arp_request(MAC1, "0.0.0.0", "10.0.0.1")), None, "a probe");
    assert_eq!(nic_inside(router_solicitation("::").src_mac(MAC1)), None);
    assert_eq!(nic_inside(neighbor_advertisement(MAC1, "::", "ff02::1", "2001:db8::1")), None);
    assert_eq!(nic_inside(neighbor_solicitation(MAC1, "fe80::1", "2001:db8::1")), None);
    assert_eq!(nic_inside(dhcp_client(MAC1)), None);
    assert_eq!(nic_outside(arp_request(BAD, "10.0.0.1", "10.0.0.99")), None);
    assert_eq!(nic_outside(router_advertisement("fe80::1", "ff02::1")), None);
}

#[test]
fn names_2_6_what_is_spoofed_names_the_owner_and_what_is_malformed_nobody() {
    assert_eq!(nic_inside(arp_request(MAC1, "10.0.0.2", "10.0.0.254")).as_deref(), Some("b"));
    assert_eq!(nic_inside(arp_request(MAC1, "10.0.0.99", "10.0.0.254")), None);
    assert_eq!(nic_inside(arp_request(MAC1, "0.0.0.0", "10.0.0.2")).as_deref(), Some("b"));
    assert_eq!(nic_inside(neighbor_solicitation(BAD, "2001:db8::1", "2001:db8::9")).as_deref(), Some("a"));
    let of = neighbor_advertisement(MAC1, "fe80::1", "ff02::1", "2001:db8::2");
    assert_eq!(nic_inside(of).as_deref(), Some("b"));
    assert_eq!(nic_inside(dhcp("10.0.0.2")).as_deref(), Some("b"));
    assert_eq!(nic_outside(arp_request(BAD, "10.0.0.1", "10.0.0.2").cut(41)), None);
    let cut = neighbor_solicitation(MAC1, "2001:db8::1", "2001:db8::9").ttl(64);
    assert_eq!(nic_inside(cut), None);
}
