//! How connections are spread over the workers.
//!
//! The owner of a connection is the worker whose queue a NIC with symmetric RSS would deliver it
//! to: the Toeplitz hash (Microsoft, "RSS hashing functions") with a 16-bit pattern repeated as its
//! key, over addresses and ports of TCP, UDP and SCTP, over the addresses of everything else. With
//! such a key the hash depends only on the exclusive or of the input's 16-bit words, so that both
//! directions hash alike (Woo and Park, "Scalable TCP session monitoring with symmetric
//! receive-side scaling", 2012). The pattern is drawn for each start ([`drawn_pattern`]), so that
//! nobody outside knows which worker a connection will meet. Whose ports and addresses have the
//! same exclusive or meet the same one under any pattern: no symmetric key can do more, and `show
//! workers` tells how evenly they are loaded.

use crate::proto;

/// The 16 bits that the RSS key repeats where nobody is to be surprised: in tests, simulations,
/// `replay`.
pub const RSS_PATTERN: u16 = 0x6D5A;
/// Entries of the redirection table; entry `i` is worker `i mod workers`.
pub const RETA_SIZE: u32 = 128;

/// Toeplitz of one folded word, by definition: the key's window at bit `i` is the pattern, rotated
/// left by `i`.
const fn by_bits(pattern: u16, word: u16) -> u16 {
    let mut hash = 0;
    let mut bit = 0;
    while bit < 16 {
        if word & (0x8000 >> bit) != 0 {
            hash ^= pattern.rotate_left(bit);
        }
        bit += 1;
    }
    hash
}

/// True for patterns that spread well. An odd number of bits makes the hash a permutation of the
/// folded words, so that each of its lowest values, on which the worker hangs, comes as often as
/// any other; nine and more of sixteen have each of its bits hang on some of either byte.
pub fn is_usable_pattern(pattern: u16) -> bool {
    matches!(pattern.count_ones(), 9 | 11)
}

/// A pattern that spreads well, out of two words of randomness.
pub fn drawn_pattern(words: [u64; 2]) -> u16 {
    let mut word = words[0];
    for round in 0..64 {
        if let Some(pattern) =
            [0, 16, 32, 48].map(|shift| (word >> shift) as u16).into_iter().find(|p| is_usable_pattern(*p))
        {
            return pattern;
        }
        word = crate::mix::fold(word ^ words[1], 0x9E37_79B9_7F4A_7C15 ^ round) ^ words[0];
    }
    RSS_PATTERN
}

/// How connections are spread over the workers: the hash, made ready for one pattern.
pub struct RssHash {
    /// Toeplitz of each high byte. That of a low one is the same, rotated by the eight bits between
    /// them.
    of_high: [u16; 256],
}

impl RssHash {
    /// With this pattern repeated as the key.
    pub const fn new(pattern: u16) -> RssHash {
        let mut of_high = [0; 256];
        let mut byte = 0;
        while byte < 256 {
            of_high[byte] = by_bits(pattern, (byte as u16) << 8);
            byte += 1;
        }
        RssHash { of_high }
    }

    #[inline]
    fn toeplitz(&self, word: u16) -> u16 {
        self.of_high[usize::from(word >> 8)] ^ self.of_high[usize::from(word & 0xFF)].rotate_left(8)
    }

    /// The symmetric RSS hash; its upper half is the same as its lower.
    #[inline]
    pub fn hash(&self, src: u128, dst: u128, ports: Option<(u16, u16)>) -> u32 {
        let (sport, dport) = ports.unwrap_or((0, 0));
        let half = u32::from(self.toeplitz(fold(src ^ dst) ^ sport ^ dport));
        half << 16 | half
    }
}

#[inline]
fn fold(addr: u128) -> u16 {
    let a = addr as u64 ^ (addr >> 64) as u64;
    let a = a as u32 ^ (a >> 32) as u32;
    a as u16 ^ (a >> 16) as u16
}

impl RssHash {
    /// The worker among so many to which a connection between these belongs; `ports` are what its
    /// key has of them.
    pub fn owner(&self, a: u128, b: u128, ports: (u16, u16), protocol: u8, workers: u32) -> u32 {
        let hash = self.hash(a, b, hashes_ports(protocol).then_some(ports));
        hash % RETA_SIZE % workers.max(1)
    }
}

/// The same with [`RSS_PATTERN`].
pub fn rss_hash(src: u128, dst: u128, ports: Option<(u16, u16)>) -> u32 {
    static PUBLIC: RssHash = RssHash::new(RSS_PATTERN);
    PUBLIC.hash(src, dst, ports)
}

