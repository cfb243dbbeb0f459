//! `group`, `rule`, `nic`: one object changed, by the same way as a whole document.

use std::path::Path;
use std::process::ExitCode;

use control::model::Key;
use hyper::{Method, StatusCode};
use serde_json::{Map, Value, json};

use super::http::{encoded, request};
use super::{change, document};
use crate::cli::{Edit, GroupCommand, NicCommand, RuleCommand};
use crate::failure::Failure;

/// `group`
pub fn group(command: &GroupCommand) -> Result<ExitCode, Failure> {
    match command {
        GroupCommand::Add { name, description, edit } => {
            let object = json!({ "description": description });
            add("security-groups", name, object, edit)
        }
        GroupCommand::Set { name, file, edit } => set("security-groups", name, file, edit),
        GroupCommand::Delete { name, edit } => delete("security-groups", name, edit),
    }
}

/// `nic`
pub fn nic(command: &NicCommand) -> Result<ExitCode, Failure> {
    match command {
        NicCommand::Add {
            name,
            vpc,
            mac,
            addresses,
            allowed_addresses,
            groups,
            max_connections,
            mode,
            edit,
        } => {
            let mut object =
                json!({ "vpc": vpc, "addresses": addresses, "allowed_addresses": allowed_addresses });
            // What is left out has its default, which null has not.
            let mut given = |key: &str, value: Value| {
                if !value.is_null() {
                    object[key] = value;
                }
            };
            given("mac", json!(mac));
            given("max_connections", json!(max_connections));
            given("mode", json!(mode));
            given("security_groups", if groups.is_empty() { Value::Null } else { json!(groups) });
            add("nics", name, object, edit)
        }
        NicCommand::Set { name, file, edit } => set("nics", name, file, edit),
        NicCommand::Delete { name, edit } => delete("nics", name, edit),
    }
}

/// `rule`
pub fn rule(command: &RuleCommand) -> Result<ExitCode, Failure> {
    match command {
        RuleCommand::Add { group, rule, edit } => {
            let path = format!("{}/rules?", path("security-groups", group)?);
            change(Method::POST, &path, rule.clone().into_bytes(), edit)
        }
        RuleCommand::Set { place, rule, edit } => {
            change(Method::PUT, &rule_path(place)?, rule.clone().into_bytes(), edit)
        }
        RuleCommand::Delete { place, edit } => change(Method::DELETE, &rule_path(place)?, Vec::new(), edit),
    }
}

fn key(name: &str) -> Result<Key, Failure> {
    Key::parse(name).ok_or_else(|| Failure::input(format!("{name:?}; allowed: NAME or PROJECT/NAME")))
}

/// A part of a path: a name may hold anything but `/`.
fn part(name: &str) -> String {
    encoded(name).replace('/', "%2F")
}

fn path(kind: &str, name: &str) -> Result<String, Failure> {
    let Key { project, name } = key(name)?;
    Ok(format!("/v1/{kind}/{}/{}", part(&project), part(&name)))
}

fn rule_path(place: &str) -> Result<String, Failure> {
    let (group, position) = place
        .rsplit_once('#')
        .filter(|(_, position)| position.parse::<usize>().is_ok())
        .ok_or_else(|| Failure::input(format!("{place:?}; allowed: GROUP#POSITION")))?;
    Ok(format!("{}/rules/{position}?", path("security-groups", group)?))
}

/// A new object; one that is there is not replaced.
fn add(kind: &str, name: &str, mut object: Value, edit: &Edit) -> Result<ExitCode, Failure> {
    let path = path(kind, name)?;
    let there = request(&edit.client.socket, Method::GET, &path, Vec::new())?;
    if there.status != StatusCode::NOT_FOUND {
        there.success()?;
        return Err(Failure::input(format!("{name} is there already; `set` replaces it")));
    }
    let Key { project, name } = key(name)?;
    let head = Map::from_iter([("name".to_owned(), json!(&*name)), ("project".to_owned(), json!(&*project))]);
    if let Value::Object(object) = &mut object {
        object.extend(head);
    }
    change(Method::PUT, &(path + "?"), object.to_string().into_bytes(), edit)
}

fn set(kind: &str, name: &str, file: &Path, edit: &Edit) -> Result<ExitCode, Failure> {
    change(Method::PUT, &(path(kind, name)? + "?"), document(file)?, edit)
}

fn delete(kind: &str, name: &str, edit: &Edit) -> Result<ExitCode, Failure> {
    change(Method::DELETE, &(path(kind, name)? + "?"), Vec::new(), edit)
}
