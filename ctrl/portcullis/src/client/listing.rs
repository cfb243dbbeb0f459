//! Lists in the order in which people look for names: whatever the appliance's order is, and each element as it came.

use std::cmp::Ordering;
use std::process::ExitCode;

use control::api::types::{Connection, Group, Nic, RuleFigures};
use control::name::natural;
use serde::de::DeserializeOwned;

use super::table;
use crate::cli::Output;
use crate::failure::{Failure, print};

/// NICs by name.
pub fn nics(body: &[u8], output: Output) -> Result<ExitCode, Failure> {
    show(body, output, |a: &Nic, b| natural(&a.nic, &b.nic), table::nics)
}

/// What is listed by a name of its own.
#[derive(serde::Deserialize)]
pub struct Named {
    #[serde(alias = "nic", alias = "group")]
    pub name: String,
}

/// Groups by name.
pub fn groups(body: &[u8], output: Output) -> Result<ExitCode, Failure> {
    show(body, output, |a: &Group, b| natural(&a.group, &b.group), table::groups)
}

/// Rules by group and position.
pub fn rules(body: &[u8], output: Output) -> Result<ExitCode, Failure> {
    show(body, output, |a: &RuleFigures, b| natural(&a.rule, &b.rule), table::rules)
}

/// Connections by NIC, then by what tells them apart.
pub fn connections(body: &[u8], output: Output) -> Result<ExitCode, Failure> {
    show(body, output, by_nic, table::connections)
}

/// A page of connections in the order in which they lie: the next goes on behind the last.
pub fn page_of_connections(body: &[u8], output: Output) -> Result<ExitCode, Failure> {
    show(body, output, |_: &Connection, _| Ordering::Equal, table::connections)
}

/// The order of connections.
pub fn by_nic(a: &Connection, b: &Connection) -> Ordering {
    let ports = |c: &Connection| (c.local_port, c.remote_port, c.worker);
    natural(&a.nic, &b.nic)
        .then_with(|| a.opened.cmp(&b.opened))
        .then_with(|| natural(&a.protocol, &b.protocol))
        .then_with(|| natural(&a.local, &b.local))
        .then_with(|| natural(&a.remote, &b.remote))
        .then_with(|| ports(a).cmp(&ports(b)))
}

fn show<T: DeserializeOwned>(
    body: &[u8],
    output: Output,
    order: impl Fn(&T, &T) -> Ordering,
    table: fn(&[T]) -> String,
) -> Result<ExitCode, Failure> {
    let mut elements = elements::<T>(body)?;
    elements.sort_by(|(a, _), (b, _)| order(a, b));
    let (values, texts): (Vec<T>, Vec<&[u8]>) = elements.into_iter().unzip();
    match output {
        Output::Table => print(&table(&values), false),
        Output::Json => print(&format!("[{}]\n", String::from_utf8_lossy(&texts.join(&b','))), false),
    }
    Ok(ExitCode::SUCCESS)
}

/// The elements of a list, each with its text: an appliance of another version may tell more than is known here.
fn elements<T: DeserializeOwned>(body: &[u8]) -> Result<Vec<(T, &[u8])>, Failure> {
    let mut elements = Vec::new();
    let mut rest = after(body, b'[').ok_or_else(|| misread("no list"))?;
    while after(rest, b']').is_none() {
        if !elements.is_empty() {
            rest = after(rest, b',').ok_or_else(|| misread("no comma"))?;
        }
        let mut values = serde_json::Deserializer::from_slice(rest).into_iter();
        let value = values.next().ok_or_else(|| misread("no end"))?.map_err(misread)?;
        let (text, behind) = rest.split_at(values.byte_offset());
        elements.push((value, text));
        rest = behind;
    }
    Ok(elements)
}

/// What follows this sign, if it comes next.
fn after(text: &[u8], sign: u8) -> Option<&[u8]> {
    text.trim_ascii_start().strip_prefix(&[sign])
}

fn misread(why: impl std::fmt::Display) -> Failure {
    Failure::runtime(format!("the appliance's answer is not understood (another version?): {why}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq, serde::Deserialize)]
    struct Named {
        name: String,
    }

    #[test]
    fn elements_keep_what_is_not_known_of_them() {
        let read = |text: &'static str| {
            elements::<Named>(text.as_bytes()).map(|elements| {
                elements.into_iter().map(|(named, text)| (named.name, text.trim_ascii())).collect::<Vec<_>>()
            })
        };
        assert_eq!(read("[]").unwrap(), []);
        assert_eq!(
            read(" [{\"name\":\"a,]\",\"more\":[1]} , {\"name\":\"b\"} ]\n").unwrap(),
            [
                ("a,]".to_owned(), &b"{\"name\":\"a,]\",\"more\":[1]}"[..]),
                ("b".to_owned(), &b"{\"name\":\"b\"}"[..])
            ]
        );
        for bad in ["", "{}", "[", "[{\"name\":\"a\"}", "[{\"name\":\"a\"} {\"name\":\"b\"}]", "[{}]", "[,]"]
        {
            assert!(read(bad).is_err(), "{bad}");
        }
    }
}
