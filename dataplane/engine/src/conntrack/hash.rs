//! The flow hash: keyed by a secret drawn at each start, so that nobody outside can aim at one
//! bucket.

use super::EntryKey;
use crate::mix::fold;
use crate::rss::{RSS_PATTERN, drawn_pattern};

/// The per-boot secret.
#[derive(Clone, Copy)]
pub struct Secret {
    words: [u64; 2],
    /// Of the hash that spreads connections over the workers, see [`crate::handoff`].
    pattern: u16,
}

/// A key's hash, as the index of one shard takes it. Two numbers rather than one, so that each is
/// read and written as it is.
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

    /// For an index of so many buckets: fast range instead of a power of two (Lemire, 2016). Worked
    /// out once a packet, as a packet's bucket is asked for, and looked into, in passes of their
    /// own.
    #[inline]
    pub(super) fn within(self, buckets: usize) -> FlowHash {
        let home = (u64::from(self.upper()) * buckets as u64) >> 32;
        FlowHash { home: home as u32, tag: self.0 as u16 | 1 }
    }
}

impl Secret {
    /// From two words. The pattern is the public one, so that runs are repeatable.
    pub fn new(words: [u64; 2]) -> Secret {
        Secret { words, pattern: RSS_PATTERN }
    }

    /// From two words of randomness, the pattern drawn with them.
    pub fn drawn(words: [u64; 2]) -> Secret {
        let secret = Secret::new(words);
        Secret { pattern: drawn_pattern(secret.derive(purpose::SPREAD)), ..secret }
    }

    /// The same with this pattern.
    pub fn with_pattern(self, pattern: u16) -> Secret {
        Secret { pattern, ..self }
    }

    /// The 16 bits that the key of the RSS hash repeats.
    pub fn pattern(&self) -> u16 {
        self.pattern
    }

    /// Of an IPv4 connection's key; of its flags the protocol alone counts.
    #[inline(always)]
    pub fn v4(&self, key: &EntryKey) -> RawHash {
        // Ports and protocol.
        let (a, b) = (key.addrs, key.rest & 0xFF_FFFF_FFFF);
        RawHash(fold(fold(a ^ self.words[0], b ^ self.words[1]) ^ self.words[1], 0x9E37_79B9_7F4A_7C15))
    }

    /// Of an IPv6 connection's key. The remote address is folded into one word; NIC, ports and
    /// protocol each keep bits of their own in the second fold, so that none can hide behind
    /// another.
    #[inline]
    pub fn v6(&self, addr: u32, remote: u128, ports: u32, protocol: u8) -> RawHash {
        let folded = fold(
            remote as u64 ^ self.words[0],
            (remote >> 64) as u64 ^ self.words[1] ^ 0x2545_F491_4F6C_DD1D,
        );
        let a = folded ^ (u64::from(protocol) << 32);
        let b = (u64::from(addr) << 32) | u64::from(ports);
        RawHash(fold(fold(a ^ self.words[0], b ^ self.words[1]) ^ self.words[1], 0x9E37_79B9_7F4A_7C15))
    }

    /// A secret for something else that must not be foreseen either, one for each `purpose`.
    pub fn derive(&self, purpose: u64) -> [u64; 2] {
        let word = |n: u64| {
            fold(self.words[0] ^ (2 * purpose + n), self.words[1] ^ 0xD6E8_FEB8_6659_FD93) ^ self.words[0]
        };
        [word(1), word(2)]
    }
}

/// What secrets are derived for: see [`Secret::derive`].
pub mod purpose {
    /// Which places a full table looks at.
    pub const SAMPLES: u64 = 1;
    /// The pattern of the hash that spreads connections over the workers.
    pub const SPREAD: u64 = 2;
    /// Where refused packets are counted.
    pub const REFUSALS: u64 = 3;
}

/// A hash of nothing.
pub const NO_HASH: FlowHash = FlowHash { home: 0, tag: 1 };

#[cfg(test)]
mod tests {
    use super::*;
    use crate::AddrId;
    use crate::conntrack::key_meta;

    /// A key's fields as they are hashed, each a row of bits.
    #[derive(Clone, Copy)]
    struct Fields {
        addr: u32,
        remote: u128,
        ports: u32,
        protocol: u8,
    }

