//! Places in the engine's tables: counted to the last one, given back, and never missed by a rollback.

use std::fmt::Write;

use control::commit::{Committer, NoRollback};
use control::config::Config;
use control::document::{Limits, parse_policy};
use control::model::Policy;
use control::registry::{MOST_NICS, SlotCount};
use engine::Generation;

/// NICs by name, each with an address of its own.
fn policy(names: impl IntoIterator<Item = String>) -> Policy {
    let mut text = "vpcs: [{ name: prod, segment: { untagged: true } }]\nnics:\n".to_owned();
    let mut names = names.into_iter().peekable();
    if names.peek().is_none() {
        text += "  []";
    }
    for (n, name) in names.enumerate() {
        let [_, a, b, c] = (n as u32 + 1).to_be_bytes();
        writeln!(text, "- {{ name: {name}, vpc: prod, addresses: [10.{a}.{b}.{c}] }}").unwrap();
    }
    parse_policy(&text, "test", &Limits::default()).unwrap().policy
}

fn thousand(round: usize) -> Policy {
    policy((0..1000).map(|n| format!("r{round}-{n}")))
}

/// What must be the same after a refusal.
fn state(committer: &Committer) -> (Policy, Generation, SlotCount) {
    (committer.policy().clone(), committer.generation(), committer.registry().free())
}

#[test]
fn nics_replaced_again_and_again_find_places_once_the_connections_of_those_before_have_ended() {
    let config = Config::default();
    let longest = config.timeouts.longest().as_nanos() as u64;
    let mut committer = Committer::new(config);
    for round in 0..MOST_NICS / 1000 {
        committer.commit(thousand(round), 0).unwrap();
    }
    let before = state(&committer);
    assert_eq!(before.2.nics, MOST_NICS % 1000);
    let error = committer.commit(thousand(1000), 2 * longest).map(|_| ()).unwrap_err();
    assert_eq!(
        error.to_string(),
        "it takes 1000 new places of NICs, and 71 are free; allowed: 131071 NICs and 1048575 addresses at once, those \
         deleted included until their last connection has ended, 1200 s at most"
    );
    assert!(state(&committer) == before, "refused: nothing is touched");
    // As many as there are places.
    let more = policy((0..1000).map(|n| if n < 71 { format!("new-{n}") } else { format!("r130-{n}") }));
    committer.commit(more, 2 * longest).unwrap();
    assert_eq!(committer.registry().free().nics, 0);
    // Back again takes no place, though none is free.
    committer.rollback(before.1, 2 * longest).unwrap();
    assert_eq!((committer.policy(), committer.registry().free().nics), (&before.0, 0));
    // Once no connection can be left, all but those of now are free.
    committer.commit(thousand(1000), 2 * longest + 1).unwrap();
    assert_eq!(committer.registry().free().nics, MOST_NICS - 1000 - 71 - 1000);
    committer.commit(thousand(1001), 5 * longest).unwrap();
    assert_eq!(committer.registry().free().nics, MOST_NICS - 2000);
}

#[test]
fn a_nic_without_connections_gives_its_place_back_where_places_are_short_and_one_with_some_keeps_it() {
    let mut committer = Committer::new(Config::default());
    for round in 0..MOST_NICS / 1000 {
        committer.commit(thousand(round), 0).unwrap();
    }
    let held = committer.nic_slot(&control::model::Key::new("default", "r130-7")).unwrap();
    committer.commit(policy([]), 0).unwrap();
    committer.recycle_idle(true, |nic| nic != held);
    assert_eq!(committer.registry().free().nics, MOST_NICS - 1);
    assert_eq!(committer.registry().free().addresses, control::registry::MOST_ADDRESSES - 1);
    // Back to where all thousand were: 999 are made anew, and the one is who it was.
    let to = Generation(committer.generation().0 - 1);
    committer.rollback(to, 0).unwrap();
    assert_eq!(committer.nic_slot(&control::model::Key::new("default", "r130-7")), Some(held));
    assert_eq!(committer.registry().free().nics, MOST_NICS - 1000);
}

#[test]
fn one_of_many_nics_can_be_deleted_and_brought_back() {
    let mut committer = Committer::new(Config::default());
    let all = policy((0..66_000).map(|n| format!("n{n}")));
    committer.commit(all.clone(), 0).unwrap();
    let one_less = policy((0..65_999).map(|n| format!("n{n}")));
    committer.commit(one_less, 0).unwrap();
    committer.rollback(Generation(1), 0).unwrap();
    assert_eq!(*committer.policy(), all);
    assert_eq!(committer.registry().free().nics, MOST_NICS - 66_000);
}

#[test]
fn a_rollback_far_back_that_has_no_places_is_refused_before_anything_is_touched() {
    let mut committer = Committer::new(Config::default());
    let first = policy((0..70_000).map(|n| format!("a{n}")));
    committer.commit(first, 0).unwrap();
    committer.commit(policy([]), 0).unwrap();
    // All of the first have ended, and others of their names have come and gone.
    committer.recycle_idle(true, |_| true);
    committer.commit(policy((0..70_000).map(|n| format!("b{n}"))), 0).unwrap();
    let before = state(&committer);
    let error = committer.rollback(Generation(1), 0).map(|_| ()).unwrap_err();
    assert!(matches!(error, NoRollback::Exhausted(error) if error.wanted.nics == 70_000), "{error}");
    assert!(state(&committer) == before);
}
