//! What a worker tells of packets: what it is asked for, pushed down to it; and what a tombstone came from.

use std::sync::Arc;

use control::config::Config;
use crossbeam::channel::bounded;
use engine::trace::{
    DecisionReader, Filter, Record, Recorder, RingCounts, Watch, WatchReader, decisions, watch_set,
};
use engine::worker::{RequestKind, WorkerRequest};
use engine::{Generation, Reason, Side};
use testkit::frame::*;
use testkit::sim::{SimWorkers, Steering};

const POLICY: &str = r#"
vpcs: [{name: prod, segment: {untagged: true}}]
security_groups:
  - name: web
    rules:
      - {direction: inbound, protocol: tcp, ports: 22}
      - {direction: inbound, protocol: udp, ports: 53}
      - {direction: outbound}
nics:
  - {name: a, vpc: prod, addresses: [10.0.0.1, "2001:db8::1"], security_groups: [web]}
  - {name: b, vpc: prod, addresses: [10.0.0.2], security_groups: [web]}
"#;

fn farm() -> SimWorkers {
    SimWorkers::new(&Config::default(), POLICY, 1, 64, Steering::RoundRobin)
}

fn decided(farm: &mut SimWorkers, per_second: u32) -> DecisionReader {
    let (told, read) = decisions(256, per_second);
    farm.workers()[0].set_recorder(Recorder::new(Some(told)));
    read
}

fn taken(read: &mut DecisionReader) -> Vec<Record> {
    let mut records = Vec::new();
    read.records.take(usize::MAX, |record| records.push(record));
    records
}

fn syn(from: u16, to: &str) -> Vec<u8> {
    tcp(format!("198.51.100.9:{from}").as_str(), to).syn().seq(1).frame()
}

/// Asks the worker to tell what these filters want from now on; what it told before goes back.
fn watch(farm: &mut SimWorkers, filters: Vec<Filter>) -> (WatchReader, bool) {
    let watches = filters.into_iter().map(|filter| Watch { filter, one_in: 1, captures: false });
    let (asked, read) = watch_set(watches.collect(), 0, 256, 0);
    (read, ask(farm, Some(asked)))
}

/// True if there was a watch set before.
fn ask(farm: &mut SimWorkers, watch_set: Option<Box<engine::trace::WatchSet>>) -> bool {
    let (answer, answered) = bounded(1);
    farm.ask(
        0,
        WorkerRequest {
            kind: RequestKind::Watch,
            from: 0,
            connections: Vec::new(),
            watch_set,
            reply: answer,
        },
    );
    farm.poll();
    answered.try_recv().unwrap().watch_set.is_some()
}

fn ports(read: &mut WatchReader) -> Vec<(u16, u16)> {
    let mut ports = Vec::new();
    read.records.take(usize::MAX, |record| ports.push((record.dport, record.wanted)));
    ports
}

#[test]
fn filters_are_pushed_down_between_two_bursts_and_taken_back() {
    let mut farm = farm();
    let arrive = |farm: &mut SimWorkers| {
        for port in [22, 23, 22] {
            farm.arrive(Side::Outside, &syn(1000, &format!("10.0.0.1:{port}")));
        }
        farm.arrive(Side::Inside, &udp("10.0.0.2:5000", "198.51.100.9:53").frame());
        farm.drain();
    };
    let of_port = |port| Filter { port: Some(port), ..Filter::default() };
    let (mut first, was_there) = watch(&mut farm, vec![of_port(22)]);
    assert!(!was_there);
    arrive(&mut farm);
    assert_eq!(ports(&mut first), [(22, 1), (22, 1)]);
    let drops = Filter { passes: Some(false), ..Filter::default() };
    let (mut second, was_there) = watch(&mut farm, vec![of_port(53), drops, of_port(23)]);
    assert!(was_there);
    arrive(&mut farm);
    // Inside is asked first.
    assert_eq!(ports(&mut second), [(53, 1), (23, 6)]);
    assert!(ports(&mut first).is_empty());
    assert!(ask(&mut farm, None));
    arrive(&mut farm);
    assert!(ports(&mut second).is_empty());
    let told = |counts: &Arc<[RingCounts]>| counts.iter().map(RingCounts::told).collect::<Vec<_>>();
    assert_eq!((told(&first.counts), told(&second.counts)), (vec![2], vec![1, 1, 1]));
}

