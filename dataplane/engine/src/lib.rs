//! The firewall itself, without I/O: frames go in by a [`io::Port`], verdicts and frames come out.
//!
//! [`worker`] tells a packet's way from top to bottom; [`snapshot`] is the policy as the workers see it;
//! [`conntrack`] is the table of connections. Nothing in here reads a clock, logs or makes a system call, and
//! nothing on a packet's way allocates.

mod ahead;
mod answers;
pub mod burst;
pub mod cells;
pub mod classify;
pub mod conntrack;
pub mod control;
pub mod cpu;
pub mod fragments;
pub mod handoff;
pub mod held;
pub mod io;
pub mod judge;
pub mod lane;
pub mod pages;
pub mod parse;
pub mod quote;
pub mod reason;
pub mod resolve;
pub mod ring;
pub mod snapshot;
pub mod staged;
pub mod tally;
pub mod tcp;
pub mod time;
pub mod trace;
pub mod types;
pub mod verdict;
pub mod waits;
pub mod wheel;
pub mod worker;

pub use reason::Reason;
pub use types::*;
