//! `portcullis replay` on frames that mean harm: it ends well, judges each once, and lets nothing out that no rule allows.

mod common;

use std::{fs, path::Path};

use common::{Scratch, number, stdout_of};
use testkit::{
    hostile,
    pcap::{self, Format, Record},
};

/// The lab's server under these rules; `[]` for no group at all.
fn policy(groups: &str) -> String {
    format!(
        r#"
vpcs: [{{ name: lab, segment: {{ untagged: true }} }}]
security_groups:
  - name: open
    rules: [{{ direction: inbound }}, {{ direction: outbound }}]
nics:
  - {{ name: server, vpc: lab, addresses: [10.5.6.7, "2001:db8::7"], security_groups: {groups} }}
"#
    )
}

/// Replays these captures; checks that every frame was judged once, and that what left is what passed, unaltered. Returns the reasons
/// to pass.
fn replay(name: &str, groups: &str, inside: &[Record], outside: &[Record]) -> Vec<String> {
    let scratch = Scratch::new(name);
    let path = |file: &str| scratch.path(file);
    for (file, records) in [("inside.pcap", inside), ("outside.pcap", outside)] {
        pcap::write(path(file), Format::NANO, records).unwrap();
    }
    let summary = stdout_of(&[
        "replay",
        "-o",
        "json",
        "--policy",
        &scratch.write("policy.yaml", &policy(groups)),
        "--inside",
        &path("inside.pcap"),
        "--outside",
        &path("outside.pcap"),
        "--verdicts",
        &path("verdicts.jsonl"),
        "--pass-inside",
        &path("left-inside.pcap"),
        "--pass-outside",
        &path("left-outside.pcap"),
    ]);
    let (seen, passed, dropped) =
        (number(&summary, "in"), number(&summary, "pass"), number(&summary, "drop"));
    assert_eq!(seen, (inside.len() + outside.len()) as u64, "{summary}");
    assert_eq!(seen, passed + dropped, "{summary}");

    let verdicts = fs::read_to_string(path("verdicts.jsonl")).unwrap();
    assert_eq!(verdicts.lines().count() as u64, seen);
    let (mut into, mut out_of, mut reasons) = (Vec::new(), Vec::new(), Vec::new());
    for line in verdicts.lines().filter(|line| line.contains(r#""verdict":"pass""#)) {
        let index = number(line, "index") as usize;
        // What came from one side leaves on the other.
        if line.contains(r#""from":"outside""#) {
            into.push(outside[index].clone());
        } else {
            out_of.push(inside[index].clone());
        }
        let reason = line.split_once(r#""reason":""#).unwrap().1.split('"').next().unwrap();
        if !reasons.iter().any(|known| known == reason) {
            reasons.push(reason.to_owned());
        }
    }
    assert_eq!(pcap::read(path("left-inside.pcap")).unwrap().1, into);
    assert_eq!(pcap::read(path("left-outside.pcap")).unwrap().1, out_of);
    reasons.sort();
    reasons
}

/// Frames for both sides, a microsecond apart.
fn split(frames: impl IntoIterator<Item = Vec<u8>>) -> [Vec<Record>; 2] {
    let all = pcap::records(1_700_000_000_000_000_000, frames);
    let (mut inside, mut outside) = (Vec::new(), Vec::new());
    for (index, record) in all.into_iter().enumerate() {
        if index % 2 == 0 { inside.push(record) } else { outside.push(record) }
    }
    [inside, outside]
}

#[test]
fn hostile_frames_are_judged_each_once_and_what_passes_leaves_unaltered() {
    for seed in 1..=3 {
        let [inside, outside] = split(hostile::frames(seed, 20_000));
        let reasons = replay(&format!("hostile{seed}"), "[open]", &inside, &outside);
        assert!(
            reasons.contains(&"new".to_owned()) && reasons.contains(&"established".to_owned()),
            "{reasons:?}"
        );
    }
}

#[test]
fn without_a_rule_nothing_passes_but_what_no_rule_judges() {
    let [inside, outside] = split(hostile::frames(4, 20_000));
    for reason in replay("hostile-closed", "[]", &inside, &outside) {
        assert!(reason == "control" || reason == "fragment", "{reason}: there is no rule");
    }
}

/// Frames of public captures, where they are there: beside the clone, not in it.
#[test]
fn the_corpus_of_hostile_frames() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/corpus/hostile.pcap");
    if !corpus.exists() {
        eprintln!("skipped: {} is not there", corpus.display());
        return;
    }
    let frames: Vec<Record> = pcap::read(&corpus).unwrap().1;
    assert!(frames.len() > 1000);
    replay("corpus-outside", "[open]", &[], &frames);
    replay("corpus-inside", "[open]", &frames, &[]);
    replay("corpus-both", "[]", &frames, &frames);
}
