//! Every request of the API that changes something, in every state that guards it, against the status that it is to have; and that what is
//! refused has changed nothing.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::{Body, to_bytes};
use axum::extract::ConnectInfo;
use axum::http::Request;
use control::api::{self, Peer};
use control::commit::Committer;
use control::config::Config;
use control::document::{Limits, Parsed, parse_policy};
use control::live::{Author, Change, Live, Parts, WorkerHandle};
use crossbeam::channel::{Receiver, bounded};
use engine::counters::{ConnectionCounts, EngineCounters};
use engine::snapshot::Snapshot;
use engine::time::Now;
use engine::worker::{WorkerReply, WorkerRequest};
use serde_json::Value;
use tower::ServiceExt;

const POLICY: &str = "
vpcs: [{ name: prod, segment: { vlan: 7 } }, { name: spare, segment: { vlan: 8 } }]
address_groups: [{ name: far, project: p, addresses: [203.0.113.0/24] }]
security_groups:
  - name: a
    project: p
    rules:
      - { direction: inbound, protocol: tcp, ports: 22 }
      - { direction: inbound, protocol: tcp, ports: 23 }
nics: [{ name: one, project: p, vpc: prod, addresses: [10.0.0.1], security_groups: [a] }]
";

fn document(text: &str) -> Parsed {
    parse_policy(text, "test", &Limits::default()).unwrap()
}

fn run<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

/// Generations 1 and 2, and one worker, which answers or does not.
struct Rig {
    live: Live,
    _readers: Vec<rcu::Reader<Snapshot>>,
    _unheard: Option<Receiver<WorkerRequest>>,
}

fn rig(answers: bool) -> Rig {
    let mut committer = Committer::new(Config::default());
    let snapshot = committer.commit(document(POLICY).policy, 0).unwrap().unwrap().snapshot;
    let (publisher, mut readers) = rcu::domain(snapshot, 1);
    let (asked, heard) = bounded::<WorkerRequest>(4);
    let unheard = if answers {
        std::thread::spawn(move || {
            while let Ok(WorkerRequest { connections, reply: answer, .. }) = heard.recv() {
                let now = Now { tick: 0, ceil: 0 };
                let _ = answer.send(WorkerReply {
                    connections,
                    watch_set: None,
                    next: None,
                    now,
                    len: 0,
                    ended: 0,
                });
            }
        });
        None
    } else {
        Some(heard)
    };
    let worker = WorkerHandle {
        core: 0,
        counters: Arc::new(EngineCounters::new()),
        questions: asked,
        waker: None,
        capacity: 16,
        polls: Box::new(Default::default),
    };
    let live = Live::new(Parts {
        committer,
        publisher,
        workers: vec![worker],
        connection_counts: Arc::new(ConnectionCounts::new()),
        ports: Box::new(Vec::new),
        start: Instant::now(),
        board: Default::default(),
        governing_file: None,
        store: None,
    });
    readers.iter_mut().for_each(rcu::Reader::offline);
    let second = document(&POLICY.replace("23", "24"));
    run(live.apply(Change::to(second, Author::client("test")))).unwrap();
    Rig { live, _readers: readers, _unheard: unheard }
}

impl Rig {
    /// Generation 3, which awaits its confirmation.
    fn unconfirmed() -> Rig {
        let rig = rig(true);
        let third = document(&POLICY.replace("23", "25"));
        let change =
            Change { confirm: Some(Duration::from_secs(600)), ..Change::to(third, Author::client("test")) };
        run(rig.live.apply(change)).unwrap();
        rig
    }

    fn ask(&self, method: &str, path: &str, body: &str, if_match: Option<&str>) -> (u16, Value) {
        let mut request = Request::builder().method(method).uri(path).header("host", "localhost");
        if let Some(tag) = if_match {
            request = request.header("if-match", tag);
        }
        let mut request = request.body(Body::from(body.to_owned())).unwrap();
        request.extensions_mut().insert(ConnectInfo(Peer("somebody".to_owned())));
        run(async {
            let response = api::router(self.live.clone()).oneshot(request).await.unwrap();
            let status = response.status().as_u16();
            let body = to_bytes(response.into_body(), usize::MAX).await.unwrap();
            (status, serde_json::from_slice(&body).unwrap_or(Value::Null))
        })
    }

    /// What is in force: generation, document, and whether it awaits a confirmation.
    fn force(&self) -> (u32, String, bool) {
        let (policy, generation) = self.live.policy_and_generation();
        (generation, control::export::export(&policy), self.live.awaits_confirmation())
    }
}

/// A request, the status that it has where nothing stands against it, and whether it may be made while another awaits its confirmation.
type Row = (&'static str, &'static str, String, u16, bool);

