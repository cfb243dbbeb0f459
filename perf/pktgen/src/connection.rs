//! Both ends of one TCP connection, in 32 bytes: who opens it asks, the other side answers, one
//! request at a time.
//!
//! Each end acts on what reaches it and knows nothing of the other: what a firewall between them
//! drops is missing, and what it changes is not understood. A segment that nobody answers is sent
//! again by the opener; what reaches an end twice is answered again or ignored, as TCP does.

use crate::template::{Tcp, flags};
use crate::track::{Order, note};

/// Times that a segment is sent again before its connection is given up.
pub const TRIES: u8 = 5;
/// Bits of a window of arrivals.
const WINDOW: u32 = 8;

/// An end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Opens, asks, closes.
    Opener,
    /// Answers.
    Responder,
}

impl Role {
    /// The other end.
    pub fn other(self) -> Role {
        match self {
            Role::Opener => Role::Responder,
            Role::Responder => Role::Opener,
        }
    }
}

/// Where the opener is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[repr(u8)]
pub enum Opener {
    /// Not open.
    #[default]
    Closed,
    /// Waits for the SYN+ACK.
    SynSent,
    /// Open, and has nothing outstanding.
    Idle,
    /// Waits for a response.
    Asked,
    /// Waits for the FIN of the other side.
    FinSent,
}

/// Where the responder is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[repr(u8)]
pub enum Responder {
    /// Waits for a SYN.
    #[default]
    Listen,
    /// Waits for the handshake's ACK.
    SynReceived,
    /// Open.
    Open,
    /// Waits for the ACK of its FIN.
    LastAck,
}

/// Sequence numbers of an end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct End {
    /// Its next byte's number.
    next: u32,
    /// The number that it expects of the other side.
    expected: u32,
}

/// Arrivals in one direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Way {
    sent: u8,
    next: u8,
    seen: u8,
}

/// A connection, or a flow of datagrams.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Connection {
    from_opener: End,
    from_responder: End,
    /// How often it opened, modulo 2¹⁶.
    pub generation: u16,
    /// The tick at which what is outstanding is late.
    pub deadline: u16,
    /// Requests answered since it opened.
    pub rounds: u16,
    opener: Opener,
    responder: Responder,
    tries: u8,
    _spare: u8,
    ways: [Way; 2],
}

const _: () = assert!(size_of::<Connection>() == 32);

/// Bytes of the payloads of this round.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lengths {
    /// Of the request.
    pub request: u32,
    /// Of the response.
    pub response: u32,
}

/// A segment as it arrives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Numbers and flags.
    pub tcp: Tcp,
    /// Bytes of its payload.
    pub length: u32,
}

/// A segment to be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Who sends it.
    pub role: Role,
    /// Numbers and flags.
    pub tcp: Tcp,
    /// True for a request or a response, with a payload of this round's length.
    pub payload: bool,
}

/// What a segment brought about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// Nothing that counts.
    None,
    /// The handshake is complete.
    Established,
    /// A request is answered.
    Answered,
    /// Both FINs are acknowledged.
    Closed,
    /// Somebody reset it.
    Reset,
}

const ACK: u8 = flags::ACK;
const DATA: u8 = flags::PSH | flags::ACK;
const FIN: u8 = flags::FIN | flags::ACK;
const SYN_ACK: u8 = flags::SYN | flags::ACK;

impl Connection {
    /// The opener's state.
    pub fn opener(&self) -> Opener {
        self.opener
    }

    /// True if neither end knows of a connection.
    pub fn is_closed(&self) -> bool {
        self.opener == Opener::Closed && self.responder == Responder::Listen
    }

    fn segment(&self, role: Role, flags: u8, sequence: u32, payload: bool) -> Option<Answer> {
        let end = if role == Role::Opener { self.from_opener } else { self.from_responder };
        let acknowledgment = if flags & ACK == 0 { 0 } else { end.expected };
        Some(Answer { role, tcp: Tcp { sequence, acknowledgment, flags }, payload })
    }

