//! What was seen: openings of the history and of the live connections, each kind once, with how often.

use std::collections::HashMap;
use std::ops::Range;

use engine::classify::Query;
use engine::conntrack::Connection;
use engine::packet::{Fragment, PacketKind, flags};
use engine::trace::Record;
use engine::{Direction, NicSlot, Reason, proto, tcp};

/// Kinds of openings that are told apart at most: some 100 MB.
const MOST: usize = 1 << 20;

/// Openings that are judged alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Opening {
    /// Of which NIC.
    pub nic: NicSlot,
    /// What the rules are asked.
    pub query: Query,
    /// What they are asked besides, of a segment amid a stream: either may let it pass (semantics 4.3).
    pub also: Option<Query>,
    /// It opened a connection; else the rules refused it.
    pub passed: bool,
    /// How often the history has it.
    pub told: u64,
    /// How many live connections are of it.
    pub live: u64,
}

/// What tells openings apart: NIC, direction, family, protocol, ports, remote, and what became of it.
type Kind = (NicSlot, bool, bool, u8, u16, Option<u16>, u128, bool);

/// Collects them.
#[derive(Default)]
pub struct ObservedOpenings {
    kinds: HashMap<Kind, [u64; 2]>,
    /// Those that there is no room for.
    pub left_out: u64,
}

impl ObservedOpenings {
    /// A decision of the history about a packet of this NIC, if the rules were asked about it: whether it opened a connection.
    pub fn tell(&mut self, nic: NicSlot, record: &Record) -> Option<bool> {
        let passed = match record.reason {
            Reason::New => true,
            Reason::NoRule | Reason::Denied => false,
            _ => return None,
        };
        // A later fragment bears its first one's reason; the rules were asked of that alone.
        if record.fragment == Fragment::Later {
            return None;
        }
        let pkt = record.packet();
        let query = Query {
            direction: record.side.direction(),
            v6: pkt.v6,
            protocol: pkt.proto,
            port: pkt.dport,
            remote: pkt.remote(),
        };
        let reverse = Query { direction: query.direction.reverse(), port: pkt.sport, ..query };
        let (query, also) = match pkt.kind {
            // The answer to a SYN opens what that would have opened.
            PacketKind::Tcp if !tcp::is_opening_syn(pkt.flags) && pkt.flags & flags::SYN != 0 => {
                (reverse, None)
            }
            PacketKind::Tcp if pkt.flags & flags::SYN == 0 && query.direction == Direction::Outbound => {
                (query, Some(pkt.sport))
            }
            _ => (query, None),
        };
        self.count(nic, query, also, passed, 0);
        Some(passed)
    }

    /// A live connection of this NIC.
    pub fn hold(&mut self, nic: NicSlot, connection: &Connection) {
        let Connection { entry, remote, .. } = connection;
        let protocol = entry.protocol();
        let (local_port, remote_port) = ((entry.ports >> 16) as u16, entry.ports as u16);
        let direction = if entry.is_inbound() { Direction::Inbound } else { Direction::Outbound };
        let port = match (proto::has_ports(protocol), direction) {
            (true, Direction::Inbound) => local_port,
            (true, Direction::Outbound) => remote_port,
            (false, _) => entry.syn_seq as u16,
        };
        let query = Query { direction, v6: entry.is_v6(), protocol, port, remote: *remote };
        self.count(nic, query, None, true, 1);
    }

    fn count(&mut self, nic: NicSlot, query: Query, also: Option<u16>, passed: bool, place: usize) {
        let Query { direction, v6, protocol, port, remote } = query;
        let kind = (nic, direction == Direction::Inbound, v6, protocol, port, also, remote, passed);
        if self.kinds.len() == MOST && !self.kinds.contains_key(&kind) {
            self.left_out += 1;
            return;
        }
        self.kinds.entry(kind).or_default()[place] += 1;
    }

    /// All of them, by NIC.
    pub fn openings(self) -> Openings {
        let opening = |(kind, [told, live]): (Kind, [u64; 2])| {
            let (nic, is_inbound, v6, protocol, port, also, remote, passed) = kind;
            let direction = if is_inbound { Direction::Inbound } else { Direction::Outbound };
            let query = Query { direction, v6, protocol, port, remote };
            let also = also.map(|port| Query { direction: direction.reverse(), port, ..query });
            Opening { nic, query, also, passed, told, live }
        };
        let mut all: Vec<Opening> = self.kinds.into_iter().map(opening).collect();
        all.sort_unstable_by_key(|opening| {
            let Query { v6, protocol, port, remote, .. } = opening.query;
            (opening.nic.0, v6, protocol, port, remote, opening.passed)
        });
        let mut by_nic: HashMap<NicSlot, Range<usize>> = HashMap::new();
        for (at, opening) in all.iter().enumerate() {
            by_nic.entry(opening.nic).or_insert(at..at).end = at + 1;
        }
        Openings { all, by_nic }
    }
}

/// Openings by NIC.
#[derive(Default)]
pub struct Openings {
    /// All.
    pub all: Vec<Opening>,
    by_nic: HashMap<NicSlot, Range<usize>>,
}

impl Openings {
    /// The NICs.
    pub fn nics(&self) -> impl Iterator<Item = NicSlot> {
        self.by_nic.keys().copied()
    }

    /// The places of a NIC's.
    pub fn of(&self, nic: NicSlot) -> Range<usize> {
        self.by_nic.get(&nic).cloned().unwrap_or_default()
    }
}
