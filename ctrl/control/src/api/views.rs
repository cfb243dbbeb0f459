//! Requests that only look: what `show` shows, the history, the health.

use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::response::Json;

use super::ApiError;
use super::page::{HistoryQuery, PageQuery, Part, by_generation, by_name};
use super::refusals::BadRequest;
use super::types::{Counters, Group, Health, Nic, Record, Restart, RuleFigures, Snapshot, Status, Worker};
use crate::live::Live;

/// The generations that are remembered
///
/// The newest first; at most 1,025.
#[utoipa::path(
    get, path = "/v1/history", tag = "generations", params(HistoryQuery),
    responses((status = 200, description = "Their records", body = Vec<Record>), BadRequest)
)]
pub(super) async fn history(
    State(live): State<Live>,
    query: Result<Query<HistoryQuery>, QueryRejection>,
) -> Result<Json<Vec<Record>>, ApiError> {
    let (before, limit) = by_generation(query)?;
    Ok(Json(live.history_page(before, limit)))
}

/// NICs with their addresses, groups and limits
#[utoipa::path(
    get, path = "/v1/nics", tag = "state", params(PageQuery),
    responses((status = 200, description = "NICs by name", body = Vec<Nic>), BadRequest)
)]
pub(super) async fn nics(
    State(live): State<Live>,
    query: Result<Query<PageQuery>, QueryRejection>,
) -> Result<Json<Vec<Nic>>, ApiError> {
    let Part { after, limit, contains } = by_name(query)?;
    Ok(Json(live.nics_with(&contains, after.as_ref(), limit)))
}

/// Security groups with the numbers of their rules, and their members
#[utoipa::path(
    get, path = "/v1/groups", tag = "state", params(PageQuery),
    responses((status = 200, description = "Groups by name", body = Vec<Group>), BadRequest)
)]
pub(super) async fn groups(
    State(live): State<Live>,
    query: Result<Query<PageQuery>, QueryRejection>,
) -> Result<Json<Vec<Group>>, ApiError> {
    let Part { after, limit, contains } = by_name(query)?;
    Ok(Json(live.groups_with(&contains, after.as_ref(), limit)))
}

/// What each rule did, and of staged ones what they would have done
///
/// Whole groups by name: as many as it takes to list `limit` rules. `after` is the group of the last rule of the page before.
#[utoipa::path(
    get, path = "/v1/rules", tag = "state", params(PageQuery),
    responses((status = 200, description = "Rules by group and position", body = Vec<RuleFigures>), BadRequest)
)]
pub(super) async fn rules(
    State(live): State<Live>,
    query: Result<Query<PageQuery>, QueryRejection>,
) -> Result<Json<Vec<RuleFigures>>, ApiError> {
    let Part { after, limit, contains } = by_name(query)?;
    Ok(Json(live.rules_with(&contains, after.as_ref(), limit)))
}

/// Packets by reason, worker, NIC and port
#[utoipa::path(
    get, path = "/v1/counters", tag = "state",
    responses((status = 200, description = "Since the start", body = Counters))
)]
pub(super) async fn counters(State(live): State<Live>) -> Json<Counters> {
    Json(live.counters())
}

/// Workers with their cores and load
#[utoipa::path(
    get, path = "/v1/workers", tag = "state",
    responses((status = 200, description = "All of them", body = Vec<Worker>))
)]
pub(super) async fn workers(State(live): State<Live>) -> Json<Vec<Worker>> {
    Json(live.workers().await)
}

/// The present generation in numbers
#[utoipa::path(
    get, path = "/v1/snapshot", tag = "state",
    responses((status = 200, description = "Its numbers", body = Snapshot))
)]
pub(super) async fn snapshot(State(live): State<Live>) -> Json<Snapshot> {
    Json(live.snapshot())
}

/// How this run began
///
/// What became of the connections that the former run left, where they are kept.
#[utoipa::path(
    get, path = "/v1/restart", tag = "state",
    responses((status = 200, description = "How it began", body = Restart))
)]
pub(super) async fn restart(State(live): State<Live>) -> Json<Restart> {
    Json(live.restart())
}

/// How the appliance is
///
/// 200 but for `failed`, so that whoever looks at the status alone learns what matters.
#[utoipa::path(
    get, path = "/healthz", tag = "state",
    responses(
        (status = 200, description = "`ok` or `degraded`", body = Health),
        (status = 503, description = "`failed`", body = Health)
    )
)]
pub(super) async fn health(State(live): State<Live>) -> (StatusCode, Json<Health>) {
    let health = live.health();
    let status = match health.status {
        Status::Failed => StatusCode::SERVICE_UNAVAILABLE,
        Status::Ok | Status::Degraded => StatusCode::OK,
    };
    (status, Json(health))
}
