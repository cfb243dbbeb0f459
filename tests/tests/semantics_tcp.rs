//! Semantics §4.3: TCP's states, impossible flags, pick-up.

mod handshake;

use handshake::*;
use testkit::frame::*;
use testkit::scenario::{Scenario, one, rule::*};

#[test]
fn states_4_3_each_has_its_timeout() {
    ends(&mut syn_sent(), "syn-sent 30.0");
    ends(&mut syn_received(), "syn-received 30.0");
    ends(&mut established(), "established 600.0");
    ends(&mut fin_wait(), "fin-wait 30.0");
    ends(&mut closing(), "closing 30.0");
}

#[test]
fn states_4_3_one_fin_and_both_have_timeouts_of_their_own() {
    for (timeouts, one_fin, both) in [
        ("tcp_half_closed = 7200", "fin-wait 7200.0", "closing 30.0"),
        ("tcp_fin = 20", "fin-wait 20.0", "closing 20.0"),
        ("tcp_fin = 20\ntcp_half_closed = 5", "fin-wait 5.0", "closing 20.0"),
    ] {
        let mut s = Scenario::with(&format!("[timeouts]\n{timeouts}\n"), &one(&[SSH, OUT]));
        s.connect(C, S);
        s.outside(tcp(C, S).fin().seq(1001).ack(5001));
        ends(&mut s, one_fin);
        // What the other side still has to send, though it takes longer.
        assert_eq!(s.inside(tcp(S, C).seq(5001).ack(1002).payload([0; 1000])), "established");
        ends(&mut s, one_fin);
        s.inside(tcp(S, C).fin().seq(6001).ack(1002));
        ends(&mut s, both);
    }
}

#[test]
fn syn_sent_4_3_the_latest_syn_counts() {
    let mut s = syn_sent();
    s.wait(10.0);
    assert_eq!(s.outside(tcp(C, S).syn().seq(7000)), "established");
    ends(&mut s, "syn-sent 30.0");
    assert_eq!(s.inside(tcp(S, C).syn().seq(5000).ack(1001)), "invalid", "answers the first");
    assert_eq!(s.inside(tcp(S, C).syn().seq(5000).ack(7001)), "established");
}

#[test]
fn syn_sent_4_3_a_syn_sent_again_without_its_data_is_the_same_syn() {
    let mut s = scenario();
    assert_eq!(s.outside(tcp(C, S).syn().seq(1000).window(8000).payload([0; 100])), "new by web#0");
    assert_eq!(s.outside(tcp(C, S).syn().seq(1000).window(500)), "established");
    assert_eq!(s.inside(tcp(S, C).syn().seq(5000).ack(1102)), "invalid");
    assert_eq!(s.inside(tcp(S, C).syn().seq(5000).ack(1101)), "established", "it had come");
    assert_eq!(s.inside(tcp(S, C).seq(5001 + 8000).ack(1101)), "established", "the larger window counts");
    let mut s = scenario();
    s.outside(tcp(C, S).syn().seq(1000).payload([0; 100]));
    s.outside(tcp(C, S).syn().seq(2000));
    assert_eq!(s.inside(tcp(S, C).syn().seq(5000).ack(2101)), "invalid", "another SYN has no such data");
}

#[test]
fn syn_sent_4_3_a_syn_ack_that_acknowledges_it_or_a_crossing_syn_leads_to_syn_received() {
    let mut s = syn_sent();
    assert_eq!(s.inside(tcp(S, C).syn().seq(5000).ack(1002)), "invalid");
    assert_eq!(s.inside(tcp(S, C).syn().seq(5000).ack(1000)), "invalid");
    ends(&mut s, "syn-sent 30.0");
    assert_eq!(s.inside(tcp(S, C).syn().seq(5000).ack(1001)), "established");
    ends(&mut s, "syn-received 30.0");
    let mut s = syn_sent();
    assert_eq!(s.inside(tcp(S, C).syn().seq(5000)), "established");
    ends(&mut s, "syn-received 30.0");
}

#[test]
fn syn_sent_4_3_a_challenge_ack_passes_and_changes_nothing() {
    let mut s = syn_sent();
    s.wait(10.0);
    assert_eq!(s.inside(tcp(S, C).seq(77).ack(99)), "established");
    ends(&mut s, "syn-sent 20.0");
    assert_eq!(s.inside(tcp(S, C).syn().seq(5000).ack(1001)), "established", "the SYN still counts");
}

