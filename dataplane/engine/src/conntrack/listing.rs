//! What is told of connections: copies for the control side, and how a tombstone came to be one.

use super::flow_accounting::FlowTotals;
use super::{Entry, LastSyn};
use crate::{FlowIndex, FlushEpoch, Generation};

/// One connection, copied out.
#[derive(Clone, Copy)]
pub struct Connection {
    /// Where it lies in its worker's table.
    pub flow: FlowIndex,
    /// The entry.
    pub entry: Entry,
    /// Its remote address.
    pub remote: u128,
    /// A SYN that passed within it.
    pub last_syn: LastSyn,
    /// What it has carried, if that is counted.
    pub totals: Option<FlowTotals>,
}

/// How a tombstone came to be one, as far as its worker knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TombstoneInfo {
    /// The generation that last found it live; of one that was judged again and refused, the one
    /// that refused it; 0 where an operator disconnected it.
    pub stamp: Generation,
    /// It was marked: by the rules that it was judged by again, or by an operator. Otherwise a
    /// flush of its NIC ended it.
    pub is_marked: bool,
    /// The NIC's last flush.
    pub flush: FlushEpoch,
    /// Ticks until it is gone.
    pub expires_in: u32,
}
