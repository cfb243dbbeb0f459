//! TCP as a firewall sees it between the two ends: states (semantics 4.3) and sequence windows
//! (4.4, after van Rooij, "Real Stateful TCP Packet Filtering in IP Filter", 2001).

#[cfg(target_arch = "x86_64")]
mod vector;

use crate::Side;
use crate::conntrack::entry::{LastSyn, Window};
use crate::conntrack::{Entry, LAST_SYN, OPENER, Peer, RESPONDER, State};
use crate::cpu::Isa;
use crate::packet::{Fragment, NO_SCALE, PacketMeta, flags};

/// What a segment does to its connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It passes, and the connection's time begins again.
    Pass,
    /// It passes; nothing has changed.
    PassUnchanged,
    /// A reset that its receiver may refuse: it passes, and the connection has `tcp_reset` left at
    /// most.
    PassDoubtfulReset,
    /// It is no part of the connection; nothing has changed.
    Invalid,
    /// It passes, and the connection is over.
    End,
    /// A SYN after both FINs: to be judged as an opening packet.
    Restart,
    /// A SYN+ACK that answers the SYN last noted: that SYN is to be judged.
    Reopen,
}

/// Smallest backward room for acknowledgments (as Linux's `MAXACKWINCONST`).
const ACK_ROOM: u32 = 66_000;

#[inline]
fn seq_after(a: u32, b: u32) -> bool {
    (b.wrapping_sub(a) as i32) < 0
}

#[inline]
fn seq_max(a: u32, b: u32) -> u32 {
    if seq_after(a, b) { a } else { b }
}

#[inline]
fn has(pkt: &PacketMeta, flag: u8) -> bool {
    pkt.flags & flag != 0
}

/// True for flags that no TCP sends (semantics 4.3).
#[inline]
pub fn is_impossible(f: u8) -> bool {
    IMPOSSIBLE >> (f & 0x1F) & 1 != 0
}

/// A bit for each value of the flags.
const IMPOSSIBLE: u32 = {
    use flags::{ACK, FIN, RST, SYN};
    let (mut set, mut f) = (0u32, 0u8);
    while f < 32 {
        let is = f & (SYN | ACK | RST) == 0
            || f & (SYN | FIN) == SYN | FIN
            || f & (SYN | RST) == SYN | RST
            || f & (FIN | RST) == FIN | RST
            || f & (FIN | ACK) == FIN;
        if is {
            set |= 1 << f;
        }
        f += 1;
    }
    set
};

/// True for a SYN without ACK, RST and FIN.
#[inline]
pub fn is_opening_syn(f: u8) -> bool {
    f == flags::SYN
}

/// Makes `entry` the connection that this SYN opens.
pub fn open(entry: &mut Entry, pkt: &PacketMeta) {
    entry.set_state(State::SynSent);
    offer(entry, pkt.seq, pkt.seq_end, u32::from(pkt.win), pkt.wscale);
}

fn offer(entry: &mut Entry, seq: u32, end: u32, window: u32, scale: u8) {
    entry.syn_seq = seq;
    entry.set_scale(OPENER, scale);
    entry.windows[OPENER] = Window { end, maxend: end, maxwin: window, acked: 0 };
    entry.windows[RESPONDER] = Window::default();
}

/// The opener's SYN again, before any answer: the latest counts. Of the same number it is the same
/// SYN, which is sent again without the data that it had (RFC 7413 §4.1.3): what was sent may be
/// acknowledged all the same.
fn offer_again(entry: &mut Entry, pkt: &PacketMeta) {
    let (is_same, before) = (pkt.seq == entry.syn_seq, entry.windows[OPENER]);
    open(entry, pkt);
    if is_same {
        let opener = &mut entry.windows[OPENER];
        opener.end = seq_max(opener.end, before.end);
        opener.maxend = opener.end;
        opener.maxwin = opener.maxwin.max(before.maxwin);
    }
}

/// Makes `entry` an established connection picked up in mid-stream by a segment of `from`.
pub fn pick_up(entry: &mut Entry, pkt: &PacketMeta, from: Peer) {
    entry.set_state(State::Established);
    entry.set_unchecked(true);
    entry.windows[from] = Window { end: pkt.seq_end, maxend: pkt.seq_end, maxwin: 0, acked: pkt.ack };
    entry.windows[1 - from] = Window { end: pkt.ack, maxend: pkt.ack, maxwin: 0, acked: pkt.seq };
}

