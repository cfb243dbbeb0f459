//! The new process: it prepares itself beside the running one, and takes over.

use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use control::api::Socket;
use control::config::Config;
use engine::worker::Wire;
use pmd::{Eal, Queue};
use tracing::{error, info, warn};

use super::super::ports::{Wires, is_shared};
use super::super::service::Supervisor;
use super::super::{mtu, persist};
use super::line::words;
use super::{DARK, Line, PROTOCOL, Prepare, STANDS_STILL, Word, beside};
use crate::failure::Failure;

/// The driver whose ports one process gives up before the other has them. A process that gave up an XDP socket cannot have one on the same
/// interface again, which it must where the take-over fails; the others are untried.
const LENT: &str = "net_memif";
/// The driver whose ports have been receiving since EAL's start.
const PACKET_SOCKETS: &str = "net_af_packet";
/// How long the former process may take to end, once it is relieved.
const ENDS: Duration = Duration::from_secs(5);

/// A take-over under way.
pub struct Taking {
    line: Line,
    former: Prepare,
    lock: Option<OwnedFd>,
    api: Option<OwnedFd>,
    own: Option<OwnedFd>,
    tcp: Option<OwnedFd>,
    /// Since when nobody forwards.
    dark: Instant,
}

impl Taking {
    /// Asks the process that serves the API's socket of this configuration. An error says what is in the way, and nothing has changed.
    pub fn begin(config: &Config) -> Result<Taking, Failure> {
        let socket = &config.api.socket;
        let refused = |reason: String| Failure::runtime(format!("--take-over: {reason}"));
        let folder = persist::place(config).ok_or_else(|| {
            Failure::input("--take-over: [conntrack] keep is \"off\"; required: \"auto\" or a path, here and in the running process")
        })?;
        let mut ports = config.wires.iter().flat_map(|wire| [&wire.inside, &wire.outside]);
        if let Some(port) = ports.find(|port| !is_shared(port) && !port.starts_with(LENT)) {
            return Err(Failure::input(format!(
                "--take-over: the port {port} cannot be handed over, and had again where that fails; allowed: net_af_packet, net_memif, \
                 net_null, net_pcap, net_ring; a restart keeps the connections, too"
            )));
        }
        let stream = UnixStream::connect(beside(socket)).map_err(|error| {
            refused(match UnixStream::connect(socket) {
                Ok(_) => format!(
                    "the process at {} gives nothing away: its [conntrack] keep is \"off\", or it is an older version",
                    socket.display()
                ),
                Err(_) => format!("nobody is there to take over from: {}: {error}", socket.display()),
            })
        })?;
        let mut line = Line::new(stream);
        let version = env!("CARGO_PKG_VERSION").to_owned();
        let told = |error: std::io::Error| refused(format!("the running process: {}", words(&error)));
        line.say(&Word::Hello { protocol: PROTOCOL, version }, &[]).map_err(told)?;
        let former = match line.hear(STANDS_STILL).map_err(told)? {
            Word::Prepare(former) => former,
            Word::No { reason } => return Err(refused(format!("the running process refuses: {reason}"))),
            word => return Err(refused(format!("{word:?} is out of turn"))),
        };
        if former.folder != folder {
            return Err(Failure::input(format!(
                "--take-over: the running process keeps its connections in {}, this configuration names {}",
                former.folder.display(),
                folder.display()
            )));
        }
        let mut descriptors = line.descriptors().into_iter();
        let (lock, api, own) = (descriptors.next(), descriptors.next(), descriptors.next());
        let tcp = descriptors.next().filter(|_| former.tcp);
        if own.is_none() {
            return Err(refused("the running process gave too few descriptors".to_owned()));
        }
        info!("process {} (version {}) is to be relieved", former.process, former.version);
        Ok(Taking { line, former, lock, api, own, tcp, dark: Instant::now() })
    }

    /// The lock on what is kept, which the two share.
    pub fn lock(&mut self) -> Option<OwnedFd> {
        self.lock.take()
    }

    /// The API's socket.
    pub fn socket(&mut self, path: &Path) -> Option<Socket> {
        Some(Socket::inherit(path, self.api.take()?))
    }

    /// The listener over TCP, if there was one.
    pub fn tcp(&mut self) -> Option<OwnedFd> {
        self.tcp.take()
    }

    /// The listener for whoever takes over next.
    pub fn own(&mut self, api: &Path) -> Option<Socket> {
        Some(Socket::inherit(&beside(api), self.own.take()?))
    }

    /// Where the supervisor of the former process listens.
    pub fn supervisor(&self) -> Supervisor {
        Supervisor { socket: self.former.supervisor.clone(), watchdog: self.former.watchdog.clone() }
    }

    /// Has the running process stand still. From here on nobody forwards.
    pub fn let_go(&mut self) -> Result<(), Failure> {
        self.dark = Instant::now();
        let said = self.line.say(&Word::LetGo, &[]).and_then(|()| self.line.hear(DARK));
        match said {
            Ok(Word::Gone) => Ok(()),
            other => Err(Failure::runtime(format!("--take-over: {}", self.unexpected(other)))),
        }
    }

