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

mod admit;
mod advice;
mod baselines;
mod begin;
mod change;
mod confirm;
mod connections;
mod durable;
#[cfg(test)]
mod faults;
mod figures;
mod journal;
mod load_balance;
mod locking;
mod now;
mod preview;
mod reason_counts;
mod relief;
mod rules;
mod trace;
mod views;

use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use crossbeam::channel::Sender;
use engine::counters::{ConnectionCounts, EngineCounters};
use engine::snapshot::Snapshot;
use engine::worker::WorkerRequest;
use engine::{Generation, NicSlot};
use rcu::{Epoch, Publisher, Waker};

use crate::api::types::{Acknowledgement, PortCounters, Receipt, Restart, State};
use crate::commit::{Committer, Prepared};
use crate::config::Config;
use crate::diff::lines;
use crate::health::HealthBoard;
use crate::metrics::Metrics;
use crate::model::Policy;
use crate::persisted::StateWriter;
use crate::plan::Plan;
use crate::store::{Contents, Store};
use crate::trace::{NameTable, Trace};

use baselines::Baselines;
pub use begin::{PolicyFile, PreviousState, StartState, begin};
pub use change::{Author, Change, ChangeRefused, Edit, Origin, Target};
pub use confirm::LONGEST as LONGEST_CONFIRMATION;
use confirm::Unconfirmed;
pub use connections::{BadFilter, Filter, Known, NoSuchName, WorkerTimeout, Written as WrittenFilter};
pub(crate) use connections::{Page, check_rule, describe, is_live};
use figures::FigureCollector;
use journal::Journal;
use locking::{HealthSnapshot, block_in_place};
pub use relief::{NoRelief, Standstill};
pub use trace::WatchRefused;
pub use views::{ExplainFailed, lenient_settings, notice};

/// How long a change waits for the workers before its receipt says `pending`.
const PATIENCE: Duration = Duration::from_secs(2);
/// Names that a line of the log lists of each kind.
const LOGGED: usize = 5;
/// How long it waits without giving its thread away: a worker that polls answers well within it.
const SPIN: Duration = Duration::from_micros(500);

/// What the control side knows of one worker.
pub struct WorkerHandle {
    /// The core that it is pinned to.
    pub core: usize,
    /// What it counts.
    pub counters: Arc<EngineCounters>,
    /// What it is asked.
    pub questions: Sender<WorkerRequest>,
    /// Wakes it, where it sleeps when idle.
    pub waker: Option<Waker>,
    /// Connections that its table holds.
    pub capacity: u32,
    /// What its loop has done.
    pub polls: Box<dyn Fn() -> Polls + Send>,
}

/// What a worker's loop has done since the start.
#[derive(Clone, Copy, Debug, Default)]
pub struct Polls {
    /// Turns.
    pub all: u64,
    /// Of them, those that found frames.
    pub busy: u64,
    /// Times that it slept between two turns.
    pub sleeps: u64,
    /// Cycles of the time-stamp counter that went into busy turns...
    pub busy_cycles: u64,
    /// ... and into all others, with what lay between them.
    pub idle_cycles: u64,
}

/// What the ports' devices count.
pub type PortsView = Box<dyn Fn() -> Vec<PortCounters> + Send>;

/// The policy in force, with its workers. Cheap to clone.
#[derive(Clone)]
pub struct Live {
    shared: Arc<Shared>,
}

