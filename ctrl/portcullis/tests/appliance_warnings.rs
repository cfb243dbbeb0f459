//! Warnings reach whoever changes the policy, by whatever way.

mod appliance;

use appliance::*;
use serde_json::json;

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
