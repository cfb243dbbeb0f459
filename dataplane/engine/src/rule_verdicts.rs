//! The rules evaluated for a whole burst at once, before any packet is judged: for the packets that
//! will probably open a connection.
//!
//! A rule verdict depends on the snapshot, the NIC and the packet alone, never on connections. So
//! it can be computed ahead of time. It is at worst not needed: if the hint was wrong, or an
//! earlier packet of the burst has opened the connection.

use arrayvec::ArrayVec;

use crate::classify::{Query, RuleQuery, RuleVerdict, judge_all};
use crate::conntrack::NO_HINT;
use crate::io::BURST;
use crate::lookahead::Resolved;
use crate::packet::{Fragment, PacketKind, PacketMeta};
use crate::snapshot::Snapshot;
use crate::tcp;
use crate::verdict::Verdict;
use crate::{NicSlot, Reason, RuleId};

/// What the rules say of the packets of a burst, by their index.
pub struct RuleVerdicts {
    /// Some were evaluated.
    is_any: bool,
    /// Most of the last burst's openers were refused. Only then does evaluating ahead pay: an
    /// admitted opener waits for memory anyway, and its rules are looked up meanwhile.
    is_worth_it: bool,
    verdicts: [Option<RuleVerdict>; BURST],
}

impl Default for RuleVerdicts {
    fn default() -> RuleVerdicts {
        RuleVerdicts { is_any: false, is_worth_it: true, verdicts: [None; BURST] }
    }
}

impl RuleVerdicts {
    /// Evaluates the rules for all packets that will open a connection if they have none, and that
    /// the index does not seem to know. Costs next to nothing if every packet has a connection.
    #[inline(always)]
    pub fn evaluate(
        &mut self,
        snapshot: &Snapshot,
        pkts: &[PacketMeta],
        resolved: &[Resolved<'_>],
        hints: &[u32; BURST],
    ) {
        // Over all hints and without a branch for each, so that it becomes a few vector
        // comparisons.
        self.is_any =
            self.is_worth_it && hints.iter().fold(false, |is_any, hint| is_any | (*hint == NO_HINT));
        if self.is_any {
            self.evaluate_openers(snapshot, pkts, resolved, hints);
        }
    }

    #[inline(never)]
    fn evaluate_openers(
        &mut self,
        snapshot: &Snapshot,
        pkts: &[PacketMeta],
        resolved: &[Resolved<'_>],
        hints: &[u32; BURST],
    ) {
        // Collected first: the branches that select packets would only be in the way of the
        // look-ups.
        let mut queries: ArrayVec<(usize, RuleQuery<'_>), BURST> = ArrayVec::new();
        for (at, ((pkt, resolved), hint)) in pkts.iter().zip(resolved).zip(hints).enumerate() {
            if let Some(nic) = resolved.nic
                && *hint == NO_HINT
                && opens_connection(pkt)
            {
                let remote = if pkt.v6 { pkt.remote() } else { u128::from(resolved.key.remote()) };
                let query = opening_query(pkt, remote);
                queries.push((at, RuleQuery { policy: snapshot.policy(nic), own: nic.vpc, query }));
            }
        }
        self.verdicts = [None; BURST];
        let answers = &mut self.verdicts;
        judge_all(&snapshot.groups, queries.iter().copied(), |at, verdict| {
            answers[at % BURST] = Some(verdict)
        });
    }

    /// Notes how many more openers of a burst were refused than admitted.
    #[inline]
    pub fn learn(&mut self, more_refused: i32) {
        if more_refused != 0 {
            self.is_worth_it = more_refused > 0;
        }
    }

    /// The rule verdict on a packet, if it was evaluated.
    #[inline]
    pub fn get(&self, at: usize) -> Option<RuleVerdict> {
        if self.is_any { self.verdicts[at % BURST] } else { None }
    }

    /// The same, if it is a refusal.
    #[inline]
    pub fn refusal(&self, at: usize) -> Option<RuleVerdict> {
        self.get(at).filter(|verdict| !matches!(verdict, RuleVerdict::Allow(_)))
    }
}

/// True for packets that open a connection whenever they have none, by the rules of their own
/// direction and nothing else. Those that open one only at times (a mid-stream segment), and first
/// fragments, whose verdict is remembered, are evaluated when it is their turn.
#[inline]
fn opens_connection(pkt: &PacketMeta) -> bool {
    let opens = match pkt.kind {
        PacketKind::Tcp => tcp::is_opening_syn(pkt.flags),
        PacketKind::WithPorts | PacketKind::IcmpRequest | PacketKind::OtherProtocol => true,
        _ => false,
    };
    opens && pkt.fragment == Fragment::Whole
}

/// The query for a packet that opens a connection.
#[inline]
pub fn opening_query(pkt: &PacketMeta, remote: u128) -> Query {
    Query { direction: pkt.side.direction(), v6: pkt.v6, protocol: pkt.proto, port: pkt.dport, remote }
}

/// The verdict on a packet without a connection that the rules refuse.
#[inline]
pub fn refusal_verdict(verdict: RuleVerdict, nic: NicSlot) -> Verdict {
    match verdict {
        RuleVerdict::Deny(rule) => Verdict { rule, ..Verdict::of(Reason::Denied, nic) },
        _ => Verdict { rule: RuleId::NONE, ..Verdict::of(Reason::NoRule, nic) },
    }
}
