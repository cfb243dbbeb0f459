//! Records as NetFlow version 9 (RFC 3954) and IPFIX (RFC 7011), in datagrams that no path has to fragment.
//!
//! Templates come again and again, since a collector may begin to listen at any time. NetFlow 9 tells rules as Cisco's firewalls do,
//! in fields 33000 to 33002, which nfdump reads; in IPFIX such numbers belong to an enterprise, and the same fields bear Cisco's.

use std::net::IpAddr;

use engine::{Direction, Reason};

use super::record::{Cause, Record};

/// Bytes of one datagram at most: what IPv6 carries everywhere (1,280), less its own header and UDP's.
const MOST: usize = 1232;
/// Templates come again after so many datagrams, ...
const TEMPLATES_EVERY: u32 = 20;
/// ... or so many nanoseconds.
const TEMPLATES_AFTER_NS: u64 = 20_000_000_000;
/// Bytes of a NIC's name at most.
const LONGEST_NAME: usize = 250;

const V4: u16 = 256;
const V6: u16 = 257;
const OPTIONS: u16 = 258;
/// Cisco Systems, among the private enterprises of IANA.
const CISCO: u32 = 9;
/// How IPFIX says that a field's length comes with it.
const VARIABLE: u16 = 0xFFFF;
/// In IPFIX: the field is an enterprise's.
const ENTERPRISE: u16 = 0x8000;

/// Which of the two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// NetFlow version 9.
    NetFlow9,
    /// IPFIX.
    Ipfix,
}

/// What a field of a record holds.
#[derive(Clone, Copy)]
enum Value {
    Source,
    Destination,
    SourcePort,
    DestinationPort,
    Number,
    Direction,
    ForwardingStatus,
    Event,
    ExtendedEvent,
    EndReason,
    IcmpTypeAndCode,
    Start,
    End,
    Octets(usize),
    Packets(usize),
    IngressRule,
    EgressRule,
    Nic,
}

/// Numbers as IANA and Cisco give them; bytes follow from what a field holds.
type Field = (u16, Value);

const COMMON: [Field; 11] = [
    (7, Value::SourcePort),
    (11, Value::DestinationPort),
    (4, Value::Number),
    (61, Value::Direction),
    (89, Value::ForwardingStatus),
    (233, Value::Event),
    (136, Value::EndReason),
    (152, Value::Start),
    (153, Value::End),
    (323, Value::End),
    (1, Value::Octets(0)),
];

const NETFLOW9: [Field; 6] = [
    (2, Value::Packets(0)),
    (23, Value::Octets(1)),
    (24, Value::Packets(1)),
    (33000, Value::IngressRule),
    (33001, Value::EgressRule),
    (33002, Value::ExtendedEvent),
];

const IPFIX: [Field; 9] = [
    (2, Value::Packets(0)),
    (231, Value::Octets(0)),
    (232, Value::Octets(1)),
    (298, Value::Packets(0)),
    (299, Value::Packets(1)),
    (33000, Value::IngressRule),
    (33001, Value::EgressRule),
    (33002, Value::ExtendedEvent),
    (82, Value::Nic),
];

impl Value {
    fn len(self, v6: bool) -> u16 {
        match self {
            Value::Source | Value::Destination => {
                if v6 {
                    16
                } else {
                    4
                }
            }
            Value::SourcePort | Value::DestinationPort | Value::ExtendedEvent | Value::IcmpTypeAndCode => 2,
            Value::Number | Value::Direction | Value::ForwardingStatus | Value::Event | Value::EndReason => 1,
            Value::Start | Value::End | Value::Octets(_) | Value::Packets(_) => 8,
            Value::IngressRule | Value::EgressRule => 12,
            Value::Nic => VARIABLE,
        }
    }

    fn put(self, record: &Record, v6: bool, out: &mut Vec<u8>) {
        let ms = |ns: u64| (ns / 1_000_000).to_be_bytes();
        match self {
            Value::Source => put_address(record, 0, v6, out),
            Value::Destination => put_address(record, 1, v6, out),
            Value::SourcePort => out.extend(record.ports[0].to_be_bytes()),
            Value::DestinationPort => out.extend(record.ports[1].to_be_bytes()),
            Value::Number => out.push(record.protocol.unwrap_or(0)),
            Value::Direction => out.push(u8::from(record.direction == Direction::Outbound)),
            Value::ForwardingStatus => out.push(record.forwarding_status()),
            Value::Event => out.push(record.event()),
            Value::ExtendedEvent => out.extend(extended_event(record).to_be_bytes()),
            Value::EndReason => out.push(record.end_reason()),
            Value::IcmpTypeAndCode => {
                let icmp = if v6 { engine::proto::ICMPV6 } else { engine::proto::ICMP };
                let is_icmp = record.protocol == Some(icmp);
                out.extend(if is_icmp { record.ports[1] } else { 0 }.to_be_bytes());
            }
            Value::Start => out.extend(ms(record.start_ns)),
            Value::End => out.extend(ms(record.end_ns)),
            Value::Octets(way) => out.extend(record.bytes[way].to_be_bytes()),
            Value::Packets(way) => out.extend(record.packets[way].to_be_bytes()),
            Value::IngressRule => put_rule(record, Direction::Inbound, out),
            Value::EgressRule => put_rule(record, Direction::Outbound, out),
            Value::Nic => {
                let name = record.nic.as_deref().unwrap_or("");
                let name = &name.as_bytes()[..name.floor_char_boundary(LONGEST_NAME)];
                out.push(name.len() as u8);
                out.extend(name);
            }
        }
    }
}

