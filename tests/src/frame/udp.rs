//! UDP and what lives in it: DHCP, VXLAN, Geneve. UDP-Lite has the same shape.

use std::net::IpAddr;

use super::{
    Address, Endpoint, Mac, Packet, Transport,
    ip::{checksum, pseudo_header},
    link::Build,
};

/// A UDP or UDP-Lite datagram; made by [`udp`], [`udp_lite`] and the builders of what lives in it.
#[derive(Clone, Debug)]
pub struct Udp {
    ports: (u16, u16),
    payload: Vec<u8>,
    lite: bool,
    length: Option<u16>,
    checksum: Option<u16>,
}

/// An empty datagram.
pub fn udp(src: impl Into<Endpoint>, dst: impl Into<Endpoint>) -> Packet<Udp> {
    let (src, dst) = (src.into().0, dst.into().0);
    let ports = (src.port(), dst.port());
    Packet::new(src.ip(), dst.ip(), Udp { ports, payload: vec![], lite: false, length: None, checksum: None })
}

/// An empty UDP-Lite datagram whose checksum covers all of it.
pub fn udp_lite(src: impl Into<Endpoint>, dst: impl Into<Endpoint>) -> Packet<Udp> {
    let mut packet = udp(src, dst);
    packet.transport.lite = true;
    packet
}

impl Packet<Udp> {
    /// The data.
    pub fn payload(mut self, payload: impl AsRef<[u8]>) -> Self {
        self.transport.payload = payload.as_ref().to_vec();
        self
    }

    /// Another length (UDP-Lite: checksum coverage).
    pub fn lie_length(mut self, length: u16) -> Self {
        self.transport.length = Some(length);
        self
    }

    /// Another checksum; 0 is none.
    pub fn lie_checksum(mut self, checksum: u16) -> Self {
        self.transport.checksum = Some(checksum);
        self
    }
}

impl Transport for Udp {
    fn protocol(&self, _: bool) -> u8 {
        if self.lite { 136 } else { 17 }
    }

    fn bytes(&self, src: IpAddr, dst: IpAddr) -> Vec<u8> {
        let whole = 8 + self.payload.len();
        let mut bytes = Vec::with_capacity(whole);
        bytes.extend(self.ports.0.to_be_bytes());
        bytes.extend(self.ports.1.to_be_bytes());
        bytes.extend(self.length.unwrap_or(whole as u16).to_be_bytes());
        bytes.extend([0, 0]);
        bytes.extend(&self.payload);
        let pseudo = pseudo_header(src, dst, self.protocol(false), whole);
        // 0 says "no checksum", so a sum of 0 is sent as its twin.
        let sum = self.checksum.unwrap_or_else(|| match checksum(&[&pseudo, &bytes]) {
            0 => 0xffff,
            sum => sum,
        });
        bytes[6..8].copy_from_slice(&sum.to_be_bytes());
        bytes
    }
}

/// A DHCP discover from 0.0.0.0, to everyone.
pub fn dhcp_client(mac: impl Into<Mac>) -> Packet<Udp> {
    let mac = mac.into();
    udp("0.0.0.0:68", "255.255.255.255:67").payload(bootp(1, mac, 1)).src_mac(mac)
}

/// A DHCP offer from a server to `dst`.
pub fn dhcp_server(src: impl Into<Address>, dst: impl Into<Address>, client: impl Into<Mac>) -> Packet<Udp> {
    udp((src.into().0, 67), (dst.into().0, 68)).payload(bootp(2, client.into(), 2))
}

fn bootp(operation: u8, client: Mac, message: u8) -> Vec<u8> {
    let mut bytes = vec![operation, 1, 6, 0, 0x39, 3, 0xf3, 0x26];
    bytes.resize(28, 0);
    bytes.extend(client.0);
    bytes.resize(236, 0);
    bytes.extend([0x63, 0x82, 0x53, 0x63, 53, 1, message, 255]);
    bytes
}

/// A DHCPv6 solicit from this (link-local) address, to all servers.
pub fn dhcpv6_client(src: impl Into<Address>) -> Packet<Udp> {
    udp((src.into().0, 546), "[ff02::1:2]:547").payload([1, 0, 0, 1, 0, 1, 0, 4, 0, 3, 0, 1])
}

/// A DHCPv6 advertise from a server to `dst`.
pub fn dhcpv6_server(src: impl Into<Address>, dst: impl Into<Address>) -> Packet<Udp> {
    udp((src.into().0, 547), (dst.into().0, 546)).payload([2, 0, 0, 1, 0, 2, 0, 4, 0, 3, 0, 1])
}

/// A frame in VXLAN, from and to these addresses: an outer UDP datagram to port 4789.
pub fn vxlan(src: impl Into<Address>, dst: impl Into<Address>, vni: u32, inner: &[u8]) -> Packet<Udp> {
    tunnel(src, dst, 4789, &vxlan_header(0x08, vni), inner)
}

/// A VXLAN header; flag 0x08 (I) says that the VNI counts.
pub fn vxlan_header(flags: u8, vni: u32) -> [u8; 8] {
    let [_, a, b, c] = vni.to_be_bytes();
    [flags, 0, 0, 0, a, b, c, 0]
}

/// A frame in Geneve without options, from and to these addresses: an outer UDP datagram to port
/// 6081.
pub fn geneve(src: impl Into<Address>, dst: impl Into<Address>, vni: u32, inner: &[u8]) -> Packet<Udp> {
    tunnel(src, dst, 6081, &geneve_header(0x6558, vni, &[]), inner)
}

/// A Geneve header: the protocol that it carries (Ethernet is 0x6558), the VNI, and options (padded
/// to a multiple of 4).
pub fn geneve_header(protocol: u16, vni: u32, options: &[u8]) -> Vec<u8> {
    let [_, a, b, c] = vni.to_be_bytes();
    let words = options.len().div_ceil(4);
    let mut bytes = vec![words as u8 & 0x3f, 0];
    bytes.extend(protocol.to_be_bytes());
    bytes.extend([a, b, c, 0]);
    bytes.extend(options);
    bytes.resize(8 + 4 * words, 0);
    bytes
}

fn tunnel(
    src: impl Into<Address>,
    dst: impl Into<Address>,
    port: u16,
    header: &[u8],
    inner: &[u8],
) -> Packet<Udp> {
    udp((src.into().0, 49152), (dst.into().0, port)).payload([header, inner].concat())
}
