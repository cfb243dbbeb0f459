//! Semantics §2.1–2.5: the order of the checks, segments, NICs, sides, addresses.

use std::collections::BTreeSet;
use std::sync::Arc;

use control::commit::Committer;
use control::compile::shard_config;
use control::config::Config;
use control::document::{Limits, parse_policy};
use engine::Side;
use engine::burst::{Firewall, FirewallConfig};
use engine::conntrack::Secret;
use engine::counters::{ConnectionCounts, EngineCounters};
use engine::worker::{Wire, Worker, mesh};
use testkit::frame::*;
use testkit::scenario::Scenario;
use testkit::scenario::{one, rule::*};
use testkit::sim::{SimFrame, SimQueue, SimWorkers, Steering, Verdicts};

const MAC1: &str = "02:00:00:00:00:01";
const MAC2: &str = "02:00:00:00:00:02";
const BAD: &str = "02:00:00:00:00:66";
const VIRTUAL: &str = "02:00:5e:00:00:07";

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
  - {{name: a, vpc: prod, mac: "{MAC1}", addresses: [10.0.0.1, "2001:db8::1"], allowed_addresses: [10.0.0.100, 10.0.0.8], security_groups: [web]}}
  - {{name: b, vpc: prod, mac: "{MAC2}", addresses: [10.0.0.2], allowed_addresses: [10.0.0.100, {{address: 10.0.0.7, mac: "{VIRTUAL}"}}, {{address: 10.0.0.8, mac: "{VIRTUAL}"}}], security_groups: [web]}}
  - {{name: c, vpc: prod, addresses: [10.0.0.3], allowed_addresses: [{{address: 10.0.0.8, mac: "{VIRTUAL}"}}], security_groups: [web]}}
"#
    )
}

fn untagged() -> Scenario {
    Scenario::new(&policy("untagged: true", ""))
}

fn tunnelled() -> Scenario {
    Scenario::new(&policy("vni: 5001", "  - {name: tagged, segment: {vlan: 100}}"))
}

fn query(to: &str) -> Packet<Udp> {
    udp("198.51.100.9:5000", format!("{to}:53").as_str())
}

#[test]
fn order_2_1_the_link_header_then_the_segment_then_what_is_behind_it() {
    let mut s = Scenario::new(&policy("vlan: 100", ""));
    assert_eq!(s.outside(query("10.0.0.1").vlan(7).cut(17)), "malformed");
    assert_eq!(s.outside(ethernet(0x88CC, &[0; 50]).vlan(7)), "unknown-segment");
    assert_eq!(s.outside(query("10.0.0.1").vlan(7).lie_ip_length(10)), "unknown-segment");
}

#[test]
fn order_2_1_headers_before_the_nic_and_so_malformed_names_none() {
    let mut s = untagged();
    assert_eq!(s.outside(query("10.9.9.9").lie_ip_length(10)), "malformed");
    assert_eq!(s.outside(query("10.0.0.1").lie_length(7)), "malformed");
    assert_eq!(s.nic(), None);
    assert_eq!(s.inside(dhcp_client(MAC1).lie_length(7)), "malformed");
}

#[test]
fn order_2_1_what_no_rule_judges_before_the_nic() {
    let mut s = untagged();
    assert_eq!(s.inside(dhcp_server("10.9.9.9", "10.0.0.2", MAC2)), "rogue");
    assert_eq!(s.inside(dhcp_server("10.0.0.1", "10.0.0.2", MAC2).src_mac(BAD)), "rogue");
    assert_eq!(s.outside(dhcp_server("192.0.2.1", "10.9.9.9", MAC2)), "control");
}

#[test]
fn order_2_1_the_nic_and_its_mac_before_later_fragments() {
    let mut s = untagged();
    assert_eq!(s.outside(query("10.9.9.9").fragment(3, false)), "unknown-destination");
    assert_eq!(s.inside(udp("10.0.0.1:5", "192.0.2.1:5").fragment(3, false).src_mac(BAD)), "spoofed");
    assert_eq!(s.outside(query("10.0.0.1").fragment(3, false)), "held");
}

