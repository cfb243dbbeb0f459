//! A frame of ours, as it is read when it arrives. Whatever is not of ours is none: it is counted,
//! and not looked into.

use engine::Side;

use crate::flow::Ends;
use crate::plan::Plan;
use crate::template::Tcp;

/// Where a plan's frames have what.
#[derive(Clone, Debug)]
pub struct Layout {
    vlan: Option<u16>,
    ip: usize,
    inside_v4: [u8; 2],
    outside_v4: [u8; 2],
    inside_v6: [u8; 12],
    outside_v6: [u8; 12],
}

/// A frame of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arrival<'a> {
    /// The side that it was sent from, by its addresses.
    pub from: Side,
    /// IPv6.
    pub v6: bool,
    /// UDP, else TCP.
    pub udp: bool,
    /// Between whom.
    pub ends: Ends,
    /// Identification (IPv4) or the low part of the flow label (IPv6).
    pub id: u16,
    /// What TCP says; empty for UDP.
    pub tcp: Tcp,
    /// What is behind the headers.
    pub payload: &'a [u8],
}

impl Layout {
    /// Of a plan.
    pub fn new(plan: &Plan) -> Layout {
        let first2 = |address: std::net::Ipv4Addr| [address.octets()[0], address.octets()[1]];
        let first12 =
            |address: std::net::Ipv6Addr| *address.octets().first_chunk().expect("16 bytes hold 12");
        Layout {
            vlan: plan.vlan,
            ip: plan.link(),
            inside_v4: first2(plan.inside_v4),
            outside_v4: first2(plan.outside_v4),
            inside_v6: first12(plan.inside_v6),
            outside_v6: first12(plan.outside_v6),
        }
    }

    /// Reads a frame; `None` if it is not one of ours.
    #[inline]
    pub fn parse<'a>(&self, frame: &'a [u8]) -> Option<Arrival<'a>> {
        let link = frame.get(12..self.ip)?;
        if let Some(vlan) = self.vlan
            && (link[..2] != [0x81, 0x00] || u16::from_be_bytes([link[2] & 0x0F, link[3]]) != vlan)
        {
            return None;
        }
        let ip = &frame[self.ip..];
        match link[link.len() - 2..] {
            [0x08, 0x00] => self.parse_v4(ip),
            [0x86, 0xDD] => self.parse_v6(ip),
            _ => None,
        }
    }

    #[inline]
    fn parse_v4<'a>(&self, ip: &'a [u8]) -> Option<Arrival<'a>> {
        let header: &[u8; 20] = ip.first_chunk()?;
        let packet = ip.get(20..usize::from(u16::from_be_bytes([header[2], header[3]])))?;
        let (source, destination) = ([header[12], header[13]], [header[16], header[17]]);
        let from = if (source, destination) == (self.inside_v4, self.outside_v4) {
            Side::Inside
        } else if (source, destination) == (self.outside_v4, self.inside_v4) {
            Side::Outside
        } else {
            return None;
        };
        // No options, no fragments.
        if header[0] != 0x45 || header[6] & 0x3F != 0 || header[7] != 0 {
            return None;
        }
        let host = |at: usize| u32::from(u16::from_be_bytes([header[at], header[at + 1]]));
        let id = u16::from_be_bytes([header[4], header[5]]);
        transport(
            Ip { from, v6: false, protocol: header[9], source: host(14), destination: host(18), id },
            packet,
        )
    }

    #[inline]
    fn parse_v6<'a>(&self, ip: &'a [u8]) -> Option<Arrival<'a>> {
        let header: &[u8; 40] = ip.first_chunk()?;
        let packet = ip[40..].get(..usize::from(u16::from_be_bytes([header[4], header[5]])))?;
        let (source, destination) = (&header[8..20], &header[24..36]);
        let from = if source == self.inside_v6 && destination == self.outside_v6 {
            Side::Inside
        } else if source == self.outside_v6 && destination == self.inside_v6 {
            Side::Outside
        } else {
            return None;
        };
        let host =
            |at: usize| u32::from_be_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
        let id = u16::from_be_bytes([header[2], header[3]]);
        transport(
            Ip { from, v6: true, protocol: header[6], source: host(20), destination: host(36), id },
            packet,
        )
    }
}

