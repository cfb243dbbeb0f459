//! One worker's firewall under a policy, packet by packet on a clock of the test's own: tests that
//! read like the sentence they hold.

mod restart;

use std::sync::Arc;

use control::commit::Committer;
use control::compile::shard_config;
use control::config::{Config, parse_config};
use control::document::parse_policy;
use control::model::Key;
use engine::burst::{Batch, Firewall, FirewallConfig};
use engine::conntrack::flow_accounting::FlowEvent;
use engine::conntrack::{Liveness, Secret, liveness};
use engine::counters::{ConnectionCounts, EngineCounters};
use engine::held_frames::HeldFrames;
use engine::io::BURST;
use engine::ring::{Consumer, ring};
use engine::snapshot::Snapshot;
use engine::verdict::Verdict;
use engine::{NicSlot, Side, addr_from_bits};

use crate::frame::{Build, tcp};
use crate::persisted::Region;
use crate::sim::SimFrame;
pub use restart::RestartOutcome;

/// A verdict as text: the reason, `by` the rule, `(observed)`; `held` while it waits for a first
/// fragment.
pub fn describe(verdict: &Verdict, committer: &Committer) -> String {
    if verdict.held {
        return "held".to_owned();
    }
    let mut text = verdict.reason.name().to_owned();
    if let Some(rule) = verdict.rule.get().and_then(|rule| committer.compiler().rule(rule)) {
        text += &format!(" by {}", rule.name);
    }
    if verdict.observed {
        text += " (observed)";
    }
    text
}

/// A firewall in the middle of a test.
pub struct Scenario {
    committer: Committer,
    snapshot: Box<Snapshot>,
    firewall: Firewall,
    connection_counts: Arc<ConnectionCounts>,
    alive: Arc<std::sync::atomic::AtomicUsize>,
    now_ns: u64,
    last: Option<Verdict>,
    held: HeldFrames<SimFrame>,
    /// Verdicts on frames that were held, by their numbers, since somebody last asked.
    released: Vec<(usize, String)>,
    frames: usize,
    told: Option<Consumer<FlowEvent>>,
    /// Where its connections lie, if they are to outlive it.
    region: Option<Region>,
    /// Whether the table's books are looked through as it goes.
    is_recounted: bool,
}

/// A policy of one untagged VPC `prod`, of these groups (names and rules) and these NICs (names,
/// addresses and groups).
pub fn policy(groups: &[(&str, &[&str])], nics: &[(&str, &str, &[&str])]) -> String {
    let mut text = String::from("vpcs: [{name: prod, segment: {untagged: true}}]\nsecurity_groups:\n");
    for (name, rules) in groups {
        text += &format!("  - {{name: {name}, rules: [{}]}}\n", rules.join(", "));
    }
    text += "nics:\n";
    for (name, address, groups) in nics {
        text += &format!(
            "  - {{name: {name}, vpc: prod, addresses: [{address}], security_groups: [{}]}}\n",
            groups.join(", ")
        );
    }
    text
}

/// A policy of the NIC `a` (10.0.0.1) in the group `web` with these rules.
pub fn one(rules: &[&str]) -> String {
    policy(&[("web", rules)], &[("a", "10.0.0.1", &["web"])])
}

/// Rules that many tests use.
pub mod rule {
    #![allow(missing_docs)]
    pub const SSH: &str = "{direction: inbound, protocol: tcp, ports: 22}";
    pub const DNS: &str = "{direction: inbound, protocol: udp, ports: 53}";
    pub const PING: &str = "{direction: inbound, protocol: icmp}";
    pub const IN: &str = "{direction: inbound}";
    pub const OUT: &str = "{direction: outbound}";
    pub const OUT6: &str = "{direction: outbound, ethertype: IPv6}";
}

/// Tests count seconds from here, so that nothing rests on the clock beginning at 0.
const EPOCH_NS: u64 = 1_700_000_000_000_000_000;

impl Scenario {
    /// Under the default configuration and a policy document.
    pub fn new(policy: &str) -> Scenario {
        Scenario::with("", policy)
    }

    /// Under a configuration (TOML) and a policy document.
    pub fn with(config: &str, policy: &str) -> Scenario {
        let mut scenario = Scenario::without_policy(config, false);
        scenario.apply(policy);
        scenario
    }

