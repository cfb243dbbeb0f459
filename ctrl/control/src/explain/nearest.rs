//! For a packet that the rules refused: the rules that came nearest to letting it pass, and what in each did not fit.
//!
//! Which fields fit is asked of the compiled policy that judged. The document's rules only lend their words.

use std::collections::HashSet;

use engine::classify::{Field, Query};
use engine::snapshot::{Binding, Snapshot};
use engine::{RuleId, addr_from_bits, proto};

use crate::api::types::{Mismatch, Near};
use crate::commit::Committer;
use crate::model::{Action, Direction, Ethertypes, Key, Policy, Remote, Rule, protocol};

/// Rules that are named at least, if there are as many, and at most, if they are equally near.
const NEAREST: (usize, usize) = (3, 10);

/// The rules that came nearest: those of this direction that allow, with the fewest fields that do not fit.
pub fn nearest(committer: &Committer, snapshot: &Snapshot, nic: &Binding, query: &Query) -> Vec<Near> {
    let policy = snapshot.policy(nic);
    let own = policy.mismatches(&snapshot.groups, nic.vpc, query);
    let of_family: HashSet<RuleId> = own.iter().map(|(rule, ..)| *rule).collect();
    // Rules of the other family alone: no remote of theirs could fit, and that is said by the family.
    let other = policy.mismatches(&snapshot.groups, nic.vpc, &Query { v6: !query.v6, ..*query });
    let other =
        other.into_iter().filter(|(rule, ..)| !of_family.contains(rule)).map(|(rule, denies, fields)| {
            let fields = fields.into_iter().filter(|field| *field != Field::Remote).map(Some);
            (rule, denies, [None].into_iter().chain(fields).collect())
        });
    let mut rules: Vec<(RuleId, bool, Vec<Option<Field>>)> = own
        .into_iter()
        .map(|(rule, denies, fields)| (rule, denies, fields.into_iter().map(Some).collect()))
        .chain(other)
        .filter(|(_, denies, _)| !denies)
        .collect();
    rules.sort_by_key(|(_, _, fields)| fields.len());
    let fewest = rules.first().map_or(0, |(_, _, fields)| fields.len());
    let equally_near = rules.iter().filter(|(_, _, fields)| fields.len() == fewest).count();
    rules.truncate(equally_near.clamp(NEAREST.0, NEAREST.1));
    rules.iter().filter_map(|(rule, _, fields)| near(committer, *rule, fields, query)).collect()
}

/// One rule, with the fields that do not fit; `None` among them stands for the family.
fn near(committer: &Committer, rule: RuleId, fields: &[Option<Field>], query: &Query) -> Option<Near> {
    let named = committer.compiler().rule(rule)?;
    let (name, rule_id) = (named.name.to_string(), named.identity.to_string());
    let rule = find(committer.policy(), &name)?;
    let mut mismatches: Vec<_> = fields.iter().map(|field| mismatch(rule, *field, query)).collect();
    if mismatches.is_empty() {
        // All of it fits, and still a deny rule came first.
        let (own, packet) = (rule.priority.to_string(), "denied by a rule before it".to_owned());
        mismatches.push(Mismatch { field: "priority".to_owned(), rule: own, packet });
    }
    let mismatch = mismatches.iter().map(|mismatch| mismatch.field.clone()).collect();
    Some(Near {
        rule_text: rule_text(committer.policy(), &name),
        rule: name,
        rule_id,
        mismatch,
        found: mismatches,
    })
}

fn mismatch(rule: &Rule, field: Option<Field>, query: &Query) -> Mismatch {
    let family = |v6| if v6 { "IPv6" } else { "IPv4" }.to_owned();
    let (field, rule, packet) = match (field, rule.icmp) {
        (None, _) => ("ethertype", family(!query.v6), family(query.v6)),
        (Some(Field::Protocol), _) => {
            let own = rule.protocol.map_or("any".to_owned(), protocol_text);
            ("protocol", own, protocol_text(query.protocol))
        }
        (Some(Field::Remote), _) => {
            ("remote", remote_text(&rule.remote), addr_from_bits(query.remote, query.v6).to_string())
        }
        (Some(Field::Ports), Some((kind, Some(code)))) if u16::from(kind) == query.port >> 8 => {
            ("icmp_code", code.to_string(), (query.port & 0xFF).to_string())
        }
        (Some(Field::Ports), Some((kind, _))) => {
            ("icmp_type", kind.to_string(), (query.port >> 8).to_string())
        }
        (Some(Field::Ports), None) => {
            ("ports", rule.ports.map_or("any".to_owned(), ports_text), query.port.to_string())
        }
    };
    Mismatch { field: field.to_owned(), rule, packet }
}

/// The rule of that name.
fn find<'p>(policy: &'p Policy, name: &str) -> Option<&'p Rule> {
    let (group, position) = name.rsplit_once('#')?;
    policy.security_groups.get(&Key::parse(group)?)?.rules.get(position.parse::<usize>().ok()?)
}

/// What the rule of a name says.
pub fn rule_text(policy: &Policy, name: &str) -> String {
    find(policy, name).map(in_words).unwrap_or_default()
}

/// What a rule says, in one line.
pub fn in_words(rule: &Rule) -> String {
    let action = if rule.action == Action::Deny { "deny" } else { "allow" };
    let direction = if rule.direction == Direction::Inbound { "inbound" } else { "outbound" };
    let preposition = if rule.direction == Direction::Inbound { "from" } else { "to" };
    let staged = if rule.staged { "staged: " } else { "" };
    let mut text =
        format!("{staged}{action} {direction} {}", rule.protocol.map_or("any".to_owned(), protocol_text));
    if let Some(ports) = rule.ports {
        text += &format!(" {}", ports_text(ports));
    }
    if let Some((kind, code)) = rule.icmp {
        text += &format!(" type {kind}");
        text += &code.map_or(String::new(), |code| format!(" code {code}"));
    }
    text += &format!(" {preposition} {}", remote_text(&rule.remote));
    match rule.ethertypes {
        _ if matches!(rule.remote, Remote::Prefix(_)) => {}
        Ethertypes { v6: false, .. } => text += " (IPv4)",
        Ethertypes { v4: false, .. } => text += " (IPv6)",
        Ethertypes::BOTH => {}
    }
    text
}

fn remote_text(remote: &Remote) -> String {
    match remote {
        Remote::Any => "everyone".to_owned(),
        Remote::Prefix(prefix) => prefix.to_string(),
        Remote::Group(key) => format!("group {key}"),
        Remote::AddressGroup(key) => format!("address group {key}"),
    }
}

fn ports_text((low, high): (u16, u16)) -> String {
    if low == high { low.to_string() } else { format!("{low}-{high}") }
}

/// A protocol as documents name it, else its number.
pub fn protocol_text(number: u8) -> String {
    let igmp = (number == proto::IGMP).then_some("igmp");
    protocol::name(number).or(igmp).map_or_else(|| format!("protocol {number}"), str::to_owned)
}