#[test]
fn order_2_1_later_fragments_before_flags() {
    let mut s = untagged();
    let later = tcp("198.51.100.9:5", "10.0.0.1:53").flags(SYN | FIN).fragment(3, false);
    assert_eq!(s.outside(later), "held");
}

#[test]
fn order_2_1_flags_then_the_tombstone_then_what_may_open() {
    let (c, w) = ("198.51.100.9:40000", "10.0.0.1:22");
    let mut s = Scenario::new(&one(&[SSH, PING]));
    s.connect(c, w);
    s.outside(echo_request("198.51.100.9", "10.0.0.1", 7, 1));
    s.apply(&one(&[SSH, PING, DNS]));
    assert_eq!(s.outside(tcp(c, w).flags(SYN | FIN).seq(1001)), "invalid");
    assert_eq!(s.outside(tcp(c, w).seq(1001).ack(5001)), "tombstone");
    assert_eq!(s.inside(echo_reply("10.0.0.1", "198.51.100.9", 7, 1)), "tombstone");
}

#[test]
fn order_2_1_what_may_open_before_the_rules() {
    let mut s = Scenario::new(&one(&[SSH]));
    assert_eq!(s.outside(tcp("198.51.100.9:5", "10.0.0.1:23").seq(1).ack(2)), "invalid");
    assert_eq!(s.outside(tcp("198.51.100.9:5", "10.0.0.1:23").syn()), "no-rule");
}

#[test]
fn order_2_1_the_rules_then_the_nics_limit_then_the_table() {
    let limited = one(&[DNS, OUT]).replace("addresses:", "max_connections: 1, addresses:");
    let mut s = Scenario::with("[conntrack]\ncapacity = 1\n", &limited);
    s.outside(query("10.0.0.1"));
    s.inside(udp("10.0.0.1:53", "198.51.100.9:5000"));
    assert_eq!(s.outside(udp("198.51.100.9:5001", "10.0.0.1:54")), "no-rule");
    assert_eq!(s.outside(udp("198.51.100.9:5001", "10.0.0.1:53")), "nic-limit");
}

#[test]
fn segment_2_2_tags_tell_the_vpc_and_a_priority_tag_counts_as_none() {
    let mut s = Scenario::new(&policy("vlan: 100", "  - {name: plain, segment: {untagged: true}}"));
    assert_eq!(s.outside(query("10.0.0.1").vlan(100)), "new by web#0");
    assert_eq!(s.outside(query("10.0.0.1").vlan(101)), "unknown-segment");
    assert_eq!(s.outside(query("10.0.0.1")), "unknown-destination");
    assert_eq!(s.outside(query("10.0.0.1").vlan(0)), "unknown-destination");
    let mut s = untagged();
    assert_eq!(s.outside(query("10.0.0.1").tag(0x8100, 0xE000)), "new by web#0");
    assert_eq!(s.outside(query("10.0.0.1")), "established");
}

#[test]
fn segment_2_2_a_second_tag_and_a_lone_service_tag_are_no_segment() {
    let mut s = Scenario::new(&policy("vlan: 100", "  - {name: plain, segment: {untagged: true}}"));
    assert_eq!(s.outside(query("10.0.0.1").vlan(100).vlan(100)), "unknown-segment");
    assert_eq!(s.outside(query("10.0.0.1").vlan(0).vlan(100)), "unknown-segment");
    assert_eq!(s.outside(query("10.0.0.1").vlan(100).tag(0x88A8, 100)), "unknown-segment");
    assert_eq!(s.outside(query("10.0.0.1").tag(0x88A8, 100)), "unknown-segment");
    assert_eq!(s.outside(query("10.0.0.1").tag(0x88A8, 100).vlan(100)), "unknown-segment");
}

