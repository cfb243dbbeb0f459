//! Semantics §4.3: SYNs within a connection, what answers them, and resets.

mod handshake;

use handshake::*;
use testkit::frame::*;
use testkit::scenario::{Scenario, one, policy, rule::*};

#[test]
fn syn_within_4_3_of_either_side_passes_unchecked_and_changes_nothing() {
    for (mut s, state) in [(established(), "established 500.0"), (fin_wait(), "fin-wait 20.0")] {
        s.wait(if state.starts_with("fin") { 10.0 } else { 100.0 });
        assert_eq!(s.outside(tcp(C, S).syn().seq(3_000_000_000)), "established");
        assert_eq!(s.inside(tcp(S, C).syn().seq(2_000_000_000)), "established");
        ends(&mut s, state);
    }
    let mut s = established();
    s.outside(tcp(C, S).syn().seq(3_000_000_000));
    assert_eq!(s.inside(tcp(S, C).seq(5001).ack(1001)), "established", "the challenge ACK");
    assert_eq!(
        s.outside(tcp(C, S).seq(3_000_000_001).ack(5001)),
        "invalid",
        "the windows are what they were"
    );
}

#[test]
fn syn_within_4_3_a_syn_ack_inside_the_window_does_so_too_and_one_outside_is_invalid() {
    let mut s = established();
    s.wait(100.0);
    assert_eq!(s.inside(tcp(S, C).syn().seq(5000).ack(1001)), "established");
    assert_eq!(s.outside(tcp(C, S).syn().seq(1000).ack(5001)), "established");
    assert_eq!(s.inside(tcp(S, C).syn().seq(70_000).ack(1001)), "invalid");
    assert_eq!(s.outside(tcp(C, S).syn().seq(1000).ack(90_000)), "invalid");
    ends(&mut s, "established 500.0");
}

#[test]
fn restart_4_3_the_answer_to_the_latest_syn_within_opens_anew_as_that_syn_would_have() {
    let mut s = established();
    s.wait(100.0);
    s.outside(tcp(C, S).syn().seq(3_000_000_000));
    assert_eq!(s.inside(tcp(S, C).syn().seq(70_000).ack(3_000_000_001)), "new by web#0");
    assert_eq!(s.connections(), ["a inbound 6 10.0.0.1:22 198.51.100.9:40000 syn-received 30.0"]);
    assert_eq!(s.outside(tcp(C, S).seq(3_000_000_001).ack(70_001)), "established");
    ends(&mut s, "established 600.0");
    assert_eq!(s.len(), 1);

    let mut s = established();
    s.inside(tcp(S, C).syn().seq(3_000_000_000));
    assert_eq!(s.outside(tcp(C, S).syn().seq(70_000).ack(3_000_000_001)), "new by web#1");
    assert_eq!(s.connections(), ["a outbound 6 10.0.0.1:22 198.51.100.9:40000 syn-received 30.0"]);
}

#[test]
fn restart_4_3_only_the_latest_syn_counts_and_only_the_other_side_answers() {
    let mut s = established();
    s.outside(tcp(C, S).syn().seq(3_000_000_000));
    s.outside(tcp(C, S).syn().seq(2_500_000_000));
    assert_eq!(s.inside(tcp(S, C).syn().seq(70_000).ack(3_000_000_001)), "invalid");
    assert_eq!(s.outside(tcp(C, S).syn().seq(70_000).ack(2_500_000_001)), "invalid");
    assert_eq!(s.inside(tcp(S, C).syn().seq(70_000).ack(2_500_000_001)), "new by web#0");
}

#[test]
fn restart_4_3_the_rules_of_now_may_refuse_it() {
    let mut s = Scenario::with("[policy]\ninbound_flush = \"inbound-rules\"\n", &one(&[SSH, OUT]));
    let (c, w) = ("10.0.0.1:6000", "192.0.2.1:80");
    s.inside(tcp(c, w).syn().seq(1));
    s.outside(tcp(w, c).syn().seq(100).ack(2));
    s.inside(tcp(c, w).seq(2).ack(101));
    s.apply(&one(&[SSH]));
    s.wait(100.0);
    assert_eq!(s.inside(tcp(c, w).syn().seq(3_000_000_000)), "established");
    assert_eq!(s.outside(tcp(w, c).syn().seq(70_000).ack(3_000_000_001)), "no-rule");
    ends(&mut s, "established 500.0");
}

