//! Semantics §2.7 and §2.8: lengths and headers, and the settings for the first day.

use control::config::{Config, parse_config};
use control::live::lenient_settings;
use control::model::Policy;
use engine::Side;
use testkit::frame::*;
use testkit::scenario::{Scenario, one, policy, rule::*};
use testkit::sim::SimFrame;

const C: &str = "198.51.100.9:5000";
const W: &str = "10.0.0.1:53";

/// Every packet of the NIC is allowed in.
fn open() -> Scenario {
    Scenario::new(&policy(&[("web", &[IN])], &[("a", "10.0.0.1, \"2001:db8::1\"", &["web"])]))
}

fn query() -> Packet<Udp> {
    udp(C, W)
}

/// The verdict on a frame of which only `captured` bytes are there.
fn snapped(frame: impl Build, captured: usize) -> String {
    open().frame(Side::Outside, SimFrame::new(0, frame.frame(), &Default::default()).snapped(captured))
}

#[test]
fn lengths_2_7_are_compared_with_the_wire_and_headers_with_what_was_captured() {
    let long = query().payload(vec![0; 300]);
    assert_eq!(snapped(long.clone(), 42), "new by web#0");
    assert_eq!(snapped(long.clone(), 41), "malformed");
    assert_eq!(snapped(long.lie_ip_length(329), 42), "malformed", "a datagram longer than the packet");
    assert_eq!(snapped(query().lie_ip_length(29), 42), "malformed", "a packet longer than the frame");
}

#[test]
fn lengths_2_7_of_ip_lie_between_its_header_and_the_frame() {
    assert_eq!(open().outside(ip("198.51.100.9", "10.0.0.1", 99).lie_ip_length(19)), "malformed");
    assert_eq!(open().outside(ip("198.51.100.9", "10.0.0.1", 99).lie_ip_length(20)), "new by web#0");
    assert_eq!(open().outside(ip("198.51.100.9", "10.0.0.1", 99).lie_ip_length(21)), "malformed");
    let options = ip("198.51.100.9", "10.0.0.1", 99).options(&[1; 4]);
    assert_eq!(open().outside(options.lie_ip_length(23)), "malformed");
    let v6 = ip("2001:db8::9", "2001:db8::1", 99);
    assert_eq!(open().outside(v6.clone().lie_ip_length(1)), "malformed");
    assert_eq!(open().outside(v6.lie_ip_length(0)), "new by web#0");
}

#[test]
fn lengths_2_7_a_cut_ip_header_is_malformed() {
    let (v4, v6) = (ip("198.51.100.9", "10.0.0.1", 99), ip("2001:db8::9", "2001:db8::1", 99));
    assert_eq!(open().outside(v4.clone().cut(33)), "malformed");
    assert_eq!(open().outside(v6.clone().cut(53)), "malformed");
    assert_eq!(snapped(v4.clone(), 33), "malformed");
    assert_eq!(snapped(v6, 53), "malformed");
    assert_eq!(open().outside(v4.clone().lie_header_words(4)), "malformed");
    assert_eq!(open().outside(v4.lie_header_words(6)), "malformed");
    assert_eq!(open().outside(query().lie_version(5)), "malformed");
}

#[test]
fn lengths_2_7_of_udp_lie_between_8_and_the_packet() {
    let query = || query().payload([0; 10]);
    assert_eq!(open().outside(query().lie_length(7)), "malformed");
    assert_eq!(open().outside(query().lie_length(8)), "new by web#0");
    assert_eq!(open().outside(query().lie_length(18)), "new by web#0");
    assert_eq!(open().outside(query().lie_length(19)), "malformed");
}

#[test]
fn lengths_2_7_tcps_data_offset_lies_between_20_and_the_segment() {
    let syn = || tcp(C, W).syn().payload([0; 8]);
    assert_eq!(open().outside(syn().lie_data_offset(4)), "malformed");
    assert_eq!(open().outside(syn().lie_data_offset(5)), "new by web#0");
    assert_eq!(open().outside(syn().lie_data_offset(7)), "new by web#0");
    assert_eq!(open().outside(syn().lie_data_offset(8)), "malformed");
}

