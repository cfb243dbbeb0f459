//! Connections: asked of the workers in slices, told by the policy of now; and disconnected, where an operator wants it.

mod filter;

use std::time::{Duration, Instant};

use crossbeam::channel::{Receiver, Sender, TryRecvError, bounded};
use engine::classify::RuleVerdict;
use engine::conntrack::Connection;
use engine::conntrack::query_of_entry;
use engine::conntrack::{Liveness, liveness};
use engine::snapshot::Snapshot;
use engine::worker::{RequestKind, WorkerReply, WorkerRequest};
use engine::{NicSlot, addr_from_bits, proto};

use super::{Inner, Live};
use crate::api::types;
use crate::commit::Committer;
use crate::model::protocol;
pub(crate) use filter::check_rule;
pub use filter::{BadFilter, Filter, Known, NoSuchName, Written};

/// Places that a worker looks at between two bursts: some ten microseconds of its time.
const SLICE: usize = 512;
/// How long a scan takes at least for each connection that a worker tells of. Telling costs it some 20 ns: so it loses about
/// one and a half in a hundred packets at full rate while it is asked, and not the more the faster it answers.
const PACE: Duration = Duration::from_nanos(1300);
/// The same of a page that somebody turns, again and again: not one in a hundred.
const GENTLE: Duration = Duration::from_nanos(2400);
/// What a scan may be ahead of its pace.
const AHEAD: Duration = Duration::from_millis(1);
/// A place behind all of a worker's.
const NOWHERE: u32 = 999_999_999;
/// Bytes of a listing that are sent at once.
const PIECE: usize = 64 << 10;
/// How long a worker may take to answer.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long its answer is waited for without giving the thread away.
const SPIN: Duration = Duration::from_micros(50);

/// Where pieces of a listing go.
pub(crate) type ListingSender = tokio::sync::mpsc::Sender<Result<hyper::body::Bytes, WorkerTimeout>>;

/// A part of a listing: so many connections, from a place of a worker's table on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Page {
    pub worker: usize,
    pub place: u32,
    pub limit: usize,
    /// How long it may take to find them.
    pub within: Option<Duration>,
}

/// What was found in a page's time.
pub(crate) struct Found {
    /// The connections, as JSON.
    pub text: Vec<u8>,
    /// Behind which connection there may be more; `None` where nothing is.
    pub next: Option<String>,
}

/// A worker that does not answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WorkerTimeout {
    /// Which.
    pub worker: usize,
}

impl std::fmt::Display for WorkerTimeout {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "worker {} does not answer", self.worker)
    }
}

/// One worker, asked one question after the other. Both ends of the channel stay here, so that no worker frees it.
pub(super) struct WorkerQuery<'l> {
    live: &'l Live,
    worker: usize,
    pub(super) answer: (Sender<WorkerReply>, Receiver<WorkerReply>),
}

impl WorkerQuery<'_> {
    /// Never blocks the worker, and wakes this thread by no system call of the worker's: it looks for the answer
    /// itself.
    async fn ask(
        &self,
        task: RequestKind,
        from: u32,
        connections: Vec<Connection>,
    ) -> Result<WorkerReply, WorkerTimeout> {
        let answer = self.answer.0.clone();
        self.send(WorkerRequest { kind: task, from, connections, watch_set: None, reply: answer }).await
    }

    pub(super) async fn send(&self, question: WorkerRequest) -> Result<WorkerReply, WorkerTimeout> {
        let no_answer = WorkerTimeout { worker: self.worker };
        let waker = {
            let inner = self.live.inner();
            let worker = inner.workers.get(self.worker).ok_or(no_answer)?;
            worker.questions.try_send(question).map_err(|_| no_answer)?;
            worker.waker.clone()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
        let asked = Instant::now();
        loop {
            match self.answer.1.try_recv() {
                Ok(answer) => return Ok(answer),
                Err(TryRecvError::Disconnected) => return Err(no_answer),
                Err(TryRecvError::Empty) => {}
            }
            match asked.elapsed() {
                waited if waited > PATIENCE => return Err(no_answer),
                waited if waited > SPIN => tokio::time::sleep(Duration::from_millis(1)).await,
                _ => std::hint::spin_loop(),
            }
        }
    }
}

