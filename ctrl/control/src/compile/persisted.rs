//! The compiler's numbers as they are written down for the next process: connections bear those of their rules.

use std::collections::HashMap;
use std::sync::Arc;

use engine::{GroupId, RuleId, VpcId};
use serde::{Deserialize, Serialize};

use super::{Compiler, NamedRule, RuleNames};
use crate::model::{Identity, Key, Meaning};

/// All of them.
#[derive(Serialize, Deserialize)]
pub struct PersistedNumbers {
    groups: Vec<(Key, u32)>,
    vpcs: Vec<(Arc<str>, u32)>,
    rules: Vec<(u32, Meaning, u32)>,
    named: Vec<(Arc<str>, Identity)>,
}

impl Compiler {
    /// What the next process must know of it.
    pub fn to_persisted(&self) -> PersistedNumbers {
        let rule = |((group, meaning), id): (&(GroupId, Meaning), &RuleId)| (group.0, meaning.clone(), id.0);
        PersistedNumbers {
            groups: self.groups.iter().map(|(key, id)| (key.clone(), id.0)).collect(),
            vpcs: self.vpcs.iter().map(|(name, id)| (name.clone(), id.0)).collect(),
            rules: self.rules.iter().map(rule).collect(),
            named: self.named.iter().map(|named| (named.name.clone(), named.identity)).collect(),
        }
    }

    /// What was written, if no two have the same number.
    pub fn from_persisted(written: PersistedNumbers) -> Result<Compiler, String> {
        let PersistedNumbers { groups, vpcs, rules, named } = written;
        let is_dense = |numbers: &mut Vec<u32>, len: usize| {
            numbers.sort_unstable();
            numbers.len() == len && numbers.iter().enumerate().all(|(at, number)| *number == at as u32)
        };
        let mut of_groups: Vec<u32> = groups.iter().map(|(_, id)| *id).collect();
        let mut of_vpcs: Vec<u32> = vpcs.iter().map(|(_, id)| *id).collect();
        let groups: imbl::HashMap<Key, GroupId> =
            groups.into_iter().map(|(key, id)| (key, GroupId(id))).collect();
        let vpcs: HashMap<Arc<str>, VpcId> = vpcs.into_iter().map(|(name, id)| (name, VpcId(id))).collect();
        // The next number is how many there are.
        if !is_dense(&mut of_groups, groups.len()) || !is_dense(&mut of_vpcs, vpcs.len()) {
            return Err("numbers of groups or VPCs are not one each".to_owned());
        }
        let known = named.len() as u32;
        if rules.iter().any(|(group, _, id)| *id >= known || *group >= groups.len() as u32) {
            return Err("a rule has a number that nobody gave".to_owned());
        }
        let rules = rules.into_iter().map(|(group, meaning, id)| ((GroupId(group), meaning), RuleId(id)));
        let named = named.into_iter().map(|(name, identity)| NamedRule { name, identity });
        Ok(Compiler {
            groups,
            vpcs,
            rules: rules.collect(),
            named: RuleNames::from_iter(named),
            ..Compiler::default()
        })
    }
}
