//! Ports that tell the truth: what they lose, whether their link is up, and that one which was deleted and made anew is
//! attached again by itself while everything else goes on.

mod appliance;

use std::time::{Duration, Instant};

use appliance::*;
use rustix::net::{SendFlags, send};
use serde_json::{Value, json};
use testkit::frame::{Build, udp};
use testkit::lab::{At, CLIENT_V4, INSIDE, Lab, OUTSIDE, Probe as _, SERVER_V4, Wire};

const SOON: Duration = Duration::from_secs(2);

/// A lab, where there can be one.
fn lab() -> Option<Lab> {
    if let Some(reason) = Lab::missing() {
        eprintln!("skipped: {reason}");
        return None;
    }
    Some(Lab::new().unwrap())
}

/// Runs commands at a place of the lab.
fn run(lab: &Lab, at: At, commands: &[&str]) {
    for command in commands {
        let words: Vec<&str> = command.split(' ').collect();
        let ended = lab.run(at, words, 5 * SOON).unwrap();
        assert!(ended.status.success(), "{command}: {}", ended.stderr);
    }
}

/// The appliance in its place of the lab.
fn start(lab: &Lab, setup: Setup, policy: &str) -> Appliance {
    let policy = setup.write("policy.yaml", policy);
    let mut command = lab.command(At::Appliance, PORTCULLIS);
    command.args(setup.command(Some(&policy)).get_args());
    setup.spawn(command)
}

fn on_lab() -> Setup {
    Setup::new(&format!("net_af_packet0,iface={INSIDE}"), &format!("net_af_packet1,iface={OUTSIDE}"))
}

/// What is shown of the port of this name.
fn port(appliance: &Appliance, name: &str) -> Value {
    let counters = appliance.show("counters");
    let mut ports = counters["ports"].as_array().unwrap().iter();
    ports.find(|port| port["name"] == name).unwrap_or_else(|| panic!("{counters}")).clone()
}

/// The problem of a port that lasts, whose text holds `told`.
fn problem(appliance: &Appliance, name: &str, told: &str) -> Option<Value> {
    let (health, what) = (appliance.show("health"), format!("port {name}"));
    let mut problems = health["problems"].as_array().unwrap().iter();
    problems
        .find(|p| p["what"] == what && p["ended"].is_null() && p["problem"].as_str().unwrap().contains(told))
        .cloned()
}

/// Waits for it, for at most the two seconds that there are.
fn wait_for_problem(appliance: &Appliance, name: &str, told: &str) -> Value {
    wait_longer_for(&format!("{name}: {told}"), SOON, || problem(appliance, name, told))
}

/// Waits until nothing is wrong, for as long.
fn wait_for_health(appliance: &Appliance) {
    wait_longer_for("health", SOON, || (appliance.show("health")["status"] == "ok").then_some(()));
}

#[test]
fn a_link_that_goes_down_is_told_within_two_seconds_and_over_when_it_is_up_again() {
    let Some(lab) = lab() else { return };
    let appliance = start(&lab, on_lab(), POLICY);
    assert_eq!(appliance.show("health")["status"], "ok");
    assert_eq!(port(&appliance, "net_af_packet1")["link"], "up");
    // The peer's end: this one has no carrier any more.
    run(&lab, At::Client, &["ip link set eth0 down"]);
    let found = wait_for_problem(&appliance, "net_af_packet1", "down: outside has no carrier");
    assert!(found["cure"].as_str().unwrap().contains("peer"), "{found}");
    assert_eq!(port(&appliance, "net_af_packet1")["link"], "down");
    assert!(appliance.text(["show", "counters"]).contains("net_af_packet1  down"));
    // What the server sends finds nobody, and is no `tx-full`.
    let socket = lab.udp(At::Server, 0, (CLIENT_V4, 5000)).unwrap();
    run(&lab, At::Server, &[&format!("ip neigh replace {CLIENT_V4} lladdr 02:00:00:00:00:30 dev eth0")]);
    (0..10).for_each(|_| assert!(socket.send(b"anybody?").is_ok()));
    let counters = appliance.wait_for_counters("frames that find nobody", |c| c["reasons"]["tx-down"] == 10);
    assert_adds_up(&counters);
    assert_eq!(counters["reasons"]["tx-full"], Value::Null, "{counters}");
    let down = port(&appliance, "net_af_packet1");
    assert_eq!((&down["tx_down"], &down["tx_lost"]), (&json!(10), &json!(10)), "{down}");

    run(&lab, At::Client, &["ip link set eth0 up"]);
    wait_for_health(&appliance);
    assert!(lab.ping(At::Server, CLIENT_V4, 2).unwrap().status.success());
    // This end itself.
    run(&lab, At::Appliance, &["ip link set outside down"]);
    let found = wait_for_problem(&appliance, "net_af_packet1", "down: outside is not set up");
    assert_eq!(found["cure"], "`ip link set outside up`");
    run(&lab, At::Appliance, &["ip link set outside up"]);
    wait_for_health(&appliance);
    assert!(lab.ping(At::Server, CLIENT_V4, 2).unwrap().status.success());
    let (finished, _) = appliance.end();
    assert!(finished.stderr.contains("port net_af_packet1: down: outside has no carrier"));
    assert!(finished.stderr.contains("port net_af_packet1: over: down"), "{}", finished.stderr);
}

