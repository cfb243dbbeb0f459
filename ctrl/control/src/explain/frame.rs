//! The smallest frame that is a described packet: headers, and nothing behind them.

use std::net::{IpAddr, Ipv4Addr};

use engine::proto;

use crate::model::Segment;

/// Who sends a frame to whom.
pub struct Endpoints {
    /// Ethernet source.
    pub src_mac: [u8; 6],
    /// Ethernet destination.
    pub dst_mac: [u8; 6],
    /// IP source.
    pub src: IpAddr,
    /// IP destination, of the same family.
    pub dst: IpAddr,
}

const SYN: u8 = 0x02;

/// The L4 header of an opening packet; none where the firewall reads none (semantics 2.7). Checksums stay 0, since
/// none is verified.
pub fn l4(protocol: u8, v6: bool, ports: (u16, u16), icmp: (u8, u8)) -> Vec<u8> {
    let mut header = Vec::new();
    match protocol {
        proto::TCP | proto::UDP | proto::UDPLITE | proto::SCTP | proto::DCCP => {
            header.extend(ports.0.to_be_bytes());
            header.extend(ports.1.to_be_bytes());
        }
        proto::ICMP if !v6 => header.extend([icmp.0, icmp.1]),
        proto::ICMPV6 if v6 => header.extend([icmp.0, icmp.1]),
        _ => return header,
    }
    match protocol {
        proto::TCP => {
            // Sequence and acknowledgment number, a header of five words, a window of 65,535.
            header.extend([0, 0, 0, 1, 0, 0, 0, 0, 5 << 4, SYN, 0xFF, 0xFF]);
            header.resize(20, 0);
        }
        proto::UDP => header.extend([0, 8, 0, 0]),
        proto::SCTP | proto::DCCP => header.resize(12, 0),
        // Neighbour discovery is told by its fixed part too, of at most 40 bytes.
        proto::ICMPV6 => header.resize(40, 0),
        _ => header.resize(8, 0),
    }
    header
}

/// An IP packet, with the ethertype of its family.
pub fn packet(ends: &Endpoints, protocol: u8, l4: &[u8]) -> (u16, Vec<u8>) {
    match (ends.src, ends.dst) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => {
            let [high, low] = ((20 + l4.len()) as u16).to_be_bytes();
            let mut bytes = vec![0x45, 0, high, low, 0, 0, 0, 0, 64, protocol, 0, 0];
            bytes.extend(src.octets());
            bytes.extend(dst.octets());
            bytes.extend(l4);
            (0x0800, bytes)
        }
        (src, dst) => {
            let [high, low] = (l4.len() as u16).to_be_bytes();
            // The hop limit that neighbour discovery must have.
            let mut bytes = vec![0x60, 0, 0, 0, high, low, protocol, 255];
            for addr in [src, dst] {
                bytes.extend(engine::addr_bits(addr).0.to_be_bytes());
            }
            bytes.extend(l4);
            (0x86DD, bytes)
        }
    }
}

fn ethernet(ends: &Endpoints, tag: &[u8], (ethertype, packet): (u16, Vec<u8>)) -> Vec<u8> {
    let mut frame = Vec::with_capacity(14 + tag.len() + packet.len());
    frame.extend(ends.dst_mac);
    frame.extend(ends.src_mac);
    frame.extend(tag);
    frame.extend(ethertype.to_be_bytes());
    frame.extend(packet);
    frame
}

/// The frame on a wire that many VPCs share: plain, tagged, or in a VXLAN tunnel (RFC 7348 §5).
pub fn in_segment(segment: Segment, ends: &Endpoints, packet: (u16, Vec<u8>)) -> Vec<u8> {
    match segment {
        Segment::Untagged => ethernet(ends, &[], packet),
        Segment::Vlan(id) => {
            let [high, low] = id.to_be_bytes();
            ethernet(ends, &[0x81, 0x00, high, low], packet)
        }
        Segment::Vni(vni) => {
            let inner = ethernet(ends, &[], packet);
            let [_, a, b, c] = vni.to_be_bytes();
            let mut datagram = l4(proto::UDP, false, (49_152, 4789), (0, 0));
            datagram[4..6].copy_from_slice(&((16 + inner.len()) as u16).to_be_bytes());
            datagram.extend([0x08, 0, 0, 0, a, b, c, 0]);
            datagram.extend(inner);
            // Documentation addresses (RFC 5737): the tunnel's ends are judged by nobody.
            let outer = Endpoints {
                src: Ipv4Addr::new(192, 0, 2, 1).into(),
                dst: Ipv4Addr::new(192, 0, 2, 2).into(),
                ..*ends
            };
            ethernet(&outer, &[], self::packet(&outer, proto::UDP, &datagram))
        }
    }
}
