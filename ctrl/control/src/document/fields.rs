//! Fields that objects and rules have in common.

use std::sync::Arc;

use crate::model::{Key, Prefix};
use crate::name;
use crate::source::{Fault, Faults, Fields, Node};

/// A group or address group that something in `owner`'s project refers to.
pub(super) fn reference_of(node: &Node, owner: &Key) -> Result<Key, Fault> {
    let allowed = "the name of one of the same project";
    let text = node.text("name of a group", allowed)?;
    match text.split_once('/') {
        None => Ok(Key { project: owner.project.clone(), name: name_of(node)? }),
        Some((project, name)) if project == &*owner.project && name::check(name).is_ok() => {
            Ok(Key { project: owner.project.clone(), name: name.into() })
        }
        Some(_) => Err(node.fault(format_args!(
            "{} is of another project than {:?}; allowed: {allowed}",
            node.value.describe(),
            owner.project
        ))),
    }
}

pub(super) fn description_of(fields: &Fields<'_>, faults: &mut Faults) -> String {
    let text = |node: &Node| Ok(node.text("description", "text")?.to_owned());
    fields.optional("description", faults, text).unwrap_or_default()
}

pub(super) fn prefix_of(node: &Node) -> Result<Prefix, Fault> {
    node.parsed_address("prefix", "an IPv4 or IPv6 prefix ADDRESS/LENGTH or address")
}

pub(super) fn name_of(node: &Node) -> Result<Arc<str>, Fault> {
    const ALLOWED: &str = "1-255 characters, no control characters, no '/', no '#'";
    let text = node.text("name", ALLOWED)?;
    match name::check(text) {
        Ok(()) => Ok(text.into()),
        Err(why) => Err(node.fault(format_args!("{} {why}; allowed: {ALLOWED}", node.value.describe()))),
    }
}