fn rows() -> Vec<Row> {
    let own = POLICY.replace("23", "80");
    let rule = "{ direction: inbound, protocol: tcp, ports: 443 }".to_owned();
    let nic = "{ name: two, project: p, vpc: prod, addresses: [10.0.0.9], security_groups: [a] }".to_owned();
    let none = String::new;
    vec![
        ("POST", "/v1/policy", own.clone(), 200, false),
        ("POST", "/v1/policy?dry_run=true", own.clone(), 200, true),
        ("POST", "/v1/policy?max_disconnect=0", own.clone(), 200, false),
        ("POST", "/v1/policy?confirm=60", own.clone(), 200, false),
        ("POST", "/v1/policy?confirm=1", own.clone(), 200, false),
        ("POST", "/v1/policy?confirm=86400", own.clone(), 200, false),
        ("POST", "/v1/policy?confirm=0", own.clone(), 400, true),
        ("POST", "/v1/policy?confirm=86401", own.clone(), 400, true),
        ("POST", "/v1/policy?dryrun=true", own.clone(), 400, true),
        ("POST", "/v1/policy", "vpcs: [{ name: prod }]".to_owned(), 422, true),
        ("POST", "/v1/policy", none(), 409, false),
        ("POST", "/v1/policy?allow_empty=true", none(), 200, false),
        ("POST", "/v1/policy", "vpcs: [{ name: prod, segment: { vlan: 7 } }]".to_owned(), 409, false),
        (
            "PATCH",
            "/v1/policy",
            "address_groups: [{ name: near, project: p, addresses: [192.0.2.0/24] }]".to_owned(),
            200,
            false,
        ),
        (
            "PATCH",
            "/v1/policy?dry_run=true",
            "address_groups: [{ name: near, addresses: [192.0.2.0/24] }]".to_owned(),
            200,
            true,
        ),
        ("PATCH", "/v1/policy", "nics: [{ name: two, vpc: nowhere }]".to_owned(), 422, false),
        ("PUT", "/v1/vpcs/third", "{ name: third, segment: { vlan: 9 } }".to_owned(), 200, false),
        ("PUT", "/v1/vpcs/third", "{ name: third, segment: { vlan: 7 } }".to_owned(), 422, false),
        (
            "PUT",
            "/v1/address-groups/p/far",
            "{ name: far, project: p, addresses: [198.51.100.0/24] }".to_owned(),
            200,
            false,
        ),
        ("PUT", "/v1/security-groups/p/b", "{ name: b, project: p, rules: [] }".to_owned(), 200, false),
        ("PUT", "/v1/nics/p/two", nic.clone(), 200, false),
        ("PUT", "/v1/nics/p/two?dry_run=true", nic.clone(), 200, true),
        (
            "PUT",
            "/v1/nics/p/two",
            "{ name: two, project: p, vpc: nowhere, addresses: [10.0.0.9] }".to_owned(),
            422,
            false,
        ),
        ("DELETE", "/v1/vpcs/spare", none(), 200, false),
        ("DELETE", "/v1/vpcs/prod", none(), 409, false),
        ("DELETE", "/v1/vpcs/none", none(), 404, false),
        ("DELETE", "/v1/address-groups/p/far", none(), 200, false),
        ("DELETE", "/v1/address-groups/p/none", none(), 404, false),
        ("DELETE", "/v1/security-groups/p/a", none(), 409, false),
        ("DELETE", "/v1/security-groups/p/none", none(), 404, false),
        ("DELETE", "/v1/nics/p/one", none(), 200, false),
        ("DELETE", "/v1/nics/p/none", none(), 404, false),
        ("DELETE", "/v1/nics/p/one?dry_run=true", none(), 200, true),
        ("POST", "/v1/security-groups/p/a/rules", rule.clone(), 200, false),
        ("POST", "/v1/security-groups/p/none/rules", rule.clone(), 404, false),
        ("POST", "/v1/security-groups/p/a/rules", "{ direction: sideways }".to_owned(), 422, false),
        ("PUT", "/v1/security-groups/p/a/rules/1", rule.clone(), 200, false),
        ("PUT", "/v1/security-groups/p/a/rules/2", rule.clone(), 404, false),
        ("DELETE", "/v1/security-groups/p/a/rules/0", none(), 200, false),
        ("DELETE", "/v1/security-groups/p/a/rules/2", none(), 404, false),
        ("DELETE", "/v1/security-groups/p/a/rules/0?dry_run=true", none(), 200, true),
        ("POST", "/v1/rollback?generation=1", none(), 200, true),
        ("POST", "/v1/rollback?generation=1&dry_run=true", none(), 200, true),
        ("POST", "/v1/rollback?generation=77", none(), 404, true),
        ("POST", "/v1/rollback", none(), 400, true),
    ]
}

