//! Rules on trial, beside those that are enforced (semantics 3.9).

use super::{Policy, Query, Rule, RuleVerdict};
use crate::RuleId;
use crate::VpcId;
use crate::groups::Groups;

/// All rules of a list of groups as if the staged ones were enforced.
#[derive(PartialEq, Eq)]
pub struct Staged {
    pub(super) all: Policy,
    /// Those that are staged, in order.
    ids: Box<[RuleId]>,
}

impl Staged {
    /// `None` where no rule is staged.
    pub(super) fn compile(rules: &[&Rule]) -> Option<Box<Staged>> {
        let mut ids: Vec<RuleId> = rules.iter().filter(|rule| rule.staged).map(|rule| rule.id).collect();
        ids.sort_unstable();
        let all = || Policy::enforcing(rules.iter().copied());
        (!ids.is_empty()).then(|| Box::new(Staged { all: all(), ids: ids.into() }))
    }

    /// What [`Policy::judge`] would say if the staged rules were enforced.
    pub fn judge(&self, groups: &Groups, own: VpcId, query: &Query) -> RuleVerdict {
        self.all.judge(groups, own, query)
    }

    /// True if a rule is one of the staged.
    pub fn holds(&self, rule: RuleId) -> bool {
        self.ids.binary_search(&rule).is_ok()
    }
}
