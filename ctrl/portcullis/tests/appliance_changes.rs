//! Changes of a running appliance's policy: by clients, by its file, by signals.

mod appliance;

use std::fs;
use std::path::Path;
use std::time::Duration;

use appliance::*;
use rustix::process::Signal;
use serde_json::{Value, json};

/// No frames: what changes is the policy.
fn quiet() -> Setup {
    Setup::new("net_null0,no-rx=1", "net_null1,no-rx=1")
}

fn with_port(port: u16) -> String {
    POLICY.replace("ports: 22", &format!("ports: {port}"))
}

fn generation(appliance: &Appliance) -> u64 {
    appliance.show("snapshot")["generation"].as_u64().unwrap()
}

fn wait_for_generation(appliance: &Appliance, wanted: u64) {
    wait_for(&format!("generation {wanted}"), || (generation(appliance) == wanted).then_some(()));
}

/// Long enough for a change of the file to be seen, if it were one.
fn let_time_pass() {
    std::thread::sleep(Duration::from_millis(600));
}

#[test]
fn documents_are_applied_compared_and_exported() {
    let appliance = quiet().start(POLICY);
    let document = appliance.text(["export"]);
    let (status, receipt, _) = appliance.apply(&document, &[]);
    assert_eq!((status, &receipt["state"], &receipt["generation"]), (0, &json!("unchanged"), &json!(1)));
    let exported = appliance.setup.write("exported.yaml", &document);
    let exported = exported.to_str().unwrap();
    assert_eq!(appliance.text(["diff", exported]), "unchanged, generation 1\n");

    let changed = appliance.setup.write("changed.yaml", with_port(23));
    let diff = appliance.client(["diff", changed.to_str().unwrap()]);
    assert_eq!(diff.status.code(), Some(2));
    let diff = String::from_utf8(diff.stdout).unwrap();
    assert!(diff.contains("changed      sg-AB\n") && diff.contains("flushed      web-1\n"), "{diff}");
    assert_eq!(generation(&appliance), 1);

    let (status, receipt, _) = appliance.apply(&with_port(23), &["--dry-run"]);
    assert_eq!((status, &receipt["state"], generation(&appliance)), (0, &json!("dry-run"), 1));
    let (status, receipt, stderr) = appliance.apply(&with_port(23), &[]);
    assert_eq!((status, &receipt["state"]), (0, &json!("acknowledged")));
    for (key, value) in [
        ("generation", json!(2)),
        ("added", json!([])),
        ("changed", json!(["sg-AB"])),
        ("removed", json!([])),
        ("flushed", json!(["web-1"])),
        ("rejudged", json!([])),
        ("disconnected", json!(0)),
    ] {
        assert_eq!(receipt[key], value, "{key}");
    }
    assert!(receipt["publish_us"].is_u64() && receipt["acknowledged_us"].is_u64(), "{receipt}");
    assert_eq!(receipt["workers"], json!([{"id": 0, "acknowledged_us": receipt["acknowledged_us"]}]));
    assert!(stderr.contains("policy.yaml governs"), "{stderr}");
    let piped = std::process::Command::new("sh")
        .args(["-c", "\"$0\" export | \"$0\" apply -", PORTCULLIS])
        .env("PORTCULLIS_SOCKET", appliance.setup.socket())
        .output()
        .unwrap();
    assert_eq!(String::from_utf8_lossy(&piped.stdout), "unchanged, generation 2\n");
    appliance.end();
}

