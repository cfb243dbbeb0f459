//! Requests for advice about rules.

use std::time::{SystemTime, UNIX_EPOCH};

use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::response::Json;
use serde::Deserialize;
use utoipa::IntoParams;

use super::ApiError;
use super::bad_request;
use super::refusals::{BadRequest, NotFound, Unanswered};
use super::types::Advice;
use crate::advise::AdviceRequest;
use crate::document::ObjectKey;
use crate::document::absent;
use crate::live::Live;
use crate::model::Key;

/// Suggestions that are made if nothing is said, and at most.
const MADE: (u32, u32) = (100, 1000);
/// How long what was not seen must have been watched for, if nothing is said: a day.
const WATCHED: f64 = 86_400.0;

/// What advice is asked for.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(default, deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct AdviceQuery {
    /// About rules of these groups: names with `#` between them, which is in no name. Of all, if left out.
    #[param(value_type = String, required = false, example = "web#customers/db", pattern = r"^[^/#\x00-\x1f\x7f-\x9f]+(/[^/#\x00-\x1f\x7f-\x9f]+)?(#[^/#\x00-\x1f\x7f-\x9f]+(/[^/#\x00-\x1f\x7f-\x9f]+)?)*$", min_length = 1, max_length = 255)]
    groups: Option<String>,
    /// What was not seen counts only if it was watched for since this moment, in seconds since 1970, or for longer. A day ago, if left out.
    #[param(value_type = f64, required = false, minimum = 0, maximum = 9_999_999_999u64)]
    since: Option<f64>,
    /// So many suggestions at most.
    #[param(value_type = u32, required = false, minimum = 1, maximum = 1000)]
    limit: Option<u32>,
    /// Tell the whole policy as the safe suggestions together leave it, too, as a document.
    document: bool,
}

/// Rules that could go, or could let in less
///
/// Rules that others decide for, that did nothing, or that let in more than was seen. Each suggestion is tried on the history of decisions
/// and on the live connections before it is shown; what was not seen there is not known.
#[utoipa::path(
    get, path = "/v1/advice", tag = "state", params(AdviceQuery),
    responses((status = 200, description = "Suggestions, with what they rest on", body = Advice), BadRequest, NotFound, Unanswered)
)]
pub(super) async fn advice(
    State(live): State<Live>,
    query: Result<Query<AdviceQuery>, QueryRejection>,
) -> Result<Json<Advice>, ApiError> {
    let Query(AdviceQuery { groups, since, limit, document }) =
        query.map_err(|error| bad_request(error.body_text()))?;
    let limit = match limit.unwrap_or(MADE.0) {
        limit if (1..=MADE.1).contains(&limit) => limit as usize,
        limit => return Err(bad_request(format!("limit: {limit}; allowed: 1 to {}", MADE.1))),
    };
    let watched_since = match since {
        None => SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64() - WATCHED,
        Some(since) if (0.0..1e10).contains(&since) => since,
        Some(since) => return Err(bad_request(format!("since: {since}; allowed: seconds since 1970"))),
    };
    let policy = live.policy();
    let key = |name: &str| {
        let key = Key::parse(name).ok_or_else(|| {
            bad_request(format!(
                "groups: {name:?} is no name; allowed: NAME or PROJECT/NAME, with # between them"
            ))
        })?;
        if policy.security_groups.contains_key(&key) {
            return Ok(key);
        }
        Err(ApiError::new(StatusCode::NOT_FOUND, absent(&policy, &ObjectKey::SecurityGroup(key))))
    };
    let groups = groups.iter().flat_map(|groups| groups.split('#')).map(key).collect::<Result<_, _>>()?;
    Ok(Json(live.advise(&AdviceRequest { groups, watched_since, limit, document }).await?))
}
