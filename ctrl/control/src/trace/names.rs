//! What things are called at a generation: copies that share everything with what is in force.

use std::sync::Arc;

use engine::{Generation, NicSlot, RuleId};

use crate::commit::Committer;
use crate::compile::{NamedRule, RuleNames};
use crate::model::Policy;
use crate::registry::NicNames;

/// The names of one generation.
#[derive(Clone)]
pub struct NameTable {
    /// Which.
    pub generation: Generation,
    /// Its policy.
    pub policy: Policy,
    rules: RuleNames,
    nics: NicNames,
}

impl NameTable {
    /// Those of the present generation.
    pub fn of(committer: &Committer) -> NameTable {
        NameTable {
            generation: committer.generation(),
            policy: committer.policy().clone(),
            rules: committer.compiler().rules().clone(),
            nics: committer.registry().names.clone(),
        }
    }

    /// The same with another policy's words.
    pub fn with_policy(&self, policy: &Policy) -> NameTable {
        NameTable { policy: policy.clone(), ..self.clone() }
    }

    /// A NIC's name.
    pub fn nic(&self, slot: NicSlot) -> Option<Arc<str>> {
        self.nics.get(slot.0 as usize).cloned().flatten()
    }

    /// How a rule is called.
    pub fn rule(&self, rule: RuleId) -> Option<&NamedRule> {
        self.rules.get(rule.0 as usize)
    }

    /// How all rules are called.
    pub(super) fn rules(&self) -> &RuleNames {
        &self.rules
    }

    /// The rules that are called so, in the order of their numbers.
    pub(super) fn rules_that(&self, is_one: impl Fn(&NamedRule) -> bool) -> Box<[RuleId]> {
        let numbered = self.rules.iter().enumerate();
        numbered.filter(|(_, rule)| is_one(rule)).map(|(number, _)| RuleId(number as u32)).collect()
    }
}
