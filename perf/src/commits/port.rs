//! Ports in memory that bring flows at full rate, probes among them, and know what became of each.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering::Relaxed, Ordering::SeqCst};

use crossbeam::channel::{Receiver, TryRecvError};
use engine::io::{Burst, Frame, Port};

use crate::memory::PoolFrame;

/// What became of a probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// Nobody has judged it yet.
    Waiting,
    /// It left.
    Sent,
    /// It was dropped.
    Dropped,
}

/// A permission that a change is to take away, for as long as packets try it.
#[derive(Default)]
pub struct Permission {
    /// Set once the receipt of the change is in hand: nothing may be sent on it from then on.
    gone: AtomicBool,
    sent: AtomicU64,
    sent_when_gone: AtomicU64,
}

impl Permission {
    /// The receipt is here. SeqCst, as the port's look at it is: what the port sends after this
    /// store is found to be late.
    pub fn end(&self) {
        self.gone.store(true, SeqCst);
    }

    /// Packets sent on it, and of those the ones sent after its end.
    pub fn sent(&self) -> (u64, u64) {
        (self.sent.load(SeqCst), self.sent_when_gone.load(SeqCst))
    }

    fn count(&self) {
        self.sent.fetch_add(1, SeqCst);
        if self.gone.load(SeqCst) {
            self.sent_when_gone.fetch_add(1, SeqCst);
        }
    }
}

/// A packet whose fate somebody waits for.
pub struct Probe {
    bytes: Vec<u8>,
    permission: Option<Arc<Permission>>,
    fate: AtomicU8,
}

impl Probe {
    /// Of no permission in particular.
    pub fn new(bytes: Vec<u8>) -> Arc<Probe> {
        Arc::new(Probe { bytes, permission: None, fate: AtomicU8::new(0) })
    }

    /// Of a permission that is about to go.
    pub fn on(permission: &Arc<Permission>, bytes: Vec<u8>) -> Arc<Probe> {
        Arc::new(Probe { bytes, permission: Some(permission.clone()), fate: AtomicU8::new(0) })
    }

    /// What became of it when it was last judged.
    pub fn fate(&self) -> Fate {
        match self.fate.load(SeqCst) {
            0 => Fate::Waiting,
            1 => Fate::Sent,
            _ => Fate::Dropped,
        }
    }

    fn sent(&self) {
        if let Some(permission) = &self.permission {
            permission.count();
        }
        self.fate.store(1, SeqCst);
    }
}

/// One of many, or one that matters.
pub enum LoadFrame {
    /// A flow's.
    Flow(PoolFrame),
    /// A probe.
    Probe(Arc<Probe>),
}

impl Frame for LoadFrame {
    #[inline]
    fn head(&self) -> &[u8] {
        match self {
            LoadFrame::Flow(frame) => frame.head(),
            LoadFrame::Probe(probe) => &probe.bytes,
        }
    }

    #[inline]
    fn captured(&self) -> usize {
        self.head().len()
    }

    #[inline]
    fn prefetch(&self, deep: bool) {
        if let LoadFrame::Flow(frame) = self {
            frame.prefetch(deep);
        }
    }
}

/// What a port counts of its flows' frames. Written by its worker alone.
#[derive(Default)]
pub struct Tally {
    brought: AtomicU64,
    sent: AtomicU64,
    dropped: AtomicU64,
    rounds: AtomicU64,
}

fn add(counter: &AtomicU64, n: u64) {
    counter.store(counter.load(Relaxed) + n, Relaxed);
}

impl Tally {
    /// Frames of flows that it brought.
    pub fn brought(&self) -> u64 {
        self.brought.load(Relaxed)
    }

    /// Frames of flows that it sent.
    pub fn sent(&self) -> u64 {
        self.sent.load(Relaxed)
    }

