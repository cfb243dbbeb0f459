//! Semantics §4.5: ICMP errors.

use testkit::frame::*;
use testkit::scenario::{Scenario, one, policy, rule::*};

const CLIENT: &str = "198.51.100.9";
const SERVER: &str = "10.0.0.1";
const C: &str = "198.51.100.9:40000";
const S: &str = "10.0.0.1:22";
const ROUTER: &str = "192.0.2.254";

fn text() -> String {
    policy(&[("web", &[IN, OUT])], &[("a", "10.0.0.1, 10.0.0.3, \"2001:db8::1\"", &["web"])])
}

/// A TCP connection in which the server has sent up to 5000 and may send 8000 more.
fn established() -> Scenario {
    let mut s = Scenario::new(&text());
    s.connect(C, S);
    s
}

/// A packet of the server's, as an error quotes it.
fn servers() -> Vec<u8> {
    tcp(S, C).seq(5001).ack(1001).packet()
}

/// A packet of the client's.
fn clients() -> Vec<u8> {
    tcp(C, S).seq(1001).ack(5001).packet()
}

/// An error from a router to the server that quotes this.
fn error(quoted: &[u8]) -> Packet<Icmp> {
    icmp_error(ROUTER, SERVER, 3, 4, quoted)
}

#[test]
fn related_4_5_an_error_from_outside_quotes_what_the_nics_side_sent() {
    assert_eq!(established().outside(error(&servers())), "related");
    assert_eq!(established().outside(error(&clients())), "invalid");
    let other = tcp("10.0.0.1:23", C).seq(5001).packet();
    assert_eq!(established().outside(error(&other)), "invalid", "of no connection");
}

#[test]
fn related_4_5_an_error_from_inside_quotes_what_was_sent_to_the_nics_side() {
    let error = |quoted: &[u8]| icmp_error(SERVER, ROUTER, 3, 3, quoted);
    assert_eq!(established().inside(error(&clients())), "related");
    assert_eq!(established().inside(error(&servers())), "invalid");
}

#[test]
fn related_4_5_the_nics_address_in_the_quote_is_the_errors() {
    assert_eq!(established().outside(icmp_error(ROUTER, "10.0.0.3", 3, 4, &servers())), "invalid");
    let mut s = established();
    s.connect(C, "10.0.0.3:22");
    assert_eq!(
        s.outside(icmp_error(ROUTER, "10.0.0.3", 3, 4, &servers())),
        "invalid",
        "though it has one like it"
    );
    assert_eq!(established().inside(icmp_error("10.0.0.3", ROUTER, 3, 3, &clients())), "invalid");
}

#[test]
fn related_4_5_8_bytes_of_the_l4_header_are_quoted() {
    assert_eq!(established().outside(error(&servers()[..28])), "related");
    assert_eq!(established().outside(error(&servers()[..27])), "invalid");
    let mut s = Scenario::new(&text());
    s.outside(echo_request(CLIENT, SERVER, 7, 1));
    let reply = echo_reply(SERVER, CLIENT, 7, 1).packet();
    assert_eq!(s.outside(error(&reply[..28])), "related");
    assert_eq!(s.outside(error(&reply[..27])), "invalid", "ICMP has no ports, and needs them all the same");
}

#[test]
fn related_4_5_of_protocols_without_ports_none_are_needed() {
    let mut s = Scenario::new(&text());
    s.outside(gre(CLIENT, SERVER, 0x800, b"x"));
    assert_eq!(s.outside(error(&gre(SERVER, CLIENT, 0x800, b"").packet()[..20])), "related");
    assert_eq!(s.outside(error(&esp(SERVER, CLIENT, 1, 1).packet()[..20])), "invalid", "no connection");
}

#[test]
fn related_4_5_tcps_quoted_number_is_one_that_its_sender_may_have_sent() {
    let quoting = |seq: u32| established().outside(error(&tcp(S, C).seq(seq).ack(1001).packet()));
    assert_eq!(quoting(5001 + 8000), "related");
    assert_eq!(quoting(5001 + 8001), "invalid");
    assert_eq!(quoting(5001u32.wrapping_sub(8000)), "related");
    assert_eq!(quoting(5001u32.wrapping_sub(8001)), "invalid");
    let mut s = Scenario::new(&text());
    s.inside(tcp("10.0.0.1:6000", "192.0.2.1:80").syn().seq(1000));
    let syn = |seq: u32| error(&tcp("10.0.0.1:6000", "192.0.2.1:80").syn().seq(seq).packet());
    assert_eq!(s.outside(syn(1000)), "related", "a SYN that nobody answered");
    assert_eq!(s.outside(syn(999)), "invalid");
    let mut s = Scenario::with("[conntrack]\ntcp_window_check = false\n", &text());
    s.connect(C, S);
    assert_eq!(s.outside(error(&tcp(S, C).seq(900_000_000).packet())), "related", "without window check");
}

