//! Over DPDK's virtual devices: exact counts, whatever lies between. EAL starts once in a process,
//! so each test has one of its own.

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use common::plan;
use engine::io::{Burst, Port as _};
use pktgen::device::Devices;
use pktgen::plan::{From, IMIX, Mode, Versions};
use pktgen::{DpdkPort, Monitor, Ports, Report, Spec};
use pmd::{Config, Eal, Mempool, Queue};

fn args(vdevs: &[&str]) -> Vec<String> {
    let common = ["--no-pci", "--no-huge", "-m", "192", "--no-shconf", "--no-telemetry", "-l", "0"];
    let prefix = format!("--file-prefix=pktgen-test-{}", std::process::id());
    let vdevs = vdevs.iter().map(|vdev| format!("--vdev={vdev}"));
    common.into_iter().map(str::to_owned).chain([prefix]).chain(vdevs).collect()
}

fn counted(count: u64) -> Spec {
    Spec { count: Some(count), duration: None, drain: Duration::from_secs(2), ..Spec::default() }
}

/// Both queue pairs of a ring device: what one sends comes back to the same one.
fn rings(eal: &Eal, pool: &Mempool, name: &str, queues: u16) -> (pmd::Port<pmd::Started>, Vec<Queue>) {
    let config = Config { queues, ..Config::default() };
    pmd::Port::configure(eal, name, &config, pool).and_then(pmd::Port::start).expect("the port starts")
}

#[test]
fn a_ring_gives_back_every_frame_and_no_buffer_is_lost() {
    let eal = Eal::init(&args(&["net_ring0"])).unwrap();
    let pool = Arc::new(Mempool::new(&eal, "test", 8192, pmd::DEFAULT_DATA_ROOM).unwrap());
    let (port, mut queues) = rings(&eal, &pool, "net_ring0", 1);
    let mut ports = Ports::single(DpdkPort::new(queues.remove(0), pool.clone()));
    let spec = Spec {
        from: From::Both,
        versions: Versions::Both,
        sizes: IMIX.to_vec(),
        udp: 0.5,
        ..counted(200_000)
    };
    let report = pktgen::run(&mut ports, &plan(&spec), &Monitor::default());
    assert_eq!((report.packets.sent, report.packets.received, report.packets.lost), (200_000, 200_000, 0));
    assert_eq!((report.packets.unexpected.total, report.packets.reordered), (0, 0));
    assert_eq!(report.latency_ns.unwrap().samples, 200_000);
    assert_eq!((port.stats().tx_packets, port.stats().rx_packets), (200_000, 200_000));
    drop((ports, port));
    assert_eq!(pool.in_use(), 0);
}

/// The two ends of a memif pair are the generator's; a forwarder between two pairs drops every
/// `k`th frame.
fn through_a_forwarder(spec: &Spec, k: u64) -> (Report, u64) {
    let socket = |n| format!("socket-abstract=yes,socket=pktgen-{}-{n}", std::process::id());
    let vdev =
        |n: usize, role: &str, pair: usize| format!("net_memif{n},role={role},id={pair},{}", socket(pair));
    let vdevs = [vdev(0, "server", 0), vdev(1, "server", 1), vdev(2, "client", 0), vdev(3, "client", 1)];
    let eal = Eal::init(&args(&vdevs.each_ref().map(String::as_str))).unwrap();
    let pool = Arc::new(Mempool::new(&eal, "test", 16_384, pmd::DEFAULT_DATA_ROOM).unwrap());
    let opened: Vec<_> = (0..4).map(|n| rings(&eal, &pool, &format!("net_memif{n}"), 1)).collect();
    let (ports, queues): (Vec<_>, Vec<_>) =
        opened.into_iter().map(|(port, mut queues)| (port, queues.remove(0))).unzip();
    let until = std::time::Instant::now() + Duration::from_secs(10);
    while !ports.iter().all(|port| port.link().up) {
        assert!(std::time::Instant::now() < until, "no links");
        std::thread::sleep(Duration::from_millis(5));
    }
    // The driver maps what the sides share on a thread of EAL's, and says that the link is up
    // before it is through.
    std::thread::sleep(Duration::from_millis(200));
    let mut queues = queues.into_iter();
    let mut next = || queues.next().expect("four queues");
    let (near_inside, near_outside, inside, outside) = (next(), next(), next(), next());
    let (stop, dropped) = (AtomicBool::new(false), AtomicU64::new(0));
    let report = std::thread::scope(|scope| {
        let (eal, stop, dropped) = (&eal, &stop, &dropped);
        scope.spawn(move || {
            let _registered = eal.register_thread().expect("a thread registers");
            let mut forwarder = Forwarder { queues: [near_inside, near_outside], seen: 0, k };
            while !stop.load(Relaxed) {
                dropped.fetch_add(forwarder.turn(), Relaxed);
            }
        });
        let mut ports =
            Ports::pair(DpdkPort::new(inside, pool.clone()), DpdkPort::new(outside, pool.clone()));
        let report = pktgen::run(&mut ports, &plan(spec), &Monitor::default());
        // The clients that leave free the shared memory, on EAL's own thread: first nobody polls
        // any more.
        stop.store(true, Relaxed);
        std::mem::forget(ports);
        report
    });
    std::mem::forget(ports);
    (report, dropped.load(Relaxed))
}

