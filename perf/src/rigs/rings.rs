//! One process: the generator's thread and the firewall's worker, with `net_ring` ports between
//! them that pass buffers on.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::Instant;

use crossbeam::channel::bounded;
use engine::Side;
use engine::burst::{Firewall, FirewallConfig};
use engine::conntrack::Secret;
use engine::counters::{ConnectionCounts, EngineCounters};
use engine::io::{Burst, Port};
use engine::worker::{Wire, Worker, mesh};
use pktgen::plan::{From, Mode, Plan, Rate, Spec};
use pktgen::search::Search;
use pktgen::{Generator, Monitor, Ports};
use pmd::{Config, DEFAULT_DATA_ROOM, Eal, Mbuf, Mempool, RxQueue, Started, TxQueue};
use serde_json::Value;

use super::measure::{CATCH_UP, FLOWS, Load, Rig, SERVERS, WARM_UP, Who};
use super::programs::unique;
use crate::rig::{SECRET, compile, shard_config};

/// Room for connections.
const CAPACITY: u32 = 1 << 17;
/// Buffers: four full rings, what is in hand, and caches.
const BUFFERS: u32 = 16_384;
/// Empty polls in a row after which the forwarder offers its core to others between two polls: as
/// the appliance's workers do.
const PATIENT_POLLS: u32 = 2048;
/// Trials end within this part of the highest rate.
const RESOLUTION: f64 = 0.01;

/// One end of a cable: two ring devices, of which the other end sends into one and receives from
/// the other.
#[derive(Debug)]
pub struct End {
    rx: RxQueue,
    tx: TxQueue,
    pool: Arc<Mempool>,
}

impl End {
    #[inline]
    fn rx(&mut self, burst: &mut Burst<Mbuf>) {
        self.rx.rx(burst);
    }

    #[inline]
    fn tx(&mut self, burst: &mut Burst<Mbuf>) {
        self.tx.tx(burst);
    }

    #[inline]
    fn free(&mut self, burst: &mut Burst<Mbuf>) {
        self.rx.free(burst);
    }
}

/// A worker has its ports lent to it.
impl Port for &mut End {
    type Frame = Mbuf;

    #[inline]
    fn rx(&mut self, burst: &mut Burst<Mbuf>) {
        End::rx(self, burst);
    }

    #[inline]
    fn tx(&mut self, burst: &mut Burst<Mbuf>) {
        End::tx(self, burst);
    }

    #[inline]
    fn free(&mut self, burst: &mut Burst<Mbuf>) {
        End::free(self, burst);
    }
}

impl pktgen::Port for &mut End {
    #[inline]
    fn alloc(&mut self, count: usize, burst: &mut Burst<Mbuf>) -> usize {
        self.pool.alloc_bulk(burst, count)
    }
}

/// The rig. EAL starts with it, so there is one in a process.
pub struct Rings {
    /// The generator's ends, inside first, and the forwarder's.
    near: [End; 2],
    far: [End; 2],
    pool: Arc<Mempool>,
    cores: (usize, usize),
    /// Closed when the ends are.
    _ports: Vec<pmd::Port<Started>>,
    eal: Arc<Eal>,
}

impl Rings {
    /// The generator on the first of these cores, who forwards on the second. They may be one and
    /// the same.
    pub fn new(cores: (usize, usize)) -> Result<Rings, pmd::Error> {
        let mut args: Vec<String> =
            ["--no-pci", "--no-huge", "-m", "256", "--no-shconf", "--no-telemetry"].map(str::to_owned).into();
        args.extend([format!("--lcores=0@{}", cores.0), format!("--file-prefix={}", unique())]);
        args.extend((0..4).map(|n| format!("--vdev=net_ring{n}")));
        let eal = Arc::new(Eal::init(&args)?);
        let pool = Arc::new(Mempool::new(&eal, "rig", BUFFERS, DEFAULT_DATA_ROOM)?);
        let (mut ports, mut ends) = (Vec::new(), Vec::new());
        for n in 0..4 {
            let port = pmd::Port::configure(&eal, &format!("net_ring{n}"), &Config::default(), &pool)?;
            let (port, queues) = port.start()?;
            ports.push(port);
            ends.extend(queues.into_iter().map(pmd::Queue::split));
        }
        let mut ends = ends.into_iter();
        let mut cable = || {
            let mut next = || ends.next().expect("four devices have four queues");
            let ((far_rx, near_tx), (near_rx, far_tx)) = (next(), next());
            let end = |rx, tx| End { rx, tx, pool: pool.clone() };
            (end(near_rx, near_tx), end(far_rx, far_tx))
        };
        let ((near_inside, far_inside), (near_outside, far_outside)) = (cable(), cable());
        Ok(Rings {
            near: [near_inside, near_outside],
            far: [far_inside, far_outside],
            pool,
            cores,
            _ports: ports,
            eal,
        })
    }

    /// Buffers that are in use: none but those in threads' caches once a measurement is over.
    pub fn in_use(&self) -> u32 {
        self.pool.in_use()
    }
}