    /// Under the empty policy; with its connections where they outlive it, or not.
    fn without_policy(config: &str, is_kept: bool) -> Scenario {
        let config = parse_config(config, "config").unwrap_or_else(|e| panic!("{e}"));
        let connection_counts = Arc::new(ConnectionCounts::of_one_worker());
        let firewall = firewall_config(&config);
        let region = is_kept.then(|| Region::new(firewall.shard.capacity));
        let memory = region.map(|region| region.memory());
        let firewall = Firewall::with_memory(
            memory,
            &firewall,
            Arc::new(EngineCounters::new()),
            connection_counts.clone(),
        );
        let committer = Committer::new(config);
        let snapshot = Box::new(committer.initial());
        let mut scenario = Scenario {
            committer,
            snapshot,
            firewall,
            connection_counts,
            alive: Arc::default(),
            now_ns: EPOCH_NS,
            last: None,
            held: HeldFrames::default(),
            released: Vec::new(),
            frames: 0,
            is_recounted: true,
            told: None,
            region,
        };
        if scenario.committer.config().conntrack.count {
            let (tells, told) = ring(1 << 12);
            scenario.firewall.export_flows_to(tells, Arc::default());
            scenario.told = Some(told);
        }
        scenario
    }

    /// Goes to a moment, in seconds from the start.
    pub fn at(&mut self, seconds: f64) {
        self.now_ns = EPOCH_NS + (seconds * 1e9) as u64;
    }

    /// Lets time pass.
    pub fn wait(&mut self, seconds: f64) {
        self.now_ns += (seconds * 1e9) as u64;
    }

    /// Applies a policy document. The names of the NICs that it flushes and re-judges.
    pub fn apply(&mut self, policy: &str) -> (Vec<String>, Vec<String>) {
        let limits = self.committer.config().policy.limits;
        let parsed = parse_policy(policy, "policy", &limits).unwrap_or_else(|e| panic!("{e}"));
        let commit = self.committer.commit(parsed.policy, self.now_ns).unwrap_or_else(|e| panic!("{e}"));
        let Some(commit) = commit else { return Default::default() };
        self.snapshot = commit.snapshot;
        (names(&commit.plan.flushed), names(&commit.plan.rejudged))
    }

    /// Goes back to a generation. The names of the NICs that it re-judges.
    pub fn rollback(&mut self, generation: u32) -> Vec<String> {
        let commit = self.committer.rollback(engine::Generation(generation), self.now_ns);
        let Some(commit) = commit.unwrap_or_else(|e| panic!("{e}")) else { return Vec::new() };
        assert!(commit.plan.flushed.is_empty(), "a rollback flushes nothing");
        self.snapshot = commit.snapshot;
        names(&commit.plan.rejudged)
    }

    /// Live inbound connections of a NIC, as they are counted for receipts.
    pub fn live_inbound(&mut self, nic: &str) -> u64 {
        let now = self.firewall.now(self.now_ns);
        self.firewall.begin(&self.snapshot);
        self.firewall.settle_timers(&self.snapshot, now);
        let key = control::model::Key::in_default(nic);
        let identity = self.committer.registry().nic(&key).expect("the NIC is there");
        self.firewall.counters().live_under(identity.slot, identity.live_epoch())
    }

    /// Connections and tombstones of a NIC, as its limit counts them.
    pub fn connection_counts(&mut self, nic: &str) -> u32 {
        self.live_inbound(nic);
        let slot = self.committer.nic_slot(&control::model::Key::in_default(nic));
        self.connection_counts.get(slot.expect("the NIC is there"))
    }

    /// The present generation's number.
    pub fn generation(&self) -> u32 {
        self.committer.generation().0
    }

    /// A frame from the instances; its verdict as text.
    pub fn inside(&mut self, frame: impl Build) -> String {
        self.bytes(Side::Inside, frame.frame())
    }

    /// A frame from the network; its verdict as text.
    pub fn outside(&mut self, frame: impl Build) -> String {
        self.bytes(Side::Outside, frame.frame())
    }

    /// A frame's bytes; the verdict as text.
    pub fn bytes(&mut self, side: Side, bytes: Vec<u8>) -> String {
        let frame = SimFrame::new(0, bytes, &self.alive);
        self.frame(side, frame)
    }

    /// A frame as a device brings it; the verdict as text.
    pub fn frame(&mut self, side: Side, frame: SimFrame) -> String {
        self.judge(vec![(side, frame)]).remove(0)
    }