/// Everything that lies in the workers' tables, a slice of one worker at a time.
struct ConnectionScan<'l> {
    interview: WorkerQuery<'l>,
    workers: usize,
    /// Where the next slice of this worker begins; `None` once there is none.
    from: Option<u32>,
    due: Instant,
    pace: Duration,
}

/// Connections of one worker at one moment.
struct ScanSlice {
    worker: usize,
    /// The tick of then.
    now: u32,
    connections: Vec<Connection>,
}

impl ConnectionScan<'_> {
    /// The next one, into the room of the one before. Others have their turn between the slices, and the worker's packets above all.
    async fn next(&mut self, before: Option<ScanSlice>) -> Result<Option<ScanSlice>, WorkerTimeout> {
        let mut room = before.map_or_else(|| Vec::with_capacity(SLICE), |slice| slice.connections);
        room.clear();
        if self.from.is_none() {
            self.interview = self.interview.live.worker_query(self.interview.worker + 1);
            (self.from, self.due) = (Some(0), Instant::now());
        } else if self.from != Some(0) {
            match self.due.checked_duration_since(Instant::now()).filter(|ahead| *ahead > AHEAD) {
                Some(ahead) => tokio::time::sleep(ahead).await,
                None => tokio::task::yield_now().await,
            }
        }
        let (Some(from), worker) = (self.from, self.interview.worker) else { return Ok(None) };
        if worker >= self.workers {
            return Ok(None);
        }
        let WorkerReply { connections, next, now, .. } =
            self.interview.ask(RequestKind::List, from, room).await?;
        self.due += self.pace * connections.len() as u32;
        self.from = next;
        Ok(Some(ScanSlice { worker, now: now.ceil, connections }))
    }
}

impl ConnectionScan<'_> {
    /// Behind which connection's id the next slice begins; `None` behind the last worker's last.
    fn behind(&self) -> Option<String> {
        let worker = self.interview.worker;
        match self.from {
            Some(0) => None,
            Some(place) => Some(format!("{worker}-{}", place - 1)),
            // Nothing lies so far: the next worker's begin.
            None => (worker + 1 < self.workers).then(|| format!("{worker}-{}", NOWHERE)),
        }
    }
}

