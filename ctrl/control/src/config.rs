//! The configuration: the TOML of interfaces.md as plain typed values.
//!
//! [`Config::default`] is what an empty file says. Every key may be left out; [`Config::require_wires`] is for `run`,
//! which needs some. Where the specification is silent: durations are above 0 (`pickup_grace` may be 0) and at most 30
//! days, quotas at least 1, `api.tls_cert`, `api.tls_key` and `api.token_file` are the keys that an address other than
//! loopback needs, and `workers.idle` (`"poll"`, or `"park"`: see [`Idle`]) is a key beside the specified ones.

mod eal;
mod flow_log;
mod read;
mod sandbox;

pub use flow_log::{FlowKind, FlowLog, FlowTarget, FlowWhat};
pub use read::{Checked, check_config, parse_config};
pub use sandbox::Sandbox;

use crate::document::Limits;
use crate::model::{Mode, Prefix};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use tracing::level_filters::LevelFilter;

/// The whole configuration.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Config {
    /// `[eal]`
    pub eal: Eal,
    /// `[[wire]]`, in the order of the file.
    pub wires: Vec<Wire>,
    /// `[workers]`
    pub workers: Workers,
    /// `[conntrack]`
    pub conntrack: Conntrack,
    /// `[timeouts]`
    pub timeouts: Timeouts,
    /// `[policy]`
    pub policy: PolicySettings,
    /// `[api]`
    pub api: Api,
    /// `[store]`
    pub store: Store,
    /// `[log]`
    pub log: Log,
    /// `[trace]`
    pub trace: Trace,
    /// `[[flow_log]]`, in the order of the file.
    pub flow_logs: Vec<FlowLog>,
    /// `[metrics]`
    pub metrics: Metrics,
    /// `[stats]`
    pub stats: Stats,
    /// `[sandbox]`
    pub sandbox: Sandbox,
}

/// DPDK's environment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Eal {
    /// Arguments as DPDK takes them, none of which chooses cores.
    pub args: Vec<String>,
    /// Whether DPDK's telemetry answers, with commands of the appliance's own.
    pub telemetry: bool,
}

impl Default for Eal {
    fn default() -> Self {
        Eal { args: Vec::new(), telemetry: true }
    }
}

/// A pair of ports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wire {
    /// Its name, unique.
    pub name: String,
    /// The port towards the instances; on no other wire, and not the other side of this one.
    pub inside: String,
    /// The port towards the network.
    pub outside: String,
    /// The MTU of both ports, in bytes of IP; `None`: that of the kernel interface or device.
    pub mtu: Option<u16>,
}

/// The worker threads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Workers {
    /// The core of each worker, each once.
    pub cores: Vec<usize>,
    /// What a worker does that has had nothing to do for a while.
    pub idle: Idle,
}

/// What a worker does that has had nothing to do for a while.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Idle {
    /// It goes on polling, and lets others have its core between two polls.
    Poll,
    /// It sleeps for parts of a millisecond: its core cools down, and the first frame after a pause comes through later.
    Park,
}

impl Default for Workers {
    fn default() -> Workers {
        Workers { cores: vec![1], idle: Idle::Poll }
    }
}

/// Whether a segment in the middle of a TCP stream may open a connection (semantics 4.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TcpPickup {
    /// It may not.
    Strict,
    /// It may.
    Loose,
}

/// Where connections outlive the process.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Persistence {
    /// Nowhere.
    #[default]
    Off,
    /// In a folder in `/dev/shm`, named after the API socket.
    Auto,
    /// In this folder.
    At(PathBuf),
}

/// Connection tracking.
#[derive(Clone, Debug, PartialEq)]
pub struct Conntrack {
    /// The most connections, all workers together.
    pub capacity: u32,
    /// The share of the capacity that unconfirmed connections may take, above 0 and at most 1.
    pub unconfirmed_share: f64,
    /// Whether TCP sequence numbers are checked.
    pub tcp_window_check: bool,
    /// See [`TcpPickup`].
    pub tcp_pickup: TcpPickup,
    /// How long after a start without earlier state [`TcpPickup::Loose`] holds.
    pub pickup_grace: Duration,
    /// Whether packets and bytes of each connection are counted, also where no flow log wants them.
    pub count: bool,
    /// See [`Persistence`].
    pub keep: Persistence,
}

