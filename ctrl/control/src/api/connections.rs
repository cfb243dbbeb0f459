//! Requests about connections.

use axum::extract::rejection::QueryRejection;
use axum::extract::{ConnectInfo, Query, State};
use axum::http::{Uri, header};
use axum::response::{IntoResponse, Json, Response};

use super::change::{bad_request, internal};
use super::refusals::{Absent, Senseless, Unanswered};
use super::shape::{Connection, Count};
use super::{Failed, Peer};
use crate::live::{Filter, Live, WrittenFilter};

type Asked = Result<Query<WrittenFilter>, QueryRejection>;

async fn filter(live: &Live, asked: Asked) -> Result<Filter, Failed> {
    let Query(written) = asked.map_err(|error| bad_request(error.body_text()))?;
    let filter = Filter::read(&written)?;
    let known = live.known();
    // Among many names it takes a while: not on the thread that everybody else waits for.
    let checked = tokio::task::spawn_blocking(move || filter.check(&known).map(|()| filter)).await;
    Ok(checked.map_err(internal)??)
}

/// Connections and tombstones that fit
#[utoipa::path(
    get, path = "/v1/connections", tag = "connections", params(WrittenFilter),
    responses((status = 200, description = "Those that fit", body = Vec<Connection>), Senseless, Absent, Unanswered)
)]
pub(super) async fn list(State(live): State<Live>, asked: Asked) -> Result<Response, Failed> {
    let filter = filter(&live, asked).await?;
    // Text at once: a million connections as values would take several times its room.
    let listing = tokio::spawn(async move {
        let mut text = vec![b'['];
        let listed = live.connections(&filter, |connection| {
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
    let text = listing.await.map_err(internal)??;
    Ok(([(header::CONTENT_TYPE, "application/json")], text).into_response())
}

/// How many connections and tombstones fit
#[utoipa::path(
    get, path = "/v1/connections/count", tag = "connections", params(WrittenFilter),
    responses((status = 200, description = "How many", body = Count), Senseless, Absent, Unanswered)
)]
pub(super) async fn count(State(live): State<Live>, asked: Asked) -> Result<Json<Count>, Failed> {
    let filter = filter(&live, asked).await?;
    let mut count = 0;
    live.connections(&filter, |_| count += 1).await?;
    Ok(Json(Count { count }))
}

/// Disconnects live connections that fit
///
/// Inbound ones become tombstones, which no rollback takes back; outbound ones are gone. Without any other condition `all=true`
/// must be given.
#[utoipa::path(
    post, path = "/v1/connections/flush", tag = "connections", params(WrittenFilter),
    responses((status = 200, description = "How many were disconnected", body = Count), Senseless, Absent, Unanswered)
)]
pub(super) async fn flush(
    State(live): State<Live>,
    ConnectInfo(Peer(who)): ConnectInfo<Peer>,
    uri: Uri,
    asked: Asked,
) -> Result<Json<Count>, Failed> {
    let says_all = asked.as_ref().is_ok_and(|Query(written)| written.all);
    let filter = filter(&live, asked).await?;
    if filter.is_open() && !says_all {
        return Err(bad_request("no filter is given; allowed: a filter, or all=true for every connection"));
    }
    let count = tokio::spawn(async move { live.disconnect(&filter).await }).await.map_err(internal)??;
    let which = uri.query().unwrap_or_default();
    tracing::info!("{count} connections disconnected by {who} (api): {which}");
    Ok(Json(Count { count }))
}
