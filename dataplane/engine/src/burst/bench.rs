//! A firewall as a bench: connections of another's table put into its own, so that a packet can be judged here as it would be there;
//! and what it tells of a packet that it has judged.

use super::Firewall;
use crate::conntrack::{Standing, standing};
use crate::lane::{Lane, What};
use crate::quote;
use crate::snapshot::{Binding, Snapshot};
use crate::time::{Now, reached};
use crate::trace::Disconnected;
use crate::worker::Connection;
use crate::{FlowIndex, Side};

impl Firewall {
    /// Takes in a copy of a connection as it is, deadline and all; false if there is no room for it.
    pub fn copy_in(&mut self, connection: &Connection, snapshot: &Snapshot, now: Now) -> bool {
        self.judge.shard.copy_in(connection, snapshot, now)
    }

    /// The connection that a packet of this NIC is of or, of an ICMP error, the packet that it quotes.
    pub fn connection_of(&self, lane: &Lane, nic: &Binding, bytes: &[u8]) -> Option<FlowIndex> {
        let judge = &self.judge;
        let key = match lane.what {
            What::IcmpError => judge.quoted_key(lane, nic, &quote::read(lane, bytes)?)?,
            _ => judge.key(lane, &judge.ahead(lane, nic)),
        };
        judge.shard.find(&key).filter(|flow| !judge.shard.is_expired(*flow, lane.now))
    }

    /// The tombstone that has just dropped this packet. A later packet of its burst may have taken its place; then there is none.
    #[cold]
    pub fn disconnected(&self, snapshot: &Snapshot, lane: &Lane) -> Option<Disconnected> {
        let mac = if lane.side == Side::Inside { lane.src_mac } else { lane.dst_mac };
        let nic = snapshot.holder(snapshot.vpc_of(lane.segment)?, lane.local(), lane.v6, mac)?;
        // An ICMP error about a tombstone is `invalid`: what it quotes need not be read.
        let entry = self.judge.shard.entry(self.connection_of(lane, nic, &[])?);
        if standing(entry, nic, snapshot) != Standing::Tombstone {
            return None;
        }
        let has_run_out = reached(lane.now.up, entry.deadline);
        let expires_in = if has_run_out { 0 } else { entry.deadline.wrapping_sub(lane.now.up) };
        Some(Disconnected { stamp: entry.stamp, is_marked: entry.is_dead(), flush: nic.flush, expires_in })
    }
}