fn put_address(record: &Record, end: usize, v6: bool, out: &mut Vec<u8>) {
    match record.ends.map(|ends| ends[end]) {
        Some(IpAddr::V6(address)) => out.extend(address.octets()),
        Some(IpAddr::V4(address)) => out.extend(address.octets()),
        None => out.extend(std::iter::repeat_n(0, if v6 { 16 } else { 4 })),
    }
}

/// A rule as an ACL of Cisco's: the first 8 of the 10 digits of its id, the other two, and the generation. Zeros where the rule is one
/// of the other direction, or none.
fn put_rule(record: &Record, direction: Direction, out: &mut Vec<u8>) {
    match &record.rule {
        Some(rule) if record.direction == direction => {
            let id = rule.identity.bits();
            out.extend(((id >> 8) as u32).to_be_bytes());
            out.extend(((id & 0xFF) as u32).to_be_bytes());
            out.extend(record.generation.to_be_bytes());
        }
        _ => out.extend([0; 12]),
    }
}

/// Cisco's: denied by an ingress or an egress ACL, a TCP connection that does not begin with a SYN; flow deleted; 0 for all else.
fn extended_event(record: &Record) -> u16 {
    match record.cause {
        Cause::Refusal(Reason::NoRule | Reason::Denied) => {
            1001 + u16::from(record.direction == Direction::Outbound)
        }
        Cause::Refusal(Reason::Invalid) if record.protocol == Some(engine::proto::TCP) => 1004,
        _ => 0,
    }
}

/// A datagram, and how many records it bears.
#[derive(Debug)]
pub struct Datagram {
    /// What is sent.
    pub bytes: Vec<u8>,
    /// Records of flows in it.
    pub records: u64,
}

/// What makes datagrams of records.
pub struct Exporter {
    protocol: Protocol,
    domain: u32,
    fields: [Vec<Field>; 2],
    /// NetFlow: datagrams made; IPFIX: records made.
    sequence: u32,
    start_ns: u64,
    /// Datagrams until templates come again, and when they came.
    templates: (u32, u64),
}

/// A datagram in the making.
struct Open {
    bytes: Vec<u8>,
    /// Records of any kind, templates included.
    all: u16,
    /// Those of data.
    data: u32,
    /// Those of flows.
    flows: u64,
    /// The set that was begun last: its number, and where it begins.
    set: Option<(u16, usize)>,
}

impl Exporter {
    /// From now on; `domain` tells this exporter apart from others of the same address.
    pub fn new(protocol: Protocol, domain: u32, now_ns: u64) -> Exporter {
        let family = |v6: bool| {
            let (source, destination, icmp) = if v6 { (27, 28, 139) } else { (8, 12, 32) };
            let mut fields: Vec<Field> = vec![
                (source, Value::Source),
                (destination, Value::Destination),
                (icmp, Value::IcmpTypeAndCode),
            ];
            fields.extend(COMMON);
            match protocol {
                Protocol::NetFlow9 => fields.extend(NETFLOW9),
                Protocol::Ipfix => fields.extend(IPFIX),
            }
            fields
        };
        Exporter {
            protocol,
            domain,
            fields: [family(false), family(true)],
            sequence: 0,
            start_ns: now_ns,
            templates: (0, 0),
        }
    }

