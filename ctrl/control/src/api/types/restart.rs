//! What became of a former run's connections.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// How a run began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Began {
    /// Connections are not kept.
    #[default]
    Off,
    /// Without connections of a former run.
    Cold,
    /// With those of the former run.
    Warm,
    /// With those of a process that forwarded until then.
    TookOver,
}

/// How this run began, and what became of the connections that the former one left
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Restart {
    /// `off` where connections are not kept.
    pub began: Began,
    /// Why it began cold.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Where connections are kept.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub folder: Option<String>,
    /// The former run's last generation.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub generation: Option<u32>,
    /// Connections that go on.
    pub live: u64,
    /// Those that were disconnected, and stay so.
    pub tombstones: u64,
    /// Those that the policy of now ended.
    pub ended: u64,
    /// Those whose time ran out meanwhile.
    pub expired: u64,
    /// Entries that are not what was written, or name what there is not: they are left out.
    pub unverifiable: u64,
    /// Those for which there was no room.
    pub left_out: u64,
    /// Microseconds that it took to read them and to find their places.
    pub took_us: u64,
}
