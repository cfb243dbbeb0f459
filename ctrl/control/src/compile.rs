//! From the model to what the engine runs: groups and rules get numbers, rules get ranges, lists of groups get policies.

mod persisted;

use std::collections::{HashMap, HashSet};
use std::num::NonZero;
use std::sync::Arc;
use std::time::Duration;

use engine::classify;
use engine::conntrack::{ShardConfig, Timeouts};
use engine::time::TICK_NS;
use engine::{GroupId, RuleId, VpcId, addr_bits, proto};

use crate::config::{Config, Unknown};
use crate::model::{
    Action, AddressGroup, Direction, Identity, Key, Meaning, Mode, Policy, Prefix, Remote, Rule,
};

pub use persisted::PersistedNumbers;

/// First and last address of a prefix, and whether it is IPv6.
pub fn range_of(prefix: &Prefix) -> (u128, u128, bool) {
    let (first, v6) = addr_bits(prefix.addr());
    let host_bits = (if v6 { 128 } else { 32 }) - u32::from(prefix.len());
    let span = if host_bits == 128 { u128::MAX } else { (1 << host_bits) - 1 };
    (first, first | span, v6)
}

/// What the configuration says about frames that no rule is asked about.
pub fn engine_settings(config: &Config) -> engine::snapshot::Settings {
    let policy = &config.policy;
    engine::snapshot::Settings {
        pass_unknown_segment: policy.unknown_segment == Unknown::Pass,
        pass_unknown_nic: policy.unknown_nic == Unknown::Pass,
        pass_link_local: policy.pass_link_local,
        observe: policy.mode == Mode::Observe,
        pass_ethertypes: policy.pass_ethertypes.clone(),
        pass_multicast: policy.pass_multicast.iter().map(range_of).collect(),
        loose_pickup: config.conntrack.tcp_pickup == crate::config::TcpPickup::Loose,
        no_window_check: !config.conntrack.tcp_window_check,
    }
}

/// Worker `worker`'s part of the connection table among `workers`: the parts add up to the capacity.
pub fn shard_config(config: &Config, worker: u32, workers: u32) -> ShardConfig {
    let all = config.conntrack.capacity;
    let capacity = (all / workers + u32::from(worker < all % workers)).max(1);
    let unconfirmed = (f64::from(capacity) * config.conntrack.unconfirmed_share) as u32;
    // In ticks, rounded up.
    let ticks = |duration: Duration| duration.as_nanos().div_ceil(u128::from(TICK_NS)) as u32;
    let t = &config.timeouts;
    ShardConfig {
        capacity,
        unconfirmed: unconfirmed.max(1),
        all_workers: all.max(workers),
        count: config.counts_connections(),
        timeouts: Timeouts {
            tcp_syn: ticks(t.tcp_syn),
            tcp_established: ticks(t.tcp_established),
            tcp_fin: ticks(t.tcp_fin),
            tcp_half_closed: ticks(t.tcp_half_closed),
            tcp_reset: ticks(t.tcp_reset),
            icmp: ticks(t.icmp),
            one_way: ticks(t.one_way),
            two_way: ticks(t.two_way),
            fragment: ticks(t.fragment),
        },
    }
}

/// Rules that no group has any more, beyond as many as there are, before their numbers are forgotten.
const SLACK: usize = 1 << 16;

/// Lists that are worth a thread of their own: one takes some tens of microseconds.
const SHARE: usize = 64;

/// How a rule is called.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamedRule {
    /// Group`#`position, where it stands now; of a rule that is gone, where it last stood.
    pub name: Arc<str>,
    /// What it is told by wherever it stands.
    pub identity: Identity,
}

/// The names of all rules, by [`RuleId`].
pub type RuleNames = imbl::Vector<NamedRule>;

/// The numbers of rules, as they were.
pub struct RuleNumbers {
    groups: imbl::HashMap<Key, GroupId>,
    rules: imbl::HashMap<(GroupId, Meaning), RuleId>,
}

impl RuleNumbers {
    /// The number of a group's rule that means this; `None` if nobody was judged by it yet.
    pub fn of(&self, group: &Key, meaning: &Meaning) -> Option<RuleId> {
        let group = self.groups.get(group)?;
        self.rules.get(&(*group, meaning.clone())).copied()
    }
}

