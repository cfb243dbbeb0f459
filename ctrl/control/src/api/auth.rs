//! Who may ask over TCP, and how: tokens, or what a configuration lets strangers do on loopback; and never a page
//! of another site that a browser on this machine has open (DNS rebinding, forms of other origins).

use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use axum::extract::{ConnectInfo, Request, State};
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::server::ParsedCertificate;
use subtle::ConstantTimeEq;

use super::tcp::{TcpError, fault};
use super::trace::CAPTURE;
use super::types::May;
use super::{ApiError, Peer, QUESTIONS};
use crate::config::Anonymous;

/// Where browsers say whose page asks.
const SITE: &str = "sec-fetch-site";
/// The shortest token that is accepted.
const MIN_TOKEN: usize = 16;

/// Who has a token, and what it is good for.
#[derive(Clone)]
struct Holder {
    name: String,
    token: String,
    may: May,
}

/// The tokens of a file, read again when that is asked for.
#[derive(Clone)]
pub struct Tokens {
    path: PathBuf,
    held: Arc<Mutex<Arc<Vec<Holder>>>>,
}

impl Tokens {
    /// One a line, `NAME TOKEN` or `NAME TOKEN read`; blank lines and those that begin with `#` do not count.
    pub(super) fn read(path: &Path) -> Result<Tokens, TcpError> {
        let held = Arc::new(Mutex::new(Arc::new(read(path)?)));
        Ok(Tokens { path: path.to_owned(), held })
    }

    /// Reads the file again; one that is refused leaves the tokens as they were.
    pub fn read_again(&self) -> Result<(), TcpError> {
        let holders = Arc::new(read(&self.path)?);
        *self.held.lock().unwrap_or_else(PoisonError::into_inner) = holders;
        Ok(())
    }

    /// Whose token this is. Each is compared to its end, so that the time taken tells nothing of where one differs.
    fn holder(&self, shown: &str) -> Option<(String, May)> {
        let held = self.held.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let mut holder = None;
        for Holder { name, token, may } in held.iter() {
            if bool::from(token.as_bytes().ct_eq(shown.as_bytes())) {
                holder = Some((name.clone(), *may));
            }
        }
        holder
    }
}

fn read(path: &Path) -> Result<Vec<Holder>, TcpError> {
    let text = std::fs::read_to_string(path).map_err(|error| fault(path, error))?;
    refuse_readable(path)?;
    let mut tokens = Vec::new();
    for (number, line) in (1..).zip(text.lines()) {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let bad = |what: &str| {
            TcpError::Input(format!(
                "{}:{number}:1: {what}; allowed: NAME TOKEN, or NAME TOKEN read",
                path.display()
            ))
        };
        let Some((name, token)) = line.split_once(char::is_whitespace) else {
            return Err(bad("a name or a token is missing"));
        };
        let (token, may) = match token.trim().rsplit_once(char::is_whitespace) {
            Some((token, "read")) => (token.trim_end(), May::Read),
            _ => (token.trim(), May::Write),
        };
        if token.len() < MIN_TOKEN || token.contains(char::is_whitespace) {
            let what = format!("the token of {name} is shorter than {MIN_TOKEN} characters, or has blanks");
            return Err(bad(&what));
        }
        tokens.push(Holder { name: name.to_owned(), token: token.to_owned(), may });
    }
    if tokens.is_empty() {
        return Err(fault(path, "holds no token; allowed: lines NAME TOKEN"));
    }
    Ok(tokens)
}

/// Refuses a secret that every user of this machine can read.
pub(super) fn refuse_readable(path: &Path) -> Result<(), TcpError> {
    let mode = std::fs::metadata(path).map_err(|error| fault(path, error))?.permissions().mode() & 0o777;
    if mode & 0o007 == 0 {
        return Ok(());
    }
    let (path, told) = (path.to_owned(), path.display());
    Err(fault(&path, format!("others can read it (mode {mode:04o}); allowed: 0600, by `chmod 600 {told}`")))
}

/// What every request over TCP is asked.
#[derive(Clone)]
pub(super) struct Guard {
    pub tokens: Option<Tokens>,
    pub anonymous: Anonymous,
    /// Where it listens.
    pub address: IpAddr,
    /// Its certificate, where it speaks TLS: its names are this appliance's.
    pub certificate: Option<CertificateDer<'static>>,
}

