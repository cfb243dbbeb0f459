//! Objects by name, shared between generations.

use std::fmt::{Debug, Formatter};
use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use imbl::OrdMap;
use imbl::ordmap::{self, DiffItem};
use imbl::shared_ptr::DefaultSharedPtr;

/// Objects of one kind by name, in order. A clone costs nothing, and shares everything that neither writes to: what an edit leaves
/// alone is told by where it lies, and costs nothing either.
pub struct Objects<K, V>(OrdMap<K, Arc<V>>);

impl<K: Ord + Clone, V: Eq> Objects<K, V> {
    /// Takes the objects of another in place of equal ones.
    pub(super) fn share_with(&mut self, other: &Self) {
        let mut shared = other.0.clone();
        for difference in other.0.diff(&self.0) {
            match difference {
                DiffItem::Add(key, value) | DiffItem::Update { new: (key, value), .. } => {
                    shared.insert(key.clone(), value.clone());
                }
                DiffItem::Remove(key, _) => drop(shared.remove(key)),
            }
        }
        self.0 = shared;
    }

    /// What becoming `new` replaces: each object that differs, by name and in order, as it is here; `None` for one that is not here.
    pub(crate) fn replaced_by(&self, new: &Self) -> Vec<(K, Option<Arc<V>>)> {
        let differences = self.0.diff(&new.0).map(|difference| match difference {
            DiffItem::Add(key, _) => (key.clone(), None),
            DiffItem::Update { old: (key, value), .. } | DiffItem::Remove(key, value) => {
                (key.clone(), Some(value.clone()))
            }
        });
        let replaced: Vec<_> = differences.collect();
        debug_assert!(replaced.is_sorted_by(|(a, _), (b, _)| a < b), "in order of their names");
        replaced
    }
}

impl<K: Ord, V: Eq> PartialEq for Objects<K, V> {
    fn eq(&self, other: &Self) -> bool {
        self.0 == other.0
    }
}

impl<K: Ord, V: Eq> Eq for Objects<K, V> {}

impl<K: Ord + Debug, V: Debug> Debug for Objects<K, V> {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        f.debug_map().entries(self.0.iter()).finish()
    }
}

impl<K, V> Clone for Objects<K, V> {
    fn clone(&self) -> Self {
        Objects(self.0.clone())
    }
}

impl<K, V> Default for Objects<K, V> {
    fn default() -> Self {
        Objects(OrdMap::default())
    }
}

impl<K, V> Deref for Objects<K, V> {
    type Target = OrdMap<K, Arc<V>>;

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

impl<K, V> DerefMut for Objects<K, V> {
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut self.0
    }
}

impl<K: Ord + Clone, V> FromIterator<(K, Arc<V>)> for Objects<K, V> {
    fn from_iter<I: IntoIterator<Item = (K, Arc<V>)>>(objects: I) -> Self {
        Objects(objects.into_iter().collect())
    }
}

impl<'o, K: Ord, V> IntoIterator for &'o Objects<K, V> {
    type Item = (&'o K, &'o Arc<V>);
    type IntoIter = ordmap::Iter<'o, K, Arc<V>, DefaultSharedPtr>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.iter()
    }
}
