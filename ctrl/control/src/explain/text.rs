//! A packet and the reason of its verdict, in words. What they say was decided before: by the parser and the judge.

use engine::packet::{Fragment, PacketKind, PacketMeta, flags};
use engine::trace::Record;
use engine::verdict::Verdict;
use engine::{Reason, SegmentKey, Side, addr_from_bits, tcp};

use super::nearest::protocol_text;
use crate::model::{Policy, Segment};

/// The frame that a record is of.
pub fn of_record(record: &Record) -> String {
    let whole = record.len as usize;
    packet(&record.packet(), whole, whole)
}

/// The frame, as far as it could be read, in one line.
pub fn packet(pkt: &PacketMeta, captured: usize, whole: usize) -> String {
    let mut parts = Vec::new();
    if pkt.kind != PacketKind::TruncatedLink && pkt.kind != PacketKind::BadSegment {
        parts.push(segment(pkt.segment));
    }
    parts.push(match pkt.kind {
        PacketKind::TruncatedLink => "no whole link header".to_owned(),
        PacketKind::BadSegment => "tags that no VPC can have".to_owned(),
        PacketKind::UnderlayNeighbor => "ARP or neighbour discovery of tunnels' ends".to_owned(),
        PacketKind::NotIp => format!("ethertype {:#06x}", pkt.dport),
        PacketKind::Arp => "ARP".to_owned(),
        PacketKind::Malformed => format!("{}, cut or contradicting itself", ends(pkt, false)),
        PacketKind::Tcp | PacketKind::WithPorts | PacketKind::DhcpClient | PacketKind::DhcpServer => {
            ends(pkt, true)
        }
        _ => ends(pkt, false),
    });
    match pkt.kind {
        PacketKind::Tcp => parts.push(tcp_flags(pkt.flags)),
        PacketKind::IcmpRequest
        | PacketKind::IcmpReply
        | PacketKind::IcmpError
        | PacketKind::IcmpOther
        | PacketKind::Nd => {
            parts.push(format!("type {} code {}", pkt.dport >> 8, pkt.dport & 0xFF));
        }
        _ => {}
    }
    match pkt.fragment {
        Fragment::Whole => {}
        Fragment::First => parts.push("first fragment".to_owned()),
        Fragment::Later => parts.push(format!("fragment from byte {} on", pkt.reach)),
    }
    parts.push(if captured == whole {
        format!("{whole} bytes")
    } else {
        format!("{whole} bytes, {captured} captured")
    });
    parts.join(", ")
}

fn ends(pkt: &PacketMeta, with_ports: bool) -> String {
    let end = |bits, port: u16| {
        let addr = addr_from_bits(bits, pkt.v6);
        match (with_ports, pkt.v6) {
            (false, _) => addr.to_string(),
            (true, false) => format!("{addr}:{port}"),
            (true, true) => format!("[{addr}]:{port}"),
        }
    };
    let protocol = protocol_text(pkt.proto);
    format!("{protocol} {} > {}", end(pkt.src, pkt.sport), end(pkt.dst, pkt.dport))
}

fn tcp_flags(set: u8) -> String {
    let names = [(flags::SYN, "SYN"), (flags::FIN, "FIN"), (flags::RST, "RST"), (flags::ACK, "ACK")];
    let names: Vec<_> =
        names.into_iter().filter_map(|(flag, name)| (set & flag != 0).then_some(name)).collect();
    if names.is_empty() { "no flags".to_owned() } else { names.join("+") }
}

fn segment_key(segment: Segment) -> SegmentKey {
    match segment {
        Segment::Untagged => SegmentKey::UNTAGGED,
        Segment::Vlan(id) => SegmentKey::vlan(id),
        Segment::Vni(id) => SegmentKey::vni(id),
    }
}

fn segment(key: SegmentKey) -> String {
    match key {
        SegmentKey::UNTAGGED => "untagged".to_owned(),
        key if key.is_vni() => format!("VNI {}", key.0 & 0xFF_FFFF),
        key => format!("VLAN {}", key.0),
    }
}

