//! A firewall as a bench: connections of another's table put into its own, so that a packet can be judged here as it would be there.

use super::Firewall;
use crate::FlowIndex;
use crate::lane::{Lane, What};
use crate::quote;
use crate::snapshot::{Binding, Snapshot};
use crate::time::Now;
use crate::worker::Connection;

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
}
