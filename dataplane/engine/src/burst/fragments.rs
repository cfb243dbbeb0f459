//! Fragments of a burst: who brings them together asks whose they are, holds some, and takes them up again.

use super::{Firewall, bytes_of, remembered_for};
use crate::NicSlot;
use crate::fragments::{FragmentKey, Hashed};
use crate::held::Held;
use crate::io::Frame;
use crate::judge::is_remembered;
use crate::lane::{Arrival, Fragment, Lane, Stage};
use crate::resolve::{Step, resolve};
use crate::snapshot::Snapshot;
use crate::time::Now;
use crate::waits::{Leave, Waits};

impl Firewall {
    /// Fragments that wait for their first ones.
    pub fn waits(&self) -> &Waits {
        &self.judge.waits
    }

    /// The same, for who is to end their waiting.
    pub fn waits_mut(&mut self) -> &mut Waits {
        &mut self.judge.waits
    }

    /// Whose a first fragment is, and what it has in common with the others of its packet as that NIC sees it; the former alone, and
    /// nobody, where there is no such NIC. `None` if it is not remembered.
    pub fn first_fragment<F: Frame>(
        &mut self,
        snapshot: &Snapshot,
        lane: &Lane,
        frame: &F,
    ) -> Option<(NicSlot, Option<Hashed<FragmentKey>>)> {
        let nic = match resolve(snapshot, lane, bytes_of(frame, &mut self.scratch)) {
            Step::Nic(nic) => Some(nic),
            Step::Done(verdict) if !is_remembered(&verdict) => return None,
            Step::Done(verdict) => remembered_for(snapshot, lane, &verdict),
        };
        let key = nic.map(|nic| self.judge.fragment_key(lane, nic));
        Some((nic.map_or(NicSlot::NONE, |nic| nic.nic), key))
    }

    /// A hash of what all fragments of a packet bear.
    pub fn packet_hash(&self, lane: &Lane) -> u32 {
        self.judge.packet_hash(lane)
    }

    /// The next frame that waits no more, read, to be judged at `now`; or to go to another worker, as its first did.
    pub fn take_up<F: Frame>(
        &mut self,
        snapshot: &Snapshot,
        held: &mut Held<F>,
        now: Now,
    ) -> Option<(F, Lane, Option<u32>)> {
        loop {
            let (ticket, how) = self.judge.waits.next_leaving()?;
            let Some((mut frame, mut lane)) = held.take(ticket) else { continue };
            (lane.now, lane.stage) = (now, if how == Leave::Over { Stage::Over } else { Stage::Released });
            if lane.tunnels != snapshot.tunnels {
                let Lane { side, wire, stage, .. } = lane;
                let arrival = Arrival { side, wire, tunnels: snapshot.tunnels, now };
                self.read_into(&mut frame, &arrival, &mut lane);
                // Read otherwise it may be a whole packet, whose owner is another worker.
                lane.stage = if lane.fragment == Fragment::Later { stage } else { Stage::Received };
            }
            let owner = if let Leave::Go(owner) = how { Some(owner) } else { None };
            return Some((frame, lane, owner));
        }
    }
}
