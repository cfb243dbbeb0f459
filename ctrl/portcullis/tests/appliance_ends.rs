//! Every way to end leaves the wire closed, and what stands still is seen from without.

mod appliance;

use std::os::unix::net::UnixDatagram;
use std::os::unix::process::ExitStatusExt;
use std::time::{Duration, Instant};

use appliance::*;
use rustix::process::Signal;
use testkit::lab::{At, CLIENT_V4, INSIDE, Lab, OUTSIDE, SERVER_MAC};

/// Whether anything passes the wire.
fn passes(lab: &Lab) -> bool {
    lab.ping(At::Server, CLIENT_V4, 1).unwrap().status.success()
}

#[test]
fn nothing_passes_a_wire_whose_appliance_has_ended_however_it_did() {
    if let Some(reason) = Lab::missing() {
        return eprintln!("skipped: {reason}");
    }
    let lab = Lab::new().unwrap();
    // What ends it in order, what a supervisor sends to one that stands still and DPDK to itself (`rte_panic` aborts), what a fault of
    // memory brings, and what nobody can do anything about.
    for signal in [Signal::TERM, Signal::INT, Signal::ABORT, Signal::SEGV, Signal::BUS, Signal::KILL] {
        let setup = Setup::new(
            &format!("net_af_packet0,iface={INSIDE},framecnt=512"),
            &format!("net_af_packet1,iface={OUTSIDE},framecnt=512"),
        );
        let policy = setup.write(
            "policy.yaml",
            POLICY.replace("nics:\n  - {", &format!("nics:\n  - {{ mac: \"{SERVER_MAC}\",")),
        );
        let mut command = lab.command(At::Appliance, PORTCULLIS);
        command.args(setup.command(Some(&policy)).get_args()).current_dir(setup.path(""));
        let Appliance { process, setup } = setup.spawn(command);
        assert!(passes(&lab), "{signal:?}: nothing passes while it runs");
        process.signal(signal).unwrap();
        if [Signal::SEGV, Signal::BUS].contains(&signal) {
            // Rust looks at the first one, whether it was a stack that overflowed, and leaves the next to the kernel: a real fault
            // comes again by itself.
            std::thread::sleep(Duration::from_millis(100));
            process.signal(signal).unwrap();
        }
        let ended = process.finish(READY).unwrap();
        let in_order = [Signal::TERM, Signal::INT].contains(&signal);
        let expected = if in_order { (Some(0), None) } else { (None, Some(signal.as_raw())) };
        assert_eq!((ended.status.code(), ended.status.signal()), expected, "{}", ended.stderr);
        assert!(!ended.status.core_dumped(), "{signal:?} left a core file");
        assert!(!passes(&lab), "{signal:?}: the wire is open without its appliance");
        // What it left behind stops nobody from beginning anew.
        assert!(setup.path("policy.yaml").exists());
    }
}

/// Stops this thread alone, until dropped.
struct Stopped(libc::pid_t);

impl Stopped {
    fn stop(thread: libc::pid_t) -> Option<Stopped> {
        // SAFETY: takes numbers alone; the thread is one of a process of ours.
        let seized = unsafe { libc::ptrace(libc::PTRACE_SEIZE, thread, 0, 0) };
        if seized != 0 {
            eprintln!("skipped: ptrace: {}", std::io::Error::last_os_error());
            return None;
        }
        let stopped = Stopped(thread);
        // SAFETY: as above.
        assert_eq!(unsafe { libc::ptrace(libc::PTRACE_INTERRUPT, thread, 0, 0) }, 0);
        // SAFETY: waits for this thread alone and writes nothing.
        assert_eq!(unsafe { libc::waitpid(thread, std::ptr::null_mut(), libc::__WALL) }, thread);
        Some(stopped)
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        // SAFETY: takes numbers alone; the thread is stopped, and goes on.
        unsafe { libc::ptrace(libc::PTRACE_DETACH, self.0, 0, 0) };
    }
}

#[test]
fn a_worker_that_stands_still_is_seen_by_clients_and_by_the_supervisor() {
    let setup = Setup::new("net_null0,no-rx=1", "net_null1,no-rx=1");
    let path = setup.path("notify");
    let supervisor = UnixDatagram::bind(&path).unwrap();
    supervisor.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    let policy = setup.write("policy.yaml", POLICY);
    let mut command = setup.command(Some(&policy));
    command.env("NOTIFY_SOCKET", &path).env("WATCHDOG_USEC", "3000000");
    let appliance = setup.spawn(command);
    let calls = |during: Duration| {
        let (until, mut calls) = (Instant::now() + during, 0);
        while Instant::now() < until {
            let mut text = [0; 256];
            let told = supervisor.recv(&mut text).is_ok_and(|length| &text[..length] == b"WATCHDOG=1");
            calls += usize::from(told);
        }
        calls
    };
    assert!(calls(Duration::from_millis(2500)) > 0, "it does not call while it is well");
    let threads = appliance.threads();
    let (_, worker) = threads.iter().find(|(name, _)| name == "worker-0").unwrap();
    let Some(stopped) = Stopped::stop(worker["Pid"].parse().unwrap()) else { return };
    let health = |status: &str| {
        wait_for(status, || Some(appliance.show("health")).filter(|health| health["status"] == status))
    };
    let failed = health("failed");
    assert!(failed["problems"].to_string().contains("worker 0"), "{failed}");
    // From half of what the supervisor waits on, nothing more: it ends a process that does not call.
    calls(Duration::from_millis(1500));
    assert_eq!(calls(Duration::from_secs(3)), 0, "it calls though a worker stands still");
    drop(stopped);
    health("ok");
    assert!(calls(Duration::from_millis(2500)) > 0, "it does not call any more");
    appliance.end();
}
