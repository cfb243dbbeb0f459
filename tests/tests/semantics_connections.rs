//! Semantics §4.1 and §4.2: what a connection is, what opens one, how long it lives.

use engine::Side;
use testkit::frame::*;
use testkit::scenario::{Scenario, one, policy, rule::*};

const CLIENT: &str = "198.51.100.9";
const SERVER: &str = "10.0.0.1";
const C: &str = "198.51.100.9:5000";
const D: &str = "10.0.0.1:53";

fn open() -> Scenario {
    Scenario::new(&policy(
        &[("web", &[IN, OUT])],
        &[("a", "10.0.0.1, 10.0.0.3, \"2001:db8::1\"", &["web"]), ("b", "10.0.0.2", &["web"])],
    ))
}

#[test]
fn key_4_1_nic_protocol_addresses_and_ports_tell_connections_apart() {
    let mut s = open();
    assert_eq!(s.outside(udp(C, D)), "new by web#0");
    assert_eq!(s.outside(udp(C, "10.0.0.2:53")), "new by web#0", "another NIC");
    assert_eq!(s.outside(udp_lite(C, D)), "new by web#0", "another protocol");
    assert_eq!(s.outside(udp(C, "10.0.0.3:53")), "new by web#0", "another local address");
    assert_eq!(s.outside(udp("198.51.100.8:5000", D)), "new by web#0", "another remote address");
    assert_eq!(s.outside(udp(C, "10.0.0.1:54")), "new by web#0", "another local port");
    assert_eq!(s.outside(udp("198.51.100.9:5001", D)), "new by web#0", "another remote port");
    assert_eq!(s.len(), 7);
    assert_eq!(s.inside(udp(D, C)), "established");
}

#[test]
fn key_4_1_a_live_connections_packets_pass_whatever_the_rules_now_say() {
    let narrow = "[policy]\ninbound_flush = \"inbound-rules\"\n";
    let mut s = Scenario::with(narrow, &one(&[DNS, OUT]));
    s.inside(udp("10.0.0.1:7", "192.0.2.1:7"));
    s.outside(udp(C, D));
    s.apply(&one(&[DNS]));
    assert_eq!(s.inside(udp("10.0.0.1:7", "192.0.2.1:7")), "established");
    assert_eq!(s.inside(udp(D, C)), "established");
    assert_eq!(s.inside(udp("10.0.0.1:8", "192.0.2.1:7")), "no-rule");
}

#[test]
fn opening_4_1_the_rules_of_the_packets_own_direction_are_asked() {
    let mut s = Scenario::new(&one(&[DNS]));
    assert_eq!(s.outside(udp(C, D)), "new by web#0");
    assert_eq!(s.inside(udp("10.0.0.1:99", "198.51.100.8:53")), "no-rule");
}

#[test]
fn tcp_4_1_opens_with_a_syn_without_ack_rst_and_fin() {
    let segment = |flags: u8| tcp(C, "10.0.0.1:22").flags(flags).seq(1);
    for flags in [ACK, SYN | ACK, RST, RST | ACK, FIN | ACK] {
        assert_eq!(open().outside(segment(flags)), "invalid", "{flags:#x}");
        assert_eq!(open().inside(tcp("10.0.0.1:22", C).flags(flags).seq(1)), "invalid", "{flags:#x}");
    }
    for flags in [SYN, SYN | ECE | CWR, SYN | PSH] {
        assert_eq!(open().outside(segment(flags)), "new by web#0", "{flags:#x}");
    }
}

#[test]
fn tcp_4_1_ports_tell_connections_apart() {
    let mut s = open();
    s.connect(C, "10.0.0.1:22");
    assert_eq!(s.outside(tcp(C, "10.0.0.1:23").seq(1001).ack(5001)), "invalid");
    assert_eq!(s.outside(tcp("198.51.100.9:5001", "10.0.0.1:22").seq(1001).ack(5001)), "invalid");
    assert_eq!(s.outside(tcp(C, "10.0.0.1:22").seq(1001).ack(5001)), "established");
}

