//! Semantics §2: from a frame to its NIC.

use engine::Side;
use testkit::frame::*;
use testkit::scenario::Scenario;
use testkit::sim::SimFrame;

const MAC1: &str = "02:00:00:00:00:01";
const MAC2: &str = "02:00:00:00:00:02";
const BAD: &str = "02:00:00:00:00:66";

fn policy(segment: &str, more: &str) -> String {
    format!(
        r#"
vpcs:
  - {{name: prod, segment: {{{segment}}}}}
{more}
security_groups:
  - name: web
    rules:
      - {{direction: inbound, protocol: udp, ports: 53}}
      - {{direction: inbound, protocol: udp, ports: 67}}
      - {{direction: outbound}}
nics:
  - {{name: a, vpc: prod, mac: "{MAC1}", addresses: [10.0.0.1, "2001:db8::1"], allowed_addresses: [10.0.0.100], security_groups: [web]}}
  - {{name: b, vpc: prod, mac: "{MAC2}", addresses: [10.0.0.2], allowed_addresses: [10.0.0.100, {{address: 10.0.0.7, mac: "02:00:5e:00:00:07"}}], security_groups: [web]}}
  - {{name: c, vpc: prod, addresses: [10.0.0.3], security_groups: [web]}}
"#
    )
}

fn untagged() -> Scenario {
    Scenario::new(&policy("untagged: true", ""))
}

fn query(to: &str) -> Packet<Udp> {
    udp("198.51.100.9:5000", format!("{to}:53").as_str())
}

#[test]
fn segment_2_2_tags_tell_the_vpc_and_a_priority_tag_counts_as_none() {
    let mut s = Scenario::new(&policy("vlan: 100", "  - {name: plain, segment: {untagged: true}}"));
    assert_eq!(s.outside(query("10.0.0.1").vlan(100)), "new by web#0");
    assert_eq!(s.outside(query("10.0.0.1").vlan(101)), "unknown-segment");
    assert_eq!(s.outside(query("10.0.0.1")), "unknown-destination");
    assert_eq!(s.outside(query("10.0.0.1").vlan(0)), "unknown-destination");
    assert_eq!(s.outside(query("10.0.0.1").vlan(100).vlan(100)), "unknown-segment");
    assert_eq!(s.outside(query("10.0.0.1").tag(0x88A8, 100)), "unknown-segment");
}

#[test]
fn segment_2_2_vnis_judge_the_inner_frame_and_know_only_the_tunnels_own_arp_and_nd() {
    let mut s = Scenario::new(&policy("vni: 5001", ""));
    let inner = query("10.0.0.1").frame();
    for wrap in
        [vxlan("192.0.2.1", "192.0.2.2", 5001, &inner), geneve("192.0.2.1", "192.0.2.2", 5001, &inner)]
    {
        let reason = s.outside(wrap);
        assert!(reason == "new by web#0" || reason == "established", "{reason}");
    }
    assert_eq!(s.outside(vxlan("192.0.2.1", "192.0.2.2", 5002, &inner)), "unknown-segment");
    let no_flag = udp("192.0.2.1:1", "192.0.2.2:4789").payload([&vxlan_header(0, 5001)[..], &inner].concat());
    assert_eq!(s.outside(no_flag), "malformed");
    let not_ethernet = udp("192.0.2.1:1", "192.0.2.2:6081")
        .payload([&geneve_header(0x0800, 5001, &[])[..], &inner].concat());
    assert_eq!(s.outside(not_ethernet), "malformed");
    let tagged = query("10.0.0.1").vlan(5).frame();
    assert_eq!(s.outside(vxlan("192.0.2.1", "192.0.2.2", 5001, &tagged)), "unknown-segment");
    assert_eq!(s.outside(arp_request(BAD, "192.0.2.1", "192.0.2.2")), "control");
    assert_eq!(s.inside(neighbor_solicitation(BAD, "2001:db8:9::1", "2001:db8:9::2").ttl(3)), "control");
    assert_eq!(s.outside(udp("192.0.2.1:1", "192.0.2.2:53")), "unknown-segment");
    assert_eq!(
        s.outside(vxlan("192.0.2.1", "192.0.2.2", 5001, &inner).lie_ip_length(60_000)),
        "unknown-segment"
    );
    assert_eq!(s.outside(vxlan("192.0.2.1", "192.0.2.2", 5001, &inner[..10])), "malformed");
}