/// Takes a segment of `from` to its connection. With `unchecked`, windows are kept but hold nobody
/// back.
///
/// `noted` is the SYN that passed within the connection last, if any did.
#[inline]
pub fn step(
    entry: &mut Entry,
    noted: &mut LastSyn,
    pkt: &PacketMeta,
    from: Peer,
    unchecked: bool,
) -> Outcome {
    let unchecked = unchecked || entry.is_unchecked();
    match entry.state() {
        State::Established if is_ack_only(pkt) => match data(entry, pkt, from, unchecked) {
            true => Outcome::Pass,
            false => Outcome::Invalid,
        },
        State::SynSent => syn_sent(entry, pkt, from),
        state => step_slow(entry, noted, pkt, from, unchecked, state),
    }
}

/// True for a whole segment with nothing but an ACK.
#[inline]
pub fn is_ack_only(pkt: &PacketMeta) -> bool {
    pkt.flags == flags::ACK && pkt.fragment == Fragment::Whole
}

/// [`data`] with windows checked, from whichever side it came.
#[inline(always)]
pub fn data_checked(isa: impl Isa, entry: &mut Entry, pkt: &PacketMeta) -> bool {
    let from = usize::from((pkt.side == Side::Outside) != entry.is_inbound());
    #[cfg(target_arch = "x86_64")]
    if let Some(v3) = isa.v3() {
        return vector::data(v3, entry, pkt, from);
    }
    data(entry, pkt, from, false)
}

/// Such a segment on an established connection: what `segment` does, with the four comparisons as
/// one. False if it lies outside the window, and nothing has changed.
#[inline(always)]
pub fn data(entry: &mut Entry, pkt: &PacketMeta, from: Peer, unchecked: bool) -> bool {
    let (mut sender, mut receiver) = (entry.windows[from], entry.windows[1 - from]);
    // Each difference is negative, modulo 2³², exactly if its bound is overstepped.
    let within = sender.maxend.wrapping_sub(pkt.seq)
        | pkt.seq_end.wrapping_sub(sender.end.wrapping_sub(receiver.maxwin))
        | receiver.end.wrapping_sub(pkt.ack)
        | pkt.ack.wrapping_sub(receiver.end.wrapping_sub(sender.maxwin.max(ACK_ROOM)));
    if (within as i32) < 0 && !(unchecked || entry.is_unchecked()) {
        return false;
    }
    let window = u32::from(pkt.win) << entry.scale(from);
    sender.end = seq_max(pkt.seq_end, sender.end);
    sender.maxwin = sender.maxwin.max(window);
    sender.acked = seq_max(pkt.ack, sender.acked);
    receiver.maxend = seq_max(pkt.ack.wrapping_add(window.max(1)), receiver.maxend);
    entry.windows[from] = sender;
    entry.windows[1 - from].maxend = receiver.maxend;
    true
}

/// Everything but plain data on an established connection, and the answer to the first SYN.
fn step_slow(
    entry: &mut Entry,
    noted: &mut LastSyn,
    pkt: &PacketMeta,
    from: Peer,
    unchecked: bool,
    state: State,
) -> Outcome {
    let answers = entry.has_noted_syn() && last_syn_by(entry) != from && noted.is_acknowledged(pkt);
    if has(pkt, flags::RST) {
        let refuses = answers || state == State::SynReceived && refuses_syn_again(entry, pkt, from);
        return if refuses { Outcome::End } else { reset(entry, pkt, from, unchecked) };
    }
    let is_open = matches!(state, State::Established | State::FinWait);
    if is_opening_syn(pkt.flags) {
        if state == State::Closing {
            return Outcome::Restart;
        }
        // Before the connection is established, only what can be no repetition of the SYN that
        // opened it.
        if is_open || from == OPENER && pkt.seq != entry.syn_seq {
            remember_syn(entry, noted, pkt, from);
            return Outcome::PassUnchanged;
        }
    }
    if has(pkt, flags::SYN) {
        if answers {
            return Outcome::Reopen;
        }
        if is_open {
            return unchanged_if(unchecked || is_inside(entry, pkt, from));
        }
    }
    let outcome = segment(entry, pkt, from, unchecked);
    if outcome == Outcome::Pass {
        advance(entry, pkt, from, state);
    }
    outcome
}

/// The opener's SYN came again, its first answer being lost, and whom that answer came from does
/// not listen any more.
fn refuses_syn_again(entry: &Entry, pkt: &PacketMeta, from: Peer) -> bool {
    from == RESPONDER && entry.is_syn_again() && acknowledges_syn(entry, pkt)
}