#[test]
fn syn_sent_4_3_ends_by_any_rst_of_the_opener_or_one_that_acknowledges_the_syn() {
    let mut s = syn_sent();
    assert_eq!(s.inside(tcp(S, C).rst().ack(1002)), "invalid");
    assert_eq!(s.inside(tcp(S, C).rst()), "invalid");
    assert_eq!(s.inside(tcp(S, C).rst().ack(1001)), "established");
    assert!(s.connections().is_empty());
    let mut s = syn_sent();
    assert_eq!(s.outside(tcp(C, S).rst().seq(424_242)), "established");
    assert!(s.connections().is_empty());
}

#[test]
fn syn_sent_4_3_everything_else_is_invalid() {
    let mut s = syn_sent();
    s.wait(10.0);
    assert_eq!(s.outside(tcp(C, S).seq(1001).ack(1)), "invalid");
    assert_eq!(s.outside(tcp(C, S).syn().seq(1000).ack(1)), "invalid");
    assert_eq!(s.outside(tcp(C, S).fin().seq(1001).ack(1)), "invalid");
    ends(&mut s, "syn-sent 20.0");
}

#[test]
fn syn_received_4_3_the_openers_ack_establishes() {
    let mut s = syn_received();
    assert_eq!(s.outside(tcp(C, S).seq(1001).ack(5001)), "established");
    ends(&mut s, "established 600.0");
}

#[test]
fn syn_received_4_3_in_a_crossed_open_the_openers_syn_ack_establishes() {
    let mut s = syn_sent();
    s.inside(tcp(S, C).syn().seq(5000));
    assert_eq!(s.outside(tcp(C, S).syn().seq(1000).ack(5001)), "established");
    ends(&mut s, "established 600.0");
    assert_eq!(s.inside(tcp(S, C).syn().seq(5000).ack(1001)), "established");
    assert_eq!(s.outside(tcp(C, S).seq(1001).ack(5001).payload(b"x")), "established");
    let mut s = syn_received();
    assert_eq!(s.outside(tcp(C, S).syn().seq(1000).ack(5001)), "established");
    ends(&mut s, "syn-received 30.0");
}

#[test]
fn syn_received_4_3_a_fin_of_either_side_leads_to_fin_wait() {
    let mut s = syn_received();
    assert_eq!(s.outside(tcp(C, S).fin().seq(1001).ack(5001)), "established");
    ends(&mut s, "fin-wait 30.0");
    let mut s = syn_received();
    assert_eq!(s.inside(tcp(S, C).fin().seq(5001).ack(1001)), "established");
    ends(&mut s, "fin-wait 30.0");
}

#[test]
fn syn_received_4_3_repeated_syns_and_acks_of_the_responder_leave_it_there() {
    let mut s = syn_received();
    s.wait(10.0);
    assert_eq!(s.outside(tcp(C, S).syn().seq(1000)), "established");
    ends(&mut s, "syn-received 30.0");
    assert_eq!(s.inside(tcp(S, C).syn().seq(5000).ack(1001)), "established");
    assert_eq!(s.inside(tcp(S, C).seq(5001).ack(1001)), "established");
    ends(&mut s, "syn-received 30.0");
}

#[test]
fn syn_received_4_3_a_syn_of_another_number_is_one_within() {
    let mut s = syn_received();
    s.wait(10.0);
    assert_eq!(s.outside(tcp(C, S).syn().seq(900_000)), "established");
    ends(&mut s, "syn-received 20.0");
    assert_eq!(s.inside(tcp(S, C).seq(5001).ack(1001)), "established", "the challenge ACK");
    assert_eq!(s.outside(tcp(C, S).syn().seq(1000)), "established", "the first one again");
    ends(&mut s, "syn-received 30.0");
    // It left no trace in the windows, and is answered.
    assert_eq!(s.outside(tcp(C, S).seq(900_001).ack(5001)), "invalid");
    assert_eq!(s.inside(tcp(S, C).syn().seq(70_000).ack(900_001)), "new by web#0");
    ends(&mut s, "syn-received 30.0");
    assert_eq!(s.outside(tcp(C, S).seq(900_001).ack(70_001)), "established");
    ends(&mut s, "established 600.0");

    let mut s = syn_received();
    assert_eq!(s.inside(tcp(S, C).syn().seq(900_000)), "invalid", "the responder's is none");
    assert_eq!(s.inside(tcp(S, C).syn().seq(5000)), "established", "but its own again");
    let mut s = Scenario::with("[conntrack]\ntcp_window_check = false\n", &one(&[SSH, OUT]));
    s.outside(tcp(C, S).syn().seq(1000));
    s.inside(tcp(S, C).syn().seq(5000).ack(1001));
    s.wait(10.0);
    assert_eq!(s.outside(tcp(C, S).syn().seq(900_000)), "established");
    ends(&mut s, "syn-received 20.0");
}

