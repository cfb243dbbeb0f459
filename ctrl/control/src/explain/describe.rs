//! A packet told in words, and the frame that it stands for: what the rest of `explain` sees is the frame alone.

use std::net::{IpAddr, Ipv6Addr};

use crate::model::{Mac, Nic, Segment, ipv4_form, protocol};
use engine::{Direction, Side, proto};

use super::ExplainError;
use super::frame::{self, Endpoints};

/// Where a description names no source port, one of the range that clients take theirs from (RFC 6335 §6).
const SOME_PORT: u16 = 49_152;
/// The MAC of whoever has none in the policy.
const SOME_MAC: [u8; 6] = [0x02, 0, 0, 0, 0, 0xFE];

const FORM: &str = "allowed: \"inbound|outbound PROTOCOL SOURCE[:PORT] > DESTINATION[:PORT] [type N [code N]]\", \
                    with ports of 0-65535 for tcp, udp, sctp, udplite and dccp, type and code of 0-255 for icmp and icmpv6";

/// An opening packet as it was described.
#[derive(Debug, PartialEq, Eq)]
pub struct DescribedPacket {
    direction: Direction,
    protocol: u8,
    source: (IpAddr, Option<u16>),
    destination: (IpAddr, Option<u16>),
    /// ICMP's type and code.
    icmp: (u8, u8),
}

impl DescribedPacket {
    /// Reads a description.
    pub fn read(text: &str) -> Result<DescribedPacket, ExplainError> {
        let bad = |what: String| ExplainError::Senseless(format!("{what}; {FORM}"));
        let words: Vec<&str> = text.split_whitespace().collect();
        let [direction, protocol, source, ">", destination, rest @ ..] = words.as_slice() else {
            return Err(bad(format!("{text:?} is no description of a packet")));
        };
        let direction = match *direction {
            "inbound" => Direction::Inbound,
            "outbound" => Direction::Outbound,
            other => return Err(bad(format!("direction {other:?}"))),
        };
        let number = protocol::by_name(protocol)
            .or_else(|| protocol.parse().ok())
            .ok_or_else(|| bad(format!("protocol {protocol:?}")))?;
        let source = endpoint(source).ok_or_else(|| bad(format!("source {source:?}")))?;
        let destination = endpoint(destination).ok_or_else(|| bad(format!("destination {destination:?}")))?;
        for (addr, _) in [source, destination] {
            if let Some(v4) = ipv4_form(&addr.to_string()) {
                return Err(bad(format!("{addr} is IPv4-mapped: write {v4}")));
            }
        }
        if source.0.is_ipv4() != destination.0.is_ipv4() {
            return Err(bad(format!("{} and {} are of two families", source.0, destination.0)));
        }
        let has_ports = proto::has_ports(number);
        if has_ports && destination.1.is_none() {
            return Err(bad("the destination has no port".to_owned()));
        }
        if !has_ports && (source.1.is_some() || destination.1.is_some()) {
            return Err(bad(format!("{protocol} has no ports")));
        }
        let is_v6 = destination.0.is_ipv6();
        let is_icmp = number == if is_v6 { proto::ICMPV6 } else { proto::ICMP };
        if !is_icmp && !rest.is_empty() {
            return Err(bad(format!("{:?} behind a packet of {protocol}", rest.join(" "))));
        }
        let octet =
            |word: &str| word.parse::<u8>().map_err(|_| bad(format!("{word:?} is no number of 0-255")));
        let icmp = match rest {
            // An echo request, where nothing else is said.
            [] => (if is_v6 { 128 } else { 8 }, 0),
            ["type", kind] => (octet(kind)?, 0),
            ["type", kind, "code", code] => (octet(kind)?, octet(code)?),
            _ => return Err(bad(format!("{:?} behind the destination", rest.join(" ")))),
        };
        Ok(DescribedPacket { direction, protocol: number, source, destination, icmp })
    }

    /// Where the packet comes from.
    pub fn side(&self) -> Side {
        if self.direction == Direction::Inbound { Side::Outside } else { Side::Inside }
    }

    /// The judged NIC's address.
    pub fn local(&self) -> IpAddr {
        if self.direction == Direction::Inbound { self.destination.0 } else { self.source.0 }
    }

