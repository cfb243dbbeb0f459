//! Frames through DPDK's virtual devices: what goes in comes out, and no buffer is lost on the way.

mod common;

use common::{
    BUFFERS, assert_nothing_leaked, bytes, chained, contents, forward, frames_of, mbuf, open, open_one,
    pcap_of, pool, receive, send_all, start, tagged,
};
use engine::io::{BURST, Burst, Frame, Port as _};
use pmd::{Config, Mempool};

/// Frames that a ring of net_ring holds.
const RING: usize = 1023;

#[test]
fn net_null_delivers_full_bursts_and_swallows_them() {
    let eal = start(&["net_null0", "net_null1"]);
    let pool = pool(&eal);
    let (inside, mut from) = open_one(&eal, "net_null0", &pool);
    let (outside, mut to) = open_one(&eal, "net_null1", &pool);
    assert_eq!((inside.driver(), inside.mtu(), inside.max_frame()), ("net_null", 1500, 1522));

    let mut burst = Burst::new();
    for _ in 0..10 {
        from.rx(&mut burst);
        assert_eq!(burst.len(), BURST);
        assert!(burst.iter().all(|frame| frame.captured() == 64 && !frame.is_odd()));
        to.tx(&mut burst);
        assert!(burst.is_empty());
    }
    assert!(inside.link().up);
    assert_eq!(inside.stats().rx_packets, 10 * BURST as u64);
    assert_eq!(outside.stats().tx_packets, 10 * BURST as u64);
    drop((inside, outside, from, to));
    assert_nothing_leaked(&pool);
}

#[test]
fn rx_fills_only_the_room_left_behind_the_frames_that_are_there() {
    let eal = start(&["net_null0"]);
    let pool = pool(&eal);
    let (_port, mut queue) = open_one(&eal, "net_null0", &pool);
    let mut burst = Burst::new();
    burst.extend((0..60).map(|i| mbuf(&pool, &bytes(i, 100))));
    queue.rx(&mut burst);
    assert_eq!(burst.len(), BURST);
    for (i, frame) in burst.iter().enumerate().take(60) {
        assert_eq!(frame.head(), bytes(i as u32, 100));
    }
    queue.rx(&mut burst);
    assert_eq!((burst.len(), pool.in_use()), (BURST, BURST as u32));
    queue.free(&mut burst);
    assert_nothing_leaked(&pool);
}

#[test]
fn net_ring_gives_back_what_was_sent_in_order() {
    let eal = start(&["net_ring0"]);
    let pool = pool(&eal);
    let (port, mut queue) = open_one(&eal, "net_ring0", &pool);
    let sent: Vec<_> = (0..500).map(|i| bytes(i, 60 + i as usize * 2)).collect();
    send_all(&mut queue, sent.iter().map(|frame| mbuf(&pool, frame)));
    assert_eq!(pool.in_use(), 500);
    assert_eq!(receive(&mut queue, 500), sent);
    assert_eq!((port.stats().tx_packets, port.stats().rx_packets), (500, 500));
    drop((port, queue));
    assert_nothing_leaked(&pool);
}

#[test]
fn a_split_ring_carries_frames_from_one_thread_to_another_in_order() {
    let eal = start(&["net_ring0"]);
    let pool = pool(&eal);
    let (port, queue) = open_one(&eal, "net_ring0", &pool);
    let (mut rx, mut tx) = queue.split();
    let sent: Vec<_> = (0..5000).map(|i| bytes(i, 64)).collect();
    let received = std::thread::scope(|scope| {
        let receiving = scope.spawn(move || {
            let (mut burst, mut received) = (Burst::new(), Vec::new());
            while received.len() < 5000 {
                rx.rx(&mut burst);
                received.extend(burst.iter().map(contents));
                rx.free(&mut burst);
                std::thread::yield_now();
            }
            received
        });
        for frames in sent.chunks(50) {
            let mut burst: Burst<_> = frames.iter().map(|frame| mbuf(&pool, frame)).collect();
            while !burst.is_empty() {
                tx.tx(&mut burst);
                std::thread::yield_now();
            }
        }
        drop(tx);
        receiving.join().unwrap()
    });
    assert_eq!(received, sent);
    assert_eq!((port.stats().tx_packets, port.stats().rx_packets), (5000, 5000));
    drop(port);
    assert_nothing_leaked(&pool);
}

