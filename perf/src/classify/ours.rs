//! The classifier of the data path, fed as the data path feeds it: a policy through the real
//! compiler, queries a burst at a time.

use control::commit::Committer;
use control::config::Config;
use control::document::parse_policy;
use engine::classify::{Query, RuleQuery, RuleVerdict, judge_all};
use engine::io::BURST;
use engine::snapshot::Snapshot;
use engine::{Direction, VpcId};

use super::sets::{Header, LIMITS, Set};
use crate::rig::cycles;

/// A compiled set.
pub struct Ours {
    snapshot: Box<Snapshot>,
    /// By rule id, the place among the rules of the set.
    order: Vec<usize>,
    own: VpcId,
}

impl Ours {
    /// Compiles it. `order` turns the name of a rule into its place.
    pub fn new(set: &Set) -> Ours {
        let mut committer = Committer::new(Config::default());
        let parsed = parse_policy(&set.document(), "policy", &LIMITS).unwrap_or_else(|e| panic!("{e}"));
        let commit = committer.commit(parsed.policy, 0).unwrap_or_else(|e| panic!("{e}"));
        let snapshot = commit.map_or_else(|| Box::new(committer.initial()), |commit| commit.snapshot);
        let order = committer.compiler().rules().iter().map(|rule| place(&rule.name)).collect();
        let own = snapshot.bindings()[0].vpc;
        Ours { snapshot, order, own }
    }

    #[inline(always)]
    fn judge(&self, headers: &[Header], judgements: &mut [RuleVerdict]) {
        let policy = self.snapshot.policies[0].as_ref();
        let asks = headers.iter().map(|header| {
            let Header { remote, port, protocol } = *header;
            let remote = u128::from(remote);
            let query = Query { direction: Direction::Inbound, v6: false, protocol, port, remote };
            RuleQuery { policy, own: self.own, query }
        });
        judge_all(&self.snapshot.groups, judgements.iter_mut().zip(asks), |place, judgement| {
            *place = judgement
        });
    }

    /// The winning rule of every header.
    pub fn verdicts(&self, headers: &[Header]) -> Vec<Option<usize>> {
        let rule = |judgement| match judgement {
            RuleVerdict::Allow(rule) | RuleVerdict::Deny(rule) => Some(self.order[rule.0 as usize]),
            RuleVerdict::NoRule => None,
        };
        let mut judgements = vec![RuleVerdict::NoRule; headers.len()];
        for (judgements, burst) in judgements.chunks_mut(BURST).zip(headers.chunks(BURST)) {
            self.judge(burst, judgements);
        }
        judgements.into_iter().map(rule).collect()
    }

    /// Cycles a header, over so many rounds through the headers.
    pub fn cycles(&self, headers: &[Header], rounds: usize) -> f64 {
        let mut results = [RuleVerdict::NoRule; BURST];
        let start = cycles();
        for _ in 0..rounds {
            for burst in headers.chunks(BURST) {
                self.judge(burst, &mut results[..burst.len()]);
                std::hint::black_box(&mut results);
            }
        }
        (cycles() - start) as f64 / (headers.len() * rounds) as f64
    }
}

/// `g3#17` is rule 3,017.
fn place(name: &str) -> usize {
    let numbers = name.trim_start_matches('g').split_once('#');
    let (group, position) = numbers.unwrap_or_else(|| panic!("a rule is named {name}"));
    let number = |text: &str| text.parse::<usize>().unwrap_or_else(|e| panic!("{name}: {e}"));
    number(group) * LIMITS.rules_per_group + number(position)
}