struct Shared {
    /// Whoever changes the policy holds it from its plan to its receipt.
    writer: Arc<tokio::sync::Mutex<()>>,
    /// Another process is in charge: whoever still waits for a turn is refused.
    relieved: AtomicBool,
    /// Held for as long as a change is worked out, and never while waiting.
    inner: Mutex<Inner>,
    /// What is known of it meanwhile.
    pulse: Mutex<HealthSnapshot>,
    notice: Mutex<views::Notice>,
    /// Whoever is told what could be tidied up holds it meanwhile.
    advising: tokio::sync::Mutex<()>,
    /// Told when a change needs no confirmation any more.
    settled: tokio::sync::Notify,
    /// What is wrong.
    board: HealthBoard,
    /// What workers tell of packets.
    trace: Arc<Trace>,
    /// What the control side counts of itself.
    metrics: Arc<Metrics>,
    /// What the ports count. Asked without holding up a change.
    ports: Arc<Mutex<PortsView>>,
    gatherer: Mutex<FigureCollector>,
    start: Instant,
    restart: OnceLock<Restart>,
}

struct Inner {
    committer: Committer,
    publisher: Publisher<Snapshot>,
    workers: Vec<WorkerHandle>,
    connection_counts: Arc<ConnectionCounts>,
    ports: Arc<Mutex<PortsView>>,
    /// Set where a policy file governs: what is applied otherwise holds until that file changes.
    governing_file: Option<String>,
    journal: Journal,
    baselines: Baselines,
    /// NICs, and rules, whose counters' memory is backed.
    touched: [u32; 2],
    rules_since: rules::Since,
    unconfirmed: Option<Unconfirmed>,
    store: Option<Arc<Store>>,
    /// What is in force and not in the store yet, in its order.
    unwritten: Vec<Arc<durable::DurableChange>>,
    trace: Arc<Trace>,
    /// Where each generation goes before any worker hears of it, if connections are to outlive the process.
    keeper: Option<StateWriter>,
}

/// A change that has passed its guards.
struct Admitted {
    prepared: Prepared,
    receipt: Receipt,
    ended_epochs: Vec<(NicSlot, Generation)>,
    author: Author,
    unconfirmed: Option<Unconfirmed>,
    begin: Instant,
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
    pub connection_counts: Arc<ConnectionCounts>,
    /// What the devices count.
    pub ports: PortsView,
    /// The moment 0 of the workers' clock.
    pub start: Instant,
    /// The policy file, where one governs.
    pub governing_file: Option<String>,
    /// What is wrong is told here.
    pub board: HealthBoard,
    /// The store with what it held, where there is one.
    pub store: Option<(Store, Option<Contents>)>,
}

impl Live {
    /// A running appliance's.
    pub fn new(parts: Parts) -> Live {
        let Parts {
            committer,
            publisher,
            workers,
            connection_counts,
            ports,
            start,
            governing_file,
            board,
            store,
        } = parts;
        let (store, contents) = store.map(|(store, contents)| (Arc::new(store), contents)).unzip();
        let contents = contents.flatten().unwrap_or_default();
        let journal = Journal::new(&committer, &contents);
        let metrics: Arc<Metrics> = Arc::default();
        let trace = Arc::new(Trace::new(NameTable::of(&committer), start, metrics.trace().clone()));
        let ports = Arc::new(Mutex::new(ports));
        let mut rules_since = rules::Since::default();
        rules::begin_counting(&mut rules_since, &committer);
        let inner = Inner {
            committer,
            publisher,
            workers,
            connection_counts,
            ports: ports.clone(),
            governing_file,
            journal,
            baselines: Baselines::default(),
            touched: [0; 2],
            rules_since,
            unconfirmed: contents.awaited.map(Unconfirmed::from),
            store,
            unwritten: Vec::new(),
            trace: trace.clone(),
            keeper: None,
        };
        Live {
            shared: Arc::new(Shared {
                writer: Arc::default(),
                relieved: AtomicBool::new(false),
                pulse: Mutex::new(inner.pulse()),
                notice: Mutex::default(),
                advising: tokio::sync::Mutex::default(),
                inner: Mutex::new(inner),
                settled: tokio::sync::Notify::new(),
                board,
                trace,
                metrics,
                ports,
                gatherer: Mutex::default(),
                start,
                restart: OnceLock::new(),
            }),
        }
    }

