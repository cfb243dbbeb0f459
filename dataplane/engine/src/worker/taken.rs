//! What a worker takes of what the others have handed over, and judges.

use crate::burst::Batch;
use crate::io::{BURST, Burst, Frame, Port};
use crate::lane::{Arrival, Lane, Stage};
use crate::worker::{HandedOff, Tap, Worker};

impl<P: Port> Worker<P> {
    /// What the other workers handed over. It is judged at this worker's own time: another's is older than what this one has
    /// judged since, and its ticks are its own where clocks have leapt.
    #[inline(never)]
    pub(super) fn take_handed_off(&mut self, ns: u64, tap: &mut impl Tap<P::Frame>) -> usize {
        #[cfg(target_arch = "x86_64")]
        if self.has_v3 {
            // SAFETY: the processor has these instructions: the flag says that it was asked.
            return unsafe { self.take_handed_off_v3(ns, tap) };
        }
        // SAFETY: nothing is demanded without `V3`.
        unsafe { self.take_bursts::<false>(ns, tap) }
    }

    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx2,bmi1,bmi2,movbe,lzcnt")]
    fn take_handed_off_v3(&mut self, ns: u64, tap: &mut impl Tap<P::Frame>) -> usize {
        // SAFETY: who calls this has these instructions.
        unsafe { self.take_bursts::<true>(ns, tap) }
    }

    /// # Safety
    /// With `V3` the processor has x86-64-v3.
    #[inline(always)]
    unsafe fn take_bursts<const V3: bool>(&mut self, ns: u64, tap: &mut impl Tap<P::Frame>) -> usize {
        // A burst a port is what another worker can hand over in a turn; one more, so that a ring that filled while this worker
        // was away empties again.
        let bursts = 2 * self.wires.len() + 1;
        let mut taken = 0;
        for from in 0..self.links.rings.from.len() {
            for _ in 0..bursts {
                // SAFETY: as the caller says.
                let count = unsafe { self.take_burst::<V3>(from, ns, tap) };
                taken += count;
                if count < BURST {
                    break;
                }
            }
        }
        taken
    }

    /// At most a burst of one other worker's.
    ///
    /// # Safety
    /// With `V3` the processor has x86-64-v3.
    #[inline(always)]
    unsafe fn take_burst<const V3: bool>(
        &mut self,
        from: usize,
        ns: u64,
        tap: &mut impl Tap<P::Frame>,
    ) -> usize {
        let (snapshot, batch) = (self.reader.read(), &mut self.batch);
        let count = self.links.rings.from[from].take(BURST, |HandedOff { frame, lane }| {
            frame.prefetch_metadata();
            batch.push(frame, lane);
        });
        if count == 0 {
            return 0;
        }
        let now = self.firewall.now(ns);
        self.firewall.begin(snapshot);
        let mut are_mine = true;
        for (frame, lane) in batch.frames.iter().zip(batch.lanes.iter_mut()) {
            lane.now = frame.stamp().map_or(now, |stamp| self.firewall.now(stamp));
            are_mine &= (lane.stage == Stage::Judge) & (lane.tunnels == snapshot.tunnels);
        }
        if !are_mine {
            self.route_again();
        }
        // SAFETY: as the caller says.
        unsafe { self.run_batch::<V3>(None, tap) };
        count
    }

    /// Of what was handed over: a fragment may have to go on to who knows its packet's first one, and what was read under another
    /// view of what is a tunnel is read again, and its owner may be another, too.
    #[cold]
    fn route_again(&mut self) {
        let snapshot = self.reader.read();
        let Batch { frames, lanes, .. } = &mut self.batch;
        let mut kept = Burst::new();
        for (at, mut frame) in frames.drain(..).enumerate() {
            let lane = &mut lanes[at];
            if lane.tunnels != snapshot.tunnels {
                let Lane { side, wire, now, .. } = *lane;
                let arrival = Arrival { side, wire, tunnels: snapshot.tunnels, now };
                self.firewall.read_into(&mut frame, &arrival, lane);
            }
            let owner = self.links.next(&frame, lane, &mut self.firewall);
            if let Some(frame) = self.links.hand_off(owner, frame, lane, &self.firewall) {
                lanes.move_up(at, kept.len());
                kept.push(frame);
            }
        }
        lanes.truncate(kept.len());
        **frames = kept;
    }
}
