//! What is counted by NIC, of those with the most traffic.

use std::cmp::Reverse;
use std::sync::Arc;

use engine::{NicSlot, Reason};
use stats::{Family, Kind};

use super::super::baselines::NicTotals;
use super::Sample;
use super::workers::{Columns, DIRECTIONS, direction_name, no_less};
use crate::model::Key;

/// One NIC's packets and bytes, by direction: passed, dropped.
#[derive(Clone, Copy, Default)]
struct Traffic {
    packets: [[u64; 2]; 2],
    bytes: [[u64; 2]; 2],
}

/// What was shown last of the NIC in one place; see [`super::workers::LastShown`].
#[derive(Clone, Copy, Default)]
struct LastShownNic {
    /// How often the place had been given out.
    holder: u64,
    shown: Traffic,
}

/// The same of all places.
#[derive(Default)]
pub(super) struct LastShown(Vec<LastShownNic>);

impl Traffic {
    /// Since the place has its NIC.
    fn read(columns: &Columns, slot: NicSlot, before: &NicTotals) -> Traffic {
        let at = slot.0 as usize;
        let of = |column: &Vec<u64>| column.get(at).copied().unwrap_or_default();
        let mut traffic = Traffic::default();
        for direction in DIRECTIONS {
            let d = direction as usize;
            let before_it = &before.packets[d];
            let dropped = of(&columns.dropped[d]).saturating_sub(before_it.sum(|reason| !reason.passes()));
            let observed = of(&columns.observed[d]).saturating_sub(before_it.observed).min(dropped);
            let passed = of(&columns.passed[d]).saturating_sub(before_it.sum(Reason::passes));
            traffic.packets[d] = [passed + observed, dropped - observed];
            for verdict in [0, 1] {
                traffic.bytes[d][verdict] =
                    of(&columns.bytes[d][verdict]).saturating_sub(before_it.bytes[verdict]);
            }
        }
        traffic
    }

    fn all(&self) -> u64 {
        self.packets.iter().flatten().sum()
    }
}

impl LastShownNic {
    /// Never less than was shown of the same NIC.
    fn raised(&mut self, holder: u64, now: &Traffic) -> Traffic {
        if self.holder != holder {
            *self = LastShownNic { holder, ..LastShownNic::default() };
        }
        let shown = self.shown.packets.iter_mut().chain(&mut self.shown.bytes).flatten();
        let now = now.packets.iter().chain(&now.bytes).flatten();
        shown.zip(now).for_each(|(shown, now)| _ = no_less(shown, *now));
        self.shown
    }
}

impl LastShown {
    pub fn families(&mut self, taken: &Sample, columns: &Columns, nics: &[(Key, NicSlot)]) -> [Family; 3] {
        const NIC: &[&str] = &["project", "nic", "direction", "verdict"];
        let mut packets =
            Family::new("nic_packets", Kind::Counter, NIC, "Packets judged for the NIC, by verdict.");
        let mut bytes = Family::new(
            "nic_bytes",
            Kind::Counter,
            NIC,
            "Bytes of frames judged for the NIC, without the check sequence (FCS).",
        );
        let mut connections = Family::new(
            "nic_connections",
            Kind::Gauge,
            &["project", "nic"],
            "Connections and tombstones that the NIC has.",
        );
        self.0.resize((taken.places as usize).max(self.0.len()), LastShownNic::default());
        let verdicts = ["pass", "drop"].map(Arc::<str>::from);
        let directions = DIRECTIONS.map(|direction| Arc::<str>::from(direction_name(direction)));
        for (key, slot, traffic) in self.busiest(taken, columns, nics) {
            for (d, direction) in directions.iter().enumerate() {
                for (v, verdict) in verdicts.iter().enumerate() {
                    let labels = [key.project.clone(), key.name.clone(), direction.clone(), verdict.clone()];
                    packets.push(labels.clone(), traffic.packets[d][v]);
                    bytes.push(labels, traffic.bytes[d][v]);
                }
            }
            let held = taken.connection_counts.get(slot);
            connections.push([key.project.clone(), key.name.clone()], u64::from(held));
        }
        [packets, bytes, connections]
    }

    /// NICs with the most packets, as many as are shown, by name.
    fn busiest<'n>(
        &mut self,
        taken: &Sample,
        columns: &Columns,
        nics: &'n [(Key, NicSlot)],
    ) -> Vec<(&'n Key, NicSlot, Traffic)> {
        let read = |(key, slot): &'n (Key, NicSlot)| {
            let before = taken.baselines.of(*slot);
            let now = Traffic::read(columns, *slot, before);
            // A place that was given out since has no counts to show yet.
            let of = self.0.get_mut(slot.0 as usize)?;
            Some((key, *slot, of.raised(before.holder, &now)))
        };
        let mut all: Vec<_> = nics.iter().filter_map(read).collect();
        if all.len() > taken.most_nics {
            all.sort_unstable_by_key(|(key, _, traffic)| (Reverse(traffic.all()), *key));
            all.truncate(taken.most_nics);
        }
        all.sort_unstable_by_key(|(key, ..)| *key);
        all
    }
}