/// Why this verdict.
pub fn why(policy: &Policy, pkt: &PacketMeta, verdict: &Verdict, nic: Option<&str>) -> String {
    let direction = pkt.side.direction().name();
    let nic = nic.unwrap_or("no NIC");
    let vpc = || {
        let vpc = policy.vpcs.values().find(|vpc| segment_key(vpc.segment) == pkt.segment);
        vpc.map_or("", |vpc| &*vpc.name)
    };
    let (src, dst) = (addr_from_bits(pkt.src, pkt.v6), addr_from_bits(pkt.dst, pkt.v6));
    match verdict.reason {
        Reason::New => "a rule allows it, and it opens a connection".to_owned(),
        Reason::Control => control(pkt),
        Reason::NoRule => format!("no {direction} rule of {nic}'s groups matches it"),
        Reason::Denied => "the first rule that matches it denies it".to_owned(),
        Reason::Invalid => invalid(pkt).to_owned(),
        Reason::Malformed if pkt.kind == PacketKind::TruncatedLink => {
            "the link header is cut, or that of a tunnel which carries no Ethernet".to_owned()
        }
        Reason::Malformed => "a header is cut, or contradicts itself".to_owned(),
        Reason::FragmentNoFirst => {
            "a fragment that is not the first, and no first one is known; it is held for 1 s for that"
                .to_owned()
        }
        Reason::UnknownSegment if pkt.kind == PacketKind::BadSegment => {
            "no VPC can have these tags, or carry what is no tunnel".to_owned()
        }
        Reason::UnknownSegment => format!("no VPC has the segment {}", segment(pkt.segment)),
        Reason::UnknownSource => format!("no NIC of VPC {} has the source address {src}", vpc()),
        Reason::UnknownDestination => format!("no NIC of VPC {} has the destination address {dst}", vpc()),
        Reason::Spoofed if pkt.side == Side::Outside => {
            format!("it comes from outside, and its source address {src} is one of {nic}'s own")
        }
        Reason::Spoofed => "its addresses and MACs are not those of one NIC".to_owned(),
        Reason::Rogue => "only routers and servers of the network may send this".to_owned(),
        Reason::NotIp => format!("ethertype {:#06x} is not in pass_ethertypes", pkt.dport),
        Reason::NicLimit => format!("{nic} may not have one connection more"),
        Reason::Established => "it is of a live connection".to_owned(),
        Reason::Related => "it is an ICMP error about a packet of a live connection".to_owned(),
        Reason::Fragment => "the first fragment of its packet passed".to_owned(),
        Reason::Tombstone => "a change disconnected its connection, whose time has not run out".to_owned(),
        Reason::TableFull => "the table of connections has no room for one more".to_owned(),
        Reason::HandoffFull => "the ring to the worker that owns its connection is full".to_owned(),
        Reason::TxFull => {
            "the port that it should leave by has no room, or it is longer than the MTU".to_owned()
        }
        Reason::TxDown => "the port that it should leave by has nobody behind it".to_owned(),
    }
}

fn control(pkt: &PacketMeta) -> String {
    let what = match pkt.kind {
        _ if pkt.link_local => "what bridges keep to themselves passes by the configuration",
        PacketKind::Arp => "ARP is not judged by rules",
        PacketKind::UnderlayNeighbor => {
            "ARP and neighbour discovery between tunnels' ends are not judged by rules"
        }
        PacketKind::Nd => "neighbour discovery is not judged by rules",
        PacketKind::DhcpClient | PacketKind::DhcpServer => "DHCP is not judged by rules in this direction",
        PacketKind::Multicast => "multicast membership is not judged by rules",
        _ => "it is of no VPC or NIC of the policy, and the configuration lets such frames pass",
    };
    what.to_owned()
}

fn invalid(pkt: &PacketMeta) -> &'static str {
    match pkt.kind {
        PacketKind::Tcp if tcp::is_impossible(pkt.flags) => "no TCP sends these flags together",
        PacketKind::Tcp => "no connection, and not an opening SYN",
        PacketKind::IcmpReply => "no connection, and a reply opens none",
        PacketKind::IcmpError => "it quotes no packet of a live connection",
        _ => "ICMP that is neither a request, nor a reply, nor an error about a packet",
    }
}

#[cfg(test)]
mod tests {
    use engine::NicSlot;
    use engine::packet::flags as tcp_bits;

    use super::*;

    /// What is said of a packet's kind, or of its side, where a reason alone does not tell all: other words for each.
    #[test]
    fn each_reason_and_each_kind_of_packet_has_words_of_its_own() {
        let policy = Policy::default();
        let said = |reason, what, side, flags| {
            let pkt = PacketMeta { kind: what, side, flags, ..PacketMeta::default() };
            why(&policy, &pkt, &Verdict::of(reason, NicSlot::NONE), Some("p/web"))
        };
        let (inside, outside) = (Side::Inside, Side::Outside);
        let mut all: Vec<String> =
            Reason::ALL.iter().map(|reason| said(*reason, PacketKind::WithPorts, inside, 0)).collect();
        let (syn, syn_fin) = (tcp_bits::SYN, tcp_bits::SYN | tcp_bits::FIN);
        for (reason, what, side, flags) in [
            (Reason::Malformed, PacketKind::TruncatedLink, inside, 0),
            (Reason::UnknownSegment, PacketKind::BadSegment, inside, 0),
            (Reason::Spoofed, PacketKind::WithPorts, outside, 0),
            (Reason::NoRule, PacketKind::WithPorts, outside, 0),
            (Reason::Control, PacketKind::Arp, inside, 0),
            (Reason::Control, PacketKind::UnderlayNeighbor, inside, 0),
            (Reason::Control, PacketKind::Nd, inside, 0),
            (Reason::Control, PacketKind::DhcpClient, inside, 0),
            (Reason::Control, PacketKind::Multicast, inside, 0),
            (Reason::Invalid, PacketKind::Tcp, inside, syn),
            (Reason::Invalid, PacketKind::Tcp, inside, syn_fin),
            (Reason::Invalid, PacketKind::IcmpReply, inside, 0),
            (Reason::Invalid, PacketKind::IcmpError, inside, 0),
        ] {
            all.push(said(reason, what, side, flags));
        }
        let link_local = PacketMeta { link_local: true, kind: PacketKind::Arp, ..PacketMeta::default() };
        all.push(why(&policy, &link_local, &Verdict::of(Reason::Control, NicSlot::NONE), None));
        for (at, one) in all.iter().enumerate() {
            assert!(one.len() > 10, "{one:?}");
            assert!(!all[..at].contains(one), "twice: {one}");
        }
        assert!(said(Reason::NicLimit, PacketKind::WithPorts, inside, 0).contains("p/web"));
    }
}
