//! Single edits of a running appliance's policy.

mod appliance;

use appliance::*;
use serde_json::{Value, json};

fn quiet() -> Appliance {
    Setup::new("net_null0,no-rx=1", "net_null1,no-rx=1").start(POLICY)
}

fn receipt(appliance: &Appliance, args: &[&str]) -> Value {
    serde_json::from_str(&appliance.text([args, &["-o", "json"]].concat())).unwrap()
}

fn refused(appliance: &Appliance, args: &[&str]) -> String {
    let output = appliance.client(args);
    assert_eq!(output.status.code(), Some(2), "{args:?}");
    String::from_utf8(output.stderr).unwrap()
}

#[test]
fn groups_rules_and_nics_are_edited_one_by_one() {
    let appliance = quiet();
    let done = receipt(&appliance, &["group", "add", "p/db", "--description", "stores"]);
    assert_eq!((&done["state"], &done["added"]), (&json!("acknowledged"), &json!(["p/db"])));
    receipt(&appliance, &["rule", "add", "p/db", "{direction: inbound, protocol: tcp, ports: 5432}"]);
    receipt(&appliance, &["rule", "set", "p/db#0", "{direction: inbound, protocol: tcp, ports: 5433}"]);
    let done = receipt(
        &appliance,
        &[
            "nic",
            "add",
            "p/db-1",
            "--vpc",
            "prod",
            "--address",
            "10.5.6.8",
            "--group",
            "db",
            "--max-connections",
            "9",
        ],
    );
    assert_eq!((&done["added"], &done["flushed"]), (&json!(["p/db-1"]), &json!(["p/db-1"])));
    rules_are_told_by_their_identities(&appliance);
    let exported = appliance.text(["export"]);
    assert!(exported.contains("5433") && exported.contains("max_connections: 9"), "{exported}");
    // What edits made is a document that changes nothing.
    let (status, again, _) = appliance.apply(&exported, &[]);
    assert_eq!((status, &again["state"]), (0, &json!("unchanged")));

    let nic = appliance.setup.write(
        "nic.yaml",
        "name: db-1\nproject: p\nvpc: prod\naddresses: [10.5.6.9]\nsecurity_groups: [db]\n",
    );
    let done = receipt(&appliance, &["nic", "set", "p/db-1", nic.to_str().unwrap()]);
    assert_eq!((&done["changed"], &done["flushed"]), (&json!(["p/db-1"]), &json!([])));
    let done = receipt(&appliance, &["rule", "delete", "p/db#0", "--dry-run"]);
    assert_eq!((&done["state"], &done["flushed"]), (&json!("dry-run"), &json!(["p/db-1"])));
    receipt(&appliance, &["rule", "delete", "p/db#0"]);
    receipt(&appliance, &["nic", "delete", "p/db-1"]);
    let done = receipt(&appliance, &["group", "delete", "p/db"]);
    assert_eq!(done["removed"], json!(["p/db"]));
    appliance.end();
}

/// Edits beside a rule leave its identity, which `rule` and filters take in place of its position.
fn rules_are_told_by_their_identities(appliance: &Appliance) {
    let identities = || -> Vec<(String, String)> {
        let groups: Value = serde_json::from_str(&appliance.text(["show", "groups", "-o", "json"])).unwrap();
        let group = groups.as_array().unwrap().iter().find(|group| group["group"] == "p/db").unwrap();
        let rules = group["rules"].as_array().unwrap().iter();
        rules
            .map(|rule| (rule["rule"].as_str().unwrap().into(), rule["rule_id"].as_str().unwrap().into()))
            .collect()
    };
    receipt(appliance, &["rule", "add", "p/db", "{direction: inbound, protocol: udp, ports: 53}"]);
    let both = identities();
    assert!(both.iter().all(|(_, id)| id.len() == 12 && id.starts_with("r-")), "{both:?}");
    receipt(appliance, &["rule", "delete", "p/db#0"]);
    assert_eq!(identities(), [("p/db#0".to_owned(), both[1].1.clone())]);
    receipt(appliance, &["rule", "set", &both[1].1, "{direction: inbound, protocol: tcp, ports: 5433}"]);
    assert_eq!(identities(), [("p/db#0".to_owned(), both[0].1.clone())], "stable over deletion and addition");
    let gone = refused(appliance, &["rule", "delete", &both[1].1]);
    assert!(gone.contains("no rule has the id"), "{gone}");
    let gone = refused(appliance, &["rule", "delete", &format!("p/db#{}", both[1].1)]);
    assert!(gone.contains("the group has p/db#0 to p/db#0"), "{gone}");
    let explain = ["explain", "--nic", "p/db-1", "inbound tcp 1.2.3.4:5 > 10.5.6.8:5433", "-o", "json"];
    let told: Value = serde_json::from_str(&appliance.text(explain)).unwrap();
    assert_eq!((&told["rule"], &told["rule_id"]), (&json!("p/db#0"), &json!(both[0].1)));
}

#[test]
fn bad_edits_are_refused_whole() {
    let appliance = quiet();
    for (args, expected) in [
        (&["group", "add", "sg-AB"][..], "sg-AB is there already; `set` replaces it"),
        (&["group", "delete", "sg-AB"], "the security group \"sg-AB\" is used by the NIC \"web-1\"; allowed"),
        (&["group", "delete", "nope"], "there is no security group \"nope\"; near names: sg-AB"),
        (&["nic", "delete", "wbe-1"], "there is no NIC \"wbe-1\"; near names: web-1"),
        (&["rule", "add", "sg-BA", "{direction: inbound}"], "no security group \"sg-BA\"; near names: sg-AB"),
        (&["rule", "delete", "sg-A#0"], "no security group \"sg-A\"; near names: sg-AB"),
        (&["rule", "delete", "r-0123456789"], "no rule has the id r-0123456789; near names: r-"),
        (&["rule", "add", "sg-AB", "{direction: up}"], "rule of sg-AB:1:13: direction: "),
        (&["rule", "delete", "sg-AB#9"], "there is no rule sg-AB#9"),
        (&["rule", "delete", "sg-AB"], "allowed: GROUP#POSITION"),
        (
            &["nic", "add", "x", "--vpc", "prod", "--address", "10.5.6.7"],
            "10.5.6.7 is an address of the NIC \"web-1\"",
        ),
        (&["nic", "add", "x", "--vpc", "none"], "\"none\" is no VPC; allowed: prod"),
        (
            &["rule", "add", "sg-AB", "{direction: inbound}", "--if-generation", "7"],
            "generation 1 now, not 7",
        ),
        (&["group", "add", "a/b/c"], "allowed: NAME or PROJECT/NAME"),
    ] {
        let error = refused(&appliance, args);
        assert!(error.contains(expected), "{args:?}: {error}");
    }
    assert_eq!(appliance.show("snapshot")["generation"], 1);
    appliance.end();
}
