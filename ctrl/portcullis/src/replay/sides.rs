//! Which side a packet came from, in one capture of both directions.

use std::collections::HashSet;

use control::explain::owner;
use control::model::Policy;
use engine::Side;
use engine::packet::PacketMeta;
use engine::snapshot::Snapshot;

use super::frame::CapturedFrame;

/// What tells sides beside the snapshot.
#[derive(Default)]
pub struct Sides {
    /// Every Ethernet address that a NIC sends from.
    macs: HashSet<[u8; 6]>,
}

impl Sides {
    /// Takes up a policy's NICs.
    pub fn know(&mut self, policy: &Policy) {
        self.macs.clear();
        for nic in policy.nics.values() {
            let listed = nic.allowed_addresses.iter().filter_map(|allowed| allowed.mac);
            self.macs.extend(nic.mac.into_iter().chain(listed).map(|mac| mac.bytes()));
        }
    }

    /// Inside if the capturing host sent it, or if its source address or else its source MAC is a NIC's.
    pub fn of(&self, snapshot: &Snapshot, pkt: &PacketMeta, frame: &CapturedFrame<'_>) -> Side {
        let packet = &frame.merged.packet;
        let header = packet.link.header(packet.data);
        let is_inside = header.is_some_and(|header| header.is_sent)
            || owner::sender(snapshot, pkt, |at| frame.byte(at)).is_some()
            || header.and_then(|header| header.sender).is_some_and(|mac| self.macs.contains(&mac));
        if is_inside { Side::Inside } else { Side::Outside }
    }
}
