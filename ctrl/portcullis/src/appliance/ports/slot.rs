//! One port of a wire: its place, the device that is in it at present, and the kernel's interface behind that.

use std::sync::{Mutex, MutexGuard, PoisonError};

use control::api::types::{LinkState, PortCounters};
use engine::Side;
use pmd::{Config, Eal, Mempool, Port, PortPlace, Queue, Started, Stats};

use super::super::mtu;
use super::interfaces::{self, Interface};
use super::sockets::Sockets;

/// A driver whose sockets on the interface are asked for what they lost.
const PACKET_SOCKETS: &str = "net_af_packet";
/// A driver that makes its interface itself.
const MAKES_INTERFACE: &str = "net_tap";

/// A port.
pub struct PortSlot {
    /// Its wire and side.
    pub at: (usize, Side),
    /// What stays while devices change.
    pub place: PortPlace,
    /// The kernel's interface behind it, if there is one.
    pub interface: Option<String>,
    /// Its driver.
    pub driver: String,
    asked: Config,
    mtu: u16,
    symmetric_rss: bool,
    numa_node: Option<u32>,
    /// Its vdev's arguments, to make it anew; `None` where it is no vdev.
    vdev: Option<String>,
    now: Mutex<SlotState>,
}

/// What changes.
struct SlotState {
    /// The device; none while its interface is gone.
    port: Option<Port<Started>>,
    /// The number of the interface that it was made on.
    index: Option<u32>,
    /// What devices counted that were there before.
    before: Stats,
    sockets: Sockets,
    /// What sockets lost that were there before.
    lost_before: u64,
    /// What the interface lost; see [`PortSlot::note`].
    by_interface: InterfaceLosses,
    state: LinkState,
    attached: u32,
}

/// What the kernel's interface lost before a socket saw it.
#[derive(Clone, Copy, Default)]
struct InterfaceLosses {
    /// Its counters at the last look; `None` before the first one at this interface.
    seen: Option<(u32, u32)>,
    rx: u64,
    tx: u64,
}

impl PortSlot {
    /// Of a port that has started.
    pub fn new(at: (usize, Side), asked: Config, port: Port<Started>, args: &[String]) -> PortSlot {
        let name = port.name();
        let vdev = mtu::vdev(args, name).map(str::to_owned);
        let interface = mtu::interface(args, name).map(str::to_owned);
        let driver = port.driver().to_owned();
        let (index, sockets) = found(&driver, interface.as_deref());
        PortSlot {
            at,
            place: port.place(),
            interface,
            asked: Config { mtu: Some(port.mtu()), ..asked },
            mtu: port.mtu(),
            symmetric_rss: port.rss().symmetric,
            // Virtual devices name whatever node they were made at.
            numa_node: if vdev.is_some() { None } else { port.numa_node() },
            driver,
            vdev,
            now: Mutex::new(SlotState {
                port: Some(port),
                index,
                before: Stats::default(),
                sockets,
                lost_before: 0,
                by_interface: InterfaceLosses::default(),
                state: LinkState::Up,
                attached: 1,
            }),
        }
    }

    fn now(&self) -> MutexGuard<'_, SlotState> {
        self.now.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Its name.
    pub fn name(&self) -> &str {
        self.place.name()
    }

    /// The device's own word of its link; `None` without a device.
    pub fn device_is_up(&self) -> Option<bool> {
        self.now().port.as_ref().map(|port| port.link().up)
    }

