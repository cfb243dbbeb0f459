//! The loop: receive, answer, send what is due. One thread polls all ports; nothing in here
//! allocates.

use std::time::Duration;

use engine::Side;
use engine::io::{BURST, Burst};

use crate::clock::{Clock, cycles};
use crate::count::Counts;
use crate::monitor::Monitor;
use crate::pace::Pacer;
use crate::plan::Rate;
use crate::port::{Port, Ports};
use crate::source::{Built, Source};

/// A part of a run that is measured by itself.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Phase {
    /// How fast.
    pub rate: Rate,
    /// What may be caught up with.
    pub catch_up: Duration,
    /// How long to send, at most.
    pub duration: Option<Duration>,
    /// Packets to send that are no answers, at most.
    pub count: Option<u64>,
    /// How long to receive afterwards.
    pub drain: Duration,
}

/// Why sending ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// The time was over.
    Duration,
    /// All was sent.
    Count,
    /// Nothing was left to do: all connections closed, or the capture at its end.
    Finished,
    /// Somebody asked for it.
    Stopped,
}

/// What a phase measured.
#[derive(Debug)]
pub struct Measured {
    /// What was counted.
    pub counts: Counts,
    /// Cycles from the first chance to send to the last.
    pub cycles: u64,
    /// Frames that the schedule had; `None` without a rate and a count.
    pub planned: Option<u64>,
    /// Frames skipped, since the generator was kept from its work.
    pub late: u64,
    /// Frames skipped, since the ports did not take them in time.
    pub blocked: u64,
    /// Why sending ended.
    pub ended: Ended,
}

/// How long, in drains, a port may take for what it was given before it is given up.
const PATIENCE: u32 = 10;
/// Full bursts that are received of a port before anything is sent: a ring of 1,024.
const DEEP: usize = 16;
/// Loops between two looks of the monitor.
const LOOK: u32 = 256;

/// Frames on their way into one port.
struct Lane<F: engine::io::Frame> {
    /// Built, and not yet taken.
    waiting: Burst<F>,
    built: Burst<Built>,
    /// Empty ones.
    spare: Burst<F>,
}

impl<F: engine::io::Frame> Lane<F> {
    fn new() -> Self {
        Lane { waiting: Burst::new(), built: Burst::new(), spare: Burst::new() }
    }

    /// Offers what waits, and counts what was taken.
    #[inline]
    fn offer<P: Port<Frame = F>>(&mut self, port: &mut P, counts: &mut Counts) {
        if self.waiting.is_empty() {
            return;
        }
        port.tx(&mut self.waiting);
        let taken = self.built.len() - self.waiting.len();
        for built in self.built.drain(..taken) {
            let tally = counts.of(built.class, built.from);
            tally.sent += 1;
            tally.sent_bytes += u64::from(built.length);
        }
        counts.refused += self.waiting.len() as u64;
    }
}

/// Both lanes and what they share while frames are built.
struct Sender {
    pacer: Pacer,
    left: u64,
    blocked: bool,
}

impl Sender {
    /// Builds up to `due` frames of a side, answers aside, and offers them.
    #[inline]
    fn send<P: Port, S: Source>(
        &mut self,
        (port, lane): (&mut P, &mut Lane<P::Frame>),
        source: &mut S,
        from: Side,
        mut due: u64,
        (now, counts): (u64, &mut Counts),
    ) {
        lane.offer(port, counts);
        if !lane.waiting.is_empty() {
            self.blocked = true;
            return;
        }
        due = due.min(self.left);
        while !lane.waiting.is_full() {
            if lane.spare.is_empty() && port.alloc(BURST, &mut lane.spare) == 0 {
                break;
            }
            let Some(mut frame) = lane.spare.pop() else { break };
            let Some(built) = source.next(from, due > 0, now, &mut frame, counts) else {
                lane.spare.push(frame);
                break;
            };
            lane.waiting.push(frame);
            lane.built.push(built);
            due -= u64::from(built.initiated);
            self.left -= u64::from(built.initiated);
            self.pacer.done();
        }
        lane.offer(port, counts);
    }
}

