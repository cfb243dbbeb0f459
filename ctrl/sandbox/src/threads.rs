//! Something done by every thread of the process.
//!
//! Capabilities, `no_new_privs` and Landlock belong to threads, and the kernel changes those of the caller alone. The runtime's and
//! DPDK's threads are there already when the process is confined; so each of them is interrupted by a signal, whose handler does
//! it (as the C library does for `setuid`). A handler makes system calls only.

use std::collections::HashSet;
use std::io;
use std::sync::Mutex;
use std::sync::atomic::{AtomicI32, AtomicU64, AtomicUsize, Ordering::Relaxed, Ordering::SeqCst};
use std::time::{Duration, Instant};

use crate::capabilities;

/// How long the threads are waited for. One that blocks all signals never answers.
const PATIENCE: Duration = Duration::from_secs(5);
/// Threads that can be told of.
const MOST: usize = 4096;

/// What is done.
#[derive(Clone, Copy, Debug)]
pub enum Step {
    /// `PR_SET_NO_NEW_PRIVS`.
    NoNewPrivs,
    /// `landlock_restrict_self` with this ruleset's descriptor.
    Landlock(i32),
    /// Of the effective and permitted capabilities these are kept, of the others none.
    Capabilities(u64),
}

impl Step {
    /// Does it for the calling thread: system calls alone, so that a signal's handler may. The error's number.
    pub fn apply(self) -> Result<(), i32> {
        let status = match self {
            // SAFETY: takes numbers alone.
            Step::NoNewPrivs => unsafe {
                libc::syscall(libc::SYS_prctl, libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
            },
            // SAFETY: takes numbers alone; the descriptor is open until all threads have answered.
            Step::Landlock(ruleset) => unsafe { libc::syscall(libc::SYS_landlock_restrict_self, ruleset, 0) },
            Step::Capabilities(kept) => return capabilities::keep_for_this_thread(kept),
        };
        if status == 0 { Ok(()) } else { Err(last_error()) }
    }
}

pub(crate) fn last_error() -> i32 {
    io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO)
}

/// What the handler is to do: a number of the step and its argument. Written before the signals are sent.
static KIND: AtomicI32 = AtomicI32::new(0);
static ARGUMENT: AtomicU64 = AtomicU64::new(0);
/// Who has answered: `tid << 32 | errno`, 0 where nobody has yet.
static ANSWERS: [AtomicU64; MOST] = [const { AtomicU64::new(0) }; MOST];
static COUNT: AtomicUsize = AtomicUsize::new(0);
/// One at a time: the above is everybody's.
static TURN: Mutex<()> = Mutex::new(());

/// The handler. It leaves `errno` as it was: the thread may be about to read it.
extern "C" fn apply_here(_: libc::c_int) {
    // SAFETY: the place of this thread's errno, which lives as long as the thread.
    let errno = unsafe { libc::__errno_location() };
    // SAFETY: as above.
    let before = unsafe { *errno };
    let argument = ARGUMENT.load(SeqCst);
    let step = match KIND.load(SeqCst) {
        1 => Some(Step::NoNewPrivs),
        2 => Some(Step::Landlock(argument as i32)),
        3 => Some(Step::Capabilities(argument)),
        _ => None,
    };
    if let Some(step) = step {
        let error = step.apply().err().unwrap_or(0);
        // SAFETY: takes nothing.
        let tid = unsafe { libc::syscall(libc::SYS_gettid) } as u64;
        if let Some(place) = ANSWERS.get(COUNT.fetch_add(1, SeqCst)) {
            place.store(tid << 32 | u64::from(error.unsigned_abs()), SeqCst);
        }
    }
    // SAFETY: as above.
    unsafe { *errno = before };
}

/// The signal: one that nobody else here uses.
fn signal() -> libc::c_int {
    libc::SIGRTMIN() + 5
}

/// Has every thread do it, those included that are started meanwhile. An error says what failed, or how many did not answer.
pub fn on_all(step: Step) -> Result<(), String> {
    let _turn = TURN.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    // What is impossible for this thread is not asked of others.
    step.apply().map_err(|errno| io::Error::from_raw_os_error(errno).to_string())?;
    let (kind, argument) = match step {
        Step::NoNewPrivs => (1, 0),
        Step::Landlock(ruleset) => (2, u64::from(ruleset.unsigned_abs())),
        Step::Capabilities(kept) => (3, kept),
    };
    ANSWERS.iter().for_each(|place| place.store(0, Relaxed));
    COUNT.store(0, SeqCst);
    ARGUMENT.store(argument, SeqCst);
    KIND.store(kind, SeqCst);
    let result = with_handler(tell_all);
    KIND.store(0, SeqCst);
    result
}

/// Runs this with the handler installed. Afterwards the signal is ignored: one that is still on its way must not end the process.
fn with_handler(run: impl FnOnce() -> Result<(), String>) -> Result<(), String> {
    let set = |handler: libc::sighandler_t| {
        // SAFETY: an all-zero action is valid; the handler makes system calls only, and restarts those that it interrupts.
        unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            action.sa_sigaction = handler;
            action.sa_flags = libc::SA_RESTART;
            libc::sigaction(signal(), &action, std::ptr::null_mut()) == 0
        }
    };
    if !set(apply_here as *const () as libc::sighandler_t) {
        return Err(io::Error::last_os_error().to_string());
    }
    let result = run();
    set(libc::SIG_IGN);
    result
}

fn tell_all() -> Result<(), String> {
    // SAFETY: take nothing.
    let (process, own) = unsafe { (libc::getpid(), libc::syscall(libc::SYS_gettid) as i32) };
    let mut told = HashSet::from([own]);
    let until = Instant::now() + PATIENCE;
    loop {
        let there = threads().map_err(|error| format!("the process's threads cannot be listed: {error}"))?;
        let new: Vec<i32> = there.iter().copied().filter(|tid| told.insert(*tid)).collect();
        for tid in &new {
            // SAFETY: takes numbers alone. A thread that has ended meanwhile is nobody.
            unsafe { libc::syscall(libc::SYS_tgkill, process, *tid, signal()) };
        }
        let answered = answers();
        if let Some((tid, errno)) = answered.iter().find(|(_, errno)| *errno != 0) {
            return Err(format!("thread {tid}: {}", io::Error::from_raw_os_error(*errno)));
        }
        let silent: Vec<i32> = there
            .into_iter()
            .filter(|tid| *tid != own && !answered.iter().any(|(answered, _)| answered == tid))
            .collect();
        // A look that finds nobody new: whoever was started since has a maker that had done it.
        if new.is_empty() && silent.is_empty() {
            return Ok(());
        }
        if Instant::now() > until {
            return Err(format!("threads {silent:?} do not answer"));
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn answers() -> Vec<(i32, i32)> {
    let count = COUNT.load(SeqCst).min(MOST);
    let words = ANSWERS[..count].iter().map(|place| place.load(SeqCst)).filter(|word| *word != 0);
    words.map(|word| ((word >> 32) as i32, (word & 0xffff_ffff) as i32)).collect()
}

/// The numbers of this process's threads.
fn threads() -> io::Result<Vec<i32>> {
    let tasks = std::fs::read_dir("/proc/self/task")?;
    Ok(tasks.flatten().filter_map(|task| task.file_name().to_str()?.parse().ok()).collect())
}
