//! What the tests share. EAL starts once in a process, so each test needs one of its own: run them with nextest.

#![allow(dead_code, missing_docs)]

use std::time::{Duration, Instant};

use engine::io::{Burst, Frame, Port as _};
use pmd::{Config, Eal, Mbuf, Mempool, Port, Queue, Started};

/// Buffers of the tests' pools.
pub const BUFFERS: u32 = 4096;

/// Arguments that let EAL start anywhere, beside other processes: with `--no-shconf` they share nothing.
pub fn args(vdevs: &[&str]) -> Vec<String> {
    let common = [
        "--no-pci",
        "--no-huge",
        "-m",
        "256",
        "--no-shconf",
        "--no-telemetry",
        "-l",
        "0",
        "--file-prefix=pmd-test",
    ];
    let vdevs = vdevs.iter().map(|vdev| format!("--vdev={vdev}"));
    common.into_iter().map(str::to_owned).chain(vdevs).collect()
}

pub fn start(vdevs: &[&str]) -> Eal {
    Eal::init(&args(vdevs)).expect("EAL starts")
}

pub fn pool(eal: &Eal) -> Mempool {
    let pool = Mempool::new(eal, "test", BUFFERS, pmd::DEFAULT_DATA_ROOM).expect("a pool");
    assert_eq!((pool.avail(), pool.in_use()), (BUFFERS, 0));
    pool
}

pub fn open(eal: &Eal, name: &str, config: &Config, pool: &Mempool) -> (Port<Started>, Vec<Queue>) {
    Port::configure(eal, name, config, pool).and_then(Port::start).expect("the port starts")
}

/// A started port with a single queue pair.
pub fn open_one(eal: &Eal, name: &str, pool: &Mempool) -> (Port<Started>, Queue) {
    let (port, mut queues) = open(eal, name, &Config::default(), pool);
    assert_eq!(queues.len(), 1);
    (port, queues.remove(0))
}

/// Every buffer is back once ports and queues are gone.
pub fn assert_nothing_leaked(pool: &Mempool) {
    assert_eq!((pool.avail(), pool.in_use()), (BUFFERS, 0), "buffers leaked");
}

/// An Ethernet frame of `len` bytes whose payload tells `number`.
pub fn bytes(number: u32, len: usize) -> Vec<u8> {
    let mut frame = vec![0x02, 0, 0, 0, 0, 0xbb, 0x02, 0, 0, 0, 0, 0xaa, 0x88, 0xb5];
    frame.extend(number.to_be_bytes());
    frame.extend((0u32..).map(|i| (i.wrapping_mul(31) ^ number) as u8).take(len.saturating_sub(frame.len())));
    frame.truncate(len);
    frame
}

/// As `bytes`, with 802.1Q tags before the EtherType.
pub fn tagged(number: u32, len: usize, tags: &[u16]) -> Vec<u8> {
    let mut frame = bytes(number, len - 4 * tags.len());
    for tag in tags.iter().rev() {
        let [high, low] = tag.to_be_bytes();
        frame.splice(12..12, [0x81, 0x00, high, low]);
    }
    frame
}

pub fn mbuf(pool: &Mempool, bytes: &[u8]) -> Mbuf {
    let mut frame = pool.alloc().expect("a buffer");
    assert!(frame.append(bytes), "{} bytes fit a buffer", bytes.len());
    frame
}

/// A frame with a segment for each of `pieces`.
pub fn chained(pool: &Mempool, pieces: &[&[u8]]) -> Mbuf {
    let mut head = mbuf(pool, pieces[0]);
    for piece in &pieces[1..] {
        head.chain(mbuf(pool, piece)).expect("room for a segment");
    }
    head
}

/// All bytes of a frame, over its segments.
pub fn contents(frame: &Mbuf) -> Vec<u8> {
    let mut all = vec![0; frame.captured()];
    assert_eq!(frame.gather(&mut all), frame.captured());
    all
}

/// Sends all frames, in bursts, and fails if the device takes none for a while.
pub fn send_all(queue: &mut Queue, frames: impl IntoIterator<Item = Mbuf>) {
    let mut frames = frames.into_iter().peekable();
    let end = Instant::now() + Duration::from_secs(5);
    let mut burst = Burst::new();
    while frames.peek().is_some() || !burst.is_empty() {
        while burst.remaining_capacity() > 0
            && let Some(frame) = frames.next()
        {
            burst.push(frame);
        }
        queue.tx(&mut burst);
        assert!(Instant::now() < end, "the device takes no more frames");
    }
}

/// Receives `count` frames' contents, or as many as come within five seconds; tags that a driver took out are put
/// back, as the engine does.
pub fn receive(queue: &mut Queue, count: usize) -> Vec<Vec<u8>> {
    let mut received = Vec::new();
    let end = Instant::now() + Duration::from_secs(5);
    let mut burst = Burst::new();
    while received.len() < count && Instant::now() < end {
        queue.rx(&mut burst);
        for frame in &mut burst {
            assert!(frame.restore_tag());
            received.push(contents(frame));
        }
        queue.free(&mut burst);
        assert!(burst.is_empty());
    }
    received
}

/// Moves all frames from one queue to another until `quiet` polls in a row yield none.
pub fn forward(from: &mut Queue, to: &mut Queue, quiet: u32) -> usize {
    let (mut moved, mut empty) = (0, 0);
    let mut burst = Burst::new();
    while empty < quiet {
        from.rx(&mut burst);
        empty = if burst.is_empty() { empty + 1 } else { 0 };
        moved += burst.len();
        to.tx(&mut burst);
        assert!(burst.is_empty(), "{} frames refused", burst.len());
    }
    moved
}

/// A capture file of these frames: pcap, microseconds, little-endian, Ethernet.
pub fn pcap_of(frames: &[Vec<u8>]) -> Vec<u8> {
    let mut file = Vec::new();
    for word in [0xa1b2_c3d4u32, 0x0004_0002, 0, 0, 262_144, 1] {
        file.extend(word.to_le_bytes());
    }
    for (i, frame) in frames.iter().enumerate() {
        for word in [1_700_000_000, i as u32, frame.len() as u32, frame.len() as u32] {
            file.extend(word.to_le_bytes());
        }
        file.extend(frame);
    }
    file
}

/// The frames of a capture file that a driver wrote; none of them cut.
pub fn frames_of(file: &[u8]) -> Vec<Vec<u8>> {
    let word = |at: usize| u32::from_le_bytes(file[at..at + 4].try_into().unwrap()) as usize;
    let mut frames = Vec::new();
    let mut at = 24;
    while at < file.len() {
        let (captured, original) = (word(at + 8), word(at + 12));
        assert_eq!(captured, original);
        frames.push(file[at + 16..at + 16 + captured].to_vec());
        at += 16 + captured;
    }
    frames
}
