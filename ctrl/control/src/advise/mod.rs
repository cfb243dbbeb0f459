//! Advice: rules that could go, or could let in less, each suggestion tried on what was seen before it is shown.
//!
//! ```text
//! history of decisions ─┐                 ┌─ superfluous whatever comes (shadow) ─┐
//! live connections ─────┼─ openings seen ─┼─ much narrower (narrow) ──────────────┼─ as a change ─ replayed ─ shown
//! counters of rules ────┘                 └─ never hit ───────────────────────────┘
//! ```
//!
//! Suggestions build on each other: what is superfluous, narrow or unused is asked of the policy that the safe ones before leave. So of two
//! rules that stand in for each other one is named, and all safe ones together are safe.

mod change;
mod evaluate;
mod narrow;
mod observed;
mod shadow;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use engine::{NicSlot, RuleId};

use crate::api::types::{Advice, Advised, Decider, Replayed, Suggestion};
use crate::commit::Committer;
use crate::explain::in_words;
use crate::export::export;
use crate::model::{Action, Key, Meaning, Policy, Remote, Rule, SecurityGroup};
use change::{Edit, document, trial};
use evaluate::{Candidate, Evaluator, candidate};
use narrow::narrowest;
pub use observed::ObservedOpenings;
use shadow::redundancy;

/// What is asked.
#[derive(Clone, Debug)]
pub struct AdviceRequest {
    /// Of these groups; of all, if there are none.
    pub groups: Vec<Key>,
    /// What was not seen counts only if it was watched for since then, or for longer: seconds since 1970.
    pub watched_since: f64,
    /// So many suggestions at most.
    pub limit: usize,
    /// The policy that the safe ones leave is wanted, as a document.
    pub document: bool,
}

/// What a rule did.
#[derive(Clone, Copy, Debug, Default)]
pub struct RuleUse {
    /// Since when it is counted: seconds since 1970.
    pub since: Option<u64>,
    /// Connections, or those that it would have let open.
    pub opened: u64,
    /// Packets denied, or that it would have denied.
    pub denied: u64,
}

/// What is known of the traffic.
pub struct Evidence<'e> {
    /// Openings.
    pub seen: ObservedOpenings,
    /// The same in numbers, with how far back they go.
    pub told: crate::api::types::Seen,
    /// The number of a rule, if any NIC has had it.
    pub number: &'e dyn Fn(&Key, &Meaning) -> Option<RuleId>,
    /// What a rule did.
    pub did: &'e dyn Fn(RuleId) -> RuleUse,
    /// How many openings of the history a rule decided.
    pub told_by: HashMap<RuleId, u64>,
    /// The rules of live connections.
    pub held_by: HashSet<RuleId>,
}

/// What could be tidied up.
pub fn advise(committer: &Committer, evidence: Evidence<'_>, asked: &AdviceRequest, now: f64) -> Advice {
    let policy = committer.policy();
    let mut advice = Advice {
        generation: committer.generation().0,
        at: now,
        seen: evidence.told.clone(),
        watched_since: asked.watched_since,
        too_young: 0,
        too_briefly_seen: 0,
        suggestions: Vec::new(),
        more: false,
        together: Replayed::default(),
        document: None,
    };
    advice.seen.left_out = evidence.seen.left_out;
    let Some(present) = candidate(committer, policy.clone()) else { return advice };
    let Evidence { seen, number, did, told_by, held_by, .. } = evidence;
    let bench = Evaluator::new(seen.openings(), &present.snapshot);
    let mut adviser = Advisor {
        committer,
        asked,
        number,
        did,
        told_by,
        held_by,
        holders: holders(policy, committer),
        bench,
        left: policy.clone(),
        now,
        advice,
    };
    adviser.look_at_what_is_superfluous();
    // What is seen of a rule is what passes by it once those are gone.
    let left = candidate(committer, adviser.left.clone()).unwrap_or(present);
    adviser.look_at_what_was_seen(&left);
    let together = candidate(committer, adviser.left.clone());
    adviser.advice.document = asked.document.then(|| export(&adviser.left));
    adviser.advice.together =
        together.map(|then| adviser.bench.replay(&then.snapshot, adviser.bench.nics())).unwrap_or_default();
    adviser.advice
}

/// Who has a group: the NICs, and their lists of groups, each once.
#[derive(Default)]
struct Holders {
    nics: Vec<NicSlot>,
    lists: BTreeSet<Vec<Key>>,
}

fn holders(policy: &Policy, committer: &Committer) -> BTreeMap<Key, Holders> {
    let mut holders: BTreeMap<Key, Holders> = BTreeMap::new();
    for (key, nic) in &policy.nics {
        for group in &nic.security_groups {
            let held = holders.entry(group.clone()).or_default();
            held.nics.extend(committer.nic_slot(key));
            if !held.lists.contains(&nic.security_groups) {
                held.lists.insert(nic.security_groups.clone());
            }
        }
    }
    holders
}

