//! Semantics §4: connections, TCP, windows, ICMP errors, fragments.

use engine::Side;
use testkit::frame::*;
use testkit::scenario::Scenario;

const POLICY: &str = r#"
vpcs: [{name: prod, segment: {untagged: true}}]
security_groups:
  - name: web
    rules:
      - {direction: inbound, protocol: tcp, ports: 22}
      - {direction: inbound, protocol: udp, ports: 53}
      - {direction: inbound, protocol: icmp, icmp_type: 8}
      - {direction: inbound, protocol: gre}
      - {direction: outbound}
nics:
  - {name: web-1, vpc: prod, addresses: [10.0.0.1, "2001:db8::1"], security_groups: [web]}
"#;

const C: &str = "198.51.100.9:40000";
const S: &str = "10.0.0.1:22";

fn established() -> Scenario {
    let mut s = Scenario::new(POLICY);
    assert_eq!(s.outside(tcp(C, S).syn().seq(1000).window(8000)), "new by web#0");
    assert_eq!(s.inside(tcp(S, C).syn().seq(5000).ack(1001).window(8000)), "established");
    assert_eq!(s.outside(tcp(C, S).seq(1001).ack(5001).window(8000)), "established");
    s
}

#[test]
fn tcp_4_1_only_a_syn_opens_and_mid_stream_packets_are_invalid() {
    let mut s = Scenario::new(POLICY);
    assert_eq!(s.outside(tcp(C, S).seq(1).ack(2)), "invalid");
    assert_eq!(s.outside(tcp(C, S).syn().seq(1).ack(2)), "invalid");
    assert_eq!(s.inside(tcp("10.0.0.1:999", "192.0.2.1:80").rst().seq(1)), "invalid");
    assert_eq!(s.outside(tcp(C, S).syn()), "new by web#0");
}

#[test]
fn tcp_4_3_a_handshake_goes_through_the_states_with_their_timeouts() {
    let mut s = Scenario::new(POLICY);
    s.outside(tcp(C, S).syn().seq(1000));
    assert_eq!(s.connections(), ["web-1 inbound 6 10.0.0.1:22 198.51.100.9:40000 syn-sent 30.0"]);
    s.inside(tcp(S, C).syn().seq(5000).ack(1001));
    assert_eq!(s.connections(), ["web-1 inbound 6 10.0.0.1:22 198.51.100.9:40000 syn-received 30.0"]);
    s.outside(tcp(C, S).seq(1001).ack(5001));
    assert_eq!(s.connections(), ["web-1 inbound 6 10.0.0.1:22 198.51.100.9:40000 established 600.0"]);
    s.inside(tcp(S, C).fin().seq(5001).ack(1001));
    assert_eq!(s.connections(), ["web-1 inbound 6 10.0.0.1:22 198.51.100.9:40000 fin-wait 30.0"]);
    s.inside(tcp(S, C).fin().seq(5001).ack(1001));
    assert_eq!(s.connections(), ["web-1 inbound 6 10.0.0.1:22 198.51.100.9:40000 fin-wait 30.0"]);
    s.outside(tcp(C, S).fin().seq(1001).ack(5002));
    assert_eq!(s.connections(), ["web-1 inbound 6 10.0.0.1:22 198.51.100.9:40000 closing 30.0"]);
}

#[test]
fn tcp_4_3_syn_sent_takes_the_latest_syn_and_a_challenge_ack_changes_nothing() {
    let mut s = Scenario::new(POLICY);
    s.outside(tcp(C, S).syn().seq(1000));
    s.wait(10.0);
    assert_eq!(s.inside(tcp(S, C).seq(77).ack(99)), "established");
    assert!(s.connections()[0].ends_with("syn-sent 20.0"));
    assert_eq!(s.outside(tcp(C, S).syn().seq(7000)), "established");
    assert!(s.connections()[0].ends_with("syn-sent 30.0"));
    assert_eq!(s.inside(tcp(S, C).syn().seq(5000).ack(1001)), "invalid");
    assert_eq!(s.outside(tcp(C, S).seq(7001).ack(1)), "invalid");
    assert_eq!(s.inside(tcp(S, C).syn().seq(5000).ack(7001)), "established");
}

#[test]
fn tcp_4_3_syn_sent_ends_by_any_rst_of_the_opener_or_one_that_acknowledges_it() {
    let mut s = Scenario::new(POLICY);
    s.outside(tcp(C, S).syn().seq(1000));
    assert_eq!(s.inside(tcp(S, C).rst().ack(1002)), "invalid");
    assert_eq!(s.inside(tcp(S, C).rst()), "invalid");
    assert_eq!(s.inside(tcp(S, C).rst().ack(1001)), "established");
    assert!(s.connections().is_empty());
    s.outside(tcp(C, S).syn().seq(1000));
    assert_eq!(s.outside(tcp(C, S).rst().seq(424_242)), "established");
    assert!(s.connections().is_empty());
}

