//! Objects by name, shared between generations.

use std::cmp::Ordering;
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
    /// Takes the objects of another in place of equal ones. Those of an edit are the other's already, but for the edited.
    pub(super) fn share_with(&mut self, other: &Self) {
        if self.is_same(other) {
            return;
        }
        let (mut equal, mut is_equal) = (Vec::new(), true);
        both(self, other, |key, mine, others| match (mine, others) {
            (Some(mine), Some(others)) if Arc::ptr_eq(mine, others) => {}
            (Some(mine), Some(others)) if mine == others => equal.push((key.clone(), others.clone())),
            _ => is_equal = false,
        });
        if is_equal {
            *self = other.clone();
            return;
        }
        for (key, value) in equal {
            self.insert(key, value);
        }
    }
}

/// Every key of two maps, in order, with what either has there.
pub(crate) fn both<'m, K: Ord, V>(
    old: &'m BTreeMap<K, V>,
    new: &'m BTreeMap<K, V>,
    mut each: impl FnMut(&'m K, Option<&'m V>, Option<&'m V>),
) {
    let (mut old, mut new) = (old.iter().peekable(), new.iter().peekable());
    loop {
        let order = match (old.peek(), new.peek()) {
            (Some((a, _)), Some((b, _))) => a.cmp(b),
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (None, None) => return,
        };
        let was = if order.is_le() { old.next() } else { None };
        let is = if order.is_ge() { new.next() } else { None };
        if let Some((key, _)) = was.or(is) {
            each(key, was.map(|(_, value)| value), is.map(|(_, value)| value));
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
