//! What happens in a run: drawn from the seed alone, before anything runs, so that any part of it
//! can be left out again.

use std::fmt;
use std::rc::Rc;
use std::sync::Arc;

use control::config::{Config, parse_config};
use control::document::parse_policy;
use control::model::Policy;
use engine::Side;

use crate::rng::Rng;
use crate::sim::Steering;
use crate::traffic::{Arrival, Event, Traffic};

/// One thing that happens.
#[derive(Clone)]
pub(super) enum Op {
    /// The clock moves on.
    Wait(u64),
    /// A frame arrives at a port.
    Frame(Rc<Arriving>),
    /// A worker is polled once.
    Poll(usize),
    /// All are polled until nothing moves.
    Settle,
    /// The control side commits and publishes; the workers get to know when they are polled.
    Commit(Rc<Change>),
    /// The control side goes so many generations back.
    Rollback(u32),
    /// The workers are polled until they have acknowledged what was published: now the change has
    /// returned.
    Acknowledge,
    /// A port's queue yields at most so many frames a call; 0 for a whole burst.
    Burst(usize, Side, usize),
    /// A port's queue refuses the next so many frames.
    Refuse(usize, Side, usize),
    /// A worker goes to sleep: offline for the publisher, polled by nobody.
    Park(usize),
    /// It is back.
    Wake(usize),
    /// Tables, counters and memory are looked through.
    Check,
}

/// A frame, and how the device brings it.
pub(super) struct Arriving {
    pub arrival: Arrival,
    /// In segments of so many bytes.
    pub segments: Option<usize>,
    /// With the first tag beside the data.
    pub stripped: bool,
}

/// A policy to be committed.
pub(super) struct Change {
    pub policy: Arc<Policy>,
    pub document: String,
    pub what: &'static str,
}

/// The world of a run.
#[derive(Clone)]
pub(super) struct Setup {
    pub config: Config,
    pub config_text: String,
    pub workers: usize,
    pub ring: usize,
    pub steering: Steering,
    /// The table is too small: one frame at a time, so that it can be told what each gave up.
    pub pressure: bool,
    /// Some frames are tunnels, as long as the policy has a VNI.
    pub tunnels: bool,
}

/// Setup and events.
pub(super) struct Plan {
    pub setup: Setup,
    pub ops: Vec<Op>,
    /// Documents that were refused.
    pub refused: u64,
}

/// Who is polled when; it changes in the course of a run.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Mood {
    /// All of them after every event.
    Eager,
    /// Any one, after every event.
    One,
    /// Any one, now and then.
    Lazy,
    /// All but this one.
    Starve(usize),
    /// Nobody, until the mood changes.
    Hold,
}

/// Events of a run, about: with polls and waits there are three times as many.
const EVENTS: usize = 150;

pub(super) fn plan(seed: u64) -> Plan {
    let mut traffic = Traffic::new(seed);
    let rng = &mut Rng::new(seed ^ 0x5eed_5eed_5eed_5eed);
    let config = traffic.config();
    let setup = setup(rng, &config, traffic.policy().contains("vni:"));
    let mut draw = Draw { mood: Mood::Eager, ops: vec![], refused: 0, setup, parked: None };
    if draw.change(&traffic.policy(), "the first policy") {
        draw.ops.push(Op::Acknowledge);
        for _ in 0..EVENTS + rng.below(2 * EVENTS) {
            draw.event(rng, &mut traffic);
        }
    }
    Plan { setup: draw.setup, ops: draw.ops, refused: draw.refused }
}

fn setup(rng: &mut Rng, config: &str, tunnels: bool) -> Setup {
    let workers = rng.pick(&[1, 1, 2, 2, 3, 4, 5, 8]);
    let pressure = rng.one_in(4);
    let (capacity, share) = if pressure {
        (
            rng.pick(&[1, 2, 3, 6, 12, 25]) * workers + rng.below(workers),
            rng.pick(&["0.1", "0.3", "0.5", "1.0"]),
        )
    } else {
        (4096, rng.pick(&["0.5", "1.0"]))
    };
    let mut conntrack = format!("capacity = {capacity}\nunconfirmed_share = {share}\n");
    if rng.one_in(8) {
        conntrack += &format!("pickup_grace = {}\n", rng.pick(&["1.5", "10", "60"]));
    }
    let text = config.replace("capacity = 4096\nunconfirmed_share = 1.0\n", &conntrack);
    Setup {
        config: parse_config(&text, "config").unwrap_or_else(|e| panic!("{e}\n{text}")),
        config_text: text,
        workers,
        ring: rng.pick(&[1, 2, 4, 16, 1024, 1024]),
        steering: rng.pick(&[Steering::Rss, Steering::Wrong, Steering::RoundRobin]),
        pressure,
        tunnels,
    }
}

struct Draw {
    setup: Setup,
    mood: Mood,
    ops: Vec<Op>,
    refused: u64,
    parked: Option<usize>,
}

