//! What became of one packet.

use crate::{NicSlot, Reason, RuleId};

/// The judgement of one packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// Why.
    pub reason: Reason,
    /// True if the reason would have dropped it, and observe mode let it pass.
    pub observed: bool,
    /// True if it waits for its first fragment (semantics 4.6): it is judged again, and counted
    /// then.
    pub held: bool,
    /// The NIC it was judged for; [`NicSlot::NONE`] if none.
    pub nic: NicSlot,
    /// The rule that decided, for `new` and `denied`.
    pub rule: RuleId,
}

impl Verdict {
    /// A verdict that no NIC has a part in.
    pub fn nobody(reason: Reason) -> Verdict {
        Verdict::of(reason, NicSlot::NONE)
    }

    /// A verdict for a NIC, with no rule to name.
    #[inline]
    pub fn of(reason: Reason, nic: NicSlot) -> Verdict {
        Verdict { reason, observed: false, held: false, nic, rule: RuleId::NONE }
    }

    /// True if the packet goes on.
    #[inline]
    pub fn passes(&self) -> bool {
        self.reason.passes() || self.observed
    }
}

/// What a staged rule would decide about a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StagedVerdict {
    /// The rule: it would win.
    pub rule: RuleId,
    /// It would let the packet open a connection.
    pub allows: bool,
    /// The verdict is another.
    pub differs: bool,
}