    /// The frame by which `nic`, in a VPC of this segment, sends or gets it.
    pub fn frame(&self, nic: &Nic, segment: Segment) -> Vec<u8> {
        let entry = nic.allowed_addresses.iter().find(|allowed| allowed.address == self.local());
        let entry_mac = entry.and_then(|allowed| allowed.mac);
        // From inside, the MAC that the address demands; from outside, the one that no other holder of the address has.
        let mac = match self.direction {
            Direction::Outbound => entry_mac.or(nic.mac),
            Direction::Inbound => nic.mac.or(entry_mac),
        };
        let mac = mac.map_or(SOME_MAC, |mac: Mac| mac.bytes());
        let (src_mac, dst_mac) = match self.direction {
            Direction::Outbound => (mac, SOME_MAC),
            Direction::Inbound => (SOME_MAC, mac),
        };
        let ports = (self.source.1.unwrap_or(SOME_PORT), self.destination.1.unwrap_or(0));
        let l4 = frame::l4(self.protocol, self.source.0.is_ipv6(), ports, self.icmp);
        let ends = Endpoints { src_mac, dst_mac, src: self.source.0, dst: self.destination.0 };
        frame::in_segment(segment, &ends, frame::packet(&ends, self.protocol, &l4))
    }
}

/// `1.2.3.4`, `1.2.3.4:5`, `2001:db8::1`, `[2001:db8::1]`, `[2001:db8::1]:5`.
pub(crate) fn endpoint(text: &str) -> Option<(IpAddr, Option<u16>)> {
    if let Ok(addr) = text.parse() {
        return Some((addr, None));
    }
    // Who writes brackets before a port writes them where there is none, too.
    if let Some(bare) = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        return bare.parse::<Ipv6Addr>().ok().map(|addr| (addr.into(), None));
    }
    let socket: std::net::SocketAddr = text.parse().ok()?;
    Some((socket.ip(), Some(socket.port())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_description_reads_like_the_packet() {
        let tcp = DescribedPacket::read("inbound tcp 198.51.100.9:40000 > 10.5.6.7:22").unwrap();
        assert_eq!((tcp.side(), tcp.protocol), (Side::Outside, 6));
        assert_eq!((tcp.local(), tcp.destination.1), ("10.5.6.7".parse().unwrap(), Some(22)));
        let ping = DescribedPacket::read("outbound icmpv6 2001:db8::7 > 2001:db8::9").unwrap();
        assert_eq!((ping.icmp, ping.local()), ((128, 0), "2001:db8::7".parse().unwrap()));
        let port = DescribedPacket::read("inbound udp [2001:db8::9]:5000 > [2001:db8::7]:53").unwrap();
        assert_eq!(port.source.1, Some(5000));
        let bracketed = DescribedPacket::read("outbound icmpv6 [2001:db8::7] > [2001:db8::9]").unwrap();
        assert_eq!(bracketed, ping, "brackets say the same where there is no port");
    }

    #[test]
    fn what_no_packet_can_be_is_refused_with_what_is_allowed() {
        for bad in [
            "",
            "inbound tcp 198.51.100.9:1 10.5.6.7:22",
            "sideways tcp 1.1.1.1:1 > 2.2.2.2:2",
            "inbound tcpp 1.1.1.1:1 > 2.2.2.2:2",
            "inbound 256 1.1.1.1 > 2.2.2.2",
            "inbound tcp 198.51.100.9 > 10.5.6.7",
            "inbound tcp 198.51.100.9:1 > 10.5.6.7:65536",
            "inbound tcp 198.51.100.9:1 > [2001:db8::7]:22",
            "inbound icmp 1.1.1.1:1 > 2.2.2.2",
            "inbound icmp [1.1.1.1] > [2.2.2.2]",
            "inbound gre 1.1.1.1 > 2.2.2.2 type 8",
            "inbound icmp 1.1.1.1 > 2.2.2.2 type 256",
            "inbound icmp 1.1.1.1 > 2.2.2.2 code 1",
            "inbound tcp 1.1.1.1:1 > 2.2.2.2:2 type 8 code 0",
            "inbound tcp [::ffff:1.1.1.1]:1 > [::ffff:2.2.2.2]:2",
        ] {
            let refusal = DescribedPacket::read(bad).unwrap_err().to_string();
            assert!(refusal.contains("allowed: "), "{bad:?}: {refusal}");
        }
        let mapped =
            DescribedPacket::read("inbound icmpv6 2001:db8::9 > ::ffff:2.2.2.2").unwrap_err().to_string();
        assert!(mapped.starts_with("::ffff:2.2.2.2 is IPv4-mapped: write 2.2.2.2; "), "{mapped}");
    }
}