    /// Opens it: the SYN.
    pub fn open(&mut self, isn: u32) -> Option<Answer> {
        self.generation = self.generation.wrapping_add(1);
        self.abandon();
        (self.rounds, self.tries) = (0, 0);
        self.opener = Opener::SynSent;
        self.from_opener = End { next: isn.wrapping_add(1), expected: 0 };
        self.segment(Role::Opener, flags::SYN, isn, false)
    }

    /// The next request, or the FIN, of an idle connection; `None` if it is not idle.
    pub fn turn(&mut self, close: bool, lengths: &Lengths) -> Option<Answer> {
        if self.opener != Opener::Idle {
            return None;
        }
        self.tries = 0;
        let sequence = self.from_opener.next;
        if close {
            self.opener = Opener::FinSent;
            self.from_opener.next = sequence.wrapping_add(1);
            return self.segment(Role::Opener, FIN, sequence, false);
        }
        self.opener = Opener::Asked;
        self.from_opener.next = sequence.wrapping_add(lengths.request);
        self.segment(Role::Opener, DATA, sequence, true)
    }

    /// What is outstanding, once more; `None` if it was tried often enough: the connection is given
    /// up.
    pub fn retry(&mut self, lengths: &Lengths) -> Option<Answer> {
        self.tries += 1;
        if self.tries > TRIES {
            self.abandon();
            return None;
        }
        let back = |length: u32| self.from_opener.next.wrapping_sub(length);
        match self.opener {
            Opener::SynSent => self.segment(Role::Opener, flags::SYN, back(1), false),
            Opener::Asked => self.segment(Role::Opener, DATA, back(lengths.request), true),
            Opener::FinSent => self.segment(Role::Opener, FIN, back(1), false),
            Opener::Closed | Opener::Idle => None,
        }
    }

    /// Forgets the connection at both ends.
    pub fn abandon(&mut self) {
        (self.opener, self.responder) = (Opener::Closed, Responder::Listen);
    }

    /// A segment reaches an end. `isn`: the first number of a responder that accepts a connection.
    pub fn arrive(
        &mut self,
        to: Role,
        segment: &Segment,
        isn: u32,
        lengths: &Lengths,
    ) -> (Event, Option<Answer>) {
        if segment.tcp.flags & flags::RST != 0 {
            let was_open = !self.is_closed();
            self.abandon();
            return (if was_open { Event::Reset } else { Event::None }, None);
        }
        match to {
            Role::Opener => self.arrive_at_opener(segment),
            Role::Responder => self.arrive_at_responder(segment, isn, lengths),
        }
    }

    fn arrive_at_opener(&mut self, segment: &Segment) -> (Event, Option<Answer>) {
        let Tcp { sequence, acknowledgment, flags } = segment.tcp;
        let (ours, length) = (self.from_opener, segment.length);
        let acknowledges_all = flags & ACK != 0 && acknowledgment == ours.next;
        let acknowledge = |of: &Self| of.segment(Role::Opener, ACK, of.from_opener.next, false);
        let ends_at = |number: u32| sequence.wrapping_add(number) == ours.expected;
        if flags & SYN_ACK == SYN_ACK {
            if self.opener == Opener::SynSent && acknowledges_all {
                self.from_opener.expected = sequence.wrapping_add(1);
                self.opener = Opener::Idle;
                return (Event::None, acknowledge(self));
            }
            // Once more: our ACK was lost.
            let again = matches!(self.opener, Opener::Idle | Opener::Asked | Opener::FinSent)
                && self.rounds == 0
                && ends_at(1);
            return (Event::None, again.then(|| acknowledge(self)).flatten());
        }
        match self.opener {
            Opener::Asked if length > 0 && sequence == ours.expected && acknowledges_all => {
                self.from_opener.expected = ours.expected.wrapping_add(length);
                self.opener = Opener::Idle;
                self.rounds = self.rounds.saturating_add(1);
                (Event::Answered, None)
            }
            Opener::FinSent if flags & FIN == FIN && sequence == ours.expected && acknowledges_all => {
                self.from_opener.expected = ours.expected.wrapping_add(1);
                self.opener = Opener::Closed;
                (Event::None, acknowledge(self))
            }
            // Once more: our last ACK was lost.
            Opener::Closed if flags & FIN == FIN && ends_at(1) => (Event::None, acknowledge(self)),
            _ => (Event::None, None),
        }
    }

