//! Capabilities, of which the ports of some kinds need a few for as long as the process lives.

use crate::threads::{Step, last_error, on_all};

/// One of them, by the kernel's number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Capability {
    /// `CAP_NET_ADMIN`: interfaces are changed.
    NetAdmin = 12,
    /// `CAP_NET_RAW`: packet sockets are opened.
    NetRaw = 13,
    /// `CAP_IPC_LOCK`: memory is locked beyond the limit, for a device that reads and writes it.
    IpcLock = 14,
    /// `CAP_BPF`: programs for the kernel are loaded.
    Bpf = 39,
}

impl Capability {
    /// As the kernel calls it.
    pub const fn name(self) -> &'static str {
        match self {
            Capability::NetAdmin => "CAP_NET_ADMIN",
            Capability::NetRaw => "CAP_NET_RAW",
            Capability::IpcLock => "CAP_IPC_LOCK",
            Capability::Bpf => "CAP_BPF",
        }
    }

    const fn bit(self) -> u64 {
        1 << self as u8
    }
}

/// Needed to take something from the bounding set.
const SETPCAP: u64 = 1 << 8;
/// More than any kernel has; the kernel refuses a number that is none.
const MOST: u64 = 63;
/// `_LINUX_CAPABILITY_VERSION_3`: two words a set.
const VERSION: u32 = 0x2008_0522;

#[repr(C)]
struct Header {
    version: u32,
    pid: i32,
}

#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Word {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

fn of_this_thread() -> Result<[Word; 2], i32> {
    let (mut header, mut words) = (Header { version: VERSION, pid: 0 }, [Word::default(); 2]);
    // SAFETY: both live through the call and have the layout of this version.
    let status = unsafe { libc::syscall(libc::SYS_capget, &raw mut header, words.as_mut_ptr()) };
    if status == 0 { Ok(words) } else { Err(last_error()) }
}

fn permitted(words: [Word; 2]) -> u64 {
    u64::from(words[0].permitted) | u64::from(words[1].permitted) << 32
}

/// Lets go of all others, of the calling thread. System calls alone, see [`Step::apply`].
pub(crate) fn keep_for_this_thread(kept: u64) -> Result<(), i32> {
    let held = permitted(of_this_thread()?);
    if held & SETPCAP != 0 {
        // What is left in the bounding set could come back by a program that is executed.
        for number in (0..MOST).filter(|number| kept >> number & 1 == 0) {
            // SAFETY: takes numbers alone; those that the kernel does not know are refused.
            unsafe { libc::syscall(libc::SYS_prctl, libc::PR_CAPBSET_DROP, number, 0, 0, 0) };
        }
    }
    let left = held & kept;
    let word = |half: u64| Word { effective: half as u32, permitted: half as u32, inheritable: 0 };
    let (mut header, words) = (Header { version: VERSION, pid: 0 }, [word(left), word(left >> 32)]);
    // SAFETY: both live through the call and have the layout of this version.
    let status = unsafe { libc::syscall(libc::SYS_capset, &raw mut header, words.as_ptr()) };
    if status == 0 { Ok(()) } else { Err(last_error()) }
}

/// Lets every thread go of all others.
pub(crate) fn keep(kept: &[Capability]) -> Result<String, String> {
    let mask = kept.iter().fold(0, |mask, capability| mask | capability.bit());
    on_all(Step::Capabilities(mask))?;
    let left = of_this_thread().map(permitted).unwrap_or(mask);
    let mut names: Vec<_> =
        kept.iter().filter(|its| left & its.bit() != 0).map(|capability| capability.name()).collect();
    names.sort_unstable();
    names.dedup();
    Ok(if names.is_empty() { "no capabilities".to_owned() } else { names.join(", ") })
}