/// Numbers for names, which stay the same as long as the appliance runs, and the rules lowered so far.
#[derive(Clone, Default)]
pub struct Compiler {
    groups: imbl::HashMap<Key, GroupId>,
    vpcs: HashMap<Arc<str>, VpcId>,
    /// By what a rule means, not by where it stands: a rule keeps its number, and so its connections
    /// their rule, when others of its group come and go.
    rules: imbl::HashMap<(GroupId, Meaning), RuleId>,
    /// By [`RuleId`].
    named: RuleNames,
    /// The rules of each group as last compiled.
    lowered: HashMap<Key, Arc<Vec<classify::Rule>>>,
    /// The ranges of address groups that rules have, each with the group as it was then.
    ranges: HashMap<Key, (Arc<AddressGroup>, Ranges)>,
    /// Parts of policies that many have.
    pool: classify::InternPool,
}

/// First and last addresses, and whether they are of IPv6.
type Ranges = Arc<[(u128, u128, bool)]>;

impl Compiler {
    /// A group's number.
    pub fn group(&mut self, key: &Key) -> GroupId {
        let next = GroupId(self.groups.len() as u32);
        *self.groups.entry(key.clone()).or_insert(next)
    }

    /// A VPC's number.
    pub fn vpc(&mut self, name: &Arc<str>) -> VpcId {
        let next = VpcId(self.vpcs.len() as u32);
        *self.vpcs.entry(name.clone()).or_insert(next)
    }

    /// How a rule is called.
    pub fn rule(&self, rule: RuleId) -> Option<&NamedRule> {
        self.named.get(rule.0 as usize)
    }

    /// The numbers of all rules: a copy costs nothing.
    pub fn numbers(&self) -> RuleNumbers {
        RuleNumbers { groups: self.groups.clone(), rules: self.rules.clone() }
    }

    /// How all rules are called: a copy costs nothing.
    pub fn rules(&self) -> &RuleNames {
        &self.named
    }

    /// The number of a rule that stands at this position of its group now.
    fn rule_at(&mut self, group: GroupId, key: &Key, position: usize, rule: &Rule) -> RuleId {
        let meaning = rule.meaning();
        let name: Arc<str> = format!("{key}#{position}").into();
        if let Some(id) = self.rules.get(&(group, meaning.clone())) {
            if let Some(named) = self.named.get_mut(id.0 as usize) {
                named.name = name;
            }
            return *id;
        }
        let next = RuleId(self.named.len() as u32);
        if next.0 >= RuleId::NONE.0 {
            return RuleId::NONE;
        }
        self.named.push_back(NamedRule { name, identity: meaning.identity() });
        self.rules.insert((group, meaning), next);
        next
    }

    /// The rules of a group, as the engine takes them.
    pub fn lowered(&mut self, key: &Key, policy: &Policy) -> Arc<Vec<classify::Rule>> {
        if let Some(rules) = self.lowered.get(key) {
            return rules.clone();
        }
        let id = self.group(key);
        let rules = policy.security_groups.get(key).map_or(&[][..], |group| &group.rules);
        let rules: Vec<_> = rules
            .iter()
            .enumerate()
            .map(|(position, rule)| {
                let rule_id = self.rule_at(id, key, position, rule);
                self.lower(rule, rule_id, policy)
            })
            .collect();
        let rules = Arc::new(rules);
        self.lowered.insert(key.clone(), rules.clone());
        rules
    }

