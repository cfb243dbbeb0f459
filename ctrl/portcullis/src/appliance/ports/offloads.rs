//! Whether a port's peer leaves checksums or segmentation to hardware that is not there: its frames then come without
//! them, and whoever gets them drops them. DPDK's `net_af_packet` does not pass the kernel's word on, so a socket of our
//! own asks now and then for a few frames and reads what the kernel says of them.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

use control::health::{HealthBoard, Severity};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};

use super::interfaces::Interface;

/// How long a look may last, and how many frames it sees at most.
const LOOK: Duration = Duration::from_millis(20);
const FRAMES: usize = 32;
/// Every ethertype.
const ALL_TYPES: u16 = libc::ETH_P_ALL as u16;
/// `TP_STATUS_CSUMNOTREADY` of packet(7): the sender left the checksum to its device.
const CHECKSUM_NOT_READY: u32 = 1 << 3;

/// Without such a frame for so long, while others come, it is over.
const OVER: Duration = Duration::from_secs(5);
/// The kind of problem.
const OFFLOADS: &str = "offloads";

/// When a port's peer was last seen to leave work to its device.
#[derive(Default)]
pub struct Offloads(Option<Instant>);

impl Offloads {
    /// Tells what a look at a port's interface has found.
    pub fn tell(
        &mut self,
        port: &str,
        on: &Interface,
        peer: Option<&str>,
        found: OffloadFindings,
        board: &HealthBoard,
    ) {
        let (what, now) = (format!("port {port}"), Instant::now());
        if found.unchecked + found.unsegmented == 0 {
            if found.frames > 0 && self.0.is_some_and(|last| now.duration_since(last) >= OVER) {
                self.0 = None;
                board.clear((&what, OFFLOADS));
            }
            return;
        }
        self.0 = Some(now);
        let OffloadFindings { frames, unchecked, unsegmented } = found;
        let cure = cure(&on.name, peer);
        let problem = format!(
            "its peer leaves work to a device that does none: of {frames} frames looked at, {unchecked} came without a \
             checksum and {unsegmented} are longer than the MTU; whoever gets them drops them"
        );
        board.raise((&what, OFFLOADS), Severity::Degraded, problem, cure);
    }
}

/// What mends that the peer of an interface leaves work to its device.
pub fn cure(interface: &str, peer: Option<&str>) -> String {
    match peer {
        Some(peer) => format!("`ethtool -K {peer} tx off tso off gso off`"),
        None => format!(
            "at the other end of {interface}, in the namespace or machine of the peer, with the name that its interface has \
             there: `ethtool -K IFACE tx off tso off gso off`"
        ),
    }
}

/// The interface that is the other end of a veth, where it is in this network namespace, too.
pub fn peer_of<'i>(on: &Interface, all: &'i [Interface]) -> Option<&'i Interface> {
    let other_end = |name: &str| {
        std::fs::read_to_string(format!("/sys/class/net/{name}/iflink")).ok()?.trim().parse::<u32>().ok()
    };
    let peer = other_end(&on.name).filter(|peer| *peer != on.index)?;
    let peer = all.iter().find(|interface| interface.index == peer)?;
    (other_end(&peer.name) == Some(on.index)).then_some(peer)
}

/// What a look found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OffloadFindings {
    /// Frames seen.
    pub frames: usize,
    /// Of them, those whose checksum was left to the device.
    pub unchecked: usize,
    /// Of them, those that are longer than the MTU: segmentation was left to the device.
    pub unsegmented: usize,
}

/// Looks at what comes in by the interface of this number, which carries frames of so many bytes.
pub fn look(index: u32, max_frame: usize) -> io::Result<OffloadFindings> {
    let socket = open(index)?;
    let (mut found, until) = (OffloadFindings::default(), Instant::now() + LOOK);
    while found.frames < FRAMES && Instant::now() < until {
        match receive(&socket) {
            Some((status, length)) => {
                found.frames += 1;
                found.unchecked += usize::from(status & CHECKSUM_NOT_READY != 0);
                found.unsegmented += usize::from(length as usize > max_frame);
            }
            None => std::thread::sleep(Duration::from_millis(1)),
        }
    }
    Ok(found)
}

/// A packet socket that is told of each frame's state.
fn open(index: u32) -> io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    // Without a protocol it receives nothing until it is bound to its interface.
    let socket = socket_with(AddressFamily::PACKET, SocketType::RAW, flags, None)?;
    let on: libc::c_int = 1;
    // What this machine itself sends is none of a peer's.
    for option in [libc::PACKET_AUXDATA, libc::PACKET_IGNORE_OUTGOING] {
        // SAFETY: the descriptor is open, and the value is a number of the size that is told.
        let status = unsafe {
            let (value, size) = ((&raw const on).cast(), size_of_val(&on) as libc::socklen_t);
            libc::setsockopt(socket.as_raw_fd(), libc::SOL_PACKET, option, value, size)
        };
        if status != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    // SAFETY: an all-zero address is valid.
    let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    address.sll_family = libc::AF_PACKET as u16;
    address.sll_protocol = ALL_TYPES.to_be();
    address.sll_ifindex = index as i32;
    // SAFETY: the descriptor is open, and the address lives and has the size that is told.
    let status = unsafe {
        let size = size_of_val(&address) as libc::socklen_t;
        libc::bind(socket.as_raw_fd(), (&raw const address).cast(), size)
    };
    if status == 0 { Ok(socket) } else { Err(io::Error::last_os_error()) }
}

/// The state of the next frame and its length; `None` where none waits.
fn receive(socket: &OwnedFd) -> Option<(u32, u32)> {
    // Of the frame itself nothing is wanted.
    let mut byte = [0u8; 1];
    let mut piece = libc::iovec { iov_base: byte.as_mut_ptr().cast(), iov_len: byte.len() };
    // Words, so that it is aligned as headers of control messages want it.
    let mut control = [0usize; 16];
    // SAFETY: an all-zero header is valid.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    (message.msg_iov, message.msg_iovlen) = (&raw mut piece, 1);
    (message.msg_control, message.msg_controllen) = (control.as_mut_ptr().cast(), size_of_val(&control) as _);
    // SAFETY: the descriptor is open; the header's buffers live during the call and have the sizes that it says.
    if unsafe { libc::recvmsg(socket.as_raw_fd(), &mut message, 0) } < 0 {
        return None;
    }
    // SAFETY: the kernel has filled the control buffer with messages whose headers these macros walk within its length;
    // one of PACKET_AUXDATA holds a `tpacket_auxdata`, which begins with state and length, a word each.
    unsafe {
        let mut head = libc::CMSG_FIRSTHDR(&message);
        while let Some(found) = head.as_ref() {
            if (found.cmsg_level, found.cmsg_type) == (libc::SOL_PACKET, libc::PACKET_AUXDATA) {
                let data = libc::CMSG_DATA(head).cast::<u32>();
                return Some((data.read_unaligned(), data.add(1).read_unaligned()));
            }
            head = libc::CMSG_NXTHDR(&message, head);
        }
    }
    Some((0, 0))
}
