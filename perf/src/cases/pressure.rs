//! What happens seldom and must stay cheap all the same: fragments, floods, a full table, a flush
//! of everybody.

use control::commit::Committer;
use control::config::Config;
use control::document::parse_policy;
use engine::Reason;
use engine::snapshot::Snapshot;

use super::{Figure, Runs, establish, established_rig, passes};
use crate::bare::Calibration;
use crate::floor::median;
use crate::memory::{Load, shuffled};
use crate::rig::{LIMITS, Rig, compile, shard_config};
use crate::world::{Kind, World};

/// Frames a side that are timed by themselves, right after a flush.
const RIGHT_AFTER: usize = 32_768;

/// Datagrams in two fragments each, the first before the other: half of the packets are
/// `established`, half `fragment`.
pub fn fragments(world: &World, flows: u32, runs: Runs) -> Figure {
    let mut rig = Rig::with(compile(&world.policy()), shard_config((flows * 2).max(1024)));
    let opening: Vec<u32> = (0..flows).collect();
    let questions = world.frames(Kind::UdpQuestion, 0, flows);
    rig.play(None, Some(Load { pool: &questions, order: &opening }), flows as usize);
    assert_eq!(rig.count(Reason::New), u64::from(flows));
    let pool = world.fragments(0, flows);
    let order: Vec<u32> = shuffled(0..flows, 1).iter().flat_map(|pair| [2 * pair, 2 * pair + 1]).collect();
    let load = Some(Load { pool: &pool, order: &order });
    let frames = runs.frames / 2 * 2;
    let mut calibration = Calibration::new();
    let (before, sent) = (rig.count(Reason::Established), rig.sent());
    let (mut engine, mut calib) = (Vec::new(), Vec::new());
    rig.play(None, load, frames);
    for _ in 0..runs.runs {
        engine.push(rig.play(None, load, frames).engine());
        calib.push(calibration.run());
    }
    let split = rig.split(None, load, frames);
    let played = (runs.runs + 2) as u64 * frames as u64;
    assert_eq!(rig.count(Reason::Established) - before, played / 2, "every first one counts as established");
    assert_eq!(rig.count(Reason::Fragment), played / 2, "every other one as a fragment");
    assert_eq!(rig.sent() - sent, played, "and all leave");
    Figure { engine: median(&engine), bare: None, passes: passes(&split), calib: median(&calib) }
}

/// SYNs at a table full of unconfirmed connections: each takes the oldest one's place.
pub fn syn_flood(world: &World, capacity: u32, runs: Runs) -> Figure {
    let mut rig = Rig::with(compile(&world.policy()), shard_config(capacity));
    let sources = 4 * capacity;
    let syns = world.frames(Kind::Syn, 0, sources);
    let order = shuffled(0..sources, 7);
    let mut slices = order.chunks(runs.frames).cycle();
    let mut play = |rig: &mut Rig, split| {
        let order = slices.next().unwrap_or(&[]);
        let load = Some(Load { pool: &syns, order });
        if split { rig.split(None, load, order.len()) } else { rig.play(None, load, order.len()) }
    };
    while rig.shard().len() < capacity {
        play(&mut rig, false);
    }
    let mut calibration = Calibration::new();
    let (mut engine, mut calib, mut played) = (Vec::new(), Vec::new(), 0);
    let before = rig.count(Reason::New);
    for _ in 0..runs.runs {
        let cycles = play(&mut rig, false);
        played += cycles.frames;
        engine.push(cycles.engine());
        calib.push(calibration.run());
    }
    assert_eq!(rig.count(Reason::New) - before, played, "every one is accepted");
    assert_eq!(rig.shard().len(), capacity);
    let split = play(&mut rig, true);
    Figure { engine: median(&engine), bare: None, passes: passes(&split), calib: median(&calib) }
}

