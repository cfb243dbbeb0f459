//! What would be decided if the staged rules were enforced (semantics 3.9): asked of packets that
//! the rules have let open a connection or refused, after the verdict, and of nothing else. No
//! verdict and no connection hangs on it.

use crate::classify::{Query, RuleVerdict};
use crate::packet::{Fragment, PacketKind, PacketMeta, flags};
use crate::rule_verdicts::opening_query;
use crate::snapshot::{Binding, Snapshot};
use crate::tcp;
use crate::verdict::{StagedVerdict, Verdict};
use crate::{Direction, Reason};

/// What a staged rule would decide about a packet of this NIC that was judged so; `None` where none
/// would.
pub fn staged_verdict(
    snapshot: &Snapshot,
    pkt: &PacketMeta,
    nic: &Binding,
    verdict: &Verdict,
) -> Option<StagedVerdict> {
    let is_of_rules = matches!(verdict.reason, Reason::New | Reason::NoRule | Reason::Denied);
    // A later fragment bears its first one's reason; the rules were asked of that alone.
    if !is_of_rules || pkt.fragment == Fragment::Later {
        return None;
    }
    let rules = snapshot.policy(nic).staged()?;
    let judge = |query: Query| rules.judge(&snapshot.groups, nic.vpc, &query);
    let query = opening_query(pkt, pkt.remote());
    // As the answer to the packet that would have opened it.
    let reverse = Query { direction: query.direction.reverse(), port: pkt.sport, ..query };
    let mut judgement = match pkt.kind {
        PacketKind::Tcp if !tcp::is_opening_syn(pkt.flags) && pkt.flags & flags::SYN != 0 => judge(reverse),
        _ => judge(query),
    };
    // A segment amid a stream that a server sends is its client's connection, if that may be
    // (semantics 4.3).
    let is_pickup = pkt.kind == PacketKind::Tcp && pkt.flags & flags::SYN == 0;
    if is_pickup && query.direction == Direction::Outbound {
        match judge(reverse) {
            RuleVerdict::Allow(rule) => judgement = RuleVerdict::Allow(rule),
            // It keeps the packet from passing as that, and no other rule lets it pass.
            RuleVerdict::Deny(rule) if rules.holds(rule) && !matches!(judgement, RuleVerdict::Allow(_)) => {
                judgement = RuleVerdict::Deny(rule);
            }
            _ => {}
        }
    }
    let (rule, allows) = match judgement {
        RuleVerdict::Allow(rule) => (rule, true),
        RuleVerdict::Deny(rule) => (rule, false),
        RuleVerdict::NoRule => return None,
    };
    let differs = allows != (verdict.reason == Reason::New);
    rules.holds(rule).then_some(StagedVerdict { rule, allows, differs })
}
