//! A change's way from a validated policy to a snapshot: planned, compiled, numbered.
//!
//! [`Committer`] knows the present policy and its identities and touches no worker: who runs workers publishes what
//! it yields (`replay` to itself, the appliance to its workers through RCU).

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

use engine::snapshot::{AddressKey, Snapshot};
use engine::{Generation, NicSlot};

use crate::compile::Compiler;
use crate::config::Config;
use crate::delta::Delta;
use crate::diff::diff_of;
use crate::incremental::{Change, IncrementalCompiler};
use crate::index::Index;
use crate::model::{Key, Nic, Policy};
use crate::persisted::PersistedState;
use crate::plan::{Plan, plan, same_nic};
use crate::registry::{OutOfSlots, Registry, SlotCount};

/// Generations that a rollback reaches.
pub const KEPT_GENERATIONS: usize = 1024;
/// Bytes of memory that what leads back to them may take, about. The last one can be gone back over whatever it takes.
pub const KEPT_BYTES: usize = 64 << 20;

/// The present policy, and what it takes to make the next one of it.
#[derive(Clone)]
pub struct Committer {
    config: Config,
    policy: Policy,
    index: Index,
    generation: Generation,
    last_ending: Generation,
    compiler: Compiler,
    incremental: IncrementalCompiler,
    registry: Registry,
    /// What the last commits replaced, the newest last, each with its weight.
    deltas: VecDeque<(Arc<Delta>, usize)>,
    /// What they weigh together.
    weight: usize,
}

/// A generation that cannot be gone back to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoSuchGeneration {
    /// The one asked for.
    pub asked: Generation,
    /// The oldest that can be gone back to.
    pub oldest: Generation,
    /// The present one.
    pub present: Generation,
}

impl std::fmt::Display for NoSuchGeneration {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let [asked, oldest, present] = [self.asked, self.oldest, self.present].map(|generation| generation.0);
        write!(f, "there is no generation {asked} to go back to; allowed: {oldest} to {present}")
    }
}

impl std::error::Error for NoSuchGeneration {}

/// Why a rollback did not happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoRollback {
    /// The generation is not there.
    NoSuchGeneration(NoSuchGeneration),
    /// There is no place for what it would bring back.
    Exhausted(OutOfSlots),
}

impl From<NoSuchGeneration> for NoRollback {
    fn from(error: NoSuchGeneration) -> Self {
        NoRollback::NoSuchGeneration(error)
    }
}

impl From<OutOfSlots> for NoRollback {
    fn from(error: OutOfSlots) -> Self {
        NoRollback::Exhausted(error)
    }
}

