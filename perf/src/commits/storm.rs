//! Random changes while traffic is forwarded at full rate. Each permission that one takes away is
//! tried before it, all through it and after its receipt.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use control::live::Target;
use engine::Side;
use hdrhistogram::Histogram;
use testkit::rng::Rng;

use super::port::{Fate, Permission, Probe};
use super::rig::{Lap, Rig, Setup, histogram};
use super::subjects::{State, Try, Way};
use super::world::{Flow, Size, document, open};

/// Generations that a rollback may go back.
const BACK: usize = 8;
/// Connections that open, or try to, all through a change.
const OPENINGS: u32 = 6;

/// A storm to be made.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Changes.
    pub commits: u32,
    /// The policy beside the subjects.
    pub size: Size,
    /// NICs that the changes are about, at most 200.
    pub subjects: usize,
    /// Connections of NICs that no change is about, and outbound ones of each lasting subject.
    pub flows: (u32, u16),
    /// How long bursts are timed without any change.
    pub calm: Duration,
    /// Which changes.
    pub seed: u64,
    /// How it runs.
    pub setup: Setup,
}

/// What came of it.
pub struct Outcome {
    /// Changes made.
    pub commits: u32,
    /// Of these, rollbacks.
    pub rollbacks: u32,
    /// Permissions taken away; each was tried.
    pub taken: u64,
    /// Permissions given; each was tried.
    pub given: u64,
    /// Packets that tried permissions to be taken away, and passed before they were.
    pub passed_in_time: u64,
    /// Packets on taken permissions that were tried after the receipt.
    pub tried_late: u64,
    /// Packets that were sent on a permission after the receipt of the change that took it away.
    /// Must be none.
    pub passed_late: u64,
    /// Packets that a permission did not let pass after the receipt that gave it. Must be none.
    pub held_up: u64,
    /// Packets of untouched connections, and how many of them did not leave. Must be none.
    pub flows: (u64, u64),
    /// Nanoseconds from a change's beginning to its receipt, and by kind.
    pub receipts: Histogram<u64>,
    /// The same by kind of change.
    pub by_kind: BTreeMap<&'static str, Histogram<u64>>,
    /// Microseconds from publication to acknowledgement.
    pub acknowledged_us: Histogram<u64>,
    /// Microseconds from the admitted change to its publication, the store's time included.
    pub published_us: Histogram<u64>,
    /// The worker without changes, and with them.
    pub laps: [Lap; 2],
}

/// Makes a storm; the store is in `directory`.
pub fn run(plan: &Plan, directory: &std::path::Path) -> Outcome {
    let rig = Rig::new(plan.setup, directory);
    let state = State::new(plan.subjects);
    let [groups, nics] = plan.size.sections();
    let [lists, more_groups, more_nics] = state.sections();
    rig.load(&document(&[groups + &more_groups, nics + &more_nics], &lists));
    let mut flows: Vec<Flow> = (0..plan.flows.0).map(|n| Flow::inbound(n, n % plan.size.nics)).collect();
    flows.extend(state.outbound(plan.flows.1));
    let [inside, outside] = open(&rig, &flows);
    let before = rig.flows();
    rig.play(Side::Inside, inside);
    rig.play(Side::Outside, outside);
    rig.lap();
    std::thread::sleep(plan.calm);
    let calm = rig.lap();
    let mut storm = Storm::new(&rig, state, plan.seed, calm);
    for _ in 0..plan.commits {
        storm.commit();
    }
    let mut outcome = storm.outcome;
    outcome.laps[1] = rig.lap();
    rig.rest();
    let [brought, sent, _] = rig.flows();
    let (brought, sent) = (brought - before[0], sent - before[1]);
    outcome.flows = (brought, brought - sent);
    outcome
}

struct Storm<'r> {
    rig: &'r Rig,
    rng: Rng,
    /// States by generation, the newest last.
    states: VecDeque<State>,
    /// Tries so far, by subject and way.
    tries: BTreeMap<(usize, u16), u32>,
    outcome: Outcome,
}

/// A permission that is about to go, and the packets that are at it.
struct Doomed {
    at: (usize, Way),
    permission: Arc<Permission>,
    connection: Try,
}

