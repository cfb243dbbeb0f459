//! What a worker takes of what the others have handed over, and judges.

use arrayvec::ArrayVec;

use crate::burst::Batch;
use crate::io::{BURST, Burst, Frame, Port};
use crate::lane::{Arrival, Lane, Stage};
use crate::time::Now;
use crate::worker::received::HEADERS_AHEAD;
use crate::worker::{HandedOff, Hop, Tap, Worker};

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
        let (frames, mut hops) = (&mut self.batch.frames, ArrayVec::<Hop, BURST>::new());
        let count = self.links.rings.from[from].take(BURST, |HandedOff { frame, hop }| {
            frame.prefetch_metadata();
            frames.push(frame);
            hops.push(hop);
        });
        if count == 0 {
            return 0;
        }
        let (snapshot, now) = (self.reader.read(), self.firewall.now(ns));
        self.firewall.begin(snapshot);
        // SAFETY: as the caller says.
        let are_mine = unsafe { self.read_again::<V3>(&hops, now) };
        if !are_mine {
            self.route_again();
        }
        // SAFETY: as the caller says.
        unsafe { self.run_batch::<V3>(None, tap) };
        count
    }

    /// Reads the batch's frames into lanes. False if one of them may be another worker's.
    ///
    /// # Safety
    /// With `V3` the processor has x86-64-v3.
    #[inline(always)]
    unsafe fn read_again<const V3: bool>(&mut self, hops: &[Hop], now: Now) -> bool {
        let tunnels = self.reader.read().tunnels;
        let Batch { frames, lanes, .. } = &mut self.batch;
        frames.iter().take(HEADERS_AHEAD).for_each(|frame| frame.prefetch(false));
        let mut are_mine = true;
        for (place, (hop, lane)) in hops.iter().zip(lanes.grow(hops.len())).enumerate() {
            if let Some(ahead) = frames.get(place + HEADERS_AHEAD) {
                ahead.prefetch(false);
            }
            let Some(frame) = frames.get_mut(place) else { break };
            let now = frame.stamp().map_or(now, |stamp| self.firewall.now(stamp));
            let arrival = Arrival { side: hop.side, wire: hop.wire, tunnels, now };
            // SAFETY: as the caller says.
            unsafe { self.firewall.read_as::<V3, _>(frame, &arrival, lane) };
            // Read under another view of what is a tunnel, its owner may be another, too.
            lane.stage = if hop.tunnels == tunnels { hop.stage } else { Stage::Received };
            are_mine &= lane.stage == Stage::Judge;
        }
        are_mine
    }

    /// Of what was handed over: a fragment may have to go on to who knows its packet's first one, and what was read under another
    /// view of what is a tunnel to another owner.
    #[cold]
    fn route_again(&mut self) {
        let Batch { frames, lanes, .. } = &mut self.batch;
        let mut kept = Burst::new();
        for (at, frame) in frames.drain(..).enumerate() {
            let lane = &mut lanes[at];
            let owner = self.links.next(&frame, lane, &mut self.firewall);
            let Lane { wire, side, stage, tunnels, .. } = *lane;
            let handed = HandedOff { frame, hop: Hop { wire, side, stage, tunnels } };
            if let Some(frame) = self.links.hand_off(owner, handed, &self.firewall) {
                lanes.move_up(at, kept.len());
                kept.push(frame);
            }
        }
        lanes.truncate(kept.len());
        **frames = kept;
    }
}
