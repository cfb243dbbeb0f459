//! The console: a page in the browser, over the API's own TCP listener. Its files are part of the program; `ctrl/console` has their
//! sources, and what makes them.
//!
//! The page itself is no secret and is served to whoever names this host rightly. All that it shows it asks of the API, with the token
//! that its user gives it: a header that no other site can have a browser send, so that there is nothing to forge. No cookie is set.

use axum::Router;
use axum::http::header::{self, HeaderName};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::get;

/// Where the page is.
const PAGE: &str = "/console/";

/// What a page may do: run its own script and style and ask its own host; be framed by nobody, and post nowhere. Texts never become
/// markup, by the browser's own word (trusted types).
const OF_PAGE: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none'; \
    form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'";
/// What an answer of the API's may do where a browser shows it as a page: nothing.
const OF_DATA: &str =
    "default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'; sandbox";

/// A file of the console's.
struct Asset {
    path: &'static str,
    kind: &'static str,
    bytes: &'static [u8],
}

macro_rules! asset {
    ($path:literal, $file:literal, $kind:literal) => {
        Asset {
            path: $path,
            kind: $kind,
            bytes: include_bytes!(concat!(env!("CARGO_MANIFEST_DIR"), "/../console/dist/", $file)),
        }
    };
}

const ASSETS: [Asset; 4] = [
    asset!("/console/", "index.html", "text/html; charset=utf-8"),
    asset!("/console/console.js", "console.js", "text/javascript; charset=utf-8"),
    asset!("/console/console.css", "console.css", "text/css; charset=utf-8"),
    asset!("/console/icon.svg", "icon.svg", "image/svg+xml"),
];

/// The console's paths.
pub(super) fn routes() -> Router {
    let mut router = Router::new();
    for Asset { path, kind, bytes } in ASSETS {
        let tag = HeaderValue::from_str(&format!("\"{:016x}\"", hash(bytes)));
        // Digits and quotes are fit for a header.
        let tag = tag.unwrap_or_else(|_| HeaderValue::from_static("\"\""));
        router = router.route(path, get(move |headers: HeaderMap| served(headers, tag, kind, bytes)));
    }
    for path in ["/", "/console"] {
        router = router.route(path, get(|| async { Redirect::permanent(PAGE) }));
    }
    router
}

async fn served(asked: HeaderMap, tag: HeaderValue, kind: &'static str, bytes: &'static [u8]) -> Response {
    let is_held = asked.get(header::IF_NONE_MATCH) == Some(&tag);
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static(kind)),
        (header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(OF_PAGE)),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-cache")),
        (header::ETAG, tag),
    ];
    if is_held {
        (StatusCode::NOT_MODIFIED, headers).into_response()
    } else {
        (headers, bytes).into_response()
    }
}

/// FNV-1a: whether a file is another than the one that a browser holds. Nobody but who built it chooses what it is of.
fn hash(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

/// What every answer over TCP says to browsers: show it as what it is said to be, to this site's pages alone, in nobody's frame; keep no
/// copy, and tell nobody where it was.
pub(super) async fn harden(mut response: Response) -> Response {
    let headers = response.headers_mut();
    let fixed: [(HeaderName, &str); 7] = [
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::X_FRAME_OPTIONS, "DENY"),
        (header::REFERRER_POLICY, "no-referrer"),
        (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
        (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
        (HeaderName::from_static("cross-origin-embedder-policy"), "require-corp"),
        (
            HeaderName::from_static("permissions-policy"),
            "camera=(), display-capture=(), geolocation=(), microphone=(), payment=(), usb=()",
        ),
    ];
    for (name, value) in fixed {
        headers.insert(name, HeaderValue::from_static(value));
    }
    headers.entry(header::CONTENT_SECURITY_POLICY).or_insert(HeaderValue::from_static(OF_DATA));
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    response
}

#[cfg(test)]
mod tests {
    use axum::body::{Body, to_bytes};
    use axum::http::Request;
    use tower::ServiceExt;

    use super::*;

    fn ask(path: &str, tag: Option<&HeaderValue>) -> (StatusCode, HeaderMap, Vec<u8>) {
        let mut request = Request::get(path);
        if let Some(tag) = tag {
            request = request.header(header::IF_NONE_MATCH, tag);
        }
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let routes = routes().layer(axum::middleware::map_response(harden));
            let response = routes.oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
            let (status, headers) = (response.status(), response.headers().clone());
            (status, headers, to_bytes(response.into_body(), 1 << 24).await.unwrap().to_vec())
        })
    }

    #[test]
    fn every_file_is_served_under_a_policy_that_allows_its_own_host_alone() {
        for Asset { path, kind, bytes } in ASSETS {
            let (status, headers, body) = ask(path, None);
            assert_eq!((status, body.as_slice()), (StatusCode::OK, bytes), "{path}");
            assert_eq!(headers[header::CONTENT_TYPE], kind);
            assert_eq!(headers[header::CONTENT_SECURITY_POLICY], OF_PAGE);
            assert_eq!(headers[header::X_FRAME_OPTIONS], "DENY");
            assert_eq!(headers[header::X_CONTENT_TYPE_OPTIONS], "nosniff");
            assert_eq!(headers[header::REFERRER_POLICY], "no-referrer");
            assert!(!headers.contains_key(header::SET_COOKIE));
            let (status, _, body) = ask(path, Some(&headers[header::ETAG]));
            assert_eq!((status, body.len()), (StatusCode::NOT_MODIFIED, 0), "{path}");
        }
        for unsafely in ["unsafe-inline", "unsafe-eval", "*", "http:", "https:", "data:", "blob:"] {
            assert!(!OF_PAGE.contains(unsafely), "{unsafely}");
        }
        for path in ["/", "/console"] {
            let (status, headers, _) = ask(path, None);
            assert_eq!(
                (status, &headers[header::LOCATION]),
                (StatusCode::PERMANENT_REDIRECT, &HeaderValue::from_static(PAGE))
            );
        }
    }

    #[test]
    fn the_files_are_small_and_name_no_other_host() {
        let all: usize = ASSETS.iter().map(|asset| asset.bytes.len()).sum();
        assert!(all < 300 << 10, "{all} bytes, before they are packed");
        for Asset { path, bytes, .. } in ASSETS {
            let text = String::from_utf8_lossy(bytes);
            // Names of namespaces are no addresses that anything is asked of.
            let others = text.replace("http://www.w3.org/", "");
            assert!(!others.contains("http://") && !others.contains("https://"), "{path}");
            assert!(!text.contains("dangerouslySetInnerHTML=") && !text.contains("eval("), "{path}");
        }
    }
}
