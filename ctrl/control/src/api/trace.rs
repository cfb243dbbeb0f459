//! Requests about single packets: `trace`, `capture` and `why`.

use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};
use utoipa::IntoParams;

use super::ApiError;
use super::connections::ListingBody;
use super::refusals::{BadRequest, NoHistory, NotFound, TooManyReaders, Unanswered};
use super::types::{Told, Whys};
use super::{bad_request, internal};
use crate::live::{Live, WatchRefused, WorkerTimeout};
use crate::trace::pcapng::{self, Interface};
use crate::trace::{DecisionText, Event, FilterQuery, NameTable, TupleFilter, WatchRequest, Watcher, whys};

/// Where frames are captured: what is in them is not for everybody who may look.
pub(super) const CAPTURE: &str = "/v1/capture";
/// Pieces of an answer that wait for their reader.
const WAITING: usize = 4;
/// Bytes that are sent at once.
const PIECE: usize = 64 << 10;
/// How often a reader to whom nothing happens is told what was lost.
const BEAT: Duration = Duration::from_secs(1);
/// Decisions that an answer lists, if nothing is said, and at most.
const LISTED: (u32, u32) = (100, 10_000);

impl From<WatchRefused> for ApiError {
    fn from(unwatched: WatchRefused) -> ApiError {
        match unwatched {
            WatchRefused::TooMany => ApiError::new(StatusCode::TOO_MANY_REQUESTS, unwatched),
            WatchRefused::NoAnswer(error) => error.into(),
        }
    }
}

type AskedQuery = Result<Query<FilterQuery>, QueryRejection>;

async fn reader(live: &Live, asked: AskedQuery, captures: bool) -> Result<Watcher, ApiError> {
    let Query(asked) = asked.map_err(|error| bad_request(error.body_text()))?;
    let wish = WatchRequest::read(&asked, captures)?;
    let names = live.trace().names();
    // Among many names it takes a while: not on the thread that everybody else waits for.
    let checked = tokio::task::spawn_blocking(move || wish.check(&names).map(|()| wish)).await;
    Ok(live.watch(checked.map_err(internal)??).await?)
}

/// How what is told is written.
trait Form: Send {
    fn event(&mut self, event: &Event, out: &mut Vec<u8>);
    fn lost(&mut self, lost: u64, out: &mut Vec<u8>);
}

struct Lines {
    live: Live,
    names: NameTable,
}

impl Form for Lines {
    fn event(&mut self, event: &Event, out: &mut Vec<u8>) {
        if event.decision.record.generation != self.names.generation {
            self.names = self.live.trace().names();
        }
        let mut line = String::new();
        DecisionText::new(&event.decision, &self.names.policy).write_json(&mut line);
        line.push('\n');
        out.extend(line.into_bytes());
    }

    fn lost(&mut self, lost: u64, out: &mut Vec<u8>) {
        out.extend(format!("{{\"lost\":{lost}}}\n").into_bytes());
    }
}

struct Frames {
    names: NameTable,
    lost: u64,
}

impl Form for Frames {
    fn event(&mut self, event: &Event, out: &mut Vec<u8>) {
        pcapng::event(out, event, &self.names.policy);
    }

    fn lost(&mut self, lost: u64, out: &mut Vec<u8>) {
        self.lost += lost;
        pcapng::statistics(out, self.lost);
    }
}

/// Sends what the reader is told until its time or count is up, or nobody takes it any more.
async fn send(
    mut reader: Watcher,
    mut form: impl Form,
    first: Vec<u8>,
    pieces: mpsc::Sender<Result<Bytes, WorkerTimeout>>,
) {
    let mut left = reader.wish.count.unwrap_or(u64::MAX);
    let end = reader.wish.seconds.map(|seconds| Instant::now() + Duration::from_secs_f64(seconds));
    let mut out = first;
    let mut is_over = false;
    loop {
        let lost = reader.newly_lost();
        if lost != 0 {
            form.lost(lost, &mut out);
        }
        if !out.is_empty() && pieces.send(Ok(std::mem::take(&mut out).into())).await.is_err() || is_over {
            return;
        }
        let beat = Instant::now() + BEAT;
        let next = tokio::select! {
            event = reader.next() => event,
            () = sleep_until(end.map_or(beat, |end| end.min(beat))) => None,
            () = pieces.closed() => return,
        };
        let mut next = next;
        while let Some(event) = next {
            form.event(&event, &mut out);
            left -= 1;
            if left == 0 || out.len() >= PIECE {
                break;
            }
            next = reader.try_next();
        }
        is_over = left == 0 || end.is_some_and(|end| Instant::now() >= end);
    }
}

