//! The only safe wrapper over DPDK: what is above it holds no raw pointer and calls no foreign function.
//!
//! ```text
//! Eal ─┬─ Mempool ── Mbuf                       one owned frame, freed once
//!      └─ Port<Configured> ─start→ Port<Started> + Vec<Queue>
//! ```
//!
//! `Eal` starts once in a process; pools, ports and queues hold it, so the order in which they drop is nobody's
//! concern. A [`Queue`] is one worker's: it may move between threads, never be shared. `rx` lets the driver write
//! its frames straight into the burst; `tx` leaves in the burst exactly what the driver refused.
//!
//! Worker threads are not EAL's: each calls [`Eal::register_thread`], without which pools work, but have no cache.

mod assertions;
mod capture;
mod eal;
mod error;
mod mbuf;
mod mempool;
mod port;
mod queue;
mod rss;

pub use eal::{Eal, ThreadGuard};
pub use error::Error;
pub use mbuf::Mbuf;
pub use mempool::{DEFAULT_DATA_ROOM, Mempool};
pub use port::{Config, Configured, FRAME_OVERHEAD, Link, Port, Started, Stats};
pub use queue::Queue;
pub use rss::Rss;