    /// From here on each generation goes there before any worker hears of it. To be said before the first change.
    pub fn set_state_writer(&self, keeper: StateWriter) {
        self.inner().keeper = Some(keeper);
    }

    /// Works with the committer while nobody changes anything.
    pub fn with_committer<T>(&self, ask: impl FnOnce(&Committer) -> T) -> T {
        ask(&self.inner().committer)
    }

    /// How this run began. To be said once.
    pub fn set_restart(&self, restart: Restart) {
        let _ = self.shared.restart.set(restart);
    }

    /// How this run began.
    pub fn restart(&self) -> Restart {
        self.shared.restart.get().cloned().unwrap_or_default()
    }

    /// Where problems are told.
    pub fn board(&self) -> &HealthBoard {
        &self.shared.board
    }

    /// What the control side counts of itself, and where others count what leaves the appliance.
    pub fn metrics(&self) -> &Arc<Metrics> {
        &self.shared.metrics
    }

    /// The configuration that it works by.
    pub fn config(&self) -> Config {
        self.inner().committer.config().clone()
    }

    /// The present policy.
    pub fn policy(&self) -> Policy {
        self.inner().committer.policy().clone()
    }

    /// The present policy with its generation.
    pub fn policy_and_generation(&self) -> (Policy, u32) {
        let inner = self.inner();
        (inner.committer.policy().clone(), inner.committer.generation().0)
    }

    /// The present generation.
    pub fn generation(&self) -> u32 {
        self.inner().committer.generation().0
    }

    /// Applies a change, or tells what it would do. Changes take turns; a dropped future does not take back what is
    /// published.
    pub async fn apply(&self, change: Change) -> Result<Receipt, ChangeRefused> {
        let is_tried = change.dry_run;
        let result = self.apply_in_turn(change).await;
        if !is_tried {
            self.metrics().count_change(result.as_ref().ok().map(|receipt| receipt.state));
        }
        result
    }

    async fn apply_in_turn(&self, change: Change) -> Result<Receipt, ChangeRefused> {
        let _turn = self.turn().await?;
        let now_ns = self.shared.start.elapsed().as_nanos() as u64;
        let (dry_run, max_disconnect) = (change.dry_run, change.max_disconnect);
        let mut admitted = match block_in_place(|| self.inner().admit(change, now_ns))? {
            Step::Done(receipt) => return Ok(*receipt),
            Step::Admitted(admitted) => admitted,
        };
        if dry_run || max_disconnect.is_some() {
            let foreseen = self.preview(&admitted, now_ns).await?;
            admitted.receipt.disconnected = foreseen.disconnected;
            admitted.receipt.affected = Some(foreseen.into());
        }
        if let Some(most) = max_disconnect.filter(|most| admitted.receipt.disconnected > *most) {
            return Err(ChangeRefused::DisconnectsTooMany { most, preview: Box::new(admitted.receipt) });
        }
        if dry_run {
            return Ok(admitted.receipt);
        }
        self.make_durable(&admitted).await?;
        let published = block_in_place(|| {
            let mut inner = self.inner();
            let published = inner.publish(*admitted, now_ns);
            *self.shared.pulse.lock().unwrap_or_else(PoisonError::into_inner) = inner.pulse();
            published
        });
        self.watch_confirmation();
        self.metrics()
            .observe_commit(Duration::from_micros(published.receipt.publish_us.unwrap_or_default()));
        let receipt = self.acknowledged(published).await;
        if let Some(micros) = receipt.acknowledged_us {
            self.metrics().observe_acknowledgement(Duration::from_micros(micros));
        }
        self.metrics().count_disconnected(receipt.disconnected);
        Ok(receipt)
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
            let is_unconfirmed =
                inner.unconfirmed.as_ref().is_some_and(|change| change.generation == receipt.generation);
            receipt.state = if is_unconfirmed { State::Unconfirmed } else { State::Acknowledged };
            receipt.acknowledged_us =
                receipt.workers.iter().filter_map(|w| w.acknowledged_us).max().or(Some(0));
        }
        receipt.disconnected = inner.live_under(&ended_epochs);
        block_in_place(|| inner.publisher.reclaim());
        inner.journal.complete(&receipt);
        drop(inner);
        log_change(&receipt);
        receipt
    }
}

