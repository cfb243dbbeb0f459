//! The lab: client, appliance and server in network namespaces, real kernels at both ends.
//!
//! `scripts/lab` builds it (its head says what is where); this is the same from Rust, for
//! end-to-end tests:
//!
//! ```no_run
//! use std::time::Duration;
//! use testkit::lab::{At, Lab, SERVER_V4};
//! # fn main() -> std::io::Result<()> {
//! let lab = Lab::new()?;
//! let appliance = lab.spawn(At::Appliance, ["target/release/portcullis", "run", "--config", "lab.toml"])?;
//! appliance.wait_for("ready", Duration::from_secs(10))?;
//! let echo = lab.echo_server(At::Server, 22)?;
//! let session = lab.connect(At::Client, (SERVER_V4, 22), Duration::from_secs(2))?;
//! assert!(lab.ping(At::Client, SERVER_V4, 3)?.status.success());
//! # Ok(()) }
//! ```
//!
//! Everything needs root ([`Lab::missing`] says what a machine lacks). Names hold the id of the
//! process, so that labs of parallel tests are apart; dropping the [`Lab`] ends what runs in it and
//! removes it.

mod delay;
mod process;
mod router;
mod traffic;
mod wire;

use std::{
    ffi::OsStr,
    fs::{self, File},
    io,
    os::fd::AsFd,
    path::{Path, PathBuf},
    process::{Command, Output},
    sync::atomic::{AtomicU32, Ordering},
    thread,
    time::Duration,
};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

pub use delay::Delay;
pub use process::{Finished, Process};
pub use router::Router;
pub use traffic::{Capture, Direction, EchoServer, Probe};
pub use wire::Wire;

/// The client's IPv4 address.
pub const CLIENT_V4: &str = "10.5.6.30";
/// The client's IPv6 address.
pub const CLIENT_V6: &str = "2001:db8::30";
/// The client's MAC address.
pub const CLIENT_MAC: &str = "02:00:00:00:00:30";
/// The server's IPv4 address: the protected one.
pub const SERVER_V4: &str = "10.5.6.7";
/// The server's IPv6 address.
pub const SERVER_V6: &str = "2001:db8::7";
/// The server's MAC address.
pub const SERVER_MAC: &str = "02:00:00:00:00:01";
/// The appliance's interface towards the server, in its namespace.
pub const INSIDE: &str = "inside";
/// The appliance's interface towards the client, in its namespace.
pub const OUTSIDE: &str = "outside";

/// A place in the lab.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum At {
    /// The network's side; its interface is `eth0`.
    Client,
    /// Between the two; its interfaces are [`INSIDE`] and [`OUTSIDE`], and no kernel speaks there.
    Appliance,
    /// The protected side; its interface is `eth0`.
    Server,
}

/// A lab that is up. Dropping it ends every process in it and removes it.
#[derive(Debug)]
pub struct Lab {
    name: String,
}

impl Lab {
    /// What this machine lacks for a lab; `None` if it can have one.
    pub fn missing() -> Option<String> {
        if !rustix::process::geteuid().is_root() {
            return Some("the lab needs root".into());
        }
        let missing: Vec<&str> = ["ip", "ethtool", "ping", "iperf3", "tcpdump"]
            .into_iter()
            .filter(|tool| !on_path(tool))
            .collect();
        if !missing.is_empty() {
            return Some(format!("the lab needs {}", missing.join(", ")));
        }
        None
    }

    /// Builds a lab whose appliance is still to be started: nothing passes between client and
    /// server.
    pub fn new() -> io::Result<Lab> {
        Lab::up(&[])
    }

    /// Builds a lab without appliance: the two wires are bridged.
    pub fn bridged() -> io::Result<Lab> {
        Lab::up(&["--bridged"])
    }

    fn up(options: &[&str]) -> io::Result<Lab> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        remove_orphans();
        let name = format!("lab{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        script("up", &name, options)?;
        Ok(Lab { name })
    }

    /// Its name, as `scripts/lab` knows it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The network namespace of a place.
    pub fn namespace(&self, at: At) -> String {
        let suffix = match at {
            At::Client => 'c',
            At::Appliance => 'a',
            At::Server => 's',
        };
        format!("{}-{suffix}", self.name)
    }

    /// A command that will run at a place. `ip netns exec` becomes the program, so that the child's
    /// id is the program's.
    pub fn command(&self, at: At, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec"]).arg(self.namespace(at)).arg(program);
        command
    }

    /// Runs a command to its end; kills it at the timeout and says so in an error, with what it had
    /// printed.
    pub fn run<S: AsRef<OsStr>>(
        &self,
        at: At,
        command: impl IntoIterator<Item = S>,
        timeout: Duration,
    ) -> io::Result<Finished> {
        self.spawn(at, command)?.finish(timeout)
    }

    /// Starts a command. It ends with its [`Process`], which also has its output.
    pub fn spawn<S: AsRef<OsStr>>(
        &self,
        at: At,
        command: impl IntoIterator<Item = S>,
    ) -> io::Result<Process> {
        let mut words = command.into_iter();
        let program = words.next().ok_or(io::ErrorKind::InvalidInput)?;
        let mut command = self.command(at, program);
        command.args(words);
        Process::start(command)
    }

    /// Does something in the network namespace of a place, on a thread of its own. Sockets made
    /// there stay there, and may be used anywhere afterwards.
    pub fn within<R: Send>(&self, at: At, f: impl FnOnce() -> R + Send) -> io::Result<R> {
        let namespace = File::open(Path::new("/run/netns").join(self.namespace(at)))?;
        thread::scope(|scope| {
            let there = scope.spawn(|| {
                // Moves this thread only, and it ends with the closure.
                move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))?;
                Ok(f())
            });
            there.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        if let Err(error) = script("down", &self.name, &[]) {
            eprintln!("the lab {} is not removed: {error}", self.name);
        }
    }
}

