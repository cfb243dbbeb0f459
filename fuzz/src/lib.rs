//! What a fuzzer does with its bytes, one module a target: each gives them to a part of Portcullis,
//! and panics where that part panics, hangs, or says something else than a model of it.
//!
//! `scripts/fuzz` has libFuzzer look for such bytes; the test of this package runs those that are
//! kept in `corpus`, and what the modules themselves begin with, on any compiler.

pub mod captures;
pub mod configurations;
pub mod connections;
pub mod documents;
pub mod frames;
pub mod kept;
mod pair;
pub mod requests;
pub mod stores;

/// A target: its name, what it does, and what it begins with.
pub struct Target {
    /// As `scripts/fuzz` names it.
    pub name: &'static str,
    /// Does it.
    pub run: fn(&[u8]),
    /// What to begin with, made anew each time: nothing of it has to be kept.
    pub seeds: fn() -> Vec<Vec<u8>>,
}

/// All of them.
pub const TARGETS: [Target; 8] = [
    Target { name: "frames", run: frames::run, seeds: frames::seeds },
    Target { name: "connections", run: connections::run, seeds: connections::seeds },
    Target { name: "documents", run: documents::run, seeds: documents::seeds },
    Target { name: "configurations", run: configurations::run, seeds: configurations::seeds },
    Target { name: "stores", run: stores::run, seeds: stores::seeds },
    Target { name: "captures", run: captures::run, seeds: captures::seeds },
    Target { name: "requests", run: requests::run, seeds: requests::seeds },
    Target { name: "kept", run: kept::run, seeds: kept::seeds },
];

/// Changes of a file: `place` (three bytes, little-endian), `count`, so many bytes; the last may be
/// cut short. A place behind the end is taken from the beginning on.
pub(crate) fn patched(whole: &[u8], mut patches: &[u8]) -> Vec<u8> {
    let mut bytes = whole.to_vec();
    while let [low, middle, high, count, rest @ ..] = patches {
        let place = u32::from_le_bytes([*low, *middle, *high, 0]) as usize;
        let (new, behind) = rest.split_at(usize::from(*count).min(rest.len()));
        for (offset, byte) in new.iter().enumerate() {
            let len = bytes.len().max(1);
            if let Some(at) = bytes.get_mut((place + offset) % len) {
                *at = *byte;
            }
        }
        // No bytes at all: it ends there.
        if *count == 0 {
            bytes.truncate(place);
        }
        patches = behind;
    }
    bytes
}