/// Drives a source over the ports, from the first frame to the end of the drain.
pub fn drive<P: Port, S: Source>(
    ports: &mut Ports<P>,
    source: &mut S,
    phase: &Phase,
    clock: &Clock,
    monitor: &Monitor,
) -> Measured {
    let mut counts = Counts::default();
    let is_pair = ports.is_pair();
    let mut lanes = [Lane::new(), Lane::new()];
    let lane_of = |side: Side| if is_pair { side as usize } else { 0 };
    let start = cycles();
    let pacer = Pacer::new(phase.rate, phase.catch_up, clock, start);
    let mut sender = Sender { pacer, left: phase.count.unwrap_or(u64::MAX), blocked: false };
    let deadline = phase.duration.map_or(u64::MAX, |time| start.saturating_add(clock.cycles_of(time)));
    let drain = clock.cycles_of(phase.drain);
    let (mut ended, mut last, mut drained, mut given_up) = (None, start, 0, 0);
    let mut order = [Side::Outside, Side::Inside];
    let mut received = Burst::new();
    let mut loops = 0u32;
    loop {
        for &side in ports.sides() {
            // What waits comes before what is sent: whoever is tested has to drop what a full ring
            // does not take.
            for _ in 0..DEEP {
                if !source.has_room() {
                    break;
                }
                let port = ports.at(side);
                port.rx(&mut received);
                let is_full = received.is_full();
                if !received.is_empty() {
                    source.receive(is_pair.then_some(side), &mut received, cycles(), &mut counts);
                    port.free(&mut received);
                }
                if !is_full {
                    break;
                }
            }
        }
        let now = cycles();
        if ended.is_none() {
            ended = end(&sender, source, now >= deadline, monitor);
            if ended.is_some() {
                (last, drained, given_up) =
                    (now.min(deadline), now + drain, now + drain * u64::from(PATIENCE));
                // What was due since the last look, and will never be built, is told as well.
                sender.pacer.due(last, sender.blocked);
            }
        } else if now >= drained {
            if lanes.iter().all(|lane| lane.waiting.is_empty()) || now >= given_up {
                break;
            }
            drained = now + drain;
        }
        let due = if ended.is_none() { sender.pacer.due(now, sender.blocked) } else { 0 };
        sender.blocked = false;
        order.reverse();
        for from in order {
            let lane = &mut lanes[lane_of(from)];
            // The half for each side that has frames; a side without takes none of it.
            sender.send((ports.at(from), lane), source, from, due.min(due / 2 + 1), (now, &mut counts));
        }
        loops = loops.wrapping_add(1);
        if loops.is_multiple_of(LOOK) {
            look(monitor, &counts);
        }
    }
    look(monitor, &counts);
    for (lane, side) in lanes.iter_mut().zip([Side::Inside, Side::Outside]) {
        ports.at(side).free(&mut lane.spare);
        ports.at(side).free(&mut lane.waiting);
    }
    Measured {
        counts,
        cycles: last - start,
        planned: phase.count.or(sender.pacer.planned(last)),
        late: sender.pacer.late(),
        blocked: sender.pacer.blocked(),
        ended: ended.unwrap_or(Ended::Stopped),
    }
}

fn end<S: Source>(sender: &Sender, source: &S, is_over: bool, monitor: &Monitor) -> Option<Ended> {
    if monitor.is_stopped() {
        Some(Ended::Stopped)
    } else if sender.left == 0 {
        Some(Ended::Count)
    } else if source.is_finished() {
        Some(Ended::Finished)
    } else {
        is_over.then_some(Ended::Duration)
    }
}

#[cold]
fn look(monitor: &Monitor, counts: &Counts) {
    let (total, admitted) = (counts.total(), counts.admitted());
    monitor.note(total.sent, total.received, admitted.lost());
}
