//! Where a NIC's counters began. A place is used again when its NIC is long gone, and what workers count there goes on: a cell has one
//! writer, which nobody stops for this. So what stood there as the place was given out again is taken off.

use std::sync::{Arc, LazyLock};

use engine::{Direction, NicSlot};

use super::WorkerHandle;
use super::reason_counts::ReasonCounts;

/// What all workers have counted of one NIC.
#[derive(Clone, Copy, Default)]
pub(super) struct NicTotals {
    /// Inbound, outbound.
    pub packets: [ReasonCounts; 2],
    /// Connections that gave way to those of NICs below their share.
    pub displaced: u64,
    /// How often any place had been given out again: it tells the holders of one place apart.
    pub holder: u64,
}

/// Inbound, outbound.
const DIRECTIONS: [Direction; 2] = [Direction::Inbound, Direction::Outbound];

impl NicTotals {
    /// By now.
    pub fn read(workers: &[WorkerHandle], nic: NicSlot) -> NicTotals {
        let mut all = NicTotals::default();
        for WorkerHandle { counters, .. } in workers {
            for direction in DIRECTIONS {
                all.packets[direction as usize].add(&ReasonCounts::read(counters, nic, direction));
            }
            all.displaced += counters.displaced(nic);
        }
        all
    }
}

/// What stood in places that were given out again. A copy costs nothing.
#[derive(Clone, Default)]
pub(super) struct Baselines {
    before: imbl::HashMap<NicSlot, Arc<NicTotals>>,
    holders: u64,
}

static NOTHING: LazyLock<NicTotals> = LazyLock::new(NicTotals::default);

impl Baselines {
    /// These places have new NICs, of which no worker knows yet. Nobody has counted there for longer than any connection lives.
    pub fn begin(&mut self, places: Vec<NicSlot>, workers: &[WorkerHandle]) {
        for nic in places {
            self.holders += 1;
            let counted = NicTotals { holder: self.holders, ..NicTotals::read(workers, nic) };
            self.before.insert(nic, Arc::new(counted));
        }
    }

    /// What stood in the place before its NIC.
    pub fn of(&self, nic: NicSlot) -> &NicTotals {
        self.before.get(&nic).map_or(&NOTHING, |counted| counted)
    }
}
