//! Connections: handshakes, requests and responses, teardown. Every frame but those that a turn
//! begins answers one that arrived.
//!
//! All flows are visited in turn. A visit opens a closed connection, asks on an idle one, closes
//! one that has asked enough, or sends again what is late; a flow that waits for an answer is
//! passed over. So the rate that is reached with few flows is that of their round trips.
//!
//! Each frame has a number in its identification (IPv4) or flow label (IPv6): the measurement's
//! epoch, and a count of the frames of its flow and direction, by which duplicates and reordering
//! are known for segments without payload too.

use std::collections::VecDeque;

use engine::Side;
use engine::io::Frame;

use crate::clock::{Clock, cycles};
use crate::connection::{Answer, Connection, Event, Lengths, Opener, Role, Segment};
use crate::count::Counts;
use crate::flow::{Flows, Found, Kind};
use crate::hostile::Hostile;
use crate::parse::{Arrival, Layout};
use crate::plan::{FCS, From, Plan, mix};
use crate::port::Writable;
use crate::source::{Built, Source, whole};
use crate::stateless::Templates;
use crate::tag::{Class, Tag};
use crate::template::{Tcp, flags};
use crate::track::Order;

/// Answers that may wait for a side.
const ANSWERS: usize = 1024;
/// Flows that one visit passes over at most: those that wait for an answer.
const PASSES: u32 = 64;
/// Deadlines are in units of so many cycles (2²⁵: 11 ms at 3 GHz), which 16 bits hold for minutes.
const TICK_BITS: u32 = 25;
const SCRATCH: usize = 2048;

/// A frame that is to be sent.
#[derive(Clone, Copy, Debug)]
struct Pending {
    flow: u32,
    answer: Answer,
    /// Which size its payload has.
    size: usize,
}

/// The source of connections.
pub struct Stateful {
    flows: Flows,
    layout: Layout,
    templates: Templates,
    sizes: usize,
    connections: Vec<Connection>,
    answers: [VecDeque<Pending>; 2],
    /// The flow visited next, by the side that opens.
    visits: [u32; 2],
    from: From,
    deal: Vec<Class>,
    deal_at: [usize; 2],
    others: u64,
    requests: u16,
    /// Of 2³²: how many turns close a connection before its time.
    renew: u64,
    turns: u64,
    timeout: u16,
    /// Connections that may be opened yet.
    left: u64,
    /// Connections open now.
    open: u64,
    ends: bool,
    seed: u64,
    epoch: u8,
    hostile: Hostile,
    scratch: Vec<u8>,
}

impl Stateful {
    /// For a plan.
    pub fn new(plan: &Plan, clock: &Clock) -> Stateful {
        let ticks = (clock.cycles_of(plan.timeout) >> TICK_BITS) + 1;
        Stateful {
            flows: Flows::new(plan),
            layout: Layout::new(plan),
            templates: Templates::new(plan),
            sizes: plan.sizes.len(),
            connections: vec![Connection::default(); plan.flows as usize],
            answers: [VecDeque::with_capacity(ANSWERS), VecDeque::with_capacity(ANSWERS)],
            visits: [0; 2],
            from: plan.from,
            deal: plan.deal(),
            deal_at: [0; 2],
            others: 0,
            requests: plan.requests,
            renew: (plan.shares.new * (1u64 << 32) as f64) as u64,
            turns: 0,
            timeout: ticks.min(i16::MAX as u64) as u16,
            left: plan.connections.unwrap_or(u64::MAX),
            open: 0,
            ends: plan.connections.is_some(),
            seed: plan.seed,
            epoch: 0,
            hostile: Hostile::new(plan),
            scratch: vec![0; SCRATCH],
        }
    }

    /// Connections open now, half-open ones among them.
    pub fn open_connections(&self) -> u64 {
        self.open
    }

    /// Which sizes request and response of a flow's present round have, and what that makes in
    /// bytes of payload.
    #[inline]
    fn lengths(&self, flow: u32, kind: Kind, rounds: u16) -> (Lengths, [usize; 2]) {
        let first = (flow as usize + usize::from(rounds)) % self.sizes;
        let second = if first + 1 == self.sizes { 0 } else { first + 1 };
        let bytes = |side, size| self.templates.sized(side, kind.v6, kind.udp, size).payload_len() as u32;
        let lengths =
            Lengths { request: bytes(kind.opener, first), response: bytes(kind.opener.other(), second) };
        (lengths, [first, second])
    }

