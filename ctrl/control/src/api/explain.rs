//! `explain` under the policy in force.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Json;
use serde_json::error::Category;

use super::body::Text;
use super::refusals::{self, BadDocument, BadRequest};
use super::types::{Explanation, Question};
use super::{ApiError, QUESTIONS};
use super::{bad_request, internal};
use crate::live::{ExplainFailed, Live};

impl From<ExplainFailed> for ApiError {
    fn from(unanswered: ExplainFailed) -> ApiError {
        match unanswered {
            ExplainFailed::Question(why) => ApiError::new(StatusCode::UNPROCESSABLE_ENTITY, why),
            ExplainFailed::Worker(why) => why.into(),
            ExplainFailed::Failed(why) => internal(why),
        }
    }
}

/// How a packet would be judged now, and why
///
/// By the snapshot that the workers judge by, and the same code, with the connections of its NIC that the workers have; with `fresh` as
/// the first of a connection. Fragments behind a first are judged without it.
#[utoipa::path(
    post, path = QUESTIONS, tag = "state",
    request_body(content = Question),
    responses((status = 200, description = "The verdict", body = Explanation), BadRequest, BadDocument, refusals::Unanswered)
)]
pub(super) async fn explain(
    State(live): State<Live>,
    Text(text): Text,
) -> Result<Json<Explanation>, ApiError> {
    let question: Question = serde_json::from_str(&text).map_err(|error| match error.classify() {
        Category::Data => ApiError::new(StatusCode::UNPROCESSABLE_ENTITY, error),
        _ => bad_request(error),
    })?;
    Ok(Json(live.explain(question).await?))
}
