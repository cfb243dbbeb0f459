//! The console as it is served: to whom, with what around it, and what a token that may only look is good for.

mod appliance;

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use appliance::*;
use serde_json::Value;

const WRITER: &str = "0123456789abcdef0123456789abcdef";
const READER: &str = "fedcba9876543210fedcba9876543210";

fn quiet() -> Setup {
    Setup::new("net_null0,no-rx=1", "net_null1,no-rx=1")
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// Status, head and body of an answer. `more`: further lines of the head.
fn ask(port: u16, request: &str, host: &str, more: &str) -> (u16, String, String) {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    write!(stream, "{request} HTTP/1.0\r\nHost: {host}\r\n{more}Content-Length: 0\r\n\r\n").unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    let answer = String::from_utf8(answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), head.to_ascii_lowercase(), body.to_owned())
}

fn with_tokens(setup: Setup, port: u16, more: &str) -> Setup {
    let tokens = setup.write("tokens", format!("anna {WRITER}\nrob {READER} read\n"));
    std::fs::set_permissions(&tokens, std::fs::Permissions::from_mode(0o600)).unwrap();
    setup.more(&format!("listen = \"127.0.0.1:{port}\"\ntoken_file = {tokens:?}\n{more}"))
}

#[test]
fn the_page_is_for_whoever_names_this_host_and_what_it_shows_is_for_tokens() {
    let port = free_port();
    let appliance = with_tokens(quiet(), port, "").start(POLICY);
    for path in ["/console/", "/console/console.js", "/console/console.css", "/console/icon.svg"] {
        let (status, head, body) = ask(port, &format!("GET {path}"), "localhost", "");
        assert!(status == 200 && !body.is_empty(), "{path}: {head}");
        assert!(head.contains("content-security-policy: default-src 'none'; script-src 'self';"), "{head}");
        assert!(head.contains("frame-ancestors 'none'") && head.contains("x-frame-options: deny"), "{head}");
        assert!(!head.contains("set-cookie") && !head.contains("access-control"), "{head}");
        assert_eq!(ask(port, &format!("GET {path}"), "evil.example", "").0, 421, "DNS rebinding");
        assert_eq!(ask(port, &format!("POST {path}"), "localhost", "").0, 405);
    }
    let (status, head, _) = ask(port, "GET /", "localhost", "");
    assert!(status == 308 && head.contains("location: /console/"), "{head}");
    for path in ["/v1/whoami", "/v1/events?seconds=0", "/v1/policy", &format!("/v1/policy?token={WRITER}")] {
        let (status, head, body) = ask(port, &format!("GET {path}"), "localhost", "");
        assert_eq!(status, 401, "{path}: {body}");
        assert!(head.contains("x-content-type-options: nosniff") && head.contains("cache-control: no-store"));
    }
    let (finished, _) = appliance.end();
    assert!(!finished.stderr.contains(WRITER), "a token is in the log");
}

#[test]
fn no_console_is_served_where_none_is_wanted_and_none_wanted_where_none_can_be() {
    let port = free_port();
    let appliance = with_tokens(quiet(), port, "console = false\n").start(POLICY);
    for path in ["/", "/console", "/console/", "/console/console.js"] {
        let token = format!("Authorization: Bearer {WRITER}\r\n");
        assert_eq!(ask(port, &format!("GET {path}"), "localhost", &token).0, 404, "{path}");
        assert_eq!(ask(port, &format!("GET {path}"), "localhost", "").0, 401, "{path}");
    }
    // Nor over the socket, which no browser reaches.
    let (head, _) = get(&appliance.setup.socket(), "/console/", "*/*");
    assert!(head.contains(" 404 "), "{head}");
    appliance.end();
    let (status, error) = quiet().more("console = true\n").refused(None);
    assert!(status == 2 && error.contains("api.console: true without listen"), "{error}");
}