    fn isn(&self, flow: u32, generation: u16, role: Role) -> u32 {
        mix(u64::from(flow) << 20 ^ u64::from(generation) << 2 ^ role as u64 ^ self.seed.rotate_left(40))
            as u32
    }

    /// The frame that a visit to the next flows of this side begins.
    #[inline]
    fn visit(&mut self, from: Side, now: u64, counts: &mut Counts) -> Option<Pending> {
        for _ in 0..PASSES.min(self.flows.count()) {
            let flow = self.visits[from as usize];
            self.visits[from as usize] = if flow + 1 == self.flows.count() { 0 } else { flow + 1 };
            let kind = self.flows.kind(flow);
            if kind.opener != from {
                continue;
            }
            let turn =
                if kind.udp { self.ask(flow, kind, now, counts) } else { self.turn(flow, kind, now, counts) };
            if turn.is_some() {
                return turn;
            }
        }
        None
    }

    /// A turn of a TCP connection.
    #[inline]
    fn turn(&mut self, flow: u32, kind: Kind, now: u64, counts: &mut Counts) -> Option<Pending> {
        let tick = (now >> TICK_BITS) as u16;
        let mut connection = self.connections[flow as usize];
        let is_late = (tick.wrapping_sub(connection.deadline) as i16) >= 0;
        let (lengths, [size, _]) = self.lengths(flow, kind, connection.rounds);
        let count = &mut counts.connections;
        let answer = match connection.opener() {
            Opener::Closed => {
                if !connection.is_closed() {
                    if !is_late {
                        return None;
                    }
                    // The other end still waits for the last ACK, which is lost.
                    connection.abandon();
                    self.connections[flow as usize] = connection;
                    count.failed += 1;
                    self.open -= 1;
                }
                if self.left == 0 {
                    return None;
                }
                count.opened += 1;
                (self.left, self.open) = (self.left - 1, self.open + 1);
                connection.open(self.isn(flow, connection.generation.wrapping_add(1), Role::Opener))
            }
            Opener::Idle => {
                self.turns += 1;
                let renews = self.renew > 0 && (mix(self.turns ^ self.seed) >> 32) < self.renew;
                let close = renews || self.requests > 0 && connection.rounds >= self.requests;
                count.requests += u64::from(!close);
                connection.turn(close, &lengths)
            }
            Opener::SynSent | Opener::Asked | Opener::FinSent if is_late => {
                let again = connection.retry(&lengths);
                if again.is_some() {
                    count.retransmits += 1;
                } else {
                    count.failed += 1;
                    self.open -= 1;
                }
                again
            }
            Opener::SynSent | Opener::Asked | Opener::FinSent => return None,
        };
        connection.deadline = tick.wrapping_add(self.timeout);
        self.connections[flow as usize] = connection;
        answer.map(|answer| Pending { flow, answer, size })
    }

    /// A turn of a flow of datagrams: the next request.
    #[inline]
    fn ask(&mut self, flow: u32, kind: Kind, now: u64, counts: &mut Counts) -> Option<Pending> {
        let tick = (now >> TICK_BITS) as u16;
        let connection = &mut self.connections[flow as usize];
        if connection.opener() == Opener::Asked {
            if (tick.wrapping_sub(connection.deadline) as i16) < 0 {
                return None;
            }
            counts.connections.timeouts += 1;
        }
        self.turns += 1;
        let renews = self.renew > 0 && (mix(self.turns ^ self.seed) >> 32) < self.renew;
        if renews || self.requests > 0 && connection.rounds >= self.requests {
            connection.generation = connection.generation.wrapping_add(1);
            connection.rounds = 0;
        }
        connection.ask();
        connection.deadline = tick.wrapping_add(self.timeout);
        counts.connections.requests += 1;
        let rounds = connection.rounds;
        let (_, [size, _]) = self.lengths(flow, kind, rounds);
        let answer = Answer { role: Role::Opener, tcp: Tcp::default(), payload: true };
        Some(Pending { flow, answer, size })
    }