#[test]
fn nic_2_3_is_found_by_address_and_held_to_its_mac() {
    let mut s = untagged();
    let from = |addr: &str, mac: &str| udp(format!("{addr}:9").as_str(), "192.0.2.1:9").src_mac(mac);
    assert_eq!(s.inside(from("10.0.0.1", MAC1)), "new by web#2");
    assert_eq!(s.inside(from("10.0.0.1", MAC2)), "spoofed");
    assert_eq!(s.nic().as_deref(), Some("a"));
    assert_eq!(s.inside(from("10.0.0.3", BAD)), "new by web#2");
    assert_eq!(s.inside(from("10.9.9.9", MAC1)), "unknown-source");
    assert_eq!(s.nic(), None);
    assert_eq!(s.outside(query("10.9.9.9")), "unknown-destination");
    assert_eq!(s.outside(udp("10.0.0.1:5", "10.0.0.1:53")), "spoofed");
    assert_eq!(s.outside(udp("10.0.0.100:5", "10.0.0.1:53")), "spoofed");
    assert_eq!(s.inside(from("10.0.0.7", MAC2)), "spoofed");
    assert_eq!(s.inside(from("10.0.0.7", "02:00:5e:00:00:07")), "new by web#2");
}

#[test]
fn nic_2_5_a_shared_address_is_the_holders_whose_mac_the_frame_bears_else_the_first_by_name() {
    let mut s = untagged();
    assert_eq!(s.outside(query("10.0.0.100").dst_mac(MAC2)), "new by web#0");
    assert_eq!(s.nic().as_deref(), Some("b"));
    assert_eq!(s.outside(query("10.0.0.100").dst_mac(BAD)), "new by web#0");
    assert_eq!(s.nic().as_deref(), Some("a"));
    assert_eq!(s.inside(udp("10.0.0.100:9", "192.0.2.1:9").src_mac(MAC2)), "new by web#2");
    assert_eq!(s.nic().as_deref(), Some("b"));
    assert_eq!(s.inside(udp("10.0.0.100:9", "192.0.2.1:9").src_mac(BAD)), "spoofed");
    assert_eq!(s.nic().as_deref(), Some("a"));
}

#[test]
fn arp_2_6_from_inside_must_be_the_nics_own_and_from_outside_passes() {
    let mut s = untagged();
    assert_eq!(s.inside(arp_request(MAC1, "10.0.0.1", "10.0.0.254")), "control");
    assert_eq!(s.nic().as_deref(), Some("a"));
    assert_eq!(s.inside(arp_request(MAC1, "10.0.0.2", "10.0.0.254")), "spoofed");
    assert_eq!(s.nic().as_deref(), Some("b"));
    assert_eq!(s.inside(arp_request(MAC1, "10.0.0.99", "10.0.0.254")), "spoofed");
    assert_eq!(s.nic(), None);
    assert_eq!(s.inside(arp_request(MAC1, "10.0.0.1", "10.0.0.254").src_mac(MAC2)), "spoofed");
    assert_eq!(s.inside(arp_request(MAC1, "0.0.0.0", "10.0.0.1")), "control");
    assert_eq!(s.nic(), None);
    assert_eq!(s.inside(arp_request(MAC1, "0.0.0.0", "10.0.0.2")), "spoofed");
    assert_eq!(s.outside(arp_request(BAD, "10.0.0.1", "10.0.0.2")), "control");
    assert_eq!(s.nic().as_deref(), Some("b"));
    assert_eq!(s.outside(arp_request(BAD, "10.0.0.254", "10.0.0.2").cut(41)), "malformed");
    assert_eq!(s.outside(arp_request(BAD, "10.0.0.254", "10.0.0.2").lie_hardware(6, 6)), "malformed");
}

#[test]
fn nd_2_6_is_guarded() {
    let mut s = untagged();
    let ns = |src: &str| neighbor_solicitation(MAC1, src, "2001:db8::99").src_mac(MAC1);
    assert_eq!(s.inside(ns("2001:db8::1")), "control");
    assert_eq!(s.nic().as_deref(), Some("a"));
    assert_eq!(s.inside(ns("fe80::1")), "control");
    assert_eq!(s.inside(ns("2001:db8::55")), "spoofed");
    assert_eq!(s.inside(ns("2001:db8::1").src_mac(BAD)), "spoofed");
    assert_eq!(s.inside(ns("2001:db8::1").ttl(64)), "malformed");
    assert_eq!(s.inside(router_advertisement("fe80::1", "ff02::1")), "rogue");
    assert_eq!(s.outside(router_advertisement("fe80::1", "ff02::1")), "control");
    assert_eq!(s.outside(redirect("fe80::1", "2001:db8::1", "2001:db8::5", "2001:db8::6")), "rogue");
}

