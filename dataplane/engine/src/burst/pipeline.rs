//! A burst's way from parsed packets to verdicts, in four passes: resolve, prefetch, evaluate the
//! rules, judge.
//!
//! Each pass goes over the whole burst and leaves for the next one what it found, so that memory
//! which a packet needs was asked for while others were in hand. Only the last pass changes
//! anything.

use arrayvec::ArrayVec;

use super::{Batch, Firewall, bytes_of};
use crate::Reason;
use crate::classify::RuleVerdict;
use crate::conntrack::{NO_HINT, Shard};
use crate::cpu::Isa;
use crate::io::{BURST, Burst, Frame};
use crate::judge::Packet;
use crate::lookahead::{BindingPrefetch, ENTRY_PREFETCH_DISTANCE, Resolved, ResolvedBurst};
use crate::packet::PacketMeta;
use crate::resolve::{Resolution, resolve};
use crate::rule_verdicts::{RuleVerdicts, refusal_verdict};
use crate::snapshot::{Binding, Snapshot};
use crate::verdict::Verdict;

/// The packets of a burst, with what the passes so far have found of them.
pub(super) struct Pipeline<'s> {
    snapshot: &'s Snapshot,
    /// NIC, key and hash of each packet.
    resolved: [Resolved<'s>; BURST],
    /// Verdicts of packets that need no connection, in the order of the packets.
    early: ArrayVec<Verdict, BURST>,
    /// Where each packet's entry probably lies. Unused slots hold 0, not [`NO_HINT`], so that they
    /// do not count as index misses.
    hints: [u32; BURST],
    is_any_v6: bool,
}

/// What became of a burst as a whole.
struct Outcome {
    all_pass: bool,
    all_established: bool,
    /// How many more packets without a connection were refused than admitted.
    more_refused: i32,
}

