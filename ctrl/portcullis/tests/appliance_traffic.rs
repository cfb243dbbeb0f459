//! Packets through the running appliance on virtual devices.

mod appliance;

use appliance::*;
use serde_json::{Value, json};
use testkit::frame::*;
use testkit::pcap::{self, Format};

/// Until workers whose cores others want, too, have polled 50,000 times: at worst seen, 730 times a second.
const IDLE_PATIENCE: std::time::Duration = std::time::Duration::from_secs(100);

const CLIENT: &str = "198.51.100.9";

#[test]
fn net_null_full_load_is_counted_and_ends_at_once() {
    let appliance = Setup::new("net_null0", "net_null1").start(POLICY);
    let counters =
        appliance.wait_for_counters("a million packets", |c| c["packets"]["in"].as_u64() > Some(1_000_000));
    assert_adds_up(&counters);
    assert_eq!(counters["generation"], 1);
    let workers = appliance.show("workers");
    assert_eq!((&workers[0]["id"], &workers[0]["acknowledged"]), (&json!(0), &json!(true)));
    // A change under full load is acknowledged at once.
    let (status, receipt, _) = appliance.apply(&POLICY.replace("22", "23"), &[]);
    assert_eq!((status, &receipt["state"], &receipt["generation"]), (0, &json!("acknowledged"), &json!(2)));
    let (finished, _) = appliance.end();
    assert!(
        finished.stdout.starts_with("portcullis: ready, 1 worker, generation 1\n"),
        "{}",
        finished.stdout
    );
}

#[test]
fn everything_passes_and_is_reported_in_observe_mode() {
    let setup = Setup::new("net_null0", "net_null1").more("[policy]\nmode = \"observe\"\n");
    let appliance = setup.start(POLICY);
    let counters = appliance.wait_for_counters("packets", |c| c["packets"]["in"].as_u64() > Some(100_000));
    assert_adds_up(&counters);
    assert_eq!(
        (&counters["packets"]["drop"], &counters["packets"]["pass"]),
        (&json!(0), &counters["packets"]["observed"])
    );
    assert!(counters["settings"][0].as_str().unwrap().contains("observe"));
    let shown = appliance.client(["show", "nics"]);
    assert!(String::from_utf8_lossy(&shown.stderr).contains("observe"));
    let (finished, _) = appliance.end();
    assert!(finished.stderr.contains("mode = \"observe\""), "{}", finished.stderr);
}

