//! A port from its configuration to its end.

use std::cell::Cell;
use std::ffi::{CStr, CString, c_int};
use std::marker::PhantomData;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock, PoisonError};

use arrayvec::ArrayVec;
use dpdk_sys::{rte_eth_conf, rte_eth_dev_info};
use engine::io::BURST;

use crate::capture::capture_output;
use crate::eal::{self, Eal};
use crate::error::{Error, probe_failure, reason};
use crate::mempool::{self, Mempool};
use crate::port_state::{PortState, TxState};
use crate::queue::Queue;
use crate::rss::{Plan, Rss};

/// Bytes that a frame has besides its MTU: the Ethernet header and up to two VLAN tags.
pub const FRAME_OVERHEAD: usize = 14 + 2 * 4;

/// Drivers that read all segments of a frame though they don't announce it.
const MULTI_SEGMENT_UNANNOUNCED: [&str; 2] = ["net_pcap", "net_null"];

/// Drivers that carry frames of any length that their buffers hold, whatever they report: an MTU concerns us alone.
const CARRIES_ANY_LENGTH: [&str; 4] = ["net_af_packet", "net_null", "net_pcap", "net_ring"];

/// The driver whose link is its peer, and whose state is a word in memory.
const TELLS_PEERS: &str = "net_memif";

/// Frames that a ring device may hold when it closes; it would lose them.
const RING_DEVICE: usize = 1024;

/// What a port is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Config {
    /// Queue pairs, one a worker.
    pub queues: u16,
    /// Frames of a receive ring; the device may round it.
    pub rx_ring: u16,
    /// Frames of a transmit ring; the device may round it.
    pub tx_ring: u16,
    /// The MTU in bytes; `None` leaves the device's own (1,500 for most).
    pub mtu: Option<u16>,
    /// The 16 bits that the key of a symmetric RSS hash repeats, where the device takes a key.
    pub rss_pattern: u16,
}

impl Default for Config {
    fn default() -> Self {
        Self { queues: 1, rx_ring: 1024, tx_ring: 1024, mtu: None, rss_pattern: engine::rss::RSS_PATTERN }
    }
}

/// The state of a port that is set up and does not run yet.
#[derive(Debug)]
pub struct Configured(());

/// The state of a port that receives and sends.
#[derive(Debug)]
pub struct Started(());

/// A port, in one of the states [`Configured`] and [`Started`]. It stops and closes when it and all of its queues are
/// dropped; a closed port can't be opened again in the same process.
#[derive(Debug)]
pub struct Port<State> {
    shared: Arc<Shared>,
    /// Not Sync: devices update their statistics without a lock when asked for them.
    _state: PhantomData<Cell<State>>,
}

/// What a port and its queues share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) id: u16,
    pub(crate) name: String,
    driver: String,
    mtu: u16,
    /// What the device is told: another one where the driver's own bound means nothing.
    device_mtu: u16,
    pub(crate) multi_segment_tx: bool,
    queues: u16,
    plan: Option<Plan>,
    rss: OnceLock<Rss>,
    started: AtomicBool,
    pub(crate) state: Arc<PortState>,
    /// The port's rings hold buffers of the pool.
    _pool: Arc<mempool::Inner>,
    eal: Arc<eal::Inner>,
}

/// Whether a port has a carrier, and what it says of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Link {
    /// True with a carrier.
    pub up: bool,
    /// Megabits a second; `u32::MAX` where unknown.
    pub mbps: u32,
    /// True if both directions run at once.
    pub full_duplex: bool,
}

/// Counters of a port since it was opened: frames and bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Stats {
    /// Frames received, those of `rx_oversize` among them.
    pub rx_packets: u64,
    /// Bytes received.
    pub rx_bytes: u64,
    /// Frames sent.
    pub tx_packets: u64,
    /// Bytes sent.
    pub tx_bytes: u64,
    /// Frames that the device dropped, since nobody fetched them in time.
    pub rx_missed: u64,
    /// Frames that came with errors.
    pub rx_errors: u64,
    /// Frames that the device took and could not send.
    pub tx_errors: u64,
    /// Receptions that failed for want of a buffer.
    pub rx_no_buffer: u64,
    /// Frames longer than the MTU allows, dropped on arrival.
    pub rx_oversize: u64,
    /// Frames longer than the MTU allows, or too segmented, that were not sent.
    pub tx_oversize: u64,
    /// Frames that the device had no room for, and that were given up.
    pub tx_full: u64,
    /// Frames given up since nobody was there to take them.
    pub tx_down: u64,
}