#[test]
fn related_4_5_it_may_quote_the_latest_syn_within() {
    // From outside, of the server's SYN; from inside, of the client's.
    let of_server = |seq: u32| error(&tcp(S, C).syn().seq(seq).packet());
    let of_client = |seq: u32| icmp_error(SERVER, CLIENT, 3, 3, &tcp(C, S).syn().seq(seq).packet());
    let mut s = established();
    assert_eq!(s.outside(of_server(900_000)), "invalid");
    s.inside(tcp(S, C).syn().seq(900_000));
    assert_eq!(s.outside(of_server(900_000)), "related");
    assert_eq!(s.outside(of_server(900_001)), "invalid");
    assert_eq!(s.inside(of_client(900_000)), "invalid", "the other side's number");
    s.outside(tcp(C, S).syn().seq(800_000));
    assert_eq!(s.inside(of_client(800_000)), "related");
    assert_eq!(s.outside(of_server(900_000)), "invalid", "not the latest any more");
    assert_eq!(s.len(), 1);

    let mut s = Scenario::new(&text());
    s.outside(tcp(C, S).syn().seq(1000));
    s.inside(tcp(S, C).syn().seq(5000).ack(1001));
    assert_eq!(s.inside(of_client(800_000)), "invalid");
    s.outside(tcp(C, S).syn().seq(800_000));
    assert_eq!(s.inside(of_client(800_000)), "related", "before the handshake is over");

    let (c, w) = ("[2001:db8:9::9]:40000", "[2001:db8::1]:22");
    let mut s = Scenario::new(&text());
    s.connect(c, w);
    s.outside(tcp(c, w).syn().seq(800_000));
    let quoted = tcp(c, w).syn().seq(800_000).packet();
    assert_eq!(s.inside(icmp_error("2001:db8::1", "2001:db8:9::9", 1, 4, &quoted)), "related");
}

#[test]
fn related_4_5_the_types_are_3_11_12_and_in_ipv6_1_to_4() {
    for kind in [3, 11, 12] {
        assert_eq!(
            established().outside(icmp_error(ROUTER, SERVER, kind, 0, &servers())),
            "related",
            "{kind}"
        );
    }
    for kind in [4, 5] {
        assert_eq!(
            established().outside(icmp_error(ROUTER, SERVER, kind, 0, &servers())),
            "invalid",
            "{kind}"
        );
    }
    let (c, w) = ("[2001:db8:9::9]:40000", "[2001:db8::1]:22");
    let quoted = tcp(w, c).seq(5001).ack(1001).packet();
    for (kind, verdict) in
        [(0, "invalid"), (1, "related"), (2, "related"), (3, "related"), (4, "related"), (5, "invalid")]
    {
        let mut s = Scenario::new(&text());
        s.connect(c, w);
        assert_eq!(
            s.outside(icmp_error("2001:db8:f::1", "2001:db8::1", kind, 0, &quoted)),
            verdict,
            "{kind}"
        );
    }
}

#[test]
fn related_4_5_quotes_through_extension_headers_are_read() {
    let (c, w) = ("[2001:db8:9::9]:40000", "[2001:db8::1]:53");
    let mut s = Scenario::new(&text());
    s.outside(udp(c, w));
    let quoted = udp(w, c).ext(Ext::destination_options()).packet();
    let mut error = |quoted: &[u8]| s.outside(icmp_error("2001:db8:f::1", "2001:db8::1", 1, 0, quoted));
    assert_eq!(error(&quoted), "related");
    let type_0 = udp(w, c).ext(Ext::routing(0, 0)).packet();
    assert_eq!(error(&type_0), "invalid", "as malformed in a quote as anywhere");
}

#[test]
fn related_4_5_it_opens_nothing_and_refreshes_nothing() {
    let mut s = established();
    s.wait(100.0);
    assert_eq!(s.outside(error(&servers())), "related");
    assert_eq!(s.inside(icmp_error(SERVER, CLIENT, 3, 3, &clients())), "related");
    assert_eq!(s.connections(), ["a inbound 6 10.0.0.1:22 198.51.100.9:40000 established 500.0"]);
    assert_eq!(s.len(), 1);
    s.wait(500.5);
    assert_eq!(s.outside(error(&servers())), "invalid", "its time was over");
}

