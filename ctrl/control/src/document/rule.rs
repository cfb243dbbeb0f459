//! One rule of a document.

use super::fields::{description_of, prefix_of, reference_of};
use crate::model::{Action, Direction, Ethertypes, Key, MAX_PRIORITY, Remote, Rule, protocol};
use crate::source::{Fault, Faults, Fields, Node, Value};

/// A rule, with where it stands and where its remote does.
pub(super) struct UnresolvedRule<'t> {
    pub at: &'t Node,
    pub rule: Rule,
    pub reference: Option<&'t Node>,
}

/// Reads one rule of the group `owner`, which may be staged as a whole.
pub(super) fn rule<'t>(
    node: &'t Node,
    owner: &Key,
    is_staged: bool,
    faults: &mut Faults,
) -> Option<UnresolvedRule<'t>> {
    const KEYS: [&str; 13] = [
        "direction",
        "ethertype",
        "protocol",
        "ports",
        "icmp_type",
        "icmp_code",
        "remote",
        "remote_group",
        "remote_address_group",
        "action",
        "priority",
        "description",
        "staged",
    ];
    let fields = node.keys(&KEYS, faults)?;
    let before = faults.len();
    let directions = [("inbound", Direction::Inbound), ("outbound", Direction::Outbound)];
    let actions = [("allow", Action::Allow), ("deny", Action::Deny)];
    let direction = fields.needed("direction", faults);
    let direction = direction.and_then(|node| faults.take(node.one_of("direction", &directions)));
    let remote = faults.take(remote_of(&fields, owner));
    let ethertypes = faults.take(ethertypes_of(&fields, remote.as_ref().map(|(remote, _)| remote)));
    let protocol = fields.get("protocol").map_or(Some(None), |node| faults.take(protocol_of(node)));
    // Of an unknown protocol nobody can say what may stand beside it.
    let (ports, icmp) = match protocol {
        Some(protocol) => (
            fields.optional("ports", faults, |node| ports_of(node, protocol)),
            faults.take(icmp_of(&fields, protocol)).flatten(),
        ),
        None => (None, None),
    };
    let action = fields.optional("action", faults, |node| node.one_of("action", &actions));
    let priority = fields.optional("priority", faults, |node| node.int("priority", 1..=MAX_PRIORITY));
    let description = description_of(&fields, faults);
    let staged = fields.optional("staged", faults, |node| staged_of(node, is_staged));
    if faults.len() > before {
        return None;
    }
    let (remote, reference) = remote?;
    let rule = Rule {
        direction: direction?,
        ethertypes: ethertypes?,
        protocol: protocol?,
        ports,
        icmp,
        remote,
        action: action.unwrap_or(Action::Allow),
        priority: priority.unwrap_or(MAX_PRIORITY),
        description,
        staged: staged.unwrap_or(is_staged),
    };
    Some(UnresolvedRule { at: node, rule, reference })
}

/// Whether a rule is staged; in a group that is, all are.
fn staged_of(node: &Node, is_staged: bool) -> Result<bool, Fault> {
    match node.bool()? {
        false if is_staged => {
            Err(node
                .fault("false in a group that is staged; allowed: true, or left out: all of its rules are"))
        }
        staged => Ok(staged),
    }
}

/// `None` is any. A number may stand in quotes, as clouds' APIs write it.
fn protocol_of(node: &Node) -> Result<Option<u8>, Fault> {
    let number = match &node.value {
        Value::Int(i) => u8::try_from(*i).ok(),
        Value::Text(text) if text == "any" => return Ok(None),
        Value::Text(text) => protocol::by_name(text).or_else(|| canonical(text)),
        _ => None,
    };
    number.map(Some).ok_or_else(|| {
        let names: Vec<&str> = protocol::NAMES.iter().map(|(name, _)| *name).collect();
        node.no("protocol", format_args!("any, 0-255, {}", names.join(", ")))
    })
}

