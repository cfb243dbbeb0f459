//! A thread that looks after the ports: links that come and go, interfaces that are deleted and made anew, losses.
//!
//! An interface that is deleted takes the driver's sockets with it for good: another of its name has another number.
//! So the workers are given queues without a device, the device is closed and taken out of EAL, and as soon as an
//! interface of that name is there, another is made and its queues are handed to the workers. Other ports are not
//! touched; workers take queues between two turns.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, Instant};

use control::api::types::LinkState;
use control::health::{HealthBoard, Severity};
use pmd::{Eal, Mempool, TxState};

use super::super::{mtu, swap::SwapChannel};
use super::Ports;
use super::interfaces::{self, Changes, Interface};
use super::losses::Losses;
use super::offloads::{self, Offloads};
use super::slot::PortSlot;

/// How often links are looked at where nothing tells that one has changed.
const LOOK: Duration = Duration::from_millis(200);
/// Not more often than that, whatever is told.
const LEAST: Duration = Duration::from_millis(10);
/// How often losses are looked at.
const COUNT: Duration = Duration::from_secs(1);
/// An attempt to make a device is followed by another after so long.
const AGAIN: Duration = Duration::from_millis(500);

/// Between two attempts to connect to a server that is not there.
const RECONNECT: Duration = Duration::from_secs(1);

/// The kinds of problems.
const LINK: &str = "link";
const MTU: &str = "mtu";

/// What the keeper needs.
#[derive(Clone)]
pub struct MonitorContext {
    /// For devices made anew.
    pub eal: Arc<Eal>,
    /// Their buffers.
    pub pool: Mempool,
    /// The way to the workers.
    pub exchange: SwapChannel,
    /// Where problems are told.
    pub board: HealthBoard,
}

/// The running thread.
pub struct PortMonitor {
    thread: JoinHandle<()>,
    stop: Arc<AtomicBool>,
}

impl PortMonitor {
    /// Starts it.
    pub fn start(ports: &Ports, means: MonitorContext) -> std::io::Result<PortMonitor> {
        let (ports, stop) = (ports.clone(), Arc::new(AtomicBool::new(false)));
        let stopped = stop.clone();
        let body = move || {
            let mut round = Round::new(ports, means, stopped);
            while !round.stop.load(Relaxed) {
                round.changes.wait(LOOK);
                let looked = std::panic::catch_unwind(AssertUnwindSafe(|| round.look()));
                round.tell_of_itself(looked.is_ok());
                std::thread::sleep(LEAST);
            }
        };
        let thread = Builder::new().name("ports".to_owned()).spawn(body)?;
        Ok(PortMonitor { thread, stop })
    }

    /// Ends it. Before the workers end: one of them may be about to get a queue.
    pub fn stop(self) {
        self.stop.store(true, Relaxed);
        let _ = self.thread.join();
    }
}

struct Round {
    ports: Ports,
    means: MonitorContext,
    stop: Arc<AtomicBool>,
    changes: Changes,
    counted: Instant,
    /// By port.
    losses: Vec<Losses>,
    offloads: Vec<Offloads>,
    /// Whose peer's offloads are looked at next.
    next: usize,
    /// When making a device failed last, by port.
    failed: Vec<Option<Instant>>,
    /// When a port last connected anew, by port.
    connected: Vec<Option<Instant>>,
}

impl Round {
    fn new(ports: Ports, means: MonitorContext, stop: Arc<AtomicBool>) -> Round {
        let count = ports.0.len();
        Round {
            ports,
            means,
            stop,
            changes: Changes::new(),
            counted: Instant::now(),
            losses: (0..count).map(|_| Losses::default()).collect(),
            offloads: (0..count).map(|_| Offloads::default()).collect(),
            next: 0,
            failed: vec![None; count],
            connected: vec![None; count],
        }
    }

    /// What it does that panics is a fault of its own, in health until it works again.
    fn tell_of_itself(&self, is_well: bool) {
        const ITSELF: (&str, &str) = ("ports", "task");
        if is_well {
            return self.means.board.clear(ITSELF);
        }
        let cure = "it goes on; report this as a fault";
        self.means.board.raise(ITSELF, Severity::Degraded, "looking after the ports panicked", cure);
    }