impl<'r> Storm<'r> {
    fn new(rig: &'r Rig, state: State, seed: u64, calm: Lap) -> Storm<'r> {
        let nothing = || Lap { bursts: histogram(), frames: 0, wall: Duration::ZERO, cpu: Duration::ZERO };
        Storm {
            rig,
            rng: Rng::new(seed),
            states: VecDeque::from([state]),
            tries: BTreeMap::new(),
            outcome: Outcome {
                commits: 0,
                rollbacks: 0,
                taken: 0,
                given: 0,
                passed_in_time: 0,
                tried_late: 0,
                passed_late: 0,
                held_up: 0,
                flows: (0, 0),
                receipts: histogram(),
                by_kind: BTreeMap::new(),
                acknowledged_us: histogram(),
                published_us: histogram(),
                laps: [calm, nothing()],
            },
        }
    }

    /// One change, with everything that it takes away or gives tried.
    fn commit(&mut self) {
        let now = &self.states[self.states.len() - 1];
        let (target, kind, next) = if self.states.len() > 2 && self.rng.one_in(8) {
            let back = 1 + self.rng.below(self.states.len().min(BACK) - 1);
            let to = self.rig.live.generation() - back as u32;
            (Target::Generation(to), "rollback", self.states[self.states.len() - 1 - back].clone())
        } else {
            let op = now.random_op(&mut self.rng);
            let next = now.after(op);
            (next.target(op), op.kind(), next)
        };
        let (taken, given) = (now.more_than(&next), next.more_than(now));
        let doomed = self.use_them(&taken);
        self.try_openings(&given, Fate::Dropped);

        let begin = Instant::now();
        let (receipt, took) = self.rig.apply(target);
        let received = begin.elapsed();
        for Doomed { permission, .. } in &doomed {
            permission.end();
        }
        debug_assert!(took <= received);

        self.try_again(&doomed);
        self.try_openings(&given, Fate::Sent);
        let outcome = &mut self.outcome;
        outcome.commits += 1;
        outcome.rollbacks += u32::from(kind == "rollback");
        outcome.taken += taken.len() as u64;
        outcome.given += given.len() as u64;
        let took = took.as_nanos() as u64;
        outcome.receipts.saturating_record(took);
        outcome.by_kind.entry(kind).or_insert_with(histogram).saturating_record(took);
        outcome.acknowledged_us.saturating_record(receipt.acknowledged_us.unwrap_or_default());
        outcome.published_us.saturating_record(receipt.publish_us.unwrap_or_default());
        self.states.push_back(next);
        if self.states.len() > BACK + 2 {
            self.states.pop_front();
        }
    }

    fn next_try(&mut self, (subject, way): (usize, Way)) -> Try {
        let n = self.tries.entry((subject, way as u16)).or_default();
        *n += 1;
        Try::new(subject, way, *n)
    }

    /// Opens a connection on each permission that is to go, and keeps the port busy with its
    /// packets and with more openings.
    fn use_them(&mut self, taken: &[(usize, Way)]) -> Vec<Doomed> {
        let doomed: Vec<Doomed> = taken
            .iter()
            .map(|&at| Doomed { at, permission: Arc::default(), connection: self.next_try(at) })
            .collect();
        let steps = [
            (Side::Outside, Try::opening as fn(&Try) -> Vec<u8>),
            (Side::Inside, Try::answer),
            (Side::Outside, Try::data),
        ];
        for (side, packet) in steps {
            let probes: Vec<_> =
                doomed.iter().map(|d| Probe::on(&d.permission, packet(&d.connection))).collect();
            self.rig.judge(side, probes.iter().cloned());
            for (probe, doomed) in probes.iter().zip(&doomed) {
                assert_eq!(
                    probe.fate(),
                    Fate::Sent,
                    "{:?} is permitted, and its connection does not open",
                    doomed.at
                );
            }
        }
        let [mut inside, mut outside] = [Vec::new(), Vec::new()];
        for Doomed { at, permission, connection } in &doomed {
            inside.push(Probe::on(permission, connection.reply()));
            outside.push(Probe::on(permission, connection.data()));
            for _ in 0..OPENINGS {
                outside.push(Probe::on(permission, self.next_try(*at).opening()));
            }
        }
        if !doomed.is_empty() {
            for (side, probes) in [(Side::Inside, inside), (Side::Outside, outside)] {
                self.rig.watch(side, probes);
                self.rig.wait_for_a_round(side);
            }
        }
        doomed
    }

    /// After the receipt: what was there before, once more, and openings that were never seen. Then
    /// what was sent is counted.
    fn try_again(&mut self, doomed: &[Doomed]) {
        if doomed.is_empty() {
            return;
        }
        let [mut inside, mut outside] = [Vec::new(), Vec::new()];
        for Doomed { at, permission, connection } in doomed {
            inside.push(Probe::on(permission, connection.reply()));
            outside.push(Probe::on(permission, connection.data()));
            outside.push(Probe::on(permission, self.next_try(*at).opening()));
            outside.push(Probe::on(permission, self.next_try(*at).opening()));
        }
        self.outcome.tried_late += (inside.len() + outside.len()) as u64;
        self.rig.judge(Side::Inside, inside.into_iter());
        self.rig.judge(Side::Outside, outside.into_iter());
        for side in [Side::Inside, Side::Outside] {
            self.rig.wait_for_a_round(side);
            self.rig.watch(side, Vec::new());
            self.rig.judge(side, [Probe::new(vec![0; 14])].into_iter());
        }
        for Doomed { permission, .. } in doomed {
            let (sent, late) = permission.sent();
            self.outcome.passed_in_time += sent - late;
            self.outcome.passed_late += late;
        }
    }

    /// Tries permissions that are not there yet, or are there now.
    fn try_openings(&mut self, given: &[(usize, Way)], expected: Fate) {
        let probes: Vec<_> = given.iter().map(|at| Probe::new(self.next_try(*at).opening())).collect();
        self.rig.judge(Side::Outside, probes.iter().cloned());
        let other = probes.iter().filter(|probe| probe.fate() != expected).count() as u64;
        match expected {
            Fate::Sent => self.outcome.held_up += other,
            _ => assert_eq!(other, 0, "a packet passes before anybody permits it"),
        }
    }
}
