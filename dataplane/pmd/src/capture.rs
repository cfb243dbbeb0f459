//! What DPDK says: kept off the terminal while one of its calls runs, so that a failure can be told in one line, and
//! never lost.
//!
//! While EAL starts, it and its drivers write to standard output and error, which then lead to a file in memory. Should
//! the process end meanwhile (an abort, a fault, an exit inside DPDK), what stands there is written to the real
//! standard error first. Once EAL runs, its log comes here, message by message: of a call of ours it is collected, and
//! all of it goes to whoever [listens](listen).

use std::cell::RefCell;
use std::fs::File;
use std::io::{Read, Seek, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::sync::{Mutex, Once, OnceLock, PoisonError};

/// How much a message of DPDK's log matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// For who looks for faults; and what a call said that is told of otherwise.
    Debug,
    /// In passing.
    Info,
    /// Something is not as it should be.
    Warning,
    /// Something failed.
    Error,
}

/// DPDK's own number (`RTE_LOG_*`) of what it says right before it ends the process.
const CRITICAL: u32 = 3;

impl Level {
    fn of(number: u32) -> Level {
        match number {
            ..=4 => Level::Error,
            5 => Level::Warning,
            6 | 7 => Level::Info,
            _ => Level::Debug,
        }
    }
}

static LISTENER: OnceLock<fn(Level, &str)> = OnceLock::new();
/// DPDK's log comes to `said`.
static COMES_HERE: AtomicBool = AtomicBool::new(false);

