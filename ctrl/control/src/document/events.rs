//! Events files: which policy is applied when, in a replay.

use super::{Limits, Parsed, parse_policy, policy_of};
use crate::model::Policy;
use crate::source::{Diagnostic, Fault, Node, Value, decimal_nanos, parse_yaml, read_file};
use std::path::Path;

/// One policy and the time from which on it holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Nanoseconds since the Unix epoch, to the digit as the file gives them.
    pub at_ns: u64,
    /// The policy.
    pub policy: Policy,
    /// See [`Parsed::empty`].
    pub empty: bool,
    /// What is likely a mistake in it.
    pub warnings: Vec<Diagnostic>,
}

/// Parses and validates an events file and every document in it or named by it; `base_dir` is where relative paths
/// start, the events file's own directory.
pub fn parse_events(
    text: &str,
    file: &str,
    base_dir: &Path,
    limits: &Limits,
) -> Result<Vec<Event>, Diagnostic> {
    let root = parse_yaml(text).map_err(|fault| fault.in_file(file))?;
    if matches!(root.value, Value::Null) {
        return Ok(Vec::new());
    }
    let told = |fault: Fault| fault.in_tree(&root, file);
    let mut events: Vec<Event> = Vec::new();
    for item in root.list("events").map_err(told)? {
        let (at_ns, source) = event(item, text, events.last()).map_err(told)?;
        let Parsed { policy, empty, warnings } = match source {
            Source::Embedded(node) => match policy_of(node, limits) {
                Ok((policy, empty, warnings)) => {
                    Parsed { policy, empty, warnings: super::told(warnings, &root, file) }
                }
                Err(faults) => return Err(faults.told(&root, file).swap_remove(0)),
            },
            Source::File(node, path) => {
                let path = base_dir.join(path);
                let read = read_file(&path).map_err(|bad| match bad.line {
                    // A file that is not there is the fault of who names it.
                    0 => told(node.fault(format_args!("{bad}; allowed: a readable file"))),
                    _ => bad,
                })?;
                parse_policy(&read, &path.display().to_string(), limits)?
            }
        };
        events.push(Event { at_ns, policy, empty, warnings });
    }
    Ok(events)
}

enum Source<'t> {
    Embedded(&'t Node),
    File(&'t Node, &'t str),
}

fn event<'t>(item: &'t Node, text: &str, last: Option<&Event>) -> Result<(u64, Source<'t>), Fault> {
    let fields = item.fields(&["at", "policy", "file"])?;
    let at = fields.required("at")?;
    let at_ns = unix_nanos(at, text)?;
    if let Some(last) = last.filter(|last| last.at_ns > at_ns) {
        let (whole, rest) = (last.at_ns / 1_000_000_000, last.at_ns % 1_000_000_000);
        return Err(at.fault(format_args!(
            "{} is before the event above; allowed: {whole}.{rest:09} or later",
            at.value.describe()
        )));
    }
    let source = match (fields.get("policy"), fields.get("file")) {
        (Some(policy), None) => Source::Embedded(policy),
        (None, Some(node)) => Source::File(node, node.text("path", "the path of a policy document")?),
        (Some(_), Some(node)) => {
            return Err(node.fault("file beside policy; allowed: one of the two"));
        }
        (None, None) => return Err(item.fault("neither policy nor file is given; allowed: one of the two")),
    };
    Ok((at_ns, source))
}

fn unix_nanos(node: &Node, text: &str) -> Result<u64, Fault> {
    let nanos = match node.value {
        Value::Int(i) => u64::try_from(i).ok().and_then(|seconds| seconds.checked_mul(1_000_000_000)),
        // From the text: a float has no room for nanoseconds beside today's seconds.
        Value::Float(_) => decimal_nanos(node.at.slice(text)),
        _ => None,
    };
    nanos.ok_or_else(|| node.no("time", "Unix seconds, a number from 0 to 18446744073"))
}
