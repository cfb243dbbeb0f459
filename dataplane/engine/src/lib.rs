//! The firewall itself, without I/O: frames go in by a [`io::Port`], verdicts and frames come out.
//!
//! [`worker`] tells a packet's way from top to bottom; [`snapshot`] is the policy as the workers
//! see it; [`conntrack`] is the table of connections. Nothing in here reads a clock, logs or makes
//! a system call, and nothing on a packet's way allocates.

pub mod arp_nd_dhcp;
pub mod burst;
pub mod classify;
pub mod conntrack;
pub mod counters;
pub mod cpu;
pub mod flow_key;
pub mod fragment_cache;
pub mod fragment_queue;
pub mod groups;
pub mod handoff;
pub mod held_frames;
pub mod icmp_quote;
pub mod io;
pub mod judge;
mod lookahead;
mod mix;
pub mod packet;
pub mod pages;
pub mod parse;
pub mod reason;
pub mod resolve;
pub mod ring;
pub mod rss;
mod rule_verdicts;
pub mod snapshot;
pub mod staged;
pub mod tcp;
pub mod time;
pub mod timer_wheel;
pub mod trace;
pub mod types;
pub mod verdict;
pub mod worker;
pub mod worker_totals;

pub use reason::Reason;
pub use types::*;
