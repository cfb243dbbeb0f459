//! The API over TCP: TLS and bearer tokens wherever others than this machine could listen or ask.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileTypeExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use axum::middleware::{from_fn_with_state, map_response};
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::net::TcpListener;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;

use super::auth::{Guard, Tokens, authorize, is_asked_by_name, refuse_readable};
use super::server::{ConnectionLimiter, Limits, PAUSE, serve_client, within_descriptors};
use super::socket::group_id;
use super::{Peer, console, metrics, router};
use crate::config::Api;
use crate::live::Live;

/// How long a client may take to agree on keys.
const HANDSHAKE: Duration = Duration::from_secs(5);
/// Connections over TCP at once. Descriptors for the socket, the store and the policy file are left over in any case.
const CLIENTS: usize = 512;
/// Of them, from one address.
const CLIENTS_OF_ONE: usize = 64;

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

pub(super) fn fault(path: &Path, what: impl fmt::Display) -> TcpError {
    TcpError::Input(format!("{}: {what}", path.display()))
}

/// What a start would refuse of the files and the group that the configuration names: each key with a line.
pub fn refused_files(api: &Api) -> Vec<(&'static str, String)> {
    let mut refused = Vec::new();
    if api.socket_group.as_deref().is_some_and(|group| group_id(group).is_none()) {
        let group = api.socket_group.as_deref().unwrap_or_default();
        refused
            .push(("socket_group", format!("the system has no group {group}; `groupadd {group}` makes one")));
    }
    if std::fs::symlink_metadata(&api.socket).is_ok_and(|there| !there.file_type().is_socket()) {
        refused.push(("socket", format!("{} is there and is no socket", api.socket.display())));
    }
    if api.listen.is_none() {
        return refused;
    }
    if let (Some(certificate), Some(key)) = (&api.tls_cert, &api.tls_key) {
        let faults = [("tls_cert", chain(certificate).err()), ("tls_key", private(key).err())];
        let before = refused.len();
        refused.extend(faults.into_iter().filter_map(|(name, error)| Some((name, error?.to_string()))));
        // Each by itself is right: then whether they are a pair.
        if refused.len() == before
            && let Err(error) = acceptor(certificate, key)
        {
            refused.push(("tls_cert", error.to_string()));
        }
    }
    if let Some(Err(error)) = api.token_file.as_deref().map(Tokens::read) {
        refused.push(("token_file", error.to_string()));
    }
    refused
}

/// The API's address over TCP, bound.
pub struct Tcp {
    listener: std::net::TcpListener,
    tls: Option<TlsAcceptor>,
    guard: Guard,
    console: bool,
}

impl Tcp {
    /// As the configuration wants it; `None` if it wants no TCP.
    pub fn bind(api: &Api) -> Result<Option<Tcp>, TcpError> {
        Tcp::bind_or_inherit(api, None)
    }

    /// The same; where another process hands over a listener at this very address, by that.
    pub fn bind_or_inherit(api: &Api, inherited: Option<OwnedFd>) -> Result<Option<Tcp>, TcpError> {
        let Some(address) = api.listen else { return Ok(None) };
        let (tls, certificate) = match (&api.tls_cert, &api.tls_key) {
            (Some(certificate), Some(key)) => {
                acceptor(certificate, key).map(|(tls, own)| (Some(tls), own))?
            }
            _ => (None, None),
        };
        let tokens = api.token_file.as_deref().map(Tokens::read).transpose()?;
        let guard = Guard { tokens, anonymous: api.anonymous, address: address.ip(), certificate };
        let inherited = inherited.map(std::net::TcpListener::from);
        let same = inherited.filter(|listener| listener.local_addr().is_ok_and(|own| own == address));
        let listener = same
            .map_or_else(|| std::net::TcpListener::bind(address), Ok)
            .and_then(|listener| listener.set_nonblocking(true).map(|()| listener))
            .map_err(|error| TcpError::Address(format!("the API can't listen on {address}: {error}")))?;
        Ok(Some(Tcp { listener, tls, guard, console: api.console }))
    }

    /// Where it listens.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// For another process that takes over.
    pub fn descriptor(&self) -> BorrowedFd<'_> {
        self.listener.as_fd()
    }

    /// The tokens that clients show, where there are some.
    pub fn tokens(&self) -> Option<&Tokens> {
        self.guard.tokens.as_ref()
    }

    /// Serves the API until the future is dropped.
    pub async fn serve(&self, live: Live) -> io::Result<()> {
        let listener = TcpListener::from_std(self.listener.try_clone()?)?;
        let mut routes = router(live.clone()).layer(from_fn_with_state(self.guard.clone(), authorize));
        if self.console {
            // The page asks for the token: who opens it has none yet.
            let page = console::routes().layer(from_fn_with_state(self.guard.clone(), is_asked_by_name));
            routes = routes.merge(page);
        }
        let routes = routes.layer(map_response(console::harden));
        let routes = routes.layer(from_fn_with_state(live, metrics::count));
        let gate =
            ConnectionLimiter::new(Limits { all: within_descriptors(CLIENTS), of_one: CLIENTS_OF_ONE });
        loop {
            let Ok((stream, address)) = listener.accept().await else {
                tokio::time::sleep(PAUSE).await;
                continue;
            };
            // Closed at once: whoever has too many connections learns it, and everybody else goes on.
            let Some(admission) = gate.admit(Some(address.ip())) else { continue };
            let (tls, routes, peer) = (self.tls.clone(), routes.clone(), Peer(address.to_string()));
            tokio::spawn(async move {
                let _ = stream.set_nodelay(true);
                match tls {
                    None => serve_client(stream, peer, routes, admission).await,
                    // Who does not agree on keys in time, or not at all, is let go.
                    Some(tls) => {
                        if let Ok(Ok(stream)) = timeout(HANDSHAKE, tls.accept(stream)).await {
                            serve_client(stream, peer, routes, admission).await;
                        }
                    }
                }
            });
        }
    }
}

/// A chain of certificates, the own one first.
fn chain(path: &Path) -> Result<Vec<CertificateDer<'static>>, TcpError> {
    let read: Result<Vec<_>, _> =
        CertificateDer::pem_file_iter(path).map_err(|error| fault(path, error))?.collect();
    let chain = read.map_err(|error| fault(path, error))?;
    if chain.is_empty() { Err(fault(path, "holds no certificate")) } else { Ok(chain) }
}

fn private(path: &Path) -> Result<PrivateKeyDer<'static>, TcpError> {
    refuse_readable(path)?;
    PrivateKeyDer::from_pem_file(path).map_err(|error| fault(path, error))
}

/// With the certificate that it shows.
fn acceptor(
    certificate: &Path,
    key: &Path,
) -> Result<(TlsAcceptor, Option<CertificateDer<'static>>), TcpError> {
    let (chain, private) = (chain(certificate)?, private(key)?);
    let own = chain.first().cloned();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .and_then(|builder| builder.with_no_client_auth().with_single_cert(chain, private))
        .map_err(|error| fault(certificate, error))?;
    Ok((TlsAcceptor::from(Arc::new(config)), own))
}
