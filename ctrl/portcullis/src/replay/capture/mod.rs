//! Captures as replay reads them: pcap and pcapng, plain or compressed by gzip, mapped into memory and read where they lie.
//!
//! Of a mapped file only a window stays in memory, however long it is: see [`Window`]. The commonest records and blocks are read
//! here, in a few loads; everything else, and everything odd, is left to the general parser.

mod link;
mod pcapng;
mod spool;
mod stamp;
mod window;

use std::fs::File;
use std::path::Path;

use memmap2::{Advice, Mmap};
use pcap_parser::{Linktype, PcapHeader, parse_pcap_header};

pub use link::Link;
use pcapng::Section;
pub use stamp::Stamp;
use window::Window;

/// First bytes of every pcapng file.
const PCAPNG_MAGIC: [u8; 4] = [0x0A, 0x0D, 0x0D, 0x0A];

/// Why a capture cannot be read, with file and offset.
#[derive(Debug)]
pub struct BadCapture(String);

impl std::fmt::Display for BadCapture {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// A capture file, mapped.
pub struct CaptureFile {
    /// As messages name it.
    name: String,
    map: Option<Mmap>,
}

impl CaptureFile {
    /// Maps it; `-` is standard input. What cannot be mapped (a pipe) or is compressed is written to a
    /// temporary file first, which has no name and goes with the process.
    pub fn open(path: &Path) -> Result<CaptureFile, BadCapture> {
        let is_stdin = path == Path::new("-");
        let mut name = if is_stdin { "standard input".to_owned() } else { path.display().to_string() };
        let fail = |error: std::io::Error| BadCapture(format!("{name}: cannot read it: {error}"));
        let file = if is_stdin {
            spool::copy(&mut std::io::stdin().lock()).map_err(fail)?
        } else {
            let mut file = File::open(path).map_err(fail)?;
            if file.metadata().map_err(fail)?.is_file() {
                file
            } else {
                spool::copy(&mut file).map_err(fail)?
            }
        };
        let mut map = mapped(&file).map_err(fail)?;
        if map.as_ref().is_some_and(|map| map.starts_with(&spool::GZIP_MAGIC)) {
            let plain = spool::decompress(&file).map_err(|what| BadCapture(format!("{name}: {what}")))?;
            map = mapped(&plain).map_err(fail)?;
            name.push_str(" (decompressed)");
        }
        if let Some(map) = &map {
            // Only a hint: without it the kernel reads ahead less.
            let _ = map.advise(Advice::Sequential);
        }
        Ok(CaptureFile { name, map })
    }

    /// Its packets, from the first on.
    pub fn packets(&self) -> Result<Packets<'_>, BadCapture> {
        Packets::new(self)
    }

    /// Its packet number `index`, from 0.
    pub fn packet(&self, index: u64) -> Result<Packet<'_>, BadCapture> {
        let mut packets = self.packets()?;
        while let Some(packet) = packets.next()? {
            if packet.index == index {
                return Ok(packet);
            }
        }
        let (name, count) = (&self.name, packets.index);
        Err(BadCapture(format!("{name}: no packet {index}; it has {count}, the first is 0")))
    }
}

/// A file's bytes; of an empty one none.
fn mapped(file: &File) -> std::io::Result<Option<Mmap>> {
    if file.metadata()?.len() == 0 {
        return Ok(None);
    }
    // SAFETY: the bytes are only read, as bytes. Whoever shortens the file meanwhile ends this process by
    // SIGBUS, as with every mapped file; it has no state to lose.
    Ok(Some(unsafe { Mmap::map(file) }?))
}

/// One packet.
#[derive(Clone, Copy, Debug)]
pub struct Packet<'a> {
    /// Its captured bytes.
    pub data: &'a [u8],
    /// Bytes it had on the wire.
    pub original: u32,
    /// Its time.
    pub stamp: Stamp,
    /// Its place in its file, from 0.
    pub index: u64,
    /// What its bytes begin with.
    pub link: Link,
}

/// Captured bytes, length on the wire, stamp, link type.
type Record<'a> = (&'a [u8], u32, Stamp, Link);

enum Format {
    Pcap(Records),
    Pcapng(Section),
}

/// How the records of a pcap file are written.
#[derive(Clone, Copy)]
struct Records {
    big_endian: bool,
    /// Bytes of a record's header: 16, or 24 in the variant of old Linux distributions ("modified").
    header: usize,
    digits: u8,
    link: Link,
}

