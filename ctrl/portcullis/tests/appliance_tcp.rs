//! The API over TCP: plain on loopback, with TLS and tokens wherever wanted.

mod appliance;

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use appliance::*;
use rustix::process::Signal;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use serde_json::Value;

const TOKEN: &str = "0123456789abcdef0123456789abcdef";

fn quiet() -> Setup {
    Setup::new("net_null0,no-rx=1", "net_null1,no-rx=1")
}

/// A port that nobody has just now.
fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn request(stream: &mut (impl Read + Write), head: &str, body: &str) -> String {
    let length = body.len();
    let text =
        format!("{head}\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}");
    stream.write_all(text.as_bytes()).unwrap();
    let mut answer = String::new();
    // A server that closes without TLS's goodbye has answered all the same.
    let _ = stream.read_to_string(&mut answer);
    answer
}

fn connect(port: u16) -> TcpStream {
    let stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    stream
}

#[test]
fn on_loopback_strangers_may_be_let_in() {
    let port = free_port();
    let listen = format!("listen = \"127.0.0.1:{port}\"\nanonymous = \"write\"\n");
    let appliance = quiet().more(&listen).start(POLICY);
    let answer = request(&mut connect(port), "GET /healthz HTTP/1.1", "");
    assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("\"status\":\"ok\""), "{answer}");
    let changed = POLICY.replace("ports: 22", "ports: 23");
    let answer = request(&mut connect(port), "POST /v1/policy HTTP/1.1\r\nIf-Match: \"1\"", &changed);
    assert!(answer.contains("\"acknowledged\""), "{answer}");
    let answer = request(&mut connect(port), "POST /v1/policy HTTP/1.1\r\nIf-Match: \"1\"", &changed);
    assert!(answer.starts_with("HTTP/1.1 412"), "{answer}");
    let history: Vec<Value> = serde_json::from_str(&appliance.text(["history", "-o", "json"])).unwrap();
    assert!(history[0]["who"].as_str().unwrap().starts_with("127.0.0.1:"), "{}", history[0]);
    appliance.end();
}