#[test]
fn tcp_4_3_crossed_opens_and_split_handshakes_establish() {
    let mut s = Scenario::new(POLICY);
    s.outside(tcp(C, S).syn().seq(1000));
    assert_eq!(s.inside(tcp(S, C).syn().seq(5000)), "established");
    assert!(s.connections()[0].contains("syn-received"));
    assert_eq!(s.outside(tcp(C, S).syn().seq(1000).ack(5001)), "established");
    assert!(s.connections()[0].contains(" established "));
    assert_eq!(s.inside(tcp(S, C).syn().seq(5000).ack(1001)), "established");
    assert_eq!(s.outside(tcp(C, S).seq(1001).ack(5001).payload(b"x")), "established");
}

#[test]
fn tcp_4_3_after_both_fins_a_syn_opens_afresh_under_todays_rules_in_its_own_direction() {
    let mut s = established();
    s.inside(tcp(S, C).fin().seq(5001).ack(1001));
    s.outside(tcp(C, S).fin().seq(1001).ack(5002));
    assert_eq!(s.inside(tcp(S, C).syn().seq(9000)), "new by web#4");
    assert_eq!(s.connections(), ["web-1 outbound 6 10.0.0.1:22 198.51.100.9:40000 syn-sent 30.0"]);
    assert_eq!(s.len(), 1);
}

#[test]
fn tcp_4_3_a_refused_reopening_drops_and_leaves_the_old_connection_as_it_was() {
    let mut s = Scenario::new(&POLICY.replace("- {direction: outbound}", ""));
    s.outside(tcp(C, S).syn().seq(1000));
    s.inside(tcp(S, C).syn().seq(5000).ack(1001));
    s.outside(tcp(C, S).seq(1001).ack(5001));
    s.inside(tcp(S, C).fin().seq(5001).ack(1001));
    s.outside(tcp(C, S).fin().seq(1001).ack(5002));
    s.wait(5.0);
    assert_eq!(s.inside(tcp(S, C).syn().seq(9000)), "no-rule");
    assert_eq!(s.connections(), ["web-1 inbound 6 10.0.0.1:22 198.51.100.9:40000 closing 25.0"]);
}

#[test]
fn tcp_4_3_a_syn_within_passes_unchecked_and_its_answer_reopens() {
    let mut s = established();
    s.wait(100.0);
    assert_eq!(s.outside(tcp(C, S).syn().seq(3_000_000_000)), "established");
    assert!(s.connections()[0].ends_with(" established 500.0"));
    assert_eq!(s.inside(tcp(S, C).seq(5001).ack(1001)), "established");
    assert_eq!(s.inside(tcp(S, C).syn().seq(70_000).ack(3_000_000_001)), "new by web#0");
    assert!(s.connections()[0].ends_with("syn-received 30.0"));
    assert_eq!(s.outside(tcp(C, S).seq(3_000_000_001).ack(70_001)), "established");
    assert!(s.connections()[0].ends_with(" established 600.0"));
}

#[test]
fn tcp_4_3_an_exact_rst_ends_an_inexact_one_inside_changes_nothing_one_outside_drops() {
    let mut s = established();
    s.wait(100.0);
    assert_eq!(s.outside(tcp(C, S).rst().seq(1002)), "established");
    assert!(s.connections()[0].ends_with(" established 500.0"));
    assert_eq!(s.outside(tcp(C, S).rst().seq(1000)), "invalid");
    assert_eq!(s.outside(tcp(C, S).rst().seq(1001 + 8001)), "invalid");
    assert_eq!(s.outside(tcp(C, S).rst().seq(1001)), "established");
    assert!(s.connections().is_empty());
}

#[test]
fn tcp_4_3_impossible_flags_are_invalid_even_with_a_connection() {
    let mut s = established();
    for bits in [0x00, 0x08, 0x03, 0x06, 0x05, 0x01, 0x29] {
        assert_eq!(s.outside(tcp(C, S).flags(bits).seq(1001)), "invalid", "flags {bits:#x}");
    }
}