/// The requests of ICMP with their replies.
const REQUESTS: [(u8, u8); 5] = [(8, 0), (13, 14), (15, 16), (17, 18), (42, 43)];

#[test]
fn icmp_4_1_opens_with_a_request_for_echo_timestamp_mask_information_or_extended_echo() {
    for (request, reply) in REQUESTS {
        let mut s = open();
        assert_eq!(s.inside(icmp(SERVER, CLIENT, reply, 0).id_seq(7, 1)), "invalid", "not asked for");
        assert_eq!(s.outside(icmp(CLIENT, SERVER, request, 0).id_seq(7, 1)), "new by web#0");
        assert_eq!(s.inside(icmp(SERVER, CLIENT, reply, 0).id_seq(7, 1)), "established");
        assert_eq!(s.outside(icmp(CLIENT, SERVER, request, 0).id_seq(7, 2)), "established");
    }
    for (request, reply) in [(128, 129), (160, 161)] {
        let mut s = open();
        let message = |from, to, kind, sequence| icmp(from, to, kind, 0).id_seq(7, sequence);
        let asks = |sequence| message("2001:db8::9", "2001:db8::1", request, sequence);
        let answers = || message("2001:db8::1", "2001:db8::9", reply, 1);
        assert_eq!(s.inside(answers()), "invalid", "not asked for");
        assert_eq!(s.outside(asks(1)), "new by web#0");
        assert_eq!(s.inside(answers()), "established");
        assert_eq!(s.outside(asks(2)), "established");
    }
}

#[test]
fn icmp_4_1_an_extended_echo_is_told_by_its_identifier_and_by_nothing_of_its_sequence() {
    // RFC 8335, 2: identifier, sequence number of 8 bits, then flags that request and reply do not have in common.
    let families = [(CLIENT, SERVER, 42, 8), ("2001:db8::9", "2001:db8::1", 160, 128)];
    for (client, server, ask, echo) in families {
        let mut s = open();
        assert_eq!(s.outside(icmp(client, server, ask, 0).id_seq(7, 0x0501)), "new by web#0");
        for code in 0..5 {
            let answer = icmp(server, client, ask + 1, code).id_seq(7, 0x0500 | u16::from(code));
            assert_eq!(s.inside(answer), "established", "code {code}");
        }
        assert_eq!(s.inside(icmp(server, client, ask + 1, 0).id_seq(8, 0x0501)), "invalid");
        assert_eq!(
            s.outside(icmp(client, server, echo, 0).id_seq(7, 0x0501)),
            "new by web#0",
            "another kind"
        );
        let other = if echo == 8 { 160 } else { 42 };
        assert_eq!(s.outside(icmp(client, server, other, 0).id_seq(7, 1)), "invalid", "the other family's");
    }
}

#[test]
fn icmp_4_1_whatever_is_no_request_reply_or_error_is_invalid_whatever_the_rules() {
    for kind in [1, 2, 6, 7, 9, 10, 19, 30, 40, 41, 44, 160, 161, 255] {
        assert_eq!(open().outside(icmp(CLIENT, SERVER, kind, 0).id_seq(7, 1)), "invalid", "{kind}");
    }
    // ICMPv6 knows of these requests only echo and extended echo.
    for kind in [0, 5, 8, 13, 42, 43, 127, 138, 139, 140, 144, 159, 162, 200] {
        let message = icmp("2001:db8::9", "2001:db8::1", kind, 0).id_seq(7, 1);
        assert_eq!(open().outside(message), "invalid", "{kind}");
    }
}

#[test]
fn icmp_4_1_identifier_kind_and_who_asked_tell_connections_apart() {
    let mut s = open();
    assert_eq!(s.outside(echo_request(CLIENT, SERVER, 7, 1)), "new by web#0");
    assert_eq!(s.outside(echo_request(CLIENT, SERVER, 8, 1)), "new by web#0", "another identifier");
    assert_eq!(s.outside(icmp(CLIENT, SERVER, 13, 0).id_seq(7, 1)), "new by web#0", "another kind");
    assert_eq!(s.inside(echo_request(SERVER, CLIENT, 7, 1)), "new by web#1", "asked by the other side");
    assert_eq!(s.len(), 4);
}