fn script(command: &str, name: &str, options: &[&str]) -> io::Result<()> {
    let script = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../scripts/lab"));
    let Output { status, stderr, .. } = Command::new(&script).args([command, name]).args(options).output()?;
    if !status.success() {
        let reason = String::from_utf8_lossy(&stderr);
        return Err(io::Error::other(format!("scripts/lab {command} {name}: {status}: {reason}")));
    }
    Ok(())
}

/// Removes the labs of test processes that are gone without having done it (killed by a timeout,
/// say).
fn remove_orphans() {
    let Ok(namespaces) = fs::read_dir("/run/netns") else { return };
    for namespace in namespaces.flatten() {
        let namespace = namespace.file_name();
        let Some(name) = namespace.to_str().and_then(|name| name.strip_suffix("-a")) else { continue };
        let Some((owner, number)) = name.strip_prefix("lab").and_then(|rest| rest.split_once('-')) else {
            continue;
        };
        let (Ok(owner), Ok(_)) = (owner.parse::<u32>(), number.parse::<u32>()) else { continue };
        if !Path::new(&format!("/proc/{owner}")).exists() {
            let _ = script("down", name, &[]);
        }
    }
}

fn on_path(tool: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|directory| directory.join(tool).is_file())
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;
    use crate::frame::{Build, tcp};

    /// Says why there can be no lab here, where that is so.
    fn skipped() -> bool {
        let missing = Lab::missing();
        if let Some(reason) = &missing {
            eprintln!("skipped: {reason}");
        }
        missing.is_some()
    }

    const SOON: Duration = Duration::from_secs(2);

    #[test]
    fn a_bridged_lab_carries_pings_sessions_and_bulk_and_captures_them() {
        if skipped() {
            return;
        }
        let lab = Lab::bridged().unwrap();
        let path = std::env::temp_dir().join(format!("{}.pcap", lab.name()));
        let capture = lab.capture(At::Appliance, OUTSIDE, Direction::In, &path, "tcp port 22").unwrap();
        for (from, to) in [(At::Client, SERVER_V4), (At::Client, SERVER_V6), (At::Server, CLIENT_V4)] {
            lab.ping(from, to, 2).unwrap().success().unwrap();
        }
        let _server = lab.echo_server(At::Server, 22).unwrap();
        for to in [SERVER_V4, SERVER_V6] {
            let mut session = lab.connect(At::Client, (to, 22), SOON).unwrap();
            assert!(session.echo(b"hello", SOON).unwrap());
            let mut datagrams = lab.udp(At::Client, 0, (to, 22)).unwrap();
            assert!(datagrams.echo(b"hello", SOON).unwrap());
        }
        assert_eq!(
            lab.connect(At::Client, (SERVER_V4, 23), SOON).unwrap_err().kind(),
            io::ErrorKind::ConnectionRefused
        );
        let iperf3 = lab.iperf3_server(At::Client, 5201).unwrap();
        let download = lab.iperf3(At::Server, CLIENT_V4, 5201, &["-R", "-n", "2M"]).unwrap();
        download.finish(Duration::from_secs(20)).unwrap().success().unwrap();
        drop(iperf3);

        let captured = capture.finish().unwrap();
        std::fs::remove_file(&path).unwrap();
        let syn = |frame: &[u8]| frame[12..14] == [8, 0] && frame[14 + 20 + 13] == 2;
        let syns: Vec<_> = captured.iter().filter(|record| syn(&record.data)).collect();
        assert_eq!(syns.len(), 1, "one IPv4 session from the client, and no frame of the server's");
        // The builder makes the frame that a kernel makes: the same link and network header but for
        // id, flags and length.
        let built = tcp("10.5.6.30:1", "10.5.6.7:22").syn().src_mac(CLIENT_MAC).dst_mac(SERVER_MAC).frame();
        assert_eq!(syns[0].data[..16], built[..16]);
        assert_eq!(syns[0].data[26..34], built[26..34]);
    }

    #[test]
    fn a_lab_without_appliance_is_silent_and_leaves_nothing_behind() {
        if skipped() {
            return;
        }
        let lab = Lab::new().unwrap();
        let path = std::env::temp_dir().join(format!("{}.pcap", lab.name()));
        let capture = lab.capture(At::Appliance, INSIDE, Direction::Out, &path, "").unwrap();
        let left_running = lab.spawn(At::Server, ["sleep", "1000"]).unwrap();
        assert!(!lab.ping(At::Client, SERVER_V4, 1).unwrap().status.success());
        assert!(lab.connect(At::Client, (SERVER_V4, 22), Duration::from_millis(300)).is_err());
        assert_eq!(capture.finish().unwrap(), [], "the appliance's kernel spoke by itself");
        std::fs::remove_file(&path).unwrap();

        let before = Instant::now();
        let late = lab.run(At::Client, ["sleep", "1000"], Duration::from_millis(50)).unwrap_err();
        assert_eq!(late.kind(), io::ErrorKind::TimedOut);
        assert!(before.elapsed() < Duration::from_secs(5));

        let name = lab.name().to_owned();
        drop(lab);
        for place in ["c", "a", "s"] {
            assert!(!Path::new(&format!("/run/netns/{name}-{place}")).exists());
        }
        assert!(left_running.finish(SOON).unwrap().success().is_err(), "it ended with the lab");
    }
}