/// Frames into both sides, those that pass out of the other one, byte for byte. What passes does not depend on which side
/// is read first.
#[test]
fn net_pcap_forwards_exactly_what_passes() {
    let setup = Setup::new("net_pcap0,rx_pcap=IN,tx_pcap=OUT", "net_pcap1,rx_pcap=IN,tx_pcap=OUT");
    let to =
        |port: u16, from: u16| tcp(format!("{CLIENT}:{from}").as_str(), format!("10.5.6.7:{port}").as_str());
    let mut outside = Vec::new();
    for n in 0..500 {
        outside.push(to(22, 40_000 + n).syn().seq(7).mss(1460).frame());
        outside.push(to(80, 40_000 + n).syn().seq(7).frame());
    }
    outside.push(echo_request(CLIENT, "10.5.6.7", 1, 1).frame());
    outside.push(udp("198.51.100.9:53", "10.5.6.7:53").payload("no").frame());
    let large = udp("10.5.6.7:5000", "198.51.100.9:53").payload(vec![0x5a; 1472]).frame();
    assert_eq!(large.len(), 1514);
    let inside = vec![
        arp_request("02:00:00:00:00:01", "10.5.6.7", "10.5.6.1").frame(),
        large,
        udp("10.5.6.8:5000", "198.51.100.9:53").payload("not mine").frame(),
        udp("[2001:db8::7]:5000", "[2001:db8::9]:53").payload("six").frame(),
    ];
    for (name, frames) in [("inside", &inside), ("outside", &outside)] {
        pcap::write(setup.path(&format!("{name}.pcap")), Format::MICRO, &pcap::records(0, frames.clone()))
            .unwrap();
    }
    let setup = setup.fill("inside", "outside");
    let appliance = setup.start(POLICY);
    let all = (inside.len() + outside.len()) as u64;
    let counters = appliance.wait_for_counters("all frames", |c| c["packets"]["in"] == all);
    assert_adds_up(&counters);
    assert_eq!(counters["reasons"]["no-rule"], 501);
    assert_eq!(counters["reasons"]["unknown-source"], 1);
    assert_eq!(counters["reasons"]["new"], 503);
    let connections = appliance.show("connections");
    let connections = connections.as_array().unwrap();
    assert_eq!(connections.len(), 503);
    let ssh = connections.iter().find(|c| c["remote_port"] == 40_123).unwrap();
    for (key, value) in [
        ("nic", json!("web-1")),
        ("opened", json!("inbound")),
        ("protocol", json!("tcp")),
        ("local", json!("10.5.6.7")),
        ("local_port", json!(22)),
        ("remote", json!(CLIENT)),
        ("state", json!("syn-sent")),
        ("tombstone", json!(false)),
        ("rule", json!("sg-AB#0")),
        ("worker", json!(0)),
    ] {
        assert_eq!(ssh[key], value, "{key}");
    }
    let left = ssh["expires_in"].as_f64().unwrap();
    assert!(left > 20.0 && left <= 30.0, "{left}");
    let ping = connections.iter().find(|c| c["protocol"] == "icmp").unwrap();
    assert_eq!((&ping["local_port"], &ping["icmp"]["type"]), (&json!(null), &json!(8)));

    // Flushed, they are tombstones; the outbound ones are not.
    let (_, receipt, _) = appliance.apply(&POLICY.replace("22", "23"), &["--dry-run"]);
    assert_eq!((&receipt["state"], &receipt["disconnected"]), (&json!("dry-run"), &json!(501)));
    let (_, receipt, _) = appliance.apply(&POLICY.replace("22", "23"), &[]);
    assert_eq!((&receipt["disconnected"], &receipt["flushed"]), (&json!(501), &json!(["web-1"])));
    let connections = appliance.show("connections");
    let dead = connections.as_array().unwrap().iter().filter(|c| c["tombstone"] == true);
    assert_eq!((dead.clone().count(), dead.filter(|c| c["opened"] == "outbound").count()), (501, 0));
    let (_, receipt, _) = appliance.apply(POLICY, &[]);
    assert_eq!(receipt["disconnected"], 0, "they were disconnected already");

    let (_, setup) = appliance.end();
    let sent = |name: &str| -> Vec<Vec<u8>> {
        let (_, records) = pcap::read(setup.path(name)).unwrap();
        records.into_iter().map(|record| record.data).collect()
    };
    let to_inside: Vec<_> =
        outside.iter().take(1000).step_by(2).chain(&outside[1000..1001]).cloned().collect();
    assert!(sent("to-inside.pcap") == to_inside);
    assert!(sent("to-outside.pcap") == [0, 1, 3].map(|at: usize| inside[at].clone()));
}

/// Every frame is read again and again, and each of the device's frames takes a buffer of the pool.
#[test]
fn net_pcap_repeats_a_file_of_many_flows_under_full_load() {
    let setup = Setup::new("net_pcap0,rx_pcap=IN,tx_pcap=OUT", "net_pcap1,rx_pcap=IN,infinite_rx=1");
    let flow = |n: u32| {
        tcp(format!("198.51.{}.{}:4000", n / 250, n % 250).as_str(), "10.5.6.7:22").syn().seq(1).frame()
    };
    pcap::write(setup.path("inside.pcap"), Format::MICRO, &[]).unwrap();
    pcap::write(setup.path("outside.pcap"), Format::MICRO, &pcap::records(0, (0..20_000).map(flow))).unwrap();
    let appliance = setup.fill("inside", "outside").start(POLICY);
    let counters =
        appliance.wait_for_counters("established", |c| c["reasons"]["established"].as_u64() > Some(200_000));
    assert_adds_up(&counters);
    assert_eq!((&counters["reasons"]["new"], &counters["packets"]["drop"]), (&json!(20_000), &json!(0)));
    let (_, setup) = appliance.end();
    std::fs::remove_file(setup.path("to-inside.pcap")).unwrap();
}