#[test]
fn tx_keeps_exactly_what_a_full_ring_refuses() {
    let eal = start(&["net_ring0"]);
    let pool = pool(&eal);
    let (_port, mut queue) = open_one(&eal, "net_ring0", &pool);
    send_all(&mut queue, (0..RING as u32 - 24).map(|i| mbuf(&pool, &bytes(i, 64))));

    let mut burst = Burst::new();
    burst.extend((0..64).map(|i| mbuf(&pool, &bytes(5000 + i, 64))));
    queue.tx(&mut burst);
    let kept: Vec<_> = burst.iter().map(contents).collect();
    assert_eq!(kept, (24..64).map(|i| bytes(5000 + i, 64)).collect::<Vec<_>>());
    queue.tx(&mut burst);
    assert_eq!(burst.iter().map(contents).collect::<Vec<_>>(), kept, "a full ring refuses all");
    assert_eq!(pool.in_use() as usize, RING + kept.len());

    queue.free(&mut burst);
    assert_eq!(
        receive(&mut queue, RING).split_off(RING - 24),
        (0..24).map(|i| bytes(5000 + i, 64)).collect::<Vec<_>>()
    );
    drop(queue);
    assert_nothing_leaked(&pool);
}

#[test]
fn frames_left_in_a_device_come_back_when_its_port_closes() {
    let eal = start(&["net_ring0"]);
    let pool = pool(&eal);
    let (port, mut queues) = open(&eal, "net_ring0", &Config { queues: 3, ..Config::default() }, &pool);
    for queue in &mut queues {
        send_all(queue, (0..900).map(|i| mbuf(&pool, &bytes(i, 64))));
    }
    assert_eq!(pool.in_use(), 2700);
    drop(port);
    assert_eq!(pool.in_use(), 2700, "queues keep their port");
    drop(queues);
    assert_nothing_leaked(&pool);
}

#[test]
fn net_pcap_carries_a_capture_unaltered() {
    let dir = tempfile::tempdir().unwrap();
    let (input, output) = (dir.path().join("in.pcap"), dir.path().join("out.pcap"));
    let mut frames: Vec<_> = (0..300).map(|i| bytes(i, 60 + i as usize * 4)).collect();
    frames.extend([
        bytes(1, 14),
        bytes(2, 1),
        bytes(3, 1514),
        tagged(4, 1518, &[100]),
        tagged(5, 1522, &[7, 100]),
    ]);
    std::fs::write(&input, pcap_of(&frames)).unwrap();

    let vdev = format!("net_pcap0,rx_pcap={},tx_pcap={}", input.display(), output.display());
    let eal = start(&[&vdev]);
    let pool = pool(&eal);
    let (port, mut queue) = open_one(&eal, "net_pcap0", &pool);
    let mut burst = Burst::new();
    let mut moved = 0;
    loop {
        queue.rx(&mut burst);
        if burst.is_empty() {
            break;
        }
        moved += burst.len();
        queue.tx(&mut burst);
    }
    assert_eq!(moved, frames.len());
    assert_eq!(port.stats().tx_packets, frames.len() as u64);
    drop((port, queue));
    assert_eq!(frames_of(&std::fs::read(&output).unwrap()), frames);
    assert_nothing_leaked(&pool);
}

#[test]
fn jumbo_frames_pass_in_segments_where_the_mtu_allows_them() {
    let dir = tempfile::tempdir().unwrap();
    let (input, output) = (dir.path().join("in.pcap"), dir.path().join("out.pcap"));
    let frames: Vec<_> = (0..20).map(|i| bytes(i, 9022 - i as usize * 350)).collect();
    std::fs::write(&input, pcap_of(&[&frames[..], &[bytes(99, 9023)]].concat())).unwrap();

    let vdevs = [
        format!("net_pcap0,rx_pcap={},tx_pcap=/dev/null", input.display()),
        format!("net_pcap1,rx_pcap={},tx_pcap={}", input.display(), output.display()),
    ];
    let eal = start(&[&vdevs[0], &vdevs[1]]);
    let pool = pool(&eal);
    let jumbo = Config { mtu: Some(9000), ..Config::default() };
    let (inside, mut from) = open(&eal, "net_pcap0", &jumbo, &pool);
    let (outside, mut to) = open(&eal, "net_pcap1", &jumbo, &pool);

    let mut burst = Burst::new();
    from[0].rx(&mut burst);
    assert_eq!(burst.len(), frames.len(), "the longest is dropped");
    assert!(burst.iter().all(|frame| frame.is_odd() == (frame.captured() > 2048)));
    assert_eq!(burst.iter().map(contents).collect::<Vec<_>>(), frames);
    to[0].tx(&mut burst);
    assert!(burst.is_empty());
    assert_eq!(inside.stats().rx_oversize, 1);
    drop((inside, outside, from, to));
    assert_eq!(frames_of(&std::fs::read(&output).unwrap()), frames);
    assert_nothing_leaked(&pool);
}

