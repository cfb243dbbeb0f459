//! The rigs of two cores, briefly: counts that hold however fast the machine is. `perf-rigs`
//! measures.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

use perf::rigs::captures::Spread;
use perf::rigs::measure::{BOTH, Load, Rig, Who};
use perf::rigs::memif::Memif;
use perf::rigs::programs::Bench;
use perf::rigs::rings::Rings;
use perf::rigs::workers;
use serde_json::Value;

const CONNECTIONS: u64 = 200;
/// Low enough for a machine that does other things, too.
const MODEST: Load = Load::Rate { flows: 300, pps: 5000.0, time: Duration::from_secs(1) };

/// The binary: `PORTCULLIS_BIN` (set by `scripts/test`), else one built now, so that it is never an
/// old one. The generator is beside it.
fn portcullis() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| {
        if let Some(binary) = std::env::var_os("PORTCULLIS_BIN") {
            return binary.into();
        }
        let mut build = Command::new(env!("CARGO"));
        let root = concat!(env!("CARGO_MANIFEST_DIR"), "/../Cargo.toml");
        build.args([
            "build",
            "--quiet",
            "--offline",
            "--manifest-path",
            root,
            "-p",
            "portcullis",
            "-p",
            "pktgen",
            "--bins",
        ]);
        assert!(build.status().expect("cargo runs").success(), "portcullis and pktgen do not build");
        // target/debug/perf-rigs → target/debug/portcullis
        Path::new(env!("CARGO_BIN_EXE_perf-rigs")).with_file_name("portcullis")
    })
}

fn two_cores() -> bool {
    let there = std::thread::available_parallelism().is_ok_and(|cores| cores.get() >= 2);
    if !there {
        eprintln!("skipped: a rig takes two cores");
    }
    there
}

fn assert_all_came(result: &Value) {
    let packets = &result["packets"];
    assert_eq!(packets["sent"], packets["received"], "{result}");
    assert_eq!((&packets["lost"], &packets["unexpected"]["total"]), (&0.into(), &0.into()), "{result}");
    assert!(packets["sent"].as_u64() > Some(0), "{result}");
}

/// Every handshake completes, every request is answered, every connection closes, and nothing is
/// lost.
fn assert_connected(result: &Value) {
    for (key, expected) in [
        ("opened", CONNECTIONS),
        ("established", CONNECTIONS),
        ("closed", CONNECTIONS),
        ("responses", 3 * CONNECTIONS),
        ("failed", 0),
        ("reset", 0),
    ] {
        assert_eq!(result["connections"][key], expected, "{key}: {result}");
    }
    assert_eq!((&result["packets"]["lost"], &result["ended"]), (&0.into(), &"finished".into()), "{result}");
}

#[test]
fn over_memif_every_connection_and_every_datagram_passes_the_appliance_and_testpmd() {
    if !two_cores() {
        return;
    }
    let has_testpmd = Command::new("dpdk-testpmd").arg("--version").output().is_ok();
    let directory = tempfile::tempdir().unwrap();
    let mut rig = Memif::new(Bench::new(portcullis(), directory.path()).unwrap());
    for who in BOTH {
        if who == Who::Floor && !has_testpmd {
            eprintln!("skipped: dpdk-testpmd is not installed (Debian: dpdk-dev)");
            continue;
        }
        let connected = rig.generate(who, &Load::Connections(CONNECTIONS)).unwrap();
        assert_connected(&connected);
        if let Some(counted) = &rig.counted {
            assert_eq!(counted.packets("pass"), connected["packets"]["sent"], "{}", counted.counters);
            assert_eq!(counted.counters["reasons"]["new"], CONNECTIONS, "{}", counted.counters);
        }
        assert_all_came(&rig.generate(who, &MODEST).unwrap());
    }
}

#[test]
fn over_rings_in_one_process_every_connection_and_every_datagram_passes() {
    if !two_cores() {
        return;
    }
    let mut rig = Rings::new(perf::cores::cores().unwrap()).unwrap();
    for who in BOTH {
        assert_connected(&rig.generate(who, &Load::Connections(CONNECTIONS)).unwrap());
        assert_all_came(&rig.generate(who, &MODEST).unwrap());
    }
    assert_eq!(rig.in_use(), 0, "buffers are lost");
}

#[test]
fn two_workers_judge_what_they_own_whichever_queue_brought_it() {
    if !two_cores() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let bench = Bench::new(portcullis(), directory.path()).unwrap();
    // Three eighths of the frames are the other worker's, all of them, and none.
    for (spread, flows) in [(Spread::Crossed(3), 400), (Spread::Crossed(8), 400), (Spread::ByOwner, 400)] {
        let (frames, sample) = workers::count(&bench, spread, flows).unwrap();
        assert_eq!(sample.workers(), frames, "{spread:?}: {}", sample.counters);
        assert_eq!(sample.packets("pass"), 2 * u64::from(flows), "{spread:?}: {}", sample.counters);
        assert_eq!(sample.counters["reasons"]["new"], flows, "{spread:?}: {}", sample.counters);
    }
}
