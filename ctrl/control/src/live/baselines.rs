//! Where a NIC's counters began. A place is used again when its NIC is long gone, and what workers count there goes on: a cell has one
//! writer, which nobody stops for this. So what stood there as the place was given out again is taken off.

use std::collections::HashMap;

use engine::{Direction, NicSlot};

use super::WorkerHandle;
use super::views::Tally;

/// What all workers have counted of one NIC.
#[derive(Clone, Copy, Default)]
pub(super) struct Counted {
    /// Inbound, outbound.
    pub packets: [Tally; 2],
    /// Connections that gave way to those of NICs below their share.
    pub displaced: u64,
}

impl Counted {
    fn read(workers: &[WorkerHandle], nic: NicSlot) -> Counted {
        let mut all = Counted::default();
        for WorkerHandle { cells, .. } in workers {
            for (direction, sum) in
                [Direction::Inbound, Direction::Outbound].into_iter().zip(&mut all.packets)
            {
                sum.add(&Tally::read(cells, nic, direction));
            }
            all.displaced += cells.displaced(nic);
        }
        all
    }
}

/// What stood in places that were given out again.
#[derive(Default)]
pub(super) struct Baselines(HashMap<NicSlot, Counted>);

impl Baselines {
    /// These places have new NICs, of which no worker knows yet. Nobody has counted there for longer than any connection lives.
    pub fn begin(&mut self, places: Vec<NicSlot>, workers: &[WorkerHandle]) {
        self.0.extend(places.into_iter().map(|nic| (nic, Counted::read(workers, nic))));
    }

    /// What stood in the place before its NIC.
    pub fn of(&self, nic: NicSlot) -> Counted {
        self.0.get(&nic).copied().unwrap_or_default()
    }
}
