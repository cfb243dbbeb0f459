//! The API over TCP: TLS and bearer tokens wherever others than this machine could listen or ask.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{ConnectInfo, Request, State};
use axum::http::{StatusCode, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::serve::{IncomingStream, Listener};
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use subtle::ConstantTimeEq;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;

use super::{Failed, Peer, router};
use crate::config::Api;
use crate::live::Live;

/// How long a client may take to agree on keys.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// Clients that may agree on keys at once.
const HANDSHAKES: usize = 64;
/// The shortest token that is accepted.
const MIN_TOKEN: usize = 16;

/// Why the API cannot be served over TCP; one line.
#[derive(Debug)]
pub enum TcpError {
    /// A file that the configuration names is not what it should be.
    Input(String),
    /// The address cannot be had.
    Address(String),
}

impl fmt::Display for TcpError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (TcpError::Input(message) | TcpError::Address(message)) = self;
        f.write_str(message)
    }
}

impl std::error::Error for TcpError {}

fn fault(path: &Path, what: impl fmt::Display) -> TcpError {
    TcpError::Input(format!("{}: {what}", path.display()))
}

/// Who may ask: tokens with the names of their holders. None at all: whoever is on this machine.
#[derive(Clone)]
struct Tokens(Arc<Vec<(String, String)>>);

impl Tokens {
    /// One a line, `NAME TOKEN`; blank lines and those that begin with `#` do not count.
    fn read(path: &Path) -> Result<Tokens, TcpError> {
        let text = std::fs::read_to_string(path).map_err(|error| fault(path, error))?;
        let mut tokens = Vec::new();
        for (number, line) in (1..).zip(text.lines()) {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let bad = |what: &str| {
                TcpError::Input(format!("{}:{number}:1: {what}; allowed: NAME TOKEN", path.display()))
            };
            let Some((name, token)) = line.split_once(char::is_whitespace) else {
                return Err(bad("a name or a token is missing"));
            };
            let token = token.trim();
            if token.len() < MIN_TOKEN || token.contains(char::is_whitespace) {
                return Err(bad(&format!(
                    "the token of {name} is shorter than {MIN_TOKEN} characters, or has blanks"
                )));
            }
            tokens.push((name.to_owned(), token.to_owned()));
        }
        if tokens.is_empty() {
            return Err(fault(path, "holds no token; allowed: lines NAME TOKEN"));
        }
        Ok(Tokens(Arc::new(tokens)))
    }

    /// Whose token this is. Each is compared to its end, so that the time taken tells nothing of where one differs.
    fn holder(&self, shown: &str) -> Option<&str> {
        let mut holder = None;
        for (name, token) in self.0.iter() {
            if bool::from(token.as_bytes().ct_eq(shown.as_bytes())) {
                holder = Some(name.as_str());
            }
        }
        holder
    }
}

/// The API's address over TCP, bound.
pub struct Tcp {
    listener: std::net::TcpListener,
    tls: Option<TlsAcceptor>,
    tokens: Option<Tokens>,
}

impl Tcp {
    /// As the configuration wants it; `None` if it wants no TCP.
    pub fn bind(api: &Api) -> Result<Option<Tcp>, TcpError> {
        let Some(address) = api.listen else { return Ok(None) };
        let tls = match (&api.tls_cert, &api.tls_key) {
            (Some(certificate), Some(key)) => Some(acceptor(certificate, key)?),
            _ => None,
        };
        let tokens = api.token_file.as_deref().map(Tokens::read).transpose()?;
        let listener = std::net::TcpListener::bind(address)
            .and_then(|listener| listener.set_nonblocking(true).map(|()| listener))
            .map_err(|error| TcpError::Address(format!("the API can't listen on {address}: {error}")))?;
        Ok(Some(Tcp { listener, tls, tokens }))
    }