#[test]
fn icmp_4_1_only_the_openers_requests_and_the_others_replies_are_part() {
    let mut s = open();
    s.outside(echo_request(CLIENT, SERVER, 7, 1));
    assert_eq!(s.inside(echo_reply(SERVER, CLIENT, 7, 1)), "established");
    assert_eq!(s.inside(echo_reply(SERVER, CLIENT, 8, 1)), "invalid", "another identifier");
    assert_eq!(s.inside(icmp(SERVER, CLIENT, 14, 0).id_seq(7, 1)), "invalid", "another kind");
    assert_eq!(s.outside(echo_reply(CLIENT, SERVER, 7, 1)), "invalid", "of the opener");
    assert_eq!(s.inside(echo_request(SERVER, CLIENT, 7, 1)), "new by web#1", "a request of its own");
}

#[test]
fn icmp_4_1_lives_30_s_answered_or_not() {
    let mut s = open();
    s.outside(echo_request(CLIENT, SERVER, 7, 1));
    assert!(s.connections()[0].ends_with("icmp 30.0"));
    s.wait(10.0);
    s.inside(echo_reply(SERVER, CLIENT, 7, 1));
    assert!(s.connections()[0].ends_with("icmp 30.0"));
    s.wait(29.875);
    assert_eq!(s.outside(echo_request(CLIENT, SERVER, 7, 2)), "established");
    s.wait(30.25);
    assert_eq!(s.inside(echo_reply(SERVER, CLIENT, 7, 2)), "invalid");
}

/// Two packets with ports, there and back.
fn ported(protocol: u8) -> (Vec<u8>, Vec<u8>) {
    match protocol {
        17 => (udp(C, D).frame(), udp(D, C).frame()),
        132 => (sctp(C, D).init(1).frame(), sctp(D, C).verification_tag(1).frame()),
        136 => (udp_lite(C, D).frame(), udp_lite(D, C).frame()),
        _ => (dccp(C, D).frame(), dccp(D, C).frame()),
    }
}

#[test]
fn datagrams_4_1_open_with_anything_and_are_told_by_ports() {
    for protocol in [17, 132, 136, 33] {
        let mut s = open();
        let (there, back) = ported(protocol);
        assert_eq!(s.bytes(Side::Outside, there.clone()), "new by web#0", "{protocol}");
        assert_eq!(s.bytes(Side::Inside, back), "established", "{protocol}");
        let mut other_port = there;
        other_port[35] ^= 1;
        assert_eq!(s.bytes(Side::Outside, other_port), "new by web#0", "{protocol}");
    }
    assert_eq!(open().outside(sctp(C, D).chunk(6, 0, b"")), "new by web#0", "an ABORT is anything, too");
}

#[test]
fn datagrams_4_1_live_30_s_one_way_and_180_s_both_ways() {
    for protocol in [17, 132, 136, 33] {
        let mut s = open();
        let (there, back) = ported(protocol);
        s.bytes(Side::Outside, there.clone());
        assert!(s.connections()[0].ends_with("one-way 30.0"));
        s.bytes(Side::Outside, there.clone());
        assert!(s.connections()[0].ends_with("one-way 30.0"), "the same side again");
        s.bytes(Side::Inside, back);
        assert!(s.connections()[0].ends_with("two-way 180.0"));
        s.bytes(Side::Outside, there);
        assert!(s.connections()[0].ends_with("two-way 180.0"));
    }
}

