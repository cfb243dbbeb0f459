//! TCP: states and windows (semantics 4.3, 4.4), sentence by sentence.

/// A segment, as far as the state machine looks at it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Segment {
    pub flags: u8,
    pub seq: u32,
    pub ack: u32,
    pub window: u16,
    /// Payload bytes by the length fields.
    pub len: u32,
    /// The window scale option.
    pub scale: Option<u8>,
    /// Whether the rest of it follows in later fragments.
    pub first_fragment: bool,
}

const FIN: u8 = 1;
const SYN: u8 = 2;
const RST: u8 = 4;
const ACK: u8 = 16;

impl Segment {
    /// Reads a TCP header whose length was checked; `l4` starts at it, `wire` is how long the
    /// segment is.
    pub fn read(l4: &[u8], wire: usize, first_fragment: bool) -> Segment {
        let u16 = |at: usize| u16::from_be_bytes([l4[at], l4[at + 1]]);
        let u32 = |at: usize| u32::from(u16(at)) << 16 | u32::from(u16(at + 2));
        let header = usize::from(l4[12] >> 4) * 4;
        Segment {
            flags: l4[13],
            seq: u32(4),
            ack: u32(8),
            window: u16(14),
            len: (wire - header) as u32,
            scale: scale_option(&l4[20..header]),
            first_fragment,
        }
    }

    pub fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    fn end(&self) -> u32 {
        self.seq.wrapping_add(self.len + u32::from(self.has(SYN)) + u32::from(self.has(FIN)))
    }

    /// "None of SYN, ACK, RST whatever else; SYN+FIN; SYN+RST; FIN+RST; FIN without ACK" (4.3).
    pub fn is_impossible(&self) -> bool {
        let (fin, syn, rst, ack) = (self.has(FIN), self.has(SYN), self.has(RST), self.has(ACK));
        !(syn || ack || rst) || syn && fin || syn && rst || fin && rst || fin && !ack
    }

    /// "SYN without ACK/RST/FIN" (4.1).
    pub fn opens(&self) -> bool {
        self.has(SYN) && !self.has(ACK) && !self.has(RST) && !self.has(FIN)
    }

    /// "A mid-stream ACK (no SYN, FIN, RST)" (4.3).
    pub fn is_mid_stream(&self) -> bool {
        self.has(ACK) && !self.has(SYN) && !self.has(RST) && !self.has(FIN)
    }
}

fn scale_option(mut options: &[u8]) -> Option<u8> {
    let mut scale = None;
    while let [kind, rest @ ..] = options {
        match kind {
            0 => break,
            1 => options = rest,
            _ => {
                let length = usize::from(*rest.first()?);
                if length < 2 || length > options.len() {
                    break;
                }
                if *kind == 3 && length == 3 {
                    scale = Some(options[2].min(14));
                }
                options = &options[length..];
            }
        }
    }
    scale
}

/// `a` is at or before `b` on the circle of sequence numbers.
fn upto(a: u32, b: u32) -> bool {
    b.wrapping_sub(a) as i32 >= 0
}

fn later(a: u32, b: u32) -> u32 {
    if upto(a, b) { b } else { a }
}

/// Whether a segment acknowledges this SYN, with all, some or none of the data that it bore.
fn acknowledges_syn(syn: &Segment, segment: &Segment) -> bool {
    segment.has(ACK) && upto(syn.seq.wrapping_add(1), segment.ack) && upto(segment.ack, syn.end())
}

/// The columns of 4.3's table.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum State {
    SynSent,
    SynReceived,
    Established,
    FinWait,
    Closing,
}

/// What is known of one side's sequence numbers (4.4).
#[derive(Clone, Copy, Default, Debug)]
struct Sender {
    isn: u32,
    end: u32,
    maxend: u32,
    maxwin: u32,
    scale: Option<u8>,
    /// The highest number that it acknowledged, once it has.
    acked: Option<u32>,
}

/// Who sent a segment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Who {
    Opener = 0,
    Responder = 1,
}

impl Who {
    pub fn other(self) -> Who {
        if self == Who::Opener { Who::Responder } else { Who::Opener }
    }
}

/// What became of a segment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Step {
    /// Passes and sets the deadline.
    Pass,
    /// Passes, changes nothing, moves no deadline.
    PassUnmoved,
    /// Passes, changes nothing, "moves the deadline to at most 10 s from now (`tcp_reset`)".
    PassHastened,
    /// Passes and ends the connection.
    End,
    Invalid,
    /// Opens afresh in its own direction, in the old entry's place.
    Reopen,
    /// A SYN+ACK whose SYN came from this side passed before: re-opens as that SYN would have.
    Restart(Who),
}

