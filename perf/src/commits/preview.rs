//! A dry run over very many connections: how long it takes, and what it takes from the worker.

use std::path::Path;
use std::time::Duration;

use control::document::{Limits, RuleEdit, RuleSelector, edit_rule};
use control::live::{Author, Change, Edit, Target};
use control::model::{Key, Policy};
use engine::Side;

use super::rig::{Lap, Rig, Setup};
use super::world::{Flow, Size, open};

/// What is measured.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// The policy.
    pub size: Size,
    /// Connections; all of them send all the time.
    pub connections: u32,
    /// Dry runs.
    pub rounds: u32,
    /// How long the worker is watched between two of them.
    pub calm: Duration,
    /// How it runs.
    pub setup: Setup,
}

/// One dry run.
pub struct Round {
    /// How long it took.
    pub took: Duration,
    /// How many connections it said that the change disconnects.
    pub disconnected: u64,
    /// The worker before it, and during it.
    pub laps: [Lap; 2],
}

/// Measures; the store is in `directory`.
pub fn run(plan: &Plan, directory: &Path) -> Vec<Round> {
    let rig = Rig::new(plan.setup, directory);
    rig.load(&plan.size.document());
    let flows: Vec<_> = (0..plan.connections).map(|n| Flow::inbound(n, n % plan.size.nics)).collect();
    let [inside, outside] = open(&rig, &flows);
    rig.play(Side::Inside, inside);
    rig.play(Side::Outside, outside);
    std::thread::sleep(plan.calm);
    let round = |_| {
        rig.lap();
        std::thread::sleep(plan.calm);
        let before = rig.lap();
        let change = Change::new(Target::Edited(no_ssh()), Author::client("perf"));
        let (receipt, took) = rig.change(Change { dry_run: true, ..change });
        Round { took, disconnected: receipt.disconnected, laps: [before, rig.lap()] }
    };
    (0..plan.rounds).map(round).collect()
}

fn no_ssh() -> Edit {
    Box::new(|policy: &Policy| {
        Ok(edit_rule(
            policy,
            &Key::in_default("everyone"),
            &RuleEdit::Delete(RuleSelector::Position(0)),
            &Limits::default(),
        )?)
    })
}
