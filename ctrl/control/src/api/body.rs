//! Bodies of requests: text of bounded length, read within bounded time, and no more of them at once than there is memory for. One form
//! of refusal for what is none, which reaches a client that is still sending.

use std::future::poll_fn;
use std::ops::Deref;
use std::pin::Pin;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::{FromRequest, Request};
use axum::http::{StatusCode, header};
use hyper::body::Body as _;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout, timeout_at};

use super::{ApiError, MAX_DOCUMENT, MAX_QUESTION, QUESTIONS};
use crate::live::Live;
use crate::memory;

/// How long a client may send nothing in the middle of a body.
const SILENT: Duration = Duration::from_secs(10);
/// How long a body may take in all.
const WHOLE: Duration = Duration::from_secs(300);
/// Bodies up to this length are not counted among those that take memory: connections bound them.
const SMALL: usize = 64 << 10;
/// What all others together may take at once, in units of [`SMALL`]: one of the largest, or many. Reading one takes several times
/// as much again.
static ROOM: LazyLock<Arc<Semaphore>> = LazyLock::new(|| Arc::new(Semaphore::new(MAX_DOCUMENT / SMALL)));
/// Of a body that is refused, how much is taken and thrown away before the refusal is sent, for how long, and how long a
/// client that has stopped sending is waited for: who is still writing when the connection closes may never read it.
const THROWN_AWAY: usize = 4 * MAX_DOCUMENT;
const DRAINED: Duration = Duration::from_secs(10);
const PAUSED: Duration = Duration::from_millis(500);

/// A body as text.
pub(super) struct Text(pub BodyText);

/// The text of a body. Its room is taken until it is dropped.
pub(super) struct BodyText {
    text: String,
    _room: Option<OwnedSemaphorePermit>,
}

impl Deref for BodyText {
    type Target = str;

    fn deref(&self) -> &str {
        &self.text
    }
}

impl FromRequest<Live> for Text {
    type Rejection = ApiError;

    async fn from_request(request: Request, _: &Live) -> Result<Text, ApiError> {
        let most = if request.uri().path() == QUESTIONS { MAX_QUESTION } else { MAX_DOCUMENT };
        let length = request.headers().get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok());
        let length = length.and_then(|length| length.parse::<u64>().ok()).unwrap_or(0);
        let mut body = request.into_body();
        match read(&mut body, most, length).await {
            Ok(held) => Ok(Text(held)),
            Err(failed) => {
                drain(&mut body).await;
                Err(failed)
            }
        }
    }
}

async fn read(body: &mut Body, most: usize, length: u64) -> Result<BodyText, ApiError> {
    let too_long = || {
        ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, format!("the body is too long; allowed: {most} bytes"))
    };
    let until = Instant::now() + WHOLE;
    let length = usize::try_from(length).ok().filter(|length| *length <= most).ok_or_else(too_long)?;
    let (mut bytes, mut room) = (Vec::new(), None);
    take_room(&mut room, length)?;
    loop {
        let silent_until = until.min(Instant::now() + SILENT);
        let next = timeout_at(silent_until, next(body)).await.map_err(|_| {
            ApiError::new(
                StatusCode::REQUEST_TIMEOUT,
                format!(
                    "the body does not come; allowed: {} s of silence, {} s in all",
                    SILENT.as_secs(),
                    WHOLE.as_secs()
                ),
            )
        })?;
        let Some(chunk) = next else { break };
        // The client went away in the middle of it.
        let chunk = chunk.map_err(|error| ApiError::new(StatusCode::BAD_REQUEST, error))?;
        if bytes.len() + chunk.len() > most {
            return Err(too_long());
        }
        take_room(&mut room, bytes.len() + chunk.len())?;
        memory::reserve(&mut bytes, chunk.len()).map_err(|_| {
            let what =
                "there is no memory for a body of this length; try again, or raise the appliance's limit";
            ApiError::new(StatusCode::SERVICE_UNAVAILABLE, what)
        })?;
        bytes.extend_from_slice(&chunk);
    }
    let text = String::from_utf8(bytes).map_err(|_| {
        ApiError::new(StatusCode::UNPROCESSABLE_ENTITY, "the body is no UTF-8; allowed: text in UTF-8")
    })?;
    Ok(BodyText { text, _room: room })
}

/// Has room for a body of this length.
fn take_room(room: &mut Option<OwnedSemaphorePermit>, length: usize) -> Result<(), ApiError> {
    let taken = room.as_ref().map_or(0, OwnedSemaphorePermit::num_permits);
    let wanted = if length <= SMALL { 0 } else { length.div_ceil(SMALL) };
    if wanted <= taken {
        return Ok(());
    }
    let more = u32::try_from(wanted - taken).unwrap_or(u32::MAX);
    let more = ROOM.clone().try_acquire_many_owned(more).map_err(|_| {
        ApiError::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "other bodies take all the memory that there is for them; try again",
        )
    })?;
    match room {
        Some(room) => room.merge(more),
        None => *room = Some(more),
    }
    Ok(())
}

/// What comes next of a body.
async fn next(body: &mut Body) -> Option<Result<Bytes, axum::Error>> {
    loop {
        match poll_fn(|context| Pin::new(&mut *body).poll_frame(context)).await? {
            // Trailers say nothing here.
            Ok(frame) => match frame.into_data() {
                Ok(data) => return Some(Ok(data)),
                Err(_) => continue,
            },
            Err(error) => return Some(Err(error)),
        }
    }
}

/// Takes what a client still sends, so that it comes to read the answer.
async fn drain(body: &mut Body) {
    let mut thrown_away = 0;
    let all = async {
        while let Ok(Some(Ok(chunk))) = timeout(PAUSED, next(body)).await {
            thrown_away += chunk.len();
            if thrown_away > THROWN_AWAY {
                break;
            }
        }
    };
    let _ = timeout(DRAINED, all).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn runtime() -> tokio::runtime::Runtime {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
    }

    #[test]
    fn bodies_take_room_together_and_give_it_back() {
        let all = MAX_DOCUMENT / SMALL;
        let (mut one, mut other, mut small) = (None, None, None);
        take_room(&mut one, MAX_DOCUMENT - SMALL).ok().unwrap();
        take_room(&mut other, 2 * SMALL).err().unwrap();
        take_room(&mut small, SMALL).ok().unwrap();
        assert!(small.is_none(), "small ones are always let in");
        // It grows into what is left, and no further.
        take_room(&mut one, MAX_DOCUMENT).ok().unwrap();
        assert_eq!(one.as_ref().unwrap().num_permits(), all);
        drop(one);
        take_room(&mut other, 2 * SMALL).ok().unwrap();
    }

    #[test]
    fn what_is_too_long_is_known_by_what_it_says_and_by_what_comes() {
        runtime().block_on(async {
            let status = |result: Result<BodyText, ApiError>| result.err().map(|failed| failed.0.as_u16());
            let mut body = Body::from("12345678");
            assert_eq!(status(read(&mut body, 7, 0).await), Some(413));
            let mut body = Body::from("12345678");
            assert_eq!(status(read(&mut body, 100, 101).await), Some(413));
            let mut body = Body::from("12345678");
            assert_eq!(&*read(&mut body, 8, 8).await.ok().unwrap(), "12345678");
        });
    }
}
