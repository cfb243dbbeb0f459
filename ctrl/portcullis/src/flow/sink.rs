//! Sinks: each has a bounded queue and a thread of its own, which alone waits for a disk or a socket.

use std::io::{self, ErrorKind};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use control::config::{FlowKind, FlowLog, FlowTarget, FlowWhat};
use control::metrics::RecordCounters;
use crossbeam::channel::{Receiver, RecvTimeoutError, Sender, bounded};

use super::export::{Datagram, Exporter, Protocol};
use super::file::LogFile;
use super::lines;
use super::record::Record;

/// Batches that wait for a sink at most.
const QUEUE: usize = 128;
/// Records of one batch at most.
pub const BATCH: usize = 512;
/// How often a sink looks after itself where nothing comes.
const PAUSE: Duration = Duration::from_millis(100);
/// Datagrams that go at once before a pause of [`BREATH`]: a collector's buffer holds less than a hundred, and whoever reads it has to get
/// the processor first. More of them where the queue is filling.
const AT_ONCE: [u32; 2] = [4, 32];
const BREATH: Duration = Duration::from_millis(1);
/// How long a datagram must go unanswered to count as sent: a host without a collector answers at once.
const REFUSAL: Duration = Duration::from_millis(50);

/// What a sink tells of itself.
pub struct State {
    records: Arc<RecordCounters>,
    problem: Mutex<Option<String>>,
}

impl State {
    /// Records written or sent.
    pub fn sent(&self) -> u64 {
        self.records.counts()[0].1
    }

    /// Records lost.
    pub fn lost(&self) -> u64 {
        self.records.counts()[1].1
    }

    /// What is wrong with it now.
    pub fn problem(&self) -> Option<String> {
        self.problem.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn sends(&self, records: u64) {
        self.records.count_sent(records);
    }

    /// Counts records as lost.
    pub fn loses(&self, records: u64) {
        self.records.count_lost(records);
    }

    fn says(&self, problem: Option<String>) {
        *self.problem.lock().unwrap_or_else(PoisonError::into_inner) = problem;
    }
}

/// One of them, seen by who fills it.
pub struct Sink {
    what: FlowWhat,
    queue: Sender<Vec<Record>>,
    state: Arc<State>,
    thread: JoinHandle<()>,
}

impl Sink {
    /// Begins. `domain` tells exporters of one appliance apart; what is sent and lost is counted by `records`.
    pub fn start(log: &FlowLog, domain: u32, records: Arc<RecordCounters>) -> io::Result<Sink> {
        let (queue, batches) = bounded(QUEUE);
        let state = Arc::new(State { records, problem: Mutex::default() });
        let (log, told) = (log.clone(), state.clone());
        let what = log.what;
        let thread = std::thread::Builder::new()
            .name("flow-sink".to_owned())
            .spawn(move || run(&log, domain, &batches, &told))?;
        Ok(Sink { what, queue, state, thread })
    }

    /// What it tells of itself.
    pub fn state(&self) -> &Arc<State> {
        &self.state
    }

    /// Puts those of these records into its queue that it wants; without room they are lost.
    pub fn put(&self, records: &[Record]) {
        let mut wanted = records.iter().filter(|record| record.is_of(self.what)).cloned();
        loop {
            let batch: Vec<Record> = wanted.by_ref().take(BATCH).collect();
            if batch.is_empty() {
                return;
            }
            if let Err(refused) = self.queue.try_send(batch) {
                self.state.loses(refused.into_inner().len() as u64);
            }
        }
    }

    /// No more comes: it writes what it has, for at most so long. What is left then is lost.
    pub fn finish(self, until: Instant) {
        let Sink { queue, thread, .. } = self;
        drop(queue);
        while !thread.is_finished() && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(2));
        }
        if thread.is_finished() {
            // A panic was told by its hook.
            let _ = thread.join();
        }
    }
}

fn run(log: &FlowLog, domain: u32, batches: &Receiver<Vec<Record>>, state: &State) {
    match &log.target {
        FlowTarget::File { path, rotate_bytes, rotate_keep, header } => {
            let put = if log.kind == FlowKind::Json { lines::json } else { lines::aws };
            let header = if *header { lines::AWS_HEADER } else { "" };
            let mut to = ToFile { file: LogFile::new(path, *rotate_bytes, *rotate_keep, header), put, state };
            serve(batches, &mut to);
        }
        FlowTarget::Collector(address) => {
            let protocol = if log.kind == FlowKind::Ipfix { Protocol::Ipfix } else { Protocol::NetFlow9 };
            let exporter = Exporter::new(protocol, domain, unix_ns());
            let (address, queue) = (*address, batches.clone());
            let mut to = ToCollector { address, socket: None, exporter, pending: None, state, queue };
            serve(batches, &mut to);
        }
    }
}

