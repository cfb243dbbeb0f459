//! Bodies of requests: text of bounded length, and one form of refusal for what is none.

use axum::body::Bytes;
use axum::extract::{FromRequest, Request};
use axum::http::StatusCode;

use super::{Failed, MAX_DOCUMENT, MAX_QUESTION};
use crate::live::Live;

/// A body as text.
pub(super) struct Text(pub String);

impl FromRequest<Live> for Text {
    type Rejection = Failed;

    async fn from_request(request: Request, live: &Live) -> Result<Text, Failed> {
        let bytes = Bytes::from_request(request, live).await.map_err(|error| match error.status() {
            StatusCode::PAYLOAD_TOO_LARGE => Failed::new(
                StatusCode::PAYLOAD_TOO_LARGE,
                format!("the body is too long; allowed: {MAX_DOCUMENT} bytes, for a question {MAX_QUESTION}"),
            ),
            // The client went away in the middle of it.
            _ => Failed::new(StatusCode::BAD_REQUEST, error.body_text()),
        })?;
        String::from_utf8(bytes.into()).map(Text).map_err(|_| {
            Failed::new(StatusCode::UNPROCESSABLE_ENTITY, "the body is no UTF-8; allowed: text in UTF-8")
        })
    }
}
