//! Stamps as captures write them.

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
    /// Of a pcap record: seconds, and units of 10^-`digits` s. Some writers let these run over.
    #[inline]
    pub fn decimal(seconds: u32, units: u32, digits: u8) -> Stamp {
        let (seconds, units) = (u64::from(seconds), u64::from(units));
        let per_second = if digits == 9 { 1_000_000_000 } else { 10u64.pow(u32::from(digits)) };
        if units < per_second {
            return Stamp { seconds, fraction: units, digits };
        }
        Stamp { seconds: seconds + units / per_second, fraction: units % per_second, digits }
    }

    /// In nanoseconds; finer ones are cut.
    #[inline]
    pub fn nanos(&self) -> u64 {
        let below = match self.digits {
            9 => self.fraction,
            6 => self.fraction * 1000,
            digits @ 0..=8 => self.fraction * 10u64.pow(9 - u32::from(digits)),
            digits => self.fraction / 10u64.pow(u32::from(digits) - 9),
        };
        self.seconds.saturating_mul(1_000_000_000).saturating_add(below)
    }
}

/// The unit of an interface's stamps.
#[derive(Clone, Copy)]
pub enum Resolution {
    /// 10^-n s, n up to 19: more would not fit into 64 bits.
    Decimal(u8),
    /// 2^-n s, n up to 63; printed with nine digits.
    Binary(u8),
}

impl Resolution {
    /// Of pcapng's option `if_tsresol`; `None` if it is finer than 64 bits can count.
    pub fn of(option: u8) -> Option<Resolution> {
        let exponent = option & 0x7F;
        match option & 0x80 != 0 {
            false if exponent <= 19 => Some(Resolution::Decimal(exponent)),
            true if exponent <= 63 => Some(Resolution::Binary(exponent)),
            _ => None,
        }
    }

    /// The stamp that is `units` behind `offset` seconds since the UNIX epoch.
    #[inline]
    pub fn stamp(self, units: u64, offset: i64) -> Stamp {
        let (seconds, fraction, digits) = match self {
            // Division by a constant is a multiplication.
            Resolution::Decimal(9) => (units / 1_000_000_000, units % 1_000_000_000, 9),
            Resolution::Decimal(6) => (units / 1_000_000, units % 1_000_000, 6),
            Resolution::Decimal(n) => {
                let per_second = 10u64.pow(u32::from(n));
                (units / per_second, units % per_second, n)
            }
            Resolution::Binary(n) => {
                let below = u128::from(units) & ((1u128 << n) - 1);
                ((u128::from(units) >> n) as u64, ((below * 1_000_000_000) >> n) as u64, 9)
            }
        };
        Stamp { seconds: seconds.saturating_add_signed(offset), fraction, digits }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fraction_that_runs_over_is_carried() {
        let stamp = Stamp::decimal(10, 1_000_000, 6);
        assert_eq!((stamp.seconds, stamp.fraction, stamp.nanos()), (11, 0, 11_000_000_000));
        assert_eq!(Stamp::decimal(10, 999_999, 6).nanos(), 10_999_999_000);
        assert_eq!(Stamp::decimal(10, 999_999_999, 9).nanos(), 10_999_999_999);
    }

    #[test]
    fn every_resolution_gives_the_same_moment() {
        // A second and a half, in many units.
        for (option, units, digits) in [
            (0, 1, 0),
            (1, 15, 1),
            (3, 1500, 3),
            (6, 1_500_000, 6),
            (9, 1_500_000_000, 9),
            (12, 1_500_000_000_000, 12),
            (19, 15_000_000_000_000_000_000, 19),
            (0x80 | 1, 3, 9),
            (0x80 | 10, 1536, 9),
            (0x80 | 63, 3 << 62, 9),
        ] {
            let stamp = Resolution::of(option).unwrap().stamp(units, 100);
            let expected = if option == 0 { 101_000_000_000 } else { 101_500_000_000 };
            assert_eq!((stamp.nanos(), stamp.digits), (expected, digits), "if_tsresol {option:#x}");
        }
        assert!(Resolution::of(20).is_none() && Resolution::of(0x80 | 64).is_none());
    }

    #[test]
    fn an_offset_may_be_negative_and_never_leads_before_the_epoch() {
        let of = |offset| Resolution::Decimal(6).stamp(5_000_000, offset).seconds;
        assert_eq!((of(-2), of(-9), of(i64::MAX)), (3, 0, 5 + i64::MAX as u64));
    }
}
