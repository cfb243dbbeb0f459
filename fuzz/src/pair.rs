//! The engine and the oracle beside each other: the same frames under the same policies, verdict by
//! verdict.

use std::collections::BTreeMap;
use std::sync::Arc;

use control::commit::Committer;
use control::compile::shard_config;
use control::config::Config;
use control::document::parse_policy;
use engine::burst::{Batch, Firewall, FirewallConfig};
use engine::conntrack::{Secret, ShardConfig};
use engine::counters::{ConnectionCounts, EngineCounters};
use engine::held_frames::HeldFrames;
use engine::io::{BURST, Frame};
use engine::snapshot::Snapshot;
use engine::time::TICK_NS;
use engine::{NicSlot, Side};
use testkit::oracle::{FrameView, Oracle, Verdict};
use testkit::traffic::Arrival;

const EPOCH_NS: u64 = 1_700_000_000_000_000_000;

struct Bytes {
    id: usize,
    data: Vec<u8>,
    wire_len: usize,
}

impl Frame for Bytes {
    fn head(&self) -> &[u8] {
        &self.data
    }

    fn captured(&self) -> usize {
        self.data.len()
    }

    fn wire_len(&self) -> usize {
        self.wire_len
    }
}

/// Both, at the same moment.
pub struct Pair {
    committer: Committer,
    snapshot: Box<Snapshot>,
    firewall: Firewall,
    oracle: Oracle,
    now_ns: u64,
    held: HeldFrames<Bytes>,
    waiting: Vec<(Bytes, u64, Side)>,
    has_held: bool,
    frames: usize,
    /// Of each frame: what was expected and what came of it, once it is settled.
    expected: BTreeMap<usize, Verdict>,
    got: BTreeMap<usize, Verdict>,
}

impl Pair {
    pub fn new(config: Config) -> Pair {
        let capacity = config.conntrack.capacity;
        let shard = ShardConfig { unconfirmed: capacity, ..shard_config(&config, 0, 1) };
        let firewall = FirewallConfig { shard, secret: Secret::new([0x0123, 0x4567]), grace_end_ns: 0 };
        let connection_counts = Arc::new(ConnectionCounts::of_one_worker());
        let oracle = Oracle::new(&config, EPOCH_NS, 1);
        let committer = Committer::new(config);
        Pair {
            snapshot: Box::new(committer.initial()),
            firewall: Firewall::new(&firewall, Arc::new(EngineCounters::new()), connection_counts),
            committer,
            oracle,
            now_ns: EPOCH_NS,
            held: HeldFrames::default(),
            waiting: Vec::new(),
            has_held: false,
            frames: 0,
            expected: BTreeMap::new(),
            got: BTreeMap::new(),
        }
    }

    /// Has both judge by this document from here on; false if it is refused.
    pub fn apply(&mut self, document: &str) -> bool {
        self.judge();
        self.settle();
        let limits = self.committer.config().policy.limits;
        let Ok(parsed) = parse_policy(document, "policy", &limits) else { return false };
        if let Some(generation) = self.oracle.commit(&parsed.policy, self.now_ns) {
            self.oracle.adopt(0, generation);
        }
        let committed = self.committer.commit(parsed.policy, self.now_ns).expect("room for a few NICs");
        if let Some(commit) = committed {
            self.snapshot = commit.snapshot;
        }
        true
    }

    /// A frame comes in, and is judged with those of its burst.
    pub fn frame(&mut self, arrival: Arrival, burst: usize) {
        let at_ns = self.oracle.clear_of_deadlines(self.now_ns + arrival.wait_ns);
        if (self.oracle.is_holding() || self.has_held) && at_ns - self.now_ns > TICK_NS {
            // Both let go what waits too long before they judge what comes then.
            self.judge();
            self.now_ns = at_ns;
            self.settle();
        }
        self.now_ns = at_ns;
        let id = self.frames;
        self.frames += 1;
        let expected = self.oracle.judge(&FrameView {
            worker: 0,
            time_ns: at_ns,
            side: arrival.side,
            frame: &arrival.frame,
            original_len: arrival.original_len,
            refusal: None,
            holds: Some(id),
            in_vain: false,
        });
        self.has_held |= expected.held;
        self.expected.insert(id, expected);
        let frame = Bytes { id, data: arrival.frame, wire_len: arrival.original_len };
        self.waiting.push((frame, at_ns, arrival.side));
        self.oracle_settles();
        if self.waiting.len() >= burst {
            self.judge();
        }
    }