    fn look(&mut self) {
        let ports = self.ports.clone();
        let has_interfaces = ports.0.iter().any(|slot| slot.interface.is_some());
        let all = if has_interfaces { interfaces::all().unwrap_or_default() } else { Vec::new() };
        let now = Instant::now();
        for (number, slot) in ports.0.iter().enumerate() {
            match &slot.interface {
                Some(name) => self.look_at_interface(number, slot, name, &all, now),
                None if slot.is_attached() => self.look_at_device(number, slot, now),
                None => self.attach_again(number, slot, now),
            }
        }
        if now.duration_since(self.counted) >= COUNT {
            self.counted = now;
            for (slot, losses) in ports.0.iter().zip(&mut self.losses) {
                if let Some(interface) = slot.attached_to(&all) {
                    slot.note(interface);
                    look_at_mtu(slot, interface, &self.means.board);
                }
                losses.look(slot.counters(), &self.means.board, now);
            }
            self.look_at_offloads(&all);
        }
    }

    /// One port a second: a look takes a while.
    fn look_at_offloads(&mut self, all: &[Interface]) {
        let ports = self.ports.clone();
        let count = ports.0.len();
        let turn = (self.next..self.next + count).map(|number| number % count);
        let is_peers = |number: &usize| {
            let slot = &ports.0[*number];
            !slot.makes_interface() && slot.attached_to(all).is_some_and(|on| on.is_running)
        };
        let Some(number) = turn.into_iter().find(is_peers) else { return };
        self.next = number + 1;
        let slot = &ports.0[number];
        let Some(on) = slot.attached_to(all) else { return };
        // Refused where the process has lost the right to; then nothing is known.
        let Ok(found) = offloads::look(on.index, usize::from(slot.mtu()) + pmd::FRAME_OVERHEAD) else {
            return;
        };
        let peer = offloads::peer_of(on, all).map(|peer| peer.name.as_str());
        self.offloads[number].tell(slot.name(), on, peer, found, &self.means.board);
    }

    /// A port whose device alone knows its link.
    fn look_at_device(&mut self, number: usize, slot: &PortSlot, now: Instant) {
        let Some(is_up) = slot.device_is_up() else { return };
        let (way, state) =
            if is_up { (TxState::Open, LinkState::Up) } else { (TxState::Down, LinkState::Down) };
        slot.place.set_way(way);
        slot.set_state(state);
        let (what, board) = (format!("port {}", slot.name()), &self.means.board);
        if is_up {
            return board.clear((&what, LINK));
        }
        let (problem, cure) = if slot.driver == "net_memif" {
            ("down: no peer is connected", "start the peer; look at socket=, id= and role= of both ends")
        } else {
            ("down: no carrier", "look at the cable, at the switch's port and at its speed")
        };
        board.raise((&what, LINK), Severity::Degraded, problem, cure);
        if slot.is_memif_client() {
            self.reconnect(number, slot, now);
        }
    }

    /// A client of memif connects once, when it starts: its driver takes the end of the server for its own. So it is made anew until a
    /// server answers.
    fn reconnect(&mut self, number: usize, slot: &PortSlot, now: Instant) {
        let is_time = self.connected[number].is_none_or(|then| now.duration_since(then) >= RECONNECT);
        if !is_time || !self.detach(slot) {
            return;
        }
        self.connected[number] = Some(now);
        // Where it cannot be made, it is tried again as one that is gone.
        if let Ok((port, queues)) = slot.make(&self.means.eal, &self.means.pool) {
            slot.put_back(port);
            self.means.exchange.swap(slot.at, queues, &self.stop);
        }
    }

    /// A port without an interface that was lent to another process, which had not ended when it was wanted back.
    fn attach_again(&mut self, number: usize, slot: &PortSlot, now: Instant) {
        if self.failed[number].is_none_or(|failed| now.duration_since(failed) >= AGAIN) {
            let name = slot.name().to_owned();
            self.attach(number, slot, &name, now);
        }
    }