/// A ring device is a loop: what the NIC sends comes back, and then bears its own address as somebody else's.
#[test]
fn net_ring_carries_frames_out_and_in_again() {
    let setup = Setup::new("net_pcap0,rx_pcap=IN,tx_pcap=OUT", "net_ring0");
    let frames = (0..200)
        .map(|n| udp(format!("10.5.6.7:{}", 5000 + n).as_str(), "198.51.100.9:53").payload("out").frame());
    pcap::write(setup.path("inside.pcap"), Format::MICRO, &pcap::records(0, frames)).unwrap();
    let appliance = setup.fill("inside", "").start(POLICY);
    let counters = appliance.wait_for_counters("both ways", |c| c["packets"]["in"] == 400);
    assert_adds_up(&counters);
    // There and back: the address of the answer's destination is nobody's.
    assert_eq!(counters["reasons"], json!({"new": 200, "unknown-destination": 200}));
    assert_eq!(appliance.show("connections").as_array().unwrap().len(), 200);
    appliance.end();
}

#[test]
fn two_workers_share_a_wire_and_hand_over_what_is_the_others() {
    two_workers("poll");
}

/// Only a worker that is woken has its frames and its questions soon.
#[test]
fn workers_that_sleep_when_idle_are_woken_for_what_is_handed_over() {
    two_workers("park");
}

fn two_workers(idle: &'static str) {
    if std::thread::available_parallelism().is_ok_and(|n| n.get() < 2) {
        return eprintln!("skipped: one core only");
    }
    // Each queue reads the whole file: every flow is seen by both workers, and belongs to one.
    let setup = Setup::new("net_pcap0,rx_pcap=IN,rx_pcap=IN,tx_pcap=OUT,tx_pcap=OUT2", "net_null0,no-rx=1")
        .cores(&[0, 1])
        .idle(idle);
    let frames = (0..1000)
        .map(|n| udp(format!("10.5.6.7:{}", 5000 + n).as_str(), "198.51.100.9:53").payload("x").frame());
    pcap::write(setup.path("inside.pcap"), Format::MICRO, &pcap::records(0, frames)).unwrap();
    let appliance = setup.fill("inside", "").start(POLICY);
    let counters = appliance.wait_for_counters("both files", |c| c["packets"]["in"] == 2000);
    assert_adds_up(&counters);
    assert_eq!(counters["reasons"], json!({"new": 1000, "established": 1000}));
    let connections = appliance.show("connections");
    let mut workers: Vec<_> =
        connections.as_array().unwrap().iter().map(|c| c["worker"].as_u64().unwrap()).collect();
    assert_eq!(workers.len(), 1000);
    workers.sort_unstable();
    workers.dedup();
    assert_eq!(workers, [0, 1]);
    // Each worker saw every flow, and handed over those that are not its own.
    let workers = appliance.show("workers");
    let sum = |key: &str| workers.as_array().unwrap().iter().map(|w| w[key].as_u64().unwrap()).sum::<u64>();
    assert_eq!(
        ["received", "handed_over", "taken_over", "in"].map(sum),
        [2000, 1000, 1000, 2000],
        "{workers}"
    );
    assert!((195..=200).contains(&sum("load_percent")), "{workers}");
    let worker = |id: usize, key: &str| workers[id][key].as_u64().unwrap();
    assert_eq!(worker(0, "handed_over"), worker(1, "taken_over"));
    assert!((30..=170).contains(&worker(0, "load_percent")), "{workers}");
    let (status, receipt, _) = appliance.apply(&POLICY.replace("22", "23"), &[]);
    assert_eq!((status, receipt["workers"].as_array().unwrap().len()), (0, 2));
    // Counted, not timed: others may have the cores for a while, and then whoever polls comes round as seldom as who sleeps.
    // Nobody sleeps before 20,000 polls in a row have found nothing, so each is watched for more of them than that.
    let workers = || appliance.show("workers").as_array().unwrap().clone();
    let all_have = |key: &str, more: u64, than: &[Value]| {
        let number = |worker: &Value| worker[key].as_u64().unwrap();
        workers().iter().zip(than).all(|(now, then)| number(now) > number(then) + more)
    };
    let (key, more) = if idle == "park" { ("sleeps", 0) } else { ("polls", 50_000) };
    let before = workers();
    wait_longer_for(idle, IDLE_PATIENCE, || all_have(key, more, &before).then_some(()));
    if idle == "poll" {
        assert!(workers().iter().all(|worker| worker["sleeps"] == 0), "{:?}", workers());
    }
    appliance.end();
}