    /// Builds a frame of a flow.
    #[inline]
    fn build<F: Writable>(&mut self, pending: &Pending, initiated: bool, frame: &mut F) -> Option<Built> {
        let Pending { flow, answer, size } = *pending;
        let kind = self.flows.kind(flow);
        let connection = &mut self.connections[flow as usize];
        let from = if answer.role == Role::Opener { kind.opener } else { kind.opener.other() };
        let number = connection.number(answer.role);
        let ends = self.flows.of(flow, kind.opener, u32::from(connection.generation));
        let template = match answer.payload {
            true => self.templates.sized(from, kind.v6, kind.udp, size),
            false => self.templates.bare(from, kind.v6, kind.udp),
        };
        let sequence = u32::from(number);
        let tag =
            Tag { epoch: self.epoch, class: Class::Flow, from, flow, sequence, stamp: cycles() }.bytes();
        let id = u16::from_be_bytes([self.epoch, number]);
        let fits = template.write(frame, &ends, id, answer.tcp, answer.payload.then_some(&tag));
        let length = template.len() as u16 + FCS;
        fits.then_some(Built { class: Class::Flow, from, initiated, length })
    }

    /// Builds a frame that belongs to no connection.
    #[cold]
    fn build_other<F: Writable>(&mut self, class: Class, from: Side, frame: &mut F) -> Option<Built> {
        let built = |length: usize| Built { class, from, initiated: true, length: length as u16 + FCS };
        if class == Class::Hostile {
            return self.hostile.write(from, frame).map(built);
        }
        let number = self.others;
        self.others += 1;
        let flow = (number % u64::from(self.flows.count())) as u32;
        let kind = self.flows.kind(flow);
        let (ends, udp) = match class {
            Class::Denied => (self.flows.denied(flow, from), kind.udp),
            _ => (self.flows.flood(number, self.seed, from), false),
        };
        let sequence = (number & 0xFF_FFFF) as u32;
        let tag = Tag { epoch: self.epoch, class, from, flow, sequence, stamp: cycles() }.bytes();
        let said = Tcp { sequence: number as u32, acknowledgment: 0, flags: flags::SYN };
        let template = if udp {
            self.templates.sized(from, kind.v6, true, 0)
        } else {
            self.templates.bare(from, kind.v6, false)
        };
        let id = u16::from_be_bytes([self.epoch, number as u8]);
        template.write(frame, &ends, id, said, udp.then_some(&tag)).then(|| built(template.len()))
    }

    /// A frame of a flow has arrived.
    #[inline]
    fn arrive(&mut self, found: &Found, arrival: &Arrival, length: u64, now: u64, counts: &mut Counts) {
        let (flow, from) = (found.flow, arrival.from);
        let kind = self.flows.kind(flow);
        if (kind.v6, kind.udp, kind.opener) != (arrival.v6, arrival.udp, found.opener) {
            counts.unexpected.foreign += 1;
            return;
        }
        let [epoch, number] = arrival.id.to_be_bytes();
        if epoch != self.epoch {
            counts.unexpected.stale += 1;
            return;
        }
        if let Some(tag) = Tag::read(arrival.payload) {
            counts.note_latency(tag.age(now));
        }
        let role = if from == kind.opener { Role::Opener } else { Role::Responder };
        let mut connection = self.connections[flow as usize];
        let tally = counts.of(Class::Flow, from);
        tally.received += 1;
        tally.received_bytes += length;
        match connection.note(role, number) {
            Order::Ahead => {}
            Order::Late => tally.reordered += 1,
            Order::Duplicate => tally.duplicates += 1,
        }
        // What comes of an earlier connection is counted, and no more.
        if u32::from(connection.generation) % self.flows.generations() == found.generation {
            let answer = if kind.udp {
                answer_datagram(&mut connection, role, counts)
            } else {
                self.answer_segment(&mut connection, flow, kind, role, arrival, counts)
            };
            if let Some(answer) = answer {
                let rounds = connection.rounds;
                let (_, sizes) = self.lengths(flow, kind, rounds);
                let size = sizes[answer.role as usize];
                let side = if answer.role == Role::Opener { kind.opener } else { kind.opener.other() };
                self.answers[side as usize].push_back(Pending { flow, answer, size });
            }
        }
        self.connections[flow as usize] = connection;
    }

