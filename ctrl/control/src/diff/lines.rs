//! A [`Diff`] line by line, down to the rules and to what differs of each object.

use std::collections::BTreeMap;
use std::fmt::Display;

use super::{Diff, Kind, Object};
use crate::api::types::{ChangeLine, LineChange, ObjectKind};
use crate::delta::{Before, Delta};
use crate::explain::in_words;
use crate::model::{AddressGroup, Identity, Nic, Policy, Rule, SecurityGroup, Vpc};

/// Lines that are told; the others are counted.
pub const MAX_LINES: usize = 1_000;
/// Values that one line tells.
const TOLD: usize = 10;

/// What a change does, line by line, the first of them; and how many more there are.
pub fn lines(diff: &Diff, delta: &Delta, new: &Policy) -> (Vec<ChangeLine>, usize) {
    let mut lines = Lines::default();
    for (object, kind) in &diff.objects {
        let change = match kind {
            Kind::Added => LineChange::Added,
            Kind::Changed { .. } => LineChange::Changed,
            Kind::Removed => LineChange::Removed,
        };
        let name = object.to_string();
        match object {
            Object::Vpc(key) => {
                let text = text(old(&delta.vpcs, key), new.vpcs.get(key).map(|vpc| &**vpc), vpc);
                lines.add(ObjectKind::Vpc, &name, change, || text);
            }
            Object::AddressGroup(key) => {
                let (old, new) = (old(&delta.address_groups, key), new.address_groups.get(key));
                lines.add(ObjectKind::AddressGroup, &name, change, || prefixes(old, new.map(|new| &**new)));
            }
            Object::SecurityGroup(key) => {
                let (old, new) = (old(&delta.security_groups, key), new.security_groups.get(key));
                lines.group(&name, change, old, new.map(|new| &**new));
            }
            Object::Nic(key) => {
                let (old, new) = (old(&delta.nics, key), new.nics.get(key));
                lines.add(ObjectKind::Nic, &name, change, || text(old, new.map(|new| &**new), nic));
            }
        }
    }
    (lines.told, lines.left_out)
}

/// An object as it was.
fn old<'d, K: Ord, V>(before: &'d Before<K, std::sync::Arc<V>>, key: &K) -> Option<&'d V> {
    let at = before.binary_search_by(|(name, _)| name.cmp(key)).ok()?;
    before[at].1.as_deref()
}

#[derive(Default)]
struct Lines {
    told: Vec<ChangeLine>,
    left_out: usize,
}

impl Lines {
    fn add(&mut self, kind: ObjectKind, object: &str, change: LineChange, text: impl FnOnce() -> String) {
        self.push(|| ChangeLine {
            kind,
            object: object.to_owned(),
            change,
            rule: None,
            rule_id: None,
            text: text(),
        });
    }

    fn push(&mut self, line: impl FnOnce() -> ChangeLine) {
        if self.told.len() < MAX_LINES { self.told.push(line()) } else { self.left_out += 1 }
    }

    fn rule(&mut self, group: &str, change: LineChange, at: usize, identity: Identity, rule: &Rule) {
        self.push(|| ChangeLine {
            kind: ObjectKind::Rule,
            object: group.to_owned(),
            change,
            rule: Some(format!("{group}#{at}")),
            rule_id: Some(identity.to_string()),
            text: in_words(rule),
        });
    }

    /// A group, and then its rules that come, go or are described anew. Others that move up or down are no change of theirs.
    fn group(
        &mut self,
        name: &str,
        change: LineChange,
        old: Option<&SecurityGroup>,
        new: Option<&SecurityGroup>,
    ) {
        let (before, after) = (by_identity(old), by_identity(new));
        let kept = |these: &BTreeMap<Identity, (usize, &Rule)>,
                    others: &BTreeMap<Identity, (usize, &Rule)>| {
            let mut kept: Vec<_> = these.iter().filter(|(id, _)| others.contains_key(id)).collect();
            kept.sort_by_key(|(_, (at, _))| *at);
            kept.into_iter().map(|(id, _)| *id).collect::<Vec<_>>()
        };
        self.add(ObjectKind::Group, name, change, || {
            let mut parts = text(old, new, described);
            if kept(&before, &after) != kept(&after, &before) {
                parts += if parts.is_empty() { "" } else { "; " };
                parts += "rules in another order";
            }
            parts
        });
        for (identity, at, rule) in in_order(&before) {
            if !after.contains_key(&identity) {
                self.rule(name, LineChange::Removed, at, identity, rule);
            }
        }
        for (identity, at, rule) in in_order(&after) {
            match before.get(&identity) {
                None => self.rule(name, LineChange::Added, at, identity, rule),
                Some((_, old)) if old.description != rule.description => {
                    self.rule(name, LineChange::Changed, at, identity, rule);
                }
                Some(_) => {}
            }
        }
    }
}

