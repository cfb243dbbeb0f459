//! Link types (<https://www.tcpdump.org/linktypes.html>): what stands in front of the IP packet in a captured frame.

use pcap_parser::Linktype;

/// The link types that are read, as refusals list them.
const ALLOWED: &str = "1 (Ethernet), 0 (null), 108 (loop), 12, 14 and 101 (raw IP), 228 (IPv4), 229 (IPv6), \
                       113 and 276 (Linux cooked)";

const ETHERTYPE_IPV4: u16 = 0x0800;
const ETHERTYPE_IPV6: u16 = 0x86DD;
/// Reserved by IEEE 802: nothing that a policy knows.
const ETHERTYPE_NONE: u16 = 0xFFFF;

/// A link type by its number in captures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Link(u16);

/// What a link header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LinkHeader {
    /// Its length in bytes.
    pub length: usize,
    /// What follows.
    pub ethertype: u16,
    /// The host that captured it sent it (cooked captures alone know).
    pub is_sent: bool,
    /// The sender's Ethernet address, where the header has one.
    pub sender: Option<[u8; 6]>,
}

impl Link {
    /// Ethernet.
    pub const ETHERNET: Link = Link(1);

    /// Of a link type that is read; else what it is refused for.
    pub fn of(link_type: Linktype) -> Result<Link, String> {
        match link_type.0 {
            number @ (0 | 1 | 12 | 14 | 101 | 108 | 113 | 228 | 229 | 276) => Ok(Link(number as u16)),
            number => Err(format!("link type {number} found; allowed: {ALLOWED}")),
        }
    }

    /// Its number in captures.
    pub fn number(self) -> u16 {
        self.0
    }

    /// The header of a frame of this type; `None` if it is cut.
    pub fn header(self, frame: &[u8]) -> Option<LinkHeader> {
        let plain = |length, ethertype| LinkHeader { length, ethertype, is_sent: false, sender: None };
        let word = |at: usize| Some(u16::from_be_bytes([*frame.get(at)?, *frame.get(at + 1)?]));
        match self.0 {
            1 => Some(LinkHeader { sender: address(frame, 6), ..plain(14, word(12)?) }),
            // The address family of BSD: in the byte order of who captured (null), or the network's (loop).
            0 => {
                let bytes = *frame.first_chunk()?;
                let (little, big) = (u32::from_le_bytes(bytes), u32::from_be_bytes(bytes));
                Some(plain(4, of_family(little.min(big))))
            }
            108 => Some(plain(4, of_family(u32::from_be_bytes(*frame.first_chunk()?)))),
            113 => {
                let (direction, length, ethertype) = (word(0)?, word(4)?, word(14)?);
                let sender = address(frame, 6).filter(|_| length == 6);
                Some(LinkHeader { length: 16, ethertype, is_sent: direction == SENT, sender })
            }
            276 => {
                let (direction, length) = (*frame.get(10)?, *frame.get(11)?);
                let sender = address(frame, 12).filter(|_| length == 6);
                let is_sent = u16::from(direction) == SENT;
                frame.get(..20)?;
                Some(LinkHeader { length: 20, ethertype: word(0)?, is_sent, sender })
            }
            228 => Some(plain(0, ETHERTYPE_IPV4)),
            229 => Some(plain(0, ETHERTYPE_IPV6)),
            // Raw: the first four bits are the version.
            _ if frame.first()? >> 4 == 6 => Some(plain(0, ETHERTYPE_IPV6)),
            _ => Some(plain(0, ETHERTYPE_IPV4)),
        }
    }
}

/// Packet type "sent by us" of cooked headers.
const SENT: u16 = 4;

fn address(frame: &[u8], at: usize) -> Option<[u8; 6]> {
    frame.get(at..)?.first_chunk().copied()
}

fn of_family(family: u32) -> u16 {
    match family {
        2 => ETHERTYPE_IPV4,
        // Linux, NetBSD and OpenBSD, FreeBSD, Darwin.
        10 | 24 | 28 | 30 => ETHERTYPE_IPV6,
        _ => ETHERTYPE_NONE,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Length, ethertype, whether the host sent it.
    type Told = (usize, u16, bool);

    fn header(number: i32, frame: &[u8]) -> Option<Told> {
        let header = Link::of(Linktype(number)).unwrap().header(frame)?;
        Some((header.length, header.ethertype, header.is_sent))
    }

    #[test]
    fn each_type_tells_what_follows_and_a_cut_header_nothing() {
        let cooked = [0, 4, 0, 1, 0, 6, 2, 0, 0, 0, 0, 1, 0, 0, 8, 0];
        let cooked2 = [0x86, 0xDD, 0, 0, 0, 0, 0, 2, 0, 1, 4, 6, 2, 0, 0, 0, 0, 1, 0, 0];
        let cases: &[(i32, &[u8], Told)] = &[
            (0, &[2, 0, 0, 0], (4, 0x0800, false)),
            (0, &[0, 0, 0, 30], (4, 0x86DD, false)),
            (0, &[7, 0, 0, 0], (4, 0xFFFF, false)),
            (108, &[0, 0, 0, 24], (4, 0x86DD, false)),
            (12, &[0x45], (0, 0x0800, false)),
            (14, &[0x60], (0, 0x86DD, false)),
            (101, &[0x60], (0, 0x86DD, false)),
            (228, &[], (0, 0x0800, false)),
            (229, &[], (0, 0x86DD, false)),
            (113, &cooked, (16, 0x0800, true)),
            (276, &cooked2, (20, 0x86DD, true)),
        ];
        for (number, frame, expected) in cases {
            assert_eq!(header(*number, frame), Some(*expected), "link type {number}");
            for cut in 0..frame.len() {
                assert_eq!(header(*number, &frame[..cut]), None, "link type {number} cut to {cut}");
            }
        }
    }

    #[test]
    fn a_cooked_header_has_its_senders_address_only_where_it_is_of_six_bytes() {
        let mut cooked = [0, 0, 0, 1, 0, 6, 2, 0, 0, 0, 0, 1, 0, 0, 8, 0];
        let sender = |frame: &[u8]| Link::of(Linktype(113)).unwrap().header(frame).unwrap().sender;
        assert_eq!(sender(&cooked), Some([2, 0, 0, 0, 0, 1]));
        cooked[5] = 0;
        assert_eq!(sender(&cooked), None);
    }

    #[test]
    fn another_type_is_refused_by_its_number() {
        assert!(
            Link::of(Linktype(105)).unwrap_err().starts_with("link type 105 found; allowed: 1 (Ethernet)")
        );
    }
}
