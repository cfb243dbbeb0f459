//! A small generator of random numbers whose sequence never changes: a seed in a bug report means
//! the same frames for ever.

/// SplitMix64 (Steele, Lea, Flood 2014).
#[derive(Clone, Debug)]
pub struct Rng {
    state: u64,
    /// What is to come first, last byte first: see [`Rng::led_by`].
    led_by: Vec<u8>,
}

impl Rng {
    /// The sequence of this seed.
    pub fn new(seed: u64) -> Rng {
        Rng { state: seed, led_by: Vec::new() }
    }

    /// A sequence whose choices are those of a fuzzer: each number takes its highest eight bits, by
    /// which [`Rng::below`] chooses, from the next of these bytes, as long as there are any.
    pub fn led_by(bytes: &[u8]) -> Rng {
        Rng { state: 0, led_by: bytes.iter().rev().copied().collect() }
    }

    /// How many of those bytes are left.
    pub fn left(&self) -> usize {
        self.led_by.len()
    }

    /// The next 64 bits.
    pub fn next_u64(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^= z >> 31;
        match self.led_by.pop() {
            Some(byte) => u64::from(byte) << 56 | z >> 8,
            None => z,
        }
    }

    /// A number below `end`; 0 for 0.
    pub fn below(&mut self, end: usize) -> usize {
        // The bias of the multiplication is below 2^-32 for ends of tests' size.
        ((u128::from(self.next_u64()) * end as u128) >> 64) as usize
    }

    /// True once in `n` times.
    pub fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    /// One of these.
    pub fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.below(of.len())]
    }

    /// Random bytes.
    pub fn bytes(&mut self, length: usize) -> Vec<u8> {
        (0..length).map(|_| self.next_u64() as u8).collect()
    }

    /// Any byte.
    pub fn u8(&mut self) -> u8 {
        self.next_u64() as u8
    }

    /// Any 16 bits.
    pub fn u16(&mut self) -> u16 {
        self.next_u64() as u16
    }

    /// Any 32 bits.
    pub fn u32(&mut self) -> u32 {
        self.next_u64() as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fuzzer_chooses_as_long_as_it_has_bytes() {
        let mut rng = Rng::led_by(&[0, 255, 128]);
        assert_eq!((rng.below(10), rng.below(10), rng.below(10), rng.left()), (0, 9, 5, 0));
        // Then it goes on like any other, and a seed's sequence is what it has always been.
        assert_eq!(Rng::new(7).next_u64(), 0x63CB_E1E4_5932_0DD7);
        rng.next_u64();
    }
}
