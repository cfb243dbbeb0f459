//! The policy in force: every change of it, from whomever it comes, takes this one way to the workers.
//!
//! ```text
//! file ─┐
//! API  ─┼─ validated document ─ plan ─ guards ─ compile ─ publish ─ wait for every worker ─ receipt
//! CLI  ─┘                              refused: nothing happened
//! ```
//!
//! [`Live`] is shared by all who change or show the policy. Changes take turns; whoever only looks never waits for one.
//! Workers are met in three places, none of which they can be held up by: the RCU publisher, the counters that they
//! write and anybody reads, and questions that they answer between two bursts.

mod connections;
mod views;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crossbeam::channel::Sender;
use engine::cells::{Cells, Population};
use engine::snapshot::Snapshot;
use engine::worker::Question;
use engine::{Generation, NicSlot};
use rcu::{Epoch, Publisher, Waker};

use crate::api::shape::{Acknowledgement, PortCounters, Receipt, State};
use crate::commit::Committer;
use crate::config::Config;
use crate::document::Parsed;
use crate::model::Policy;
use crate::plan::Plan;

pub use connections::NoAnswer;
pub use views::{lenient_settings, notice};

/// How long a change waits for the workers before its receipt says `pending`.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long it waits without giving its thread away: a worker that polls answers well within it.
const SPIN: Duration = Duration::from_micros(500);

/// What the control side knows of one worker.
pub struct WorkerHandle {
    /// The core that it is pinned to.
    pub core: usize,
    /// What it counts.
    pub cells: Arc<Cells>,
    /// What it is asked.
    pub questions: Sender<Question>,
    /// Wakes it, where it sleeps when idle.
    pub waker: Option<Waker>,
    /// Connections that its table holds.
    pub capacity: u32,
    /// Turns of its loop, and of them those that found frames.
    pub polls: Box<dyn Fn() -> (u64, u64) + Send>,
}

/// What the ports' devices count.
pub type PortsView = Box<dyn Fn() -> Vec<PortCounters> + Send>;

/// Who changes the policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The policy file, at the start, on a change of it or on SIGHUP.
    File,
    /// A client of the API.
    Api,
}

/// A change that is asked for.
#[derive(Debug)]
pub struct Change {
    /// The policy to be.
    pub document: Parsed,
    /// From whom it comes.
    pub origin: Origin,
    /// Only tell what would happen.
    pub dry_run: bool,
    /// Refuse to disconnect more live connections than this.
    pub max_disconnect: Option<u64>,
    /// Accept an empty document, or one without NICs where there are some.
    pub allow_empty: bool,
}

impl Change {
    /// To this policy, as a whole, with the guard against empty documents and no other.
    pub fn to(document: Parsed, origin: Origin) -> Change {
        Change { document, origin, dry_run: false, max_disconnect: None, allow_empty: false }
    }
}

/// Why a change was not applied. Nothing of it has happened.
#[derive(Debug)]
pub enum Refused {
    /// The document is empty.
    Empty,
    /// The document has no NICs, and the present policy has some.
    NoNics(usize),
    /// It would disconnect more than it may.
    TooMany {
        /// What it may.
        most: u64,
        /// What it would do.
        preview: Box<Receipt>,
    },
    /// The tables have no place for so many NICs or addresses.
    Exhausted,
}

impl std::fmt::Display for Refused {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Refused::Empty => {
                f.write_str("the document is empty and would remove everything; allowed with --allow-empty")
            }
            Refused::NoNics(there) => {
                write!(f, "the document has no NICs, and there are {there}; allowed with --allow-empty")
            }
            Refused::TooMany { most, preview } => {
                write!(
                    f,
                    "it would disconnect {} live connections; allowed: at most {most}",
                    preview.disconnected
                )
            }
            Refused::Exhausted => f.write_str("there is no place for so many NICs or addresses"),
        }
    }
}

/// The policy in force, with its workers. Cheap to clone.
#[derive(Clone)]
pub struct Live {
    shared: Arc<Shared>,
}