/// What a sink's thread does.
trait Outlet {
    fn put(&mut self, records: &[Record]);
    /// Nothing has come for a while, or all has.
    fn rest(&mut self);
}

fn serve(batches: &Receiver<Vec<Record>>, outlet: &mut impl Outlet) {
    loop {
        match batches.recv_timeout(PAUSE) {
            Ok(records) => outlet.put(&records),
            Err(RecvTimeoutError::Timeout) => outlet.rest(),
            Err(RecvTimeoutError::Disconnected) => return outlet.rest(),
        }
    }
}

/// Nanoseconds since 1970.
pub fn unix_ns() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos() as u64
}

struct ToFile<'s> {
    file: LogFile,
    put: fn(&Record, &mut String),
    state: &'s State,
}

impl Outlet for ToFile<'_> {
    fn put(&mut self, records: &[Record]) {
        self.file.look();
        let mut text = String::with_capacity(256 * records.len());
        let mut ends = Vec::with_capacity(records.len());
        for record in records {
            (self.put)(record, &mut text);
            ends.push(text.len());
        }
        let mut written = 0;
        if self.file.write(&text, &mut written).is_ok() {
            self.state.sends(records.len() as u64);
            return self.state.says(None);
        }
        // What is left one by one: there may be room for some of it.
        let all = ends.len();
        ends.retain(|end| *end > written);
        self.state.sends((all - ends.len()) as u64);
        for end in ends {
            match self.file.write(&text[written..end], &mut 0) {
                Ok(()) => self.state.sends(1),
                Err(error) => {
                    self.state.loses(1);
                    self.state.says(Some(format!("it cannot be written: {error}")));
                }
            }
            written = end;
        }
    }

    fn rest(&mut self) {}
}

struct ToCollector<'s> {
    address: SocketAddr,
    socket: Option<UdpSocket>,
    exporter: Exporter,
    /// Records of the last datagrams, which may yet be refused, and when the first of them went.
    pending: Option<(u64, Instant)>,
    state: &'s State,
    /// Where records come from.
    queue: Receiver<Vec<Record>>,
}

impl ToCollector<'_> {
    fn socket(&mut self) -> io::Result<&UdpSocket> {
        let socket = match self.socket.take() {
            Some(socket) => socket,
            None => {
                let any: SocketAddr = if self.address.is_ipv6() {
                    (Ipv6Addr::UNSPECIFIED, 0).into()
                } else {
                    (Ipv4Addr::UNSPECIFIED, 0).into()
                };
                let socket = UdpSocket::bind(any)?;
                socket.connect(self.address)?;
                socket.set_nonblocking(true)?;
                socket
            }
        };
        Ok(self.socket.insert(socket))
    }

    /// What went before was refused by the collector's host, or arrived as far as anybody can tell.
    fn settle(&mut self, is_refused: bool) {
        let Some((records, _)) = self.pending.take() else { return };
        if is_refused {
            self.state.loses(records);
            self.state.says(Some("nobody listens at the collector's port".to_owned()));
        } else {
            self.state.sends(records);
            self.state.says(None);
        }
    }

    fn send(&mut self, datagram: &Datagram) {
        // An error of the datagram before is told here, once, and this one has not gone then.
        for _ in 0..2 {
            let sent = self.socket().and_then(|socket| socket.send(&datagram.bytes));
            match sent {
                Ok(_) => {
                    let (before, since) = self.pending.unwrap_or_else(|| (0, Instant::now()));
                    self.pending = Some((before + datagram.records, since));
                    return;
                }
                Err(error) if error.kind() == ErrorKind::ConnectionRefused => self.settle(true),
                Err(error) => {
                    self.state.loses(datagram.records);
                    self.state.says(Some(format!("it cannot be sent to: {error}")));
                    if error.kind() != ErrorKind::WouldBlock {
                        self.socket = None;
                    }
                    return;
                }
            }
        }
        self.state.loses(datagram.records);
    }
}

impl Outlet for ToCollector<'_> {
    fn put(&mut self, records: &[Record]) {
        let at_once = AT_ONCE[usize::from(self.queue.len() > QUEUE / 4)];
        for (number, datagram) in (1..).zip(self.exporter.datagrams(records, unix_ns())) {
            self.send(&datagram);
            if number % at_once == 0 {
                std::thread::sleep(BREATH);
            }
        }
        // An answer comes within this much, where it comes from a host so near that it can be told from silence.
        if self.pending.is_some_and(|(_, at)| at.elapsed() > REFUSAL) {
            self.rest();
        }
    }

    fn rest(&mut self) {
        let is_refused = self
            .socket
            .as_ref()
            .and_then(|socket| socket.take_error().ok().flatten())
            .is_some_and(|error| error.kind() == ErrorKind::ConnectionRefused);
        self.settle(is_refused);
    }
}