#[test]
fn tcp_4_4_what_lies_outside_the_window_neither_passes_nor_changes_state() {
    let mut s = established();
    assert_eq!(s.outside(tcp(C, S).seq(1001 + 8001).ack(5001)), "invalid");
    assert_eq!(s.outside(tcp(C, S).seq(1001 + 8000).ack(5001)), "established");
    assert_eq!(s.outside(tcp(C, S).seq(1001).ack(5002)), "invalid");
    assert_eq!(s.outside(tcp(C, S).fin().seq(900_000).ack(5001)), "invalid");
    assert!(s.connections()[0].contains(" established "));
}

#[test]
fn tcp_4_4_windows_scale_only_if_both_syns_offered_it() {
    for (theirs, reach) in [(Some(3), 8000 << 3), (None, 8000)] {
        let mut s = Scenario::new(POLICY);
        let offer =
            |segment: Packet<Tcp>, shift: Option<u8>| shift.map_or(segment.clone(), |n| segment.wscale(n));
        s.outside(offer(tcp(C, S).syn().seq(1000).window(8000), Some(3)));
        s.inside(offer(tcp(S, C).syn().seq(5000).ack(1001).window(8000), theirs));
        s.outside(tcp(C, S).seq(1001).ack(5001).window(8000));
        assert_eq!(s.inside(tcp(S, C).seq(5001 + reach + 1).ack(1001)), "invalid");
        assert_eq!(s.inside(tcp(S, C).seq(5001 + reach).ack(1001)), "established");
    }
}

#[test]
fn tcp_4_4_without_window_check_everything_passes_but_a_rst_must_still_be_exact_to_end() {
    let mut s = Scenario::with("[conntrack]\ntcp_window_check = false\n", POLICY);
    s.outside(tcp(C, S).syn().seq(1000));
    s.inside(tcp(S, C).syn().seq(5000).ack(1001));
    s.outside(tcp(C, S).seq(1001).ack(5001));
    assert_eq!(s.outside(tcp(C, S).seq(900_000_000).ack(7)), "established");
    assert_eq!(s.inside(tcp(S, C).rst().seq(123_456_789)), "established");
    assert_eq!(s.len(), 1);
}

#[test]
fn tcp_4_3_loose_pickup_makes_a_servers_segment_an_inbound_connection() {
    let mut s = Scenario::with("[conntrack]\ntcp_pickup = \"loose\"\n", POLICY);
    assert_eq!(s.inside(tcp(S, C).seq(1).ack(2)), "new by web#0");
    assert_eq!(s.inside(tcp("10.0.0.1:4444", "192.0.2.1:80").seq(1).ack(2)), "new by web#4");
    assert_eq!(s.outside(tcp("192.0.2.77:1", "10.0.0.1:23").seq(1).ack(2)), "no-rule");
    assert_eq!(s.outside(tcp("192.0.2.77:1", S).fin().seq(1).ack(2)), "invalid");
    let lines = s.connections();
    assert!(
        lines.iter().any(|l| l.contains("inbound 6 10.0.0.1:22") && l.contains("established 600")),
        "{lines:?}"
    );
    assert!(lines.iter().any(|l| l.contains("outbound 6 10.0.0.1:4444")));
}

#[test]
fn tcp_4_3_pickup_grace_is_loose_for_that_long_after_the_start() {
    let mut s = Scenario::with("[conntrack]\npickup_grace = 60\n", POLICY);
    s.at(59.0);
    assert_eq!(s.outside(tcp(C, S).seq(1).ack(2)), "new by web#0");
    s.at(61.0);
    assert_eq!(s.outside(tcp("198.51.100.9:40001", S).seq(1).ack(2)), "invalid");
}

#[test]
fn udp_4_1_lives_30_s_one_way_and_180_s_both_ways() {
    let (c, d) = ("198.51.100.9:5000", "10.0.0.1:53");
    let mut s = Scenario::new(POLICY);
    assert_eq!(s.outside(udp(c, d)), "new by web#1");
    assert!(s.connections()[0].ends_with("one-way 30.0"));
    s.wait(29.875);
    assert_eq!(s.outside(udp(c, d)), "established");
    s.wait(29.875);
    assert_eq!(s.inside(udp(d, c)), "established");
    assert!(s.connections()[0].ends_with("two-way 180.0"));
    s.wait(179.875);
    assert_eq!(s.outside(udp(c, d)), "established");
    s.wait(180.2);
    assert_eq!(s.inside(udp(d, c)), "new by web#4");
}

#[test]
fn others_4_1_are_one_connection_per_pair_of_addresses_and_protocol() {
    let mut s = Scenario::new(POLICY);
    assert_eq!(s.outside(gre("198.51.100.9", "10.0.0.1", 0x800, b"")), "new by web#3");
    assert_eq!(s.inside(gre("10.0.0.1", "198.51.100.9", 0x800, b"x")), "established");
    assert_eq!(s.outside(esp("198.51.100.9", "10.0.0.1", 1, 1)), "no-rule");
}

