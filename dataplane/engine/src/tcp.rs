//! TCP as a firewall sees it between the two ends: states (semantics 4.3) and sequence windows (4.4, after van Rooij,
//! "Real Stateful TCP Packet Filtering in IP Filter", 2001).

#[cfg(target_arch = "x86_64")]
mod vector;

use crate::Side;
use crate::conntrack::entry::{NotedSyn, Window};
use crate::conntrack::{Entry, NOTED, OPENER, RESPONDER, State, Who};
use crate::lane::{Fragment, Lane, NO_SCALE, flags};

/// What a segment does to its connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It passes, and the connection's time begins again.
    Pass,
    /// It passes; nothing has changed.
    Quiet,
    /// A reset that its receiver may refuse: it passes, and the connection has `tcp_reset` left at most.
    Doubted,
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
fn after(a: u32, b: u32) -> bool {
    (b.wrapping_sub(a) as i32) < 0
}

#[inline]
fn later(a: u32, b: u32) -> u32 {
    if after(a, b) { a } else { b }
}

#[inline]
fn has(lane: &Lane, flag: u8) -> bool {
    lane.flags & flag != 0
}

/// True for flags that no TCP sends (semantics 4.3).
#[inline]
pub fn impossible(f: u8) -> bool {
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
pub fn opens(f: u8) -> bool {
    f == flags::SYN
}

/// Makes `entry` the connection that this SYN opens.
pub fn open(entry: &mut Entry, lane: &Lane) {
    entry.set_state(State::SynSent);
    offer(entry, lane.seq, lane.seq_end, u32::from(lane.win), lane.wscale);
}

fn offer(entry: &mut Entry, seq: u32, end: u32, window: u32, scale: u8) {
    entry.syn_seq = seq;
    entry.set_scale(OPENER, scale);
    entry.windows[OPENER] = Window { end, maxend: end, maxwin: window, acked: 0 };
    entry.windows[RESPONDER] = Window::default();
}

/// The opener's SYN again, before any answer: the latest counts. Of the same number it is the same SYN, which is sent
/// again without the data that it had (RFC 7413 §4.1.3): what was sent may be acknowledged all the same.
fn offer_again(entry: &mut Entry, lane: &Lane) {
    let (is_same, before) = (lane.seq == entry.syn_seq, entry.windows[OPENER]);
    open(entry, lane);
    if is_same {
        let opener = &mut entry.windows[OPENER];
        opener.end = later(opener.end, before.end);
        opener.maxend = opener.end;
        opener.maxwin = opener.maxwin.max(before.maxwin);
    }
}

/// Makes `entry` an established connection picked up in mid-stream by a segment of `from`.
pub fn pick_up(entry: &mut Entry, lane: &Lane, from: Who) {
    entry.set_state(State::Established);
    entry.set_unchecked(true);
    entry.windows[from] = Window { end: lane.seq_end, maxend: lane.seq_end, maxwin: 0, acked: lane.ack };
    entry.windows[1 - from] = Window { end: lane.ack, maxend: lane.ack, maxwin: 0, acked: lane.seq };
}

/// Takes a segment of `from` to its connection. With `unchecked`, windows are kept but hold nobody back.
///
/// `noted` is the SYN that passed within the connection last, if any did.
#[inline]
pub fn step(entry: &mut Entry, noted: &mut NotedSyn, lane: &Lane, from: Who, unchecked: bool) -> Outcome {
    let unchecked = unchecked || entry.is_unchecked();
    match entry.state() {
        State::Established if is_data(lane) => match data(entry, lane, from, unchecked) {
            true => Outcome::Pass,
            false => Outcome::Invalid,
        },
        State::SynSent => syn_sent(entry, lane, from),
        state => rare(entry, noted, lane, from, unchecked, state),
    }
}

/// True for a whole segment with nothing but an ACK.
#[inline]
pub fn is_data(lane: &Lane) -> bool {
    lane.flags == flags::ACK && lane.fragment == Fragment::Whole
}

/// [`data`] with windows checked, from whichever side it came.
///
/// # Safety
/// With `V3` the processor has x86-64-v3.
#[inline(always)]
pub unsafe fn plain_data<const V3: bool>(entry: &mut Entry, lane: &Lane) -> bool {
    let from = usize::from((lane.side == Side::Outside) != entry.is_inbound());
    #[cfg(target_arch = "x86_64")]
    if V3 {
        // SAFETY: as the caller says.
        return unsafe { vector::data(entry, lane, from) };
    }
    data(entry, lane, from, false)
}

/// Such a segment on an established connection: what `segment` does, with the four comparisons as one. False if it lies outside
/// the window, and nothing has changed.
#[inline(always)]
pub fn data(entry: &mut Entry, lane: &Lane, from: Who, unchecked: bool) -> bool {
    let (mut sender, mut receiver) = (entry.windows[from], entry.windows[1 - from]);
    // Each difference is negative, modulo 2³², exactly if its bound is overstepped.
    let within = sender.maxend.wrapping_sub(lane.seq)
        | lane.seq_end.wrapping_sub(sender.end.wrapping_sub(receiver.maxwin))
        | receiver.end.wrapping_sub(lane.ack)
        | lane.ack.wrapping_sub(receiver.end.wrapping_sub(sender.maxwin.max(ACK_ROOM)));
    if (within as i32) < 0 && !(unchecked || entry.is_unchecked()) {
        return false;
    }
    let window = u32::from(lane.win) << entry.scale(from);
    sender.end = later(lane.seq_end, sender.end);
    sender.maxwin = sender.maxwin.max(window);
    sender.acked = later(lane.ack, sender.acked);
    receiver.maxend = later(lane.ack.wrapping_add(window.max(1)), receiver.maxend);
    entry.windows[from] = sender;
    entry.windows[1 - from].maxend = receiver.maxend;
    true
}

/// Everything but plain data on an established connection, and the answer to the first SYN.
fn rare(
    entry: &mut Entry,
    noted: &mut NotedSyn,
    lane: &Lane,
    from: Who,
    unchecked: bool,
    state: State,
) -> Outcome {
    let answers = entry.has_noted_syn() && noted_by(entry) != from && noted.is_acknowledged(lane);
    if has(lane, flags::RST) {
        let refuses = answers || state == State::SynReceived && refuses_syn_again(entry, lane, from);
        return if refuses { Outcome::End } else { reset(entry, lane, from, unchecked) };
    }
    let is_open = matches!(state, State::Established | State::FinWait);
    if opens(lane.flags) {
        if state == State::Closing {
            return Outcome::Restart;
        }
        // Before the connection is established, only what can be no repetition of the SYN that opened it.
        if is_open || from == OPENER && lane.seq != entry.syn_seq {
            note_syn(entry, noted, lane, from);
            return Outcome::Quiet;
        }
    }
    if has(lane, flags::SYN) {
        if answers {
            return Outcome::Reopen;
        }
        if is_open {
            return quietly(unchecked || is_inside(entry, lane, from));
        }
    }
    let outcome = segment(entry, lane, from, unchecked);
    if outcome == Outcome::Pass {
        advance(entry, lane, from, state);
    }
    outcome
}

/// The opener's SYN came again, its first answer being lost, and whom that answer came from does not listen any more.
fn refuses_syn_again(entry: &Entry, lane: &Lane, from: Who) -> bool {
    from == RESPONDER && entry.is_syn_again() && acknowledges_syn(entry, lane)
}

/// True if it acknowledges the opener's SYN, with or without what that bore.
fn acknowledges_syn(entry: &Entry, lane: &Lane) -> bool {
    has(lane, flags::ACK) && after(lane.ack, entry.syn_seq) && !after(lane.ack, entry.windows[OPENER].end)
}

fn quietly(is_inside: bool) -> Outcome {
    if is_inside { Outcome::Quiet } else { Outcome::Invalid }
}

/// The state after a segment inside the window.
fn advance(entry: &mut Entry, lane: &Lane, from: Who, state: State) {
    let (fin, syn) = (has(lane, flags::FIN), has(lane, flags::SYN));
    match state {
        State::SynReceived | State::Established if fin => {
            entry.set_fin_by_responder(from == RESPONDER);
            entry.set_state(State::FinWait);
        }
        // The opener's ACK; in a crossed open its SYN+ACK is one.
        State::SynReceived if from == OPENER && has(lane, flags::ACK) && (!syn || entry.is_crossed()) => {
            entry.set_state(State::Established);
        }
        State::SynReceived if from == OPENER && opens(lane.flags) => entry.set_syn_again(true),
        State::FinWait if fin && (from == RESPONDER) != entry.fin_by_responder() => {
            entry.set_state(State::Closing);
        }
        _ => {}
    }
}

fn syn_sent(entry: &mut Entry, lane: &Lane, from: Who) -> Outcome {
    use flags::{ACK, FIN, RST, SYN};
    let acknowledges = acknowledges_syn(entry, lane);
    match (from, lane.flags & (SYN | ACK | RST | FIN)) {
        (OPENER, f) if f & RST != 0 => Outcome::End,
        (OPENER, SYN) => {
            offer_again(entry, lane);
            Outcome::Pass
        }
        (RESPONDER, f) if f & RST != 0 && acknowledges => Outcome::End,
        (RESPONDER, f) if f == SYN | ACK && acknowledges || f == SYN => {
            answer(entry, lane);
            Outcome::Pass
        }
        (RESPONDER, f) if f & (ACK | SYN | RST) == ACK => Outcome::Quiet,
        _ => Outcome::Invalid,
    }
}

/// The responder's first SYN or SYN+ACK.
fn answer(entry: &mut Entry, lane: &Lane) {
    let crossed = !has(lane, flags::ACK);
    entry.set_crossed(crossed);
    entry.set_state(State::SynReceived);
    // Scaling holds only if both offered it (RFC 7323 §2.2).
    let offered = [entry.scale(OPENER), lane.wscale];
    let both = !offered.contains(&NO_SCALE);
    for (who, scale) in offered.into_iter().enumerate() {
        entry.set_scale(who, if both { scale } else { 0 });
    }
    let (opener_first, responder_first) = (entry.syn_seq.wrapping_add(1), lane.seq.wrapping_add(1));
    let window = u32::from(lane.win);
    let [opener, responder] = &mut entry.windows;
    // A crossing SYN acknowledges nothing. It stands for an acknowledgment of the opener's SYN all the same, since its
    // SYN+ACK that follows may come when the connection is established, where it changes nothing.
    let acked = if crossed { opener_first } else { lane.ack };
    // The opener's first acknowledgment may be on its way yet when the answer to its SYN's data comes (RFC 7413).
    let offered = responder_first.wrapping_add(opener.maxwin.max(1));
    *responder = Window { end: lane.seq_end, maxend: later(lane.seq_end, offered), maxwin: window, acked };
    opener.maxend = later(opener.end, acked.wrapping_add(window.max(1)));
    opener.acked = responder_first;
}

/// Makes `entry`, whose opener's SYN has been judged anew, the connection that this SYN+ACK answers. `noted` is that
/// SYN, and `scale` what it offered.
pub fn reopen(entry: &mut Entry, noted: &NotedSyn, scale: u8, lane: &Lane) {
    offer(entry, noted.seq, noted.end(), u32::from(noted.window), scale);
    answer(entry, lane);
}

/// Who sent the SYN last noted.
fn noted_by(entry: &Entry) -> Who {
    if entry.noted_by_responder() { RESPONDER } else { OPENER }
}

fn note_syn(entry: &mut Entry, noted: &mut NotedSyn, lane: &Lane, from: Who) {
    entry.set_has_noted_syn(true);
    entry.set_noted_by_responder(from == RESPONDER);
    entry.set_scale(NOTED, lane.wscale);
    *noted = NotedSyn::of(lane);
}

/// RFC 5961 §3 from between: a RST at its sender's next number ends the connection. One at what its receiver acknowledged
/// does if nothing is under way to that (RFC 9293 §3.10.7.4), which nobody here can know. One elsewhere in the window is
/// left to the receiver.
fn reset(entry: &Entry, lane: &Lane, from: Who, unchecked: bool) -> Outcome {
    let (sender, receiver) = (&entry.windows[from], &entry.windows[1 - from]);
    if lane.seq == sender.end {
        return Outcome::End;
    }
    if lane.seq == receiver.acked && after(sender.end, receiver.acked) {
        return Outcome::Doubted;
    }
    quietly(unchecked || !after(receiver.acked, lane.seq) && !after(lane.seq, sender.maxend))
}

/// The last sequence number of a segment, as far as can be known: a first fragment may reach to the window's end.
#[inline]
fn reach(lane: &Lane, sender: &Window) -> u32 {
    if lane.fragment == Fragment::First { later(lane.seq_end, sender.maxend) } else { lane.seq_end }
}

#[inline]
fn ack_fits(lane: &Lane, sender: &Window, receiver: &Window) -> bool {
    !after(lane.ack, receiver.end) && !after(receiver.end.wrapping_sub(sender.maxwin.max(ACK_ROOM)), lane.ack)
}

#[inline]
fn is_inside(entry: &Entry, lane: &Lane, from: Who) -> bool {
    let (sender, receiver) = (&entry.windows[from], &entry.windows[1 - from]);
    !after(lane.seq, sender.maxend)
        && !after(sender.end.wrapping_sub(receiver.maxwin), reach(lane, sender))
        && (lane.fragment == Fragment::First || !has(lane, flags::ACK) || ack_fits(lane, sender, receiver))
}

/// A segment that is neither RST nor a SYN of its own meaning: checked, and the windows moved.
#[inline]
fn segment(entry: &mut Entry, lane: &Lane, from: Who, unchecked: bool) -> Outcome {
    if !unchecked && !is_inside(entry, lane, from) {
        return Outcome::Invalid;
    }
    let scale = if has(lane, flags::SYN) { 0 } else { entry.scale(from) & 0xF };
    let window = u32::from(lane.win) << scale;
    let mut sender = entry.windows[from];
    let mut receiver = entry.windows[1 - from];
    // A first fragment's acknowledgment was not checked: it moves nothing unless it fits.
    let counts = has(lane, flags::ACK)
        && (lane.fragment != Fragment::First || unchecked || ack_fits(lane, &sender, &receiver));
    sender.end = later(reach(lane, &sender), sender.end);
    sender.maxwin = sender.maxwin.max(window);
    if counts {
        receiver.maxend = later(lane.ack.wrapping_add(window.max(1)), receiver.maxend);
        sender.acked = later(lane.ack, sender.acked);
    }
    entry.windows[from] = sender;
    entry.windows[1 - from] = receiver;
    Outcome::Pass
}

/// True if a segment that begins at `seq` is one that `sender` may have sent: for packets quoted in ICMP errors (semantics 4.5).
pub fn may_have_sent(entry: &Entry, noted: &NotedSyn, seq: u32, sender: Who) -> bool {
    let (window, receiver) = (&entry.windows[sender], &entry.windows[1 - sender]);
    if entry.state() == State::SynSent {
        // The opener has sent its latest SYN, the responder nothing of this connection.
        return sender == OPENER && !after(entry.syn_seq, seq) && !after(seq, window.maxend);
    }
    let is_noted_syn = entry.has_noted_syn() && noted_by(entry) == sender && seq == noted.seq;
    is_noted_syn || !after(seq, window.maxend) && !after(window.end.wrapping_sub(receiver.maxwin), seq)
}
