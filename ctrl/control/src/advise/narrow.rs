//! The narrowest form of a rule that lets in all that was seen of it: protocols, ports, types and remotes, in a few rules.

use std::collections::{BTreeMap, BTreeSet};

use engine::classify::Query;
use engine::{addr_from_bits, proto};

use crate::model::{Ethertypes, Prefix, Remote, Rule, protocol};

/// Rules that stand in a rule's place at most.
const MOST: usize = 8;
/// Ranges of ports, and types of ICMP, that are told apart in one protocol at most.
const RANGES: usize = 4;
/// Whether prefixes are worth it: they hold at most one address in so many of the rule's own.
const RARER: f64 = 16.0;
/// Whether a form is worth it: it matches at most one packet in so many of the rule's.
const NARROWER: f64 = 4.0;

/// A part of what was seen: of one protocol, and of one family where the remote hangs on that.
struct Part {
    protocol: u8,
    families: Ethertypes,
    ports: Option<(u16, u16)>,
    icmp: Option<(u8, Option<u8>)>,
    /// By family: IPv4, IPv6.
    remotes: [BTreeSet<u128>; 2],
}

/// The rules that would do in place of this one for these openings, if they are much narrower.
pub fn narrowest(rule: &Rule, seen: &[Query]) -> Option<Vec<Rule>> {
    let mut parts = parts(rule, seen, RANGES);
    if parts.len() > MOST {
        parts = self::parts(rule, seen, 1);
    }
    if parts.is_empty() || parts.len() > MOST {
        return None;
    }
    let each = MOST / parts.len();
    let narrow: Vec<Rule> = parts.iter().flat_map(|part| rules_of(rule, part, each)).collect();
    let volume: f64 = narrow.iter().map(volume).sum();
    (volume * NARROWER <= self::volume(rule)).then_some(narrow)
}

/// What was seen, by protocol, by family, by port.
fn parts(rule: &Rule, seen: &[Query], ranges: usize) -> Vec<Part> {
    let by_family = matches!(rule.remote, Remote::Any | Remote::Prefix(_));
    let mut groups: BTreeMap<(u8, bool), Vec<&Query>> = BTreeMap::new();
    for query in seen {
        groups.entry((query.protocol, by_family && query.v6)).or_default().push(query);
    }
    let mut parts = Vec::new();
    for ((protocol, _), queries) in groups {
        let is_icmp =
            queries.iter().all(|query| protocol == if query.v6 { proto::ICMPV6 } else { proto::ICMP });
        // What a rule's range of ports, or of types, is taken of; port 0 is matched by rules without ports alone (semantics 3.4).
        let number = |query: &Query| if is_icmp { query.port >> 8 } else { query.port };
        let numbers: BTreeSet<u16> = queries.iter().map(|query| number(query)).collect();
        let has_ranges = match is_icmp {
            true => rule.icmp.is_none() && numbers.len() <= ranges,
            false => protocol::has_ports(protocol) && !numbers.contains(&0),
        };
        let runs = if !has_ranges { vec![(0, u16::MAX)] } else { runs(&numbers, is_icmp, ranges) };
        for (low, high) in runs {
            let its = queries.iter().filter(|query| (low..=high).contains(&number(query)));
            let mut families = Ethertypes { v4: false, v6: false };
            let mut remotes = [BTreeSet::new(), BTreeSet::new()];
            for query in its {
                if query.v6 {
                    families.v6 = true
                } else {
                    families.v4 = true
                };
                remotes[usize::from(query.v6)].insert(query.remote);
            }
            let ports = if has_ranges && !is_icmp { Some((low, high)) } else { rule.ports };
            let icmp = if has_ranges && is_icmp { Some((low as u8, None)) } else { rule.icmp };
            parts.push(Part { protocol, families, ports, icmp, remotes });
        }
    }
    parts
}

/// The numbers as a few ranges: each run of theirs, or one range over all.
fn runs(numbers: &BTreeSet<u16>, are_single: bool, most: usize) -> Vec<(u16, u16)> {
    let mut runs: Vec<(u16, u16)> = Vec::new();
    for number in numbers {
        match runs.last_mut() {
            Some((_, high)) if !are_single && *high + 1 == *number => *high = *number,
            _ => runs.push((*number, *number)),
        }
    }
    match (numbers.first(), numbers.last()) {
        (Some(low), Some(high)) if runs.len() > most => vec![(*low, *high)],
        _ => runs,
    }
}