#[test]
fn segment_2_2_a_tunnels_inner_frame_is_judged_in_the_vpc_of_its_vni() {
    let inner = query("10.0.0.1").frame();
    for wrap in [
        vxlan("192.0.2.1", "192.0.2.2", 5001, &inner),
        vxlan("2001:db8:9::1", "2001:db8:9::2", 5001, &inner),
        geneve("192.0.2.1", "192.0.2.2", 5001, &inner),
        geneve("2001:db8:9::1", "2001:db8:9::2", 5001, &inner),
    ] {
        let mut s = tunnelled();
        assert_eq!(s.outside(wrap), "new by web#0");
        assert_eq!(s.nic().as_deref(), Some("a"));
    }
    assert_eq!(
        tunnelled().outside(vxlan("192.0.2.1", "192.0.2.2", 5002, &inner)),
        "unknown-segment",
        "nobody's VNI"
    );
    let options = udp("192.0.2.1:1", "192.0.2.2:6081")
        .payload([&geneve_header(0x6558, 5001, &[1, 2, 3, 4, 5])[..], &inner].concat());
    assert_eq!(tunnelled().outside(options), "new by web#0");
}

#[test]
fn segment_2_2_what_is_no_sound_tunnel_is_malformed_or_no_segment() {
    let mut s = tunnelled();
    let inner = query("10.0.0.1").frame();
    let no_flag =
        udp("192.0.2.1:1", "192.0.2.2:4789").payload([&vxlan_header(0xF7, 5001)[..], &inner].concat());
    assert_eq!(s.outside(no_flag), "malformed");
    let not_ethernet = udp("192.0.2.1:1", "192.0.2.2:6081")
        .payload([&geneve_header(0x0800, 5001, &[])[..], &inner].concat());
    assert_eq!(s.outside(not_ethernet), "malformed");
    assert_eq!(s.outside(vxlan("192.0.2.1", "192.0.2.2", 5001, &inner[..10])), "malformed");
    for tagged in [query("10.0.0.1").vlan(100), query("10.0.0.1").vlan(0), query("10.0.0.1").tag(0x88A8, 5)] {
        assert_eq!(s.outside(vxlan("192.0.2.1", "192.0.2.2", 5001, &tagged.frame())), "unknown-segment");
    }
}

#[test]
fn segment_2_2_fragments_and_other_protocols_on_those_ports_are_no_tunnels() {
    let mut s = tunnelled();
    let whole = vxlan("192.0.2.1", "192.0.2.2", 5001, &query("10.0.0.1").frame());
    for piece in whole.fragments(32) {
        assert_eq!(s.bytes(Side::Outside, piece), "unknown-segment");
    }
    assert_eq!(s.outside(tcp("192.0.2.1:1", "192.0.2.2:4789").syn()), "unknown-segment");
    assert_eq!(s.outside(udp_lite("192.0.2.1:1", "192.0.2.2:6081")), "unknown-segment");
}

#[test]
fn segment_2_2_beside_tunnels_arp_and_nd_pass_unread_and_the_rest_is_no_segment() {
    let mut s = tunnelled();
    assert_eq!(s.inside(arp_request(BAD, "192.0.2.1", "192.0.2.2")), "control");
    assert_eq!(s.outside(arp_request(BAD, "192.0.2.1", "192.0.2.2").cut(20)), "control");
    for kind in 133..=137 {
        assert_eq!(s.inside(icmp("2001:db8:9::1", "2001:db8:9::2", kind, 0).ttl(3)), "control");
    }
    for kind in [128, 132, 138] {
        assert_eq!(s.inside(icmp("2001:db8:9::1", "2001:db8:9::2", kind, 0).ttl(255)), "unknown-segment");
    }
    assert_eq!(s.outside(udp("192.0.2.1:1", "192.0.2.2:53")), "unknown-segment");
    assert_eq!(s.outside(ethernet(0x88CC, &[0; 50])), "unknown-segment");
    let lies = vxlan("192.0.2.1", "192.0.2.2", 5001, &query("10.0.0.1").frame()).lie_ip_length(60_000);
    assert_eq!(s.outside(lies), "unknown-segment");
}

