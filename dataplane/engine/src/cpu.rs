//! Instruction sets beyond the baseline that the binary is built for (x86-64 as of 2003): detected
//! once at the start, and proved by a token from then on.
//!
//! The passes over a burst are compiled twice: for the baseline, and for x86-64-v3 (AVX2, BMI,
//! MOVBE), whose byte-swapping loads, flagless shifts and wider stores save 5 to 7 % of the cycles
//! of an established packet. The classifier is compiled for AVX-512 as well.
//!
//! Code that is compiled more than once takes a token (`isa: impl Isa`) and asks it for what it may
//! use. Only [`simd`] makes the tokens of instruction sets that not every processor has, so that
//! whoever holds one may call intrinsics of that set.

mod ops;

pub(crate) use ops::{CHUNK, Chunk, LANES, VectorOps, bias};

/// An instruction set that may be used from here on. By value: tokens have no size.
pub trait Isa: VectorOps + 'static {
    /// A token for x86-64-v3, if this set includes it. A constant once compiled.
    fn v3(self) -> Option<V3>;
}

/// What the binary is built for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Baseline;

/// Proof that the processor has x86-64-v3: AVX2, BMI1, BMI2, LZCNT, MOVBE, POPCNT.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct V3(());

/// Proof that the processor has x86-64-v3 and AVX-512 (F, BW, VL).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct V4(());

impl Isa for Baseline {
    #[inline(always)]
    fn v3(self) -> Option<V3> {
        None
    }
}

impl Isa for V3 {
    #[inline(always)]
    fn v3(self) -> Option<V3> {
        Some(self)
    }
}

impl Isa for V4 {
    #[inline(always)]
    fn v3(self) -> Option<V3> {
        Some(V3(()))
    }
}

/// Something that is compiled once for each instruction set. [`Work::run`] must be
/// `#[inline(always)]`, so that it becomes part of a function that is compiled for the set.
pub trait Work {
    /// What comes of it.
    type Output;
    /// Does it.
    fn run(self, isa: impl Isa) -> Self::Output;
}

/// The instruction sets that may be used, as the one token that stands for them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Simd {
    /// What the binary is built for.
    Baseline,
    /// x86-64-v3.
    V3(V3),
    /// x86-64-v3 and AVX-512: for the classifier, which then compares sixteen addresses in one
    /// instruction.
    V4(V4),
}

impl Simd {
    /// Does some work with the best of the baseline and x86-64-v3.
    #[inline(always)]
    pub fn run<W: Work>(self, work: W) -> W::Output {
        match self.v3() {
            #[cfg(target_arch = "x86_64")]
            // SAFETY: the token proves that the processor has what the function is compiled for.
            Some(isa) => unsafe { run_v3(work, isa) },
            _ => work.run(Baseline),
        }
    }

    /// Does some work with the best of all sets, AVX-512 included.
    #[inline(always)]
    pub fn run_widest<W: Work>(self, work: W) -> W::Output {
        match self {
            #[cfg(target_arch = "x86_64")]
            // SAFETY: the token proves that the processor has what the function is compiled for.
            Simd::V4(isa) => unsafe { run_v4(work, isa) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: as above.
            Simd::V3(isa) => unsafe { run_v3(work, isa) },
            _ => work.run(Baseline),
        }
    }

    /// A token for x86-64-v3, if it may be used.
    #[inline(always)]
    pub fn v3(self) -> Option<V3> {
        match self {
            Simd::Baseline => None,
            Simd::V3(isa) => Some(isa),
            Simd::V4(isa) => isa.v3(),
        }
    }

    /// Every subset of these instruction sets that there is code for, the smallest first: for
    /// tests.
    pub fn levels(self) -> Vec<Simd> {
        let v3 = self.v3().map(Simd::V3);
        let v4 = matches!(self, Simd::V4(_)).then_some(self);
        [Some(Simd::Baseline), v3, v4].into_iter().flatten().collect()
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,bmi1,bmi2,movbe,lzcnt,popcnt")]
fn run_v3<W: Work>(work: W, isa: V3) -> W::Output {
    work.run(isa)
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,bmi1,bmi2,movbe,lzcnt,popcnt,avx512f,avx512bw,avx512vl")]
fn run_v4<W: Work>(work: W, isa: V4) -> W::Output {
    work.run(isa)
}

/// What the processor has, unless `PORTCULLIS_SIMD` says `baseline` or `v3`. Detected once in a
/// process.
pub fn simd() -> Simd {
    static SIMD: std::sync::OnceLock<Simd> = std::sync::OnceLock::new();
    *SIMD.get_or_init(|| match (std::env::var("PORTCULLIS_SIMD").as_deref(), detected_v3(), detected_v4()) {
        (Ok("baseline"), ..) | (_, None, _) => Simd::Baseline,
        (Ok("v3"), Some(v3), _) | (_, Some(v3), None) => Simd::V3(v3),
        (_, Some(_), Some(v4)) => Simd::V4(v4),
    })
}

#[cfg(target_arch = "x86_64")]
fn detected_v3() -> Option<V3> {
    let has_all = is_x86_feature_detected!("avx2")
        && is_x86_feature_detected!("bmi1")
        && is_x86_feature_detected!("bmi2")
        && is_x86_feature_detected!("movbe")
        && is_x86_feature_detected!("lzcnt")
        && is_x86_feature_detected!("popcnt");
    has_all.then_some(V3(()))
}

#[cfg(target_arch = "x86_64")]
fn detected_v4() -> Option<V4> {
    let has_all = is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512vl");
    (has_all && detected_v3().is_some()).then_some(V4(()))
}

#[cfg(not(target_arch = "x86_64"))]
fn detected_v3() -> Option<V3> {
    None
}

#[cfg(not(target_arch = "x86_64"))]
fn detected_v4() -> Option<V4> {
    None
}

/// Prefetches the cache line at `place` into all levels.
#[inline]
pub fn prefetch<T>(place: *const T) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a prefetch reads nothing and faults nowhere.
    unsafe {
        std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T0 }>(place.cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = place;
}
