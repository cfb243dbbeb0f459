//! What the control side asks a worker between two bursts.

use crossbeam::channel::Sender;

use crate::FlowIndex;
use crate::burst::Firewall;
use crate::conntrack::flows::Sums;
use crate::conntrack::{Entry, NotedSyn};
use crate::snapshot::Snapshot;
use crate::time::Now;
use crate::trace::{Interest, Recorder};

/// What a [`Question`] is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Task {
    /// Copies connections out.
    List,
    /// Ends the connections that it names, where they are still there.
    End,
    /// Tells from now on of the packets that the question's interest wants, and of none without one.
    Watch,
}

/// A question of the control side, answered between two bursts in bounded slices.
pub struct Question {
    /// What is to be done.
    pub task: Task,
    /// Places are looked at from here on.
    pub from: u32,
    /// Filled up to its capacity, or what is to be ended.
    pub connections: Vec<Connection>,
    /// Of [`Task::Watch`].
    pub interest: Option<Box<Interest>>,
    /// Where the answer goes.
    pub answer: Sender<Answer>,
}

/// The answer to a [`Question`].
pub struct Answer {
    /// The question's vector.
    pub connections: Vec<Connection>,
    /// Of [`Task::Watch`]: the interest that was before.
    pub interest: Option<Box<Interest>>,
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
    pub noted: NotedSyn,
    /// What it has carried, if that is counted.
    pub carried: Option<Sums>,
}

/// Does what is asked, bounded by the room that the question brought.
#[cold]
pub(super) fn answer(
    firewall: &mut Firewall,
    recorder: &mut Recorder,
    snapshot: &Snapshot,
    question: Question,
    now: Now,
) {
    let Question { task, from, mut connections, mut interest, answer } = question;
    if task != Task::List {
        let mut ended = 0;
        if task == Task::End {
            ended = connections.iter().filter(|c| firewall.disconnect(c, snapshot, now)).count() as u32;
        } else {
            interest = recorder.watch(interest);
        }
        let len = firewall.shard().len();
        let _ = answer.try_send(Answer { connections, interest, next: None, now, len, ended });
        return;
    }
    let slice = (connections.capacity() - connections.len()) as u32;
    let shard = firewall.shard();
    let next = shard.list(from, slice, |flow, entry| {
        if !shard.is_expired(flow, now) {
            let (remote, noted) = (shard.remote(flow), *shard.noted_syn(flow));
            connections.push(Connection { flow, entry: *entry, remote, noted, carried: shard.carried(flow) });
        }
    });
    // Nobody waiting any more is no failure of the worker's.
    let _ = answer.try_send(Answer { connections, interest, next, now, len: shard.len(), ended: 0 });
}