/// True if it acknowledges the opener's SYN, with or without what that bore.
fn acknowledges_syn(entry: &Entry, pkt: &PacketMeta) -> bool {
    has(pkt, flags::ACK)
        && seq_after(pkt.ack, entry.syn_seq)
        && !seq_after(pkt.ack, entry.windows[OPENER].end)
}

fn unchanged_if(is_inside: bool) -> Outcome {
    if is_inside { Outcome::PassUnchanged } else { Outcome::Invalid }
}

/// The state after a segment inside the window.
fn advance(entry: &mut Entry, pkt: &PacketMeta, from: Peer, state: State) {
    let (fin, syn) = (has(pkt, flags::FIN), has(pkt, flags::SYN));
    match state {
        State::SynReceived | State::Established if fin => {
            entry.set_fin_by_responder(from == RESPONDER);
            entry.set_state(State::FinWait);
        }
        // The opener's ACK; in a crossed open its SYN+ACK is one.
        State::SynReceived if from == OPENER && has(pkt, flags::ACK) && (!syn || entry.is_crossed()) => {
            entry.set_state(State::Established);
        }
        State::SynReceived if from == OPENER && is_opening_syn(pkt.flags) => entry.set_syn_again(true),
        State::FinWait if fin && (from == RESPONDER) != entry.fin_by_responder() => {
            entry.set_state(State::Closing);
        }
        _ => {}
    }
}

fn syn_sent(entry: &mut Entry, pkt: &PacketMeta, from: Peer) -> Outcome {
    use flags::{ACK, FIN, RST, SYN};
    let acknowledges = acknowledges_syn(entry, pkt);
    match (from, pkt.flags & (SYN | ACK | RST | FIN)) {
        (OPENER, f) if f & RST != 0 => Outcome::End,
        (OPENER, SYN) => {
            offer_again(entry, pkt);
            Outcome::Pass
        }
        (RESPONDER, f) if f & RST != 0 && acknowledges => Outcome::End,
        (RESPONDER, f) if f == SYN | ACK && acknowledges || f == SYN => {
            answer(entry, pkt);
            Outcome::Pass
        }
        (RESPONDER, f) if f & (ACK | SYN | RST) == ACK => Outcome::PassUnchanged,
        _ => Outcome::Invalid,
    }
}

/// The responder's first SYN or SYN+ACK.
fn answer(entry: &mut Entry, pkt: &PacketMeta) {
    let crossed = !has(pkt, flags::ACK);
    entry.set_crossed(crossed);
    entry.set_state(State::SynReceived);
    // Scaling holds only if both offered it (RFC 7323 §2.2).
    let offered = [entry.scale(OPENER), pkt.wscale];
    let both = !offered.contains(&NO_SCALE);
    for (who, scale) in offered.into_iter().enumerate() {
        entry.set_scale(who, if both { scale } else { 0 });
    }
    let (opener_first, responder_first) = (entry.syn_seq.wrapping_add(1), pkt.seq.wrapping_add(1));
    let window = u32::from(pkt.win);
    let [opener, responder] = &mut entry.windows;
    // A crossing SYN acknowledges nothing. It stands for an acknowledgment of the opener's SYN all
    // the same, since its SYN+ACK that follows may come when the connection is established, where
    // it changes nothing.
    let acked = if crossed { opener_first } else { pkt.ack };
    // The opener's first acknowledgment may be on its way yet when the answer to its SYN's data
    // comes (RFC 7413).
    let offered = responder_first.wrapping_add(opener.maxwin.max(1));
    *responder = Window { end: pkt.seq_end, maxend: seq_max(pkt.seq_end, offered), maxwin: window, acked };
    opener.maxend = seq_max(opener.end, acked.wrapping_add(window.max(1)));
    opener.acked = responder_first;
}

/// Makes `entry`, whose opener's SYN has been judged anew, the connection that this SYN+ACK
/// answers. `noted` is that SYN, and `scale` what it offered.
pub fn reopen(entry: &mut Entry, noted: &LastSyn, scale: u8, pkt: &PacketMeta) {
    offer(entry, noted.seq, noted.end(), u32::from(noted.window), scale);
    answer(entry, pkt);
}

/// Who sent the SYN last noted.
fn last_syn_by(entry: &Entry) -> Peer {
    if entry.noted_by_responder() { RESPONDER } else { OPENER }
}

