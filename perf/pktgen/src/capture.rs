//! Captures: pcap and pcapng of Ethernet read into memory, pcap with nanoseconds written.

use std::fmt;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use pcap_parser::pcapng::{Block, parse_block_be, parse_block_le};
use pcap_parser::{Linktype, parse_pcap_header};

/// First bytes of every pcapng file.
const PCAPNG: [u8; 4] = [0x0A, 0x0D, 0x0D, 0x0A];
/// Frames that a port carries: headers at least, and at most what an MTU of 1,500 and two VLAN tags
/// allow.
const LENGTHS: std::ops::RangeInclusive<usize> = 14..=1522;
/// pcap's magic for nanoseconds, version 2.4, no zone, no accuracy, snap length, Ethernet.
const HEADER: [u32; 6] = [0xA1B2_3C4D, 2 | 4 << 16, 0, 0, 262_144, 1];
const NANOS: u128 = 1_000_000_000;

/// Why a capture cannot be played: its file, the place, what was found, what is allowed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadCapture(String);

impl fmt::Display for BadCapture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for BadCapture {}

/// The frames of a capture.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Capture {
    bytes: Vec<u8>,
    /// Nanoseconds since 1970, and where the bytes are.
    frames: Vec<(u64, usize, usize)>,
}

impl Capture {
    /// Reads a file: pcap of either byte order and precision, or pcapng. A frame that the capture
    /// cut is played as it is there.
    pub fn read(path: &Path) -> Result<Capture, BadCapture> {
        let fail = |what: String| BadCapture(format!("{}: {what}", path.display()));
        let file = std::fs::read(path).map_err(|error| fail(format!("cannot read it: {error}")))?;
        let mut capture = Capture::default();
        let read =
            if file.starts_with(&PCAPNG) { capture.read_blocks(&file) } else { capture.read_records(&file) };
        read.map_err(|(at, what)| fail(format!("at byte {at}: {what}")))?;
        if capture.frames.is_empty() {
            return Err(fail("holds no frame; allowed: at least one".to_owned()));
        }
        Ok(capture)
    }

    /// How many frames there are.
    pub fn len(&self) -> usize {
        self.frames.len()
    }