impl Default for Conntrack {
    fn default() -> Conntrack {
        Conntrack {
            capacity: 1 << 20,
            unconfirmed_share: 0.5,
            tcp_window_check: true,
            tcp_pickup: TcpPickup::Strict,
            pickup_grace: Duration::ZERO,
            count: false,
            keep: Persistence::Off,
        }
    }
}

/// Idle timeouts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// SYN sent and SYN received.
    pub tcp_syn: Duration,
    /// Established.
    pub tcp_established: Duration,
    /// Closing: both FINs seen.
    pub tcp_fin: Duration,
    /// FIN-WAIT: one FIN seen. As `tcp_fin` unless the configuration says otherwise.
    pub tcp_half_closed: Duration,
    /// What is left at most after a reset that its receiver may refuse.
    pub tcp_reset: Duration,
    /// ICMP and ICMPv6 requests.
    pub icmp: Duration,
    /// Everything else while one direction has been seen.
    pub one_way: Duration,
    /// Everything else once both have.
    pub two_way: Duration,
    /// How long the verdict on a first fragment holds.
    pub fragment: Duration,
}

impl Timeouts {
    /// The longest that a connection or a verdict on fragments can have left.
    pub fn longest(&self) -> Duration {
        [
            self.tcp_syn,
            self.tcp_established,
            self.tcp_fin,
            self.tcp_half_closed,
            self.icmp,
            self.one_way,
            self.two_way,
            self.fragment,
        ]
        .into_iter()
        .max()
        .unwrap_or_default()
    }
}

impl Default for Timeouts {
    fn default() -> Timeouts {
        let seconds = Duration::from_secs;
        Timeouts {
            tcp_syn: seconds(30),
            tcp_established: seconds(600),
            tcp_fin: seconds(30),
            tcp_half_closed: seconds(30),
            tcp_reset: seconds(10),
            icmp: seconds(30),
            one_way: seconds(30),
            two_way: seconds(180),
            fragment: seconds(5),
        }
    }
}

/// Which rule changes flush (semantics 5.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InboundFlush {
    /// Those of any rule.
    AnyRule,
    /// Those of inbound rules.
    InboundRules,
}

/// Whom a change of membership flushes (semantics 5.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FlushScope {
    /// Every NIC of the group.
    Group,
    /// The NIC that joined or left.
    Joined,
}

/// What a flush does to an inbound connection (semantics 5.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnFlush {
    /// It is disconnected.
    Tombstone,
    /// It is judged again.
    Rejudge,
}

/// What happens to frames of nobody's VPC or NIC (semantics 2.8).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unknown {
    /// They drop.
    Drop,
    /// They pass.
    Pass,
}

/// Which policy governs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// The file given with `--policy`.
    File,
    /// The store, by way of the API.
    Api,
}

/// How policies are applied and what lies beyond them.
#[derive(Clone, Debug, PartialEq)]
pub struct PolicySettings {
    /// See [`InboundFlush`].
    pub inbound_flush: InboundFlush,
    /// See [`FlushScope`].
    pub flush_scope: FlushScope,
    /// See [`OnFlush`].
    pub on_flush: OnFlush,
    /// The quotas.
    pub limits: Limits,
    /// Ethertypes beside IP and ARP that pass.
    pub pass_ethertypes: Vec<u16>,
    /// Whether drops are carried out; a NIC may say otherwise.
    pub mode: Mode,
    /// Frames of a segment that no VPC has.
    pub unknown_segment: Unknown,
    /// Frames of a known segment and no NIC.
    pub unknown_nic: Unknown,
    /// Whether link-local frames (STP, LACP, LLDP) pass.
    pub pass_link_local: bool,
    /// Multicast destinations that pass from outside.
    pub pass_multicast: Vec<Prefix>,
    /// `None` where the file leaves it out; see [`Config::source`].
    pub source: Option<Source>,
    /// The largest share of the NICs, or NICs with the largest share of the connections, that a change of the policy file may remove.
    pub max_removed_share: f64,
}

impl Default for PolicySettings {
    fn default() -> PolicySettings {
        PolicySettings {
            inbound_flush: InboundFlush::AnyRule,
            flush_scope: FlushScope::Group,
            on_flush: OnFlush::Tombstone,
            limits: Limits::default(),
            pass_ethertypes: Vec::new(),
            mode: Mode::Enforce,
            unknown_segment: Unknown::Drop,
            unknown_nic: Unknown::Drop,
            pass_link_local: false,
            pass_multicast: Vec::new(),
            source: None,
            max_removed_share: 0.5,
        }
    }
}

