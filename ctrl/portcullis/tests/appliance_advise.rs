//! Advice of a running appliance: what it suggests after traffic, made as it says, and the same traffic again.

mod appliance;

use appliance::*;
use serde_json::{Value, json};
use testkit::frame::*;
use testkit::pcap::{self, Format};

/// Rules that are too broad, idle, shadowed and right.
const RULES: &str = r#"
vpcs: [{ name: prod, segment: { untagged: true } }]
security_groups:
  - name: web
    rules:
      - { direction: inbound }
      - { direction: inbound, protocol: tcp, ports: 443, remote: 203.0.113.0/24, action: deny, priority: 10 }
      - { direction: inbound, protocol: tcp, ports: 22, remote: 192.0.2.0/24, priority: 60 }
      - { direction: outbound, protocol: udp, ports: 53, remote: 192.0.2.53 }
  - name: more
    rules:
      - { direction: outbound, protocol: udp, ports: 53, remote: 192.0.2.53 }
  - name: nobody
    rules: [{ direction: inbound, protocol: tcp, ports: 1 }]
nics:
  - { name: web-1, vpc: prod, addresses: [10.5.6.7, "2001:db8::7"], security_groups: [web, more] }
"#;

/// TCP and ICMP of both families from outside, UDP from inside, and what is denied.
fn traffic() -> [Vec<Vec<u8>>; 2] {
    let mut outside = Vec::new();
    for n in 0..8u16 {
        let from = format!("198.51.100.{}:{}", 8 + n, 40_000 + n);
        outside.push(tcp(from.as_str(), "10.5.6.7:22").syn().seq(7).frame());
        let from = format!("203.0.113.9:{}", 40_000 + n);
        outside.push(tcp(from.as_str(), "10.5.6.7:443").syn().seq(7).frame());
    }
    outside.push(tcp("[2001:db8:1::9]:40000", "[2001:db8::7]:80").syn().seq(7).frame());
    outside.push(echo_request("198.51.100.9", "10.5.6.7", 1, 1).frame());
    let inside = vec![
        udp("10.5.6.7:5000", "192.0.2.53:53").payload("who").frame(),
        udp("10.5.6.7:5000", "192.0.2.54:53").payload("no").frame(),
    ];
    [inside, outside]
}

/// An appliance that has got all of it, with the verdicts: of each packet, in order.
fn after_traffic(policy: &str) -> (Appliance, Vec<Value>) {
    let setup = Setup::new("net_pcap0,rx_pcap=IN,tx_pcap=OUT", "net_pcap1,rx_pcap=IN,tx_pcap=OUT");
    let all = traffic();
    for (name, frames) in ["inside", "outside"].iter().zip(&all) {
        pcap::write(setup.path(&format!("{name}.pcap")), Format::MICRO, &pcap::records(0, frames.clone()))
            .unwrap();
    }
    let count = all.iter().flatten().count() as u64;
    let appliance = setup.fill("inside", "outside").start(policy);
    appliance.wait_for_counters("all frames", |counters| counters["packets"]["in"] == count);
    let mut verdicts = Vec::new();
    for tuple in [
        "tcp 198.51.100.8 > 10.5.6.7:22",
        "tcp 198.51.100.15 > 10.5.6.7:22",
        "tcp 203.0.113.9 > 10.5.6.7:443",
        "tcp 2001:db8:1::9 > [2001:db8::7]:80",
        "icmp 198.51.100.9 > 10.5.6.7",
        "udp 10.5.6.7 > 192.0.2.53:53",
        "udp 10.5.6.7 > 192.0.2.54:53",
    ] {
        let told: Value = serde_json::from_str(&appliance.text(["why", tuple, "-o", "json"])).unwrap();
        let decisions = told["decisions"].as_array().unwrap();
        assert!(!decisions.is_empty(), "{tuple}");
        verdicts.extend(decisions.iter().map(|told| json!([tuple, told["verdict"], told["reason"]])));
    }
    (appliance, verdicts)
}

fn advice(appliance: &Appliance, options: &[&str]) -> Value {
    let args = [&["advise", "-o", "json"][..], options].concat();
    serde_json::from_str(&appliance.text(args)).unwrap()
}

