//! The loop allocates nothing: a thousand times as many frames take not one allocation more. Every
//! run makes its own tables first, so two runs of different length are compared.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use pktgen::plan::{From, IMIX, Mode, Shares, Versions};
use pktgen::{DpdkPort, Monitor, Plan, Ports, Spec};
use pmd::{Config, Eal, Mempool};

/// The system's allocator, which counts what it is asked for.
struct Counting;

static ASKED: AtomicU64 = AtomicU64::new(0);

// SAFETY: every call goes to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ASKED.fetch_add(1, Relaxed);
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        ASKED.fetch_add(1, Relaxed);
        // SAFETY: as above.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

#[test]
fn the_loop_allocates_nothing() {
    let prefix = format!("--file-prefix=pktgen-test-{}", std::process::id());
    let args = [
        "--no-pci",
        "--no-huge",
        "-m",
        "128",
        "--no-shconf",
        "--no-telemetry",
        "-l",
        "0",
        &prefix,
        "--vdev=net_ring0",
    ];
    let eal = Eal::init(&args.map(str::to_owned)).unwrap();
    let pool = Arc::new(Mempool::new(&eal, "test", 8192, pmd::DEFAULT_DATA_ROOM).unwrap());
    let port = pmd::Port::configure(&eal, "net_ring0", &Config::default(), &pool).unwrap();
    let (_port, mut queues) = port.start().unwrap();
    let mut ports = Ports::single(DpdkPort::new(queues.remove(0), pool.clone()));
    let shares = Shares { new: 0.1, denied: 0.05, hostile: 0.05, flood: 0.05 };
    for mode in [Mode::Stateless, Mode::Stateful] {
        let mut asked = |count| {
            let spec = Spec {
                mode,
                udp: 0.3,
                flows: 500,
                versions: Versions::Both,
                from: From::Both,
                sizes: IMIX.to_vec(),
                shares,
                requests: if mode == Mode::Stateful { 3 } else { 0 },
                count: Some(count),
                duration: None,
                drain: Duration::from_millis(50),
                ..Spec::default()
            };
            let plan = Plan::new(spec).unwrap();
            let before = ASKED.load(Relaxed);
            let report = pktgen::run(&mut ports, &plan, &Monitor::default());
            assert_eq!(report.packets.lost, 0, "{report:?}");
            ASKED.load(Relaxed) - before
        };
        let few = asked(1000);
        assert!(few > 0, "they are counted");
        // The report lists the classes that were there; both have all of them.
        assert_eq!(asked(300_000), few, "{mode:?}");
    }
}
