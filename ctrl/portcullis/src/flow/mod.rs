//! Flow logs: a record of every connection and of everything that is refused, to files and collectors.
//!
//! ```text
//! workers ─ rings ─┐
//!                  ├─ records ─ gathered by interval ─ queues ─ a thread a sink ─ file, collector
//! refused packets ─┘
//! ```
//!
//! Every ring and queue is bounded. Who finds one full loses records, which are counted, and nobody waits: packets least of all.

pub mod export;
pub mod file;
pub mod gather;
pub mod lines;
pub mod record;
pub mod sink;
#[cfg(test)]
mod tests;
