//! Decimal numbers without the loss of a float.

const NANOS: i32 = 9;

/// A decimal number of seconds (`1700000000.000001`, `1.5e1`) in nanoseconds, rounded to the nearest one: a program
/// that wrote 0.3 as 0.30000000000000004 meant 0.3. `None` if it is negative, no decimal number, or beyond `u64`.
pub(crate) fn decimal_nanos(text: &str) -> Option<u64> {
    let text = text.strip_prefix('+').unwrap_or(text);
    let (mantissa, exponent) = match text.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, exponent.parse::<i32>().ok()?),
        None => (text, 0),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let mut digits = format!("{whole}{fraction}");
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    // The number is 0.DIGITS × 10^point nanoseconds.
    let point = i32::try_from(whole.len()).ok()?.checked_add(exponent)?.checked_add(NANOS)?;
    let Ok(keep) = usize::try_from(point) else { return Some(0) };
    if digits.bytes().all(|b| b == b'0') {
        return Some(0);
    }
    // Leading zeros take places; beyond these many nothing fits u64 any more.
    if keep > digits.len() + 20 {
        return None;
    }
    while digits.len() < keep {
        digits.push('0');
    }
    let (kept, rest) = digits.split_at(keep);
    let round_up = rest.starts_with(|c: char| c >= '5');
    let kept = kept.trim_start_matches('0');
    let nanos = if kept.is_empty() { 0 } else { kept.parse::<u64>().ok()? };
    nanos.checked_add(round_up.into())
}

#[cfg(test)]
mod tests {
    use super::decimal_nanos;

    #[test]
    fn decimals_keep_every_nanosecond() {
        for (text, nanos) in [
            ("0", 0),
            ("1", 1_000_000_000),
            ("1.", 1_000_000_000),
            (".5", 500_000_000),
            ("1700000000.000001", 1_700_000_000_000_001_000),
            ("1700000000.123456789", 1_700_000_000_123_456_789),
            ("1.7000000001e9", 1_700_000_000_100_000_000),
            ("17e8", 1_700_000_000_000_000_000),
            ("1E-9", 1),
            ("4e-10", 0),
            ("5e-10", 1),
            ("1e-99", 0),
            ("0e99", 0),
            ("0.30000000000000004", 300_000_000),
            ("0.9999999999", 1_000_000_000),
            ("18446744073.709551615", u64::MAX),
            ("0000000000000000000000000000001", 1_000_000_000),
        ] {
            assert_eq!(decimal_nanos(text), Some(nanos), "{text}");
        }
    }

    #[test]
    fn what_is_no_decimal_or_too_large_is_refused() {
        let bad = [
            "",
            ".",
            "-1",
            "1,5",
            "0x10",
            "1e",
            "e5",
            "18446744073.709551616",
            "1e99",
            "1e2147483647",
            "inf",
        ];
        for text in bad {
            assert_eq!(decimal_nanos(text), None, "{text}");
        }
    }
}
