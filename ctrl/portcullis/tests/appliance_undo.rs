//! Rollbacks, confirmations and the history of a running appliance.

mod appliance;

use std::time::Duration;

use appliance::*;
use serde_json::{Value, json};

fn quiet() -> Appliance {
    Setup::new("net_null0,no-rx=1", "net_null1,no-rx=1").start(POLICY)
}

fn with_port(port: u16) -> String {
    POLICY.replace("ports: 22", &format!("ports: {port}"))
}

fn history(appliance: &Appliance) -> Vec<Value> {
    serde_json::from_str(&appliance.text(["history", "-o", "json"])).unwrap()
}

fn ports(appliance: &Appliance) -> String {
    let document = appliance.text(["export"]);
    let at = document.find("ports:").unwrap();
    document[at..].split([',', '}', '\n']).next().unwrap().trim().to_owned()
}

#[test]
fn a_rollback_brings_the_policy_of_a_generation_back_as_a_new_one() {
    let appliance = quiet();
    appliance.apply(&with_port(23), &[]);
    appliance.apply(&with_port(24), &[]);
    let receipt: Value = serde_json::from_str(&appliance.text(["rollback", "1", "-o", "json"])).unwrap();
    assert_eq!(
        (&receipt["state"], &receipt["generation"], &receipt["flushed"], &receipt["rejudged"]),
        (&json!("acknowledged"), &json!(4), &json!([]), &json!(["web-1"]))
    );
    assert_eq!(ports(&appliance), "ports: 22");
    let dry = appliance.text(["rollback", "2", "--dry-run"]);
    assert!(dry.contains("nothing applied") && dry.contains("changed      sg-AB"), "{dry}");
    assert_eq!(appliance.text(["rollback", "4"]), "unchanged, generation 4\n");

    let refused = appliance.client(["rollback", "9"]);
    assert_eq!(refused.status.code(), Some(2));
    let error = String::from_utf8(refused.stderr).unwrap();
    assert!(error.contains("there is no generation 9 to go back to; allowed: 0 to 4"), "{error}");

    let records = history(&appliance);
    let generations: Vec<_> = records.iter().map(|record| record["generation"].as_u64().unwrap()).collect();
    assert_eq!(generations, [4, 3, 2, 1]);
    assert_eq!((&records[0]["back_to"], &records[1]["changed"]), (&json!(1), &json!(["sg-AB"])));
    assert!(
        records
            .iter()
            .all(|record| record["state"] == "acknowledged" && record["at"].as_f64().unwrap() > 1e9)
    );
    assert!(records[0]["who"].is_string() && records[0]["origin"] == "api", "{}", records[0]);
    assert!(appliance.text(["history"]).contains("back to 1: ~sg-AB"));
    assert!(appliance.text(["wait", "--generation", "4"]).contains("acknowledged"));
    appliance.end();
}

#[test]
fn a_change_that_is_not_confirmed_goes_back_by_itself() {
    let appliance = quiet();
    let (status, receipt, _) = appliance.apply(&with_port(23), &["--confirm", "2"]);
    assert_eq!((status, &receipt["state"], &receipt["generation"]), (0, &json!("unconfirmed"), &json!(2)));
    // Nobody builds on it meanwhile.
    let (status, _, error) = appliance.apply(&with_port(24), &[]);
    assert_eq!(status, 2);
    assert!(
        error.contains("generation 2 awaits its confirmation") && error.contains("confirm, rollback"),
        "{error}"
    );
    wait_for("the rollback", || (ports(&appliance) == "ports: 22").then_some(()));
    let records = history(&appliance);
    assert_eq!((&records[0]["origin"], &records[0]["back_to"]), (&json!("timer"), &json!(1)));
    assert_eq!(records[1]["confirmation"], "taken-back");
    let refused = appliance.client(["confirm"]);
    assert_eq!(refused.status.code(), Some(2));
    assert!(String::from_utf8(refused.stderr).unwrap().contains("nothing awaits a confirmation"));
    let (finished, _) = appliance.end();
    assert!(finished.stderr.contains("(timer): changed sg-AB;"), "{}", finished.stderr);
}

#[test]
fn a_confirmed_change_stays_and_a_rollback_ends_the_wait_too() {
    let appliance = quiet();
    appliance.apply(&with_port(23), &["--confirm", "1"]);
    assert_eq!(appliance.text(["confirm"]), "generation 2 is confirmed and stays\n");
    std::thread::sleep(Duration::from_millis(1300));
    assert_eq!(ports(&appliance), "ports: 23");
    assert_eq!(history(&appliance)[0]["confirmation"], "confirmed");

    appliance.apply(&with_port(24), &["--confirm", "60"]);
    appliance.text(["rollback", "1"]);
    assert_eq!(ports(&appliance), "ports: 22");
    let (status, receipt, _) = appliance.apply(&with_port(25), &[]);
    assert_eq!((status, &receipt["state"]), (0, &json!("acknowledged")));
    appliance.end();
}

#[test]
fn the_file_waits_for_a_confirmation_and_counts_afterwards() {
    let appliance = quiet();
    appliance.apply(&with_port(23), &["--confirm", "60"]);
    appliance.setup.write("policy.yaml", with_port(26));
    std::thread::sleep(Duration::from_millis(600));
    assert_eq!(ports(&appliance), "ports: 23");
    appliance.text(["confirm"]);
    wait_for("the file's policy", || (ports(&appliance) == "ports: 26").then_some(()));
    appliance.end();
}

#[test]
fn a_writer_who_has_not_seen_the_last_change_is_told() {
    let appliance = quiet();
    let (status, _, _) = appliance.apply(&with_port(23), &["--if-generation", "1"]);
    assert_eq!(status, 0);
    let (status, _, error) = appliance.apply(&with_port(24), &["--if-generation", "1"]);
    assert_eq!(status, 2);
    assert!(error.contains("the policy has changed: it is generation 2 now, not 1"), "{error}");
    assert_eq!(ports(&appliance), "ports: 23");
    appliance.end();
}

#[test]
fn the_policy_of_an_earlier_generation_is_exported() {
    let appliance = quiet();
    let first = appliance.text(["export"]);
    appliance.apply(&with_port(23), &[]);
    let second = appliance.text(["export"]);
    assert_ne!(first, second);
    assert_eq!(appliance.text(["export", "--generation", "1"]), first);
    assert_eq!(appliance.text(["export", "--generation", "2"]), second);
    let refused = appliance.client(["export", "--generation", "7"]);
    assert_eq!((refused.status.code(), refused.stdout), (Some(2), Vec::new()));
    let error = String::from_utf8(refused.stderr).unwrap();
    assert!(error.contains("generation 7"), "{error}");
    // What is exported is a document that leads there.
    let (status, receipt, _) = appliance.apply(&first, &["--dry-run"]);
    assert_eq!((status, &receipt["changed"]), (0, &json!(["sg-AB"])));
    appliance.end();
}
