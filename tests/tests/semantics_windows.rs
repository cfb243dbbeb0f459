//! Semantics §4.4: sequence and acknowledgment numbers.

use testkit::frame::*;
use testkit::scenario::{Scenario, one, rule::*};

const C: &str = "198.51.100.9:40000";
const S: &str = "10.0.0.1:22";

/// The client has sent up to 1000 and may send 8000 more, the server up to 5000 and 8000 more.
fn established() -> Scenario {
    let mut s = Scenario::new(&one(&[SSH, OUT]));
    s.connect(C, S);
    s
}

/// A client's empty segment.
fn segment(seq: u32, ack: u32) -> Packet<Tcp> {
    tcp(C, S).seq(seq).ack(ack).window(8000)
}

#[test]
fn windows_4_4_seq_is_at_most_what_the_sender_may_send() {
    assert_eq!(established().outside(segment(1001 + 8000, 5001)), "established");
    assert_eq!(established().outside(segment(1001 + 8001, 5001)), "invalid");
}

#[test]
fn windows_4_4_seq_end_is_at_least_what_was_sent_less_the_receivers_window() {
    assert_eq!(established().outside(segment(1001u32.wrapping_sub(8000), 5001)), "established");
    assert_eq!(established().outside(segment(1001u32.wrapping_sub(8001), 5001)), "invalid");
    let byte = segment(1001u32.wrapping_sub(8001), 5001).payload(b"x");
    assert_eq!(established().outside(byte), "established", "it is the end that counts");
}

#[test]
fn windows_4_4_ack_is_at_most_what_was_sent() {
    assert_eq!(established().outside(segment(1001, 5001)), "established");
    assert_eq!(established().outside(segment(1001, 5002)), "invalid");
}

#[test]
fn windows_4_4_ack_is_at_least_what_was_sent_less_66000() {
    assert_eq!(established().outside(segment(1001, 5001u32.wrapping_sub(66_000))), "established");
    assert_eq!(established().outside(segment(1001, 5001u32.wrapping_sub(66_001))), "invalid");
}

/// Both offer a scale of 3 and, with the client's ACK, this window.
fn scaled(window: u16) -> Scenario {
    let mut s = Scenario::new(&one(&[SSH, OUT]));
    s.outside(tcp(C, S).syn().seq(1000).window(8000).wscale(3));
    s.inside(tcp(S, C).syn().seq(5000).ack(1001).window(8000).wscale(3));
    assert_eq!(s.outside(tcp(C, S).seq(1001).ack(5001).window(window)), "established");
    s
}

#[test]
fn windows_4_4_or_less_the_senders_window_if_that_is_more() {
    let low = 5001u32.wrapping_sub(20_000 << 3);
    assert_eq!(scaled(20_000).outside(segment(1001, low)), "established");
    assert_eq!(scaled(20_000).outside(segment(1001, low.wrapping_sub(1))), "invalid");
}

#[test]
fn windows_4_4_a_segment_moves_the_senders_end_so_that_it_may_be_acknowledged() {
    let mut s = established();
    assert_eq!(s.inside(tcp(S, C).seq(5001).ack(1101)), "invalid");
    s.outside(segment(1001, 5001).payload([0; 100]));
    assert_eq!(s.inside(tcp(S, C).seq(5001).ack(1102)), "invalid");
    assert_eq!(s.inside(tcp(S, C).seq(5001).ack(1101)), "established");
    s.outside(segment(1001, 5001));
    assert_eq!(s.inside(tcp(S, C).seq(5001).ack(1101)), "established", "an older one takes nothing back");
}

#[test]
fn windows_4_4_a_fin_and_a_syn_count_as_one() {
    let mut s = established();
    s.outside(segment(1001, 5001).fin());
    assert_eq!(s.inside(tcp(S, C).seq(5001).ack(1003)), "invalid");
    assert_eq!(s.inside(tcp(S, C).seq(5001).ack(1002)), "established");
}