/// What to send, and how fast.
fn spec(load: &Load) -> Spec {
    let udp = Spec {
        from: From::Both,
        flows: FLOWS,
        servers: SERVERS,
        warmup: WARM_UP,
        catch_up: CATCH_UP,
        ..Spec::default()
    };
    match *load {
        Load::Search { .. } => udp,
        Load::Rate { flows, pps, time } => Spec { flows, rate: Rate::Pps(pps), duration: Some(time), ..udp },
        Load::Connections(count) => Spec {
            mode: Mode::Stateful,
            udp: 0.0,
            flows: 200,
            servers: SERVERS,
            connections: Some(count),
            requests: 3,
            rate: Rate::Pps(4000.0),
            duration: None,
            drain: std::time::Duration::from_secs(1),
            timeout: std::time::Duration::from_secs(5),
            ..Spec::default()
        },
    }
}

impl Rig for Rings {
    fn name(&self) -> &'static str {
        "ring"
    }

    fn floor(&self) -> &'static str {
        "a loop that passes bursts on"
    }

    fn generate(&mut self, who: Who, load: &Load) -> io::Result<Value> {
        let plan = Plan::new(spec(load)).map_err(io::Error::other)?;
        let Rings { near: [near_inside, near_outside], far: [far_inside, far_outside], cores, eal, .. } =
            self;
        let (near_core, far_core) = *cores;
        let stop = AtomicBool::new(false);
        let report = thread::scope(|scope| {
            let (stop, eal, wire) = (&stop, &*eal, Wire { inside: far_inside, outside: far_outside });
            let policy = pktgen::policy::policy(&plan);
            let forwarding = scope.spawn(move || {
                let _registered = enter(eal, far_core);
                match who {
                    Who::Portcullis => protect(wire, &policy, stop),
                    Who::Floor => pass_on(wire, stop),
                }
            });
            let generating = scope.spawn(|| {
                let _registered = enter(eal, near_core);
                generate(Ports::pair(near_inside, near_outside), &plan, load)
            });
            let report = generating.join();
            stop.store(true, Relaxed);
            forwarding.join().and(report).map_err(|_| io::Error::other("a thread of the rig broke off"))
        })?;
        Ok(serde_json::to_value(report)?)
    }
}

fn enter(eal: &Eal, core: usize) -> pmd::ThreadGuard {
    core_affinity::set_for_current(core_affinity::CoreId { id: core });
    eal.register_thread().unwrap_or_else(|error| panic!("{error}"))
}

fn generate(mut ports: Ports<&mut End>, plan: &Plan, load: &Load) -> pktgen::Report {
    let (mut generator, monitor) = (Generator::new(plan), Monitor::default());
    generator.warm_up(&mut ports, &monitor);
    match *load {
        Load::Search { max_pps, trial } => {
            let search = Search {
                min_pps: max_pps / 1000.0,
                max_pps,
                resolution: RESOLUTION,
                ndr_loss: 0.0,
                pdr_loss: 0.005,
            };
            generator.search(&mut ports, &search, (true, false), trial, &monitor)
        }
        _ => generator.measure(&mut ports, &monitor),
    }
}

/// The firewall's worker, as the appliance runs one.
fn protect(wire: Wire<&mut End>, policy: &str, stop: &AtomicBool) {
    let (_publisher, mut readers) = rcu::domain(compile(policy), 1);
    let firewall =
        FirewallConfig { shard: shard_config(CAPACITY), secret: Secret::new(SECRET), grace_end_ns: 0 };
    let firewall =
        Firewall::new(&firewall, Arc::new(EngineCounters::new()), Arc::new(ConnectionCounts::new()));
    let (_asked, questions) = bounded(1);
    let (reader, rings) = (readers.remove(0), mesh(1, 8).remove(0));
    let mut worker = Worker::new(0, firewall, reader, vec![wire], rings, questions);
    let start = Instant::now();
    poll(stop, || worker.poll(start.elapsed().as_nanos() as u64, &mut ()).frames);
}

/// What there is goes on to the other side; what that does not take is dropped.
fn pass_on(mut wire: Wire<&mut End>, stop: &AtomicBool) {
    let mut burst = Burst::new();
    poll(stop, || {
        let mut frames = 0;
        for from in [Side::Inside, Side::Outside] {
            end(&mut wire, from).rx(&mut burst);
            frames += burst.len();
            end(&mut wire, from.other()).tx(&mut burst);
            end(&mut wire, from).free(&mut burst);
        }
        frames
    });
}

fn end<'a>(wire: &'a mut Wire<&mut End>, side: Side) -> &'a mut End {
    if side == Side::Inside { wire.inside } else { wire.outside }
}

fn poll(stop: &AtomicBool, mut turn: impl FnMut() -> usize) {
    let mut idle = 0u32;
    while !stop.load(Relaxed) {
        idle = if turn() > 0 { 0 } else { idle.saturating_add(1) };
        if idle < PATIENT_POLLS { std::hint::spin_loop() } else { thread::yield_now() }
    }
}