    /// True without a frame.
    pub fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }

    /// A frame, with its time in nanoseconds since 1970.
    pub fn frame(&self, index: usize) -> (u64, &[u8]) {
        let (time, start, length) = self.frames[index];
        (time, &self.bytes[start..start + length])
    }

    fn push(&mut self, time: u64, frame: &[u8]) -> Result<(), String> {
        let (index, length) = (self.frames.len(), frame.len());
        if !LENGTHS.contains(&length) {
            let (least, most) = LENGTHS.into_inner();
            return Err(format!("packet {index} has {length} bytes; allowed: {least} to {most}"));
        }
        self.frames.push((time, self.bytes.len(), length));
        self.bytes.extend_from_slice(frame);
        Ok(())
    }

    fn read_records(&mut self, file: &[u8]) -> Result<(), (usize, String)> {
        let Ok((rest, header)) = parse_pcap_header(file) else {
            return Err((0, "neither pcap nor pcapng found; allowed: one of them".to_owned()));
        };
        if Linktype((header.network.0 as u32 & 0xFFFF) as i32) != Linktype::ETHERNET {
            return Err((20, link_type(header.network)));
        }
        let (record, mut at) = (if header.is_modified_format() { 24 } else { 16 }, file.len() - rest.len());
        let unit = if header.is_nanosecond_precision() { 1 } else { 1000 };
        while at < file.len() {
            let word = |place: usize| -> Option<u32> {
                let bytes = file.get(at + place..at + place + 4)?.try_into().ok()?;
                Some(if header.is_bigendian() {
                    u32::from_be_bytes(bytes)
                } else {
                    u32::from_le_bytes(bytes)
                })
            };
            let read = || {
                let (seconds, part, length) = (word(0)?, word(4)?, word(8)? as usize);
                let frame = file.get(at + record..at.checked_add(record + length)?)?;
                Some((u64::from(seconds) * NANOS as u64 + u64::from(part) * unit, frame))
            };
            let Some((time, frame)) = read() else {
                return Err((at, format!("packet {} is not whole", self.frames.len())));
            };
            self.push(time, frame).map_err(|what| (at, what))?;
            at += record + frame.len();
        }
        Ok(())
    }

    fn read_blocks(&mut self, file: &[u8]) -> Result<(), (usize, String)> {
        let (mut at, mut big_endian) = (0, false);
        // Units of a second, and seconds to add, of each interface.
        let mut interfaces: Vec<(u64, i64)> = Vec::new();
        while at < file.len() {
            let parsed = if big_endian { parse_block_be(&file[at..]) } else { parse_block_le(&file[at..]) };
            let Ok((rest, block)) = parsed else {
                return Err((at, format!("the block behind packet {} is not whole", self.frames.len())));
            };
            match block {
                Block::SectionHeader(section) => {
                    big_endian = section.big_endian();
                    interfaces.clear();
                }
                Block::InterfaceDescription(interface) if interface.linktype != Linktype::ETHERNET => {
                    return Err((at, link_type(interface.linktype)));
                }
                Block::InterfaceDescription(interface) => {
                    let resolution = interface.ts_resolution().filter(|units| *units > 0);
                    interfaces.push((resolution.unwrap_or(1_000_000), interface.ts_offset()));
                }
                Block::EnhancedPacket(packet) => {
                    let read = || {
                        let (units, offset) = *interfaces.get(packet.if_id as usize)?;
                        let stamp = u128::from(u64::from(packet.ts_high) << 32 | u64::from(packet.ts_low));
                        let nanos =
                            (stamp * NANOS / u128::from(units)) as i128 + i128::from(offset) * NANOS as i128;
                        Some((nanos.max(0) as u64, packet.data.get(..packet.caplen as usize)?))
                    };
                    let Some((time, frame)) = read() else {
                        return Err((
                            at,
                            format!("packet {} is not whole, or of no interface", self.frames.len()),
                        ));
                    };
                    self.push(time, frame).map_err(|what| (at, what))?;
                }
                Block::SimplePacket(packet) => self.push(0, packet.data).map_err(|what| (at, what))?,
                _ => {}
            }
            at = file.len() - rest.len();
        }
        Ok(())
    }
}

fn link_type(found: Linktype) -> String {
    format!("link type {} found; allowed: 1 (Ethernet)", found.0)
}

/// A pcap file that is being written.
#[derive(Debug)]
pub struct Writer {
    file: BufWriter<File>,
    failed: Option<io::Error>,
}

impl Writer {
    /// Begins a file, in place of what was there.
    pub fn create(path: &Path) -> io::Result<Writer> {
        let mut file = BufWriter::with_capacity(1 << 18, File::create(path)?);
        for word in HEADER {
            file.write_all(&word.to_le_bytes())?;
        }
        Ok(Writer { file, failed: None })
    }

    /// Writes a frame with the time of now. After a failure nothing more is written;
    /// [`Writer::finish`] tells it.
    pub fn write(&mut self, frame: &[u8]) {
        if self.failed.is_none() {
            self.failed = self.try_write(frame).err();
        }
    }

    fn try_write(&mut self, frame: &[u8]) -> io::Result<()> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let length = frame.len() as u32;
        for word in [now.as_secs() as u32, now.subsec_nanos(), length, length] {
            self.file.write_all(&word.to_le_bytes())?;
        }
        self.file.write_all(frame)
    }

    /// Ends the file; an error if any of it could not be written.
    pub fn finish(mut self) -> io::Result<()> {
        self.failed.take().map_or(Ok(()), Err)?;
        self.file.flush()
    }
}

#[cfg(test)]
mod tests {
    use testkit::pcap::{self, Format, Record};

    use super::*;

