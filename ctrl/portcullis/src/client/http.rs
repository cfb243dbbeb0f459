//! One request to the appliance, over its unix socket or over TCP.

use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;

use control::api::NOTICE;
use control::api::types::Refusal;
use control::source::read_input;
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1;
use hyper::{Method, Request, Response, StatusCode, Uri, header};
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::runtime::{Builder, Runtime};
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;

use crate::cli::Client;
use crate::failure::Failure;

/// What the appliance answered.
pub struct HttpReply {
    /// The status.
    pub status: StatusCode,
    /// Lenient settings that are on.
    pub notice: Option<String>,
    /// The body.
    pub body: Bytes,
}

impl HttpReply {
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

/// Asks the appliance.
pub fn request(client: &Client, method: Method, target: &str, body: Vec<u8>) -> Result<HttpReply, Failure> {
    request_if(client, method, target, body, None)
}

/// The same, on the condition that a generation is the present one.
pub fn request_if(
    client: &Client,
    method: Method,
    target: &str,
    body: Vec<u8>,
    generation: Option<u32>,
) -> Result<HttpReply, Failure> {
    let door = Endpoint::new(client)?;
    let request = door.request(method, target, body, generation)?;
    runtime()?.block_on(async {
        let unreached = |reason| door.unreached(reason);
        let (answer, connection) = door.ask(request).await.map_err(unreached)?;
        let answer = whole(answer).await.map_err(unreached)?;
        connection.abort();
        Ok(answer)
    })
}

/// Asks for an answer that comes bit by bit: `begun` once it begins, `each` for every bit, until there are no more, `each` says that it
/// is enough, or a signal ends it.
pub fn stream(
    client: &Client,
    target: &str,
    mut begun: impl FnMut(),
    mut each: impl FnMut(&[u8]) -> Result<bool, Failure>,
) -> Result<(), Failure> {
    let door = Endpoint::new(client)?;
    let request = door.request(Method::GET, target, Vec::new(), None)?;
    runtime()?.block_on(async {
        let unreached = |reason| door.unreached(reason);
        let mut interrupt = signal(SignalKind::interrupt()).map_err(Failure::runtime)?;
        let mut terminate = signal(SignalKind::terminate()).map_err(Failure::runtime)?;
        let (mut answer, connection) = door.ask(request).await.map_err(unreached)?;
        if !answer.status().is_success() {
            return whole(answer).await.map_err(unreached)?.success().map(drop);
        }
        begun();
        loop {
            let frame = tokio::select! {
                frame = answer.frame() => frame,
                _ = interrupt.recv() => break,
                _ = terminate.recv() => break,
            };
            let Some(frame) = frame else { break };
            let frame = frame.map_err(|error| {
                Failure::runtime(format!("the appliance has ended it before its end: {error}"))
            })?;
            if let Ok(bytes) = frame.into_data()
                && !each(&bytes)?
            {
                break;
            }
        }
        connection.abort();
        Ok(())
    })
}

fn runtime() -> Result<Runtime, Failure> {
    Builder::new_current_thread().enable_all().build().map_err(Failure::runtime)
}

async fn whole(answer: Response<Incoming>) -> Result<HttpReply, String> {
    let status = answer.status();
    let notice = answer.headers().get(NOTICE).and_then(|value| value.to_str().ok()).map(str::to_owned);
    let body = answer.into_body().collect().await.map_err(|error| error.to_string())?.to_bytes();
    Ok(HttpReply { status, notice, body })
}

/// Where the appliance is reached.
struct Endpoint<'c> {
    client: &'c Client,
    remote: Option<Remote>,
}

