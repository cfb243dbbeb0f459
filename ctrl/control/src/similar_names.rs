//! Names near one that nothing has: what a refusal lists, so that a slip of the pen is seen at once.

use std::fmt::Display;
use std::ops::Bound;

use crate::model::Objects;
use crate::name::natural;

/// Names that a refusal lists.
const LISTED: usize = 5;
/// Names that are looked at on either side of the one that is asked for, in the order of names: some milliseconds' worth.
const LOOKED_AT: usize = 10_000;
/// Characters of a name that are compared: what an edit distance takes grows with the square of them.
const COMPARED: usize = 64;

/// The few of these names that take the fewest edits to become the one that is asked for, the nearest first.
pub fn nearest(asked: &str, names: impl IntoIterator<Item = String>) -> Vec<String> {
    let asked = folded(asked);
    let mut found: Vec<(usize, String)> =
        names.into_iter().map(|name| (distance(&asked, &folded(&name)), name)).collect();
    found.sort_by(|(a, name), (b, other)| a.cmp(b).then_with(|| natural(name, other)));
    found.truncate(LISTED);
    found.into_iter().map(|(_, name)| name).collect()
}

/// A name as it is compared: a capital is no edit.
fn folded(name: &str) -> String {
    name.chars().take(COMPARED).flat_map(char::to_lowercase).collect()
}

/// Edits from one name to the other. A project that is left out, or another one, counts for one.
fn distance(asked: &str, name: &str) -> usize {
    fn bare(name: &str) -> &str {
        name.split_once('/').map_or(name, |(_, name)| name)
    }
    let whole = strsim::osa_distance(asked, name);
    if !asked.contains('/') && !name.contains('/') {
        return whole;
    }
    whole.min(1 + strsim::osa_distance(bare(asked), bare(name)))
}

/// How a refusal goes on.
pub fn listed(near: &[String]) -> String {
    if near.is_empty() { "there are none".to_owned() } else { format!("near names: {}", near.join(", ")) }
}

/// The nearest names of objects.
pub fn nearest_of<K: Ord + Clone + Display, V>(objects: &Objects<K, V>, asked: &K) -> Vec<String> {
    let before = objects.range((Bound::Unbounded, Bound::Excluded(asked.clone())));
    let behind = objects.range((Bound::Excluded(asked.clone()), Bound::Unbounded));
    let around = before.rev().take(LOOKED_AT).chain(behind.take(LOOKED_AT));
    nearest(&asked.to_string(), around.map(|(key, _)| key.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(asked: &str, names: &[&str]) -> Vec<String> {
        nearest(asked, names.iter().map(|name| (*name).to_owned()))
    }

    #[test]
    fn the_fewest_edits_come_first_and_a_few_are_listed() {
        let names = ["web-1", "web-2", "web-10", "db-1", "cache", "proxy-77", "gateway"];
        assert_eq!(of("web-3", &names), ["web-1", "web-2", "web-10", "db-1", "cache"]);
        assert_eq!(of("wbe-1", &names)[0], "web-1", "two letters that changed places are one edit");
        assert_eq!(of("DB-1", &names)[0], "db-1", "a capital is none");
        assert!(of("web-1", &[]).is_empty());
    }

    #[test]
    fn another_project_is_one_edit() {
        assert_eq!(of("db-1", &["dx-7", "customers/db-1"])[0], "customers/db-1");
        assert_eq!(of("custmers/db-1", &["db-9", "customers/db-1"])[0], "customers/db-1");
    }

    #[test]
    fn names_of_any_length_are_compared_by_their_heads() {
        let long = "n".repeat(255);
        assert_eq!(of(&long, &["x", &long[1..]])[0].len(), 254);
    }
}
