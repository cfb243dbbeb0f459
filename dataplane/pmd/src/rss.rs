//! How a device spreads frames over its queues.

use dpdk_sys::{rte_eth_dev_info, rte_eth_rss_conf, rte_eth_rss_reta_entry64};

/// Bytes of a Toeplitz key where the device names no length.
const KEY_LEN: u8 = 40;
/// Entries of a redirection table that DPDK handles as one.
const GROUP: usize = dpdk_sys::RTE_ETH_RETA_GROUP_SIZE as usize;

/// How a started port spreads frames over its receive queues.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Rss {
    /// True if both directions of a flow come to queues of the same index: the device confirmed the symmetric key and
    /// the table, or there is but one queue.
    pub symmetric: bool,
    /// The Toeplitz key in force; empty without RSS.
    pub key: Vec<u8>,
    /// The redirection table in force: the queue for each of the hash's lowest values; empty without one.
    pub reta: Vec<u16>,
    /// What is hashed, as DPDK's `RTE_ETH_RSS_*` bits; 0 without RSS.
    pub functions: u64,
}

/// What to ask of a device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Plan {
    pub(crate) key: Vec<u8>,
    pub(crate) functions: u64,
    reta_size: u16,
    queues: u16,
}

impl Plan {
    /// A symmetric spread over `queues`: repeated over the key, a pattern makes Toeplitz yield the same for both directions of a flow
    /// (Woo and Park, 2012). `None` for a single queue, or a device that can't hash.
    pub(crate) fn new(info: &rte_eth_dev_info, queues: u16, pattern: u16) -> Option<Self> {
        let functions = info.flow_type_rss_offloads & dpdk_sys::SHIM_RSS_WANTED;
        if queues == 1 || functions == 0 {
            return None;
        }
        let len = if info.hash_key_size == 0 { KEY_LEN } else { info.hash_key_size };
        let key = pattern.to_be_bytes().into_iter().cycle().take(usize::from(len)).collect();
        Some(Self { key, functions, reta_size: info.reta_size, queues })
    }

    /// Spreads the table evenly over the queues, and reads back from the started port what holds.
    pub(crate) fn settle(&self, port: u16) -> Rss {
        self.write_table(port);
        let reta = self.read_table(port);
        let Some((mut key, mut functions)) = self.read_key(port) else {
            return Rss { reta, ..Rss::default() };
        };
        // Some devices take a key once they are configured, and only then.
        if key != self.key && self.write_key(port, functions) {
            (key, functions) = self.read_key(port).unwrap_or_default();
        }
        let symmetric = key == self.key && reta.iter().all(|queue| *queue < self.queues);
        Rss { symmetric, key, reta, functions }
    }

    /// The key in force, and what is hashed.
    fn read_key(&self, port: u16) -> Option<(Vec<u8>, u64)> {
        let mut key = vec![0; self.key.len()];
        // SAFETY: an all-zero configuration is valid.
        let mut conf: rte_eth_rss_conf = unsafe { std::mem::zeroed() };
        conf.rss_key = key.as_mut_ptr();
        conf.rss_key_len = key.len() as u8;
        // SAFETY: the port is ours, and the key's buffer has the device's own length.
        let status = unsafe { dpdk_sys::rte_eth_dev_rss_hash_conf_get(port, &mut conf) };
        (status == 0).then_some((key, conf.rss_hf))
    }

    /// False if the device does not take it.
    fn write_key(&self, port: u16, functions: u64) -> bool {
        let mut key = self.key.clone();
        // SAFETY: an all-zero configuration is valid.
        let mut conf: rte_eth_rss_conf = unsafe { std::mem::zeroed() };
        conf.rss_key = key.as_mut_ptr();
        conf.rss_key_len = key.len() as u8;
        conf.rss_hf = functions;
        // SAFETY: the port is ours, and the key outlives the call, which copies it.
        unsafe { dpdk_sys::rte_eth_dev_rss_hash_update(port, &mut conf) == 0 }
    }

    fn groups(&self) -> Vec<rte_eth_rss_reta_entry64> {
        (0..usize::from(self.reta_size).div_ceil(GROUP))
            .map(|group| {
                // SAFETY: all-zero entries are valid.
                let mut entry: rte_eth_rss_reta_entry64 = unsafe { std::mem::zeroed() };
                entry.mask = u64::MAX;
                for (i, queue) in entry.reta.iter_mut().enumerate() {
                    *queue = ((group * GROUP + i) % usize::from(self.queues)) as u16;
                }
                entry
            })
            .collect()
    }

    fn write_table(&self, port: u16) {
        let mut groups = self.groups();
        if !groups.is_empty() {
            // A device whose table is fixed refuses; `read_table` then tells what holds.
            // SAFETY: the port is ours, and `groups` covers `reta_size` entries.
            unsafe { dpdk_sys::rte_eth_dev_rss_reta_update(port, groups.as_mut_ptr(), self.reta_size) };
        }
    }

    fn read_table(&self, port: u16) -> Vec<u16> {
        let mut groups = self.groups();
        if groups.is_empty() {
            return Vec::new();
        }
        // SAFETY: the port is ours, and `groups` covers `reta_size` entries.
        match unsafe { dpdk_sys::rte_eth_dev_rss_reta_query(port, groups.as_mut_ptr(), self.reta_size) } {
            0 => groups.iter().flat_map(|group| group.reta).take(usize::from(self.reta_size)).collect(),
            _ => Vec::new(),
        }
    }
}
