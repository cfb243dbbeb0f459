//! What interfaces do for their kernel, asked as `ethtool -k` does.

use std::net::{Ipv4Addr, UdpSocket};
use std::os::fd::AsRawFd;

/// `SIOCETHTOOL`.
const ETHTOOL: libc::Ioctl = 0x8946;

/// A feature: what `ethtool -K` calls it, the question, and the bit of the answer.
type Feature = (&'static str, u32, u32);

/// Work on what is sent that a kernel leaves to its device, which a virtual one does not do.
pub const LEFT_TO_A_DEVICE: [Feature; 2] = [("tx", 0x16, 1), ("tso", 0x1e, 1)];
/// Work on what comes in after which frames are longer than those of the wire.
pub const MERGES: [Feature; 2] = [("gro", 0x2b, 1), ("lro", 0x25, 1 << 15)];

/// `struct ethtool_value`.
#[repr(C)]
struct Value {
    cmd: u32,
    data: u32,
}

/// Those of the features that are on; none where the interface has no such answer.
pub fn on(interface: &str, features: &[Feature]) -> Vec<&'static str> {
    let Ok(socket) = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)) else { return Vec::new() };
    let is_on =
        |(_, question, bit): &&Feature| ask(&socket, interface, *question).is_some_and(|a| a & bit != 0);
    features.iter().filter(is_on).map(|(name, ..)| *name).collect()
}

fn ask(socket: &UdpSocket, interface: &str, question: u32) -> Option<u32> {
    // SAFETY: an all-zero request is valid: an empty name and numbers.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    // The last byte stays 0.
    if interface.len() >= request.ifr_name.len() {
        return None;
    }
    for (to, from) in request.ifr_name.iter_mut().zip(interface.bytes()) {
        *to = from as libc::c_char;
    }
    let mut value = Value { cmd: question, data: 0 };
    request.ifr_ifru.ifru_data = (&raw mut value).cast();
    // SAFETY: the descriptor is open; the request lives, and so does what it points to, which has the size that these
    // questions write.
    let status = unsafe { libc::ioctl(socket.as_raw_fd(), ETHTOOL, &mut request) };
    (status == 0).then_some(value.data)
}
