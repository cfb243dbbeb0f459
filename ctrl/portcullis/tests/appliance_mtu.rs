//! MTUs beyond 1,500, below and at odds with the kernel's.

mod appliance;

use std::time::Duration;

use appliance::*;
use testkit::frame::*;
use testkit::lab::{At, CLIENT_V4, INSIDE, Lab, OUTSIDE};
use testkit::pcap::{self, Format};

const SOON: Duration = Duration::from_secs(10);

/// The configuration with its wire's MTU set.
fn with_mtu(setup: &Setup, mtu: u16) -> std::process::Command {
    let policy = setup.write("policy.yaml", POLICY);
    let command = setup.command(Some(&policy));
    let text = std::fs::read_to_string(setup.path("portcullis.toml")).unwrap();
    let named = "name = \"wire0\"";
    setup.write("portcullis.toml", text.replace(named, &format!("{named}\nmtu = {mtu}")));
    command
}

/// Datagrams of the instance's whose IP packets have these lengths.
fn datagrams(lengths: &[usize]) -> Vec<Vec<u8>> {
    lengths
        .iter()
        .map(|length| udp("10.5.6.7:1", "198.51.100.9:2").payload(vec![7; length - 28]).frame())
        .collect()
}

#[test]
fn frames_pass_up_to_the_wires_mtu_and_longer_ones_are_counted() {
    // The overhead leaves room for two tags, so a frame is too long by nine bytes at least.
    for (mtu, lengths, passes) in [
        (1500, &[1500, 1509, 1600, 9000][..], 1),
        (1600, &[1500, 1550, 1600, 9000], 3),
        (9000, &[1500, 8999, 9000, 9009], 3),
        (16_000, &[9000, 16_000], 2),
    ] {
        let setup = Setup::new("net_pcap0,rx_pcap=IN,tx_pcap=OUT", "net_null1,no-rx=1").fill("inside", "");
        let frames = datagrams(lengths);
        setup.write("inside.pcap", pcap::encode(Format::NANO, &pcap::records(1, frames)));
        let command = with_mtu(&setup, mtu);
        let appliance = setup.spawn(command);
        let counters = appliance.wait_for_counters("all frames", |counters| {
            let port = &counters["ports"][0];
            counters["packets"]["pass"].as_u64().unwrap() + port["rx_oversize"].as_u64().unwrap()
                == lengths.len() as u64
        });
        assert_eq!(counters["packets"]["pass"], passes, "MTU {mtu}: {counters}");
        assert_eq!(counters["ports"][0]["mtu"], mtu);
        assert_eq!(counters["ports"][1]["tx_packets"], passes, "MTU {mtu}: {counters}");
        appliance.end();
    }
}

/// A lab whose four interfaces have this MTU.
fn lab(mtu: u16) -> Lab {
    let lab = Lab::new().unwrap();
    let set = |at, interface: &str| {
        let mtu = mtu.to_string();
        lab.run(at, ["ip", "link", "set", interface, "mtu", &mtu], SOON).unwrap().success().unwrap();
    };
    set(At::Client, "eth0");
    set(At::Server, "eth0");
    set(At::Appliance, INSIDE);
    set(At::Appliance, OUTSIDE);
    lab
}

fn over_af_packet() -> Setup {
    Setup::new(&format!("net_af_packet0,iface={INSIDE}"), &format!("net_af_packet1,iface={OUTSIDE}"))
}

#[test]
fn kernels_reach_each_other_with_frames_of_their_interfaces_mtu() {
    if let Some(reason) = Lab::missing() {
        return eprintln!("skipped: {reason}");
    }
    for mtu in [1550u16, 9000] {
        let lab = lab(mtu);
        let setup = over_af_packet();
        let policy = setup.write("policy.yaml", POLICY);
        let mut command = lab.command(At::Appliance, PORTCULLIS);
        // Nothing is said of the MTU: it is the interfaces'.
        command.args(setup.command(Some(&policy)).get_args());
        let appliance = setup.spawn(command);
        for size in [100, mtu - 28] {
            let size = size.to_string();
            let ping = ["ping", "-M", "do", "-c", "2", "-i", "0.2", "-W", "2", "-s", &size, CLIENT_V4];
            lab.run(At::Server, ping, SOON)
                .unwrap()
                .success()
                .unwrap_or_else(|e| panic!("MTU {mtu}, {size}: {e}"));
        }
        let server = lab.iperf3_server(At::Client, 5201).unwrap();
        let options = ["-n", "4M", "-M", &(mtu - 40).to_string()];
        lab.iperf3(At::Server, CLIENT_V4, 5201, &options).unwrap().finish(SOON).unwrap().success().unwrap();
        drop(server);
        let counters = appliance.show("counters");
        assert_eq!(
            (&counters["ports"][0]["mtu"], &counters["ports"][0]["rx_oversize"]),
            (&mtu.into(), &0.into())
        );
        appliance.end();
    }
}

#[test]
fn an_interface_at_odds_with_the_wire_keeps_the_appliance_from_starting_and_says_how_to_mend_it() {
    if let Some(reason) = Lab::missing() {
        return eprintln!("skipped: {reason}");
    }
    let lab = lab(9000);
    let refused = |command: std::process::Command| {
        let mut inside = lab.command(At::Appliance, PORTCULLIS);
        inside.args(command.get_args());
        let output = inside.output().unwrap();
        // A configuration that does not fit its interfaces is bad input, as `check` says, too.
        assert_eq!(output.status.code(), Some(2));
        String::from_utf8(output.stderr).unwrap()
    };
    let setup = over_af_packet();
    let told = refused(with_mtu(&setup, 1500));
    assert!(
        told.contains("whose MTU is 9000; [[wire]] mtu says 1500: `ip link set inside mtu 1500` mends it"),
        "{told}"
    );
    lab.run(At::Appliance, ["ip", "link", "set", OUTSIDE, "mtu", "1500"], SOON).unwrap().success().unwrap();
    let policy = setup.write("policy.yaml", POLICY);
    let told = refused(setup.command(Some(&policy)));
    assert!(told.contains("(inside) has MTU 9000, outside net_af_packet1 (outside) has 1500"), "{told}");
    let small = Setup::new(&format!("net_af_packet0,iface={INSIDE},framesz=2048"), "net_null1");
    let told = refused(with_mtu(&small, 9000));
    assert!(told.contains("framesz=2048 does not hold frames of MTU 9000"), "{told}");
}