impl Guard {
    /// True if the host in a request is this appliance. Any number of ports may lead here (tunnels), so the port does
    /// not count.
    fn is_ours(&self, host: &str) -> bool {
        let name = match host.rsplit_once(':') {
            Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
            _ => host,
        };
        let bare = name.trim_start_matches('[').trim_end_matches(']');
        if let Ok(address) = bare.parse::<IpAddr>() {
            let is_open = self.address.is_unspecified();
            return is_open || address == self.address || address.is_loopback() && self.address.is_loopback();
        }
        let is_local = bare.eq_ignore_ascii_case("localhost")
            && (self.address.is_loopback() || self.address.is_unspecified());
        is_local || self.certificate.as_ref().is_some_and(|certificate| is_named(certificate, bare))
    }

    /// Why a request that names this host by another name, or none, is refused.
    fn misdirected(&self, headers: &HeaderMap) -> Option<ApiError> {
        let host = text(headers, header::HOST);
        if host.is_some_and(|host| self.is_ours(host)) {
            return None;
        }
        let found = host.unwrap_or("none");
        Some(ApiError::new(
            StatusCode::MISDIRECTED_REQUEST,
            format!(
                "Host: {found}; allowed: the address that the API listens on, or a name of its certificate"
            ),
        ))
    }

    fn refusal(&self, headers: &HeaderMap) -> Option<ApiError> {
        if let Some(misdirected) = self.misdirected(headers) {
            return Some(misdirected);
        }
        let host = text(headers, header::HOST).unwrap_or_default();
        let scheme = if self.certificate.is_some() { "https" } else { "http" };
        if let Some(origin) = headers.get(header::ORIGIN)
            && origin.as_bytes() != format!("{scheme}://{host}").as_bytes()
        {
            let found = origin.to_str().unwrap_or("unreadable");
            return Some(ApiError::new(
                StatusCode::FORBIDDEN,
                format!("Origin: {found}; allowed: none, or {scheme}://{host}"),
            ));
        }
        // What a page of another site has its browser fetch without an Origin: pictures, scripts, links.
        let site = headers.get(SITE)?;
        if matches!(site.as_bytes(), b"same-origin" | b"none") {
            return None;
        }
        let found = site.to_str().unwrap_or("unreadable");
        Some(ApiError::new(
            StatusCode::FORBIDDEN,
            format!("Sec-Fetch-Site: {found}; allowed: none, or same-origin"),
        ))
    }

    /// What strangers may do. Whole frames are not theirs to look at: they are what tenants say to each other.
    fn may(&self, method: &Method, path: &str) -> bool {
        match self.anonymous {
            Anonymous::None => false,
            Anonymous::Read => matches!(*method, Method::GET | Method::HEAD) && path != CAPTURE,
            Anonymous::Write => true,
        }
    }
}

fn is_named(certificate: &CertificateDer<'_>, name: &str) -> bool {
    let (Ok(parsed), Ok(name)) = (ParsedCertificate::try_from(certificate), ServerName::try_from(name))
    else {
        return false;
    };
    rustls::client::verify_server_name(&parsed, &name).is_ok()
}

fn text(headers: &HeaderMap, name: header::HeaderName) -> Option<&str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

/// What the holder of a token that may only look is refused: changes, and whole frames. A question changes nothing.
fn only_looks(method: &Method, path: &str) -> bool {
    matches!(*method, Method::GET | Method::HEAD) && path != CAPTURE || path == QUESTIONS
}

/// Of whoever names this host rightly: what no token is asked for.
pub(super) async fn is_asked_by_name(State(guard): State<Guard>, request: Request, next: Next) -> Response {
    match guard.misdirected(request.headers()) {
        Some(misdirected) => misdirected.into_response(),
        None => next.run(request).await,
    }
}

