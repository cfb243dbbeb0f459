//! How a worker judges what the others have handed over.

use crate::burst::{Batch, Pass};
use crate::io::{Burst, Frame, Port};
use crate::packet::{Arrival, HandoffStage, PacketMeta};
use crate::time::Now;
use crate::worker::rx::HEADER_PREFETCH_DISTANCE;
use crate::worker::{HandedOff, HandoffMeta, ONE_LINE, PREFETCH_STRIDE, Tap, Worker};

impl<P: Port> Worker<P> {
    /// Judges the burst in hand, which another worker handed over. It is judged at this worker's own time: another's is older than what
    /// this one has judged since, and its ticks are its own where clocks have leapt.
    #[inline(never)]
    pub(super) fn process_handed_off(&mut self, ns: u64, tap: &mut impl Tap<P::Frame>) {
        #[cfg(target_arch = "x86_64")]
        if self.has_v3 {
            // SAFETY: the processor has these instructions: the flag says that it was asked.
            return unsafe { self.process_handed_off_v3(ns, tap) };
        }
        // SAFETY: nothing is demanded without `V3`.
        unsafe { self.judge_handed_off::<false>(ns, tap) }
    }

    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx2,bmi1,bmi2,movbe,lzcnt")]
    fn process_handed_off_v3(&mut self, ns: u64, tap: &mut impl Tap<P::Frame>) {
        // SAFETY: who calls this has these instructions.
        unsafe { self.judge_handed_off::<true>(ns, tap) }
    }

    /// # Safety
    /// With `V3` the processor has x86-64-v3.
    #[inline(always)]
    unsafe fn judge_handed_off<const V3: bool>(&mut self, ns: u64, tap: &mut impl Tap<P::Frame>) {
        self.firewall.counters().count_taken_over(self.rx.frames.len());
        let (snapshot, now) = (self.reader.read(), self.firewall.now(ns));
        self.firewall.begin(snapshot);
        // SAFETY: as the caller says.
        let are_mine = unsafe { self.read_again::<V3>(now) };
        if !are_mine {
            self.route_again();
        }
        tap.passed(Pass::Parse);
        self.run_handed_off(tap);
    }

    /// Judges a batch that was read already, of frames of any wire: handed over, or held until now. Of its own, so that there is
    /// no other copy of all that judging is.
    #[inline(never)]
    pub(super) fn run_handed_off(&mut self, tap: &mut impl Tap<P::Frame>) {
        #[cfg(target_arch = "x86_64")]
        if self.has_v3 {
            // SAFETY: the processor has these instructions: the flag says that it was asked.
            return unsafe { self.run_taken_v3(tap) };
        }
        // SAFETY: nothing is demanded without `V3`.
        unsafe { self.run_batch::<false>(None, tap) }
    }

    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx2,bmi1,bmi2,movbe,lzcnt")]
    fn run_taken_v3(&mut self, tap: &mut impl Tap<P::Frame>) {
        // SAFETY: who calls this has these instructions.
        unsafe { self.run_batch::<true>(None, tap) }
    }

    /// Makes the burst in hand the batch, read into packet metadata. False if one of its frames may be another worker's.
    ///
    /// # Safety
    /// With `V3` the processor has x86-64-v3.
    #[inline(always)]
    unsafe fn read_again<const V3: bool>(&mut self, now: Now) -> bool {
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
            // SAFETY: as the caller says.
            unsafe { self.firewall.read_as::<V3, _>(frame, &arrival, pkt) };
            // Read under another view of what is a tunnel, its owner may be another, too.
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

    /// Of what was handed over: a fragment may have to go on to who knows its packet's first one, and what was read under another
    /// view of what is a tunnel to another owner.
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
