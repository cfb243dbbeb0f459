//! Policy documents: text in, a valid [`Policy`] or one [`Diagnostic`] out.
//!
//! Reading has two passes. The first (`read`) turns the tree into a draft, in the order of the document, and stops at
//! the first wrong type, key or value. The second (`resolve`) looks at what takes more than one place to judge
//! (names, duplicates, quotas, owners of addresses) and reports the first of its faults in the order of the document.
//!
//! What the specification leaves open is decided like this:
//! - A null is no value anywhere: `security_groups:` with nothing behind it could mean none or `[default]`.
//! - Names, addresses and the like are texts; a number in their place is refused, since YAML would have changed its
//!   spelling. Ports and protocol numbers may be given as numbers or as texts.
//! - Words (`tcp`, `inbound`, `IPv4`) are read as they are spelled in interfaces.md, no other case.
//! - A group may be referred to as `name` or as `project/name` of its own project, as `show` prints it.
//! - Naming the same thing twice in one list (a prefix of an address group after masking, an address or group of a NIC,
//!   a peer) is a duplicate like any other.
//! - `icmp` and `icmpv6` are protocol numbers; neither fixes the ethertype.
//! - `max_connections: 0` lets no connection open.
//! - An address of a NIC is unicast; it may be both its fixed and its allowed address (to give it a second MAC).
//! - The group `default` is materialised for a project with a NIC and for one whose rules refer to it.

mod edit;
mod events;
mod read;
mod resolve;
mod rule;

pub use edit::{EditError, ObjectKey, RuleEdit, RulePlace, edit_rule, merge, put, remove};
pub use events::{Event, parse_events};

use crate::model::Policy;
use crate::source::{Diagnostic, Fault, Node, Value, parse_yaml};

/// The quotas of semantics 3.8.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The most rules of a group, both directions together.
    pub rules_per_group: usize,
    /// The most groups of a NIC.
    pub groups_per_nic: usize,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits { rules_per_group: 50, groups_per_nic: 5 }
    }
}

/// What a document says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parsed {
    /// The policy.
    pub policy: Policy,
    /// Whether the document says nothing: no text but comments, or sections without an object. To apply it would
    /// remove everything, which is what a file cut off by accident looks like.
    pub empty: bool,
}

/// Parses and validates a policy document; `file` is how diagnostics name it.
pub fn parse_policy(text: &str, file: &str, limits: &Limits) -> Result<Parsed, Diagnostic> {
    let root = parse_yaml(text).map_err(|fault| fault.in_file(file))?;
    if matches!(root.value, Value::Null) {
        return Ok(Parsed { policy: Policy::default(), empty: true });
    }
    policy_of(&root, limits).map_err(|fault| fault.in_tree(&root, file))
}

/// The policy in a tree, which may be part of a larger one.
fn policy_of(node: &Node, limits: &Limits) -> Result<Parsed, Fault> {
    let draft = read::read(node)?;
    let empty = draft.is_empty();
    let policy = resolve::resolve(draft, limits)?;
    Ok(Parsed { policy, empty })
}
