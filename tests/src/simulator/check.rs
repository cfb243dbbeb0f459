//! What holds between events: tables, what a full one gave up, counters, memory.

use std::collections::BTreeMap;

use control::compile::shard_config;
use crossbeam::channel::{Receiver, bounded};
use engine::classify::RuleVerdict;
use engine::conntrack::Connection;
use engine::conntrack::query_of_entry;
use engine::conntrack::{Liveness, STATES, ShardConfig, liveness};
use engine::counters::EngineCounters;
use engine::time::TICK_NS;
use engine::timer_wheel::EvictionClass;
use engine::worker::{RequestKind, WorkerReply, WorkerRequest};
use engine::worker_totals::EndCause;
use engine::{Direction, NicSlot, Reason, RuleId, addr_from_bits};

use super::world::{Seen, World};
use super::{Failure, fail};
use crate::oracle::room::Room;
use crate::oracle::{GRACE_NS, Id, View};

/// One worker's table before a poll, where it is to be told what the poll gave up.
pub(super) struct Before {
    views: Vec<View>,
    len: u32,
    generation: u32,
    /// Connections and tombstones of each NIC with all workers.
    held: BTreeMap<String, u32>,
    /// Some worker's table holds more than that: what has expired, or was ended by a change.
    is_vague: bool,
}

