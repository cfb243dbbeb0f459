//! Requests that change the policy as a whole, and those that look at its generations.

use std::time::Duration;

use axum::body::Bytes;
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{ConnectInfo, FromRequestParts, Path, Query, State};
use axum::http::request::Parts;
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

/// A change that somebody asks for, but for what it leads to.
pub(super) struct Wish {
    pub live: Live,
    pub query: ChangeQuery,
    if_generation: Option<u32>,
    who: String,
}

impl FromRequestParts<Live> for Wish {
    type Rejection = Failed;

    async fn from_request_parts(parts: &mut Parts, live: &Live) -> Result<Wish, Failed> {
        let query = Query::try_from_uri(&parts.uri)
            .map_err(|error: QueryRejection| bad_request(error.body_text()))?;
        let ConnectInfo(Peer(who)) = ConnectInfo::from_request_parts(parts, live)
            .await
            .map_err(|error| internal(error.body_text()))?;
        let if_generation = if_generation(&parts.headers)?;
        Ok(Wish { live: live.clone(), query: query.0, if_generation, who })
    }
}

impl Wish {
    /// Makes the change.
    pub async fn make(self, target: Target) -> Result<Json<Receipt>, Failed> {
        let Wish { live, query, if_generation, who } = self;
        if query.confirm.is_some_and(|seconds| !(1..=MAX_CONFIRM).contains(&seconds)) {
            return Err(bad_request(format!("confirm: allowed: 1 to {MAX_CONFIRM} seconds")));
        }
        let change = Change {
            dry_run: query.dry_run,
            max_disconnect: query.max_disconnect,
            allow_empty: query.allow_empty || !matches!(target, Target::Document(_)),
            confirm: query.confirm.map(Duration::from_secs),
            if_generation,
            ..Change::new(target, Author::client(who))
        };
        // On a task of its own: a client that hangs up must not leave a change without its end.
        let applied = tokio::spawn(async move { live.apply(change).await }).await;
        Ok(Json(applied.map_err(internal)??))
    }
}

pub(super) async fn apply(wish: Wish, body: Bytes) -> Result<Json<Receipt>, Failed> {
    let file = wish.query.file.clone().unwrap_or_else(|| "document".to_owned());
    let limits = wish.live.config().policy.limits;
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
    wish.make(Target::Document(document)).await
}

pub(super) async fn rollback(wish: Wish) -> Result<Json<Receipt>, Failed> {
    let Some(generation) = wish.query.generation else {
        return Err(bad_request("generation: missing; allowed: a generation of the history"));
    };
    wish.make(Target::Generation(generation)).await
}

pub(super) async fn confirm(State(live): State<Live>) -> Result<Json<Record>, Failed> {
    Ok(Json(live.confirm().await?))
}

pub(super) fn document(text: String, generation: u32) -> Response {
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
