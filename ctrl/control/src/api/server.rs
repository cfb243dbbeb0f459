//! Connections of clients, served within limits: nobody who only holds some keeps others out, and nobody's
//! half request stays for ever.

use std::collections::HashMap;
use std::convert::Infallible;
use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::ConnectInfo;
use axum::http::{Request, Response};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use rustix::process::{Resource, getrlimit};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};
use tower::ServiceExt;

use super::Peer;

/// How long a client may take for the head of a request, and be silent between two.
const HEAD: Duration = Duration::from_secs(10);
/// How long a client may take nothing of an answer.
const STALLED: Duration = Duration::from_secs(10);
/// Connections over the unix socket at once.
const SOCKETS: usize = 256;
/// Descriptors for everything but clients.
const KEPT_BACK: usize = 128;
/// Bytes that the head of a request may have.
const MAX_HEAD: usize = 32 << 10;
/// A pause after a connection could not be accepted: out of descriptors, say, which passes.
pub(super) const PAUSE: Duration = Duration::from_millis(100);

/// Connections that there may be at once.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// In all.
    pub all: usize,
    /// From one address.
    pub of_one: usize,
}

/// Counts connections, and lets in those within the limits.
#[derive(Clone, Debug)]
pub(super) struct ConnectionLimiter {
    limits: Limits,
    held: Arc<Mutex<Held>>,
}

#[derive(Debug, Default)]
struct Held {
    all: usize,
    by_address: HashMap<IpAddr, usize>,
}

/// A connection that was let in; it counts until this is dropped.
#[derive(Debug)]
pub(super) struct ConnectionPermit {
    gate: ConnectionLimiter,
    address: Option<IpAddr>,
}

impl ConnectionLimiter {
    /// With nobody in.
    pub fn new(limits: Limits) -> ConnectionLimiter {
        ConnectionLimiter { limits, held: Arc::default() }
    }

    /// Lets a client in; `None` if there are too many. An address of IPv6 counts with its whole /64, which one
    /// machine may have.
    pub fn admit(&self, address: Option<IpAddr>) -> Option<ConnectionPermit> {
        let address = address.map(|address| match address.to_canonical() {
            IpAddr::V6(v6) => IpAddr::V6((u128::from(v6) >> 64 << 64).into()),
            v4 => v4,
        });
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let of_one = address.map_or(0, |address| held.by_address.get(&address).copied().unwrap_or(0));
        if held.all >= self.limits.all || of_one >= self.limits.of_one {
            return None;
        }
        held.all += 1;
        if let Some(address) = address {
            *held.by_address.entry(address).or_default() += 1;
        }
        drop(held);
        Some(ConnectionPermit { gate: self.clone(), address })
    }
}

impl Drop for ConnectionPermit {
    fn drop(&mut self) {
        let mut held = self.gate.held.lock().unwrap_or_else(PoisonError::into_inner);
        held.all -= 1;
        if let Some(address) = self.address
            && let Some(count) = held.by_address.get_mut(&address)
        {
            *count -= 1;
            if *count == 0 {
                held.by_address.remove(&address);
            }
        }
    }
}

/// A client's stream that gives up when the client takes nothing of an answer for too long.
struct StallTimeout<S> {
    stream: S,
    /// When it gives up, while nothing can be written.
    stalled: Option<Pin<Box<Sleep>>>,
}

impl<S> StallTimeout<S> {
    fn within<T>(&mut self, context: &mut Context<'_>, polled: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if polled.is_ready() {
            self.stalled = None;
            return polled;
        }
        let stalled = self.stalled.get_or_insert_with(|| Box::pin(sleep(STALLED)));
        stalled.as_mut().poll(context).map(|()| Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for StallTimeout<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, into)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for StallTimeout<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.within(context, polled)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.stream).poll_flush(context);
        self.within(context, polled)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.stream).poll_shutdown(context);
        self.within(context, polled)
    }
}

/// Connections over TCP that leave descriptors for the socket, the store, the policy file and the ports, however few there may be.
pub(super) fn within_descriptors(wanted: usize) -> usize {
    let limit = getrlimit(Resource::Nofile).current;
    let limit = limit.and_then(|limit| usize::try_from(limit).ok()).unwrap_or(usize::MAX);
    wanted.min(limit.saturating_sub(SOCKETS + KEPT_BACK).max(1))
}

/// Serves one client's requests until it goes, or takes too long.
pub(super) async fn serve_client(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    peer: Peer,
    router: Router,
    admission: ConnectionPermit,
) {
    let service = service_fn(move |request: Request<Incoming>| {
        let (router, peer) = (router.clone(), peer.clone());
        async move {
            let mut request = request.map(Body::new);
            request.extensions_mut().insert(ConnectInfo(peer));
            let answer: Result<Response<Body>, Infallible> = router.oneshot(request).await;
            answer
        }
    });
    // A client that breaks the protocol or hangs up has been answered, or wants no answer.
    let _ = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD)
        .max_buf_size(MAX_HEAD)
        .serve_connection(TokioIo::new(StallTimeout { stream, stalled: None }), service)
        .await;
    drop(admission);
}

/// Serves a unix socket's clients until the future is dropped.
pub(super) async fn serve_socket(listener: tokio::net::UnixListener, router: Router) -> io::Result<()> {
    let gate = ConnectionLimiter::new(Limits { all: SOCKETS, of_one: usize::MAX });
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(PAUSE).await;
            continue;
        };
        let Some(admission) = gate.admit(None) else { continue };
        let peer = Peer::of_socket(&stream);
        tokio::spawn(serve_client(stream, peer, router.clone(), admission));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::AsyncWriteExt;

    #[test]
    fn an_address_has_its_limit_and_all_together_have_theirs() {
        let gate = ConnectionLimiter::new(Limits { all: 4, of_one: 2 });
        let admit = |address: &str| gate.admit(Some(address.parse().unwrap()));
        let (a, b) = (admit("192.0.2.1"), admit("::ffff:192.0.2.1"));
        assert!(a.is_some() && b.is_some() && admit("192.0.2.1").is_none());
        let (c, d) = (admit("2001:db8::1"), admit("2001:db8::2"));
        assert!(c.is_some() && d.is_some(), "two of one network");
        assert!(admit("192.0.2.2").is_none(), "four in all");
        drop(d);
        assert!(admit("2001:db8::3").is_some());
        assert!(admit("192.0.2.1").is_none());
        drop((a, b, c));
        let held = gate.held.lock().unwrap();
        assert_eq!((held.all, held.by_address.len()), (0, 0), "nothing is kept of those who left");
    }

    #[test]
    fn a_client_that_takes_nothing_of_an_answer_is_let_go() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let (stream, client) = tokio::io::duplex(64);
            let mut patient = StallTimeout { stream, stalled: None };
            let begin = tokio::time::Instant::now();
            let error = patient.write_all(&[0; 65]).await.unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::TimedOut);
            assert!(begin.elapsed() >= STALLED && begin.elapsed() < STALLED * 2, "{:?}", begin.elapsed());
            drop(client);
        });
    }

    #[test]
    fn strangers_leave_descriptors_for_everything_else() {
        let limit = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
        assert!(within_descriptors(usize::MAX) as u64 <= limit.saturating_sub(384).max(1));
        assert_eq!(within_descriptors(1), 1);
    }
}
