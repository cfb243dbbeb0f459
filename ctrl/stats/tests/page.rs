//! Pages written and read, by this package's reader and by the one in Python.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use stats::{Family, Histogram, Kind, Reader, Unreadable, Writer};

/// Families of which every value is `n`, with so many series.
fn families(n: u64, series: usize) -> Vec<Family> {
    let mut packets = Family::new("nic_packets", Kind::Counter, &["nic", "verdict"], "Packets.");
    (0..series).for_each(|at| packets.push([format!("nic \"{at}\"").into(), "pass".into()], n));
    let bursts = Histogram { bounds: &[1.0, 2.5], counts: vec![n, n, n], sum: n as f64 };
    vec![
        packets,
        Family::new("flow_records", Kind::Counter, &["sink"], "None yet."),
        Family::new("burst", Kind::Histogram, &[], "Bursts.").of(bursts),
        Family::new("generation", Kind::Gauge, &[], "The generation.").with([], n),
    ]
}

#[test]
fn what_is_written_is_read_and_grows_and_outlives_its_writer() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("deep/down/stats");
    let mut writer = Writer::create(&path).unwrap();
    let mut reader = Reader::open(&path).unwrap();
    assert!(matches!(reader.read(), Err(Unreadable::Empty)));
    for (n, series) in [(1, 2), (2, 2), (3, 5000), (4, 5000), (5, 1), (6, 1), (7, 60_000)] {
        writer.write(&families(n, series)).unwrap();
        let page = reader.read().unwrap();
        assert_eq!(page.sum("portcullis_generation", &[]), Some(n));
        assert_eq!(page.sum("portcullis_nic_packets_total", &[("verdict", "pass")]), Some(n * series as u64));
        assert_eq!(page.sum("portcullis_nic_packets_total", &[("nic", "nic \"0\"")]), Some(n));
        assert_eq!(page.sum("portcullis_nic_packets_total", &[("nic", "nobody")]), None);
        let (family, labels, values) =
            page.series().find(|(family, ..)| family.name == "portcullis_burst").unwrap();
        assert_eq!((family.bounds.as_deref(), labels.len()), (Some(&[1.0, 2.5][..]), 0));
        assert_eq!((values, f64::from_bits(values[3])), (&[n, n, n, (n as f64).to_bits()][..], n as f64));
        assert_eq!((page.process, page.ended), (std::process::id(), None));
    }
    drop(writer);
    let page = reader.read().unwrap();
    assert!(page.ended.is_some_and(|ended| ended >= page.written && page.written >= page.started));
    assert_eq!(page.sum("portcullis_generation", &[]), Some(7));
}

#[test]
fn a_page_of_a_later_start_is_read_and_one_that_is_written_is_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("stats");
    let mut writer = Writer::create(&path).unwrap();
    writer.write(&families(1, 1)).unwrap();
    let refused = Writer::create(&path).err().unwrap();
    assert_eq!(refused.to_string(), "another process writes it");
    let mut reader = Reader::open(&path).unwrap();
    reader.read().unwrap();
    drop(writer);
    let mut writer = Writer::create(&path).unwrap();
    writer.write(&families(2, 3)).unwrap();
    assert_eq!(reader.read().unwrap().sum("portcullis_generation", &[]), Some(2));
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1, "nothing else is left there");
}

#[test]
fn what_is_no_page_is_told_as_such() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("stats");
    assert!(matches!(Reader::open(&path), Err(Unreadable::Io(_))));
    for (bytes, told) in [
        (vec![], "no stats page"),
        (vec![7; 8192], "no stats page"),
        ([&b"PCSTATS1\x02"[..], &[0; 8192]].concat(), "version 2"),
    ] {
        std::fs::write(&path, bytes).unwrap();
        let refused = Reader::open(&path).err().unwrap().to_string();
        assert!(refused.contains(told), "{refused}");
    }
    std::fs::remove_file(&path).unwrap();
    std::fs::create_dir(&path).unwrap();
    assert_eq!(Writer::create(&path).err().unwrap().to_string(), "something else than a file is there");
}

/// All values of a page are of one moment, however fast it is written.
#[test]
fn a_reader_never_sees_two_moments_at_once() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("stats");
    let mut writer = Writer::create(&path).unwrap();
    writer.write(&families(1, 101)).unwrap();
    let over = Arc::new(AtomicBool::new(false));
    let writes = {
        let over = over.clone();
        std::thread::spawn(move || {
            for n in 2.. {
                if over.load(Relaxed) {
                    return n;
                }
                // The directory changes, too.
                writer.write(&families(n, 100 + n as usize % 3)).unwrap();
                std::thread::yield_now();
            }
            0
        })
    };
    let (mut reader, mut last) = (Reader::open(&path).unwrap(), 0);
    for _ in 0..2000 {
        let Ok(page) = reader.read() else { continue };
        let n = page.sum("portcullis_generation", &[]).unwrap();
        let all: Vec<_> = page.series().filter(|(family, ..)| family.kind == "counter").collect();
        assert!(all.iter().all(|(.., values)| *values == [n]), "values of two moments");
        assert_eq!(all.len(), 100 + n as usize % 3, "the directory of another moment");
        assert!(n >= last, "it ran back");
        last = n;
    }
    over.store(true, Relaxed);
    assert!(writes.join().unwrap() > 2 && last > 1);
}

#[test]
fn the_reader_in_python_reads_the_same() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("stats");
    let mut writer = Writer::create(&path).unwrap();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/examples/stats.py");
    assert!(std::fs::read_to_string(&script).unwrap().lines().count() <= 100);
    for n in 1..4 {
        writer.write(&families(n, 2)).unwrap();
        let output = Command::new("python3").arg(&script).arg(&path).output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        for line in [
            format!("portcullis_nic_packets_total{{nic=\"nic \"1\"\",verdict=\"pass\"}} {n}"),
            format!("portcullis_burst{{}} {{'bounds': [1.0, 2.5], 'counts': ({n}, {n}, {n}), 'sum': {n}.0}}"),
            format!("portcullis_generation{{}} {n}"),
        ] {
            assert!(text.lines().any(|found| found == line), "{line}\n{text}");
        }
    }
}