    /// What the engine judges by, of each of these ordered lists of groups. Of many, each of the cores that this thread may use
    /// compiles a part.
    pub fn policies(&mut self, lists: &[&Vec<Key>], policy: &Policy) -> Vec<Arc<classify::Policy>> {
        let rules: Vec<Vec<_>> =
            lists.iter().map(|list| list.iter().map(|group| self.lowered(group, policy)).collect()).collect();
        let compile = |groups: &Vec<Arc<Vec<classify::Rule>>>| {
            classify::Policy::compile(groups.iter().flat_map(|rules| rules.iter()))
        };
        // The system is asked for many lists only: most changes touch few.
        let is_many = rules.len() > SHARE;
        let cores = if is_many { std::thread::available_parallelism().map_or(1, NonZero::get) } else { 1 };
        let share = rules.len().div_ceil(cores).max(SHARE);
        let (own, others) = rules.split_at(share.min(rules.len()));
        let compile_all =
            |share: &[Vec<Arc<Vec<classify::Rule>>>]| share.iter().map(compile).collect::<Vec<_>>();
        let compiled: Vec<classify::Policy> = std::thread::scope(|scope| {
            // Where the system has no thread to spare, this one does it: a change is durable by now, and must not fail.
            let begin = |share| {
                std::thread::Builder::new().spawn_scoped(scope, move || compile_all(share)).map_err(|_| share)
            };
            let others: Vec<_> = others.chunks(share).map(begin).collect();
            let mut all = compile_all(own);
            for share in others {
                all.extend(match share {
                    Ok(begun) => begun.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)),
                    Err(left) => compile_all(left),
                });
            }
            all
        });
        let shared = compiled.into_iter().map(|mut policy| {
            policy.share(&mut self.pool);
            Arc::new(policy)
        });
        shared.collect()
    }

    /// Lets go of what is nowhere any more: rules that no group has, and parts of policies that no list has. Called when the draft is
    /// what the policy says.
    pub fn forget_gone(&mut self) {
        self.ranges.retain(|_, (_, ranges)| Arc::strong_count(ranges) > 1);
        self.pool.forget_unused();
        if self.rules.len() <= SLACK {
            return;
        }
        let there: usize = self.lowered.values().map(|rules| rules.len()).sum();
        if self.rules.len() <= 2 * there + SLACK {
            return;
        }
        let there: HashSet<RuleId> =
            self.lowered.values().flat_map(|rules| rules.iter()).map(|rule| rule.id).collect();
        let rules = std::mem::take(&mut self.rules);
        self.rules = rules.into_iter().filter(|(_, id)| there.contains(id)).collect();
    }

    /// The ranges of an address group, the same for all rules that name it.
    fn ranges(&mut self, key: &Key, policy: &Policy) -> Ranges {
        let Some(group) = policy.address_groups.get(key) else { return Arc::default() };
        if let Some((as_it_was, ranges)) = self.ranges.get(key)
            && Arc::ptr_eq(as_it_was, group)
        {
            return ranges.clone();
        }
        let ranges: Ranges = group.prefixes.iter().map(range_of).collect();
        self.ranges.insert(key.clone(), (group.clone(), ranges.clone()));
        ranges
    }

    /// A group's rules, or what they name, are not what they were.
    pub fn forget(&mut self, key: &Key) {
        self.lowered.remove(key);
    }

    /// The same numbers, and no rules lowered so far.
    #[cfg(debug_assertions)]
    pub fn without_memory(&self) -> Compiler {
        Compiler { lowered: HashMap::new(), ..self.clone() }
    }

    fn lower(&mut self, rule: &Rule, id: RuleId, policy: &Policy) -> classify::Rule {
        let mut families = [rule.ethertypes.v4, rule.ethertypes.v6];
        let mut ports = rule.ports.unwrap_or((0, u16::MAX));
        if let Some((kind, code)) = rule.icmp {
            let base = u16::from(kind) << 8;
            ports = code.map_or((base, base | 0xFF), |code| (base | u16::from(code), base | u16::from(code)));
            // The other family has no message of this protocol whose type could match.
            families[usize::from(rule.protocol == Some(proto::ICMP))] = false;
        }
        let remote = match &rule.remote {
            Remote::Any => classify::Remote::Any,
            Remote::Prefix(prefix) => classify::Remote::Ranges([range_of(prefix)].into()),
            Remote::Group(key) => classify::Remote::Group(self.group(key)),
            Remote::AddressGroup(key) => classify::Remote::Ranges(self.ranges(key, policy)),
        };
        classify::Rule {
            id,
            direction: match rule.direction {
                Direction::Inbound => engine::Direction::Inbound,
                Direction::Outbound => engine::Direction::Outbound,
            },
            families,
            protocol: rule.protocol,
            ports,
            remote,
            deny: rule.action == Action::Deny,
            priority: rule.priority,
            staged: rule.staged,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::document::{Limits, parse_policy};

    #[test]
    fn numbers_of_rules_that_are_gone_are_forgotten_and_those_of_others_stay() {
        let mut compiler = Compiler::default();
        let limits = Limits { rules_per_group: 1000, ..Limits::default() };
        let key = Key::in_default("a");
        let mut first = None;
        for round in 0..200u32 {
            let rules: Vec<String> = (0..1000u32)
                .map(|n| {
                    // The first rule is the same in all of them.
                    let port = if n == 0 { 1 } else { 2 + (round * 1000 + n) % 60_000 };
                    let protocol = if round % 2 == 0 || n == 0 { "tcp" } else { "udp" };
                    let prefix = if n == 0 { 0 } else { round };
                    format!("{{ direction: inbound, protocol: {protocol}, ports: {port}, remote: 10.0.{prefix}.0/24 }}")
                })
                .collect();
            let text = format!("security_groups: [{{ name: a, rules: [{}] }}]", rules.join(", "));
            let policy = parse_policy(&text, "test", &limits).unwrap().policy;
            compiler.forget(&key);
            let lowered = compiler.lowered(&key, &policy);
            assert_eq!(*first.get_or_insert(lowered[0].id), lowered[0].id);
            compiler.forget_gone();
            assert!(compiler.rules.len() <= 2 * 1000 + SLACK, "{}", compiler.rules.len());
        }
        assert!(compiler.named.len() > 2 * SLACK, "connections may still name them");
    }
}
