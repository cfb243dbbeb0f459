//! Captures for tests: written and read in a few lines, independent of what the product uses.

use std::{fs, io, path::Path};

/// How a pcap file writes its stamps and numbers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Format {
    /// Nanoseconds, else microseconds.
    pub nanoseconds: bool,
    /// Big-endian, else little-endian.
    pub big_endian: bool,
}

impl Format {
    /// Microseconds, little-endian: the classic.
    pub const MICRO: Format = Format { nanoseconds: false, big_endian: false };
    /// Nanoseconds, little-endian.
    pub const NANO: Format = Format { nanoseconds: true, big_endian: false };
}

/// A captured frame.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Record {
    /// Its stamp in nanoseconds since 1970.
    pub time: u64,
    /// How long it was on the wire; more than `data` if the snap length cut it.
    pub original: u32,
    /// What was captured.
    pub data: Vec<u8>,
}

impl Record {
    /// A whole frame.
    pub fn new(time: u64, data: Vec<u8>) -> Record {
        Record { time, original: data.len() as u32, data }
    }
}

/// Frames one microsecond apart, from `start` nanoseconds on.
pub fn records(start: u64, frames: impl IntoIterator<Item = Vec<u8>>) -> Vec<Record> {
    frames.into_iter().zip(0..).map(|(frame, n)| Record::new(start + n * 1000, frame)).collect()
}

/// A pcap file of Ethernet frames, as bytes.
pub fn encode(format: Format, records: &[Record]) -> Vec<u8> {
    let mut file = Vec::new();
    let u32s = |file: &mut Vec<u8>, values: &[u32]| {
        for value in values {
            file.extend(if format.big_endian { value.to_be_bytes() } else { value.to_le_bytes() });
        }
    };
    let magic = if format.nanoseconds { 0xa1b2_3c4d } else { 0xa1b2_c3d4 };
    // Version 2.4 is two 16-bit numbers.
    let version = if format.big_endian { 0x0002_0004 } else { 0x0004_0002 };
    u32s(&mut file, &[magic, version, 0, 0, 262_144, 1]);
    for record in records {
        let below = record.time % 1_000_000_000;
        let below = if format.nanoseconds { below } else { below / 1000 };
        let seconds = (record.time / 1_000_000_000) as u32;
        u32s(&mut file, &[seconds, below as u32, record.data.len() as u32, record.original]);
        file.extend(&record.data);
    }
    file
}

/// Writes a pcap file of Ethernet frames.
pub fn write(path: impl AsRef<Path>, format: Format, records: &[Record]) -> io::Result<()> {
    fs::write(path, encode(format, records))
}

/// Reads a pcap file of Ethernet frames of any [`Format`].
pub fn read(path: impl AsRef<Path>) -> io::Result<(Format, Vec<Record>)> {
    decode(&fs::read(path)?).map_err(|reason| io::Error::new(io::ErrorKind::InvalidData, reason))
}

/// The frames in the bytes of a pcap file.
pub fn decode(file: &[u8]) -> Result<(Format, Vec<Record>), String> {
    let word = |at: usize| -> Option<[u8; 4]> { file.get(at..at + 4)?.try_into().ok() };
    let magic = word(0).ok_or("no file header")?;
    let format = match (u32::from_le_bytes(magic), u32::from_be_bytes(magic)) {
        (0xa1b2_c3d4, _) => Format::MICRO,
        (0xa1b2_3c4d, _) => Format::NANO,
        (_, 0xa1b2_c3d4) => Format { big_endian: true, ..Format::MICRO },
        (_, 0xa1b2_3c4d) => Format { big_endian: true, ..Format::NANO },
        _ => return Err(format!("no pcap file: it begins with {magic:02x?}")),
    };
    let number = |at: usize| {
        let bytes = word(at).ok_or_else(|| format!("cut at offset {at}"))?;
        Ok::<u32, String>(if format.big_endian {
            u32::from_be_bytes(bytes)
        } else {
            u32::from_le_bytes(bytes)
        })
    };
    if number(20)? & 0xffff != 1 {
        return Err(format!("link type {} is not Ethernet", number(20)?));
    }
    let (mut at, mut records) = (24, Vec::new());
    while at < file.len() {
        let unit = if format.nanoseconds { 1 } else { 1000 };
        let time = u64::from(number(at)?) * 1_000_000_000 + u64::from(number(at + 4)?) * unit;
        let (captured, original) = (number(at + 8)? as usize, number(at + 12)?);
        let data = file.get(at + 16..at + 16 + captured).ok_or_else(|| format!("cut at offset {at}"))?;
        records.push(Record { time, original, data: data.to_vec() });
        at += 16 + captured;
    }
    Ok((format, records))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_again_in_every_format() {
        let whole = [
            Record::new(1_700_000_000_000_001_000, vec![1; 60]),
            Record::new(1_700_000_001_999_999_000, vec![]),
        ];
        for (nanoseconds, big_endian) in [(false, false), (false, true), (true, false), (true, true)] {
            let format = Format { nanoseconds, big_endian };
            assert_eq!(decode(&encode(format, &whole)), Ok((format, whole.to_vec())));
        }
        let cut = Record { time: 5, original: 1500, data: vec![7; 96] };
        assert_eq!(decode(&encode(Format::NANO, std::slice::from_ref(&cut))).unwrap().1, [cut]);
    }

    #[test]
    fn a_truncated_file_is_refused() {
        let file = encode(Format::MICRO, &records(0, [vec![0; 60]]));
        for length in (0..24).chain(25..file.len()) {
            assert!(decode(&file[..length]).is_err(), "cut to {length} bytes");
        }
    }

    /// Written by tcpdump, and by `scripts/record-capture`.
    #[test]
    fn the_recorded_captures_hold_each_sides_own_frames() {
        for (file, mac) in [("inside", 0x01), ("outside", 0x30)] {
            let path = format!("{}/../scripts/demo-data/{file}.pcap", env!("CARGO_MANIFEST_DIR"));
            let (format, records) = read(path).unwrap();
            assert!(format.nanoseconds && records.len() > 200, "{file}: {}", records.len());
            assert!(records.iter().all(|record| record.data[6..12] == [2, 0, 0, 0, 0, mac]), "{file}");
            assert!(records.is_sorted_by_key(|record| record.time), "{file}");
            // A big frame is cut, and says so.
            assert!(records.iter().all(|record| record.data.len() == record.original.min(128) as usize));
        }
    }
}
