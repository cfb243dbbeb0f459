//! Keeps DPDK's chatter off the terminal while one of its calls runs, so that a failure can be told in one line.

use std::io::{Read, Seek, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::sync::{Mutex, PoisonError};

/// Standard output and error belong to the process: one capture at a time.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// Runs `call` with standard output and standard error of the process redirected, and returns what was written
/// there. Other threads' lines of that time land there too, so it is for start-up only. Where the redirection
/// can't be set up, `call` runs without it.
pub(crate) fn quietly<T>(call: impl FnOnce() -> T) -> (T, String) {
    let _one = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let _ = std::io::stdout().flush();
    let Some(redirection) = Redirection::new() else {
        return (call(), String::new());
    };
    let result = call();
    (result, redirection.end())
}

/// Standard output and error pointing at a file in memory; back at their own on drop.
struct Redirection {
    file: std::fs::File,
    /// Duplicates of the real standard output and error.
    saved: [OwnedFd; 2],
}

impl Redirection {
    fn new() -> Option<Self> {
        let saved = [duplicate(libc::STDOUT_FILENO)?, duplicate(libc::STDERR_FILENO)?];
        // SAFETY: the name is a C string; the new descriptor, if any, is owned by the file and by nothing else.
        let file = unsafe {
            match libc::memfd_create(c"dpdk-log".as_ptr(), libc::MFD_CLOEXEC) {
                -1 => return None,
                fd => std::fs::File::from_raw_fd(fd),
            }
        };
        flush_c_streams();
        for standard in [libc::STDOUT_FILENO, libc::STDERR_FILENO] {
            // SAFETY: replaces the process's own standard descriptor by a live one; nobody owns 1 and 2.
            unsafe { libc::dup2(file.as_raw_fd(), standard) };
        }
        Some(Self { file, saved })
    }

    /// Undoes the redirection and returns what was written.
    fn end(mut self) -> String {
        self.restore();
        let mut written = Vec::new();
        let _ = self.file.rewind();
        let _ = self.file.read_to_end(&mut written);
        String::from_utf8_lossy(&written).into_owned()
    }

    fn restore(&self) {
        flush_c_streams();
        for (saved, standard) in self.saved.iter().zip([libc::STDOUT_FILENO, libc::STDERR_FILENO]) {
            // SAFETY: puts the descriptor back that was there before.
            unsafe { libc::dup2(saved.as_raw_fd(), standard) };
        }
    }
}

impl Drop for Redirection {
    fn drop(&mut self) {
        self.restore();
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
