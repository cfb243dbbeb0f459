//! The cycle cases: what is set up, what is played, and what must have come of it for the figure to
//! count.

mod count;
mod named;
mod pressure;
pub mod watched;

use engine::Reason;
use engine::burst::Pass;

use crate::bare::{Bare, Calibration};
use crate::floor::median;
use crate::memory::{Load, Pool, shuffled};
use crate::rig::{Cycles, Rig, compile, shard_config};
use crate::world::{Kind, World};

pub use count::{COUNTED, count};
pub use named::{ALL, run_named};
pub use pressure::{Flush, flush, fragments, syn_flood, table_full};

/// Flows that are set up at a time, so that their handshakes take little memory.
const SLICE: u32 = 1 << 16;
/// Frames of each side's pool at least, where headers are to come from beyond the second-level
/// cache.
const COLD: u32 = 1 << 16;

/// How a case is measured.
#[derive(Clone, Copy, Debug)]
pub struct Runs {
    /// Interleaved runs of which the median counts.
    pub runs: usize,
    /// Frames a side and run.
    pub frames: usize,
}

/// One case's figures: medians over the runs.
#[derive(Clone, Debug, Default)]
pub struct Figure {
    /// Cycles a packet between receiving and sending.
    pub engine: f64,
    /// Cycles of a bare lookup in a table alike, taken in turn with it.
    pub bare: Option<f64>,
    /// Cycles a packet by pass, from a run of its own.
    pub passes: Vec<(&'static str, f64)>,
    /// The machine's state meanwhile.
    pub calib: f64,
}

impl Figure {
    /// As JSON.
    pub fn json(&self) -> serde_json::Value {
        let passes: serde_json::Map<_, _> =
            self.passes.iter().map(|(name, cycles)| ((*name).to_owned(), round(*cycles))).collect();
        serde_json::json!({
            "engine": round(self.engine),
            "bare": self.bare.map(round),
            "calib": round(self.calib),
            "passes": passes,
        })
    }
}

/// To a tenth: more digits say nothing.
pub fn round(cycles: f64) -> serde_json::Value {
    ((cycles * 10.0).round() / 10.0).into()
}

/// A rig whose table holds `flows` established connections, by handshakes through the engine.
pub fn established_rig(world: &World, flows: u32, capacity: u32) -> Rig {
    let mut rig = Rig::with(compile(&world.policy()), shard_config(capacity));
    establish(&mut rig, world, flows);
    rig
}

/// Handshakes of flows 0 … `flows`, each of which must become a connection.
fn establish(rig: &mut Rig, world: &World, flows: u32) {
    for first in (0..flows).step_by(SLICE as usize) {
        let count = SLICE.min(flows - first);
        let order: Vec<u32> = (0..count).collect();
        for kind in [Kind::Syn, Kind::SynAck, Kind::Ack] {
            let pool = world.frames(kind, first, count);
            let load = Some(Load { pool: &pool, order: &order });
            match kind {
                Kind::SynAck => rig.play(load, None, count as usize),
                _ => rig.play(None, load, count as usize),
            };
        }
    }
    assert_eq!(rig.count(Reason::New), u64::from(flows));
    assert_eq!(rig.shard().len(), flows);
}

/// Established packets both ways, in random order over `flows` flows; `cold` says that headers come
/// from beyond the second-level cache even where few flows would fit it.
pub fn established(world: &World, flows: u32, cold: bool, runs: Runs) -> Figure {
    let capacity = (flows * 2).max(1024);
    let mut rig = established_rig(world, flows, capacity);
    data_both_ways(&mut rig, world, (Kind::Question, Kind::Answer), flows, cold, runs)
}

/// The same with datagrams.
pub fn datagrams(world: &World, flows: u32, cold: bool, runs: Runs) -> Figure {
    let mut rig = Rig::with(compile(&world.policy()), shard_config((flows * 2).max(1024)));
    let order: Vec<u32> = (0..flows).collect();
    let (questions, answers) =
        (world.frames(Kind::UdpQuestion, 0, flows), world.frames(Kind::UdpAnswer, 0, flows));
    rig.play(None, Some(Load { pool: &questions, order: &order }), flows as usize);
    rig.play(Some(Load { pool: &answers, order: &order }), None, flows as usize);
    data_both_ways(&mut rig, world, (Kind::UdpQuestion, Kind::UdpAnswer), flows, cold, runs)
}

fn data_both_ways(
    rig: &mut Rig,
    world: &World,
    (question, answer): (Kind, Kind),
    flows: u32,
    cold: bool,
    Runs { runs, frames }: Runs,
) -> Figure {
    // A pool of few flows' frames is made as large by bringing each flow in several frames.
    let copies = if cold { COLD.div_ceil(flows).max(1) } else { 1 };
    let pool = |kind| repeated(world, kind, flows, copies);
    let (inside, outside) = (pool(answer), pool(question));
    let orders = [shuffled(0..flows * copies, 1), shuffled(0..flows * copies, 2)];
    let loads =
        (Some(Load { pool: &inside, order: &orders[0] }), Some(Load { pool: &outside, order: &orders[1] }));
    let lookups: Vec<u32> = shuffled(0..flows, 4);
    let with_bare = world.shape == crate::world::Shape::V4 && flows > 1 && !world.one_client;
    let mut bare = with_bare
        .then(|| Bare::new(world, &compile(&world.policy()), flows, (flows * 2).max(1024), &lookups));
    let mut calibration = Calibration::new();
    let (before, sent) = (rig.count(Reason::Established), rig.sent());
    let (mut engine, mut lookup, mut calib) = (Vec::new(), Vec::new(), Vec::new());
    rig.play(loads.0, loads.1, frames);
    for _ in 0..runs {
        engine.push(rig.play(loads.0, loads.1, frames).engine());
        if let Some(bare) = &mut bare {
            lookup.push(bare.run(frames));
        }
        calib.push(calibration.run());
    }
    let split = rig.split(loads.0, loads.1, frames);
    let played = (runs + 2) as u64 * 2 * frames as u64;
    assert_eq!(rig.count(Reason::Established) - before, played, "every frame counts as established");
    assert_eq!(rig.sent() - sent, played, "and leaves");
    Figure {
        engine: median(&engine),
        bare: with_bare.then(|| median(&lookup)),
        passes: passes(&split),
        calib: median(&calib),
    }
}

/// Frame `n` is of flow `n % flows`.
fn repeated(world: &World, kind: Kind, flows: u32, copies: u32) -> Pool {
    let one = world.frames(kind, 0, flows);
    if copies == 1 {
        return one;
    }
    let template = one.bytes(0).to_vec();
    Pool::new((flows * copies) as usize, &template, |n, frame| {
        frame.copy_from_slice(one.bytes(n % flows as usize));
    })
}

fn passes(split: &Cycles) -> Vec<(&'static str, f64)> {
    vec![
        ("rx", split.pass(Pass::Rx)),
        ("parse", split.pass(Pass::Parse)),
        ("resolve", split.pass(Pass::Resolve)),
        ("prefetch", split.pass(Pass::Prefetch)),
        ("judge", split.pass(Pass::Judge)),
        ("tx", split.pass(Pass::Tx)),
        ("upkeep", split.upkeep()),
    ]
}

/// Packets of random sources that nothing admits.
pub fn denied(world: &World, runs: Runs) -> Figure {
    let mut rig = Rig::with(compile(&world.policy()), shard_config(1024));
    let pool = world.denied(100_000);
    let order = shuffled(0..100_000, 5);
    let load = Some(Load { pool: &pool, order: &order });
    let mut calibration = Calibration::new();
    let (mut engine, mut calib) = (Vec::new(), Vec::new());
    for _ in 0..runs.runs {
        engine.push(rig.play(None, load, runs.frames).engine());
        calib.push(calibration.run());
    }
    let split = rig.split(None, load, runs.frames);
    assert_eq!(rig.count(Reason::NoRule), (runs.runs + 1) as u64 * runs.frames as u64);
    assert_eq!(rig.sent(), 0);
    Figure { engine: median(&engine), bare: None, passes: passes(&split), calib: median(&calib) }
}

/// SYNs of new flows into a table that holds `held` already, and has room.
pub fn new_connections(world: &World, held: u32, runs: usize) -> Figure {
    let a_run = 50_000;
    let all = (runs as u32 + 1) * a_run;
    let mut rig = established_rig(world, held, 2 * held + all);
    let syns = world.frames(Kind::Syn, held, all);
    let order = shuffled(0..all, 6);
    let mut calibration = Calibration::new();
    let (mut engine, mut calib) = (Vec::new(), Vec::new());
    let mut slices = order.chunks(a_run as usize);
    let mut split = Cycles::default();
    while let Some(order) = slices.next() {
        let load = Some(Load { pool: &syns, order });
        if slices.len() == 0 {
            split = rig.split(None, load, order.len());
            break;
        }
        engine.push(rig.play(None, load, order.len()).engine());
        calib.push(calibration.run());
    }
    assert_eq!(rig.count(Reason::New), u64::from(held + all));
    Figure { engine: median(&engine), bare: None, passes: passes(&split), calib: median(&calib) }
}