#[test]
fn net_pcap_repeats_its_capture_with_infinite_rx_and_keeps_a_buffer_for_each_of_its_frames() {
    let dir = tempfile::tempdir().unwrap();
    let input = dir.path().join("in.pcap");
    let frames: Vec<_> = (0..100).map(|i| bytes(i, 64)).collect();
    std::fs::write(&input, pcap_of(&frames)).unwrap();
    let eal = start(&[&format!("net_pcap0,rx_pcap={},infinite_rx=1", input.display())]);
    let pool = pool(&eal);
    let (port, mut queue) = open_one(&eal, "net_pcap0", &pool);
    assert_eq!(pool.in_use(), 100);
    let mut got = receive(&mut queue, 3 * 100);
    got.truncate(300);
    assert_eq!(got, [&frames[..], &frames[..], &frames[..]].concat());
    // Without a file to write, what is sent goes nowhere, and its buffers come back.
    send_all(&mut queue, frames.iter().map(|frame| mbuf(&pool, frame)));
    assert_eq!((port.stats().tx_packets, pool.in_use()), (100, 100));
    drop((port, queue));
    assert_nothing_leaked(&pool);
}

#[test]
fn frames_beyond_the_mtu_are_dropped_on_arrival_and_refused_on_departure() {
    let dir = tempfile::tempdir().unwrap();
    let input = dir.path().join("in.pcap");
    let frames = [bytes(0, 1522), bytes(1, 1523), bytes(2, 60), bytes(3, 9000), bytes(4, 1514)];
    std::fs::write(&input, pcap_of(&frames)).unwrap();

    let eal = start(&[&format!("net_pcap0,rx_pcap={},tx_pcap=/dev/null", input.display()), "net_ring0"]);
    let pool = pool(&eal);
    let (small, mut from) = open_one(&eal, "net_pcap0", &pool);
    let mut burst = Burst::new();
    burst.push(mbuf(&pool, &bytes(9, 1600)));
    from.rx(&mut burst);
    let got: Vec<_> = burst.iter().map(contents).collect();
    assert_eq!(
        got,
        [bytes(9, 1600), bytes(0, 1522), bytes(2, 60), bytes(4, 1514)],
        "only arrivals are judged"
    );
    assert_eq!((small.stats().rx_oversize, small.stats().rx_packets), (2, 5));

    let (ring, mut to) = open_one(&eal, "net_ring0", &pool);
    to.tx(&mut burst);
    assert_eq!(burst.iter().map(contents).collect::<Vec<_>>(), [bytes(9, 1600)]);
    assert_eq!((ring.stats().tx_oversize, ring.stats().tx_packets), (1, 3));
    to.free(&mut burst);
    drop((small, from, ring, to));
    assert_nothing_leaked(&pool);
}

#[test]
fn a_segmented_frame_is_gathered_and_leaves_whole() {
    let dir = tempfile::tempdir().unwrap();
    let (input, output) = (dir.path().join("in.pcap"), dir.path().join("out.pcap"));
    std::fs::write(&input, pcap_of(&[])).unwrap();
    let eal =
        start(&[&format!("net_pcap0,rx_pcap={},tx_pcap={}", input.display(), output.display()), "net_ring0"]);
    let pool = pool(&eal);
    let whole = bytes(7, 1400);
    let split = chained(&pool, &[&whole[..20], &whole[20..33], &whole[33..900], &whole[900..]]);
    assert!(split.is_odd());
    assert_eq!((split.segments(), split.captured(), split.head()), (4, 1400, &whole[..20]));
    let mut front = [0; 40];
    assert_eq!((split.gather(&mut front), &front[..]), (40, &whole[..40]));
    assert_eq!(contents(&split), whole);

    let (ring, mut through) = open_one(&eal, "net_ring0", &pool);
    let (port, mut to) = open_one(&eal, "net_pcap0", &pool);
    send_all(&mut through, [split]);
    assert_eq!(forward(&mut through, &mut to, 1), 1);
    drop((ring, through, port, to));
    assert_eq!(frames_of(&std::fs::read(&output).unwrap()), [whole]);
    assert_nothing_leaked(&pool);
}

#[test]
fn a_stripped_tag_goes_back_to_where_it_was() {
    let eal = start(&[]);
    let pool = pool(&eal);
    for tags in [&[0xe064][..], &[0x0007, 0x2064]] {
        let whole = tagged(1, 200, tags);
        let mut frame = mbuf(&pool, &whole);
        assert!(!frame.is_odd() && frame.restore_tag());
        assert!(frame.strip_tag());
        assert!(frame.is_odd());
        assert_eq!((frame.captured(), contents(&frame)), (196, tagged(1, 196, &tags[1..])));
        assert!(frame.restore_tag());
        assert!(!frame.is_odd());
        assert_eq!((frame.captured(), contents(&frame)), (200, whole));
        assert!(frame.restore_tag(), "once is enough");
        assert_eq!(frame.captured(), 200);
    }
    assert!(!mbuf(&pool, &bytes(1, 60)).strip_tag());
    // A first segment without both addresses has no place for a tag.
    let whole = tagged(1, 100, &[5]);
    let mut frame = mbuf(&pool, &whole[..16]);
    assert!(frame.strip_tag() && frame.restore_tag());
    assert_eq!(frame.head(), &whole[..16]);
    drop(frame);
    assert_nothing_leaked(&pool);
}