#[test]
fn dhcp_igmp_and_mld_2_6_pass_in_their_own_direction() {
    let mut s = untagged();
    assert_eq!(s.inside(dhcp_client(MAC1)), "control");
    assert_eq!(s.outside(dhcp_server("192.0.2.1", "10.0.0.1", MAC1)), "control");
    assert_eq!(s.inside(dhcp_server("10.0.0.1", "10.0.0.2", MAC2)), "rogue");
    assert_eq!(s.outside(udp("192.0.2.1:68", "10.0.0.1:67")), "new by web#1", "rules decide");
    assert_eq!(s.inside(igmp_report("10.0.0.1", "239.1.1.1").src_mac(MAC1)), "control");
    assert_eq!(s.inside(igmp_report("10.0.0.9", "239.1.1.1").src_mac(MAC1)), "spoofed");
    assert_eq!(s.outside(igmp_report("192.0.2.1", "239.1.1.1")), "control");
    assert_eq!(s.inside(mld_report("fe80::1", "ff02::1:3")), "control");
}

#[test]
fn ethertypes_2_6_drop_unless_listed() {
    let frame = ethernet(0x88CC, &[0; 50]);
    assert_eq!(untagged().outside(frame.clone()), "not-ip");
    let mut s = Scenario::with("[policy]\npass_ethertypes = [0x88cc]\n", &policy("untagged: true", ""));
    assert_eq!(s.outside(frame), "control");
}

#[test]
fn lengths_2_7_that_lie_or_headers_that_are_cut_are_malformed_and_padding_is_fine() {
    let mut s = untagged();
    assert_eq!(s.bytes(Side::Outside, vec![0; 13]), "malformed");
    assert_eq!(s.outside(query("10.0.0.1").trailer(&[0; 20])), "new by web#0");
    assert_eq!(s.outside(query("10.0.0.1").lie_ip_length(10)), "malformed");
    assert_eq!(s.outside(query("10.0.0.1").lie_ip_length(2000)), "malformed");
    assert_eq!(s.outside(query("10.0.0.1").lie_length(7)), "malformed");
    assert_eq!(s.outside(query("10.0.0.1").lie_length(900)), "malformed");
    assert_eq!(s.outside(query("10.0.0.1").lie_header_words(4)), "malformed");
    assert_eq!(s.outside(tcp("1.2.3.4:1", "10.0.0.1:53").syn().lie_data_offset(4)), "malformed");
    assert_eq!(s.outside(tcp("1.2.3.4:1", "10.0.0.1:53").syn().lie_data_offset(15)), "malformed");
    assert_eq!(s.outside(query("10.0.0.1").lie_checksum(1).lie_ip_checksum(1)), "established");
}

#[test]
fn extension_headers_2_7_are_walked_at_most_8() {
    let mut s = untagged();
    let chain = |n: usize| {
        (0..n).fold(udp("[2001:db8::9]:5", "[2001:db8::1]:53"), |p, _| p.ext(Ext::destination_options()))
    };
    assert_eq!(s.outside(chain(8)), "new by web#0");
    assert_eq!(s.outside(chain(9)), "malformed");
    let routed = |kind| udp("[2001:db8::9]:5", "[2001:db8::1]:53").ext(Ext::routing(kind, 0));
    assert_eq!(s.outside(routed(0)), "malformed");
    assert_eq!(s.outside(routed(2)), "established");
}

#[test]
fn settings_2_8_for_a_day_one_deployment_pass_what_nobody_claims() {
    let config = "[policy]\nunknown_segment = \"pass\"\nunknown_nic = \"pass\"\npass_link_local = true\n";
    let mut s = Scenario::with(config, &policy("vlan: 100", ""));
    assert_eq!(s.outside(query("10.0.0.1")), "control");
    assert_eq!(s.outside(query("10.9.9.9").vlan(100)), "control");
    assert_eq!(s.inside(udp("10.9.9.9:1", "1.1.1.1:1").vlan(100)), "control");
    assert_eq!(s.inside(arp_request(BAD, "10.9.9.9", "10.0.0.1").vlan(100)), "control");
    assert_eq!(s.outside(ethernet(0x0027, &[0; 50]).dst_mac("01:80:c2:00:00:00")), "control");
    let config = "[policy]\npass_multicast = [\"224.0.0.18/32\"]\n";
    let mut s = Scenario::with(config, &policy("untagged: true", ""));
    assert_eq!(s.outside(ip("192.0.2.1", "224.0.0.18", 112)), "control");
    assert_eq!(s.outside(ip("192.0.2.1", "224.0.0.19", 112)), "unknown-destination");
    assert_eq!(s.inside(ip("10.0.0.3", "224.0.0.18", 112)), "new by web#2");
}

#[test]
fn a_tag_moved_beside_the_frame_counts_like_one_in_it() {
    let mut s = Scenario::new(&policy("vlan: 100", ""));
    let frame = SimFrame::new(0, query("10.0.0.1").vlan(100).frame(), &Default::default()).tag_stripped();
    assert_eq!(s.frame(Side::Outside, frame), "new by web#0");
    let two =
        SimFrame::new(0, query("10.0.0.1").vlan(7).vlan(100).frame(), &Default::default()).tag_stripped();
    assert_eq!(s.frame(Side::Outside, two), "unknown-segment");
}