#[test]
fn segment_2_2_without_a_vni_and_in_a_tagged_frame_the_tunnels_ports_are_ports() {
    let tunnel =
        |port: u16| udp(("10.0.0.1", 9), ("192.0.2.1", port)).payload(vxlan_header(8, 5001)).src_mac(MAC1);
    let mut s = untagged();
    assert_eq!(s.inside(tunnel(4789)), "new by web#2");
    assert_eq!(s.inside(tunnel(6081)), "new by web#2");
    let mut s = Scenario::new(&policy("vlan: 100", "  - {name: far, segment: {vni: 5001}}"));
    assert_eq!(s.inside(tunnel(4789).vlan(100)), "new by web#2");
    assert_eq!(s.inside(tunnel(6081).vlan(100)), "new by web#2");
}

#[test]
fn segment_2_2_a_tunnelled_frame_leaves_as_it_came() {
    let mut farm = SimWorkers::new(&Config::default(), &policy("vni: 5001", ""), 1, 8, Steering::Rss);
    let frame = vxlan("192.0.2.1", "192.0.2.2", 5001, &query("10.0.0.1").frame()).trailer(&[7; 9]).frame();
    let id = farm.arrive(Side::Outside, &frame);
    farm.drain();
    assert_eq!(farm.verdict(id), "new by web#0");
    assert_eq!(farm.left(Side::Inside)[0].bytes(), frame);
}

#[test]
fn segment_2_2_a_tag_moved_beside_the_frame_counts_like_one_in_it() {
    let mut s = Scenario::new(&policy("vlan: 100", ""));
    let frame = SimFrame::new(0, query("10.0.0.1").vlan(100).frame(), &Default::default()).tag_stripped();
    assert_eq!(s.frame(Side::Outside, frame), "new by web#0");
    let two =
        SimFrame::new(0, query("10.0.0.1").vlan(7).vlan(100).frame(), &Default::default()).tag_stripped();
    assert_eq!(s.frame(Side::Outside, two), "unknown-segment");
}

fn from(addr: &str, mac: &str) -> Packet<Udp> {
    udp((addr, 9), "192.0.2.1:9").src_mac(mac)
}

#[test]
fn nic_2_3_from_inside_it_is_who_has_the_source_address_in_that_vpc() {
    let mut s = Scenario::new(&policy("vlan: 1", "  - {name: other, segment: {vlan: 2}}"));
    assert_eq!(s.inside(from("10.0.0.1", MAC1).vlan(1)), "new by web#2");
    assert_eq!(s.nic().as_deref(), Some("a"));
    assert_eq!(s.inside(from("10.9.9.9", MAC1).vlan(1)), "unknown-source");
    assert_eq!(s.nic(), None);
    assert_eq!(s.inside(from("10.0.0.1", MAC1).vlan(2)), "unknown-source");
}

#[test]
fn nic_2_3_the_source_mac_is_the_entrys_else_the_nics_else_any() {
    let mut s = untagged();
    assert_eq!(s.inside(from("10.0.0.7", VIRTUAL)), "new by web#2");
    assert_eq!(s.inside(from("10.0.0.7", MAC2)), "spoofed");
    assert_eq!(s.inside(from("10.0.0.1", MAC2)), "spoofed");
    assert_eq!(s.nic().as_deref(), Some("a"));
    // Long enough for the short way.
    assert_eq!(s.inside(from("10.0.0.1", MAC2).payload([0; 18])), "spoofed");
    assert_eq!(s.inside(from("10.0.0.3", BAD)), "new by web#2");
}

