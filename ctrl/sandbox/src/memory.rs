//! Memory: none of it in a core file, and none of it on a disk.

use std::io;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// No core file is written, and no process of the same user may look into this one. A limit alone is not enough: a pipe in
/// `core_pattern` does not mind it.
pub fn no_core_files() -> Result<(), String> {
    let none = Rlimit { current: Some(0), maximum: Some(0) };
    setrlimit(Resource::Core, none).map_err(|error| error.to_string())?;
    // SAFETY: takes numbers alone.
    match unsafe { libc::prctl(libc::PR_SET_DUMPABLE, 0, 0, 0, 0) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error().to_string()),
    }
}

/// Lifts the limit of locked memory, where the process may, which is while it has CAP_SYS_RESOURCE.
pub fn raise_lock_limit() {
    let all = Rlimit { current: None, maximum: None };
    if setrlimit(Resource::Memlock, all).is_err() {
        let limit = getrlimit(Resource::Memlock);
        let _ = setrlimit(Resource::Memlock, Rlimit { current: limit.maximum, maximum: limit.maximum });
    }
}

/// Whether more memory can be locked only by CAP_IPC_LOCK.
pub fn locked_memory_is_limited() -> bool {
    getrlimit(Resource::Memlock).current.is_some()
}

/// Keeps all that is mapped now in memory from when it is touched: it is never written to a disk, nor read from one. What is mapped
/// later is not locked, so that the limit cannot make an allocation fail.
pub fn lock_what_is_mapped() -> Result<(), String> {
    // SAFETY: changes no memory's content.
    if unsafe { libc::mlockall(libc::MCL_CURRENT | libc::MCL_ONFAULT) } == 0 {
        return Ok(());
    }
    let error = io::Error::last_os_error();
    Err(match getrlimit(Resource::Memlock).current {
        Some(limit) => {
            format!("{error}; the limit of locked memory is {limit} bytes (LimitMEMLOCK=infinity lifts it)")
        }
        None => error.to_string(),
    })
}