#[test]
fn related_4_5_errors_about_tombstones_errors_and_nothing_readable_are_invalid() {
    let mut s = established();
    s.apply(&text().replace("{direction: outbound}", "{direction: outbound, protocol: tcp}"));
    assert_eq!(s.outside(error(&servers())), "invalid", "a tombstone");
    let of_an_error = icmp_error(SERVER, ROUTER, 3, 3, &clients()).packet();
    assert_eq!(established().outside(error(&of_an_error)), "invalid", "an error");
    let mut other_version = servers();
    other_version[0] = 0x55;
    assert_eq!(established().outside(error(&other_version)), "invalid");
    assert_eq!(established().outside(error(&servers()[..19])), "invalid");
    assert_eq!(established().outside(error(&[])), "invalid");
    let later = tcp(S, C).seq(5001).ack(1001).fragment(3, false).packet();
    assert_eq!(established().outside(error(&later)), "invalid", "a later fragment");
    let routed = tcp(S, C).seq(5001).ack(1001).options(&[131, 7, 4, 10, 0, 0, 2]).packet();
    assert_eq!(established().outside(error(&routed)), "invalid", "as malformed in a quote as anywhere");
}

#[test]
fn related_4_5_what_is_to_be_judged_again_is_first() {
    let text = |office: &str| {
        one(&["{direction: inbound, protocol: udp, remote_address_group: office}", OUT])
            + &format!("address_groups: [{{name: office, addresses: [{office}]}}]\n")
    };
    let quoted = |remote: &str| udp(("10.0.0.1", 53), (remote, 5000)).packet();
    let mut s = Scenario::new(&text("198.51.100.0/24, 203.0.113.0/24"));
    s.outside(udp("198.51.100.9:5000", "10.0.0.1:53"));
    s.outside(udp("203.0.113.9:5000", "10.0.0.1:53"));
    s.apply(&text("198.51.100.0/24"));
    assert_eq!(s.outside(error(&quoted("198.51.100.9"))), "related");
    assert_eq!(s.outside(error(&quoted("203.0.113.9"))), "invalid");
    s.apply(&text("198.51.100.0/24, 203.0.113.0/24"));
    assert_eq!(s.outside(udp("203.0.113.9:5000", "10.0.0.1:53")), "tombstone", "since the error");
}

#[test]
fn related_4_5_the_lengths_that_the_quoted_header_states_are_not_looked_at() {
    // Gateways leave the length that they have altered, or one in their own byte order.
    for length in [0, 19, 20, 24, 27, 28, 60, 0x2800, u16::MAX] {
        let quoted = tcp(S, C).seq(5001).ack(1001).lie_ip_length(length).packet();
        assert_eq!(established().outside(error(&quoted)), "related", "of {length} bytes");
        assert_eq!(established().outside(error(&quoted[..28])), "related", "of {length} bytes, cut");
        assert_eq!(established().outside(error(&quoted[..27])), "invalid", "without 8 bytes of TCP");
    }
    let (c, w) = ("[2001:db8:9::9]:40000", "[2001:db8::1]:53");
    let mut s = Scenario::new(&text());
    s.outside(udp(c, w));
    let mut error = |quoted: &[u8]| s.outside(icmp_error("2001:db8:f::1", "2001:db8::1", 1, 0, quoted));
    for length in [0, 4, 8, u16::MAX] {
        let plain = udp(w, c).lie_ip_length(length).packet();
        let behind = udp(w, c).ext(Ext::destination_options()).lie_ip_length(length).packet();
        assert_eq!(
            (error(&plain), error(&behind)),
            ("related".into(), "related".into()),
            "of {length} bytes"
        );
        assert_eq!((error(&plain[..47]), error(&behind[..55])), ("invalid".into(), "invalid".into()));
    }
}

#[test]
fn related_4_5_an_error_about_an_extended_echo_is_its_connections() {
    for (client, server, router, ask, unreachable) in
        [(CLIENT, SERVER, ROUTER, 42, 3), ("2001:db8:9::9", "2001:db8::1", "2001:db8:f::1", 160, 1)]
    {
        let mut s = Scenario::new(&text());
        s.outside(icmp(client, server, ask, 0).id_seq(7, 0x0101));
        let quoting = |kind, id| icmp(server, client, kind, 0).id_seq(id, 0x0101).packet();
        let mut error = |quoted: &[u8]| s.outside(icmp_error(router, server, unreachable, 0, quoted));
        assert_eq!(error(&quoting(ask + 1, 7)), "related");
        assert_eq!(error(&quoting(ask + 1, 8)), "invalid", "of another identifier");
        assert_eq!(error(&quoting(ask, 7)), "invalid", "asked by the other side");
    }
}