/// One line of the log a change: who, by which way, what, and what it cost.
fn log_change(receipt: &Receipt) {
    let Receipt { generation, who, origin, added, changed, removed, flushed, disconnected, .. } = receipt;
    let named = |what: &str, names: &[String]| match names {
        [] => String::new(),
        names if names.len() > LOGGED => {
            format!(" {what} {} and {} more;", names[..LOGGED].join(", "), names.len() - LOGGED)
        }
        names => format!(" {what} {};", names.join(", ")),
    };
    let what = named("added", added) + &named("changed", changed) + &named("removed", removed);
    tracing::info!(
        "generation {generation} by {who} ({origin}):{what} {} NICs flushed, {disconnected} connections disconnected",
        flushed.len()
    );
    if !receipt.pending.is_empty() {
        tracing::warn!("generation {generation} is not acknowledged yet by workers {:?}", receipt.pending);
    }
}

enum Step {
    /// Nothing to publish.
    Done(Box<Receipt>),
    Admitted(Box<Admitted>),
}

fn names<'k>(keys: impl IntoIterator<Item = &'k crate::model::Key>) -> Vec<String> {
    keys.into_iter().map(ToString::to_string).collect()
}

impl Inner {
    /// Plans, and asks the guards. Nothing has happened yet.
    fn admit(&mut self, change: Change, now_ns: u64) -> Result<Step, ChangeRefused> {
        let begin = Instant::now();
        let Change {
            target, author, dry_run, allow_empty, confirm, if_generation, max_removed_share, ..
        } = change;
        let is_rollback = matches!(target, Target::Generation(_));
        self.refuse_while_unconfirmed(is_rollback || dry_run)?;
        if author.origin == Origin::Timer && self.unconfirmed.is_none() {
            return Err(ChangeRefused::NothingToConfirm);
        }
        let present = self.committer.generation().0;
        if let Some(known) = if_generation.filter(|known| *known != present) {
            return Err(ChangeRefused::Stale { known, present });
        }
        let (prepared, warnings) = self.prepare(target, allow_empty, now_ns)?;
        self.refuse_large_removal(&prepared, max_removed_share)?;
        let is_unchanged = match prepared.back_to {
            // The policy may be the same: what was disconnected since is not.
            Some(to) => to.0 == present,
            None => prepared.plan.diff.is_empty(),
        };
        let ended_epochs = self.epochs_to_end(&prepared.plan);
        let mut receipt = self.preview(&prepared, &ended_epochs, &author);
        receipt.warnings = warnings;
        if is_unchanged {
            receipt.state = State::Unchanged;
            return Ok(Step::Done(Box::new(receipt)));
        }
        let unconfirmed = confirm.map(|time| Unconfirmed::new(present + 1, present, time));
        Ok(Step::Admitted(Box::new(Admitted { prepared, receipt, ended_epochs, author, unconfirmed, begin })))
    }

