//! The control side of Portcullis: what an operator writes, read and validated.
//!
//! Documents and configurations come in as text and leave as types that cannot hold an invalid policy (parse, don't
//! validate); [`live`] brings a policy to the workers and [`api`] lets clients in. Nothing here meets a packet.

pub mod advise;
pub mod api;
pub mod commit;
pub mod compile;
pub mod config;
pub mod delta;
pub mod diff;
pub mod document;
pub mod explain;
pub mod export;
pub mod health;
mod incremental;
mod index;
pub mod init;
pub mod live;
pub mod memory;
pub mod metrics;
pub mod model;
pub mod name;
pub mod persisted;
pub mod plan;
pub mod registry;
pub mod similar_names;
pub mod source;
pub mod store;
pub mod trace;
