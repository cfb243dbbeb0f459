//! Against the appliance itself: two processes with shared memory between them, and the policy that
//! the generator prints.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

use serde_json::Value;
use testkit::lab::Process;

const PKTGEN: &str = env!("CARGO_BIN_EXE_portcullis-pktgen");
const LONG: Duration = Duration::from_secs(30);

/// The binary: `PORTCULLIS_BIN` (set by `scripts/test`), else one built now, so that it is never an
/// old one.
fn portcullis() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| {
        if let Some(binary) = std::env::var_os("PORTCULLIS_BIN") {
            return binary.into();
        }
        let manifest = concat!(env!("CARGO_MANIFEST_DIR"), "/../../ctrl/portcullis/Cargo.toml");
        let mut build = Command::new(env!("CARGO"));
        build.args(["build", "--quiet", "--offline", "--manifest-path", manifest]);
        assert!(build.status().expect("cargo runs").success(), "portcullis does not build");
        // target/debug/portcullis-pktgen → target/debug/portcullis
        Path::new(PKTGEN).with_file_name("portcullis")
    })
}

fn stdout_of(program: &Path, args: &[&str]) -> String {
    let mut command = Command::new(program);
    command.args(args);
    let finished = Process::start(command).unwrap().finish(LONG).unwrap();
    finished.success().unwrap_or_else(|error| panic!("{} {args:?}: {error}", program.display())).stdout
}

fn pktgen(args: &[&str]) -> String {
    stdout_of(Path::new(PKTGEN), args)
}

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or_else(|| panic!("{value} is no number"))
}

fn class<'a>(result: &'a Value, name: &str) -> &'a Value {
    let classes = result["classes"].as_array().unwrap();
    classes.iter().find(|class| class["class"] == name).unwrap_or_else(|| panic!("no {name} in {result}"))
}

#[test]
fn every_connection_passes_the_appliance_and_nothing_denied_or_hostile_does() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name).display().to_string();
    let (policy, config, api) = (path("policy.yaml"), path("portcullis.toml"), path("api.sock"));
    let hosts = ["--servers", "5", "--ip", "both", "--from", "both"];
    fs::write(&policy, pktgen(&[&["--print-policy"], &hosts[..]].concat())).unwrap();
    let memif = |n: usize, role: &str| {
        let socket = format!("portcullis-pktgen-{}-{n}", std::process::id());
        format!("--vdev=net_memif{n},role={role},socket-abstract=yes,socket={socket}")
    };
    let last = std::thread::available_parallelism().map_or(0, |cores| cores.get() - 1);
    let text = format!(
        "[eal]\nargs = [\"--no-pci\", {:?}, {:?}]\n[[wire]]\nname = \"wire0\"\ninside = \"net_memif0\"\noutside = \"net_memif1\"\n\
         [workers]\ncores = [{last}]\n[api]\nsocket = {api:?}\n",
        memif(0, "server"),
        memif(1, "server")
    );
    fs::write(&config, text).unwrap();
    stdout_of(portcullis(), &["check", "--config", &config, &policy]);
    let mut appliance = Command::new(portcullis());
    appliance.args(["run", "--config", &config, "--policy", &policy]);
    let appliance = Process::start(appliance).unwrap();
    appliance.wait_for("portcullis: ready", LONG).unwrap();

    let ports = ["--inside", "net_memif0", "--outside", "net_memif1", "--core", "0", "-o", "json"];
    let traffic = [
        "--mode",
        "stateful",
        "--flows",
        "200",
        "--connections",
        "500",
        "--requests",
        "3",
        "--denied",
        "0.1",
        "--hostile",
        "0.1",
        "--rate",
        "4000",
        "--drain",
        "1s",
        "--timeout",
        "5s",
    ];
    let (inside, outside) = (memif(0, "client"), memif(1, "client"));
    let eal = ["--", "--no-pci", &inside, &outside];
    let said = pktgen(&[&ports[..], &hosts, &traffic, &eal].concat());
    let result: Value = serde_json::from_str(&said).unwrap();
    let connections = &result["connections"];
    for (key, expected) in [
        ("opened", 500),
        ("established", 500),
        ("closed", 500),
        ("responses", 1500),
        ("failed", 0),
        ("reset", 0),
    ] {
        assert_eq!(number(&connections[key]), expected, "{key}: {said}");
    }
    assert_eq!(
        (&result["packets"]["lost"], &result["packets"]["unexpected"]["total"]),
        (&0.into(), &0.into()),
        "{said}"
    );
    assert_eq!((&result["ended"], &result["loss"]), (&"finished".into(), &0.0.into()));
    for name in ["denied", "hostile"] {
        let counts = class(&result, name);
        assert!(number(&counts["sent"]) > 50, "{name}: {said}");
        assert_eq!(number(&counts["received"]), 0, "{name}: {said}");
    }

    // The appliance saw the same.
    let counters = stdout_of(portcullis(), &["show", "counters", "-o", "json", "--socket", &api]);
    let counters: Value = serde_json::from_str(&counters).unwrap();
    assert_eq!(number(&counters["packets"]["in"]), number(&result["packets"]["sent"]), "{counters}");
    assert_eq!(number(&counters["packets"]["pass"]), number(&class(&result, "flows")["sent"]), "{counters}");
    assert_eq!(counters["reasons"]["denied"], class(&result, "denied")["sent"], "{counters}");
    assert_eq!(number(&counters["reasons"]["new"]), 500, "{counters}");
    let finished = appliance.terminate(LONG).unwrap().success().unwrap();
    assert!(!finished.stderr.contains("leaked"), "{}", finished.stderr);
}

#[test]
fn no_hostile_frame_passes_whatever_the_traffic_is_like() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name).display().to_string();
    let (policy, inside, outside) = (path("policy.yaml"), path("inside.pcap"), path("outside.pcap"));
    for (hosts, seed) in [
        (&["--ip", "both"][..], "1"),
        (&["--vlan", "4094", "--servers", "300", "--ip", "6"], "2"),
        (&["--servers", "1"], "3"),
    ] {
        let hosts = [hosts, &["--from", "both", "--seed", seed]].concat();
        fs::write(&policy, pktgen(&[&["--print-policy"], &hosts[..]].concat())).unwrap();
        let files = ["--write-sent-inside", &inside, "--write-sent-outside", &outside];
        pktgen(&[&["--dry-run", "--hostile", "1", "--count", "2000"], &hosts[..], &files].concat());
        let replay =
            ["replay", "--policy", &policy, "--inside", &inside, "--outside", &outside, "-o", "json"];
        let summary: Value = serde_json::from_str(&stdout_of(portcullis(), &replay)).unwrap();
        assert_eq!(summary["packets"], serde_json::json!({"in": 2000, "pass": 0, "drop": 2000}), "{summary}");
    }
}