#[test]
fn bad_and_empty_documents_are_refused_whole() {
    let appliance = quiet().start(POLICY);
    let bad = with_port(23).replace("direction: outbound", "direction: sideways");
    let (status, receipt, stderr) = appliance.apply(&bad, &[]);
    assert_eq!((status, receipt), (2, Value::Null));
    assert!(stderr.contains("applied.yaml:8:") && stderr.lines().count() == 1, "{stderr}");
    let no_nics = "vpcs: [{ name: prod, segment: { untagged: true } }]\n";
    for (text, told) in [("# nothing\n", "empty"), ("nics: []\n", "empty"), (no_nics, "no NICs")] {
        let (status, receipt, stderr) = appliance.apply(text, &[]);
        assert_eq!((status, receipt), (2, Value::Null), "{text}");
        assert!(stderr.contains(told) && stderr.contains("--allow-empty"), "{stderr}");
    }
    let missing = appliance.client(["apply", "/nowhere/policy.yaml"]);
    assert_eq!(missing.status.code(), Some(2));
    assert_eq!(generation(&appliance), 1);
    let (status, receipt, _) = appliance.apply("# nothing\n", &["--allow-empty"]);
    assert_eq!((status, &receipt["ended"], &receipt["generation"]), (0, &json!(["web-1"]), &json!(2)));
    assert_eq!(appliance.show("nics"), json!([]));
    appliance.end();
}

#[test]
fn what_is_shown_is_the_present_policy() {
    let appliance = quiet().start(POLICY);
    let nics = appliance.show("nics");
    assert_eq!(nics[0]["nic"], "web-1");
    assert_eq!(nics[0]["addresses"], json!(["10.5.6.7", "2001:db8::7"]));
    assert_eq!((&nics[0]["mode"], &nics[0]["connections"]), (&json!("enforce"), &json!(0)));
    let groups = appliance.show("groups");
    assert_eq!((&groups[1]["group"], &groups[1]["nics"]), (&json!("sg-AB"), &json!(["web-1"])));
    assert_eq!(appliance.show("connections"), json!([]));
    let counters = appliance.show("counters");
    assert_adds_up(&counters);
    assert_eq!(counters["ports"][0]["name"], "net_null0");
    let workers = appliance.show("workers");
    assert_eq!((&workers[0]["connections"], &workers[0]["capacity"]), (&json!(0), &json!(1 << 20)));
    for what in ["nics", "groups", "connections", "counters", "workers", "snapshot"] {
        assert!(!appliance.text(["show", what]).is_empty(), "{what}");
    }
    appliance.end();
}

#[test]
fn an_appliance_without_a_policy_waits_for_one() {
    let setup = quiet();
    let command = setup.command(None);
    let appliance = setup.spawn(command);
    assert_eq!(generation(&appliance), 0);
    let (status, receipt, stderr) = appliance.apply(POLICY, &[]);
    assert_eq!((status, &receipt["added"], &*stderr), (0, &json!(["prod", "sg-AB", "web-1"]), ""));
    let (finished, _) = appliance.end();
    assert!(finished.stderr.contains("no --policy is given"), "{}", finished.stderr);
}

#[test]
fn the_policy_file_is_followed_and_a_bad_or_half_one_kept_out() {
    let appliance = quiet().start(POLICY);
    let file = appliance.setup.path("policy.yaml");
    fs::write(&file, with_port(23)).unwrap();
    wait_for_generation(&appliance, 2);

    fs::write(&file, with_port(24).replace("outbound", "sideways")).unwrap();
    appliance.process.wait_for("policy.yaml:8:", Duration::from_secs(5)).unwrap();
    assert!(appliance.process.stderr().contains("the policy stays as it was"));
    fs::write(&file, "").unwrap();
    appliance.process.wait_for("the document is empty", Duration::from_secs(5)).unwrap();
    assert_eq!(generation(&appliance), 2);

    // Saved in halves: the first one is a whole document by itself, without the NIC.
    let text = with_port(25);
    let half = text.find("nics:").unwrap();
    let mut writer = fs::File::create(&file).unwrap();
    std::io::Write::write_all(&mut writer, &text.as_bytes()[..half]).unwrap();
    let_time_pass();
    assert_eq!(generation(&appliance), 2, "half a file was read");
    std::io::Write::write_all(&mut writer, &text.as_bytes()[half..]).unwrap();
    drop(writer);
    wait_for_generation(&appliance, 3);

    // As editors save: another file takes the name.
    let other = appliance.setup.write("other.yaml", with_port(26));
    fs::rename(other, &file).unwrap();
    wait_for_generation(&appliance, 4);
    // A neighbour's change is none, and the same text again is none.
    appliance.setup.write("neighbour.yaml", "x");
    fs::write(&file, with_port(26)).unwrap();
    let_time_pass();
    assert_eq!(generation(&appliance), 4);
    appliance.end();
}

