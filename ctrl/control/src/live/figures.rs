//! Everything that is counted, as one list of families: what `/metrics` and the stats page show, and [what only the page](page) does.
//!
//! The lock that changes hold is taken for as long as it takes to note who is there. Counters are read after it, from the counters that
//! workers write and anybody reads.

mod nics;
mod page;
mod rules;
mod workers;

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError};

use engine::NicSlot;
use engine::counters::{ConnectionCounts, EngineCounters};
use stats::{Family, Kind};

use super::baselines::Baselines;
use super::{Inner, Live, Polls};
use crate::api::types::{Began, PortCounters, Problem, Restart};
use crate::compile::RuleNumbers;
use crate::model::{Key, Policy};

/// What is known from one time to the next. Who gathers holds it: one at a time.
#[derive(Default)]
pub(super) struct FigureCollector {
    /// The generation that the lists are of.
    generation: Option<u32>,
    /// NICs that are there, with their places.
    nics: Arc<Vec<(Key, NicSlot)>>,
    rules: rules::Listed,
    shown: workers::LastShown,
    shown_of_nics: nics::LastShown,
}

/// One worker as it was met.
struct WorkerSample {
    core: usize,
    counters: Arc<EngineCounters>,
    capacity: u32,
    polls: Polls,
    generation: u32,
}

/// What is taken under the lock.
struct Sample {
    generation: u32,
    workers: Vec<WorkerSample>,
    connection_counts: Arc<ConnectionCounts>,
    /// Places of NICs that were ever given out.
    places: u32,
    baselines: Baselines,
    policy: Policy,
    numbers: RuleNumbers,
    /// Connections that re-judging has disconnected.
    killed: u64,
    /// NICs that are shown one by one at most.
    most_nics: usize,
}

impl Live {
    /// Everything that is counted, by now. Counters never run back from one call to the next, but where a NIC's or a rule's series has
    /// gone with it and has come back.
    pub fn figures(&self) -> Vec<Family> {
        self.gathered(|_, _, _| Vec::new())
    }

    /// The same, and what the stats page shows beside.
    pub fn page_figures(&self) -> Vec<Family> {
        self.gathered(|taken, ports, nics| page::families(self, taken, ports, nics))
    }

    fn gathered(&self, beside: impl FnOnce(&Sample, &[PortCounters], usize) -> Vec<Family>) -> Vec<Family> {
        let mut gatherer = self.shared.gatherer.lock().unwrap_or_else(PoisonError::into_inner);
        let taken = self.inner().taken(&mut gatherer);
        let ports = (self.shared.ports.lock().unwrap_or_else(PoisonError::into_inner))();
        let mut all = gatherer.families(&taken, &ports, self);
        all.extend(beside(&taken, &ports, gatherer.nics.len()));
        all
    }
}

impl Inner {
    fn taken(&self, gatherer: &mut FigureCollector) -> Sample {
        let (generation, newest) = (self.committer.generation().0, self.publisher.epoch().get());
        let registry = self.committer.registry();
        if gatherer.generation != Some(generation) {
            let nics = registry.nics().map(|(key, identity)| (key.clone(), identity.slot));
            gatherer.nics = Arc::new(nics.collect());
        }
        let met = |(id, worker): (usize, &super::WorkerHandle)| {
            // Each publication is one generation more. Who holds none takes the newest before it judges.
            let behind = self.publisher.held(id).map_or(0, |held| newest.saturating_sub(held.get()));
            WorkerSample {
                core: worker.core,
                counters: worker.counters.clone(),
                capacity: worker.capacity,
                polls: (worker.polls)(),
                generation: generation.saturating_sub(behind as u32),
            }
        };
        Sample {
            generation,
            workers: self.workers.iter().enumerate().map(met).collect(),
            connection_counts: self.connection_counts.clone(),
            places: registry.names.len() as u32,
            baselines: self.baselines.clone(),
            policy: self.committer.policy().clone(),
            numbers: self.committer.compiler().numbers(),
            killed: self.killed(),
            most_nics: self.committer.config().metrics.nics,
        }
    }
}

impl FigureCollector {
    fn families(&mut self, taken: &Sample, ports: &[PortCounters], live: &Live) -> Vec<Family> {
        if self.generation != Some(taken.generation) {
            self.rules.update(&taken.policy, &taken.numbers);
            self.generation = Some(taken.generation);
        }
        let build = Family::new("build", Kind::Info, &["version"], "The program that runs.");
        let generation = Family::new("generation", Kind::Gauge, &[], "The present generation of the policy.");
        let mut all = vec![
            build.with([env!("CARGO_PKG_VERSION").into()], 1),
            generation.with([], u64::from(taken.generation)),
        ];
        let (mut of_workers, columns) = self.shown.families(taken);
        let packets = of_workers.drain(..2);
        all.extend(packets);
        all.extend(of_ports(ports));
        all.extend(of_workers);
        let [commits, commit, acknowledge, disconnected, flows, trace, requests] =
            live.shared.metrics.families(taken.killed);
        all.extend([commits, commit, acknowledge, disconnected]);
        all.extend(self.rules.families(taken));
        let (_, problems) = live.shared.board.list();
        all.extend([flows, trace, health(&problems), of_restart(&live.restart()), requests]);
        all.extend(self.shown_of_nics.families(taken, &columns, &self.nics));
        all
    }
}

fn of_ports(ports: &[PortCounters]) -> [Family; 2] {
    let mut packets = Family::new(
        "port_packets",
        Kind::Counter,
        &["port", "way"],
        "Frames that ports received and sent, and that were lost on the way in and out.",
    );
    let mut up = Family::new("port_up", Kind::Gauge, &["port"], "Whether the port has a carrier or a peer.");
    let ways = ["received", "sent", "lost-rx", "lost-tx"].map(Arc::<str>::from);
    for port in ports {
        let name: Arc<str> = port.name.as_str().into();
        let counts = [port.rx_packets, port.tx_packets, port.rx_lost, port.tx_lost];
        for (way, count) in ways.iter().zip(counts) {
            packets.push([name.clone(), way.clone()], count);
        }
        up.push([name], u64::from(port.link_up));
    }
    [packets, up]
}

/// 1 while something is wrong, 0 for as long after as it stays listed.
fn health(problems: &[Problem]) -> Family {
    let mut lasts: BTreeMap<&str, bool> = BTreeMap::new();
    for problem in problems {
        *lasts.entry(&problem.what).or_default() |= problem.ended.is_none();
    }
    let mut health = Family::new(
        "health",
        Kind::Gauge,
        &["what"],
        "What is wrong: 1 while it lasts, 0 for an hour after.",
    );
    lasts.into_iter().for_each(|(what, lasts)| health.push([what.into()], u64::from(lasts)));
    health
}

/// What the start made of the connections that the former run left; no series where none are kept.
fn of_restart(restart: &Restart) -> Family {
    let mut connections = Family::new(
        "restart_connections",
        Kind::Gauge,
        &["outcome"],
        "What the start made of the connections that the former run left.",
    );
    let Restart { live, tombstones, ended, expired, unverifiable, left_out, .. } = *restart;
    let outcomes = [
        ("live", live),
        ("tombstone", tombstones),
        ("ended", ended),
        ("expired", expired),
        ("unverifiable", unverifiable),
        ("left-out", left_out),
    ];
    if restart.began != Began::Off {
        outcomes.into_iter().for_each(|(outcome, count)| connections.push([outcome.into()], count));
    }
    connections
}