    /// The interface that its device is on, among `all` that there are; `None` if that is gone or there is no device.
    pub fn attached_to<'i>(&self, all: &'i [Interface]) -> Option<&'i Interface> {
        let now = self.now();
        now.port.as_ref()?;
        let index = if now.sockets.is_empty() { now.index? } else { now.sockets.interface()? };
        all.iter().find(|interface| interface.index == index)
    }

    /// Whether there is a device.
    pub fn is_attached(&self) -> bool {
        self.now().port.is_some()
    }

    /// True if nobody else makes its interface.
    pub fn makes_interface(&self) -> bool {
        self.driver == MAKES_INTERFACE
    }

    /// Notes how its link is; what it was.
    pub fn set_state(&self, state: LinkState) -> LinkState {
        std::mem::replace(&mut self.now().state, state)
    }

    /// Notes what its interface counts.
    pub fn note(&self, interface: &Interface) {
        let mut now = self.now();
        let (rx, tx) = (interface.rx_lost, interface.tx_lost);
        if let Some((rx_seen, tx_seen)) = now.by_interface.seen.replace((rx, tx)) {
            now.by_interface.rx += u64::from(rx.wrapping_sub(rx_seen));
            now.by_interface.tx += u64::from(tx.wrapping_sub(tx_seen));
        }
    }

    /// After its link was down: what that left behind.
    pub fn forget_errors(&self) {
        self.now().sockets.forget_errors();
    }

    /// Queues of this place for workers to hold while there is no device.
    pub fn vacant(&self) -> Vec<Queue> {
        self.now().port.as_ref().map(Port::detached_queues).unwrap_or_default()
    }

    /// Takes the device out. What it counted stays.
    pub fn take(&self) -> Option<Port<Started>> {
        let mut now = self.now();
        let port = now.port.take()?;
        now.before = port.stats().after(&now.before);
        let mut sockets = std::mem::take(&mut now.sockets);
        now.lost_before += sockets.lost();
        now.by_interface.seen = None;
        Some(port)
    }

    /// Makes its device anew, and starts it. An error is one line; nothing is left of the attempt.
    pub fn make(&self, eal: &Eal, pool: &Mempool) -> Result<(Port<Started>, Vec<Queue>), String> {
        let vdev = self.vdev.as_deref().ok_or("it is no virtual device")?;
        eal.plug(self.name(), vdev).map_err(|error| error.to_string())?;
        let started = Port::configure_again(eal, &self.place, &self.asked, pool).and_then(Port::<_>::start);
        started.map_err(|error| {
            let _ = eal.unplug(self.name());
            error.to_string()
        })
    }

    /// Puts a device in.
    pub fn put(&self, port: Port<Started>) {
        self.put_back(port);
        self.now().attached += 1;
    }

    /// Puts a device in that is the same as before to whoever counts them.
    pub fn put_back(&self, port: Port<Started>) {
        let (index, sockets) = found(&self.driver, self.interface.as_deref());
        let mut now = self.now();
        (now.port, now.index, now.sockets) = (Some(port), index, sockets);
    }

    /// True if it connects to a server by memif.
    pub fn is_memif_client(&self) -> bool {
        self.driver == "net_memif"
            && self.vdev.as_deref().is_some_and(|on| mtu::value(on, "role") != Some("server"))
    }

    /// What is shown of it.
    pub fn counters(&self) -> PortCounters {
        let mut now = self.now();
        let stats = match &now.port {
            Some(port) => port.stats().after(&now.before),
            None => self.place.stats().after(&now.before),
        };
        let is_tap = self.makes_interface();
        let InterfaceLosses { rx, tx, .. } = now.by_interface;
        // What a tap's interface "sends" is what this port receives.
        let (rx, tx) = if is_tap { (tx, rx) } else { (rx, tx) };
        let rx_kernel = now.lost_before + now.sockets.lost() + rx;
        let link_up = now.state == LinkState::Up;
        PortCounters {
            name: self.name().to_owned(),
            driver: self.driver.clone(),
            interface: self.interface.clone(),
            link_up,
            link: now.state,
            attached: now.attached,
            queues: self.asked.queues,
            numa_node: self.numa_node,
            symmetric_rss: self.symmetric_rss,
            mtu: self.mtu,
            rx_packets: stats.rx_packets,
            rx_bytes: stats.rx_bytes,
            tx_packets: stats.tx_packets,
            tx_bytes: stats.tx_bytes,
            rx_lost: stats.rx_missed + rx_kernel + stats.rx_errors + stats.rx_no_buffer + stats.rx_oversize,
            tx_lost: stats.tx_errors + tx + stats.tx_oversize + stats.tx_full + stats.tx_down,
            rx_missed: stats.rx_missed,
            rx_kernel,
            rx_errors: stats.rx_errors,
            tx_errors: stats.tx_errors + tx,
            rx_no_buffer: stats.rx_no_buffer,
            rx_oversize: stats.rx_oversize,
            tx_oversize: stats.tx_oversize,
            tx_full: stats.tx_full,
            tx_down: stats.tx_down,
        }
    }

    /// Its MTU.
    pub fn mtu(&self) -> u16 {
        self.mtu
    }
}

/// The number of an interface, and the driver's sockets on it.
fn found(driver: &str, interface: Option<&str>) -> (Option<u32>, Sockets) {
    let Some(name) = interface else { return (None, Sockets::default()) };
    let all = interfaces::all().unwrap_or_default();
    let index = all.iter().find(|interface| interface.name == name).map(|interface| interface.index);
    let sockets = index.filter(|_| driver == PACKET_SOCKETS).map(Sockets::on).unwrap_or_default();
    (index, sockets)
}
