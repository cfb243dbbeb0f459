//! `explain` under the policy in force.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Json;
use serde_json::error::Category;

use super::Failed;
use super::body::Text;
use super::change::{bad_request, internal};
use super::refusals::{BadDocument, Senseless, Unanswered};
use super::shape::{Explanation, Question};
use crate::explain::Unexplained;
use crate::live::Live;

impl From<Unexplained> for Failed {
    fn from(unexplained: Unexplained) -> Failed {
        Failed::new(StatusCode::UNPROCESSABLE_ENTITY, unexplained)
    }
}

/// How a packet would be judged as the first of a connection, and why
///
/// By the snapshot that the workers judge by, and the same code, with an empty table of connections.
#[utoipa::path(
    post, path = "/v1/explain", tag = "state",
    request_body(content = Question),
    responses((status = 200, description = "The verdict", body = Explanation), Senseless, BadDocument, Unanswered)
)]
pub(super) async fn explain(State(live): State<Live>, Text(text): Text) -> Result<Json<Explanation>, Failed> {
    let question: Question = serde_json::from_str(&text).map_err(|error| match error.classify() {
        Category::Data => Failed::new(StatusCode::UNPROCESSABLE_ENTITY, error),
        _ => bad_request(error),
    })?;
    let explained = tokio::task::spawn_blocking(move || live.explain(&question)).await;
    Ok(Json(explained.map_err(internal)??))
}
