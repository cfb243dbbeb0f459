//! Linux's own connection tracking as a second opinion: the same packets through a kernel and through our firewall, verdict by
//! verdict. Where they differ is a list, with the reasons in `docs/kernel-conntrack.md`: a difference that is not on it fails, and
//! so does one on it that is never seen.

mod conntrack;

use std::{collections::BTreeSet, fs, path::Path};

use conntrack::{bench::Bench, kinds::KINDS, random, scripts};
use testkit::lab::Router;

/// Conversations made up at random, and the seed that they begin with.
const RANDOM: (u64, u64) = (500, 0x00C0_FFEE);

#[test]
fn the_kernel_agrees_but_for_the_listed_differences() {
    if let Some(reason) = Router::missing() {
        eprintln!("skipped: {reason}");
        return;
    }
    let mut bench = Bench::new();
    let (mut seen, mut packets, mut wrong) = (BTreeSet::new(), 0, Vec::new());
    for script in scripts::all() {
        match bench.play(&script) {
            Ok(kinds) => seen.extend(kinds),
            Err(report) => wrong.push(report),
        }
        packets += script.lines.len();
    }
    for seed in RANDOM.1..RANDOM.1 + RANDOM.0 {
        match random::converse(&mut bench, seed) {
            Ok((kinds, count)) => {
                seen.extend(kinds);
                packets += count;
            }
            Err(report) => wrong.push(report),
        }
    }
    assert!(wrong.is_empty(), "{} conversations went another way:\n\n{}", wrong.len(), wrong.join("\n\n"));
    let unseen: Vec<&str> = KINDS.iter().copied().filter(|name| !seen.contains(name)).collect();
    assert!(unseen.is_empty(), "listed differences that were not seen: {unseen:?}");
    println!("{packets} packets, {} kinds of differences", seen.len());
}

#[test]
fn every_difference_has_its_reason_on_the_page() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/kernel-conntrack.md");
    let page = fs::read_to_string(&path).unwrap();
    let rows: BTreeSet<&str> = page
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split_once("` |").map(|(name, _)| name))
        .collect();
    let listed: BTreeSet<&str> = KINDS.iter().copied().collect();
    assert_eq!(rows, listed, "the page and the test's list");
}
