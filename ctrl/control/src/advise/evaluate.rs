//! What was seen, judged again: by the snapshot in force, and by those that changes would publish.

use std::collections::HashMap;

use engine::classify::{Query, RuleVerdict};
use engine::snapshot::Snapshot;
use engine::{NicSlot, RuleId};

use super::observed::{Opening, Openings};
use crate::api::types::Replayed;
use crate::commit::Committer;
use crate::model::Policy;

/// The openings, with the verdicts of now.
pub struct Evaluator {
    openings: Openings,
    /// Where a NIC's binding stands; the same in every snapshot that differs in rules alone.
    bindings: HashMap<NicSlot, usize>,
    /// By opening, whether the present rules let it pass.
    passes: Vec<bool>,
}

/// A policy as it would be in force.
pub struct Candidate {
    /// What would be published.
    pub snapshot: Box<Snapshot>,
    /// NICs whose inbound connections that would flush.
    pub flushes: usize,
}

/// Works a change out on a copy of the control side: what this publishes is what a commit would. `None` where it would be refused.
pub fn candidate(committer: &Committer, policy: Policy) -> Option<Candidate> {
    let mut committer = committer.clone();
    let prepared = committer.prepare(policy).ok()?;
    let flushes = prepared.plan.flushed.len();
    Some(Candidate { snapshot: committer.carry_out(prepared, 0).snapshot, flushes })
}

impl Evaluator {
    /// Of these openings under this snapshot.
    pub fn new(openings: Openings, present: &Snapshot) -> Evaluator {
        let bound = present.bindings().iter().enumerate().filter(|(_, binding)| !binding.is_gone());
        let bindings = bound.map(|(at, binding)| (binding.nic, at)).collect();
        let mut bench = Evaluator { openings, bindings, passes: Vec::new() };
        let passes =
            bench.openings.all.iter().map(|opening| bench.allowed_by(present, opening).is_some()).collect();
        bench.passes = passes;
        bench
    }

    /// The rule that lets it pass, and what that was asked.
    pub fn allowed_by(&self, snapshot: &Snapshot, opening: &Opening) -> Option<(RuleId, Query)> {
        let binding = snapshot.bindings().get(*self.bindings.get(&opening.nic)?)?;
        let judge = |query: Query| match snapshot.judge(binding, &query) {
            RuleVerdict::Allow(rule) => Some((rule, query)),
            RuleVerdict::Deny(_) | RuleVerdict::NoRule => None,
        };
        judge(opening.query).or_else(|| judge(opening.also?))
    }

    /// What each rule lets pass under a snapshot, with how often it was seen: told, and live.
    pub fn uses(&self, snapshot: &Snapshot) -> HashMap<RuleId, (Vec<Query>, [u64; 2])> {
        let mut uses: HashMap<RuleId, (Vec<Query>, [u64; 2])> = HashMap::new();
        for opening in self.openings.all.iter().filter(|opening| opening.passed) {
            if let Some((rule, query)) = self.allowed_by(snapshot, opening) {
                let (queries, [told, live]) = uses.entry(rule).or_default();
                queries.push(query);
                *told += opening.told;
                *live += opening.live;
            }
        }
        uses
    }

    /// What another snapshot would have made of what was seen of these NICs.
    pub fn replay(&self, then: &Snapshot, nics: impl IntoIterator<Item = NicSlot>) -> Replayed {
        let mut replayed = Replayed::default();
        for at in nics.into_iter().flat_map(|nic| self.openings.of(nic)) {
            let (opening, passes) = (&self.openings.all[at], self.passes[at]);
            // Whether it would pass today: what was decided under other rules is not this change's doing.
            if opening.passed != passes {
                continue;
            }
            let would_pass = self.allowed_by(then, opening).is_some();
            if passes {
                replayed.opened += opening.told;
                replayed.live += opening.live;
                replayed.would_deny += if would_pass { 0 } else { opening.told + opening.live };
            } else if would_pass {
                replayed.would_pass += opening.told;
            }
        }
        replayed
    }

    /// The NICs that anything was seen of.
    pub fn nics(&self) -> Vec<NicSlot> {
        self.openings.nics().collect()
    }
}
