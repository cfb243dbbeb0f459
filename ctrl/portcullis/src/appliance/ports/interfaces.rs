//! The kernel's interfaces: what they are now, and word that something about one has changed.

use std::ffi::CStr;
use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{AddressFamily, RecvFlags, SocketFlags, SocketType, bind, recv, socket_with};

/// The multicast group of links (`RTMGRP_LINK`).
const LINKS: u32 = 1;

/// One interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    /// Its name.
    pub name: String,
    /// Its number; another after it was deleted and made anew.
    pub index: u32,
    /// Whether it is set up by its administrator.
    pub is_up: bool,
    /// Whether it has a carrier, too.
    pub is_running: bool,
    /// Frames that came and went lost before any socket saw them: no buffer at the device, no room in the backlog.
    /// Counts to 2³² and begins again.
    pub rx_lost: u32,
    /// Frames given to it that it dropped. As above.
    pub tx_lost: u32,
}

/// All of this network namespace.
pub fn all() -> io::Result<Vec<Interface>> {
    let mut list: *mut libc::ifaddrs = std::ptr::null_mut();
    // SAFETY: the place for the list is ours; on success it is freed below.
    if unsafe { libc::getifaddrs(&mut list) } != 0 {
        return Err(io::Error::last_os_error());
    }
    let (mut found, mut at) = (Vec::new(), list);
    while !at.is_null() {
        // SAFETY: the list's entries live until it is freed.
        let entry = unsafe { &*at };
        at = entry.ifa_next;
        // SAFETY: as above; an address has a family, whatever it is.
        let family = unsafe { entry.ifa_addr.as_ref() }.map(|address| i32::from(address.sa_family));
        if family != Some(libc::AF_PACKET) || entry.ifa_data.is_null() {
            continue;
        }
        // SAFETY: an AF_PACKET entry has a name, an address of this kind, and the interface's counters as data, which
        // begin with these words.
        let (name, address, counters) = unsafe {
            (
                CStr::from_ptr(entry.ifa_name),
                &*entry.ifa_addr.cast::<libc::sockaddr_ll>(),
                &*entry.ifa_data.cast::<Counters>(),
            )
        };
        let has = |flag: libc::c_int| entry.ifa_flags & flag as u32 != 0;
        found.push(Interface {
            name: name.to_string_lossy().into_owned(),
            index: address.sll_ifindex as u32,
            is_up: has(libc::IFF_UP),
            is_running: has(libc::IFF_UP) && has(libc::IFF_RUNNING),
            rx_lost: counters.rx_dropped.wrapping_add(counters.rx_missed_errors),
            tx_lost: counters.tx_dropped,
        });
    }
    // SAFETY: the list came from getifaddrs, and nothing points into it any more.
    unsafe { libc::freeifaddrs(list) };
    Ok(found)
}

/// `struct rtnl_link_stats`, as far as it is read.
#[repr(C)]
struct Counters {
    _rx_packets: u32,
    _tx_packets: u32,
    _rx_bytes: u32,
    _tx_bytes: u32,
    _rx_errors: u32,
    _tx_errors: u32,
    rx_dropped: u32,
    tx_dropped: u32,
    _multicast: u32,
    _collisions: u32,
    _rx_length_errors: u32,
    _rx_over_errors: u32,
    _rx_crc_errors: u32,
    _rx_frame_errors: u32,
    _rx_fifo_errors: u32,
    rx_missed_errors: u32,
}

/// Word of changes. What has changed is not read from it: it may be lost where many come, and what is now is not.
pub struct Changes(Option<OwnedFd>);

impl Changes {
    /// From now on. Where the kernel gives no such socket, time alone is waited for.
    pub fn new() -> Changes {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        // Without a protocol it is 0, which is NETLINK_ROUTE.
        let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, None);
        Changes(socket.ok().filter(|socket| bind(socket, &SocketAddrNetlink::new(0, LINKS)).is_ok()))
    }

    /// Waits for one, or for so long.
    pub fn wait(&self, patience: Duration) {
        let Some(socket) = &self.0 else { return std::thread::sleep(patience) };
        let patience = Timespec { tv_sec: 0, tv_nsec: patience.subsec_nanos().into() };
        let _ = poll(&mut [PollFd::new(socket, PollFlags::IN)], Some(&patience));
        let mut dropped = [0; 8192];
        while recv(socket, &mut dropped[..], RecvFlags::TRUNC).is_ok() {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loopback_is_among_them_with_its_number() {
        let all = all().unwrap();
        let loopback = all.iter().find(|interface| interface.name == "lo").unwrap();
        assert!(loopback.index > 0 && loopback.is_up == loopback.is_running, "{loopback:?}");
    }
}
