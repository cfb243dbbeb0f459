//! What the control side asks a worker between two bursts.

use crossbeam::channel::Sender;

use crate::FlowIndex;
use crate::burst::Firewall;
use crate::conntrack::flow_accounting::FlowTotals;
use crate::conntrack::{Entry, LastSyn};
use crate::snapshot::Snapshot;
use crate::time::Now;
use crate::trace::{Recorder, WatchSet};

/// What a [`WorkerRequest`] is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RequestKind {
    /// Copies connections out.
    List,
    /// Ends the connections that it names, where they are still there.
    End,
    /// Tells from now on of the packets that the question's watch set wants, and of none without one.
    Watch,
}

/// A question of the control side, answered between two bursts in bounded slices.
pub struct WorkerRequest {
    /// What is to be done.
    pub kind: RequestKind,
    /// Places are looked at from here on.
    pub from: u32,
    /// Filled up to its capacity, or what is to be ended.
    pub connections: Vec<Connection>,
    /// Of [`RequestKind::Watch`].
    pub watch_set: Option<Box<WatchSet>>,
    /// Where the answer goes.
    pub reply: Sender<WorkerReply>,
}

/// The answer to a [`WorkerRequest`].
pub struct WorkerReply {
    /// The question's vector.
    pub connections: Vec<Connection>,
    /// Of [`RequestKind::Watch`]: the watch set that was before.
    pub watch_set: Option<Box<WatchSet>>,
    /// Where to go on, if there is more.
    pub next: Option<u32>,
    /// When this was, in ticks.
    pub now: Now,
    /// Entries in the shard.
    pub len: u32,
    /// Connections ended.
    pub ended: u32,
}

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

/// Does what is asked, bounded by the room that the question brought.
#[cold]
pub(super) fn serve(
    firewall: &mut Firewall,
    recorder: &mut Recorder,
    snapshot: &Snapshot,
    question: WorkerRequest,
    now: Now,
) {
    let WorkerRequest { kind: task, from, mut connections, mut watch_set, reply: answer } = question;
    if task != RequestKind::List {
        let mut ended = 0;
        if task == RequestKind::End {
            ended = connections.iter().filter(|c| firewall.disconnect(c, snapshot, now)).count() as u32;
        } else {
            watch_set = recorder.watch(watch_set);
        }
        let len = firewall.shard().len();
        let _ = answer.try_send(WorkerReply { connections, watch_set, next: None, now, len, ended });
        return;
    }
    let slice = (connections.capacity() - connections.len()) as u32;
    let shard = firewall.shard();
    let next = shard.list(from, slice, |flow, entry| {
        if !shard.is_expired(flow, now) {
            let (remote, noted) = (shard.remote(flow), *shard.last_syn(flow));
            connections.push(Connection {
                flow,
                entry: *entry,
                remote,
                last_syn: noted,
                totals: shard.carried(flow),
            });
        }
    });
    // Nobody waiting any more is no failure of the worker's.
    let _ = answer.try_send(WorkerReply { connections, watch_set, next, now, len: shard.len(), ended: 0 });
}