/// A TCP connection.
#[derive(Clone, Debug)]
pub(super) struct Tcp {
    pub state: State,
    sides: [Sender; 2],
    /// The responder answered with a bare SYN.
    crossed: bool,
    /// Who sent the first FIN.
    fin: Option<Who>,
    /// The latest SYN that passed in SYN received (of another number), established or FIN-WAIT, and
    /// who sent it.
    passed_syn: Option<(Who, Segment)>,
    /// The opener's SYN came again in SYN received.
    syn_again: bool,
    /// Picked up in mid-stream: "without window check".
    picked_up: bool,
}

impl Tcp {
    /// "Opens with SYN without ACK/RST/FIN."
    pub fn open(syn: &Segment) -> Tcp {
        let mut tcp = Tcp {
            state: State::SynSent,
            sides: [Sender::default(); 2],
            crossed: false,
            fin: None,
            passed_syn: None,
            syn_again: false,
            picked_up: false,
        };
        tcp.begin(Who::Opener, syn);
        tcp
    }

    /// `tcp_pickup = "loose"`: "as established and without window check" (4.3).
    pub fn pick_up(who: Who, segment: &Segment) -> Tcp {
        let mut tcp = Tcp { state: State::Established, picked_up: true, ..Tcp::open(segment) };
        tcp.sides = [Sender::default(); 2];
        // What a side is first seen to send, or to be acknowledged, counts as where it began.
        let begin =
            |seq: u32, end, acked| Sender { isn: seq.wrapping_sub(1), end, acked, ..Sender::default() };
        tcp.sides[who as usize] = begin(segment.seq, segment.end(), Some(segment.ack));
        tcp.sides[who.other() as usize] = begin(segment.ack, segment.ack, Some(segment.seq));
        tcp
    }

    /// A SYN begins its sender's numbers. "Highest it may send" (4.4): nothing beyond it before the
    /// other side offers more.
    fn begin(&mut self, who: Who, syn: &Segment) {
        self.sides[who as usize] = Sender {
            isn: syn.seq,
            end: syn.end(),
            maxend: syn.end(),
            maxwin: syn.window.into(),
            scale: syn.scale,
            acked: syn.has(ACK).then_some(syn.ack),
        };
    }

    /// "R may send as far as the window that O's SYN offered, unscaled (RFC 7413); a crossing SYN
    /// offers its window likewise." A window counts from behind the SYN of whom it is offered to.
    fn offer(&mut self, whom: Who, window: u32) {
        let side = &mut self.sides[whom as usize];
        side.maxend = later(side.maxend, side.isn.wrapping_add(1).wrapping_add(window.max(1)));
    }

    /// "O SYN: stays. … The latest SYN counts." One of the same number is the same SYN: what it
    /// bore the first time was sent, be it left out now.
    fn begin_again(&mut self, syn: &Segment) {
        let before = self.sides[Who::Opener as usize];
        self.begin(Who::Opener, syn);
        if syn.seq == before.isn {
            let opener = &mut self.sides[Who::Opener as usize];
            opener.end = later(opener.end, before.end);
            opener.maxend = opener.end;
            opener.maxwin = opener.maxwin.max(before.maxwin);
        }
    }

    /// The next segment, whose flags are possible.
    pub fn step(&mut self, who: Who, segment: &Segment, check: bool) -> Step {
        match self.state {
            State::SynSent => self.in_syn_sent(who, segment),
            State::SynReceived => self.in_syn_received(who, segment, check),
            State::Established | State::FinWait => self.in_established(who, segment, check),
            State::Closing => self.in_closing(who, segment, check),
        }
    }

    fn in_syn_sent(&mut self, who: Who, segment: &Segment) -> Step {
        let opener = self.sides[Who::Opener as usize];
        // What acknowledges the SYN, or the SYN and data that came with it.
        let acknowledges = segment.has(ACK)
            && upto(opener.isn.wrapping_add(1), segment.ack)
            && upto(segment.ack, opener.end);
        match who {
            // "RST from O, whatever its number, or from R acknowledging the SYN: ends."
            Who::Opener if segment.has(RST) => Step::End,
            Who::Responder if segment.has(RST) && acknowledges => Step::End,
            // "O SYN: stays. … The latest SYN counts."
            Who::Opener if segment.opens() => {
                self.begin_again(segment);
                Step::Pass
            }
            // "R SYN+ACK that acknowledges it: SYN received."
            Who::Responder if segment.has(SYN) && segment.has(ACK) && acknowledges => {
                self.begin(Who::Responder, segment);
                self.acknowledge(Who::Responder, segment, segment.window.into());
                self.offer(Who::Responder, opener.maxwin);
                self.state = State::SynReceived;
                Step::Pass
            }
            // "R SYN (crossed, or split handshake): SYN received."
            Who::Responder if segment.opens() => {
                self.begin(Who::Responder, segment);
                self.offer(Who::Responder, opener.maxwin);
                self.offer(Who::Opener, segment.window.into());
                self.crossed = true;
                self.state = State::SynReceived;
                Step::Pass
            }
            // "R ACK without SYN or RST: passes, changes nothing, moves no deadline (challenge
            // ACK)."
            Who::Responder if segment.has(ACK) && !segment.has(SYN) && !segment.has(RST) => Step::PassUnmoved,
            // "Anything else: `invalid`."
            _ => Step::Invalid,
        }
    }