impl Stats {
    /// With what another device counted before, in the same place.
    #[must_use]
    pub fn after(mut self, before: &Stats) -> Stats {
        self.rx_packets += before.rx_packets;
        self.rx_bytes += before.rx_bytes;
        self.tx_packets += before.tx_packets;
        self.tx_bytes += before.tx_bytes;
        self.rx_missed += before.rx_missed;
        self.rx_errors += before.rx_errors;
        self.tx_errors += before.tx_errors;
        self.rx_no_buffer += before.rx_no_buffer;
        self
    }
}

impl Shared {
    /// True if the driver tells at once, and this is so, that nobody is at the other end.
    #[cold]
    pub(crate) fn has_no_peer(&self) -> bool {
        // Others ask their hardware, which takes longer than a worker has.
        self.driver == TELLS_PEERS && !link_of(self.id).up
    }

    /// Bytes of the longest frame that passes the port.
    pub(crate) fn max_frame(&self) -> usize {
        usize::from(self.mtu) + FRAME_OVERHEAD
    }

    fn failed(&self, step: &'static str, status: c_int, log: &str) -> Error {
        Error::Port { port: self.name.clone(), step, reason: reason(log, status) }
    }

    /// Runs one step of the set-up, which returns 0 or a negative error.
    fn step(&self, step: &'static str, call: impl FnOnce() -> c_int) -> Result<(), Error> {
        match capture_output(call) {
            (0.., _) => Ok(()),
            (status, log) => Err(self.failed(step, status, &log)),
        }
    }

    /// As `step`, for what a device need not be able to do.
    fn optional_step(&self, step: &'static str, call: impl FnOnce() -> c_int) -> Result<(), Error> {
        match capture_output(call) {
            (0.., _) => Ok(()),
            (status, _) if status == -libc::ENOTSUP || status == -libc::ENOSYS => Ok(()),
            (status, log) => Err(self.failed(step, status, &log)),
        }
    }

    /// Configures the device with the symmetric key; if it refuses that, with its own; and else without RSS.
    fn configure(&self, info: &rte_eth_dev_info) -> Result<(), Error> {
        let mut last = (0, String::new());
        for attempt in 0..3 {
            // SAFETY: an all-zero configuration is valid.
            let mut conf: rte_eth_conf = unsafe { std::mem::zeroed() };
            conf.rxmode.mtu = u32::from(self.device_mtu);
            conf.rxmode.offloads = info.rx_offload_capa & dpdk_sys::SHIM_RX_OFFLOAD_SCATTER;
            conf.txmode.offloads = info.tx_offload_capa & dpdk_sys::SHIM_TX_OFFLOAD_MULTI_SEGS;
            let mut key = Vec::new();
            if let Some(plan) = self.plan.as_ref().filter(|_| attempt < 2) {
                conf.rxmode.mq_mode = dpdk_sys::RTE_ETH_MQ_RX_RSS;
                conf.rx_adv_conf.rss_conf.rss_hf = plan.functions;
                if attempt == 0 {
                    key.clone_from(&plan.key);
                    conf.rx_adv_conf.rss_conf.rss_key = key.as_mut_ptr();
                    conf.rx_adv_conf.rss_conf.rss_key_len = key.len() as u8;
                }
            }
            // SAFETY: the port is ours and stopped; the key outlives the call, which copies it.
            last = capture_output(|| unsafe {
                dpdk_sys::rte_eth_dev_configure(self.id, self.queues, self.queues, &conf)
            });
            if last.0 >= 0 || self.plan.is_none() {
                break;
            }
        }
        match last {
            (0.., _) => Ok(()),
            (status, log) => Err(self.failed("take its configuration", status, &log)),
        }
    }