impl Live {
    fn slices(&self) -> ConnectionScan<'_> {
        self.slices_from(0, 0)
    }

    /// From a place of a worker's table on.
    fn slices_from(&self, worker: usize, place: u32) -> ConnectionScan<'_> {
        let workers = self.inner().workers.len();
        ConnectionScan {
            interview: self.worker_query(worker),
            workers,
            // Behind what no worker has begins the next one: a page without time for more than that would lead to itself.
            from: (place <= NOWHERE).then_some(place),
            due: Instant::now(),
            pace: PACE,
        }
    }

    pub(super) fn worker_query(&self, worker: usize) -> WorkerQuery<'_> {
        WorkerQuery { live: self, worker, answer: bounded(1) }
    }

    /// How many entries a worker's table holds.
    pub(super) async fn table_len(&self, worker: usize) -> Result<u32, WorkerTimeout> {
        self.worker_query(worker).ask(RequestKind::List, 0, Vec::new()).await.map(|answer| answer.len)
    }

    /// Hands everything that lies in the workers' tables to `each`, a slice of one worker at a time, with the tick of then.
    pub(super) async fn scan(
        &self,
        mut each: impl FnMut(&Inner, &[Connection], u32, usize),
    ) -> Result<(), WorkerTimeout> {
        let (mut slices, mut slice) = (self.slices(), None);
        while let Some(found) = slices.next(slice).await? {
            each(&self.inner(), &found.connections, found.now, found.worker);
            slice = Some(found);
        }
        Ok(())
    }

    /// A page of the connections that the filter lets through, and of no more than can be found in its time.
    pub(crate) async fn page(&self, filter: &Filter, page: Page) -> Result<Found, WorkerTimeout> {
        let end = Instant::now() + page.within.unwrap_or(PATIENCE);
        let (mut slices, mut slice) = (self.slices_from(page.worker, page.place), None);
        slices.pace = GENTLE;
        let (mut text, mut left) = (vec![b'['], page.limit);
        while let Some(found) = slices.next(slice).await? {
            {
                let inner = self.inner();
                let fit = found.connections.iter().filter(|c| filter.may_hold(c));
                let shown = fit.filter_map(|c| inner.connection(c, found.now, found.worker));
                for shown in shown.filter(|shown| filter.holds(&inner, shown)) {
                    if text.len() > 1 {
                        text.push(b',');
                    }
                    // Writing to a vector does not fail, and every key is a text.
                    let _ = serde_json::to_writer(&mut text, &shown);
                    left -= 1;
                    if left == 0 {
                        text.push(b']');
                        return Ok(Found { text, next: Some(shown.id) });
                    }
                }
            }
            if Instant::now() >= end {
                text.push(b']');
                return Ok(Found { text, next: slices.behind() });
            }
            slice = Some(found);
        }
        text.push(b']');
        Ok(Found { text, next: None })
    }

    /// Sends a page of the connections that the filter lets through, as JSON in pieces of some size, to whoever takes them in his own
    /// time. Ends early if nobody does any more.
    pub(crate) async fn list(
        &self,
        filter: &Filter,
        page: Page,
        pieces: &ListingSender,
    ) -> Result<(), WorkerTimeout> {
        let (mut slices, mut slice) = (self.slices_from(page.worker, page.place), None);
        let (mut text, mut is_first, mut left) = (vec![b'['], true, page.limit);
        while left > 0
            && let Some(found) = slices.next(slice).await?
        {
            {
                let inner = self.inner();
                let fit = found.connections.iter().filter(|c| filter.may_hold(c));
                let shown = fit.filter_map(|c| inner.connection(c, found.now, found.worker));
                for shown in shown.filter(|shown| filter.holds(&inner, shown)).take(left) {
                    left -= 1;
                    if !std::mem::take(&mut is_first) {
                        text.push(b',');
                    }
                    // Writing to a vector does not fail, and every key is a text.
                    let _ = serde_json::to_writer(&mut text, &shown);
                }
            }
            if text.len() >= PIECE && pieces.send(Ok(std::mem::take(&mut text).into())).await.is_err() {
                return Ok(());
            }
            slice = Some(found);
        }
        text.push(b']');
        // Nobody waits for it any more, or the last is sent.
        let _ = pieces.send(Ok(text.into())).await;
        Ok(())
    }

    /// Hands every connection that the filter lets through to `each`, tombstones included, what has expired or ended left
    /// out.
    pub async fn connections(
        &self,
        filter: &Filter,
        mut each: impl FnMut(types::Connection),
    ) -> Result<(), WorkerTimeout> {
        self.scan(|inner, connections, now, worker| {
            let fit = connections.iter().filter(|c| filter.may_hold(c));
            let shown = fit.filter_map(|c| inner.connection(c, now, worker));
            shown.filter(|shown| filter.holds(inner, shown)).for_each(&mut each);
        })
        .await
    }

    /// Copies of all connections of a NIC, each with its worker, tombstones included.
    pub(super) async fn of_nic(&self, nic: NicSlot) -> Result<Vec<(Connection, usize)>, WorkerTimeout> {
        let mut found = Vec::new();
        self.scan(|inner, connections, _, worker| {
            let snapshot = inner.publisher.current();
            let is_its = |c: &&Connection| {
                let binding = snapshot.bindings().get(c.entry.addr.slot());
                binding.is_some_and(|binding| binding.nic == nic) && is_live(c, snapshot).is_some()
            };
            found.extend(connections.iter().filter(is_its).map(|c| (*c, worker)));
        })
        .await?;
        Ok(found)
    }

    /// Disconnects every live connection that the filter lets through: inbound ones become tombstones, which no rollback
    /// takes back, outbound ones are gone. How many.
    pub async fn disconnect(&self, filter: &Filter) -> Result<u64, WorkerTimeout> {
        let mut chosen: Vec<Vec<Connection>> = Vec::new();
        self.scan(|inner, connections, now, worker| {
            chosen.resize_with(chosen.len().max(worker + 1), Vec::new);
            let is_chosen = |c: &&Connection| {
                filter.may_hold(c)
                    && inner
                        .connection(c, now, worker)
                        .is_some_and(|shown| !shown.tombstone && filter.holds(inner, &shown))
            };
            chosen[worker].extend(connections.iter().filter(is_chosen));
        })
        .await?;
        let mut ended = 0;
        for (worker, chosen) in chosen.iter().enumerate() {
            let interview = self.worker_query(worker);
            for slice in chosen.chunks(SLICE) {
                let of_slice = u64::from(interview.ask(RequestKind::End, 0, slice.to_vec()).await?.ended);
                self.metrics().count_disconnected(of_slice);
                ended += of_slice;
                tokio::task::yield_now().await;
            }
        }
        Ok(ended)
    }
}

