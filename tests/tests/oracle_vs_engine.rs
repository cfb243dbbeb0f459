//! The engine against the oracle: the same traffic under the same changing policy, verdict by verdict.
//!
//! `ORACLE_SEEDS=5000` runs more seeds; `ORACLE_SEED=17` runs one alone, `ORACLE_TAIL=500` tells more of it. A failing seed prints itself, and what led to the
//! first verdict that differs: nothing behind that one is judged, so the run is its own shortest failing prefix.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::Arc;

use control::commit::Committer;
use control::compile::shard_config;
use control::config::parse_config;
use control::document::parse_policy;
use engine::burst::{Batch, Firewall, FirewallConfig};
use engine::conntrack::{Secret, ShardConfig};
use engine::counters::{ConnectionCounts, EngineCounters};
use engine::held_frames::HeldFrames;
use engine::io::{BURST, Frame};
use engine::snapshot::Snapshot;
use engine::time::TICK_NS;
use engine::{NicSlot, RuleId, Side};
use testkit::oracle::{FrameView, Oracle, Verdict};
use testkit::rng::Rng;
use testkit::traffic::{Arrival, Event, Traffic};

const EPOCH_NS: u64 = 1_700_000_000_000_000_000;

/// A frame in memory.
struct Bytes {
    /// Its number.
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

/// A frame that waits in the burst.
struct Waiting {
    id: usize,
    at_ns: u64,
    arrival: Arrival,
}

/// A frame that one of the two has judged, or both.
#[derive(Default)]
struct Judged {
    at_ns: u64,
    arrival: Option<Arrival>,
    expected: Option<Verdict>,
    got: Option<Verdict>,
}

/// Both firewalls, side by side.
struct Pair {
    committer: Committer,
    snapshot: Box<Snapshot>,
    firewall: Firewall,
    connection_counts: Arc<ConnectionCounts>,
    oracle: Oracle,
    now_ns: u64,
    burst: Vec<Waiting>,
    held: HeldFrames<Bytes>,
    /// A fragment of this burst waits, or has waited: what it waited for is still known when the burst is judged.
    has_held: bool,
    frames: usize,
    /// What only one of them has judged so far: of fragments that wait for their first.
    judged: BTreeMap<usize, Judged>,
    /// What happened, for the report: the flow (0: everybody's) and a line.
    story: Vec<(u32, String)>,
    reasons: BTreeMap<&'static str, u64>,
}

impl Pair {
    fn new(config: &str) -> Pair {
        let config = parse_config(config, "config").unwrap_or_else(|e| panic!("{e}\n{config}"));
        let capacity = config.conntrack.capacity;
        let shard = ShardConfig { unconfirmed: capacity, ..shard_config(&config, 0, 1) };
        let firewall = FirewallConfig { shard, secret: Secret::new([0x0123, 0x4567]), grace_end_ns: 0 };
        let connection_counts = Arc::new(ConnectionCounts::of_one_worker());
        let oracle = Oracle::new(&config, EPOCH_NS, 1);
        let committer = Committer::new(config);
        Pair {
            snapshot: Box::new(committer.initial()),
            firewall: Firewall::new(&firewall, Arc::new(EngineCounters::new()), connection_counts.clone()),
            connection_counts,
            committer,
            oracle,
            now_ns: EPOCH_NS,
            burst: vec![],
            held: HeldFrames::default(),
            has_held: false,
            frames: 0,
            judged: BTreeMap::new(),
            story: vec![],
            reasons: BTreeMap::new(),
        }
    }

    /// Applies a document to both; false if it is refused.
    fn apply(&mut self, document: &str, what: &str) -> Result<bool, String> {
        self.flush()?;
        self.settle()?;
        let limits = self.committer.config().policy.limits;
        let Ok(parsed) = parse_policy(document, "policy", &limits) else { return Ok(false) };
        if let Some(generation) = self.oracle.commit(&parsed.policy, self.now_ns) {
            self.oracle.adopt(0, generation);
        }
        let committed = self.committer.commit(parsed.policy, self.now_ns).expect("room for a few NICs");
        let mut line = format!("-- {what}: nothing changes");
        if let Some(commit) = committed {
            line = format!(
                "-- {what}: flushed {:?} rejudged {:?} ended {:?}",
                names(&commit.plan.flushed),
                names(&commit.plan.rejudged),
                names(&commit.plan.ended)
            );
            self.snapshot = commit.snapshot;
        }
        self.story.push((0, line));
        Ok(true)
    }

