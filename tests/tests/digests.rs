//! An IPv6 address lies in its connection's entry as a digest alone.

use std::sync::Arc;

use engine::conntrack::{
    Entry, Secret, Shard, ShardConfig, State, Timeouts, key_meta, remote_digest, required_state_bits,
};
use engine::counters::{ConnectionCounts, EngineCounters};
use engine::cpu::{Baseline, simd};
use engine::snapshot::{AddressKey, Settings, SnapshotBuilder};
use engine::time::Clock;
use engine::{AddrId, Generation, NicSlot, proto};

#[test]
fn an_ipv6_connection_does_not_answer_to_another_address_of_the_same_digest() {
    let config = ShardConfig {
        capacity: 8,
        unconfirmed: 8,
        all_workers: 8,
        timeouts: Timeouts::default(),
        count: false,
    };
    let (counters, connection_counts) = (Arc::new(EngineCounters::new()), Arc::new(ConnectionCounts::new()));
    let now = Clock::new(config.timeouts.longest()).at(1_000_000_000);
    let mut shard = Shard::new(config, Secret::new([11, 13]), now.tick, counters, connection_counts);
    let (addr, ports, there) = (AddrId::new(0, 0), 53 << 16 | 9, 0x2001_0db8 << 96 | 9);
    let mut draft = SnapshotBuilder::new(Settings::default(), AddressKey::PUBLIC);
    draft.unbind(addr, NicSlot(1));
    let nobody = draft.build(Generation(1), Generation(0), Vec::new);

    let other = there ^ (1 << 64 | 1);
    let meta = key_meta(proto::UDP, true);
    assert_eq!(remote_digest(other, meta), remote_digest(there, meta));
    let key = shard.key(addr, there, ports, proto::UDP, true);
    let mut entry = Entry::new(addr, remote_digest(there, meta), ports, meta, false);
    entry.set_state(State::OneWay);
    let flow = shard.admit(&key, entry, &nobody, now).expect("room for one");

    let demanding = entry.key().with_meta(meta | required_state_bits(Some(State::OneWay)));
    let another_state = entry.key().with_meta(meta | required_state_bits(Some(State::TwoWay)));
    let asked = [(demanding, there, true), (another_state, there, false), (demanding, other, false)];
    for (key, remote, is_it) in asked {
        let mut table = shard.entry_table();
        assert_eq!(table.fast_path_entry(Baseline, flow.0, &key, || remote).is_some(), is_it);
        if let Some(v3) = simd().v3() {
            assert_eq!(table.fast_path_entry(v3, flow.0, &key, || remote).is_some(), is_it);
        }
    }
    assert_eq!(shard.find(&key), Some(flow));
    assert_eq!(shard.find(&shard.key(addr, other, ports, proto::UDP, true)), None);
}
