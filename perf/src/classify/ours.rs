//! The classifier of the data path, fed as the data path feeds it: a policy through the real compiler, queries a burst at a time.

use control::commit::Committer;
use control::config::Config;
use control::document::parse_policy;
use engine::classify::{Judgement, Query};
use engine::io::BURST;
use engine::snapshot::Snapshot;
use engine::{Direction, RuleId, VpcId};

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
        let names = (0..).map_while(|id| committer.compiler().rule_name(RuleId(id)));
        let order = names.map(|name| place(&name)).collect();
        let own = snapshot.bindings()[0].vpc;
        Ours { snapshot, order, own }
    }

    #[inline(always)]
    fn judge(&self, header: &Header) -> Judgement {
        let Header { remote, port, protocol } = *header;
        let remote = u128::from(remote);
        let query = Query { direction: Direction::Inbound, v6: false, protocol, port, remote };
        self.snapshot.policies[0].judge(&self.snapshot, self.own, &query)
    }

    /// The winning rule of every header.
    pub fn verdicts(&self, headers: &[Header]) -> Vec<Option<usize>> {
        let rule = |header| match self.judge(header) {
            Judgement::Allow(rule) | Judgement::Deny(rule) => Some(self.order[rule.0 as usize]),
            Judgement::NoRule => None,
        };
        headers.iter().map(rule).collect()
    }

    /// Cycles a header, over so many rounds through the headers, compiled as the data path is.
    pub fn cycles(&self, headers: &[Header], rounds: usize) -> f64 {
        #[cfg(target_arch = "x86_64")]
        if engine::cpu::has_v3() {
            // SAFETY: the processor has what the function is compiled for.
            return unsafe { self.cycles_v3(headers, rounds) };
        }
        self.cycles_as_compiled(headers, rounds)
    }

    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx2,bmi1,bmi2,movbe,lzcnt")]
    fn cycles_v3(&self, headers: &[Header], rounds: usize) -> f64 {
        self.cycles_as_compiled(headers, rounds)
    }

    #[inline(always)]
    fn cycles_as_compiled(&self, headers: &[Header], rounds: usize) -> f64 {
        let mut results = [Judgement::NoRule; BURST];
        let start = cycles();
        for _ in 0..rounds {
            for burst in headers.chunks(BURST) {
                for (result, header) in results.iter_mut().zip(burst) {
                    *result = self.judge(header);
                }
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
