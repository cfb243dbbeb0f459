//! A suggestion as a change: what it makes of the policy, and how an operator makes it.

use serde_json::json;

use crate::document::{ObjectKey, remove};
use crate::export::{export_group, export_rule};
use crate::model::{Action, Identity, Key, Policy, Rule, SecurityGroup};

/// What is done to a group.
#[derive(Clone, Debug)]
pub enum Edit {
    /// A rule goes.
    Delete(Identity),
    /// Other rules stand in a rule's place.
    Replace(Identity, Vec<Rule>),
    /// The whole group goes.
    DeleteGroup,
}

impl Edit {
    /// The policy with it; `None` where it is not possible.
    pub fn of(&self, policy: &Policy, key: &Key) -> Option<Policy> {
        let (identity, rules) = match self {
            Edit::DeleteGroup => return remove(policy, &ObjectKey::SecurityGroup(key.clone())).ok(),
            Edit::Delete(identity) => (identity, &[][..]),
            Edit::Replace(identity, rules) => (identity, &rules[..]),
        };
        let mut group: SecurityGroup = (**policy.security_groups.get(key)?).clone();
        let place = group.rules.iter().position(|rule| rule.meaning().identity() == *identity)?;
        group.rules.splice(place..=place, rules.iter().cloned());
        let mut policy = policy.clone();
        policy.security_groups.insert(key.clone(), group.into());
        Some(policy)
    }

    /// The command that makes it.
    pub fn command(&self, key: &Key, group: Option<&SecurityGroup>) -> String {
        let named = |identity: &Identity| quoted(&format!("{key}#{identity}"));
        match (self, group) {
            (Edit::DeleteGroup, _) | (Edit::Replace(..), None) => {
                format!("portcullis group delete {}", quoted(&key.to_string()))
            }
            (Edit::Delete(identity), _) => format!("portcullis rule delete {}", named(identity)),
            (Edit::Replace(identity, rules), Some(group)) => match &rules[..] {
                [rule] => {
                    format!("portcullis rule set {} {}", named(identity), quoted(&export_rule(rule)))
                }
                _ => format!(
                    "printf %s {} | portcullis group set {} -",
                    quoted(&export_group(group).to_string()),
                    quoted(&key.to_string())
                ),
            },
        }
    }
}

/// The group as a document of its own.
pub fn document(group: &SecurityGroup) -> serde_json::Value {
    json!({ "security_groups": [export_group(group)] })
}

/// The commands that stage what the edit does: rules of a stronger priority that allow what would still be allowed, and one that denies
/// the rest of what the rule matches. Empty where there is no room for that.
pub fn trial(key: &Key, rule: &Rule, edit: &Edit, room: usize) -> Vec<String> {
    let narrow = match edit {
        Edit::Replace(_, rules) => &rules[..],
        Edit::Delete(_) => &[],
        Edit::DeleteGroup => return Vec::new(),
    };
    let is_possible = rule.action == Action::Allow
        && !rule.staged
        && narrow.len() < room
        && (narrow.is_empty() || rule.priority > 1);
    if !is_possible {
        return Vec::new();
    }
    let staged = |rule: &Rule| Rule { staged: true, description: String::new(), ..rule.clone() };
    let allowed = narrow.iter().map(|rule| Rule { priority: rule.priority - 1, ..staged(rule) });
    let rest = Rule { action: Action::Deny, ..staged(rule) };
    let add = |rule: Rule| {
        format!("portcullis rule add {} {}", quoted(&key.to_string()), quoted(&export_rule(&rule)))
    };
    allowed.chain([rest]).map(add).collect()
}

/// A word for a shell.
fn quoted(text: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_./:@".contains(c);
    if !text.is_empty() && text.chars().all(is_plain) {
        return text.to_owned();
    }
    format!("'{}'", text.replace('\'', "'\\''"))
}
