//! What a full table, or a full share of the unconfirmed, may give up for a newcomer (semantics
//! 6.1).
//!
//! The page leaves a choice where a sample decides. So this says of one victim, or of a refusal,
//! whether it is among what is allowed; nothing is foreseen.

use super::View;

/// The state of one worker's table as a newcomer comes, and of its NIC.
pub struct Room<'v> {
    /// Its live connections and tombstones.
    pub views: &'v [View],
    /// All that lies in it: what has expired or was ended by a change, too.
    pub len: u32,
    /// What it may hold, and of unconfirmed ones.
    pub capacity: u32,
    /// See `capacity`.
    pub unconfirmed: u32,
    /// What all workers' tables may hold.
    pub all_workers: u32,
    /// NICs of the policy.
    pub nics: u32,
    /// Whose the newcomer is.
    pub newcomer: &'v str,
    /// Connections and tombstones of each NIC with all workers.
    pub held: &'v dyn Fn(&str) -> u32,
    /// True if what is held is not known for certain: something has expired somewhere and was not
    /// found yet.
    pub is_vague: bool,
    /// When each was last heard of.
    pub heard_ns: &'v dyn Fn(&View) -> u64,
}

/// "A NIC's fair share is the capacity divided by the policy's NICs (at least 16)"; of a table that
/// has no room for two such, half of it.
fn share(all: u32, nics: u32) -> u32 {
    let equal = all / nics;
    if equal >= 16 {
        equal
    } else if all >= 32 {
        16
    } else {
        equal.max(all / 2)
    }
}

/// Deadlines lie on ticks of an eighth of a second: who was heard of within two of them is idle for
/// as long.
const TICKS_NS: u64 = 250_000_000;