    fn arrive_at_responder(
        &mut self,
        segment: &Segment,
        isn: u32,
        lengths: &Lengths,
    ) -> (Event, Option<Answer>) {
        let Tcp { sequence, acknowledgment, flags } = segment.tcp;
        if flags & SYN_ACK == flags::SYN {
            if matches!(self.responder, Responder::Listen | Responder::SynReceived) {
                self.from_responder = End { next: isn.wrapping_add(1), expected: sequence.wrapping_add(1) };
                self.responder = Responder::SynReceived;
                return (Event::None, self.segment(Role::Responder, SYN_ACK, isn, false));
            }
            return (Event::None, None);
        }
        let acknowledges_all = flags & ACK != 0 && acknowledgment == self.from_responder.next;
        let mut event = Event::None;
        if self.responder == Responder::SynReceived && acknowledges_all {
            self.responder = Responder::Open;
            event = Event::Established;
        }
        let ours = self.from_responder;
        let (length, end) = (segment.length, sequence.wrapping_add(segment.length));
        let answer = match self.responder {
            Responder::Open if length > 0 && sequence == ours.expected => {
                self.from_responder = End { next: ours.next.wrapping_add(lengths.response), expected: end };
                self.segment(Role::Responder, DATA, ours.next, true)
            }
            // The same request: our response was lost.
            Responder::Open if length > 0 && end == ours.expected => {
                self.segment(Role::Responder, DATA, ours.next.wrapping_sub(lengths.response), true)
            }
            Responder::Open if flags & FIN == FIN && sequence == ours.expected => {
                self.from_responder =
                    End { next: ours.next.wrapping_add(1), expected: sequence.wrapping_add(1) };
                self.responder = Responder::LastAck;
                self.segment(Role::Responder, FIN, ours.next, false)
            }
            Responder::LastAck if flags & FIN == FIN && sequence.wrapping_add(1) == ours.expected => {
                self.segment(Role::Responder, FIN, ours.next.wrapping_sub(1), false)
            }
            Responder::LastAck if acknowledges_all => {
                self.responder = Responder::Listen;
                event = Event::Closed;
                None
            }
            _ => None,
        };
        (event, answer)
    }

    /// A request of a flow of datagrams is sent: the flow waits for its response.
    pub fn ask(&mut self) {
        self.opener = Opener::Asked;
    }

    /// A datagram reaches the opener; true if it waited for one.
    pub fn is_answered(&mut self) -> bool {
        let waited = self.opener == Opener::Asked;
        if waited {
            self.opener = Opener::Idle;
            self.rounds = self.rounds.saturating_add(1);
        }
        waited
    }

    /// The next number of a frame from this end.
    #[inline]
    pub fn number(&mut self, from: Role) -> u8 {
        let way = &mut self.ways[from as usize];
        let number = way.sent;
        way.sent = number.wrapping_add(1);
        number
    }

