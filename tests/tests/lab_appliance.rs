//! The appliance between two real kernels: pings, bulk TCP, UDP, and a rule taken away under a living session.

mod common;

use std::{io, time::Duration};

use common::number;
use common::rig::{LATE, Rig};
use testkit::lab::{At, CLIENT_V4, CLIENT_V6, Direction, Probe, SERVER_V4, SERVER_V6};

const SOON: Duration = Duration::from_secs(2);

const PING: &str = "{ direction: inbound, protocol: icmp, icmp_type: 8, icmp_code: 0 }";
const PING6: &str = "{ direction: inbound, protocol: icmpv6, icmp_type: 128, ethertype: IPv6 }";
const SSH: &str = "{ direction: inbound, protocol: tcp, ports: 22 }";
const DNS: &str = "{ direction: inbound, protocol: udp, ports: 53 }";
const BULK_TCP: &str = "{ direction: inbound, protocol: tcp, ports: 5201 }";
const BULK_UDP: &str = "{ direction: inbound, protocol: udp, ports: 5201 }";
const OUT: &str = "{ direction: outbound }";

/// Under these rules for the server; `None`, said aloud, where there can be no lab.
fn start(name: &str, rules: &[&str]) -> Option<Rig> {
    Rig::start(name, "[conntrack]\ncapacity = 65536", &document(rules))
}

/// A bulk transfer between a server there and a client here, to its end.
fn bulk(rig: &Rig, from: At, to: (At, &str), options: &[&str]) {
    let server = rig.lab.iperf3_server(to.0, 5201).unwrap();
    let transfer = rig.lab.iperf3(from, to.1, 5201, options).unwrap();
    transfer.finish(LATE).unwrap().success().unwrap_or_else(|error| panic!("{to:?} {options:?}: {error}"));
    drop(server);
}

/// The lab's server with one group of these rules.
fn document(rules: &[&str]) -> String {
    format!(
        r#"
vpcs: [{{ name: lab, segment: {{ untagged: true }} }}]
security_groups:
  - {{ name: sg, rules: [{}] }}
nics:
  - name: server
    vpc: lab
    mac: "02:00:00:00:00:01"
    addresses: [{SERVER_V4}, "{SERVER_V6}"]
    security_groups: [sg]
"#,
        rules.join(", ")
    )
}

#[test]
fn pings_and_udp_pass_both_ways_and_families() {
    let Some(rig) = start("pings", &[PING, PING6, DNS, OUT]) else { return };
    for (from, to) in
        [(At::Client, SERVER_V4), (At::Client, SERVER_V6), (At::Server, CLIENT_V4), (At::Server, CLIENT_V6)]
    {
        rig.lab.ping(from, to, 3).unwrap().success().unwrap();
    }
    // In fragments, too. IPv6 only: the kernel reassembles IPv4 fragments before net_af_packet sees them (it asks for that).
    rig.lab.run(At::Client, ["ping", "-c", "2", "-s", "4000", SERVER_V6], LATE).unwrap().success().unwrap();
    let _inner = rig.lab.echo_server(At::Server, 53).unwrap();
    let _outer = rig.lab.echo_server(At::Client, 53).unwrap();
    for (from, to) in
        [(At::Client, SERVER_V4), (At::Client, SERVER_V6), (At::Server, CLIENT_V4), (At::Server, CLIENT_V6)]
    {
        let mut socket = rig.lab.udp(from, 0, (to, 53)).unwrap();
        let in_fragments = to.contains(':').then_some(4000);
        for size in [1, 100, 1400].into_iter().chain(in_fragments) {
            assert!(socket.echo(&vec![7; size], SOON).unwrap(), "{size} bytes to {to}");
        }
    }
    rig.end();
}

#[test]
fn bulk_transfers_pass_both_ways_and_families() {
    let Some(rig) = start("bulk", &[BULK_TCP, BULK_UDP, OUT]) else { return };
    for (from, to) in [
        (At::Client, (At::Server, SERVER_V4)),
        (At::Client, (At::Server, SERVER_V6)),
        (At::Server, (At::Client, CLIENT_V4)),
        (At::Server, (At::Client, CLIENT_V6)),
    ] {
        bulk(&rig, from, to, &["-n", "20M"]);
        bulk(&rig, from, to, &["-n", "20M", "-R"]);
        bulk(&rig, from, to, &["-u", "-b", "20M", "-t", "1"]);
    }
    let counters = rig.ask(&["show", "counters"]);
    assert!(number(&counters, "established") > 50_000, "{counters}");
    rig.end();
}

