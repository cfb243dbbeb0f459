//! Which worker a packet belongs to: its owner by [`crate::rss`], or by its first fragment.

use crate::fragment_cache::{FragmentCache, Hashed};
use crate::packet::{Fragment, HandoffStage, PacketKind, PacketMeta};
use crate::rss::{RETA_SIZE, RssHash, hashes_ports};
use crate::time::TICKS_PER_SECOND;
use crate::{NicSlot, SegmentKey, Side, icmp_quote};

/// Two VPCs may use the same addresses, so the segment is part of it; and so is the side, lest
/// somebody outside who forges a NIC's address sends the fragments that this NIC sends the wrong
/// way.
type PacketKey = (SegmentKey, Side, u128, u128, u32, u8);

/// What all fragments of a packet have in common, whoever's they are: other workers may know of
/// other NICs while the policy changes.
fn packet_key(pkt: &PacketMeta, hash: u32, nic: NicSlot) -> Hashed<PacketKey> {
    let key = (pkt.segment, pkt.side, pkt.src, pkt.dst, pkt.frag_id, pkt.frag_proto);
    Hashed { key, hash, nic }
}

/// One worker's knowledge of who owns what.
pub struct Router {
    me: u32,
    workers: u32,
    spread: RssHash,
    /// The worker of each of the hash's lowest values, as in a NIC's redirection table.
    table: [u16; RETA_SIZE as usize],
    /// Owners of the packets whose first fragment came by: of the fragments that this worker sees
    /// all of.
    firsts: FragmentCache<PacketKey, u32>,
}

impl Router {
    /// Of worker `me` among `workers`, all of which hash by the same `pattern`.
    pub fn new(me: u32, workers: u32, pattern: u16) -> Router {
        let table = std::array::from_fn(|entry| (entry as u32 % workers.max(1)) as u16);
        Router { me, workers, spread: RssHash::new(pattern), table, firsts: FragmentCache::new() }
    }

    /// Has the memory of its table backed, so that no packet waits for a page.
    pub fn touch(&mut self) {
        self.firsts.touch();
    }

    /// True if there is no other worker.
    #[inline]
    pub fn is_alone(&self) -> bool {
        self.workers == 1
    }

    #[inline]
    fn worker(&self, hash: u32) -> u32 {
        u32::from(self.table[(hash % RETA_SIZE) as usize])
    }

    /// The worker to which a frame goes next, with its stage moved on; this worker itself if it is
    /// to be judged here. `None` for a fragment, of which more must be known.
    #[inline]
    pub fn next(&mut self, pkt: &mut PacketMeta, bytes: &[u8]) -> Option<u32> {
        if self.workers == 1 || pkt.stage >= HandoffStage::Judge {
            return Some(self.me);
        }
        if pkt.fast_v4 {
            // Whole, and of TCP or UDP.
            pkt.stage = HandoffStage::Judge;
            return Some(self.worker(self.spread.hash(pkt.src, pkt.dst, Some((pkt.sport, pkt.dport)))));
        }
        if pkt.fragment != Fragment::Whole {
            return None;
        }
        pkt.stage = HandoffStage::Judge;
        Some(self.owner(pkt, bytes))
    }

    /// The worker that sees all fragments of a packet, by a hash of what they have in common.
    pub fn fragment_worker(&self, hash: u32) -> u32 {
        ((u64::from(hash) * u64::from(self.workers)) >> 32) as u32
    }

    /// This one.
    pub fn me(&self) -> u32 {
        self.me
    }

    /// True if that is this one.
    pub fn is_me(&self, worker: u32) -> bool {
        worker == self.me
    }

    /// A first fragment of this NIC goes to its owner, and what follows is to go there, too. `hash`
    /// is a keyed one of what all fragments of the packet bear. It is remembered a second longer
    /// than the owner remembers the verdict: it is the owner that says when it is forgotten.
    pub fn note_first(&mut self, pkt: &PacketMeta, hash: u32, nic: NicSlot, owner: u32, timeout: u32) {
        let deadline = pkt.now.ceil.wrapping_add(timeout).wrapping_add(TICKS_PER_SECOND);
        self.firsts.remember(&packet_key(pkt, hash, nic), owner, deadline, pkt.now.tick);
    }

    /// Where the first of a fragment's packet went.
    pub fn owner_of_first(&self, pkt: &PacketMeta, hash: u32) -> Option<u32> {
        self.firsts.recall(&packet_key(pkt, hash, NicSlot::NONE), pkt.now.tick).copied()
    }

    /// The worker that a packet's connection belongs to.
    pub fn owner(&self, pkt: &PacketMeta, bytes: &[u8]) -> u32 {
        match pkt.kind {
            PacketKind::Tcp | PacketKind::WithPorts | PacketKind::DhcpClient | PacketKind::DhcpServer => {
                let ports = hashes_ports(pkt.proto).then_some((pkt.sport, pkt.dport));
                self.worker(self.spread.hash(pkt.src, pkt.dst, ports))
            }
            PacketKind::IcmpRequest | PacketKind::IcmpReply | PacketKind::OtherProtocol => {
                self.worker(self.spread.hash(pkt.src, pkt.dst, None))
            }
            PacketKind::IcmpError => match icmp_quote::read(pkt, bytes) {
                Some(quote) => {
                    let ports = hashes_ports(quote.proto).then_some((quote.sport, quote.dport));
                    self.worker(self.spread.hash(quote.src, quote.dst, ports))
                }
                None => self.me,
            },
            // Nothing of a connection: judged where it came in.
            _ => self.me,
        }
    }
}
