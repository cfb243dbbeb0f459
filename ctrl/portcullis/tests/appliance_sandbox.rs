//! What a running appliance has given up, as others see it, and what goes on all the same.

mod appliance;

use std::fs;
use std::os::unix::fs::symlink;

use appliance::*;
use serde_json::Value;

fn quiet() -> Setup {
    Setup::new("net_null0,no-rx=1", "net_null1,no-rx=1")
}

/// The lines of its log that speak of this.
fn told(appliance: &Appliance) -> Vec<String> {
    let log = appliance.process.stderr();
    log.lines().filter_map(|line| Some(line.split_once("sandbox: ")?.1.to_owned())).collect()
}

/// What health says of the policy file now.
fn problem(appliance: &Appliance) -> Option<String> {
    let health = appliance.show("health");
    let mut problems = health["problems"].as_array().unwrap().iter();
    let found = problems.find(|p| p["what"] == "policy file" && p["ended"] == Value::Null)?;
    Some(found["problem"].as_str().unwrap().to_owned())
}

#[test]
fn ports_without_the_kernel_leave_no_capability_to_any_thread() {
    let appliance = quiet().start(POLICY);
    let threads = appliance.threads();
    let named = |name: &str| threads.iter().filter(|(its, _)| its.starts_with(name)).count();
    for (name, at_least) in [("worker-0", 1), ("tokio", 60), ("eal-intr", 1), ("ports", 1), ("log", 1)] {
        assert!(
            named(name) >= at_least,
            "{name}: {:?}",
            threads.iter().map(|its| &its.0).collect::<Vec<_>>()
        );
    }
    for (name, status) in &threads {
        for set in ["CapEff", "CapPrm", "CapInh", "CapAmb"] {
            assert_eq!(status[set], "0000000000000000", "{set} of {name}");
        }
        assert_eq!((status["NoNewPrivs"].as_str(), status["Seccomp"].as_str()), ("1", "2"), "{name}");
    }
    let limits = fs::read_to_string(format!("/proc/{}/limits", appliance.process.id())).unwrap();
    let core = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
    assert_eq!(core.split_whitespace().filter(|word| *word == "0").count(), 2, "{core}");
    // The log is written by a thread of its own, "ready" by another.
    let is_last = |line: &String| line == "memory is locked" || line.starts_with("lock_memory: ");
    let said = wait_for("the last line of the sandbox", || {
        Some(told(&appliance)).filter(|said| said.iter().any(is_last))
    });
    assert!(said[0].starts_with("no core files; no new privileges; "), "{said:?}");
    assert!(said[0].contains("; no capabilities; ") && said[0].ends_with(" system calls"), "{said:?}");
    let has_landlock = said[0].contains("; files by Landlock ");
    let lacks_it = said.iter().any(|line| line.starts_with("landlock: this kernel has no Landlock"));
    assert!(has_landlock != lacks_it, "{said:?}");
    let locks = said.iter().any(|line| line == "memory is locked");
    let is_limited =
        said.iter().any(|line| line.starts_with("lock_memory: ") && line.contains("LimitMEMLOCK"));
    assert!(locks != is_limited, "{said:?}");
    appliance.end();
}

#[test]
fn each_part_can_be_left_as_it_is() {
    let all = "capabilities = false\nno_new_privs = false\nlandlock = false\nseccomp = false\ncore_dumps = true\nlock_memory = false\n";
    let own = fs::read_to_string("/proc/self/status").unwrap();
    let own = own.lines().find_map(|line| line.strip_prefix("CapEff:")).unwrap().trim().to_owned();
    let appliance = quiet().more(&format!("[sandbox]\n{all}")).start(POLICY);
    for (name, status) in appliance.threads() {
        assert_eq!(status["CapEff"], own, "{name}");
        assert_eq!((status["NoNewPrivs"].as_str(), status["Seccomp"].as_str()), ("0", "0"), "{name}");
    }
    assert_eq!(told(&appliance), [""; 0]);
    appliance.end();
    // One by one, the others hold.
    for (left, word) in [
        ("capabilities = false", "capabilities"),
        ("landlock = false", "files by Landlock"),
        ("seccomp = false", "system calls"),
        ("core_dumps = true", "no core files"),
    ] {
        let appliance = quiet().more(&format!("[sandbox]\n{left}\n")).start(POLICY);
        let said =
            wait_for("a line of the sandbox", || Some(told(&appliance)).filter(|said| !said.is_empty()));
        let holds: Vec<_> = ["no core files", "no new privileges", "capabilities", "system calls"]
            .into_iter()
            .filter(|part| !said[0].contains(part))
            .collect();
        assert!(!said[0].contains(word), "{left}: {said:?}");
        assert!(holds.iter().all(|missing| *missing == word), "{left}: {said:?}");
        let seccomp = if left.starts_with("seccomp") { "0" } else { "2" };
        assert!(appliance.threads().iter().all(|(_, status)| status["Seccomp"] == seccomp), "{left}");
        appliance.end();
    }
}

#[test]
fn a_policy_that_moves_elsewhere_is_told_of_and_read_where_the_configuration_names_the_place() {
    for names_it in [false, true] {
        let elsewhere = tempfile::tempdir().unwrap();
        fs::write(elsewhere.path().join("policy.yaml"), POLICY.replace("ports: 22", "ports: 2222")).unwrap();
        let setup = quiet();
        let setup = match names_it {
            true => setup.more(&format!("[sandbox]\npaths = [{:?}]\n", elsewhere.path())),
            false => setup,
        };
        fs::create_dir_all(setup.path("etc/now")).unwrap();
        fs::write(setup.path("etc/now/policy.yaml"), POLICY).unwrap();
        let link = setup.path("etc/policy.yaml");
        symlink("now/policy.yaml", &link).unwrap();
        let command = setup.command(Some(&link));
        let appliance = setup.spawn(command);
        let first = wait_for("a line of the sandbox", || told(&appliance).into_iter().next());
        let has_landlock = first.contains("files by Landlock");
        let turn = |target: &std::path::Path| {
            let fresh = appliance.setup.path("etc/fresh");
            symlink(target, &fresh).unwrap();
            fs::rename(fresh, &link).unwrap();
        };
        let wait_for_port = |port: u16| {
            wait_for("the rule", || {
                appliance.text(["export"]).contains(&format!("ports: {port}")).then_some(())
            });
        };
        turn(&elsewhere.path().join("policy.yaml"));
        if names_it || !has_landlock {
            wait_for_port(2222);
        } else {
            let told = wait_for("health", || problem(&appliance));
            assert!(told.contains("Permission denied"), "{told}");
        }
        // A place beside the first is in reach in any case.
        fs::create_dir(appliance.setup.path("etc/then")).unwrap();
        fs::write(appliance.setup.path("etc/then/policy.yaml"), POLICY.replace("ports: 22", "ports: 23"))
            .unwrap();
        turn(std::path::Path::new("then/policy.yaml"));
        wait_for_port(23);
        assert_eq!(problem(&appliance), None);
        appliance.end();
    }
}
