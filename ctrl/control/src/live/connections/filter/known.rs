//! Whether what a filter names is there: a slip of the pen must not look like a NIC without connections.

use super::Filter;
use crate::compile::RuleNames;
use crate::document::absent;
use crate::document::{ObjectKey, RuleSelector};
use crate::live::Live;
use crate::model::{Identity, Key, Policy};
use crate::similar_names::{listed, nearest, nearest_of};

/// What filters may name: copies that share everything with what is in force.
pub struct Known {
    policy: Policy,
    rules: RuleNames,
    workers: usize,
}

/// Something that a filter names and nothing has: one line, with names that are near.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NoSuchName(pub String);

impl Live {
    /// What there is now.
    pub fn known(&self) -> Known {
        let inner = self.inner();
        Known {
            policy: inner.committer.policy().clone(),
            rules: inner.committer.compiler().rules().clone(),
            workers: inner.workers.len(),
        }
    }
}

impl Filter {
    /// Refuses a NIC, VPC, rule or worker that is not there. A rule that is gone may have let in what is still listed, and is
    /// known. It takes a while where there are many names.
    pub fn check(&self, known: &Known) -> Result<(), NoSuchName> {
        let Known { policy, rules, workers } = known;
        if let Some(key) = self.nic.as_ref().filter(|key| !policy.nics.contains_key(*key)) {
            return Err(NoSuchName(format!("nic: no {}", absent(policy, &ObjectKey::Nic(key.clone())))));
        }
        if let Some(vpc) = self.vpc.as_deref().filter(|vpc| !policy.vpcs.contains_key(*vpc)) {
            return Err(NoSuchName(format!("vpc: no {}", absent(policy, &ObjectKey::Vpc(vpc.into())))));
        }
        if let Some(worker) = self.worker.filter(|worker| worker >= workers) {
            return Err(NoSuchName(format!("worker: no {worker}; allowed: 0 to {}", workers - 1)));
        }
        match &self.rule {
            Some(rule) => check_rule(rule, policy, rules),
            None => Ok(()),
        }
    }
}

/// Refuses a rule that is not there, and was not.
pub(crate) fn check_rule(asked: &str, policy: &Policy, rules: &RuleNames) -> Result<(), NoSuchName> {
    let identity = asked.parse::<Identity>();
    let is_it = |name: &str, id: Identity| identity.map_or(name == asked, |identity| identity == id);
    if rules.iter().any(|rule| is_it(&rule.name, rule.identity)) {
        return Ok(());
    }
    // Rules of a group that no NIC has are not compiled.
    let written = || policy.security_groups.values().flat_map(|group| &group.rules);
    if let Ok(identity) = identity {
        let ids = || written().map(|rule| rule.meaning().identity());
        if ids().any(|id| id == identity) {
            return Ok(());
        }
        let near = nearest(asked, ids().map(|id| id.to_string()).take(MOST_IDS));
        return Err(NoSuchName(format!("rule: no {asked}; {}", listed(&near))));
    }
    let place = asked.rsplit_once('#').and_then(|(group, place)| Some((Key::parse(group)?, place)));
    let place = place.and_then(|(group, place)| match place.parse() {
        Ok(RuleSelector::Position(at)) => Some((group, at)),
        _ => None,
    });
    let Some((key, at)) = place else {
        let allowed = "allowed: GROUP#POSITION, or a rule's id such as r-0123456789";
        return Err(NoSuchName(format!("rule: no {asked:?}; {allowed}")));
    };
    let near = match policy.security_groups.get(&key).map(|group| group.rules.len()) {
        Some(count) if at < count => return Ok(()),
        Some(0) => format!("the group {key} has no rules"),
        Some(count) => format!("the group has {key}#0 to {key}#{}", count - 1),
        None => {
            let groups = nearest_of(&policy.security_groups, &key);
            listed(&groups.iter().map(|group| format!("{group}#{at}")).collect::<Vec<_>>())
        }
    };
    Err(NoSuchName(format!("rule: no {asked}; {near}")))
}

/// Identities that are looked at for near ones.
const MOST_IDS: usize = 20_000;