#[test]
fn others_4_1_open_with_anything_and_are_one_per_pair_of_addresses() {
    let mut s = open();
    assert_eq!(s.outside(gre(CLIENT, SERVER, 0x800, b"")), "new by web#0");
    assert!(s.connections()[0].ends_with("one-way 30.0"));
    assert_eq!(s.inside(gre(SERVER, CLIENT, 0x86DD, b"whatever it says")), "established");
    assert!(s.connections()[0].ends_with("two-way 180.0"));
    assert_eq!(s.outside(esp(CLIENT, SERVER, 1, 1)), "new by web#0");
    assert_eq!(s.outside(esp(CLIENT, SERVER, 2, 9)), "established", "another SPI is no other connection");
    assert_eq!(s.len(), 2);
}

#[test]
fn deadlines_4_2_are_set_anew_by_accepted_packets_of_either_side_and_by_no_dropped_one() {
    let (c, w) = (C, "10.0.0.1:22");
    let mut s = open();
    s.connect(c, w);
    s.at(100.0);
    assert_eq!(s.outside(tcp(c, w).seq(1001).ack(5001)), "established");
    assert!(s.connections()[0].ends_with("established 600.0"));
    s.at(200.0);
    assert_eq!(s.inside(tcp(w, c).seq(5001).ack(1001)), "established");
    assert!(s.connections()[0].ends_with("established 600.0"));
    s.at(300.0);
    assert_eq!(s.outside(tcp(c, w).seq(900_000).ack(5001)), "invalid");
    assert_eq!(s.inside(tcp(w, c).fin().seq(900_000).ack(1001)), "invalid");
    assert!(s.connections()[0].ends_with("established 500.0"));
}

#[test]
fn deadlines_4_2_are_never_early_and_at_most_half_a_second_late() {
    for offset in [0.0, 0.001, 0.06, 0.124] {
        let mut s = open();
        s.at(offset);
        s.outside(udp(C, D));
        s.at(offset + 29.999);
        assert_eq!(s.inside(udp(D, C)), "established", "still there");
        s.at(offset + 29.999 + 180.5);
        assert_eq!(s.inside(udp(D, C)), "new by web#1", "gone");
    }
}

#[test]
fn deadlines_4_2_hold_on_a_worker_without_traffic() {
    let mut s = open();
    s.outside(udp(C, D));
    s.wait(30.5);
    s.idle();
    assert_eq!(s.len(), 0);
}

#[test]
fn deadlines_4_2_of_a_day_hold_and_a_clock_that_jumps_a_year_ends_everything() {
    let mut s =
        Scenario::with("[timeouts]\ntwo_way = 86400\ntcp_established = 2592000\n", &one(&[DNS, SSH, OUT]));
    s.outside(udp(C, D));
    s.inside(udp(D, C));
    s.connect(C, "10.0.0.1:22");
    s.wait(86_399.0);
    assert_eq!(s.outside(udp(C, D)), "established");
    s.wait(86_400.5);
    assert_eq!(s.outside(udp(C, D)), "new by web#0");
    s.wait(2_592_000.0 - 86_399.0 - 86_400.5 - 1.0);
    assert_eq!(s.outside(tcp(C, "10.0.0.1:22").seq(1001).ack(5001)), "established", "30 days");
    s.wait(365.0 * 86_400.0);
    assert_eq!(s.inside(udp(D, C)), "new by web#2");
    assert_eq!(s.inside(tcp("10.0.0.1:22", C).seq(5001).ack(1001)), "invalid");
    assert_eq!(s.len(), 1);
}

