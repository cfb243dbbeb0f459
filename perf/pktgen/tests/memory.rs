//! Whole runs over ports in memory: counts to the frame, whatever what lies between does to the
//! frames.

mod common;

use std::time::Duration;

use common::{Dut, Fate, plan, run};
use pktgen::plan::{From, IMIX, Shares, Versions};
use pktgen::tag::Class;
use pktgen::{Monitor, Ports, Spec, memory};

fn counted(count: u64) -> Spec {
    Spec { count: Some(count), duration: None, drain: Duration::from_millis(50), ..Spec::default() }
}

#[test]
fn everything_that_is_sent_through_a_cable_arrives_once() {
    for from in [From::Outside, From::Inside, From::Both] {
        let sizes = IMIX.to_vec();
        let spec =
            Spec { from, sizes, versions: Versions::Both, udp: 0.5, vlan: Some(12), ..counted(50_000) };
        let report = run(&spec, Dut::cable());
        let packets = report.packets;
        assert_eq!(
            (packets.sent, packets.received, packets.lost, packets.planned),
            (50_000, 50_000, 0, Some(50_000))
        );
        assert_eq!((packets.duplicates, packets.reordered, packets.unexpected.total), (0, 0, 0));
        assert_eq!((report.loss, report.ended), (0.0, "count"));
        let (inbound, outbound) = (report.directions.inbound.sent, report.directions.outbound.sent);
        match from {
            From::Outside => assert_eq!((inbound, outbound), (50_000, 0)),
            From::Inside => assert_eq!((inbound, outbound), (0, 50_000)),
            From::Both => assert!(inbound > 20_000 && outbound > 20_000 && inbound + outbound == 50_000),
        }
        // Every frame told how long it took.
        let latency = report.latency_ns.unwrap();
        assert_eq!(latency.samples, 50_000);
        assert!(latency.min <= latency.p50 && latency.p50 <= latency.p99 && latency.p99 <= latency.max);
    }
}

#[test]
fn every_kth_that_is_dropped_is_missed_and_no_other() {
    let mut n = 0;
    let report = run(
        &counted(10_000),
        Dut::new(move |_| {
            n += 1;
            if n % 7 == 0 { Fate::Drop } else { Fate::Pass }
        }),
    );
    assert_eq!(
        (report.packets.sent, report.packets.received, report.packets.lost),
        (10_000, 10_000 - 1428, 1428)
    );
    assert_eq!((report.packets.duplicates, report.packets.reordered), (0, 0));
    assert!((report.loss - 0.1428).abs() < 1e-9);
    assert_eq!(report.latency_ns.unwrap().samples, 10_000 - 1428);
}

#[test]
fn duplicates_do_not_hide_losses() {
    let mut n = 0;
    let report = run(
        &counted(9_000),
        Dut::new(move |_| {
            n += 1;
            match n % 9 {
                0 => Fate::Drop,
                1 => Fate::Twice,
                _ => Fate::Pass,
            }
        }),
    );
    assert_eq!(
        (report.packets.received, report.packets.duplicates, report.packets.lost),
        (9_000, 1_000, 1_000)
    );
}

#[test]
fn what_is_overtaken_is_reordered_and_not_lost() {
    let mut n = 0;
    // One flow, of which every tenth frame is held back behind the next.
    let report = run(
        &Spec { flows: 1, ..counted(10_000) },
        Dut::new(move |_| {
            n += 1;
            if n % 10 == 0 { Fate::Hold } else { Fate::Pass }
        }),
    );
    // The last is held back behind nobody.
    assert_eq!((report.packets.received, report.packets.reordered, report.packets.lost), (9_999, 999, 1));
}

#[test]
fn what_is_changed_or_comes_from_elsewhere_is_unexpected() {
    let mut n = 0;
    let report = run(
        &counted(1_000),
        Dut::new(move |frame| {
            n += 1;
            match n % 10 {
                // The protocol's number.
                3 => frame[23] ^= 0x40,
                // A tag of another trial.
                4 => frame[43] ^= 0x80,
                _ => {}
            }
            if n % 10 == 5 { Fate::Back } else { Fate::Pass }
        }),
    );
    let packets = report.packets;
    assert_eq!((packets.received, packets.lost), (700, 300));
    let unexpected = packets.unexpected;
    assert_eq!(
        (unexpected.foreign, unexpected.stale, unexpected.misdirected, unexpected.total),
        (100, 100, 100, 300)
    );
}