#[test]
fn nic_2_3_a_virtual_router_advertises_itself_from_its_own_address_with_the_virtual_mac() {
    let text =
        policy("untagged: true", "").replace("addresses: [10.0.0.2]", "addresses: [10.0.0.2, \"fe80::2\"]");
    let mut s = Scenario::new(&text);
    let vrrp =
        |source: &str, to: &str, mac: &str| ip(source, to, 112).ttl(255).payload([0x31, 7]).src_mac(mac);
    for (source, group) in [("10.0.0.2", "224.0.0.18"), ("fe80::2", "ff02::12")] {
        assert_eq!(s.inside(vrrp(source, group, VIRTUAL)), "new by web#2", "{source}");
        assert_eq!(s.nic().as_deref(), Some("b"));
        assert_eq!(s.inside(vrrp(source, group, MAC2)), "established", "{source}");
        assert_eq!(s.inside(vrrp(source, group, BAD)), "spoofed", "{source}");
        assert_eq!(s.inside(vrrp(source, group, MAC1)), "spoofed", "{source}");
    }
    assert_eq!(s.inside(vrrp("10.0.0.1", "224.0.0.18", VIRTUAL)), "spoofed", "no entry of this NIC names it");
    assert_eq!(s.inside(from("10.0.0.2", VIRTUAL)), "spoofed", "no VRRP");
    assert_eq!(s.inside(vrrp("10.0.0.7", "224.0.0.18", MAC2)), "spoofed", "of no entry");
}

#[test]
fn addresses_2_5_a_fixed_address_that_is_listed_as_allowed_has_a_second_mac() {
    let own = |nic: &str| {
        policy("untagged: true", "").replace(
            "name: c, vpc: prod, addresses: [10.0.0.3], allowed_addresses: [",
            &format!(
                "name: c, vpc: prod, {nic} addresses: [10.0.0.3, \"2001:db8::3\", \"2001:db8::4\"], allowed_addresses: [\
                 {{address: 10.0.0.3, mac: \"{VIRTUAL}\"}}, {{address: \"2001:db8::3\", mac: \"{VIRTUAL}\"}}, "
            ),
        )
    };
    const MAC3: &str = "02:00:00:00:00:03";
    let query6 = |source: &str, mac: &str| udp((source, 9), "[2001:db8:9::1]:9").src_mac(mac);
    let mut s = Scenario::new(&own(&format!("mac: \"{MAC3}\",")));
    assert_eq!(s.inside(from("10.0.0.3", MAC3)), "new by web#2");
    // Short, and long enough for the short way.
    for packet in [from("10.0.0.3", MAC3), from("10.0.0.3", VIRTUAL)] {
        assert_eq!(s.inside(packet.clone()), "established");
        assert_eq!(s.inside(packet.payload([0; 40])), "established");
    }
    assert_eq!(s.inside(from("10.0.0.3", BAD)), "spoofed");
    assert_eq!(s.inside(from("10.0.0.3", BAD).payload([0; 40])), "spoofed");
    assert_eq!(s.inside(query6("2001:db8::3", VIRTUAL)), "new by web#2");
    assert_eq!(s.inside(query6("2001:db8::3", MAC3)), "established");
    assert_eq!(s.inside(query6("2001:db8::4", VIRTUAL)), "spoofed", "not listed for this address");
    for mac in [MAC3, VIRTUAL] {
        assert_eq!(s.inside(arp_request(mac, "10.0.0.3", "10.0.0.254")), "control");
        assert_eq!(s.inside(arp_request(mac, "0.0.0.0", "10.0.0.3")), "control");
        assert_eq!(s.inside(udp("10.0.0.3:68", "255.255.255.255:67").src_mac(mac)), "control");
        assert_eq!(s.inside(igmp_report("10.0.0.3", "239.1.1.1").src_mac(mac)), "control");
        assert_eq!(s.inside(mld_report("2001:db8::3", "ff02::1:3").src_mac(mac)), "control");
        assert_eq!(s.inside(neighbor_solicitation(mac, "2001:db8::3", "2001:db8::9")), "control");
        let tells = neighbor_advertisement(mac, "2001:db8::3", "ff02::1", "2001:db8::3");
        assert_eq!(s.inside(tells), "control");
    }
    assert_eq!(s.inside(arp_request(VIRTUAL, "10.0.0.3", "10.0.0.254").src_mac(MAC3)), "control");
    assert_eq!(s.inside(arp_request(BAD, "10.0.0.3", "10.0.0.254").src_mac(VIRTUAL)), "spoofed");
    assert_eq!(s.inside(neighbor_solicitation(BAD, "2001:db8::3", "2001:db8::9")), "spoofed");
    // Without a MAC of the NIC's own, the entry's is all that is named.
    let mut s = Scenario::new(&own(""));
    assert_eq!(s.inside(from("10.0.0.3", VIRTUAL)), "new by web#2");
    assert_eq!(s.inside(from("10.0.0.3", MAC3)), "spoofed");
    assert_eq!(s.inside(query6("2001:db8::4", BAD)), "new by web#2", "of which nothing is named");
}

