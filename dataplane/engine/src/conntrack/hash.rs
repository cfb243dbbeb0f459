//! The flow hash: keyed by a secret drawn at each start, so that nobody outside can aim at one bucket.

use super::EntryKey;

/// The per-boot secret.
#[derive(Clone, Copy)]
pub struct Secret([u64; 2]);

/// A key's hash, as the index of one shard takes it. Two numbers rather than one, so that each is read and written as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct FlowHash {
    home: u32,
    tag: u16,
}

impl FlowHash {
    /// The home bucket.
    #[inline]
    pub(super) fn home(self) -> usize {
        self.home as usize
    }

    /// Never 0, which marks a free place.
    #[inline]
    pub(super) fn tag(self) -> u16 {
        self.tag
    }
}

/// A key's hash as it comes from the key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RawHash(u64);

impl RawHash {
    /// Its upper half, as well mixed as the lower one.
    #[inline]
    pub fn upper(self) -> u32 {
        (self.0 >> 32) as u32
    }

    /// For an index of so many buckets: fast range instead of a power of two (Lemire, 2016). Worked out once a packet, as a packet's
    /// bucket is asked for, and looked into, in passes of their own.
    #[inline]
    pub(super) fn within(self, buckets: usize) -> FlowHash {
        let home = (u64::from(self.upper()) * buckets as u64) >> 32;
        FlowHash { home: home as u32, tag: self.0 as u16 | 1 }
    }
}

/// Multiply and fold, as wyhash and its kin do: every bit of both words reaches the middle of the product.
#[inline]
fn fold(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b);
    product as u64 ^ (product >> 64) as u64
}

impl Secret {
    /// From two words of randomness.
    pub fn new(words: [u64; 2]) -> Secret {
        Secret(words)
    }

    /// Of an IPv4 connection's key; of its flags the protocol alone counts.
    #[inline(always)]
    pub fn v4(&self, key: &EntryKey) -> RawHash {
        // Ports and protocol.
        let (a, b) = (key.ends, key.rest & 0xFF_FFFF_FFFF);
        RawHash(fold(fold(a ^ self.0[0], b ^ self.0[1]) ^ self.0[1], 0x9E37_79B9_7F4A_7C15))
    }

    /// Of an IPv6 connection's key.
    #[inline]
    pub fn v6(&self, addr: u32, remote: u128, ports: u32, protocol: u8) -> RawHash {
        let folded =
            fold(remote as u64 ^ self.0[0], (remote >> 64) as u64 ^ self.0[1] ^ 0x2545_F491_4F6C_DD1D);
        let a = u64::from(addr) << 32 ^ folded;
        let b = u64::from(ports) << 32 | u64::from(protocol) ^ folded >> 17;
        RawHash(fold(fold(a ^ self.0[0], b ^ self.0[1]) ^ self.0[1], 0x9E37_79B9_7F4A_7C15))
    }
}

/// A hash of nothing.
pub const NO_HASH: FlowHash = FlowHash { home: 0, tag: 1 };
