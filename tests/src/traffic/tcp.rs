//! TCP streams: a script that a decent pair of hosts would follow, and at every step what an odd
//! one might send instead.

use std::net::IpAddr;

use engine::Side;

use super::{Place, Sent};
use crate::frame::{ACK, FIN, Packet, RST, SYN, Tcp, URG, tcp};
use crate::rng::Rng;

/// What one end knows of its own numbers.
#[derive(Clone, Copy, Debug)]
struct End {
    isn: u32,
    /// The next number that it sends.
    next: u32,
    /// The highest that it acknowledged.
    acked: u32,
    window: u16,
    scale: Option<u8>,
    /// The highest number that the other end allows it.
    allowed: u32,
}

/// One step of the script. O opens, R responds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Move {
    Syn(usize),
    SynAck(usize),
    Ack(usize),
    Data(usize),
    Fin(usize),
    Reset(usize),
    /// At what the other side acknowledged, whatever has been sent since.
    ResetBehind(usize),
    /// A SYN of another number, as of an end that has forgotten the connection.
    Stray(usize),
    /// What answers the stray SYN: a port that is closed by now, or an end that has forgotten, too.
    Refuse,
    Accept,
    /// What answers the opener's own SYN, of who does not listen any more.
    RefuseSyn,
}

/// A stream.
pub(super) struct Stream {
    ports: (u16, u16),
    local_opens: bool,
    ends: [End; 2],
    script: Vec<Move>,
    both_scale: bool,
    /// Bytes in the opener's SYN, and whether its first answer acknowledges them (RFC 7413).
    syn_data: u32,
    takes_syn_data: bool,
    /// The latest SYN that was sent without being asked for.
    stray_syn: Option<StraySyn>,
}

#[derive(Clone, Copy, Debug)]
struct StraySyn {
    whose: usize,
    number: u32,
    len: u32,
}

const O: usize = 0;
const R: usize = 1;

/// What follows a stray SYN: its refusal, its answer, or the challenge of an end that remembers.
const ANSWERS: [Move; 4] = [Move::Refuse, Move::Refuse, Move::Accept, Move::Ack(R)];

impl Stream {
    pub fn new(rng: &mut Rng, ports: (u16, u16), local_opens: bool) -> Stream {
        let near_wrap = u32::MAX - 2000;
        let mut end = || {
            let any = rng.u32();
            let isn = rng.pick(&[any, any, near_wrap, u32::MAX, 0x7fff_ff00]);
            let window = rng.pick(&[u16::MAX, 64_240, 8_192, 1_000, 1, 0]);
            let scale = rng.pick(&[None, Some(0), Some(7), Some(14), Some(15)]);
            End { isn, next: isn, acked: 0, window, scale, allowed: isn }
        };
        let ends = [end(), end()];
        let mut stream = Stream {
            ports,
            local_opens,
            ends,
            script: vec![],
            both_scale: false,
            syn_data: 0,
            takes_syn_data: false,
            stray_syn: None,
        };
        stream.both_scale = ends[O].scale.is_some() && ends[R].scale.is_some();
        stream.plan(rng);
        stream
    }