/// The client's wire, made anew.
fn remake(lab: &Lab) {
    let client = lab.namespace(At::Client);
    run(
        lab,
        At::Appliance,
        &[
            &format!("ip link add outside type veth peer name eth0 netns {client}"),
            "ethtool -K outside rx off tx off sg off tso off gso off gro off",
            "ip link set outside promisc on up",
        ],
    );
    run(
        lab,
        At::Client,
        &[
            "ethtool -K eth0 rx off tx off sg off tso off gso off gro off",
            "ip link set eth0 address 02:00:00:00:00:30 up",
            "ip address add 10.5.6.30/24 dev eth0",
        ],
    );
}

#[test]
fn an_interface_deleted_and_made_anew_is_attached_again_while_the_other_wire_loses_nothing() {
    let Some(lab) = lab() else { return };
    run(
        &lab,
        At::Appliance,
        &[
            "ip link add two-in type veth peer name two-in-peer",
            "ip link add two-out type veth peer name two-out-peer",
            "ip link set two-in up",
            "ip link set two-in-peer up",
            "ip link set two-out up",
            "ip link set two-out-peer up",
        ],
    );
    let second = "[[wire]]\nname = \"two\"\ninside = \"net_af_packet2\"\noutside = \"net_af_packet3\"\n\
                  [policy]\nunknown_nic = \"pass\"\n";
    let setup = on_lab()
        .arg("--vdev=net_af_packet2,iface=two-in")
        .arg("--vdev=net_af_packet3,iface=two-out")
        .more(second);
    let appliance = start(&lab, setup, POLICY);
    let echo = lab.echo_server(At::Server, 22).unwrap();
    let mut session = lab.connect(At::Client, (SERVER_V4, 22), SOON).unwrap();
    assert!(session.echo(b"before", SOON).unwrap());

    // The other wire is busy all the while: a frame every 200 us.
    let sender = lab.within(At::Appliance, || Wire::sender("two-out-peer")).unwrap().unwrap();
    let frame = udp("203.0.113.9:1000", "203.0.113.10:53").payload("x").frame();
    let stop = std::sync::atomic::AtomicBool::new(false);
    let busy = || {
        let mut sent = 0u64;
        while !stop.load(std::sync::atomic::Ordering::Relaxed) {
            sent += u64::from(send(&sender, &frame, SendFlags::empty()).is_ok());
            std::thread::sleep(Duration::from_micros(200));
        }
        sent
    };
    let sent = std::thread::scope(|scope| {
        let busy = scope.spawn(busy);
        for time in 1..=5u32 {
            run(&lab, At::Appliance, &["ip link delete outside"]);
            wait_for_problem(&appliance, "net_af_packet1", "gone: there is no interface outside");
            assert_eq!(port(&appliance, "net_af_packet1")["link"], "gone");
            remake(&lab);
            let begin = Instant::now();
            wait_longer_for("the port", SOON, || {
                (port(&appliance, "net_af_packet1")["attached"] == time + 1).then_some(())
            });
            wait_for_health(&appliance);
            assert!(begin.elapsed() < SOON);
            assert!(lab.ping(At::Client, SERVER_V4, 1).unwrap().status.success(), "time {time}");
        }
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        busy.join().unwrap()
    });
    // The connection outlived it all: its state is the appliance's, not the port's.
    assert!(session.echo(b"after", 5 * SOON).unwrap());
    let through = wait_for("all frames of the other wire", || {
        let (came, went) = (port(&appliance, "net_af_packet3"), port(&appliance, "net_af_packet2"));
        (went["tx_packets"].as_u64() >= Some(sent)).then_some((came, went))
    });
    let (came, went) = through;
    assert_eq!((&came["rx_lost"], &went["tx_lost"]), (&json!(0), &json!(0)), "{came} {went}");
    assert_adds_up(&appliance.show("counters"));
    drop(echo);
    appliance.end();
}

