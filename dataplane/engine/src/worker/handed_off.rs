//! How a worker judges what others have handed off to it.

use crate::burst::{Batch, Pass};
use crate::cpu::{Isa, Work};
use crate::io::{Burst, Frame, Port};
use crate::packet::{Arrival, HandoffStage, PacketMeta};
use crate::time::Now;
use crate::worker::rx::HEADER_PREFETCH_DISTANCE;
use crate::worker::{HandedOff, HandoffMeta, ONE_LINE, PREFETCH_STRIDE, Tap, Worker};

/// [`Worker::process_handed_off`], for each instruction set.
struct ProcessHandedOff<'a, P: Port, T> {
    worker: &'a mut Worker<P>,
    ns: u64,
    tap: &'a mut T,
}

impl<P: Port, T: Tap<P::Frame>> Work for ProcessHandedOff<'_, P, T> {
    type Output = ();

    #[inline(always)]
    fn run(self, isa: impl Isa) {
        self.worker.judge_handed_off(isa, self.ns, self.tap);
    }
}

/// [`Worker::run_handed_off`], for each instruction set.
struct RunBatch<'a, P: Port, T> {
    worker: &'a mut Worker<P>,
    tap: &'a mut T,
}

impl<P: Port, T: Tap<P::Frame>> Work for RunBatch<'_, P, T> {
    type Output = ();

    #[inline(always)]
    fn run(self, isa: impl Isa) {
        self.worker.run_batch(isa, None, self.tap);
    }
}

impl<P: Port> Worker<P> {
    /// Judges the burst in hand, which another worker handed off, at this worker's own time: the
    /// other's is older than what this one has judged since, and its ticks differ where clocks have
    /// leapt.
    #[inline(never)]
    pub(super) fn process_handed_off(&mut self, ns: u64, tap: &mut impl Tap<P::Frame>) {
        self.simd.run(ProcessHandedOff { worker: self, ns, tap });
    }

    #[inline(always)]
    fn judge_handed_off(&mut self, isa: impl Isa, ns: u64, tap: &mut impl Tap<P::Frame>) {
        self.firewall.counters().count_taken_over(self.rx.frames.len());
        let (snapshot, now) = (self.reader.read(), self.firewall.now(ns));
        self.firewall.begin(snapshot);
        let are_mine = self.read_again(isa, now);
        if !are_mine {
            self.route_again();
        }
        tap.passed(Pass::Parse);
        self.run_handed_off(tap);
    }

    /// Judges a batch that is parsed already, of frames of any wire: handed off, or held until now.
    /// Not inlined, so that there is no second copy of the whole judging code.
    #[inline(never)]
    pub(super) fn run_handed_off(&mut self, tap: &mut impl Tap<P::Frame>) {
        self.simd.run(RunBatch { worker: self, tap });
    }

    /// Parses the burst in hand into the batch. False if one of its frames may be another worker's.
    #[inline(always)]
    fn read_again(&mut self, isa: impl Isa, now: Now) -> bool {
        let tunnels = self.reader.read().tunnels;
        let (mut are_mine, mut is_deep) = (true, false);
        let pkts = self.batch.pkts.grow(self.rx.frames.len());
        for (place, pkt) in pkts.iter_mut().enumerate() {
            if place.is_multiple_of(PREFETCH_STRIDE) {
                self.rx.prefetch_headers(place + PREFETCH_STRIDE + HEADER_PREFETCH_DISTANCE);
            }
            let (Some(frame), Some(hop)) = (self.rx.frames.get_mut(place), self.rx.metas.get(place)) else {
                break;
            };
            let now = frame.stamp().map_or(now, |stamp| self.firewall.now(stamp));
            let arrival = Arrival { side: hop.side, wire: hop.wire, tunnels, now };
            self.firewall.read_as(isa, frame, &arrival, pkt);
            // Parsed under another view of tunnels, its owner may be another, too.
            pkt.stage = if hop.tunnels == tunnels { hop.stage } else { HandoffStage::Received };
            are_mine &= pkt.stage == HandoffStage::Judge;
            is_deep |= pkt.l4 > ONE_LINE;
        }
        let (_, number) = self.sources[self.rx.at];
        self.is_deep[number] = is_deep;
        self.rx.metas.clear();
        std::mem::swap(&mut self.batch.frames, &mut self.rx.frames);
        are_mine
    }

    /// Of what was handed off: sends fragments on to where their first went, and frames that were
    /// parsed under another view of tunnels to their owner.
    #[cold]
    pub(super) fn route_again(&mut self) {
        let snapshot = self.reader.read();
        let Batch { frames, pkts, .. } = &mut self.batch;
        let mut kept = Burst::new();
        for (at, frame) in frames.drain(..).enumerate() {
            let pkt = &mut pkts[at];
            let owner = self.links.next_worker(&frame, pkt, &mut self.firewall, snapshot);
            let PacketMeta { wire, side, stage, tunnels, .. } = *pkt;
            let handed = HandedOff { frame, meta: HandoffMeta { wire, side, stage, tunnels } };
            if let Some(frame) = self.links.hand_off(owner, handed, &self.firewall) {
                pkts.move_up(at, kept.len());
                kept.push(frame);
            }
        }
        pkts.truncate(kept.len());
        **frames = kept;
    }
}
