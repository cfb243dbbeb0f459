//! Rigs of two cores: a generator on one and the appliance on the other, or two of the appliance's
//! workers.
//!
//! | rig | who forwards | beside it |
//! | --- | --- | --- |
//! | [`memif`] | the appliance, another process | `dpdk-testpmd --forward-mode=macswap` |
//! | [`rings`] | a worker of the engine, a thread of the same process | a loop that passes bursts on |
//! | [`workers`] | the appliance with two workers on `net_pcap` queues | with one worker |

pub mod captures;
pub mod measure;
pub mod memif;
pub mod programs;
pub mod rings;
pub mod workers;