impl World<'_> {
    pub(super) fn before(&mut self, worker: usize, generation: u32) -> Option<Before> {
        if !self.setup.pressure {
            return None;
        }
        let views = self.oracle.connections(worker, generation, self.now_ns, true);
        let (mut held, mut known) = (BTreeMap::<String, u32>::new(), 0);
        for other in 0..self.setup.workers {
            let generation = if other == worker { generation } else { self.oracle.generation(other) };
            for view in self.oracle.connections(other, generation, self.now_ns, true) {
                *held.entry(view.id.nic).or_default() += 1;
                known += 1;
            }
        }
        let lens = self.farm.workers().iter().map(|worker| worker.firewall().shard().len());
        let lens: Vec<u32> = lens.collect();
        // Of its own table the worker knows all, or finds it before it looks further.
        let known_here = views.len() as u32;
        let is_vague = lens.iter().sum::<u32>() - lens[worker] > known - known_here;
        Some(Before { views, len: lens[worker], generation, held, is_vague })
    }

    fn shard_config(&self, worker: usize) -> ShardConfig {
        shard_config(&self.setup.config, worker as u32, self.setup.workers as u32)
    }

    /// Asks for all connections; the answer comes at the end of the worker's poll.
    pub(super) fn ask(&mut self, worker: usize) -> Receiver<WorkerReply> {
        let (answer, receiver) = bounded(1);
        let capacity = self.shard_config(worker).capacity as usize;
        self.farm.ask(
            worker,
            WorkerRequest {
                kind: RequestKind::List,
                from: 0,
                connections: Vec::with_capacity(capacity),
                watch_set: None,
                reply: answer,
            },
        );
        receiver
    }

    /// The worker's table is the oracle's, entry by entry.
    pub(super) fn compare(
        &mut self,
        worker: usize,
        judged: &[Seen],
        before: Option<Before>,
        answer: &Receiver<WorkerReply>,
    ) -> Result<(), Failure> {
        let Ok(answer) = answer.try_recv() else { return fail("question", "no answer") };
        self.bounds(worker)?;
        // The worker has let go of what it judged by, and holds the next generation if there is
        // one.
        let generation = self.farm.workers()[worker].reader().read().generation.0;
        let (got, ended) = self.listed(worker, &answer)?;
        self.figures.most("most connections of a worker", got.len() as u64);
        let mut expected = self.oracle.connections(worker, generation, self.now_ns, true);
        let gone = |view: &View| got.binary_search_by(|other| other.id.cmp(&view.id)).is_err();
        let mut missing: Vec<View> = expected.iter().filter(|view| gone(view)).cloned().collect();
        expected.retain(|view| !missing.contains(view));
        missing.append(&mut self.missing_of_ended(worker, generation, ended)?);
        if !missing.is_empty() {
            self.justify_eviction(worker, judged, before.as_ref(), &missing)?;
            missing.iter().for_each(|view| self.oracle.evicted(view));
        }
        // A later fragment says what its first said when that was judged.
        let is_refused = |seen: &&Seen| {
            seen.verdict.reason == Reason::TableFull && seen.fragment != engine::packet::Fragment::Later
        };
        if let Some(seen) = judged.iter().find(is_refused) {
            self.justify_refusal(worker, seen, before.as_ref())?;
        }
        same(&expected, &got)
    }

    /// The table never exceeds its size (6.1).
    fn bounds(&mut self, worker: usize) -> Result<(), Failure> {
        let config = self.shard_config(worker);
        let shard = self.farm.workers()[worker].firewall().shard();
        let (len, unconfirmed) = (shard.len(), shard.unconfirmed());
        // What a rollback brings back is there again, whatever the share.
        let in_share = unconfirmed <= config.unconfirmed || self.figures.get("rollbacks") > 0;
        if len > config.capacity || !in_share {
            return fail("size", format!("{len} entries, {unconfirmed} unconfirmed, of {config:?}"));
        }
        self.census(worker)
    }

    /// What the worker counts of its connections is what its table holds.
    fn census(&mut self, worker: usize) -> Result<(), Failure> {
        let polled = &self.farm.workers()[worker];
        let shard = polled.firewall().shard();
        if let Some(wrong) = shard.miscount(polled.snapshot()) {
            return fail("census", wrong);
        }
        let (mut live, mut tombstones) = ([0; STATES.len()], 0);
        shard.list(0, u32::MAX, |_, entry| match entry.class() {
            EvictionClass::Ended => {}
            EvictionClass::Tombstone => tombstones += 1,
            EvictionClass::Confirmed | EvictionClass::Unconfirmed => live[entry.state() as usize] += 1,
        });
        let len = shard.len();
        let tally = &self.farm.counters()[worker].worker;
        let counted = (STATES.map(|state| tally.live(state)), tally.tombstones());
        if counted != (live, tombstones) {
            return fail("census", format!("{counted:?} are counted of {:?}", (live, tombstones)));
        }
        let ended: u64 = EndCause::ALL.iter().map(|how| tally.ended(*how)).sum();
        if tally.opened() != ended + u64::from(len) {
            let opened = tally.opened();
            return fail("census", format!("{opened} have opened, {ended} ended, and {len} are there"));
        }
        Ok(())
    }

    /// What a change has ended stays until its deadline, for a rollback, or until a full table
    /// needs its place: those that are not there any more.
    fn missing_of_ended(
        &mut self,
        worker: usize,
        generation: u32,
        mut ended: Vec<View>,
    ) -> Result<Vec<View>, Failure> {
        let mut missing = self.oracle.connections(worker, generation, self.now_ns, false);
        // Of several with the same name, ended one after the other, the first is due first to both.
        missing.sort_by_key(|view| view.deadline_ns);
        ended.sort_by_key(|view| view.deadline_ns);
        missing.retain(|view| {
            let is_it = |other: &View| other.id == view.id && is_due_with(other, view);
            let found = ended.iter().position(is_it);
            found.map(|at| ended.remove(at)).is_none()
        });
        if ended.is_empty() { Ok(missing) } else { fail("table", format!("the engine has ended {ended:#?}")) }
    }

    /// What a worker answered, as the oracle would say it: live, and ended by a change. Deadlines
    /// are those of the engine's ticks.
    fn listed(&mut self, worker: usize, answer: &WorkerReply) -> Result<(Vec<View>, Vec<View>), Failure> {
        if answer.next.is_some() {
            return fail("question", "the answer is not all");
        }
        let now = self.now_ns / TICK_NS;
        let (mut live, mut ended) = (Vec::new(), Vec::new());
        for Connection { entry, remote, .. } in &answer.connections {
            let snapshot = self.farm.workers()[worker].reader().read();
            let binding = snapshot.binding(entry.addr);
            if binding.id != entry.addr {
                continue;
            }
            let (nic, place) = (binding.nic, liveness(entry, binding, snapshot));
            let judged_now = || {
                let query = query_of_entry(entry, *remote);
                snapshot.judge(binding, &query)
            };
            let refused = match place {
                Liveness::Rejudge => !matches!(judged_now(), RuleVerdict::Allow(_)),
                place => place == Liveness::Tombstone,
            };
            let ticks = u64::from(entry.deadline.wrapping_sub(answer.now.tick));
            let committer = &self.farm.committer;
            let list = if place == Liveness::Ended { &mut ended } else { &mut live };
            list.push(View {
                id: Id {
                    local: committer.registry().addresses[entry.addr.slot()],
                    remote: addr_from_bits(*remote, entry.is_v6()),
                    protocol: entry.protocol(),
                    column: entry.ports,
                    nic: committer.nic_name(nic).map_or("?".to_owned(), |name| name.to_string()),
                },
                inbound: entry.is_inbound(),
                state: entry.state().name(),
                confirmed: entry.state().class() == EvictionClass::Confirmed,
                tombstone: place == Liveness::Tombstone,
                refused,
                deadline_ns: (now + ticks) * TICK_NS,
                place: 0,
            });
        }
        live.sort();
        Ok((live, ended))
    }

    /// A connection that the oracle has and the engine has not: a full table gave it up, for a
    /// newcomer, in the order of 6.1.
    fn justify_eviction(
        &mut self,
        worker: usize,
        judged: &[Seen],
        before: Option<&Before>,
        missing: &[View],
    ) -> Result<(), Failure> {
        let newcomers: Vec<&Seen> = judged.iter().filter(|seen| seen.verdict.reason == Reason::New).collect();
        let ([victim], Some(before), [newcomer]) = (missing, before, newcomers.as_slice()) else {
            let newcomers = newcomers.len();
            return fail("eviction", format!("for {newcomers} newcomers the engine lost {missing:#?}"));
        };
        // As it stood under the generation of that poll.
        let was = before.views.iter().find(|view| (&view.id, view.place) == (&victim.id, victim.place));
        let kind = match was {
            None if before.len == self.shard_config(worker).capacity => Ok("evicted ended"),
            None => Err("evicted ended, with room left".to_owned()),
            Some(was) => self.with_room(worker, newcomer, before, |room| room.judge(was)),
        };
        match kind {
            Ok(kind) => {
                self.figures.count(kind);
                self.figures.add("evictions of which shares are vague", u64::from(before.is_vague));
                self.tell(|| format!("   {kind}: {:?}", victim.id));
                Ok(())
            }
            Err(why) => {
                let Before { len, views, held, .. } = before;
                let config = self.shard_config(worker);
                fail("eviction", format!("{why}\nof {len} entries, {config:?}, {held:?}\n{views:#?}"))
            }
        }
    }

    /// The table as a newcomer met it.
    fn with_room<T>(
        &self,
        worker: usize,
        newcomer: &Seen,
        before: &Before,
        ask: impl FnOnce(&Room<'_>) -> T,
    ) -> T {
        let config = self.shard_config(worker);
        let name =
            self.farm.committer.nic_name(newcomer.verdict.nic).map_or_else(String::new, |n| n.to_string());
        ask(&Room {
            views: &before.views,
            len: before.len,
            capacity: config.capacity,
            unconfirmed: config.unconfirmed,
            all_workers: self.setup.config.conntrack.capacity.max(self.setup.workers as u32),
            nics: self.oracle.nics(before.generation),
            newcomer: &name,
            held: &|nic| before.held.get(nic).copied().unwrap_or_default(),
            is_vague: before.is_vague,
            heard_ns: &|view| self.oracle.heard_ns(view),
        })
    }

    /// `table-full`: nothing was there that may be given up.
    fn justify_refusal(&self, worker: usize, seen: &Seen, before: Option<&Before>) -> Result<(), Failure> {
        let Some(before) = before else { return fail("eviction", format!("frame {}: table-full", seen.id)) };
        let why = self.with_room(worker, seen, before, |room| room.refuses());
        why.or_else(|why| {
            fail("eviction", format!("frame {}: {why}: {:?}, {:#?}", seen.id, before.held, before.views))
        })
    }

    /// Counters add up: each says what was judged, sent and refused under it, and all of them what
    /// arrived.
    pub(super) fn check(&mut self) -> Result<(), Failure> {
        let mut totals = vec![0; self.setup.workers];
        for (&(worker, nic, direction, reason), &expected) in &self.tally {
            let reason = Reason::ALL[usize::from(reason)];
            let got = self.farm.counters()[worker].get(NicSlot(nic), direction_of(direction), reason);
            if got != expected {
                let name = reason.name();
                return fail("counters", format!("worker {worker}, NIC {nic}: {got} {name}, not {expected}"));
            }
            totals[worker] += expected;
        }
        for (&(worker, nic, direction), &expected) in &self.observed {
            let got = self.farm.counters()[worker].observed(NicSlot(nic), direction_of(direction));
            if got != expected {
                return fail(
                    "counters",
                    format!("worker {worker}, NIC {nic}: {got} observed, not {expected}"),
                );
            }
        }
        for (&(worker, nic, direction, passed), &expected) in &self.bytes {
            let got = self.farm.counters()[worker].bytes(NicSlot(nic), direction_of(direction), passed);
            if got != expected && (nic != NicSlot::NONE.0 || self.handoff_full() == 0) {
                return fail("counters", format!("worker {worker}, NIC {nic}: {got} bytes, not {expected}"));
            }
        }
        for (&(worker, rule), &expected) in &self.ruled {
            let counts = &self.farm.counters()[worker].rules;
            let got = (counts.opened(RuleId(rule)), counts.denied(RuleId(rule)));
            if got != expected && rule != RuleId::NONE.0 {
                return fail("counters", format!("worker {worker}, rule {rule}: {got:?}, not {expected:?}"));
            }
        }
        let rules = self.farm.committer.compiler().rules().len() as u32;
        for (worker, counters) in self.farm.counters().iter().enumerate() {
            let got: u64 = (0..rules).flat_map(|rule| counters.rules.differing(RuleId(rule))).sum();
            let expected = self.staged[worker];
            if got != expected {
                return fail(
                    "counters",
                    format!("worker {worker}: staged rules would change {got} verdicts, not {expected}"),
                );
            }
        }
        let nics = self.farm.committer.registry().names.len() as u32;
        for (worker, counters) in self.farm.counters().iter().enumerate() {
            let all: u64 = Reason::ALL.iter().map(|reason| counters.total(nics, *reason)).sum();
            let expected = totals[worker] + counters.total(nics, Reason::HandoffFull);
            if all != expected {
                return fail("counters", format!("worker {worker} counts {all}, not {expected}"));
            }
        }
        self.connection_counts()?;
        // In the queues, in the rings, or accounted for.
        let alive = self.farm.alive().load(std::sync::atomic::Ordering::Relaxed) as u64;
        let all = totals.iter().sum::<u64>() + self.handoff_full() + alive;
        if all != self.sent.len() as u64 {
            return fail("counters", format!("{} frames arrived, {all} are accounted for", self.sent.len()));
        }
        Ok(())
    }

    /// What all workers together count of each NIC is what their tables hold of it.
    fn connection_counts(&mut self) -> Result<(), Failure> {
        // Who is parked has no policy to be read.
        if self.parked.contains(&true) {
            return Ok(());
        }
        let nics = self.farm.committer.registry().names.len();
        let mut held = vec![0u32; nics];
        for worker in self.farm.workers().iter() {
            let snapshot = worker.snapshot();
            worker.firewall().shard().list(0, u32::MAX, |_, entry| {
                if entry.class() != EvictionClass::Ended {
                    held[snapshot.binding(entry.addr).nic.0 as usize] += 1;
                }
            });
        }
        for (nic, held) in held.into_iter().enumerate() {
            let counted = self.farm.connection_counts().get(NicSlot(nic as u32));
            if counted != held {
                return fail("counters", format!("NIC {nic}: {counted} connections are counted of {held}"));
            }
        }
        Ok(())
    }

    /// Frames lost between workers so far.
    pub(super) fn handoff_full(&self) -> u64 {
        let of = |counters: &EngineCounters, direction| {
            counters.get(NicSlot::NONE, direction, Reason::HandoffFull)
        };
        let counters = self.farm.counters().iter();
        counters.map(|counters| of(counters, Direction::Inbound) + of(counters, Direction::Outbound)).sum()
    }

    /// At the end every frame has been given back.
    pub(super) fn nothing_is_left(&mut self) -> Result<(), Failure> {
        let alive = self.farm.alive().load(std::sync::atomic::Ordering::Relaxed);
        if alive > 0 {
            return fail("memory", format!("{alive} frames were not given back"));
        }
        self.figures.add("handoff-full", self.handoff_full());
        Ok(())
    }
}

fn direction_of(number: u8) -> Direction {
    if number == Direction::Inbound as u8 { Direction::Inbound } else { Direction::Outbound }
}

/// The engine's deadlines lie on ticks: never before the oracle's, and not half a second behind.
fn is_due_with(engines: &View, oracles: &View) -> bool {
    (oracles.deadline_ns..oracles.deadline_ns + GRACE_NS).contains(&engines.deadline_ns)
}

/// Entry by entry.
fn same(expected: &[View], got: &[View]) -> Result<(), Failure> {
    for view in got {
        let Ok(at) = expected.binary_search_by(|other| other.id.cmp(&view.id)) else {
            return fail("table", format!("the engine has {view:#?}"));
        };
        let expected = &expected[at];
        // Whether it has been judged already, where it is due, may differ: whether it is refused
        // may not.
        let View { deadline_ns, place, tombstone, .. } = *expected;
        let view_then = View { deadline_ns, place, tombstone, ..view.clone() };
        if !is_due_with(view, expected) || view_then != *expected {
            return fail("table", format!("expected {expected:#?}\ngot {view:#?}"));
        }
    }
    Ok(())
}
