//! The program as its users run it: results, refusals, captures, an end by control-C.

use std::path::Path;
use std::process::{Command, Output};
use std::time::Duration;

use serde_json::Value;
use testkit::lab::Process;
use testkit::pcap;

const PKTGEN: &str = env!("CARGO_BIN_EXE_portcullis-pktgen");

fn run(args: &[&str]) -> Output {
    Command::new(PKTGEN).args(args).output().unwrap()
}

/// Status 0 and one JSON object on standard output, and nothing else.
fn result(args: &[&str]) -> Value {
    let output = run(&[&["-o", "json"], args].concat());
    let complained = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{args:?}: {complained}");
    assert_eq!(complained, "", "{args:?}");
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{args:?}: {error}"))
}

fn refused(args: &[&str]) -> String {
    let output = run(args);
    assert_eq!(output.status.code(), Some(2), "{args:?}: {output:?}");
    assert!(output.stdout.is_empty());
    String::from_utf8(output.stderr).unwrap()
}

fn data(path: &Path) -> Vec<Vec<u8>> {
    let (_, records) = pcap::read(path).unwrap();
    records.into_iter().map(|record| record.data).collect()
}

#[test]
fn the_result_has_its_shape() {
    let result = result(&[
        "--dry-run",
        "--mode",
        "stateful",
        "--connections",
        "100",
        "--requests",
        "2",
        "--denied",
        "0.1",
    ]);
    let keys = |value: &Value| value.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    let expected = [
        "classes",
        "connections",
        "core",
        "directions",
        "ended",
        "latency_ns",
        "loss",
        "mode",
        "packets",
        "ports",
        "rate",
        "search",
        "seconds",
        "warnings",
    ];
    assert_eq!(keys(&result), expected);
    assert_eq!(keys(&result["core"]), ["core", "interruptions", "stolen_ms"]);
    let packets = [
        "duplicates",
        "lost",
        "planned",
        "received",
        "refused",
        "reordered",
        "sent",
        "skipped_blocked",
        "skipped_late",
        "unexpected",
    ];
    assert_eq!(keys(&result["packets"]), packets);
    assert_eq!(keys(&result["packets"]["unexpected"]), ["foreign", "misdirected", "stale", "total"]);
    assert_eq!(keys(&result["rate"]), ["asked_pps", "received_bps", "received_pps", "sent_bps", "sent_pps"]);
    assert_eq!(
        keys(&result["latency_ns"]),
        ["max", "mean", "min", "p50", "p90", "p99", "p99_9", "p99_99", "samples"]
    );
    assert_eq!(
        keys(&result["directions"]["inbound"]),
        ["duplicates", "lost", "received", "reordered", "sent"]
    );
    let class = ["admitted", "class", "duplicates", "lost", "received", "reordered", "sent"];
    assert_eq!(keys(&result["classes"][0]), class);
    assert_eq!(
        (&result["classes"][0]["class"], &result["classes"][0]["admitted"]),
        (&"flows".into(), &true.into())
    );
    let connections = [
        "closed",
        "established",
        "failed",
        "opened",
        "requests",
        "reset",
        "responses",
        "retransmits",
        "timeouts",
    ];
    assert_eq!(keys(&result["connections"]), connections);
    assert_eq!((&result["mode"], &result["ended"]), (&"stateful".into(), &"finished".into()));
    assert_eq!((&result["connections"]["closed"], &result["packets"]["lost"]), (&100.into(), &0.into()));
}

#[test]
fn a_search_tells_its_trials_and_what_it_found() {
    let args = ["--dry-run", "--search", "both", "--max-rate", "2k", "--trial", "100ms", "--drain", "100ms"];
    let result = result(&args);
    let search = &result["search"];
    // A cable drops nothing: one trial at the highest rate serves both.
    assert_eq!((&search["ndr"]["pps"], &search["pdr"]["pps"]), (&2000.0.into(), &2000.0.into()));
    assert_eq!((&search["ndr"]["at_maximum"], &search["pdr"]["allowed_loss"]), (&true.into(), &0.005.into()));
    let trials = search["trials"].as_array().unwrap();
    assert_eq!(trials.len(), 1);
    let keys: Vec<_> = trials[0].as_object().unwrap().keys().collect();
    assert_eq!(keys, ["loss", "lost", "offered", "pps", "sent_pps", "skipped_late"]);
    assert_eq!(result["rate"]["asked_pps"], 2000.0);
}

