//! Requests that change the policy as a whole, and those that look at its generations.

use std::time::Duration;

use axum::body::Bytes;
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{ConnectInfo, Path, Query, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Json, Response};
use serde::Deserialize;

use super::shape::{Receipt, Record};
use super::{Failed, Peer};
use crate::document::parse_policy;
use crate::export::export;
use crate::live::{Author, Change, LONGEST_CONFIRMATION, Live, Target};

/// The longest time that a change may await its confirmation, in seconds.
const MAX_CONFIRM: u64 = LONGEST_CONFIRMATION.as_secs();
/// How long a request waits for the workers.
const MAX_WAIT: Duration = Duration::from_secs(60);

/// How a change is made.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct ChangeQuery {
    dry_run: bool,
    max_disconnect: Option<u64>,
    allow_empty: bool,
    confirm: Option<u64>,
    file: Option<String>,
    generation: Option<u32>,
}

pub(super) fn bad_request(error: impl ToString) -> Failed {
    Failed::new(StatusCode::BAD_REQUEST, error)
}

pub(super) fn internal(error: impl ToString) -> Failed {
    Failed::new(StatusCode::INTERNAL_SERVER_ERROR, error)
}

/// The generation in `If-Match`; `*` matches any.
fn if_generation(headers: &HeaderMap) -> Result<Option<u32>, Failed> {
    let Some(value) = headers.get(header::IF_MATCH) else { return Ok(None) };
    let text = value.to_str().unwrap_or_default().trim();
    if text == "*" {
        return Ok(None);
    }
    let number = text.trim_start_matches("W/").trim_matches('"').parse();
    number
        .map(Some)
        .map_err(|_| bad_request(format!("If-Match: {text}; allowed: a generation in quotes, or *")))
}

/// Makes a change as the query and the headers want it.
pub(super) async fn make(
    live: Live,
    target: Target,
    query: &ChangeQuery,
    headers: &HeaderMap,
    Peer(who): Peer,
) -> Result<Json<Receipt>, Failed> {
    if query.confirm.is_some_and(|seconds| !(1..=MAX_CONFIRM).contains(&seconds)) {
        return Err(bad_request(format!("confirm: allowed: 1 to {MAX_CONFIRM} seconds")));
    }
    let change = Change {
        dry_run: query.dry_run,
        max_disconnect: query.max_disconnect,
        allow_empty: query.allow_empty || !matches!(target, Target::Document(_)),
        confirm: query.confirm.map(Duration::from_secs),
        if_generation: if_generation(headers)?,
        ..Change::new(target, Author::client(who))
    };
    // On a task of its own: a client that hangs up must not leave a change without its end.
    let applied = tokio::spawn(async move { live.apply(change).await }).await;
    Ok(Json(applied.map_err(internal)??))
}

pub(super) async fn apply(
    State(live): State<Live>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    query: Result<Query<ChangeQuery>, QueryRejection>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Json<Receipt>, Failed> {
    let Query(query) = query.map_err(|error| bad_request(error.body_text()))?;
    let file = query.file.clone().unwrap_or_else(|| "document".to_owned());
    let limits = live.config().policy.limits;
    // A large document takes a while to read: not on the thread that everybody else waits for.
    let read = tokio::task::spawn_blocking(move || {
        let Ok(text) = std::str::from_utf8(&body) else {
            return Err(format!("{file}: the document is no UTF-8; allowed: text in UTF-8"));
        };
        parse_policy(text, &file, &limits).map_err(|diagnostic| diagnostic.to_string())
    });
    let document = read
        .await
        .map_err(internal)?
        .map_err(|error| Failed::new(StatusCode::UNPROCESSABLE_ENTITY, error))?;
    make(live, Target::Document(document), &query, &headers, peer).await
}

pub(super) async fn rollback(
    State(live): State<Live>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    query: Result<Query<ChangeQuery>, QueryRejection>,
    headers: HeaderMap,
) -> Result<Json<Receipt>, Failed> {
    let Query(query) = query.map_err(|error| bad_request(error.body_text()))?;
    let Some(generation) = query.generation else {
        return Err(bad_request("generation: missing; allowed: a generation of the history"));
    };
    make(live, Target::Generation(generation), &query, &headers, peer).await
}

pub(super) async fn confirm(State(live): State<Live>) -> Result<Json<Record>, Failed> {
    Ok(Json(live.confirm().await?))
}

fn document(text: String, generation: u32) -> Response {
    let headers =
        [(header::CONTENT_TYPE, "application/yaml".to_owned()), (header::ETAG, format!("\"{generation}\""))];
    (headers, text).into_response()
}

pub(super) async fn policy(State(live): State<Live>) -> Response {
    let (policy, generation) = live.policy_and_generation();
    document(export(&policy), generation)
}

/// Which generation, as the path says.
type Asked = Result<Path<u32>, PathRejection>;

fn asked(path: Asked) -> Result<u32, Failed> {
    path.map(|Path(generation)| generation).map_err(|error| bad_request(error.body_text()))
}

pub(super) async fn policy_at(State(live): State<Live>, path: Asked) -> Result<Response, Failed> {
    let generation = asked(path)?;
    Ok(document(export(&live.policy_at(generation)?), generation))
}

/// Whether to wait.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct WaitQuery {
    wait: Option<Wait>,
}

/// For what.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Wait {
    Acknowledged,
}

pub(super) async fn generation(
    State(live): State<Live>,
    path: Asked,
    query: Result<Query<WaitQuery>, QueryRejection>,
) -> Result<Json<Record>, Failed> {
    let generation = asked(path)?;
    let Query(query) = query.map_err(|error| bad_request(error.body_text()))?;
    if query.wait == Some(Wait::Acknowledged) {
        live.wait_acknowledged(generation, MAX_WAIT).await?;
    }
    Ok(Json(live.record(generation)?))
}
