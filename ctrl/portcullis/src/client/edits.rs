//! `group`, `rule`, `nic`: one object changed, by the same way as a whole document.

use std::path::Path;
use std::process::ExitCode;

use control::api::types::Group;
use control::document::RuleSelector;
use control::model::{Identity, Key};
use control::similar_names;
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
            change(Method::PUT, &rule_path(place, edit)?, rule.clone().into_bytes(), edit)
        }
        RuleCommand::Delete { place, edit } => {
            change(Method::DELETE, &rule_path(place, edit)?, Vec::new(), edit)
        }
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

/// The path of a rule that is named by its group and its place there, or by its identity alone.
fn rule_path(place: &str, edit: &Edit) -> Result<String, Failure> {
    let name = match place.parse::<Identity>() {
        Ok(identity) => name_of(identity, edit)?,
        Err(()) => place.to_owned(),
    };
    let (group, rule) =
        name.rsplit_once('#').filter(|(_, rule)| rule.parse::<RuleSelector>().is_ok()).ok_or_else(|| {
            Failure::input(format!("{place:?}; allowed: GROUP#POSITION, or a rule's id such as r-0123456789"))
        })?;
    Ok(format!("{}/rules/{rule}?", path("security-groups", group)?))
}

/// The only rule of an identity, as GROUP#IDENTITY: its position may change before the request comes.
fn name_of(identity: Identity, edit: &Edit) -> Result<String, Failure> {
    let asked = identity.to_string();
    let answer = request(&edit.client, Method::GET, "/v1/groups", Vec::new())?.success()?;
    let groups: Vec<Group> = serde_json::from_slice(&answer).map_err(Failure::runtime)?;
    let holds = |group: &&Group| group.rules.iter().any(|rule| rule.rule_id == asked);
    let holders: Vec<&str> = groups.iter().filter(holds).map(|group| group.group.as_str()).collect();
    match holders[..] {
        [group] => Ok(format!("{group}#{asked}")),
        [] => {
            let ids = groups.iter().flat_map(|group| &group.rules).map(|rule| rule.rule_id.clone());
            let near = similar_names::listed(&similar_names::nearest(&asked, ids));
            Err(Failure::input(format!(
                "no rule has the id {asked}; {near} (`show groups -o json` lists all)"
            )))
        }
        _ => {
            let names: Vec<_> = holders.iter().map(|group| format!("{group}#{asked}")).collect();
            Err(Failure::input(format!("{asked} stands in several groups; allowed: {}", names.join(", "))))
        }
    }
}

/// A new object; one that is there is not replaced.
fn add(kind: &str, name: &str, mut object: Value, edit: &Edit) -> Result<ExitCode, Failure> {
    let path = path(kind, name)?;
    let there = request(&edit.client, Method::GET, &path, Vec::new())?;
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
