//! What a packet costs beyond cycles: no allocation, and so much memory a connection.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use engine::Reason;
use engine::conntrack::{Entry, index::Index, nic_lists::NicLists};
use engine::timer_wheel::TimerWheels;
use perf::cases::established_rig;
use perf::memory::{Load, shuffled};
use perf::rig::{Rig, compile, shard_config};
use perf::world::{Kind, Shape, World};

/// The system's allocator, with every call counted.
struct Counting;

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

// SAFETY: every call goes to the system's allocator as it is.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Relaxed);
        // SAFETY: the caller's promises are the system allocator's.
        unsafe { System.alloc(layout) }
    }

    // Zeroed memory comes unbacked from the system, and is to stay so.
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Relaxed);
        // SAFETY: as above.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(at, layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Relaxed);
        // SAFETY: as above.
        unsafe { System.realloc(at, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

#[test]
fn no_packet_allocates_be_it_established_denied_new_or_at_a_full_table() {
    const FLOWS: u32 = 5_000;
    for shape in [Shape::V4, Shape::V6, Shape::Vxlan] {
        let world = World { nics: 100, shape, ..World::USUAL };
        // Room for a few new connections, and then for none.
        let mut rig = established_rig(&world, FLOWS, FLOWS + 1_000);
        let (questions, answers) =
            (world.frames(Kind::Question, 0, FLOWS), world.frames(Kind::Answer, 0, FLOWS));
        let (denied, new) = (world.denied(FLOWS), world.frames(Kind::Syn, FLOWS, FLOWS));
        let order = shuffled(0..FLOWS, 1);
        let load = |pool| Some(Load { pool, order: &order });
        let before = ALLOCATIONS.load(Relaxed);
        rig.play(load(&answers), load(&questions), 3 * FLOWS as usize);
        rig.play(None, load(&denied), FLOWS as usize);
        rig.play(None, load(&new), FLOWS as usize);
        assert_eq!(ALLOCATIONS.load(Relaxed) - before, 0, "{shape:?}");
        // Two of each handshake, and the data.
        assert_eq!(rig.count(Reason::Established), u64::from((2 + 6) * FLOWS));
        assert_eq!(rig.count(Reason::NoRule), u64::from(FLOWS));
        assert_eq!(rig.count(Reason::New), u64::from(2 * FLOWS));
        assert_eq!(rig.shard().len(), FLOWS + 1_000);
    }
}

/// Kilobytes of memory that are this process's now.
fn resident_kb() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

#[test]
fn a_connection_takes_an_entry_an_index_place_and_two_links() {
    const HELD: u32 = 1_000_000;
    // Filled to nine tenths.
    let capacity = HELD / 9 * 10 + 10;
    let index = Index::new(capacity).bytes() as f64 / f64::from(capacity);
    let (entry, link) = (size_of::<Entry>(), TimerWheels::BYTES_AN_ENTRY);
    let roster = NicLists::BYTES_AN_ENTRY;
    println!(
        "bytes a place: entry {entry}, index {index:.2}, timers and eviction {link}, its NIC's ring {roster}; IPv6 16 more"
    );
    assert_eq!((entry, link, roster), (64, 8, 8));
    assert!(index <= 12.0, "{index}");

    let world = World { nics: 100, ..World::USUAL };
    // What every rig takes, its connections apart.
    drop(established_rig(&world, 0, 1024));
    let before = resident_kb();
    let rig = established_rig(&world, HELD, capacity);
    let grown = resident_kb().saturating_sub(before);
    println!("resident memory: {grown} kB more for {HELD} connections");
    assert_eq!(rig.shard().len(), HELD);
}

/// Pages that this thread was the first to touch, so far.
fn faults() -> u64 {
    let stat = std::fs::read_to_string("/proc/thread-self/stat").unwrap();
    let behind_the_name = stat.rsplit(')').next().unwrap();
    behind_the_name.split_whitespace().nth(7).unwrap().parse().unwrap()
}

#[test]
fn no_packet_is_the_first_to_touch_a_page() {
    const FLOWS: u32 = 100_000;
    for shape in [Shape::V4, Shape::V6] {
        let world = World { shape, ..World::USUAL };
        let frames = [Kind::Syn, Kind::SynAck, Kind::Ack].map(|kind| world.frames(kind, 0, FLOWS));
        let order = shuffled(0..FLOWS, 1);
        let mut taken = Vec::new();
        for is_touched in [true, false] {
            let mut rig = Rig::with(compile(&world.policy()), shard_config(FLOWS));
            if is_touched {
                rig.touch();
            }
            let before = faults();
            for (n, pool) in frames.iter().enumerate() {
                let load = Some(Load { pool, order: &order });
                let (inside, outside) = if n == 1 { (load, None) } else { (None, load) };
                rig.play(inside, outside, FLOWS as usize);
            }
            taken.push(faults() - before);
            assert_eq!(rig.count(Reason::Established), u64::from(2 * FLOWS));
        }
        println!("{shape:?}: pages first touched by packets: {} of {}", taken[0], taken[1]);
        // Reading the counts takes some itself.
        assert!(taken[0] < 32 && taken[1] > 10 * taken[0], "{shape:?}: {taken:?}");
    }
}
