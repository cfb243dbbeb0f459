//! The mixing step of every keyed hash.

/// Multiply and fold, as wyhash and its kin do: every bit of both words reaches the middle of the
/// product.
#[inline(always)]
pub fn fold(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b);
    product as u64 ^ (product >> 64) as u64
}
