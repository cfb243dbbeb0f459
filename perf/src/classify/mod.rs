//! The classifier alone beside DPDK's: the same sets, the same headers, the same core, in turn.

pub mod ours;
pub mod sets;
pub mod test_acl;

use std::io;
use std::path::Path;

use crate::floor::median;
use ours::Ours;
use sets::Set;
use test_acl::{TestAcl, algorithms};

/// Headers of a trace.
const HEADERS: usize = 1 << 16;

/// How to measure.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Rounds in turn of which the median counts.
    pub runs: usize,
    /// Passes through the headers a round.
    pub passes: usize,
    /// The core that everything runs on.
    pub core: usize,
    /// What sets and headers are drawn from.
    pub seed: u64,
}

/// What one set came to.
pub struct Outcome {
    /// Rules of the set.
    pub rules: usize,
    /// Headers that some rule matches, of a hundred.
    pub hits: f64,
    /// Median cycles a header of ours.
    pub ours: f64,
    /// Median cycles a header of DPDK's, by its quickest way.
    pub acl: f64,
    /// Its quickest way.
    pub algorithm: &'static str,
    /// What each of its ways took at first.
    pub each: Vec<(&'static str, f64)>,
}

impl Outcome {
    /// How many times quicker ours is.
    pub fn ratio(&self) -> f64 {
        self.acl / self.ours
    }
}

/// Measures a set of so many rules. An error if the two differ over any header.
pub fn compare(rules: usize, plan: &Plan, directory: &Path) -> io::Result<Outcome> {
    let mut set = Set::new(rules, plan.seed);
    let headers = set.headers(HEADERS);
    let ours = Ours::new(&set);
    let acl = TestAcl::new(directory, &set, &headers, plan.core)?;
    let verdicts = ours.verdicts(&headers);
    let mut each = Vec::new();
    for &algorithm in algorithms() {
        for (header, (ours, acls)) in headers.iter().zip(verdicts.iter().zip(acl.verdicts(algorithm)?)) {
            if *ours != acls {
                let told = format!("{rules} rules: {header:?}: we say {ours:?}, {algorithm} says {acls:?}");
                return Err(io::Error::other(told));
            }
        }
        each.push((algorithm, acl.cycles(algorithm, plan.passes)?));
    }
    let (algorithm, _) = each.iter().copied().min_by(|a, b| a.1.total_cmp(&b.1)).unwrap_or(("none", 0.0));
    let (mut mine, mut theirs) = (Vec::new(), Vec::new());
    for _ in 0..plan.runs {
        mine.push(ours.cycles(&headers, plan.passes));
        theirs.push(acl.cycles(algorithm, plan.passes)?);
    }
    let hits = verdicts.iter().flatten().count() as f64 / headers.len() as f64 * 100.0;
    Ok(Outcome { rules, hits, ours: median(&mine), acl: median(&theirs), algorithm, each })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_means_the_same_compiled_and_read_slowly() {
        for rules in [50, 250, 1500] {
            let mut set = Set::new(rules, 3);
            let headers = set.headers(2000);
            let verdicts = Ours::new(&set).verdicts(&headers);
            let hits = verdicts.iter().flatten().count();
            assert!((1000..1950).contains(&hits), "{hits} hits");
            for (header, verdict) in headers.iter().zip(verdicts) {
                assert_eq!(verdict, set.winner(header), "{rules} rules, {header:?}");
            }
        }
    }
}
