//! What would be decided if the staged rules were enforced (semantics 3.9): asked of packets that the rules have let open a connection or
//! refused, after the verdict, and of nothing else. No verdict and no connection hangs on it.

use crate::answers::opening;
use crate::classify::{Judgement, Query};
use crate::lane::{Fragment, Lane, What, flags};
use crate::snapshot::{Binding, Snapshot};
use crate::tcp;
use crate::verdict::Verdict;
use crate::{Direction, Reason, RuleId};

/// What a staged rule would decide about a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WouldBe {
    /// The rule: it would win.
    pub rule: RuleId,
    /// It would let the packet open a connection.
    pub allows: bool,
    /// The verdict is another.
    pub differs: bool,
}

/// What a staged rule would decide about a packet of this NIC that was judged so; `None` where none would.
pub fn would_be(snapshot: &Snapshot, lane: &Lane, nic: &Binding, verdict: &Verdict) -> Option<WouldBe> {
    let is_of_rules = matches!(verdict.reason, Reason::New | Reason::NoRule | Reason::Denied);
    // A later fragment bears its first one's reason; the rules were asked of that alone.
    if !is_of_rules || lane.fragment == Fragment::Later {
        return None;
    }
    let rules = snapshot.policy(nic).staged()?;
    let judge = |query: Query| rules.judge(snapshot, nic.vpc, &query);
    let query = opening(lane, lane.remote());
    // As the answer to the packet that would have opened it.
    let reverse = Query { direction: query.direction.reverse(), port: lane.sport, ..query };
    let mut judgement = match lane.what {
        What::Tcp if !tcp::opens(lane.flags) && lane.flags & flags::SYN != 0 => judge(reverse),
        _ => judge(query),
    };
    // A segment amid a stream that a server sends is its client's connection, if that may be (semantics 4.3).
    let is_pickup = lane.what == What::Tcp && lane.flags & flags::SYN == 0;
    if is_pickup && query.direction == Direction::Outbound {
        match judge(reverse) {
            Judgement::Allow(rule) => judgement = Judgement::Allow(rule),
            // It keeps the packet from passing as that, and no other rule lets it pass.
            Judgement::Deny(rule) if rules.holds(rule) && !matches!(judgement, Judgement::Allow(_)) => {
                judgement = Judgement::Deny(rule);
            }
            _ => {}
        }
    }
    let (rule, allows) = match judgement {
        Judgement::Allow(rule) => (rule, true),
        Judgement::Deny(rule) => (rule, false),
        Judgement::NoRule => return None,
    };
    let differs = allows != (verdict.reason == Reason::New);
    rules.holds(rule).then_some(WouldBe { rule, allows, differs })
}
