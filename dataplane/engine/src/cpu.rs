//! What the processor can do beyond the baseline that the binary is built for (x86-64 as of 2003), found out once at the start.
//!
//! The passes over a burst are compiled twice: for the baseline, and for x86-64-v3 (AVX2, BMI, MOVBE), whose loads that swap
//! bytes, shifts without flags and wider stores take 5 to 7 % of the cycles off an established packet (`perf-cycles`,
//! 1 and 10,000 flows, both builds in turn).

/// True if x86-64-v3's instructions may be used: the processor has them, and `PORTCULLIS_SIMD` is not `baseline`.
pub fn has_v3() -> bool {
    let wanted = std::env::var_os("PORTCULLIS_SIMD").is_none_or(|level| level != "baseline");
    wanted && detected()
}

#[cfg(target_arch = "x86_64")]
fn detected() -> bool {
    is_x86_feature_detected!("avx2")
        && is_x86_feature_detected!("bmi1")
        && is_x86_feature_detected!("bmi2")
        && is_x86_feature_detected!("movbe")
        && is_x86_feature_detected!("lzcnt")
}

#[cfg(not(target_arch = "x86_64"))]
fn detected() -> bool {
    false
}
