//! Packets that were refused, counted by tuple and reason: a small table that its worker alone
//! writes. What finds no room in it drives out what is there, which is told then, so that nothing
//! goes uncounted as long as the ring has room.

use super::{Secret, purpose};
use crate::packet::{Fragment, PacketKind, PacketMeta};
use crate::time::Now;
use crate::verdict::Verdict;
use crate::{Direction, Generation, NicSlot, Reason, RuleId, proto};

/// Tuples that are counted at once.
const ROOM: usize = 1 << 13;
/// Places where one tuple may lie.
const WAYS: usize = 4;

/// What refused packets are counted by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RefusedTuple {
    /// Source and destination, as in [`PacketMeta::src`]; zeros where there are none.
    pub addrs: [u128; 2],
    /// Source and destination port, or of ICMP 0 and type × 256 + code; zeros where there are none.
    pub ports: [u16; 2],
    /// Whose it was.
    pub nic: NicSlot,
    /// The rule that denied it.
    pub rule: RuleId,
    /// Why it was refused.
    pub reason: Reason,
    /// Which way it was going.
    pub direction: Direction,
    /// IP protocol.
    pub protocol: u8,
    /// IPv6.
    pub v6: bool,
    /// It has addresses and a protocol.
    pub is_ip: bool,
    /// It passed all the same, as its NIC is only observed.
    pub observed: bool,
}

impl RefusedTuple {
    /// Of a packet with this verdict.
    pub fn of(pkt: &PacketMeta, verdict: &Verdict) -> RefusedTuple {
        let (is_ip, has_ports) = match pkt.kind {
            PacketKind::TruncatedLink
            | PacketKind::BadSegment
            | PacketKind::UnderlayNeighbor
            | PacketKind::NotIp
            | PacketKind::Arp => (false, false),
            PacketKind::Malformed => (pkt.src | pkt.dst != 0, false),
            _ => (true, pkt.fragment != Fragment::Later),
        };
        let ports = match pkt.proto {
            proto::ICMP | proto::ICMPV6 => [0, pkt.dport],
            _ => [pkt.sport, pkt.dport],
        };
        RefusedTuple {
            addrs: if is_ip { [pkt.src, pkt.dst] } else { [0; 2] },
            ports: if has_ports { ports } else { [0; 2] },
            nic: verdict.nic,
            rule: verdict.rule,
            reason: verdict.reason,
            direction: pkt.side.direction(),
            protocol: if is_ip { pkt.proto } else { 0 },
            v6: is_ip && pkt.v6,
            is_ip,
            observed: verdict.observed,
        }
    }
}

/// Packets of one tuple that were refused.
#[derive(Clone, Copy, Debug)]
pub struct RefusalCount {
    /// Which.
    pub tuple: RefusedTuple,
    /// The generation that refused the last of them.
    pub generation: Generation,
    /// How many.
    pub packets: u64,
    /// Their frames' bytes, without the check sequence (FCS).
    pub bytes: u64,
    /// The ticks of the first and the last of them.
    pub(super) ticks: [u32; 2],
}

/// The table.
pub(super) struct RefusalTable {
    slots: Box<[Option<RefusalCount>]>,
    key: [u64; 2],
}

impl RefusalTable {
    /// Empty.
    pub fn new(secret: &Secret) -> RefusalTable {
        RefusalTable { slots: vec![None; ROOM].into(), key: secret.derive(purpose::REFUSALS) }
    }

    /// How many places there are.
    pub fn len(&self) -> u32 {
        self.slots.len() as u32
    }

    /// Takes what lies at a place.
    pub fn take(&mut self, place: u32) -> Option<RefusalCount> {
        self.slots.get_mut(place as usize)?.take()
    }

    /// Puts back what could not be told.
    pub fn put_back(&mut self, place: u32, refusal: RefusalCount) {
        if let Some(slot) = self.slots.get_mut(place as usize) {
            *slot = Some(refusal);
        }
    }

    /// Counts one packet; what had to make room for it, if anything.
    pub fn count(
        &mut self,
        tuple: &RefusedTuple,
        bytes: u32,
        generation: Generation,
        now: Now,
    ) -> Option<RefusalCount> {
        let hash = self.hash(tuple);
        let first = hash as usize % (ROOM / WAYS) * WAYS;
        let places = self.slots.get_mut(first..first + WAYS)?;
        let bytes = u64::from(bytes);
        let mut free = None;
        for (way, place) in places.iter_mut().enumerate() {
            match place {
                Some(refusal) if refusal.tuple == *tuple => {
                    (refusal.packets, refusal.bytes) = (refusal.packets + 1, refusal.bytes + bytes);
                    (refusal.generation, refusal.ticks[1]) = (generation, now.tick);
                    return None;
                }
                Some(_) => {}
                None => free = free.or(Some(way)),
            }
        }
        let refusal = RefusalCount { tuple: *tuple, generation, packets: 1, bytes, ticks: [now.tick; 2] };
        // Without a free place any of them goes: which, the sender does not know.
        let way = free.unwrap_or((hash >> 48) as usize % WAYS);
        places[way].replace(refusal)
    }

    fn hash(&self, tuple: &RefusedTuple) -> u64 {
        let RefusedTuple { addrs: [src, dst], ports: [sport, dport], nic, rule, reason, .. } = *tuple;
        let rest = u64::from(sport) << 48 | u64::from(dport) << 32 | u64::from(nic.0);
        let why = u64::from(rule.0) << 32 | (reason as u64) << 8 | u64::from(tuple.protocol);
        let words = [src as u64, (src >> 64) as u64, dst as u64, (dst >> 64) as u64, rest, why];
        words.into_iter().fold(self.key[0], |hash, word| {
            let product = u128::from(hash ^ word) * u128::from(self.key[1] | 1);
            product as u64 ^ (product >> 64) as u64
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tuple(port: u16) -> RefusedTuple {
        let pkt = PacketMeta {
            src: 1,
            dst: 2,
            sport: 7,
            dport: port,
            proto: proto::TCP,
            kind: PacketKind::Tcp,
            ..PacketMeta::default()
        };
        RefusedTuple::of(&pkt, &Verdict::of(Reason::NoRule, NicSlot(1)))
    }

    #[test]
    fn every_packet_is_counted_once_however_many_tuples_there_are() {
        let mut refusals = RefusalTable::new(&Secret::new([3, 5]));
        let now = Now::default();
        let mut counted = vec![(0, 0); 1 << 16];
        let mut add = |refusal: RefusalCount| {
            let sum = &mut counted[usize::from(refusal.tuple.ports[1])];
            *sum = (sum.0 + refusal.packets, sum.1 + refusal.bytes);
        };
        for round in 0..3u32 {
            for port in 0..=u16::MAX {
                refusals.count(&tuple(port), 60 + round, Generation(1), now).map(&mut add);
            }
            for _ in 0..5 {
                refusals.count(&tuple(80), 100, Generation(1), now).map(&mut add);
            }
        }
        (0..refusals.len()).filter_map(|place| refusals.take(place)).for_each(&mut add);
        for (port, sum) in counted.into_iter().enumerate() {
            assert_eq!(sum, if port == 80 { (18, 183 + 1500) } else { (3, 183) }, "{port}");
        }
    }
}
