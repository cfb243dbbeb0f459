//! The API: HTTP over a unix socket, JSON in the shapes of [`types`].
//!
//! | request | answer |
//! | --- | --- |
//! | `POST /v1/policy` with a document as its body | [`types::Receipt`]: the document is the policy |
//! | … `?dry_run=true` | what it would do |
//! | … `&max_disconnect=N` | refused if it would disconnect more live connections |
//! | … `&allow_empty=true` | an empty document, or one without NICs where there are some, is accepted |
//! | … `&file=NAME` | what diagnostics call the document |
//! | … `&confirm=SECONDS` | it rolls back by itself unless it is confirmed in time |
//! | `GET /v1/policy` | the present policy as a document; its `ETag` is the generation |
//! | `PATCH /v1/policy` with a partial document | its objects are added, or replace those of their names; nothing is removed |
//! | `GET`, `PUT`, `DELETE /v1/vpcs/NAME`, `/v1/{address-groups,security-groups,nics}/PROJECT/NAME` | one object, as it stands in a document |
//! | `POST /v1/security-groups/PROJECT/NAME/rules`, `PUT`, `DELETE …/rules/POSITION` | one rule |
//! | `POST /v1/rollback?generation=N` | [`types::Receipt`]: the policy is that of generation N (semantics 5.7) |
//! | `POST /v1/confirm` | [`types::Record`] of the change that stays |
//! | `GET /v1/history` | [`types::Record`]s, the newest first |
//! | `GET /v1/generations/N` | one of them; `?wait=acknowledged` answers when every worker judges by it, `&timeout=SECONDS` no later |
//! | `GET /v1/generations/N/policy` | the policy of a generation as a document |
//! | `GET /v1/nics`, `groups`, `connections`, `counters`, `workers`, `snapshot` | what `show` shows |
//! | `GET /v1/advice?groups=…` | [`types::Advice`]: rules that could go, or could let in less |
//! | `GET /v1/connections?nic=…` | those that fit: `nic`, `vpc`, `local`, `remote`, `local_port`, `remote_port`, `protocol`, `state`, `opened`, `tombstone`, `rule`, `since`, `worker` |
//! | `GET /v1/connections/count` | how many fit: [`types::Count`] |
//! | `POST /v1/connections/flush` | disconnects those that fit; `all=true` without a filter |
//! | `POST /v1/explain` with [`types::Question`] as its body | [`types::Explanation`]: how a packet would be judged, and why |
//! | `GET /v1/trace?nic=…` | verdicts as they happen, a JSON object a line: [`types::Told`] |
//! | `GET /v1/capture?nic=…` | frames with their verdicts, as pcapng |
//! | `GET /v1/why?packet=…` | [`types::Whys`]: what was decided about it |
//! | `GET /v1/now`, `GET /v1/events` | the appliance at a glance, [`types::Now`]: once, and each second as server-sent events |
//! | `GET /v1/whoami` | who asks, and what they may do: [`types::Whoami`] |
//! | `GET /healthz` | [`types::Health`]; 503 if something has failed |
//! | `GET /metrics` | everything that is counted: OpenMetrics, or the classic text format where `Accept` prefers `text/plain` |
//! | `GET /openapi.json`, `/v1/openapi.json` | all of this, described for programs; the same as `docs/openapi.json` |
//!
//! A change with `If-Match: "N"` is refused unless N is the present generation: no writer undoes what he has not seen.
//!
//! An error is [`types::Refusal`]: 400 a request that makes no sense, 404 what is not there, 409 a change that a guard refused (with
//! what it would have done), 412 one from somebody who has not seen the last, 422 a bad document, 503 a worker that does not
//! answer. While a setting is on that lets pass what the defaults would
//! not (semantics 2.8), every answer bears the header `portcullis-notice`.
//!
//! Handlers run on the control side's thread and never make a worker wait.

mod advice;
mod auth;
mod body;
mod change;
mod connections;
mod console;
mod documents;
mod events;
mod explain;
mod metrics;
mod objects;
mod openapi;
mod page;
mod refusals;
pub mod schema;
mod server;
mod socket;
mod tcp;
mod trace;
pub mod types;
mod views;

use axum::Router;
use axum::extract::{Extension, State};
use axum::http::{HeaderValue, StatusCode};
use axum::middleware::{from_fn_with_state, map_response_with_state};
use axum::response::{IntoResponse, Json, Response};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::live::{BadFilter, ChangeRefused, Live, NoSuchName, WorkerTimeout, notice};
pub use auth::Tokens;
pub use openapi::openapi;
pub use socket::{BindError, Peer, Socket};
pub use tcp::{Tcp, TcpError, refused_files};
use types::Refusal;

