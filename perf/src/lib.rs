//! Load and measurement: traffic in memory, a port that brings it, and cycles by the time stamp
//! counter.

pub mod bare;
pub mod cases;
pub mod classify;
pub mod commits;
pub mod compare;
pub mod conversations;
pub mod cores;
pub mod floor;
pub mod fragments;
pub mod memory;
pub mod plot;
pub mod rig;
pub mod rigs;
pub mod world;
