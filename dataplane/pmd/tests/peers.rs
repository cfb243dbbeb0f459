//! Ports with another side: the kernel's virtual Ethernet pairs, and shared memory.

mod common;

use std::process::Command;
use std::time::{Duration, Instant};

use common::{
    assert_nothing_leaked, bytes, chained, mbuf, open, open_one, pool, receive, send_all, start, tagged,
};
use engine::io::{Burst, Frame, Port as _};
use pmd::Config;

/// Moves this thread into a network namespace of its own, which goes with the process however that ends, and makes
/// the pair of interfaces `pmd0` and `pmd1` in it. None without the right to.
fn veth_pair() -> Option<()> {
    // SAFETY: unshare changes but this thread's namespace.
    if unsafe { libc::unshare(libc::CLONE_NEWNET) } != 0 {
        eprintln!("skipped: no right to make a network namespace");
        return None;
    }
    // Without IPv6 the kernel says nothing on its own.
    let _ = std::fs::write("/proc/sys/net/ipv6/conf/default/disable_ipv6", "1");
    ip("link add pmd0 mtu 1500 type veth peer name pmd1 mtu 1500");
    ip("link set pmd0 up");
    ip("link set pmd1 up");
    Some(())
}

fn ip(args: &str) {
    let status = Command::new("ip").args(args.split(' ')).status().expect("ip runs");
    assert!(status.success(), "ip {args}");
}

#[test]
fn net_af_packet_carries_frames_over_a_veth_pair_with_their_tags() {
    let Some(()) = veth_pair() else { return };
    let eal = start(&["net_af_packet0,iface=pmd0", "net_af_packet1,iface=pmd1"]);
    let pool = pool(&eal);
    let (near, mut from) = open_one(&eal, "net_af_packet0", &pool);
    let (far, mut to) = open_one(&eal, "net_af_packet1", &pool);
    assert_eq!((near.driver(), near.mtu()), ("net_af_packet", 1500));
    assert_ne!(near.mac(), [0; 6]);

    let mut sent: Vec<_> = (0..100).map(|i| bytes(i, 60 + i as usize * 14)).collect();
    sent.extend((0..20).map(|i| tagged(i, 64 + i as usize * 70, &[0x6000 + i as u16])));
    sent.extend((0..20).map(|i| tagged(i, 68 + i as usize * 70, &[7, 0x2000 + i as u16])));
    sent.push(tagged(1, 1518, &[100]));
    send_all(&mut from, sent.iter().map(|frame| mbuf(&pool, frame)));
    assert_eq!(receive(&mut to, sent.len()), sent);

    // And a frame in pieces, back.
    let whole = tagged(3, 1000, &[42]);
    send_all(&mut to, [chained(&pool, &[&whole[..13], &whole[13..500], &whole[500..]])]);
    assert_eq!(receive(&mut from, 1), [whole]);
    assert_eq!((near.stats().tx_packets, far.stats().rx_packets), (sent.len() as u64, sent.len() as u64));
    drop((near, from, far, to));
    assert_nothing_leaked(&pool);
}

#[test]
fn net_af_packet_takes_nothing_longer_than_the_mtu() {
    let Some(()) = veth_pair() else { return };
    ip("link set pmd0 mtu 9000");
    ip("link set pmd1 mtu 9000");
    let eal = start(&["net_af_packet0,iface=pmd0,blocksz=65536,framesz=16384", "net_af_packet1,iface=pmd1"]);
    let pool = pool(&eal);
    let large = pmd::Mempool::new(&eal, "large", 2048, 16384).unwrap();
    let (near, mut from) = open_one(&eal, "net_af_packet0", &large);
    let (far, mut to) = open_one(&eal, "net_af_packet1", &pool);
    let mut burst = Burst::new();
    burst.push(mbuf(&large, &bytes(1, 1523)));
    burst.push(mbuf(&large, &bytes(2, 1522)));
    from.tx(&mut burst);
    assert_eq!(burst.iter().map(Frame::captured).collect::<Vec<_>>(), [1523]);
    burst.clear();
    assert_eq!(receive(&mut to, 1), [bytes(2, 1522)]);
    assert_eq!((near.stats().tx_oversize, far.stats().rx_oversize), (1, 0));
    drop((near, from, far, to));
    assert_nothing_leaked(&pool);
    assert_eq!(large.in_use(), 0);
}

#[test]
fn net_memif_carries_frames_between_a_server_and_a_client() {
    let socket = format!("socket-abstract=yes,socket=portcullis-pmd-{}", std::process::id());
    let server = format!("net_memif0,role=server,{socket}");
    let client = format!("net_memif1,role=client,{socket}");
    let eal = start(&[&server, &client]);
    let pool = pool(&eal);
    let two = Config { queues: 2, ..Config::default() };
    let (near, mut from) = open(&eal, "net_memif0", &two, &pool);
    assert!(!near.link().up, "nobody is there yet");
    let (far, mut to) = open(&eal, "net_memif1", &two, &pool);
    wait_until("both links are up", || near.link().up && far.link().up);
    settle();
    for (from, to) in from.iter_mut().zip(&mut to) {
        // A client hands the server room for its frames when it polls, not before.
        to.rx(&mut Burst::new());
        let sent: Vec<_> = (0..200).map(|i| bytes(i, 60 + i as usize * 7)).collect();
        send_all(from, sent.iter().map(|frame| mbuf(&pool, frame)));
        assert_eq!(receive(to, 200), sent);
        let whole = bytes(3, 1500);
        send_all(to, [chained(&pool, &[&whole[..13], &whole[13..500], &whole[500..]])]);
        assert_eq!(receive(from, 1), [whole]);
    }
    settle();
    drop((far, to));
    wait_until("the server's link is down", || !near.link().up);
    settle();
    drop((near, from));
    assert_nothing_leaked(&pool);
}

/// The driver maps and unmaps what the sides share on EAL's own thread, with no lock against who polls, and says that a
/// link is up or down before it is through. Between processes that thread has a core to itself; here it gets time.
fn settle() {
    std::thread::sleep(Duration::from_millis(200));
}

fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(5);
    while !holds() {
        assert!(Instant::now() < end, "not within 5 s: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}