#[test]
fn restart_4_3_its_windows_are_those_of_its_syns() {
    let mut s = established();
    s.outside(tcp(C, S).syn().seq(70_000).window(300));
    assert_eq!(s.inside(tcp(S, C).syn().seq(90_000).ack(70_001).window(400)), "new by web#0");
    assert_eq!(s.inside(tcp(S, C).seq(90_001 - 302).ack(70_001)), "invalid");
    assert_eq!(s.inside(tcp(S, C).seq(90_001 - 300).ack(70_001).window(400)), "established");
    assert_eq!(s.outside(tcp(C, S).seq(70_001 + 401).ack(90_001)), "invalid");
    assert_eq!(s.outside(tcp(C, S).seq(70_001 + 400).ack(90_001)), "established");
}

/// The states in which a SYN passes within the connection, and the numbers that the client and the server send next.
fn with_syns_within() -> [(Scenario, u32, u32); 3] {
    [(syn_received(), 1001, 5001), (established(), 1001, 5001), (fin_wait(), 1001, 5002)]
}

#[test]
fn refused_4_3_a_rst_that_acknowledges_the_latest_syn_within_ends_whatever_its_number() {
    for seq in [0, 424_242, 3_000_000_000] {
        for (mut s, ..) in with_syns_within() {
            s.wait(10.0);
            assert_eq!(s.outside(tcp(C, S).syn().seq(900_000)), "established");
            assert_eq!(s.inside(tcp(S, C).rst().seq(seq).ack(900_001)), "established");
            assert!(s.connections().is_empty());
            assert_eq!(s.outside(tcp(C, S).syn().seq(900_000)), "new by web#0", "sent again, it is judged");
            assert_eq!(s.inside(tcp(S, C).rst().seq(seq).ack(900_001)), "established");
        }
    }
    // The server's SYN, and the client's answer.
    for mut s in [established(), fin_wait()] {
        assert_eq!(s.inside(tcp(S, C).syn().seq(900_000)), "established");
        assert_eq!(s.outside(tcp(C, S).rst().seq(0).ack(900_001)), "established");
        assert!(s.connections().is_empty());
    }
}

#[test]
fn refused_4_3_nothing_else_is_taken_for_that_rst() {
    for (mut s, client, server) in with_syns_within() {
        let before = s.connections();
        assert_eq!(s.inside(tcp(S, C).rst().seq(0).ack(900_001)), "invalid", "no SYN yet");
        s.outside(tcp(C, S).syn().seq(900_000));
        assert_eq!(s.inside(tcp(S, C).rst().seq(0)), "invalid", "without ACK");
        assert_eq!(s.inside(tcp(S, C).rst().seq(0).ack(900_000)), "invalid");
        assert_eq!(s.inside(tcp(S, C).rst().seq(0).ack(900_002)), "invalid");
        assert_eq!(s.outside(tcp(C, S).rst().seq(3_000_000_000).ack(900_001)), "invalid", "its own side's");
        s.outside(tcp(C, S).syn().seq(950_000));
        assert_eq!(s.inside(tcp(S, C).rst().seq(0).ack(900_001)), "invalid", "not the latest SYN");
        assert_eq!(s.connections(), before);
        assert_eq!(s.inside(tcp(S, C).seq(server).ack(client)), "established");
    }
    // Of a SYN with data, all of it or the SYN alone.
    for (ack, verdict) in [(900_001, "established"), (900_101, "established"), (900_102, "invalid")] {
        let mut s = established();
        s.outside(tcp(C, S).syn().seq(900_000).payload([0; 100]));
        assert_eq!(s.inside(tcp(S, C).rst().seq(0).ack(ack)), verdict, "{ack}");
    }
}

#[test]
fn refused_4_3_in_ipv6_and_where_numbers_wrap() {
    let groups = ["{direction: inbound, ethertype: IPv6, protocol: tcp, ports: 22}"];
    let text = policy(&[("web", &groups)], &[("a", "\"2001:db8::1\"", &["web"])]);
    let (c, w) = ("[2001:db8:9::9]:40000", "[2001:db8::1]:22");
    let mut s = Scenario::new(&text);
    s.connect(c, w);
    assert_eq!(s.outside(tcp(c, w).syn().seq(u32::MAX)), "established");
    assert_eq!(s.inside(tcp(w, c).rst().seq(0).ack(1)), "invalid");
    assert_eq!(s.inside(tcp(w, c).rst().seq(0).ack(0)), "established");
    assert!(s.connections().is_empty());
}

