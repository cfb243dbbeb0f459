//! The ports of all wires: opened in the order of the configuration, their queues dealt out to the workers, their
//! links and losses watched ([`keeper`]).

pub mod claims;
pub mod interfaces;
mod losses;
pub mod monitor;
pub mod offloads;
mod slot;
mod sockets;

use std::path::Path;
use std::sync::Arc;

use control::config::Config;
use control::live::PortsView;
use engine::Side;
use engine::worker::Wire;
use pmd::{Eal, Mempool, Port, Queue};

use super::environment::PORT_RING;
use super::refusals::Machine;
use slot::PortSlot;

/// All ports, in the order of the configuration. Shared, so that their counters can be shown; closed at the end.
#[derive(Clone)]
pub struct Ports(Arc<[PortSlot]>);

/// One worker's queues, wire by wire.
pub type Wires = Vec<Wire<Queue>>;

/// Opens every port with a queue pair a worker. The second value holds every worker's queues, wire by wire.
///
/// `mtus` are the wires', where they are known already; else the devices decide, and must agree. `rss_pattern`
/// spreads connections over the queues where a device takes a key. `args` are those that EAL was started with. An
/// error is one line.
pub fn open(
    config: &Config,
    args: &[String],
    mtus: &[Option<u16>],
    eal: &Eal,
    pool: &Mempool,
    rss_pattern: u16,
) -> Result<(Ports, Vec<Wires>), String> {
    let workers = config.workers.cores.len();
    let machine = Machine { args, log: eal.log(), sys: Path::new("/sys"), dev: Path::new("/dev") };
    let told = |error: pmd::Error| machine.tell(&error);
    // All are configured before any starts: what can't be is known before a frame moves.
    let mut configured = Vec::new();
    for (number, (wire, mtu)) in config.wires.iter().zip(mtus).enumerate() {
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
        configured.push(((number, Side::Inside), asked, inside));
        configured.push(((number, Side::Outside), asked, outside));
    }
    let (mut slots, mut queues) = (Vec::new(), Vec::new());
    for (at, asked, port) in configured {
        let (port, of_port) = port.start().map_err(told)?;
        slots.push(PortSlot::new(at, asked, port, args));
        queues.push(of_port.into_iter());
    }
    let mut dealt: Vec<Wires> = (0..workers).map(|_| Vec::new()).collect();
    let mut pairs = queues.into_iter();
    while let (Some(inside), Some(outside)) = (pairs.next(), pairs.next()) {
        for (wires, (inside, outside)) in dealt.iter_mut().zip(inside.zip(outside)) {
            wires.push(Wire { inside, outside });
        }
    }
    Ok((Ports(slots.into()), dealt))
}

impl Ports {
    /// What their devices count.
    pub fn view(&self) -> PortsView {
        let ports = self.clone();
        Box::new(move || ports.0.iter().map(PortSlot::counters).collect())
    }

    /// True if one has a driver that never gives back the buffers which it lent its kernel: `net_af_xdp` forgets its fill rings.
    pub fn keep_buffers(&self) -> bool {
        self.0.iter().any(|slot| slot.driver == "net_af_xdp")
    }

    /// Name and driver of each.
    pub fn drivers(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|slot| (slot.name(), slot.driver.as_str()))
    }

    /// Lets go of them: those whose queues are gone too stop and close.
    pub fn close(&self) {
        self.0.iter().for_each(|slot| drop(slot.take()));
    }
}
