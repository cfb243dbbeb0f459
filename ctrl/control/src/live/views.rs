//! What is shown of the policy in force and of what the workers count.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::PoisonError;

use engine::conntrack::fair_share;
use engine::{Direction, Generation, NicSlot};

use super::baselines::NicTotals;
use super::locking::block_in_place;
use super::reason_counts::ReasonCounts;
use super::{Inner, Live, WorkerTimeout, load_balance, names};
use crate::api::types::{self, Counters, NicCounters, WorkerCounters};
use crate::config::{Config, Unknown};
use crate::explain::{ExplainError, ScratchFirewall, in_words};
use crate::model::{self, Mode, Policy};

/// Settings that are on and let pass what the defaults would not (semantics 2.8).
pub fn lenient_settings(config: &Config, policy: &Policy) -> Vec<String> {
    let set = &config.policy;
    let mut on = Vec::new();
    if set.mode == Mode::Observe {
        on.push("mode = \"observe\": nothing is dropped, but on NICs set to enforce".to_owned());
    }
    let observed = policy.nics.values().filter(|nic| nic.mode == Some(Mode::Observe)).count();
    if observed > 0 && set.mode != Mode::Observe {
        on.push(format!("mode: observe on {observed} of {} NICs", policy.nics.len()));
    }
    if set.unknown_segment == Unknown::Pass {
        on.push("unknown_segment = \"pass\": frames of nobody's VPC pass".to_owned());
    }
    if set.unknown_nic == Unknown::Pass {
        on.push("unknown_nic = \"pass\": frames of nobody's NIC pass".to_owned());
    }
    if set.pass_link_local {
        on.push("pass_link_local = true: STP, LACP and LLDP pass".to_owned());
    }
    if !set.pass_multicast.is_empty() {
        let prefixes: Vec<_> = set.pass_multicast.iter().map(ToString::to_string).collect();
        on.push(format!("pass_multicast: {} pass from outside", prefixes.join(", ")));
    }
    on
}

/// The same as one line; `None` if all is strict. Every answer bears it: that of a moment ago, while a change is worked out.
pub fn notice(live: &Live) -> Option<String> {
    let mut last = live.shared.notice.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(inner) = live.inner_now()
        && last.generation != Some(inner.committer.generation())
    {
        let on = lenient_settings(inner.committer.config(), inner.committer.policy());
        let text = (!on.is_empty()).then(|| on.join("; "));
        *last = Notice { generation: Some(inner.committer.generation()), text };
    }
    last.text.clone()
}

/// What [`notice`] says of a generation.
#[derive(Default)]
pub(super) struct Notice {
    generation: Option<Generation>,
    text: Option<String>,
}

/// Why `explain` has no answer.
#[derive(Debug)]
pub enum ExplainFailed {
    /// The question has none.
    Question(ExplainError),
    /// A worker does not say which connections it has.
    Worker(WorkerTimeout),
    /// It failed.
    Failed(String),
}

impl From<WorkerTimeout> for ExplainFailed {
    fn from(error: WorkerTimeout) -> ExplainFailed {
        ExplainFailed::Worker(error)
    }
}

impl Live {
    /// `explain`: by the very snapshot that the workers judge by and with the NIC's connections as they have them, or as the first
    /// of a connection. A NIC's limit counts; how full a worker's table is does not.
    pub async fn explain(&self, question: types::Question) -> Result<types::Explanation, ExplainFailed> {
        let (live, config) = (self.clone(), self.config());
        let in_grace = self.shared.start.elapsed() < config.conntrack.pickup_grace;
        let is_fresh = question.fresh;
        let first = tokio::task::spawn_blocking(move || {
            let bench = ScratchFirewall::new(&config, in_grace);
            let inner = live.inner();
            let told = bench.explain(&inner.committer, inner.publisher.current(), &question)?;
            Ok((told, question))
        });
        let (told, question) = first
            .await
            .map_err(|error| ExplainFailed::Failed(error.to_string()))?
            .map_err(ExplainFailed::Question)?;
        let key = told.nic.as_deref().filter(|_| !is_fresh).and_then(model::Key::parse);
        let slot = key.and_then(|key| Some(self.inner().committer.registry().nic(&key)?.slot));
        let Some(slot) = slot else { return Ok(told) };
        let held = self.of_nic(slot).await?;
        let (live, config) = (self.clone(), self.config());
        let second = tokio::task::spawn_blocking(move || {
            let at_ns = live.shared.start.elapsed().as_nanos() as u64;
            let bench = ScratchFirewall::running(&config, at_ns, held);
            let inner = live.inner();
            bench.explain(&inner.committer, inner.publisher.current(), &question)
        });
        second
            .await
            .map_err(|error| ExplainFailed::Failed(error.to_string()))?
            .map_err(ExplainFailed::Question)
    }