/// `Authorization: Bearer TOKEN`, or what strangers may do. A token's name is who asks.
pub(super) async fn authorize(State(guard): State<Guard>, mut request: Request, next: Next) -> Response {
    if let Some(refusal) = guard.refusal(request.headers()) {
        return refusal.into_response();
    }
    let shown = request.headers().get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let token = shown.and_then(|value| value.split_once(' '));
    let token =
        token.filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer")).map(|(_, token)| token.trim());
    let holder = token.and_then(|token| guard.tokens.as_ref()?.holder(token));
    if let Some((holder, may)) = holder {
        if may == May::Read && !only_looks(request.method(), request.uri().path()) {
            let refusal =
                format!("the token of {holder} may only look; allowed: a token without `read` behind it");
            return ApiError::new(StatusCode::FORBIDDEN, refusal).into_response();
        }
        request.extensions_mut().insert(ConnectInfo(Peer(holder)));
        request.extensions_mut().insert((may, true));
        return next.run(request).await;
    }
    // A token that is none is not taken for a stranger's silence.
    if shown.is_none() && guard.may(request.method(), request.uri().path()) {
        let may = if guard.anonymous == Anonymous::Write { May::Write } else { May::Read };
        request.extensions_mut().insert((may, false));
        return next.run(request).await;
    }
    let refusal = ApiError::new(
        StatusCode::UNAUTHORIZED,
        "no token, or an unknown one; allowed: Authorization: Bearer TOKEN",
    );
    ([(header::WWW_AUTHENTICATE, "Bearer")], refusal).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn guard(address: &str, anonymous: Anonymous) -> Guard {
        Guard { tokens: None, anonymous, address: address.parse().unwrap(), certificate: None }
    }

    fn headers(host: Option<&str>, origin: Option<&str>) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in [(header::HOST, host), (header::ORIGIN, origin)] {
            if let Some(value) = value {
                headers.insert(name, value.parse().unwrap());
            }
        }
        headers
    }

    #[test]
    fn a_host_or_an_origin_of_somebody_elses_is_refused() {
        let loopback = guard("127.0.0.1", Anonymous::Write);
        let status = |host, origin| loopback.refusal(&headers(host, origin)).map(|failed| failed.0.as_u16());
        for ours in [
            "localhost",
            "localhost:9696",
            "LOCALHOST:1",
            "127.0.0.1",
            "127.0.0.1:80",
            "[::1]:9696",
            "127.8.8.8",
        ] {
            assert_eq!(status(Some(ours), None), None, "{ours}");
            let origin = format!("http://{ours}");
            assert!(loopback.refusal(&headers(Some(ours), Some(&origin))).is_none(), "{ours}");
        }
        for foreign in [
            "evil.example",
            "evil.example:9696",
            "192.0.2.1",
            "localhost.evil.example",
            "",
            "[::2]",
            "localhost:9x",
            "127.0.0.1:a",
        ] {
            assert_eq!(status(Some(foreign), None), Some(421), "{foreign}");
        }
        assert_eq!(status(None, None), Some(421));
        for origin in ["http://evil.example", "null", "https://localhost", "http://localhost:1", "file://"] {
            assert_eq!(status(Some("localhost"), Some(origin)), Some(403), "{origin}");
        }
        let outward = guard("192.0.2.1", Anonymous::None);
        assert!(
            outward.is_ours("192.0.2.1:443")
                && !outward.is_ours("localhost")
                && !outward.is_ours("127.0.0.1")
        );
    }

    #[test]
    fn strangers_may_what_the_configuration_says() {
        let may = |anonymous, method: Method| guard("127.0.0.1", anonymous).may(&method, "/v1/nics");
        assert!(!may(Anonymous::None, Method::GET));
        assert!(may(Anonymous::Read, Method::GET) && !may(Anonymous::Read, Method::POST));
        assert!(!may(Anonymous::Read, Method::DELETE) && may(Anonymous::Write, Method::DELETE));
        let captures = |anonymous| guard("127.0.0.1", anonymous).may(&Method::GET, CAPTURE);
        assert!(!captures(Anonymous::None) && !captures(Anonymous::Read) && captures(Anonymous::Write));
    }

    #[test]
    fn a_secret_that_others_can_read_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("tokens");
        std::fs::write(&path, "me 0123456789abcdef\n").unwrap();
        for (mode, is_refused) in [(0o600, false), (0o640, false), (0o644, true), (0o602, true)] {
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            assert_eq!(Tokens::read(&path).is_err(), is_refused, "{mode:o}");
        }
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        let tokens = Tokens::read(&path).unwrap();
        std::fs::write(&path, "you fedcba9876543210\n").unwrap();
        assert_eq!(tokens.holder("fedcba9876543210"), None);
        tokens.read_again().unwrap();
        assert_eq!(tokens.holder("fedcba9876543210"), Some(("you".to_owned(), May::Write)));
        std::fs::write(&path, "bad\n").unwrap();
        assert!(tokens.read_again().is_err());
        assert_eq!(
            tokens.holder("fedcba9876543210"),
            Some(("you".to_owned(), May::Write)),
            "what is refused changes nothing"
        );
    }

    /// Texts that differ from this one in a single character, or by one more or less, at every place.
    fn near(text: &str) -> Vec<String> {
        let characters: Vec<char> = text.chars().collect();
        let mut all = Vec::new();
        for at in 0..=characters.len() {
            let (head, tail) = characters.split_at(at);
            let join = |parts: [&[char]; 3]| parts.concat().into_iter().collect::<String>();
            for other in ['0', 'a', 'A', '-', '=', '.', '\u{7e}', ','] {
                all.push(join([head, &[other], tail]));
                if let Some(rest) = tail.get(1..) {
                    all.push(join([head, &[other], rest]));
                }
            }
            if let [own, rest @ ..] = tail {
                all.push(join([head, rest, &[]]));
                let turned =
                    if own.is_uppercase() { own.to_ascii_lowercase() } else { own.to_ascii_uppercase() };
                all.push(join([head, &[turned], rest]));
            }
            all.extend([join([head, &[], &[]]), join([tail, &[], &[]])]);
        }
        all.retain(|other| other != text);
        all
    }

    #[test]
    fn a_token_opens_to_its_holder_and_nothing_that_is_near_it_to_anybody() {
        use axum::body::{Body, to_bytes};
        use tower::ServiceExt;

        const MINE: &str = "0aB-1cD.2eF_3gH~";
        const YOURS: &str = "another-token-of-more-than-16";
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("tokens");
        std::fs::write(&path, format!("# who\n\n me {MINE} \nyou\t{YOURS}\n")).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        let tokens = Tokens::read(&path).unwrap();
        let ask = |anonymous, shown: Option<&str>| {
            let guard = Guard { tokens: Some(tokens.clone()), ..guard("127.0.0.1", anonymous) };
            let who = |ConnectInfo(Peer(who)): ConnectInfo<Peer>| async move { who };
            let routes = axum::Router::new()
                .route("/v1/nics", axum::routing::get(who))
                .layer(axum::middleware::from_fn_with_state(guard, authorize));
            let mut request = Request::get("/v1/nics").header(header::HOST, "localhost");
            if let Some(shown) = shown {
                request = request.header(header::AUTHORIZATION, shown);
            }
            let mut request = request.body(Body::empty()).unwrap();
            request.extensions_mut().insert(ConnectInfo(Peer("a stranger".to_owned())));
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            runtime.block_on(async {
                let response = routes.oneshot(request).await.unwrap();
                let (status, asks) =
                    (response.status().as_u16(), response.headers().contains_key(header::WWW_AUTHENTICATE));
                assert_eq!(asks, status == 401);
                let body = to_bytes(response.into_body(), 1 << 16).await.unwrap();
                (status, String::from_utf8(body.to_vec()).unwrap())
            })
        };
        for (token, holder) in [(MINE, "me"), (YOURS, "you")] {
            for scheme in ["Bearer", "bearer", "BEARER"] {
                let told = ask(Anonymous::None, Some(&format!("{scheme} {token}")));
                assert_eq!(told, (200, holder.to_owned()), "{scheme} {token}");
            }
            // With whatever strangers may do: who shows a token that is none is refused.
            for anonymous in [Anonymous::None, Anonymous::Read, Anonymous::Write] {
                for other in near(token) {
                    assert_eq!(ask(anonymous, Some(&format!("Bearer {other}"))).0, 401, "{other}");
                }
                for shown in [
                    token.to_owned(),
                    format!("Bearer{token}"),
                    format!("Basic {token}"),
                    format!("Bearer: {token}"),
                    format!("Bearer {token} {token}"),
                    format!("Bearer {holder} {token}"),
                    format!("Bearer {holder}"),
                    "Bearer ".to_owned(),
                    "Bearer".to_owned(),
                    String::new(),
                ] {
                    assert_eq!(ask(anonymous, Some(&shown)).0, 401, "{shown}");
                }
            }
        }
        assert_eq!(ask(Anonymous::None, None).0, 401);
        assert_eq!(ask(Anonymous::Read, None), (200, "a stranger".to_owned()));
    }

    #[test]
    fn a_file_of_tokens_is_refused_where_a_line_is_none_at_the_very_bound() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("tokens");
        let read = |text: &str| {
            std::fs::write(&path, text).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
            Tokens::read(&path).map_err(|error| error.to_string())
        };
        assert!(read("me 0123456789abcdef\n").is_ok());
        for (text, told) in [
            ("me 0123456789abcde\n", ":1:1: the token of me is shorter than 16"),
            ("me 0123456789abcdef\n\n#\nyou 0123456789 abcdef\n", ":4:1: the token of you"),
            ("0123456789abcdef\n", ":1:1: a name or a token is missing"),
            ("me 0123456789abcde read\n", ":1:1: the token of me is shorter than 16"),
            ("me 0123456789abcdef write\n", ":1:1: the token of me"),
            ("me 0123456789abcdef read read\n", ":1:1: the token of me"),
            ("me read\n", ":1:1: the token of me is shorter than 16"),
            ("# nobody\n", "holds no token"),
            ("", "holds no token"),
        ] {
            let refusal = read(text).err().unwrap_or_else(|| panic!("{text:?} is taken"));
            assert!(refusal.contains(told), "{text:?}: {refusal}");
        }
    }
}