fn by_identity(group: Option<&SecurityGroup>) -> BTreeMap<Identity, (usize, &Rule)> {
    let rules = group.into_iter().flat_map(|group| group.rules.iter().enumerate());
    rules.map(|(at, rule)| (rule.meaning().identity(), (at, rule))).collect()
}

fn in_order<'p>(rules: &BTreeMap<Identity, (usize, &'p Rule)>) -> Vec<(Identity, usize, &'p Rule)> {
    let mut rules: Vec<_> = rules.iter().map(|(id, (at, rule))| (*id, *at, *rule)).collect();
    rules.sort_by_key(|(_, at, _)| *at);
    rules
}

/// What is said of an object, key by key: all that is said of it, or what differs.
fn text<V>(old: Option<&V>, new: Option<&V>, say: fn(&V) -> Vec<(&'static str, String)>) -> String {
    let parts: Vec<String> = match (old.map(say), new.map(say)) {
        (Some(old), Some(new)) => {
            let differing = old.into_iter().zip(new).filter(|((_, was), (_, is))| was != is);
            let or_none = |value: String| if value.is_empty() { "none".to_owned() } else { value };
            differing
                .map(|((key, was), (_, is))| format!("{key} {} -> {}", or_none(was), or_none(is)))
                .collect()
        }
        (one, other) => {
            let said = one.or(other).into_iter().flatten().filter(|(_, value)| !value.is_empty());
            said.map(|(key, value)| format!("{key} {value}")).collect()
        }
    };
    parts.join("; ")
}

fn listed<T: Display>(values: impl IntoIterator<Item = T>) -> String {
    let mut values = values.into_iter();
    let told: Vec<_> = values.by_ref().take(TOLD).map(|value| value.to_string()).collect();
    match values.count() {
        0 => told.join(", "),
        more => format!("{} and {more} more", told.join(", ")),
    }
}

fn or_empty<T: Display>(value: Option<T>) -> String {
    value.map(|value| value.to_string()).unwrap_or_default()
}

fn vpc(vpc: &Vpc) -> Vec<(&'static str, String)> {
    vec![("segment", vpc.segment.to_string()), ("peers", listed(&vpc.peers))]
}

fn described(group: &SecurityGroup) -> Vec<(&'static str, String)> {
    vec![
        ("staged", if group.staged { "true".to_owned() } else { String::new() }),
        ("description", quoted(&group.description)),
    ]
}

fn quoted(text: &str) -> String {
    if text.is_empty() { String::new() } else { format!("{text:?}") }
}

fn nic(nic: &Nic) -> Vec<(&'static str, String)> {
    let allowed = nic.allowed_addresses.iter().map(|allowed| match allowed.mac {
        Some(mac) => format!("{} ({mac})", allowed.address),
        None => allowed.address.to_string(),
    });
    let mode = nic.mode.map(|mode| if mode == crate::model::Mode::Observe { "observe" } else { "enforce" });
    vec![
        ("vpc", nic.vpc.to_string()),
        ("mac", or_empty(nic.mac)),
        ("addresses", listed(&nic.addresses)),
        ("allowed", listed(allowed)),
        ("groups", listed(&nic.security_groups)),
        ("max_connections", or_empty(nic.max_connections)),
        ("mode", or_empty(mode)),
        ("description", quoted(&nic.description)),
    ]
}

/// An address group may be long: what of it comes and goes.
fn prefixes(old: Option<&AddressGroup>, new: Option<&AddressGroup>) -> String {
    let (Some(old), Some(new)) = (old, new) else {
        return old.or(new).map(|group| listed(&group.prefixes)).unwrap_or_default();
    };
    let set =
        |group: &AddressGroup| group.prefixes.iter().copied().collect::<std::collections::BTreeSet<_>>();
    let (before, after) = (set(old), set(new));
    let mut parts = Vec::new();
    for (what, prefixes) in
        [("added", listed(after.difference(&before))), ("removed", listed(before.difference(&after)))]
    {
        if !prefixes.is_empty() {
            parts.push(format!("{what} {prefixes}"));
        }
    }
    if old.description != new.description {
        parts.push(format!("description {:?} -> {:?}", old.description, new.description));
    }
    if parts.is_empty() { "in another order".to_owned() } else { parts.join("; ") }
}
