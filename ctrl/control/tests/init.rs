//! The first configuration and policy.

use control::config::{Unknown, parse_config};
use control::document::{Limits, parse_policy};
use control::init::{InitContext, InterfaceDriver, templates, templates_for};
use control::model::Mode;

#[test]
fn the_templates_are_valid_and_enforce_nothing() {
    let written = templates("eth1", "eth2").expect("two interfaces");
    let config = parse_config(&written.config, "portcullis.toml").unwrap_or_else(|d| panic!("{d}"));
    assert_eq!(config.policy.mode, Mode::Observe);
    assert_eq!((config.policy.unknown_segment, config.policy.unknown_nic), (Unknown::Pass, Unknown::Pass));
    assert!(config.policy.pass_link_local);
    assert_eq!(
        config.eal.args,
        [
            "--no-pci",
            "--vdev=net_af_packet0,iface=eth1,framecnt=16384",
            "--vdev=net_af_packet1,iface=eth2,framecnt=16384"
        ]
    );
    let wire = &config.wires[0];
    assert_eq!((&*wire.inside, &*wire.outside), ("net_af_packet0", "net_af_packet1"));

    let policy =
        parse_policy(&written.policy, "policy.yaml", &Limits::default()).unwrap_or_else(|d| panic!("{d}"));
    assert!(!policy.empty);
    assert_eq!(policy.policy.nics.len(), 1);
    assert!(!written.config.contains('@') && written.config.lines().filter(|l| l.contains('#')).count() > 10);
}

#[test]
fn a_port_is_an_interface_a_vdev_or_a_pci_address() {
    for (inside, outside, args, ports) in [
        (
            "net_pcap0,rx_pcap=a.pcap",
            "net_null1",
            vec!["--no-pci", "--vdev=net_pcap0,rx_pcap=a.pcap", "--vdev=net_null1"],
            ("net_pcap0", "net_null1"),
        ),
        (
            "0000:03:00.0",
            "03:00.1",
            vec!["--allow=0000:03:00.0", "--allow=0000:03:00.1"],
            ("0000:03:00.0", "0000:03:00.1"),
        ),
        (
            "0000:3B:00.0",
            "br-lan.10",
            vec!["--allow=0000:3b:00.0", "--vdev=net_af_packet1,iface=br-lan.10,framecnt=16384"],
            ("0000:3b:00.0", "net_af_packet1"),
        ),
        (
            "/run/vms/web-1.sock",
            "eth2",
            vec![
                "--no-pci",
                "--vdev=net_vhost0,iface=/run/vms/web-1.sock",
                "--vdev=net_af_packet1,iface=eth2,framecnt=16384",
            ],
            ("net_vhost0", "net_af_packet1"),
        ),
    ] {
        let written = templates(inside, outside).expect("ports");
        let config = parse_config(&written.config, "c").unwrap_or_else(|d| panic!("{d}\n{}", written.config));
        assert_eq!(config.eal.args, args);
        let wire = &config.wires[0];
        assert_eq!((&*wire.inside, &*wire.outside), ports);
    }
}

#[test]
fn what_is_no_port_is_refused() {
    for (inside, outside) in [
        ("", "eth1"),
        ("eth0 ", "eth1"),
        ("eth0", "a-name-too-long-for-the-kernel"),
        ("eth0", "eth1,x"),
        ("eth0", "../eth1"),
        ("/run/a,b.sock", "eth1"),
        ("/run/", "eth1"),
        ("/run/vm.sock", "/run/vm.sock"),
        ("net_null0", "net_null0"),
        ("net_af_packet1,iface=eth0", "eth1"),
        ("03:00.0", "0000:03:00.0"),
    ] {
        assert!(templates(inside, outside).is_err(), "{inside} {outside}");
    }
    assert!(templates("eth0", "eth0").is_err(), "one interface twice");
}

#[test]
fn what_the_machine_is_like_goes_into_them() {
    let notes = vec!["ip link set eth1 up".to_owned(), String::new()];
    let written =
        templates_for("eth1", "net_null1", &InitContext { by: InterfaceDriver::AfXdp, core: 5, notes })
            .unwrap();
    let config = parse_config(&written.config, "c").unwrap_or_else(|d| panic!("{d}\n{}", written.config));
    assert_eq!(config.eal.args, ["--no-pci", "--vdev=net_af_xdp0,iface=eth1", "--vdev=net_null1"]);
    assert_eq!((&*config.wires[0].inside, &config.workers.cores[..]), ("net_af_xdp0", &[5][..]));
    assert!(written.config.contains("\n# ip link set eth1 up\n#\nargs = ["), "{}", written.config);
    // An XDP socket has no such ring.
    assert!(!written.config.contains("framecnt"));
}