#[test]
fn nic_2_3_from_outside_it_is_who_has_the_destination_address() {
    let mut s = Scenario::new(&policy("vlan: 1", "  - {name: other, segment: {vlan: 2}}"));
    assert_eq!(s.outside(query("10.0.0.1").vlan(1)), "new by web#0");
    assert_eq!(s.nic().as_deref(), Some("a"));
    assert_eq!(s.outside(query("10.9.9.9").vlan(1)), "unknown-destination");
    assert_eq!(s.outside(query("10.0.0.1").vlan(2)), "unknown-destination");
}

#[test]
fn nic_2_3_nobody_outside_may_bear_the_nics_own_address() {
    let mut s = untagged();
    assert_eq!(s.outside(udp("10.0.0.1:5", "10.0.0.1:53")), "spoofed");
    // Long enough for the short way.
    assert_eq!(s.outside(udp("10.0.0.1:5", "10.0.0.1:53").payload([0; 18])), "spoofed");
    assert_eq!(s.outside(udp("10.0.0.100:5", "10.0.0.1:53")), "spoofed");
    assert_eq!(s.nic().as_deref(), Some("a"));
    assert_eq!(s.outside(udp("10.0.0.3:5", "10.0.0.1:53")), "new by web#0", "another NIC's");
}

#[test]
fn sides_2_4_each_asks_the_rules_of_its_own_direction() {
    let mut s = Scenario::new(&one(&[DNS]));
    assert_eq!(s.outside(query("10.0.0.1")), "new by web#0");
    assert_eq!(s.inside(udp("10.0.0.1:5000", "198.51.100.8:53")), "no-rule");
    let mut s = Scenario::new(&one(&["{direction: outbound, protocol: udp, ports: 53}"]));
    assert_eq!(s.outside(query("10.0.0.1")), "no-rule");
    assert_eq!(s.inside(udp("10.0.0.1:5000", "198.51.100.8:53")), "new by web#0");
}

#[test]
fn sides_2_4_between_two_nics_a_packet_is_judged_twice_as_two_connections() {
    let mut s = untagged();
    let packet = udp("10.0.0.1:5000", "10.0.0.3:53").src_mac(MAC1);
    assert_eq!(s.inside(packet.clone()), "new by web#2");
    assert_eq!(s.nic().as_deref(), Some("a"));
    assert_eq!(s.outside(packet), "new by web#0");
    assert_eq!(s.nic().as_deref(), Some("c"));
    assert_eq!(
        s.connections(),
        [
            "a outbound 17 10.0.0.1:5000 10.0.0.3:53 one-way 30.0",
            "c inbound 17 10.0.0.3:53 10.0.0.1:5000 one-way 30.0",
        ]
    );
}