    /// How long nobody has forwarded, for the log.
    pub fn dark(&self) -> Duration {
        self.dark.elapsed()
    }

    /// True if this process is in charge: frames may move. False if the former one goes on.
    pub fn is_ours(&mut self) -> bool {
        let said = self.line.say(&Word::Ready, &[]).and_then(|()| self.line.hear(DARK));
        match said {
            Ok(Word::Yours) => {
                info!("taken over: nothing was forwarded for {} ms", self.dark.elapsed().as_millis());
                true
            }
            other => {
                error!("not taken over: {}", self.unexpected(other));
                false
            }
        }
    }

    /// Waits until the former process has ended.
    pub fn wait_for_the_end(mut self) {
        match self.line.hear(ENDS) {
            Err(error) if error.kind() == std::io::ErrorKind::TimedOut => {
                warn!("process {} has been relieved and does not end", self.former.process);
            }
            _ => info!("process {} has ended", self.former.process),
        }
    }

    fn unexpected(&self, said: std::io::Result<Word>) -> String {
        let process = self.former.process;
        match said {
            Ok(Word::No { reason }) => format!("process {process} goes on: {reason}"),
            Ok(word) => format!("process {process} goes on: its {word:?} is out of turn"),
            Err(error) => format!("process {process}: {}", words(&error)),
        }
    }
}

/// EAL's arguments for a process beside the running one: without the ports that one process alone can have, which are made when the other has
/// let go of them, and under a prefix for files of its own.
pub fn beside_another(args: &[String], config: &Config) -> Vec<String> {
    const PREFIX: &str = "--file-prefix";
    let ports: Vec<_> = config.wires.iter().flat_map(|wire| [&wire.inside, &wire.outside]).collect();
    let is_exclusive = |vdev: &str| {
        let name = vdev.split(',').next().unwrap_or_default();
        !is_shared(name) && ports.iter().any(|port| *port == name)
    };
    let mine = |prefix: &str| format!("{PREFIX}={prefix}-{}", std::process::id());
    let (mut left, mut rest) = (Vec::new(), args.iter());
    while let Some(arg) = rest.next() {
        let (option, value) = match arg.split_once('=') {
            Some((option, value)) => (option, Some(value)),
            None if [PREFIX, "--vdev"].contains(&arg.as_str()) => {
                (arg.as_str(), rest.next().map(String::as_str))
            }
            None => (arg.as_str(), None),
        };
        match (option, value) {
            ("--vdev", Some(vdev)) if is_exclusive(vdev) => {}
            ("--vdev", Some(vdev)) => left.push(format!("--vdev={vdev}")),
            (PREFIX, Some(prefix)) => left.push(mine(prefix)),
            _ => left.push(arg.clone()),
        }
    }
    left
}

/// Makes those that were left out.
pub fn plug_exclusive(eal: &Eal, args: &[String], config: &Config) -> Result<(), pmd::Error> {
    let ports = config.wires.iter().flat_map(|wire| [&wire.inside, &wire.outside]);
    for port in ports.filter(|port| !is_shared(port)) {
        if let Some(vdev) = mtu::vdev(args, port) {
            eal.plug(port, vdev)?;
        }
    }
    Ok(())
}

/// Lets go of what packet sockets have received so far. The former process has forwarded it: the sockets of both saw it.
pub fn set_aside(queues: &mut [Wires]) {
    let of = |queue: &mut Queue| {
        if queue.port_name().starts_with(PACKET_SOCKETS) { queue.set_aside() } else { 0 }
    };
    let of_wire = |wire: &mut Wire<Queue>| of(&mut wire.inside) + of(&mut wire.outside);
    let frames: usize = queues.iter_mut().flatten().map(of_wire).sum();
    if frames > 0 {
        info!("{frames} frames that had come before were left to the former process");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use control::config::parse_config;

    #[test]
    fn beside_another_it_makes_what_both_can_have_under_a_prefix_of_its_own() {
        let config = "[[wire]]\nname = \"w\"\ninside = \"net_af_packet0\"\noutside = \"net_memif1\"\n";
        let config = parse_config(config, "c").unwrap();
        let beside = |args: &[&str]| {
            let args: Vec<_> = args.iter().map(ToString::to_string).collect();
            beside_another(&args, &config)
        };
        let own = format!("--file-prefix=x-{}", std::process::id());
        assert_eq!(
            beside(&[
                "--no-pci",
                "--vdev=net_af_packet0,iface=a",
                "--vdev=net_memif1,role=client",
                "-m",
                "64"
            ]),
            ["--no-pci", "--vdev=net_af_packet0,iface=a", "-m", "64"]
        );
        assert_eq!(
            beside(&["--vdev", "net_memif1,role=client", "--vdev", "net_memif2", "--file-prefix", "x"]),
            ["--vdev=net_memif2", own.as_str()],
            "what is no port of a wire is the operator's"
        );
        assert_eq!(beside(&["--file-prefix=x"]), [own]);
    }
}