struct Shared {
    /// Whoever changes the policy holds it from its plan to its receipt.
    writer: tokio::sync::Mutex<()>,
    /// Held for moments, and never while waiting.
    inner: Mutex<Inner>,
    start: Instant,
}

struct Inner {
    committer: Committer,
    publisher: Publisher<Snapshot>,
    workers: Vec<WorkerHandle>,
    population: Arc<Population>,
    ports: PortsView,
    /// Set where a policy file governs: what is applied otherwise holds until that file changes.
    governing_file: Option<String>,
}

/// A change that is published.
struct Published {
    receipt: Receipt,
    epoch: Epoch,
    at: Instant,
    /// Places of the NICs that it flushed or ended, each with the epoch that this ended.
    ended_epochs: Vec<(NicSlot, Generation)>,
}

/// What it takes to be live.
pub struct Parts {
    /// The present policy.
    pub committer: Committer,
    /// The writing end of what the workers read; its value is the committer's.
    pub publisher: Publisher<Snapshot>,
    /// In the order of their readers.
    pub workers: Vec<WorkerHandle>,
    /// Everybody's connections by NIC.
    pub population: Arc<Population>,
    /// What the devices count.
    pub ports: PortsView,
    /// The moment 0 of the workers' clock.
    pub start: Instant,
    /// The policy file, where one governs.
    pub governing_file: Option<String>,
}

impl Live {
    /// A running appliance's.
    pub fn new(parts: Parts) -> Live {
        let Parts { committer, publisher, workers, population, ports, start, governing_file } = parts;
        let inner = Inner { committer, publisher, workers, population, ports, governing_file };
        Live {
            shared: Arc::new(Shared { writer: tokio::sync::Mutex::new(()), inner: Mutex::new(inner), start }),
        }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.shared.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The configuration that it works by.
    pub fn config(&self) -> Config {
        self.inner().committer.config().clone()
    }

    /// The present policy.
    pub fn policy(&self) -> Policy {
        self.inner().committer.policy().clone()
    }

    /// The present generation.
    pub fn generation(&self) -> u32 {
        self.inner().committer.generation().0
    }

    /// Applies a change, or tells what it would do. Changes take turns; a dropped future does not take back what is
    /// published.
    pub async fn apply(&self, change: Change) -> Result<Receipt, Refused> {
        let _turn = self.shared.writer.lock().await;
        let now_ns = self.shared.start.elapsed().as_nanos() as u64;
        let step = self.inner().publish(change, now_ns)?;
        match step {
            Step::Done(receipt) => Ok(receipt),
            Step::Published(published) => Ok(self.acknowledged(published).await),
        }
    }

    /// Waits for the workers, and completes the receipt.
    async fn acknowledged(&self, published: Published) -> Receipt {
        let Published { mut receipt, epoch, at, ended_epochs } = published;
        loop {
            let waited = at.elapsed();
            if self.inner().note_acknowledgements(&mut receipt.workers, epoch, waited) || waited > PATIENCE {
                break;
            }
            if waited < SPIN {
                std::hint::spin_loop();
            } else {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        }
        let mut inner = self.inner();
        receipt.pending =
            receipt.workers.iter().filter(|w| w.acknowledged_us.is_none()).map(|w| w.id).collect();
        if receipt.pending.is_empty() {
            receipt.state = State::Acknowledged;
            receipt.acknowledged_us =
                receipt.workers.iter().filter_map(|w| w.acknowledged_us).max().or(Some(0));
        }
        receipt.disconnected = inner.live_under(&ended_epochs);
        inner.publisher.reclaim();
        receipt
    }

    /// Frees old snapshots that a worker held too long at the time of their change.
    pub fn reclaim(&self) {
        let mut inner = self.inner();
        if inner.publisher.in_limbo() > 0 {
            inner.publisher.reclaim();
        }
    }
}

enum Step {
    /// Nothing to publish.
    Done(Receipt),
    Published(Published),
}

fn names<'k>(keys: impl IntoIterator<Item = &'k crate::model::Key>) -> Vec<String> {
    keys.into_iter().map(ToString::to_string).collect()
}

impl Inner {
    /// Plans, asks the guards, compiles and publishes.
    fn publish(&mut self, change: Change, now_ns: u64) -> Result<Step, Refused> {
        let begin = Instant::now();
        let Change { document: Parsed { policy, empty }, origin, dry_run, max_disconnect, allow_empty } =
            change;
        let there = self.committer.policy().nics.len();
        if empty && !allow_empty {
            return Err(Refused::Empty);
        }
        if policy.nics.is_empty() && there > 0 && !allow_empty {
            return Err(Refused::NoNics(there));
        }
        let plan = self.committer.plan(&policy);
        let ended_epochs = self.epochs_to_end(&plan);
        let mut receipt = self.preview(&plan, &ended_epochs);
        if plan.diff.is_empty() {
            receipt.state = State::Unchanged;
            return Ok(Step::Done(receipt));
        }
        if let Some(most) = max_disconnect.filter(|most| receipt.disconnected > *most) {
            return Err(Refused::TooMany { most, preview: Box::new(receipt) });
        }
        if dry_run {
            return Ok(Step::Done(receipt));
        }
        let commit = match self.committer.commit(policy, now_ns) {
            Ok(Some(commit)) => commit,
            Ok(None) => return Ok(Step::Done(Receipt { state: State::Unchanged, ..receipt })),
            Err(_) => return Err(Refused::Exhausted),
        };
        let epoch = self.publisher.publish(commit.snapshot);
        let at = Instant::now();
        receipt.publish_us = Some((at - begin).as_micros() as u64);
        receipt.generation = self.committer.generation().0;
        receipt.state = State::Pending;
        receipt.workers =
            (0..self.workers.len()).map(|id| Acknowledgement { id, acknowledged_us: None }).collect();
        if let Some(file) = self.governing_file.as_ref().filter(|_| origin != Origin::File) {
            receipt
                .warnings
                .push(format!("{file} governs (policy.source): the next change of that file replaces this"));
        }
        Ok(Step::Published(Published { receipt, epoch, at, ended_epochs }))
    }

