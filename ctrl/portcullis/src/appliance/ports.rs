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

/// Opens every port with a queue pair a worker, to be spread over by this pattern where the device takes a key. The second value holds every worker's queues, wire by wire.
pub fn open(
    config: &Config,
    eal: &Eal,
    pool: &Mempool,
    rss_pattern: u16,
) -> Result<(Ports, Vec<Wires>), pmd::Error> {
    let workers = config.workers.cores.len();
    let asked = pmd::Config {
        queues: workers as u16,
        rx_ring: PORT_RING,
        tx_ring: PORT_RING,
        mtu: None,
        rss_pattern,
    };
    let names: Vec<&String> = config.wires.iter().flat_map(|wire| [&wire.inside, &wire.outside]).collect();
    // All are configured before any starts: what can't be is known before a frame moves.
    let configured: Vec<_> =
        names.iter().map(|name| Port::configure(eal, name, &asked, pool)).collect::<Result<_, _>>()?;
    let (mut ports, mut queues) = (Vec::new(), Vec::new());
    for port in configured {
        let (port, of_port) = port.start()?;
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