    /// Writes the script, last step first.
    fn plan(&mut self, rng: &mut Rng) {
        self.syn_data = if rng.one_in(4) { rng.pick(&[1, 100, 1400]) } else { 0 };
        self.takes_syn_data = !rng.one_in(4);
        let mut script = match rng.below(12) {
            0 => vec![Move::Syn(O), Move::Syn(R), Move::SynAck(O), Move::SynAck(R), Move::Ack(O)],
            1 => vec![Move::Syn(O), Move::Syn(R), Move::SynAck(O), Move::Ack(R)],
            2 => vec![Move::Syn(O), Move::Syn(O), Move::SynAck(R), Move::SynAck(R), Move::Ack(O)],
            // An answer in several segments before the opener's first acknowledgment.
            3 | 4 => {
                let mut script = vec![Move::Syn(O), Move::SynAck(R)];
                script.extend((0..1 + rng.below(4)).map(|_| Move::Data(R)));
                script.extend(rng.one_in(3).then_some(Move::Fin(R)));
                script.push(Move::Ack(O));
                script
            }
            5 => vec![Move::Syn(O), Move::SynAck(R), Move::Stray(O), rng.pick(&ANSWERS), Move::Ack(O)],
            6 => vec![Move::Syn(O), Move::SynAck(R), Move::Syn(O), Move::RefuseSyn, Move::Ack(O)],
            _ => vec![Move::Syn(O), Move::SynAck(R), Move::Ack(O)],
        };
        for _ in 0..rng.below(12) {
            script.push(rng.pick(&[Move::Data(O), Move::Data(R), Move::Ack(O), Move::Ack(R)]));
        }
        match rng.below(9) {
            0 => {}
            // Gone while the other side still sends.
            5 | 6 => {
                let who = rng.below(2);
                let fin = rng.one_in(2).then_some(Move::Fin(who));
                script.extend([Move::Data(1 - who), Move::Data(who)].into_iter().chain(fin));
                script.push(Move::ResetBehind(who));
                script.extend(rng.pick(&[None, Some(Move::Ack(1 - who))]));
                script.extend(rng.pick(&[None, Some(Move::Data(1 - who)), Some(Move::Reset(who))]));
            }
            7 | 8 => {
                let who = rng.below(2);
                script.extend(rng.one_in(3).then_some(Move::Fin(rng.below(2))));
                script.extend([Move::Stray(who), rng.pick(&ANSWERS), Move::Data(who)]);
            }
            1 => script.push(rng.pick(&[Move::Reset(O), Move::Reset(R)])),
            _ => {
                let first = rng.below(2);
                script.extend([
                    Move::Fin(first),
                    Move::Ack(1 - first),
                    Move::Fin(1 - first),
                    Move::Ack(first),
                ]);
            }
        }
        script.reverse();
        self.script = script;
    }

    /// The next packet.
    pub fn next(&mut self, rng: &mut Rng, place: &Place, remote: IpAddr) -> Sent {
        let started = self.ends[O].next != self.ends[O].isn;
        if started && rng.one_in(4) {
            return self.odd(rng, place, remote);
        }
        match self.script.pop() {
            Some(step) => self.step(rng, place, remote, step),
            // The same tuple again: after both FINs, after a reset, or over a stream that was left
            // alone.
            None if rng.one_in(3) => {
                for end in &mut self.ends {
                    let isn = end.next.wrapping_add(rng.pick(&[1, 70_000, 0x4000_0000, 0x9000_0000]));
                    (end.isn, end.next, end.allowed) = (isn, isn, isn);
                }
                if rng.one_in(3) {
                    self.local_opens = !self.local_opens;
                    self.ends.swap(O, R);
                }
                self.plan(rng);
                self.next(rng, place, remote)
            }
            None => self.odd(rng, place, remote),
        }
    }

