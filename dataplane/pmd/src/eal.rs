//! DPDK's environment: memory, devices and threads of the process.

use std::collections::HashSet;
use std::ffi::{CStr, CString, c_char, c_int};
use std::marker::PhantomData;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use crate::capture::{capture_output, redirect_log};
use crate::error::{Error, reason, rte_errno};

/// Set by the first attempt to start EAL. It can't be started twice, not even after a failure.
static STARTED: AtomicBool = AtomicBool::new(false);

/// The running EAL. Pools and ports keep it alive; the last of them to go cleans it up.
#[derive(Debug)]
pub struct Eal {
    pub(crate) inner: Arc<Inner>,
}

/// What `Eal`, its pools and its ports share.
#[derive(Debug)]
pub(crate) struct Inner {
    log: String,
    /// Identifiers of the ports that are open, so that none is opened twice.
    pub(crate) open_ports: Mutex<HashSet<u16>>,
}

impl Drop for Inner {
    fn drop(&mut self) {
        // SAFETY: EAL was started, and whatever used it (pools, ports, queues) held this and is gone.
        unsafe { dpdk_sys::rte_eal_cleanup() };
    }
}

impl Eal {
    /// Starts EAL with `args` (without the program's name), once in a process: a second call is an error, after a
    /// failed first one too.
    ///
    /// What EAL prints is kept (see [`Eal::log`]) and told to who [listens](crate::listen); of a failure the error tells
    /// the reason in one line. While this runs, lines that other threads print are taken for EAL's. EAL pins its caller to its first core; the caller's own
    /// affinity is put back afterwards, threads are pinned by whoever makes them.
    pub fn init(args: &[String]) -> Result<Self, Error> {
        let mut owned = vec![CString::from(c"portcullis")];
        for arg in args {
            owned.push(CString::new(arg.as_str()).map_err(|_| Error::Argument(arg.clone()))?);
        }
        if STARTED.swap(true, Ordering::SeqCst) {
            return Err(Error::AlreadyStarted);
        }
        // EAL permutes the array, and keeps pointers into the strings: they are never freed.
        let mut argv: Vec<*mut c_char> = owned.into_iter().map(CString::into_raw).collect();
        let argc = argv.len() as c_int;
        argv.push(std::ptr::null_mut());

        let affinity = Affinity::of_this_thread();
        let ((status, errno), log) = capture_output(|| {
            // SAFETY: argv holds argc C strings that live for ever and a closing null; STARTED makes this the only
            // call.
            let status = unsafe { dpdk_sys::rte_eal_init(argc, argv.as_mut_ptr()) };
            (status, if status < 0 { rte_errno() } else { 0 })
        });
        affinity.restore();
        if status < 0 {
            return Err(Error::Eal(start_failure(&log, errno)));
        }
        redirect_log();
        Ok(Self { inner: Arc::new(Inner { log, open_ports: Mutex::default() }) })
    }

    /// What EAL printed while it started, line by line.
    pub fn log(&self) -> &str {
        &self.inner.log
    }

    /// Names of all ports, in the order of their identifiers.
    pub fn ports(&self) -> Vec<String> {
        (0..dpdk_sys::RTE_MAX_ETHPORTS as u16).filter_map(port_name).collect()
    }

    /// True if the system has a free huge page and a place to take it from: without one, EAL starts only with
    /// `--no-huge`. May be asked before EAL starts.
    pub fn has_hugepages() -> bool {
        let mounted = std::fs::read_to_string("/proc/mounts")
            .is_ok_and(|mounts| mounts.lines().any(|l| l.split(' ').nth(2) == Some("hugetlbfs")));
        let free = |dir: std::fs::DirEntry| {
            let pages = std::fs::read_to_string(dir.path().join("free_hugepages")).unwrap_or_default();
            pages.trim().parse::<u64>().unwrap_or(0)
        };
        mounted
            && std::fs::read_dir("/sys/kernel/mm/hugepages")
                .is_ok_and(|sizes| sizes.flatten().any(|dir| free(dir) > 0))
    }

    /// Makes the virtual device `name` with its driver's arguments, as `--vdev` does at the start. Not on the data path.
    pub fn plug(&self, name: &str, args: &str) -> Result<(), Error> {
        let (c_name, c_args) = (c_string(name)?, c_string(args)?);
        let (status, log) = capture_output(|| {
            // SAFETY: EAL runs as long as `self` is, and the three are C strings, which the call copies.
            unsafe { dpdk_sys::rte_eal_hotplug_add(c"vdev".as_ptr(), c_name.as_ptr(), c_args.as_ptr()) }
        });
        match status {
            0 => Ok(()),
            _ => Err(Error::Port { port: name.to_owned(), step: "come up", reason: reason(&log, status) }),
        }
    }