impl std::fmt::Display for NoRollback {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            NoRollback::NoSuchGeneration(error) => error.fmt(f),
            NoRollback::Exhausted(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for NoRollback {}

/// A change that is worked out and not carried out yet.
#[derive(Clone)]
pub struct Prepared {
    policy: Policy,
    /// What it does.
    pub plan: Plan,
    /// What it replaces.
    pub delta: Arc<Delta>,
    /// The generation that it goes back to, if it is a rollback.
    pub back_to: Option<Generation>,
    /// The oldest generation that can be gone back to after it.
    pub oldest: Generation,
    /// The places that it takes, which were free.
    wanted: SlotCount,
    weight: usize,
}

impl Prepared {
    /// The policy to be.
    pub fn policy(&self) -> &Policy {
        &self.policy
    }
}

/// A committed change.
pub struct Commit {
    /// What workers read from now on.
    pub snapshot: Box<Snapshot>,
    /// What it does.
    pub plan: Plan,
}

impl Committer {
    /// The empty policy, as generation 0, for those whom nobody attacks: see [`AddressKey::PUBLIC`].
    pub fn new(config: Config) -> Committer {
        Committer::keyed(config, AddressKey::PUBLIC)
    }

    /// The same with a key of one's own for the index of addresses.
    pub fn keyed(config: Config, key: AddressKey) -> Committer {
        Committer {
            registry: Registry::new(config.timeouts.longest().as_nanos() as u64),
            incremental: IncrementalCompiler::new(&config, key),
            config,
            policy: Policy::default(),
            index: Index::default(),
            generation: Generation(0),
            last_ending: Generation(0),
            compiler: Compiler::default(),
            deltas: VecDeque::new(),
            weight: 0,
        }
    }

    /// As a former process left it, with the snapshot that its workers had.
    pub fn restored(
        config: Config,
        key: AddressKey,
        state: PersistedState,
    ) -> Result<(Committer, Box<Snapshot>), String> {
        let policy = state.policy();
        let mut committer = Committer::keyed(config, key);
        let longest_ns = committer.config.timeouts.longest().as_nanos() as u64;
        (committer.generation, committer.last_ending) =
            (Generation(state.generation), Generation(state.last_ending));
        committer.registry = Registry::from_persisted(state.registry, longest_ns)?;
        committer.compiler = Compiler::from_persisted(state.compiler)?;
        let is_held = |(key, nic): (&Key, &Arc<Nic>)| {
            let addresses: BTreeSet<_> = nic.all_addresses().collect();
            committer.registry.nic(key).is_some_and(|held| held.addresses.keys().copied().eq(addresses))
        };
        if committer.registry.nics().count() != policy.nics.len() || !policy.nics.iter().all(is_held) {
            return Err("its NICs are not those of its policy".to_owned());
        }
        committer.index = Index::of(&policy);
        committer.policy = policy;
        let change = Change {
            policy: &committer.policy,
            delta: &Delta::default(),
            index: &committer.index,
            generation: committer.generation,
            last_ending: committer.last_ending,
        };
        let snapshot = committer.incremental.build_all(&change, &mut committer.compiler, &committer.registry);
        Ok((committer, Box::new(snapshot)))
    }

    /// The last generation that ended or disconnected anything.
    pub fn last_ending(&self) -> Generation {
        self.last_ending
    }

    /// Takes up a policy that has been in force before, as generation `generation`, with the way back from there: what
    /// each generation before it replaced, the newest last. The snapshot for workers to start with.
    pub fn resume(
        &mut self,
        policy: Policy,
        generation: Generation,
        deltas: impl IntoIterator<Item = Arc<Delta>>,
    ) -> Result<Box<Snapshot>, OutOfSlots> {
        let prepared = self.prepare(policy)?;
        self.generation.0 = generation.0.saturating_sub(1);
        let commit = self.carry_out(prepared, 0);
        self.remember(deltas);
        Ok(commit.snapshot)
    }

    /// The way back from the present generation, the newest delta last.
    pub fn remember(&mut self, deltas: impl IntoIterator<Item = Arc<Delta>>) {
        (self.deltas, self.weight) = (VecDeque::new(), 0);
        for delta in deltas {
            let weight = delta.weight();
            self.keep(delta, weight);
        }
    }

    /// How many of the oldest deltas go when one of this weight comes.
    fn surplus(&self, weight: usize) -> usize {
        let (mut bytes, mut count) = (self.weight + weight, self.deltas.len() + 1);
        let is_too_much = |(_, oldest): &&(Arc<Delta>, usize)| {
            let is_over = count > KEPT_GENERATIONS || bytes > KEPT_BYTES;
            (bytes, count) = (bytes - oldest, count - 1);
            is_over
        };
        self.deltas.iter().take_while(is_too_much).count()
    }

    fn keep(&mut self, delta: Arc<Delta>, weight: usize) {
        let gone: usize = self.deltas.drain(..self.surplus(weight)).map(|(_, weight)| weight).sum();
        self.weight = self.weight - gone + weight;
        self.deltas.push_back((delta, weight));
    }

    /// A change that is admitted.
    fn prepared(
        &self,
        policy: Policy,
        plan: Plan,
        delta: Arc<Delta>,
        back_to: Option<Generation>,
        wanted: SlotCount,
    ) -> Prepared {
        let weight = delta.weight();
        let kept = self.deltas.len() + 1 - self.surplus(weight);
        let oldest = Generation(self.generation.0 + 1 - kept as u32);
        Prepared { policy, plan, delta, back_to, oldest, wanted, weight }
    }

    /// The present policy.
    pub fn policy(&self) -> &Policy {
        &self.policy
    }

    /// The configuration it works by.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The present generation.
    pub fn generation(&self) -> Generation {
        self.generation
    }

    /// See [`Registry::take_reused`].
    pub fn take_reused(&mut self) -> Vec<NicSlot> {
        self.registry.take_reused()
    }

    /// Names and places.
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// Names of rules.
    pub fn compiler(&self) -> &Compiler {
        &self.compiler
    }

    /// The snapshot of the empty policy, for workers to start with.
    pub fn initial(&self) -> Snapshot {
        IncrementalCompiler::new(&self.config, self.incremental.key()).initial()
    }

    /// What applying `new` would do.
    pub fn plan(&self, new: &Policy) -> Plan {
        self.plan_of(new, &Delta::between(&self.policy, new))
    }

    fn plan_of(&self, new: &Policy, delta: &Delta) -> Plan {
        plan(&self.policy, new, delta, &self.index, &self.config.policy)
    }

    /// Gives back the places whose last connection has run out. Asked for ahead of a change.
    pub fn recycle(&mut self, now_ns: u64) {
        self.registry.recycle(now_ns);
    }

    /// See [`Registry::recycle_idle`].
    pub fn recycle_idle(&mut self, all: bool, is_idle: impl Fn(NicSlot) -> bool) {
        self.registry.recycle_idle(all, is_idle);
    }

    /// Works a change out, and refuses what there are no places for: nothing is touched yet, and nothing can be refused later.
    pub fn prepare(&self, mut new: Policy) -> Result<Prepared, OutOfSlots> {
        new.share_with(&self.policy);
        let delta = Arc::new(Delta::between(&self.policy, &new));
        let plan = self.plan_of(&new, &delta);
        let nics = delta.nics.iter().filter_map(|(key, _)| new.nics.get_key_value(key));
        let wanted = self.wanted(nics, &plan, None);
        self.registry.admit(wanted)?;
        Ok(self.prepared(new, plan, delta, None, wanted))
    }

    /// Works a rollback to generation `to` out (semantics 5.7).
    pub fn prepare_rollback(&mut self, to: Generation, now_ns: u64) -> Result<Prepared, NoRollback> {
        // First, since the plan rests on who can still be brought back.
        self.registry.recycle(now_ns);
        let (policy, plan, delta) = self.plan_rollback(to)?;
        let others = self.others_since(to, &delta);
        let nics = others.iter().filter_map(|key| policy.nics.get_key_value(key));
        let wanted = self.wanted(nics, &plan, Some(to));
        self.registry.admit(wanted)?;
        Ok(self.prepared(policy, plan, Arc::new(delta), Some(to), wanted))
    }

    /// The places that these NICs take, as they are to be.
    fn wanted<'p>(
        &self,
        nics: impl Iterator<Item = (&'p Key, &'p Arc<Nic>)>,
        plan: &Plan,
        back_to: Option<Generation>,
    ) -> SlotCount {
        nics.fold(SlotCount::default(), |all, (key, nic)| {
            let is_new = plan.ended.contains(key);
            let one = self.registry.slots_needed(key, nic.all_addresses(), back_to, is_new);
            SlotCount { nics: all.nics + one.nics, addresses: all.addresses + one.addresses }
        })
    }

    /// Carries out what was prepared from the present generation: what it wants makes the next one.
    pub fn carry_out(&mut self, prepared: Prepared, now_ns: u64) -> Commit {
        let Prepared { policy, plan, delta, back_to, wanted, weight, .. } = prepared;
        let taken = self.registry.taken();
        self.generation.0 += 1;
        let ends = match back_to {
            None => self.move_identities(&policy, &plan, &delta, now_ns),
            Some(to) => {
                self.bring_identities_back(&policy, &plan, &delta, (to, now_ns));
                true
            }
        };
        let now_taken = self.registry.taken();
        debug_assert_eq!(
            (now_taken.nics - taken.nics, now_taken.addresses - taken.addresses),
            (wanted.nics, wanted.addresses),
            "places are admitted to the last one"
        );
        if ends {
            self.last_ending = self.generation;
        }
        self.policy = policy;
        self.index.update(&delta, &self.policy);
        debug_assert!(self.index == Index::of(&self.policy), "an index kept up to date, and one made afresh");
        let change = Change {
            policy: &self.policy,
            delta: &delta,
            index: &self.index,
            generation: self.generation,
            last_ending: self.last_ending,
        };
        let snapshot = Box::new(self.incremental.update(&change, &mut self.compiler, &mut self.registry));
        self.keep(delta, weight);
        Commit { snapshot, plan }
    }

    /// Makes `new` the present policy. `now_ns` is any clock that the appliance's timeouts run by. `None` if nothing
    /// changes.
    pub fn commit(&mut self, new: Policy, now_ns: u64) -> Result<Option<Commit>, OutOfSlots> {
        self.recycle(now_ns);
        let prepared = self.prepare(new)?;
        if prepared.plan.diff.is_empty() {
            return Ok(None);
        }
        Ok(Some(self.carry_out(prepared, now_ns)))
    }

    /// The oldest generation that can be gone back to.
    pub fn oldest(&self) -> Generation {
        Generation(self.generation.0 - self.deltas.len() as u32)
    }

    /// The policy of a generation.
    pub fn policy_at(&self, asked: Generation) -> Result<Policy, NoSuchGeneration> {
        let mut policy = self.policy.clone();
        self.deltas_since(asked)?.for_each(|delta| delta.revert(&mut policy));
        Ok(policy)
    }

    /// What the generations after one replaced, the newest first.
    fn deltas_since(
        &self,
        asked: Generation,
    ) -> Result<impl Iterator<Item = &Delta> + Clone, NoSuchGeneration> {
        let (oldest, present) = (self.oldest(), self.generation);
        if !(oldest..=present).contains(&asked) {
            return Err(NoSuchGeneration { asked, oldest, present });
        }
        Ok(self.deltas.iter().rev().take((present.0 - asked.0) as usize).map(|(delta, _)| &**delta))
    }

    /// What going back to generation `to` would do (semantics 5.7): nothing is flushed; who was touched since is judged
    /// again.
    fn plan_rollback(&self, to: Generation) -> Result<(Policy, Plan, Delta), NoSuchGeneration> {
        let then = self.policy_at(to)?;
        let delta = Delta::composed(self.deltas_since(to)?, &self.policy, &then);
        let [ended, rejudged] = self.touched_by_rollback(to, &then, &self.others_since(to, &delta));
        let plan = Plan { diff: diff_of(&delta, &then), ended, rejudged, ..Plan::default() };
        debug_assert!(
            [&plan.ended, &plan.rejudged]
                == self.touched_by_rollback(to, &then, &self.everybody(&then)).each_ref(),
            "whom a rollback touches is among those that became others since"
        );
        Ok((then, plan, delta))
    }

    /// NICs that may be others than they were at generation `to`, between which and now lies `delta`.
    fn others_since(&self, to: Generation, delta: &Delta) -> BTreeSet<Key> {
        let mut others = self.registry.moved_since(to);
        others.extend(delta.nics.iter().map(|(key, _)| key.clone()));
        others
    }

    fn everybody(&self, then: &Policy) -> BTreeSet<Key> {
        self.policy.nics.keys().chain(then.nics.keys()).cloned().collect()
    }

    /// Of these NICs, those that a rollback ends and those whose connections it has judged again.
    fn touched_by_rollback(&self, to: Generation, then: &Policy, nics: &BTreeSet<Key>) -> [BTreeSet<Key>; 2] {
        let is_other = |key: &Key| {
            let Some(now) = self.policy.nics.get(key) else { return false };
            let moved = then.nics.get(key).is_none_or(|then| !same_nic(now, then));
            moved || self.registry.can_restore_nic(key, to)
        };
        let is_touched = |key: &Key| {
            then.nics.contains_key(key) && self.registry.nic(key).is_none_or(|nic| nic.touched_since(to))
        };
        [
            nics.iter().filter(|key| is_other(key)).cloned().collect(),
            nics.iter().filter(|key| is_touched(key)).cloned().collect(),
        ]
    }

    /// Goes back to the policy of generation `to`, as a new generation: the connections that only later changes
    /// disconnected are live again (semantics 5.7). `None` if `to` is the present one.
    pub fn rollback(&mut self, to: Generation, now_ns: u64) -> Result<Option<Commit>, NoRollback> {
        let prepared = self.prepare_rollback(to, now_ns)?;
        if to == self.generation {
            return Ok(None);
        }
        Ok(Some(self.carry_out(prepared, now_ns)))
    }

    /// Creates, deletes and re-addresses NICs, and notes their flushes. True if connections end or are disconnected by it.
    fn move_identities(&mut self, new: &Policy, plan: &Plan, delta: &Delta, now_ns: u64) -> bool {
        let generation = self.generation;
        for key in &plan.ended {
            self.registry.delete(key, generation, now_ns);
        }
        for key in &plan.flushed {
            if let Some(identity) = self.registry.nic_mut(key) {
                identity.flush_at(generation);
            }
        }
        for key in &plan.rejudged {
            if let Some(identity) = self.registry.nic_mut(key) {
                identity.rejudge_at(generation);
            }
        }
        let mut ends = !plan.ended.is_empty() || !plan.flushed.is_empty();
        for (key, _) in &delta.nics {
            let Some(nic) = new.nics.get(key) else { continue };
            if self.registry.nic(key).is_none() {
                let identity = self.registry.create(key, generation);
                if plan.rejudged.contains(key) {
                    identity.rejudge_at(generation);
                }
            }
            let addresses: Vec<_> = nic.all_addresses().collect();
            let moved = self.registry.set_addresses(key, &addresses, None, (generation, now_ns));
            if moved && let Some(identity) = self.registry.nic_mut(key) {
                identity.touch(generation);
            }
            ends |= moved;
        }
        ends
    }

    /// Gives NICs and addresses back who they were at generation `to`, and takes back what changes since did to their
    /// connections.
    fn bring_identities_back(
        &mut self,
        then: &Policy,
        plan: &Plan,
        delta: &Delta,
        (to, now_ns): (Generation, u64),
    ) {
        let generation = self.generation;
        for key in &plan.ended {
            if !self.registry.can_restore_nic(key, to) {
                self.registry.delete(key, generation, now_ns);
            }
        }
        let others = self.others_since(to, delta);
        for (key, nic) in others.iter().filter_map(|key| then.nics.get_key_value(key)) {
            if !self.registry.restore_nic(key, to, generation, now_ns) && self.registry.nic(key).is_none() {
                self.registry.create(key, generation);
            }
            if plan.rejudged.contains(key) {
                self.registry.roll_back(key, to, generation, now_ns);
            }
            let addresses: Vec<_> = nic.all_addresses().collect();
            self.registry.set_addresses(key, &addresses, Some(to), (generation, now_ns));
        }
        self.registry.roll_back_ended(to, generation, now_ns);
    }

    /// The name of a NIC by its place.
    pub fn nic_name(&self, slot: NicSlot) -> Option<Arc<str>> {
        self.registry.name(slot)
    }

    /// A NIC's place by its key.
    pub fn nic_slot(&self, key: &Key) -> Option<NicSlot> {
        self.registry.nic(key).map(|identity| identity.slot)
    }
}
