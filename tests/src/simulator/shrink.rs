//! Cuts a failing run down: leaves out ever smaller pieces that it fails without (delta debugging:
//! Zeller and Hildebrandt, "Simplifying and isolating failure-inducing input", 2002).

use super::coverage::Coverage;
use super::plan::{Op, Setup};
use super::run;

/// Runs at most: enough for a few hundred events, and a matter of seconds.
const MOST_RUNS: usize = 1500;

/// Fewer events that fail by the same kind of thing. `ops` ends with the one at which they fail.
pub(super) fn shrink(setup: &Setup, ops: &[Op], kind: &'static str) -> Vec<Op> {
    let mut ops = ops.to_vec();
    let mut runs = 0;
    let mut piece = ops.len().div_ceil(2);
    while piece > 0 && runs < MOST_RUNS {
        let before = ops.len();
        let mut end = ops.len();
        while end > 0 && runs < MOST_RUNS {
            let start = end.saturating_sub(piece);
            let mut fewer = ops.clone();
            fewer.drain(start..end);
            runs += 1;
            if let Some(fails_at) = fails(setup, &fewer, kind) {
                // It may fail sooner now.
                fewer.truncate(fails_at + 1);
                ops = fewer;
            }
            end = start.min(ops.len());
        }
        // Pieces of this size again as long as some can go.
        if ops.len() == before || piece > ops.len() {
            piece = if piece == 1 { 0 } else { piece.min(ops.len()).div_ceil(2).min(piece - 1) };
        }
    }
    ops
}

fn fails(setup: &Setup, ops: &[Op], kind: &'static str) -> Option<usize> {
    let (at, failure) = run(setup, ops, &mut Coverage::default()).err()?;
    (failure.kind == kind).then_some(at)
}
