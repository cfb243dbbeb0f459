//! A deterministic simulator: real workers on simulated ports, the control side and a clock, in an
//! order that one number decides; after every poll verdicts, tables, counters and frames are
//! compared with the [oracle](crate::oracle).
//!
//! A poll is one step, so the order in which workers judge frames is known, and the oracle judges
//! them in that order, each under the generation that its worker had. No thread, no clock, no
//! address and no hasher's seed takes part: a seed's run is the same for ever. What happens is
//! drawn before anything runs, so that a failing run can be cut down: first to its shortest failing
//! prefix, then by whatever else it fails without.
//!
//! Always on, beside the verdicts themselves:
//! - a worker judges by no generation older than the last acknowledged one, so nothing passes on a
//!   permission that a change which has returned took away (whether it does within a generation is
//!   the oracle's to say);
//! - a connection lives with one worker, which alone judges its packets;
//! - tables are the oracle's: states, tombstones, deadlines, which so move by what passed alone;
//! - they stay within their size; what they give up or refuse is what semantics 6.1 lets them;
//! - what workers tell of packets ([`engine::trace`]) is what they judged, record by record and
//!   byte by byte;
//! - every counter says what was judged and sent; all of them, and what is still on its way, add up
//!   to what arrived;
//! - what leaves the ports is what passed, byte for byte and in order;
//! - every frame is given back.

mod check;
mod coverage;
mod plan;
mod record;
mod shrink;
mod world;

use std::fmt::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};

pub use coverage::Coverage;
use plan::{Op, Plan, Setup};
use world::World;

/// The first thing that is not as it should be.
#[derive(Clone, Debug)]
struct Failure {
    /// What kind of thing: a run that is cut down must go on to fail by the same.
    kind: &'static str,
    why: String,
}

fn fail<T>(kind: &'static str, why: impl Into<String>) -> Result<T, Failure> {
    Err(Failure { kind, why: why.into() })
}

/// Runs events; where one fails, its place and why.
fn run(setup: &Setup, ops: &[Op], figures: &mut Coverage) -> Result<(), (usize, Failure)> {
    let mut at = 0;
    let mut world = World::new(setup, false);
    let result = caught(|| play(&mut world, ops, &mut at));
    figures.join(&world.figures);
    result.map_err(|failure| (at, failure))
}

/// The same, telling what happens.
fn tell(setup: &Setup, ops: &[Op]) -> Vec<String> {
    let mut world = World::new(setup, true);
    let result = caught(|| play(&mut world, ops, &mut 0));
    let mut story = world.story.take().unwrap_or_default();
    if let Err(failure) = result {
        story.push(format!("{}: {}", failure.kind, failure.why));
    }
    story
}

fn play(world: &mut World<'_>, ops: &[Op], at: &mut usize) -> Result<(), Failure> {
    for (n, op) in ops.iter().enumerate() {
        *at = n;
        world.step(op)?;
    }
    *at = ops.len();
    world.finish()
}

/// A panic is a failure like any other.
fn caught(run: impl FnOnce() -> Result<(), Failure>) -> Result<(), Failure> {
    catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        fail("panic", text.or(panic.downcast_ref::<&str>().copied()).unwrap_or("without a word"))
    })
}

/// Runs a seed from its first event to its last. An error is a report for people: what the run was
/// cut down to, and what happens in it.
pub fn simulate(seed: u64, tail: usize) -> Result<Coverage, String> {
    let Plan { setup, ops, refused } = plan::plan(seed);
    let mut figures = Coverage::default();
    figures.count("seeds");
    figures.add("documents refused", refused);
    let Err((at, failure)) = run(&setup, &ops, &mut figures) else { return Ok(figures) };
    let ops = shrink::shrink(&setup, &ops[..ops.len().min(at + 1)], failure.kind);
    Err(report(seed, &setup, &ops, tail))
}

fn report(seed: u64, setup: &Setup, ops: &[Op], tail: usize) -> String {
    let story = tell(setup, ops);
    let mut text = format!("seed {seed}: {setup}\n{} events are left\n", ops.len());
    for op in ops {
        if let Op::Commit(change) = op {
            let _ = writeln!(text, "{op}:\n{}", change.document);
        }
    }
    for line in &story[story.len().saturating_sub(tail)..] {
        let _ = writeln!(text, "{line}");
    }
    text
}

/// Runs `count` seeds from `first` on, spread over `threads` threads, each seed on one; stops at
/// the first that fails.
pub fn simulate_all(first: u64, count: u64, threads: u64, tail: usize) -> Result<Coverage, String> {
    let end = first + count;
    let (next, failed) =
        (std::sync::atomic::AtomicU64::new(first), std::sync::atomic::AtomicBool::new(false));
    let work = || {
        let mut figures = Coverage::default();
        loop {
            let seed = next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            if seed >= end || failed.load(std::sync::atomic::Ordering::Relaxed) {
                return Ok(figures);
            }
            match simulate(seed, tail) {
                Ok(seen) => figures.join(&seen),
                Err(why) => {
                    failed.store(true, std::sync::atomic::Ordering::Relaxed);
                    return Err(why);
                }
            }
        }
    };
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads.max(1)).map(|_| scope.spawn(work)).collect();
        let mut all = Coverage::default();
        for worker in workers {
            all.join(&worker.join().expect("a run catches its panics")?);
        }
        Ok(all)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_runs_the_same_for_ever() {
        assert_eq!(simulate(3, 0), simulate(3, 0));
        assert_ne!(simulate(3, 0), simulate(4, 0));
    }

    #[test]
    fn a_failing_run_is_cut_down_to_what_matters() {
        // A table that is too small, of which nobody was told: the first thing that it gives up is
        // a failure.
        let mut seed = 0;
        let (setup, ops) = loop {
            let Plan { mut setup, ops, .. } = plan::plan(seed);
            if std::mem::take(&mut setup.pressure)
                && matches!(run(&setup, &ops, &mut Coverage::default()), Err((_, why)) if why.kind == "eviction")
            {
                break (setup, ops);
            }
            seed += 1;
        };
        let fewer = shrink::shrink(&setup, &ops, "eviction");
        assert!(fewer.len() < 20 && ops.len() > 10 * fewer.len(), "{} of {}", fewer.len(), ops.len());
        let story = tell(&setup, &fewer);
        assert!(story.last().is_some_and(|line| line.starts_with("eviction:")), "{story:#?}");
        let report = report(seed, &setup, &fewer, 1000);
        assert!(report.starts_with(&format!("seed {seed}:")) && report.contains("security_groups:"));
        for at in 0..fewer.len() {
            let mut without = fewer.clone();
            without.remove(at);
            let result = run(&setup, &without, &mut Coverage::default());
            assert!(
                !matches!(result, Err((_, why)) if why.kind == "eviction"),
                "{} is not needed",
                fewer[at]
            );
        }
    }
}