/// A request leads to one of these statuses (where several things stand against it, whichever is met first), and what is refused, or
/// only asked about, leaves everything as it was.
fn check(rig: &Rig, (method, path, body, ..): &Row, if_match: Option<&str>, allowed: &[u16], state: &str) {
    let before = rig.force();
    let (status, told) = rig.ask(method, path, body, if_match);
    let what = format!("{state}, If-Match {if_match:?}: {method} {path} {body}: {told}");
    assert!(allowed.contains(&status), "{status}, not {allowed:?}: {what}");
    let after = rig.force();
    if status != 200 {
        assert!(told["error"].as_str().is_some_and(|error| !error.is_empty()), "{what}");
        assert_eq!(after, before, "{what}");
    } else if path.contains("dry_run") {
        assert_eq!(after, before, "{what}");
    } else {
        assert_eq!(
            (after.0, told["generation"].as_u64()),
            (before.0 + 1, Some(u64::from(before.0 + 1))),
            "{what}"
        );
        assert_ne!(after.1, before.1, "{what}");
        assert_eq!(after.2, path.contains("confirm="), "{what}");
    }
}

#[test]
fn each_request_has_its_status_whatever_awaits_a_confirmation_and_whoever_was_there_before() {
    for row in rows() {
        let (.., plain, may_be_made) = row;
        for (state, present) in [("settled", 2), ("unconfirmed", 3)] {
            let make = || if present == 2 { rig(true) } else { Rig::unconfirmed() };
            let awaited = present == 3 && !may_be_made;
            let expected: &[u16] = match (plain, awaited) {
                (200, true) => &[409],
                (_, true) => &[plain, 409],
                (_, false) => &[plain],
            };
            let now = format!("\"{present}\"");
            for seen in [None, Some(&*now), Some(&*format!("\"1\", {now}"))] {
                check(&make(), &row, seen, expected, state);
            }
            // What is refused changes nothing: one rig serves.
            let rig = make();
            // Somebody who has not seen the last.
            let of_stale: &[u16] = match (plain, awaited) {
                (200, false) => &[412],
                (200, true) => &[412, 409],
                _ => &[plain, 412, 409],
            };
            for stale in ["\"1\"", "\"99\"", "\"1\", \"99\"", "\"x\"", "W/\"2\"", "W/\"3\""] {
                check(&rig, &row, Some(stale), of_stale, state);
            }
            for senseless in ["\"2", "2\"", "\"2\" \"3\"", "*, \"2\"", "latest"] {
                check(&rig, &row, Some(senseless), &[400], state);
            }
        }
    }
}

#[test]
fn a_confirmation_is_of_what_awaits_one_and_of_nothing_else() {
    let settled = rig(true);
    let before = settled.force();
    assert_eq!(settled.ask("POST", "/v1/confirm", "", None).0, 409);
    assert_eq!(settled.force(), before);
    let rig = Rig::unconfirmed();
    let (status, record) = rig.ask("POST", "/v1/confirm", "", None);
    assert_eq!(
        (status, &record["generation"], &record["confirmation"]),
        (200, &3.into(), &"confirmed".into())
    );
    assert_eq!((rig.force().0, rig.force().2), (3, false));
    assert_eq!(rig.ask("POST", "/v1/confirm", "", None).0, 409, "once");
    assert_eq!(rig.ask("DELETE", "/v1/nics/p/one", "", None).0, 200, "and others may go on");
    // Taken back by hand, nothing is left to confirm.
    let rig = Rig::unconfirmed();
    assert_eq!(rig.ask("POST", "/v1/rollback?generation=2", "", None).0, 200);
    assert_eq!((rig.ask("POST", "/v1/confirm", "", None).0, rig.force().2), (409, false));
}

#[test]
fn what_a_worker_must_answer_is_503_while_it_does_not_and_all_else_goes_on() {
    let rig = rig(false);
    for (method, path, expected) in [
        ("GET", "/v1/connections", 503),
        ("GET", "/v1/connections/count", 503),
        ("POST", "/v1/connections/flush?all=true", 503),
        ("GET", "/v1/trace?count=1", 503),
        ("GET", "/v1/capture?count=1", 503),
        ("POST", "/v1/connections/flush", 400),
        ("GET", "/v1/connections?nic=p%2Fnone", 404),
        ("GET", "/v1/nics", 200),
        ("GET", "/v1/groups", 200),
        ("GET", "/v1/rules", 200),
        ("GET", "/v1/history", 200),
        ("GET", "/v1/snapshot", 200),
        ("GET", "/v1/counters", 200),
        ("GET", "/v1/workers", 200),
        ("GET", "/v1/generations/2?wait=acknowledged&timeout=1", 200),
        ("GET", "/v1/generations/9", 404),
        ("GET", "/v1/policy", 200),
        ("GET", "/metrics", 200),
        ("GET", "/v1/nothing", 404),
        ("PUT", "/v1/nics", 405),
    ] {
        let begun = Instant::now();
        let (status, told) = rig.ask(method, path, "", None);
        assert_eq!(status, expected, "{method} {path}: {told}");
        assert!(begun.elapsed() < Duration::from_secs(5), "{method} {path}: {:?}", begun.elapsed());
    }
}