#[test]
fn a_token_that_may_only_look_changes_nothing_and_sees_no_frames() {
    let port = free_port();
    let appliance = with_tokens(quiet(), port, "").start(POLICY);
    let asked = |token: &str, request: &str| {
        let more = format!("Authorization: Bearer {token}\r\n");
        ask(port, request, "localhost", &more)
    };
    for (token, who, may) in [(WRITER, "anna", "write"), (READER, "rob", "read")] {
        let me: Value = serde_json::from_str(&asked(token, "GET /v1/whoami").2).unwrap();
        assert_eq!(me, serde_json::json!({ "who": who, "may": may, "token": true }));
    }
    let over_the_socket: Value =
        serde_json::from_str(&get(&appliance.setup.socket(), "/v1/whoami", "*/*").1).unwrap();
    assert_eq!((&over_the_socket["may"], &over_the_socket["token"]), (&"write".into(), &false.into()));
    for path in ["/v1/nics", "/v1/policy", "/v1/events?seconds=0", "/healthz", "/metrics", "/v1/history"] {
        assert_eq!(asked(READER, &format!("GET {path}")).0, 200, "{path}");
    }
    for request in [
        "POST /v1/policy",
        "PATCH /v1/policy",
        "POST /v1/rollback?generation=0",
        "POST /v1/confirm",
        "POST /v1/connections/flush?all=true",
        "PUT /v1/nics/default/web-1",
        "DELETE /v1/nics/default/web-1",
        "POST /v1/security-groups/default/sg-AB/rules",
        "DELETE /v1/security-groups/default/sg-AB/rules/0",
        "GET /v1/capture?seconds=0.1",
    ] {
        let (status, _, body) = asked(READER, request);
        assert!(
            status == 403 && body.contains("the token of rob may only look"),
            "{request}: {status} {body}"
        );
    }
    // A question changes nothing: it is refused for its body alone.
    assert!([400, 415, 422].contains(&asked(READER, "POST /v1/explain").0));
    assert_eq!(appliance.show("snapshot")["generation"], 1);
    let (status, _, body) = asked(WRITER, "POST /v1/rollback?generation=0");
    assert_eq!(status, 200, "{body}");
    appliance.end();
}

#[test]
fn a_page_of_another_site_is_refused_by_what_its_browser_says_of_it() {
    let port = free_port();
    let appliance =
        quiet().more(&format!("listen = \"127.0.0.1:{port}\"\nanonymous = \"write\"\n")).start(POLICY);
    let me: Value = serde_json::from_str(&ask(port, "GET /v1/whoami", "localhost", "").2).unwrap();
    assert_eq!((&me["may"], &me["token"]), (&"write".into(), &false.into()));
    for (site, allowed) in [
        ("same-origin", true),
        ("none", true),
        ("same-site", false),
        ("cross-site", false),
        ("", false),
        ("x", false),
    ] {
        for request in ["GET /v1/policy", "POST /v1/connections/flush?all=true"] {
            let (status, _, body) = ask(port, request, "localhost", &format!("Sec-Fetch-Site: {site}\r\n"));
            assert_eq!(status, if allowed { 200 } else { 403 }, "{request} {site}: {body}");
        }
        // The page may be led to from anywhere.
        assert_eq!(ask(port, "GET /console/", "localhost", &format!("Sec-Fetch-Site: {site}\r\n")).0, 200);
    }
    appliance.end();
}

#[test]
fn what_happens_each_second_is_told_until_a_minute_is_over() {
    let port = free_port();
    let appliance = with_tokens(quiet(), port, "").start(POLICY);
    let token = format!("Authorization: Bearer {WRITER}\r\n");
    let events = |query: &str| -> Vec<Value> {
        let (status, head, body) = ask(port, &format!("GET /v1/events{query}"), "localhost", &token);
        assert!(status == 200 && head.contains("content-type: text/event-stream"), "{head}");
        let events = body.split_terminator("\n\n");
        events
            .map(|event| serde_json::from_str(event.strip_prefix("event: now\ndata: ").unwrap()).unwrap())
            .collect()
    };
    let told = events("?seconds=2");
    assert!((2..=3).contains(&told.len()), "{told:?}");
    assert!(
        told[1]["time"].as_f64() > told[0]["time"].as_f64()
            && told[1]["uptime"].as_f64() > told[0]["uptime"].as_f64()
    );
    let one = &events("?seconds=0")[..];
    let [now] = one else { panic!("{one:?}") };
    assert_eq!((&now["generation"], &now["status"], &now["nics"]), (&1.into(), &"ok".into(), &1.into()));
    assert_eq!((&now["awaited"], &now["last"]["generation"]), (&Value::Null, &1.into()));
    assert_eq!(now["packets"], appliance.show("counters")["packets"]);
    for bad in ["?seconds=61", "?seconds=-1", "?token=x"] {
        assert_eq!(ask(port, &format!("GET /v1/events{bad}"), "localhost", &token).0, 400, "{bad}");
    }
    let policy = POLICY.replace("ports: 22", "ports: 23");
    assert_eq!(appliance.apply(&policy, &["--confirm", "30"]).1["state"], "unconfirmed");
    let now = wait_for("the change", || events("?seconds=0").pop().filter(|now| now["generation"] == 2));
    let awaited = &now["awaited"];
    assert_eq!((&awaited["generation"], &awaited["before"]), (&2.into(), &1.into()));
    let left = awaited["seconds_left"].as_f64().unwrap();
    assert!(left > 20.0 && left <= 30.0, "{left}");
    assert_eq!(now["last"]["confirmation"], "awaited");
    appliance.text(["confirm"]);
    let settled =
        wait_for("the confirmation", || events("?seconds=0").pop().filter(|now| now["awaited"].is_null()));
    assert_eq!(settled["last"]["confirmation"], "confirmed");
    appliance.end();
}
