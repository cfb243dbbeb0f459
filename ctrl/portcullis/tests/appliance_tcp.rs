//! The API over TCP: plain on loopback, with TLS and tokens wherever wanted.

mod appliance;

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use appliance::*;
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
fn loopback_needs_neither_tls_nor_a_token() {
    let port = free_port();
    let appliance = quiet().more(&format!("listen = \"127.0.0.1:{port}\"\n")).start(POLICY);
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
    let key = setup.write("key.pem", made.signing_key.serialize_pem());
    let tokens = setup.write("tokens", format!("# who may\n\nanna {TOKEN}\n"));
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
    appliance.end();
}

#[test]
fn bad_files_and_taken_addresses_are_told_before_the_start() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let setup = quiet().more(&format!("listen = \"127.0.0.1:{port}\"\n"));
    let (status, error) = setup.refused(None);
    assert_eq!(status, 1);
    assert!(error.contains(&format!("the API can't listen on 127.0.0.1:{port}")), "{error}");

    let setup = quiet();
    let tokens = setup.write("tokens", "anna short\n");
    let setup = setup.more(&format!("listen = \"127.0.0.1:{port}\"\ntoken_file = {tokens:?}\n"));
    let (status, error) = setup.refused(None);
    assert_eq!(status, 2);
    assert!(error.contains("tokens:1:1: the token of anna is shorter than 16 characters"), "{error}");
}
