//! One record with the names of then.

use std::sync::Arc;

use engine::trace::Record;

use crate::compile::NamedRule;

/// How a connection was disconnected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DisconnectCause {
    /// The generation that did it; `None` where no change did.
    pub generation: Option<u32>,
    /// Who.
    pub by: Arc<str>,
}

/// One packet's verdict, with names. Its record's time is in nanoseconds since 1970.
#[derive(Clone, Debug)]
pub struct Decision {
    /// What the worker told.
    pub record: Record,
    /// Which worker.
    pub worker: usize,
    /// The NIC's name.
    pub nic: Option<Arc<str>>,
    /// The rule, where it stood then.
    pub rule: Option<NamedRule>,
    /// The staged rule that would decide, where it stood then.
    pub staged: Option<NamedRule>,
    /// Of a packet of a tombstone.
    pub ending: Option<Arc<DisconnectCause>>,
}