    fn set_up_queues(&self, config: &Config, pool: *mut dpdk_sys::rte_mempool) -> Result<(), Error> {
        let (mut rx_ring, mut tx_ring) = (config.rx_ring, config.tx_ring);
        self.optional_step("size its rings", || {
            // SAFETY: the port is ours, and the sizes are two integers of our own.
            unsafe { dpdk_sys::rte_eth_dev_adjust_nb_rx_tx_desc(self.id, &mut rx_ring, &mut tx_ring) }
        })?;
        // SAFETY: the port is ours.
        let socket = unsafe { dpdk_sys::rte_eth_dev_socket_id(self.id) } as u32;
        for queue in 0..self.queues {
            self.step("set up a receive queue", || {
                // SAFETY: the port is ours and configured; the pool outlives it (`_pool`); a null configuration
                // stands for the device's own.
                unsafe {
                    dpdk_sys::rte_eth_rx_queue_setup(self.id, queue, rx_ring, socket, std::ptr::null(), pool)
                }
            })?;
            self.step("set up a transmit queue", || {
                // SAFETY: as above.
                unsafe { dpdk_sys::rte_eth_tx_queue_setup(self.id, queue, tx_ring, socket, std::ptr::null()) }
            })?;
        }
        Ok(())
    }

    /// Frees what still waits in the receive queues: a ring device would lose it.
    fn drain(&self) {
        for queue in 0..self.queues {
            for _ in 0..=RING_DEVICE / BURST {
                let mut frames = ArrayVec::<*mut dpdk_sys::rte_mbuf, BURST>::new();
                // SAFETY: the port runs and no `Queue` of it is left; the device fills what it says with live mbufs
                // of ours, which are freed at once.
                unsafe {
                    let got = dpdk_sys::shim_eth_rx_burst(self.id, queue, frames.as_mut_ptr(), BURST as u16);
                    frames.set_len(usize::from(got));
                    dpdk_sys::shim_pktmbuf_free_bulk(frames.as_mut_ptr(), u32::from(got));
                }
                if frames.is_empty() {
                    break;
                }
            }
        }
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        if *self.started.get_mut() {
            self.drain();
            // SAFETY: the port is ours, and nobody polls it any more.
            unsafe { dpdk_sys::rte_eth_dev_stop(self.id) };
        }
        // SAFETY: as above; the port is stopped.
        unsafe { dpdk_sys::rte_eth_dev_close(self.id) };
        self.eal.open_ports.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.id);
    }
}

impl Port<Configured> {
    /// Opens the port called `name` with queue pairs whose receive side takes buffers from `pool`.
    ///
    /// No offload but scattered reception and segmented transmission is on: VLAN tags stay in the frames and
    /// checksums stay as they are.
    pub fn configure(eal: &Eal, name: &str, config: &Config, pool: &Mempool) -> Result<Self, Error> {
        let gate = Arc::new(PortState::new(name, config.queues));
        Self::configure_at(eal, gate, config, pool)
    }

    /// Opens the port that took the place of one that is gone: its queues go on counting where the others' ended, and
    /// its way is as it was left.
    pub fn configure_again(
        eal: &Eal,
        place: &PortPlace,
        config: &Config,
        pool: &Mempool,
    ) -> Result<Self, Error> {
        let config = Config { queues: place.gate.counters.len() as u16, ..*config };
        Self::configure_at(eal, Arc::clone(&place.gate), &config, pool)
    }

    fn configure_at(eal: &Eal, gate: Arc<PortState>, config: &Config, pool: &Mempool) -> Result<Self, Error> {
        let name = gate.name.clone();
        let name = name.as_str();
        let id = find(eal, name)?;
        let info = device_info(id, name)?;
        // SAFETY: the driver's name is a static C string.
        let driver = unsafe { CStr::from_ptr(info.driver_name) }.to_string_lossy().into_owned();
        let offered = info.max_rx_queues.min(info.max_tx_queues);
        if config.queues == 0 || config.queues > offered {
            return Err(Error::TooManyQueues {
                port: name.to_owned(),
                driver,
                asked: config.queues,
                offered,
            });
        }
        let carries_any = CARRIES_ANY_LENGTH.contains(&driver.as_str());
        let (own, asked) = (own_mtu(id), config.mtu.filter(|_| !carries_any));
        let device_mtu = asked.map_or(Ok(own), |asked| offered_mtu(name, asked, &info))?;
        let mtu = config.mtu.unwrap_or(own);
        if !eal.inner.open_ports.lock().unwrap_or_else(PoisonError::into_inner).insert(id) {
            return Err(Error::PortInUse(name.to_owned()));
        }
        // From here on the port is closed when `shared` goes.
        let announced = info.tx_offload_capa & dpdk_sys::SHIM_TX_OFFLOAD_MULTI_SEGS != 0;
        let shared = Shared {
            id,
            name: name.to_owned(),
            mtu,
            device_mtu,
            multi_segment_tx: announced || MULTI_SEGMENT_UNANNOUNCED.contains(&driver.as_str()),
            driver,
            queues: config.queues,
            plan: Plan::new(&info, config.queues, config.rss_pattern),
            rss: OnceLock::new(),
            started: AtomicBool::new(false),
            state: gate,
            _pool: Arc::clone(&pool.inner),
            eal: Arc::clone(&eal.inner),
        };
        shared.configure(&info)?;
        if asked.is_some() {
            let take = || {
                // SAFETY: the port is ours.
                unsafe { dpdk_sys::rte_eth_dev_set_mtu(id, mtu) }
            };
            shared.optional_step("take its MTU", take)?;
        }
        shared.set_up_queues(config, pool.inner.as_ptr())?;
        Ok(Self { shared: Arc::new(shared), _state: PhantomData })
    }