#[test]
fn decisions_leave_out_established_packets_and_tell_the_rest_with_its_rule() {
    let mut farm = farm();
    let mut read = decided(&mut farm, u32::MAX);
    let (there, back) = (udp("198.51.100.9:5000", "10.0.0.1:53"), udp("10.0.0.1:53", "198.51.100.9:5000"));
    for _ in 0..3 {
        farm.arrive(Side::Outside, &there.clone().frame());
        farm.drain();
        farm.arrive(Side::Inside, &back.clone().frame());
        farm.drain();
    }
    // In one burst, the last of which is of a connection that nobody has answered yet.
    let unanswered = udp("198.51.100.9:5001", "10.0.0.1:53").frame();
    farm.arrive(Side::Outside, &unanswered);
    farm.drain();
    farm.arrive(Side::Outside, &syn(7, "10.0.0.2:80"));
    farm.arrive(Side::Outside, &syn(7, "10.0.0.3:80"));
    farm.arrive(Side::Outside, &unanswered);
    farm.drain();
    let told = taken(&mut read);
    let reasons: Vec<Reason> = told.iter().map(|record| record.reason).collect();
    assert_eq!(reasons, [Reason::New, Reason::New, Reason::NoRule, Reason::UnknownDestination]);
    let opened = &told[0];
    assert_eq!(
        (opened.generation, opened.side, opened.len),
        (Generation(1), Side::Outside, there.frame().len() as u32)
    );
    assert!(opened.rule.get().is_some() && told[2].rule.get().is_none());
    assert_eq!((opened.dport, opened.index), (53, 0));
    assert!(told[3].direction().is_none());
}

#[test]
fn a_tombstone_tells_when_it_was_live_and_when_it_ends() {
    let mut farm = farm();
    let mut read = decided(&mut farm, u32::MAX);
    let frame = udp("198.51.100.9:5000", "10.0.0.1:53").frame();
    farm.arrive(Side::Outside, &frame);
    farm.drain();
    farm.apply(&POLICY.replace("ports: 22", "ports: 23"));
    farm.apply(&POLICY.replace("ports: 22", "ports: 24"));
    farm.wait_ms(10_000);
    farm.arrive(Side::Outside, &frame);
    farm.drain();
    let told = taken(&mut read);
    assert_eq!((told.len(), told[1].reason), (2, Reason::Tombstone));
    let disconnected = told[1].disconnected.unwrap();
    assert_eq!((disconnected.stamp, disconnected.flush), (Generation(1), Generation(3)));
    assert!(!disconnected.is_marked);
    // 30 seconds from its packet, of which ten are gone.
    assert!((159..=161).contains(&disconnected.expires_in), "{disconnected:?}");
    assert!(told[0].disconnected.is_none());
}

#[test]
fn a_flood_spends_its_second_and_no_more() {
    let mut farm = farm();
    let mut read = decided(&mut farm, 100);
    for port in 0..200 {
        farm.arrive(Side::Outside, &syn(1000 + port, "10.0.0.1:80"));
    }
    farm.drain();
    assert_eq!(taken(&mut read).len(), 100);
    assert_eq!((read.counts.told(), read.counts.lost()), (100, 100));
    farm.wait_ms(1000);
    farm.arrive(Side::Outside, &syn(1, "10.0.0.1:80"));
    farm.drain();
    assert_eq!(taken(&mut read).len(), 1);
}

#[test]
fn what_a_port_refuses_is_told_once_more() {
    let mut farm = farm();
    let mut read = decided(&mut farm, u32::MAX);
    farm.queues(Side::Inside)[0].refuse(1);
    farm.arrive(Side::Outside, &syn(1000, "10.0.0.1:22"));
    farm.drain();
    let told = taken(&mut read);
    let reasons: Vec<Reason> = told.iter().map(|record| record.reason).collect();
    assert_eq!(reasons, [Reason::New, Reason::TxFull]);
    assert_eq!((told[1].index, told[1].nic, told[1].dport), (told[0].index, told[0].nic, 22));
}