#[test]
fn a_flow_in_one_burst_gets_the_verdicts_of_one_packet_at_a_time_in_every_order_and_split() {
    let (c, w) = (C, "10.0.0.1:22");
    let frames = [
        (Side::Outside, tcp(c, w).syn().seq(1000).frame()),
        (Side::Inside, tcp(w, c).syn().seq(5000).ack(1001).frame()),
        (Side::Outside, tcp(c, w).seq(1001).ack(5001).payload(b"data").frame()),
        (Side::Inside, tcp(w, c).rst().seq(5001).frame()),
        (Side::Outside, tcp(c, w).syn().seq(9000).frame()),
    ];
    let text = one(&[SSH, OUT]);
    for order in permutations(frames.len()) {
        let shuffled: Vec<_> = order.iter().map(|&n| frames[n].clone()).collect();
        let mut single = Scenario::new(&text);
        let expected: Vec<String> =
            shuffled.iter().flat_map(|frame| single.burst(std::slice::from_ref(frame))).collect();
        for split in 1..=frames.len() {
            let mut s = Scenario::new(&text);
            let got: Vec<String> = shuffled.chunks(split).flat_map(|burst| s.burst(burst)).collect();
            assert_eq!(got, expected, "order {order:?}, bursts of {split}");
            assert_eq!(s.connections(), single.connections());
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

/// The rules are asked of a burst's openers before any of its packets is judged: that must show nowhere.
#[test]
fn opening_4_2_in_a_burst_each_packet_finds_what_those_before_it_opened() {
    let ping = "{direction: inbound, protocol: icmp, icmp_type: 8, icmp_code: 0}";
    let refused = "{direction: inbound, action: deny, protocol: tcp, ports: 22}";
    let rules = [OUT, ping, refused];
    let from_in = |frame: Vec<u8>| (Side::Inside, frame);
    let from_out = |frame: Vec<u8>| (Side::Outside, frame);
    let frames = [
        // Refused before its connection is there, part of it behind.
        from_out(udp(C, D).frame()),
        from_in(udp(D, C).frame()),
        from_out(udp(C, D).frame()),
        // Two that open the same connection from both sides, of which the rules allow one.
        from_in(tcp("10.0.0.1:22", C).syn().frame()),
        from_out(tcp(C, "10.0.0.1:22").syn().frame()),
        from_out(tcp("198.51.100.7:5000", "10.0.0.1:22").syn().frame()),
        // Of one connection, but not of one rule.
        from_out(icmp(CLIENT, SERVER, 8, 0).id_seq(7, 1).frame()),
        from_out(icmp(CLIENT, SERVER, 8, 3).id_seq(7, 2).frame()),
        from_out(icmp(CLIENT, SERVER, 8, 3).id_seq(8, 1).frame()),
        // Another NIC, whose rules are others; another family; another protocol; no NIC at all.
        from_out(udp(C, "10.0.0.2:53").frame()),
        from_in(udp("[2001:db8::1]:53", "[2001:db8::9]:9").frame()),
        from_out(udp("[2001:db8::9]:9", "[2001:db8::1]:53").frame()),
        from_out(udp("[2001:db8::9]:8", "[2001:db8::1]:53").frame()),
        from_in(gre(SERVER, CLIENT, 0x0800, &[0; 20]).frame()),
        from_out(gre(CLIENT, SERVER, 0x0800, &[0; 20]).frame()),
        from_out(udp(C, "10.9.9.9:53").frame()),
        // What opens nothing.
        from_out(tcp(C, "10.0.0.1:23").ack(1).frame()),
    ];
    let document = policy(
        &[("web", &rules), ("dns", &[DNS])],
        &[("a", "10.0.0.1, \"2001:db8::1\"", &["web"]), ("b", "10.0.0.2", &["dns"])],
    );
    let expected = [
        "no-rule",
        "new by web#0",
        "established",
        "new by web#0",
        "established",
        "denied by web#2",
        "new by web#1",
        "established",
        "no-rule",
        "new by dns#0",
        "new by web#0",
        "established",
        "no-rule",
        "new by web#0",
        "established",
        "unknown-destination",
        "invalid",
    ];
    assert_eq!(Scenario::new(&document).burst(&frames), expected);
    let mut s = Scenario::new(&document);
    let one_by_one: Vec<String> = frames.iter().map(|(side, bytes)| s.bytes(*side, bytes.clone())).collect();
    assert_eq!(one_by_one, expected);
    let observed = Scenario::with("[policy]\nmode = \"observe\"\n", &document).burst(&frames);
    let expected = expected.map(|verdict| match verdict.split(' ').next() {
        Some("new" | "established") => verdict.to_owned(),
        _ => format!("{verdict} (observed)"),
    });
    assert_eq!(observed, expected);
}
