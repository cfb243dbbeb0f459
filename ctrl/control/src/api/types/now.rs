//! The appliance at a glance.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{Bytes, Packets, PortCounters, Problem, Record, Status};

/// The appliance as of one moment: sums since the start, from which a watcher makes rates.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Now {
    /// The program's version.
    pub version: String,
    /// The moment: seconds since 1970.
    pub time: f64,
    /// Seconds since the start. Less than before: the appliance began anew, and its counters with it.
    pub uptime: f64,
    /// The present generation.
    pub generation: u32,
    /// What changed last; null where nothing is remembered.
    pub last: Option<Record>,
    /// The change that goes back by itself; null where none does.
    pub awaited: Option<AwaitedConfirmation>,
    /// The worst of what is wrong.
    pub status: Status,
    /// What is wrong, or was within the last hour.
    pub problems: Vec<Problem>,
    /// All packets.
    pub packets: Packets,
    /// The same in bytes.
    pub bytes: Bytes,
    /// Why they passed or dropped; reasons that occurred.
    pub reasons: BTreeMap<String, u64>,
    /// Connections of all NICs, tombstones included.
    pub connections: u64,
    /// Connections that fit.
    pub capacity: u64,
    /// NICs of the policy.
    pub nics: usize,
    /// Security groups of the policy.
    pub groups: usize,
    /// By worker.
    pub workers: Vec<NowWorker>,
    /// By port.
    pub ports: Vec<PortCounters>,
    /// Settings that let pass what the defaults would not (semantics 2.8).
    pub settings: Vec<String>,
}

impl Default for Now {
    fn default() -> Now {
        Now {
            version: String::new(),
            time: 0.0,
            uptime: 0.0,
            generation: 0,
            last: None,
            awaited: None,
            status: Status::Ok,
            problems: Vec::new(),
            packets: Packets::default(),
            bytes: Bytes::default(),
            reasons: BTreeMap::new(),
            connections: 0,
            capacity: 0,
            nics: 0,
            groups: 0,
            workers: Vec::new(),
            ports: Vec::new(),
            settings: Vec::new(),
        }
    }
}

/// A server-sent event of `/v1/events`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct NowEvent {
    /// `now`.
    pub event: String,
    /// What `/v1/now` answers, in JSON.
    pub data: String,
}

/// A worker as of one moment.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct NowWorker {
    /// Which.
    pub id: usize,
    /// Its core.
    pub core: usize,
    /// Its packets.
    #[serde(flatten)]
    pub packets: Packets,
    /// The same in bytes.
    pub bytes: Bytes,
    /// Cycles of the time-stamp counter that went into turns with frames.
    pub busy_cycles: u64,
    /// Cycles of all others, with what lay between them.
    pub idle_cycles: u64,
    /// Whether it has acknowledged the present generation.
    pub acknowledged: bool,
}

/// A change that goes back by itself unless `confirm` comes.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct AwaitedConfirmation {
    /// The generation that it made.
    pub generation: u32,
    /// What it would go back to.
    pub before: u32,
    /// How long there is to confirm it.
    pub seconds_left: f64,
}

/// What a client may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum May {
    /// Look.
    Read,
    /// Everything.
    Write,
}

/// Who asks, as the appliance sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Whoami {
    /// A token's name, a user of the socket's, or a stranger's address.
    pub who: String,
    /// What they may do.
    pub may: May,
    /// Whether a token was shown.
    pub token: bool,
}
