//! The appliance on AF_PACKET devices whose interface does not send: the driver then waits without end for room in its ring.

mod appliance;

use std::time::Duration;

use appliance::*;
use testkit::lab::{At, INSIDE, Lab, OUTSIDE, SERVER_MAC};

const SECOND: Duration = Duration::from_secs(1);

/// An interface that keeps what it is given for ever, where the kernel can have one.
fn block(lab: &Lab, interface: &str) -> bool {
    let slow = "rate 8bit burst 1600 limit 100000000".split(' ');
    let slow = ["tc", "qdisc", "add", "dev", interface, "root", "tbf"].into_iter().chain(slow);
    lab.run(At::Appliance, slow, 5 * SECOND)
        .unwrap()
        .success()
        .inspect_err(|error| eprintln!("skipped: {error}"))
        .is_ok()
}

#[test]
fn net_af_packet_that_does_not_send_stops_neither_changes_nor_the_end() {
    if let Some(reason) = Lab::missing() {
        return eprintln!("skipped: {reason}");
    }
    let lab = Lab::new().unwrap();
    let setup = Setup::new(
        &format!("net_af_packet0,iface={INSIDE},framecnt=64,blocksz=4096,framesz=2048"),
        &format!("net_af_packet1,iface={OUTSIDE},qdisc_bypass=0,framecnt=64,blocksz=4096,framesz=2048"),
    );
    let policy = setup.write(
        "policy.yaml",
        POLICY.replace("nics:\n  - {", &format!("nics:\n  - {{ mac: \"{SERVER_MAC}\",")),
    );
    let mut command = lab.command(At::Appliance, PORTCULLIS);
    command.args(setup.command(Some(&policy)).get_args());
    let appliance = setup.spawn(command);
    assert!(lab.ping(At::Server, testkit::lab::CLIENT_V4, 2).unwrap().status.success());
    if !block(&lab, OUTSIDE) {
        return;
    }
    let socket = lab.udp(At::Server, 0, (testkit::lab::CLIENT_V4, 5000)).unwrap();
    let flood = || (0..2000).for_each(|_| drop(socket.send(&[0; 100])));
    flood();
    let stuck = || {
        flood();
        Some(appliance.show("counters")).filter(|c| c["reasons"]["tx-full"].as_u64() > Some(0))
    };
    let counters = wait_for("frames that the port refuses", stuck);
    assert_adds_up(&counters);
    let (status, receipt, stderr) = appliance.apply(&POLICY.replace("22", "23"), &[]);
    assert_eq!((status, receipt["state"].as_str()), (0, Some("acknowledged")), "{receipt} {stderr}");
    flood();
    appliance.end();
}

#[test]
fn two_capabilities_are_enough_instead_of_root() {
    if let Some(reason) = Lab::missing() {
        return eprintln!("skipped: {reason}");
    }
    let lab = Lab::new().unwrap();
    let setup = Setup::new(
        &format!("net_af_packet0,iface={INSIDE},framecnt=512"),
        &format!("net_af_packet1,iface={OUTSIDE},framecnt=512"),
    );
    let policy = setup.write("policy.yaml", POLICY);
    let open = |path: &std::path::Path, mode| {
        std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(mode)).unwrap();
    };
    // Where nobody's user gets to: the program, its files, a place for the socket.
    let (program, run) = (setup.path("portcullis"), setup.path("run"));
    std::fs::copy(PORTCULLIS, &program).unwrap();
    std::fs::create_dir(&run).unwrap();
    open(&run, 0o777);
    open(program.parent().unwrap(), 0o755);
    let with = |capabilities: &str| {
        let mut command = lab.command(At::Appliance, "setpriv");
        command.args(["--reuid=65534", "--regid=65534", "--clear-groups", "--no-new-privs"]);
        for set in ["--inh-caps", "--ambient-caps", "--bounding-set"] {
            command.arg(format!("{set}=-all{capabilities}"));
        }
        command.arg(&program).args(setup.command(Some(&policy)).get_args());
        testkit::lab::Process::start(command).unwrap()
    };
    let refused = with(",+net_raw").finish(READY).unwrap();
    assert_eq!(refused.status.code(), Some(1), "{}", refused.stderr);
    let process = with(",+net_raw,+net_admin");
    process.wait_for("portcullis: ready", READY).unwrap();
    let appliance = Appliance { process, setup };
    assert_eq!(appliance.show("health")["status"], "ok");
    assert!(lab.ping(At::Client, testkit::lab::SERVER_V4, 1).is_ok());
    // What it has while it runs, on every thread: these two, no way to more, and a filter.
    let threads = appliance.threads();
    assert!(threads.len() > 60, "{} threads", threads.len());
    for (name, status) in threads {
        let of = |key: &str| status[key].as_str();
        let both = "0000000000003000";
        assert_eq!([of("CapEff"), of("CapPrm"), of("CapBnd")], [both; 3], "{name}");
        assert_eq!([of("CapInh"), of("CapAmb")], ["0000000000000000"; 2], "{name}");
        assert_eq!([of("NoNewPrivs"), of("Seccomp"), of("Uid")], ["1", "2", "65534"], "{name}");
    }
    appliance.end();
}