    fn step(&mut self, rng: &mut Rng, place: &Place, remote: IpAddr, step: Move) -> Sent {
        match step {
            Move::Syn(who) => {
                let end = self.ends[who];
                let len = if who == O { self.syn_data } else { 0 };
                let behind = end.isn.wrapping_add(1 + len);
                self.ends[who].next = behind;
                // Sent again, it may come without its data.
                let len = if end.next == behind && rng.one_in(2) { 0 } else { len };
                let other = &mut self.ends[1 - who];
                let offered = other.isn.wrapping_add(1 + u32::from(end.window).max(1));
                if offered.wrapping_sub(other.allowed) as i32 > 0 {
                    other.allowed = offered;
                }
                self.send(rng, place, remote, who, SYN, end.isn, 0, len as usize)
            }
            Move::SynAck(who) => {
                let end = self.ends[who];
                if end.next == end.isn {
                    self.ends[who].next = end.isn.wrapping_add(1);
                }
                if who == R && !self.takes_syn_data {
                    self.ends[O].next = self.ends[O].isn.wrapping_add(1);
                }
                let ack = self.ends[1 - who].next;
                self.send(rng, place, remote, who, SYN | ACK, end.isn, ack, 0)
            }
            Move::Ack(who) => {
                let (seq, ack) = (self.ends[who].next, self.ends[1 - who].next);
                self.send(rng, place, remote, who, ACK, seq, ack, 0)
            }
            Move::Data(who) => {
                let (seq, ack) = (self.ends[who].next, self.ends[1 - who].next);
                // What the window has room for, if it is open.
                let room = self.ends[who].allowed.wrapping_sub(seq);
                let len = (room as usize).min(rng.pick(&[1, 100, 1400]));
                self.ends[who].next = seq.wrapping_add(len as u32);
                self.send(rng, place, remote, who, ACK, seq, ack, len)
            }
            Move::Fin(who) => {
                let (seq, ack) = (self.ends[who].next, self.ends[1 - who].next);
                self.ends[who].next = seq.wrapping_add(1);
                self.send(rng, place, remote, who, FIN | ACK, seq, ack, 0)
            }
            Move::Reset(who) => {
                let seq = self.ends[who].next;
                self.send(rng, place, remote, who, RST, seq, 0, 0)
            }
            Move::ResetBehind(who) => {
                let seq = self.ends[1 - who].acked;
                let (flags, ack) = rng.pick(&[(RST, 0), (RST | ACK, self.ends[1 - who].next)]);
                self.send(rng, place, remote, who, flags, seq, ack, 0)
            }
            Move::Stray(who) => {
                let (number, len) = (rng.u32(), rng.pick(&[0, 0, 100]));
                self.stray_syn = Some(StraySyn { whose: who, number, len });
                self.send(rng, place, remote, who, SYN, number, 0, len as usize)
            }
            Move::RefuseSyn => {
                let (any, opener) = (rng.u32(), self.ends[O].isn);
                let ack = opener.wrapping_add(rng.pick(&[1, 1, 1 + self.syn_data, 0, 2 + self.syn_data]));
                let seq = rng.pick(&[0, 0, any]);
                self.send(rng, place, remote, R, RST | ACK, seq, ack, 0)
            }
            Move::Refuse | Move::Accept => self.answer_stray(rng, place, remote, step == Move::Refuse),
        }
    }

    /// What the other end may say to the latest stray SYN, and beside it.
    fn answer_stray(&mut self, rng: &mut Rng, place: &Place, remote: IpAddr, refuses: bool) -> Sent {
        let Some(StraySyn { whose, number, len }) = self.stray_syn else {
            return self.odd(rng, place, remote);
        };
        let answer = number.wrapping_add(rng.pick(&[1, 1, 1 + len, 1 + len, 0, 2 + len]));
        if refuses {
            let (who, any) = (if rng.one_in(8) { whose } else { 1 - whose }, rng.u32());
            let seq = rng.pick(&[0, 0, any]);
            return self.send(rng, place, remote, who, RST | ACK, seq, answer, 0);
        }
        let any = rng.u32();
        let fresh = rng.pick(&[any, self.ends[1 - whose].next]);
        if rng.one_in(2) {
            self.restart(rng, whose, number, fresh);
        }
        self.send(rng, place, remote, 1 - whose, SYN | ACK, fresh, answer, 0)
    }

    /// Something beside the script, often at the very edge of what passes.
    fn odd(&mut self, rng: &mut Rng, place: &Place, remote: IpAddr) -> Sent {
        let who = rng.below(2);
        let (me, other) = (self.ends[who], self.ends[1 - who]);
        let (any, near) = (rng.u32(), rng.pick(&[0, 1, 2, u32::MAX]));
        let (mut flags, mut seq, mut ack, mut len) = (ACK, me.next, other.next, 0);
        match rng.below(16) {
            // Retransmissions, near and far.
            0 => (seq, len) = (me.next.wrapping_sub(rng.pick(&[1, 100, 1400])), rng.pick(&[1, 100])),
            1 => {
                let window = self.scaled(1 - who);
                seq = me.next.wrapping_sub(window).wrapping_sub(near);
            }
            // At the end of what is allowed.
            2 | 3 => (seq, len) = (me.allowed.wrapping_add(near), rng.pick(&[0, 1, 100])),
            15 => seq = any,
            // Acknowledgments of what was never sent, and very old ones.
            4 => ack = other.next.wrapping_add(near),
            5 => ack = other.next.wrapping_sub(self.scaled(who).max(66_000)).wrapping_add(near),
            6 | 7 => {
                flags = rng.pick(&[RST, RST | ACK]);
                seq = rng.pick(&[
                    me.next,
                    other.acked,
                    other.acked.wrapping_add(near),
                    me.allowed.wrapping_add(near),
                    me.next.wrapping_add(1),
                    any,
                ]);
                ack = rng.pick(&[other.next, 0, any]);
            }
            // A SYN where none belongs, and the answers to one.
            8 | 9 => {
                flags = SYN;
                seq = rng.pick(&[any, me.isn, me.next, me.next.wrapping_add(100_000)]);
                self.stray_syn = Some(StraySyn { whose: who, number: seq, len: 0 });
            }
            10 | 11 => {
                flags = SYN | ACK;
                if self.stray_syn.is_some() && rng.one_in(2) {
                    let refuses = rng.one_in(2);
                    return self.answer_stray(rng, place, remote, refuses);
                }
                seq = rng.pick(&[me.isn, me.next, any]);
            }
            12 => flags = rng.pick(&[0, FIN, URG, SYN | FIN, SYN | RST, FIN | RST, FIN | ACK, 0xff]),
            13 => (flags, len) = (FIN | ACK, rng.pick(&[0, 10])),
            _ => {
                self.ends[who].window = rng.pick(&[0, 0, 1, 500, u16::MAX]);
            }
        }
        self.send(rng, place, remote, who, flags, seq, ack, len)
    }

