//! The packet sockets that a driver has opened, as the kernel sees them: what they lost, and whether they are bound to a
//! living interface still. DPDK's `net_af_packet` asks neither.

use std::collections::HashSet;
use std::fs;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::fs::fstat;
use rustix::io::fcntl_dupfd_cloexec;
use rustix::net::AddressFamily;
use rustix::net::sockopt::{socket_domain, socket_error};

/// The ring's version that `net_af_packet` takes (`TPACKET_V2`); libpcap's sockets have another.
const DRIVERS_VERSION: libc::c_int = 1;

/// Sockets of one port. Each is held by a descriptor of its own, so that none can become something else.
#[derive(Default)]
pub struct Sockets {
    all: Vec<OwnedFd>,
    lost: u64,
}

impl Sockets {
    /// Those of this process that `net_af_packet` has bound to the interface of this number.
    pub fn on(index: u32) -> Sockets {
        let mut seen = HashSet::new();
        let descriptors = fs::read_dir("/proc/self/fd").into_iter().flatten().flatten();
        let numbers = descriptors.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
        let duplicates = numbers.filter_map(|number| {
            // SAFETY: the descriptor is used for this one call only. Where it is closed meanwhile the call refuses, and
            // where it has become another, what is told apart below is the duplicate.
            let borrowed = unsafe { BorrowedFd::borrow_raw(number) };
            fcntl_dupfd_cloexec(borrowed, 3).ok()
        });
        let is_it = |socket: &OwnedFd| {
            socket_domain(socket) == Ok(AddressFamily::PACKET)
                && version(socket.as_fd()) == Some(DRIVERS_VERSION)
                && bound_to(socket.as_fd()) == Some(index)
                && fstat(socket).is_ok_and(|stat| seen.insert(stat.st_ino))
        };
        Sockets { all: duplicates.filter(is_it).collect(), lost: 0 }
    }

    /// True if there is none.
    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// The number of the interface that they are bound to; `None` once it is deleted.
    pub fn interface(&self) -> Option<u32> {
        bound_to(self.all.first()?.as_fd())
    }

    /// Frames that found their rings full, since they are looked at.
    pub fn lost(&mut self) -> u64 {
        // The kernel begins anew at each reading.
        self.lost += self.all.iter().map(|socket| u64::from(dropped(socket.as_fd()))).sum::<u64>();
        self.lost
    }

    /// Takes the error that a link which was down has left: the driver would take it for the present state.
    pub fn forget_errors(&self) {
        for socket in &self.all {
            let _ = socket_error(socket);
        }
    }
}

/// Reads an option of `SOL_PACKET` whose value is a `T`.
fn option<T: Copy>(socket: BorrowedFd<'_>, name: libc::c_int, empty: T) -> Option<T> {
    let (mut value, mut len) = (empty, size_of::<T>() as libc::socklen_t);
    // SAFETY: the descriptor is open, and the kernel writes at most `len` bytes, which the value has.
    let status = unsafe {
        libc::getsockopt(socket.as_raw_fd(), libc::SOL_PACKET, name, (&raw mut value).cast(), &mut len)
    };
    (status == 0).then_some(value)
}

fn version(socket: BorrowedFd<'_>) -> Option<libc::c_int> {
    option(socket, libc::PACKET_VERSION, 0)
}

/// `tp_drops` of `struct tpacket_stats`: `[packets, drops]`, reset by being read.
fn dropped(socket: BorrowedFd<'_>) -> u32 {
    option(socket, libc::PACKET_STATISTICS, [0u32; 2]).map_or(0, |[_, dropped]| dropped)
}

/// The interface that a packet socket is bound to; none has a number below 1.
fn bound_to(socket: BorrowedFd<'_>) -> Option<u32> {
    // SAFETY: an all-zero address is valid.
    let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    let mut len = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
    // SAFETY: the descriptor is open, and the kernel writes at most `len` bytes, which the address has.
    let status = unsafe { libc::getsockname(socket.as_raw_fd(), (&raw mut address).cast(), &mut len) };
    (status == 0).then(|| u32::try_from(address.sll_ifindex).ok().filter(|index| *index > 0)).flatten()
}