#[test]
fn lengths_2_7_padding_is_fine_and_no_checksum_is_verified() {
    assert_eq!(open().outside(query().trailer(&[0xFF; 20])), "new by web#0");
    assert_eq!(open().outside(query().lie_checksum(1).lie_ip_checksum(1)), "new by web#0");
    assert_eq!(open().outside(tcp(C, W).syn().lie_checksum(1)), "new by web#0");
    assert_eq!(
        open().outside(echo_request("198.51.100.9", "10.0.0.1", 1, 1).lie_checksum(1)),
        "new by web#0"
    );
    assert_eq!(open().outside(sctp(C, W).lie_checksum(1)), "new by web#0");
}

/// Of a packet without payload, the L4 header of `length` bytes must be there, in the packet and in what was captured.
fn needs<T: Transport>(packet: Packet<T>, length: usize) {
    let packet = packet.clone().slice(0..length);
    let l4 = packet.frame().len() - length;
    assert_eq!(open().outside(packet.clone()), "new by web#0");
    assert_eq!(open().outside(packet.clone().slice(0..length - 1)), "malformed", "cut in the packet");
    assert_eq!(snapped(packet, l4 + length - 1), "malformed", "cut by the capture");
}

#[test]
fn headers_2_7_of_tcp_are_as_long_as_its_data_offset() {
    needs(tcp(C, W).syn(), 20);
    needs(tcp(C, W).syn().option(&[1; 20]), 40);
}

#[test]
fn headers_2_7_of_udp_udp_lite_and_icmp_have_8_bytes() {
    // Cut in the packet, UDP's own length would lie as well: it says 8 at most here.
    needs(udp(C, W), 8);
    needs(udp_lite(C, W), 8);
    needs(echo_request("198.51.100.9", "10.0.0.1", 1, 1), 8);
    needs(echo_request("2001:db8::9", "2001:db8::1", 1, 1), 8);
}

#[test]
fn headers_2_7_of_sctp_and_dccp_have_12_bytes_and_of_others_none() {
    needs(sctp(C, W).init(1), 12);
    needs(dccp(C, W), 12);
    assert_eq!(open().outside(esp("198.51.100.9", "10.0.0.1", 1, 1).slice(0..0)), "new by web#0");
    assert_eq!(snapped(gre("198.51.100.9", "10.0.0.1", 0x800, b"x"), 34), "new by web#0");
}

fn query6() -> Packet<Udp> {
    udp("[2001:db8::9]:5", "[2001:db8::1]:53")
}

/// Only DNS over UDP is allowed in, and protocols 51, 59 and 135.
fn dns6() -> Scenario {
    let by_number = |n| format!("{{direction: inbound, protocol: {n}}}");
    let others = [by_number(51), by_number(59), by_number(135)];
    let rules = [DNS, &others[0], &others[1], &others[2]];
    Scenario::new(&policy(&[("web", &rules)], &[("a", "\"2001:db8::1\"", &["web"])]))
}

#[test]
fn source_routes_2_7_are_malformed_wherever_they_stand_among_the_options() {
    let with = |options: &[u8]| open().outside(udp(C, W).options(options).payload([0; 40]));
    for kind in [131, 137] {
        for options in [
            &[kind, 7, 4, 10, 0, 0, 9][..],
            &[kind, 3, 4],
            &[1, 1, 1, kind],
            &[7, 7, 4, 0, 0, 0, 0, kind, 3, 4],
            &[148, 4, 0, 0, kind, 11, 4, 10, 0, 0, 9, 10, 0, 0, 8],
        ] {
            assert_eq!(with(options), "malformed", "{options:?}");
        }
        for options in [
            &[0, kind, 3, 4][..],
            &[7, 7, 4, kind, kind, kind, kind],
            // What follows a length that lies is nobody's option.
            &[7, 0, kind, 3],
            &[7, 1, kind, 3],
            &[7, 9, kind, 3],
        ] {
            assert_eq!(with(options), "new by web#0", "{options:?}");
        }
        // In every fragment, whose first is then not remembered; in a tunnel; of every protocol, control included.
        let mut s = open();
        let pieces = udp(C, W).options(&[kind, 3, 4]).payload([7; 200]).fragments(96);
        for piece in pieces {
            assert_eq!(s.bytes(Side::Outside, piece), "malformed");
        }
        assert_eq!(s.outside(tcp(C, W).syn().options(&[kind, 3, 4])), "malformed");
        assert_eq!(s.inside(igmp_report("10.0.0.1", "239.1.1.1").options(&[kind, 3, 4])), "malformed");
        let mut s = Scenario::new(&one(&[IN]).replace("untagged: true", "vni: 5001"));
        let inner = |options: &[u8]| udp(C, W).options(options).payload([0; 40]).frame();
        assert_eq!(s.outside(vxlan("172.16.0.1", "172.16.0.2", 5001, &inner(&[kind, 3, 4]))), "malformed");
        assert_eq!(s.outside(vxlan("172.16.0.1", "172.16.0.2", 5001, &inner(&[1]))), "new by web#0");
    }
}

