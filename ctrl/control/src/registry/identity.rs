//! One NIC as the engine knows it, from its creation to its deletion and perhaps beyond.

use std::collections::BTreeMap;
use std::net::IpAddr;

use engine::snapshot::RollbackSpan;
use engine::{AddrId, Generation, NicSlot};
use serde::{Deserialize, Serialize};

/// Flush epochs and former addresses of a NIC that are remembered. A rollback across more flushes than this brings back
/// what the last of them disconnected, no more.
const KEPT: usize = 256;

/// Generations from one to before another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Span {
    from: Generation,
    until: Generation,
}

impl Span {
    fn holds(self, generation: Generation) -> bool {
        self.from <= generation && generation < self.until
    }
}

/// An address that a NIC has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Address {
    /// Its place.
    pub id: AddrId,
    /// The generation that gave it to the NIC, or gave it back.
    pub since: Generation,
}

/// An address that it had.
#[derive(Clone, Copy, Debug)]
struct FormerAddress {
    address: IpAddr,
    id: AddrId,
    span: Span,
}

/// A flush epoch from the generation that set it.
#[derive(Clone, Copy, Debug)]
struct Epoch {
    set: Generation,
    flush: Generation,
}

/// One NIC.
#[derive(Clone, Debug)]
pub struct Identity {
    /// Its place.
    pub slot: NicSlot,
    /// The last generation after which its inbound connections are judged again.
    pub rejudge: Generation,
    /// What rollbacks took back, with the moment of each.
    undone: Vec<(RollbackSpan, u64)>,
    /// Its addresses.
    pub addresses: BTreeMap<IpAddr, Address>,
    past: Vec<FormerAddress>,
    /// Since when it is there, if it is.
    since: Option<Generation>,
    lives: Vec<Span>,
    epochs: Vec<Epoch>,
    /// The last generation that did anything to its inbound connections.
    touched: Generation,
    /// The last generation that made it another in any way.
    pub(super) moved: Generation,
}

impl Identity {
    pub(super) fn new(slot: NicSlot, generation: Generation) -> Identity {
        Identity {
            slot,
            rejudge: Generation(0),
            undone: Vec::new(),
            addresses: BTreeMap::new(),
            past: Vec::new(),
            since: Some(generation),
            lives: Vec::new(),
            epochs: vec![Epoch { set: generation, flush: generation }],
            touched: generation,
            moved: generation,
        }
    }

    /// Its flush epoch.
    pub fn flush(&self) -> Generation {
        self.epochs.last().map_or(Generation(0), |epoch| epoch.flush)
    }

    /// The generation since which its live inbound connections are counted
    /// ([`engine::snapshot::Snapshot::live_epoch`]).
    pub fn live_epoch(&self) -> Generation {
        self.undone.last().map_or(Generation(0), |(undone, _)| undone.by).max(self.flush())
    }

    /// What rollbacks took back of what changes did to its connections.
    pub fn rollbacks(&self) -> Vec<RollbackSpan> {
        self.undone.iter().map(|(undone, _)| *undone).collect()
    }

    /// Notes a flush.
    pub fn flush_at(&mut self, generation: Generation) {
        self.epochs.push(Epoch { set: generation, flush: generation });
        self.touched = generation;
        self.trim();
    }

    /// Notes that its inbound connections are judged again.
    pub fn rejudge_at(&mut self, generation: Generation) {
        self.rejudge = generation;
        self.touched = generation;
    }

    /// Notes that its connections are not what they were.
    pub fn touch(&mut self, generation: Generation) {
        self.touched = generation;
    }

    /// True if a change since `to` did anything to its inbound connections.
    pub fn touched_since(&self, to: Generation) -> bool {
        self.touched > to
    }

    /// Takes back what changes after `to` did to its connections: they are judged again. The flush epoch becomes the
    /// lowest that was in force since: it disconnects nothing that was live at any of these generations or is now, whether
    /// or not a packet has come meanwhile.
    pub fn roll_back(&mut self, to: Generation, by: Generation, now_ns: u64) {
        let then = self.epochs.iter().rposition(|epoch| epoch.set <= to).unwrap_or_default();
        let flush = self.epochs[then..].iter().map(|epoch| epoch.flush).min().unwrap_or_default();
        self.epochs.push(Epoch { set: by, flush });
        self.undone.push((RollbackSpan { after: to, by }, now_ns));
        self.rejudge_at(by);
        self.trim();
    }

    /// Its deletion; the places of the addresses that it had.
    pub(super) fn end(&mut self, generation: Generation) -> Vec<AddrId> {
        if let Some(from) = self.since.take() {
            self.lives.push(Span { from, until: generation });
        }
        let addresses: Vec<IpAddr> = self.addresses.keys().copied().collect();
        addresses.into_iter().filter_map(|address| self.remove_address(address, generation)).collect()
    }

