//! The flow hash: keyed by a secret drawn at each start, so that nobody outside can aim at one bucket.

/// The per-boot secret.
#[derive(Clone, Copy)]
pub struct Secret([u64; 2]);

/// A key's hash: bucket and tag come from different bits of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct FlowHash(u64);

impl FlowHash {
    /// The bits that choose a bucket.
    #[inline]
    pub fn bucket(self) -> u32 {
        (self.0 >> 32) as u32
    }

    /// Never 0, which marks a free place.
    #[inline]
    pub(super) fn tag(self) -> u16 {
        self.0 as u16 | 1
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

    /// Of an IPv4 connection's key.
    #[inline]
    pub fn v4(&self, addr: u32, remote: u32, ports: u32, protocol: u8) -> FlowHash {
        // As the key lies in the entry: two loads.
        let a = u64::from(remote) << 32 | u64::from(addr);
        let b = u64::from(protocol) << 32 | u64::from(ports);
        FlowHash(fold(fold(a ^ self.0[0], b ^ self.0[1]) ^ self.0[1], 0x9E37_79B9_7F4A_7C15))
    }

    /// Of an IPv6 connection's key.
    #[inline]
    pub fn v6(&self, addr: u32, remote: u128, ports: u32, protocol: u8) -> FlowHash {
        let folded =
            fold(remote as u64 ^ self.0[0], (remote >> 64) as u64 ^ self.0[1] ^ 0x2545_F491_4F6C_DD1D);
        let a = u64::from(addr) << 32 ^ folded;
        let b = u64::from(ports) << 32 | u64::from(protocol) ^ folded >> 17;
        FlowHash(fold(fold(a ^ self.0[0], b ^ self.0[1]) ^ self.0[1], 0x9E37_79B9_7F4A_7C15))
    }
}

/// A hash of nothing.
pub const NO_HASH: FlowHash = FlowHash(0);
