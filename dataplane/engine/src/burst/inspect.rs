//! A firewall to look into: copies of another table's connections put into its own, so that a
//! packet can be judged here as it would be there; and what it knows of a packet that it has
//! judged.

use super::Firewall;
use crate::conntrack::Connection;
use crate::conntrack::TombstoneInfo;
use crate::conntrack::{Liveness, liveness};
use crate::icmp_quote;
use crate::packet::{PacketKind, PacketMeta};
use crate::snapshot::{Binding, Snapshot};
use crate::time::{Now, reached};
use crate::{FlowIndex, Side};

impl Firewall {
    /// Adds a copy of a connection as it is, with its deadline; false if there is no room for it.
    pub fn copy_in(&mut self, connection: &Connection, snapshot: &Snapshot, now: Now) -> bool {
        self.judge.shard.copy_in(connection, snapshot, now)
    }

    /// The connection that a packet of this NIC belongs to; for an ICMP error, that of the packet
    /// it quotes.
    pub fn connection_of(&self, pkt: &PacketMeta, nic: &Binding, bytes: &[u8]) -> Option<FlowIndex> {
        let judge = &self.judge;
        let key = match pkt.kind {
            PacketKind::IcmpError => judge.quoted_key(pkt, nic, &icmp_quote::read(pkt, bytes)?)?,
            _ => judge.key(pkt, &judge.resolve_key(pkt, nic)),
        };
        judge.shard.find(&key).filter(|flow| !judge.shard.is_expired(*flow, pkt.now))
    }

    /// The tombstone that has just dropped this packet; `None` if a later packet of its burst has
    /// replaced it.
    #[cold]
    pub fn disconnected(&self, snapshot: &Snapshot, pkt: &PacketMeta) -> Option<TombstoneInfo> {
        let mac = if pkt.side == Side::Inside { pkt.src_mac } else { pkt.dst_mac };
        let nic = snapshot.binding_for(snapshot.vpc_of(pkt.segment)?, pkt.local(), pkt.v6, mac)?;
        // An ICMP error about a tombstone is `invalid`: what it quotes need not be read.
        let entry = self.judge.shard.entry(self.connection_of(pkt, nic, &[])?);
        if liveness(entry, nic, snapshot) != Liveness::Tombstone {
            return None;
        }
        let has_run_out = reached(pkt.now.ceil, entry.deadline);
        let expires_in = if has_run_out { 0 } else { entry.deadline.wrapping_sub(pkt.now.ceil) };
        Some(TombstoneInfo { stamp: entry.stamp, is_marked: entry.is_dead(), flush: nic.flush, expires_in })
    }
}
