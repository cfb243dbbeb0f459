//! Requests to the API of any kind, one after the other, to an appliance whose worker is only
//! pretended: each is answered in time, as JSON where it is refused, and never by a fault of the
//! server's.
//!
//! A request is text: method, path, lines of headers, an empty line, the body; a byte 0 ends it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::{Body, to_bytes};
use axum::extract::ConnectInfo;
use axum::http::{Request, header};
use control::api::{Peer, router};
use control::commit::Committer;
use control::config::Config;
use control::document::{Limits, parse_policy};
use control::live::{Live, Parts, WorkerHandle};
use crossbeam::channel::bounded;
use engine::counters::{ConnectionCounts, EngineCounters};
use engine::time::Now;
use engine::worker::{WorkerReply, WorkerRequest};
use tower::ServiceExt;

const POLICY: &str = "
vpcs: [{ name: prod, segment: { untagged: true } }]
security_groups: [{ name: a, rules: [{ direction: inbound, protocol: tcp, ports: 22 }] }]
nics: [{ name: one, vpc: prod, addresses: [10.0.0.1], security_groups: [a] }]
";
/// Requests of one run.
const MOST: usize = 8;
/// What a client may ask to be waited for is not waited for here; everything else is done by then.
const PATIENCE: Duration = Duration::from_millis(300);

fn live() -> Live {
    let mut committer = Committer::new(Config::default());
    let policy = parse_policy(POLICY, "policy", &Limits::default()).expect("a policy").policy;
    let snapshot = committer.commit(policy, 0).expect("room").expect("it changes something").snapshot;
    let (publisher, mut readers) = rcu::domain(snapshot, 1);
    // It has no snapshot in hand, so that every change is acknowledged at once.
    readers.iter_mut().for_each(rcu::Reader::offline);
    let (asked, heard) = bounded::<WorkerRequest>(1);
    std::thread::spawn(move || {
        let _readers = readers;
        while let Ok(WorkerRequest { connections, reply: answer, .. }) = heard.recv() {
            let (now, len) = (Now { tick: 0, ceil: 0 }, connections.len() as u32);
            let _ = answer.send(WorkerReply { connections, watch_set: None, next: None, now, len, ended: 0 });
        }
    });
    let worker = WorkerHandle {
        core: 0,
        counters: Arc::new(EngineCounters::new()),
        questions: asked,
        waker: None,
        capacity: 1,
        polls: Box::new(Default::default),
    };
    Live::new(Parts {
        committer,
        publisher,
        workers: vec![worker],
        connection_counts: Arc::new(ConnectionCounts::new()),
        ports: Box::new(Vec::new),
        start: Instant::now(),
        board: Default::default(),
        governing_file: None,
        store: None,
    })
}

/// The request that this text is; `None` where it is none that a client could send.
fn request(bytes: &[u8]) -> Option<Request<Body>> {
    let split = bytes.windows(2).position(|two| two == b"\n\n");
    let (head, body) = split.map_or((bytes, &[][..]), |at| (&bytes[..at], &bytes[at + 2..]));
    let mut lines = std::str::from_utf8(head).ok()?.lines();
    let (method, path) = lines.next()?.split_once(' ')?;
    let mut request = Request::builder().method(method).uri(path);
    for line in lines {
        let (name, value) = line.split_once(": ")?;
        request = request.header(name, value);
    }
    let mut request = request.body(Body::from(body.to_vec())).ok()?;
    // Who asks, as the socket tells it.
    request.extensions_mut().insert(ConnectInfo(Peer("fuzzer".to_owned())));
    Some(request)
}

/// Asks.
pub fn run(bytes: &[u8]) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let live = live();
    for asked in bytes.split(|byte| *byte == 0).take(MOST).filter_map(request) {
        let what = format!("{} {}", asked.method(), asked.uri());
        runtime.block_on(async {
            let Ok(answer) = tokio::time::timeout(PATIENCE, router(live.clone()).oneshot(asked)).await else {
                return;
            };
            let answer = answer.unwrap_or_else(|never| match never {});
            let (status, json) = (answer.status(), answer.headers().get(header::CONTENT_TYPE).cloned());
            assert!(status.as_u16() != 500, "{what}: {status}");
            let read = tokio::time::timeout(PATIENCE, to_bytes(answer.into_body(), 1 << 24)).await;
            if let (true, Ok(Ok(body))) = (status.is_client_error() || status.is_server_error(), read) {
                let is_json = json
                    .is_some_and(|kind| kind.to_str().is_ok_and(|kind| kind.starts_with("application/json")));
                assert!(is_json || body.is_empty(), "{what}: {status}: {}", String::from_utf8_lossy(&body));
            }
        });
    }
    runtime.shutdown_background();
}

/// Each path of the description, and changes.
pub fn seeds() -> Vec<Vec<u8>> {
    // Its paths stand alone on their lines, two levels deep.
    let described = control::api::openapi();
    let paths = described.lines().filter_map(|line| line.strip_prefix("    \"/")?.strip_suffix("\": {"));
    let mut seeds: Vec<Vec<u8>> = paths
        .flat_map(|path| {
            // Names of the policy's, and generation 1.
            let path = path.replace("{name}", "a").replace("{generation}", "1").replace("{id}", "1");
            ["GET", "POST", "PUT", "DELETE"].map(|method| format!("{method} /{path}\n\n").into_bytes())
        })
        .collect();
    let put = |path: &str, body: &str| {
        format!("PUT {path}\ncontent-type: application/json\nif-match: \"1\"\n\n{body}")
    };
    seeds.push(put("/v1/policy", POLICY).into_bytes());
    seeds.push(put("/v1/policy?dry_run=true", POLICY).into_bytes());
    let more = [
        "GET /v1/connections?limit=3&after=x\n\n",
        "GET /v1/generations/1?wait=acknowledged&timeout=1\n\n",
        "DELETE /v1/security-groups/a\n\n",
    ];
    seeds.extend(more.map(|text| text.as_bytes().to_vec()));
    seeds.push(more.join("\0").into_bytes());
    seeds
}
