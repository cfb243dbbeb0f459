//! `GET /metrics`: everything that is counted, as text for Prometheus and its kin.

mod accept;
mod answer;
mod text;

use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderMap, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::ApiError;
use super::internal;
use crate::live::Live;
use answer::Answer;
use text::Format;

/// Everything that is counted
///
/// OpenMetrics 1.0, or the classic text format where `Accept` prefers `text/plain`. Names and labels are listed in docs/metrics.md.
#[utoipa::path(
    get, path = "/metrics", tag = "state",
    responses((
        status = 200, description = "Families of series",
        content((String = "application/openmetrics-text"), (String = "text/plain"))
    ))
)]
pub(super) async fn metrics(State(live): State<Live>, headers: HeaderMap) -> Result<Response, ApiError> {
    let format = accept::format(&headers);
    let gather = move || text::encode(live.figures(), format);
    // It takes a while among many NICs: on a thread that serves nobody else.
    let chunks = tokio::task::spawn_blocking(gather).await.map_err(internal)?.map_err(internal)?;
    Ok(([(header::CONTENT_TYPE, format.content_type())], Answer::new(chunks).into_body()).into_response())
}

/// Counts a request with what became of it. The outermost layer: those that a guard refuses count, too.
pub(super) async fn count(State(live): State<Live>, request: Request, next: Next) -> Response {
    let (method, path) = (request.method().clone(), request.extensions().get::<MatchedPath>().cloned());
    let response = next.run(request).await;
    let path = path.as_ref().map(MatchedPath::as_str);
    live.metrics().count_request(method.as_str(), path, response.status().as_u16());
    response
}
