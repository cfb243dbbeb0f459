//! Faults at every step between a change's validation and its acknowledgement: what is in force, what is in the store and what a
//! start makes of it is what was before, or what comes after, and never something between.

use std::fs;
use std::future::Future;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use engine::Generation;
use engine::counters::ConnectionCounts;
use tempfile::TempDir;

use super::{Author, Change, ChangeRefused, Live, Parts, begin};
use crate::api::types::{Confirmation, Receipt};
use crate::config::Config;
use crate::document::{Limits, Parsed, parse_policy};
use crate::model::Policy;
use crate::registry::SlotCount;
use crate::store::tests::Act;
use crate::store::{Contents, OpenOptions, Store};

pub(super) fn document(port: u16, nics: &[&str]) -> Parsed {
    let nics: Vec<_> = (1..)
        .zip(nics)
        .map(|(n, name)| {
            format!("{{ name: {name}, vpc: prod, addresses: [10.0.0.{n}], security_groups: [a] }}")
        })
        .collect();
    let text = format!(
        "vpcs: [{{ name: prod, segment: {{ vlan: 7 }} }}]
address_groups: [{{ name: l{port}, addresses: [203.0.113.0/24] }}]
security_groups: [{{ name: a, rules: [{{ direction: inbound, protocol: tcp, ports: {port} }}] }}]
nics: [{}]",
        nics.join(", ")
    );
    parse_policy(&text, "test", &Limits::default()).unwrap()
}

/// An appliance without workers, with a store.
pub(super) struct Rig {
    pub(super) live: Live,
    directory: TempDir,
}

/// What is in force.
#[derive(Debug, PartialEq)]
struct Force {
    policy: Policy,
    generation: u32,
    published: Generation,
    free: SlotCount,
    oldest: Generation,
    records: Vec<(u32, Option<Confirmation>)>,
    awaits: bool,
}

impl Rig {
    pub(super) fn new() -> Rig {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("store");
        let mut config = Config::default();
        config.store.path = Some(path.clone());
        let store = Store::open(&path).unwrap();
        let began = begin(config, Some(store), None, None, false).unwrap();
        let live = Live::new(Parts {
            publisher: rcu::domain(began.snapshot, 0).0,
            committer: began.committer,
            workers: Vec::new(),
            connection_counts: Arc::new(ConnectionCounts::new()),
            ports: Box::new(Vec::new),
            start: Instant::now(),
            board: Default::default(),
            governing_file: None,
            store: began.store,
        });
        Rig { live, directory }
    }

    pub(super) fn path(&self) -> PathBuf {
        self.directory.path().join("store")
    }

    fn store(&self) -> Arc<Store> {
        self.live.inner().store.clone().unwrap()
    }

    pub(super) fn apply(&self, change: Change) -> Result<Receipt, ChangeRefused> {
        run(self.live.apply(change))
    }

    fn force(&self) -> Force {
        let records = self.live.history();
        let inner = self.live.inner();
        Force {
            policy: inner.committer.policy().clone(),
            generation: inner.committer.generation().0,
            published: inner.publisher.current().generation,
            free: inner.committer.registry().free(),
            oldest: inner.committer.oldest(),
            records: records.iter().map(|record| (record.generation, record.confirmation)).collect(),
            awaits: inner.unconfirmed.is_some(),
        }
    }

    /// What a start after a kill at this moment would find.
    fn found_by_a_start(&self) -> Contents {
        let elsewhere = tempfile::tempdir().unwrap();
        for name in ["store", "store.witness"] {
            fs::copy(self.directory.path().join(name), elsewhere.path().join(name)).unwrap();
        }
        opened(&elsewhere.path().join("store"))
    }
}

fn opened(path: &Path) -> Contents {
    Store::open_as(&OpenOptions::of(path)).unwrap().1.unwrap()
}

pub(super) fn run<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

pub(super) fn to(document: Parsed) -> Change {
    Change::to(document, Author::client("test"))
}

/// A change, ready to be made.
type Make = fn(&Rig) -> Result<(), ChangeRefused>;

fn apply_nics(rig: &Rig) -> Result<(), ChangeRefused> {
    rig.apply(to(document(23, &["one", "three", "four"]))).map(|_| ())
}

fn apply_unconfirmed(rig: &Rig) -> Result<(), ChangeRefused> {
    let change = Change { confirm: Some(Duration::from_secs(3600)), ..to(document(24, &["one"])) };
    rig.apply(change).map(|_| ())
}

fn roll_back(rig: &Rig) -> Result<(), ChangeRefused> {
    rig.apply(Change::back_to(1, Author::client("test"))).map(|_| ())
}

fn confirm(rig: &Rig) -> Result<(), ChangeRefused> {
    run(rig.live.confirm()).map(|_| ())
}

/// Each change with what comes before it.
const CHANGES: [(&str, &[Make], Make); 4] = [
    ("a document", &[], apply_nics),
    ("a change that is to be confirmed", &[], apply_unconfirmed),
    ("a rollback of one that is to be confirmed", &[apply_nics, apply_unconfirmed], roll_back),
    ("a confirmation", &[apply_unconfirmed], confirm),
];

fn prepared(before: &[Make]) -> Rig {
    let rig = Rig::new();
    rig.apply(to(document(22, &["one", "two"]))).unwrap();
    for make in before {
        make(&rig).unwrap();
    }
    rig
}