    /// Takes the virtual device `name` away, whose port is closed already.
    pub fn unplug(&self, name: &str) -> Result<(), Error> {
        let c_name = c_string(name)?;
        let (status, log) = capture_output(|| {
            // SAFETY: as above.
            unsafe { dpdk_sys::rte_eal_hotplug_remove(c"vdev".as_ptr(), c_name.as_ptr()) }
        });
        match status {
            0 => Ok(()),
            _ => Err(Error::Port { port: name.to_owned(), step: "go", reason: reason(&log, status) }),
        }
    }

    /// DPDK's own name and version, such as `DPDK 22.11.11`.
    pub fn version() -> String {
        // SAFETY: rte_version returns a static C string.
        unsafe { CStr::from_ptr(dpdk_sys::rte_version()) }.to_string_lossy().into_owned()
    }

    /// Gives the present thread a number among EAL's cores until the guard drops, so that it has a cache in every
    /// pool. Threads that EAL made itself, and the one that started it, have theirs: the guard then does nothing.
    pub fn register_thread(&self) -> Result<ThreadGuard, Error> {
        // SAFETY: reads a per-thread variable.
        let known = unsafe { dpdk_sys::shim_lcore_id() } != dpdk_sys::SHIM_LCORE_ANY;
        if !known {
            // SAFETY: EAL is running as long as `self` is.
            if unsafe { dpdk_sys::rte_thread_register() } != 0 {
                return Err(Error::Thread(reason("", rte_errno())));
            }
        }
        Ok(ThreadGuard { ours: !known, _eal: Arc::clone(&self.inner), _this_thread: PhantomData })
    }
}

/// A thread's registration with EAL; ends on drop, on the same thread.
#[derive(Debug)]
pub struct ThreadGuard {
    ours: bool,
    _eal: Arc<Inner>,
    _this_thread: PhantomData<*const ()>,
}

impl Drop for ThreadGuard {
    fn drop(&mut self) {
        if self.ours {
            // SAFETY: this thread was registered by us, and the guard can't leave it.
            unsafe { dpdk_sys::rte_thread_unregister() };
        }
    }
}

fn c_string(text: &str) -> Result<CString, Error> {
    CString::new(text).map_err(|_| Error::Argument(text.to_owned()))
}

/// The name of the port with this identifier, if there is one.
fn port_name(id: u16) -> Option<String> {
    let mut name = [0 as c_char; dpdk_sys::RTE_ETH_NAME_MAX_LEN as usize];
    // SAFETY: the buffer has the size that DPDK writes at most, its closing NUL included.
    unsafe {
        if dpdk_sys::rte_eth_dev_is_valid_port(id) == 0
            || dpdk_sys::rte_eth_dev_get_name_by_port(id, name.as_mut_ptr()) != 0
        {
            return None;
        }
        Some(CStr::from_ptr(name.as_ptr()).to_string_lossy().into_owned())
    }
}

/// EAL's failures that have a remedy get it named; the others are told in DPDK's words.
fn start_failure(log: &str, errno: i32) -> String {
    if log.contains("Cannot get hugepage information") {
        return "there are no free huge pages (reserve some through vm.nr_hugepages, or start with --no-huge)".into();
    }
    if let Some((_, rest)) = log.split_once("failed to parse device \"") {
        let device = rest.split('"').next().unwrap_or_default();
        return format!("no driver knows the device {device:?} (is its driver's plugin installed?)");
    }
    reason(log, errno)
}

/// The cores that a thread may run on.
struct Affinity(Option<libc::cpu_set_t>);

impl Affinity {
    fn of_this_thread() -> Self {
        // SAFETY: an all-zero set is valid, and sched_getaffinity fills at most its size.
        unsafe {
            let mut set: libc::cpu_set_t = std::mem::zeroed();
            let status = libc::sched_getaffinity(0, size_of::<libc::cpu_set_t>(), &mut set);
            Self((status == 0).then_some(set))
        }
    }

    fn restore(self) {
        if let Some(set) = self.0 {
            // SAFETY: the set was filled by sched_getaffinity.
            unsafe { libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &set) };
        }
    }
}
