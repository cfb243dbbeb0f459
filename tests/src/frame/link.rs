//! Ethernet, VLAN tags and ARP.

use std::net::IpAddr;

use super::Address;

/// A MAC address, from bytes or from `"02:00:00:00:00:01"`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Mac(pub [u8; 6]);

impl Mac {
    /// ff:ff:ff:ff:ff:ff
    pub const BROADCAST: Mac = Mac([0xff; 6]);
    /// The source of frames that name none.
    pub const SOURCE: Mac = Mac([2, 0, 0, 0, 0, 0x0a]);
    /// The destination of frames that name none and do not go to a group.
    pub const DESTINATION: Mac = Mac([2, 0, 0, 0, 0, 0x0b]);

    /// Where a frame to this address goes: a group has its MAC, everyone else the default.
    pub(super) fn of(address: IpAddr) -> Mac {
        match address {
            IpAddr::V4(v4) if v4.is_broadcast() => Mac::BROADCAST,
            IpAddr::V4(v4) if v4.is_multicast() => {
                let [_, b, c, d] = v4.octets();
                Mac([1, 0, 0x5e, b & 0x7f, c, d])
            }
            IpAddr::V6(v6) if v6.is_multicast() => {
                let o = v6.octets();
                Mac([0x33, 0x33, o[12], o[13], o[14], o[15]])
            }
            _ => Mac::DESTINATION,
        }
    }
}

impl From<[u8; 6]> for Mac {
    fn from(bytes: [u8; 6]) -> Mac {
        Mac(bytes)
    }
}

impl From<&str> for Mac {
    /// # Panics
    /// If it is not six hexadecimal bytes between colons.
    fn from(text: &str) -> Mac {
        let bytes: Vec<u8> = text.split(':').map(|byte| u8::from_str_radix(byte, 16).expect(text)).collect();
        Mac(bytes.try_into().unwrap_or_else(|_| panic!("{text} is no MAC address")))
    }
}

/// The link layer of any frame: who to whom, which tags, and what was done to the whole frame at
/// the end.
#[derive(Clone, Default, Debug)]
pub struct Link {
    src: Option<Mac>,
    dst: Option<Mac>,
    tags: Vec<(u16, u16)>,
    ethertype: Option<u16>,
    trailer: Vec<u8>,
    cut: Option<usize>,
}

/// What every builder can do: say its link layer, and become bytes.
pub trait Build: Clone {
    /// The link layer.
    fn link(&mut self) -> &mut Link;

    /// The same, to read.
    fn link_ref(&self) -> &Link;

    /// What goes behind the link header: its ethertype, the bytes, and the MACs of frames that name
    /// none.
    fn body(&self) -> (u16, Vec<u8>, Mac, Mac);

    /// The source MAC.
    fn src_mac(mut self, mac: impl Into<Mac>) -> Self {
        self.link().src = Some(mac.into());
        self
    }

    /// The destination MAC.
    fn dst_mac(mut self, mac: impl Into<Mac>) -> Self {
        self.link().dst = Some(mac.into());
        self
    }

    /// An 802.1Q tag inside the tags so far. 0 is a priority tag.
    fn vlan(self, id: u16) -> Self {
        self.tag(0x8100, id)
    }

    /// Any tag: its TPID (0x8100, 0x88a8, …) and its TCI (priority, DEI and VLAN id).
    fn tag(mut self, tpid: u16, tci: u16) -> Self {
        self.link().tags.push((tpid, tci));
        self
    }

    /// Says another ethertype than the body's.
    fn lie_ethertype(mut self, ethertype: u16) -> Self {
        self.link().ethertype = Some(ethertype);
        self
    }

    /// Bytes behind the packet, as padding of short frames is.
    fn trailer(mut self, bytes: &[u8]) -> Self {
        self.link().trailer = bytes.to_vec();
        self
    }

    /// Keeps the first `length` bytes of the finished frame.
    fn cut(mut self, length: usize) -> Self {
        self.link().cut = Some(length);
        self
    }

