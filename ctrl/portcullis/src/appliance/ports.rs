//! The ports of all wires: opened in the order of the configuration, their queues dealt out to the workers.

use std::sync::{Arc, Mutex, PoisonError};

use control::api::shape::PortCounters;
use control::config::Config;
use control::live::PortsView;
use engine::worker::Wire;
use pmd::{Eal, Mempool, Port, Queue, Started};

use super::environment::PORT_RING;

/// All started ports. Shared, so that their counters can be shown; emptied at the end.
#[derive(Clone)]
pub struct Ports(Arc<Mutex<Vec<Port<Started>>>>);

/// One worker's queues, wire by wire.
pub type Wires = Vec<Wire<Queue>>;

/// Opens every port with a queue pair a worker. The second value holds every worker's queues, wire by wire.
///
/// `mtus` are the wires', where they are known already; else the devices decide, and must agree. `rss_pattern`
/// spreads connections over the queues where a device takes a key. An error is one line.
pub fn open(
    config: &Config,
    mtus: &[Option<u16>],
    eal: &Eal,
    pool: &Mempool,
    rss_pattern: u16,
) -> Result<(Ports, Vec<Wires>), String> {
    let workers = config.workers.cores.len();
    let told = |error: pmd::Error| error.to_string();
    // All are configured before any starts: what can't be is known before a frame moves.
    let mut configured = Vec::new();
    for (wire, mtu) in config.wires.iter().zip(mtus) {
        let asked = pmd::Config {
            queues: workers as u16,
            rx_ring: PORT_RING,
            tx_ring: PORT_RING,
            mtu: *mtu,
            rss_pattern,
        };
        let inside = Port::configure(eal, &wire.inside, &asked, pool).map_err(told)?;
        let outside = Port::configure(eal, &wire.outside, &asked, pool).map_err(told)?;
        if inside.mtu() != outside.mtu() {
            return Err(format!(
                "wire {:?}: inside {} has MTU {}, outside {} has {}; [[wire]] mtu sets both",
                wire.name,
                inside.name(),
                inside.mtu(),
                outside.name(),
                outside.mtu()
            ));
        }
        configured.extend([inside, outside]);
    }
    let (mut ports, mut queues) = (Vec::new(), Vec::new());
    for port in configured {
        let (port, of_port) = port.start().map_err(told)?;
        ports.push(port);
        queues.push(of_port.into_iter());
    }
    let mut dealt: Vec<Wires> = (0..workers).map(|_| Vec::new()).collect();
    let mut pairs = queues.into_iter();
    while let (Some(inside), Some(outside)) = (pairs.next(), pairs.next()) {
        for (wires, (inside, outside)) in dealt.iter_mut().zip(inside.zip(outside)) {
            wires.push(Wire { inside, outside });
        }
    }
    Ok((Ports(Arc::new(Mutex::new(ports))), dealt))
}

impl Ports {
    /// What their devices count.
    pub fn view(&self) -> PortsView {
        let ports = self.clone();
        Box::new(move || ports.lock().iter().map(counters).collect())
    }

    /// Lets go of them: those whose queues are gone too stop and close.
    pub fn close(&self) {
        self.lock().clear();
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Port<Started>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn counters(port: &Port<Started>) -> PortCounters {
    let stats = port.stats();
    PortCounters {
        name: port.name().to_owned(),
        driver: port.driver().to_owned(),
        link_up: port.link().up,
        symmetric_rss: port.rss().symmetric,
        mtu: port.mtu(),
        rx_packets: stats.rx_packets,
        rx_bytes: stats.rx_bytes,
        tx_packets: stats.tx_packets,
        tx_bytes: stats.tx_bytes,
        rx_missed: stats.rx_missed,
        rx_errors: stats.rx_errors,
        tx_errors: stats.tx_errors,
        rx_no_buffer: stats.rx_no_buffer,
        rx_oversize: stats.rx_oversize,
        tx_oversize: stats.tx_oversize,
    }
}
