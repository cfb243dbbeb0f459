//! What the processor can do beyond the baseline that the binary is built for (x86-64 as of 2003), found out once at the start.
//!
//! The passes over a burst are compiled twice: for the baseline, and for x86-64-v3 (AVX2, BMI, MOVBE), whose loads that swap
//! bytes, shifts without flags and wider stores take 5 to 7 % of the cycles off an established packet (`perf-cycles`,
//! 1 and 10,000 flows, both builds in turn).

/// How much of its instructions a processor lets be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Simd {
    /// What the binary is built for.
    Baseline,
    /// x86-64-v3 (AVX2).
    V3,
    /// x86-64-v3, and AVX-512 (F, BW, VL): for the classifier, which compares sixteen addresses in one instruction then.
    V4,
}

/// What the processor has, unless `PORTCULLIS_SIMD` says `baseline` or `v3`. Asked once in a process.
pub fn simd() -> Simd {
    static SIMD: std::sync::OnceLock<Simd> = std::sync::OnceLock::new();
    *SIMD.get_or_init(|| {
        let allowed = match std::env::var("PORTCULLIS_SIMD").as_deref() {
            Ok("baseline") => Simd::Baseline,
            Ok("v3") => Simd::V3,
            _ => Simd::V4,
        };
        let has = match (detected(), detected_v4()) {
            (true, true) => Simd::V4,
            (true, false) => Simd::V3,
            (false, _) => Simd::Baseline,
        };
        has.min(allowed)
    })
}

/// True if x86-64-v3's instructions may be used: the processor has them, and `PORTCULLIS_SIMD` is not `baseline`.
pub fn has_v3() -> bool {
    simd() >= Simd::V3
}

#[cfg(target_arch = "x86_64")]
fn detected() -> bool {
    is_x86_feature_detected!("avx2")
        && is_x86_feature_detected!("bmi1")
        && is_x86_feature_detected!("bmi2")
        && is_x86_feature_detected!("movbe")
        && is_x86_feature_detected!("lzcnt")
        && is_x86_feature_detected!("popcnt")
}

#[cfg(target_arch = "x86_64")]
fn detected_v4() -> bool {
    is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512vl")
}

#[cfg(not(target_arch = "x86_64"))]
fn detected() -> bool {
    false
}

#[cfg(not(target_arch = "x86_64"))]
fn detected_v4() -> bool {
    false
}
