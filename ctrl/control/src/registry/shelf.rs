//! What was put away, in the order in which it was, and found by what it is called: a change of a hundred thousand NICs
//! looks for each of them.

use std::collections::{BTreeMap, HashMap};
use std::hash::Hash;

/// Where something lies. Later ones are greater.
pub type Spot = u64;

#[cfg(test)]
thread_local! {
    /// How many things were looked at for their names.
    pub static LOOKED_AT: std::cell::Cell<usize> = const { std::cell::Cell::new(0) };
}

/// What was put away, the oldest first; several may be called the same.
#[derive(Clone)]
pub struct Shelf<K, T> {
    lying: BTreeMap<Spot, (K, T)>,
    called: HashMap<K, Vec<Spot>>,
    next: Spot,
}

impl<K: Eq + Hash + Clone, T> Shelf<K, T> {
    pub fn new() -> Shelf<K, T> {
        Shelf { lying: BTreeMap::new(), called: HashMap::new(), next: 0 }
    }

    pub fn len(&self) -> usize {
        self.lying.len()
    }

    /// Puts something away.
    pub fn put(&mut self, key: K, thing: T) {
        self.called.entry(key.clone()).or_default().push(self.next);
        self.lying.insert(self.next, (key, thing));
        self.next += 1;
    }

    /// Those called so, the last put away first.
    pub fn named(&self, key: &K) -> impl Iterator<Item = (Spot, &T)> {
        let spots = self.called.get(key).into_iter().flatten().rev();
        spots.filter_map(|spot| {
            #[cfg(test)]
            LOOKED_AT.with(|looked_at| looked_at.set(looked_at.get() + 1));
            Some((*spot, &self.lying.get(spot)?.1))
        })
    }

    /// Takes one back.
    pub fn take(&mut self, spot: Spot) -> Option<T> {
        let (key, thing) = self.lying.remove(&spot)?;
        if let Some(spots) = self.called.get_mut(&key) {
            spots.retain(|other| *other != spot);
            if spots.is_empty() {
                self.called.remove(&key);
            }
        }
        Some(thing)
    }

    /// The one put away first.
    pub fn oldest(&self) -> Option<(Spot, &T)> {
        self.lying.iter().next().map(|(spot, (_, thing))| (*spot, thing))
    }

    /// All of them, the oldest first.
    pub fn iter(&self) -> impl Iterator<Item = (Spot, &T)> {
        self.lying.iter().map(|(spot, (_, thing))| (*spot, thing))
    }

    /// What they are called, with them, the oldest first.
    pub fn called(&self) -> impl Iterator<Item = (&K, &T)> {
        self.lying.values().map(|(key, thing)| (key, thing))
    }

    /// The same, to be changed.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut T> {
        self.lying.values_mut().map(|(_, thing)| thing)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_is_known_and_each_is_found_by_its_name_the_last_first() {
        let mut shelf = Shelf::new();
        for (name, n) in [("a", 1), ("b", 2), ("a", 3)] {
            shelf.put(name, n);
        }
        let named = |shelf: &Shelf<&str, i32>, name| shelf.named(&name).map(|(_, n)| *n).collect::<Vec<_>>();
        assert_eq!(named(&shelf, "a"), [3, 1]);
        let (spot, oldest) = shelf.oldest().map(|(spot, n)| (spot, *n)).unwrap();
        assert_eq!((oldest, shelf.take(spot), shelf.take(spot)), (1, Some(1), None));
        assert_eq!((named(&shelf, "a"), named(&shelf, "b"), named(&shelf, "c")), (vec![3], vec![2], vec![]));
        assert_eq!(shelf.iter().map(|(_, n)| *n).collect::<Vec<_>>(), [2, 3]);
        let spot = shelf.named(&"a").next().unwrap().0;
        shelf.take(spot);
        assert!(shelf.called.len() == 1 && shelf.len() == 1, "nothing is left of a name without things");
    }
}
