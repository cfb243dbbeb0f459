//! Conversations made up at random. Each packet is made with an intention, and an intention may end in certain differences; any
//! other difference, of verdict or state, is one that nobody has thought of.

use testkit::rng::Rng;

use super::bench::{Bench, Outcome, tell};
use super::kinds;

/// Packets of a conversation behind its handshake, at most.
const LENGTH: usize = 16;

/// What one end has sent and granted, in the words of semantics 4.4.
#[derive(Clone, Default)]
struct End {
    /// Behind the last that it sent.
    next: u32,
    /// The highest that it may send.
    limit: u32,
    /// The highest that it acknowledged.
    acked: u32,
    /// The largest window that it offered.
    largest: u32,
    scale: u32,
    /// Bytes of its last segment.
    last: u32,
    has_closed: bool,
    /// A reset of its passed that did not end the connection.
    has_reset_inside: bool,
}

/// A packet to be sent.
struct Step {
    text: String,
    /// Which of the two sends it.
    who: usize,
    /// The difference that it may end in.
    may: Option<&'static str>,
    /// What the sender has sent and acknowledged, if the packet passes as an ordinary segment.
    moves: Option<(u32, u32, u32)>,
    then: Then,
}

/// A conversation under way; end 0 is the opener.
struct Talk {
    rng: Rng,
    names: [char; 2],
    ends: [End; 2],
    has_scale: bool,
    then: Then,
    /// The last packet that passed was a SYN within the connection.
    after_syn: bool,
}

/// Has a conversation: the difference that ended it, if one did, and the number of packets; or what nobody has thought of.
pub fn converse(bench: &mut Bench, seed: u64) -> Result<(Option<&'static str>, usize), String> {
    let port = bench.fresh_port();
    let mut told = format!("seed {seed:#x}:");
    let mut talk = Talk::new(seed);
    let handshake = talk.handshake();
    let mut count = 0;
    let mut play = |step: &Step| -> (Outcome, bool) {
        count += 1;
        let outcome = bench.send(&step.text, port);
        let agrees = outcome.agrees();
        told += &format!("\n{} {:60} {}", if agrees { ' ' } else { '!' }, step.text, tell(&outcome));
        (outcome, agrees)
    };
    for step in &handshake {
        if !play(step).1 {
            return Err(told);
        }
    }
    for _ in 0..talk.rng.below(LENGTH) + 1 {
        let step = talk.step();
        let (outcome, agrees) = play(&step);
        if agrees {
            talk.note(&step, outcome.passed[0]);
            if talk.then == Then::Stop {
                break;
            }
            continue;
        }
        // From here on the two would compare different connections.
        return step.may.map(|kind| (Some(kinds::find(kind)), count)).ok_or(told);
    }
    Ok((None, count))
}

fn after(a: u32, b: u32) -> bool {
    (b.wrapping_sub(a) as i32) < 0
}

fn later(a: u32, b: u32) -> u32 {
    if after(a, b) { a } else { b }
}

/// What becomes of the conversation when the packet passes.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
enum Then {
    #[default]
    GoOn,
    /// The sender has closed its side.
    Closed,
    /// The connection was reset.
    Reset,
    /// A connection of other numbers may have begun.
    Stop,
}

impl Talk {
    fn new(seed: u64) -> Talk {
        let mut rng = Rng::new(seed);
        let names = if rng.one_in(3) { ['S', 'C'] } else { ['C', 'S'] };
        let has_scale = !rng.one_in(3);
        let ends = [(); 2].map(|()| End {
            // Every third begins where numbers wrap.
            next: if rng.one_in(3) { 0u32.wrapping_sub(rng.below(3000) as u32) } else { rng.u32() },
            scale: if has_scale { rng.below(8) as u32 } else { 0 },
            ..End::default()
        });
        Talk { rng, names, ends, has_scale, then: Then::GoOn, after_syn: false }
    }

