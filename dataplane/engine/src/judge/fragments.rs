//! First fragments, and those behind them (semantics 4.6).

use super::Judge;
use crate::fragment_cache::{FirstFragment, FragmentKey, Hashed};
use crate::fragment_queue::Release;
use crate::packet::{HandoffStage, PacketMeta};
use crate::snapshot::{Binding, Snapshot};
use crate::verdict::Verdict;
use crate::{AddrId, FlowIndex, Reason};

/// True if a first fragment's verdict counts for those behind it. Who forges an address says
/// nothing about its owner's fragments.
pub fn is_remembered(verdict: &Verdict) -> bool {
    !matches!(verdict.reason, Reason::Malformed | Reason::Spoofed)
}

impl Judge {
    /// What a fragment has in common with the others of its packet.
    pub fn fragment_key(&self, pkt: &PacketMeta, nic: &Binding) -> Hashed<FragmentKey> {
        let key = FragmentKey {
            addr: nic.id,
            remote: pkt.remote(),
            id: pkt.frag_id,
            proto: pkt.frag_proto,
            direction: pkt.side.direction(),
        };
        let id = key.id ^ (key.direction as u32) << 31;
        let hash = self.shard.hash_of_other(key.addr, key.remote, id, key.proto);
        Hashed { key, hash, nic: nic.nic }
    }

    /// A hash of what all fragments of a packet bear, whoever's they are.
    pub fn packet_hash(&self, pkt: &PacketMeta) -> u32 {
        let src = (pkt.src ^ pkt.src >> 64) as u64;
        let src = AddrId((src ^ src >> 32) as u32);
        self.shard.hash_of_other(src, pkt.dst, pkt.frag_id, 0)
    }

    /// Remembers a first fragment's verdict for those behind it, and has those follow that came
    /// ahead of it.
    #[cold]
    pub fn remember(
        &mut self,
        snapshot: &Snapshot,
        pkt: &PacketMeta,
        nic: &Binding,
        verdict: Verdict,
        flow: Option<FlowIndex>,
    ) {
        if !is_remembered(&verdict) {
            return;
        }
        let flow = flow.map(|flow| (flow, self.shard.entry(flow)));
        let is_inbound = flow.is_some_and(|(_, entry)| entry.is_inbound());
        // An RST has ended its connection, which was inbound or not: a flush may as well forget it.
        let has_ended = flow.is_none() && verdict.reason != Reason::Control;
        let memory = FirstFragment {
            reason: verdict.reason,
            rule: verdict.rule,
            reach: pkt.reach,
            stamp: snapshot.generation,
            flushable: is_inbound || has_ended,
            flow: flow.map(|(flow, entry)| (flow, entry.ports)),
        };
        let hashed = self.fragment_key(pkt, nic);
        let deadline = pkt.now.ceil.wrapping_add(self.shard.timeouts().fragment);
        self.fragments.remember(&hashed, memory, deadline, pkt.now.tick);
        self.fragment_queue.release(&hashed, pkt.now.tick, Release::Here);
    }

    /// A fragment behind the first: what became of that, or it waits for it.
    #[cold]
    pub(super) fn later_fragment(&mut self, snapshot: &Snapshot, pkt: &PacketMeta, nic: &Binding) -> Verdict {
        let hashed = self.fragment_key(pkt, nic);
        let verdict = |reason| Verdict::of(reason, nic.nic);
        let Some(memory) = self.recall(snapshot, pkt, nic, &hashed) else {
            let may_wait = pkt.stage < HandoffStage::Released;
            self.ticket = if may_wait { self.fragment_queue.hold(&hashed, pkt.now) } else { None };
            return Verdict { held: self.ticket.is_some(), ..verdict(Reason::FragmentNoFirst) };
        };
        if !memory.reason.passes() {
            return Verdict { rule: memory.rule, ..verdict(memory.reason) };
        }
        if pkt.reach < memory.reach {
            return verdict(Reason::Malformed);
        }
        if self.shard.counts_flows() {
            self.flow = self.flow_of(&memory, nic, &hashed);
        }
        verdict(Reason::Fragment)
    }

    /// What is remembered of a fragment's first, unless it is forgotten.
    fn recall(
        &self,
        snapshot: &Snapshot,
        pkt: &PacketMeta,
        nic: &Binding,
        hashed: &Hashed<FragmentKey>,
    ) -> Option<FirstFragment> {
        if pkt.stage == HandoffStage::Expired {
            return None;
        }
        let memory = *self.fragments.recall(hashed, pkt.now.tick)?;
        // A rollback lowers the flush epoch: what was remembered before it may be of rules that it
        // took back.
        let is_flushed = memory.flushable && memory.stamp < snapshot.live_epoch(nic);
        let flow = self.flow_of(&memory, nic, hashed);
        let is_of_tombstone = flow.is_some_and(|flow| self.shard.entry(flow).is_dead());
        (!is_flushed && !is_of_tombstone).then_some(memory)
    }

    /// The connection that a first fragment was part of, if it is there still.
    fn flow_of(
        &self,
        memory: &FirstFragment,
        nic: &Binding,
        hashed: &Hashed<FragmentKey>,
    ) -> Option<FlowIndex> {
        let (flow, ports) = memory.flow?;
        let entry = self.shard.entry(flow);
        let is_it =
            entry.addr == nic.id && entry.ports == ports && self.shard.remote(flow) == hashed.key.remote;
        is_it.then_some(flow)
    }
}