    /// Judges a burst, and then what was held for something in it.
    fn judge(&mut self, frames: Vec<(Side, SimFrame)>) -> Vec<String> {
        self.end_waits();
        let now = self.firewall.now(self.now_ns);
        self.firewall.begin(&self.snapshot);
        let mut batch = Batch::default();
        for (side, mut frame) in frames {
            frame.id = self.frames;
            self.frames += 1;
            let pkt = self.firewall.read(&mut frame, side, self.snapshot.tunnels, now);
            batch.push(frame, pkt);
        }
        let verdicts = self.judge_batch(&mut batch);
        self.last = batch.verdicts.last().copied();
        batch.clear();
        self.take_up();
        verdicts
    }

    fn judge_batch(&mut self, batch: &mut Batch<SimFrame>) -> Vec<String> {
        self.firewall.judge(&self.snapshot, batch);
        let mut tickets = batch.tickets.iter();
        for ((frame, pkt), verdict) in
            batch.frames.drain(..).zip(batch.pkts.iter()).zip(batch.verdicts.iter())
        {
            if verdict.held {
                self.held.keep(*tickets.next().expect("a ticket for each that is held"), frame, pkt.clone());
            }
        }
        let now = self.firewall.now(self.now_ns);
        self.firewall.upkeep(&self.snapshot, now, false);
        // A large table more rarely, so that recounting takes no more than judging.
        let shard = self.firewall.shard();
        if self.is_recounted
            && self.frames.is_multiple_of(1 + shard.len() as usize / 8)
            && let Some(wrong) = shard.miscount(&self.snapshot)
        {
            panic!("the table's books are wrong: {wrong}");
        }
        let mut verdicts: Vec<_> =
            batch.verdicts.iter().map(|verdict| describe(verdict, &self.committer)).collect();
        for (place, told) in &batch.staged {
            let rule = self.committer.compiler().rule(told.rule).expect("a rule has a name");
            let (would, differs) =
                (if told.allows { "pass" } else { "drop" }, if told.differs { "" } else { ", too" });
            verdicts[*place] += &format!(" (staged: {would} by {}{differs})", rule.name);
        }
        verdicts
    }

    fn end_waits(&mut self) {
        let tick = self.firewall.now(self.now_ns).tick;
        self.firewall.fragment_queue_mut().expire(tick);
        self.take_up();
    }

    fn take_up(&mut self) {
        let now = self.firewall.now(self.now_ns);
        self.firewall.begin(&self.snapshot);
        while self.firewall.fragment_queue().has_released() {
            let (mut batch, mut ids) = (Batch::default(), Vec::new());
            while ids.len() < BURST
                && let Some((frame, pkt, _)) =
                    self.firewall.next_released(&self.snapshot, &mut self.held, now)
            {
                ids.push(frame.id);
                batch.push(frame, pkt);
            }
            let verdicts = self.judge_batch(&mut batch);
            self.released.extend(ids.into_iter().zip(verdicts));
        }
    }

    /// The verdicts on frames that were held, in the order in which they were released, since this
    /// was last asked.
    pub fn released(&mut self) -> Vec<String> {
        self.end_waits();
        std::mem::take(&mut self.released).into_iter().map(|(_, verdict)| verdict).collect()
    }

    /// The same with the frames' numbers, counted from the scenario's first on.
    pub fn released_by_number(&mut self) -> Vec<(usize, String)> {
        self.end_waits();
        std::mem::take(&mut self.released)
    }

    /// A client's TCP handshake with a server behind the firewall: the client has sent up to 1000,
    /// the server up to 5000.
    pub fn connect(&mut self, client: &str, server: &str) {
        self.outside(tcp(client, server).syn().seq(1000).window(8000));
        self.inside(tcp(server, client).syn().seq(5000).ack(1001).window(8000));
        let last = self.outside(tcp(client, server).seq(1001).ack(5001).window(8000));
        assert_eq!(last, "established");
    }

    /// Frames of both sides as one burst; their verdicts.
    pub fn burst(&mut self, frames: &[(Side, Vec<u8>)]) -> Vec<String> {
        let frame = |bytes: &Vec<u8>| SimFrame::new(0, bytes.clone(), &self.alive);
        let frames = frames.iter().map(|(side, bytes)| (*side, frame(bytes))).collect();
        self.judge(frames)
    }