/// True for the protocols whose ports are hashed.
pub(crate) fn hashes_ports(protocol: u8) -> bool {
    matches!(protocol, proto::TCP | proto::UDP | proto::SCTP)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Straight from the definition: the key's 32 bits at each set bit of the input.
    fn by_definition(pattern: u16, input: &[u8]) -> u32 {
        let key: Vec<u8> = pattern.to_be_bytes().into_iter().cycle().take(56).collect();
        let mut hash = 0;
        for (at, byte) in input.iter().enumerate() {
            for bit in 0..8 {
                if byte & (0x80 >> bit) != 0 {
                    let window = u64::from_be_bytes([
                        key[at],
                        key[at + 1],
                        key[at + 2],
                        key[at + 3],
                        key[at + 4],
                        key[at + 5],
                        key[at + 6],
                        key[at + 7],
                    ]);
                    hash ^= (window << bit >> 32) as u32;
                }
            }
        }
        hash
    }

    #[test]
    fn the_hash_is_the_toeplitz_hash_of_the_repeated_key() {
        for pattern in [RSS_PATTERN, 0x1234, 0xF00F, drawn_pattern([7, 9])] {
            let spread = RssHash::new(pattern);
            let (src, dst) = (0x0A05_0607u32, 0xC633_6409u32);
            let mut input = [src.to_be_bytes(), dst.to_be_bytes()].concat();
            input.extend(40_000u16.to_be_bytes());
            input.extend(22u16.to_be_bytes());
            let hash = spread.hash(src.into(), dst.into(), Some((40_000, 22)));
            assert_eq!(hash, by_definition(pattern, &input));
            let (src, dst) = (
                0x2001_0db8_0000_0000_1234_0000_0000_0007u128,
                0x2001_0db8_ffff_0000_0000_0000_0000_0009u128,
            );
            let input = [src.to_be_bytes(), dst.to_be_bytes()].concat();
            assert_eq!(spread.hash(src, dst, None), by_definition(pattern, &input));
        }
    }

    #[test]
    fn the_table_says_what_the_bits_say() {
        for pattern in [RSS_PATTERN, drawn_pattern([1, 2])] {
            let spread = RssHash::new(pattern);
            for word in 0..=u16::MAX {
                assert_eq!(spread.toeplitz(word), by_bits(pattern, word));
            }
        }
    }

    #[test]
    fn every_pattern_that_may_be_drawn_fills_all_of_the_table_alike_and_hangs_on_both_bytes() {
        let mut count = 0;
        for pattern in (0..=u16::MAX).filter(|pattern| is_usable_pattern(*pattern)) {
            count += 1;
            // Gaussian elimination of what each bit of a word does to the hash's lowest seven.
            let mut images: Vec<u16> = (0..16).map(|bit| by_bits(pattern, 1 << bit) & 0x7F).collect();
            for bit in 0..7 {
                // The bits of a word on which this one hangs.
                let mask =
                    (0..16).filter(|at| images[*at] >> bit & 1 != 0).fold(0u16, |mask, at| mask | 1 << at);
                assert!(mask & 0xFF != 0 && mask & 0xFF00 != 0, "{pattern:#06x}");
            }
            let mut rank = 0;
            for bit in 0..7 {
                let Some(pivot) = (rank..16).find(|at| images[*at] >> bit & 1 != 0) else { continue };
                images.swap(rank, pivot);
                let with = images[rank];
                images.iter_mut().skip(rank + 1).filter(|n| **n >> bit & 1 != 0).for_each(|n| *n ^= with);
                rank += 1;
            }
            assert_eq!(rank, 7, "{pattern:#06x}");
        }
        assert_eq!(count, 15_808);
        assert!(is_usable_pattern(RSS_PATTERN));
    }

    #[test]
    fn patterns_are_drawn_from_all_of_them_and_never_a_bad_one() {
        let mut drawn: Vec<u16> = (0..20_000u64)
            .map(|n| {
                drawn_pattern([n.wrapping_mul(0xBF58_476D_1CE4_E5B9), n.wrapping_mul(0x94D0_49BB_1331_11EB)])
            })
            .collect();
        assert!(drawn.iter().all(|pattern| is_usable_pattern(*pattern)));
        drawn.sort_unstable();
        drawn.dedup();
        assert!(drawn.len() > 8_000, "{} of 20,000 draws are distinct", drawn.len());
        assert!(is_usable_pattern(drawn_pattern([0, 0])) && is_usable_pattern(drawn_pattern([u64::MAX; 2])));
    }

    #[test]
    fn both_directions_have_one_owner() {
        for n in 0..1000u32 {
            let (a, b) = (u128::from(n.wrapping_mul(2_654_435_761)), u128::from(n ^ 0xDEAD_BEEF));
            let (p, q) = (n as u16, (n >> 3) as u16 ^ 0x55);
            assert_eq!(rss_hash(a, b, Some((p, q))), rss_hash(b, a, Some((q, p))));
        }
    }
}
