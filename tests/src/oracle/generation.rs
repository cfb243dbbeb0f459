//! Generations of the policy: what each one is, and what it does to connections and fragments
//! (semantics 5).

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use control::config::{OnFlush, PolicySettings};
use control::model::{Key, Nic, Policy};

use super::change;

/// One generation.
#[derive(Clone, Default)]
pub(super) struct GenerationModel {
    pub policy: Arc<Policy>,
    /// "A NIC made anew, even with the same name and address, … inherits none" (5.5): so each one
    /// has a number.
    nics: BTreeMap<Key, u32>,
    /// "An address taken away ends its connections, also when it comes back" (5.5): the number of
    /// each that is held.
    places: BTreeMap<(Key, IpAddr), u32>,
    held: BTreeSet<u32>,
    /// NICs whose inbound connections it disconnects.
    flushed: BTreeSet<Key>,
    /// NICs whose inbound connections are judged again.
    rejudged: BTreeSet<Key>,
    /// NICs that it flushed, judged again, made or ended, or from which it took an address.
    touched: BTreeSet<Key>,
    /// The generation that a rollback goes back to.
    back_to: Option<u32>,
}

/// What generations did to a connection.
#[derive(Clone, Default, Debug)]
pub(super) struct Fate {
    /// The generations that disconnected it: a rollback takes back those that it goes behind (5.7).
    pub cut: BTreeSet<u32>,
    /// To be judged again at its next packet (5.4).
    pub rejudge: bool,
    /// The generation up to which this is known.
    seen: u32,
}

impl Fate {
    /// Of what begins under a generation.
    pub fn born(generation: u32) -> Fate {
        Fate { seen: generation, ..Fate::default() }
    }

    /// What the generations up to `now` do to something inbound of a NIC.
    pub fn follow(&mut self, eras: &[GenerationModel], now: usize, nic: &Key) {
        for (generation, era) in (0u32..).zip(eras).take(now + 1).skip(self.seen as usize + 1) {
            // Where nothing was touched since, a judgement that was due before has only come late.
            if let Some(back_to) = era.back_to.filter(|_| era.rejudged.contains(nic)) {
                self.cut.retain(|cut| *cut <= back_to);
            }
            if era.flushed.contains(nic) {
                self.cut.insert(generation);
            }
            self.rejudge |= era.rejudged.contains(nic);
        }
        self.seen = self.seen.max(now as u32);
    }
}

impl GenerationModel {
    /// What applying `policy` to this generation makes; `numbers` gives NICs and addresses that are
    /// new theirs.
    pub fn then(&self, policy: &Policy, settings: &PolicySettings, numbers: &mut u32) -> GenerationModel {
        let mut change = change::change(&self.policy, policy, settings);
        let mut fresh = || {
            *numbers += 1;
            *numbers
        };
        let mut era = GenerationModel { policy: Arc::new(policy.clone()), ..GenerationModel::default() };
        for (key, nic) in &policy.nics {
            let old = self.nics.get(key).filter(|_| !change.ended.contains(key));
            if old.is_none() {
                era.touched.insert(key.clone());
            }
            era.nics.insert(key.clone(), old.copied().unwrap_or_else(&mut fresh));
            for address in nic.all_addresses() {
                let place = (key.clone(), address);
                let kept = old.and(self.places.get(&place)).copied();
                // An address may be listed as fixed and as allowed: it is one.
                era.places.entry(place).or_insert_with(|| kept.unwrap_or_else(&mut fresh));
            }
        }
        if settings.on_flush == OnFlush::Rejudge {
            // "Treats a flush as 5.4 instead."
            change.rejudged.append(&mut change.flushed);
        }
        era.touched.extend(change.ended);
        era.touched.extend(change.lost.into_iter().map(|(nic, _)| nic));
        era.touched.extend(change.flushed.iter().chain(&change.rejudged).cloned());
        era.flushed = change.flushed;
        era.rejudged = change.rejudged;
        era.held = era.places.values().copied().collect();
        era
    }

    /// The generation that goes back to `eras[to]` (5.7): its policy, its NICs and its addresses;
    /// no flush; who was touched since is judged again. What is gone for so long that no connection
    /// can be left of it (`is_over`) does not come back: a namesake that is there stays, else it is
    /// made anew.
    pub fn back(
        eras: &[GenerationModel],
        to: u32,
        is_over: impl Fn(u32) -> bool,
        numbers: &mut u32,
    ) -> GenerationModel {
        let mut fresh = || {
            *numbers += 1;
            *numbers
        };
        let touched: BTreeSet<Key> =
            eras[to as usize + 1..].iter().flat_map(|era| era.touched.iter().cloned()).collect();
        let (then, present) = (&eras[to as usize], &eras[eras.len() - 1]);
        let mut era = GenerationModel {
            policy: then.policy.clone(),
            nics: then.nics.clone(),
            places: then.places.clone(),
            rejudged: touched.clone(),
            touched,
            back_to: Some(to),
            ..GenerationModel::default()
        };
        for (key, number) in era.nics.iter_mut().filter(|(_, number)| is_over(**number)) {
            let stays = |nic: &&std::sync::Arc<Nic>| nic.vpc == then.policy.nics[key].vpc;
            let namesake = present.policy.nics.get(key).filter(stays).and(present.nics.get(key));
            *number = namesake.copied().unwrap_or_else(&mut fresh);
        }
        for ((key, address), place) in &mut era.places {
            if then.nics[key] != era.nics[key] || is_over(*place) {
                let namesake = present.place(key, *address);
                let of_same = namesake.filter(|_| present.nics.get(key) == era.nics.get(key));
                *place = of_same.unwrap_or_else(&mut fresh);
            }
        }
        era.held = era.places.values().copied().collect();
        era
    }

    /// The numbers of the NICs and addresses that are there.
    pub fn numbers(&self) -> impl Iterator<Item = u32> + '_ {
        self.nics.values().chain(&self.held).copied()
    }

    /// Whether it forgets the fragments of a NIC's inbound connections and of its drops (4.6). A
    /// rollback does so where it has connections judged again: nothing may pass behind a first that
    /// today's rules refuse, and such fragments judge nothing.
    pub fn forgets(&self, nic: &Key) -> bool {
        self.flushed.contains(nic) || self.back_to.is_some() && self.rejudged.contains(nic)
    }

    /// Whether it may do so where it need not: it may take for touched who rests on something that
    /// changed elsewhere.
    pub fn may_forget(&self) -> bool {
        self.back_to.is_some()
    }

    /// The number of an address of a NIC.
    pub fn place(&self, nic: &Key, address: IpAddr) -> Option<u32> {
        self.places.get(&(nic.clone(), address)).copied()
    }

    /// Whether the address with this number is there.
    pub fn holds(&self, place: u32) -> bool {
        self.held.contains(&place)
    }

    /// Whether a NIC is there, and the same as in another generation.
    pub fn has_same(&self, other: &GenerationModel, nic: &Key) -> bool {
        self.nics.get(nic).is_some_and(|number| other.nics.get(nic) == Some(number))
    }
}