thread_local! {
    /// What was said during the call of ours that runs on this thread.
    static COLLECTED: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Has all that DPDK says from now on go to `listener`, a line at a time; without one it goes to standard error. Called
/// by whatever thread DPDK speaks on, a worker among them: it must not wait. Once in a process.
pub fn listen(listener: fn(Level, &str)) {
    let _ = LISTENER.set(listener);
}

/// Tells the listener each line.
pub(crate) fn tell(level: Level, text: &str) {
    for line in text.lines().map(str::trim_end).filter(|line| !line.is_empty()) {
        match LISTENER.get() {
            Some(listener) => listener(level, line),
            None if level > Level::Debug => drop(writeln!(std::io::stderr(), "{line}")),
            None => {}
        }
    }
}

/// Has DPDK's log come here. After EAL has started.
pub(crate) fn redirect_log() {
    // SAFETY: EAL runs, and `said` stays for ever.
    if unsafe { dpdk_sys::shim_log_to(Some(said)) } == 0 {
        // Relaxed: who does not see it yet captures by redirection, which does no harm.
        COMES_HERE.store(true, Ordering::Relaxed);
    }
}

/// One message of DPDK's log.
unsafe extern "C" fn said(level: u32, text: *const std::ffi::c_char, len: usize) {
    // SAFETY: DPDK hands over `len` bytes that live during the call.
    let bytes = unsafe { std::slice::from_raw_parts(text.cast::<u8>(), len) };
    if level <= CRITICAL {
        // Nobody may come to read it otherwise, nor what led to it.
        let before = COLLECTED.try_with(|collected| collected.try_borrow_mut().ok()?.take());
        write_raw(libc::STDERR_FILENO, before.ok().flatten().unwrap_or_default().as_bytes());
        write_raw(libc::STDERR_FILENO, bytes);
        return;
    }
    let text = String::from_utf8_lossy(bytes);
    // A thread that ends has no such place any more.
    let is_collected = COLLECTED.try_with(|collected| match collected.try_borrow_mut().as_deref_mut() {
        Ok(Some(collected)) => {
            collected.push_str(&text);
            true
        }
        _ => false,
    });
    if is_collected != Ok(true) {
        tell(Level::of(level), &text);
    }
}

/// Standard output and error belong to the process: one redirection at a time.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// Runs `call` and returns what DPDK said on this thread meanwhile, which also goes to the listener. While EAL does not
/// run yet, it is everything that is written to standard output and error: other threads' lines, too. Where the
/// redirection can't be set up, `call` runs without it.
pub(crate) fn capture_output<T>(call: impl FnOnce() -> T) -> (T, String) {
    let (result, text) = if COMES_HERE.load(Ordering::Relaxed) {
        COLLECTED.set(Some(String::new()));
        let result = call();
        (result, COLLECTED.take().unwrap_or_default())
    } else {
        redirected(call)
    };
    tell(Level::Debug, &text);
    (result, text)
}

fn redirected<T>(call: impl FnOnce() -> T) -> (T, String) {
    let _one = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let _ = std::io::stdout().flush();
    let Some(mut redirection) = Redirection::new() else {
        return (call(), String::new());
    };
    let result = call();
    let text = redirection.end();
    (result, text)
}

/// Standard output and error pointing at a file in memory; back at their own on drop.
struct Redirection {
    file: File,
    /// Duplicates of the real standard output and error.
    saved: [OwnedFd; 2],
    before: [libc::sigaction; FATAL.len()],
    has_ended: bool,
}

/// Signals that end a process from within.
const FATAL: [i32; 5] = [libc::SIGABRT, libc::SIGSEGV, libc::SIGBUS, libc::SIGILL, libc::SIGFPE];

/// The file in memory and the real standard error, while there is a redirection; -1 otherwise.
static FILE: AtomicI32 = AtomicI32::new(-1);
static STDERR: AtomicI32 = AtomicI32::new(-1);

impl Redirection {
    fn new() -> Option<Self> {
        static AT_EXIT: Once = Once::new();
        let saved = [duplicate(libc::STDOUT_FILENO)?, duplicate(libc::STDERR_FILENO)?];
        // SAFETY: the name is a C string; the new descriptor, if any, is owned by the file and by nothing else.
        let file = unsafe {
            match libc::memfd_create(c"dpdk-log".as_ptr(), libc::MFD_CLOEXEC) {
                -1 => return None,
                fd => File::from_raw_fd(fd),
            }
        };
        flush_c_streams();
        for standard in [libc::STDOUT_FILENO, libc::STDERR_FILENO] {
            // SAFETY: replaces the process's own standard descriptor by a live one; nobody owns 1 and 2.
            unsafe { libc::dup2(file.as_raw_fd(), standard) };
        }
        STDERR.store(saved[1].as_raw_fd(), Ordering::SeqCst);
        FILE.store(file.as_raw_fd(), Ordering::SeqCst);
        // SAFETY: `at_exit` stays for ever and may be called at any exit.
        AT_EXIT.call_once(|| unsafe {
            libc::atexit(at_exit);
        });
        Some(Self { file, saved, before: FATAL.map(watch_signal), has_ended: false })
    }

    /// Undoes the redirection and returns what was written.
    fn end(&mut self) -> String {
        self.restore();
        self.has_ended = true;
        let mut written = Vec::new();
        let _ = self.file.rewind();
        let _ = self.file.read_to_end(&mut written);
        String::from_utf8_lossy(&written).into_owned()
    }

    fn restore(&self) {
        flush_c_streams();
        FILE.store(-1, Ordering::SeqCst);
        for (signal, before) in FATAL.into_iter().zip(&self.before) {
            // SAFETY: puts the action back that was there before.
            unsafe { libc::sigaction(signal, before, std::ptr::null_mut()) };
        }
        for (saved, standard) in self.saved.iter().zip([libc::STDOUT_FILENO, libc::STDERR_FILENO]) {
            // SAFETY: puts the descriptor back that was there before.
            unsafe { libc::dup2(saved.as_raw_fd(), standard) };
        }
    }
}

impl Drop for Redirection {
    fn drop(&mut self) {
        if !self.has_ended {
            // A panic passes by: its message stands there.
            let text = self.end();
            let _ = std::io::stderr().write_all(text.as_bytes());
        }
    }
}

/// Has what was written come out if this signal ends the process; what was its action before.
fn watch_signal(signal: i32) -> libc::sigaction {
    // SAFETY: all-zero actions are valid; the handler keeps to what a handler may do, and is called once: then the
    // signal does what it does by default.
    unsafe {
        let (mut action, mut before): (libc::sigaction, libc::sigaction) =
            (std::mem::zeroed(), std::mem::zeroed());
        action.sa_sigaction = on_signal as extern "C" fn(i32) as usize;
        action.sa_flags = libc::SA_RESETHAND;
        libc::sigaction(signal, &action, &mut before);
        before
    }
}

extern "C" fn on_signal(signal: i32) {
    write_out();
    // SAFETY: as the handler is called once, this ends the process where the fault itself does not.
    unsafe { libc::raise(signal) };
}

extern "C" fn at_exit() {
    write_out();
}

/// Copies what was written to the real standard error. By system calls alone: it may run within a handler of signals.
fn write_out() {
    let (file, stderr) = (FILE.swap(-1, Ordering::SeqCst), STDERR.load(Ordering::SeqCst));
    if file < 0 {
        return;
    }
    write_raw(stderr, b"portcullis: the process ends within DPDK, which said:\n");
    let (mut piece, mut at) = ([0u8; 1024], 0);
    loop {
        // SAFETY: the descriptor is open as long as `FILE` says so, and the buffer has the size that is told.
        let got = unsafe { libc::pread(file, piece.as_mut_ptr().cast(), piece.len(), at) };
        match usize::try_from(got) {
            Ok(got @ 1..) => write_raw(stderr, &piece[..got]),
            _ => return,
        }
        at += got as libc::off_t;
    }
}

/// By a system call alone; what does not go is dropped.
fn write_raw(fd: i32, mut bytes: &[u8]) {
    while !bytes.is_empty() {
        // SAFETY: the bytes live during the call.
        let written = unsafe { libc::write(fd, bytes.as_ptr().cast(), bytes.len()) };
        match usize::try_from(written) {
            Ok(written @ 1..) => bytes = &bytes[written.min(bytes.len())..],
            _ => return,
        }
    }
}

fn duplicate(fd: i32) -> Option<OwnedFd> {
    // SAFETY: F_DUPFD_CLOEXEC makes a new descriptor, which is owned from here on.
    unsafe {
        match libc::fcntl(fd, libc::F_DUPFD_CLOEXEC, 3) {
            -1 => None,
            copy => Some(OwnedFd::from_raw_fd(copy)),
        }
    }
}

/// DPDK writes through C's buffered streams.
fn flush_c_streams() {
    // SAFETY: a null stream asks for all of them.
    unsafe { libc::fflush(std::ptr::null_mut()) };
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Command, Output};

    const HOW: &str = "PORTCULLIS_TEST_END";

    /// This very test in another process, which ends as asked within a call that is kept quiet.
    fn end_within_a_call(how: &str) -> Output {
        let test = "capture::tests::what_was_said_before_an_end_comes_out";
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", test, "--nocapture"]).env(HOW, how).output().unwrap()
    }

    #[test]
    fn what_was_said_before_an_end_comes_out() {
        if let Ok(how) = std::env::var(HOW) {
            capture_output(|| {
                write_raw(libc::STDERR_FILENO, b"EAL: the last words\n");
                match how.as_str() {
                    "abort" => std::process::abort(),
                    // SAFETY: ends the process as DPDK's rte_exit does.
                    "exit" => unsafe { libc::exit(3) },
                    // SAFETY: a signal to this process itself.
                    "fault" => unsafe { libc::raise(libc::SIGBUS) },
                    _ => panic!("another end"),
                }
            });
            return;
        }
        for how in ["abort", "exit", "fault", "panic"] {
            let Output { status, stderr, .. } = end_within_a_call(how);
            let told = String::from_utf8(stderr).unwrap();
            assert!(!status.success() && told.contains("EAL: the last words"), "{how}, {status}: {told}");
            assert_eq!(told.contains("ends within DPDK"), how != "panic", "{how}: {told}");
        }
    }
}
