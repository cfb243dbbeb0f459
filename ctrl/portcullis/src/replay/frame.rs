//! A captured packet as the engine reads it: an Ethernet frame, whatever the capture had in front of the IP packet.

use engine::io::Frame;

use super::capture::Link;
use super::merge::Merged;

/// Length of an Ethernet header.
const ETHERNET: usize = 14;

/// A captured frame: it stays where the file is mapped.
pub struct CapturedFrame<'a> {
    /// The packet.
    pub merged: Merged<'a>,
    /// Its number among those that wait to be written, if its verdict comes late.
    pub number: Option<u64>,
    form: Form,
}

/// How the frame differs from the captured bytes.
enum Form {
    /// In nothing.
    AsCaptured,
    /// Its link header is cut: nothing is left to read.
    Cut,
    /// In its beginning.
    Altered(Altered),
}

struct Altered {
    /// Stands in place of the first `skip` bytes.
    header: [u8; ETHERNET],
    skip: usize,
    /// Where an IP length stands in the frame, and what it is to be.
    ip_length: Option<(usize, u16)>,
}

impl<'a> CapturedFrame<'a> {
    /// Of a packet of a capture.
    #[inline]
    pub fn new(merged: Merged<'a>) -> CapturedFrame<'a> {
        let mut frame = CapturedFrame { merged, number: None, form: Form::AsCaptured };
        let data = merged.packet.data;
        if merged.packet.link != Link::ETHERNET || has_no_ip_length(data) {
            frame.alter();
        }
        frame
    }

    #[cold]
    fn alter(&mut self) {
        let packet = &self.merged.packet;
        let mut header = [0; ETHERNET];
        let Some(link) = packet.link.header(packet.data) else {
            if packet.link != Link::ETHERNET {
                self.form = Form::Cut;
            }
            return;
        };
        if packet.link == Link::ETHERNET {
            header.copy_from_slice(&packet.data[..ETHERNET]);
        } else {
            header[12..].copy_from_slice(&link.ethertype.to_be_bytes());
        }
        let mut altered = Altered { header, skip: link.length, ip_length: None };
        let length = self.merged.wire_len() + ETHERNET - link.length;
        altered.ip_length = ip_length(|at| altered.byte(packet.data, at)).map(|(at, start)| {
            // What a 16-bit length can say of the rest.
            (at, length.saturating_sub(start).min(usize::from(u16::MAX)) as u16)
        });
        self.form = Form::Altered(altered);
    }

    /// True if the capture has no Ethernet header, so that no Ethernet address is known.
    pub fn lacks_addresses(&self) -> bool {
        self.merged.packet.link != Link::ETHERNET
    }

    /// Sets the Ethernet source of a frame that lacks one.
    pub fn set_source(&mut self, mac: [u8; 6]) {
        if let Form::Altered(altered) = &mut self.form {
            altered.header[6..12].copy_from_slice(&mac);
        }
    }

    /// A byte of the frame.
    pub fn byte(&self, at: usize) -> Option<u8> {
        match &self.form {
            Form::AsCaptured => self.merged.packet.data.get(at).copied(),
            Form::Cut => None,
            Form::Altered(altered) => altered.byte(self.merged.packet.data, at),
        }
    }
}

impl Altered {
    fn byte(&self, data: &[u8], at: usize) -> Option<u8> {
        match self.header.get(at) {
            Some(byte) => Some(*byte),
            None => data.get(at - ETHERNET + self.skip).copied(),
        }
    }
}

impl Frame for CapturedFrame<'_> {
    #[inline]
    fn head(&self) -> &[u8] {
        self.merged.packet.data
    }

    #[inline]
    fn captured(&self) -> usize {
        let captured = self.merged.packet.data.len();
        match &self.form {
            Form::AsCaptured => captured,
            Form::Cut => 0,
            Form::Altered(altered) => captured + ETHERNET - altered.skip,
        }
    }

    #[inline]
    fn wire_len(&self) -> usize {
        let length = self.merged.wire_len();
        match &self.form {
            Form::Altered(altered) => length + ETHERNET - altered.skip,
            Form::AsCaptured | Form::Cut => length,
        }
    }

    fn stamp(&self) -> Option<u64> {
        Some(self.merged.packet.stamp.nanos())
    }

    fn index(&self) -> Option<u64> {
        Some(self.merged.packet.index)
    }

    #[inline]
    fn is_odd(&self) -> bool {
        !matches!(self.form, Form::AsCaptured)
    }

    fn gather(&self, out: &mut [u8]) -> usize {
        let data = self.merged.packet.data;
        let altered = match &self.form {
            Form::Altered(altered) => altered,
            Form::Cut => return 0,
            Form::AsCaptured => {
                let length = data.len().min(out.len());
                out[..length].copy_from_slice(&data[..length]);
                return length;
            }
        };
        let rest = &data[altered.skip..];
        let length = out.len().min(ETHERNET + rest.len());
        let Some((header, body)) = out[..length].split_at_mut_checked(ETHERNET) else { return 0 };
        header.copy_from_slice(&altered.header);
        body.copy_from_slice(&rest[..body.len()]);
        if let Some((at, value)) = altered.ip_length
            && let Some(field) = out.get_mut(at..at + 2)
        {
            field.copy_from_slice(&value.to_be_bytes());
        }
        length
    }
}

/// True of a frame, untagged or tagged, whose IP header states a length of 0: segmentation offload leaves it so.
#[inline]
fn has_no_ip_length(data: &[u8]) -> bool {
    // Nearly every frame is IP without a tag, and says so in two loads.
    match data.first_chunk::<20>() {
        Some([.., 0x08, 0x00, _, _, high, low, _, _]) => *high == 0 && *low == 0,
        _ => ip_length(|at| data.get(at).copied()).is_some(),
    }
}

/// Where a frame's IP length stands, if it is 0, and from where it counts.
fn ip_length(byte: impl Fn(usize) -> Option<u8>) -> Option<(usize, usize)> {
    let word = |at: usize| Some(u16::from_be_bytes([byte(at)?, byte(at + 1)?]));
    let mut l3 = ETHERNET;
    if matches!(word(l3 - 2)?, 0x8100 | 0x88A8) {
        l3 += 4;
    }
    let (at, start) = match word(l3 - 2)? {
        0x0800 => (l3 + 2, l3),
        0x86DD => (l3 + 4, l3 + 40),
        _ => return None,
    };
    (word(at)? == 0).then_some((at, start))
}
