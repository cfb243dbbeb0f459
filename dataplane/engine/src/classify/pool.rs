//! Parts of compiled policies that are the same in many: a long list of prefixes is compiled for
//! every list of groups that has it, and lies in memory once.

use std::collections::HashSet;
use std::hash::Hash;
use std::sync::Arc;

/// Equally wide buckets. Keys before the first one and behind the last one belong to these.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Node {
    /// The first bucket's first key.
    pub base: u32,
    /// How many of a key's low bits do not tell the bucket.
    pub shift: u32,
    /// The last bucket.
    pub last: u32,
    /// Where the first one lies.
    pub buckets: u32,
    /// What to add to a bucket to have the number of its first range.
    pub first: u32,
    /// What to add to a bucket that is [`DIVIDED`] to have the number of its node.
    pub children: u32,
}

/// Shorter parts are not worth the look.
const WORTH: usize = 256;

/// Parts that policies share.
#[derive(Clone, Default)]
pub struct InternPool {
    pub(super) nodes: Interned<Node>,
    pub(super) buckets: Interned<u16>,
    pub(super) ends: Interned<i32>,
    pub(super) keys: Interned<u128>,
    pub(super) places: Interned<u32>,
}

/// Parts of one kind.
#[derive(Clone)]
pub(super) struct Interned<T>(HashSet<Arc<[T]>>);

impl<T> Default for Interned<T> {
    fn default() -> Interned<T> {
        Interned(HashSet::new())
    }
}

impl<T: Eq + Hash> Interned<T> {
    /// Puts the part that is known in the place of an equal one.
    pub fn share(&mut self, part: &mut Arc<[T]>) {
        if part.len() < WORTH {
            return;
        }
        match self.0.get(part) {
            Some(known) => *part = known.clone(),
            None => _ = self.0.insert(part.clone()),
        }
    }

    fn forget_unused(&mut self) {
        self.0.retain(|part| Arc::strong_count(part) > 1);
    }
}

impl InternPool {
    /// Drops what no policy has any more.
    pub fn forget_unused(&mut self) {
        self.nodes.forget_unused();
        self.buckets.forget_unused();
        self.ends.forget_unused();
        self.keys.forget_unused();
        self.places.forget_unused();
    }

    /// How many parts it keeps.
    pub fn len(&self) -> usize {
        self.nodes.0.len()
            + self.buckets.0.len()
            + self.ends.0.len()
            + self.keys.0.len()
            + self.places.0.len()
    }

    /// True if it keeps none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Policy, Remote, Rule};
    use super::*;
    use crate::{Direction, GroupId, RuleId};

    fn rule(id: u32, remote: Remote) -> Rule {
        Rule {
            id: RuleId(id),
            direction: Direction::Inbound,
            families: [true, true],
            protocol: Some(6),
            ports: (22, 22),
            remote,
            deny: false,
            priority: 100,
            staged: false,
        }
    }

    #[test]
    fn a_long_list_lies_in_memory_once_and_is_forgotten_with_its_last_policy() {
        let v4 = (0..5000u128).map(|n| (n * 512, n * 512 + 3, false));
        let v6 = (0..5000u128).map(|n| (n << 80, (n << 80) + 3, true));
        let list: Arc<[_]> = v4.chain(v6).collect();
        let mut pool = InternPool::default();
        // Each has another rule beside the list.
        let compiled: Vec<Policy> = (0..20)
            .map(|n| {
                let rules = [rule(0, Remote::Ranges(list.clone())), rule(n + 1, Remote::Group(GroupId(n)))];
                let mut policy = Policy::compile(&rules);
                policy.share(&mut pool);
                assert!(policy == Policy::compile(&rules), "the same, whoever shares it");
                policy
            })
            .collect();
        let one = pool.len();
        assert!((2..=5).contains(&one), "{one} parts of twenty policies");
        drop(compiled);
        pool.forget_unused();
        assert!(pool.is_empty());
    }
}