impl<'c> Endpoint<'c> {
    fn new(client: &'c Client) -> Result<Endpoint<'c>, Failure> {
        let remote = client.url.as_deref().map(|url| Remote::new(url, client)).transpose()?;
        Ok(Endpoint { client, remote })
    }

    fn request(
        &self,
        method: Method,
        target: &str,
        body: Vec<u8>,
        generation: Option<u32>,
    ) -> Result<Request<Full<Bytes>>, Failure> {
        let host = self.remote.as_ref().map_or("portcullis", |remote| &remote.authority);
        let mut request = Request::builder().method(method).uri(target).header(header::HOST, host);
        if let Some(generation) = generation {
            request = request.header(header::IF_MATCH, format!("\"{generation}\""));
        }
        if let Some(token) = self.remote.as_ref().and_then(|remote| remote.token.as_ref()) {
            request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
        }
        request.body(Full::new(Bytes::from(body))).map_err(Failure::runtime)
    }

    fn unreached(&self, reason: String) -> Failure {
        let by = match &self.remote {
            None => self.client.socket.display().to_string(),
            Some(remote) => remote.authority.clone(),
        };
        Failure::runtime(format!("the appliance can't be reached by {by}: {reason}"))
    }

    async fn ask(&self, request: Request<Full<Bytes>>) -> Result<Asked, String> {
        match &self.remote {
            None => {
                let stream = UnixStream::connect(&self.client.socket).await;
                ask(stream.map_err(|error| error.to_string())?, request).await
            }
            Some(remote) => remote.ask(request).await,
        }
    }
}

/// An answer that has begun, and the connection that it comes by: it ends with the sender, and what goes wrong is told by the answer.
type Asked = (Response<Incoming>, JoinHandle<Result<(), hyper::Error>>);

async fn ask(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    request: Request<Full<Bytes>>,
) -> Result<Asked, String> {
    let told = |error: hyper::Error| error.to_string();
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(told)?;
    let connection = tokio::spawn(connection);
    let answer = sender.send_request(request).await.map_err(told)?;
    Ok((answer, connection))
}

/// An appliance over TCP.
struct Remote {
    /// Host and port, as the request names them.
    authority: String,
    host: String,
    port: u16,
    tls: Option<TlsConnector>,
    token: Option<String>,
}

impl Remote {
    fn new(url: &str, client: &Client) -> Result<Remote, Failure> {
        let bad = |what: &str| {
            Failure::input(format!(
                "--url {url}: {what}; allowed: https://HOST[:PORT], or http:// on loopback"
            ))
        };
        let parsed: Uri = url.parse().map_err(|_| bad("it is no URL"))?;
        let authority = parsed.authority().ok_or_else(|| bad("it names no host"))?;
        if !matches!(parsed.path(), "" | "/") || parsed.query().is_some() {
            return Err(bad("it has a path"));
        }
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
        let is_loopback = host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback());
        let is_tls = match parsed.scheme_str() {
            Some("https") => true,
            // A token in plain text is everybody's.
            Some("http") if is_loopback => false,
            _ => return Err(bad("its scheme is not https")),
        };
        let token = client.token_file.as_deref().map(read_token).transpose()?;
        let tls = is_tls.then(|| connector(client.ca.as_deref())).transpose()?;
        let port = authority.port_u16().unwrap_or(if is_tls { 443 } else { 80 });
        Ok(Remote { authority: authority.to_string(), host, port, tls, token })
    }

    async fn ask(&self, request: Request<Full<Bytes>>) -> Result<Asked, String> {
        let stream = TcpStream::connect((self.host.as_str(), self.port)).await;
        let stream = stream.map_err(|error| error.to_string())?;
        let Some(tls) = &self.tls else { return ask(stream, request).await };
        let name = ServerName::try_from(self.host.clone()).map_err(|error| error.to_string())?;
        let stream = tls.connect(name, stream).await.map_err(|error| error.to_string())?;
        ask(stream, request).await
    }
}

/// The first token of a file: what stands alone in its line, or behind a name as the appliance's own file has it.
fn read_token(path: &Path) -> Result<String, Failure> {
    let text = read_input(path).map_err(Failure::input)?;
    let line = text.lines().map(str::trim).find(|line| !line.is_empty() && !line.starts_with('#'));
    let token = line.and_then(|line| line.split_whitespace().last()).map(str::to_owned);
    token.ok_or_else(|| Failure::input(format!("{}: holds no token", path.display())))
}

/// Speaks TLS to who shows a certificate of these authorities, else of the system's.
fn connector(ca: Option<&Path>) -> Result<TlsConnector, Failure> {
    let mut roots = RootCertStore::empty();
    match ca {
        Some(path) => {
            let told = |error: &dyn std::fmt::Display| Failure::input(format!("{}: {error}", path.display()));
            let authorities = CertificateDer::pem_file_iter(path).map_err(|error| told(&error))?;
            for authority in authorities {
                roots.add(authority.map_err(|error| told(&error))?).map_err(|error| told(&error))?;
            }
            if roots.is_empty() {
                return Err(told(&"holds no certificate"));
            }
        }
        None => drop(roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs)),
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(Failure::runtime)?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(TlsConnector::from(Arc::new(config)))
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
