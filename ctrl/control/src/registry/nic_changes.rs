//! Which NICs became others at which generation: a rollback looks at those, and at nobody else.

use std::collections::{BTreeSet, HashMap, VecDeque};

use engine::Generation;

use super::Identity;
use crate::model::Key;

/// Entries beyond those that say something new, before they are looked for.
const SLACK: usize = 1024;

/// NICs by the generations that made them others, the newest last. An entry that a later one of the same NIC outdoes says nothing,
/// and goes when there are as many of those as of others: what is noted and what is kept both cost little.
#[derive(Clone, Default)]
pub struct NicChanges {
    by_generation: VecDeque<(Generation, Vec<Key>)>,
    entries: usize,
}

impl NicChanges {
    /// Notes that `generation` made these NICs others.
    pub fn note(&mut self, generation: Generation, moved: &BTreeSet<Key>, nics: &mut HashMap<Key, Identity>) {
        if moved.is_empty() {
            return;
        }
        for key in moved {
            if let Some(identity) = nics.get_mut(key) {
                identity.moved = generation;
            }
        }
        self.by_generation.push_back((generation, moved.iter().cloned().collect()));
        self.entries += moved.len();
        if self.entries > 2 * nics.len() + SLACK {
            self.forget_outdone(nics);
        }
    }

    /// NICs that a generation after `to` made others, some of them more than once, and such as are gone.
    pub fn since(&self, to: Generation) -> impl Iterator<Item = &Key> {
        let later = self.by_generation.iter().rev().take_while(move |(generation, _)| *generation > to);
        later.flat_map(|(_, keys)| keys)
    }

    fn forget_outdone(&mut self, nics: &HashMap<Key, Identity>) {
        for (generation, keys) in &mut self.by_generation {
            keys.retain(|key| nics.get(key).is_some_and(|identity| identity.moved == *generation));
        }
        self.by_generation.retain(|(_, keys)| !keys.is_empty());
        self.entries = self.by_generation.iter().map(|(_, keys)| keys.len()).sum();
    }
}

#[cfg(test)]
mod tests {
    use engine::NicSlot;

    use super::*;

    #[test]
    fn who_moved_is_known_and_the_outdone_are_forgotten() {
        let key = |name: &str| Key::new("p", name);
        let (a, b) = (key("a"), key("b"));
        let mut nics: HashMap<Key, Identity> = [(a.clone(), 1), (b.clone(), 2)]
            .map(|(key, slot)| (key, Identity::new(NicSlot(slot), Generation(1))))
            .into();
        let mut moves = NicChanges::default();
        let both = BTreeSet::from([a.clone(), b.clone()]);
        moves.note(Generation(1), &both, &mut nics);
        for generation in 2..3000 {
            moves.note(Generation(generation), &BTreeSet::from([b.clone()]), &mut nics);
            moves.note(Generation(generation), &BTreeSet::new(), &mut nics);
        }
        let since = |to| moves.since(Generation(to)).collect::<BTreeSet<_>>();
        assert_eq!(since(0), BTreeSet::from([&a, &b]));
        assert_eq!(since(1), BTreeSet::from([&b]));
        assert_eq!(since(2998), BTreeSet::from([&b]));
        assert_eq!(since(2999), BTreeSet::new());
        assert!(moves.entries <= SLACK + 2 * nics.len(), "{}", moves.entries);
    }
}