#[test]
fn an_interface_that_is_deleted_does_not_keep_the_appliance_from_its_end() {
    let Some(lab) = lab() else { return };
    let appliance = start(&lab, on_lab(), POLICY);
    run(&lab, At::Appliance, &["ip link delete outside", "ip link delete inside"]);
    wait_for_problem(&appliance, "net_af_packet0", "gone");
    wait_for_problem(&appliance, "net_af_packet1", "gone");
    let (status, receipt, stderr) = appliance.apply(&POLICY.replace("22", "23"), &[]);
    assert_eq!((status, receipt["state"].as_str()), (0, Some("acknowledged")), "{receipt} {stderr}");
    appliance.end();
}

#[test]
fn frames_that_the_kernel_drops_before_the_driver_sees_them_are_counted_and_in_health() {
    let Some(lab) = lab() else { return };
    let small = "framecnt=8,blocksz=4096,framesz=2048";
    let setup = Setup::new(
        &format!("net_af_packet0,iface={INSIDE}"),
        &format!("net_af_packet1,iface={OUTSIDE},{small}"),
    );
    let appliance = start(&lab, setup, POLICY);
    let before = port(&appliance, "net_af_packet1");
    assert_eq!(before["rx_kernel"], 0, "{before}");
    // More at once than eight, again and again.
    let sender = lab.within(At::Client, || Wire::sender("eth0")).unwrap().unwrap();
    let frame = udp("10.5.6.30:1000", "10.5.6.7:53").payload("x").frame();
    let mut sent = 0u64;
    let found = wait_longer_for("lost frames in health", 5 * SOON, || {
        for _ in 0..2000 {
            sent += u64::from(send(&sender, &frame, SendFlags::empty()).is_ok());
        }
        problem(&appliance, "net_af_packet1", "losing frames")
    });
    assert!(found["problem"].as_str().unwrap().contains("found no room in the kernel's ring"), "{found}");
    assert!(found["cure"].as_str().unwrap().contains("framecnt="), "{found}");
    // Every frame came or was lost; the kernel's own count of both is exact.
    let after = wait_for("all frames", || {
        let after = port(&appliance, "net_af_packet1");
        let known = after["rx_packets"].as_u64().unwrap() + after["rx_kernel"].as_u64().unwrap();
        (known >= sent).then_some(after)
    });
    assert!(after["rx_kernel"].as_u64() > Some(0) && after["rx_lost"] == after["rx_kernel"], "{after}");
    // It is over a while after the last.
    wait_longer_for("its end", 5 * SOON, || {
        problem(&appliance, "net_af_packet1", "losing frames").is_none().then_some(())
    });
    appliance.end();
}

#[test]
fn rings_hold_what_comes_at_once_and_nothing_else_is_taken_for_a_loss() {
    let Some(lab) = lab() else { return };
    let appliance = start(&lab, on_lab(), POLICY);
    let sender = lab.within(At::Client, || Wire::sender("eth0")).unwrap().unwrap();
    // Frames that the appliance's kernel has no use for, beside those that it has.
    let plain = udp("10.5.6.30:1000", "10.5.6.7:53").payload("x").frame();
    let tagged = udp("10.5.6.30:1000", "10.5.6.7:53").vlan(7).payload("x").frame();
    let unknown = [&plain[..12], &[0x88, 0xb5], &[7; 50][..]].concat();
    let group = [&[0x01, 0x00, 0x5e, 0, 0, 9], &plain[6..]].concat();
    let mut sent = 0u64;
    for frame in [plain, tagged, unknown, group].iter().cycle().take(10_000) {
        sent += u64::from(send(&sender, frame, SendFlags::empty()).is_ok());
    }
    let after = wait_for("all frames", || {
        Some(port(&appliance, "net_af_packet1")).filter(|port| port["rx_packets"].as_u64() >= Some(sent))
    });
    assert_eq!((sent, &after["rx_lost"]), (10_000, &json!(0)), "{after}");
    assert_eq!(appliance.show("health")["status"], "ok");
    appliance.end();
}