#[test]
fn icmp_4_1_only_asked_for_replies_pass_and_the_kind_and_asker_are_in_the_key() {
    let (c, w) = ("198.51.100.9", "10.0.0.1");
    let mut s = Scenario::new(POLICY);
    assert_eq!(s.outside(echo_request(c, w, 7, 1)), "new by web#2");
    assert_eq!(s.inside(echo_reply(w, c, 7, 1)), "established");
    assert_eq!(s.inside(echo_reply(w, c, 8, 1)), "invalid");
    assert_eq!(s.outside(echo_reply(c, w, 7, 1)), "invalid");
    assert_eq!(s.inside(icmp(w, c, 14, 0).id_seq(7, 1)), "invalid");
    assert_eq!(s.inside(echo_request(w, c, 7, 1)), "new by web#4");
    assert_eq!(s.len(), 2);
    assert_eq!(s.outside(icmp(c, w, 9, 0)), "invalid");
    assert_eq!(s.outside(icmp(c, w, 5, 1)), "invalid");
    s.wait(29.5);
    s.inside(echo_reply(w, c, 7, 2));
    s.wait(29.5);
    assert_eq!(s.outside(echo_request(c, w, 7, 3)), "established");
}

#[test]
fn related_4_5_an_error_passes_if_it_quotes_a_live_connections_packet_and_refreshes_nothing() {
    let mut s = established();
    s.wait(100.0);
    let quoted = tcp(S, C).seq(5001).ack(1001).packet();
    let router = "192.0.2.254";
    assert_eq!(s.outside(icmp_error(router, "10.0.0.1", 3, 4, &quoted)), "related");
    assert!(s.connections()[0].ends_with(" established 500.0"));
    assert_eq!(s.outside(icmp_error(router, "10.0.0.1", 3, 4, &quoted[..28])), "related");
    assert_eq!(s.outside(icmp_error(router, "10.0.0.1", 3, 4, &quoted[..27])), "invalid");
    assert_eq!(s.outside(icmp_error(router, "10.0.0.1", 5, 1, &quoted)), "invalid");
    assert_eq!(s.inside(icmp_error("10.0.0.1", router, 3, 4, &quoted)), "invalid");
    let far = tcp(S, C).seq(900_000).packet();
    assert_eq!(s.outside(icmp_error(router, "10.0.0.1", 3, 4, &far)), "invalid");
    let theirs = tcp(C, S).seq(1001).packet();
    assert_eq!(s.inside(icmp_error("10.0.0.1", C.split(':').next().unwrap_or(""), 3, 3, &theirs)), "related");
    let other = tcp("10.0.0.1:23", C).seq(5001).packet();
    assert_eq!(s.outside(icmp_error(router, "10.0.0.1", 3, 4, &other)), "invalid");
}

#[test]
fn fragments_4_6_follow_the_first_for_5_s_and_drop_without_one() {
    let mut s = Scenario::new(POLICY);
    let whole = udp("198.51.100.9:5000", "10.0.0.1:53").id(9).payload(vec![1; 3000]);
    let pieces = whole.fragments(1000);
    assert_eq!(s.bytes(Side::Outside, pieces[1].clone()), "fragment-no-first");
    assert_eq!(s.bytes(Side::Outside, pieces[0].clone()), "new by web#1");
    assert_eq!(s.bytes(Side::Outside, pieces[1].clone()), "fragment");
    s.wait(4.9);
    assert_eq!(s.bytes(Side::Outside, pieces[2].clone()), "fragment");
    s.wait(0.3);
    assert_eq!(s.bytes(Side::Outside, pieces[2].clone()), "fragment-no-first");
    assert!(s.connections()[0].ends_with("one-way 24.8") || s.connections()[0].ends_with("one-way 24.9"));
}

#[test]
fn fragments_4_6_of_a_dropped_first_drop_with_its_reason() {
    let mut s = Scenario::new(POLICY);
    let pieces = udp("198.51.100.9:5000", "10.0.0.1:54").id(9).payload(vec![1; 3000]).fragments(1000);
    assert_eq!(s.bytes(Side::Outside, pieces[0].clone()), "no-rule");
    assert_eq!(s.bytes(Side::Outside, pieces[1].clone()), "no-rule");
}

