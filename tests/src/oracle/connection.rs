//! Connections: what tells them apart, and how long they last (semantics 4.1, 4.2).

use std::net::IpAddr;
use std::time::Duration;

use control::config::Timeouts;
use control::model::{Direction, Key};
use engine::Side;

use super::Id;
use super::generation::{Fate, GenerationModel};
use super::read::{Fragment, Ip, TCP};
use super::rules::{Opening, What};
use super::tcp::{State, Tcp, Who};

/// "The key is (NIC, protocol, local address, remote address, and the 'key' column)" (4.1).
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct Tuple {
    /// The number of the NIC's address: one that came back is another (5.5).
    pub place: u32,
    pub protocol: u8,
    pub local: IpAddr,
    pub remote: IpAddr,
    pub column: Column,
    pub nic: Key,
}

impl Tuple {
    /// As others name it.
    pub fn id(&self) -> Id {
        let column = match self.column {
            Column::Ports(local, remote) => u32::from(local) << 16 | u32::from(remote),
            Column::Icmp { id, kind, inside_asked } => {
                u32::from(id) << 16 | u32::from(kind) << 8 | u32::from(!inside_asked)
            }
            Column::Nothing => 0,
        };
        Id {
            local: self.local,
            remote: self.remote,
            protocol: self.protocol,
            column,
            nic: self.nic.to_string(),
        }
    }
}

/// The "key" column.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Column {
    /// Local and remote port.
    Ports(u16, u16),
    /// "Identifier, kind of request, who asked": true for the NIC's side.
    Icmp {
        id: u16,
        kind: u8,
        inside_asked: bool,
    },
    Nothing,
}

/// What an ICMP message is (4.1, 4.5).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Message {
    Request,
    /// To this kind of request.
    Reply(u8),
    Error,
    Other,
}

pub(super) fn message(v6: bool, kind: u8) -> Message {
    match (v6, kind) {
        // "A request: echo, timestamp, mask, information, extended echo (v6: echo and extended
        // echo, RFC 8335)."
        (false, 8 | 13 | 15 | 17 | 42) | (true, 128 | 160) => Message::Request,
        (false, 0) => Message::Reply(8),
        (false, 14 | 16 | 18) => Message::Reply(kind - 1),
        (false, 43) => Message::Reply(42),
        (true, 129) => Message::Reply(128),
        (true, 161) => Message::Reply(160),
        // "ICMP errors (v4: 3, 11, 12; v6: 1–4)."
        (false, 3 | 11 | 12) | (true, 1..=4) => Message::Error,
        _ => Message::Other,
    }
}

/// The tuple of a packet that one side sent; `None` for ICMP that belongs to no connection, or if
/// ports are cut.
pub(super) fn tuple(era: &GenerationModel, nic: &Key, sender: Side, ip: &Ip<'_>) -> Option<Tuple> {
    let inside = sender == Side::Inside;
    let (local, remote) = if inside { (ip.src, ip.dst) } else { (ip.dst, ip.src) };
    let column = if ip.is_icmp() {
        if ip.l4.data.len() < 8 {
            return None;
        }
        let (kind, id) = (ip.l4.data[0], ip.l4.u16(4));
        match message(ip.v6, kind) {
            Message::Request => Column::Icmp { id, kind, inside_asked: inside },
            Message::Reply(asked) => Column::Icmp { id, kind: asked, inside_asked: !inside },
            _ => return None,
        }
    } else if has_ports(ip.protocol) {
        let (src, dst) = ip.ports()?;
        if inside { Column::Ports(src, dst) } else { Column::Ports(dst, src) }
    } else {
        Column::Nothing
    };
    let place = era.place(nic, local)?;
    Some(Tuple { place, protocol: ip.protocol, local, remote, column, nic: nic.clone() })
}

pub(super) fn has_ports(protocol: u8) -> bool {
    matches!(protocol, 6 | 17 | 33 | 132 | 136)
}

/// How rules see a packet that may open a connection.
pub(super) fn opening(side: Side, ip: &Ip<'_>) -> Opening {
    let what = match (ip.is_icmp(), ip.ports()) {
        (true, _) => What::Icmp(ip.l4.data[0], ip.l4.data[1]),
        (_, Some((_, dst))) => What::Port(dst),
        _ => What::Nothing,
    };
    let (direction, remote) = match side {
        Side::Inside => (Direction::Outbound, ip.dst),
        Side::Outside => (Direction::Inbound, ip.src),
    };
    Opening { direction, protocol: ip.protocol, remote, what }
}