#[test]
fn extensions_2_7_are_hop_by_hop_routing_fragment_and_destination_options() {
    for ext in [Ext::hop_by_hop(), Ext::routing(2, 1), Ext::Fragment(0, false, 7), Ext::destination_options()]
    {
        assert_eq!(dns6().outside(query6().ext(ext.clone())), "new by web#0", "{ext:?}");
    }
}

#[test]
fn extensions_2_7_every_other_number_is_a_protocol() {
    let mut s = dns6();
    assert_eq!(s.outside(query6().ext(Ext::Authentication(1, 1, vec![0; 12]))), "new by web#1");
    assert_eq!(s.outside(ip("2001:db8::9", "2001:db8::1", 59)), "new by web#2");
    assert_eq!(s.outside(query6().ext(Ext::Raw(135, vec![0; 7]))), "new by web#3");
    assert_eq!(s.outside(query6().ext(Ext::Raw(139, vec![0; 7]))), "no-rule");
}

#[test]
fn extensions_2_7_are_at_most_8_end_in_the_packet_and_are_no_type_0_routing() {
    let chain = |n: usize| (0..n).fold(query6(), |p, _| p.ext(Ext::destination_options()));
    assert_eq!(dns6().outside(chain(8)), "new by web#0");
    assert_eq!(dns6().outside(chain(9)), "malformed");
    assert_eq!(dns6().outside(query6().ext(Ext::Raw(60, vec![200, 0, 0, 0, 0, 0, 0]))), "malformed");
    assert_eq!(dns6().outside(query6().ext(Ext::hop_by_hop()).lie_ip_length(7)), "malformed");
    assert_eq!(dns6().outside(query6().ext(Ext::routing(0, 0))), "malformed");
}

const DAY_ONE: &str = "unknown_segment = \"pass\"\nunknown_nic = \"pass\"\npass_link_local = true\n\
    pass_multicast = [\"224.0.0.18/32\", \"ff02::12/128\"]\nmode = \"observe\"\n";

fn with(setting: &str, vlan: u16) -> Scenario {
    let text = one(&[DNS, OUT]).replace("untagged: true", &format!("vlan: {vlan}"));
    Scenario::with(&format!("[policy]\n{setting}\n"), &text)
}

fn bridge(last: u8) -> Ethernet {
    ethernet(0x0027, &[0; 50]).dst_mac([1, 0x80, 0xC2, 0, 0, last])
}

#[test]
fn day_one_2_8_everything_is_off_by_default() {
    let mut s = with("", 100);
    assert_eq!(s.outside(query()), "unknown-segment");
    assert_eq!(s.outside(udp(C, "10.9.9.9:53").vlan(100)), "unknown-destination");
    assert_eq!(s.outside(bridge(0).vlan(100)), "not-ip");
    assert_eq!(s.outside(ip("192.0.2.1", "224.0.0.18", 112).vlan(100)), "unknown-destination");
    assert_eq!(s.outside(udp(C, "10.0.0.1:54").vlan(100)), "no-rule");
    assert!(!s.passed());
}

#[test]
fn day_one_2_8_what_is_on_is_told() {
    assert!(lenient_settings(&Config::default(), &Policy::default()).is_empty());
    let all = parse_config(&format!("[policy]\n{DAY_ONE}"), "config").unwrap();
    let told = lenient_settings(&all, &Policy::default()).join("\n");
    for setting in ["unknown_segment", "unknown_nic", "pass_link_local", "pass_multicast", "mode"] {
        assert!(told.contains(setting), "{setting} is not told: {told}");
    }
}