struct Forwarder {
    queues: [Queue; 2],
    seen: u64,
    k: u64,
}

impl Forwarder {
    /// Carries what is there both ways; how many frames it dropped.
    fn turn(&mut self) -> u64 {
        let (mut burst, mut dropped) = (Burst::new(), 0);
        for (from, to) in [(0, 1), (1, 0)] {
            self.queues[from].rx(&mut burst);
            burst.retain(|_| {
                self.seen += 1;
                let is_dropped = self.k > 0 && self.seen.is_multiple_of(self.k);
                dropped += u64::from(is_dropped);
                !is_dropped
            });
            while !burst.is_empty() {
                self.queues[to].tx(&mut burst);
                if !burst.is_empty() {
                    std::thread::yield_now();
                }
            }
        }
        if dropped == 0 {
            std::thread::yield_now();
        }
        dropped
    }
}

#[test]
fn frames_over_memif_are_missed_exactly_where_they_were_dropped() {
    let spec = Spec { from: From::Both, rate: pktgen::plan::Rate::Pps(20_000.0), ..counted(20_000) };
    let (report, dropped) = through_a_forwarder(&spec, 13);
    assert_eq!(dropped, 20_000 / 13);
    assert_eq!((report.packets.sent, report.packets.lost), (20_000, dropped));
    assert_eq!((report.packets.received, report.packets.duplicates), (20_000 - dropped, 0));
    assert_eq!(report.packets.unexpected.total, 0);
}

#[test]
fn connections_over_memif_open_and_close() {
    let spec = Spec {
        mode: Mode::Stateful,
        udp: 0.0,
        flows: 200,
        connections: Some(1000),
        requests: 2,
        versions: Versions::Both,
        duration: None,
        rate: pktgen::plan::Rate::Pps(20_000.0),
        ..Spec::default()
    };
    let (report, _) = through_a_forwarder(&spec, 0);
    let connections = report.connections.unwrap();
    assert_eq!(
        (connections.established, connections.closed, connections.failed),
        (1000, 1000, 0),
        "{report:?}"
    );
    assert_eq!((report.packets.lost, report.packets.unexpected.total), (0, 0));
}

#[test]
fn a_null_device_swallows_and_a_port_that_is_not_there_is_told_of() {
    let devices = |outside: &str| Devices {
        inside: None,
        outside: outside.to_owned(),
        eal: args(&["net_null0,no-rx=1"]),
        core: 0,
        ring: 512,
        wait: Duration::from_secs(5),
    };
    let (open, mut ports) = devices("net_null0").open().unwrap();
    let report = pktgen::run(&mut ports, &plan(&counted(100_000)), &Monitor::default());
    assert_eq!((report.packets.sent, report.packets.received, report.packets.lost), (100_000, 0, 100_000));
    assert_eq!((report.loss, report.latency_ns), (1.0, None));
    let counts = open.counts();
    assert_eq!(
        (counts[0].name.as_str(), counts[0].driver.as_str(), counts[0].tx_packets),
        ("net_null0", "net_null", 100_000)
    );
}
