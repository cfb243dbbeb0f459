//! Warnings reach whoever changes the policy, by whatever way.

mod appliance;

use std::process::Command;

use appliance::*;
use serde_json::json;
use testkit::pcap::{self, Format};

const ODD: &str = "{ direction: inbound, protocol: udp, ports: 53, remote: 192.0.2.7/24 }";

#[test]
fn every_way_in_tells_what_is_likely_a_mistake() {
    let appliance = Setup::new("net_null0,no-rx=1", "net_null1,no-rx=1").start(POLICY);
    let odd = POLICY.replace("{ direction: outbound }", ODD);
    let place = "applied.yaml:8:65: security_groups[0].rules[2].remote: \"192.0.2.7/24\" has host bits";

    let (status, receipt, complaints) = appliance.apply(&odd, &["--dry-run"]);
    assert_eq!(status, 0);
    assert!(receipt["warnings"][0].as_str().unwrap().contains(place), "{receipt}");
    assert!(complaints.starts_with("portcullis: warning: ") && complaints.contains(place), "{complaints}");
    let file = appliance.setup.path("applied.yaml");
    let diff = appliance.client(["diff", file.to_str().unwrap()]);
    assert_eq!(diff.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&diff.stderr).contains(place));
    let (_, receipt, _) = appliance.apply(&odd, &[]);
    assert!(receipt["warnings"][0].as_str().unwrap().contains(place), "{receipt}");
    // Also where nothing changes.
    let (_, receipt, _) = appliance.apply(&odd, &[]);
    assert_eq!(receipt["state"], json!("unchanged"));
    assert!(receipt["warnings"][0].as_str().unwrap().contains(place), "{receipt}");

    let added = appliance.client(["rule", "add", "sg-AB", &ODD.replace("53", "54")]);
    let told = String::from_utf8(added.stderr).unwrap();
    assert!(added.status.success() && told.contains("warning: rule of sg-AB:1:57: remote: "), "{told}");

    // The file that governs, on its way in.
    appliance
        .setup
        .write("policy.yaml", POLICY.replace("port: 22", "port: 23").replace("{ direction: outbound }", ODD));
    appliance.process.wait_for("policy.yaml:8:65: security_groups[0].rules[2].remote:", READY).unwrap();
    let (finished, _) = appliance.end();
    let line = finished.stderr.lines().find(|line| line.contains("policy.yaml:8:65")).unwrap();
    assert!(line.contains(" WARN "), "{line}");
}

#[test]
fn a_start_warns_of_its_files() {
    let setup = Setup::new("net_null0,no-rx=1", "net_null1,no-rx=1")
        .more("[policy]\npass_multicast = [\"224.0.0.5/24\"]\n");
    let (finished, _) = setup.start(&POLICY.replace("{ direction: outbound }", ODD)).end();
    for part in
        ["policy.pass_multicast[0]: \"224.0.0.5/24\" has host bits", "security_groups[0].rules[2].remote:"]
    {
        let told = finished.stderr.lines().any(|line| line.contains(" WARN ") && line.contains(part));
        assert!(told, "{part:?} is not in:\n{}", finished.stderr);
    }
}

#[test]
fn captures_and_packets_are_judged_with_a_word_about_odd_policies() {
    let setup = Setup::new("net_null0,no-rx=1", "net_null1,no-rx=1");
    let odd = POLICY.replace("{ direction: outbound }", ODD);
    setup.write("odd.yaml", &odd);
    setup.write("events.yaml", "- { at: 1, file: odd.yaml }\n- { at: 2, policy: { vpcs: [{ name: a, segment: { vlan: 7 } }], address_groups: [{ name: g, addresses: [10.0.0.1/8] }] } }\n");
    pcap::write(setup.path("in.pcap"), Format::MICRO, &pcap::records(0, Vec::new())).unwrap();
    let run = |words: &str| {
        let mut command = Command::new(PORTCULLIS);
        command.args(words.split(' ').map(|word| word.replace('_', " "))).current_dir(setup.path("."));
        let output = command.output().unwrap();
        let told = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success(), "{words}: {told}");
        told
    };
    let place = "odd.yaml:8:65: security_groups[0].rules[2].remote: \"192.0.2.7/24\" has host bits";
    let told = run("explain --policy odd.yaml --nic web-1 inbound_udp_192.0.2.9:1_>_10.5.6.7:53");
    assert_eq!(told.matches(place).count(), 1, "{told}");
    let told = run("replay --policy odd.yaml --events events.yaml --inside in.pcap");
    // Of the first policy, and of each event's.
    assert_eq!(told.matches(place).count(), 2, "{told}");
    assert!(
        told.contains("warning: events.yaml:2:") && told.contains("\"10.0.0.1/8\" has host bits"),
        "{told}"
    );
}
