//! Packets told by their ends, as `explain` takes them, with less that must be said.

use std::net::IpAddr;

use engine::trace::Record;
use engine::{addr_bits, proto};

use crate::explain::describe::endpoint;
use crate::model::{ipv4_form, protocol};

const FORM: &str = "allowed: \"[inbound|outbound] PROTOCOL SOURCE[:PORT] > DESTINATION[:PORT] [type N [code N]]\", with ports of \
                    0-65535 for tcp, udp, sctp, udplite and dccp, type and code of 0-255 for icmp and icmpv6";

/// Packets of one tuple, either way unless one is said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TupleFilter {
    protocol: u8,
    /// Each with its port, where that is said.
    source: (IpAddr, Option<u16>),
    destination: (IpAddr, Option<u16>),
    /// ICMP's type and code, where they are said.
    icmp: (Option<u8>, Option<u8>),
    /// Only from source to destination, and judged this way.
    direction: Option<engine::Direction>,
}

impl TupleFilter {
    /// Reads one.
    pub fn read(text: &str) -> Result<TupleFilter, String> {
        let bad = |what: String| format!("{what}; {FORM}");
        let mut words: Vec<&str> = text.split_whitespace().collect();
        let direction = match words.first() {
            Some(&"inbound") => Some(engine::Direction::Inbound),
            Some(&"outbound") => Some(engine::Direction::Outbound),
            _ => None,
        };
        if direction.is_some() {
            words.remove(0);
        }
        let [name, source, ">", destination, rest @ ..] = words.as_slice() else {
            return Err(bad(format!("{text:?} names no packet")));
        };
        let number = protocol::by_name(name).or_else(|| name.parse().ok());
        let number = number.ok_or_else(|| bad(format!("protocol {name:?}")))?;
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
        if !proto::has_ports(number) && (source.1.is_some() || destination.1.is_some()) {
            return Err(bad(format!("{name} has no ports")));
        }
        let is_icmp = number == if source.0.is_ipv6() { proto::ICMPV6 } else { proto::ICMP };
        if !is_icmp && !rest.is_empty() {
            return Err(bad(format!("{:?} behind a packet of {name}", rest.join(" "))));
        }
        let octet =
            |word: &str| word.parse::<u8>().map_err(|_| bad(format!("{word:?} is no number of 0-255")));
        let icmp = match rest {
            [] => (None, None),
            ["type", kind] => (Some(octet(kind)?), None),
            ["type", kind, "code", code] => (Some(octet(kind)?), Some(octet(code)?)),
            _ => return Err(bad(format!("{:?} behind the destination", rest.join(" ")))),
        };
        Ok(TupleFilter { protocol: number, source, destination, icmp, direction })
    }

    /// True if the packet is one of them.
    pub fn fits(&self, record: &Record) -> bool {
        if record.proto != self.protocol || !record.has_addresses() {
            return false;
        }
        if self.direction.is_some_and(|direction| direction != record.side.direction()) {
            return false;
        }
        let [kind, code] = record.dport.to_be_bytes();
        let of_kind =
            self.icmp.0.is_none_or(|asked| asked == kind) && self.icmp.1.is_none_or(|asked| asked == code);
        let (src, dst) = ((record.src, record.sport), (record.dst, record.dport));
        let is = |source, destination| {
            is_end(record, self.source, source) && is_end(record, self.destination, destination)
        };
        of_kind && (is(src, dst) || self.direction.is_none() && is(dst, src))
    }
}

fn is_end(record: &Record, (addr, port): (IpAddr, Option<u16>), (bits, number): (u128, u16)) -> bool {
    let has_it = port.is_none_or(|port| record.has_ports() && port == number);
    addr_bits(addr) == (bits, record.v6) && has_it
}

#[cfg(test)]
mod tests {
    use super::*;
    use engine::Generation;
    use engine::packet::{PacketKind, PacketMeta};
    use engine::verdict::Verdict;
    use engine::{Reason, Side};

    fn packet(side: Side, what: PacketKind, proto: u8, src: (u32, u16), dst: (u32, u16)) -> Record {
        let pkt = PacketMeta {
            src: src.0.into(),
            dst: dst.0.into(),
            sport: src.1,
            dport: dst.1,
            kind: what,
            proto,
            side,
            ..PacketMeta::default()
        };
        Record::new(&pkt, &Verdict::nobody(Reason::NoRule), Generation(1))
    }

    #[test]
    fn a_tuple_without_a_direction_is_of_both_and_one_with_it_of_that_alone() {
        let (remote, local) = ((0xC633_6409, 40_000), (0x0A05_0607, 22));
        let there = packet(Side::Outside, PacketKind::Tcp, 6, remote, local);
        let back = packet(Side::Inside, PacketKind::Tcp, 6, local, remote);
        let fits = |text: &str| {
            let tuple = TupleFilter::read(text).unwrap();
            (tuple.fits(&there), tuple.fits(&back))
        };
        assert_eq!(fits("tcp 198.51.100.9:40000 > 10.5.6.7:22"), (true, true));
        assert_eq!(fits("tcp 198.51.100.9 > 10.5.6.7:22"), (true, true));
        assert_eq!(fits("inbound tcp 198.51.100.9:40000 > 10.5.6.7:22"), (true, false));
        assert_eq!(fits("outbound tcp 198.51.100.9:40000 > 10.5.6.7:22"), (false, false));
        assert_eq!(fits("outbound tcp 10.5.6.7:22 > 198.51.100.9:40000"), (false, true));
        assert_eq!(fits("udp 198.51.100.9:40000 > 10.5.6.7:22"), (false, false));
        assert_eq!(fits("tcp 198.51.100.9:40000 > 10.5.6.7:23"), (false, false));
        assert_eq!(fits("tcp 198.51.100.8:40000 > 10.5.6.7:22"), (false, false));
    }

    #[test]
    fn types_and_codes_tell_messages_apart() {
        let ping = packet(Side::Outside, PacketKind::IcmpRequest, 1, (1, 77), (2, 8 << 8));
        let fits = |text: &str| TupleFilter::read(text).unwrap().fits(&ping);
        assert!(fits("icmp 0.0.0.1 > 0.0.0.2") && fits("icmp 0.0.0.1 > 0.0.0.2 type 8 code 0"));
        assert!(!fits("icmp 0.0.0.1 > 0.0.0.2 type 0") && !fits("icmp 0.0.0.1 > 0.0.0.2 type 8 code 1"));
    }

    #[test]
    fn what_names_no_packet_is_refused_with_what_is_allowed() {
        for bad in [
            "",
            "tcp 1.1.1.1:1 2.2.2.2:2",
            "sideways tcp 1.1.1.1:1 > 2.2.2.2:2",
            "tcpp 1.1.1.1 > 2.2.2.2",
            "256 1.1.1.1 > 2.2.2.2",
            "tcp 1.1.1.1:1 > 2.2.2.2:65536",
            "tcp 1.1.1.1:1 > [2001:db8::7]:22",
            "icmp 1.1.1.1:1 > 2.2.2.2",
            "tcp 1.1.1.1 > 2.2.2.2 type 8",
            "icmp 1.1.1.1 > 2.2.2.2 type 256",
            "tcp [::ffff:1.1.1.1]:1 > [::ffff:2.2.2.2]:2",
        ] {
            let refusal = TupleFilter::read(bad).unwrap_err();
            assert!(refusal.contains("allowed: "), "{bad:?}: {refusal}");
        }
    }
}
