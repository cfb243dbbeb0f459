//! How a worker brings fragments together: later ones wait at the worker that sees all fragments of
//! their packet, or at their owner.

use super::{HandedOff, HandoffLinks, HandoffMeta, Tap, Worker};
use crate::burst::{Batch, Firewall};
use crate::fragment_queue::{Release, SLOTS};
use crate::io::{BURST, Frame, Port};
use crate::packet::{Fragment, HandoffStage, PacketMeta};
use crate::snapshot::Snapshot;

impl<P: Port> Worker<P> {
    /// Judges fragments whose waiting time is over; returns how many.
    #[cold]
    pub(super) fn expire_held(&mut self, ns: u64, tap: &mut impl Tap<P::Frame>) -> usize {
        let tick = self.firewall.now(ns).tick;
        self.firewall.fragment_queue_mut().expire(tick);
        self.release_held(ns, tap)
    }

    /// Judges the frames that wait no more; returns how many.
    #[cold]
    pub(super) fn release_held(&mut self, ns: u64, tap: &mut impl Tap<P::Frame>) -> usize {
        let mut frames = 0;
        // A released frame is not held again, so this ends.
        while self.firewall.fragment_queue().has_released() && frames <= SLOTS {
            let (snapshot, now) = (self.reader.read(), self.firewall.now(ns));
            self.firewall.begin(snapshot);
            let Worker { firewall, links, held_frames: held, batch, .. } = self;
            while batch.frames.len() < BURST
                && let Some((frame, pkt, owner)) = firewall.next_released(snapshot, held, now)
            {
                frames += 1;
                match owner {
                    Some(owner) => links.send_on(owner, frame, &pkt, firewall),
                    None => batch.push(frame, pkt),
                }
            }
            if self.batch.pkts.iter().any(|pkt| pkt.stage < HandoffStage::Judge) {
                self.route_again();
            }
            self.run_handed_off(tap);
        }
        frames
    }

    /// Some of the batch's fragments wait for a first that went to another worker in the same
    /// burst, ahead of the batch: they follow it.
    #[cold]
    pub(super) fn follow_handed_off_firsts(&mut self) {
        let Worker { firewall, links, batch, .. } = self;
        let Batch { pkts, verdicts, tickets, .. } = batch;
        let held = pkts.iter().zip(verdicts.iter()).filter(|(_, verdict)| verdict.held);
        for ((pkt, _), ticket) in held.zip(&*tickets) {
            let owner = links.router.owner_of_first(pkt, firewall.packet_hash(pkt));
            if let Some(owner) = owner.filter(|owner| !links.router.is_me(*owner)) {
                firewall.fragment_queue_mut().release_one(*ticket, Release::ToWorker(owner));
            }
        }
    }
}

impl<F: Frame> HandoffLinks<F> {
    /// The worker to which a fragment goes next: to the one that sees all fragments of its packet,
    /// and from there to where the first went.
    #[cold]
    pub(super) fn next_worker_of_fragment(
        &mut self,
        frame: &F,
        pkt: &mut PacketMeta,
        firewall: &mut Firewall,
        snapshot: &Snapshot,
    ) -> u32 {
        let hash = firewall.packet_hash(pkt);
        if pkt.stage == HandoffStage::Received {
            pkt.stage = HandoffStage::Fragment;
            let knower = self.router.fragment_worker(hash);
            if !self.router.is_me(knower) {
                return knower;
            }
        }
        pkt.stage = HandoffStage::Judge;
        if pkt.fragment == Fragment::Later {
            return self.router.owner_of_first(pkt, hash).unwrap_or(self.router.me());
        }
        let owner = self.router.owner(pkt, firewall.bytes(frame));
        // A first that is not remembered leads nothing: what follows it may belong to another
        // packet.
        if let Some((nic, key)) = firewall.first_fragment(snapshot, pkt, frame) {
            let timeout = firewall.shard().timeouts().fragment;
            self.router.note_first(pkt, hash, nic, owner, timeout);
            if let Some(key) = key.filter(|_| !self.router.is_me(owner)) {
                firewall.fragment_queue_mut().release(&key, pkt.now.tick, Release::ToWorker(owner));
            }
        }
        owner
    }

    /// Sends a fragment that has waited after its first.
    fn send_on(&mut self, owner: u32, frame: F, pkt: &PacketMeta, firewall: &Firewall) {
        let PacketMeta { wire, side, stage, tunnels, .. } = *pkt;
        self.hand_off(owner, HandedOff { frame, meta: HandoffMeta { wire, side, stage, tunnels } }, firewall);
    }
}
