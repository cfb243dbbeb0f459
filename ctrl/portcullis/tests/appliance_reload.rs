//! The policy file in bad hands: replaced in every way, half written, no file at all.

mod appliance;

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use appliance::*;
use rustix::process::Signal;
use serde_json::Value;

fn quiet() -> Setup {
    Setup::new("net_null0,no-rx=1", "net_null1,no-rx=1")
}

fn with_port(port: u16) -> String {
    POLICY.replace("ports: 22", &format!("ports: {port}"))
}

fn wait_for_port(appliance: &Appliance, port: u16) {
    let wanted = format!("ports: {port}");
    wait_for(&wanted, || appliance.text(["export"]).contains(&wanted).then_some(()));
}

/// What health says of the policy file now.
fn problem(appliance: &Appliance) -> Option<String> {
    let health = appliance.show("health");
    let mut problems = health["problems"].as_array().unwrap().iter();
    let found = problems.find(|p| p["what"] == "policy file" && p["ended"] == Value::Null)?;
    Some(found["problem"].as_str().unwrap().to_owned())
}

fn wait_for_problem(appliance: &Appliance, what: &str) {
    wait_for(what, || problem(appliance).filter(|found| found.contains(what)));
}

/// So many NICs.
fn nics(count: usize) -> String {
    let mut text = "vpcs: [{ name: prod, segment: { untagged: true } }]\nnics:\n".to_owned();
    for n in 1..=count {
        text += &format!("- {{ name: n{n}, vpc: prod, addresses: [10.0.0.{n}] }}\n");
    }
    text
}

#[test]
fn a_file_is_followed_however_another_takes_its_place() {
    let setup = quiet();
    fs::create_dir(setup.path("etc")).unwrap();
    let file = setup.path("etc/policy.yaml");
    fs::write(&file, POLICY).unwrap();
    let command = setup.command(Some(&file));
    let appliance = setup.spawn(command);
    let path = |name: &str| appliance.setup.path(name);
    // The directory is replaced.
    fs::create_dir(path("new")).unwrap();
    fs::write(path("new/policy.yaml"), with_port(23)).unwrap();
    fs::rename(path("etc"), path("old")).unwrap();
    fs::rename(path("new"), path("etc")).unwrap();
    wait_for_port(&appliance, 23);
    // Two files change places.
    fs::write(path("other.yaml"), with_port(24)).unwrap();
    let flags = rustix::fs::RenameFlags::EXCHANGE;
    rustix::fs::renameat_with(rustix::fs::CWD, path("other.yaml"), rustix::fs::CWD, &file, flags).unwrap();
    wait_for_port(&appliance, 24);
    // Directories do.
    fs::create_dir(path("third")).unwrap();
    fs::write(path("third/policy.yaml"), with_port(25)).unwrap();
    rustix::fs::renameat_with(rustix::fs::CWD, path("third"), rustix::fs::CWD, path("etc"), flags).unwrap();
    wait_for_port(&appliance, 25);
    // It is written by another name.
    fs::hard_link(&file, path("name")).unwrap();
    fs::write(path("name"), with_port(26)).unwrap();
    wait_for_port(&appliance, 26);
    assert_eq!(problem(&appliance), None);
    appliance.end();
}

#[test]
fn a_mount_over_the_file_is_a_change_of_it() {
    if !rustix::process::geteuid().is_root() {
        return eprintln!("SKIPPED: mounting needs root");
    }
    let appliance = quiet().start(POLICY);
    let (file, other) =
        (appliance.setup.path("policy.yaml"), appliance.setup.write("other.yaml", with_port(23)));
    let mount =
        |args: &[&Path]| Command::new(args[0]).args(&args[1..]).status().is_ok_and(|ended| ended.success());
    if !mount(&[Path::new("mount"), Path::new("--bind"), &other, &file]) {
        return eprintln!("SKIPPED: no mounts here");
    }
    wait_for_port(&appliance, 23);
    fs::write(&other, with_port(24)).unwrap();
    wait_for_port(&appliance, 24);
    assert!(mount(&[Path::new("umount"), &file]));
    wait_for_port(&appliance, 22);
    appliance.end();
}