    /// Who loses connections, with the flush epochs under which they opened.
    fn epochs_to_end(&self, plan: &Plan) -> Vec<(NicSlot, Generation)> {
        let nics = &self.committer.registry().nics;
        let keys = plan.flushed.iter().chain(&plan.ended);
        let mut epochs: Vec<_> =
            keys.filter_map(|key| nics.get(key)).map(|nic| (nic.slot, nic.live_epoch())).collect();
        // A NIC that moves to another VPC is ended and flushed.
        epochs.sort_unstable();
        epochs.dedup();
        epochs
    }

    /// What the change would do, as of now.
    fn preview(&self, plan: &Plan, ended_epochs: &[(NicSlot, Generation)]) -> Receipt {
        Receipt {
            state: State::DryRun,
            generation: self.committer.generation().0,
            added: plan.diff.added.clone(),
            changed: plan.diff.changed.clone(),
            removed: plan.diff.removed.clone(),
            flushed: names(&plan.flushed),
            rejudged: names(&plan.rejudged),
            ended: names(&plan.ended),
            disconnected: self.live_under(ended_epochs),
            publish_us: None,
            acknowledged_us: None,
            workers: Vec::new(),
            pending: Vec::new(),
            warnings: Vec::new(),
        }
    }

    /// Live inbound connections under these epochs, over all workers.
    fn live_under(&self, epochs: &[(NicSlot, Generation)]) -> u64 {
        let of = |worker: &WorkerHandle| {
            epochs.iter().map(|(nic, epoch)| worker.cells.live_under(*nic, *epoch)).sum::<u64>()
        };
        self.workers.iter().map(of).sum()
    }

    /// Notes who has acknowledged by now; true once all have.
    fn note_acknowledgements(&self, workers: &mut [Acknowledgement], epoch: Epoch, waited: Duration) -> bool {
        for worker in workers.iter_mut().filter(|worker| worker.acknowledged_us.is_none()) {
            if self.publisher.acknowledged(worker.id, epoch) {
                worker.acknowledged_us = Some(waited.as_micros() as u64);
            }
        }
        workers.iter().all(|worker| worker.acknowledged_us.is_some())
    }
}