#[test]
fn shares_are_kept_to_the_frame_and_known_again() {
    let shares = Shares { new: 0.1, denied: 0.05, hostile: 0.02, flood: 0.2 };
    for (versions, udp) in [(Versions::V4, 1.0), (Versions::Both, 0.5)] {
        let spec = Spec { shares, versions, udp, sizes: vec![128], ..counted(100_000) };
        let report = run(&spec, Dut::cable());
        let expected = [63_000, 10_000, 5_000, 2_000, 20_000];
        for (class, sent) in Class::ALL.into_iter().zip(expected) {
            let counts = report.class(class);
            assert_eq!((counts.sent, counts.received, counts.lost), (sent, sent, 0), "{}", class.name());
        }
        assert_eq!((report.packets.lost, report.packets.unexpected.total), (0, 0));
        // What is denied and dropped is not lost.
        let plan = plan(&spec);
        let layout = pktgen::parse::Layout::new(&plan);
        let report = run(
            &spec,
            Dut::new(move |frame| {
                let to = layout.parse(frame).map(|arrival| arrival.ends.inside_port);
                if to == Some(80) { Fate::Pass } else { Fate::Drop }
            }),
        );
        assert_eq!((report.packets.lost, report.class(Class::Denied).lost), (0, 5_000));
    }
}

#[test]
fn one_port_takes_both_sides() {
    let plan = plan(&Spec { from: From::Both, ..counted(20_000) });
    let mut ports = Ports::single(memory::MemoryPort::plug(1000));
    let report = pktgen::run(&mut ports, &plan, &Monitor::default());
    assert_eq!((report.packets.sent, report.packets.received, report.packets.lost), (20_000, 20_000, 0));
    assert_eq!(report.packets.unexpected.total, 0);
}

#[test]
fn the_schedule_is_accounted_for_to_the_frame() {
    let spec = Spec {
        rate: pktgen::plan::Rate::Pps(20_000.0),
        duration: Some(Duration::from_millis(500)),
        ..counted(0)
    };
    let report = run(&Spec { count: None, ..spec }, Dut::cable());
    let packets = report.packets;
    // Whatever the machine did meanwhile: planned is what was sent and what was skipped, but for
    // what was due at the very end.
    let planned = packets.planned.unwrap();
    let told = packets.sent + packets.skipped_late + packets.skipped_blocked;
    assert!(told <= planned + 1 && planned - told.min(planned) <= 300, "{packets:?}");
    assert_eq!((report.ended, packets.lost, report.rate.asked_pps), ("duration", 0, Some(20_000.0)));
    assert!((planned as f64 - report.seconds * 20_000.0).abs() <= 1.0, "{planned} in {} s", report.seconds);
}

#[test]
fn a_port_that_takes_nothing_is_told_of_and_ends_the_run_all_the_same() {
    let (inside, full) = memory::cable(5);
    let (outside, _other) = memory::cable(5);
    let plan = plan(&Spec {
        duration: Some(Duration::from_millis(50)),
        drain: Duration::from_millis(10),
        ..Spec::default()
    });
    let report = pktgen::run(&mut Ports::pair(inside, outside), &plan, &Monitor::default());
    assert_eq!((report.packets.sent, report.packets.received, report.packets.lost), (5, 0, 5));
    assert!(report.packets.refused > 0);
    drop(full);
}

#[test]
fn a_stop_ends_a_run_with_its_result() {
    let monitor = Monitor::default();
    monitor.stop();
    let plan = plan(&Spec { duration: Some(Duration::from_secs(3600)), ..Spec::default() });
    let report = pktgen::run(&mut Ports::single(memory::MemoryPort::plug(100)), &plan, &monitor);
    assert_eq!(report.ended, "interrupted");
}

#[test]
fn a_warm_up_is_sent_and_not_counted() {
    let seen = std::sync::Arc::new(std::sync::atomic::AtomicU64::new(0));
    let count = seen.clone();
    let spec = Spec { warmup: Duration::from_millis(20), ..counted(100) };
    let report = run(
        &spec,
        Dut::new(move |_| {
            count.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            Fate::Pass
        }),
    );
    assert_eq!((report.packets.sent, report.packets.received, report.packets.lost), (100, 100, 0));
    assert!(seen.load(std::sync::atomic::Ordering::Relaxed) > 100);
}
