//! What a firewall does between two bursts, within bounds.

use std::sync::Arc;

use super::Firewall;
use super::Verdicts;
use crate::conntrack::flow_accounting::{FlowEvent, FlowRequests};
use crate::packet::PacketMeta;
use crate::ring::Producer;
use crate::snapshot::Snapshot;
use crate::time::Now;

/// Timers looked at per burst.
const EXPIRY_BUDGET: u32 = 64;
/// Entries looked at per turn after a change, or to export their counters. Few while frames wait:
/// an entry takes 16 to 50 ns, a packet 65.
const SWEEP_BUDGET: u32 = 32;
/// The same in a turn without frames.
const IDLE_SWEEP_BUDGET: u32 = 256;

impl Firewall {
    /// Bounded work between bursts: ends what has expired, files what a change has ended, exports
    /// flow counters. More of it if no frames wait.
    #[inline]
    pub fn upkeep(&mut self, snapshot: &Snapshot, now: Now, is_idle: bool) {
        let shard = &mut self.judge.shard;
        shard.expire(snapshot, now, EXPIRY_BUDGET);
        let slice = if is_idle { IDLE_SWEEP_BUDGET } else { SWEEP_BUDGET };
        shard.sweep(snapshot, slice);
        if shard.counts_flows() {
            shard.continue_export(snapshot, slice);
        }
    }

    /// Ends everything that is due by now: for those who look at the table from outside.
    pub fn settle_timers(&mut self, snapshot: &Snapshot, now: Now) {
        self.judge.shard.expire(snapshot, now, u32::MAX);
        self.judge.shard.sweep(snapshot, u32::MAX);
    }

    /// Ends what is due by now and files what a change has ended, a slice at a time; true once that
    /// is done.
    pub fn settle_some(&mut self, snapshot: &Snapshot, now: Now) -> bool {
        self.judge.shard.expire(snapshot, now, IDLE_SWEEP_BUDGET);
        self.judge.shard.sweep(snapshot, IDLE_SWEEP_BUDGET);
        !self.judge.shard.is_behind(now)
    }

    /// Exports flow records by this ring from now on. For a firewall that counts flows.
    pub fn export_flows_to(&mut self, ring: Producer<FlowEvent>, wishes: Arc<FlowRequests>) {
        self.judge.shard.export_flows_to(ring, wishes);
    }

    /// Counts the packets of a burst that were refused, or would have been.
    #[inline(never)]
    pub(super) fn count_refusals(&mut self, snapshot: &Snapshot, pkts: &[PacketMeta], verdicts: &Verdicts) {
        for (pkt, verdict) in pkts.iter().zip(verdicts.iter()) {
            if !verdict.reason.passes() && !verdict.held {
                self.judge.shard.count_refusal(pkt, verdict, snapshot.generation);
            }
        }
    }

    /// Exports all flow counters; false if the ring is too full for all of them, and it must be
    /// called again.
    pub fn export_all_flows(&mut self, snapshot: &Snapshot) -> bool {
        self.judge.shard.export_all_flows(snapshot)
    }
}
