//! Requests that only look: what `show` shows, the history, the health.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Json;

use super::shape::{Counters, Group, Health, Nic, Record, Snapshot, Status, Worker};
use crate::live::Live;

/// The generations that are remembered
///
/// The newest first; at most 1,025.
#[utoipa::path(
    get, path = "/v1/history", tag = "generations",
    responses((status = 200, description = "Its records", body = Vec<Record>))
)]
pub(super) async fn history(State(live): State<Live>) -> Json<Vec<Record>> {
    Json(live.history())
}

/// NICs with their addresses, groups and limits
#[utoipa::path(
    get, path = "/v1/nics", tag = "state",
    responses((status = 200, description = "All of them", body = Vec<Nic>))
)]
pub(super) async fn nics(State(live): State<Live>) -> Json<Vec<Nic>> {
    Json(live.nics())
}

/// Security groups with the numbers of their rules, and their members
#[utoipa::path(
    get, path = "/v1/groups", tag = "state",
    responses((status = 200, description = "All of them", body = Vec<Group>))
)]
pub(super) async fn groups(State(live): State<Live>) -> Json<Vec<Group>> {
    Json(live.groups())
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