    /// It is there again, so far without addresses.
    pub(super) fn begin(&mut self, generation: Generation) {
        self.since = Some(generation);
        self.touched = generation;
    }

    /// Takes an address away; its place.
    pub(super) fn remove_address(&mut self, address: IpAddr, generation: Generation) -> Option<AddrId> {
        let Address { id, since } = self.addresses.remove(&address)?;
        self.past.push(FormerAddress { address, id, span: Span { from: since, until: generation } });
        Some(id)
    }

    /// True if it was there at a generation.
    pub fn was_there(&self, generation: Generation) -> bool {
        self.since.is_some_and(|since| since <= generation)
            || self.lives.iter().any(|life| life.holds(generation))
    }

    /// Which of its addresses this was at a generation, if it is not that one now.
    pub(super) fn past_id(&self, address: IpAddr, at: Generation) -> Option<AddrId> {
        if self.addresses.get(&address).is_some_and(|held| held.since <= at) {
            return None;
        }
        let was = |past: &&FormerAddress| past.address == address && past.span.holds(at);
        self.past.iter().rev().find(was).map(|past| past.id)
    }

    /// Forgets rollbacks before `oldest_ns`: what they took back has run out since.
    pub(super) fn forget_before(&mut self, oldest_ns: u64) {
        // The last one is when counting began anew.
        while self.undone.len() > 1 && self.undone[0].1 < oldest_ns {
            self.undone.remove(0);
        }
    }

    pub(super) fn trim(&mut self) {
        let surplus = |len: usize| len.saturating_sub(KEPT);
        self.epochs.drain(..surplus(self.epochs.len()));
        // What the last change took away is kept whole: its rollback takes no new places.
        let last = self.past.last().map_or(Generation(0), |past| past.span.until);
        let older = self.past.partition_point(|past| past.span.until < last);
        self.past.drain(..surplus(self.past.len()).min(older));
        self.undone.drain(..surplus(self.undone.len()));
        self.lives.drain(..surplus(self.lives.len()));
    }
}

/// An identity as it is written down; generations and places as numbers.
#[derive(Serialize, Deserialize)]
pub struct PersistedIdentity {
    slot: u32,
    rejudge: u32,
    /// After which generation, and by which.
    undone: Vec<(u32, u32)>,
    /// With their places and since when.
    addresses: Vec<(IpAddr, u32, u32)>,
    /// With from when until when.
    past: Vec<(IpAddr, u32, u32, u32)>,
    since: Option<u32>,
    lives: Vec<(u32, u32)>,
    /// When set, and what.
    epochs: Vec<(u32, u32)>,
    touched: u32,
    moved: u32,
}

impl Identity {
    pub(super) fn to_persisted(&self) -> PersistedIdentity {
        PersistedIdentity {
            slot: self.slot.0,
            rejudge: self.rejudge.0,
            undone: self.undone.iter().map(|(undone, _)| (undone.after.0, undone.by.0)).collect(),
            addresses: self
                .addresses
                .iter()
                .map(|(address, held)| (*address, held.id.0, held.since.0))
                .collect(),
            past: self.past.iter().map(|p| (p.address, p.id.0, p.span.from.0, p.span.until.0)).collect(),
            since: self.since.map(|since| since.0),
            lives: self.lives.iter().map(|life| (life.from.0, life.until.0)).collect(),
            epochs: self.epochs.iter().map(|epoch| (epoch.set.0, epoch.flush.0)).collect(),
            touched: self.touched.0,
            moved: self.moved.0,
        }
    }

    /// The moments of rollbacks are counted anew.
    pub(super) fn from_persisted(written: PersistedIdentity) -> Identity {
        let span = |(from, until)| Span { from: Generation(from), until: Generation(until) };
        let undone = |(after, by)| (RollbackSpan { after: Generation(after), by: Generation(by) }, 0);
        let held = |(address, id, since)| (address, Address { id: AddrId(id), since: Generation(since) });
        let past =
            |(address, id, from, until)| FormerAddress { address, id: AddrId(id), span: span((from, until)) };
        let epoch = |(set, flush)| Epoch { set: Generation(set), flush: Generation(flush) };
        Identity {
            slot: NicSlot(written.slot),
            rejudge: Generation(written.rejudge),
            undone: written.undone.into_iter().map(undone).collect(),
            addresses: written.addresses.into_iter().map(held).collect(),
            past: written.past.into_iter().map(past).collect(),
            since: written.since.map(Generation),
            lives: written.lives.into_iter().map(span).collect(),
            epochs: written.epochs.into_iter().map(epoch).collect(),
            touched: Generation(written.touched),
            moved: Generation(written.moved),
        }
    }
}
