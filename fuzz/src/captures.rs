//! Capture files of any bytes, read to their end: pcap, pcapng, compressed ones.

#[allow(dead_code, missing_docs, unreachable_pub)]
#[path = "../../ctrl/portcullis/src/replay/capture/mod.rs"]
mod capture;

use std::io::Write;

use capture::CaptureFile;
use testkit::pcap::Format;
use testkit::rng::Rng;

/// What is decompressed is written to a disk: not more than that of one input.
const MOST: usize = 1 << 20;

/// Reads it.
pub fn run(bytes: &[u8]) {
    if bytes.len() > MOST {
        return;
    }
    let file = tempfile::NamedTempFile::new_in("/dev/shm").or_else(|_| tempfile::NamedTempFile::new());
    let mut file = file.expect("a file");
    file.write_all(bytes).expect("room for it");
    let told = |bad: capture::BadCapture| assert!(!bad.to_string().is_empty());
    let opened = match CaptureFile::open(file.path()) {
        Ok(opened) => opened,
        Err(bad) => return told(bad),
    };
    let mut packets = match opened.packets() {
        Ok(packets) => packets,
        Err(bad) => return told(bad),
    };
    let (mut count, mut taken) = (0u64, 0usize);
    loop {
        match packets.next() {
            Ok(Some(packet)) => {
                assert_eq!(packet.index, count);
                (count, taken) = (count + 1, taken + packet.data.len());
                // A packet takes at least its header from the file, so that this ends.
                assert!(
                    taken <= bytes.len() || bytes.starts_with(&[0x1f, 0x8b]),
                    "more bytes than there are"
                );
            }
            Ok(None) => break,
            Err(bad) => return told(bad),
        }
    }
    if let Some(last) = count.checked_sub(1) {
        assert!(opened.packet(last).is_ok() && opened.packet(count).is_err());
    }
}

/// Captures of every format, with hostile frames.
pub fn seeds() -> Vec<Vec<u8>> {
    let directory = tempfile::tempdir().expect("a directory");
    let mut seeds = Vec::new();
    for (number, format) in
        [Format::MICRO, Format::NANO, Format { nanoseconds: true, big_endian: true }].into_iter().enumerate()
    {
        let frames = testkit::hostile::frames(number as u64, 6).filter(|frame| frame.len() < 2000);
        let records = testkit::pcap::records(1_700_000_000_000_000_000, frames);
        let path = directory.path().join(number.to_string());
        testkit::pcap::write(&path, format, &records).expect("a capture");
        let bytes = std::fs::read(path).expect("a capture");
        let mut zipped = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        zipped.write_all(&bytes).expect("room for it");
        seeds.push(zipped.finish().expect("room for it"));
        let mut cut = bytes.clone();
        cut.truncate(Rng::new(number as u64).below(bytes.len()));
        seeds.extend([bytes, cut]);
    }
    seeds.push(pcapng());
    seeds
}

/// A section, an interface of Ethernet, a packet of 60 bytes, a block that nobody knows.
fn pcapng() -> Vec<u8> {
    let block = |kind: u32, body: &[u8]| {
        let len = (12 + body.len() as u32).to_le_bytes();
        [&kind.to_le_bytes()[..], &len, body, &len].concat()
    };
    let section = [&0x1A2B_3C4Du32.to_le_bytes()[..], &[1, 0, 0, 0], &[0xff; 8]].concat();
    let interface = [1u16.to_le_bytes(), [0, 0], [0, 0], [4, 0]].concat();
    let packet =
        [&[0; 4][..], &7u32.to_le_bytes(), &[1; 4], &60u32.to_le_bytes(), &60u32.to_le_bytes(), &[0; 60]];
    [block(0x0A0D_0D0A, &section), block(1, &interface), block(6, &packet.concat()), block(0x0BAD, &[0; 8])]
        .concat()
}