fn rules_of(rule: &Rule, part: &Part, most: usize) -> Vec<Rule> {
    let narrow = |ethertypes: Ethertypes, remote: Remote| Rule {
        ethertypes,
        protocol: Some(part.protocol),
        ports: part.ports,
        icmp: part.icmp,
        remote,
        ..rule.clone()
    };
    let own = match &rule.remote {
        Remote::Any => 0,
        Remote::Prefix(prefix) => prefix.len(),
        // What these stand for is said better by their names.
        Remote::Group(_) | Remote::AddressGroup(_) => {
            return vec![narrow(part.families, rule.remote.clone())];
        }
    };
    let is_v6 = part.families.v6;
    let prefixes = prefixes(&part.remotes[usize::from(is_v6)], is_v6, most);
    let share: f64 = prefixes.iter().map(|prefix| share(prefix.len())).sum();
    if share * RARER > self::share(own) {
        let families = if is_v6 { Ethertypes::V6 } else { Ethertypes::V4 };
        return vec![narrow(families, rule.remote.clone())];
    }
    prefixes.iter().map(|prefix| narrow(Ethertypes::of(prefix), Remote::Prefix(*prefix))).collect()
}

/// So many prefixes at most that hold these addresses, the narrowest: they are parted where they have least in common.
pub fn prefixes(addresses: &BTreeSet<u128>, is_v6: bool, most: usize) -> Vec<Prefix> {
    let sorted: Vec<u128> = addresses.iter().copied().collect();
    let bits = if is_v6 { 128 } else { 32 };
    let common = |a: u128, b: u128| ((a ^ b).leading_zeros() + bits).saturating_sub(128).min(bits) as u8;
    let mut gaps: Vec<(u8, usize)> =
        sorted.windows(2).enumerate().map(|(at, pair)| (common(pair[0], pair[1]), at + 1)).collect();
    gaps.sort_unstable();
    let mut ends: Vec<usize> = gaps.iter().take(most.max(1) - 1).map(|(_, at)| *at).collect();
    ends.push(sorted.len());
    ends.sort_unstable();
    let mut begin = 0;
    let mut prefixes = Vec::new();
    for end in ends {
        if let (Some(first), Some(last)) = (sorted.get(begin), sorted.get(end.wrapping_sub(1))) {
            prefixes.extend(Prefix::new(addr_from_bits(*first, is_v6), common(*first, *last)));
        }
        begin = end;
    }
    join_halves(&mut prefixes);
    prefixes
}

/// Makes one prefix of two that are its halves.
fn join_halves(prefixes: &mut Vec<Prefix>) {
    let whole = |pair: &[Prefix]| {
        let wider = Prefix::new(pair[0].addr(), pair[0].len().checked_sub(1)?)?;
        (pair[0].len() == pair[1].len() && wider.contains(pair[1].addr())).then_some(wider)
    };
    while let Some((at, joined)) =
        prefixes.windows(2).enumerate().find_map(|(at, pair)| Some((at, whole(pair)?)))
    {
        prefixes.splice(at..at + 2, [joined]);
    }
}

/// The share of its family's addresses that a prefix of so many bits has.
fn share(len: u8) -> f64 {
    (-f64::from(len)).exp2()
}

/// How much a rule matches: protocols times ports times addresses, of both families.
fn volume(rule: &Rule) -> f64 {
    let protocols = if rule.protocol.is_some() { 1.0 } else { 256.0 };
    let ports = match (rule.ports, rule.icmp) {
        (Some((low, high)), _) => f64::from(high - low) + 1.0,
        (None, Some((_, Some(_)))) => 1.0,
        (None, Some((_, None))) => 256.0,
        (None, None) => 65_536.0,
    };
    let addresses = match &rule.remote {
        Remote::Prefix(prefix) => share(prefix.len()),
        _ => f64::from(u8::from(rule.ethertypes.v4) + u8::from(rule.ethertypes.v6)),
    };
    protocols * ports * addresses
}
