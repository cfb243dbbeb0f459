//! What the tables of first fragments cost under fragments of a stranger's choice, beside random
//! ones: the hand-off router's, which every fragment meets before anything is known of it, and the
//! judge's.
//!
//! Chosen are identifications that fell into one chain of the table that hashed them by a public
//! function (59 µs each there, against 27 ns), ones that differ in one bit, and one identification
//! under addresses whose exclusive or is the same.

use std::hint::black_box;
use std::sync::Arc;

use engine::burst::{Firewall, FirewallConfig};
use engine::conntrack::{Secret, ShardConfig, Timeouts};
use engine::counters::{ConnectionCounts, EngineCounters};
use engine::fragment_cache::CAPACITY;
use engine::handoff::Router;
use engine::packet::{Fragment, HandoffStage, PacketKind, PacketMeta};
use engine::rss::RSS_PATTERN;
use engine::time::Now;
use engine::{NicSlot, Side, proto};

use crate::floor::median;
use crate::rig::cycles;

/// What is chosen.
pub const CHOICES: [&str; 4] = ["random", "one old chain", "neighbours", "one exclusive or"];

/// Cycles a fragment, by choice and table.
pub struct Costs {
    /// See [`CHOICES`].
    pub choice: &'static str,
    /// A first fragment noted and one behind it looked up, each.
    pub router: f64,
}

/// Fragments of a choice, as they are read.
fn pkts(choice: &str, count: usize) -> Vec<PacketMeta> {
    let mut state = 0x2545_F491_4F6C_DD1Du64;
    let mut random = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    // The chain of an identification in the table as it was: bits 8 to 20 of this product.
    let in_one_chain = |id: &u32| id.wrapping_mul(0x9E37_79B1) >> 8 & 0x1FFF == 0x155;
    let mut chained = (0..u32::MAX).filter(in_one_chain);
    let pkt = |src: u128, dst: u128, frag_id: u32| PacketMeta {
        src,
        dst,
        frag_id,
        v6: true,
        proto: proto::UDP,
        kind: PacketKind::LaterFragment,
        fragment: Fragment::Later,
        side: Side::Outside,
        stage: HandoffStage::Fragment,
        now: Now { tick: 1, ceil: 1 },
        ..PacketMeta::default()
    };
    let (src, dst) =
        (0x2001_0DB8_00FF_0000_0000_0000_0000_0009u128, 0x2001_0DB8_0000_0000_0000_0000_0000_0001u128);
    (0..count)
        .map(|n| match choice {
            "random" => pkt(src, dst, random() as u32),
            "one old chain" => pkt(src, dst, chained.next().unwrap_or_default()),
            "neighbours" => pkt(src, dst, n as u32),
            _ => {
                let both = u128::from(random()) << 32;
                pkt(src ^ both, dst ^ both, 7)
            }
        })
        .collect()
}

/// Each choice measured in turn, so many runs of which the median counts. Every fragment finds its
/// owner, or this panics: as many as half the table are remembered at once.
pub fn costs(runs: usize) -> Vec<Costs> {
    let config = FirewallConfig {
        shard: ShardConfig {
            capacity: 1024,
            unconfirmed: 512,
            all_workers: 1024,
            timeouts: Timeouts::default(),
            count: false,
        },
        secret: Secret::new([cycles() | 1, 0xD1B5_4A32_D192_ED03]),
        grace_end_ns: 0,
    };
    let firewall =
        Firewall::new(&config, Arc::new(EngineCounters::new()), Arc::new(ConnectionCounts::of_one_worker()));
    let all: Vec<Vec<PacketMeta>> = CHOICES.iter().map(|choice| pkts(choice, CAPACITY / 4)).collect();
    let mut taken = vec![Vec::new(); CHOICES.len()];
    for _ in 0..runs.max(1) {
        for (pkts, taken) in all.iter().zip(&mut taken) {
            let mut router = Router::new(0, 2, RSS_PATTERN);
            let mut found = 0;
            let begin = cycles();
            for pkt in pkts {
                let hash = firewall.packet_hash(pkt);
                router.note_first(pkt, hash, NicSlot(1), 1, 48);
            }
            for pkt in pkts {
                let hash = firewall.packet_hash(pkt);
                found += usize::from(black_box(router.owner_of_first(pkt, hash)) == Some(1));
            }
            taken.push((cycles() - begin) as f64 / (2 * pkts.len()) as f64);
            // A bucket that more than eight of them meet forgets the oldest.
            assert!(found * 100 >= pkts.len() * 98, "{found} of {} are remembered", pkts.len());
        }
    }
    let cost = |(choice, taken): (&'static str, Vec<f64>)| Costs { choice, router: median(&taken) };
    CHOICES.into_iter().zip(taken).map(cost).collect()
}