/// What a snapshot makes of an entry, judging it again where that is due: live, a tombstone, or `None` if it has ended.
pub(crate) fn is_live(connection: &Connection, snapshot: &Snapshot) -> Option<bool> {
    let Connection { entry, remote, .. } = connection;
    let binding = snapshot.bindings().get(entry.addr.slot())?;
    match liveness(entry, binding, snapshot) {
        Liveness::Ended => None,
        Liveness::Live => Some(true),
        Liveness::Tombstone => Some(false),
        Liveness::Rejudge => {
            let query = query_of_entry(entry, *remote);
            let judgement = snapshot.judge(binding, &query);
            Some(matches!(judgement, RuleVerdict::Allow(_)))
        }
    }
}

impl Inner {
    /// A connection as it stands under the present policy; `None` if that has ended it.
    fn connection(&self, connection: &Connection, now: u32, worker: usize) -> Option<types::Connection> {
        let is_live = is_live(connection, self.publisher.current())?;
        let mut shown = describe(&self.committer, self.publisher.current(), connection, now, worker)?;
        shown.tombstone = !is_live;
        Some(shown)
    }
}

/// A connection by names, as if it were live.
pub(crate) fn describe(
    committer: &Committer,
    snapshot: &Snapshot,
    connection: &Connection,
    now: u32,
    worker: usize,
) -> Option<types::Connection> {
    let Connection { entry, remote, totals: carried, .. } = connection;
    let binding = snapshot.bindings().get(entry.addr.slot())?;
    let number = entry.protocol();
    let has_ports = proto::has_ports(number);
    let is_icmp = number == if entry.is_v6() { proto::ICMPV6 } else { proto::ICMP };
    let rule = entry.rule().get().and_then(|rule| committer.compiler().rule(rule));
    Some(types::Connection {
        nic: committer.nic_name(binding.nic)?.to_string(),
        opened: if entry.is_inbound() { "inbound" } else { "outbound" }.to_owned(),
        protocol: protocol::name(number).map_or_else(|| number.to_string(), str::to_owned),
        local: addr_from_bits(binding.addr, binding.is_v6()).to_string(),
        local_port: has_ports.then_some((entry.ports >> 16) as u16),
        remote: addr_from_bits(*remote, entry.is_v6()).to_string(),
        remote_port: has_ports.then_some(entry.ports as u16),
        state: entry.state().name().to_owned(),
        tombstone: false,
        expires_in: f64::from(entry.deadline.wrapping_sub(now)) / f64::from(engine::time::TICKS_PER_SECOND),
        rule: rule.map(|rule| rule.name.to_string()),
        rule_id: rule.map(|rule| rule.identity.to_string()),
        worker,
        id: format!("{worker}-{}", connection.flow.0),
        icmp: is_icmp.then_some(types::Icmp {
            identifier: (entry.ports >> 16) as u16,
            kind: (entry.syn_seq >> 8) as u8,
            code: entry.syn_seq as u8,
        }),
        generation: entry.stamp.0,
        packets: carried.map(|sums| types::Carried::of(sums.packets)),
        bytes: carried.map(|sums| types::Carried::of(sums.bytes)),
    })
}
