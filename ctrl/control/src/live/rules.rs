//! What each rule did, since when: `show rules`.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use engine::RuleId;
use engine::counters::EngineCounters;
use imbl::Vector;

use super::locking::block_in_place;
use super::views::behind;
use super::{Inner, Live};
use crate::api::types::{RuleFigures, Would};
use crate::commit::Committer;
use crate::compile::RuleNumbers;
use crate::explain::in_words;
use crate::model::{Key, Policy};

/// Since when rules are counted, by their numbers: seconds since 1970.
pub(super) type Since = Vector<u64>;

/// What is taken under the lock.
struct RuleSample {
    policy: Policy,
    numbers: RuleNumbers,
    counters: Vec<Arc<EngineCounters>>,
    since: Since,
}

impl Live {
    /// The rules of groups behind a name: of as many whole groups as it takes to list so many.
    pub fn rules_after(&self, after: Option<&Key>, limit: usize) -> Vec<RuleFigures> {
        self.rules_with("", after, limit)
    }

    /// Of them, those of groups with a text in their name.
    pub fn rules_with(&self, text: &str, after: Option<&Key>, limit: usize) -> Vec<RuleFigures> {
        let taken = self.inner().rules_taken();
        block_in_place(|| taken.list(text, after, limit))
    }
}

impl Inner {
    fn rules_taken(&self) -> RuleSample {
        RuleSample {
            policy: self.committer.policy().clone(),
            numbers: self.committer.compiler().numbers(),
            counters: self.workers.iter().map(|worker| worker.counters.clone()).collect(),
            since: self.rules_since.clone(),
        }
    }
}

/// Takes note that the rules which have no time yet are counted from now on.
pub(super) fn begin_counting(since: &mut Since, committer: &Committer) {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    for _ in since.len()..committer.compiler().rules().len() {
        since.push_back(now);
    }
}

impl RuleSample {
    fn list(&self, text: &str, after: Option<&Key>, limit: usize) -> Vec<RuleFigures> {
        let mut members: HashMap<&Key, usize> = HashMap::new();
        for group in self.policy.nics.values().flat_map(|nic| &nic.security_groups) {
            *members.entry(group).or_default() += 1;
        }
        let mut listed = Vec::new();
        let groups = behind(&self.policy.security_groups, after, usize::MAX);
        for group in groups.filter(|group| group.key.to_string().contains(text)) {
            if listed.len() >= limit {
                break;
            }
            for (at, rule) in group.rules.iter().enumerate() {
                let meaning = rule.meaning();
                let number = self.numbers.of(&group.key, &meaning);
                let told = |count: fn(&EngineCounters, RuleId) -> u64| {
                    number.map_or(0, |rule| self.counters.iter().map(|counters| count(counters, rule)).sum())
                };
                let opened = told(|counters, rule| counters.rules.opened(rule));
                let denied = told(|counters, rule| counters.rules.denied(rule));
                let would = rule.staged.then(|| Would {
                    pass: opened,
                    pass_dropped: told(|counters, rule| counters.rules.differing(rule)[0]),
                    drop: denied,
                    drop_passed: told(|counters, rule| counters.rules.differing(rule)[1]),
                });
                let enforced = |count: u64| if rule.staged { 0 } else { count };
                listed.push(RuleFigures {
                    rule: format!("{}#{at}", group.key),
                    rule_id: meaning.identity().to_string(),
                    group: group.key.to_string(),
                    rule_text: in_words(rule),
                    staged: rule.staged,
                    nics: members.get(&group.key).copied().unwrap_or_default(),
                    since: number.and_then(|rule| self.since.get(rule.0 as usize).copied()),
                    connections: enforced(opened),
                    denied: enforced(denied),
                    would,
                });
            }
        }
        listed
    }
}