#[test]
fn the_policy_file_is_followed_through_links_as_kubernetes_swaps_them() {
    let setup = quiet();
    let volume = |name: &str, port: u16| {
        fs::create_dir(setup.path(name)).unwrap();
        fs::write(setup.path(name).join("policy.yaml"), with_port(port)).unwrap();
    };
    let link =
        |target: &str, name: &str| std::os::unix::fs::symlink(Path::new(target), setup.path(name)).unwrap();
    volume("..1", 22);
    volume("..2", 23);
    link("..1", "..data");
    link("..data/policy.yaml", "policy.yaml");
    let (swap, data) = (setup.path("..swap"), setup.path("..data"));
    link("..2", "..swap");
    let in_volume = setup.path("..2/policy.yaml");
    let command = setup.command(Some(&setup.path("policy.yaml")));
    let appliance = setup.spawn(command);
    assert_eq!(generation(&appliance), 1);
    fs::rename(swap, data).unwrap();
    wait_for_generation(&appliance, 2);
    // And the file behind the links is watched where it is now.
    fs::write(in_volume, with_port(24)).unwrap();
    wait_for_generation(&appliance, 3);
    appliance.end();
}

#[test]
fn a_hangup_reads_the_policy_file_again() {
    let appliance = quiet().start(POLICY);
    let (_, receipt, _) = appliance.apply(&with_port(23), &[]);
    assert_eq!(receipt["generation"], 2);
    appliance.process.signal(Signal::HUP).unwrap();
    wait_for_generation(&appliance, 3);
    assert!(appliance.text(["export"]).contains("ports: 22"));
    appliance.end();
}

#[test]
fn with_the_api_as_source_the_file_is_only_a_beginning() {
    let appliance = quiet().more("[policy]\nsource = \"api\"\n").start(POLICY);
    fs::write(appliance.setup.path("policy.yaml"), with_port(23)).unwrap();
    appliance.process.signal(Signal::HUP).unwrap();
    let_time_pass();
    assert_eq!(generation(&appliance), 1);
    let (_, receipt, stderr) = appliance.apply(&with_port(24), &[]);
    assert_eq!((&receipt["generation"], &receipt["warnings"], &*stderr), (&json!(2), &json!([]), ""));
    appliance.end();
}

#[test]
fn control_c_ends_it_as_well() {
    let appliance = quiet().start(POLICY);
    let finished = appliance.process.interrupt(END).unwrap();
    assert!(finished.status.success() && finished.stdout.contains("packets: in 0"), "{}", finished.stdout);
}

/// systemd's `Type=notify`, and where the threads run.
#[test]
fn a_supervisor_is_told_and_only_workers_run_on_workers_cores() {
    let setup = quiet();
    let policy = setup.write("policy.yaml", POLICY);
    let supervisor = std::os::unix::net::UnixDatagram::bind(setup.path("notify")).unwrap();
    supervisor.set_read_timeout(Some(READY)).unwrap();
    let mut command = setup.command(Some(&policy));
    command.env("NOTIFY_SOCKET", setup.path("notify"));
    let appliance = setup.spawn(command);
    let told = || {
        let mut text = [0; 64];
        let length = supervisor.recv(&mut text).unwrap();
        String::from_utf8_lossy(&text[..length]).into_owned()
    };
    assert_eq!(told(), "READY=1");
    if std::thread::available_parallelism().is_ok_and(|n| n.get() == 2) {
        for task in fs::read_dir(format!("/proc/{}/task", appliance.process.id())).unwrap() {
            let read = |name| fs::read_to_string(task.as_ref().unwrap().path().join(name)).unwrap();
            let core = if read("comm").starts_with("worker-") { "1" } else { "0" };
            assert!(read("status").contains(&format!("Cpus_allowed_list:\t{core}\n")), "{}", read("status"));
        }
    }
    appliance.end();
    assert_eq!(told(), "STOPPING=1");
}
