//! Requests about single objects: each a change like any other, through the same engine, with the same receipt.

use std::collections::HashMap;

use axum::Router;
use axum::extract::{FromRequestParts, Path, State};
use axum::http::request::Parts;
use axum::response::{Json, Response};
use axum::routing::{get, patch, post, put};

use super::change::{Wish, bad_request, document};
use super::shape::Receipt;
use super::{Failed, POLICY};
use crate::document::{EditError, ObjectKey, RuleEdit, edit_rule, merge, put as put_object, remove};
use crate::export::export_object;
use crate::live::{Live, Refused, Target};
use crate::model::{Key, Policy};
use crate::name;

type Changed = Result<Json<Receipt>, Failed>;

impl From<EditError> for Refused {
    fn from(error: EditError) -> Refused {
        match error {
            EditError::Bad(diagnostic) => Refused::Invalid(diagnostic.to_string()),
            EditError::NotFound(what) => Refused::NotFound(what),
            EditError::InUse(what) => Refused::InUse(what),
        }
    }
}

/// Their paths.
pub(super) fn routes() -> Router<Live> {
    let object = || get(show).put(set).delete(delete);
    let routes = Router::new()
        .route(POLICY, patch(merge_document))
        .route("/v1/vpcs/{name}", object())
        .route("/v1/security-groups/{project}/{name}/rules", post(add_rule))
        .route("/v1/security-groups/{project}/{name}/rules/{position}", put(set_rule).delete(delete_rule));
    ["address-groups", "security-groups", "nics"]
        .into_iter()
        .fold(routes, |routes, kind| routes.route(&format!("/v1/{kind}/{{project}}/{{name}}"), object()))
}

/// The object that a path names; of a rule, its group.
struct Named(ObjectKey);

impl FromRequestParts<Live> for Named {
    type Rejection = Failed;

    async fn from_request_parts(parts: &mut Parts, live: &Live) -> Result<Named, Failed> {
        let path = Path::<HashMap<String, String>>::from_request_parts(parts, live).await;
        let Path(path) = path.map_err(|error| bad_request(error.body_text()))?;
        let part = |what: &str| {
            let text = path.get(what).map(String::as_str).unwrap_or_default();
            name::check(text)
                .map(|()| text.to_owned())
                .map_err(|why| bad_request(format!("{what}: {text:?} {why}; allowed: a name")))
        };
        let kind = parts.uri.path().split('/').nth(2).unwrap_or_default();
        if kind == "vpcs" {
            return Ok(Named(ObjectKey::Vpc(part("name")?.into())));
        }
        let key = Key::new(part("project")?, part("name")?);
        Ok(Named(match kind {
            "address-groups" => ObjectKey::AddressGroup(key),
            "security-groups" => ObjectKey::SecurityGroup(key),
            _ => ObjectKey::Nic(key),
        }))
    }
}

impl Wish {
    /// Makes the edit.
    async fn edit(self, edit: impl FnOnce(&Policy) -> Result<Policy, EditError> + Send + 'static) -> Changed {
        self.make(Target::Edited(Box::new(|present| Ok(edit(present)?)))).await
    }
}

async fn merge_document(wish: Wish, text: String) -> Changed {
    let limits = wish.live.config().policy.limits;
    wish.edit(move |present| merge(present, &text, "document", &limits)).await
}

async fn show(State(live): State<Live>, Named(object): Named) -> Result<Response, Failed> {
    let (policy, generation) = live.policy_and_generation();
    let text = export_object(&policy, &object).ok_or_else(|| Refused::NotFound(object.to_string()))?;
    Ok(document(text, generation))
}

async fn set(wish: Wish, Named(object): Named, text: String) -> Changed {
    let limits = wish.live.config().policy.limits;
    wish.edit(move |present| put_object(present, &object, &text, &limits)).await
}

async fn delete(wish: Wish, Named(object): Named) -> Changed {
    wish.edit(move |present| remove(present, &object)).await
}

/// The position of a rule, beside its group.
#[derive(serde::Deserialize)]
struct Place {
    position: usize,
}

async fn rules(wish: Wish, Named(object): Named, what: RuleEdit) -> Changed {
    let ObjectKey::SecurityGroup(group) = object else { return Err(bad_request("rules are a group's")) };
    let limits = wish.live.config().policy.limits;
    wish.edit(move |present| edit_rule(present, &group, &what, &limits)).await
}

async fn add_rule(wish: Wish, group: Named, text: String) -> Changed {
    rules(wish, group, RuleEdit::Add(text)).await
}

async fn set_rule(wish: Wish, group: Named, Path(place): Path<Place>, text: String) -> Changed {
    rules(wish, group, RuleEdit::Set(place.position, text)).await
}

async fn delete_rule(wish: Wish, group: Named, Path(place): Path<Place>) -> Changed {
    rules(wish, group, RuleEdit::Delete(place.position)).await
}