/// SYNs at a table full of established connections: nothing may make room for them.
pub fn table_full(world: &World, capacity: u32, runs: Runs) -> Figure {
    let mut rig = established_rig(world, capacity, capacity);
    let sources = 1 << 18;
    let syns = world.frames(Kind::Syn, capacity, sources);
    let order = shuffled(0..sources, 8);
    let load = Some(Load { pool: &syns, order: &order });
    let sent = rig.sent();
    let mut calibration = Calibration::new();
    let (mut engine, mut calib) = (Vec::new(), Vec::new());
    for _ in 0..runs.runs {
        engine.push(rig.play(None, load, runs.frames).engine());
        calib.push(calibration.run());
    }
    let split = rig.split(None, load, runs.frames);
    assert_eq!(rig.count(Reason::TableFull), (runs.runs + 1) as u64 * runs.frames as u64);
    assert_eq!(rig.sent(), sent, "none leaves");
    assert_eq!(rig.shard().len(), capacity, "and no connection goes for them");
    Figure { engine: median(&engine), bare: None, passes: passes(&split), calib: median(&calib) }
}

/// What a flush costs the packets.
pub struct Flush {
    /// A packet's cycles before it, when it was established.
    pub before: f64,
    /// Cycles of each of the first 65,536 packets under the new snapshot.
    pub right_after: f64,
    /// Cycles a packet from there on, when every packet has found or finds itself disconnected.
    pub after: Figure,
}

/// Data both ways on `flows` connections, before and after a rule more in their NICs' group
/// disconnects them all.
pub fn flush(world: &World, flows: u32, runs: Runs) -> Flush {
    // The last rule of the group is yet to come.
    let world = &World { rules: world.rules - 1, ..*world };
    let pools = [world.frames(Kind::Answer, 0, flows), world.frames(Kind::Question, 0, flows)];
    let orders = [shuffled(0..flows, 1), shuffled(0..flows, 2)];
    let load = |side: usize, from: usize| Load { pool: &pools[side], order: &orders[side][from..] };
    let first = RIGHT_AFTER.min(flows as usize / 2);
    let rest = flows as usize - first;
    let (mut before, mut right_after, mut after) = (Vec::new(), Vec::new(), Vec::new());
    let (mut calibration, mut calib, mut split) = (Calibration::new(), Vec::new(), Vec::new());
    for run in 0..=runs.runs {
        let [now, next] = with_one_rule_more(world);
        let mut rig = Rig::with(now, shard_config(2 * flows));
        establish(&mut rig, world, flows);
        let play =
            |rig: &mut Rig, from, count| rig.play(Some(load(0, from)), Some(load(1, from)), count).engine();
        play(&mut rig, 0, flows as usize);
        before.push(play(&mut rig, 0, flows as usize));
        let sent = rig.sent();
        rig.publish(next);
        if run == runs.runs {
            split = passes(&rig.split(Some(load(0, 0)), Some(load(1, 0)), flows as usize));
        } else {
            right_after.push(play(&mut rig, 0, first));
            after.push(play(&mut rig, first, rest));
            calib.push(calibration.run());
        }
        assert_eq!(rig.count(Reason::Tombstone), 2 * u64::from(flows), "every connection is disconnected");
        assert_eq!(rig.sent(), sent, "and nothing of them leaves");
    }
    let after = Figure { engine: median(&after), bare: None, passes: split, calib: median(&calib) };
    Flush { before: median(&before), right_after: median(&right_after), after }
}

/// The snapshots of a policy, and of the one that follows it with one rule more.
fn with_one_rule_more(world: &World) -> [Box<Snapshot>; 2] {
    let mut committer = Committer::new(Config::default());
    [world.rules, world.rules + 1].map(|rules| {
        let policy = World { rules, ..*world }.policy();
        let parsed = parse_policy(&policy, "policy", &LIMITS).unwrap_or_else(|e| panic!("{e}"));
        let commit = committer.commit(parsed.policy, 0).unwrap_or_else(|e| panic!("{e}"));
        commit.unwrap_or_else(|| panic!("nothing changes")).snapshot
    })
}