    /// A frame comes in: the oracle judges it at once, the engine with the rest of its burst.
    fn frame(&mut self, arrival: Arrival, burst: usize) -> Result<(), String> {
        let at_ns = self.oracle.clear_of_deadlines(self.now_ns + arrival.wait_ns);
        if (self.oracle.is_holding() || self.has_held) && at_ns - self.now_ns > TICK_NS {
            // Both let go what waits too long before they judge what comes then.
            self.flush()?;
            self.now_ns = at_ns;
            self.settle()?;
        }
        self.now_ns = at_ns;
        let id = self.frames;
        self.frames += 1;
        let expected = self.oracle.judge(&FrameView {
            worker: 0,
            time_ns: self.now_ns,
            side: arrival.side,
            frame: &arrival.frame,
            original_len: arrival.original_len,
            refusal: None,
            holds: Some(id),
            in_vain: false,
        });
        assert!(!expected.ambiguous, "the clock kept clear of deadlines");
        self.has_held |= expected.held;
        let what = if expected.held { "held" } else { expected.reason };
        *self.reasons.entry(what).or_default() += 1;
        self.judged.insert(
            id,
            Judged { at_ns, arrival: Some(arrival.clone()), expected: Some(expected), got: None },
        );
        self.burst.push(Waiting { id, at_ns: self.now_ns, arrival });
        self.oracle_settles();
        if self.burst.len() >= burst { self.flush() } else { Ok(()) }
    }

    /// What the oracle held, and holds no more.
    fn oracle_settles(&mut self) {
        for (id, expected) in self.oracle.settled(self.now_ns) {
            self.has_held = true;
            *self.reasons.entry(expected.reason).or_default() += 1;
            self.judged.entry(id).or_default().expected = Some(expected);
        }
    }

    /// The engine judges the burst, and both what waited for something in it; the first verdict that differs is the end.
    fn flush(&mut self) -> Result<(), String> {
        if self.burst.is_empty() {
            return Ok(());
        }
        self.firewall.begin(&self.snapshot);
        let mut batch = Batch::default();
        for waiting in std::mem::take(&mut self.burst) {
            let Waiting { id, at_ns, arrival } = waiting;
            let now = self.firewall.now(at_ns);
            let mut frame = Bytes { id, data: arrival.frame, wire_len: arrival.original_len };
            let pkt = self.firewall.read(&mut frame, arrival.side, self.snapshot.tunnels, now);
            batch.push(frame, pkt);
        }
        self.has_held = false;
        self.judge(&mut batch)?;
        self.take_up()
    }

    /// Time has gone by: what waited too long waits no more.
    fn settle(&mut self) -> Result<(), String> {
        self.oracle_settles();
        let tick = self.firewall.now(self.now_ns).tick;
        self.firewall.fragment_queue_mut().expire(tick);
        self.take_up()
    }

    fn take_up(&mut self) -> Result<(), String> {
        let now = self.firewall.now(self.now_ns);
        while self.firewall.fragment_queue().has_released() {
            let mut batch = Batch::default();
            while batch.frames.len() < BURST
                && let Some((frame, pkt, _)) =
                    self.firewall.next_released(&self.snapshot, &mut self.held, now)
            {
                batch.push(frame, pkt);
            }
            self.judge(&mut batch)?;
        }
        // Both hold the same, now that everything is judged.
        let differs = |judged: &Judged| {
            let is_held = |verdict: &Option<Verdict>| verdict.as_ref().is_some_and(|verdict| verdict.held);
            !is_held(&judged.expected) || !is_held(&judged.got)
        };
        match self.judged.iter().find(|(_, judged)| differs(judged)) {
            Some((id, _)) => Err(self.difference(*id)),
            None => Ok(()),
        }
    }

    fn judge(&mut self, batch: &mut Batch<Bytes>) -> Result<(), String> {
        self.firewall.judge(&self.snapshot, batch);
        let mut tickets = batch.tickets.iter();
        let frames = std::mem::take(&mut *batch.frames);
        let mut staged = batch.staged.iter().peekable();
        let judged = frames.into_iter().zip(batch.pkts.iter()).zip(batch.verdicts.iter());
        for (place, ((frame, pkt), verdict)) in judged.enumerate() {
            let (id, mut got) = (frame.id, self.named(pkt.side, verdict));
            got.staged = staged.next_if(|(at, _)| *at == place).map(|(_, told)| {
                *self.reasons.entry("staged").or_default() += 1;
                assert_eq!(told.differs, told.allows != (got.reason == "new"), "frame {id}");
                (self.rule_name(told.rule), told.allows)
            });
            if verdict.held {
                let ticket = tickets.next().expect("a ticket for each that is held");
                self.held.keep(*ticket, frame, pkt.clone());
            }
            self.got(id, got)?;
        }
        let now = self.firewall.now(self.now_ns);
        self.firewall.upkeep(&self.snapshot, now, false);
        Ok(())
    }

