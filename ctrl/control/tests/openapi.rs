//! The API's description: that which is checked in is that which is served, and it says what documents may be.

use std::fs;
use std::path::Path;

use control::api::openapi;
use control::api::schema::Document;
use control::document::{Limits, parse_policy};
use control::export::export;

#[test]
fn the_description_that_is_checked_in_is_the_one_that_is_served() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/openapi.json");
    if std::env::var_os("RENEW_OPENAPI").is_some() {
        fs::write(&path, openapi()).unwrap();
    }
    let checked_in = fs::read_to_string(&path).unwrap_or_default();
    assert!(
        checked_in == openapi(),
        "docs/openapi.json is not what is served; renew it: RENEW_OPENAPI=1 cargo test -p control --test openapi"
    );
}

#[test]
fn every_operation_has_a_name_of_its_own_a_summary_and_its_refusals() {
    let description: serde_json::Value = serde_json::from_str(&openapi()).unwrap();
    let mut names = Vec::new();
    for (path, item) in description["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let what = format!("{method} {path}");
            names.push(operation["operationId"].as_str().expect(&what).to_owned());
            assert!(operation["summary"].as_str().is_some_and(|summary| !summary.is_empty()), "{what}");
            assert!(operation["responses"]["200"].is_object(), "{what}");
            for (status, response) in operation["responses"].as_object().unwrap() {
                let name =
                    response["$ref"].as_str().and_then(|name| name.strip_prefix("#/components/responses/"));
                let response = &description["components"]["responses"][name.unwrap_or_default()];
                let schema = &response["content"]["application/json"]["schema"]["$ref"];
                // What has failed is an answer to the question how the appliance is.
                if (path.as_str(), status.as_str()) == ("/healthz", "503") {
                    continue;
                }
                assert!(status == "200" || schema == "#/components/schemas/Refusal", "{what} {status}");
            }
        }
    }
    let count = names.len();
    assert!(count > 30, "only {count} operations");
    names.sort();
    names.dedup();
    assert_eq!(names.len(), count, "two operations of one name");
}

/// Every key and every form of value.
const EVERYTHING: &str = r#"
vpcs:
  - { name: a, segment: { vlan: 100 }, peers: [b] }
  - { name: b, segment: { vlan: 4094 } }
  - { name: c, segment: { untagged: true } }
address_groups:
  - { name: office, project: p, description: text, addresses: [192.0.2.0/24, "2001:db8::1"] }
  - { name: office, addresses: [] }
security_groups:
  - name: web
    project: p
    description: text
    rules:
      - { direction: inbound, ethertype: IPv6, protocol: any }
      - { direction: inbound, protocol: tcp, ports: 22, remote: 192.0.2.9, action: deny, priority: 1, description: text }
      - { direction: inbound, protocol: "17", ports: "53", remote_group: web }
      - { direction: outbound, protocol: 6, ports: 1-65535, remote_address_group: office }
      - { direction: outbound, protocol: icmp, icmp_type: 8, icmp_code: 0, action: allow, ethertype: IPv4 }
nics:
  - name: one
    project: p
    description: text
    vpc: a
    mac: "02:00:00:00:00:01"
    addresses: [192.0.2.1]
    allowed_addresses: [192.0.2.7, { address: 192.0.2.8, mac: "02:00:00:00:00:02" }, { address: 192.0.2.9 }]
    security_groups: [web]
    max_connections: 7
    mode: observe
  - { name: two, vpc: c, security_groups: [], mode: enforce }
"#;

#[test]
fn the_described_document_is_the_document_that_is_read() {
    let read = |text: &str| parse_policy(text, "test", &Limits::default()).map(|parsed| parsed.policy);
    let policy = read(EVERYTHING).unwrap();
    for text in [EVERYTHING.to_owned(), export(&policy), String::from("{}")] {
        assert!(read(&text).is_ok());
        serde_saphyr::from_str::<Document>(&text).unwrap_or_else(|error| panic!("{error}\n{text}"));
    }
    // No key is described that is not read: each, under another name, is unknown to both.
    let keys: std::collections::BTreeSet<&str> = EVERYTHING
        .split(|c: char| !(c.is_ascii_lowercase() || c == '_' || c == ':'))
        .filter_map(|word| word.strip_suffix(':'))
        .filter(|key| !key.is_empty() && !key.contains(':'))
        .collect();
    assert!(keys.len() > 25, "{keys:?}");
    for key in keys {
        let text = EVERYTHING.replace(&format!("{key}:"), &format!("{key}_other:"));
        assert!(read(&text).is_err(), "{key} is not read");
        assert!(serde_saphyr::from_str::<Document>(&text).is_err(), "{key} is not described");
    }
}
