//! A capture may be larger than the machine's memory.

mod replay;

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::process::Stdio;
use std::thread;
use std::time::Duration;

use replay::*;
use testkit::pcap::{self, Format};

/// Of each of the two captures.
const MEGABYTES: usize = 200;
/// What replay may take, however long the captures are: the table of connections, its files' windows, the program itself.
const BOUND_KB: u64 = 100_000;

/// A capture of this many megabytes: the same records again and again.
fn write(setup: &Setup, name: &str, frame: &[u8]) -> usize {
    let header = pcap::encode(Format::MICRO, &[]);
    let record =
        pcap::encode(Format::MICRO, &pcap::records(1_000_000_000, [frame.to_vec()])).split_off(header.len());
    let per_block = (1 << 20) / record.len();
    let block = record.repeat(per_block);
    let mut file = BufWriter::new(File::create(setup.path(name)).unwrap());
    file.write_all(&header).unwrap();
    for _ in 0..MEGABYTES {
        file.write_all(&block).unwrap();
    }
    file.flush().unwrap();
    per_block * MEGABYTES
}

#[test]
fn a_capture_of_any_length_is_replayed_in_constant_memory() {
    let setup = Setup::new();
    let packets = write(&setup, "o.pcap", &question()) + write(&setup, "i.pcap", &answer());
    let mut command = setup.command(&["--inside", "i.pcap", "--outside", "o.pcap", "-o", "json"]);
    let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
    // The most that it ever had, of its own and of files; the last look is all but at the end.
    let (mut peak, mut looks) = (0, 0);
    while child.try_wait().unwrap().is_none() {
        if let Some(kilobytes) = high_water(child.id()) {
            (peak, looks) = (peak.max(kilobytes), looks + 1);
        }
        thread::sleep(Duration::from_millis(2));
    }
    let output = child.wait_with_output().unwrap();
    let summary: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(summary["packets"]["pass"], packets);
    assert!(looks > 20, "it was over before it was seen");
    assert!(peak > 1000 && peak < BOUND_KB, "{peak} kB for captures of {} MB", 2 * MEGABYTES);
}

fn high_water(process: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim().strip_suffix(" kB")?.parse().ok()
}
