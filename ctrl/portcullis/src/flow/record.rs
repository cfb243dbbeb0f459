//! One record of a flow log, before it takes the form that a sink gives it.

use std::net::IpAddr;
use std::sync::Arc;

use control::compile::NamedRule;
use control::config::FlowWhat;
use engine::conntrack::flow_accounting::{FlowCause, FlowRecord};
use engine::worker_totals::EndCause;
use engine::{Direction, NicSlot, Reason, RuleId, addr_from_bits, proto};

/// Names of what the data path knows by number.
pub trait NameSource {
    /// A NIC's: its name, with the project and a slash before it outside the default one.
    fn nic(&mut self, nic: NicSlot) -> Option<Arc<str>>;
    /// A rule's.
    fn rule(&mut self, rule: RuleId) -> Option<NamedRule>;
}

/// Why there is a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// A connection, which has ended or not.
    Connection(FlowCause),
    /// Packets that were refused, or would have been.
    Refusal(Reason),
}

/// The packets of one connection, or of one tuple that was refused, in a stretch of time.
#[derive(Clone, Debug)]
pub struct Record {
    /// Whose they are: as [`NameSource::nic`] has it.
    pub nic: Option<Arc<str>>,
    /// Of the packet that opened the connection, or was refused.
    pub direction: Direction,
    /// IP protocol; `None` of what is not IP.
    pub protocol: Option<u8>,
    /// Where that packet came from, and where it went.
    pub ends: Option<[IpAddr; 2]>,
    /// Its ports; 0 without any. Of ICMP 0 and type × 256 + code.
    pub ports: [u16; 2],
    /// Packets from the one to the other, and back.
    pub packets: [u64; 2],
    /// Bytes of frames, without the check sequence (FCS).
    pub bytes: [u64; 2],
    /// When the connection opened; of a refusal, as `start`. Nanoseconds since 1970.
    pub opened_ns: u64,
    /// When what it tells began.
    pub start_ns: u64,
    /// When the last of these packets came.
    pub end_ns: u64,
    /// Why.
    pub cause: Cause,
    /// Refused by the rules, and passed because that NIC is only observed.
    pub observed: bool,
    /// The rule that decided.
    pub rule: Option<NamedRule>,
    /// The generation under which it did.
    pub generation: u32,
}

/// The other way.
pub fn reverse(direction: Direction) -> Direction {
    direction.reverse()
}

impl Record {
    /// Of what a worker told; its clock's moment 0 is `origin_ns`.
    pub fn of(told: &FlowRecord, origin_ns: u64, names: &mut impl NameSource) -> Record {
        let [local, remote] = [told.local, told.remote].map(|bits| addr_from_bits(bits, told.v6));
        let has_ports = proto::has_ports(told.protocol);
        let ports = if has_ports { [(told.ports >> 16) as u16, told.ports as u16] } else { [0, told.icmp] };
        let [inside, outside] = [0, 1];
        let at = |ns: u64| origin_ns.saturating_add(ns);
        // The opener's way comes first.
        let ways = if told.inbound { [outside, inside] } else { [inside, outside] };
        let (start, opened) = (at(told.since_ns), at(told.opened_ns));
        Record {
            nic: names.nic(told.nic),
            direction: if told.inbound { Direction::Inbound } else { Direction::Outbound },
            protocol: Some(told.protocol),
            ends: Some(if told.inbound { [remote, local] } else { [local, remote] }),
            ports: if told.inbound && has_ports { [ports[1], ports[0]] } else { ports },
            packets: ways.map(|way| told.sums.packets[way]),
            bytes: ways.map(|way| told.sums.bytes[way]),
            opened_ns: opened,
            start_ns: start,
            end_ns: at(told.last_ns).max(start),
            cause: Cause::Connection(told.why),
            observed: false,
            rule: told.rule.get().and_then(|rule| names.rule(rule)),
            generation: told.generation.0,
        }
    }

    /// True if its packets went on.
    pub fn is_accepted(&self) -> bool {
        matches!(self.cause, Cause::Connection(_)) || self.observed
    }

    /// Whether a log of these has it.
    pub fn is_of(&self, what: FlowWhat) -> bool {
        match what {
            FlowWhat::All => true,
            FlowWhat::Accepted => self.is_accepted(),
            FlowWhat::Refused => !self.is_accepted(),
        }
    }

    /// `ACCEPT` or `REJECT`.
    pub fn action(&self) -> &'static str {
        if self.is_accepted() { "ACCEPT" } else { "REJECT" }
    }

    /// How the connection ended, or `active`; or why packets were refused.
    pub fn reason(&self) -> &'static str {
        match self.cause {
            Cause::Connection(why) => why.name(),
            Cause::Refusal(reason) => reason.name(),
        }
    }

    /// Project and name of the NIC.
    pub fn owner(&self) -> Option<(&str, &str)> {
        let nic = self.nic.as_deref()?;
        Some(nic.split_once('/').unwrap_or(("default", nic)))
    }

    /// True if its connection goes on.
    pub fn is_active(&self) -> bool {
        self.cause == Cause::Connection(FlowCause::Active)
    }

    /// flowEndReason of IPFIX (RFC 5102, 5.11.3): idle timeout, active timeout, end of flow, forced end, lack of resources.
    pub fn end_reason(&self) -> u8 {
        match self.cause {
            Cause::Connection(FlowCause::Active) | Cause::Refusal(_) => 2,
            Cause::Connection(FlowCause::Ended(how)) => match how {
                EndCause::Expired => 1,
                EndCause::Closed | EndCause::Reset => 3,
                EndCause::Flushed => 4,
                EndCause::Evicted => 5,
            },
        }
    }

    /// firewallEvent (IANA): 2 flow deleted, 3 flow denied, 5 flow update.
    pub fn event(&self) -> u8 {
        match self.cause {
            Cause::Connection(FlowCause::Active) => 5,
            Cause::Connection(FlowCause::Ended(_)) => 2,
            Cause::Refusal(_) => 3,
        }
    }

    /// forwardingStatus (RFC 7270, 4.12): forwarded, or dropped for one of the reasons that it has words for.
    pub fn forwarding_status(&self) -> u8 {
        const FORWARDED: u8 = 64;
        let Cause::Refusal(reason) = self.cause else { return FORWARDED };
        if self.observed {
            return FORWARDED;
        }
        match reason {
            Reason::Denied => 129,
            Reason::NoRule => 130,
            Reason::UnknownDestination => 131,
            Reason::Malformed => 136,
            Reason::Spoofed | Reason::UnknownSource => 140,
            _ => 128,
        }
    }
}
