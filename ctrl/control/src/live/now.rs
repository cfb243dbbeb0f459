//! What a page that shows the appliance at a glance needs, as of one moment.

use std::time::{SystemTime, UNIX_EPOCH};

use engine::{Direction, NicSlot};

use super::locking::block_in_place;
use super::reason_counts::ReasonCounts;
use super::views::lenient_settings;
use super::{Inner, Live};
use crate::api::types::{AwaitedConfirmation, Now, NowWorker};

impl Live {
    /// Sums alone: as long for a policy of many NICs as for one of few, and looked at once for everybody who watches.
    pub fn now(&self) -> Now {
        let (status, problems) = self.shared.board.list();
        let mut now = block_in_place(|| self.inner().sums());
        (now.status, now.problems) = (status, problems);
        now.last = self.history_page(None, 1).pop();
        now.time = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
        now.uptime = self.shared.start.elapsed().as_secs_f64();
        now
    }
}

impl Inner {
    fn sums(&self) -> Now {
        let (mut total, mut workers) = (ReasonCounts::default(), Vec::with_capacity(self.workers.len()));
        let places = self.committer.registry().names.len();
        let epoch = self.publisher.epoch();
        for (id, worker) in self.workers.iter().enumerate() {
            let mut sum = ReasonCounts::default();
            for slot in (0..places).map(|slot| NicSlot(slot as u32)) {
                for direction in [Direction::Inbound, Direction::Outbound] {
                    sum.add(&ReasonCounts::read(&worker.counters, slot, direction));
                }
            }
            total.add(&sum);
            let polls = (worker.polls)();
            workers.push(NowWorker {
                id,
                core: worker.core,
                packets: sum.packets(),
                bytes: sum.in_bytes(),
                busy_cycles: polls.busy_cycles,
                idle_cycles: polls.idle_cycles,
                acknowledged: self.publisher.acknowledged(id, epoch),
            });
        }
        let policy = self.committer.policy();
        let slots = policy.nics.keys().filter_map(|key| self.committer.nic_slot(key));
        Now {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            time: 0.0,
            uptime: 0.0,
            generation: self.committer.generation().0,
            awaited: self.unconfirmed.map(|change| AwaitedConfirmation {
                generation: change.generation,
                before: change.before(),
                seconds_left: change.left().as_secs_f64(),
            }),
            packets: total.packets(),
            bytes: total.in_bytes(),
            reasons: total.reasons(),
            connections: slots.map(|slot| u64::from(self.connection_counts.get(slot))).sum(),
            capacity: self.workers.iter().map(|worker| u64::from(worker.capacity)).sum(),
            nics: policy.nics.len(),
            groups: policy.security_groups.len(),
            workers,
            ports: self.ports_now(),
            settings: lenient_settings(self.committer.config(), policy),
            ..Now::default()
        }
    }
}