/// What clients over TCP may do without a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Anonymous {
    /// Nothing.
    None,
    /// Look.
    Read,
    /// Everything.
    Write,
}

/// Where clients reach the appliance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Api {
    /// The unix socket.
    pub socket: PathBuf,
    /// The group that may use the socket, too.
    pub socket_group: Option<String>,
    /// What clients over TCP may do without a token; on loopback alone.
    pub anonymous: Anonymous,
    /// The TCP address, if any. Anything but loopback comes with certificate, key and token.
    pub listen: Option<SocketAddr>,
    /// The certificate chain, PEM; never without the key.
    pub tls_cert: Option<PathBuf>,
    /// The certificate's private key, PEM; never without the certificate.
    pub tls_key: Option<PathBuf>,
    /// A file that holds the token which clients over TCP must show.
    pub token_file: Option<PathBuf>,
    /// Whether the console is served over TCP.
    pub console: bool,
}

/// The socket of an appliance that is not told otherwise.
pub const DEFAULT_SOCKET: &str = "/run/portcullis/api.sock";

impl Default for Api {
    fn default() -> Api {
        Api {
            socket: DEFAULT_SOCKET.into(),
            socket_group: None,
            anonymous: Anonymous::None,
            listen: None,
            tls_cert: None,
            tls_key: None,
            token_file: None,
            console: true,
        }
    }
}

/// What outlives the process.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Store {
    /// The store's file; none: memory only.
    pub path: Option<PathBuf>,
    /// Where it is told which store that is and what it holds; beside it, if left out.
    pub witness: Option<PathBuf>,
    /// Refuse a start where it is missing, also where nothing tells that there was one.
    pub must_exist: bool,
}

/// `/metrics`, and the same figures in the stats page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Metrics {
    /// NICs with series of their own, at most: those with the most traffic.
    pub nics: usize,
}

impl Default for Metrics {
    fn default() -> Metrics {
        Metrics { nics: 1000 }
    }
}

/// The stats page.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Its file; see [`Config::stats_page`].
    pub page: Option<PathBuf>,
}

/// What is written to standard error while the appliance runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Log {
    /// The least important lines that are written.
    pub level: LevelFilter,
    /// How.
    pub format: LogFormat,
}

/// What is remembered of single packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trace {
    /// Decisions that `why` finds; 0: none are told.
    pub history: usize,
}

impl Default for Trace {
    fn default() -> Trace {
        Trace { history: 1 << 16 }
    }
}

/// How log lines are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// A JSON object a line.
    Json,
}

impl Default for Log {
    fn default() -> Log {
        Log { level: LevelFilter::INFO, format: LogFormat::Text }
    }
}

/// Levels as `[log] level` and `PORTCULLIS_LOG` spell them.
pub const LOG_LEVELS: [(&str, LevelFilter); 6] = [
    ("off", LevelFilter::OFF),
    ("error", LevelFilter::ERROR),
    ("warn", LevelFilter::WARN),
    ("info", LevelFilter::INFO),
    ("debug", LevelFilter::DEBUG),
    ("trace", LevelFilter::TRACE),
];

impl Config {
    /// Which policy governs: what the file says, else the API once there is a store, else the policy file.
    pub fn source(&self) -> Source {
        let unsaid = if self.store.path.is_some() { Source::Api } else { Source::File };
        self.policy.source.unwrap_or(unsaid)
    }

    /// Packets and bytes of each connection are counted.
    pub fn counts_connections(&self) -> bool {
        self.conntrack.count || !self.flow_logs.is_empty()
    }

    /// The stats page's file: what the configuration says, else `stats` beside the socket, so that each of several appliances has its
    /// own.
    pub fn stats_page(&self) -> PathBuf {
        self.stats.page.clone().unwrap_or_else(|| self.api.socket.with_file_name("stats"))
    }

    /// The wires, of which `run` needs at least one; the error is a message about the configuration as a whole.
    pub fn require_wires(&self) -> Result<&[Wire], &'static str> {
        if self.wires.is_empty() {
            return Err("no [[wire]] is given; required: at least one with name, inside and outside");
        }
        Ok(&self.wires)
    }
}
