//! What is shown of counters.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::PortCounters;

/// Packets. `in` is always `pass` and `drop` together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Packets {
    /// Judged, or dropped on the way to the worker that would have.
    #[serde(rename = "in")]
    pub received: u64,
    /// Sent on.
    pub pass: u64,
    /// Not sent on.
    pub drop: u64,
    /// Of those that passed: sent on in observe mode alone.
    pub observed: u64,
}

/// Bytes of whole frames, without the check sequence (FCS). `in` is always `pass` and `drop` together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Bytes {
    /// Of packets judged, or dropped on the way to the worker that would have.
    #[serde(rename = "in")]
    pub received: u64,
    /// Of those sent on.
    pub pass: u64,
    /// Of those not sent on.
    pub drop: u64,
}

/// Packets of one direction of a NIC.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Tallied {
    /// How many.
    #[serde(flatten)]
    pub packets: Packets,
    /// Why; reasons that occurred.
    pub reasons: BTreeMap<String, u64>,
    /// The same packets in bytes.
    pub bytes: Bytes,
}

/// `show counters`
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Counters {
    /// The present generation.
    pub generation: u32,
    /// All packets since the start.
    pub packets: Packets,
    /// The same in bytes.
    pub bytes: Bytes,
    /// Why they passed or dropped; reasons that occurred. Under observe a would-be drop counts with its reason here.
    pub reasons: BTreeMap<String, u64>,
    /// By worker.
    pub workers: Vec<WorkerCounters>,
    /// By NIC; those that saw packets.
    pub nics: Vec<NicCounters>,
    /// By port: what the devices count.
    pub ports: Vec<PortCounters>,
    /// Settings that let pass what the defaults would not (semantics 2.8).
    pub settings: Vec<String>,
}

/// One worker's packets.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct WorkerCounters {
    /// Which worker.
    pub id: usize,
    /// Its core.
    pub core: usize,
    /// Its packets.
    #[serde(flatten)]
    pub packets: Packets,
    /// The same in bytes.
    pub bytes: Bytes,
}

/// One NIC's packets.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct NicCounters {
    /// Which; null for packets of no NIC.
    pub nic: Option<String>,
    /// Towards the instance.
    pub inbound: Tallied,
    /// From the instance.
    pub outbound: Tallied,
}