    /// Everything is judged, and whatever waits for its first fragment has waited in vain.
    pub fn end(mut self) {
        self.judge();
        self.now_ns = self.oracle.clear_of_deadlines(self.now_ns + 1_000_000_000);
        self.settle();
        assert!(self.expected.is_empty() && self.got.is_empty(), "{:?}\n{:?}", self.expected, self.got);
        let now = self.firewall.now(self.now_ns);
        self.firewall.begin(&self.snapshot);
        self.firewall.settle_timers(&self.snapshot, now);
    }

    fn oracle_settles(&mut self) {
        for (id, expected) in self.oracle.settled(self.now_ns) {
            self.has_held = true;
            self.expected.insert(id, expected);
        }
    }

    /// The engine judges the burst, and what waited for something in it.
    fn judge(&mut self) {
        if self.waiting.is_empty() {
            return;
        }
        self.firewall.begin(&self.snapshot);
        let mut batch = Batch::default();
        for (mut frame, at_ns, side) in std::mem::take(&mut self.waiting) {
            let now = self.firewall.now(at_ns);
            let pkt = self.firewall.read(&mut frame, side, self.snapshot.tunnels, now);
            batch.push(frame, pkt);
        }
        self.has_held = false;
        self.judge_batch(&mut batch);
        self.take_up();
    }

    /// Time has gone by: what waited too long waits no more.
    fn settle(&mut self) {
        self.oracle_settles();
        let tick = self.firewall.now(self.now_ns).tick;
        self.firewall.fragment_queue_mut().expire(tick);
        self.take_up();
    }

    fn take_up(&mut self) {
        let now = self.firewall.now(self.now_ns);
        while self.firewall.fragment_queue().has_released() {
            let mut batch = Batch::default();
            while batch.frames.len() < BURST
                && let Some((frame, pkt, _)) =
                    self.firewall.next_released(&self.snapshot, &mut self.held, now)
            {
                batch.push(frame, pkt);
            }
            self.judge_batch(&mut batch);
        }
        // Both hold the same, now that everything is judged.
        for (id, got) in &self.got {
            assert!(got.held && self.expected[id].held, "frame {id}: {got:?}, {:?}", self.expected[id]);
        }
        assert_eq!(self.expected.len(), self.got.len(), "{:?}\n{:?}", self.expected, self.got);
    }

    fn judge_batch(&mut self, batch: &mut Batch<Bytes>) {
        self.firewall.judge(&self.snapshot, batch);
        let mut tickets = batch.tickets.iter();
        let frames = std::mem::take(&mut *batch.frames);
        let mut staged = batch.staged.iter().peekable();
        let judged = frames.into_iter().zip(batch.pkts.iter()).zip(batch.verdicts.iter());
        for (place, ((frame, pkt), verdict)) in judged.enumerate() {
            let (id, mut got) = (frame.id, self.named(pkt.side, verdict));
            got.staged = staged
                .next_if(|(at, _)| *at == place)
                .map(|(_, told)| (self.rule_name(told.rule), told.allows));
            if verdict.held {
                let ticket = tickets.next().expect("a ticket for each that is held");
                self.held.keep(*ticket, frame, pkt.clone());
                self.got.insert(id, got);
                continue;
            }
            let expected = self.expected.remove(&id).expect("the oracle has judged it");
            self.got.remove(&id);
            assert_eq!(got, expected, "frame {id} (left: the engine, right: the oracle)");
        }
        let now = self.firewall.now(self.now_ns);
        self.firewall.upkeep(&self.snapshot, now, false);
    }

    fn named(&self, side: Side, got: &engine::verdict::Verdict) -> Verdict {
        let nobody = got.nic == NicSlot::NONE;
        let nic =
            (!nobody).then(|| self.committer.nic_name(got.nic).map_or("?".to_owned(), |n| n.to_string()));
        Verdict {
            pass: got.passes(),
            observed: got.observed,
            reason: got.reason.name(),
            direction: nic.is_some().then(|| side.direction()),
            nic,
            rule: got.rule.get().map(|rule| self.rule_name(rule)),
            staged: None,
            ambiguous: false,
            stray: false,
            forgotten: false,
            held: got.held,
        }
    }

    fn rule_name(&self, rule: engine::RuleId) -> String {
        self.committer.compiler().rule(rule).map_or("?".to_owned(), |named| named.name.to_string())
    }
}
