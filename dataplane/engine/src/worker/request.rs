//! Requests of the control side, served between two bursts.

use crossbeam::channel::Sender;

use crate::burst::Firewall;
use crate::conntrack::Connection;
use crate::snapshot::Snapshot;
use crate::time::Now;
use crate::trace::{Recorder, WatchSet};

/// The kind of a [`WorkerRequest`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RequestKind {
    /// Copies connections out.
    List,
    /// Ends the named connections, if they are still there.
    End,
    /// Replaces the watch set; none ends all watching.
    Watch,
}

/// A request of the control side, served in bounded slices.
pub struct WorkerRequest {
    /// What is to be done.
    pub kind: RequestKind,
    /// The first slot of the table to look at.
    pub from: u32,
    /// Filled up to its capacity; or the connections to end.
    pub connections: Vec<Connection>,
    /// For [`RequestKind::Watch`].
    pub watch_set: Option<Box<WatchSet>>,
    /// Where the reply goes.
    pub reply: Sender<WorkerReply>,
}

/// The reply to a [`WorkerRequest`].
pub struct WorkerReply {
    /// The request's vector.
    pub connections: Vec<Connection>,
    /// For [`RequestKind::Watch`]: the watch set before.
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

/// Serves a request, bounded by the capacity of its vector.
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
    // A requester that no longer waits is no failure of the worker.
    let _ = answer.try_send(WorkerReply { connections, watch_set, next, now, len: shard.len(), ended: 0 });
}
