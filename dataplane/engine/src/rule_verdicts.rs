//! The rules asked of a whole burst at once: of the packets that will probably open a connection, before any packet is judged.
//!
//! What the rules say hangs on the snapshot, the NIC and the packet alone, never on connections. So it may be asked ahead of time, and an
//! answer is at worst not needed: if an earlier packet of the burst has opened the connection, or the guess was wrong.

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

/// What the rules say of the packets of a burst, by their places.
pub struct RuleVerdicts {
    /// Any was asked.
    is_any: bool,
    /// More of the last burst's openers were refused than admitted: asking ahead pays for the former only. Who is admitted waits for
    /// memory anyway, while the rules are looked up.
    is_worth_it: bool,
    verdicts: [Option<RuleVerdict>; BURST],
}

impl Default for RuleVerdicts {
    fn default() -> RuleVerdicts {
        RuleVerdicts { is_any: false, is_worth_it: true, verdicts: [None; BURST] }
    }
}

impl RuleVerdicts {
    /// Asks of all those packets that will open connections if there are none yet: by their hints, the index does not seem to know one.
    /// Costs next to nothing where every packet has a connection.
    #[inline(always)]
    pub fn evaluate(
        &mut self,
        snapshot: &Snapshot,
        pkts: &[PacketMeta],
        aheads: &[Resolved<'_>],
        hints: &[u32; BURST],
    ) {
        // Without a branch a packet, and all of them, so that it becomes a few comparisons of many.
        self.is_any =
            self.is_worth_it && hints.iter().fold(false, |is_any, hint| is_any | (*hint == NO_HINT));
        if self.is_any {
            self.evaluate_openers(snapshot, pkts, aheads, hints);
        }
    }

    #[inline(never)]
    fn evaluate_openers(
        &mut self,
        snapshot: &Snapshot,
        pkts: &[PacketMeta],
        aheads: &[Resolved<'_>],
        hints: &[u32; BURST],
    ) {
        // Who is asked about is collected first: what decides about that would only be in the way of the look-ups.
        let mut asks: ArrayVec<(usize, RuleQuery<'_>), BURST> = ArrayVec::new();
        for (place, ((pkt, ahead), hint)) in pkts.iter().zip(aheads).zip(hints).enumerate() {
            if let Some(nic) = ahead.nic
                && *hint == NO_HINT
                && opens_connection(pkt)
            {
                let remote = if pkt.v6 { pkt.remote() } else { u128::from(ahead.key.remote()) };
                let query = opening_query(pkt, remote);
                asks.push((place, RuleQuery { policy: snapshot.policy(nic), own: nic.vpc, query }));
            }
        }
        self.verdicts = [None; BURST];
        let answers = &mut self.verdicts;
        judge_all(snapshot, asks.iter().copied(), |place, judgement| {
            answers[place % BURST] = Some(judgement)
        });
    }

    /// Takes note of how many more openers of a burst were refused than admitted.
    #[inline]
    pub fn learn(&mut self, more_refused: i32) {
        if more_refused != 0 {
            self.is_worth_it = more_refused > 0;
        }
    }

    /// What was said of a packet, if it was asked.
    #[inline]
    pub fn get(&self, place: usize) -> Option<RuleVerdict> {
        if self.is_any { self.verdicts[place % BURST] } else { None }
    }

    /// The same, if no rule allows it.
    #[inline]
    pub fn refusal(&self, place: usize) -> Option<RuleVerdict> {
        self.get(place).filter(|judgement| !matches!(judgement, RuleVerdict::Allow(_)))
    }
}

/// True for what opens a connection whenever it has none, and asks the rules of its own direction for that and nothing else. What may
/// open one only at times (a segment amid a stream), and first fragments, whose verdict is remembered, ask when their turn comes.
#[inline]
fn opens_connection(pkt: &PacketMeta) -> bool {
    let opens = match pkt.kind {
        PacketKind::Tcp => tcp::is_opening_syn(pkt.flags),
        PacketKind::WithPorts | PacketKind::IcmpRequest | PacketKind::OtherProtocol => true,
        _ => false,
    };
    opens && pkt.fragment == Fragment::Whole
}

/// What the rules are asked of a packet that opens a connection.
#[inline]
pub fn opening_query(pkt: &PacketMeta, remote: u128) -> Query {
    Query { direction: pkt.side.direction(), v6: pkt.v6, protocol: pkt.proto, port: pkt.dport, remote }
}

/// The verdict on a packet without a connection that the rules do not allow.
#[inline]
pub fn refusal_verdict(judgement: RuleVerdict, nic: NicSlot) -> Verdict {
    match judgement {
        RuleVerdict::Deny(rule) => Verdict { rule, ..Verdict::of(Reason::Denied, nic) },
        _ => Verdict { rule: RuleId::NONE, ..Verdict::of(Reason::NoRule, nic) },
    }
}