impl<'s> Pipeline<'s> {
    /// Of a burst to be judged under a snapshot.
    #[inline(always)]
    pub fn new(snapshot: &'s Snapshot) -> Pipeline<'s> {
        Pipeline {
            snapshot,
            resolved: [Resolved::NONE; BURST],
            early: ArrayVec::new(),
            hints: [0; BURST],
            is_any_v6: false,
        }
    }

    /// Finds each packet's NIC or early verdict, its key and hash, and prefetches its index bucket.
    /// Packets that can take the fast path are resolved in runs.
    #[inline(always)]
    pub fn resolve<F: Frame>(&mut self, firewall: &mut Firewall, pkts: &[PacketMeta], frames: &Burst<F>) {
        let (snapshot, mut at, mut bindings) = (self.snapshot, 0, BindingPrefetch::default());
        while let (Some(first), Some(frame)) = (pkts.get(at), frames.get(at)) {
            let judge = &firewall.judge;
            if first.fast_v4
                && let Some(unique) = snapshot.unique_addresses(first.segment)
            {
                bindings.begin(first.segment);
                let next = judge.resolve_fast_v4_run(&unique, &mut bindings, at, pkts, &mut self.resolved);
                if next != at {
                    at = next;
                    continue;
                }
            }
            if first.is_fast_v6()
                && let Some(unique) = snapshot.unique_addresses(first.segment)
            {
                let next = judge.resolve_fast_v6_run(&unique, first.segment, at, pkts, &mut self.resolved);
                if next != at {
                    (at, self.is_any_v6) = (next, true);
                    continue;
                }
            }
            match firewall.resolve_slow(snapshot, first, frame) {
                Ok(resolved) => {
                    self.is_any_v6 |= first.v6;
                    firewall.judge.shard.prefetch_index(resolved.hash);
                    self.resolved[at] = resolved;
                }
                Err(verdict) => self.early.push(verdict),
            }
            at += 1;
        }
    }

    /// Looks each packet's hint up in the index, and prefetches the first entries.
    #[inline(always)]
    pub fn prefetch(&mut self, isa: impl Isa, shard: &Shard, count: usize) {
        let index = shard.index_lookup();
        for (hint, resolved) in self.hints.iter_mut().zip(&self.resolved[..count]) {
            *hint = index.hint(isa, resolved.hash);
        }
        let first = &self.hints[..ENTRY_PREFETCH_DISTANCE];
        first.iter().for_each(|hint| shard.prefetch_entry(*hint, self.is_any_v6));
        if shard.counts_flows() {
            first.iter().for_each(|hint| shard.prefetch_flow_counters(*hint));
        }
    }

    /// Evaluates the rules for packets that the index does not know, all of them at once.
    #[inline(always)]
    pub fn evaluate_rules(&self, rule_verdicts: &mut RuleVerdicts, pkts: &[PacketMeta]) {
        rule_verdicts.evaluate(self.snapshot, pkts, &self.resolved, &self.hints);
    }

    /// Judges the packets in order of arrival, and counts them. Runs of established packets take
    /// the fast path.
    #[inline(always)]
    pub fn judge<F: Frame>(
        self,
        isa: impl Isa,
        firewall: &mut Firewall,
        batch: &mut Batch<F>,
        meanwhile: impl Fn(usize),
    ) {
        let Batch { frames, pkts, verdicts, tickets, staged, .. } = batch;
        let snapshot = self.snapshot;
        let mut early = self.early.into_iter();
        let mut outcome = Outcome { all_pass: true, all_established: true, more_refused: 0 };
        let (resolved, hints, is_any_v6) = (&self.resolved, &self.hints, self.is_any_v6);
        let burst = ResolvedBurst { pkts, resolved, hints, is_any_v6 };
        let mut at = 0;
        while at < pkts.len() {
            if hints[at] != NO_HINT {
                let (judge, counters) = (&mut firewall.judge, &firewall.counters);
                at = judge.fast_path_run(isa, counters, at, &burst, &mut verdicts.all, &meanwhile);
            }
            let (Some(pkt), Some(frame), Some(resolved)) = (pkts.get(at), frames.get(at), resolved.get(at))
            else {
                break;
            };
            burst.prefetch_ahead(at, |hint| firewall.judge.shard.prefetch_entry(hint, is_any_v6));
            meanwhile(at);
            // An earlier packet of this burst may have opened its connection: the index is asked
            // again.
            let verdict = if let Some(nic) = resolved.nic
                && let Some(refusal) = firewall.rule_verdicts.refusal(at)
                && firewall.judge.shard.is_absent(resolved.hash)
            {
                firewall.refuse(pkt, nic, refusal)
            } else {
                let known = if resolved.nic.is_none() { early.next() } else { None };
                let verdict = firewall.judge_slow(snapshot, pkt, frame, resolved, at, known);
                if verdict.held {
                    tickets.extend(firewall.judge.ticket.take());
                }
                verdict
            };
            verdicts.all[at] = verdict;
            if snapshot.has_staged {
                let would_be = firewall.evaluate_staged(snapshot, pkt, resolved, &verdict);
                staged.extend(would_be.map(|would_be| (at, would_be)));
            }
            outcome.note(&verdict);
            at += 1;
        }
        firewall.rule_verdicts.learn(outcome.more_refused);
        if !outcome.all_established && firewall.judge.shard.counts_refusals() {
            firewall.count_refusals(snapshot, pkts, verdicts);
        }
        (batch.all_pass, batch.all_established) = (outcome.all_pass, outcome.all_established);
    }
}

impl Firewall {
    /// Any packet's NIC, key and hash, or the verdict that needs none.
    #[inline(never)]
    fn resolve_slow<'s, F: Frame>(
        &mut self,
        snapshot: &'s Snapshot,
        pkt: &PacketMeta,
        frame: &F,
    ) -> Result<Resolved<'s>, Verdict> {
        match resolve(snapshot, pkt, bytes_of(frame, &mut self.scratch)) {
            Resolution::Nic(nic) => Ok(self.judge.resolve_key(pkt, nic)),
            Resolution::Verdict(verdict) => Err(verdict),
        }
    }

    /// The verdict, counted, on a packet that has no connection and that the rules refuse.
    #[inline(never)]
    fn refuse(&self, pkt: &PacketMeta, nic: &Binding, refusal: RuleVerdict) -> Verdict {
        self.counted(pkt, refusal_verdict(refusal, nic.nic), nic.observes())
    }

    /// Any packet's verdict, counted; `at` is its index in the burst, `early` the verdict on a
    /// packet without a NIC.
    #[inline(never)]
    fn judge_slow<F: Frame>(
        &mut self,
        snapshot: &Snapshot,
        pkt: &PacketMeta,
        frame: &F,
        resolved: &Resolved<'_>,
        at: usize,
        early: Option<Verdict>,
    ) -> Verdict {
        let Some(nic) = resolved.nic else {
            let verdict = early.unwrap_or(Verdict::nobody(Reason::Malformed));
            let observes = self.observes_resolved(snapshot, pkt, &verdict);
            return self.counted(pkt, verdict, observes);
        };
        let key = &self.judge.key(pkt, resolved);
        let bytes = bytes_of(frame, &mut self.scratch);
        let rule_verdict = self.rule_verdicts.get(at);
        self.judge.forget_flow();
        let verdict = self.judge.judge(&Packet { snapshot, pkt, nic, key, bytes, rule_verdict });
        if self.judge.shard.counts_flows() {
            self.judge.count_flow(snapshot, pkt, &verdict);
        }
        self.counted(pkt, verdict, nic.observes())
    }
}

impl Outcome {
    #[inline(always)]
    fn note(&mut self, verdict: &Verdict) {
        self.more_refused += match verdict.reason {
            Reason::NoRule | Reason::Denied => 1,
            Reason::New => -1,
            _ => 0,
        };
        self.all_pass &= verdict.passes();
        self.all_established &= verdict.reason == Reason::Established;
    }
}