#[test]
fn a_file_that_is_rewritten_all_the_time_is_read_all_the_same() {
    let appliance = quiet().start(POLICY);
    let file = appliance.setup.path("policy.yaml");
    let begin = Instant::now();
    while problem(&appliance).is_none() && appliance.show("snapshot")["generation"] == 1 {
        assert!(begin.elapsed() < Duration::from_secs(20), "never read");
        fs::write(&file, with_port(23)).unwrap();
        std::thread::sleep(Duration::from_millis(50));
    }
    fs::write(&file, with_port(23)).unwrap();
    wait_for_port(&appliance, 23);
    appliance.end();
}

#[test]
fn what_is_no_file_is_refused_and_does_not_hold_the_reload_up() {
    let appliance = quiet().start(POLICY);
    let file = appliance.setup.path("policy.yaml");
    fs::remove_file(&file).unwrap();
    assert!(Command::new("mkfifo").arg(&file).status().unwrap().success());
    wait_for_problem(&appliance, "it is no file; allowed: a regular file");
    fs::remove_file(&file).unwrap();
    fs::create_dir(&file).unwrap();
    appliance.process.signal(Signal::HUP).unwrap();
    wait_for_problem(&appliance, "it is no file; allowed: a regular file");
    fs::remove_dir(&file).unwrap();
    fs::write(&file, with_port(23)).unwrap();
    wait_for_port(&appliance, 23);
    wait_for("the end", || problem(&appliance).is_none().then_some(()));
    appliance.end();
}

#[test]
fn a_file_that_was_cut_short_is_refused_and_the_operator_may_apply_it() {
    let appliance = quiet().start(&nics(11));
    let whole = nics(11);
    let cut = nics(4);
    assert!(whole.starts_with(&cut));
    let file = appliance.setup.write("policy.yaml", &cut);
    wait_for_problem(&appliance, "it would take away 7 of 11 NICs; allowed: a share of 0.5");
    assert_eq!(appliance.show("snapshot")["nics"], 11);
    // SIGHUP is no word of the operator about this.
    appliance.process.signal(Signal::HUP).unwrap();
    std::thread::sleep(Duration::from_millis(500));
    assert_eq!(appliance.show("snapshot")["nics"], 11);
    // Less is a change like others, and `apply` has guards of its own.
    appliance.setup.write("policy.yaml", nics(6));
    wait_for("6 NICs", || (appliance.show("snapshot")["nics"] == 6).then_some(()));
    wait_for("the end", || problem(&appliance).is_none().then_some(()));
    appliance.setup.write("policy.yaml", nics(1));
    wait_for_problem(&appliance, "it would take away 5 of 6 NICs");
    appliance.text(["apply".as_ref(), file.as_os_str()]);
    assert_eq!(appliance.show("snapshot")["nics"], 1);
    appliance.end();

    let off = quiet().more("[policy]\nmax_removed_share = 1\n").start(&whole);
    off.setup.write("policy.yaml", &cut);
    wait_for("4 NICs", || (off.show("snapshot")["nics"] == 4).then_some(()));
    off.end();
}

#[test]
fn a_reload_without_a_descriptor_to_spare_is_tried_again() {
    use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit};
    let appliance = quiet().start(POLICY);
    let process = Pid::from_raw(appliance.process.id() as i32).unwrap();
    // Once the file is watched and clients are served: those take descriptors, too.
    appliance.apply(&with_port(21), &[]);
    wait_for("the API", || appliance.text(["export"]).contains("ports: 21").then_some(()));
    // No descriptor more than there are: not even for the file.
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let limit = |current| Rlimit { current, maximum };
    prlimit(Some(process), Resource::Nofile, limit(Some(3))).unwrap();
    let mut file = fs::File::create(appliance.setup.path("policy.yaml")).unwrap();
    file.write_all(with_port(23).as_bytes()).unwrap();
    drop(file);
    appliance.process.wait_for("Too many open files", Duration::from_secs(10)).unwrap();
    prlimit(Some(process), Resource::Nofile, limit(current)).unwrap();
    wait_for_port(&appliance, 23);
    wait_for("the end", || problem(&appliance).is_none().then_some(()));
    appliance.end();
}