    /// Both ends begin anew with these numbers.
    fn restart(&mut self, rng: &mut Rng, whose: usize, syn: u32, answer: u32) {
        for (who, isn) in [(whose, syn), (1 - whose, answer)] {
            let next = isn.wrapping_add(1);
            (self.ends[who].isn, self.ends[who].next, self.ends[who].allowed) = (isn, next, next);
        }
        self.script.push(Move::Data(whose));
        self.script.push(Move::Ack(whose));
        if rng.one_in(2) {
            self.script.push(Move::Data(1 - whose));
        }
        self.stray_syn = None;
    }

    fn scaled(&self, who: usize) -> u32 {
        let shift = if self.both_scale { self.ends[who].scale.unwrap_or(0).min(14) } else { 0 };
        u32::from(self.ends[who].window) << shift
    }

    #[expect(clippy::too_many_arguments, reason = "a segment has that many fields")]
    fn send(
        &mut self,
        rng: &mut Rng,
        place: &Place,
        remote: IpAddr,
        who: usize,
        flags: u8,
        seq: u32,
        ack: u32,
        len: usize,
    ) -> Sent {
        let inside = (who == O) == self.local_opens;
        let side = if inside { Side::Inside } else { Side::Outside };
        let (src, dst) = place.ends(side, remote);
        let (sport, dport) = if inside { self.ports } else { (self.ports.1, self.ports.0) };
        let me = self.ends[who];
        let mut segment: Packet<Tcp> = tcp((src, sport), (dst, dport)).seq(seq).window(me.window);
        if flags & ACK != 0 {
            segment = segment.ack(ack);
            self.ends[who].acked = ack;
            let syn = flags & SYN != 0;
            let window = if syn { u32::from(me.window) } else { self.scaled(who) };
            let allowed = ack.wrapping_add(window.max(1));
            let other = &mut self.ends[1 - who];
            // Only what an honest acknowledgment gives.
            if ack == other.next && allowed.wrapping_sub(other.allowed) as i32 > 0 {
                other.allowed = allowed;
            }
        }
        segment = segment.flags(flags).payload(vec![0x55; len]);
        if flags & SYN != 0 {
            segment = segment.mss(1460);
            if let Some(scale) = me.scale {
                segment = segment.option(&[1]).wscale(scale);
            }
        }
        let names = [(SYN, 'S'), (FIN, 'F'), (RST, 'R'), (ACK, '.'), (URG, 'U')];
        let letters: String =
            names.iter().filter(|(flag, _)| flags & flag != 0).map(|(_, name)| *name).collect();
        let (name, isns) = (if who == O { 'O' } else { 'R' }, [self.ends[who].isn, self.ends[1 - who].isn]);
        let what = format!(
            "tcp {src}:{sport} > {dst}:{dport} {name} [{letters}] seq isn+{} ack isn+{} win {} len {len} \
             (seq {seq} ack {ack} scale {:?})",
            seq.wrapping_sub(isns[0]) as i32,
            ack.wrapping_sub(isns[1]) as i32,
            me.window,
            me.scale,
        );
        let packet = segment.packet();
        Sent { side, frame: place.frame(rng, side, segment), packet, what }
    }
}
