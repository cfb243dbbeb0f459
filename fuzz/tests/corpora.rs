//! Every input that is kept, and every one that a target begins with, once: none of them panics.

use std::fs;
use std::path::{Path, PathBuf};

use fuzz::{TARGETS, Target};

fn kept(target: &Target) -> Vec<PathBuf> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target.name);
    let mut files: Vec<_> =
        fs::read_dir(directory).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
    files.sort();
    files
}

fn run(name: &str) {
    let target = TARGETS.iter().find(|target| target.name == name).expect("a target");
    let seeds = (target.seeds)();
    assert!(seeds.len() > 2, "{name} begins with {} inputs", seeds.len());
    seeds.iter().for_each(|seed| (target.run)(seed));
    let files = kept(target);
    for file in &files {
        println!("{}", file.display());
        (target.run)(&fs::read(file).expect("an input"));
    }
    println!("{name}: {} inputs made, {} kept", seeds.len(), files.len());
}

#[test]
fn frames() {
    run("frames");
}

#[test]
fn connections() {
    run("connections");
}

#[test]
fn documents() {
    run("documents");
}

#[test]
fn configurations() {
    run("configurations");
}

#[test]
fn stores() {
    run("stores");
}

#[test]
fn captures() {
    run("captures");
}

#[test]
fn requests() {
    run("requests");
}

#[test]
fn what_is_kept_for_the_next_process() {
    run("kept");
}

/// The hostile frames of others, where they lie beside this repository.
#[test]
fn frames_of_others() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/corpus/hostile.pcap");
    let Ok(bytes) = fs::read(&path) else { return };
    fuzz::captures::run(&bytes);
    for chunk in testkit::pcap::read(&path).expect("a capture").1.chunks(32) {
        let mut input = vec![7u8];
        for (place, record) in chunk.iter().enumerate() {
            input.push(place as u8 & 1);
            input.extend((record.data.len().min(65_535) as u16).to_le_bytes());
            input.extend(&record.data);
        }
        fuzz::frames::run(&input);
    }
}

#[test]
fn every_target_has_its_program() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    for target in &TARGETS {
        assert!(root.join(format!("fuzz_targets/{}.rs", target.name)).exists(), "{}", target.name);
    }
    assert_eq!(fs::read_dir(root.join("fuzz_targets")).expect("they are there").count(), TARGETS.len());
}
