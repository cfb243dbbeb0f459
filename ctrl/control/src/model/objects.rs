//! Objects by name, shared between generations.

use std::collections::{BTreeMap, btree_map};
use std::ops::{Deref, DerefMut};
use std::sync::Arc;

/// Objects of one kind by name, in order. A clone costs nothing, and shares everything until either is written to: what an edit
/// leaves alone is told by where it lies.
#[derive(Debug, PartialEq, Eq)]
pub struct Objects<K: Ord, V: Eq>(Arc<BTreeMap<K, Arc<V>>>);

impl<K: Ord, V: Eq> Objects<K, V> {
    /// True if both are one and the same. Others may be equal.
    pub fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl<K: Ord + Clone, V: Eq> Objects<K, V> {
    /// Takes the objects of another in place of equal ones.
    pub(super) fn share_with(&mut self, other: &Self) {
        if self == other {
            *self = other.clone();
            return;
        }
        let mut others = other.iter().peekable();
        for (key, value) in self.iter_mut() {
            while others.next_if(|(other, _)| *other < key).is_some() {}
            if let Some((_, other)) = others.next_if(|(other, _)| *other == key)
                && other == value
            {
                *value = other.clone();
            }
        }
    }
}

impl<K: Ord, V: Eq> Clone for Objects<K, V> {
    fn clone(&self) -> Self {
        Objects(self.0.clone())
    }
}

impl<K: Ord, V: Eq> Default for Objects<K, V> {
    fn default() -> Self {
        Objects(Arc::default())
    }
}

impl<K: Ord, V: Eq> Deref for Objects<K, V> {
    type Target = BTreeMap<K, Arc<V>>;

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

/// Copies the map, and no object, where it is shared.
impl<K: Ord + Clone, V: Eq> DerefMut for Objects<K, V> {
    fn deref_mut(&mut self) -> &mut Self::Target {
        Arc::make_mut(&mut self.0)
    }
}

impl<K: Ord, V: Eq> FromIterator<(K, Arc<V>)> for Objects<K, V> {
    fn from_iter<I: IntoIterator<Item = (K, Arc<V>)>>(objects: I) -> Self {
        Objects(Arc::new(objects.into_iter().collect()))
    }
}

impl<'o, K: Ord, V: Eq> IntoIterator for &'o Objects<K, V> {
    type Item = (&'o K, &'o Arc<V>);
    type IntoIter = btree_map::Iter<'o, K, Arc<V>>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.iter()
    }
}
