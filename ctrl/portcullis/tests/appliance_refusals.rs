//! What keeps the appliance from starting: one clear line each, and the status that it comes with.

mod appliance;

use std::fs;

use appliance::*;

/// The one line that an operator reads, beside warnings of the log.
fn complaint(stderr: &str) -> &str {
    let (warnings, lines): (Vec<_>, Vec<_>) = stderr.lines().partition(|line| line.contains(" WARN "));
    assert!(warnings.len() <= 1 && lines.len() == 1, "{stderr}");
    lines[0].strip_prefix("portcullis: ").unwrap_or_else(|| panic!("{stderr}"))
}

fn null() -> Setup {
    Setup::new("net_null0", "net_null1")
}

/// Refuses with this status, in a line that tells all of this.
fn assert_refused(setup: &Setup, status: i32, told: &[&str]) {
    let policy = setup.path("policy.yaml");
    if !policy.exists() {
        setup.write("policy.yaml", POLICY);
    }
    let (found, stderr) = setup.refused(Some(&policy));
    let line = complaint(&stderr);
    assert_eq!(found, status, "{line}");
    for part in told {
        assert!(line.contains(part), "{part:?} is not in {line:?}");
    }
    assert!(!setup.socket().exists(), "the socket is left behind");
}

#[test]
fn bad_input_is_told_with_its_place_and_nothing_starts() {
    let setup = null().more("[conntrack]\ncapacity = 0\n");
    assert_refused(&setup, 2, &["portcullis.toml:13:12: conntrack.capacity:"]);
    assert_refused(&null().more("[oops]\n"), 2, &["portcullis.toml:12:", "oops"]);
    let setup = null();
    setup.write("policy.yaml", "vpcs:\n  - { name: a, segment: { vlan: 5000 } }\n");
    assert_refused(&setup, 2, &["policy.yaml:2:", "vpcs[0].segment.vlan"]);
    let missing = setup.path("missing.yaml");
    let (status, stderr) = setup.refused(Some(&missing));
    assert_eq!(status, 2);
    assert!(complaint(&stderr).contains("missing.yaml"), "{stderr}");
}

#[test]
fn a_configuration_without_wires_or_of_cores_that_are_not_there_is_bad_input() {
    assert_refused(
        &null().cores(&[777]),
        2,
        &["portcullis.toml", "workers.cores[0]: core 777 is not there; allowed: 0"],
    );
    let setup = null();
    let policy = setup.write("policy.yaml", POLICY);
    let mut command = setup.command(Some(&policy));
    fs::write(setup.path("portcullis.toml"), "").unwrap();
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(complaint(&String::from_utf8(output.stderr).unwrap()).contains("[[wire]]"));
}

#[test]
fn all_that_is_wrong_is_told_at_once() {
    let setup = null().cores(&[777]).more("token_file = \"/nowhere/tokens\"\nlisten = \"127.0.0.1:9\"\n");
    let policy =
        setup.write("policy.yaml", "vpcs: [{ name: a, segment: { vlan: 5000 } }]\nnics: [{ name: n }]\n");
    let (status, stderr) = setup.refused(Some(&policy));
    let lines: Vec<&str> = stderr.lines().collect();
    let told = ["workers.cores[0]", "api.token_file", "policy.yaml:1:36", "policy.yaml:2:8"];
    assert_eq!((status, lines.len()), (2, told.len()), "{stderr}");
    for (line, part) in lines.iter().zip(told) {
        assert!(line.starts_with("portcullis: ") && line.contains(part), "{part:?} is not in {line:?}");
    }
}