    /// Compiles and publishes. The change is durable by now: nothing here can be refused.
    fn publish(&mut self, admitted: Admitted, now_ns: u64) -> Published {
        let Admitted { prepared, mut receipt, ended_epochs, author, unconfirmed, begin } = admitted;
        let back_to = prepared.back_to;
        let commit = self.committer.carry_out(prepared, now_ns);
        rules::begin_counting(&mut self.rules_since, &self.committer);
        self.baselines.begin(self.committer.take_reused(), &self.workers);
        self.touch_counters(commit.snapshot.nic_count(), self.committer.compiler().rules().len() as u32);
        self.tell_trace(&receipt, back_to, &ended_epochs);
        // Before any entry can bear its number.
        if let Some(keeper) = &mut self.keeper {
            keeper(&self.committer);
        }
        let epoch = self.publisher.publish(commit.snapshot);
        let at = Instant::now();
        receipt.publish_us = Some((at - begin).as_micros() as u64);
        receipt.generation = self.committer.generation().0;
        receipt.state = State::Pending;
        receipt.workers =
            (0..self.workers.len()).map(|id| Acknowledgement { id, acknowledged_us: None }).collect();
        if let Some(file) = self.governing_file.as_ref().filter(|_| author.origin != Origin::File) {
            receipt
                .warnings
                .push(format!("{file} governs (policy.source): the next change of that file replaces this"));
        }
        self.note_confirmation(back_to, unconfirmed);
        let killed = self.killed();
        let record = journal::record(&receipt, back_to, unconfirmed.is_some());
        self.journal.begin(record, killed, self.committer.oldest());
        Published { receipt, epoch, at, ended_epochs }
    }

    /// Has the memory of counters backed for as many NICs and rules, before a packet needs it.
    fn touch_counters(&mut self, nics: u32, rules: u32) {
        let [touched_nics, touched_rules] = &mut self.touched;
        // With room for more, so that not each change does it.
        if *touched_nics < nics {
            *touched_nics = nics.next_power_of_two();
            self.workers.iter().for_each(|worker| worker.counters.touch(*touched_nics));
        }
        if *touched_rules < rules {
            *touched_rules = rules.next_power_of_two();
            self.workers.iter().for_each(|worker| worker.counters.rules.touch(*touched_rules));
        }
    }

    /// What the ports count.
    fn ports_now(&self) -> Vec<PortCounters> {
        (self.ports.lock().unwrap_or_else(PoisonError::into_inner))()
    }

    /// Connections that re-judging has disconnected, since the start.
    fn killed(&self) -> u64 {
        self.workers.iter().map(|worker| worker.counters.killed()).sum()
    }

    /// Who loses connections, with the flush epochs under which they opened.
    fn epochs_to_end(&self, plan: &Plan) -> Vec<(NicSlot, Generation)> {
        let nics = self.committer.registry();
        let keys = plan.flushed.iter().chain(&plan.ended);
        let mut epochs: Vec<_> =
            keys.filter_map(|key| nics.nic(key)).map(|nic| (nic.slot, nic.live_epoch())).collect();
        // A NIC that moves to another VPC is ended and flushed.
        epochs.sort_unstable();
        epochs.dedup();
        epochs
    }

    /// What the change would do, as of now.
    fn preview(
        &self,
        prepared: &Prepared,
        ended_epochs: &[(NicSlot, Generation)],
        author: &Author,
    ) -> Receipt {
        let plan = &prepared.plan;
        let (changes, changes_left_out) = lines(&plan.diff, &prepared.delta, prepared.policy());
        Receipt {
            state: State::DryRun,
            generation: self.committer.generation().0,
            at: journal::unix_seconds(),
            who: author.who.clone(),
            origin: author.origin.name().to_owned(),
            added: plan.diff.added.clone(),
            changed: plan.diff.changed.clone(),
            removed: plan.diff.removed.clone(),
            changes,
            changes_left_out,
            flushed: names(&plan.flushed),
            rejudged: names(&plan.rejudged),
            ended: names(&plan.ended),
            disconnected: self.live_under(ended_epochs),
            publish_us: None,
            acknowledged_us: None,
            workers: Vec::new(),
            pending: Vec::new(),
            warnings: Vec::new(),
            affected: None,
        }
    }

    /// Live inbound connections under these epochs, over all workers.
    fn live_under(&self, epochs: &[(NicSlot, Generation)]) -> u64 {
        let of = |worker: &WorkerHandle| {
            epochs.iter().map(|(nic, epoch)| worker.counters.live_under(*nic, *epoch)).sum::<u64>()
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