    fn answer_segment(
        &mut self,
        connection: &mut Connection,
        flow: u32,
        kind: Kind,
        from: Role,
        arrival: &Arrival,
        counts: &mut Counts,
    ) -> Option<Answer> {
        let segment = Segment { tcp: arrival.tcp, length: arrival.payload.len() as u32 };
        let isn = self.isn(flow, connection.generation, Role::Responder);
        let (lengths, _) = self.lengths(flow, kind, connection.rounds);
        let (event, answer) = connection.arrive(from.other(), &segment, isn, &lengths);
        let count = &mut counts.connections;
        match event {
            Event::None => {}
            Event::Established => count.established += 1,
            Event::Answered => count.responses += 1,
            Event::Closed => {
                count.closed += 1;
                self.open -= 1;
            }
            Event::Reset => {
                count.reset += 1;
                self.open -= 1;
            }
        }
        answer
    }

    #[inline]
    fn take(&mut self, bytes: &[u8], at: Option<Side>, now: u64, counts: &mut Counts) {
        let length = bytes.len() as u64 + u64::from(FCS);
        let ours =
            self.layout.parse(bytes).and_then(|arrival| Some((self.flows.find(&arrival.ends)?, arrival)));
        if let Some((found, arrival)) = ours {
            if at == Some(arrival.from) {
                counts.unexpected.misdirected += 1;
            } else if found.class == Class::Flow && Hostile::read(bytes).is_none() {
                self.arrive(&found, &arrival, length, now, counts);
            } else {
                let class = if Hostile::read(bytes).is_some() { Class::Hostile } else { found.class };
                let tally = counts.of(class, arrival.from);
                tally.received += 1;
                tally.received_bytes += length;
            }
            return;
        }
        match Hostile::read(bytes) {
            None => counts.unexpected.foreign += 1,
            Some(from) if at == Some(from) => counts.unexpected.misdirected += 1,
            Some(from) => {
                let tally = counts.of(Class::Hostile, from);
                tally.received += 1;
                tally.received_bytes += length;
            }
        }
    }
}

fn answer_datagram(connection: &mut Connection, from: Role, counts: &mut Counts) -> Option<Answer> {
    match from {
        Role::Opener => Some(Answer { role: Role::Responder, tcp: Tcp::default(), payload: true }),
        Role::Responder => {
            counts.connections.responses += u64::from(connection.is_answered());
            None
        }
    }
}

impl Source for Stateful {
    #[inline]
    fn next<F: Writable>(
        &mut self,
        from: Side,
        initiate: bool,
        now: u64,
        frame: &mut F,
        counts: &mut Counts,
    ) -> Option<Built> {
        if let Some(pending) = self.answers[from as usize].pop_front() {
            return self.build(&pending, false, frame);
        }
        let opens = match self.from {
            From::Both => true,
            From::Inside => from == Side::Inside,
            From::Outside => from == Side::Outside,
        };
        if !initiate || !opens {
            return None;
        }
        let at = self.deal_at[from as usize];
        let class = self.deal[at];
        let built = if class == Class::Flow {
            let pending = self.visit(from, now, counts)?;
            self.build(&pending, true, frame)
        } else {
            self.build_other(class, from, frame)
        };
        self.deal_at[from as usize] = if at + 1 == self.deal.len() { 0 } else { at + 1 };
        built
    }

    #[inline]
    fn receive<F: Frame>(&mut self, at: Option<Side>, frames: &mut [F], now: u64, counts: &mut Counts) {
        for frame in frames.iter() {
            frame.prefetch(false);
        }
        let mut scratch = std::mem::take(&mut self.scratch);
        for frame in frames {
            let bytes = whole(frame, &mut scratch[..]);
            self.take(bytes, at, now, counts);
        }
        self.scratch = scratch;
    }

    fn has_room(&self) -> bool {
        self.answers.iter().all(|answers| answers.len() + engine::io::BURST <= ANSWERS)
    }

    fn is_finished(&self) -> bool {
        self.ends && self.left == 0 && self.open == 0
    }

    fn begin(&mut self, epoch: u8) {
        self.epoch = epoch;
    }
}
