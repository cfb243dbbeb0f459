//! What it costs to be seen, and to outlive the process: the same packets with nothing told, with
//! connections kept for the next process, with what the appliance remembers by itself, with every
//! connection counted, and with a flow log and a trace of one packet in a hundred on top.

use engine::conntrack::flow_accounting::FlowEvent;
use engine::ring::{Consumer, ring};
use engine::trace::{DecisionReader, Filter, Recorder, Watch, WatchReader, decisions, watch_set};

use testkit::persisted::Region;

use super::{SLICE, establish};
use crate::floor::median;
use crate::memory::{Load, Pool, shuffled};
use crate::rig::{Rig, compile, shard_config};
use crate::world::{Kind, World};

/// Records that a ring holds; as the appliance's.
const RING: usize = 16_384;
/// Tellings that a ring holds.
const TELLINGS: usize = 65_536;
/// Decisions a second; as the appliance's.
const DECISIONS: u32 = 10_000;

/// How much is told of the packets.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Seen {
    /// Counters alone, which are always there.
    Nothing,
    /// Nothing told, but connections in memory that outlives the process.
    Kept,
    /// The history of decisions.
    Decisions,
    /// And packets and bytes by connection.
    Connections,
    /// And a flow log, and a trace of one packet in a hundred.
    FlowLog,
}

/// All of them; the first is what the others are compared with.
pub const LEVELS: [Seen; 5] = [Seen::Nothing, Seen::Kept, Seen::Decisions, Seen::Connections, Seen::FlowLog];

impl Seen {
    /// As the figures name it.
    pub fn name(self) -> &'static str {
        match self {
            Seen::Nothing => "nothing",
            Seen::Kept => "kept",
            Seen::Decisions => "decisions",
            Seen::Connections => "connections",
            Seen::FlowLog => "flow-log",
        }
    }
}

/// What a level costs: medians over the runs.
#[derive(Clone, Copy, Debug)]
pub struct Cost {
    /// The level.
    pub seen: Seen,
    /// Cycles a packet between receiving and sending.
    pub engine: f64,
    /// To those with nothing told, run by run.
    pub ratio: f64,
}

/// A rig, and the rings that its worker tells into: they are emptied between plays.
struct Watched {
    rig: Rig,
    decisions: Option<DecisionReader>,
    trace: Option<WatchReader>,
    tellings: Option<Consumer<FlowEvent>>,
    cycles: Vec<f64>,
}

impl Watched {
    fn new(world: &World, seen: Seen, flows: u32, capacity: u32) -> Watched {
        let mut shard = shard_config(capacity);
        shard.count = matches!(seen, Seen::Connections | Seen::FlowLog);
        let (told, tellings) = (seen == Seen::FlowLog).then(|| ring(TELLINGS)).unzip();
        let memory = (seen == Seen::Kept).then(|| Region::new(capacity).memory());
        let mut rig = Rig::within(memory, compile(&world.policy()), shard, told);
        rig.touch();
        establish(&mut rig, world, flows);
        let mut watched = Watched { rig, decisions: None, trace: None, tellings, cycles: Vec::new() };
        watched.record(seen);
        watched
    }

    fn record(&mut self, seen: Seen) {
        let (told, read) =
            (!matches!(seen, Seen::Nothing | Seen::Kept)).then(|| decisions(RING, DECISIONS)).unzip();
        let mut recorder = Recorder::new(told);
        self.decisions = read;
        if seen == Seen::FlowLog {
            let all = Watch { filter: Filter::default(), one_in: 100, captures: false };
            let (watch_set, read) = watch_set(vec![all], 0, RING, 0);
            recorder.watch(Some(watch_set));
            self.trace = Some(read);
        }
        self.rig.record_by(recorder);
    }

    fn play(&mut self, inside: Option<Load<'_>>, outside: Option<Load<'_>>, count: usize) {
        self.cycles.push(self.rig.play(inside, outside, count).engine());
        if let Some(read) = &mut self.decisions {
            read.records.take(usize::MAX, drop);
        }
        if let Some(read) = &mut self.trace {
            read.records.take(usize::MAX, drop);
        }
        if let Some(read) = &mut self.tellings {
            read.take(usize::MAX, drop);
        }
    }
}

/// The cost of each of [`LEVELS`], taken in turn: established packets of `flows` connections, both
/// ways.
pub fn established(world: &World, flows: u32, runs: usize, frames: usize) -> Vec<Cost> {
    let pool = |kind| world.frames(kind, 0, flows);
    let (answers, questions): (Pool, Pool) = (pool(Kind::Answer), pool(Kind::Question));
    let orders = [shuffled(0..flows, 1), shuffled(0..flows, 2)];
    in_turn(
        world,
        flows,
        2 * flows,
        |watched, _| {
            let inside = Some(Load { pool: &answers, order: &orders[0] });
            let outside = Some(Load { pool: &questions, order: &orders[1] });
            watched.play(inside, outside, frames);
        },
        runs,
    )
}

/// The same of packets that open connections, beside `held` that there are.
pub fn new_connections(world: &World, held: u32, runs: usize) -> Vec<Cost> {
    let all = (runs as u32 + 1) * SLICE;
    let syns = world.frames(Kind::Syn, held, all);
    let order = shuffled(0..all, 6);
    let slices: Vec<&[u32]> = order.chunks(SLICE as usize).collect();
    in_turn(
        world,
        held,
        2 * held + all,
        |watched, run| {
            let load = Some(Load { pool: &syns, order: slices[run] });
            watched.play(None, load, slices[run].len());
        },
        runs,
    )
}

fn in_turn(
    world: &World,
    flows: u32,
    capacity: u32,
    mut play: impl FnMut(&mut Watched, usize),
    runs: usize,
) -> Vec<Cost> {
    let mut rigs = LEVELS.map(|seen| (seen, Watched::new(world, seen, flows, capacity)));
    for run in 0..=runs {
        for (_, watched) in &mut rigs {
            play(watched, run);
        }
    }
    // The first run warms up. A ratio is of two that were played one behind the other: what else
    // the machine did, it did to both.
    let nothing = rigs[0].1.cycles[1..].to_vec();
    rigs.into_iter()
        .map(|(seen, watched)| {
            let cycles = &watched.cycles[1..];
            let ratios: Vec<f64> =
                cycles.iter().zip(&nothing).map(|(cycles, nothing)| cycles / nothing).collect();
            Cost { seen, engine: median(cycles), ratio: median(&ratios) }
        })
        .collect()
}
