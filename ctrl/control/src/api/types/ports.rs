//! What is shown of ports.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// How a port's link is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum LinkState {
    /// It has a carrier, or a peer.
    #[default]
    Up,
    /// It has none, or is not set up.
    Down,
    /// There is no device: its interface was deleted.
    Gone,
}

/// What is known of a port, and what its device, its queues and the kernel count: since the start, over all devices that
/// were in its place.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PortCounters {
    /// The port.
    pub name: String,
    /// Its driver.
    pub driver: String,
    /// The kernel's interface behind it; null without one.
    pub interface: Option<String>,
    /// Whether it has a carrier.
    pub link_up: bool,
    /// The same, with whether it is gone.
    pub link: LinkState,
    /// How many devices were in its place: 1, and one more each time that its interface was made anew.
    pub attached: u32,
    /// Its queue pairs, one a worker.
    pub queues: u16,
    /// The NUMA node of its device; null for virtual ones.
    pub numa_node: Option<u32>,
    /// Whether both directions of a connection come to one worker: the device has taken this start's key, or there is one queue. Else
    /// workers hand over to each other what is not theirs.
    pub symmetric_rss: bool,
    /// Bytes of IP that its frames carry at most.
    pub mtu: u16,
    /// Frames received.
    pub rx_packets: u64,
    /// Bytes received.
    pub rx_bytes: u64,
    /// Frames sent.
    pub tx_packets: u64,
    /// Bytes sent.
    pub tx_bytes: u64,
    /// Received frames that were lost, for any reason below.
    pub rx_lost: u64,
    /// Frames to be sent that were lost, for any reason below.
    pub tx_lost: u64,
    /// Frames lost because nobody fetched them in time.
    pub rx_missed: u64,
    /// Frames that the kernel lost before the driver saw them: a full AF_PACKET ring, a full backlog.
    pub rx_kernel: u64,
    /// Frames that came with errors.
    pub rx_errors: u64,
    /// Frames that could not be sent.
    pub tx_errors: u64,
    /// Receptions that failed for want of a buffer.
    pub rx_no_buffer: u64,
    /// Frames longer than the MTU, dropped on arrival.
    pub rx_oversize: u64,
    /// Frames longer than the MTU, not sent.
    pub tx_oversize: u64,
    /// Frames that the device had no room for.
    pub tx_full: u64,
    /// Frames that found nobody: link down, interface gone, peer absent.
    pub tx_down: u64,
}