struct Ip {
    from: Side,
    v6: bool,
    protocol: u8,
    source: u32,
    destination: u32,
    id: u16,
}

#[inline]
fn transport(ip: Ip, packet: &[u8]) -> Option<Arrival<'_>> {
    let (udp, tcp, payload) = match ip.protocol {
        17 => {
            let header: &[u8; 8] = packet.first_chunk()?;
            (true, Tcp::default(), packet.get(8..usize::from(u16::from_be_bytes([header[4], header[5]])))?)
        }
        6 => {
            let header: &[u8; 20] = packet.first_chunk()?;
            let number =
                |at: usize| u32::from_be_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
            let tcp = Tcp { sequence: number(4), acknowledgment: number(8), flags: header[13] };
            (false, tcp, packet.get(usize::from(header[12] >> 4) * 4..)?)
        }
        _ => return None,
    };
    let source_port = u16::from_be_bytes([packet[0], packet[1]]);
    let destination_port = u16::from_be_bytes([packet[2], packet[3]]);
    // Host 0 is nobody's: it wraps to one that does not exist.
    let (source, destination) = (ip.source.wrapping_sub(1), ip.destination.wrapping_sub(1));
    let ends = match ip.from {
        Side::Inside => Ends {
            server: source,
            inside_port: source_port,
            client: destination,
            outside_port: destination_port,
        },
        Side::Outside => Ends {
            server: destination,
            inside_port: destination_port,
            client: source,
            outside_port: source_port,
        },
    };
    Some(Arrival { from: ip.from, v6: ip.v6, udp, ends, id: ip.id, tcp, payload })
}

#[cfg(test)]
mod tests {
    use engine::io::Frame;

    use super::*;
    use crate::memory::MemoryFrame;
    use crate::plan::{Spec, Versions};
    use crate::tag::TAG;
    use crate::template::{Template, flags};

    #[test]
    fn what_a_template_writes_is_read_again() {
        let ends = Ends { server: 3, inside_port: 80, client: 900, outside_port: 4711 };
        let said = Tcp { sequence: 1, acknowledgment: 0xFFFF_FFFE, flags: flags::ACK };
        for (vlan, v6, udp, from) in (0..16).map(|n| {
            (n & 1 == 1, n & 2 == 2, n & 4 == 4, if n & 8 == 8 { Side::Inside } else { Side::Outside })
        }) {
            let spec = Spec {
                vlan: vlan.then_some(7),
                versions: Versions::Both,
                sizes: vec![200],
                ..Spec::default()
            };
            let plan = Plan::new(spec).unwrap();
            let (template, layout) = (Template::of_length(&plan, from, v6, udp, 196), Layout::new(&plan));
            let mut frame = MemoryFrame::default();
            assert!(template.write(&mut frame, &ends, 0xABCD, said, Some(&[9; TAG])));
            let arrival = layout.parse(frame.head()).unwrap();
            let headers = plan.link() + if v6 { 40 } else { 20 } + if udp { 8 } else { 20 };
            let tcp = if udp { Tcp::default() } else { said };
            assert_eq!(
                arrival,
                Arrival { from, v6, udp, ends, id: 0xABCD, tcp, payload: &frame.head()[headers..] }
            );
            // Any cut is none of ours, and no panic.
            for length in 0..frame.head().len() {
                assert_eq!(layout.parse(&frame.head()[..length]), None);
            }
            // Any byte changed: whatever it says, no panic.
            for at in 0..headers {
                for value in [0, 0x7F, 0xFF] {
                    let mut bytes = frame.head().to_vec();
                    bytes[at] = value;
                    let _ = layout.parse(&bytes);
                }
            }
        }
    }
}
