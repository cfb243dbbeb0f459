//! The process among others: its signals, its log, its supervisor.

use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use crossbeam::channel::bounded;
use tokio::runtime::{Builder, Runtime};
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::workers::KICK;

/// Threads for what takes long, besides those that serve clients. What finds none free waits for one.
const WORKING_THREADS: usize = 64;

/// How long they are waited for.
const PATIENCE: Duration = Duration::from_secs(10);

/// The runtime of the control side, on so many threads. All the threads that it will ever have are started here: one that starts later
/// may find no memory for its stack, which ends the process. An error where the system does not give as many.
pub fn runtime(threads: usize) -> io::Result<Runtime> {
    let runtime = Builder::new_multi_thread()
        .worker_threads(threads)
        .max_blocking_threads(WORKING_THREADS)
        .thread_keep_alive(Duration::MAX)
        .enable_all()
        .build()?;
    // Each stays in its task until all are there, or nobody waits for them any more: so no thread takes two.
    let (all_are_there, goes_on) = bounded::<()>(0);
    let (is_there, there) = bounded(WORKING_THREADS);
    for _ in 0..WORKING_THREADS {
        let (is_there, goes_on) = (is_there.clone(), goes_on.clone());
        runtime.spawn_blocking(move || {
            let _ = is_there.send(());
            let _ = goes_on.recv();
        });
    }
    let until = Instant::now() + PATIENCE;
    let missing = (0..WORKING_THREADS).find(|_| there.recv_deadline(until).is_err());
    drop(all_are_there);
    match missing {
        None => Ok(runtime),
        Some(started) => {
            let what = "raise TasksMax of the unit, or the limit of processes";
            Err(io::Error::other(format!(
                "only {started} of {WORKING_THREADS} threads could be started; {what}"
            )))
        }
    }
}

/// The signals that the appliance minds. From when they are made on, none of them ends the process by itself.
pub struct Signals {
    term: Signal,
    int: Signal,
    /// Asks for the policy file to be read again.
    pub hup: Signal,
    /// Kept for its handler, which interrupts a wait in a driver and does nothing else.
    _kick: Signal,
}

impl Signals {
    /// Installs the handlers; within a runtime.
    pub fn new() -> io::Result<Signals> {
        Ok(Signals {
            term: signal(SignalKind::terminate())?,
            int: signal(SignalKind::interrupt())?,
            hup: signal(SignalKind::hangup())?,
            _kick: signal(SignalKind::from_raw(KICK))?,
        })
    }

    /// Waits for what ends the appliance, or for SIGHUP: false for that.
    pub async fn wait(&mut self) -> bool {
        tokio::select! {
            _ = self.term.recv() => true,
            _ = self.int.recv() => true,
            _ = self.hup.recv() => false,
        }
    }
}

/// Does a part of the start on a thread of its own. `None` if a signal ends the appliance meanwhile: the process is to end
/// then, and that thread with it.
pub async fn unless_ended<T: Send + 'static>(
    signals: &mut Signals,
    work: impl FnOnce() -> T + Send + 'static,
) -> Option<T> {
    let mut done = tokio::task::spawn_blocking(work);
    loop {
        tokio::select! {
            done = &mut done => match done {
                Ok(done) => return Some(done),
                Err(error) => std::panic::resume_unwind(error.into_panic()),
            },
            ends = signals.wait() => if ends { return None },
        }
    }
}

/// Tells a supervisor that files are read again, and that this is done. It wants to know when that began (`Type=notify-reload`).
pub fn tell_reloading() {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    let micros = now.tv_sec.unsigned_abs() * 1_000_000 + now.tv_nsec.unsigned_abs() / 1_000;
    tell_supervisor(&format!("RELOADING=1\nMONOTONIC_USEC={micros}"));
}

/// A supervisor, as its variables in the environment tell of it.
#[derive(Clone, Debug, Default)]
pub struct Supervisor {
    /// Where it listens (`NOTIFY_SOCKET`).
    pub socket: Option<String>,
    /// In how many microseconds it wants a call (`WATCHDOG_USEC`).
    pub watchdog: Option<String>,
}

/// That of a process which this one relieves.
static INHERITED: OnceLock<Supervisor> = OnceLock::new();

impl Supervisor {
    /// This process's.
    pub fn of_process() -> Supervisor {
        INHERITED.get().cloned().unwrap_or_else(|| {
            let of_another =
                std::env::var("WATCHDOG_PID").is_ok_and(|id| id != std::process::id().to_string());
            Supervisor {
                socket: std::env::var("NOTIFY_SOCKET").ok(),
                watchdog: std::env::var("WATCHDOG_USEC").ok().filter(|_| !of_another),
            }
        })
    }

    /// It is this process's from now on.
    pub fn inherit(self) {
        let _ = INHERITED.set(self);
    }
}

/// Tells a supervisor that asks for it (systemd's `Type=notify`) what has become of us.
pub fn tell_supervisor(state: &str) {
    let Some(name) = Supervisor::of_process().socket else { return };
    let address = match name.strip_prefix('@') {
        Some(name) => SocketAddr::from_abstract_name(name),
        None => SocketAddr::from_pathname(&name),
    };
    // A supervisor that is not there needs no answer.
    let _ = address.and_then(|address| UnixDatagram::unbound()?.send_to_addr(state.as_bytes(), &address));
}

/// A supervisor that starts anew whoever does not call in time (systemd's `WatchdogSec`). That the control side does is shown by its
/// calling; for the workers it calls only as long as none stands still.
pub struct Watchdog {
    /// What it waits for a call.
    patience: Duration,
}

impl Watchdog {
    /// If one is set on this process.
    pub fn of_process() -> Option<Watchdog> {
        let micros: u64 = Supervisor::of_process().watchdog?.parse().ok()?;
        (micros > 0).then(|| Watchdog { patience: Duration::from_micros(micros) })
    }

    /// Calls, unless a worker has stood still for half of its patience.
    pub fn feed(&self, stalled: Duration) {
        if stalled < self.patience / 2 {
            tell_supervisor("WATCHDOG=1");
        }
    }
}