/// The opening that a segment of the responder belongs to: the same connection, seen from its other
/// end.
pub(super) fn reverse(side: Side, ip: &Ip<'_>) -> Opening {
    let (direction, remote) = match side {
        Side::Inside => (Direction::Inbound, ip.dst),
        Side::Outside => (Direction::Outbound, ip.src),
    };
    let what = ip.ports().map_or(What::Nothing, |(src, _)| What::Port(src));
    Opening { direction, protocol: ip.protocol, remote, what }
}

/// One connection, or what a change left of it.
#[derive(Clone, Debug)]
pub(super) struct Connection {
    /// Its opening packet, for re-judging (5.4).
    pub opening: Opening,
    pub deadline: u64,
    pub fate: Fate,
    /// Who judges its packets.
    pub worker: usize,
    pub kind: Kind,
}

#[derive(Clone, Debug)]
pub(super) enum Kind {
    Tcp(Tcp),
    Icmp {
        answered: bool,
    },
    /// Whether inside, and whether outside, has sent.
    Plain {
        inside: bool,
        outside: bool,
    },
}

impl Kind {
    /// Of a connection that this packet opens.
    pub fn opened_by(side: Side, ip: &Ip<'_>) -> Kind {
        if ip.is_icmp() {
            return Kind::Icmp { answered: false };
        }
        Kind::Plain { inside: side == Side::Inside, outside: side == Side::Outside }
    }

    /// The timeout of the present state (4.1, 4.3).
    pub fn timeout(&self, timeouts: &Timeouts) -> Duration {
        match self {
            Kind::Tcp(tcp) => match tcp.state {
                State::SynSent | State::SynReceived => timeouts.tcp_syn,
                State::Established => timeouts.tcp_established,
                State::FinWait => timeouts.tcp_half_closed,
                State::Closing => timeouts.tcp_fin,
            },
            Kind::Icmp { .. } => timeouts.icmp,
            Kind::Plain { inside: true, outside: true } => timeouts.two_way,
            Kind::Plain { .. } => timeouts.one_way,
        }
    }

    /// "Then of an unconfirmed one (SYN sent/received; one-way UDP, ICMP, other)" (6.1). An
    /// answered ICMP request counts as confirmed.
    pub fn is_confirmed(&self) -> bool {
        match self {
            Kind::Tcp(tcp) => !matches!(tcp.state, State::SynSent | State::SynReceived),
            Kind::Icmp { answered } => *answered,
            Kind::Plain { inside, outside } => *inside && *outside,
        }
    }

    /// As `show connections` spells it.
    pub fn name(&self) -> &'static str {
        match self {
            Kind::Tcp(tcp) => match tcp.state {
                State::SynSent => "syn-sent",
                State::SynReceived => "syn-received",
                State::Established => "established",
                State::FinWait => "fin-wait",
                State::Closing => "closing",
            },
            Kind::Icmp { .. } => "icmp",
            Kind::Plain { inside: true, outside: true } => "two-way",
            Kind::Plain { .. } => "one-way",
        }
    }
}

impl Connection {
    /// What the generations up to `now` do to it. "Outbound connections keep the verdict they
    /// opened with, whatever changes" (5.3).
    pub fn follow(&mut self, eras: &[GenerationModel], now: usize, nic: &Key) {
        if self.is_inbound() {
            self.fate.follow(eras, now, nic);
        }
    }

    /// Disconnected: both directions drop until the deadline (5.2).
    pub fn is_tombstone(&self) -> bool {
        !self.fate.cut.is_empty()
    }

    pub fn is_inbound(&self) -> bool {
        self.opening.direction == Direction::Inbound
    }

    /// The opener or the other one.
    pub fn who(&self, side: Side) -> Who {
        if (side == Side::Outside) == self.is_inbound() { Who::Opener } else { Who::Responder }
    }
}

/// The segment in a packet that is TCP and no later fragment.
pub(super) fn segment(ip: &Ip<'_>) -> Option<super::tcp::Segment> {
    let first = ip.fragment == Fragment::First;
    (ip.protocol == TCP).then(|| super::tcp::Segment::read(ip.l4.data, ip.l4.wire, first))
}