    /// What a staged rule has counted: packets that it would let open a connection, of them those
    /// that were refused, packets that it would deny, and of them those that opened one.
    pub fn staged(&self, group: &str, position: usize) -> [u64; 4] {
        let key = Key::in_default(group);
        let meaning = self.committer.policy().security_groups[&key].rules[position].meaning();
        let rule = self.committer.compiler().numbers().of(&key, &meaning).expect("a NIC has the rule");
        let rules = &self.firewall.counters().rules;
        let [pass_dropped, drop_passed] = rules.differing(rule);
        [rules.opened(rule), pass_dropped, rules.denied(rule), drop_passed]
    }

    /// The firewall.
    pub fn firewall(&self) -> &Firewall {
        &self.firewall
    }

    /// One turn of a worker that received nothing.
    pub fn idle(&mut self) {
        let now = self.firewall.now(self.now_ns);
        self.firewall.begin(&self.snapshot);
        self.firewall.upkeep(&self.snapshot, now, true);
    }

    /// What it has told since somebody last asked, everything that lasts included, with
    /// `[conntrack] count`: of connections how they ended, packets and bytes inbound, and outbound;
    /// of refusals the reason, packets and bytes.
    pub fn told(&mut self) -> Vec<String> {
        self.idle();
        assert!(self.firewall.export_all_flows(&self.snapshot));
        let mut lines = Vec::new();
        if let Some(told) = &mut self.told {
            told.take(usize::MAX, |told| {
                lines.push(match told {
                    FlowEvent::Connection(told) => {
                        let ([out, inb], [out_bytes, in_bytes]) = (told.sums.packets, told.sums.bytes);
                        format!("{} {inb}/{in_bytes} {out}/{out_bytes}", told.why.name())
                    }
                    FlowEvent::Refusal(told, _) => {
                        format!("{} {}/{}", told.tuple.reason.name(), told.packets, told.bytes)
                    }
                });
            });
        }
        lines
    }

    /// The NIC of the last verdict.
    pub fn nic(&self) -> Option<String> {
        let slot = self.last?.nic;
        (slot != NicSlot::NONE).then(|| self.committer.nic_name(slot).unwrap_or_default().to_string())
    }

    /// True if the last frame went on.
    pub fn passed(&self) -> bool {
        self.last.is_some_and(|verdict| verdict.passes())
    }

    /// Every connection now: NIC, who opened it, protocol, local, remote, state, seconds left,
    /// `tombstone`.
    pub fn connections(&mut self) -> Vec<String> {
        let now = self.firewall.now(self.now_ns);
        self.firewall.begin(&self.snapshot);
        self.firewall.settle_timers(&self.snapshot, now);
        let shard = self.firewall.shard();
        let mut lines = Vec::new();
        shard.list(0, u32::MAX, |flow, entry| {
            let binding = self.snapshot.binding(entry.addr);
            let liveness = liveness(entry, binding, &self.snapshot);
            if liveness == Liveness::Ended {
                return;
            }
            let nic = self.committer.nic_name(binding.nic).unwrap_or_default();
            let opened = if entry.is_inbound() { "inbound" } else { "outbound" };
            let remote = addr_from_bits(shard.remote(flow), entry.is_v6());
            let local = addr_from_bits(binding.addr, entry.is_v6());
            let left = f64::from(entry.deadline.wrapping_sub(now.tick)) / 8.0;
            let tombstone = if liveness == Liveness::Tombstone { " tombstone" } else { "" };
            lines.push(format!(
                "{nic} {opened} {} {local}:{} {remote}:{} {} {left:.1}{tombstone}",
                entry.protocol(),
                entry.ports >> 16,
                entry.ports & 0xFFFF,
                entry.state().name(),
            ));
        });
        lines.sort();
        lines
    }

    /// Entries in the table.
    pub fn len(&self) -> u32 {
        self.firewall.shard().len()
    }

    /// True without entries.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

fn names(keys: &std::collections::BTreeSet<control::model::Key>) -> Vec<String> {
    keys.iter().map(ToString::to_string).collect()
}

fn firewall_config(config: &Config) -> FirewallConfig {
    let grace_end_ns = EPOCH_NS + config.conntrack.pickup_grace.as_nanos() as u64;
    FirewallConfig { shard: shard_config(config, 0, 1), secret: Secret::new([11, 13]), grace_end_ns }
}