#[test]
fn established_4_3_a_fin_of_either_side_leads_to_fin_wait_and_the_other_ones_to_closing() {
    for server_first in [true, false] {
        let (server, client) = (tcp(S, C).fin().seq(5001).ack(1001), tcp(C, S).fin().seq(1001).ack(5001));
        let mut s = established();
        let mut send =
            |servers: bool| if servers { s.inside(server.clone()) } else { s.outside(client.clone()) };
        send(server_first);
        assert_eq!(send(server_first), "established", "the same one again");
        ends(&mut s, "fin-wait 30.0");
        if server_first {
            s.outside(client)
        } else {
            s.inside(server)
        };
        ends(&mut s, "closing 30.0");
    }
}

#[test]
fn closing_4_3_a_syn_of_either_side_opens_anew_in_its_own_direction_and_the_old_ones_place() {
    let mut s = closing();
    assert_eq!(s.outside(tcp(C, S).syn().seq(9000)), "new by web#0");
    assert_eq!(s.connections(), ["a inbound 6 10.0.0.1:22 198.51.100.9:40000 syn-sent 30.0"]);
    let mut s = closing();
    assert_eq!(s.inside(tcp(S, C).syn().seq(9000)), "new by web#1");
    assert_eq!(s.connections(), ["a outbound 6 10.0.0.1:22 198.51.100.9:40000 syn-sent 30.0"]);
    assert_eq!(s.len(), 1);
    assert_eq!(s.outside(tcp(C, S).syn().seq(300).ack(9001)), "established");
}

#[test]
fn closing_4_3_a_refused_syn_drops_and_leaves_the_old_connection_as_it_was() {
    let mut s = Scenario::new(&one(&[SSH]));
    s.connect(C, S);
    s.inside(tcp(S, C).fin().seq(5001).ack(1001));
    s.outside(tcp(C, S).fin().seq(1001).ack(5002));
    s.wait(5.0);
    assert_eq!(s.inside(tcp(S, C).syn().seq(9000)), "no-rule");
    assert_eq!(s.connections(), ["a inbound 6 10.0.0.1:22 198.51.100.9:40000 closing 25.0"]);
    assert_eq!(s.inside(tcp(S, C).seq(5002).ack(1002)), "established");
}

#[test]
fn closing_4_3_the_rules_of_now_decide() {
    let mut s = Scenario::with("[policy]\ninbound_flush = \"inbound-rules\"\n", &one(&[SSH, OUT]));
    let (c, w) = ("10.0.0.1:6000", "192.0.2.1:80");
    s.inside(tcp(c, w).syn().seq(1));
    s.outside(tcp(w, c).syn().seq(100).ack(2));
    s.inside(tcp(c, w).fin().seq(2).ack(101));
    s.outside(tcp(w, c).fin().seq(101).ack(3));
    s.apply(&one(&[SSH]));
    assert_eq!(s.inside(tcp(c, w).syn().seq(9000)), "no-rule");
}

#[test]
fn segments_4_3_repeated_within_the_window_pass() {
    let mut s = established();
    let data = tcp(C, S).seq(1001).ack(5001).payload([1; 500]);
    s.outside(data.clone());
    s.inside(tcp(S, C).seq(5001).ack(1501));
    assert_eq!(s.outside(data), "established");
}

