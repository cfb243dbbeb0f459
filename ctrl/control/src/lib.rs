//! The control side of Portcullis: what an operator writes, read and validated.
//!
//! Everything here works on text and plain values and never on packets: documents and configurations come in as
//! text and leave as types that cannot hold an invalid policy (parse, don't validate).

pub mod commit;
pub mod compile;
pub mod config;
pub mod diff;
pub mod document;
pub mod export;
pub mod init;
pub mod model;
pub mod name;
pub mod plan;
pub mod registry;
pub mod source;