#[test]
fn fragments_4_6_that_reach_back_into_the_headers_are_malformed() {
    let mut s = established();
    let first = tcp(C, S).seq(1001).ack(5001).id(3).payload(vec![0; 64]);
    assert_eq!(s.outside(first.clone().slice(0..40).fragment(0, true)), "established");
    assert_eq!(s.outside(first.clone().slice(8..48).fragment(1, false)), "malformed");
    assert_eq!(s.nic().as_deref(), Some("web-1"));
    assert_eq!(s.outside(first.clone().slice(24..64).fragment(3, false)), "fragment");
    assert_eq!(s.outside(tcp(C, S).seq(1001).ack(5001).id(4).slice(0..16).fragment(0, true)), "malformed");
    assert_eq!(s.outside(first.id(4).slice(24..64).fragment(3, false)), "fragment-no-first");
}

#[test]
fn a_flow_in_one_burst_gets_the_verdicts_of_one_packet_at_a_time_in_every_order_and_split() {
    let frames = [
        (Side::Outside, tcp(C, S).syn().seq(1000).frame()),
        (Side::Inside, tcp(S, C).syn().seq(5000).ack(1001).frame()),
        (Side::Outside, tcp(C, S).seq(1001).ack(5001).payload(b"data").frame()),
        (Side::Inside, tcp(S, C).rst().seq(5001).frame()),
        (Side::Outside, tcp(C, S).syn().seq(9000).frame()),
    ];
    for order in permutations(frames.len()) {
        let shuffled: Vec<_> = order.iter().map(|&n| frames[n].clone()).collect();
        let mut one = Scenario::new(POLICY);
        let expected: Vec<String> =
            shuffled.iter().flat_map(|frame| one.burst(std::slice::from_ref(frame))).collect();
        for split in 1..=frames.len() {
            let mut s = Scenario::new(POLICY);
            let got: Vec<String> = shuffled.chunks(split).flat_map(|burst| s.burst(burst)).collect();
            assert_eq!(got, expected, "order {order:?}, bursts of {split}");
            assert_eq!(s.connections(), one.connections());
        }
    }
}

fn permutations(n: usize) -> Vec<Vec<usize>> {
    if n == 0 {
        return vec![vec![]];
    }
    let shorter = permutations(n - 1);
    shorter.iter().flat_map(|p| (0..n).map(|at| [&p[..at], &[n - 1], &p[at..]].concat())).collect()
}

#[test]
fn tcp_4_3_without_window_check_an_older_acknowledgment_is_not_the_highest() {
    let mut s = Scenario::with("[conntrack]\ntcp_window_check = false\n", POLICY);
    s.outside(tcp(C, S).syn().seq(3_221_224_979).window(500));
    s.inside(tcp(S, C).syn().seq(4_294_967_247).ack(3_221_224_980).window(64_240).wscale(7));
    s.outside(tcp(C, S).seq(3_221_224_980).ack(4_294_967_248).window(500).payload(vec![0; 100]));
    s.inside(tcp(S, C).seq(4_294_967_248).ack(3_221_225_080));
    assert_eq!(s.inside(tcp(S, C).seq(4_294_967_248).ack(3_213_002_361)), "established");
    assert_eq!(s.outside(tcp(C, S).rst().seq(3_213_002_361).ack(5)), "established");
    assert_eq!(s.len(), 1, "the RST was not exact");
}

#[test]
fn tcp_4_4_a_side_may_send_only_what_was_acknowledged_and_offered() {
    let mut s = Scenario::new(POLICY);
    s.outside(tcp(C, S).syn().seq(1000).window(65_535));
    s.inside(tcp(S, C).syn().seq(5000).ack(1001).window(8000));
    s.outside(tcp(C, S).seq(1001).ack(5001).window(100));
    assert_eq!(s.inside(tcp(S, C).seq(5001 + 101).ack(1001)), "invalid");
    assert_eq!(s.inside(tcp(S, C).seq(5001 + 100).ack(1001)), "established");
}

#[test]
fn tcp_4_3_a_restarts_windows_are_those_of_its_syn() {
    let mut s = established();
    s.outside(tcp(C, S).syn().seq(70_000).window(300));
    assert_eq!(s.inside(tcp(S, C).syn().seq(90_000).ack(70_001).window(400)), "new by web#0");
    assert_eq!(s.inside(tcp(S, C).seq(90_001 - 302).ack(70_001)), "invalid");
    assert_eq!(s.inside(tcp(S, C).seq(90_001 - 300).ack(70_001).window(400)), "established");
    assert_eq!(s.outside(tcp(C, S).seq(70_001 + 401).ack(90_001)), "invalid");
    assert_eq!(s.outside(tcp(C, S).seq(70_001 + 400).ack(90_001)), "established");
}