/// History as far as it is not of a moment.
#[expect(clippy::type_complexity, reason = "compared, and nothing else")]
fn timeless(contents: &Contents) -> (Policy, u32, Vec<(u32, Policy, Option<Confirmation>)>, Option<u32>) {
    let mut policy = contents.policy.clone();
    let mut back = Vec::new();
    for past in contents.history.iter().rev() {
        past.delta.revert(&mut policy);
        back.push((past.record.generation, policy.clone(), past.record.confirmation));
    }
    let awaited = contents.awaited.map(|awaited| awaited.generation);
    (contents.policy.clone(), contents.generation, back, awaited)
}

/// Has `act` done at each step of each change in turn; how many steps there were, and at how many the change was made all the same.
fn at_every_step(act: impl Fn(&Rig) -> Act, mend: impl Fn(&Rig)) -> (usize, usize) {
    let (mut steps, mut late) = (0, 0);
    for (name, before, make) in CHANGES {
        let after = prepared(before);
        make(&after).unwrap();
        for at in 1.. {
            let rig = prepared(before);
            let (force, lying) = (rig.force(), rig.found_by_a_start());
            rig.store().faults.plant(at, act(&rig));
            let made = make(&rig);
            if !rig.store().faults.remove() {
                made.unwrap();
                steps += at - 1;
                break;
            }
            let at = format!("{name}, step {at}");
            if made.is_ok() {
                // It came too late to matter.
                mend(&rig);
                assert_eq!(rig.force(), after.force(), "{at}");
                assert_eq!(timeless(&rig.found_by_a_start()), timeless(&after.found_by_a_start()), "{at}");
                late += 1;
                continue;
            }
            assert!(matches!(made, Err(ChangeRefused::Store(_))), "{at}: {made:?}");
            assert_eq!(rig.force(), force, "{at}: what is in force");
            mend(&rig);
            assert_eq!(timeless(&rig.found_by_a_start()), timeless(&lying), "{at}: what a start finds");
            // By itself, and without another change.
            run(rig.live.look_after_store());
            assert_eq!(rig.live.health().problems.iter().filter(|p| p.ended.is_none()).count(), 0, "{at}");
            let there = Store::read(&rig.path()).unwrap();
            assert_eq!(there, lying, "{at}: what is in the store");
            make(&rig).unwrap();
            assert_eq!(rig.force(), after.force(), "{at}: the same once more");
            let (there, expected) = (rig.found_by_a_start(), after.found_by_a_start());
            assert_eq!(timeless(&there), timeless(&expected), "{at}: the same once more");
        }
    }
    (steps, late)
}

#[test]
fn a_change_whose_write_fails_at_any_step_is_nowhere() {
    let (steps, late) = at_every_step(|_| Box::new(|| Err(ErrorKind::StorageFull)), |_| ());
    assert!(steps > 20 && late == 0, "{steps}, {late}");
}

/// A panic of the database: nothing can be noted, and this process knows. A kill before it has written again is as one on the way.
#[test]
fn a_change_whose_write_panics_at_any_step_is_nowhere() {
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    let settle = |rig: &Rig| run(rig.live.look_after_store());
    let (_, late) = at_every_step(|_| Box::new(|| panic!("at a step")), settle);
    assert_eq!(late, 0);
    std::panic::set_hook(hook);
}

#[test]
fn a_store_that_is_moved_away_while_it_is_written_holds_what_was_before_once_it_is_back() {
    let away = |rig: &Rig| -> Act {
        let (from, to) = (rig.path(), rig.path().with_extension("away"));
        Box::new(move || fs::rename(&from, &to).map_err(|error| error.kind()))
    };
    let back = |rig: &Rig| fs::rename(rig.path().with_extension("away"), rig.path()).unwrap();
    let (_, late) = at_every_step(away, back);
    assert_eq!(late, CHANGES.len(), "after the last look at the file");
}

#[test]
fn the_rollback_of_a_change_that_nobody_confirmed_is_in_force_at_once_and_written_later() {
    for at in 1.. {
        let rig = prepared(&[apply_unconfirmed]);
        let author = Author { origin: super::Origin::Timer, who: "portcullis".to_owned() };
        rig.store().faults.plant(at, Box::new(|| Err(ErrorKind::StorageFull)));
        rig.apply(Change::back_to(1, author)).unwrap();
        let is_over = !rig.store().faults.remove();
        assert_eq!((rig.live.generation(), rig.live.policy()), (3, document(22, &["one", "two"]).policy));
        run(rig.live.look_after_store());
        let contents = rig.found_by_a_start();
        assert_eq!((contents.generation, contents.policy), (3, rig.live.policy()), "step {at}");
        assert_eq!(contents.awaited, None);
        if is_over {
            break;
        }
    }
}

#[test]
fn what_is_refused_for_want_of_places_is_nowhere() {
    let rig = prepared(&[]);
    let (force, lying) = (rig.force(), rig.found_by_a_start());
    let many: String =
        (0..crate::registry::MOST_NICS + 1).map(|n| format!("- {{ name: n{n}, vpc: prod }}\n")).collect();
    let text = format!("vpcs: [{{ name: prod, segment: {{ vlan: 7 }} }}]\nnics:\n{many}");
    let refused = rig.apply(to(parse_policy(&text, "test", &Limits::default()).unwrap())).unwrap_err();
    assert!(refused.to_string().contains("allowed: 131071 NICs and 1048575 addresses"), "{refused}");
    assert_eq!((rig.force(), rig.found_by_a_start()), (force, lying));
}