#[test]
fn sides_2_4_a_nic_is_reached_over_any_wire_and_its_connections_are_shared() {
    let config = Config::default();
    let mut committer = Committer::new(config.clone());
    let (mut publisher, mut readers) = rcu::domain(Box::new(committer.initial()), 1);
    let parsed = parse_policy(&policy("vlan: 5", ""), "policy", &Limits::default()).unwrap();
    publisher.publish(committer.commit(parsed.policy, 0).unwrap().unwrap().snapshot);
    let firewall =
        FirewallConfig { shard: shard_config(&config, 0, 1), secret: Secret::new([1, 2]), grace_end_ns: 0 };
    let firewall =
        Firewall::new(&firewall, Arc::new(EngineCounters::new()), Arc::new(ConnectionCounts::new()));
    let queues: [[SimQueue; 2]; 2] = Default::default();
    let wires =
        queues.iter().map(|[inside, outside]| Wire { inside: inside.clone(), outside: outside.clone() });
    let (_, questions) = crossbeam::channel::bounded(1);
    let rings = mesh(1, 8).remove(0);
    let mut worker = Worker::new(0, firewall, readers.remove(0), wires.collect(), rings, questions);
    worker.reader().quiescent();

    let mut verdicts = Verdicts::default();
    let frame = |id, packet: Packet<Udp>| SimFrame::new(id, packet.vlan(5).frame(), &Default::default());
    queues[0][1].arrive(frame(0, query("10.0.0.3")));
    worker.poll(1_000_000_000, &mut verdicts);
    queues[1][0].arrive(frame(1, udp("10.0.0.3:53", "198.51.100.9:5000")));
    worker.poll(1_000_000_000, &mut verdicts);
    let reasons: Vec<_> = verdicts.0.iter().flatten().map(|verdict| verdict.reason.name()).collect();
    assert_eq!(reasons, ["new", "established"]);
    assert_eq!((queues[0][0].left().len(), queues[1][1].left().len()), (1, 1), "each leaves by its own wire");
}

fn refused(document: &str) -> String {
    parse_policy(document, "policy", &Limits::default()).map(|_| ()).unwrap_err().to_string()
}

#[test]
fn addresses_2_5_a_fixed_one_is_unique_in_its_vpc_and_nobody_elses_allowed_one() {
    let with = |nic: &str| policy("untagged: true", "") + &format!("  - {{name: d, vpc: prod, {nic}}}\n");
    assert!(refused(&with("addresses: [10.0.0.1]")).contains("a fixed address is one NIC's alone"));
    assert!(refused(&with("allowed_addresses: [10.0.0.1]")).contains("a fixed address is one NIC's alone"));
    assert!(refused(&with("addresses: [10.0.0.100]")).contains("a fixed address is one NIC's alone"));
}

#[test]
fn addresses_2_5_two_vpcs_may_overlap_unless_they_are_peered() {
    let text = |peers: &str| {
        policy("vlan: 1", &format!("  - {{name: other, segment: {{vlan: 2}}{peers}}}"))
            + "  - {name: z, vpc: other, addresses: [10.0.0.1], security_groups: [web]}\n"
    };
    let mut s = Scenario::new(&text(""));
    assert_eq!(s.outside(query("10.0.0.1").vlan(1)), "new by web#0");
    assert_eq!(s.nic().as_deref(), Some("a"));
    assert_eq!(s.outside(query("10.0.0.1").vlan(2)), "new by web#0");
    assert_eq!(s.nic().as_deref(), Some("z"));
    assert!(refused(&text(", peers: [prod]")).contains("in the peered VPC"));
}

#[test]
fn addresses_2_5_each_of_many_vpcs_finds_its_own_holder_of_one_address() {
    let (mut vpcs, mut nics) = (String::new(), String::new());
    (1..=2_000).for_each(|n| vpcs += &format!("  - {{name: vpc{n}, segment: {{vlan: {n}}}}}\n"));
    // Neighbouring numbers are spread evenly over the index; these meet in it.
    let chosen: BTreeSet<u16> = (1..=400u32).map(|n| (n * n * 7 % 1_999 + 1) as u16).collect();
    for n in &chosen {
        nics += &format!(
            "  - {{name: nic{n}, vpc: vpc{n}, addresses: [10.0.0.1, \"2001:db8::1\"], security_groups: [all]}}\n"
        );
    }
    let rules = "  - {name: all, rules: [{direction: inbound}]}";
    let mut s = Scenario::new(&format!("vpcs:\n{vpcs}security_groups:\n{rules}\nnics:\n{nics}"));
    for n in chosen {
        for (remote, local) in
            [("198.51.100.9:5000", "10.0.0.1:53"), ("[2001:db8:9::1]:5000", "[2001:db8::1]:53")]
        {
            // Long enough for the short way.
            assert_eq!(s.outside(udp(remote, local).payload([0; 40]).vlan(n)), "new by all#0");
            assert_eq!(s.nic(), Some(format!("nic{n}")));
        }
    }
}