    fn handshake(&mut self) -> [Step; 3] {
        let syn = |flags: &str, who: usize, talk: &mut Talk| {
            let window = 300 + talk.rng.below(8000) as u32;
            let mut step = talk.segment(who, flags, 0);
            let ack = if flags == "S" { 0 } else { talk.ends[1 - who].next };
            let scale = if talk.has_scale { format!(" ws={}", talk.ends[who].scale) } else { String::new() };
            let seq = talk.ends[who].next;
            step.text = format!("{} {flags} seq={seq} ack={ack} win={window}{scale}", talk.names[who]);
            let end = &mut talk.ends[who];
            (end.next, end.acked, end.largest) = (seq.wrapping_add(1), ack, window);
            end.limit = end.next;
            talk.ends[1 - who].limit = later(talk.ends[1 - who].limit, ack.wrapping_add(window));
            step
        };
        let opening = syn("S", 0, self);
        // The SYN acknowledges nothing, and grants nothing.
        self.ends[1].limit = 0;
        let answer = syn("SA", 1, self);
        let last = self.segment(0, "A", 0);
        self.ends[0].acked = self.ends[1].next;
        self.note(&last, true);
        [opening, answer, last]
    }

    /// Whether some side has closed.
    fn is_closing(&self) -> bool {
        self.ends.iter().any(|end| end.has_closed)
    }

    /// A segment of `who`'s at its next number, acknowledging all that the other side sent.
    fn segment(&mut self, who: usize, flags: &str, len: u32) -> Step {
        let (seq, ack) = (self.ends[who].next, self.ends[1 - who].next);
        self.segment_at(who, flags, (seq, ack), len)
    }

    fn segment_at(&mut self, who: usize, flags: &str, (seq, ack): (u32, u32), len: u32) -> Step {
        let window = if self.rng.one_in(12) { 0 } else { self.rng.below(6000) as u32 };
        let text = format!("{} {flags} seq={seq} ack={ack} win={window} len={len}", self.names[who]);
        let end = seq.wrapping_add(len).wrapping_add(u32::from(flags.contains('F')));
        let beyond = after(seq, self.ends[who].limit);
        Step {
            text,
            who,
            may: beyond.then_some("one-more-window"),
            moves: Some((end, ack, window << self.ends[who].scale)),
            then: Then::GoOn,
        }
    }

    /// Room below the limit.
    fn room(&self, who: usize) -> u32 {
        let end = &self.ends[who];
        if after(end.limit, end.next) { end.limit.wrapping_sub(end.next) } else { 0 }
    }

    fn step(&mut self) -> Step {
        let who = self.rng.below(2);
        if self.then == Then::Reset {
            return Step { may: Some("after-reset"), ..self.segment(who, "A", 1) };
        }
        match self.rng.below(40) {
            0..=14 => self.ordinary(who),
            15..=24 => self.at_edges(who),
            25..=31 => self.reset(who),
            32..=35 => self.syn(who),
            _ => self.error(who),
        }
    }

    /// Data, acknowledgments, retransmits, FINs.
    fn ordinary(&mut self, who: usize) -> Step {
        let len = self.room(who).min(1 + self.rng.below(700) as u32);
        match self.rng.below(8) {
            0..=3 => self.segment(who, "PA", len),
            4 => self.segment(who, "A", 0),
            5 => {
                let last = self.ends[who].last.min(self.ends[1 - who].largest).min(700);
                let at = (self.ends[who].next.wrapping_sub(last), self.ends[1 - who].next);
                self.segment_at(who, "A", at, last)
            }
            _ if self.ends[who].has_closed => {
                let at = (self.ends[who].next.wrapping_sub(1), self.ends[1 - who].next);
                Step { may: Some("fin-repeated"), moves: None, ..self.segment_at(who, "FA", at, 0) }
            }
            _ => Step { then: Then::Closed, ..self.segment(who, "FA", len) },
        }
    }

    /// At the bounds of semantics 4.4, and just beyond.
    fn at_edges(&mut self, who: usize) -> Step {
        let (own, peer) = (self.ends[who].clone(), self.ends[1 - who].clone());
        let some = 1 + self.rng.below(300) as u32;
        let left = own.next.wrapping_sub(peer.largest);
        let low = peer.next.wrapping_sub(own.largest.max(66_000));
        let far = own.limit.wrapping_add(3 * peer.largest + 1_000_000);
        match self.rng.below(9) {
            0 => self.segment_at(who, "A", (own.limit, peer.next), 0),
            1 => self.segment_at(who, "A", (own.limit, peer.next), some),
            2 => self.segment_at(who, "A", (own.limit.wrapping_add(some), peer.next), 0),
            3 => Step { may: None, ..self.segment_at(who, "A", (far, peer.next), some) },
            4 => self.segment_at(who, "A", (left.wrapping_sub(some), peer.next), some),
            5 => Step {
                may: Some("too-old"),
                ..self.segment_at(who, "A", (left.wrapping_sub(some + 1), peer.next), some)
            },
            6 => {
                let may = peer.has_reset_inside.then_some("reset-moves-end");
                Step { may, ..self.segment_at(who, "A", (own.next, peer.next.wrapping_add(some)), 0) }
            }
            7 => self.segment_at(who, "A", (own.next, low), 0),
            _ => Step {
                may: Some("too-old"),
                ..self.segment_at(who, "A", (own.next, low.wrapping_sub(some)), 0)
            },
        }
    }