impl Draw {
    /// One event of the traffic, with what happens around it.
    fn event(&mut self, rng: &mut Rng, traffic: &mut Traffic) {
        if rng.one_in(15) {
            self.change_mood(rng);
        }
        match traffic.event() {
            Event::Policy(document, what) => {
                if self.change(&document, what) {
                    // Half of the changes are waited for; of the others workers hear in the course
                    // of their polls.
                    self.ops.extend(rng.one_in(2).then_some(Op::Acknowledge));
                } else {
                    traffic.refuse();
                }
            }
            Event::Frame(mut arrival) => {
                let wait_ns = std::mem::take(&mut arrival.wait_ns);
                self.ops.extend((wait_ns > 0).then_some(Op::Wait(wait_ns)));
                self.frame(rng, arrival);
            }
        }
        self.disturb(rng);
        self.poll(rng);
    }

    /// False if the document is refused.
    fn change(&mut self, document: &str, what: &'static str) -> bool {
        let Ok(parsed) = parse_policy(document, "policy", &self.setup.config.policy.limits) else {
            self.refused += 1;
            return false;
        };
        let (policy, document) = (Arc::new(parsed.policy), document.to_owned());
        self.ops.push(Op::Commit(Rc::new(Change { policy, document, what })));
        true
    }

    fn frame(&mut self, rng: &mut Rng, arrival: Arrival) {
        let tagged = arrival.frame.len() >= 18 && arrival.frame[12..14] == [0x81, 0x00];
        let stripped = tagged && rng.one_in(4);
        let segments = match rng.below(8) {
            // A driver's first segment has room for the addresses and the tag that goes back
            // between them and the rest.
            0 => Some(if stripped { 16 } else { 1 } + rng.below(60)),
            _ => None,
        };
        self.ops.push(Op::Frame(Rc::new(Arriving { arrival, segments, stripped })));
    }

    /// What is no traffic and no change.
    fn disturb(&mut self, rng: &mut Rng) {
        let worker = rng.below(self.setup.workers);
        let side = rng.pick(&[Side::Inside, Side::Outside]);
        match rng.below(300) {
            0..=4 => self.ops.push(Op::Rollback(1 + rng.below(4) as u32)),
            5 => self.ops.push(Op::Rollback(1 + rng.below(40) as u32)),
            6..=20 => self.ops.push(Op::Burst(worker, side, rng.pick(&[0, 1, 2, 3, 7]))),
            21..=26 => self.ops.push(Op::Refuse(worker, side, 1 + rng.below(5))),
            27..=31 if self.parked.is_none() => {
                self.parked = Some(worker);
                self.ops.push(Op::Park(worker));
            }
            32..=60 => {
                if let Some(worker) = self.parked.take() {
                    self.ops.push(Op::Wake(worker));
                }
            }
            61..=64 => self.ops.push(Op::Check),
            65 => self.ops.push(Op::Wait(rng.pick(&[1, 3, 30]) * 3_600_000_000_000)),
            66 if rng.one_in(3) => self.ops.push(Op::Wait(366 * 86_400_000_000_000)),
            67..=70 => self.ops.push(Op::Settle),
            _ => {}
        }
    }

    fn change_mood(&mut self, rng: &mut Rng) {
        if self.mood == Mood::Hold {
            self.ops.push(Op::Settle);
        }
        self.mood = match rng.below(8) {
            0 | 1 => Mood::Eager,
            2..=4 => Mood::One,
            5 => Mood::Lazy,
            6 => Mood::Starve(rng.below(self.setup.workers)),
            _ => Mood::Hold,
        };
    }

    fn poll(&mut self, rng: &mut Rng) {
        let one = rng.below(self.setup.workers);
        match self.mood {
            Mood::Eager => self.ops.push(Op::Settle),
            Mood::One => self.ops.push(Op::Poll(one)),
            Mood::Lazy if rng.one_in(4) => self.ops.push(Op::Poll(one)),
            Mood::Starve(worker) if worker != one => self.ops.push(Op::Poll(one)),
            _ => {}
        }
    }
}

impl fmt::Display for Setup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Setup { workers, ring, steering, pressure, config_text, .. } = self;
        let tight = if *pressure { ", one frame at a time" } else { "" };
        write!(f, "{workers} workers, rings of {ring}, {steering:?}{tight}\n{config_text}")
    }
}

impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Op::Wait(ns) => write!(f, "wait {} s", *ns as f64 / 1e9),
            Op::Frame(arriving) => {
                let Arriving { arrival, segments, stripped } = &**arriving;
                write!(f, "from {:?}: {}", arrival.side, arrival.what)?;
                if let Some(size) = segments {
                    write!(f, ", in segments of {size}")?;
                }
                f.write_str(if *stripped { ", its tag stripped" } else { "" })
            }
            Op::Poll(worker) => write!(f, "poll worker {worker}"),
            Op::Settle => f.write_str("poll all until nothing moves"),
            Op::Commit(change) => write!(f, "commit: {}", change.what),
            Op::Rollback(back) => write!(f, "roll back by {back}"),
            Op::Acknowledge => f.write_str("wait for the workers"),
            Op::Burst(worker, side, most) => write!(f, "worker {worker}, {side:?}: bursts of {most}"),
            Op::Refuse(worker, side, n) => write!(f, "worker {worker}, {side:?}: {n} frames will be refused"),
            Op::Park(worker) => write!(f, "park worker {worker}"),
            Op::Wake(worker) => write!(f, "wake worker {worker}"),
            Op::Check => f.write_str("look through everything"),
        }
    }
}
