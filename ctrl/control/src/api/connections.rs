//! Requests about connections.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use axum::body::{Body, Bytes, HttpBody};
use axum::extract::rejection::QueryRejection;
use axum::extract::{ConnectInfo, Query, State};
use axum::http::header::{self, HeaderName};
use axum::http::{HeaderValue, Uri};
use axum::response::{IntoResponse, Json, Response};
use hyper::body::Frame;
use tokio::sync::mpsc;

use super::refusals::{BadRequest, NotFound, Unanswered};
use super::types::{Connection, Count};
use super::{ApiError, Peer, page};
use super::{bad_request, internal};
use crate::live::{Filter, Live, WorkerTimeout, WrittenFilter};

/// The header that says behind which connection a page goes on.
const NEXT: &str = "portcullis-next";
/// Pieces of a listing that wait for their reader.
const WAITING: usize = 4;

type Asked = Result<Query<WrittenFilter>, QueryRejection>;

/// What is asked of all that fit.
async fn filter(live: &Live, asked: Asked) -> Result<Filter, ApiError> {
    let Query(written) = asked.map_err(|error| bad_request(error.body_text()))?;
    if written.limit.is_some() || written.after.is_some() || written.within.is_some() {
        return Err(bad_request(
            "limit, after, within: a listing alone has pages; allowed: the other parameters",
        ));
    }
    checked(live, &written).await
}

async fn checked(live: &Live, written: &WrittenFilter) -> Result<Filter, ApiError> {
    let filter = Filter::read(written)?;
    let known = live.known();
    // Among many names it takes a while: not on the thread that everybody else waits for.
    let checked = tokio::task::spawn_blocking(move || filter.check(&known).map(|()| filter)).await;
    Ok(checked.map_err(internal)??)
}

/// Connections and tombstones that fit, in the order in which they lie
#[utoipa::path(
    get, path = "/v1/connections", tag = "connections", params(WrittenFilter),
    responses((status = 200, description = "Those that fit", body = Vec<Connection>), BadRequest, NotFound, Unanswered)
)]
pub(super) async fn list(State(live): State<Live>, asked: Asked) -> Result<Response, ApiError> {
    let Query(written) = asked.map_err(|error| bad_request(error.body_text()))?;
    let page = page::of_connections(&written)?;
    let filter = checked(&live, &written).await?;
    if page.within.is_some() {
        let found = live.page(&filter, page).await?;
        let next = found.next.and_then(|id| HeaderValue::from_str(&id).ok());
        let next = next.map(|id| [(HeaderName::from_static(NEXT), id)]);
        return Ok(([(header::CONTENT_TYPE, "application/json")], next, found.text).into_response());
    }
    let (send, mut receive) = mpsc::channel(WAITING);
    tokio::spawn(async move {
        if let Err(error) = live.list(&filter, page, &send).await {
            let _ = send.send(Err(error)).await;
        }
    });
    // The status says whether a first piece came; a worker that fails later breaks the answer off.
    let first = receive.recv().await.ok_or_else(|| internal("the listing has ended"))??;
    let pieces = ListingBody { first: Some(first), rest: receive };
    Ok(([(header::CONTENT_TYPE, "application/json")], Body::new(pieces)).into_response())
}

/// The body of a listing, made while it is read: a million connections take no more room than a thousand.
pub(super) struct ListingBody {
    first: Option<Bytes>,
    rest: mpsc::Receiver<Result<Bytes, WorkerTimeout>>,
}

impl ListingBody {
    /// All that come.
    pub fn new(rest: mpsc::Receiver<Result<Bytes, WorkerTimeout>>) -> ListingBody {
        ListingBody { first: None, rest }
    }
}

impl HttpBody for ListingBody {
    type Data = Bytes;
    type Error = std::io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        if let Some(first) = self.first.take() {
            return Poll::Ready(Some(Ok(Frame::data(first))));
        }
        let piece = ready!(self.rest.poll_recv(context));
        Poll::Ready(
            piece.map(|piece| {
                piece.map(Frame::data).map_err(|error| std::io::Error::other(error.to_string()))
            }),
        )
    }
}

/// How many connections and tombstones fit
#[utoipa::path(
    get, path = "/v1/connections/count", tag = "connections", params(WrittenFilter),
    responses((status = 200, description = "How many", body = Count), BadRequest, NotFound, Unanswered)
)]
pub(super) async fn count(State(live): State<Live>, asked: Asked) -> Result<Json<Count>, ApiError> {
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
    responses((status = 200, description = "How many were disconnected", body = Count), BadRequest, NotFound, Unanswered)
)]
pub(super) async fn flush(
    State(live): State<Live>,
    ConnectInfo(Peer(who)): ConnectInfo<Peer>,
    uri: Uri,
    asked: Asked,
) -> Result<Json<Count>, ApiError> {
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
