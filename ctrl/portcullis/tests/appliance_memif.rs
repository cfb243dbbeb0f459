//! The appliance between two shared-memory interfaces, with DPDK's own `testpmd` at their other ends.

mod appliance;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use appliance::*;
use serde_json::json;
use testkit::frame::*;
use testkit::lab::Process;
use testkit::pcap::{self, Format};

/// `dpdk-testpmd`, where it is installed (Debian: dpdk-dev or dpdk).
fn testpmd() -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|directory| directory.join("dpdk-testpmd")).find(|file| file.is_file())
}

/// A file that `read` is put into `inside`'s wire by testpmd, and what comes out of `outside` is written to `written`.
fn peer(testpmd: &Path, sockets: [&str; 2], read: &Path, written: &Path) -> Command {
    let mut command = Command::new(testpmd);
    command.args(["--lcores=0@0,1@0", "--no-pci", "--no-huge", "-m", "128", "--no-shconf", "--no-telemetry"]);
    command.arg("--file-prefix=portcullis-testpmd");
    let memif =
        |n: usize| format!("--vdev=net_memif{n},role=client,socket-abstract=yes,socket={}", sockets[n]);
    // testpmd forwards between neighbours, in the order of their making.
    command.arg(format!("--vdev=net_pcap0,rx_pcap={}", read.display())).arg(memif(0)).arg(memif(1));
    command.arg(format!("--vdev=net_pcap1,tx_pcap={}", written.display()));
    command.args([
        "--",
        "--total-num-mbufs=8192",
        "--forward-mode=io",
        "--auto-start",
        "--no-flush-rx",
        "--stats-period=1",
    ]);
    command
}

#[test]
fn net_memif_carries_frames_through_between_two_processes() {
    let Some(testpmd) = testpmd() else {
        return eprintln!("skipped: dpdk-testpmd is not installed (Debian: dpdk-dev)");
    };
    let name = |side: &str| format!("portcullis-{}-{side}", std::process::id());
    let (inside, outside) = (name("inside"), name("outside"));
    let memif =
        |n: usize, socket: &str| format!("net_memif{n},role=server,socket-abstract=yes,socket={socket}");
    let appliance = Setup::new(&memif(0, &inside), &memif(1, &outside)).start(POLICY);

    // A server may send only when its client has polled: what comes first drops anyhow.
    let stray =
        |n: u16| udp(format!("10.5.6.8:{}", 1000 + n).as_str(), "198.51.100.9:53").payload("stray").frame();
    let mine = |n: u16| {
        let payload = vec![n as u8; usize::from(n) % 1400];
        udp(format!("10.5.6.7:{}", 5000 + n).as_str(), "198.51.100.9:53").payload(payload).frame()
    };
    // Fewer in all than the rings' 1,024 slots: testpmd sends them at once, and drops what a ring does not take whose other end is
    // waiting for its core.
    let sent: Vec<_> = (0..600).map(mine).collect();
    let setup = &appliance.setup;
    let (read, written) = (setup.path("read.pcap"), setup.path("written.pcap"));
    let frames = (0..200).map(stray).chain(sent.iter().cloned()).chain((0..100).map(stray));
    pcap::write(&read, Format::MICRO, &pcap::records(0, frames)).unwrap();
    let peer = Process::start(peer(&testpmd, [&inside, &outside], &read, &written)).unwrap();
    let counters = appliance.wait_for_counters("all frames", |c| c["packets"]["in"] == 900);
    assert_adds_up(&counters);
    assert_eq!(counters["reasons"], json!({"new": 600, "unknown-source": 300}));
    // The peer that leaves frees the shared memory: first it, then the appliance, as the driver wants it.
    wait_for("the last frame at the peer", || {
        appliance.show("counters")["ports"]
            .as_array()?
            .iter()
            .any(|port| port["tx_packets"] == 600)
            .then_some(())
    });
    std::thread::sleep(Duration::from_millis(200));
    let finished = peer.terminate(Duration::from_secs(10)).unwrap();
    let (_, records) = pcap::read(&written).unwrap_or_else(|error| panic!("{error}: {finished:?}"));
    let received: Vec<_> = records.into_iter().map(|record| record.data).collect();
    assert_eq!(received.len(), sent.len());
    assert!(received == sent, "frames were changed or reordered");
    appliance.end();
}
