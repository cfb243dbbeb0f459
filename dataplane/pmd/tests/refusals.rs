//! What can't be done is refused with one clear line.

mod common;

use common::{args, open_one, pool, start};
use pmd::{Config, Eal, Error, Mempool, Port};

/// An error's line; there is but one.
fn line<T>(result: Result<T, Error>) -> String {
    let Err(error) = result else { panic!("it was not refused") };
    let line = error.to_string();
    assert!(!line.contains('\n'), "{line:?}");
    line
}

#[test]
fn a_second_start_of_eal_is_refused_even_after_the_first_has_ended() {
    let eal = start(&[]);
    assert_eq!(Eal::init(&args(&[])).err(), Some(Error::AlreadyStarted));
    drop(eal);
    assert_eq!(Eal::init(&args(&[])).err(), Some(Error::AlreadyStarted));
}

#[test]
fn an_unknown_port_is_refused_with_the_names_that_there_are() {
    let eal = start(&["net_null0", "net_ring7"]);
    let pool = pool(&eal);
    assert_eq!(eal.ports(), ["net_null0", "net_ring7"]);
    assert_eq!(
        line(Port::configure(&eal, "net_null1", &Config::default(), &pool)),
        "there is no port \"net_null1\"; ports that there are: net_null0, net_ring7"
    );
}

#[test]
fn a_device_that_does_not_come_up_is_refused_with_its_drivers_reason() {
    let eal = start(&["net_null0", "net_pcap0,rx_pcap=/nowhere/in.pcap", "net_af_packet0,iface=nowhere"]);
    let pool = pool(&eal);
    let told = line(Port::configure(&eal, "net_pcap0", &Config::default(), &pool));
    assert!(
        told.starts_with("the port net_pcap0 did not come up: ") && told.contains("/nowhere/in.pcap"),
        "{told}"
    );
    let told = line(Port::configure(&eal, "net_af_packet0", &Config::default(), &pool));
    assert!(told.contains("No such device") && !told.contains("pcap0,"), "{told}");
}

#[test]
fn more_queues_than_a_port_offers_are_refused_with_their_number() {
    let eal = start(&["net_pcap0,rx_iface=lo,tx_iface=lo"]);
    let pool = pool(&eal);
    let two = Config { queues: 2, ..Config::default() };
    assert_eq!(
        line(Port::configure(&eal, "net_pcap0", &two, &pool)),
        "the port net_pcap0 (net_pcap) offers 1 queue pair, 2 asked for"
    );
    // A refusal leaves the port as it was.
    let (port, _queue) = open_one(&eal, "net_pcap0", &pool);
    assert_eq!(port.queues(), 1);
}

#[test]
fn a_port_is_opened_once() {
    let eal = start(&["net_null0"]);
    let pool = pool(&eal);
    let first = Port::configure(&eal, "net_null0", &Config::default(), &pool).unwrap();
    assert_eq!(
        line(Port::configure(&eal, "net_null0", &Config::default(), &pool)),
        "the port net_null0 is in use already"
    );
    drop(first);
    assert!(line(Port::configure(&eal, "net_null0", &Config::default(), &pool)).contains("there is no port"));
}

#[test]
fn an_mtu_that_a_port_cannot_carry_is_refused_with_the_largest_that_it_can() {
    let eal = start(&["net_memif0,role=server,socket-abstract=yes,socket=portcullis-mtu-test"]);
    let pool = pool(&eal);
    let jumbo = Config { mtu: Some(9000), ..Config::default() };
    assert_eq!(
        line(Port::configure(&eal, "net_memif0", &jumbo, &pool)),
        "the port net_memif0 carries an MTU of at most 1500 bytes, 9000 asked for"
    );
}

#[test]
fn a_pool_too_large_for_memory_is_refused() {
    let eal = start(&[]);
    let told = line(Mempool::new(&eal, "huge", 10_000_000, 2048));
    assert!(told.starts_with("the buffer pool huge can't be made: "), "{told}");
    let told = line(Mempool::new(&eal, "a-name-that-is-longer-than-the-26-bytes-allowed", 100, 2048));
    assert!(told.contains("too long"), "{told}");
}

#[test]
fn a_device_without_a_driver_is_refused() {
    assert_eq!(
        line(Eal::init(&args(&["net_nobody0"]))),
        "EAL does not start: no driver knows the device \"net_nobody0\" (is its driver's plugin installed?)"
    );
}

#[test]
fn a_wrong_argument_is_refused_without_the_help_text() {
    let mut wrong = args(&[]);
    wrong.push("--no-such-option".into());
    assert_eq!(
        line(Eal::init(&wrong)),
        "EAL does not start: portcullis: unrecognized option '--no-such-option' (Invalid argument)"
    );
}

#[test]
fn a_core_that_is_not_there_is_refused() {
    let mut wrong = args(&[]);
    wrong.extend(["-l".into(), "127".into()]);
    let told = line(Eal::init(&wrong));
    assert!(told.starts_with("EAL does not start: lcore 127 unavailable"), "{told}");
}

#[test]
fn a_start_without_huge_pages_is_refused_with_the_remedy() {
    if Eal::has_hugepages() {
        return;
    }
    let told = line(Eal::init(&["--no-pci".into(), "--no-shconf".into()]));
    assert_eq!(
        told,
        "EAL does not start: there are no free huge pages (reserve some through vm.nr_hugepages, or start with --no-huge)"
    );
}

#[test]
fn a_port_that_does_not_start_is_refused_with_its_drivers_reason() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("nobody.sock").display().to_string();
    let eal = start(&[&format!("net_memif0,role=client,socket-abstract=no,socket={socket}")]);
    let pool = pool(&eal);
    let told = line(Port::configure(&eal, "net_memif0", &Config::default(), &pool).and_then(Port::start));
    assert!(told.starts_with("the port net_memif0 does not start: ") && told.contains(&socket), "{told}");
    assert_eq!(pool.in_use(), 0);
}