    /// The engine's verdict on a frame. Whether it is right is known once the oracle's is.
    fn got(&mut self, id: usize, got: Verdict) -> Result<(), String> {
        let judged = self.judged.entry(id).or_default();
        judged.got = Some(got.clone());
        if got.held {
            return Ok(());
        }
        let Some(expected) = judged.expected.clone() else { return Err(self.difference(id)) };
        if let Some(Arrival { side, what, flow, .. }) = &judged.arrival {
            let at = (judged.at_ns - EPOCH_NS) as f64 / 1e9;
            self.story.push((*flow, format!("{at:>12.6} {side:?} {what} → {}", brief(&expected))));
        }
        if got != expected {
            return Err(self.difference(id));
        }
        self.judged.remove(&id);
        Ok(())
    }

    fn difference(&self, id: usize) -> String {
        let Judged { at_ns, arrival, expected, got } = &self.judged[&id];
        let tell = |verdict: &Option<Verdict>| verdict.as_ref().map_or("nothing".to_owned(), brief);
        let (flow, what, frame) =
            arrival.as_ref().map_or((0, "", &[][..]), |a| (a.flow, a.what.as_str(), &a.frame[..]));
        format!(
            "frame {id} of {}: {what}\nexpected {}\n     got {}\n{}\nframe {}",
            (at_ns - EPOCH_NS) as f64 / 1e9,
            tell(expected),
            tell(got),
            self.tail(flow, what),
            hex(frame)
        )
    }

    /// The engine's verdict by names.
    fn named(&self, side: Side, got: &engine::verdict::Verdict) -> Verdict {
        let nobody = got.nic == NicSlot::NONE;
        let nic =
            (!nobody).then(|| self.committer.nic_name(got.nic).map_or("?".to_owned(), |n| n.to_string()));
        let rule = got.rule.get().map(|rule| self.rule_name(rule));
        Verdict {
            pass: got.passes(),
            observed: got.observed,
            reason: got.reason.name(),
            direction: nic.is_some().then(|| side.direction()),
            nic,
            rule,
            staged: None,
            ambiguous: false,
            stray: false,
            forgotten: false,
            held: got.held,
        }
    }

    fn rule_name(&self, rule: RuleId) -> String {
        self.committer.compiler().rule(rule).map_or("?".to_owned(), |named| named.name.to_string())
    }

    /// At the end both hold the same connections.
    fn same_population(&mut self) -> Result<(), String> {
        let now = self.firewall.now(self.now_ns);
        self.firewall.begin(&self.snapshot);
        self.firewall.settle_timers(&self.snapshot, now);
        let views = self.oracle.connections(0, self.committer.generation().0, self.now_ns, true);
        for key in self.committer.policy().nics.keys() {
            let expected = views.iter().filter(|view| view.id.nic == key.to_string()).count();
            let slot = self.committer.nic_slot(key).expect("a NIC of the policy has a place");
            let got = self.connection_counts.get(slot);
            if got as usize != expected {
                let of_nic: Vec<_> = views.iter().filter(|view| view.id.nic == key.to_string()).collect();
                return Err(format!(
                    "the engine counts {got} connections of {of_nic:#?}\n{}",
                    self.tail(0, "")
                ));
            }
        }
        Ok(())
    }