#[test]
fn windows_4_4_the_largest_window_that_a_side_offered_counts() {
    let old = |back: u32| tcp(S, C).seq(5001u32.wrapping_sub(back)).ack(1001);
    let mut s = established();
    assert_eq!(s.inside(old(20_000)), "invalid");
    s.outside(segment(1001, 5001).window(20_000));
    assert_eq!(s.inside(old(20_000)), "established");
    s.outside(segment(1001, 5001).window(100));
    assert_eq!(s.inside(old(20_000)), "established", "the largest");
    assert_eq!(s.inside(old(20_001)), "invalid");
}

#[test]
fn windows_4_4_an_acknowledgment_opens_the_window_from_there_and_never_back() {
    let ahead = |by: u32| tcp(S, C).seq(5001 + by).ack(1001);
    let mut s = established();
    s.outside(segment(1001, 5001).window(9000));
    assert_eq!(s.inside(ahead(9001)), "invalid");
    s.outside(segment(1001, 5001).window(100));
    assert_eq!(s.inside(ahead(9000)), "established", "what was offered stays offered");
}

#[test]
fn windows_4_4_a_side_may_send_only_what_was_acknowledged_and_offered() {
    let mut s = Scenario::new(&one(&[SSH, OUT]));
    s.outside(tcp(C, S).syn().seq(1000).window(100));
    s.inside(tcp(S, C).syn().seq(5000).ack(1001).window(8000));
    s.outside(segment(1001, 5001).window(100));
    assert_eq!(s.inside(tcp(S, C).seq(5001 + 101).ack(1001)), "invalid");
    assert_eq!(s.inside(tcp(S, C).seq(5001 + 100).ack(1001)), "established");
}

/// The client has sent a SYN with these bytes, a scale and a window of 3000, the server its answer.
fn fast_open(data: usize) -> Scenario {
    let mut s = Scenario::new(&one(&[SSH, OUT]));
    s.outside(tcp(C, S).syn().seq(1000).window(3000).wscale(7).payload(vec![0; data]));
    let acked = 1001 + data as u32;
    assert_eq!(
        s.inside(tcp(S, C).syn().seq(5000).ack(acked).window(8000).wscale(7)),
        "established",
        "with its data"
    );
    s
}

#[test]
fn windows_4_4_before_the_openers_first_ack_the_responder_may_fill_its_syns_window_unscaled() {
    for data in [0, 100] {
        let ack = 1001 + data as u32;
        let servers = |seq: u32, len: usize| tcp(S, C).seq(seq).ack(ack).payload(vec![0; len]);
        let mut s = fast_open(data);
        for seq in [5001, 6001, 7001] {
            assert_eq!(s.inside(servers(seq, 1000)), "established", "{seq}");
        }
        assert_eq!(s.inside(servers(6001, 1000)), "established", "sent again");
        assert_eq!(s.inside(servers(8001, 0)), "established");
        assert_eq!(s.inside(servers(8002, 0)), "invalid", "beyond");
        assert_eq!(s.inside(servers(8001, 0).fin()), "established", "a FIN behind all that");
        assert_eq!(s.outside(tcp(C, S).seq(ack).ack(8002)), "established");
    }
    // A server that does not take the data acknowledges the SYN alone, and gets them again.
    let mut s = Scenario::new(&one(&[SSH, OUT]));
    s.outside(tcp(C, S).syn().seq(1000).window(3000).payload([0; 100]));
    assert_eq!(s.inside(tcp(S, C).syn().seq(5000).ack(1001).window(8000)), "established");
    assert_eq!(s.outside(tcp(C, S).seq(1001).ack(5001).payload([0; 100])), "established");
    // Data in the SYN+ACK takes its part of the window.
    let mut s = Scenario::new(&one(&[SSH, OUT]));
    s.outside(tcp(C, S).syn().seq(1000).window(3000).payload([0; 100]));
    s.inside(tcp(S, C).syn().seq(5000).ack(1101).window(8000).payload([0; 500]));
    assert_eq!(s.inside(tcp(S, C).seq(8002).ack(1101)), "invalid");
    assert_eq!(s.inside(tcp(S, C).seq(8001).ack(1101)), "established");
}

