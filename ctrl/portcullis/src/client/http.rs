//! One request to the appliance, over its unix socket.

use std::path::Path;

use control::api::NOTICE;
use control::api::shape::Refusal;
use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::{Method, Request, StatusCode, header};
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;

use crate::failure::Failure;

/// What the appliance answered.
pub struct Answer {
    /// The status.
    pub status: StatusCode,
    /// Lenient settings that are on.
    pub notice: Option<String>,
    /// The body.
    pub body: Bytes,
}

impl Answer {
    /// The body, unless it is a refusal: bad input where the request was at fault, a failure else.
    pub fn success(self) -> Result<Bytes, Failure> {
        if self.status.is_success() {
            return Ok(self.body);
        }
        let error = self.refusal().error;
        Err(match self.status {
            StatusCode::BAD_REQUEST
            | StatusCode::NOT_FOUND
            | StatusCode::CONFLICT
            | StatusCode::PRECONDITION_FAILED
            | StatusCode::UNPROCESSABLE_ENTITY
            | StatusCode::PAYLOAD_TOO_LARGE => Failure::input(error),
            _ => Failure::runtime(error),
        })
    }

    /// The refusal in the body.
    pub fn refusal(&self) -> Refusal {
        serde_json::from_slice(&self.body).unwrap_or_else(|_| Refusal {
            error: format!("the appliance answered {}", self.status),
            preview: None,
        })
    }
}

/// Asks the appliance behind `socket`.
pub fn request(socket: &Path, method: Method, target: &str, body: Vec<u8>) -> Result<Answer, Failure> {
    request_if(socket, method, target, body, None)
}

/// The same, on the condition that a generation is the present one.
pub fn request_if(
    socket: &Path,
    method: Method,
    target: &str,
    body: Vec<u8>,
    generation: Option<u32>,
) -> Result<Answer, Failure> {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(Failure::runtime)?;
    let mut request = Request::builder().method(method).uri(target).header(header::HOST, "portcullis");
    if let Some(generation) = generation {
        request = request.header(header::IF_MATCH, format!("\"{generation}\""));
    }
    let request = request.body(Full::new(Bytes::from(body))).map_err(Failure::runtime)?;
    runtime.block_on(ask(socket, request)).map_err(|reason| {
        Failure::runtime(format!("the appliance can't be reached by {}: {reason}", socket.display()))
    })
}

async fn ask(socket: &Path, request: Request<Full<Bytes>>) -> Result<Answer, String> {
    let stream = UnixStream::connect(socket).await.map_err(|error| error.to_string())?;
    let told = |error: hyper::Error| error.to_string();
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(told)?;
    // Ends with the sender; what goes wrong is told by the request.
    let connection = tokio::spawn(connection);
    let answer = sender.send_request(request).await.map_err(told)?;
    let status = answer.status();
    let notice = answer.headers().get(NOTICE).and_then(|value| value.to_str().ok()).map(str::to_owned);
    let body = answer.into_body().collect().await.map_err(told)?.to_bytes();
    connection.abort();
    Ok(Answer { status, notice, body })
}

/// A text as a value in a query.
pub fn encoded(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~/".contains(&byte);
    text.bytes()
        .map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") })
        .collect()
}

#[cfg(test)]
mod tests {
    #[test]
    fn every_file_name_fits_a_query() {
        assert_eq!(super::encoded("a b/ü&c=%.yaml"), "a%20b/%C3%BC%26c%3D%25.yaml");
    }
}
