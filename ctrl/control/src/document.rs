//! Policy documents: text in, a valid [`Policy`] or one [`Diagnostic`] out.
//!
//! Reading has two passes. The first (`read`) turns the tree into a draft, as much of it as has the right types, keys and
//! values. The second (`resolve`) looks at what takes more than one place to judge (names, duplicates, quotas, owners of
//! addresses). Both note every fault that they find. What is accepted and yet likely a mistake is told by a third
//! (`warnings`).
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
mod fields;
mod read;
mod resolve;
mod rule;
mod warnings;

pub use edit::{EditError, ObjectKey, RuleEdit, RuleSelector, absent, edit_rule, merge, put, remove};
pub use events::{Event, parse_events};
pub(crate) use warnings::{covers_but_ports, families, host_bits};

use crate::model::Policy;
use crate::source::{Diagnostic, Faults, Node, Pos, Value, parse_yaml};

/// Stands where an object of the present policy has no text.
static NO_TEXT: Node = Node { at: Pos::START, value: Value::Null };

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
    /// What is accepted and yet likely a mistake, in the order of the document.
    pub warnings: Vec<Diagnostic>,
}

impl From<Policy> for Parsed {
    fn from(policy: Policy) -> Parsed {
        Parsed { policy, empty: false, warnings: Vec::new() }
    }
}

/// Parses and validates a policy document; `file` is how diagnostics name it. Of faults the first is told.
pub fn parse_policy(text: &str, file: &str, limits: &Limits) -> Result<Parsed, Diagnostic> {
    check_policy(text, file, limits).map_err(|mut faults| faults.swap_remove(0))
}

/// The same, with every fault, in the order of the document; there is at least one.
pub fn check_policy(text: &str, file: &str, limits: &Limits) -> Result<Parsed, Vec<Diagnostic>> {
    let root = parse_yaml(text).map_err(|fault| vec![fault.in_file(file)])?;
    if matches!(root.value, Value::Null) {
        return Ok(Parsed { empty: true, ..Policy::default().into() });
    }
    let (policy, empty, warnings) = policy_of(&root, limits).map_err(|faults| faults.told(&root, file))?;
    Ok(Parsed { policy, empty, warnings: told(warnings, &root, file) })
}

/// The policy in a tree, which may be part of a larger one, whether it is empty, and what is likely a mistake in it.
fn policy_of(node: &Node, limits: &Limits) -> Result<(Policy, bool, Faults), Faults> {
    let mut faults = Faults::default();
    let draft = read::read(node, &mut faults);
    let policy = resolve::resolve(&draft, limits, &mut faults);
    if faults.is_empty() {
        let warnings = warnings::of(&draft, &policy);
        Ok((policy, draft.is_empty(), warnings))
    } else {
        Err(faults)
    }
}

/// Warnings with their places, as many as somebody may read.
fn told(warnings: Faults, root: &Node, file: &str) -> Vec<Diagnostic> {
    const TOLD: usize = 100;
    let mut all = warnings.in_order();
    let more = all.len().saturating_sub(TOLD);
    all.truncate(TOLD);
    let mut told: Vec<_> = all.into_iter().map(|warning| warning.in_tree(root, file)).collect();
    if more > 0 {
        told.push(Diagnostic::whole_file(file, format!("and {more} warnings more")));
    }
    told
}
