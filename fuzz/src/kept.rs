//! What a process leaves for the next one, with any bytes in it: not read, or read in part; never a
//! connection that was not there.
//!
//! The first byte chooses: the control side's file as it is, the same with a head that fits, or
//! changes of a good table (see `patched`), which another table then takes up.

use std::collections::BTreeSet;
use std::sync::{Arc, LazyLock};

use control::commit::Committer;
use control::compile::shard_config;
use control::config::{Config, parse_config};
use control::document::{Limits, parse_policy};
use control::live::begin;
use control::persisted::{PersistedState, Tables};
use engine::burst::{Batch, Firewall, FirewallConfig};
use engine::conntrack::Secret;
use engine::conntrack::restore::{self, ExpectedTable, PreviousProcess, SavedConnection};
use engine::counters::{ConnectionCounts, EngineCounters};
use engine::snapshot::Snapshot;
use engine::{Generation, Side};
use testkit::frame::{Build, tcp, udp};
use testkit::persisted::Region;
use testkit::rng::Rng;
use testkit::sim::SimFrame;
use xxhash_rust::xxh3::xxh3_64;

const POLICY: &str = "
vpcs: [{ name: prod, segment: { untagged: true } }]
security_groups: [{ name: a, rules: [{ direction: inbound }, { direction: outbound }] }]
nics: [{ name: one, vpc: prod, addresses: [10.0.0.1, \"2001:db8::1\"], security_groups: [a] }]
";
const CAPACITY: u32 = 64;
/// Bytes of the head of the control side's file: magic and format, length, checksum.
const HEAD: [usize; 3] = [12, 20, 28];

struct Good {
    state: Vec<u8>,
    table: Vec<u8>,
    belongs: ExpectedTable,
    now_ns: u64,
    /// Who its connections are of.
    ends: BTreeSet<Ends>,
}

type Ends = (u32, u128, u32, u8);

fn ends(kept: &SavedConnection) -> Ends {
    let entry = kept.entry();
    (kept.addr().0, kept.remote(), entry.ports, entry.protocol())
}

fn config() -> Config {
    let text = format!("[conntrack]\ncapacity = {CAPACITY}\nunconfirmed_share = 1.0\n");
    parse_config(&text, "config").expect("a configuration")
}

fn firewall(config: &Config, memory: Option<engine::conntrack::persist::PersistentMemory>) -> Firewall {
    let firewall =
        FirewallConfig { shard: shard_config(config, 0, 1), secret: Secret::new([5, 6]), grace_end_ns: 0 };
    Firewall::with_memory(
        memory,
        &firewall,
        Arc::new(EngineCounters::new()),
        Arc::new(ConnectionCounts::of_one_worker()),
    )
}

fn committed() -> (Committer, Box<Snapshot>) {
    let mut committer = Committer::new(config());
    let policy = parse_policy(POLICY, "policy", &Limits::default()).expect("a policy").policy;
    let commit = committer.commit(policy, 0).expect("room").expect("it changes something");
    (committer, commit.snapshot)
}

static GOOD: LazyLock<Good> = LazyLock::new(|| {
    let (committer, snapshot) = committed();
    let region = Region::new(CAPACITY);
    let mut firewall = firewall(committer.config(), Some(region.memory()));
    let alive = Arc::default();
    let both = |port: u16| [format!("10.0.0.9:{port}"), format!("[2001:db8::9]:{port}")];
    let mut frames: Vec<(Side, Vec<u8>)> = Vec::new();
    for port in 1000..1006 {
        for (remote, local) in both(port).into_iter().zip(["10.0.0.1:22", "[2001:db8::1]:22"]) {
            frames.push((Side::Outside, tcp(remote.as_str(), local).syn().seq(1).frame()));
            frames.push((Side::Inside, tcp(local, remote.as_str()).syn().seq(9).ack(2).frame()));
            frames.push((Side::Outside, tcp(remote.as_str(), local).seq(2).ack(10).frame()));
            frames.push((Side::Inside, udp(local, remote.as_str()).frame()));
        }
    }
    firewall.begin(&snapshot);
    for (id, (side, bytes)) in frames.into_iter().enumerate() {
        let mut frame = SimFrame::new(id, bytes, &alive);
        let now = firewall.now(1_000_000 * id as u64);
        let pkt = firewall.read(&mut frame, side, snapshot.tunnels, now);
        let mut batch = Batch::default();
        batch.push(frame, pkt);
        firewall.judge(&snapshot, &mut batch);
        firewall.upkeep(&snapshot, now, false);
    }
    let tables =
        Tables { set: region.birth().set, files: vec!["table-1-0".to_owned()], boot: region.birth().boot };
    let belongs = ExpectedTable { set: tables.set, boot: tables.boot, generation: committer.generation() };
    let (table, now_ns) = (region.bytes(), region.birth().epoch_ns + 100_000_000);
    let reading = restore::read(&table, &belongs, now_ns).expect("it is good");
    assert!(reading.unverifiable == 0 && reading.connections.len() > 20, "{}", reading.connections.len());
    let ends = reading.connections.iter().map(ends).collect();
    Good { state: PersistedState::of(&committer, &tables).encode(), table, belongs, now_ns, ends }
});

/// Reads it.
pub fn run(bytes: &[u8]) {
    let Some((which, rest)) = bytes.split_first() else { return };
    match which % 3 {
        0 => state(rest),
        1 => {
            let mut whole = GOOD.state[..HEAD[0]].to_vec();
            whole.extend_from_slice(&(rest.len() as u64).to_le_bytes());
            whole.extend_from_slice(&xxh3_64(rest).to_le_bytes());
            whole.extend_from_slice(rest);
            state(&whole);
        }
        _ => table(&crate::patched(&GOOD.table, rest)),
    }
}

/// Begins with it, as a start does.
fn state(bytes: &[u8]) {
    match PersistedState::decode(bytes) {
        Ok(state) => drop(begin(Config::default(), None, None, Some(state), false)),
        Err(why) => assert!(!why.is_empty()),
    }
}

fn table(bytes: &[u8]) {
    let good = &*GOOD;
    let Ok(reading) = restore::read(bytes, &good.belongs, good.now_ns) else { return };
    let count = reading.connections.len() as u64;
    assert!(count + reading.expired + reading.unverifiable <= u64::from(CAPACITY));
    for connection in &reading.connections {
        assert!(
            good.ends.contains(&ends(connection)),
            "a connection that was not there: {:?}",
            ends(connection)
        );
    }
    let (committer, snapshot) = committed();
    let mut next = firewall(committer.config(), None);
    let since = PreviousProcess { generation: Generation(good.belongs.generation.0), zero_ns: good.now_ns };
    let taken = next.restore(reading.connections, &since, &snapshot, 0);
    let all =
        taken.live + taken.tombstones + taken.ended + taken.expired + taken.unverifiable + taken.left_out;
    assert_eq!(all, count, "{taken:?}");
}

/// Good ones, and a few bytes of the table changed.
pub fn seeds() -> Vec<Vec<u8>> {
    let good = &*GOOD;
    let mut seeds = vec![[&[0], &good.state[..]].concat(), [&[1], &good.state[HEAD[2]..]].concat(), vec![2]];
    let used: Vec<usize> = (0..good.table.len()).filter(|at| good.table[*at] != 0).collect();
    let mut rng = Rng::new(1);
    seeds.extend((0..60).map(|_| {
        let at = (rng.pick(&used) as u32).to_le_bytes();
        vec![2, at[0], at[1], at[2], 1, rng.u8()]
    }));
    seeds
}
