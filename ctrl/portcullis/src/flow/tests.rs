//! Files that grow and are put aside, disks that are full, and intervals of several lengths.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use control::compile::NamedRule;
use engine::conntrack::flow_accounting::{FlowCause, FlowEvent, FlowRecord, FlowTotals};
use engine::worker_totals::EndCause;
use engine::{Generation, NicSlot, RuleId};

use super::export::{Exporter, Protocol};
use super::file::LogFile;
use super::gather::FlowCollector;
use super::lines;
use super::record::{NameSource, Record};

struct NoNames;

impl NameSource for NoNames {
    fn nic(&mut self, _: NicSlot) -> Option<Arc<str>> {
        Some("web".into())
    }

    fn rule(&mut self, _: RuleId) -> Option<NamedRule> {
        None
    }
}

fn telling(port: u16, why: FlowCause, packets: u64, at: u64) -> FlowRecord {
    FlowRecord {
        nic: NicSlot(1),
        rule: RuleId::NONE,
        generation: Generation(3),
        protocol: 6,
        v6: false,
        inbound: true,
        why,
        icmp: 0,
        ports: 22 << 16 | u32::from(port),
        local: 0x0A05_0607,
        remote: 0xC633_6409,
        sums: FlowTotals { packets: [packets, 1], bytes: [packets * 100, 54] },
        opened_ns: 0,
        since_ns: at,
        last_ns: at + 5,
    }
}

fn line(number: u32) -> String {
    format!("{number:09}\n")
}

/// Everything in a log and in what was put aside, oldest first.
fn all(path: &Path) -> Vec<String> {
    let aside = (1..10).rev().map(|number| format!("{}.{number}", path.display()));
    let files = aside.chain([path.display().to_string()]);
    files.filter_map(|file| fs::read_to_string(file).ok()).flat_map(|text| lines_of(&text)).collect()
}

fn lines_of(text: &str) -> Vec<String> {
    text.lines().map(str::to_owned).collect()
}

#[test]
fn a_file_is_put_aside_before_it_is_too_long_and_the_oldest_goes() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("log");
    let mut file = LogFile::new(&path, 100, 3, "");
    let mut written = 0;
    // In one piece and in many: no line is parted, none is lost before three files of ten lines are full.
    let text: String = (0..25).map(line).collect();
    file.write(&text, &mut written).unwrap();
    assert_eq!(written, text.len());
    for number in 25..40 {
        file.write(&line(number), &mut written).unwrap();
    }
    assert_eq!(all(&path), (0..40).map(|n| line(n).trim().to_owned()).collect::<Vec<_>>());
    file.write(&line(40), &mut written).unwrap();
    assert_eq!(all(&path), (10..41).map(|n| line(n).trim().to_owned()).collect::<Vec<_>>());
    assert_eq!(fs::read_to_string(path.with_extension("1")).unwrap().len(), 100);
    // It goes on where it was, after a restart, too.
    let mut file = LogFile::new(&path, 100, 3, "");
    file.write(&line(41), &mut written).unwrap();
    assert_eq!(fs::read_to_string(&path).unwrap(), line(40) + &line(41));
    // Somebody else has put it aside.
    fs::rename(&path, directory.path().join("elsewhere")).unwrap();
    file.look();
    file.write(&line(42), &mut written).unwrap();
    assert_eq!(fs::read_to_string(&path).unwrap(), line(42));
}

#[test]
fn each_file_begins_with_its_header() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("log");
    let mut file = LogFile::new(&path, 40, 2, "the header\n");
    for number in 0..4 {
        file.write(&line(number), &mut 0).unwrap();
    }
    assert_eq!(fs::read_to_string(&path).unwrap(), format!("the header\n{}{}", line(2), line(3)));
    let aside = fs::read_to_string(path.with_extension("1")).unwrap();
    assert_eq!(aside, format!("the header\n{}{}", line(0), line(1)));
    assert_eq!(lines::AWS_HEADER.split_whitespace().count(), 18);
}

#[test]
fn a_full_disk_takes_whole_lines_only_and_goes_on_when_it_is_freed() {
    if !rustix::process::geteuid().is_root() {
        return eprintln!("SKIPPED: mounting needs root");
    }
    let directory = tempfile::tempdir().unwrap();
    let mount = |arguments: &[&str]| {
        let done = Command::new(arguments[0]).args(&arguments[1..]).arg(directory.path()).status().unwrap();
        assert!(done.success());
    };
    mount(&["mount", "-t", "tmpfs", "-o", "size=64k", "none"]);
    let path = directory.path().join("log");
    let mut file = LogFile::new(&path, 1 << 30, 2, "");
    let text: String = (0..20_000).map(line).collect();
    let mut written = 0;
    let refused = file.write(&text, &mut written).is_err();
    let mut taken = 0;
    while file.write(&line(taken), &mut 0).is_ok() {
        taken += 1;
    }
    let (full, filler) = (fs::read_to_string(&path).unwrap(), directory.path().join("filler"));
    fs::write(&filler, "").unwrap();
    fs::remove_file(&path).unwrap();
    file.look();
    let goes_on = file.write(&line(7), &mut 0).is_ok();
    let after = fs::read_to_string(&path).unwrap();
    drop(file);
    mount(&["umount", "-l"]);
    assert!(refused && written == 0, "none of it was kept in part");
    assert!(taken > 1000 && full.ends_with('\n') && lines_of(&full).len() == taken as usize);
    assert!(goes_on && after == line(7));
}