    /// The last events of this flow, and the changes between them.
    fn tail(&self, flow: u32, what: &str) -> String {
        let of_flow = |(of, line): &&(u32, String)| {
            flow == 0 || *of == flow || line.starts_with("--") || line.contains(what)
        };
        let lines: Vec<&str> = self.story.iter().filter(of_flow).map(|(_, line)| line.as_str()).collect();
        let most = number("ORACLE_TAIL").unwrap_or(15) as usize;
        lines[lines.len().saturating_sub(most)..].join("\n")
    }
}

fn names(keys: &std::collections::BTreeSet<control::model::Key>) -> Vec<String> {
    keys.iter().map(ToString::to_string).collect()
}

fn brief(verdict: &Verdict) -> String {
    let mut text = verdict.reason.to_owned();
    if let Some(nic) = &verdict.nic {
        let _ = write!(text, " of {nic} {:?}", verdict.direction);
    }
    if let Some(rule) = &verdict.rule {
        let _ = write!(text, " by {rule}");
    }
    if verdict.observed {
        text.push_str(" (observed)");
    }
    if let Some((rule, allows)) = &verdict.staged {
        let _ = write!(text, " (staged: {rule}, {})", if *allows { "pass" } else { "drop" });
    }
    if verdict.held {
        text.push_str(" (held)");
    }
    text
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().take(160).map(|byte| format!("{byte:02x}")).collect()
}

/// One seed from its first packet to its last.
fn run(seed: u64, reasons: &mut BTreeMap<&'static str, u64>) -> Result<(), String> {
    let mut traffic = Traffic::new(seed);
    let shapes = &mut Rng::new(!seed);
    let config = traffic.config();
    let mut pair = Pair::new(&config);
    let mut document = traffic.policy();
    let result = (|| {
        if !pair.apply(&document, "the first policy")? {
            // Two peered VPCs that hold the same address, say: nothing to see here.
            return Ok(());
        }
        let mut size = 1 + shapes.below(BURST);
        for _ in 0..200 + shapes.below(400) {
            match traffic.event() {
                Event::Policy(text, what) => {
                    if pair.apply(&text, what)? {
                        document = text;
                    } else {
                        traffic.refuse();
                    }
                }
                Event::Frame(arrival) => pair.frame(arrival, size)?,
            }
            if pair.burst.is_empty() {
                size = 1 + if shapes.one_in(2) { shapes.below(BURST) } else { 0 };
            }
        }
        pair.flush()?;
        // Whatever waits still waits in vain.
        pair.now_ns = pair.oracle.clear_of_deadlines(pair.now_ns + 1_000_000_000);
        pair.settle()?;
        if let Some((id, judged)) = pair.judged.iter().next() {
            return Err(format!("frame {id}: expected {:?}\n     got {:?}", judged.expected, judged.got));
        }
        pair.same_population()
    })();
    for (reason, n) in pair.reasons {
        *reasons.entry(reason).or_default() += n;
    }
    result.map_err(|why| format!("seed {seed}\n{why}\n{config}\n{document}"))
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|value| value.parse().unwrap_or_else(|_| panic!("{name} is no number")))
}

/// What is compiled for more than one set of instructions: all other tests run with all that the processor has.
#[test]
fn without_vectors_the_engine_says_what_the_oracle_says() {
    let ran = std::process::Command::new(std::env::current_exe().expect("a path"))
        .args(["--exact", "the_engine_says_what_the_oracle_says"])
        .envs([("PORTCULLIS_SIMD", "baseline"), ("ORACLE_SEEDS", "50")])
        .output()
        .expect("it runs");
    let told = String::from_utf8_lossy(&ran.stdout);
    assert!(
        ran.status.success() && told.contains("1 passed"),
        "{told}{}",
        String::from_utf8_lossy(&ran.stderr)
    );
}

#[test]
fn the_engine_says_what_the_oracle_says() {
    let mut reasons = BTreeMap::new();
    if let Some(seed) = number("ORACLE_SEED") {
        run(seed, &mut reasons).unwrap_or_else(|why| panic!("{why}"));
        return;
    }
    let seeds = number("ORACLE_SEEDS").unwrap_or(200);
    let first = number("ORACLE_FIRST").unwrap_or(0);
    let mut failed = vec![];
    for seed in first..first + seeds {
        if let Err(why) = run(seed, &mut reasons) {
            failed.push(why);
            if failed.len() as u64 == number("ORACLE_FAILURES").unwrap_or(1) {
                break;
            }
        }
    }
    println!("{} packets: {reasons:?}", reasons.values().sum::<u64>());
    assert!(failed.is_empty(), "{} seeds differ\n{}", failed.len(), failed.join("\n\n"));
    // Every reason is met that the table's size does not decide: what is never met is not compared.
    if seeds >= 200 {
        for reason in engine::Reason::ALL.iter().map(|reason| reason.name()) {
            let never = matches!(reason, "table-full" | "handoff-full" | "tx-full" | "tx-down");
            assert!(never || reasons.contains_key(reason), "no packet was {reason}");
        }
        assert!(reasons.contains_key("staged"), "no staged rule would decide");
    }
}