    fn read(bytes: &[u8]) -> Result<Capture, String> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), bytes).unwrap();
        let name = format!("{}: ", file.path().display());
        Capture::read(file.path()).map_err(|bad| bad.to_string().replace(&name, ""))
    }

    #[test]
    fn every_form_of_pcap_is_read() {
        let records = [
            Record::new(1_700_000_000_000_001_000, vec![1; 60]),
            Record::new(1_700_000_001_999_999_000, vec![2; 1522]),
        ];
        for (nanoseconds, big_endian) in [(false, false), (false, true), (true, false), (true, true)] {
            let capture = read(&pcap::encode(Format { nanoseconds, big_endian }, &records)).unwrap();
            assert_eq!(capture.len(), 2);
            for (n, record) in records.iter().enumerate() {
                assert_eq!(capture.frame(n), (record.time, &record.data[..]));
            }
        }
    }

    #[test]
    fn pcapng_is_read_with_its_resolutions() {
        let block = |kind: u32, body: &[u8]| {
            let length = (12 + body.len()) as u32;
            [&kind.to_le_bytes()[..], &length.to_le_bytes(), body, &length.to_le_bytes()].concat()
        };
        let section =
            block(0x0A0D_0D0A, &[0x4D, 0x3C, 0x2B, 0x1A, 1, 0, 0, 0, 255, 255, 255, 255, 255, 255, 255, 255]);
        let micro = block(1, &[1, 0, 0, 0, 0, 0, 4, 0]);
        let nano = block(1, &[1, 0, 0, 0, 0, 0, 4, 0, 9, 0, 1, 0, 9, 0, 0, 0, 0, 0, 0, 0]);
        let packet = |interface: u32, stamp: u32| {
            let words = [interface, 0, stamp, 16, 16].map(u32::to_le_bytes).concat();
            block(6, &[&words[..], &[7; 16]].concat())
        };
        let file = [section.clone(), micro, nano, packet(0, 5), packet(1, 5)].concat();
        let capture = read(&file).unwrap();
        assert_eq!((capture.frame(0), capture.frame(1)), ((5000, &[7; 16][..]), (5, &[7; 16][..])));
        assert_eq!(
            read(&file[..file.len() - 1]).unwrap_err(),
            format!("at byte {}: the block behind packet 1 is not whole", file.len() - 48)
        );
        let other = block(1, &[101, 0, 0, 0, 0, 0, 4, 0]);
        assert_eq!(
            read(&[section, other].concat()).unwrap_err(),
            "at byte 28: link type 101 found; allowed: 1 (Ethernet)"
        );
    }

    #[test]
    fn what_cannot_be_played_is_refused_with_its_place() {
        let file = pcap::encode(Format::MICRO, &pcap::records(0, [vec![0; 60], vec![0; 60]]));
        assert_eq!(read(&file[..file.len() - 1]).unwrap_err(), "at byte 100: packet 1 is not whole");
        assert_eq!(
            read(b"GET / HTTP/1.1\r\n").unwrap_err(),
            "at byte 0: neither pcap nor pcapng found; allowed: one of them"
        );
        assert_eq!(read(&file[..24]).unwrap_err(), "holds no frame; allowed: at least one");
        let long = pcap::encode(Format::MICRO, &pcap::records(0, [vec![0; 1523]]));
        assert_eq!(read(&long).unwrap_err(), "at byte 24: packet 0 has 1523 bytes; allowed: 14 to 1522");
    }

    #[test]
    fn what_is_written_is_read_again() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let mut writer = Writer::create(file.path()).unwrap();
        writer.write(&[1; 60]);
        writer.write(&[2; 1514]);
        writer.finish().unwrap();
        let capture = Capture::read(file.path()).unwrap();
        assert_eq!((capture.frame(0).1, capture.frame(1).1), (&[1; 60][..], &[2; 1514][..]));
        assert!(capture.frame(0).0 > 1_700_000_000_000_000_000 && capture.frame(0).0 <= capture.frame(1).0);
    }
}