#[test]
fn windows_4_4_what_a_syn_offered_stays_offered() {
    let mut s = fast_open(100);
    s.outside(tcp(C, S).seq(1101).ack(5001).window(1));
    assert_eq!(s.inside(tcp(S, C).seq(8001).ack(1101)), "established", "it was sent before that came");
    let mut s = Scenario::new(&one(&[SSH, OUT]));
    s.outside(tcp(C, S).syn().seq(u32::MAX - 1).window(0));
    s.inside(tcp(S, C).syn().seq(u32::MAX - 1).ack(u32::MAX));
    assert_eq!(s.inside(tcp(S, C).seq(1).ack(u32::MAX)), "invalid");
    assert_eq!(s.inside(tcp(S, C).seq(0).ack(u32::MAX)), "established", "0 counts as 1 here, too");
}

#[test]
fn windows_4_4_a_crossing_syn_offers_its_window_likewise() {
    let mut s = Scenario::new(&one(&[SSH, OUT]));
    s.outside(tcp(C, S).syn().seq(1000).window(3000));
    s.inside(tcp(S, C).syn().seq(5000).window(2000));
    s.outside(tcp(C, S).syn().seq(1000).ack(5001).window(100));
    let clients = |seq: u32| tcp(C, S).seq(seq).ack(5001).window(100);
    assert_eq!(s.outside(clients(1001 + 2001)), "invalid");
    assert_eq!(s.outside(clients(1001 + 2000)), "established");
    assert_eq!(s.inside(tcp(S, C).seq(5001 + 3001).ack(1001)), "invalid");
    assert_eq!(s.inside(tcp(S, C).seq(5001 + 3000).ack(1001)), "established");
}

#[test]
fn windows_4_4_a_window_of_0_counts_as_1() {
    let mut s = Scenario::new(&one(&[SSH, OUT]));
    s.outside(tcp(C, S).syn().seq(1000).window(0));
    s.inside(tcp(S, C).syn().seq(5000).ack(1001));
    s.outside(segment(1001, 5001).window(0));
    assert_eq!(s.inside(tcp(S, C).seq(5003).ack(1001)), "invalid");
    assert_eq!(s.inside(tcp(S, C).seq(5002).ack(1001)), "established", "a probe");
    let mut s = established();
    s.inside(tcp(S, C).seq(5001).ack(1001).payload([0; 4000]));
    s.inside(tcp(S, C).seq(9001).ack(1001).payload([0; 4000]));
    s.outside(segment(1001, 13_001).window(0));
    assert_eq!(s.inside(tcp(S, C).seq(13_003).ack(1001)), "invalid");
    assert_eq!(s.inside(tcp(S, C).seq(13_002).ack(1001)), "established");
}

#[test]
fn windows_4_4_scale_only_if_both_syns_offered_it() {
    for (ours, theirs, reach) in [(Some(3), Some(2), 8000 << 3), (Some(3), None, 8000), (None, Some(3), 8000)]
    {
        let mut s = Scenario::new(&one(&[SSH, OUT]));
        let offer = |syn: Packet<Tcp>, shift: Option<u8>| shift.map_or(syn.clone(), |n| syn.wscale(n));
        s.outside(offer(tcp(C, S).syn().seq(1000).window(8000), ours));
        s.inside(offer(tcp(S, C).syn().seq(5000).ack(1001).window(8000), theirs));
        s.outside(segment(1001, 5001));
        assert_eq!(s.inside(tcp(S, C).seq(5001 + reach + 1).ack(1001)), "invalid");
        assert_eq!(s.inside(tcp(S, C).seq(5001 + reach).ack(1001)), "established");
    }
}

#[test]
fn windows_4_4_scale_by_14_at_most() {
    let mut s = Scenario::new(&one(&[SSH, OUT]));
    s.outside(tcp(C, S).syn().seq(1000).window(8000).wscale(15));
    s.inside(tcp(S, C).syn().seq(5000).ack(1001).wscale(0));
    s.outside(segment(1001, 5001).window(3));
    assert_eq!(s.inside(tcp(S, C).seq(5001 + (3 << 14) + 1).ack(1001)), "invalid");
    assert_eq!(s.inside(tcp(S, C).seq(5001 + (3 << 14)).ack(1001)), "established");
}

