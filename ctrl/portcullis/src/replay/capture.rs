//! Captures as replay reads them: pcap and pcapng of Ethernet, mapped into memory and read where they lie.

use std::fs::File;
use std::path::{Path, PathBuf};

use memmap2::Mmap;
use pcap_parser::pcapng::{Block, parse_block_be, parse_block_le};
use pcap_parser::{LegacyPcapBlock, Linktype, PcapError, PcapHeader};
use pcap_parser::{parse_pcap_frame, parse_pcap_frame_be, parse_pcap_frame_modified, parse_pcap_header};

/// First bytes of every pcapng file.
const PCAPNG_MAGIC: [u8; 4] = [0x0A, 0x0D, 0x0D, 0x0A];
/// pcapng's packet block of old, without interface descriptions worth the name.
const OBSOLETE_PACKET_BLOCK: u32 = 2;

/// Why a capture cannot be read, with file and offset.
#[derive(Debug)]
pub struct BadCapture(String);

impl std::fmt::Display for BadCapture {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// A capture file in memory.
pub struct CaptureFile {
    path: PathBuf,
    map: Option<Mmap>,
}

impl CaptureFile {
    /// Maps it.
    pub fn open(path: &Path) -> Result<CaptureFile, BadCapture> {
        let fail = |error: std::io::Error| BadCapture(format!("{}: cannot read it: {error}", path.display()));
        let file = File::open(path).map_err(fail)?;
        let map = if file.metadata().map_err(fail)?.len() == 0 {
            None
        } else {
            // SAFETY: the bytes are only read, as bytes. Whoever shortens the file meanwhile ends this process by
            // SIGBUS, as with every mapped file; it has no state to lose.
            Some(unsafe { Mmap::map(&file) }.map_err(fail)?)
        };
        Ok(CaptureFile { path: path.to_owned(), map })
    }

    /// Its packets, from the first on.
    pub fn packets(&self) -> Result<Packets<'_>, BadCapture> {
        Packets::new(&self.path, self.map.as_deref().unwrap_or(&[]))
    }

    /// Its packet number `index`, from 0.
    pub fn packet(&self, index: u64) -> Result<Packet<'_>, BadCapture> {
        let mut packets = self.packets()?;
        while let Some(packet) = packets.next()? {
            if packet.index == index {
                return Ok(packet);
            }
        }
        let (path, count) = (self.path.display(), packets.index);
        Err(BadCapture(format!("{path}: no packet {index}; it has {count}, the first is 0")))
    }
}

/// A packet's time as its capture says it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stamp {
    /// Whole seconds since the UNIX epoch.
    pub seconds: u64,
    /// The rest, in units of 10^-`digits` s.
    pub fraction: u64,
    /// Decimal digits that the capture has.
    pub digits: u8,
}

impl Stamp {
    /// In nanoseconds; finer ones are cut.
    pub fn nanos(&self) -> u64 {
        let below = if self.digits <= 9 {
            self.fraction * 10u64.pow(9 - u32::from(self.digits))
        } else {
            self.fraction / 10u64.pow(u32::from(self.digits) - 9)
        };
        self.seconds.saturating_mul(1_000_000_000).saturating_add(below)
    }
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
}

/// Captured bytes, length on the wire, stamp.
type Record<'a> = (&'a [u8], u32, Stamp);

#[derive(Clone, Copy)]
enum Resolution {
    /// 10^-n s.
    Decimal(u8),
    /// 2^-n s; printed with nine digits.
    Binary(u8),
}

#[derive(Clone, Copy)]
struct Interface {
    resolution: Resolution,
    offset: i64,
}

impl Interface {
    fn stamp(&self, units: u64) -> Stamp {
        let (seconds, fraction, digits) = match self.resolution {
            Resolution::Decimal(n) => {
                let per_second = 10u64.pow(u32::from(n));
                (units / per_second, units % per_second, n)
            }
            Resolution::Binary(n) => {
                let below = u128::from(units) & ((1u128 << n) - 1);
                ((u128::from(units) >> n) as u64, ((below * 1_000_000_000) >> n) as u64, 9)
            }
        };
        Stamp { seconds: seconds.saturating_add_signed(self.offset), fraction, digits }
    }
}

type FrameParser =
    for<'a> fn(&'a [u8]) -> pcap_parser::nom::IResult<&'a [u8], LegacyPcapBlock<'a>, PcapError<&'a [u8]>>;

enum Format {
    Pcap { parse: FrameParser, digits: u8 },
    Pcapng { big_endian: bool, interfaces: Vec<Interface> },
}

/// The packets of a capture, one after the other.
pub struct Packets<'a> {
    path: PathBuf,
    data: &'a [u8],
    at: usize,
    format: Format,
    index: u64,
}

