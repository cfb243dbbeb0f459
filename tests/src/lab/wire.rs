//! A raw socket on one end of a wire: frames go out as they are, and come in as they are.

use std::{
    io,
    os::fd::OwnedFd,
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    net::{
        AddressFamily, Protocol, RecvFlags, SendFlags, SocketFlags, SocketType,
        addr::{SocketAddrArg, SocketAddrLen, SocketAddrOpaque},
        bind, netdevice, recv, send, socket_with,
    },
};

use super::{At, Lab};

/// Every ethertype, as the kernel wants it: in network order.
const ALL_TYPES: u16 = 3u16.to_be();

/// The address of an interface, `struct sockaddr_ll` of packet(7).
#[repr(C)]
struct LinkAddress {
    family: u16,
    protocol: u16,
    interface: i32,
    hardware: u16,
    packet: u8,
    length: u8,
    address: [u8; 8],
}

// SAFETY: the pointer is to a `sockaddr_ll` of that length, which outlives the call.
unsafe impl SocketAddrArg for LinkAddress {
    unsafe fn with_sockaddr<R>(&self, f: impl FnOnce(*const SocketAddrOpaque, SocketAddrLen) -> R) -> R {
        f(std::ptr::from_ref(self).cast(), size_of::<LinkAddress>() as SocketAddrLen)
    }
}

/// A raw socket of an interface, for frames of a type (in network order; 0: none) that come in.
fn bound(interface: &str, of_type: u16) -> io::Result<OwnedFd> {
    let protocol = u32::from(of_type).try_into().ok().map(Protocol::from_raw);
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::PACKET, SocketType::RAW, flags, protocol)?;
    let address = LinkAddress {
        family: AddressFamily::PACKET.as_raw(),
        protocol: of_type,
        interface: netdevice::name_to_index(&socket, interface)? as i32,
        hardware: 0,
        packet: 0,
        length: 0,
        address: [0; 8],
    };
    bind(&socket, &address)?;
    Ok(socket)
}

/// One end of a wire.
#[derive(Debug)]
pub struct Wire(OwnedFd);

impl Lab {
    /// The end of a wire at a place.
    pub fn wire(&self, at: At, interface: &str) -> io::Result<Wire> {
        self.within(at, || Wire::open(interface))?
    }
}

impl Wire {
    fn open(interface: &str) -> io::Result<Wire> {
        let wire = Wire(bound(interface, ALL_TYPES)?);
        // What other interfaces got before the socket was bound to this one.
        while wire.next(Instant::now())?.is_some() {}
        Ok(wire)
    }

    /// A socket that sends into an interface of the calling thread's network, and receives nothing.
    pub fn sender(interface: &str) -> io::Result<OwnedFd> {
        bound(interface, 0)
    }

    /// Sends a frame.
    pub fn send(&self, frame: &[u8]) -> io::Result<()> {
        let sent = send(&self.0, frame, SendFlags::empty())?;
        if sent == frame.len() { Ok(()) } else { Err(io::ErrorKind::WriteZero.into()) }
    }

    /// The next frame of either direction; `None` if there is none until then.
    pub fn next(&self, until: Instant) -> io::Result<Option<Vec<u8>>> {
        let mut frame = vec![0; 65_536];
        loop {
            match recv(&self.0, &mut frame[..], RecvFlags::empty()) {
                Ok((length, _)) => {
                    frame.truncate(length);
                    return Ok(Some(frame));
                }
                Err(rustix::io::Errno::AGAIN) => {}
                Err(error) => return Err(error.into()),
            }
            let left = until.saturating_duration_since(Instant::now());
            if left == Duration::ZERO {
                return Ok(None);
            }
            let left = Timespec { tv_sec: left.as_secs() as i64, tv_nsec: left.subsec_nanos().into() };
            poll(&mut [PollFd::new(&self.0, PollFlags::IN)], Some(&left))?;
        }
    }
}