#[test]
fn a_rule_taken_away_cuts_the_session_it_let_in_and_nothing_that_the_server_opened() {
    let Some(rig) = start("flush", &[SSH, BULK_TCP, OUT]) else { return };
    let lab = &rig.lab;
    let _ssh = lab.echo_server(At::Server, 22).unwrap();
    let _outer = lab.echo_server(At::Client, 443).unwrap();
    let _iperf3 = lab.iperf3_server(At::Client, 5201).unwrap();

    let mut sessions: Vec<_> =
        [SERVER_V4, SERVER_V6].map(|to| lab.connect(At::Client, (to, 22), SOON).unwrap()).into();
    let mut own: Vec<_> =
        [CLIENT_V4, CLIENT_V6].map(|to| lab.connect(At::Server, (to, 443), SOON).unwrap()).into();
    let mut download =
        lab.iperf3(At::Server, CLIENT_V4, 5201, &["-R", "-t", "8", "-i", "1", "-b", "200M"]).unwrap();
    download.wait_for("bits/sec", LATE).unwrap();
    for session in sessions.iter_mut().chain(&mut own) {
        assert!(session.echo(b"before", SOON).unwrap());
    }
    let connections = rig.ask(&["show", "connections"]);
    assert!(connections.contains(r#""local_port":22"#) && !connections.contains(r#""tombstone":true"#));

    let receipt = rig.apply(&document(&[BULK_TCP, OUT]));
    assert!(receipt.contains(r#""state":"acknowledged""#), "{receipt}");
    assert!(receipt.contains(r#""flushed":["server"]"#), "{receipt}");
    assert_eq!(number(&receipt, "disconnected"), 2, "{receipt}");

    // It is acknowledged: from now on nothing of the sessions leaves, in either direction, whatever the ends try.
    let at_server = lab
        .capture(At::Server, "eth0", Direction::In, rig.scratch.path("server.pcap"), "tcp port 22")
        .unwrap();
    let at_client = lab
        .capture(At::Client, "eth0", Direction::In, rig.scratch.path("client.pcap"), "tcp port 22")
        .unwrap();
    for session in &mut sessions {
        assert!(!session.echo(b"after", Duration::from_millis(800)).unwrap(), "the session lives");
    }
    for to in [SERVER_V4, SERVER_V6] {
        let refused = lab.connect(At::Client, (to, 22), SOON).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::TimedOut, "{refused}");
    }
    for session in &mut own {
        assert!(session.echo(b"after", SOON).unwrap(), "an outbound connection was cut");
    }
    assert_eq!(at_server.finish().unwrap(), [], "frames of a dead session reached the server");
    assert_eq!(at_client.finish().unwrap(), [], "frames of a dead session reached the client");
    assert!(download.is_running(), "the download ended early: {}", download.stderr());
    download.finish(LATE).unwrap().success().unwrap();

    let connections = rig.ask(&["show", "connections"]);
    assert!(connections.contains(r#""tombstone":true"#), "{connections}");
    let counters = rig.ask(&["show", "counters"]);
    assert!(number(&counters, "tombstone") > 0 && number(&counters, "no-rule") > 0, "{counters}");

    // The rule is back: the tuple of the old session stays held off, others are free.
    rig.apply(&document(&[SSH, BULK_TCP, OUT]));
    assert!(!sessions[0].echo(b"again", Duration::from_millis(800)).unwrap());
    let mut anew = lab.connect(At::Client, (SERVER_V4, 22), SOON).unwrap();
    assert!(anew.echo(b"hello", SOON).unwrap());
    rig.end();
}

#[test]
fn what_is_denied_does_not_leave() {
    let Some(rig) = start("denied", &[SSH]) else { return };
    let lab = &rig.lab;
    let _server = lab.echo_server(At::Server, 22).unwrap();
    let _other = lab.echo_server(At::Server, 23).unwrap();
    let _client = lab.echo_server(At::Client, 443).unwrap();
    // Not what no rule judges: ARP, neighbour discovery, MLD.
    let filter = "not arp and not ip6 multicast and not (icmp6 and ip6[40] >= 133)";
    let at_server =
        lab.capture(At::Server, "eth0", Direction::In, rig.scratch.path("server.pcap"), filter).unwrap();
    let at_client =
        lab.capture(At::Client, "eth0", Direction::In, rig.scratch.path("client.pcap"), filter).unwrap();

    let short = Duration::from_millis(500);
    for to in [SERVER_V4, SERVER_V6] {
        assert!(lab.connect(At::Client, (to, 23), short).is_err());
        assert!(!lab.udp(At::Client, 0, (to, 22)).unwrap().echo(b"hello", short).unwrap());
    }
    for to in [SERVER_V4, SERVER_V6] {
        assert!(!lab.ping(At::Client, to, 2).unwrap().status.success());
    }
    for to in [CLIENT_V4, CLIENT_V6] {
        assert!(lab.connect(At::Server, (to, 443), short).is_err());
        assert!(!lab.udp(At::Server, 0, (to, 443)).unwrap().echo(b"hello", short).unwrap());
    }
    for to in [CLIENT_V4, CLIENT_V6] {
        assert!(!lab.ping(At::Server, to, 2).unwrap().status.success());
    }
    // What is allowed, last: the captures do see what leaves.
    let mut session = lab.connect(At::Client, (SERVER_V4, 22), SOON).unwrap();
    assert!(session.echo(b"hello", SOON).unwrap());

    // IPv4 without options, TCP, port 22 at this offset: nothing else was let through.
    let is_session = |frame: &[u8], port_at: usize| {
        frame[12..14] == [8, 0] && frame[23] == 6 && frame[port_at..port_at + 2] == [0, 22]
    };
    for (captured, port_at) in [(at_server.finish().unwrap(), 36), (at_client.finish().unwrap(), 34)] {
        assert!(captured.len() >= 2, "the capture saw not even the session");
        for record in captured {
            assert!(is_session(&record.data, port_at), "a denied frame left: {:02x?}", record.data);
        }
    }
    rig.end();
}