#[test]
fn day_one_2_8_frames_of_nobodys_segment_or_nic_pass() {
    let mut s = with("unknown_segment = \"pass\"", 100);
    assert_eq!(s.outside(query()), "control");
    assert_eq!(s.outside(query().vlan(100).vlan(5)), "control");
    assert_eq!(s.outside(udp(C, "10.9.9.9:53").vlan(100)), "unknown-destination");
    let mut s = with("unknown_nic = \"pass\"", 100);
    assert_eq!(s.outside(udp(C, "10.9.9.9:53").vlan(100)), "control");
    assert_eq!(s.inside(udp("10.9.9.9:1", "192.0.2.1:1").vlan(100)), "control");
    assert_eq!(s.inside(arp_request("02:00:00:00:00:66", "10.9.9.9", "10.0.0.1").vlan(100)), "control");
    assert_eq!(s.outside(query()), "unknown-segment");
}

#[test]
fn day_one_2_8_link_local_frames_pass_whatever_their_segment() {
    let mut s = with("pass_link_local = true", 100);
    assert_eq!(s.outside(bridge(0).vlan(100)), "control");
    assert_eq!(s.inside(bridge(0x0F)), "control");
    assert_eq!(s.outside(bridge(2).vlan(7)), "control");
    assert_eq!(s.outside(bridge(0x10).vlan(100)), "not-ip");
}

#[test]
fn day_one_2_8_multicast_prefixes_pass_from_outside_only() {
    let mut s = with("pass_multicast = [\"224.0.0.18/32\", \"ff02::12/128\"]", 100);
    let vrrp = |to: &str| ip("192.0.2.1", to, 112).vlan(100);
    assert_eq!(s.outside(vrrp("224.0.0.18")), "control");
    assert_eq!(s.outside(vrrp("224.0.0.17")), "unknown-destination");
    assert_eq!(s.outside(vrrp("224.0.0.19")), "unknown-destination");
    assert_eq!(s.outside(ip("fe80::1", "ff02::12", 112).vlan(100)), "control");
    assert_eq!(s.outside(ip("fe80::1", "ff02::13", 112).vlan(100)), "unknown-destination");
    assert_eq!(s.inside(ip("10.0.0.1", "224.0.0.18", 112).vlan(100)), "new by web#1", "judged by rules");
    assert_eq!(s.inside(ip("10.9.9.9", "224.0.0.18", 112).vlan(100)), "unknown-source");
}

#[test]
fn observe_2_8_lets_everything_pass_and_tracks_as_it_would() {
    let mut s = Scenario::with("[policy]\nmode = \"observe\"\n", &one(&[DNS, OUT]));
    assert_eq!(s.outside(tcp(C, "10.0.0.1:22").syn()), "no-rule (observed)");
    assert!(s.passed());
    assert!(s.connections().is_empty(), "what would be dropped opens nothing");
    assert_eq!(s.outside(udp(C, "10.9.9.9:53")), "unknown-destination (observed)");
    assert!(s.passed());
    s.outside(query());
    s.apply(&one(&[DNS, SSH, OUT]));
    assert_eq!(s.outside(query()), "tombstone (observed)");
    assert!(s.passed());
    assert_eq!(s.inside(udp(W, C)), "tombstone (observed)");
    assert!(s.connections()[0].ends_with(" tombstone"));
}

#[test]
fn observe_2_8_a_nic_may_have_a_mode_of_its_own() {
    let text = |modes: [&str; 2]| {
        policy(&[("web", &[DNS])], &[("a", "10.0.0.1", &["web"]), ("b", "10.0.0.2", &["web"])])
            .replace("addresses: [10.0.0.1]", &format!("mode: {}, addresses: [10.0.0.1]", modes[0]))
            .replace("addresses: [10.0.0.2]", &format!("mode: {}, addresses: [10.0.0.2]", modes[1]))
    };
    for config in ["", "[policy]\nmode = \"observe\"\n"] {
        let mut s = Scenario::with(config, &text(["observe", "enforce"]));
        assert_eq!(s.outside(udp(C, "10.0.0.1:54")), "no-rule (observed)");
        assert_eq!(s.outside(udp(C, "10.0.0.2:54")), "no-rule");
    }
}