#[test]
fn a_longer_interval_gathers_what_a_shorter_one_tells() {
    let mut gatherer = FlowCollector::new(&[10, 30], 0);
    let mut told = [Vec::new(), Vec::new()];
    for (at, why) in
        [(10, FlowCause::Active), (20, FlowCause::Active), (25, FlowCause::Ended(EndCause::Closed))]
    {
        gatherer.take_up(&FlowEvent::Connection(telling(1000, why, 2, at)), 0, &mut NoNames);
        gatherer.take_up(&FlowEvent::Connection(telling(2000, FlowCause::Active, 1, at)), 0, &mut NoNames);
        gatherer.end_intervals(at, &mut NoNames);
        gatherer.take(|place, records, _| told[place].extend(records));
    }
    gatherer.end_intervals(30, &mut NoNames);
    gatherer.take(|place, records, _| told[place].extend(records));
    let brief = |records: &[Record]| {
        let one = |record: &Record| {
            (record.ports[0], record.reason(), record.packets, record.start_ns, record.end_ns)
        };
        records.iter().map(one).collect::<Vec<_>>()
    };
    assert_eq!(
        brief(&told[0]),
        [
            (1000, "active", [1, 2], 10, 15),
            (2000, "active", [1, 1], 10, 15),
            (1000, "active", [1, 2], 20, 25),
            (2000, "active", [1, 1], 20, 25),
            (1000, "closed", [1, 2], 25, 30),
            (2000, "active", [1, 1], 25, 30),
        ]
    );
    assert_eq!(brief(&told[1]), [(1000, "closed", [3, 6], 10, 30), (2000, "active", [3, 3], 10, 30)]);
}

#[test]
fn names_with_spaces_stay_one_field_and_those_of_nobody_are_dashes() {
    struct Odd(Option<Arc<str>>);
    impl NameSource for Odd {
        fn nic(&mut self, _: NicSlot) -> Option<Arc<str>> {
            self.0.clone()
        }

        fn rule(&mut self, _: RuleId) -> Option<NamedRule> {
            None
        }
    }
    let first = |name: Option<&str>| {
        let told = telling(1, FlowCause::Active, 1, 0);
        let mut text = String::new();
        lines::aws(&Record::of(&told, 0, &mut Odd(name.map(Into::into))), &mut text);
        text.split(' ').skip(1).take(2).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(first(Some("my shop/ürl 100%")), "my%20shop ürl%20100%25");
    assert_eq!(first(Some("-")), "default %2D");
    assert_eq!(first(None), "- -");
}

#[test]
fn datagrams_are_whole_and_templates_come_again() {
    let record = Record::of(&telling(1000, FlowCause::Active, 1, 0), 0, &mut NoNames);
    let records = vec![record; 1000];
    for protocol in [Protocol::NetFlow9, Protocol::Ipfix] {
        let mut exporter = Exporter::new(protocol, 7, 0);
        let (mut sequence, mut told, mut with_templates) = (0, 0, 0);
        let word = |bytes: &[u8], at: usize| u32::from_be_bytes(bytes[at..at + 4].try_into().unwrap());
        let half = |bytes: &[u8], at: usize| u16::from_be_bytes(bytes[at..at + 2].try_into().unwrap());
        let datagrams = exporter.datagrams(&records, 1_000_000_000);
        for datagram in &datagrams {
            let bytes = &datagram.bytes;
            let is_ipfix = protocol == Protocol::Ipfix;
            let head = if is_ipfix { 16 } else { 20 };
            assert!(bytes.len() <= 1232 && bytes.len() % 4 == 0, "{}", bytes.len());
            assert_eq!(word(bytes, head - 8), sequence);
            let mut sets = Vec::new();
            let mut at = head;
            while at < bytes.len() {
                sets.push(half(bytes, at));
                at += usize::from(half(bytes, at + 2));
            }
            assert_eq!(at, bytes.len());
            let has_templates = sets.len() > 1;
            with_templates += u32::from(has_templates);
            sequence += match protocol {
                Protocol::NetFlow9 => 1,
                Protocol::Ipfix => datagram.records as u32 + u32::from(has_templates),
            };
            if is_ipfix {
                assert_eq!(usize::from(half(bytes, 2)), bytes.len());
            }
            told += datagram.records;
        }
        assert_eq!(told, 1000);
        assert_eq!(with_templates as usize, datagrams.len().div_ceil(20));
        // After a pause they come at once.
        let later = exporter.datagrams(&records[..1], 60_000_000_000);
        assert!(later[0].bytes.len() > 300);
    }
}