impl Room<'_> {
    fn is_unconfirmed(view: &View) -> bool {
        !view.confirmed && !view.tombstone
    }

    fn unconfirmed_of(&self, nic: &str) -> u32 {
        self.views.iter().filter(|view| Self::is_unconfirmed(view) && view.id.nic == nic).count() as u32
    }

    fn unconfirmed_part(&self) -> u32 {
        share(self.unconfirmed, self.nics)
    }

    /// How far a NIC is above its fair share.
    fn above(&self, nic: &str) -> u32 {
        (self.held)(nic).saturating_sub(share(self.all_workers, self.nics))
    }

    /// "One NIC's flood, two-way or not, closes no other": an unconfirmed connection of a NIC that
    /// is above neither its share nor its part of the unconfirmed goes only for one of a NIC that
    /// is below its own, or of itself.
    fn is_fair_game(&self, nic: &str) -> bool {
        self.above(nic) > 0 || self.unconfirmed_of(nic) > self.unconfirmed_part()
    }

    fn is_below(&self) -> bool {
        (self.held)(self.newcomer) < share(self.all_workers, self.nics)
    }

    fn is_full(&self) -> bool {
        self.len >= self.capacity
    }

    /// The farthest that one of the NICs with confirmed connections here is above its share.
    fn farthest(&self) -> u32 {
        let confirmed = self.views.iter().filter(|view| view.confirmed && !view.refused);
        confirmed.map(|view| self.above(&view.id.nic)).max().unwrap_or_default()
    }

    /// An unconfirmed one that must go before any confirmed one and any tombstone.
    fn first_choice(&self) -> Option<&View> {
        self.views.iter().find(|view| Self::is_unconfirmed(view) && self.is_fair_game(&view.id.nic))
    }

    /// One that the newcomer may take at all.
    fn last_choice(&self) -> Option<&View> {
        let may = |view: &&View| self.is_below() || view.id.nic == self.newcomer;
        self.first_choice().or_else(|| self.views.iter().filter(|v| Self::is_unconfirmed(v)).find(may))
    }

    /// Whether the victim was allowed to go, and as what it went.
    pub fn judge(&self, victim: &View) -> Result<&'static str, String> {
        let no = |why: &str| Err(format!("{why}: {victim:#?}"));
        if victim.tombstone || victim.confirmed && victim.refused {
            // "A tombstone last of all": refused by what judging now would give, it is one but for
            // the packet that says so.
            let kind = if victim.tombstone { "evicted tombstones" } else { "evicted refused" };
            return match () {
                () if !self.is_full() => no("a tombstone goes from a table that is not full"),
                () if self.has_better() => no("a tombstone goes before what is over"),
                () if self.is_vague => Ok(kind),
                () if self.last_choice().is_some() => no("a tombstone goes before an unconfirmed one"),
                () if self.is_below() && self.farthest() > 0 => {
                    no("a tombstone goes before a NIC above its share")
                }
                () => Ok(kind),
            };
        }
        if victim.confirmed {
            let kind = "evicted of a NIC above its share";
            let idle = |view: &&View| view.id.nic == victim.id.nic && view.confirmed && !view.refused;
            let longest = self.views.iter().filter(idle).map(|view| (self.heard_ns)(view)).min();
            return match () {
                () if !self.is_full() => no("a confirmed one goes from a table that is not full"),
                () if self.has_better() => no("a confirmed one goes before what is over"),
                () if self.is_vague => Ok(kind),
                () if !self.is_below() => no("a confirmed one goes for a NIC that has its share"),
                () if self.above(&victim.id.nic) == 0 => no("a confirmed one of a NIC within its share goes"),
                () if self.above(&victim.id.nic) < self.farthest() => {
                    no("another NIC is further above its share")
                }
                () if longest.is_some_and(|ns| (self.heard_ns)(victim) > ns + TICKS_NS) => {
                    no("another is idle for longer")
                }
                () if self.first_choice().is_some() => no("a confirmed one goes before an unconfirmed one"),
                () => Ok(kind),
            };
        }
        let rivals = self.views.iter().filter(|view| Self::is_unconfirmed(view)).count() as u32;
        if rivals >= self.unconfirmed {
            let kind = "evicted unconfirmed at their share";
            let part = self.unconfirmed_part();
            let is_above = |nic: &str| self.unconfirmed_of(nic) > part;
            let is_own = victim.id.nic == self.newcomer;
            let is_within = self.unconfirmed_of(self.newcomer) < part;
            let has_above = self.views.iter().any(|v| Self::is_unconfirmed(v) && is_above(&v.id.nic));
            let is_right = is_above(&victim.id.nic) || if is_within { !has_above } else { is_own };
            // Where the table is full besides, that may be why.
            if is_right || !self.is_full() {
                return if is_right || self.is_vague { Ok(kind) } else { no("its NIC is within its part") };
            }
        }
        let kind = "evicted unconfirmed";
        let is_right = self.is_fair_game(&victim.id.nic)
            || if self.is_below() { self.farthest() == 0 } else { victim.id.nic == self.newcomer };
        match () {
            () if !self.is_full() => no("an unconfirmed one goes without need"),
            () if self.has_better() => no("an unconfirmed one goes before what is over"),
            () if is_right || self.is_vague => Ok(kind),
            () => no("it closes a connection of a NIC within its share"),
        }
    }

    /// Whether `table-full` was right: nothing was there that the newcomer may take.
    pub fn refuses(&self) -> Result<(), String> {
        if self.is_vague {
            return Ok(());
        }
        let is_bare = !self.has_better() && !self.views.iter().any(|view| view.tombstone);
        let has_none = self.last_choice().is_none() && !(self.is_below() && self.farthest() > 0);
        let rivals = self.views.iter().filter(|view| Self::is_unconfirmed(view)).count() as u32;
        // At the share of the unconfirmed, of whom none is its own and nobody above: others' are
        // not for a NIC that has its part.
        let has_no_part = rivals >= self.unconfirmed
            && self.unconfirmed_of(self.newcomer) == 0
            && self.unconfirmed_part() == 0;
        if self.is_full() && is_bare && has_none || has_no_part {
            return Ok(());
        }
        Err(format!("table-full for {} of {} entries, of {}", self.newcomer, self.len, self.capacity))
    }

    /// Something that has expired or that a change has ended is left.
    fn has_better(&self) -> bool {
        self.len as usize > self.views.len()
    }
}