/// Where documents are applied and exported.
pub const POLICY: &str = "/v1/policy";
/// The header that says which lenient settings are on.
pub const NOTICE: &str = "portcullis-notice";
/// The longest document, in bytes.
const MAX_DOCUMENT: usize = crate::source::MAX_DOCUMENT;
/// The longest question about a packet, in bytes: a frame of any capture fits.
const MAX_QUESTION: usize = 1 << 20;
/// Where questions go.
const QUESTIONS: &str = "/v1/explain";

/// A refusal on its way out.
struct ApiError(StatusCode, Refusal);

fn bad_request(error: impl ToString) -> ApiError {
    ApiError::new(StatusCode::BAD_REQUEST, error)
}

fn internal(error: impl ToString) -> ApiError {
    ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, error)
}

impl ApiError {
    fn new(status: StatusCode, error: impl ToString) -> ApiError {
        ApiError(status, Refusal { error: error.to_string(), preview: None })
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        (self.0, Json(self.1)).into_response()
    }
}

impl From<ChangeRefused> for ApiError {
    fn from(refused: ChangeRefused) -> ApiError {
        let status = match refused {
            ChangeRefused::Stale { .. } => StatusCode::PRECONDITION_FAILED,
            ChangeRefused::NoGeneration(_) | ChangeRefused::NotFound(_) => StatusCode::NOT_FOUND,
            ChangeRefused::Invalid(_) => StatusCode::UNPROCESSABLE_ENTITY,
            ChangeRefused::Store(_) => StatusCode::INSUFFICIENT_STORAGE,
            ChangeRefused::NoAnswer(_) | ChangeRefused::Relieved => StatusCode::SERVICE_UNAVAILABLE,
            _ => StatusCode::CONFLICT,
        };
        let mut failed = ApiError::new(status, &refused);
        if let ChangeRefused::DisconnectsTooMany { preview, .. } = refused {
            failed.1.preview = Some(preview);
        }
        failed
    }
}

impl From<BadFilter> for ApiError {
    fn from(BadFilter(error): BadFilter) -> ApiError {
        ApiError::new(StatusCode::BAD_REQUEST, error)
    }
}

impl From<NoSuchName> for ApiError {
    fn from(NoSuchName(error): NoSuchName) -> ApiError {
        ApiError::new(StatusCode::NOT_FOUND, error)
    }
}

impl From<WorkerTimeout> for ApiError {
    fn from(no_answer: WorkerTimeout) -> ApiError {
        ApiError::new(StatusCode::SERVICE_UNAVAILABLE, no_answer)
    }
}

async fn add_notice(State(live): State<Live>, mut response: Response) -> Response {
    if let Some(value) = notice(&live).and_then(|notice| HeaderValue::from_str(&notice).ok()) {
        response.headers_mut().insert(NOTICE, value);
    }
    response
}

/// Every path that is described, with what serves it.
fn described() -> OpenApiRouter<Live> {
    OpenApiRouter::new()
        .routes(routes!(change::policy, change::apply))
        .routes(routes!(change::rollback))
        .routes(routes!(change::confirm))
        .routes(routes!(views::history))
        .routes(routes!(change::generation))
        .routes(routes!(change::policy_at))
        .routes(routes!(views::nics))
        .routes(routes!(views::groups))
        .routes(routes!(views::rules))
        .routes(routes!(advice::advice))
        .routes(routes!(connections::list))
        .routes(routes!(connections::count))
        .routes(routes!(connections::flush))
        .routes(routes!(explain::explain))
        .routes(routes!(views::health))
        .routes(routes!(views::counters))
        .routes(routes!(views::workers))
        .routes(routes!(views::snapshot))
        .routes(routes!(events::events))
        .routes(routes!(events::now))
        .routes(routes!(events::whoami))
        .routes(routes!(views::restart))
        .routes(routes!(trace::trace))
        .routes(routes!(trace::capture))
        .routes(routes!(trace::why))
        .routes(routes!(metrics::metrics))
        .merge(objects::routes())
}

/// The whole API.
pub fn router(live: Live) -> Router {
    openapi::with_description(described())
        .fallback(|| async { ApiError::new(StatusCode::NOT_FOUND, "there is no such path") })
        .method_not_allowed_fallback(|| async {
            ApiError::new(StatusCode::METHOD_NOT_ALLOWED, "the path takes no such method")
        })
        .layer(map_response_with_state(live.clone(), add_notice))
        .layer(Extension(events::Beats::default()))
        .with_state(live)
}

/// Serves the API until the future is dropped.
pub async fn serve(socket: &Socket, live: Live) -> std::io::Result<()> {
    let routes = router(live.clone()).layer(from_fn_with_state(live, metrics::count));
    server::serve_socket(socket.listener()?, routes).await
}
