//! The ports of all wires: opened in the order of the configuration, their queues dealt out to the workers, their
//! links and losses watched ([`monitor`]).

pub mod claims;
pub mod interfaces;
mod losses;
pub mod monitor;
pub mod offloads;
mod slot;
mod sockets;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use control::config::Config;
use control::live::PortsView;
use engine::Side;
use engine::worker::Wire;
use pmd::{Eal, Mempool, Port, Queue};

use super::environment::PORT_RING;
use super::refusals::Machine;
use monitor::MonitorContext;
use slot::PortSlot;

/// All ports, in the order of the configuration. Shared, so that their counters can be shown; closed at the end.
#[derive(Clone)]
pub struct Ports(Arc<[PortSlot]>);

/// Ports that another process has for now, by number.
#[derive(Debug, Default)]
pub struct Lent(Vec<usize>);

/// True for a port of a driver of which two processes may have one on the same interface, or on none: each sees all frames.
pub fn is_shared(port: &str) -> bool {
    ["net_af_packet", "net_null", "net_pcap", "net_ring"].iter().any(|driver| port.starts_with(driver))
}

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

    /// Takes those away from the workers and out of EAL that one process alone can have: another one wants them. They come to `lent`, also
    /// where an error tells that it was not all of them.
    pub fn lend(&self, means: &MonitorContext, lent: &mut Lent) -> Result<(), String> {
        let goes_on = AtomicBool::new(false);
        for (number, slot) in self.0.iter().enumerate() {
            if is_shared(slot.name()) || !slot.is_attached() {
                continue;
            }
            let old = means.exchange.swap(slot.at, slot.vacant(), &goes_on);
            let old = old.ok_or_else(|| format!("the workers do not let go of {}", slot.name()))?;
            lent.0.push(number);
            drop((old, slot.take()));
            let _ = means.eal.unplug(slot.name());
        }
        Ok(())
    }

    /// Has them again. One that cannot be had now is made by whoever looks after the ports, as if its interface came back.
    pub fn take_back(&self, lent: Lent, means: &MonitorContext) {
        let goes_on = AtomicBool::new(false);
        for slot in lent.0.into_iter().filter_map(|number| self.0.get(number)) {
            match slot.make(&means.eal, &means.pool) {
                Ok((port, queues)) => {
                    slot.put(port);
                    means.exchange.swap(slot.at, queues, &goes_on);
                }
                Err(reason) => tracing::error!("port {}: {reason}", slot.name()),
            }
        }
    }

    /// Lets go of them: those whose queues are gone too stop and close.
    pub fn close(&self) {
        self.0.iter().for_each(|slot| drop(slot.take()));
    }
}
