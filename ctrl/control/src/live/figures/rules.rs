//! What rules did, rule by rule.

use std::collections::BTreeMap;
use std::sync::Arc;

use engine::RuleId;
use stats::{Family, Kind};

use super::Sample;
use crate::compile::RuleNumbers;
use crate::model::{Key, Meaning, Policy, SecurityGroup};

/// A rule where it stands, with what its series are called.
struct Rule {
    meaning: Meaning,
    id: Arc<str>,
    position: Arc<str>,
    description: Arc<str>,
    number: Option<RuleId>,
}

impl Rule {
    /// What it would do, and what was done: packets.
    fn stage(&self, taken: &Sample, labels: &[Arc<str>; 3], family: &mut Family) {
        let mut sums = [[0; 2]; 2];
        for rules in taken.workers.iter().map(|met| &met.counters.rules) {
            let Some(number) = self.number else { continue };
            let differing = rules.differing(number);
            let would = [rules.opened(number), rules.denied(number)];
            for (sum, (all, differing)) in sums.iter_mut().zip(would.into_iter().zip(differing)) {
                sum[0] += all.saturating_sub(differing);
                sum[1] += differing;
            }
        }
        for (would, sum) in ["pass", "drop"].into_iter().zip(sums) {
            let other = if would == "pass" { "drop" } else { "pass" };
            for (verdict, count) in [would, other].into_iter().zip(sum) {
                let [project, group, id] = labels.clone();
                family.push([project, group, id, would.into(), verdict.into()], count);
            }
        }
    }
}

/// A group as it was when its rules were listed.
struct Group {
    group: Arc<SecurityGroup>,
    rules: Vec<Rule>,
}

/// The rules of all groups. A group that no change has touched is not listed again.
#[derive(Default)]
pub(super) struct Listed(BTreeMap<Key, Group>);

impl Listed {
    /// The policy is another one.
    pub fn update(&mut self, policy: &Policy, numbers: &RuleNumbers) {
        self.0.retain(|key, _| policy.security_groups.contains_key(key));
        for (key, group) in &policy.security_groups {
            let listed = self.0.entry(key.clone());
            let listed = listed.or_insert_with(|| Group { group: group.clone(), rules: rules(group) });
            if !Arc::ptr_eq(&listed.group, group) {
                *listed = Group { group: group.clone(), rules: rules(group) };
            }
            // A group's rules get their numbers when the first NIC has it.
            for rule in &mut listed.rules {
                rule.number = numbers.of(key, &rule.meaning);
            }
        }
    }

    pub fn families(&self, taken: &Sample) -> [Family; 4] {
        const RULE: &[&str] = &["project", "group", "rule_id"];
        let mut connections =
            Family::new("rule_connections", Kind::Counter, RULE, "Connections that the rule has let open.");
        let mut denied = Family::new(
            "rule_denied_packets",
            Kind::Counter,
            RULE,
            "Packets that the rule has denied, or would have where drops are only observed.",
        );
        let mut staged = Family::new(
            "rule_staged_packets",
            Kind::Counter,
            &["project", "group", "rule_id", "would", "verdict"],
            "Packets about which the staged rule would decide, by what it would do and what was done.",
        );
        let mut info = Family::new(
            "rule",
            Kind::Info,
            &["project", "group", "rule_id", "position", "description"],
            "Where the rule stands in its group, and its description.",
        );
        for (key, group) in &self.0 {
            for rule in &group.rules {
                let labels = [key.project.clone(), key.name.clone(), rule.id.clone()];
                if rule.meaning.staged {
                    rule.stage(taken, &labels, &mut staged);
                }
                let (mut opened, mut refused) = (0, 0);
                for counters in taken.workers.iter().map(|met| &met.counters) {
                    opened += rule.number.map_or(0, |number| counters.rules.opened(number));
                    refused += rule.number.map_or(0, |number| counters.rules.denied(number));
                }
                if !rule.meaning.staged {
                    connections.push(labels.clone(), opened);
                    denied.push(labels.clone(), refused);
                }
                let [project, group, id] = labels;
                info.push([project, group, id, rule.position.clone(), rule.description.clone()], 1);
            }
        }
        [connections, denied, staged, info]
    }
}

fn rules(group: &SecurityGroup) -> Vec<Rule> {
    let rule = |(position, rule): (usize, &crate::model::Rule)| {
        let meaning = rule.meaning();
        Rule {
            id: meaning.identity().to_string().into(),
            meaning,
            position: position.to_string().into(),
            description: rule.description.as_str().into(),
            number: None,
        }
    };
    group.rules.iter().enumerate().map(rule).collect()
}