fn remember_syn(entry: &mut Entry, noted: &mut LastSyn, pkt: &PacketMeta, from: Peer) {
    entry.set_has_noted_syn(true);
    entry.set_noted_by_responder(from == RESPONDER);
    entry.set_scale(LAST_SYN, pkt.wscale);
    *noted = LastSyn::of(pkt);
}

/// RFC 5961 §3 from between: a RST at its sender's next number ends the connection. One at what its
/// receiver acknowledged does if nothing is under way to that (RFC 9293 §3.10.7.4), which nobody
/// here can know. One elsewhere in the window is left to the receiver.
fn reset(entry: &Entry, pkt: &PacketMeta, from: Peer, unchecked: bool) -> Outcome {
    let (sender, receiver) = (&entry.windows[from], &entry.windows[1 - from]);
    if pkt.seq == sender.end {
        return Outcome::End;
    }
    if pkt.seq == receiver.acked && seq_after(sender.end, receiver.acked) {
        return Outcome::PassDoubtfulReset;
    }
    unchanged_if(unchecked || !seq_after(receiver.acked, pkt.seq) && !seq_after(pkt.seq, sender.maxend))
}

/// The last sequence number of a segment, as far as can be known: a first fragment may reach to the
/// window's end.
#[inline]
fn segment_end(pkt: &PacketMeta, sender: &Window) -> u32 {
    if pkt.fragment == Fragment::First { seq_max(pkt.seq_end, sender.maxend) } else { pkt.seq_end }
}

#[inline]
fn ack_fits(pkt: &PacketMeta, sender: &Window, receiver: &Window) -> bool {
    !seq_after(pkt.ack, receiver.end)
        && !seq_after(receiver.end.wrapping_sub(sender.maxwin.max(ACK_ROOM)), pkt.ack)
}

#[inline]
fn is_inside(entry: &Entry, pkt: &PacketMeta, from: Peer) -> bool {
    let (sender, receiver) = (&entry.windows[from], &entry.windows[1 - from]);
    !seq_after(pkt.seq, sender.maxend)
        && !seq_after(sender.end.wrapping_sub(receiver.maxwin), segment_end(pkt, sender))
        && (pkt.fragment == Fragment::First || !has(pkt, flags::ACK) || ack_fits(pkt, sender, receiver))
}

/// A segment that is neither RST nor a SYN of its own meaning: checked, and the windows moved.
#[inline]
fn segment(entry: &mut Entry, pkt: &PacketMeta, from: Peer, unchecked: bool) -> Outcome {
    if !unchecked && !is_inside(entry, pkt, from) {
        return Outcome::Invalid;
    }
    let scale = if has(pkt, flags::SYN) { 0 } else { entry.scale(from) & 0xF };
    let window = u32::from(pkt.win) << scale;
    let mut sender = entry.windows[from];
    let mut receiver = entry.windows[1 - from];
    // A first fragment's acknowledgment was not checked: it moves nothing unless it fits.
    let counts = has(pkt, flags::ACK)
        && (pkt.fragment != Fragment::First || unchecked || ack_fits(pkt, &sender, &receiver));
    sender.end = seq_max(segment_end(pkt, &sender), sender.end);
    sender.maxwin = sender.maxwin.max(window);
    if counts {
        receiver.maxend = seq_max(pkt.ack.wrapping_add(window.max(1)), receiver.maxend);
        sender.acked = seq_max(pkt.ack, sender.acked);
    }
    entry.windows[from] = sender;
    entry.windows[1 - from] = receiver;
    Outcome::Pass
}

/// True if a segment that begins at `seq` is one that `sender` may have sent: for packets quoted in
/// ICMP errors (semantics 4.5).
pub fn may_have_sent(entry: &Entry, noted: &LastSyn, seq: u32, sender: Peer) -> bool {
    let (window, receiver) = (&entry.windows[sender], &entry.windows[1 - sender]);
    if entry.state() == State::SynSent {
        // The opener has sent its latest SYN, the responder nothing of this connection.
        return sender == OPENER && !seq_after(entry.syn_seq, seq) && !seq_after(seq, window.maxend);
    }
    let is_noted_syn = entry.has_noted_syn() && last_syn_by(entry) == sender && seq == noted.seq;
    is_noted_syn
        || !seq_after(seq, window.maxend) && !seq_after(window.end.wrapping_sub(receiver.maxwin), seq)
}