    fn in_syn_received(&mut self, who: Who, segment: &Segment, check: bool) -> Step {
        if segment.has(RST) {
            return self.reset(who, segment, check);
        }
        // "O SYN of another number: as a SYN in established, below."
        if who == Who::Opener && segment.opens() && segment.seq != self.sides[Who::Opener as usize].isn {
            self.passed_syn = Some((who, *segment));
            return Step::PassUnmoved;
        }
        if let Some(whose) = self.answered(who, segment) {
            return Step::Restart(whose);
        }
        if !self.take(who, segment, check) {
            return Step::Invalid;
        }
        let (syn, ack) = (segment.has(SYN), segment.has(ACK));
        self.syn_again |= who == Who::Opener && segment.opens();
        if segment.has(FIN) {
            // "FIN of either side: FIN-WAIT."
            self.fin = Some(who);
            self.state = State::FinWait;
        } else if who == Who::Opener && ack && (!syn || self.crossed) {
            // "O ACK (in a crossed open its SYN+ACK too): established." All else stays.
            self.state = State::Established;
        }
        Step::Pass
    }

    fn in_established(&mut self, who: Who, segment: &Segment, check: bool) -> Step {
        if segment.has(RST) {
            return self.reset(who, segment, check);
        }
        if segment.has(SYN) && !segment.has(ACK) {
            // "A SYN of either side passes, changes nothing, moves no deadline and is free of the
            // window check."
            self.passed_syn = Some((who, *segment));
            return Step::PassUnmoved;
        }
        if segment.has(SYN) {
            // "A SYN+ACK that acknowledges the latest SYN so passed re-opens the connection as that
            // SYN would have."
            if let Some(whose) = self.answered(who, segment) {
                return Step::Restart(whose);
            }
            // "A SYN+ACK inside the window likewise."
            let inside = self.is_inside(who, segment, check);
            return if inside { Step::PassUnmoved } else { Step::Invalid };
        }
        if !self.take(who, segment, check) {
            return Step::Invalid;
        }
        if segment.has(FIN) {
            match self.fin {
                None => (self.fin, self.state) = (Some(who), State::FinWait),
                Some(first) if first != who => self.state = State::Closing,
                Some(_) => {}
            }
        }
        Step::Pass
    }

    fn in_closing(&mut self, who: Who, segment: &Segment, check: bool) -> Step {
        if segment.has(RST) {
            return self.reset(who, segment, check);
        }
        // "SYN (no ACK) of either side: opens afresh under today's rules."
        if segment.opens() {
            return Step::Reopen;
        }
        // One that passed before the second FIN may be answered behind it.
        if let Some(whose) = self.answered(who, segment) {
            return Step::Restart(whose);
        }
        if self.take(who, segment, check) { Step::Pass } else { Step::Invalid }
    }

    /// Whether a SYN+ACK "acknowledges the latest SYN so passed": whose that was.
    fn answered(&self, who: Who, segment: &Segment) -> Option<Who> {
        let (whose, syn) = self.passed_syn?;
        let fits = segment.has(SYN) && whose == who.other() && acknowledges_syn(&syn, segment);
        fits.then_some(whose)
    }

    /// The SYN of a restart, and the connection that it opens once the SYN+ACK is in.
    pub fn restarted(&self, syn_ack: &Segment, check: bool) -> Option<Tcp> {
        let (_, syn) = self.passed_syn?;
        let mut tcp = Tcp::open(&syn);
        tcp.step(Who::Responder, syn_ack, check);
        Some(tcp)
    }

