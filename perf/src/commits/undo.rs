//! A change that disconnects everybody, taken back: who goes on, and who must not.

use std::path::Path;
use std::time::{Duration, Instant};

use control::document::{Limits, RuleEdit, RuleSelector, edit_rule};
use control::live::{Edit, Target};
use control::model::{Key, Policy};
use engine::Side;

use super::rig::{Rig, Setup};
use super::world::{Flow, Size, open};
use crate::memory::PoolFrame;

/// What is tried.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// The policy.
    pub size: Size,
    /// TCP connections.
    pub connections: u32,
    /// How it runs.
    pub setup: Setup,
}

/// What came of it.
#[derive(Clone, Copy, Debug)]
pub struct Outcome {
    /// Connections that an earlier change forbids, and the others.
    pub connections: [u64; 2],
    /// How many of the others passed both ways before the bad change, under it, and after it was
    /// taken back.
    pub passed: [u64; 3],
    /// Packets of the forbidden that passed after the change that forbids them, at any time. Must
    /// be none.
    pub forbidden_passed: u64,
    /// From the bad change's receipt to that of its rollback, what was tried in between included.
    pub bad_for: Duration,
    /// How long the two changes took.
    pub changes: [Duration; 2],
}

/// Tries it; the store is in `directory`.
pub fn run(plan: &Plan, directory: &Path) -> Outcome {
    let Plan { size, connections, setup } = *plan;
    let rig = Rig::new(setup, directory);
    rig.load(&size.document());
    let all = (0..connections).map(|n| Flow::inbound(n, n % size.nics));
    let is_forbidden = |flow: &Flow| {
        let nic = u32::from(flow.server.0) - u32::from(super::world::address(0));
        nic % size.groups == 0
    };
    let (forbidden, others): (Vec<_>, Vec<_>) = all.partition(is_forbidden);
    let frames = [open(&rig, &forbidden), open(&rig, &others)];
    let [forbidden_frames, frames] = &frames;

    let deny = "{direction: inbound, protocol: tcp, ports: 22, action: deny, priority: 1}";
    rig.apply(edit("g0", RuleEdit::Add(deny.to_owned())));
    let good = rig.live.generation();
    let mut forbidden_passed = packets(&rig, forbidden_frames);
    let before = both_ways(&rig, frames);

    let (_, bad) = rig.apply(edit("everyone", RuleEdit::Delete(RuleSelector::Position(0))));
    let begin = Instant::now();
    forbidden_passed += packets(&rig, forbidden_frames);
    let under_it = both_ways(&rig, frames);
    let (_, back) = rig.apply(Target::Generation(good));
    let bad_for = begin.elapsed();
    forbidden_passed += packets(&rig, forbidden_frames);
    let after = both_ways(&rig, frames);
    Outcome {
        connections: [forbidden.len() as u64, others.len() as u64],
        passed: [before, under_it, after],
        forbidden_passed,
        bad_for,
        changes: [bad, back],
    }
}

fn edit(group: &'static str, edit: RuleEdit) -> Target {
    let edit: Edit = Box::new(move |policy: &Policy| {
        Ok(edit_rule(policy, &Key::in_default(group), &edit, &Limits::default())?)
    });
    Target::Edited(edit)
}

/// Sends a packet of each connection each way; how many passed.
fn packets(rig: &Rig, [inside, outside]: &[Vec<PoolFrame>; 2]) -> u64 {
    rig.play_once(Side::Inside, inside.clone()) + rig.play_once(Side::Outside, outside.clone())
}

/// The same; of the two ways, the one that fewer passed.
fn both_ways(rig: &Rig, [inside, outside]: &[Vec<PoolFrame>; 2]) -> u64 {
    let passed = rig.play_once(Side::Inside, inside.clone());
    passed.min(rig.play_once(Side::Outside, outside.clone()))
}
