//! Connections over ports in memory: handshakes, requests and teardown, with and without losses on
//! the way.

mod common;

use std::time::Duration;

use common::{Dut, Fate, plan, run, through};
use pktgen::plan::{From, IMIX, Rate, Shares, Versions};
use pktgen::tag::Class;
use pktgen::{Generator, Monitor, Spec};

fn stateful() -> Spec {
    Spec {
        mode: pktgen::plan::Mode::Stateful,
        udp: 0.0,
        duration: None,
        requests: 3,
        drain: Duration::from_millis(50),
        ..Spec::default()
    }
}

#[test]
fn every_connection_is_opened_used_and_closed() {
    for from in [From::Outside, From::Inside, From::Both] {
        let spec = Spec {
            from,
            versions: Versions::Both,
            sizes: IMIX.to_vec(),
            connections: Some(5000),
            ..stateful()
        };
        let report = run(&spec, Dut::cable());
        let connections = report.connections.unwrap();
        assert_eq!((connections.opened, connections.established, connections.closed), (5000, 5000, 5000));
        assert_eq!((connections.requests, connections.responses), (15_000, 15_000));
        assert_eq!((connections.reset, connections.failed), (0, 0));
        let packets = report.packets;
        // SYN, SYN+ACK, ACK; three requests with their responses; FIN, FIN, ACK.
        assert_eq!(packets.sent, 12 * 5000 + connections.retransmits);
        assert_eq!((packets.received, packets.lost, packets.unexpected.total), (packets.sent, 0, 0));
        assert_eq!((packets.reordered, packets.duplicates), (0, 0));
        assert_eq!(report.ended, "finished");
        assert!(report.latency_ns.unwrap().samples >= 30_000);
    }
}

#[test]
fn what_is_dropped_is_missed_to_the_packet_and_connections_complete_all_the_same() {
    let mut n = 0;
    let spec = Spec { connections: Some(2000), timeout: Duration::from_millis(50), ..stateful() };
    let report = run(
        &spec,
        Dut::new(move |_| {
            n += 1;
            if n % 40 == 0 { Fate::Drop } else { Fate::Pass }
        }),
    );
    let (packets, connections) = (report.packets, report.connections.unwrap());
    assert_eq!(packets.lost, packets.sent / 40, "{packets:?}");
    assert_eq!((packets.received, packets.duplicates), (packets.sent - packets.lost, 0));
    assert!(connections.retransmits > 0, "{connections:?}");
    assert_eq!(connections.closed + connections.failed, connections.opened, "{connections:?}");
    // Only a lost last ACK is nobody's to send again.
    assert_eq!((connections.responses, connections.opened), (6000, 2000), "{connections:?}");
}

#[test]
fn datagrams_are_asked_and_answered() {
    let spec = Spec { udp: 1.0, requests: 0, count: Some(20_000), versions: Versions::Both, ..stateful() };
    let report = run(&spec, Dut::cable());
    let connections = report.connections.unwrap();
    assert_eq!((connections.requests, connections.responses, connections.opened), (20_000, 20_000, 0));
    assert_eq!((report.packets.sent, report.packets.received, report.packets.lost), (40_000, 40_000, 0));
}

#[test]
fn nothing_comes_back_of_a_wall() {
    let spec = Spec { flows: 100, count: Some(1000), timeout: Duration::from_millis(20), ..stateful() };
    let report = run(&spec, Dut::new(|_| Fate::Drop));
    let connections = report.connections.unwrap();
    assert_eq!((connections.established, report.packets.received, report.packets.sent), (0, 0, 1000));
    assert_eq!(connections.opened + connections.retransmits, 1000);
    assert!(connections.failed > 0 && report.loss == 1.0, "{connections:?}");
}

#[test]
fn other_classes_go_beside_connections() {
    let shares = Shares { new: 0.1, denied: 0.1, hostile: 0.05, flood: 0.05 };
    let spec = Spec { shares, requests: 0, udp: 0.2, count: Some(40_000), ..stateful() };
    let layout = pktgen::parse::Layout::new(&plan(&spec));
    let flows = pktgen::flow::Flows::new(&plan(&spec));
    let report = run(
        &spec,
        Dut::new(move |frame| {
            let hostile = pktgen::hostile::Hostile::read(frame).is_some();
            let class =
                layout.parse(frame).and_then(|arrival| flows.find(&arrival.ends)).map(|found| found.class);
            if hostile || class == Some(Class::Denied) { Fate::Drop } else { Fate::Pass }
        }),
    );
    let sent = |class| report.class(class).sent;
    assert_eq!([Class::Denied, Class::Hostile, Class::Flood].map(sent), [4000, 2000, 2000]);
    let arrived = |class| report.class(class).received;
    assert_eq!([Class::Denied, Class::Hostile, Class::Flood].map(arrived), [0, 0, 2000]);
    let connections = report.connections.unwrap();
    assert!(connections.closed > 1000 && connections.opened > 2000, "{connections:?}");
    assert_eq!((report.packets.lost, connections.failed, connections.reset), (0, 0, 0), "{connections:?}");
}

#[test]
fn connections_live_on_from_one_measurement_to_the_next() {
    let plan =
        plan(&Spec { flows: 200, requests: 0, count: Some(2000), rate: Rate::Pps(100_000.0), ..stateful() });
    through(Dut::cable(), |ports| {
        let mut generator = Generator::new(&plan);
        let first = generator.measure(ports, &Monitor::default());
        let connections = first.connections.unwrap();
        assert_eq!((connections.opened, connections.established, connections.requests), (200, 200, 1800));
        let second = generator.measure(ports, &Monitor::default());
        let connections = second.connections.unwrap();
        assert_eq!((connections.opened, connections.requests, connections.responses), (0, 2000, 2000));
        for report in [first, second] {
            assert_eq!((report.packets.lost, report.packets.unexpected.total), (0, 0));
        }
    });
}
