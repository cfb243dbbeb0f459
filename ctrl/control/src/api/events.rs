//! What a page shows live, by server-sent events; and who it is that asks.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::rejection::QueryRejection;
use axum::extract::{ConnectInfo, Extension, Query, State};
use axum::http::header;
use axum::response::{IntoResponse, Json, Response};
use serde::Deserialize;
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval};
use utoipa::IntoParams;

use super::connections::ListingBody;
use super::refusals::{BadRequest, Unanswered};
use super::types::{May, Now, NowEvent, Whoami};
use super::{ApiError, Peer, bad_request, internal};
use crate::live::Live;

/// From one event to the next.
const BEAT: Duration = Duration::from_secs(1);
/// Seconds that an answer lasts, if nothing is said, and at most. Whoever goes on watching asks again, with a token that still counts.
const LASTS: u32 = 60;

/// The last event, for all who watch: looking costs the same for one as for many.
#[derive(Clone, Default)]
pub(super) struct Beats(Arc<Mutex<Option<(Instant, Bytes)>>>);

impl Beats {
    fn now(&self, live: &Live) -> Bytes {
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((at, event)) = last.as_ref()
            && at.elapsed() < BEAT / 2
        {
            return event.clone();
        }
        // Shapes of ours are JSON always.
        let text = serde_json::to_string(&live.now()).unwrap_or_default();
        let event = Bytes::from(format!("event: now\ndata: {text}\n\n"));
        *last = Some((Instant::now(), event.clone()));
        event
    }
}

/// How long to watch.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(default, deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct EventsQuery {
    /// Seconds that the answer lasts: 60, if left out. 0 is one event.
    #[param(value_type = u32, required = false, maximum = 60)]
    seconds: Option<u32>,
}

/// The appliance at a glance, each second
///
/// Server-sent events named `now`, each with what `/v1/now` answers in JSON. An answer ends after a minute at the latest; who goes on watching asks again.
#[utoipa::path(
    get, path = "/v1/events", tag = "state", params(EventsQuery),
    responses((status = 200, description = "Events", body = NowEvent, content_type = "text/event-stream"), BadRequest)
)]
pub(super) async fn events(
    State(live): State<Live>,
    Extension(beats): Extension<Beats>,
    query: Result<Query<EventsQuery>, QueryRejection>,
) -> Result<Response, ApiError> {
    let Query(EventsQuery { seconds }) = query.map_err(|error| bad_request(error.body_text()))?;
    let seconds = match seconds.unwrap_or(LASTS) {
        seconds if seconds <= LASTS => seconds,
        seconds => return Err(bad_request(format!("seconds: {seconds}; allowed: 0 to {LASTS}"))),
    };
    let (pieces, receive) = mpsc::channel(1);
    tokio::spawn(async move {
        let end = Instant::now() + Duration::from_secs(seconds.into());
        let mut clock = interval(BEAT);
        clock.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = clock.tick() => {}
                () = pieces.closed() => return,
            }
            let (live, beats) = (live.clone(), beats.clone());
            // Among many NICs it takes a while: on a thread that serves nobody else.
            let Ok(event) = tokio::task::spawn_blocking(move || beats.now(&live)).await else { return };
            if pieces.send(Ok(event)).await.is_err() || Instant::now() + BEAT / 2 >= end {
                return;
            }
        }
    });
    Ok(([(header::CONTENT_TYPE, "text/event-stream")], Body::new(ListingBody::new(receive))).into_response())
}

/// The appliance at a glance
#[utoipa::path(
    get, path = "/v1/now", tag = "state",
    responses((status = 200, description = "As of this moment", body = Now), Unanswered)
)]
pub(super) async fn now(State(live): State<Live>) -> Result<Json<Now>, ApiError> {
    // Among many NICs it takes a while: on a thread that serves nobody else.
    tokio::task::spawn_blocking(move || live.now()).await.map(Json).map_err(internal)
}

/// Who asks, and what they may do
#[utoipa::path(
    get, path = "/v1/whoami", tag = "state",
    responses((status = 200, description = "Who asks", body = Whoami))
)]
pub(super) async fn whoami(
    ConnectInfo(Peer(who)): ConnectInfo<Peer>,
    session: Option<Extension<(May, bool)>>,
) -> Json<Whoami> {
    // Who reaches the socket may everything; over TCP the guard has said.
    let Extension((may, token)) = session.unwrap_or(Extension((May::Write, false)));
    Json(Whoami { who, may, token })
}