#[test]
fn with_tls_and_tokens_only_their_holders_are_answered() {
    let setup = quiet();
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let certificate = setup.write("cert.pem", made.cert.pem());
    let key = secret(&setup, "key.pem", &made.signing_key.serialize_pem());
    let tokens = secret(&setup, "tokens", &format!("# who may\n\nanna {TOKEN}\n"));
    let port = free_port();
    let appliance = setup
        .more(&format!(
            "listen = \"127.0.0.1:{port}\"\ntls_cert = {certificate:?}\ntls_key = {key:?}\ntoken_file = {tokens:?}\n"
        ))
        .start(POLICY);
    let mut roots = RootCertStore::empty();
    roots.add(made.cert.der().clone()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let config = Arc::new(config);
    let ask = |head: &str| {
        let client =
            ClientConnection::new(config.clone(), ServerName::try_from("localhost").unwrap()).unwrap();
        request(&mut StreamOwned::new(client, connect(port)), head, "")
    };
    // Somebody who says nothing keeps nobody waiting.
    let silent = connect(port);
    let answer = ask(&format!("POST /v1/rollback?generation=0 HTTP/1.1\r\nAuthorization: Bearer {TOKEN}"));
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    drop(silent);
    for head in [
        "GET /v1/policy HTTP/1.1".to_owned(),
        format!("GET /v1/policy HTTP/1.1\r\nAuthorization: Bearer {}", TOKEN.replace('f', "e")),
        format!("GET /v1/policy HTTP/1.1\r\nAuthorization: Basic {TOKEN}"),
    ] {
        let answer = ask(&head);
        assert!(answer.starts_with("HTTP/1.1 401") && !answer.contains("vpcs"), "{answer}");
    }
    let plain = request(&mut connect(port), "GET /v1/policy HTTP/1.1", "");
    assert!(!plain.contains("vpcs"), "{plain}");
    let history: Vec<Value> = serde_json::from_str(&appliance.text(["history", "-o", "json"])).unwrap();
    assert_eq!(history[0]["who"], "anna");
    for head in
        ["GET /v1/policy HTTP/1.1\r\nOrigin: https://evil.example", "GET /v1/policy HTTP/1.1\r\nOrigin: null"]
    {
        let answer = ask(&format!("{head}\r\nAuthorization: Bearer {TOKEN}"));
        assert!(answer.starts_with("HTTP/1.1 403"), "{answer}");
    }

    // The command line, over the same way.
    let url = format!("https://localhost:{port}");
    let remote = |token: &std::path::Path| {
        let token = token.to_str().unwrap();
        let args = ["show", "snapshot", "-o", "json", "--url", &url, "--token-file", token, "--ca"];
        Command::new(PORTCULLIS).args(args).arg(&certificate).output().unwrap()
    };
    let shown = remote(&tokens);
    assert!(shown.status.success(), "{}", String::from_utf8_lossy(&shown.stderr));
    let other = secret(&appliance.setup, "other", "bert fedcba9876543210fedcba9876543210\n");
    assert!(!remote(&other).status.success());
    // Tokens are read again on SIGHUP; a file that is refused changes nothing and is in health.
    std::fs::copy(&other, &tokens).unwrap();
    appliance.process.signal(Signal::HUP).unwrap();
    wait_for("the other token", || remote(&other).status.success().then_some(()));
    std::fs::write(&tokens, "bad\n").unwrap();
    appliance.process.signal(Signal::HUP).unwrap();
    wait_for("the refusal in health", || {
        appliance.text(["show", "health"]).contains("the tokens in force are older ones").then_some(())
    });
    assert!(remote(&other).status.success());
    let (finished, _) = appliance.end();
    assert!(finished.stderr.contains("generation 2 by anna (api):"), "{}", finished.stderr);
}

/// A file that its owner alone can read.
fn secret(setup: &Setup, name: &str, text: &str) -> std::path::PathBuf {
    let path = setup.write(name, text);
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    path
}

#[test]
fn strangers_and_pages_of_other_sites_change_nothing() {
    let port = free_port();
    let listen = format!("listen = \"127.0.0.1:{port}\"\nanonymous = \"read\"\n");
    let appliance = quiet().more(&listen).start(POLICY);
    let ask = |head: &str, host: &str| {
        let mut stream = connect(port);
        write!(stream, "{head}\r\nHost: {host}\r\nConnection: close\r\nContent-Length: 0\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer.split(' ').nth(1).unwrap().parse::<u16>().unwrap()
    };
    assert_eq!(ask("GET /v1/policy HTTP/1.1", &format!("127.0.0.1:{port}")), 200);
    assert_eq!(ask("GET /v1/policy HTTP/1.1", &format!("evil.example:{port}")), 421, "DNS rebinding");
    assert_eq!(ask("POST /v1/rollback?generation=0 HTTP/1.1", "localhost"), 401, "they may read");
    assert_eq!(ask("GET /v1/policy HTTP/1.1\r\nOrigin: http://evil.example", "localhost"), 403);
    assert_eq!(appliance.show("snapshot")["generation"], 1);
    appliance.end();

    let (status, error) = quiet().more(&format!("listen = \"127.0.0.1:{port}\"\n")).refused(None);
    assert!(status == 2 && error.contains("without a token lets nobody ask"), "{error}");
}

#[test]
fn who_holds_connections_keeps_nobody_else_out() {
    let port = free_port();
    let listen = format!("listen = \"127.0.0.1:{port}\"\nanonymous = \"read\"\n");
    let appliance = quiet().more(&listen).start(POLICY);
    // Half a request each; beyond 64 the appliance hangs up.
    let mut held: Vec<TcpStream> = Vec::new();
    for _ in 0..200 {
        let mut stream = connect(port);
        let _ = stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: loc");
        held.push(stream);
    }
    let begin = std::time::Instant::now();
    appliance.show("snapshot");
    let took = begin.elapsed();
    assert!(took < Duration::from_secs(2), "the socket took {took:?}");
    let open = |stream: &mut TcpStream| {
        stream.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
        matches!(stream.read(&mut [0]), Err(error) if error.kind() == std::io::ErrorKind::WouldBlock)
    };
    let left = held.iter_mut().filter_map(|stream| open(stream).then_some(())).count();
    assert!((1..=64).contains(&left), "{left} are held");
    // Half a head is not waited for for ever.
    wait_longer_for("an end of the half requests", Duration::from_secs(20), || {
        held.iter_mut().all(|stream| !open(stream)).then_some(())
    });
    let answer = request(&mut connect(port), "GET /healthz HTTP/1.1", "");
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    appliance.end();
}

#[test]
fn the_socket_may_be_a_groups() {
    let appliance = quiet().more("socket_group = \"daemon\"\n").start(POLICY);
    let found = std::fs::metadata(appliance.setup.socket()).unwrap();
    assert_eq!(found.permissions().mode() & 0o777, 0o660);
    appliance.end();
    let (status, error) = quiet().more("socket_group = \"no-such-group\"\n").refused(None);
    assert!(
        status == 2 && error.contains("api.socket_group: the system has no group no-such-group"),
        "{error}"
    );
}

#[test]
fn bad_files_and_taken_addresses_are_told_before_the_start() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let setup = quiet().more(&format!("listen = \"127.0.0.1:{port}\"\nanonymous = \"read\"\n"));
    let (status, error) = setup.refused(None);
    assert_eq!(status, 1);
    assert!(error.contains(&format!("the API can't listen on 127.0.0.1:{port}")), "{error}");

    let setup = quiet();
    let tokens = secret(&setup, "tokens", "anna short\n");
    let setup = setup.more(&format!("listen = \"127.0.0.1:{port}\"\ntoken_file = {tokens:?}\n"));
    let (status, error) = setup.refused(None);
    assert_eq!(status, 2);
    assert!(error.contains("tokens:1:1: the token of anna is shorter than 16 characters"), "{error}");
}