#[test]
fn refused_4_3_the_openers_own_syn_that_comes_again_before_the_handshake_is_over() {
    let mut s = syn_received();
    assert_eq!(s.inside(tcp(S, C).rst().seq(0).ack(1001)), "invalid", "it has been answered");
    assert_eq!(s.outside(tcp(C, S).syn().seq(1000)), "established", "the answer was lost");
    assert_eq!(s.inside(tcp(S, C).rst().seq(0).ack(1002)), "invalid");
    assert_eq!(s.inside(tcp(S, C).rst().seq(0)), "invalid");
    assert_eq!(s.outside(tcp(C, S).rst().seq(3_000_000_000).ack(1001)), "invalid", "its own side's");
    assert_eq!(s.inside(tcp(S, C).rst().seq(0).ack(1001)), "established");
    assert!(s.connections().is_empty());
    // Once the handshake is over, nothing refuses that SYN any more, and who closes first is who closes first.
    let mut s = syn_received();
    s.outside(tcp(C, S).syn().seq(1000));
    s.outside(tcp(C, S).seq(1001).ack(5001));
    assert_eq!(s.inside(tcp(S, C).rst().seq(0).ack(1001)), "invalid");
    s.outside(tcp(C, S).fin().seq(1001).ack(5001));
    assert_eq!(s.inside(tcp(S, C).rst().seq(0).ack(1001)), "invalid");
    s.inside(tcp(S, C).fin().seq(5001).ack(1002));
    ends(&mut s, "closing 30.0");
}

#[test]
fn rst_4_3_without_window_check_and_where_numbers_wrap() {
    let unchecked = "[conntrack]\ntcp_window_check = false\n";
    for config in ["", unchecked, "[conntrack]\ntcp_pickup = \"loose\"\n"] {
        let mut s = Scenario::with(config, &one(&[SSH, OUT]));
        let (c, w) = (u32::MAX - 50, 7000);
        if config.contains("loose") {
            s.outside(tcp(C, S).seq(c).ack(w));
        } else {
            s.outside(tcp(C, S).syn().seq(c - 1).window(8000));
            s.inside(tcp(S, C).syn().seq(w - 1).ack(c).window(8000));
        }
        s.outside(tcp(C, S).seq(c).ack(w).payload([0; 100]));
        s.inside(tcp(S, C).seq(w).ack(c));
        ends(&mut s, "established 600.0");
        assert_eq!(s.outside(tcp(C, S).rst().seq(c)), "established", "{config}");
        ends(&mut s, "established 10.0");
        s.inside(tcp(S, C).seq(w).ack(49));
        assert_eq!(s.outside(tcp(C, S).rst().seq(49)), "established", "{config}");
        assert!(s.connections().is_empty(), "{config}");
    }
}

#[test]
fn answered_4_3_behind_the_second_fin_too() {
    let closing = || {
        let mut s = fin_wait();
        s.outside(tcp(C, S).syn().seq(900_000));
        s.outside(tcp(C, S).fin().seq(1001).ack(5002));
        ends(&mut s, "closing 30.0");
        s
    };
    let mut s = closing();
    assert_eq!(s.inside(tcp(S, C).rst().seq(0).ack(900_001)), "established");
    assert!(s.connections().is_empty());
    let mut s = closing();
    assert_eq!(s.inside(tcp(S, C).syn().seq(70_000).ack(900_001)), "new by web#0");
    ends(&mut s, "syn-received 30.0");
}

/// Established, and the client has sent 100 bytes that are not acknowledged yet.
fn unacknowledged() -> Scenario {
    let mut s = established();
    s.outside(tcp(C, S).seq(1001).ack(5001).payload([0; 100]));
    s.wait(100.0);
    s
}

#[test]
fn rst_4_3_at_its_senders_next_is_exact_and_ends() {
    let mut s = unacknowledged();
    assert_eq!(s.outside(tcp(C, S).rst().seq(1101)), "established");
    assert!(s.connections().is_empty());
    let mut s = unacknowledged();
    s.inside(tcp(S, C).seq(5001).ack(1101));
    assert_eq!(s.inside(tcp(S, C).rst().seq(5001)), "established", "the server's");
    assert!(s.connections().is_empty());
}