    /// `show counters`
    pub fn counters(&self) -> Counters {
        block_in_place(|| self.inner().counters())
    }

    /// `show nics`
    pub fn nics(&self) -> Vec<types::Nic> {
        self.nics_after(None, usize::MAX)
    }

    /// So many of them behind a name.
    pub fn nics_after(&self, after: Option<&model::Key>, limit: usize) -> Vec<types::Nic> {
        self.nics_with("", after, limit)
    }

    /// Of them, those with a text in their name or in an address.
    pub fn nics_with(&self, text: &str, after: Option<&model::Key>, limit: usize) -> Vec<types::Nic> {
        let has = |nic: &&std::sync::Arc<model::Nic>| {
            text.is_empty()
                || nic.key.to_string().contains(text)
                || nic.addresses.iter().any(|address| address.to_string().contains(text))
        };
        // The policy is shared with what is in force: nobody waits while it is searched.
        let policy = self.policy();
        let found: Vec<_> = block_in_place(|| {
            behind(&policy.nics, after, usize::MAX).filter(has).take(limit).cloned().collect()
        });
        let inner = self.inner();
        block_in_place(|| found.iter().map(|nic| inner.nic(nic)).collect())
    }

    /// `show groups`
    pub fn groups(&self) -> Vec<types::Group> {
        self.groups_after(None, usize::MAX)
    }

    /// So many of them behind a name.
    pub fn groups_after(&self, after: Option<&model::Key>, limit: usize) -> Vec<types::Group> {
        self.groups_with("", after, limit)
    }

    /// Of them, those with a text in their name.
    pub fn groups_with(&self, text: &str, after: Option<&model::Key>, limit: usize) -> Vec<types::Group> {
        // The policy is shared with what is in force: nobody waits for this.
        let policy = &self.policy();
        block_in_place(|| groups_of(policy, text, after, limit))
    }

    /// `show snapshot`
    pub fn snapshot(&self) -> types::Snapshot {
        let inner = self.inner();
        let (policy, snapshot) = (inner.committer.policy(), inner.publisher.current());
        types::Snapshot {
            generation: snapshot.generation.0,
            vpcs: policy.vpcs.len(),
            nics: policy.nics.len(),
            addresses: snapshot.bindings().iter().filter(|binding| !binding.is_gone()).count(),
            address_groups: policy.address_groups.len(),
            security_groups: policy.security_groups.len(),
            rules: policy.security_groups.values().map(|group| group.rules.len()).sum(),
            policies: snapshot.policies.len(),
            last_ending: snapshot.last_ending.0,
            acknowledged: inner.publisher.all_acknowledged(inner.publisher.epoch()),
            in_limbo: inner.publisher.in_limbo(),
            settings: lenient_settings(inner.committer.config(), policy),
        }
    }