    /// Starts the port, promiscuous and for all multicast groups where it can be, and hands out its queue pairs.
    pub fn start(self) -> Result<(Port<Started>, Vec<Queue>), Error> {
        let shared = self.shared;
        let id = shared.id;
        // SAFETY: the port is ours and configured, as are its queues.
        shared.step("start", || unsafe { dpdk_sys::rte_eth_dev_start(id) })?;
        // Relaxed: read again only by the last owner, in `drop`.
        shared.started.store(true, Ordering::Relaxed);
        // SAFETY: the port is ours.
        shared.optional_step("turn promiscuous", || unsafe { dpdk_sys::rte_eth_promiscuous_enable(id) })?;
        let multicast = || {
            // SAFETY: the port is ours.
            unsafe { dpdk_sys::rte_eth_allmulticast_enable(id) }
        };
        shared.optional_step("take all multicast", multicast)?;
        let rss = match &shared.plan {
            Some(plan) => capture_output(|| plan.settle(id)).0,
            None => Rss { symmetric: shared.queues == 1, ..Rss::default() },
        };
        let _ = shared.rss.set(rss);
        let queues = (0..shared.queues).map(|index| Queue::new(&shared, index)).collect();
        Ok((Port { shared, _state: PhantomData }, queues))
    }
}

impl Port<Started> {
    /// How the device spreads frames over the queues.
    pub fn rss(&self) -> &Rss {
        self.shared.rss.get().expect("a started port's RSS is settled")
    }

    /// The link's present state, without waiting for it.
    pub fn link(&self) -> Link {
        link_of(self.shared.id)
    }

    /// The port's place, for another device to take.
    pub fn place(&self) -> PortPlace {
        PortPlace { gate: Arc::clone(&self.shared.state) }
    }

    /// Queues of this port's place with no device behind them, for its workers to hold while there is none.
    pub fn detached_queues(&self) -> Vec<Queue> {
        (0..self.shared.queues).map(|index| Queue::detached(&self.shared, index)).collect()
    }

    /// The NUMA node that its device is at; `None` where it is at none, as virtual ones are.
    pub fn numa_node(&self) -> Option<u32> {
        // SAFETY: the port is ours.
        u32::try_from(unsafe { dpdk_sys::rte_eth_dev_socket_id(self.shared.id) }).ok()
    }

    /// The port's counters.
    pub fn stats(&self) -> Stats {
        // SAFETY: all-zero counters are valid; the port is ours and lives.
        let device = unsafe {
            let mut device: dpdk_sys::rte_eth_stats = std::mem::zeroed();
            dpdk_sys::rte_eth_stats_get(self.shared.id, &mut device);
            device
        };
        Stats {
            rx_packets: device.ipackets,
            rx_bytes: device.ibytes,
            tx_packets: device.opackets,
            tx_bytes: device.obytes,
            rx_missed: device.imissed,
            rx_errors: device.ierrors,
            tx_errors: device.oerrors,
            rx_no_buffer: device.rx_nombuf,
            ..self.place().stats()
        }
    }
}

/// What stays of a port while its device changes: its name, its way and what its queues count.
#[derive(Debug, Clone)]
pub struct PortPlace {
    gate: Arc<PortState>,
}

impl PortPlace {
    /// The port's name.
    pub fn name(&self) -> &str {
        &self.gate.name
    }