    /// Datagrams of these records, in their order, as of now.
    pub fn datagrams<'r>(
        &mut self,
        records: impl IntoIterator<Item = &'r Record>,
        now_ns: u64,
    ) -> Vec<Datagram> {
        let mut done = Vec::new();
        let mut open: Option<Open> = None;
        let mut body = Vec::new();
        for record in records {
            let v6 = record.ends.is_some_and(|ends| ends[0].is_ipv6());
            body.clear();
            self.fields[usize::from(v6)].iter().for_each(|(_, value)| value.put(record, v6, &mut body));
            let template = if v6 { V6 } else { V4 };
            if let Some(full) = open.take_if(|open| !open.has_room(template, body.len())) {
                done.push(self.close(full, now_ns));
            }
            let open = open.get_or_insert_with(|| self.begin(now_ns));
            open.begin_set(template);
            open.bytes.extend(&body);
            (open.all, open.data, open.flows) = (open.all + 1, open.data + 1, open.flows + 1);
        }
        if let Some(last) = open {
            done.push(self.close(last, now_ns));
        }
        done
    }

    /// With room for the header, and templates if they are due.
    fn begin(&mut self, now_ns: u64) -> Open {
        let header = if self.protocol == Protocol::NetFlow9 { 20 } else { 16 };
        let mut open = Open { bytes: vec![0; header], all: 0, data: 0, flows: 0, set: None };
        let (left, came) = self.templates;
        if left == 0 || now_ns.saturating_sub(came) >= TEMPLATES_AFTER_NS {
            self.templates = (TEMPLATES_EVERY, now_ns);
            self.put_templates(&mut open);
        }
        self.templates.0 -= 1;
        open
    }

    fn put_templates(&self, open: &mut Open) {
        let is_ipfix = self.protocol == Protocol::Ipfix;
        open.begin_set(if is_ipfix { 2 } else { 0 });
        for (v6, fields) in [false, true].into_iter().zip(&self.fields) {
            open.put16(if v6 { V6 } else { V4 });
            open.put16(fields.len() as u16);
            for (number, value) in fields {
                open.put16(*number);
                open.put16(value.len(v6));
                if is_ipfix && number & ENTERPRISE != 0 {
                    open.put32(CISCO);
                }
            }
            open.all += 1;
        }
        // Every packet is counted: the sampling interval is 1. Scope: the system, or this domain.
        open.begin_set(if is_ipfix { 3 } else { 1 });
        let head = if is_ipfix { [OPTIONS, 3, 1, 149] } else { [OPTIONS, 4, 8, 1] };
        head.into_iter().chain([4, 34, 4, 35, 1]).for_each(|word| open.put16(word));
        open.begin_set(OPTIONS);
        open.put32(if is_ipfix { self.domain } else { 0 });
        open.put32(1);
        open.bytes.push(1);
        (open.all, open.data) = (open.all + 2, open.data + 1);
    }

    fn close(&mut self, mut open: Open, now_ns: u64) -> Datagram {
        open.end_set();
        let Open { mut bytes, all, data, flows, .. } = open;
        let seconds = (now_ns / 1_000_000_000) as u32;
        let mut header = Vec::with_capacity(20);
        match self.protocol {
            Protocol::NetFlow9 => {
                header.extend([9u16, all].into_iter().flat_map(u16::to_be_bytes));
                let uptime = (now_ns.saturating_sub(self.start_ns) / 1_000_000) as u32;
                let words = [uptime, seconds, self.sequence, self.domain];
                header.extend(words.into_iter().flat_map(u32::to_be_bytes));
                self.sequence = self.sequence.wrapping_add(1);
            }
            Protocol::Ipfix => {
                header.extend([10u16, bytes.len() as u16].into_iter().flat_map(u16::to_be_bytes));
                let words = [seconds, self.sequence, self.domain];
                header.extend(words.into_iter().flat_map(u32::to_be_bytes));
                self.sequence = self.sequence.wrapping_add(data);
            }
        }
        bytes[..header.len()].copy_from_slice(&header);
        Datagram { bytes, records: flows }
    }
}

impl Open {
    fn put16(&mut self, word: u16) {
        self.bytes.extend(word.to_be_bytes());
    }

    fn put32(&mut self, word: u32) {
        self.bytes.extend(word.to_be_bytes());
    }

    /// Whether a record of this template fits, with the head and the padding of its set.
    fn has_room(&self, template: u16, len: usize) -> bool {
        let head = if self.set.is_some_and(|(set, _)| set == template) { 0 } else { 4 + 3 };
        self.bytes.len() + head + len + 3 <= MOST
    }

    /// What comes next is of this set.
    fn begin_set(&mut self, number: u16) {
        if self.set.is_some_and(|(set, _)| set == number) {
            return;
        }
        self.end_set();
        self.set = Some((number, self.bytes.len()));
        self.put16(number);
        self.put16(0);
    }

    /// Sets end on multiples of four bytes.
    fn end_set(&mut self) {
        let Some((_, begin)) = self.set.take() else { return };
        while !(self.bytes.len() - begin).is_multiple_of(4) {
            self.bytes.push(0);
        }
        let len = (self.bytes.len() - begin) as u16;
        self.bytes[begin + 2..begin + 4].copy_from_slice(&len.to_be_bytes());
    }
}