#[test]
fn a_missing_driver_a_missing_file_and_a_missing_interface_are_failures() {
    assert_refused(
        &Setup::new("net_nonsense0", "net_null1"),
        1,
        &["no driver knows the device \"net_nonsense0\""],
    );
    let setup = Setup::new("net_pcap0,rx_pcap=/nowhere/in.pcap", "net_null1");
    assert_refused(&setup, 1, &["the port net_pcap0 did not come up", "/nowhere/in.pcap"]);
    let setup = Setup::new("net_af_packet0,iface=nowhere0", "net_null1");
    let cure =
        "there is no interface nowhere0 in this network namespace: `ip link` lists those that there are";
    assert_refused(&setup, 1, &["the port net_af_packet0 did not come up", "No such device", cure]);
    let setup = Setup::new("net_af_packet0,iface=lo", "net_null1");
    assert_refused(&setup, 2, &["inside net_af_packet0 is on lo, whose MTU is 65535", "at most 16000"]);
    let setup =
        Setup::new("net_null0", "net_memif0,role=client,socket-abstract=yes,socket=portcullis-nobody");
    assert_refused(
        &setup,
        1,
        &["the port net_memif0 does not start", "start the peer with role=server first"],
    );
}

#[test]
fn a_pci_address_is_refused_with_what_keeps_it_from_being_a_port() {
    // `Setup` says --no-pci.
    let setup = null();
    let policy = setup.write("policy.yaml", POLICY);
    let mut command = setup.command(Some(&policy));
    let config = fs::read_to_string(setup.path("portcullis.toml")).unwrap();
    let absent = config.replace("inside = \"net_null0\"", "inside = \"ffff:ff:1f.7\"");
    fs::write(setup.path("portcullis.toml"), absent.replace("\"--no-pci\", ", "")).unwrap();
    let line = String::from_utf8(command.output().unwrap().stderr).unwrap();
    assert!(line.contains("the port ffff:ff:1f.7 cannot be had: "), "{line}");
    assert!(line.contains("there is no PCI device of this address: `lspci -D` lists"), "{line}");
}

#[test]
fn all_that_dpdk_says_is_in_the_log_of_who_wants_it() {
    let setup = null();
    let policy = setup.write("policy.yaml", POLICY);
    let mut command = setup.command(Some(&policy));
    command.env("PORTCULLIS_LOG", "debug");
    let appliance = setup.spawn(command);
    let (finished, _) = appliance.end();
    assert!(finished.stderr.contains("DEBUG DPDK: EAL: Detected CPU lcores"), "{}", finished.stderr);
}

#[test]
fn more_workers_than_queue_pairs_are_a_failure() {
    if std::thread::available_parallelism().is_ok_and(|n| n.get() < 2) {
        return eprintln!("skipped: one core only");
    }
    let setup = Setup::new("net_pcap0,rx_pcap=IN,tx_pcap=OUT", "net_null1").cores(&[0, 1]).fill("inside", "");
    testkit::pcap::write(setup.path("inside.pcap"), testkit::pcap::Format::MICRO, &[]).unwrap();
    assert_refused(&setup, 1, &["the port net_pcap0", "offers 1 queue pair, 2 asked for"]);
}

#[test]
fn a_wish_for_huge_pages_that_are_not_there_is_a_failure() {
    let free =
        fs::read_to_string("/sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages").unwrap_or_default();
    if free.trim().parse::<u64>().is_ok_and(|free| free > 0) {
        return eprintln!("skipped: there are huge pages");
    }
    assert_refused(&null().arg("--socket-mem=64"), 1, &["EAL does not start: there are no free huge pages"]);
}

#[test]
fn a_second_appliance_on_the_same_socket_is_refused_and_the_first_goes_on() {
    let appliance = null().start(POLICY);
    let (status, stderr) = appliance.setup.refused(None);
    assert_eq!(status, 1);
    assert!(stderr.contains("answers on") && stderr.contains("api.sock"), "{stderr}");
    assert_eq!(appliance.show("snapshot")["nics"], 1);
    appliance.end();
}

#[test]
fn clients_without_an_appliance_say_so() {
    let setup = null();
    let policy = setup.write("policy.yaml", POLICY);
    let policy = policy.to_str().unwrap();
    for args in [vec!["show", "counters"], vec!["export"], vec!["apply", policy], vec!["diff", policy]] {
        let mut command = std::process::Command::new(PORTCULLIS);
        let output = command.args(&args).arg("--socket").arg(setup.socket()).output().unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!((output.status.code(), output.stdout.len()), (Some(1), 0), "{args:?}: {stderr}");
        let line = complaint(&stderr);
        assert!(line.contains("can't be reached by") && line.contains("api.sock"), "{line}");
    }
}