#[test]
fn addresses_2_5_a_shared_ipv6_address_is_the_nics_whose_mac_the_frame_bears() {
    let shared = policy("untagged: true", "")
        .replace("allowed_addresses: [10.0.0.100", "allowed_addresses: [\"2001:db8::100\", 10.0.0.100");
    let mut s = Scenario::new(&shared);
    for (mac, nic) in [(MAC2, "b"), (MAC1, "a"), (MAC2, "b")] {
        // Long enough for the short way.
        let long = udp("[2001:db8:9::1]:5000", "[2001:db8::100]:53").payload([0; 40]).dst_mac(mac);
        s.outside(long);
        assert_eq!(s.nic().as_deref(), Some(nic));
    }
}

#[test]
fn addresses_2_5_a_shared_address_is_the_nics_whose_mac_the_frame_bears() {
    let mut s = untagged();
    assert_eq!(s.inside(from("10.0.0.100", MAC2)), "new by web#2");
    assert_eq!(s.nic().as_deref(), Some("b"));
    assert_eq!(s.outside(query("10.0.0.100").dst_mac(MAC2).src_mac(MAC1)), "new by web#0");
    assert_eq!(s.nic().as_deref(), Some("b"));
    assert_eq!(s.outside(query("10.0.0.100").dst_mac(MAC1).src_mac(MAC2)), "new by web#0");
    assert_eq!(s.nic().as_deref(), Some("a"));
    // Long enough for the short way.
    for (mac, nic) in [(MAC2, "b"), (MAC1, "a"), (MAC2, "b")] {
        let long = query("10.0.0.100").payload(vec![7; 40]).dst_mac(mac);
        assert_eq!(s.outside(long), "established");
        assert_eq!(s.nic().as_deref(), Some(nic));
    }
}

#[test]
fn addresses_2_5_the_mac_of_the_entry_means_its_nic_as_well() {
    let shared = |text: &str| policy("untagged: true", "").replace("name: c, vpc: prod,", text);
    let mut s =
        Scenario::new(&shared(r#"name: c, vpc: prod, mac: "02:00:00:00:00:03","#).replacen(VIRTUAL, BAD, 2));
    assert_eq!(s.outside(query("10.0.0.8").dst_mac(VIRTUAL)), "new by web#0");
    assert_eq!(s.nic().as_deref(), Some("c"));
    assert_eq!(s.outside(query("10.0.0.8").dst_mac(BAD)), "new by web#0");
    assert_eq!(s.nic().as_deref(), Some("b"));
    assert_eq!(s.outside(query("10.0.0.8").dst_mac("02:00:00:00:00:03")), "established", "c by its own");
    assert_eq!(s.nic().as_deref(), Some("c"));
}

#[test]
fn addresses_2_5_if_the_mac_means_none_or_several_it_is_the_first_by_name() {
    let mut s = untagged();
    assert_eq!(s.outside(query("10.0.0.100").dst_mac(BAD)), "new by web#0");
    assert_eq!(s.nic().as_deref(), Some("a"));
    assert_eq!(s.inside(from("10.0.0.100", BAD)), "spoofed");
    assert_eq!(s.nic().as_deref(), Some("a"));
    // b and c have entries with this MAC.
    assert_eq!(s.outside(query("10.0.0.8").dst_mac(VIRTUAL)), "new by web#0");
    assert_eq!(s.nic().as_deref(), Some("a"));
    assert_eq!(s.inside(from("10.0.0.8", VIRTUAL)), "spoofed");
    assert_eq!(s.nic().as_deref(), Some("a"));
}