    /// Notes the arrival of a frame with this number.
    #[inline]
    pub fn note(&mut self, from: Role, number: u8) -> Order {
        let way = &mut self.ways[from as usize];
        let mut seen = u64::from(way.seen);
        let order = note(i32::from(number.wrapping_sub(way.next) as i8), &mut seen, WINDOW);
        if order == Order::Ahead {
            way.next = number.wrapping_add(1);
        }
        way.seen = seen as u8;
        order
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LENGTHS: Lengths = Lengths { request: 100, response: 1400 };
    const PEER_ISN: u32 = 0xFFFF_FF00;

    /// An end of the test's own, which keeps its numbers by itself.
    struct Peer {
        next: u32,
        expected: u32,
    }

    impl Peer {
        fn say(&self, flags: u8, length: u32) -> Segment {
            let tcp = Tcp { sequence: self.next, acknowledgment: self.expected, flags };
            Segment { tcp, length }
        }
    }

    fn tcp(answer: Option<Answer>) -> (Tcp, bool) {
        let answer = answer.expect("an answer");
        (answer.tcp, answer.payload)
    }

    fn said(flags: u8, sequence: u32, acknowledgment: u32) -> Tcp {
        Tcp { sequence, acknowledgment, flags }
    }

    /// An opener that is open, and its peer.
    fn opened() -> (Connection, Peer) {
        let mut connection = Connection::default();
        let (syn, _) = tcp(connection.open(1000));
        assert_eq!(syn, said(flags::SYN, 1000, 0));
        let mut peer = Peer { next: PEER_ISN, expected: 1001 };
        let (event, ack) = connection.arrive(Role::Opener, &peer.say(SYN_ACK, 0), 0, &LENGTHS);
        peer.next = peer.next.wrapping_add(1);
        assert_eq!((event, tcp(ack)), (Event::None, (said(ACK, 1001, PEER_ISN + 1), false)));
        assert_eq!(connection.opener(), Opener::Idle);
        (connection, peer)
    }

    #[test]
    fn an_opener_shakes_hands_asks_and_closes_with_the_right_numbers() {
        let (mut connection, mut peer) = opened();
        for round in 1..=3u32 {
            let (request, payload) = tcp(connection.turn(false, &LENGTHS));
            assert_eq!((request, payload), (said(DATA, peer.expected, peer.next), true));
            assert_eq!(connection.turn(false, &LENGTHS), None, "one at a time");
            peer.expected = peer.expected.wrapping_add(100);
            let response = peer.say(DATA, 1400);
            assert_eq!(connection.arrive(Role::Opener, &response, 0, &LENGTHS), (Event::Answered, None));
            assert_eq!(connection.arrive(Role::Opener, &response, 0, &LENGTHS), (Event::None, None), "once");
            peer.next = peer.next.wrapping_add(1400);
            assert_eq!(u32::from(connection.rounds), round);
        }
        let (fin, _) = tcp(connection.turn(true, &LENGTHS));
        assert_eq!(fin, said(FIN, peer.expected, peer.next));
        peer.expected = peer.expected.wrapping_add(1);
        let (event, last) = connection.arrive(Role::Opener, &peer.say(FIN, 0), 0, &LENGTHS);
        let expected = said(ACK, peer.expected, peer.next.wrapping_add(1));
        assert_eq!((event, tcp(last)), (Event::None, (expected, false)));
        assert_eq!(connection.opener(), Opener::Closed);
        // Its last ACK was lost: the FIN comes again, and is acknowledged again.
        assert_eq!(tcp(connection.arrive(Role::Opener, &peer.say(FIN, 0), 0, &LENGTHS).1).0, expected);
    }

    #[test]
    fn a_responder_answers_with_the_right_numbers() {
        let mut connection = Connection::default();
        let mut peer = Peer { next: 0xFFFF_FFFF, expected: 0 };
        let syn = peer.say(flags::SYN, 0);
        let answer = connection.arrive(Role::Responder, &syn, 5000, &LENGTHS);
        assert_eq!((answer.0, tcp(answer.1)), (Event::None, (said(SYN_ACK, 5000, 0), false)));
        assert_eq!(connection.arrive(Role::Responder, &syn, 5000, &LENGTHS), answer, "a SYN sent again");
        (peer.next, peer.expected) = (0, 5001);
        let ack = peer.say(ACK, 0);
        assert_eq!(connection.arrive(Role::Responder, &ack, 0, &LENGTHS), (Event::Established, None));
        assert_eq!(connection.arrive(Role::Responder, &ack, 0, &LENGTHS), (Event::None, None));
        let request = peer.say(DATA, 100);
        let response = connection.arrive(Role::Responder, &request, 0, &LENGTHS);
        assert_eq!((response.0, tcp(response.1)), (Event::None, (said(DATA, 5001, 100), true)));
        assert_eq!(
            connection.arrive(Role::Responder, &request, 0, &LENGTHS),
            response,
            "a request sent again"
        );
        (peer.next, peer.expected) = (100, 6401);
        let fin = connection.arrive(Role::Responder, &peer.say(FIN, 0), 0, &LENGTHS);
        assert_eq!((fin.0, tcp(fin.1)), (Event::None, (said(FIN, 6401, 101), false)));
        assert_eq!(
            connection.arrive(Role::Responder, &peer.say(FIN, 0), 0, &LENGTHS),
            fin,
            "a FIN sent again"
        );
        (peer.next, peer.expected) = (101, 6402);
        assert_eq!(connection.arrive(Role::Responder, &peer.say(ACK, 0), 0, &LENGTHS), (Event::Closed, None));
        assert!(connection.is_closed());
    }

    #[test]
    fn a_lost_handshake_ack_is_made_good_by_the_request() {
        let mut connection = Connection::default();
        let mut peer = Peer { next: 10, expected: 0 };
        connection.arrive(Role::Responder, &peer.say(flags::SYN, 0), 5000, &LENGTHS);
        (peer.next, peer.expected) = (11, 5001);
        let (event, response) = connection.arrive(Role::Responder, &peer.say(DATA, 100), 0, &LENGTHS);
        assert_eq!((event, tcp(response)), (Event::Established, (said(DATA, 5001, 111), true)));
    }

    #[test]
    fn what_is_late_is_sent_again_as_it_was_and_given_up_in_the_end() {
        let mut connection = Connection::default();
        let syn = connection.open(7);
        for _ in 0..TRIES {
            assert_eq!(connection.retry(&LENGTHS), syn);
        }
        assert_eq!(connection.retry(&LENGTHS), None);
        assert!(connection.is_closed());

        let (mut connection, peer) = opened();
        let request = connection.turn(false, &LENGTHS);
        assert_eq!(connection.retry(&LENGTHS), request);
        let peer = Peer { expected: peer.expected.wrapping_add(100), ..peer };
        connection.arrive(Role::Opener, &peer.say(DATA, 1400), 0, &LENGTHS);
        let fin = connection.turn(true, &LENGTHS);
        assert_eq!(connection.retry(&LENGTHS), fin);
    }

    #[test]
    fn wrong_numbers_are_not_answered_and_a_reset_ends_it() {
        let (mut connection, mut peer) = opened();
        connection.turn(false, &LENGTHS);
        peer.expected = peer.expected.wrapping_add(99);
        assert_eq!(connection.arrive(Role::Opener, &peer.say(DATA, 1400), 0, &LENGTHS), (Event::None, None));
        peer.expected = peer.expected.wrapping_add(1);
        peer.next = peer.next.wrapping_add(1);
        assert_eq!(connection.arrive(Role::Opener, &peer.say(DATA, 1400), 0, &LENGTHS), (Event::None, None));
        assert_eq!(
            connection.arrive(Role::Opener, &peer.say(flags::RST, 0), 0, &LENGTHS),
            (Event::Reset, None)
        );
        assert!(connection.is_closed());
        assert_eq!(
            connection.arrive(Role::Opener, &peer.say(flags::RST, 0), 0, &LENGTHS),
            (Event::None, None)
        );
        assert_eq!(connection.arrive(Role::Responder, &peer.say(DATA, 5), 0, &LENGTHS), (Event::None, None));
    }

    #[test]
    fn frames_of_both_ends_are_numbered_apart() {
        let mut connection = Connection::default();
        for number in 0..=255u8 {
            assert_eq!(connection.number(Role::Opener), number);
            assert_eq!(connection.note(Role::Opener, number), Order::Ahead);
        }
        assert_eq!((connection.number(Role::Responder), connection.number(Role::Opener)), (0, 0));
        assert_eq!(connection.note(Role::Opener, 255), Order::Duplicate);
        assert_eq!(connection.note(Role::Opener, 1), Order::Ahead);
        assert_eq!(connection.note(Role::Opener, 0), Order::Late);
    }
}