#[test]
fn rst_4_3_at_what_its_receiver_acknowledged_passes_and_leaves_10_s_at_most() {
    let mut s = unacknowledged();
    assert_eq!(s.outside(tcp(C, S).rst().seq(1001)), "established");
    ends(&mut s, "established 10.0");
    s.wait(4.0);
    assert_eq!(s.outside(tcp(C, S).rst().seq(1001).ack(5001)), "established", "with an ACK, too");
    ends(&mut s, "established 6.0");
    s.wait(6.5);
    assert!(s.connections().is_empty());
    assert_eq!(s.inside(tcp(S, C).seq(5001).ack(1101)), "invalid");
    // Never later than it was.
    let mut s = fin_wait();
    s.inside(tcp(S, C).seq(5001).ack(1001));
    s.wait(25.0);
    assert_eq!(s.inside(tcp(S, C).rst().seq(5001)), "established", "below its FIN");
    ends(&mut s, "fin-wait 5.0");
    for (reset, left) in [("3", "established 3.0"), ("900", "established 500.0")] {
        let mut s = Scenario::with(&format!("[timeouts]\ntcp_reset = {reset}\n"), &one(&[SSH, OUT]));
        s.connect(C, S);
        s.outside(tcp(C, S).seq(1001).ack(5001).payload([0; 100]));
        s.wait(100.0);
        s.outside(tcp(C, S).rst().seq(1001));
        ends(&mut s, left);
    }
}

#[test]
fn rst_4_3_behind_one_that_its_receiver_may_refuse_all_is_judged_as_ever() {
    // The client has closed with data of the server's unread, and its FIN is under way when that data comes: its RST bears
    // what the server acknowledged by then.
    let mut s = established();
    s.outside(tcp(C, S).fin().seq(1001).ack(5001).payload([0; 24]));
    s.inside(tcp(S, C).seq(5001).ack(1001).payload([0; 1000]));
    assert_eq!(s.outside(tcp(C, S).rst().seq(1001)), "established");
    ends(&mut s, "fin-wait 10.0");
    // The server has taken the FIN meanwhile, and does not believe that RST.
    s.wait(0.125);
    assert_eq!(s.inside(tcp(S, C).seq(6001).ack(1026)), "established");
    ends(&mut s, "fin-wait 30.0");
    assert_eq!(s.outside(tcp(C, S).rst().seq(1026)), "established");
    assert!(s.connections().is_empty());
    // In its 10 seconds it is as live as any: a flush makes it a tombstone for what is left of them.
    let mut s = unacknowledged();
    s.outside(tcp(C, S).rst().seq(1001));
    s.apply(&one(&[SSH, DNS, OUT]));
    assert_eq!(s.connections(), ["a inbound 6 10.0.0.1:22 198.51.100.9:40000 established 10.0 tombstone"]);
    assert_eq!(s.outside(tcp(C, S).rst().seq(1001)), "tombstone");
    s.wait(10.5);
    assert_eq!(s.outside(tcp(C, S).syn().seq(1001)), "new by web#0");
}

#[test]
fn rst_4_3_inside_the_window_but_not_exact_passes_and_changes_nothing() {
    for inside in [1002, 1100, 1102, 9001] {
        let mut s = unacknowledged();
        assert_eq!(s.outside(tcp(C, S).rst().seq(inside)), "established");
        ends(&mut s, "established 500.0");
        assert_eq!(s.outside(tcp(C, S).rst().seq(inside).ack(424_242)), "established", "its ACK number");
        ends(&mut s, "established 500.0");
    }
}

#[test]
fn rst_4_3_below_the_acknowledged_or_beyond_the_window_is_invalid() {
    let mut s = unacknowledged();
    assert_eq!(s.outside(tcp(C, S).rst().seq(1000)), "invalid");
    assert_eq!(s.outside(tcp(C, S).rst().seq(9002)), "invalid");
    s.inside(tcp(S, C).seq(5001).ack(1101).window(8000));
    assert_eq!(s.outside(tcp(C, S).rst().seq(1001)), "invalid", "acknowledged by now");
    assert_eq!(s.outside(tcp(C, S).seq(1001).ack(5001)), "established", "where data would pass");
}

#[test]
fn rst_4_3_in_syn_received_and_with_fins_is_exact_or_not_as_well() {
    for (mut s, exact) in [(syn_received(), 1001), (fin_wait(), 1001), (closing(), 1002)] {
        assert_eq!(s.outside(tcp(C, S).rst().seq(exact + 5)), "established");
        assert_eq!(s.len(), 1);
        assert_eq!(s.outside(tcp(C, S).rst().seq(exact)), "established");
        assert_eq!(s.len(), 0);
    }
}
