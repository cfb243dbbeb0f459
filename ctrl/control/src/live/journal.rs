//! Every generation with who made it, when, and what it did: `history`.

use std::collections::VecDeque;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use engine::Generation;

use super::locking::{HealthSnapshot, block_in_place};
use super::{ChangeRefused, Live, WorkerTimeout};
use crate::api::types::{Confirmation, Health, Receipt, Record, State};
use crate::commit::{Committer, NoSuchGeneration};
use crate::model::Policy;
use crate::store::Contents;

/// Seconds since 1970, to the microsecond.
pub(super) fn unix_seconds() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_micros() as f64 / 1e6
}

/// The record of a change that is (about to be) published.
pub(super) fn record(receipt: &Receipt, back_to: Option<Generation>, confirm: bool) -> Record {
    Record {
        generation: receipt.generation,
        at: receipt.at,
        who: receipt.who.clone(),
        origin: receipt.origin.clone(),
        back_to: back_to.map(|to| to.0),
        state: State::Pending,
        confirmation: confirm.then_some(Confirmation::Awaited),
        added: receipt.added.clone(),
        changed: receipt.changed.clone(),
        removed: receipt.removed.clone(),
        flushed: receipt.flushed.len(),
        rejudged: receipt.rejudged.len(),
        ended: receipt.ended.len(),
        disconnected: receipt.disconnected,
        disconnected_by_rejudging: 0,
        publish_us: receipt.publish_us,
        acknowledged_us: None,
    }
}

/// The record of the generation that the appliance starts with, where nobody remembers how it came.
pub(super) fn start_record(generation: u32) -> Record {
    Record {
        generation,
        at: unix_seconds(),
        who: "portcullis".to_owned(),
        origin: "start".to_owned(),
        back_to: None,
        state: State::Acknowledged,
        confirmation: None,
        added: Vec::new(),
        changed: Vec::new(),
        removed: Vec::new(),
        flushed: 0,
        rejudged: 0,
        ended: 0,
        disconnected: 0,
        disconnected_by_rejudging: 0,
        publish_us: None,
        acknowledged_us: None,
    }
}

/// The last generations, the newest last.
pub(super) struct Journal {
    records: VecDeque<Record>,
    /// What [`super::Inner::killed`] said when the newest was published.
    killed_before: u64,
}

impl Journal {
    /// With the generations that a store remembers, and the one that the appliance starts with.
    pub fn new(committer: &Committer, contents: &Contents) -> Journal {
        let mut records: VecDeque<Record> = contents.history.iter().map(|past| past.record.clone()).collect();
        let awaited = contents.awaited.map(|awaited| awaited.generation);
        for record in &mut records {
            // Workers start with it: none of them judges by another.
            record.state = State::Acknowledged;
            // What took its place is written down, and not in its own record.
            if record.confirmation == Some(Confirmation::Awaited) && awaited != Some(record.generation) {
                record.confirmation = Some(Confirmation::TakenBack);
            }
        }
        let generation = committer.generation().0;
        if records.back().is_none_or(|record| record.generation != generation) {
            records.push_back(start_record(generation));
        }
        Journal { records, killed_before: 0 }
    }

    /// A generation is published; `killed` counts what re-judging has disconnected before it, `oldest` can be gone back to.
    pub fn begin(&mut self, record: Record, killed: u64, oldest: Generation) {
        if let Some(last) = self.records.back_mut() {
            last.disconnected_by_rejudging = killed - self.killed_before;
        }
        self.killed_before = killed;
        while self.records.front().is_some_and(|record| record.generation < oldest.0) {
            self.records.pop_front();
        }
        self.records.push_back(record);
    }

    fn record_mut(&mut self, generation: u32) -> Option<&mut Record> {
        self.records.iter_mut().rev().find(|record| record.generation == generation)
    }

    /// Its receipt is given.
    pub fn complete(&mut self, receipt: &Receipt) {
        if let Some(record) = self.record_mut(receipt.generation) {
            record.disconnected = receipt.disconnected;
            record.acknowledged_us = receipt.acknowledged_us;
            if receipt.pending.is_empty() {
                record.state = State::Acknowledged;
            }
        }
    }

    /// Its confirmation has come, or will not.
    pub fn settle(&mut self, generation: u32, confirmation: Confirmation) {
        if let Some(record) = self.record_mut(generation) {
            record.confirmation = Some(confirmation);
        }
    }
}

impl Live {
    /// `history`: the generations that are remembered, the newest first.
    pub fn history(&self) -> Vec<Record> {
        self.history_page(None, usize::MAX)
    }

    /// So many of them before a generation.
    pub fn history_page(&self, before: Option<u32>, limit: usize) -> Vec<Record> {
        let mut inner = self.inner();
        let (killed, all) = (inner.killed(), inner.publisher.all_acknowledged(inner.publisher.epoch()));
        let killed = killed - inner.journal.killed_before;
        if let Some(last) = inner.journal.records.back_mut() {
            last.disconnected_by_rejudging = killed;
        }
        if all {
            inner.journal.records.iter_mut().for_each(|record| record.state = State::Acknowledged);
        }
        let is_asked = |record: &&Record| before.is_none_or(|before| record.generation < before);
        inner.journal.records.iter().rev().filter(is_asked).take(limit).cloned().collect()
    }

    /// Waits until every worker judges by a generation, which may be yet to come; if nobody makes it in time, for no longer.
    pub async fn wait_acknowledged(&self, generation: u32, patience: Duration) -> Result<(), WorkerTimeout> {
        let begin = Instant::now();
        loop {
            let Health { generation: present, lagging, .. } = self.health();
            match lagging.first() {
                None if present >= generation => return Ok(()),
                Some(worker) if begin.elapsed() > patience => return Err(WorkerTimeout { worker: *worker }),
                None if begin.elapsed() > patience => return Ok(()),
                _ => tokio::time::sleep(Duration::from_millis(2)).await,
            }
        }
    }

    /// How the appliance is, and which workers do not follow yet.
    pub fn health(&self) -> Health {
        let HealthSnapshot { generation, lagging } = self.health_snapshot();
        let (status, problems) = self.shared.board.list();
        Health { status, problems, generation, lagging }
    }

    /// The policy of a generation.
    pub fn policy_at(&self, generation: u32) -> Result<Policy, ChangeRefused> {
        let at = block_in_place(|| self.inner().committer.policy_at(Generation(generation)));
        at.map_err(ChangeRefused::NoGeneration)
    }

    /// One generation's record.
    pub fn record(&self, generation: u32) -> Result<Record, ChangeRefused> {
        self.history().into_iter().find(|record| record.generation == generation).ok_or_else(|| {
            let inner = self.inner();
            let oldest = inner.journal.records.front().map_or(0, |record| record.generation);
            ChangeRefused::NoGeneration(NoSuchGeneration {
                asked: Generation(generation),
                oldest: Generation(oldest),
                present: inner.committer.generation(),
            })
        })
    }
}