fn streamed(kind: &'static str, pieces: mpsc::Receiver<Result<Bytes, WorkerTimeout>>) -> Response {
    ([(header::CONTENT_TYPE, kind)], Body::new(ListingBody::new(pieces))).into_response()
}

/// Verdicts as they happen
///
/// A JSON object a line: [`Told`], from when the answer begins until `count` or `seconds` are up or the connection is closed. A reader
/// that does not keep up loses records, and is told so by a line `{"lost": N}`.
#[utoipa::path(
    get, path = "/v1/trace", tag = "packets", params(FilterQuery),
    responses(
        (status = 200, description = "One a line", body = Told, content_type = "application/x-ndjson"),
        BadRequest, NotFound, TooManyReaders, Unanswered
    )
)]
pub(super) async fn trace(State(live): State<Live>, asked: AskedQuery) -> Result<Response, ApiError> {
    let reader = reader(&live, asked, false).await?;
    let (pieces, receive) = mpsc::channel(WAITING);
    let names = live.trace().names();
    tokio::spawn(send(reader, Lines { live, names }, Vec::new(), pieces));
    Ok(streamed("application/x-ndjson", receive))
}

/// Frames as they come, with their verdicts, as pcapng
///
/// Whole frames are what tenants say to each other: over TCP it takes a token, whatever strangers may look at.
#[utoipa::path(
    get, path = CAPTURE, tag = "packets", params(FilterQuery),
    responses(
        (status = 200, description = "A capture", body = Vec<u8>, content_type = "application/x-pcapng"),
        BadRequest, NotFound, TooManyReaders, Unanswered
    )
)]
pub(super) async fn capture(State(live): State<Live>, asked: AskedQuery) -> Result<Response, ApiError> {
    let reader = reader(&live, asked, true).await?;
    let (pieces, receive) = mpsc::channel(WAITING);
    let mut first = Vec::new();
    let interfaces: Vec<Interface> = live.config().wires.iter().flat_map(pcapng::interfaces_of).collect();
    pcapng::begin(&mut first, &interfaces, reader.wish.captures.unwrap_or(0));
    let form = Frames { names: live.trace().names(), lost: 0 };
    tokio::spawn(send(reader, form, first, pieces));
    Ok(streamed("application/x-pcapng", receive))
}

/// What is asked of the history.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct WhyQuery {
    /// The packet, such as `tcp 198.51.100.9:40000 > 10.5.6.7:22`, perhaps with `inbound` or `outbound` in front: that way alone then.
    #[param(example = "tcp 198.51.100.9:40000 > 10.5.6.7:22")]
    packet: String,
    /// Up to this moment: seconds since 1970.
    #[serde(default)]
    #[param(value_type = f64, required = false, minimum = 0, maximum = 9_999_999_999u64)]
    at: Option<f64>,
    /// So many decisions at most, the last ones.
    #[serde(default)]
    #[param(value_type = u32, required = false, minimum = 1, maximum = 10_000)]
    limit: Option<u32>,
}

/// What was decided about a packet
///
/// From a bounded history of all decisions but those on packets of established connections, which says how far back it goes; under the
/// rules of then.
#[utoipa::path(
    get, path = "/v1/why", tag = "packets", params(WhyQuery),
    responses((status = 200, description = "The decisions, the last one last", body = Whys), BadRequest, NoHistory)
)]
pub(super) async fn why(
    State(live): State<Live>,
    asked: Result<Query<WhyQuery>, QueryRejection>,
) -> Result<Response, ApiError> {
    let Query(WhyQuery { packet, at, limit }) = asked.map_err(|error| bad_request(error.body_text()))?;
    let tuple = TupleFilter::read(&packet).map_err(bad_request)?;
    let at = match at {
        None => None,
        Some(at) if (0.0..1e10).contains(&at) => Some((at * 1e9) as u64),
        Some(at) => return Err(bad_request(format!("at: {at}; allowed: seconds since 1970"))),
    };
    let limit = match limit.unwrap_or(LISTED.0) {
        limit if (1..=LISTED.1).contains(&limit) => limit as usize,
        limit => return Err(bad_request(format!("limit: {limit}; allowed: 1 to {}", LISTED.1))),
    };
    if !live.trace().has_history() {
        return Err(ApiError::new(StatusCode::CONFLICT, "no decisions are kept: [trace] history is 0"));
    }
    let told = tokio::task::spawn_blocking(move || {
        // What workers have told by now is in it.
        live.trace().drain();
        let recalled = live.trace().recall(&tuple, at, limit);
        whys(&recalled, live.trace().names(), |generation| live.policy_at(generation.0).ok())
    });
    let text = told.await.map_err(internal)?;
    Ok(([(header::CONTENT_TYPE, "application/json")], text).into_response())
}