/// Makes a change as a shell would.
fn run(appliance: &Appliance, command: &str) {
    let directory = std::path::Path::new(PORTCULLIS).parent().unwrap().display().to_string();
    let path = format!("{directory}:{}", std::env::var("PATH").unwrap());
    let output = std::process::Command::new("sh")
        .args(["-ec", command])
        .env("PATH", path)
        .env("PORTCULLIS_SOCKET", appliance.setup.socket())
        .output()
        .unwrap();
    assert!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn what_is_suggested_after_traffic_leaves_every_verdict_of_it_as_it_was() {
    let (appliance, verdicts) = after_traffic(RULES);
    // Nothing was watched for a day.
    let young = advice(&appliance, &[]);
    assert_eq!((&young["too_young"], &young["too_briefly_seen"]), (&json!(0), &json!(1)), "{young}");
    let told = advice(&appliance, &["--since", "-0s"]);
    let seen = &told["seen"];
    assert_eq!((&seen["opened"], &seen["refused"], &seen["live"]), (&json!(11), &json!(9), &json!(11)));
    assert_eq!((&seen["lost"], &seen["left_out"]), (&json!(0), &json!(0)));
    let suggestions = told["suggestions"].as_array().unwrap();
    let kinds: Vec<_> = suggestions.iter().map(|s| json!([s["kind"], s["rule"], s["safe"]])).collect();
    assert_eq!(
        kinds,
        [
            json!(["shadowed", "more#0", true]),
            json!(["no-members", null, true]),
            json!(["redundant", "web#2", true]),
            json!(["over-broad", "web#0", true]),
        ],
        "{told}"
    );
    assert_eq!(
        suggestions[3]["narrow"],
        json!([
            "allow inbound icmp type 8 from 198.51.100.9/32",
            "allow inbound tcp 22 from 198.51.100.8/29",
            "allow inbound tcp 80 from 2001:db8:1::9/128",
        ])
    );
    assert_eq!(
        suggestions[3]["replayed"],
        json!({"opened": 11, "live": 11, "would_deny": 0, "would_pass": 0})
    );
    assert_eq!(told["together"]["would_deny"], 0);
    let text = appliance.text(["advise", "--since", "-0s", "web"]);
    for line in [
        "redundant: web#3 (r-",
        "  by: more#0 (r-",
        "  instead: allow inbound tcp 22 from 198.51.100.8/29",
        "would deny 0 of 11 opened",
    ] {
        assert!(text.contains(line), "{line}: {text}");
    }

    // The trial of the narrow form first: nobody would be denied.
    for staged in suggestions[3]["trial"].as_array().unwrap() {
        run(&appliance, staged.as_str().unwrap());
    }
    // What is staged disconnects nobody.
    assert_eq!(advice(&appliance, &[])["seen"]["live"], 11);
    let documents: Vec<_> = suggestions.iter().map(|s| s["document"].clone()).collect();
    assert!(documents[1].is_null() && documents[3]["security_groups"][0]["name"] == "web");
    appliance.text(["rollback", "1"]);
    // One alone, by its command: as ordinary a change as any.
    run(&appliance, suggestions[3]["command"].as_str().unwrap());
    let narrowed = appliance.text(["export"]);
    assert!(narrowed.contains("198.51.100.8/29") && narrowed.contains("192.0.2.0/24"), "{narrowed}");
    appliance.text(["rollback", "1"]);
    // All of them, as a document.
    let policy = appliance.text(["advise", "--since", "-0s", "--document"]);
    assert!(policy.contains("198.51.100.8/29") && !policy.contains("nobody"), "{policy}");
    assert!(!policy.contains("192.0.2.0/24"), "{policy}");
    let (status, receipt, complaints) = appliance.apply(&policy, &["--dry-run"]);
    assert_eq!((status, &receipt["removed"]), (0, &json!(["nobody"])), "{complaints}");
    let foreseen = receipt["disconnected"].clone();
    let (status, receipt, _) = appliance.apply(&policy, &[]);
    assert_eq!((status, &receipt["disconnected"]), (0, &foreseen));
    let again = advice(&appliance, &["--since", "-0s"]);
    assert_eq!(
        again["suggestions"].as_array().unwrap().iter().filter(|s| s["kind"] != "never-hit").count(),
        0,
        "{again}"
    );
    drop(appliance);
    // The same traffic under what was suggested.
    let (_appliance, then) = after_traffic(&policy);
    assert_eq!(then, verdicts);
}

#[test]
fn what_is_asked_for_wrongly_is_refused() {
    let appliance = Setup::new("net_null0,no-rx=1", "net_null1,no-rx=1").start(RULES);
    for (args, told) in [
        (&["wep"][..], "near names: web"),
        (&["web#1"], "is no name of a group"),
        (&["--since", "yesterday"], "--since: yesterday; allowed: "),
        (&["--limit", "0"], "1..=1000"),
    ] {
        let output = appliance.client([&["advise"][..], args].concat());
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.code() == Some(2) && stderr.contains(told), "{args:?}: {stderr}");
    }
    let idle = advice(&appliance, &["--since", "-0s", "more"]);
    assert_eq!(idle["suggestions"][0]["kind"], "shadowed");
    assert!(appliance.text(["advise", "nobody"]).contains("no members: group nobody"));
}
