//! A load generator for firewalls: it sends flows through what is tested, from an inside and an
//! outside port, and knows of every packet whether it came through, and how long that took.
//!
//! ```text
//! Spec ─check→ Plan ─┬─ run(ports, plan, monitor) → Report        one measurement
//!                    └─ Generator: warm_up, measure, trial        several, of the same flows
//! ```
//!
//! ```
//! use pktgen::{Monitor, Plan, Ports, Spec, plan::Rate};
//!
//! let spec = Spec { flows: 100, rate: Rate::Pps(1e6), count: Some(5000), duration: None, ..Spec::default() };
//! let plan = Plan::new(spec)?;
//! let (inside, outside) = pktgen::memory::cable(1024);
//! let report = pktgen::run(&mut Ports::pair(inside, outside), &plan, &Monitor::default());
//! assert_eq!((report.packets.sent, report.packets.lost), (5000, 0));
//! # Ok::<(), pktgen::Invalid>(())
//! ```
//!
//! [`run()`] is generic over [`Port`], so that it runs on DPDK ports ([`DpdkPort`]) and on ports in
//! memory ([`memory`]) alike. The thread that calls it polls the ports; the loop ([`mod@drive`])
//! allocates nothing.
//!
//! Flows have no stored addresses: [`flow`] computes them from a number, and back from a frame.
//! Frames are copies of [`template`]s. Frames with a payload carry a [`tag`], by which loss,
//! duplicates, order and latency are known to the packet.

pub mod capture;
pub mod clock;
pub mod connection;
pub mod core_use;
pub mod count;
pub mod device;
pub mod drive;
pub mod flow;
pub mod hostile;
pub mod memory;
pub mod monitor;
pub mod pace;
pub mod parse;
pub mod plan;
pub mod play;
pub mod policy;
pub mod port;
pub mod report;
pub mod run;
pub mod search;
pub mod source;
pub mod stateful;
pub mod stateless;
pub mod tag;
pub mod tap;
pub mod template;
pub mod track;

pub use monitor::{Monitor, Progress};
pub use plan::{Invalid, Plan, Spec};
pub use port::{DpdkPort, Port, Ports, Writable};
pub use report::Report;
pub use run::{Generator, run};