    /// Frames of flows that were given back to it unsent.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Relaxed)
    }

    /// How often it has brought all frames of its watch.
    pub fn rounds(&self) -> u64 {
        self.rounds.load(Relaxed)
    }
}

/// What a port is to bring.
pub enum Order {
    /// These flows' frames from now on, round and round, so many in all.
    Play(Vec<PoolFrame>, u64),
    /// This one now.
    Probe(Arc<Probe>),
    /// One of these in every burst from now on, round and round.
    Watch(Vec<Arc<Probe>>),
}

/// One end of a wire in memory.
pub struct LoadPort {
    orders: Receiver<Order>,
    tally: Arc<Tally>,
    flows: Vec<PoolFrame>,
    at: usize,
    left: u64,
    watch: Vec<Arc<Probe>>,
    watch_at: usize,
}

impl LoadPort {
    /// A port that brings nothing yet.
    pub fn new(orders: Receiver<Order>, tally: Arc<Tally>) -> LoadPort {
        LoadPort { orders, tally, flows: Vec::new(), at: 0, left: 0, watch: Vec::new(), watch_at: 0 }
    }

    /// Takes what is ordered; probes come at once, as long as there is room.
    #[inline]
    fn obey(&mut self, burst: &mut Burst<LoadFrame>) {
        while !burst.is_full() {
            match self.orders.try_recv() {
                Ok(Order::Probe(probe)) => burst.push(LoadFrame::Probe(probe)),
                Ok(Order::Play(flows, count)) => {
                    (self.left, self.at) = (if flows.is_empty() { 0 } else { count }, 0);
                    self.flows = flows;
                }
                Ok(Order::Watch(probes)) => (self.watch, self.watch_at) = (probes, 0),
                Err(TryRecvError::Empty | TryRecvError::Disconnected) => break,
            }
        }
        if let Some(probe) = self.watch.get(self.watch_at).filter(|_| !burst.is_full()) {
            burst.push(LoadFrame::Probe(probe.clone()));
            self.watch_at += 1;
            if self.watch_at == self.watch.len() {
                self.watch_at = 0;
                add(&self.tally.rounds, 1);
            }
        }
    }
}

impl Port for LoadPort {
    type Frame = LoadFrame;

    #[inline]
    fn rx(&mut self, burst: &mut Burst<LoadFrame>) {
        self.obey(burst);
        let count = (burst.remaining_capacity() as u64).min(self.left);
        for _ in 0..count {
            burst.push(LoadFrame::Flow(self.flows[self.at]));
            self.at = if self.at + 1 == self.flows.len() { 0 } else { self.at + 1 };
        }
        self.left -= count;
        add(&self.tally.brought, count);
    }

    #[inline]
    fn tx(&mut self, burst: &mut Burst<LoadFrame>) {
        let mut flows = 0;
        for frame in burst.drain(..) {
            match frame {
                LoadFrame::Flow(_) => flows += 1,
                LoadFrame::Probe(probe) => probe.sent(),
            }
        }
        add(&self.tally.sent, flows);
    }

    fn free(&mut self, burst: &mut Burst<LoadFrame>) {
        for frame in burst.drain(..) {
            match frame {
                LoadFrame::Flow(_) => add(&self.tally.dropped, 1),
                LoadFrame::Probe(probe) => probe.fate.store(2, SeqCst),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_sent_on_a_permission_after_its_end_is_found() {
        let permission = Arc::default();
        let probe = Probe::on(&permission, vec![0; 60]);
        let (_, orders) = crossbeam::channel::unbounded();
        let mut port = LoadPort::new(orders, Arc::default());
        let mut send = || {
            let mut burst = Burst::new();
            burst.push(LoadFrame::Probe(probe.clone()));
            port.tx(&mut burst);
        };
        send();
        assert_eq!((probe.fate(), permission.sent()), (Fate::Sent, (1, 0)));
        permission.end();
        send();
        assert_eq!(permission.sent(), (2, 1));
    }
}
