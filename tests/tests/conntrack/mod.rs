//! The parts of the comparison with the kernel's connection tracking.

pub mod bench;
pub mod kinds;
pub mod packet;
pub mod random;
pub mod scripts;
