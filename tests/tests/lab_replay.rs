//! What real kernels said to each other, recorded now and replayed.

mod common;

use std::{path::PathBuf, process::Command, time::Duration};

use common::{Scratch, number, stdout_of};
use testkit::lab::{Lab, Process};

#[test]
fn a_recording_of_ten_thousand_packets_is_replayed_whole() {
    if let Some(reason) = Lab::missing() {
        eprintln!("skipped: {reason}");
        return;
    }
    let scratch = Scratch::new("recording");
    let scripts = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../scripts"));
    let mut record = Command::new(scripts.join("record-capture"));
    record.arg("--big").arg(scratch.path(""));
    Process::start(record).unwrap().finish(Duration::from_secs(120)).unwrap().success().unwrap();

    let policy = scripts.join("demo-data/table2.yaml");
    let summary = stdout_of(&[
        "replay",
        "-o",
        "json",
        "--policy",
        policy.to_str().unwrap(),
        "--inside",
        &scratch.path("inside.pcap"),
        "--outside",
        &scratch.path("outside.pcap"),
    ]);
    assert!(number(&summary, "in") >= 10_000, "{summary}");
    assert_eq!(number(&summary, "in"), number(&summary, "pass") + number(&summary, "drop"), "{summary}");
    // Table 2 lets the download over IPv4 pass, and that is most of it.
    assert!(number(&summary, "established") > 5_000, "{summary}");
    assert!(number(&summary, "no-rule") > 0, "{summary}");
}