    /// A RST outside SYN sent.
    fn reset(&self, who: Who, segment: &Segment, check: bool) -> Step {
        let (sender, receiver) = (self.sides[who as usize], self.sides[who.other() as usize]);
        let acked = receiver.acked.unwrap_or(sender.isn.wrapping_add(1));
        // "A RST with ACK that acknowledges that SYN, whatever its sequence number, passes and ends
        // the connection."
        if self.passed_syn.is_some_and(|(whose, syn)| whose != who && acknowledges_syn(&syn, segment)) {
            return Step::End;
        }
        // The SYN that came again "passes" as well "in SYN received (from O)", and may be refused
        // likewise.
        let opener = self.sides[Who::Opener as usize];
        let to_syn = segment.has(ACK)
            && upto(opener.isn.wrapping_add(1), segment.ack)
            && upto(segment.ack, opener.end);
        if self.state == State::SynReceived && self.syn_again && who == Who::Responder && to_syn {
            return Step::End;
        }
        // "A RST whose sequence is exact (its sender's own next) passes and ends the connection."
        if sender.end == segment.seq {
            return Step::End;
        }
        // "A RST at the highest number that its receiver acknowledged, where that lies below its
        // sender's next."
        if acked == segment.seq && !upto(sender.end, acked) {
            return Step::PassHastened;
        }
        // "For a RST: from what its receiver acknowledged up to the window's end."
        let inside = upto(acked, segment.seq) && upto(segment.seq, sender.maxend);
        if inside || !self.checks(check) { Step::PassUnmoved } else { Step::Invalid }
    }

    fn checks(&self, check: bool) -> bool {
        check && !self.picked_up
    }

    /// The four conditions of 4.4.
    fn is_inside(&self, who: Who, segment: &Segment, check: bool) -> bool {
        if !self.checks(check) {
            return true;
        }
        let (s, r) = (self.sides[who as usize], self.sides[who.other() as usize]);
        // "A first fragment is checked by its sequence number alone and taken to reach the end of
        // the receiver's window."
        upto(segment.seq, s.maxend)
            && (segment.first_fragment
                || upto(s.end.wrapping_sub(r.maxwin), segment.end())
                    && (!segment.has(ACK) || self.acknowledges(who, segment)))
    }

    /// Whether a segment acknowledges what its receiver has sent, and not too long ago.
    fn acknowledges(&self, who: Who, segment: &Segment) -> bool {
        let (s, r) = (self.sides[who as usize], self.sides[who.other() as usize]);
        upto(segment.ack, r.end) && upto(r.end.wrapping_sub(s.maxwin.max(66_000)), segment.ack)
    }

    /// Takes a segment in, if it is inside.
    fn take(&mut self, who: Who, segment: &Segment, check: bool) -> bool {
        if !self.is_inside(who, segment, check) {
            return false;
        }
        let both = self.sides[0].scale.zip(self.sides[1].scale);
        // "Scaling holds only if both SYNs offered it, up to 14"; the window of a SYN itself is
        // never scaled.
        let shift = match both {
            Some((opener, responder)) if !segment.has(SYN) => [opener, responder][who as usize],
            _ => 0,
        };
        let window = u32::from(segment.window) << shift;
        // That of a first fragment is not asked for; one that would not be let pass elsewhere moves
        // nothing here.
        let counts = segment.has(ACK)
            && (!segment.first_fragment || !self.checks(check) || self.acknowledges(who, segment));
        let sender = &mut self.sides[who as usize];
        // "It then moves S.end, S.maxwin and R.maxend."
        sender.end = later(sender.end, if segment.first_fragment { sender.maxend } else { segment.end() });
        sender.maxwin = sender.maxwin.max(window);
        if counts {
            self.acknowledge(who, segment, window);
        }
        true
    }

    /// "R.maxend = max(R.maxend, ack + win, or + 1 where win is 0)".
    fn acknowledge(&mut self, who: Who, segment: &Segment, window: u32) {
        // Who has a SYN expects what follows it: the highest number acknowledged counts on from
        // there, modulo 2³², and an acknowledgment of less acknowledges nothing of this connection.
        let first = self.sides[who.other() as usize].isn.wrapping_add(1);
        let sender = &mut self.sides[who as usize];
        sender.acked = Some(later(sender.acked.unwrap_or(first), segment.ack));
        let receiver = &mut self.sides[who.other() as usize];
        receiver.maxend = later(receiver.maxend, segment.ack.wrapping_add(window.max(1)));
    }

    /// Whether a quoted sequence number "is one that its sender may have sent" (4.5).
    pub fn may_have_sent(&self, who: Who, seq: u32, check: bool) -> bool {
        if !self.checks(check) {
            return true;
        }
        let (s, r) = (self.sides[who as usize], self.sides[who.other() as usize]);
        if self.state == State::SynSent {
            // The opener has sent its latest SYN; the responder has no window that anything could
            // lie in.
            return who == Who::Opener && upto(s.isn, seq) && upto(seq, s.end);
        }
        // "An ICMP error that quotes that SYN is `related`."
        if self.passed_syn.is_some_and(|(whose, syn)| whose == who && syn.seq == seq) {
            return true;
        }
        upto(s.end.wrapping_sub(r.maxwin), seq) && upto(seq, s.maxend)
    }
}