#[test]
fn windows_4_4_what_is_outside_leaves_no_trace() {
    let mut s = established();
    s.wait(100.0);
    assert_eq!(s.outside(segment(900_000, 5001).fin()), "invalid");
    assert!(s.connections()[0].ends_with(" established 500.0"));
    assert_eq!(s.outside(segment(1001, 5002).window(60_000)), "invalid");
    assert_eq!(s.inside(tcp(S, C).seq(5001 + 8001).ack(1001)), "invalid", "no window of it counts");
}

#[test]
fn windows_4_4_of_a_first_fragment_only_seq_is_checked() {
    let first = |seq: u32, ack: u32| segment(seq, ack).payload([0; 64]).slice(0..40).fragment(0, true);
    assert_eq!(established().outside(first(1001, 424_242)), "established", "its ack is not");
    assert_eq!(
        established().outside(first(1001u32.wrapping_sub(60_000), 5001)),
        "established",
        "nor its end"
    );
    assert_eq!(established().outside(first(1001 + 8000, 5001)), "established");
    assert_eq!(established().outside(first(1001 + 8001, 5001)), "invalid");
}

#[test]
fn windows_4_4_a_first_fragment_is_taken_to_fill_the_window() {
    let mut s = established();
    s.outside(segment(1001, 5001).payload([0; 64]).slice(0..40).fragment(0, true));
    assert_eq!(s.inside(tcp(S, C).seq(5001).ack(1001 + 8001)), "invalid");
    assert_eq!(s.inside(tcp(S, C).seq(5001).ack(1001 + 8000)), "established");
}

#[test]
fn windows_4_4_without_their_check_everything_passes_but_a_rst_must_be_exact_to_end() {
    let mut s = Scenario::with("[conntrack]\ntcp_window_check = false\n", &one(&[SSH, OUT]));
    s.connect(C, S);
    assert_eq!(s.outside(tcp(C, S).seq(900_000_000).ack(7)), "established");
    assert_eq!(s.inside(tcp(S, C).rst().seq(123_456_789)), "established");
    assert_eq!(s.len(), 1);
    assert_eq!(s.inside(tcp(S, C).rst().seq(5001)), "established");
    assert_eq!(s.len(), 0);
}

#[test]
fn windows_4_4_without_their_check_an_older_acknowledgment_is_not_the_highest() {
    let mut s = Scenario::with("[conntrack]\ntcp_window_check = false\n", &one(&[SSH, OUT]));
    s.outside(tcp(C, S).syn().seq(3_221_224_979).window(500));
    s.inside(tcp(S, C).syn().seq(4_294_967_247).ack(3_221_224_980).window(64_240).wscale(7));
    s.outside(tcp(C, S).seq(3_221_224_980).ack(4_294_967_248).window(500).payload(vec![0; 100]));
    s.inside(tcp(S, C).seq(4_294_967_248).ack(3_221_225_080));
    assert_eq!(s.inside(tcp(S, C).seq(4_294_967_248).ack(3_213_002_361)), "established");
    assert_eq!(s.outside(tcp(C, S).rst().seq(3_213_002_361).ack(5)), "established");
    assert_eq!(s.len(), 1, "the RST was not exact");
}

#[test]
fn windows_4_4_numbers_wrap() {
    let mut s = Scenario::new(&one(&[SSH, OUT]));
    let (c, w) = (u32::MAX - 10, u32::MAX);
    s.outside(tcp(C, S).syn().seq(c).window(8000));
    s.inside(tcp(S, C).syn().seq(w).ack(c + 1).window(8000));
    assert_eq!(s.outside(tcp(C, S).seq(c + 1).ack(0).payload([0; 100])), "established");
    assert_eq!(s.inside(tcp(S, C).seq(0).ack(89).payload([0; 100])), "established");
    assert_eq!(s.outside(tcp(C, S).seq(89).ack(100).window(8000)), "established");
    assert_eq!(s.outside(tcp(C, S).seq(c + 1).ack(100)), "established", "a repeated one");
    assert_eq!(s.outside(tcp(C, S).seq(89).ack(101)), "invalid");
    assert_eq!(s.inside(tcp(S, C).seq(100 + 65_536).ack(89)), "invalid");
}
