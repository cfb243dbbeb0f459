//! Fragments: what the worker that sees all fragments of a packet asks of its firewall.

use super::{Firewall, bytes_of, remembered_for};
use crate::NicSlot;
use crate::fragment_cache::{FragmentKey, Hashed};
use crate::fragment_queue::{FragmentQueue, Release};
use crate::held_frames::HeldFrames;
use crate::io::Frame;
use crate::judge::is_remembered;
use crate::packet::{Arrival, Fragment, HandoffStage, PacketMeta};
use crate::resolve::{Resolution, resolve};
use crate::snapshot::Snapshot;
use crate::time::Now;

impl Firewall {
    /// Fragments that wait for their first.
    pub fn fragment_queue(&self) -> &FragmentQueue {
        &self.judge.fragment_queue
    }

    /// The same, to end their waiting.
    pub fn fragment_queue_mut(&mut self) -> &mut FragmentQueue {
        &mut self.judge.fragment_queue
    }

    /// The NIC of a first fragment, and what it has in common with the others of its packet as that
    /// NIC sees it; without a NIC, the former is none. `None` if the fragment is not remembered.
    pub fn first_fragment<F: Frame>(
        &mut self,
        snapshot: &Snapshot,
        pkt: &PacketMeta,
        frame: &F,
    ) -> Option<(NicSlot, Option<Hashed<FragmentKey>>)> {
        let nic = match resolve(snapshot, pkt, bytes_of(frame, &mut self.scratch)) {
            Resolution::Nic(nic) => Some(nic),
            Resolution::Verdict(verdict) if !is_remembered(&verdict) => return None,
            Resolution::Verdict(verdict) => remembered_for(snapshot, pkt, &verdict),
        };
        let key = nic.map(|nic| self.judge.fragment_key(pkt, nic));
        Some((nic.map_or(NicSlot::NONE, |nic| nic.nic), key))
    }

    /// A hash of what all fragments of a packet have in common.
    pub fn packet_hash(&self, pkt: &PacketMeta) -> u32 {
        self.judge.packet_hash(pkt)
    }

    /// The next frame that waits no more: parsed, to be judged at `now`, or to be sent to the
    /// worker that its first went to.
    pub fn next_released<F: Frame>(
        &mut self,
        snapshot: &Snapshot,
        held: &mut HeldFrames<F>,
        now: Now,
    ) -> Option<(F, PacketMeta, Option<u32>)> {
        loop {
            let (ticket, how) = self.judge.fragment_queue.next_released()?;
            let Some((mut frame, mut pkt)) = held.take(ticket) else { continue };
            (pkt.now, pkt.stage) =
                (now, if how == Release::Expired { HandoffStage::Expired } else { HandoffStage::Released });
            if pkt.tunnels != snapshot.tunnels {
                let PacketMeta { side, wire, stage, .. } = pkt;
                let arrival = Arrival { side, wire, tunnels: snapshot.tunnels, now };
                self.read_into(&mut frame, &arrival, &mut pkt);
                // Parsed under another view of tunnels it may be a whole packet, whose owner is
                // another worker.
                pkt.stage = if pkt.fragment == Fragment::Later { stage } else { HandoffStage::Received };
            }
            let owner = if let Release::ToWorker(owner) = how { Some(owner) } else { None };
            return Some((frame, pkt, owner));
        }
    }
}
