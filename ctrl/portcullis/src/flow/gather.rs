//! From what workers tell to records that are due: connections as they end and once an interval, refusals by tuple once an interval.

use std::collections::HashMap;
use std::net::IpAddr;

use engine::lane::{Fragment, Lane, What};
use engine::verdict::Verdict;
use engine::{Direction, NicSlot, Reason, RuleId, addr_from_bits, proto};

use super::record::{Cause, Names, Record};

/// Tuples that were refused within one interval at most: of more, each packet is a lost record.
const MOST_REFUSED: usize = 1 << 16;
/// Connections that are gathered from shorter intervals at most: more are told by the shorter interval.
const MOST_ACTIVE: usize = 1 << 18;

/// One packet that was refused, or would have been.
#[derive(Clone, Copy, Debug)]
pub struct Refused {
    /// What it is gathered by.
    pub tuple: Tuple,
    /// Its frame's bytes.
    pub bytes: u32,
    /// The generation that refused it.
    pub generation: u32,
    /// Nanoseconds since 1970.
    pub at_ns: u64,
}

/// What refused packets are gathered by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Tuple {
    /// Whose it was.
    pub nic: NicSlot,
    /// Which way it was going.
    pub direction: Direction,
    /// IP protocol; `None` of what is not IP.
    pub protocol: Option<u8>,
    /// From where to where.
    pub ends: Option<[IpAddr; 2]>,
    /// Its ports, or of ICMP 0 and type × 256 + code.
    pub ports: [u16; 2],
    /// Why it was refused.
    pub reason: Reason,
    /// It passed all the same, as its NIC is only observed.
    pub observed: bool,
    /// The rule that denied it.
    pub rule: RuleId,
}

impl Tuple {
    /// Of a packet that was refused, or would have been.
    pub fn of(lane: &Lane, verdict: &Verdict) -> Tuple {
        let (is_ip, has_headers) = match lane.what {
            What::LinkCut | What::BadSegment | What::Underlay | What::NotIp | What::Arp => (false, false),
            What::Malformed => (lane.src | lane.dst != 0, false),
            _ => (true, lane.fragment != Fragment::Later),
        };
        let ports = match lane.proto {
            proto::ICMP | proto::ICMPV6 => [0, lane.dport],
            _ => [lane.sport, lane.dport],
        };
        Tuple {
            nic: verdict.nic,
            direction: lane.side.direction(),
            protocol: is_ip.then_some(lane.proto),
            ends: is_ip.then(|| [lane.src, lane.dst].map(|bits| addr_from_bits(bits, lane.v6))),
            ports: if has_headers { ports } else { [0, 0] },
            reason: verdict.reason,
            observed: verdict.observed,
            rule: verdict.rule,
        }
    }
}

/// Packets of one tuple, refused within one interval.
#[derive(Clone, Copy, Debug)]
struct Sum {
    packets: u64,
    bytes: u64,
    first_ns: u64,
    last_ns: u64,
    generation: u32,
}

/// What tells one connection from another while it lasts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Which {
    ends: Option<[IpAddr; 2]>,
    ports: [u16; 2],
    protocol: Option<u8>,
    direction: Direction,
    opened_ns: u64,
    rule: Option<u64>,
}

/// Records by one interval.
struct Stream {
    interval_ns: u64,
    /// When the present interval ends.
    ends_ns: u64,
    /// Workers tell of connections once a shorter interval: they are gathered.
    gathers: bool,
    active: HashMap<Which, Record>,
    refused: HashMap<Tuple, Sum>,
    lost: u64,
    due: Vec<Record>,
}

/// All intervals that somebody wants records by.
pub struct Gatherer {
    streams: Vec<Stream>,
}

impl Gatherer {
    /// These intervals in nanoseconds, each once; `now_ns` is when the first ones begin.
    pub fn new(intervals_ns: &[u64], now_ns: u64) -> Gatherer {
        let shortest = intervals_ns.iter().min().copied().unwrap_or(u64::MAX);
        let stream = |interval_ns: &u64| Stream {
            interval_ns: *interval_ns,
            ends_ns: now_ns.saturating_add(*interval_ns),
            gathers: *interval_ns != shortest,
            active: HashMap::new(),
            refused: HashMap::new(),
            lost: 0,
            due: Vec::new(),
        };
        Gatherer { streams: intervals_ns.iter().map(stream).collect() }
    }

