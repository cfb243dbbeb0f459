//! What was put away, in the order in which it was, and found by what it is called: a change of a hundred thousand NICs
//! looks for each of them.

use std::collections::{BTreeMap, HashMap};
use std::hash::Hash;

/// Where something lies. Later ones are greater.
pub type RetiredAt = u64;

#[cfg(test)]
thread_local! {
    /// How many things were looked at for their names.
    pub static LOOKED_AT: std::cell::Cell<usize> = const { std::cell::Cell::new(0) };
}

/// What was put away, the oldest first; several may be called the same.
#[derive(Clone)]
pub struct RetiredStore<K, T> {
    entries: BTreeMap<RetiredAt, (K, T)>,
    by_key: HashMap<K, Vec<RetiredAt>>,
    next: RetiredAt,
}

impl<K: Eq + Hash + Clone, T> RetiredStore<K, T> {
    pub fn new() -> RetiredStore<K, T> {
        RetiredStore { entries: BTreeMap::new(), by_key: HashMap::new(), next: 0 }
    }

    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Puts something away.
    pub fn put(&mut self, key: K, thing: T) {
        self.by_key.entry(key.clone()).or_default().push(self.next);
        self.entries.insert(self.next, (key, thing));
        self.next += 1;
    }

    /// Those called so, the last put away first.
    pub fn by_key(&self, key: &K) -> impl Iterator<Item = (RetiredAt, &T)> {
        let spots = self.by_key.get(key).into_iter().flatten().rev();
        spots.filter_map(|spot| {
            #[cfg(test)]
            LOOKED_AT.with(|looked_at| looked_at.set(looked_at.get() + 1));
            Some((*spot, &self.entries.get(spot)?.1))
        })
    }

    /// Takes one back.
    pub fn take(&mut self, spot: RetiredAt) -> Option<T> {
        let (key, thing) = self.entries.remove(&spot)?;
        if let Some(spots) = self.by_key.get_mut(&key) {
            spots.retain(|other| *other != spot);
            if spots.is_empty() {
                self.by_key.remove(&key);
            }
        }
        Some(thing)
    }

    /// The one put away first.
    pub fn oldest(&self) -> Option<(RetiredAt, &T)> {
        self.entries.iter().next().map(|(spot, (_, thing))| (*spot, thing))
    }

    /// All of them, the oldest first.
    pub fn iter(&self) -> impl Iterator<Item = (RetiredAt, &T)> {
        self.entries.iter().map(|(spot, (_, thing))| (*spot, thing))
    }

    /// What they are called, with them, the oldest first.
    pub fn keyed(&self) -> impl Iterator<Item = (&K, &T)> {
        self.entries.values().map(|(key, thing)| (key, thing))
    }

    /// The same, to be changed.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut T> {
        self.entries.values_mut().map(|(_, thing)| thing)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_is_known_and_each_is_found_by_its_name_the_last_first() {
        let mut shelf = RetiredStore::new();
        for (name, n) in [("a", 1), ("b", 2), ("a", 3)] {
            shelf.put(name, n);
        }
        let named =
            |shelf: &RetiredStore<&str, i32>, name| shelf.by_key(&name).map(|(_, n)| *n).collect::<Vec<_>>();
        assert_eq!(named(&shelf, "a"), [3, 1]);
        let (spot, oldest) = shelf.oldest().map(|(spot, n)| (spot, *n)).unwrap();
        assert_eq!((oldest, shelf.take(spot), shelf.take(spot)), (1, Some(1), None));
        assert_eq!((named(&shelf, "a"), named(&shelf, "b"), named(&shelf, "c")), (vec![3], vec![2], vec![]));
        assert_eq!(shelf.iter().map(|(_, n)| *n).collect::<Vec<_>>(), [2, 3]);
        let spot = shelf.by_key(&"a").next().unwrap().0;
        shelf.take(spot);
        assert!(shelf.by_key.len() == 1 && shelf.len() == 1, "nothing is left of a name without things");
    }
}