    /// `show workers`
    pub async fn workers(&self) -> Vec<types::Worker> {
        let count = self.inner().workers.len();
        let mut lens = Vec::with_capacity(count);
        for id in 0..count {
            lens.push(self.table_len(id).await.ok());
        }
        let inner = self.inner();
        let (packets, epoch) = (inner.counters().workers, inner.publisher.epoch());
        let judged: Vec<u64> = packets.iter().map(|worker| worker.packets.received).collect();
        let all: u64 = judged.iter().sum();
        let (loads, ports) = (inner.loads(), inner.ports_now());
        let worker = |(id, handle): (usize, &super::WorkerHandle)| {
            let (polls, counters) = ((handle.polls)(), &handle.counters);
            let received = counters.received();
            let (bursts, frames) = counters.worker.bursts();
            types::Worker {
                id,
                core: handle.core,
                numa_node: loads[id].numa_node,
                queues: ports.len() as u32,
                received_percent: loads[id].received_percent(&loads),
                notes: load_balance::notes(&loads, id, &ports),
                acknowledged: inner.publisher.acknowledged(id, epoch),
                connections: lens[id],
                capacity: handle.capacity,
                polls: polls.all,
                busy_polls: polls.busy,
                sleeps: polls.sleeps,
                received,
                handed_over: counters.handed_over(),
                taken_over: counters.taken_over(),
                load_percent: judged[id] * count as u64 * 100 / all.max(1),
                busy_percent: percent(polls.busy_cycles, polls.busy_cycles.saturating_add(polls.idle_cycles)),
                busy_cycles: polls.busy_cycles,
                idle_cycles: polls.idle_cycles,
                burst_hundredths: percent(frames, bursts.iter().sum()),
                bursts: bursts.to_vec(),
                packets: packets[id].packets,
            }
        };
        inner.workers.iter().enumerate().map(worker).collect()
    }
}

impl Inner {
    fn counters(&self) -> Counters {
        const DIRECTIONS: [Direction; 2] = [Direction::Inbound, Direction::Outbound];
        let nics = self.committer.registry().names.len();
        let mut by_nic = vec![[ReasonCounts::default(); 2]; nics];
        let mut by_worker = vec![ReasonCounts::default(); self.workers.len()];
        for (worker, sum) in self.workers.iter().zip(&mut by_worker) {
            for (slot, tallies) in by_nic.iter_mut().enumerate() {
                for (direction, tally) in DIRECTIONS.into_iter().zip(tallies) {
                    let counted = ReasonCounts::read(&worker.counters, NicSlot(slot as u32), direction);
                    tally.add(&counted);
                    sum.add(&counted);
                }
            }
        }
        for (slot, tallies) in by_nic.iter_mut().enumerate() {
            let before = self.baselines.of(NicSlot(slot as u32));
            for (tally, before) in tallies.iter_mut().zip(&before.packets) {
                *tally = tally.since(before);
            }
        }
        let mut total = ReasonCounts::default();
        by_worker.iter().for_each(|tally| total.add(tally));
        let worker = |(id, (handle, tally)): (usize, (&super::WorkerHandle, &ReasonCounts))| WorkerCounters {
            id,
            core: handle.core,
            packets: tally.packets(),
            bytes: tally.in_bytes(),
        };
        let nic = |(slot, [inbound, outbound]): (usize, &[ReasonCounts; 2])| NicCounters {
            nic: self.committer.nic_name(NicSlot(slot as u32)).map(|name| name.to_string()),
            inbound: inbound.tallied(),
            outbound: outbound.tallied(),
        };
        let seen = |nic: &NicCounters| nic.inbound.packets.received + nic.outbound.packets.received > 0;
        Counters {
            generation: self.committer.generation().0,
            packets: total.packets(),
            bytes: total.in_bytes(),
            reasons: total.reasons(),
            workers: self.workers.iter().zip(&by_worker).enumerate().map(worker).collect(),
            nics: by_nic.iter().enumerate().map(nic).filter(seen).collect(),
            ports: self.ports_now(),
            settings: lenient_settings(self.committer.config(), self.committer.policy()),
        }
    }

    /// Connections of a table that each NIC may always have (semantics 6.1).
    pub(super) fn fair_share(&self) -> u32 {
        let all = self.workers.iter().map(|worker| worker.capacity).sum();
        fair_share(all, self.publisher.current().policy_nics())
    }