    /// Where it listens.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Serves the API until the future is dropped.
    pub async fn serve(&self, live: Live) -> io::Result<()> {
        let listener = TcpListener::from_std(self.listener.try_clone()?)?;
        let mut routes = router(live);
        if let Some(tokens) = &self.tokens {
            routes = routes.layer(from_fn_with_state(tokens.clone(), demand_token));
        }
        let service = routes.into_make_service_with_connect_info::<Peer>();
        axum::serve(Clients::accept_from(listener, self.tls.clone())?, service).await
    }
}

fn acceptor(certificate: &PathBuf, key: &PathBuf) -> Result<TlsAcceptor, TcpError> {
    let chain: Result<Vec<_>, _> =
        CertificateDer::pem_file_iter(certificate).map_err(|error| fault(certificate, error))?.collect();
    let chain = chain.map_err(|error| fault(certificate, error))?;
    let private = PrivateKeyDer::from_pem_file(key).map_err(|error| fault(key, error))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .and_then(|builder| builder.with_no_client_auth().with_single_cert(chain, private))
        .map_err(|error| fault(certificate, error))?;
    Ok(TlsAcceptor::from(Arc::new(config)))
}

/// `Authorization: Bearer TOKEN`, or nothing is told. The token's name is who asks.
async fn demand_token(State(tokens): State<Tokens>, mut request: Request, next: Next) -> Response {
    let shown = request.headers().get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let token = shown.and_then(|value| value.split_once(' '));
    let token =
        token.filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer")).map(|(_, token)| token.trim());
    match token.and_then(|token| tokens.holder(token)) {
        Some(holder) => {
            let peer = Peer(holder.to_owned());
            request.extensions_mut().insert(ConnectInfo(peer));
            next.run(request).await
        }
        None => {
            let refusal = Failed::new(
                StatusCode::UNAUTHORIZED,
                "no token, or an unknown one; allowed: Authorization: Bearer TOKEN",
            );
            ([(header::WWW_AUTHENTICATE, "Bearer")], refusal).into_response()
        }
    }
}

/// What a client is spoken to through.
trait Channel: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Channel for T {}

/// Clients that have agreed on keys, where keys are wanted. A slow one keeps nobody else waiting.
struct Clients {
    ready: mpsc::Receiver<(Box<dyn Channel>, SocketAddr)>,
    local: SocketAddr,
}

impl Clients {
    fn accept_from(listener: TcpListener, tls: Option<TlsAcceptor>) -> io::Result<Clients> {
        let local = listener.local_addr()?;
        let (accepted, ready) = mpsc::channel(HANDSHAKES);
        let slots = Arc::new(Semaphore::new(HANDSHAKES));
        tokio::spawn(async move {
            loop {
                let Ok(slot) = slots.clone().acquire_owned().await else { return };
                let Ok((stream, peer)) = listener.accept().await else {
                    // Out of descriptors, say: it passes.
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                };
                if accepted.is_closed() {
                    return;
                }
                let (tls, accepted) = (tls.clone(), accepted.clone());
                tokio::spawn(async move {
                    if let Some(channel) = agree(stream, tls).await {
                        let _ = accepted.send((channel, peer)).await;
                    }
                    drop(slot);
                });
            }
        });
        Ok(Clients { ready, local })
    }
}

async fn agree(stream: TcpStream, tls: Option<TlsAcceptor>) -> Option<Box<dyn Channel>> {
    let _ = stream.set_nodelay(true);
    match tls {
        None => Some(Box::new(stream)),
        Some(tls) => {
            let agreed = timeout(HANDSHAKE, tls.accept(stream)).await.ok()?.ok()?;
            Some(Box::new(agreed))
        }
    }
}

impl Listener for Clients {
    type Io = Box<dyn Channel>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        match self.ready.recv().await {
            Some(client) => client,
            // The runtime ends.
            None => std::future::pending().await,
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.local)
    }
}

impl axum::extract::connect_info::Connected<IncomingStream<'_, Clients>> for Peer {
    fn connect_info(stream: IncomingStream<'_, Clients>) -> Peer {
        Peer(stream.remote_addr().to_string())
    }
}
