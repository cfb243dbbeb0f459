//! Prefixes and MAC addresses.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// An IP prefix whose host bits are zero, so that equal prefixes are equal values.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Prefix {
    addr: IpAddr,
    len: u8,
}

impl Prefix {
    /// The prefix of `len` bits that holds `addr`; `None` if the family has fewer bits.
    pub fn new(addr: IpAddr, len: u8) -> Option<Prefix> {
        // A shift by the whole width is no shift in Rust; `checked_shl` says so and means "nothing is left".
        let addr = match addr {
            IpAddr::V4(a) => {
                let host = 32u32.checked_sub(len.into())?;
                let mask = u32::MAX.checked_shl(host).unwrap_or(0);
                IpAddr::V4(Ipv4Addr::from(u32::from(a) & mask))
            }
            IpAddr::V6(a) => {
                let host = 128u32.checked_sub(len.into())?;
                let mask = u128::MAX.checked_shl(host).unwrap_or(0);
                IpAddr::V6(Ipv6Addr::from(u128::from(a) & mask))
            }
        };
        Some(Prefix { addr, len })
    }

    /// The lowest address of the prefix.
    pub fn addr(&self) -> IpAddr {
        self.addr
    }

    /// The number of leading bits that are given.
    #[expect(clippy::len_without_is_empty, reason = "the length of a prefix, not of a container")]
    pub fn len(&self) -> u8 {
        self.len
    }

    /// Whether it holds every address of its family.
    pub fn is_everything(&self) -> bool {
        self.len == 0
    }

    /// Whether it is one address and no more.
    pub fn is_host(&self) -> bool {
        self.len == if self.is_ipv4() { 32 } else { 128 }
    }

    /// Whether it is of IPv4.
    pub fn is_ipv4(&self) -> bool {
        self.addr.is_ipv4()
    }

    /// Whether `address` lies in it; no address of the other family does.
    pub fn contains(&self, address: IpAddr) -> bool {
        self.is_ipv4() == address.is_ipv4()
            && Prefix::new(address, self.len).is_some_and(|p| p.addr == self.addr)
    }
}

/// The IPv4 form of an IPv4-mapped IPv6 address or prefix (RFC 4291, 2.5.5.2), as it is to be written; `None` for everything else.
/// No packet bears a mapped address: what names one would never match.
pub fn ipv4_form(text: &str) -> Option<String> {
    let mapped: Prefix = text.parse().ok()?;
    let IpAddr::V6(address) = mapped.addr else { return None };
    let (address, len) = (address.to_ipv4_mapped()?, mapped.len.checked_sub(96)?);
    Some(if text.contains('/') { format!("{address}/{len}") } else { address.to_string() })
}

impl From<IpAddr> for Prefix {
    fn from(addr: IpAddr) -> Prefix {
        Prefix { addr, len: if addr.is_ipv4() { 32 } else { 128 } }
    }
}

/// The text is no prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InvalidPrefix;

impl FromStr for Prefix {
    type Err = InvalidPrefix;

    /// `ADDRESS/LENGTH` or a bare address, which is the prefix of that one address.
    fn from_str(text: &str) -> Result<Prefix, InvalidPrefix> {
        let Some((addr, len)) = text.split_once('/') else {
            return text.parse::<IpAddr>().map(Prefix::from).map_err(|_| InvalidPrefix);
        };
        // Integer parsing would take "+24" and "024", which no other tool writes.
        let canonical = len == "0" || (len.starts_with(|c: char| ('1'..='9').contains(&c)));
        let addr = addr.parse::<IpAddr>().map_err(|_| InvalidPrefix)?;
        let len = len.parse::<u8>().ok().filter(|_| canonical).ok_or(InvalidPrefix)?;
        Prefix::new(addr, len).ok_or(InvalidPrefix)
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.addr, self.len)
    }
}

/// The MAC address of one station: neither zero nor a multicast address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Mac([u8; 6]);

impl Mac {
    /// `None` for the zero address and for multicast ones, which no station sends from.
    pub fn new(bytes: [u8; 6]) -> Option<Mac> {
        (bytes != [0; 6] && bytes[0] & 1 == 0).then_some(Mac(bytes))
    }

    /// The six bytes as they stand on the wire.
    pub fn bytes(&self) -> [u8; 6] {
        self.0
    }
}

/// As the store keeps them: the text, read with the same care as a document's.
macro_rules! kept_as_text {
    ($type:ty, $what:literal) => {
        impl TryFrom<String> for $type {
            type Error = String;

            fn try_from(text: String) -> Result<Self, String> {
                text.parse().map_err(|_| format!(concat!("{} is no ", $what), text))
            }
        }

        impl From<$type> for String {
            fn from(value: $type) -> String {
                value.to_string()
            }
        }
    };
}

kept_as_text!(Prefix, "prefix");
kept_as_text!(Mac, "MAC address");

/// Why a text is no station's MAC address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InvalidMac {
    /// Not six pairs of hexadecimal digits.
    Format,
    /// A MAC address, but zero or multicast.
    NoStation,
}

impl FromStr for Mac {
    type Err = InvalidMac;

    /// Six pairs of hexadecimal digits with `:` or `-` between them, of either case.
    fn from_str(text: &str) -> Result<Mac, InvalidMac> {
        let separator = if text.contains('-') { '-' } else { ':' };
        let mut bytes = [0u8; 6];
        let mut pairs = text.split(separator);
        for byte in &mut bytes {
            let pair = pairs.next().ok_or(InvalidMac::Format)?;
            if pair.len() != 2 || !pair.bytes().all(|b| b.is_ascii_hexdigit()) {
                return Err(InvalidMac::Format);
            }
            *byte = u8::from_str_radix(pair, 16).map_err(|_| InvalidMac::Format)?;
        }
        if pairs.next().is_some() {
            return Err(InvalidMac::Format);
        }
        Mac::new(bytes).ok_or(InvalidMac::NoStation)
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}
