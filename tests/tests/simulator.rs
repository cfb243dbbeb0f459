//! Workers, ports, changes, faults and time in the order that a seed decides, against the oracle: see [`testkit::simulator`].
//!
//! `SIM_SEEDS=100000 SIM_FIRST=7 SIM_THREADS=2` runs other seeds than CI does (`scripts/simulate` does so); `SIM_SEED=17` runs one
//! alone. A failing seed prints itself, what of it matters, and what happens in that; `SIM_TAIL=500` prints more of it.

use testkit::simulator::{Coverage, simulate, simulate_all};

/// What must have been reached when so many seeds have run: what is never met is not compared.
const ENOUGH_SEEDS: u64 = 500;
const REACHED: &[&str] = &[
    "commits",
    "commits that change nothing",
    "documents refused",
    "NICs flushed",
    "NICs judged again",
    "NICs ended",
    "rollbacks",
    "leaps of the clock",
    "parked workers",
    "frames handed off",
    "handoff-full",
    "tx-full",
    "evicted unconfirmed",
    "evicted unconfirmed at their share",
    "evicted tombstones",
    "evicted of a NIC above its share",
    "fragments held in vain",
    "fragments behind a late first",
];

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|value| value.parse().unwrap_or_else(|_| panic!("{name} is no number")))
}

fn everything_was_reached(figures: &Coverage) {
    let reasons = engine::Reason::ALL.iter().map(|reason| reason.name());
    for what in REACHED.iter().copied().chain(reasons) {
        assert!(figures.get(what) > 0, "nothing was counted as {what}");
    }
}

#[test]
fn whatever_the_order_the_workers_do_what_the_oracle_says() {
    let tail = number("SIM_TAIL").unwrap_or(60) as usize;
    if let Some(seed) = number("SIM_SEED") {
        let figures = simulate(seed, tail).unwrap_or_else(|why| panic!("{why}"));
        println!("{figures}");
        return;
    }
    let seeds = number("SIM_SEEDS").unwrap_or(2000);
    let first = number("SIM_FIRST").unwrap_or(0);
    let threads = number("SIM_THREADS").unwrap_or(1);
    let figures = simulate_all(first, seeds, threads, tail).unwrap_or_else(|why| panic!("{why}"));
    println!("{figures}");
    if seeds >= ENOUGH_SEEDS {
        everything_was_reached(&figures);
    }
}