#[test]
fn bad_arguments_are_refused_with_option_finding_and_what_is_allowed() {
    let directory = tempfile::tempdir().unwrap();
    let no_capture = directory.path().join("no.pcap");
    std::fs::write(&no_capture, "not a capture").unwrap();
    let no_capture = no_capture.to_str().unwrap();
    for (args, option, found, allowed) in [
        (&["--rate", "fast"][..], "--rate", "fast", "packets a second above 0, such as 150000"),
        (&["--size", "63"], "--size", "63", "64 to 1518"),
        (&["--size", "64", "--ip", "6"], "--size", "64", "80 to 1518"),
        (&["--denied", "1.5"], "--denied", "1.5", "a share from 0 to 1"),
        (&["--denied", "0.7", "--hostile", "0.7"], "--hostile", "0.7", "at most 1 together"),
        (&["--vlan", "4095"], "--vlan", "4095", "1 to 4094"),
        (&["--flows", "11M"], "--flows", "11000000", "1 to 10000000"),
        (&["--mode", "statefull"], "--mode", "statefull", "stateless, stateful"),
        (&["--connections", "5"], "--connections", "5", "--mode stateful"),
        (&["--duration", "soon"], "--duration", "soon", "200ms"),
        (&["--core", "4000"], "--core", "4000", "allowed: "),
        (&["--search", "ndr", "--dry-run"], "--max-rate", "nothing was given", "packets a second"),
        (
            &["--search", "ndr", "--max-rate", "1k", "--min-rate", "2k", "--dry-run"],
            "--min-rate",
            "2000",
            "below --max-rate 1000",
        ),
        (&["--inside", "a", "--outside", "a"], "--inside", "a", "another port"),
        (
            &["--outside", "a", "--write-sent-inside", "/nonexistent/x"],
            "--write-sent-inside",
            "/nonexistent/x",
            "--inside PORT",
        ),
        (&["--dry-run", "--play-outside", no_capture], "no.pcap", "neither pcap nor pcapng", "one of them"),
        (&[], "--outside", "no port was given", "a DPDK port's name"),
    ] {
        let message = refused(args);
        for part in [option, found, allowed] {
            assert!(message.contains(part), "{args:?}: {part:?} is not in {message}");
        }
    }
    let missing =
        refused(&["--outside", "net_x", "--", "--no-pci", "--no-huge", "-m", "64", "--vdev=net_null0"]);
    assert!(missing.contains("--outside net_x") && missing.contains("net_null0"), "{missing}");
}

#[test]
fn loss_above_what_is_allowed_is_status_1() {
    let args = |most| {
        let eal = ["--", "--no-pci", "--vdev=net_null0,no-rx=1"];
        [&["--outside", "net_null0", "--count", "500", "--drain", "10ms", "--max-loss", most][..], &eal]
            .concat()
    };
    let output = run(&args("99%"));
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stdout).contains("lost: 500 (100"), "{output:?}");
    assert_eq!(run(&args("100%")).status.code(), Some(0));
}

#[test]
fn a_port_without_a_peer_and_a_search_at_its_minimum_are_told() {
    let eal = ["--", "--no-pci", "--vdev=net_null0,no-rx=1"];
    let search =
        ["--search", "ndr", "--min-rate", "1k", "--max-rate", "2k", "--trial", "50ms", "--drain", "10ms"];
    let args = [&["--outside", "net_null0"][..], &search].concat();
    let result = result(&[&args[..], &eal].concat());
    let ndr = &result["search"]["ndr"];
    assert_eq!((&ndr["pps"], &ndr["at_minimum"]), (&Value::Null, &true.into()), "{result}");
    let warnings = result["warnings"].to_string();
    for told in ["net_null0 has no peer", "the search for the NDR ended at its minimum"] {
        assert!(warnings.contains(told), "{told}: {warnings}");
    }
    let table = String::from_utf8(run(&[&args[..], &eal].concat()).stdout).unwrap();
    assert!(table.contains("warning: net_null0 has no peer"), "{table}");
    assert!(table.contains("NDR: not even the lowest rate"), "{table}");
}

