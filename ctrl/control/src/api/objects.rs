//! Requests about single objects: each a change like any other, through the same engine, with the same receipt.

use axum::Router;
use axum::extract::rejection::QueryRejection;
use axum::extract::{ConnectInfo, Path, Query, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Json, Response};
use axum::routing::{delete, get, patch, post};

use super::change::{ChangeQuery, bad_request, make};
use super::shape::Receipt;
use super::{Failed, POLICY, Peer};
use crate::document::{EditError, ObjectKey, RuleEdit, edit_rule, merge, put, remove};
use crate::export::export_object;
use crate::live::{Edit, Live, Refused, Target};
use crate::model::Key;
use crate::name;

/// What every handler here is given.
type Asked = Result<Query<ChangeQuery>, QueryRejection>;
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
    Router::new()
        .route(POLICY, patch(merge_document))
        .route("/v1/vpcs/{name}", get(show_vpc).put(put_vpc).delete(delete_vpc))
        .route("/v1/{kind}/{project}/{name}", get(show).put(put_object).delete(delete_object))
        .route("/v1/security-groups/{project}/{name}/rules", post(add_rule))
        .route("/v1/security-groups/{project}/{name}/rules/{position}", delete(delete_rule).put(set_rule))
}

/// The object that a path names.
fn object(kind: &str, project: &str, name: &str) -> Result<ObjectKey, Failed> {
    let key = key(project, name)?;
    match kind {
        "address-groups" => Ok(ObjectKey::AddressGroup(key)),
        "security-groups" => Ok(ObjectKey::SecurityGroup(key)),
        "nics" => Ok(ObjectKey::Nic(key)),
        _ => Err(Failed::new(StatusCode::NOT_FOUND, "there is no such path")),
    }
}

fn key(project: &str, name: &str) -> Result<Key, Failed> {
    let checked = |what: &str, text: &str| {
        name::check(text).map_err(|why| bad_request(format!("{what}: {text:?} {why}; allowed: a name")))
    };
    checked("project", project)?;
    checked("name", name)?;
    Ok(Key::new(project, name))
}

fn vpc(name: &str) -> Result<ObjectKey, Failed> {
    name::check(name).map_err(|why| bad_request(format!("name: {name:?} {why}; allowed: a name")))?;
    Ok(ObjectKey::Vpc(name.into()))
}

/// Makes the edit.
async fn edit(live: Live, peer: Peer, asked: Asked, headers: &HeaderMap, edit: Edit) -> Changed {
    let Query(query) = asked.map_err(|error| bad_request(error.body_text()))?;
    make(live, Target::Edited(edit), &query, headers, peer).await
}

fn shown(live: &Live, object: &ObjectKey) -> Result<Response, Failed> {
    let (policy, generation) = live.policy_and_generation();
    let text = export_object(&policy, object).ok_or_else(|| Refused::NotFound(object.to_string()))?;
    let headers =
        [(header::CONTENT_TYPE, "application/yaml".to_owned()), (header::ETAG, format!("\"{generation}\""))];
    Ok((headers, text).into_response())
}

async fn merge_document(
    State(live): State<Live>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    asked: Asked,
    headers: HeaderMap,
    text: String,
) -> Changed {
    let limits = live.config().policy.limits;
    let change = move |present: &_| Ok(merge(present, &text, "document", &limits)?);
    edit(live, peer, asked, &headers, Box::new(change)).await
}

async fn show_vpc(State(live): State<Live>, Path(name): Path<String>) -> Result<Response, Failed> {
    shown(&live, &vpc(&name)?)
}

async fn show(
    State(live): State<Live>,
    Path((kind, project, name)): Path<(String, String, String)>,
) -> Result<Response, Failed> {
    shown(&live, &object(&kind, &project, &name)?)
}

async fn put_this(
    live: Live,
    peer: Peer,
    asked: Asked,
    headers: &HeaderMap,
    object: ObjectKey,
    text: String,
) -> Changed {
    let limits = live.config().policy.limits;
    let change = move |present: &_| Ok(put(present, &object, &text, &limits)?);
    edit(live, peer, asked, headers, Box::new(change)).await
}

async fn put_vpc(
    State(live): State<Live>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    Path(name): Path<String>,
    asked: Asked,
    headers: HeaderMap,
    text: String,
) -> Changed {
    put_this(live, peer, asked, &headers, vpc(&name)?, text).await
}

async fn put_object(
    State(live): State<Live>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    Path((kind, project, name)): Path<(String, String, String)>,
    asked: Asked,
    headers: HeaderMap,
    text: String,
) -> Changed {
    put_this(live, peer, asked, &headers, object(&kind, &project, &name)?, text).await
}

async fn delete_this(
    live: Live,
    peer: Peer,
    asked: Asked,
    headers: &HeaderMap,
    object: ObjectKey,
) -> Changed {
    edit(live, peer, asked, headers, Box::new(move |present| Ok(remove(present, &object)?))).await
}

async fn delete_vpc(
    State(live): State<Live>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    Path(name): Path<String>,
    asked: Asked,
    headers: HeaderMap,
) -> Changed {
    delete_this(live, peer, asked, &headers, vpc(&name)?).await
}

async fn delete_object(
    State(live): State<Live>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    Path((kind, project, name)): Path<(String, String, String)>,
    asked: Asked,
    headers: HeaderMap,
) -> Changed {
    delete_this(live, peer, asked, &headers, object(&kind, &project, &name)?).await
}

async fn rules(
    live: Live,
    peer: Peer,
    asked: Asked,
    headers: &HeaderMap,
    group: Key,
    what: RuleEdit,
) -> Changed {
    let limits = live.config().policy.limits;
    let change = move |present: &_| Ok(edit_rule(present, &group, &what, &limits)?);
    edit(live, peer, asked, headers, Box::new(change)).await
}

async fn add_rule(
    State(live): State<Live>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    Path((project, name)): Path<(String, String)>,
    asked: Asked,
    headers: HeaderMap,
    text: String,
) -> Changed {
    rules(live, peer, asked, &headers, key(&project, &name)?, RuleEdit::Add(text)).await
}

async fn set_rule(
    State(live): State<Live>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    Path((project, name, position)): Path<(String, String, usize)>,
    asked: Asked,
    headers: HeaderMap,
    text: String,
) -> Changed {
    rules(live, peer, asked, &headers, key(&project, &name)?, RuleEdit::Set(position, text)).await
}

async fn delete_rule(
    State(live): State<Live>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    Path((project, name, position)): Path<(String, String, usize)>,
    asked: Asked,
    headers: HeaderMap,
) -> Changed {
    rules(live, peer, asked, &headers, key(&project, &name)?, RuleEdit::Delete(position)).await
}