    fn reset(&mut self, who: usize) -> Step {
        let (own, peer) = (self.ends[who].clone(), self.ends[1 - who].clone());
        let some = 1 + self.rng.below(300) as u32;
        let inside = peer.acked.wrapping_add(some);
        let lenient = match (self.is_closing(), self.after_syn) {
            (true, _) => Some("reset-after-fin"),
            (false, true) => Some("reset-after-syn"),
            (false, false) => None,
        };
        let is_behind = after(own.next, peer.acked);
        let behind = is_behind.then_some("reset-behind");
        let (seq, may, then) = match self.rng.below(6) {
            0 => (peer.acked, behind, Then::Reset),
            1 => (own.next, Some("own-next"), Then::Reset),
            2 if after(inside, own.limit) || inside == own.next => (peer.acked, behind, Then::Reset),
            2 => (inside, lenient, Then::GoOn),
            3 => (peer.acked.wrapping_sub(some), lenient, Then::GoOn),
            4 => (own.limit.wrapping_add(some), Some("one-more-window"), Then::GoOn),
            _ => {
                let ack = peer.next.wrapping_add(some);
                let step = self.segment_at(who, "RA", (peer.acked, ack), 0);
                return Step { may: Some("reset-ack"), moves: None, then: Then::Reset, ..step };
            }
        };
        Step { may, moves: None, then, ..self.segment_at(who, "R", (seq, 0), 0) }
    }

    fn syn(&mut self, who: usize) -> Step {
        let seq = self.rng.u32();
        let closed = self.ends.iter().all(|end| end.has_closed);
        if self.rng.one_in(2) {
            let may = match (who, closed) {
                (0, true) => Some("syn-in-last-ack"),
                (0, false) => None,
                _ => Some("responder-syn"),
            };
            let then = if closed { Then::Stop } else { Then::GoOn };
            return Step { may, moves: None, then, ..self.segment_at(who, "S", (seq, 0), 0) };
        }
        let ack = self.ends[1 - who].next;
        let seq = if self.rng.one_in(2) { seq } else { self.ends[who].next.wrapping_sub(1) };
        Step { may: Some("syn-ack-within"), moves: None, ..self.segment_at(who, "SA", (seq, ack), 0) }
    }

    /// An ICMP error of `who`'s about a segment of the other's.
    fn error(&mut self, who: usize) -> Step {
        let other = self.ends[1 - who].clone();
        let seq = if self.rng.one_in(2) {
            other.next.wrapping_sub(other.last.min(self.ends[who].largest))
        } else {
            other.limit.wrapping_add(1_000_000)
        };
        let may = after(seq, other.limit).then_some("quoted-number");
        let [own, peer] = [self.names[who], self.names[1 - who]];
        let kind = self.rng.pick(&["type=3 code=1", "type=3 code=4", "type=11 code=0", "type=12 code=0"]);
        let text = format!("{own} error {kind} of {peer} A seq={seq} ack=1");
        Step { text, who, may, moves: None, then: Then::GoOn }
    }

    /// Takes down what a packet, which both judged alike, has changed.
    fn note(&mut self, step: &Step, passed: bool) {
        if !passed {
            return;
        }
        self.after_syn = step.text.contains(" S seq=") || self.after_syn && step.text.contains(" error ");
        self.then = if matches!(step.then, Then::Reset | Then::Stop) { step.then } else { self.then };
        self.ends[step.who].has_reset_inside |= step.text.contains(" R seq=") && step.then == Then::GoOn;
        let Some((end, ack, window)) = step.moves else { return };
        let own = &mut self.ends[step.who];
        own.last = if after(end, own.next) { end.wrapping_sub(own.next) } else { 0 };
        own.next = later(end, own.next);
        own.acked = later(ack, own.acked);
        own.largest = own.largest.max(window);
        own.has_closed |= step.then == Then::Closed;
        let peer = &mut self.ends[1 - step.who];
        peer.limit = later(ack.wrapping_add(window.max(1)), peer.limit);
    }
}