#[test]
fn an_empty_pool_gives_none_and_a_returned_buffer_is_given_again() {
    let eal = start(&["net_null0"]);
    let small = Mempool::new(&eal, "small", 100, 256).unwrap();
    let (port, mut queue) = open_one(&eal, "net_null0", &small);
    let mut held: Vec<_> = std::iter::from_fn(|| small.alloc()).collect();
    assert_eq!((held.len(), small.avail(), small.in_use()), (100, 0, 100));
    let mut burst = Burst::new();
    queue.rx(&mut burst);
    assert!(burst.is_empty());
    assert!(!held[0].append(&[0; 257]) && held[0].append(&[1; 256]));
    held.truncate(40);
    assert_eq!((small.avail(), small.in_use()), (60, 40));
    drop((port, queue));
    let last = held.pop();
    drop((held, small, eal));
    // Pool and EAL are gone for everyone else; this buffer's memory is not.
    assert_eq!(last.as_ref().map(|frame| frame.captured()), Some(0));
    drop(last);
}

#[test]
fn buffers_come_in_bulk_all_or_none_and_are_filled_in_place() {
    let eal = start(&[]);
    let small = Mempool::new(&eal, "small", 100, 256).unwrap();
    let mut burst = Burst::new();
    assert_eq!((small.alloc_bulk(&mut burst, 40), burst.len(), small.in_use()), (40, 40, 40));
    // A burst has room for so many only; a pool that has too few gives none.
    assert_eq!((small.alloc_bulk(&mut burst, 40), burst.len()), (24, 64));
    assert_eq!((small.alloc_bulk(&mut Burst::new(), 37), small.in_use()), (0, 64));

    let frame = &mut burst[0];
    assert!(frame.fill(&[7; 256]) && frame.fill(&[8; 100]));
    assert_eq!((frame.captured(), frame.head()), (100, &[8; 100][..]));
    assert!(!frame.fill(&[9; 257]), "no room");
    assert_eq!(frame.head(), &[8; 100]);
    let mut tail = small.alloc().unwrap();
    assert!(tail.append(&[1; 10]) && frame.chain(tail).is_ok());
    assert!(!frame.fill(&[9; 10]), "segmented");
    assert_eq!(frame.captured(), 110);
    drop(burst);
    assert_eq!(small.in_use(), 0);
}

#[test]
fn queues_of_one_port_work_on_registered_threads_of_their_own() {
    let eal = start(&["net_ring0"]);
    let pool = pool(&eal);
    let (port, queues) = open(&eal, "net_ring0", &Config { queues: 2, ..Config::default() }, &pool);
    assert!(!port.rss().symmetric);
    std::thread::scope(|scope| {
        for mut queue in queues {
            let (eal, pool) = (&eal, &pool);
            scope.spawn(move || {
                let _registered = eal.register_thread().expect("a thread registers");
                for round in 0..200 {
                    let sent: Vec<_> = (0..64).map(|i| bytes(round * 64 + i, 64)).collect();
                    send_all(&mut queue, sent.iter().map(|frame| mbuf(pool, frame)));
                    assert_eq!(receive(&mut queue, 64), sent);
                }
            });
        }
    });
    assert_eq!(port.stats().rx_packets, 2 * 200 * 64);
    assert!(eal.register_thread().is_ok(), "the main thread is registered from the start");
    drop(port);
    assert_nothing_leaked(&pool);
    assert_eq!(pool.avail(), BUFFERS);
}

#[test]
fn a_device_that_takes_a_key_gets_the_pattern_asked_for() {
    let eal = start(&["net_null0"]);
    let pool = pool(&eal);
    let config = Config { queues: 2, rss_pattern: 0x1FFC, ..Config::default() };
    let (port, queues) = open(&eal, "net_null0", &config, &pool);
    let rss = port.rss();
    assert!(rss.symmetric, "{rss:?}");
    assert_eq!(rss.key[..4], [0x1F, 0xFC, 0x1F, 0xFC]);
    assert!(rss.reta.iter().enumerate().all(|(entry, queue)| usize::from(*queue) == entry % 2));
    drop((queues, port));
}