#[test]
fn a_peer_that_leaves_its_checksums_to_a_device_is_named_with_the_command_that_mends_it() {
    let Some(lab) = lab() else { return };
    let appliance = start(&lab, on_lab(), POLICY);
    run(&lab, At::Server, &[&format!("ip neigh replace {CLIENT_V4} lladdr 02:00:00:00:00:30 dev eth0")]);
    let socket = lab.udp(At::Server, 0, (CLIENT_V4, 5000)).unwrap();
    let talk = |patience: Duration, look: &mut dyn FnMut() -> Option<Value>| {
        wait_longer_for("what is said of offloads", patience, || {
            // Nobody listens there: the answer to one is the error of the next.
            (0..20).for_each(|_| drop(socket.send(b"checksum?")));
            look()
        })
    };
    // As the lab leaves it: the kernel sums by itself.
    let begin = Instant::now();
    talk(3 * SOON, &mut || (begin.elapsed() > 2 * SOON).then_some(Value::Null));
    assert_eq!(problem(&appliance, "net_af_packet0", ""), None);
    run(&lab, At::Server, &["ethtool -K eth0 tx on"]);
    let found = talk(3 * SOON, &mut || problem(&appliance, "net_af_packet0", "came without a checksum"));
    assert!(found["cure"].as_str().unwrap().contains("`ethtool -K IFACE tx off tso off gso off`"), "{found}");
    assert_eq!(problem(&appliance, "net_af_packet1", ""), None);
    run(&lab, At::Server, &["ethtool -K eth0 tx off tso off gso off"]);
    talk(8 * SOON, &mut || problem(&appliance, "net_af_packet0", "").is_none().then_some(Value::Null));
    appliance.end();
}

#[test]
fn a_peer_that_is_absent_is_told_apart_from_one_that_takes_no_more() {
    let nobody = format!("portcullis-{}-nobody", std::process::id());
    let memif = format!("net_memif1,role=server,socket-abstract=yes,socket={nobody}");
    let setup = Setup::new("net_pcap0,rx_pcap=IN,tx_pcap=OUT", &memif).fill("inside", "");
    let frames = (1..=5u16).map(|port| udp(("10.5.6.7", port), "198.51.100.9:53").payload("x").frame());
    let records = testkit::pcap::records(0, frames);
    testkit::pcap::write(setup.path("inside.pcap"), testkit::pcap::Format::NANO, &records).unwrap();
    let appliance = setup.start(POLICY);
    let counters = appliance.wait_for_counters("frames that find nobody", |c| c["packets"]["in"] == 5);
    assert_eq!(counters["reasons"], json!({"tx-down": 5}), "{counters}");
    let found = wait_for_problem(&appliance, "net_memif1", "down: no peer is connected");
    assert!(found["cure"].as_str().unwrap().contains("start the peer"), "{found}");
    let port = port(&appliance, "net_memif1");
    assert_eq!((&port["link"], &port["tx_down"], &port["tx_full"]), (&json!("down"), &json!(5), &json!(0)));
    appliance.end();
}

#[test]
fn a_tap_whose_interface_is_deleted_makes_another() {
    let Some(lab) = lab() else { return };
    let setup = Setup::new("net_tap0,iface=tapped", "net_null1,no-rx=1");
    let appliance = start(&lab, setup, POLICY);
    for time in 2..=3u32 {
        run(&lab, At::Appliance, &["ip link delete tapped"]);
        wait_longer_for("another", SOON, || (port(&appliance, "net_tap0")["attached"] == time).then_some(()));
        wait_for_health(&appliance);
        run(&lab, At::Appliance, &["ip link show tapped"]);
    }
    let before = port(&appliance, "net_tap0")["rx_packets"].as_u64();
    let sender = lab.within(At::Appliance, || Wire::sender("tapped")).unwrap().unwrap();
    let frame = udp("10.5.6.7:1000", "198.51.100.9:53").payload("x").frame();
    (0..10).for_each(|_| assert!(send(&sender, &frame, SendFlags::empty()).is_ok()));
    wait_for("its frames", || {
        (port(&appliance, "net_tap0")["rx_packets"].as_u64() >= before.map(|n| n + 10)).then_some(())
    });
    appliance.end();
}