    /// Name, bits, and how one of them is turned over.
    type Field = (&'static str, u32, fn(&mut Fields, u32));

    const FIELDS: [Field; 5] = [
        ("NIC's address", 32, |f, bit| f.addr ^= 1 << bit),
        ("remote address", 32, |f, bit| f.remote ^= 1 << bit),
        ("local port", 16, |f, bit| f.ports ^= 1 << (16 + bit)),
        ("remote port", 16, |f, bit| f.ports ^= 1 << bit),
        ("protocol", 8, |f, bit| f.protocol ^= 1 << bit),
    ];
    const REMOTE_V6: Field = ("remote address's other bits", 96, |f, bit| f.remote ^= 1 << (32 + bit));

    fn v4(secret: &Secret, f: &Fields) -> u64 {
        let meta = key_meta(f.protocol, false);
        secret.v4(&EntryKey::new(AddrId(f.addr), f.remote as u32, f.ports, meta)).0
    }

    fn v6(secret: &Secret, f: &Fields) -> u64 {
        secret.v6(f.addr, f.remote, f.ports, f.protocol).0
    }

    /// Words without a pattern.
    fn words() -> impl FnMut() -> u64 {
        let mut state = 0x1234_5678u64;
        move || {
            state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
            let a = (state ^ state >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
            let b = (a ^ a >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
            b ^ b >> 31
        }
    }

    type Hash = fn(&Secret, &Fields) -> u64;
    const HASHES: [(&str, Hash, bool); 2] = [("IPv4", v4, false), ("IPv6", v6, true)];

    /// The bits of a hash that the index uses: those of the bucket and those of the tag.
    fn halves(hash: u64) -> [u32; 2] {
        [(hash >> 32) as u32, hash as u32 & 0xFFFF]
    }

    #[test]
    fn every_bit_of_every_field_turns_half_of_the_bits_that_choose_bucket_and_tag() {
        const KEYS: u32 = 2000;
        let mut uneven = Vec::new();
        for (family, hash, six) in HASHES {
            for (name, bits, flip) in FIELDS.into_iter().chain(six.then_some(REMOTE_V6)) {
                let mut next = words();
                for bit in 0..bits {
                    let mut turned = [0; 2];
                    for _ in 0..KEYS {
                        let secret = Secret::new([next(), next()]);
                        let mut fields = Fields {
                            addr: next() as u32,
                            remote: u128::from(next()) << 64 | u128::from(next()),
                            ports: next() as u32,
                            protocol: next() as u8,
                        };
                        let before = halves(hash(&secret, &fields));
                        flip(&mut fields, bit);
                        let after = halves(hash(&secret, &fields));
                        for half in 0..2 {
                            turned[half] += (before[half] ^ after[half]).count_ones();
                        }
                    }
                    for (turned, of) in turned.into_iter().zip([32, 16]) {
                        let share = f64::from(turned) / f64::from(KEYS * of);
                        if !(0.45..=0.55).contains(&share) {
                            uneven.push(format!("{family}, {name}, bit {bit}: {share:.3}"));
                        }
                    }
                }
            }
        }
        assert_eq!(uneven, [""; 0]);
    }

    #[test]
    fn values_of_one_field_alone_have_as_many_hashes_as_chance_gives() {
        for (family, hash, six) in HASHES {
            for (name, bits, flip) in FIELDS.into_iter().chain(six.then_some(REMOTE_V6)) {
                let mut next = words();
                for _ in 0..8 {
                    let secret = Secret::new([next(), next()]);
                    let base = Fields {
                        addr: next() as u32,
                        remote: u128::from(next()) << 64 | u128::from(next()),
                        ports: next() as u32,
                        protocol: next() as u8,
                    };
                    // Consecutive values in the field's low bits, then in its high ones.
                    let width = bits.min(16);
                    for shift in [0, bits - width] {
                        let count = 1u32 << width;
                        let (mut all, mut buckets) = (Vec::new(), Vec::new());
                        for value in 0..count {
                            let mut fields = base;
                            (0..width).filter(|bit| value >> bit & 1 != 0).for_each(|bit| {
                                flip(&mut fields, shift + bit);
                            });
                            let hash = hash(&secret, &fields);
                            all.push((hash >> 32) << 16 | hash & 0xFFFF);
                            buckets.push((hash >> 32) as u32 >> (32 - width));
                        }
                        let distinct = |values: &mut Vec<u64>| {
                            values.sort_unstable();
                            values.dedup();
                            values.len() as f64
                        };
                        let whole = distinct(&mut all);
                        assert!(whole >= f64::from(count) * 0.999, "{family}, {name}: {whole} of {count}");
                        // Of as many buckets as values chance fills 63 %.
                        let mut buckets = buckets.into_iter().map(u64::from).collect();
                        let filled = distinct(&mut buckets) / f64::from(count);
                        assert!(filled > 0.5, "{family}, {name}: {filled:.2} of the buckets");
                    }
                }
            }
        }
    }
}