struct Advisor<'a> {
    committer: &'a Committer,
    asked: &'a AdviceRequest,
    number: &'a dyn Fn(&Key, &Meaning) -> Option<RuleId>,
    did: &'a dyn Fn(RuleId) -> RuleUse,
    told_by: HashMap<RuleId, u64>,
    held_by: HashSet<RuleId>,
    holders: BTreeMap<Key, Holders>,
    bench: Evaluator,
    /// The policy that the safe suggestions leave.
    left: Policy,
    now: f64,
    advice: Advice,
}

/// A suggestion to be.
struct PendingSuggestion<'f> {
    kind: Advised,
    group: &'f SecurityGroup,
    /// The rule with its position in the policy in force.
    rule: Option<(usize, &'f Rule)>,
    why: String,
    by: Vec<Decider>,
    edit: Edit,
}

impl Advisor<'_> {
    /// The groups that are asked about and that a document has.
    fn groups(&self) -> Vec<std::sync::Arc<SecurityGroup>> {
        let is_asked = |key: &Key| self.asked.groups.is_empty() || self.asked.groups.contains(key);
        let groups = self.committer.policy().security_groups.values();
        groups.filter(|group| !group.implied && is_asked(&group.key)).cloned().collect()
    }

    fn is_full(&mut self) -> bool {
        self.advice.more |= self.advice.suggestions.len() >= self.asked.limit;
        self.advice.more
    }

    /// Rules that could go whatever comes.
    fn look_at_what_is_superfluous(&mut self) {
        for group in self.groups() {
            let Some(holders) = self.holders.get(&group.key) else {
                self.look_at_idle_group(&group);
                continue;
            };
            let (nics, lists) = (holders.nics.len(), holders.lists.clone());
            let lists: Vec<&Vec<Key>> = lists.iter().collect();
            for (position, rule) in group.rules.iter().enumerate() {
                let Some(there) = self.place_left(&group.key, rule) else { continue };
                let Some(found) = redundancy(&self.left, &group.key, there, &lists) else { continue };
                if self.is_full() {
                    return;
                }
                let by = found.by.iter().filter_map(|(key, at)| self.decider(key, *at)).collect();
                let whose = format!("for each of the {nics} NICs that have it");
                let (kind, why) = if found.is_shadowed {
                    let why = format!("other rules decide all that it matches before it does, {whose}");
                    (Advised::Shadowed, why)
                } else {
                    let why = format!("without it other rules decide the same, {whose}");
                    (Advised::Redundant, why)
                };
                let edit = Edit::Delete(rule.meaning().identity());
                let rule = Some((position, rule));
                self.suggest(PendingSuggestion { kind, group: &group, rule, why, by, edit });
            }
        }
    }

    /// A group that nobody is in.
    fn look_at_idle_group(&mut self, group: &SecurityGroup) {
        let names = |other: &SecurityGroup| {
            let mut rules = other.rules.iter();
            other.key != group.key && rules.any(|rule| rule.remote == Remote::Group(group.key.clone()))
        };
        // A rule that names it is warned of already.
        if self.left.security_groups.values().any(|other| names(other)) || self.is_full() {
            return;
        }
        let why = "no NIC is in the group, and no rule of another one names it".to_owned();
        let (kind, edit) = (Advised::NoMembers, Edit::DeleteGroup);
        self.suggest(PendingSuggestion { kind, group, rule: None, why, by: Vec::new(), edit });
    }

    /// Rules that did nothing, and those that let in more than was seen.
    fn look_at_what_was_seen(&mut self, left: &Candidate) {
        let uses = self.bench.uses(&left.snapshot);
        for group in self.groups() {
            for (position, rule) in group.rules.iter().enumerate() {
                let meaning = rule.meaning();
                if self.place_left(&group.key, rule).is_none() {
                    continue;
                }
                let Some(number) = (self.number)(&group.key, &meaning) else { continue };
                if !self.holders.contains_key(&group.key) {
                    continue;
                }
                if self.is_full() {
                    return;
                }
                let did = (self.did)(number);
                let found = match uses.get(&number) {
                    Some((seen, counts)) if !rule.staged => {
                        self.over_broad(&group, rule, (number, did), seen, *counts)
                    }
                    _ if did.opened == 0 && did.denied == 0 && !self.held_by.contains(&number) => {
                        self.never_hit(rule, did)
                    }
                    _ => None,
                };
                if let Some((kind, why, edit)) = found {
                    let rule = Some((position, rule));
                    self.suggest(PendingSuggestion { kind, group: &group, rule, why, by: Vec::new(), edit });
                }
            }
        }
    }

    fn never_hit(&mut self, rule: &Rule, did: RuleUse) -> Option<(Advised, String, Edit)> {
        let since = did.since? as f64;
        if since > self.asked.watched_since {
            self.advice.too_young += 1;
            return None;
        }
        let seconds = (self.now - since).max(0.0);
        let what = match (rule.staged, rule.action) {
            (true, _) => "would have decided nothing",
            (false, Action::Allow) => "has let no connection open",
            (false, Action::Deny) => "has denied no packet",
        };
        let why = format!("it {what} in the {seconds:.0} s for which it is counted");
        Some((Advised::NeverHit, why, Edit::Delete(rule.meaning().identity())))
    }

    fn over_broad(
        &mut self,
        group: &SecurityGroup,
        rule: &Rule,
        (number, did): (RuleId, RuleUse),
        seen: &[engine::classify::Query],
        [told, live]: [u64; 2],
    ) -> Option<(Advised, String, Edit)> {
        let is_there = |narrow: &Rule| {
            let is_same = |other: &&Rule| other.meaning() == narrow.meaning();
            self.left
                .security_groups
                .get(&group.key)
                .is_some_and(|left| left.rules.iter().any(|r| is_same(&r)))
        };
        let mut narrow = narrowest(rule, seen)?;
        narrow.retain(|narrow| !is_there(narrow));
        let rules = self.left.security_groups.get(&group.key)?.rules.len();
        if rules - 1 + narrow.len() > self.committer.config().policy.limits.rules_per_group {
            return None;
        }
        // All that the rule let open since it is counted is known, or what the history goes back to.
        let is_complete = self.told_by.get(&number).copied().unwrap_or_default() >= did.opened;
        let since = did.since? as f64;
        let watched = if is_complete { since } else { since.max(self.advice.seen.since) };
        if watched > self.asked.watched_since {
            self.advice.too_briefly_seen += 1;
            return None;
        }
        let opened = did.opened;
        let seconds = (self.now - watched).max(0.0);
        let why = format!(
            "it has let {opened} connections open since it is counted; what is known of the last {seconds:.0} s, {told} connections \
             that opened and {live} that live, takes no more than stands below"
        );
        let identity = rule.meaning().identity();
        let edit = if narrow.is_empty() { Edit::Delete(identity) } else { Edit::Replace(identity, narrow) };
        Some((Advised::OverBroad, why, edit))
    }

    /// Where a rule stands in the policy that is left.
    fn place_left(&self, key: &Key, rule: &Rule) -> Option<usize> {
        let meaning = rule.meaning();
        self.left.security_groups.get(key)?.rules.iter().position(|left| left.meaning() == meaning)
    }

    /// A rule that is left, by its name in the policy in force.
    fn decider(&self, key: &Key, place_left: usize) -> Option<Decider> {
        let meaning = self.left.security_groups.get(key)?.rules.get(place_left)?.meaning();
        let group = self.committer.policy().security_groups.get(key)?;
        let position = group.rules.iter().position(|rule| rule.meaning() == meaning)?;
        Some(Decider { rule: format!("{key}#{position}"), rule_id: meaning.identity().to_string() })
    }

    /// Tries it on what was seen, and shows it.
    fn suggest(&mut self, found: PendingSuggestion<'_>) {
        let PendingSuggestion { kind, group, rule, why, by, edit } = found;
        let key = &group.key;
        let Some(changed) = edit.of(self.committer.policy(), key) else { return };
        let after = changed.security_groups.get(key).cloned();
        let Some(then) = candidate(self.committer, changed) else { return };
        let nics = self.holders.get(key).map(|held| held.nics.clone()).unwrap_or_default();
        let replayed = self.bench.replay(&then.snapshot, nics);
        let is_unchanged = replayed.would_deny == 0 && replayed.would_pass == 0;
        // What lets pass something that was seen is not unused.
        if kind == Advised::NeverHit && !is_unchanged {
            return;
        }
        let safe = is_unchanged && self.advice.seen.left_out == 0;
        if safe && let Some(left) = edit.of(&self.left, key) {
            self.left = left;
        }
        let number = rule.and_then(|(_, rule)| (self.number)(key, &rule.meaning()));
        let did = number.map(self.did).unwrap_or_default();
        let narrow = match &edit {
            Edit::Replace(_, rules) => rules.iter().map(in_words).collect(),
            Edit::Delete(_) | Edit::DeleteGroup => Vec::new(),
        };
        let room = self.committer.config().policy.limits.rules_per_group.saturating_sub(group.rules.len());
        let has_trial = matches!(kind, Advised::NeverHit | Advised::OverBroad);
        let tried = rule.filter(|_| has_trial).map(|(_, rule)| trial(key, rule, &edit, room));
        self.advice.suggestions.push(Suggestion {
            kind,
            group: key.to_string(),
            rule: rule.map(|(position, _)| format!("{key}#{position}")),
            rule_id: rule.map(|(_, rule)| rule.meaning().identity().to_string()),
            rule_text: rule.map(|(_, rule)| in_words(rule)),
            why,
            since: did.since,
            connections: did.opened,
            denied: did.denied,
            by,
            narrow,
            replayed,
            safe,
            loosens: kind == Advised::NeverHit
                && rule.is_some_and(|(_, rule)| rule.action == Action::Deny && !rule.staged),
            flushes: then.flushes,
            command: edit.command(key, after.as_deref()),
            document: after.as_deref().map(document),
            trial: tried.unwrap_or_default(),
        });
    }
}