#[test]
fn control_c_ends_a_run_with_its_result() {
    let mut command = Command::new(PKTGEN);
    command.args(["--dry-run", "--duration", "60m", "--rate", "1000", "-o", "json", "--progress"]);
    let process = Process::start(command).unwrap();
    process.wait_for("received", Duration::from_secs(20)).unwrap();
    let finished = process.interrupt(Duration::from_secs(20)).unwrap().success().unwrap();
    let result: Value = serde_json::from_str(&finished.stdout).unwrap();
    assert_eq!((&result["ended"], &result["packets"]["lost"]), (&"interrupted".into(), &0.into()));
    assert!(result["packets"]["sent"].as_u64().unwrap() > 0);
}

#[test]
fn what_would_be_sent_is_written_and_played_again_frame_by_frame() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name).display().to_string();
    let [inside, outside, out, both] = ["inside.pcap", "outside.pcap", "out.pcap", "both.pcap"].map(path);
    let traffic = [
        "--mode",
        "stateful",
        "--connections",
        "200",
        "--requests",
        "3",
        "--ip",
        "both",
        "--size",
        "imix",
        "--hostile",
        "0.1",
    ];
    let written = ["--dry-run", "--write-sent-inside", &inside, "--write-sent-outside", &outside];
    let first = result(&[&traffic[..], &written].concat());
    let (sent_inside, sent_outside) = (data(Path::new(&inside)), data(Path::new(&outside)));
    assert_eq!(first["directions"]["outbound"]["sent"], sent_inside.len());
    assert_eq!(first["directions"]["inbound"]["sent"], sent_outside.len());

    // Played over the cable from both sides, three times, it arrives as it was.
    let loops = ["--dry-run", "--play-inside", &inside, "--play-outside", &outside, "--loops", "3"];
    let played = result(&[&loops[..], &["--write-received-inside", &both]].concat());
    let frames = 3 * (sent_inside.len() + sent_outside.len());
    assert_eq!((&played["mode"], &played["packets"]["sent"]), (&"capture".into(), &frames.into()));
    assert_eq!((&played["packets"]["received"], &played["packets"]["lost"]), (&frames.into(), &0.into()));
    assert_eq!(data(Path::new(&both)), [&sent_outside[..], &sent_outside, &sent_outside].concat());

    // And into a device that writes a capture by itself, with the original timing.
    let vdev = format!("--vdev=net_pcap0,tx_pcap={out}");
    let device = [
        "--outside",
        "net_pcap0",
        "--play-outside",
        &outside,
        "--timing",
        "original",
        "--",
        "--no-pci",
        &vdev,
    ];
    let into = result(&device);
    assert_eq!(into["packets"]["sent"], sent_outside.len());
    assert_eq!(data(Path::new(&out)), sent_outside);
    assert_eq!(
        (&into["ports"][0]["driver"], &into["ports"][0]["tx_packets"]),
        (&"net_pcap".into(), &sent_outside.len().into())
    );
}

#[test]
fn what_is_received_from_a_device_is_written() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name).display().to_string();
    let (from, received) = (path("from.pcap"), path("received.pcap"));
    let frames: Vec<Vec<u8>> = (0..200u8).map(|n| vec![n; 60 + usize::from(n)]).collect();
    pcap::write(&from, pcap::Format::MICRO, &pcap::records(0, frames.clone())).unwrap();
    let vdev = format!("--vdev=net_pcap0,rx_pcap={from}");
    let args = [
        "--outside",
        "net_pcap0",
        "--count",
        "10",
        "--write-received-outside",
        &received,
        "--",
        "--no-pci",
        &vdev,
    ];
    let result = result(&args);
    assert_eq!(result["packets"]["unexpected"]["foreign"], 200);
    assert_eq!(data(Path::new(&received)), frames);
}