impl Records {
    fn new(header: &PcapHeader, link: Link) -> Records {
        Records {
            link,
            big_endian: header.is_bigendian(),
            header: if header.is_modified_format() { 24 } else { 16 },
            digits: if header.is_nanosecond_precision() { 9 } else { 6 },
        }
    }

    /// The record at the beginning of `data`, and its length; `None` if it is not whole.
    #[inline]
    fn read<'a>(&self, data: &'a [u8]) -> Option<(Record<'a>, usize)> {
        let words: &[u8; 16] = data.first_chunk()?;
        let word = |at: usize| {
            let bytes = [words[at], words[at + 1], words[at + 2], words[at + 3]];
            if self.big_endian { u32::from_be_bytes(bytes) } else { u32::from_le_bytes(bytes) }
        };
        let end = self.header + word(8) as usize;
        let packet = data.get(self.header..end)?;
        Some(((packet, word(12), Stamp::decimal(word(0), word(4), self.digits), self.link), end))
    }
}

/// The packets of a capture, one after the other.
pub struct Packets<'a> {
    name: &'a str,
    data: &'a [u8],
    at: usize,
    window: Window<'a>,
    format: Format,
    index: u64,
}

impl<'a> Packets<'a> {
    fn new(file: &'a CaptureFile) -> Result<Packets<'a>, BadCapture> {
        let data = file.map.as_deref().unwrap_or(&[]);
        let mut packets = Packets {
            name: &file.name,
            data,
            at: 0,
            window: Window::new(file.map.as_ref()),
            format: Format::Pcapng(Section::default()),
            index: 0,
        };
        if data.len() < 4 {
            return Err(packets.bad("truncated: it ends within its header"));
        }
        if data[..4] == PCAPNG_MAGIC {
            return Ok(packets);
        }
        let header = match parse_pcap_header(data) {
            Ok((rest, header)) => {
                packets.at = data.len() - rest.len();
                header
            }
            Err(pcap_parser::nom::Err::Incomplete(_)) if is_pcap_magic(data) => {
                return Err(packets.bad("truncated: it ends within its header"));
            }
            Err(_) => {
                return Err(
                    packets.bad("neither pcap nor pcapng: its first bytes are those of another format")
                );
            }
        };
        let link_type = Linktype((header.network.0 as u32 & 0xFFFF) as i32);
        let link = Link::of(link_type).map_err(|what| {
            packets.at = 20;
            packets.bad(what)
        })?;
        packets.format = Format::Pcap(Records::new(&header, link));
        Ok(packets)
    }

    #[cold]
    fn bad(&self, what: impl std::fmt::Display) -> BadCapture {
        BadCapture(format!("{}: at byte {}: {what}", self.name, self.at))
    }

    /// The next packet, or the end.
    #[inline]
    pub fn next(&mut self) -> Result<Option<Packet<'a>>, BadCapture> {
        self.window.reached(self.at);
        let record = match &mut self.format {
            Format::Pcap(_) if self.at == self.data.len() => return Ok(None),
            Format::Pcap(records) => match records.read(&self.data[self.at..]) {
                Some((record, length)) => {
                    self.at += length;
                    Some(record)
                }
                None => {
                    return Err(self.bad(format_args!("truncated: packet {} is not whole", self.index)));
                }
            },
            Format::Pcapng(_) => self.next_in_blocks()?,
        };
        Ok(record.map(|(data, original, stamp, link)| {
            let index = self.index;
            self.index += 1;
            Packet { data, original, stamp, index, link }
        }))
    }

    /// The packet of the next block that holds one.
    #[inline]
    fn next_in_blocks(&mut self) -> Result<Option<Record<'a>>, BadCapture> {
        while self.at < self.data.len() {
            let Format::Pcapng(section) = &mut self.format else { break };
            let rest = &self.data[self.at..];
            let read = match section.plain_packet(rest) {
                Some((record, length)) => Ok((Some(record), length)),
                None => section.any_block(rest, self.index),
            };
            let (record, length) = read.map_err(|what| self.bad(what))?;
            self.at += length;
            if record.is_some() {
                return Ok(record);
            }
            self.window.reached(self.at);
        }
        Ok(None)
    }
}

fn is_pcap_magic(data: &[u8]) -> bool {
    let magic = [data[0], data[1], data[2], data[3]];
    [0xA1B2_C3D4u32, 0xA1B2_3C4D, 0xA1B2_CD34]
        .iter()
        .any(|m| magic == m.to_be_bytes() || magic == m.to_le_bytes())
}