    /// What its queues count by themselves; what devices count is 0.
    pub fn stats(&self) -> Stats {
        let gate = &self.gate;
        Stats {
            rx_oversize: gate.sum(|counters| &counters.rx_oversize),
            tx_oversize: gate.sum(|counters| &counters.tx_oversize),
            tx_full: gate.sum(|counters| &counters.tx_full),
            tx_down: gate.sum(|counters| &counters.tx_down),
            ..Stats::default()
        }
    }

    /// Tells the queues whether frames can leave.
    pub fn set_way(&self, way: TxState) {
        self.gate.set(way);
    }
}

impl<State> Port<State> {
    /// The port's name.
    pub fn name(&self) -> &str {
        &self.shared.name
    }

    /// The name of its driver, such as `net_af_packet`.
    pub fn driver(&self) -> &str {
        &self.shared.driver
    }

    /// Its identifier in EAL.
    pub fn id(&self) -> u16 {
        self.shared.id
    }

    /// Its queue pairs.
    pub fn queues(&self) -> u16 {
        self.shared.queues
    }

    /// Its MTU in bytes.
    pub fn mtu(&self) -> u16 {
        self.shared.mtu
    }

    /// Bytes of the longest frame that passes: the MTU, the Ethernet header and two VLAN tags. Longer ones are
    /// dropped and counted (see [`Queue`]).
    pub fn max_frame(&self) -> usize {
        self.shared.max_frame()
    }

    /// Its own MAC address; zeros if the device has none.
    pub fn mac(&self) -> [u8; 6] {
        // SAFETY: an all-zero address is valid; the port is ours.
        unsafe {
            let mut address: dpdk_sys::rte_ether_addr = std::mem::zeroed();
            dpdk_sys::rte_eth_macaddr_get(self.shared.id, &mut address);
            address.addr_bytes
        }
    }
}

/// A link's present state, without waiting for it.
fn link_of(id: u16) -> Link {
    let (mut mbps, mut full_duplex) = (0, false);
    // SAFETY: the port is open, and the two places are ours.
    let up = unsafe { dpdk_sys::shim_link(id, &mut mbps, &mut full_duplex) };
    Link { up, mbps, full_duplex }
}

/// The identifier of the port called `name`.
fn find(eal: &Eal, name: &str) -> Result<u16, Error> {
    let missing = || Error::NoSuchPort {
        name: name.to_owned(),
        reason: probe_failure(eal.log(), name),
        available: eal.ports(),
    };
    let c_name = CString::new(name).map_err(|_| missing())?;
    let mut id = 0;
    // SAFETY: EAL runs, the name is a C string, and the identifier's place is ours.
    match capture_output(|| unsafe { dpdk_sys::rte_eth_dev_get_port_by_name(c_name.as_ptr(), &mut id) }) {
        (0, _) => Ok(id),
        _ => Err(missing()),
    }
}

fn device_info(id: u16, name: &str) -> Result<rte_eth_dev_info, Error> {
    // SAFETY: all-zero information is valid, and the port exists.
    let mut info: rte_eth_dev_info = unsafe { std::mem::zeroed() };
    // SAFETY: as above.
    match capture_output(|| unsafe { dpdk_sys::rte_eth_dev_info_get(id, &mut info) }) {
        (0, _) => Ok(info),
        (status, log) => Err(Error::Port {
            port: name.to_owned(),
            step: "tell what it can do",
            reason: reason(&log, status),
        }),
    }
}

/// The MTU that a device has by itself.
fn own_mtu(id: u16) -> u16 {
    let mut mtu = 0;
    // SAFETY: the port exists, and the MTU's place is ours.
    let status = unsafe { dpdk_sys::rte_eth_dev_get_mtu(id, &mut mtu) };
    if status == 0 && mtu != 0 { mtu } else { 1500 }
}

/// The MTU asked for, if the device can carry it.
fn offered_mtu(name: &str, asked: u16, info: &rte_eth_dev_info) -> Result<u16, Error> {
    const HEADER_AND_CRC: u32 = 14 + 4;
    let offered = match info.max_mtu {
        u16::MAX => info.max_rx_pktlen.saturating_sub(HEADER_AND_CRC).min(u32::from(u16::MAX)),
        known => u32::from(known),
    };
    if u32::from(asked) > offered {
        return Err(Error::Mtu { port: name.to_owned(), asked, offered });
    }
    Ok(asked)
}
