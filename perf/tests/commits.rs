//! Changes under fire, briefly: what must hold, however fast the machine is. `perf-commits`
//! measures.

use std::time::Duration;

use perf::commits::rig::Setup;
use perf::commits::storm::{self, Plan};
use perf::commits::undo;
use perf::commits::world::Size;

#[test]
fn nothing_passes_on_a_permission_once_its_end_has_a_receipt() {
    let setup = Setup { capacity: 1 << 17, pinned: false };
    let plan = Plan {
        commits: 300,
        size: Size::SMALL,
        subjects: 16,
        flows: (500, 10),
        calm: Duration::from_millis(50),
        seed: 1,
        setup,
    };
    let directory = tempfile::tempdir().unwrap();
    let outcome = storm::run(&plan, directory.path());
    println!(
        "{} commits took {} permissions, {} packets passed on them in time, {} were tried late",
        outcome.commits, outcome.taken, outcome.passed_in_time, outcome.tried_late
    );
    assert_eq!(outcome.passed_late, 0);
    assert_eq!(outcome.held_up, 0);
    assert_eq!(outcome.flows.1, 0, "packets of untouched connections are lost");
    assert!(outcome.taken > 100 && outcome.rollbacks > 10 && outcome.flows.0 > 10_000);
}

#[test]
fn what_a_bad_change_disconnected_goes_on_after_its_rollback_and_nothing_else() {
    let setup = Setup { capacity: 1 << 16, pinned: false };
    let plan = undo::Plan { size: Size::SMALL, connections: 4000, setup };
    let directory = tempfile::tempdir().unwrap();
    let outcome = undo::run(&plan, directory.path());
    let [forbidden, others] = outcome.connections;
    assert!(forbidden > 100, "{outcome:?}");
    assert_eq!(outcome.passed, [others, 0, others]);
    assert_eq!(outcome.forbidden_passed, 0);
    assert!(outcome.bad_for < Duration::from_secs(10));
}
