//! The API: HTTP over a unix socket, JSON in the shapes of [`shape`].
//!
//! | request | answer |
//! | --- | --- |
//! | `POST /v1/policy` with a document as its body | [`shape::Receipt`]: the document is the policy |
//! | … `?dry_run=true` | what it would do |
//! | … `&max_disconnect=N` | refused if it would disconnect more live connections |
//! | … `&allow_empty=true` | an empty document, or one without NICs where there are some, is accepted |
//! | … `&file=NAME` | what diagnostics call the document |
//! | `GET /v1/policy` | the present policy as a document |
//! | `GET /v1/nics`, `groups`, `connections`, `counters`, `workers`, `snapshot` | what `show` shows |
//!
//! An error is [`shape::Refusal`]: 400 a request that makes no sense, 422 a bad document, 409 one that a guard refused (with what
//! it would have done), 503 a worker that does not answer. While a setting is on that lets pass what the defaults would
//! not (semantics 2.8), every answer bears the header `portcullis-notice`.
//!
//! Handlers run on the control side's thread and never make a worker wait.

pub mod shape;
mod socket;

use std::future::IntoFuture;

use axum::Router;
use axum::body::Bytes;
use axum::extract::rejection::QueryRejection;
use axum::extract::{DefaultBodyLimit, Query, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::map_response_with_state;
use axum::response::{IntoResponse, Json, Response};
use axum::routing::get;
use serde::Deserialize;

use crate::document::parse_policy;
use crate::export::export;
use crate::live::{Change, Live, NoAnswer, Origin, Refused, notice};
use shape::{Receipt, Refusal};
pub use socket::{BindError, Socket};

/// Where documents are applied and exported.
pub const POLICY: &str = "/v1/policy";
/// The header that says which lenient settings are on.
pub const NOTICE: &str = "portcullis-notice";
/// The longest document.
const MAX_DOCUMENT: usize = 256 << 20;

/// A refusal on its way out.
struct Failed(StatusCode, Refusal);

impl Failed {
    fn new(status: StatusCode, error: impl ToString) -> Failed {
        Failed(status, Refusal { error: error.to_string(), preview: None })
    }
}

impl IntoResponse for Failed {
    fn into_response(self) -> Response {
        (self.0, Json(self.1)).into_response()
    }
}

impl From<Refused> for Failed {
    fn from(refused: Refused) -> Failed {
        let mut failed = Failed::new(StatusCode::CONFLICT, &refused);
        if let Refused::TooMany { preview, .. } = refused {
            failed.1.preview = Some(*preview);
        }
        failed
    }
}

impl From<NoAnswer> for Failed {
    fn from(no_answer: NoAnswer) -> Failed {
        Failed::new(StatusCode::SERVICE_UNAVAILABLE, no_answer)
    }
}

/// How a document is applied.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct ApplyQuery {
    dry_run: bool,
    max_disconnect: Option<u64>,
    allow_empty: bool,
    file: Option<String>,
}

async fn apply(
    State(live): State<Live>,
    query: Result<Query<ApplyQuery>, QueryRejection>,
    body: Bytes,
) -> Result<Json<Receipt>, Failed> {
    let Query(query) = query.map_err(|error| Failed::new(StatusCode::BAD_REQUEST, error.body_text()))?;
    let file = query.file.unwrap_or_else(|| "document".to_owned());
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
        .map_err(|error| Failed::new(StatusCode::INTERNAL_SERVER_ERROR, error))?
        .map_err(|error| Failed::new(StatusCode::UNPROCESSABLE_ENTITY, error))?;
    let change = Change {
        document,
        origin: Origin::Api,
        dry_run: query.dry_run,
        max_disconnect: query.max_disconnect,
        allow_empty: query.allow_empty,
    };
    // On a task of its own: a client that hangs up must not leave a change without its end.
    let applied = tokio::spawn(async move { live.apply(change).await }).await;
    Ok(Json(applied.map_err(|error| Failed::new(StatusCode::INTERNAL_SERVER_ERROR, error))??))
}

async fn policy(State(live): State<Live>) -> Response {
    ([(header::CONTENT_TYPE, "application/yaml")], export(&live.policy())).into_response()
}

async fn connections(State(live): State<Live>) -> Result<Response, Failed> {
    // Text at once: a million connections as values would take several times its room.
    let listing = tokio::spawn(async move {
        let mut text = vec![b'['];
        let listed = live.connections(|connection| {
            if text.len() > 1 {
                text.push(b',');
            }
            // Writing to a vector does not fail, and every key is a text.
            let _ = serde_json::to_writer(&mut text, &connection);
        });
        listed.await.map(|()| {
            text.push(b']');
            text
        })
    });
    let text = listing.await.map_err(|error| Failed::new(StatusCode::INTERNAL_SERVER_ERROR, error))??;
    Ok(([(header::CONTENT_TYPE, "application/json")], text).into_response())
}

async fn add_notice(State(live): State<Live>, mut response: Response) -> Response {
    if let Some(value) = notice(&live).and_then(|notice| HeaderValue::from_str(&notice).ok()) {
        response.headers_mut().insert(NOTICE, value);
    }
    response
}

/// The whole API.
pub fn router(live: Live) -> Router {
    Router::new()
        .route(POLICY, get(policy).post(apply))
        .route("/v1/nics", get(|State(live): State<Live>| async move { Json(live.nics()) }))
        .route("/v1/groups", get(|State(live): State<Live>| async move { Json(live.groups()) }))
        .route("/v1/connections", get(connections))
        .route("/v1/counters", get(|State(live): State<Live>| async move { Json(live.counters()) }))
        .route("/v1/workers", get(|State(live): State<Live>| async move { Json(live.workers().await) }))
        .route("/v1/snapshot", get(|State(live): State<Live>| async move { Json(live.snapshot()) }))
        .fallback(|| async { Failed::new(StatusCode::NOT_FOUND, "there is no such path") })
        .method_not_allowed_fallback(|| async {
            Failed::new(StatusCode::METHOD_NOT_ALLOWED, "the path takes no such method")
        })
        .layer(DefaultBodyLimit::max(MAX_DOCUMENT))
        .layer(map_response_with_state(live.clone(), add_notice))
        .with_state(live)
}

/// Serves the API until the future is dropped.
pub async fn serve(socket: &Socket, live: Live) -> std::io::Result<()> {
    axum::serve(socket.listener()?, router(live)).into_future().await
}