    /// A connection was told.
    pub fn connection(&mut self, record: &Record) {
        self.streams.iter_mut().for_each(|stream| stream.connection(record.clone()));
    }

    /// A packet was refused.
    pub fn refused(&mut self, refused: &Refused) {
        self.streams.iter_mut().for_each(|stream| stream.refused(refused));
    }

    /// The time is `now_ns`: refusals of intervals that have ended are due. True if the shortest one is among them: the workers are to be
    /// asked what lasts.
    pub fn end_intervals(&mut self, now_ns: u64, names: &mut impl Names) -> bool {
        let mut is_shortest = false;
        for stream in &mut self.streams {
            if now_ns < stream.ends_ns {
                continue;
            }
            is_shortest |= !stream.gathers;
            stream.end(names);
            // Intervals in which nobody came by are over, too.
            let over = (now_ns - stream.ends_ns) / stream.interval_ns + 1;
            stream.ends_ns = stream.ends_ns.saturating_add(over.saturating_mul(stream.interval_ns));
        }
        is_shortest
    }

    /// When the first of the present intervals ends.
    pub fn next_end_ns(&self) -> u64 {
        self.streams.iter().map(|stream| stream.ends_ns).min().unwrap_or(u64::MAX)
    }

    /// All intervals end now.
    pub fn end(&mut self, names: &mut impl Names) {
        self.streams.iter_mut().for_each(|stream| stream.end(names));
    }

    /// Hands out what is due, by the place of its interval, and how many records were lost there since the last time.
    pub fn take(&mut self, mut each: impl FnMut(usize, Vec<Record>, u64)) {
        for (place, stream) in self.streams.iter_mut().enumerate() {
            let lost = std::mem::take(&mut stream.lost);
            if !stream.due.is_empty() || lost > 0 {
                each(place, std::mem::take(&mut stream.due), lost);
            }
        }
    }
}

impl Stream {
    fn connection(&mut self, mut record: Record) {
        if !self.gathers {
            return self.due.push(record);
        }
        let which = Which {
            ends: record.ends,
            ports: record.ports,
            protocol: record.protocol,
            direction: record.direction,
            opened_ns: record.opened_ns,
            rule: record.rule.as_ref().map(|rule| rule.identity.bits()),
        };
        let is_active = record.is_active();
        if let Some(before) = self.active.get_mut(&which) {
            for way in 0..2 {
                record.packets[way] += before.packets[way];
                record.bytes[way] += before.bytes[way];
            }
            record.start_ns = before.start_ns;
            record.end_ns = record.end_ns.max(before.end_ns);
            if is_active {
                *before = record;
                return;
            }
            self.active.remove(&which);
        } else if is_active && self.active.len() < MOST_ACTIVE {
            self.active.insert(which, record);
            return;
        }
        self.due.push(record);
    }

    fn refused(&mut self, refused: &Refused) {
        let Refused { tuple, bytes, generation, at_ns } = *refused;
        let is_full = self.refused.len() >= MOST_REFUSED;
        if let Some(sum) = self.refused.get_mut(&tuple) {
            (sum.packets, sum.bytes) = (sum.packets + 1, sum.bytes + u64::from(bytes));
            (sum.first_ns, sum.last_ns) = (sum.first_ns.min(at_ns), sum.last_ns.max(at_ns));
            sum.generation = generation;
        } else if is_full {
            self.lost += 1;
        } else {
            let bytes = u64::from(bytes);
            self.refused
                .insert(tuple, Sum { packets: 1, bytes, first_ns: at_ns, last_ns: at_ns, generation });
        }
    }

    fn end(&mut self, names: &mut impl Names) {
        self.due.extend(self.active.drain().map(|(_, record)| record));
        let refused = self.refused.drain().map(|(tuple, sum)| Record {
            nic: names.nic(tuple.nic),
            direction: tuple.direction,
            protocol: tuple.protocol,
            ends: tuple.ends,
            ports: tuple.ports,
            packets: [sum.packets, 0],
            bytes: [sum.bytes, 0],
            opened_ns: sum.first_ns,
            start_ns: sum.first_ns,
            end_ns: sum.last_ns,
            cause: Cause::Refusal(tuple.reason),
            observed: tuple.observed,
            rule: tuple.rule.get().and_then(|rule| names.rule(rule)),
            generation: sum.generation,
        });
        self.due.extend(refused);
    }
}