fn ports_of(node: &Node, protocol: Option<u8>) -> Result<(u16, u16), Fault> {
    if !protocol.is_some_and(protocol::has_ports) {
        return Err(needs(node, "ports", protocol, "tcp, udp, sctp, udplite, dccp"));
    }
    let range = match &node.value {
        Value::Int(i) => u16::try_from(*i).ok().map(|port| (port, port)),
        Value::Text(text) => {
            let (low, high) = text.split_once('-').unwrap_or((text, text));
            canonical(low).zip(canonical(high))
        }
        _ => None,
    };
    range
        .filter(|&(low, high)| 1 <= low && low <= high)
        .ok_or_else(|| node.no("port range", "N or LOW-HIGH in 1-65535"))
}

fn icmp_of(fields: &Fields<'_>, protocol: Option<u8>) -> Result<Option<(u8, Option<u8>)>, Fault> {
    let keys = [("icmp_type", "an ICMP type"), ("icmp_code", "an ICMP code")];
    if !protocol.is_some_and(protocol::is_icmp)
        && let Some((node, what)) = keys.iter().find_map(|(key, what)| Some((fields.get(key)?, what)))
    {
        return Err(needs(node, what, protocol, "icmp, icmpv6"));
    }
    let kind = fields.get("icmp_type").map(|node| node.int("ICMP type", 0..=u8::MAX)).transpose()?;
    let code = fields.get("icmp_code").map(|n| Ok((n, n.int("ICMP code", 0..=u8::MAX)?))).transpose()?;
    match (kind, code) {
        (None, None) => Ok(None),
        (None, Some((node, _))) => {
            Err(node.fault("an ICMP code without a type; allowed: icmp_code beside icmp_type"))
        }
        (Some(kind), code) => Ok(Some((kind, code.map(|(_, code)| code)))),
    }
}

/// The fault that something was given for a protocol that has no such thing.
fn needs(node: &Node, what: &str, protocol: Option<u8>, allowed: &str) -> Fault {
    let found = match protocol {
        None => "protocol any".to_owned(),
        Some(number) => protocol::name(number)
            .map_or_else(|| format!("protocol {number}"), |name| format!("protocol {name}")),
    };
    node.fault(format_args!("{what} with {found}; allowed: only with {allowed}"))
}

fn remote_of<'t>(fields: &Fields<'t>, owner: &Key) -> Result<(Remote, Option<&'t Node>), Fault> {
    let mut given = fields.in_order().filter(|(key, _)| key.starts_with("remote"));
    let Some((key, node)) = given.next() else { return Ok((Remote::Any, None)) };
    if let Some((second, node)) = given.next() {
        return Err(node.fault(format_args!(
            "{second} beside {key}; allowed: at most one of remote, remote_group, remote_address_group"
        )));
    }
    Ok(match key {
        "remote" => (Remote::Prefix(prefix_of(node)?), Some(node)),
        "remote_group" => (Remote::Group(reference_of(node, owner)?), Some(node)),
        _ => (Remote::AddressGroup(reference_of(node, owner)?), Some(node)),
    })
}

/// `remote` is `None` where it could not be read.
fn ethertypes_of(fields: &Fields<'_>, remote: Option<&Remote>) -> Result<Ethertypes, Fault> {
    let words = [("IPv4", Ethertypes::V4), ("IPv6", Ethertypes::V6)];
    let given = fields.get("ethertype").map(|n| Ok((n, n.one_of("ethertype", &words)?))).transpose()?;
    match (given, remote) {
        (Some((node, given)), Some(Remote::Prefix(prefix))) if given != Ethertypes::of(prefix) => {
            let of_prefix = if prefix.is_ipv4() { "IPv4" } else { "IPv6" };
            Err(node.fault(format_args!(
                "{} contradicts the remote {prefix}; allowed: {of_prefix}, or left out",
                node.value.describe()
            )))
        }
        (_, Some(Remote::Prefix(prefix))) => Ok(Ethertypes::of(prefix)),
        (Some((_, given)), _) => Ok(given),
        (None, _) => Ok(Ethertypes::BOTH),
    }
}

/// A number as people write it: digits, and no zero before others.
fn canonical<T: std::str::FromStr + ToString>(text: &str) -> Option<T> {
    text.parse().ok().filter(|number: &T| number.to_string() == text)
}
