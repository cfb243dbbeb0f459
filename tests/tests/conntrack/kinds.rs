//! The ways in which the kernel differs, by the names that they have in `docs/kernel-conntrack.md`.

/// All of them.
pub const KINDS: &[&str] = &[
    "too-old",
    "one-more-window",
    "sack",
    "after-reset",
    "reopened-by-responder",
    "own-next",
    "reset-behind",
    "reset-ack",
    "reset-moves-end",
    "reset-after-fin",
    "reset-after-syn",
    "reset-of-syn",
    "opener-reset",
    "syn-ack-below",
    "early-fin",
    "fin-before-ack",
    "crossed-open",
    "responder-syn",
    "syn-ack-within",
    "syn-in-last-ack",
    "fin-repeated",
    "urgent",
    "quench-and-redirect",
    "quoted-number",
    "short-quote",
];

/// The kind of that name, if it is one.
pub fn find(name: &str) -> &'static str {
    KINDS.iter().find(|kind| **kind == name).unwrap_or_else(|| panic!("{name} is no kind of difference"))
}
