//! pcapng's blocks.

use pcap_parser::Linktype;
use pcap_parser::pcapng::{Block, InterfaceDescriptionBlock, OptionCode, parse_block_be, parse_block_le};

use super::stamp::Resolution;
use super::{Link, Record};

/// pcapng's packet block of old, without interface descriptions worth the name.
const OBSOLETE_PACKET_BLOCK: u32 = 2;
const ENHANCED_PACKET_BLOCK: u32 = 6;
/// A section's header, in whatever byte order: its own comes with it.
const SECTION_HEADER_BLOCK: [u8; 4] = [0x0A, 0x0D, 0x0D, 0x0A];
/// Bytes of a block without content: its type and twice its length.
const LEAST_BLOCK: u32 = 12;
/// Of an enhanced packet block: header and the length behind the packet.
const HEADER: usize = 28;
const FRAMING: usize = HEADER + 4;

/// What is known of the section that is being read.
#[derive(Default)]
pub struct Section {
    big_endian: bool,
    interfaces: Vec<Interface>,
}

#[derive(Clone, Copy)]
struct Interface {
    resolution: Resolution,
    /// Seconds to add to every stamp.
    offset: i64,
    /// `None`: one that is not read; it harms nothing as long as no packet is of it.
    link: Option<Link>,
    /// As the capture says it.
    link_type: Linktype,
}

impl Section {
    /// An enhanced packet block without options, with the block's length: nearly every block of every capture. `None` leaves
    /// all others, and any that is odd, to [`Section::any_block`].
    #[inline]
    pub fn plain_packet<'a>(&self, data: &'a [u8]) -> Option<(Record<'a>, usize)> {
        let header: &[u8; HEADER] = data.first_chunk()?;
        let word = |at: usize| self.number([header[at], header[at + 1], header[at + 2], header[at + 3]]);
        let (length, captured) = (word(4) as usize, word(20) as usize);
        if word(0) != ENHANCED_PACKET_BLOCK || length != FRAMING + captured.next_multiple_of(4) {
            return None;
        }
        let closing = data.get(..length)?.last_chunk::<4>()?;
        if self.number(*closing) as usize != length {
            return None;
        }
        let interface = self.interfaces.get(word(8) as usize)?;
        let units = u64::from(word(12)) << 32 | u64::from(word(16));
        let stamp = interface.resolution.stamp(units, interface.offset);
        Some(((&data[HEADER..HEADER + captured], word(24), stamp, interface.link?), length))
    }

    #[inline]
    fn number(&self, bytes: [u8; 4]) -> u32 {
        if self.big_endian { u32::from_be_bytes(bytes) } else { u32::from_le_bytes(bytes) }
    }

    /// What an interface adds to its stamps. Read here, in the section's byte order: the parser takes it for little-endian always.
    fn offset_of(&self, description: &InterfaceDescriptionBlock) -> i64 {
        let option = description.options.iter().find(|option| option.code == OptionCode::IfTsoffset);
        let bytes = option.and_then(|option| option.value.first_chunk::<8>().copied());
        let read = if self.big_endian { i64::from_be_bytes } else { i64::from_le_bytes };
        bytes.map_or(0, read)
    }

    /// Any block, with its length: the packet that it holds, or what it is refused for. `index` is the next packet's.
    #[cold]
    pub fn any_block<'a>(
        &mut self,
        data: &'a [u8],
        index: u64,
    ) -> Result<(Option<Record<'a>>, usize), String> {
        // The parser counts on it.
        if let Some(&[a, b, c, d, length @ ..]) = data.first_chunk::<8>()
            && [a, b, c, d] != SECTION_HEADER_BLOCK
            && self.number(length) < LEAST_BLOCK
        {
            let length = self.number(length);
            return Err(format!(
                "the block behind packet {index} says that it has {length} bytes; the least is {LEAST_BLOCK}"
            ));
        }
        let parsed = if self.big_endian { parse_block_be(data) } else { parse_block_le(data) };
        let Ok((rest, block)) = parsed else {
            return Err(format!("truncated: the block behind packet {index} is not whole"));
        };
        Ok((self.read(block, index)?, data.len() - rest.len()))
    }

    fn read<'a>(&mut self, block: Block<'a>, index: u64) -> Result<Option<Record<'a>>, String> {
        match block {
            Block::SectionHeader(section) => {
                *self = Section { big_endian: section.big_endian(), interfaces: Vec::new() };
                Ok(None)
            }
            Block::InterfaceDescription(description) => {
                let (link_type, link) = (description.linktype, Link::of(description.linktype).ok());
                let Some(resolution) = Resolution::of(description.if_tsresol) else {
                    return Err("time resolution finer than 64 bits can count".to_owned());
                };
                let offset = self.offset_of(&description);
                self.interfaces.push(Interface { resolution, offset, link, link_type });
                Ok(None)
            }
            Block::EnhancedPacket(packet) => {
                let Some(interface) = self.interfaces.get(packet.if_id as usize) else {
                    return Err(format!("packet {index} is of no described interface"));
                };
                let Some(data) = packet.data.get(..packet.caplen as usize) else {
                    return Err(format!("truncated: packet {index} is not whole"));
                };
                let link = Link::of(interface.link_type).map_err(|what| format!("packet {index}: {what}"))?;
                let units = u64::from(packet.ts_high) << 32 | u64::from(packet.ts_low);
                let stamp = interface.resolution.stamp(units, interface.offset);
                Ok(Some((data, packet.origlen, stamp, link)))
            }
            Block::SimplePacket(_) => Err("a simple packet block, which has no timestamp".to_owned()),
            Block::Unknown(block) if block.block_type == OBSOLETE_PACKET_BLOCK => {
                Err("a packet block of the obsolete kind; allowed: enhanced packet blocks".to_owned())
            }
            _ => Ok(None),
        }
    }
}
