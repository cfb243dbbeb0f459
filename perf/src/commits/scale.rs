//! A whole appliance's policy: how long it takes to load, to change by one rule, as a whole, and by
//! a member of the largest group.

use std::path::Path;
use std::time::Duration;

use control::document::{Limits, ObjectKey, RuleEdit, RuleSelector, edit_rule, put};
use control::live::{Edit, Target};
use control::model::{Key, Policy};
use engine::Side;
use hdrhistogram::Histogram;

use super::report::resident_mb;
use super::rig::{Lap, Rig, Setup, histogram};
use super::world::{Flow, Size, UNTOUCHED_NICS, open};

/// What is measured.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// The policy.
    pub size: Size,
    /// Changes of one rule.
    pub edits: u32,
    /// Changes of one member.
    pub moves: u32,
    /// Connections that go on meanwhile.
    pub flows: u32,
    /// How long bursts are timed without any change.
    pub calm: Duration,
    /// How it runs.
    pub setup: Setup,
}

/// What came of it. Histograms are nanoseconds unless they say otherwise.
pub struct Outcome {
    /// Bytes of the document.
    pub document: usize,
    /// Reading and validating it, and applying it to an empty appliance.
    pub load: (Duration, Duration),
    /// One rule more or less: from the asking to the receipt.
    pub one_rule: Histogram<u64>,
    /// Microseconds from the admitted change to its publication.
    pub published_us: Histogram<u64>,
    /// Microseconds from there to the last acknowledgement.
    pub acknowledged_us: Histogram<u64>,
    /// Reading and applying the document again with one rule more.
    pub whole: (Duration, Duration),
    /// A NIC leaves the group of all NICs, or comes back.
    pub members: Histogram<u64>,
    /// NICs that this flushes.
    pub flushed: usize,
    /// Memory before anything, with the policy, and at the end, in MB.
    pub resident_mb: [f64; 3],
    /// The worker without changes, and with them.
    pub laps: [Lap; 2],
    /// Packets of untouched connections, and how many of them did not leave. Must be none.
    pub flows: (u64, u64),
}

/// Measures; the store is in `directory`.
pub fn run(plan: &Plan, directory: &Path) -> Outcome {
    let size = plan.size;
    let document = size.document();
    let rig = Rig::new(plan.setup, directory);
    let at_first = resident_mb();
    let (_, read, applied) = rig.load(&document);
    let with_policy = resident_mb();
    let nics = (size.groups - 1).min(UNTOUCHED_NICS);
    let flows: Vec<_> = (0..plan.flows).map(|n| Flow::inbound(n, 1 + n % nics)).collect();
    let [inside, outside] = open(&rig, &flows);
    let before = rig.flows();
    rig.play(Side::Inside, inside);
    rig.play(Side::Outside, outside);
    rig.lap();
    std::thread::sleep(plan.calm);
    let calm = rig.lap();

    let [mut one_rule, mut published_us, mut acknowledged_us] = [histogram(), histogram(), histogram()];
    for edit in 0..plan.edits {
        let (receipt, took) = rig.apply(one_rule_more_or_less(size, edit % 2 == 0));
        one_rule.saturating_record(took.as_nanos() as u64);
        published_us.saturating_record(receipt.publish_us.unwrap_or_default());
        acknowledged_us.saturating_record(receipt.acknowledged_us.unwrap_or_default());
    }
    let changing = rig.lap();
    let changed = document.replacen("ports: 10000-", "ports: 9999-", 1);
    let (_, read_again, applied_again) = rig.load(&changed);
    rig.rest();
    let [brought, sent, _] = rig.flows();
    let (brought, sent) = (brought - before[0], sent - before[1]);

    let (mut members, mut flushed) = (histogram(), 0);
    for moved in 0..plan.moves {
        let (receipt, took) = rig.apply(member(size, moved % 2 == 1));
        members.saturating_record(took.as_nanos() as u64);
        flushed = receipt.flushed.len();
    }
    Outcome {
        document: document.len(),
        load: (read, applied),
        one_rule,
        published_us,
        acknowledged_us,
        whole: (read_again, applied_again),
        members,
        flushed,
        resident_mb: [at_first, with_policy, resident_mb()],
        laps: [calm, changing],
        flows: (brought, brought - sent),
    }
}

/// A rule of the first group is deleted, or stands there again.
fn one_rule_more_or_less(size: Size, less: bool) -> Target {
    let last = size.rules as usize - 1;
    let rule = "{direction: inbound, protocol: tcp, ports: 7, remote: 192.0.2.0/24}".to_owned();
    let edit = if less { RuleEdit::Delete(RuleSelector::Position(last)) } else { RuleEdit::Add(rule) };
    let edit: Edit = Box::new(move |policy: &Policy| {
        Ok(edit_rule(policy, &Key::in_default("g0"), &edit, &Limits::default())?)
    });
    Target::Edited(edit)
}

/// The first NIC leaves the group of all NICs, or comes back.
fn member(size: Size, is_in: bool) -> Target {
    let edit: Edit = Box::new(move |policy: &Policy| {
        let key = ObjectKey::Nic(Key::in_default("n0"));
        Ok(put(policy, &key, &size.nic(0, is_in), &Limits::default())?)
    });
    Target::Edited(edit)
}
