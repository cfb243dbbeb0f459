//! The first snapshot, and what workers and the control side share: made here, dealt out to both.

use std::fs::File;
use std::io::{self, Read};
use std::sync::Arc;
use std::time::Instant;

use control::config::{Config, Idle};
use control::health::HealthBoard;
use control::live::{Parts, StartState, WorkerHandle};
use control::trace;
use crossbeam::channel::bounded;
use crossbeam::utils::CachePadded;
use engine::burst::FirewallConfig;
use engine::conntrack::Secret;
use engine::counters::{ConnectionCounts, EngineCounters};
use engine::rss::is_usable_pattern;
use engine::trace::{DecisionReader, Recorder, decisions};
use engine::worker::{mesh, ring_size};

use super::cores::Cores;
use super::flows::{FlowReceiver, flow_channels};
use super::persist::StateKeeper;
use super::ports::{Ports, Wires};
use super::workers::{Job, WorkerStatus};
use crate::failure::Failure;

/// Questions that may wait for a worker.
const QUESTIONS: usize = 16;

/// What the control side has, what each worker has, and what workers tell: of packets, and of connections.
pub type Assembled = (Parts, Vec<Job>, Vec<DecisionReader>, Vec<FlowReceiver>);

/// For a worker with each of the `queues`, whose hashes `secret` keys. `start` is moment 0 of their clock. What the workers tell of
/// their decisions, where a history of them is kept, comes by the last.
pub fn assemble(
    beginning: StartState,
    queues: Vec<Wires>,
    cores: &Cores,
    ports: &Ports,
    secret: Secret,
    (start, keeping): (Instant, &mut StateKeeper),
) -> Result<Assembled, Failure> {
    let StartState { committer, snapshot, store, .. } = beginning;
    let config = committer.config();
    let count = queues.len();
    let firewalls: Vec<_> = (0..count as u32)
        .map(|id| FirewallConfig {
            shard: control::compile::shard_config(config, id, count as u32),
            secret,
            grace_end_ns: keeping.grace(config.conntrack.pickup_grace).as_nanos() as u64,
        })
        .collect();
    let capacities = capacities(config);
    let mut shares = keeping.deal(&capacities, secret.pattern(), &snapshot).into_iter();
    let (wakers, parkers) = parkers(config.workers.idle, count).map_err(Failure::runtime)?;
    let (publisher, readers) = rcu::domain(snapshot, count);
    let connection_counts =
        Arc::new(if count == 1 { ConnectionCounts::of_one_worker() } else { ConnectionCounts::new() });

    let (mut handles, mut jobs, mut told) = (Vec::new(), Vec::new(), Vec::new());
    let has_history = config.trace.history != 0;
    let rings = mesh(count, ring_size(config.wires.len()));
    let (tells, hears) = flow_channels(config, count);
    let mine = queues.into_iter().zip(readers).zip(rings).zip(firewalls).zip(parkers).zip(tells);
    for (id, (((((wires, reader), mut rings), firewall), parker), tells)) in mine.enumerate() {
        rings.wakers.clone_from(&wakers);
        let (counters, beat) =
            (Arc::new(EngineCounters::new()), Arc::new(CachePadded::new(WorkerStatus::default())));
        let (asked, questions) = bounded(QUESTIONS);
        let (core, shown) = (cores.workers[id], beat.clone());
        handles.push(WorkerHandle {
            core,
            counters: counters.clone(),
            questions: asked,
            waker: wakers.get(id).cloned(),
            capacity: firewall.shard.capacity,
            polls: Box::new(move || shown.polls()),
        });
        let connection_counts = connection_counts.clone();
        let (decisions, read) = has_history.then(|| decisions(trace::RING, trace::PER_SECOND)).unzip();
        told.extend(read);
        jobs.push(Job {
            id,
            core,
            firewall,
            counters,
            connection_counts,
            reader,
            wires,
            rings,
            questions,
            beat,
            parker,
            recorder: Recorder::new(decisions),
            tells,
            share: shares.next(),
        });
    }
    let (workers, ports) = (handles, ports.view());
    let parts = Parts {
        committer,
        publisher,
        workers,
        connection_counts,
        ports,
        start,
        governing_file: None,
        board: HealthBoard::default(),
        store,
    };
    Ok((parts, jobs, told, hears))
}

/// Connections that each worker's table holds.
pub fn capacities(config: &Config) -> Vec<u32> {
    let count = config.workers.cores.len() as u32;
    (0..count).map(|id| control::compile::shard_config(config, id, count).capacity).collect()
}

/// Where workers sleep, and who wakes them: nobody and nowhere, if they poll on.
fn parkers(idle: Idle, count: usize) -> io::Result<(Vec<rcu::Waker>, Vec<Option<rcu::Parker>>)> {
    let (mut wakers, mut parkers) = (Vec::new(), Vec::new());
    for _ in 0..count {
        if idle == Idle::Poll {
            parkers.push(None);
            continue;
        }
        let (parker, waker) = rcu::parker()?;
        wakers.push(waker);
        parkers.push(Some(parker));
    }
    Ok((wakers, parkers))
}

/// A secret for this start. `PORTCULLIS_RSS_PATTERN` (four hexadecimal digits) fixes how connections are spread over the workers, for
/// measurements that must know who owns what.
pub fn random_secret() -> Result<Secret, Failure> {
    let secret = read_random().map_err(|error| Failure::runtime(format!("/dev/urandom: {error}")))?;
    let Ok(text) = std::env::var("PORTCULLIS_RSS_PATTERN") else { return Ok(secret) };
    match u16::from_str_radix(&text, 16) {
        Ok(pattern) if is_usable_pattern(pattern) => Ok(secret.with_pattern(pattern)),
        _ => Err(Failure::input(format!(
            "PORTCULLIS_RSS_PATTERN is {text:?}; allowed: 16 bits in hexadecimal of which 9 or 11 are set, such as 6d5a"
        ))),
    }
}

fn read_random() -> io::Result<Secret> {
    let (mut random, mut words) = (File::open("/dev/urandom")?, [0; 2]);
    for word in &mut words {
        let mut bytes = [0; 8];
        random.read_exact(&mut bytes)?;
        *word = u64::from_ne_bytes(bytes);
    }
    Ok(Secret::drawn(words))
}
