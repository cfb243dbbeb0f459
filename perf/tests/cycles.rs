//! Every cycle case, small: what each says of its frames must hold. How long they take is for
//! `scripts/bench-cycles`.

use perf::cases::{ALL, COUNTED, Runs, count, run_named};

/// Every case of [`ALL`], with numbers that a test can wait for.
const SMALL: &[&str] = &[
    "established:1",
    "established:2000",
    "cold:1",
    "hot:2000",
    "udp:2000",
    "v6:2000",
    "one-client:2000",
    "one-client-v6:2000",
    "vlan:2000",
    "vxlan:2000",
    "nics:1",
    "fragments:2000",
    "denied:50",
    "denied:250",
    "new:2000",
    "flood:4096",
    "full:4096",
    "flush:4096",
];

#[test]
fn every_frame_of_every_case_is_what_the_case_says() {
    for name in SMALL {
        run_named(name, Runs { runs: 1, frames: 5_000 }).unwrap();
    }
}

#[test]
fn the_small_cases_are_all_there_are() {
    let kinds = |names: &[&str]| {
        let mut kinds: Vec<_> = names.iter().map(|name| name.split(':').next().unwrap().to_owned()).collect();
        kinds.sort();
        kinds.dedup();
        kinds
    };
    assert_eq!(kinds(SMALL), kinds(ALL));
}

#[test]
fn counted_cases_play_what_they_say() {
    for name in COUNTED {
        let sides = if name.starts_with("denied") || name.starts_with("new") { 1 } else { 2 };
        assert_eq!(count(name, 1_000).unwrap(), sides * 1_000, "{name}");
    }
    for unknown in ["established", "established:many", "slow:1"] {
        assert!(
            count(unknown, 1).is_err() && run_named(unknown, Runs { runs: 1, frames: 1 }).is_err(),
            "{unknown}"
        );
    }
}
