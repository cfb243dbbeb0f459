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
//!
//! # What the virtual devices of DPDK 22.11 do
//!
//! | device | queue pairs | MTU | to know |
//! | --- | --- | --- | --- |
//! | `net_null` | 1,024 | any | always a full burst of 64-byte frames whose bytes are whatever the buffer held (`size=`, `no-rx=1`) |
//! | `net_ring` | 16 | any | one device is a loop: each queue sends to itself, 1,023 frames long; passes buffers, no copies |
//! | `net_pcap` | one for each `rx_pcap=`/`tx_pcap=` | any | `infinite_rx=1` keeps a buffer of the pool for each frame of the file, and needs frames of one segment; counts nothing as missed; an absent `tx_` argument swallows what is sent |
//! | `net_memif` | 256 | 1,500 | a client starts only when its server is there; a server can send only after the client has polled; a peer that leaves frees shared memory on EAL's own thread, even while a queue is being polled |
//! | `net_af_packet` | `qpairs=`, else 1 | any that `framesz=` holds | every pair opened wants a poller, for the kernel spreads over all; the device puts VLAN tags back itself, but as 0x8100 even if it was 0x88a8; frames longer than `framesz=` less 66 bytes arrive cut, and what the peer left to an offload (checksums, segmentation) stays undone: turn those off; `tx` waits without end on a full ring whose interface does not drain; what the kernel drops, that the link is down and that the interface is gone it does not tell, and what it is given then it takes and loses |
//! | `net_af_xdp` | `queue_count=` | 1,500 and a little | it keeps 2,048 buffers of the pool when it closes: each device made anew takes as many |
//! | `net_tap` | 16 | any | its interface is its own: it comes and goes with the device |
//!
//! A device that fails to come up does not keep EAL from starting: the error comes from [`Port::configure`], with the
//! driver's words. `--no-huge` has 64 MB unless `-m` says more, and excludes `--in-memory`.

mod assertions;
mod capture;
mod eal;
mod error;
mod mbuf;
mod mempool;
mod port;
mod port_state;
mod queue;
mod rss;
mod telemetry;

pub use capture::{Level, listen};
pub use eal::{Eal, ThreadGuard};
pub use error::Error;
pub use mbuf::Mbuf;
pub use mempool::{DEFAULT_DATA_ROOM, Mempool, data_room, megabytes_without_huge_pages};
pub use port::{Config, Configured, FRAME_OVERHEAD, Link, Port, PortPlace, Started, Stats};
pub use port_state::TxState;
pub use queue::{Queue, RxQueue, TxQueue};
pub use rss::Rss;
pub use telemetry::{Answer, Field};