    /// A port on a kernel's interface.
    fn look_at_interface(
        &mut self,
        number: usize,
        slot: &PortSlot,
        name: &str,
        all: &[Interface],
        now: Instant,
    ) {
        let named = all.iter().find(|interface| interface.name == name);
        let attached = slot.attached_to(all);
        let is_other = matches!((named, attached), (Some(named), Some(on)) if named.index != on.index);
        match attached {
            Some(on) if !is_other => self.look_at_link(slot, name, on),
            _ => {
                self.tell_gone(slot, name);
                if slot.is_attached() && !self.detach(slot) {
                    return;
                }
                let is_time = self.failed[number].is_none_or(|failed| now.duration_since(failed) >= AGAIN);
                if is_time && (named.is_some() || slot.makes_interface()) {
                    self.attach(number, slot, name, now);
                    if let Some(on) = named.filter(|_| slot.is_attached()) {
                        self.look_at_link(slot, name, on);
                    }
                }
            }
        }
    }

    fn look_at_link(&self, slot: &PortSlot, name: &str, on: &Interface) {
        let (what, board) = (format!("port {}", slot.name()), &self.means.board);
        let state = if on.is_running { LinkState::Up } else { LinkState::Down };
        let before = slot.set_state(state);
        if on.is_running {
            if before != LinkState::Up {
                slot.forget_errors();
            }
            slot.place.set_way(TxState::Open);
            if on.name == name {
                return board.clear((&what, LINK));
            }
            return board.raise(
                (&what, LINK),
                Severity::Degraded,
                format!("its interface {name} is called {} now", on.name),
                format!(
                    "it goes on until a restart, which would not find it: `ip link set {} name {name}`",
                    on.name
                ),
            );
        }
        slot.place.set_way(TxState::Shut);
        let (problem, cure) = if on.is_up {
            let cure = format!("look at the other end of {}: its cable, or its peer that is down", on.name);
            (format!("down: {} has no carrier", on.name), cure)
        } else {
            (format!("down: {} is not set up", on.name), format!("`ip link set {} up`", on.name))
        };
        board.raise((&what, LINK), Severity::Degraded, problem, cure);
    }

    fn tell_gone(&self, slot: &PortSlot, name: &str) {
        slot.place.set_way(TxState::Shut);
        slot.set_state(LinkState::Gone);
        if self.means.board.is_raised((&format!("port {}", slot.name()), LINK)) && !slot.is_attached() {
            return;
        }
        self.means.board.raise(
            (&format!("port {}", slot.name()), LINK),
            Severity::Degraded,
            format!("gone: there is no interface {name} any more"),
            "make it again: it is attached by itself, without a restart",
        );
    }

    /// Takes the device from the workers and out of EAL; false if the workers end meanwhile.
    fn detach(&self, slot: &PortSlot) -> bool {
        let Some(old) = self.means.exchange.swap(slot.at, slot.vacant(), &self.stop) else { return false };
        drop((old, slot.take()));
        // Refused only where the device went with its port already.
        let _ = self.means.eal.unplug(slot.name());
        true
    }

    fn attach(&mut self, number: usize, slot: &PortSlot, name: &str, now: Instant) {
        let (what, board) = (format!("port {}", slot.name()), &self.means.board);
        match slot.make(&self.means.eal, &self.means.pool) {
            Ok((port, queues)) => {
                self.failed[number] = None;
                slot.put(port);
                if self.means.exchange.swap(slot.at, queues, &self.stop).is_some() {
                    tracing::info!("{what}: attached to {name} again");
                }
            }
            Err(reason) => {
                self.failed[number] = Some(now);
                let problem = match &slot.interface {
                    Some(_) => format!("gone: {name} is there again and cannot be attached: {reason}"),
                    None if slot.is_memif_client() => format!("down: no peer is connected: {reason}"),
                    None => format!("down: it cannot be opened: {reason}"),
                };
                board.raise((&what, LINK), Severity::Degraded, problem, "it is tried again twice a second");
            }
        }
    }
}

/// An interface that carries less than its wire: what the other side takes cannot leave by it.
fn look_at_mtu(slot: &PortSlot, on: &Interface, board: &HealthBoard) {
    let what = format!("port {}", slot.name());
    let (own, wires) = (mtu::mtu_of(&on.name), slot.mtu());
    match own {
        Some(own) if own < wires => board.raise(
            (&what, MTU),
            Severity::Degraded,
            format!("the MTU of {} is {own}, its wire's is {wires}: longer frames are lost", on.name),
            format!("`ip link set {} mtu {wires}`", on.name),
        ),
        _ => board.clear((&what, MTU)),
    }
}