    fn nic(&self, nic: &model::Nic) -> types::Nic {
        let identity = self.committer.registry().nic(&nic.key);
        let slot = identity.map_or(NicSlot::NONE, |identity| identity.slot);
        let (connections, fair_share) = (self.connection_counts.get(slot), self.fair_share());
        let before = self.baselines.of(slot);
        let counted = identity.map(|_| NicTotals::read(&self.workers, slot)).unwrap_or(*before);
        let [inbound, outbound] = [0, 1].map(|at| counted.packets[at].since(&before.packets[at]));
        let mode = nic.mode.unwrap_or(self.committer.config().policy.mode);
        types::Nic {
            nic: nic.key.to_string(),
            vpc: nic.vpc.to_string(),
            mac: nic.mac.map(|mac| mac.to_string()),
            addresses: nic.addresses.iter().map(ToString::to_string).collect(),
            allowed_addresses: nic.allowed_addresses.iter().map(|a| a.address.to_string()).collect(),
            security_groups: names(&nic.security_groups),
            mode: if mode == Mode::Observe { "observe" } else { "enforce" }.to_owned(),
            connections,
            max_connections: nic.max_connections,
            fair_share,
            above_share: connections > fair_share,
            displaced: counted.displaced - before.displaced,
            live_inbound: identity
                .map_or(0, |identity| self.live_under(&[(identity.slot, identity.live_epoch())])),
            flushed_at: identity.map_or(0, |identity| identity.flush().0),
            inbound: inbound.packets(),
            inbound_bytes: inbound.in_bytes(),
            outbound: outbound.packets(),
            outbound_bytes: outbound.in_bytes(),
        }
    }
}

/// A hundred times one number by another; 0 where that is.
fn percent(of: u64, all: u64) -> u64 {
    (u128::from(of) * 100).checked_div(all.into()).unwrap_or_default() as u64
}

/// Of objects in the order of their names, so many behind one.
pub(super) fn behind<'o, V>(
    objects: &'o model::Objects<model::Key, V>,
    after: Option<&model::Key>,
    limit: usize,
) -> impl Iterator<Item = &'o std::sync::Arc<V>> {
    let from = after.map_or(Bound::Unbounded, Bound::Excluded);
    objects.range::<_, model::Key>((from, Bound::Unbounded)).map(|(_, object)| object).take(limit)
}

/// So many groups of a policy behind a name, with a text in theirs.
fn groups_of(policy: &Policy, text: &str, after: Option<&model::Key>, limit: usize) -> Vec<types::Group> {
    let all = behind(&policy.security_groups, after, usize::MAX);
    let listed: Vec<_> = all.filter(|group| group.key.to_string().contains(text)).take(limit).collect();
    let mut members: BTreeMap<&model::Key, Vec<String>> =
        listed.iter().map(|group| (&group.key, Vec::new())).collect();
    for nic in policy.nics.values() {
        for group in &nic.security_groups {
            if let Some(members) = members.get_mut(group) {
                members.push(nic.key.to_string());
            }
        }
    }
    let group = |group: &std::sync::Arc<model::SecurityGroup>| {
        let inbound = group.rules.iter().filter(|rule| rule.direction == model::Direction::Inbound).count();
        types::Group {
            group: group.key.to_string(),
            description: group.description.clone(),
            implied: group.implied,
            staged: group.staged,
            inbound_rules: inbound,
            outbound_rules: group.rules.len() - inbound,
            rules: group.rules.iter().enumerate().map(|(at, rule)| described(group, at, rule)).collect(),
            nics: members.get(&group.key).cloned().unwrap_or_default(),
        }
    };
    listed.into_iter().map(group).collect()
}

/// A rule at its position in its group.
fn described(group: &model::SecurityGroup, at: usize, rule: &model::Rule) -> types::GroupRule {
    types::GroupRule {
        rule: format!("{}#{at}", group.key),
        rule_id: rule.meaning().identity().to_string(),
        rule_text: in_words(rule),
        staged: rule.staged,
    }
}
