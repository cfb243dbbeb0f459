//! How a worker brings fragments together: later ones wait with whoever sees all fragments of their packet, or with their owner.

use super::{HandedOff, Hop, Links, Tap, Worker};
use crate::burst::{Batch, Firewall};
use crate::io::{BURST, Frame, Port};
use crate::lane::{Fragment, Lane, Stage};
use crate::snapshot::Snapshot;
use crate::waits::{Leave, PLACES};

impl<P: Port> Worker<P> {
    /// Fragments whose time is over wait no more. How many frames were judged.
    #[cold]
    pub(super) fn end_waits(&mut self, ns: u64, tap: &mut impl Tap<P::Frame>) -> usize {
        let tick = self.firewall.now(ns).tick;
        self.firewall.waits_mut().expire(tick);
        self.take_up_held(ns, tap)
    }

    /// Judges what waits no more. How many frames that were.
    #[cold]
    pub(super) fn take_up_held(&mut self, ns: u64, tap: &mut impl Tap<P::Frame>) -> usize {
        let mut frames = 0;
        // What is taken up is not held again, so that this ends.
        while self.firewall.waits().has_leaving() && frames <= PLACES {
            let (snapshot, now) = (self.reader.read(), self.firewall.now(ns));
            self.firewall.begin(snapshot);
            let Worker { firewall, links, held, batch, .. } = self;
            while batch.frames.len() < BURST
                && let Some((frame, lane, owner)) = firewall.take_up(snapshot, held, now)
            {
                frames += 1;
                match owner {
                    Some(owner) => links.send_on(owner, frame, &lane, firewall),
                    None => batch.push(frame, lane),
                }
            }
            if self.batch.lanes.iter().any(|lane| lane.stage < Stage::Judge) {
                self.route_again();
            }
            self.run_taken(tap);
        }
        frames
    }

    /// Some of these fragments wait for a first that went on to another worker in the same burst, ahead of the batch: they follow it.
    #[cold]
    pub(super) fn follow_those_gone(&mut self) {
        let Worker { firewall, links, batch, .. } = self;
        let Batch { lanes, verdicts, tickets, .. } = batch;
        let held = lanes.iter().zip(verdicts.iter()).filter(|(_, verdict)| verdict.held);
        for ((lane, _), ticket) in held.zip(&*tickets) {
            let owner = links.router.owner_of_first(lane, firewall.packet_hash(lane));
            if let Some(owner) = owner.filter(|owner| !links.router.is_me(*owner)) {
                firewall.waits_mut().follow_alone(*ticket, Leave::Go(owner));
            }
        }
    }
}

impl<F: Frame> Links<F> {
    /// The worker to which a fragment goes next: to whoever sees all fragments of its packet, and from there to where the first went.
    #[cold]
    pub(super) fn next_of_fragment(
        &mut self,
        frame: &F,
        lane: &mut Lane,
        firewall: &mut Firewall,
        snapshot: &Snapshot,
    ) -> u32 {
        let hash = firewall.packet_hash(lane);
        if lane.stage == Stage::Received {
            lane.stage = Stage::Fragment;
            let knower = self.router.knower(hash);
            if !self.router.is_me(knower) {
                return knower;
            }
        }
        lane.stage = Stage::Judge;
        if lane.fragment == Fragment::Later {
            return self.router.owner_of_first(lane, hash).unwrap_or(self.router.me());
        }
        let owner = self.router.owner(lane, firewall.bytes(frame));
        // What is not remembered as a first leads nobody: whatever follows it, follows another one.
        if let Some((nic, key)) = firewall.first_fragment(snapshot, lane, frame) {
            let timeout = firewall.shard().timeouts().fragment;
            self.router.note_first(lane, hash, nic, owner, timeout);
            if let Some(key) = key.filter(|_| !self.router.is_me(owner)) {
                firewall.waits_mut().follow(&key, lane.now.tick, Leave::Go(owner));
            }
        }
        owner
    }

    /// Sends a fragment that has waited after its first.
    fn send_on(&mut self, owner: u32, frame: F, lane: &Lane, firewall: &Firewall) {
        let Lane { wire, side, stage, tunnels, .. } = *lane;
        self.hand_off(owner, HandedOff { frame, hop: Hop { wire, side, stage, tunnels } }, firewall);
    }
}