#[test]
fn flags_4_3_that_no_stack_sends_are_invalid_with_a_connection_and_without() {
    let senseless = [
        // Neither SYN, ACK nor RST.
        &[0, PSH, URG, PSH | URG, FIN, FIN | PSH | URG][..],
        &[SYN | FIN, SYN | FIN | ACK],
        &[SYN | RST, SYN | RST | ACK],
        &[FIN | RST, FIN | RST | ACK],
    ]
    .concat();
    let mut s = established();
    for flags in senseless {
        assert_eq!(
            s.outside(tcp(C, S).flags(flags).seq(1001).ack(5001).flags(flags)),
            "invalid",
            "{flags:#x}"
        );
        assert_eq!(scenario().outside(tcp(C, S).flags(flags).seq(1001)), "invalid", "{flags:#x}");
        assert_eq!(scenario().inside(tcp("10.0.0.1:9", C).flags(flags).seq(1001)), "invalid", "{flags:#x}");
    }
    for flags in [ACK, ACK | PSH | URG, ACK | FIN, ACK | RST, RST, SYN] {
        assert_eq!(
            established().outside(tcp(C, S).seq(1001).ack(5001).flags(flags)),
            "established",
            "{flags:#x}"
        );
    }
}

fn loose(rules: &[&str]) -> Scenario {
    Scenario::with("[conntrack]\ntcp_pickup = \"loose\"\n", &one(rules))
}

#[test]
fn pickup_4_3_is_strict_unless_said_otherwise_and_then_takes_an_ack_alone() {
    assert_eq!(scenario().outside(tcp(C, S).seq(1).ack(2)), "invalid");
    let mut s = loose(&[SSH, OUT]);
    for flags in [FIN | ACK, RST | ACK, RST, SYN | ACK] {
        assert_eq!(s.outside(tcp(C, S).flags(flags).seq(1)), "invalid", "{flags:#x}");
    }
    assert_eq!(s.outside(tcp(C, S).seq(1).ack(2).psh()), "new by web#0");
    ends(&mut s, "established 600.0");
    assert_eq!(s.inside(tcp(S, C).seq(900_000_000).ack(800_000_000)), "established", "without window check");
    assert_eq!(s.outside(tcp(C, S).seq(700_000_000).ack(7)), "established");
}

#[test]
fn pickup_4_3_from_outside_needs_the_inbound_rules() {
    let mut s = loose(&[SSH, OUT]);
    assert_eq!(s.outside(tcp("192.0.2.77:1", "10.0.0.1:23").seq(1).ack(2)), "no-rule");
    assert_eq!(s.outside(tcp("192.0.2.77:22", "10.0.0.1:23").seq(1).ack(2)), "no-rule", "not its reverse");
    assert_eq!(s.outside(tcp("192.0.2.77:1", S).seq(1).ack(2)), "new by web#0");
}

#[test]
fn pickup_4_3_from_inside_is_inbound_if_the_reverse_is_allowed_else_outbound_if_that_is() {
    let mut s = loose(&[SSH, OUT]);
    assert_eq!(s.inside(tcp(S, C).seq(1).ack(2)), "new by web#0");
    assert_eq!(s.connections(), ["a inbound 6 10.0.0.1:22 198.51.100.9:40000 established 600.0"]);
    s.apply(&one(&[SSH, DNS, OUT]));
    assert_eq!(s.inside(tcp(S, C).seq(1).ack(2)), "tombstone", "so the next flush ends it");
    let mut s = loose(&[SSH, OUT]);
    assert_eq!(s.inside(tcp("10.0.0.1:4444", "192.0.2.1:80").seq(1).ack(2)), "new by web#1");
    assert_eq!(s.connections(), ["a outbound 6 10.0.0.1:4444 192.0.2.1:80 established 600.0"]);
    assert_eq!(loose(&[SSH]).inside(tcp("10.0.0.1:4444", "192.0.2.1:80").seq(1).ack(2)), "no-rule");
}

#[test]
fn pickup_4_3_grace_is_loose_for_that_long_after_the_start() {
    let mut s = Scenario::with("[conntrack]\npickup_grace = 60\n", &one(&[SSH, OUT]));
    s.at(59.0);
    assert_eq!(s.outside(tcp(C, S).seq(1).ack(2)), "new by web#0");
    s.at(61.0);
    assert_eq!(s.outside(tcp("198.51.100.9:40001", S).seq(1).ack(2)), "invalid");
    assert_eq!(s.outside(tcp(C, S).seq(1).ack(2)), "established");
}