impl<'a> Packets<'a> {
    fn new(path: &Path, data: &'a [u8]) -> Result<Packets<'a>, BadCapture> {
        let mut packets = Packets {
            path: path.to_owned(),
            data,
            at: 0,
            format: Format::Pcapng { big_endian: false, interfaces: Vec::new() },
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
        packets.check_link_type(Linktype((header.network.0 as u32 & 0xFFFF) as i32), 20)?;
        packets.format = pcap_format(&header);
        Ok(packets)
    }

    fn bad(&self, what: impl std::fmt::Display) -> BadCapture {
        BadCapture(format!("{}: at byte {}: {what}", self.path.display(), self.at))
    }

    fn check_link_type(&mut self, link_type: Linktype, offset: usize) -> Result<(), BadCapture> {
        if link_type == Linktype::ETHERNET {
            return Ok(());
        }
        self.at = if offset == 20 { 20 } else { self.at };
        Err(self.bad(format_args!("link type {} found; allowed: 1 (Ethernet)", link_type.0)))
    }

    /// The next packet, or the end.
    pub fn next(&mut self) -> Result<Option<Packet<'a>>, BadCapture> {
        while self.at < self.data.len() {
            let packet = match &self.format {
                Format::Pcap { parse, digits } => {
                    let (parse, digits) = (*parse, *digits);
                    Some(self.next_record(parse, digits)?)
                }
                Format::Pcapng { .. } => self.next_block()?,
            };
            if let Some((data, original, stamp)) = packet {
                let index = self.index;
                self.index += 1;
                return Ok(Some(Packet { data, original, stamp, index }));
            }
        }
        Ok(None)
    }

    fn next_record(&mut self, parse: FrameParser, digits: u8) -> Result<Record<'a>, BadCapture> {
        let (rest, record) = match parse(&self.data[self.at..]) {
            Ok(parsed) => parsed,
            Err(_) => return Err(self.bad(format_args!("truncated: packet {} is not whole", self.index))),
        };
        let per_second = 10u64.pow(u32::from(digits));
        let (seconds, fraction) = (u64::from(record.ts_sec), u64::from(record.ts_usec));
        // Some writers let the fraction run over.
        let stamp =
            Stamp { seconds: seconds + fraction / per_second, fraction: fraction % per_second, digits };
        self.at = self.data.len() - rest.len();
        Ok((record.data, record.origlen, stamp))
    }

    fn next_block(&mut self) -> Result<Option<Record<'a>>, BadCapture> {
        let rest = &self.data[self.at..];
        let is_big = match &self.format {
            Format::Pcapng { big_endian, .. } => *big_endian,
            Format::Pcap { .. } => false,
        };
        let parsed = if is_big { parse_block_be(rest) } else { parse_block_le(rest) };
        let Ok((rest, block)) = parsed else {
            return Err(
                self.bad(format_args!("truncated: the block behind packet {} is not whole", self.index))
            );
        };
        let found = self.read_block(block)?;
        self.at = self.data.len() - rest.len();
        Ok(found)
    }

    fn read_block(&mut self, block: Block<'a>) -> Result<Option<Record<'a>>, BadCapture> {
        match block {
            Block::SectionHeader(section) => {
                self.format = Format::Pcapng { big_endian: section.big_endian(), interfaces: Vec::new() };
                Ok(None)
            }
            Block::InterfaceDescription(description) => {
                self.check_link_type(description.linktype, 8)?;
                let exponent = description.if_tsresol & 0x7F;
                let resolution = match description.if_tsresol & 0x80 != 0 {
                    false if exponent <= 19 => Resolution::Decimal(exponent),
                    true if exponent <= 63 => Resolution::Binary(exponent),
                    _ => return Err(self.bad("time resolution finer than 64 bits can count")),
                };
                if let Format::Pcapng { interfaces, .. } = &mut self.format {
                    interfaces.push(Interface { resolution, offset: description.if_tsoffset });
                }
                Ok(None)
            }
            Block::EnhancedPacket(packet) => {
                let interface = match &self.format {
                    Format::Pcapng { interfaces, .. } => interfaces.get(packet.if_id as usize).copied(),
                    Format::Pcap { .. } => None,
                };
                let Some(interface) = interface else {
                    return Err(self.bad(format_args!("packet {} is of no described interface", self.index)));
                };
                let Some(data) = packet.data.get(..packet.caplen as usize) else {
                    return Err(self.bad(format_args!("truncated: packet {} is not whole", self.index)));
                };
                let units = u64::from(packet.ts_high) << 32 | u64::from(packet.ts_low);
                Ok(Some((data, packet.origlen, interface.stamp(units))))
            }
            Block::SimplePacket(_) => Err(self.bad("a simple packet block, which has no timestamp")),
            Block::Unknown(block) if block.block_type == OBSOLETE_PACKET_BLOCK => {
                Err(self.bad("a packet block of the obsolete kind; allowed: enhanced packet blocks"))
            }
            _ => Ok(None),
        }
    }
}

fn is_pcap_magic(data: &[u8]) -> bool {
    let magic = [data[0], data[1], data[2], data[3]];
    [0xA1B2_C3D4u32, 0xA1B2_3C4D, 0xA1B2_CD34]
        .iter()
        .any(|m| magic == m.to_be_bytes() || magic == m.to_le_bytes())
}

fn pcap_format(header: &PcapHeader) -> Format {
    let digits = if header.is_nanosecond_precision() { 9 } else { 6 };
    let parse: FrameParser = match (header.is_bigendian(), header.is_modified_format()) {
        (true, _) => parse_pcap_frame_be,
        (false, true) => parse_pcap_frame_modified,
        (false, false) => parse_pcap_frame,
    };
    Format::Pcap { parse, digits }
}
