//! YAML (and JSON, which is a subset of it) into a tree of values.

use super::{Entry, Fault, Node, Pos, Value};
use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_saphyr::budget::BudgetBreach;
use serde_saphyr::options::NonFiniteFloatPolicy;
use serde_saphyr::{Location, Options, Spanned};
use std::fmt;

/// The deepest that lists and mappings may nest. A policy in an events file nests 8 deep; the parser and the walk over
/// its tree recurse, so this is what keeps a hostile document from the end of the stack.
const MAX_DEPTH: usize = 32;

/// Parses one document. An empty one is [`Value::Null`].
pub(crate) fn parse(text: &str) -> Result<Node, Fault> {
    if u32::try_from(text.len()).is_err() {
        let message = "the file is too large; allowed: less than 4 GiB".to_owned();
        return Err(Fault { at: Pos::START, message });
    }
    serde_saphyr::from_str_with_options(text, options()).map_err(|error| fault(&error))
}

fn options() -> Options {
    serde_saphyr::options! {
        with_snippet: false,
        emit_comments: false,
        // YAML 1.2: `on` and `no` are texts, as is `1_000`, and 022 is not 22.
        strict_booleans: true,
        underscored_numbers_as_strings: true,
        leading_zero_numbers_as_strings: true,
        reject_unsupported_tags: true,
        // Where a number is wanted its range refuses it, with the right words.
        non_finite_float_policy: NonFiniteFloatPolicy::PassThrough,
        // Room for a policy of a million NICs. What a small document can blow up to is bounded by the limits on
        // aliases, which keep their defaults.
        budget: serde_saphyr::budget! {
            max_depth: MAX_DEPTH,
            flow_nesting_limit: MAX_DEPTH,
            max_events: 200_000_000,
            max_nodes: 100_000_000,
            max_total_scalar_bytes: usize::MAX,
            max_total_comment_bytes: usize::MAX,
        },
    }
}

/// The parser's error in this project's words: what was found, what is allowed.
fn fault(error: &serde_saphyr::Error) -> Fault {
    use serde_saphyr::Error;
    let at = error.location().map_or(Pos::START, |location| pos(location, location));
    let too_deep = format!("nested too deep; allowed: {MAX_DEPTH} levels");
    let message = match error.without_snippet() {
        Error::DuplicateMappingKey { key, .. } => {
            let key = key.as_deref().map_or_else(|| "a key".to_owned(), |key| format!("the key {key}"));
            format!("{key} stands twice; allowed: once")
        }
        Error::MultipleDocuments { .. } => {
            "a second YAML document begins here; allowed: one document a file".to_owned()
        }
        Error::Budget { breach: BudgetBreach::Depth { .. }, .. } => too_deep,
        Error::Budget { .. }
        | Error::AliasReplayLimitExceeded { .. }
        | Error::AliasExpansionLimitExceeded { .. } => {
            "the aliases of the document blow it up too far; allowed: the values written out".to_owned()
        }
        other => {
            let text = other.to_string();
            // The position is told by whoever shows the fault.
            let text = text.split(" at line ").next().unwrap_or_default();
            if text.contains("; allowed: ") {
                text.to_owned()
            } else if text.contains("recursion limit") {
                too_deep
            } else {
                format!("no YAML: {text}; allowed: one document of YAML or JSON")
            }
        }
    };
    Fault { at, message }
}

/// Line and column of where the value is used, bytes of where it is defined: an alias is told as where it stands.
fn pos(used: Location, defined: Location) -> Pos {
    let used = if used == Location::UNKNOWN { defined } else { used };
    if used == Location::UNKNOWN {
        return Pos::START;
    }
    let narrow = |n: u64| u32::try_from(n).unwrap_or(u32::MAX);
    let span = defined.span();
    let (start, len) = (span.byte_offset().unwrap_or(0), span.byte_len().unwrap_or(0));
    Pos {
        line: narrow(used.line()),
        column: narrow(used.column()),
        start: narrow(start),
        end: narrow(start.saturating_add(len)),
    }
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Node, D::Error> {
        let Spanned { value, referenced, defined } = Spanned::<Value>::deserialize(deserializer)?;
        Ok(Node { at: pos(referenced, defined), value })
    }
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(AnyValue)
    }
}

struct AnyValue;

impl<'de> Visitor<'de> for AnyValue {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, b: bool) -> Result<Value, E> {
        Ok(Value::Bool(b))
    }

    fn visit_i64<E>(self, i: i64) -> Result<Value, E> {
        Ok(Value::Int(i.into()))
    }

    fn visit_u64<E>(self, i: u64) -> Result<Value, E> {
        Ok(Value::Int(i.into()))
    }

    fn visit_i128<E>(self, i: i128) -> Result<Value, E> {
        Ok(Value::Int(i))
    }

    fn visit_u128<E>(self, i: u128) -> Result<Value, E> {
        // Nothing in a document is anywhere near this large, so the nearest number is as wrong as the right one.
        Ok(Value::Int(i128::try_from(i).unwrap_or(i128::MAX)))
    }

    fn visit_f64<E>(self, x: f64) -> Result<Value, E> {
        Ok(Value::Float(x))
    }

    fn visit_str<E>(self, text: &str) -> Result<Value, E> {
        Ok(Value::Text(text.to_owned()))
    }

    fn visit_string<E>(self, text: String) -> Result<Value, E> {
        Ok(Value::Text(text))
    }

    fn visit_bytes<E: serde::de::Error>(self, _: &[u8]) -> Result<Value, E> {
        Err(E::custom("binary data is no value here; allowed: text, numbers, lists, mappings"))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element()? {
            list.push(item);
        }
        Ok(Value::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let mut map = Vec::new();
        while let Some(key) = entries.next_key::<Node>()? {
            let Value::Text(name) = key.value else {
                return Err(A::Error::custom(format_args!(
                    "{} is no key; allowed: text",
                    key.value.describe()
                )));
            };
            map.push(Entry { at: key.at, key: name, node: entries.next_value()? });
        }
        Ok(Value::Map(map))
    }
}
