//! From what workers tell to records that are due: connections as they end and once an interval, refusals by tuple once an interval.

use std::collections::HashMap;
use std::net::IpAddr;

use engine::conntrack::flow_accounting::FlowEvent;
use engine::conntrack::refusals::{RefusalCount, RefusedTuple};
use engine::{Direction, addr_from_bits};

use super::record::{Cause, NameSource, Record};

/// Tuples that were refused within one interval at most: records of more are lost.
const MOST_REFUSED: usize = 1 << 16;
/// Connections that are gathered from shorter intervals at most: more are told by the shorter interval.
const MOST_ACTIVE: usize = 1 << 18;

/// Packets of one tuple that were refused, or would have been, as a worker tells them.
#[derive(Clone, Copy, Debug)]
pub struct Refused {
    /// Which.
    pub tuple: RefusedTuple,
    /// How many.
    pub packets: u64,
    /// Their frames' bytes.
    pub bytes: u64,
    /// When the first of them came, in nanoseconds since 1970.
    pub first_ns: u64,
    /// And the last.
    pub last_ns: u64,
    /// The generation that refused the last of them.
    pub generation: u32,
}

impl Refused {
    /// Of what a worker told; its clock's moment 0 is `origin_ns`.
    pub fn of(told: &RefusalCount, ns: [u64; 2], origin_ns: u64) -> Refused {
        let [first_ns, last_ns] = ns.map(|ns| origin_ns.saturating_add(ns));
        let RefusalCount { tuple, packets, bytes, generation, .. } = *told;
        Refused { tuple, packets, bytes, first_ns, last_ns, generation: generation.0 }
    }
}

/// What tells one connection from another while it lasts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct FlowKey {
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
    active: HashMap<FlowKey, Record>,
    refused: HashMap<RefusedTuple, Refused>,
    lost: u64,
    due: Vec<Record>,
}

/// All intervals that somebody wants records by.
pub struct FlowCollector {
    streams: Vec<Stream>,
}

impl FlowCollector {
    /// These intervals in nanoseconds, each once; `now_ns` is when the first ones begin.
    pub fn new(intervals_ns: &[u64], now_ns: u64) -> FlowCollector {
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
        FlowCollector { streams: intervals_ns.iter().map(stream).collect() }
    }

    /// Takes what a worker told whose clock's moment 0 is `origin_ns`.
    pub fn take_up(&mut self, told: &FlowEvent, origin_ns: u64, names: &mut impl NameSource) {
        match told {
            FlowEvent::Connection(told) => self.connection(&Record::of(told, origin_ns, names)),
            FlowEvent::Refusal(told, ns) => self.refused(&Refused::of(told, *ns, origin_ns)),
        }
    }

    fn connection(&mut self, record: &Record) {
        self.streams.iter_mut().for_each(|stream| stream.connection(record.clone()));
    }

    fn refused(&mut self, refused: &Refused) {
        self.streams.iter_mut().for_each(|stream| stream.refused(refused));
    }

    /// The time is `now_ns`: what was gathered in intervals that have ended is due.
    pub fn end_intervals(&mut self, now_ns: u64, names: &mut impl NameSource) {
        for stream in &mut self.streams {
            if now_ns < stream.ends_ns {
                continue;
            }
            stream.end(names);
            // Intervals in which nobody came by are over, too.
            let over = (now_ns - stream.ends_ns) / stream.interval_ns + 1;
            stream.ends_ns = stream.ends_ns.saturating_add(over.saturating_mul(stream.interval_ns));
        }
    }

    /// When the first of the present intervals ends.
    pub fn next_end_ns(&self) -> u64 {
        self.streams.iter().map(|stream| stream.ends_ns).min().unwrap_or(u64::MAX)
    }

    /// All intervals end now.
    pub fn end(&mut self, names: &mut impl NameSource) {
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
        let which = FlowKey {
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

    fn refused(&mut self, more: &Refused) {
        let is_full = self.refused.len() >= MOST_REFUSED;
        if let Some(sum) = self.refused.get_mut(&more.tuple) {
            (sum.packets, sum.bytes) = (sum.packets + more.packets, sum.bytes + more.bytes);
            (sum.first_ns, sum.last_ns) = (sum.first_ns.min(more.first_ns), sum.last_ns.max(more.last_ns));
            sum.generation = sum.generation.max(more.generation);
        } else if is_full {
            self.lost += 1;
        } else {
            self.refused.insert(more.tuple, *more);
        }
    }

    fn end(&mut self, names: &mut impl NameSource) {
        self.due.extend(self.active.drain().map(|(_, record)| record));
        let refused = self.refused.drain().map(|(tuple, sum)| Record {
            nic: names.nic(tuple.nic),
            direction: tuple.direction,
            protocol: tuple.is_ip.then_some(tuple.protocol),
            ends: tuple.is_ip.then(|| tuple.addrs.map(|bits| addr_from_bits(bits, tuple.v6))),
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