    /// The frame, without FCS, and not padded to 60 bytes unless [`trailer`](Self::trailer) does
    /// it.
    fn frame(&self) -> Vec<u8> {
        let (ethertype, body, src, dst) = self.body();
        let link = self.link_ref();
        let mut frame = Vec::with_capacity(14 + 4 * link.tags.len() + body.len() + link.trailer.len());
        frame.extend(link.dst.unwrap_or(dst).0);
        frame.extend(link.src.unwrap_or(src).0);
        for (tpid, tci) in &link.tags {
            frame.extend(tpid.to_be_bytes());
            frame.extend(tci.to_be_bytes());
        }
        frame.extend(link.ethertype.unwrap_or(ethertype).to_be_bytes());
        frame.extend(body);
        frame.extend(&link.trailer);
        frame.truncate(link.cut.unwrap_or(usize::MAX));
        frame
    }
}

/// A frame of any ethertype. Below 0x600 it is a length, as in 802.3.
#[derive(Clone, Debug)]
pub struct Ethernet {
    link: Link,
    ethertype: u16,
    payload: Vec<u8>,
}

/// A frame of any ethertype.
pub fn ethernet(ethertype: u16, payload: &[u8]) -> Ethernet {
    Ethernet { link: Link::default(), ethertype, payload: payload.to_vec() }
}

impl Build for Ethernet {
    fn link(&mut self) -> &mut Link {
        &mut self.link
    }

    fn link_ref(&self) -> &Link {
        &self.link
    }

    fn body(&self) -> (u16, Vec<u8>, Mac, Mac) {
        (self.ethertype, self.payload.clone(), Mac::SOURCE, Mac::DESTINATION)
    }
}

/// An ARP packet. The Ethernet source is the sender's MAC unless [`Build::src_mac`] says otherwise.
#[derive(Clone, Debug)]
pub struct Arp {
    link: Link,
    operation: u16,
    hardware: (u16, u8),
    protocol: (u16, u8),
    sender: (Mac, [u8; 4]),
    target: (Mac, [u8; 4]),
}

/// "Who has `target`? Tell `sender`", to everyone. A probe has the sender 0.0.0.0.
pub fn arp_request(mac: impl Into<Mac>, sender: &str, target: &str) -> Arp {
    arp(1, (mac.into(), v4(sender)), (Mac([0; 6]), v4(target)))
}

/// "`sender` is at `mac`", to `target`.
pub fn arp_reply(mac: impl Into<Mac>, sender: &str, target_mac: impl Into<Mac>, target: &str) -> Arp {
    arp(2, (mac.into(), v4(sender)), (target_mac.into(), v4(target)))
}

fn arp(operation: u16, sender: (Mac, [u8; 4]), target: (Mac, [u8; 4])) -> Arp {
    Arp { link: Link::default(), operation, hardware: (1, 6), protocol: (0x0800, 4), sender, target }
}

fn v4(text: &str) -> [u8; 4] {
    match Address::from(text).0 {
        IpAddr::V4(v4) => v4.octets(),
        IpAddr::V6(_) => panic!("ARP is for IPv4, not {text}"),
    }
}

impl Arp {
    /// Another operation than request (1) or reply (2).
    pub fn operation(mut self, operation: u16) -> Self {
        self.operation = operation;
        self
    }

    /// Another hardware type and address length than Ethernet's (1, 6).
    pub fn lie_hardware(mut self, kind: u16, length: u8) -> Self {
        self.hardware = (kind, length);
        self
    }

    /// Another protocol and address length than IPv4's (0x0800, 4).
    pub fn lie_protocol(mut self, kind: u16, length: u8) -> Self {
        self.protocol = (kind, length);
        self
    }
}

impl Build for Arp {
    fn link(&mut self) -> &mut Link {
        &mut self.link
    }

    fn link_ref(&self) -> &Link {
        &self.link
    }

    fn body(&self) -> (u16, Vec<u8>, Mac, Mac) {
        let mut body = Vec::with_capacity(28);
        body.extend(self.hardware.0.to_be_bytes());
        body.extend(self.protocol.0.to_be_bytes());
        body.extend([self.hardware.1, self.protocol.1]);
        body.extend(self.operation.to_be_bytes());
        for (mac, address) in [self.sender, self.target] {
            body.extend(mac.0);
            body.extend(address);
        }
        let to = if self.operation == 1 { Mac::BROADCAST } else { self.target.0 };
        (0x0806, body, self.sender.0, to)
    }
}
