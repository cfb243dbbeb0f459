//! The command line (interfaces page, "The program").

mod advise;
mod edits;
mod machine;
mod packets;
mod top;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{ArgGroup, Args, CommandFactory, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;

use crate::failure::{Failure, print};
pub use advise::Advise;
pub use edits::{Edit, GroupCommand, NicCommand, RuleCommand};
pub use machine::{Doctor, Init, Kind, Ports};
pub use packets::{Capture, Extcap, PARAMETERS, Packets, Trace, Why, with_extcap};
pub use top::Top;

/// Bare-metal virtual firewall that enforces cloud security groups on DPDK ports.
#[derive(Debug, Parser)]
#[command(name = "portcullis", version, propagate_version = true, arg_required_else_help = true)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// One command.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Write a first configuration and policy, in observe mode, with comments
    Init(Init),
    /// Run the appliance until SIGTERM or SIGINT
    Run(Run),
    /// Validate a configuration and policy documents, offline: all that `run` would refuse, and what is likely a mistake
    Check(Check),
    /// Say what of this machine keeps `run` from starting or costs packets, and the command that mends it
    Doctor(Doctor),
    /// List what on this machine can be a port: NICs on the PCI bus, interfaces of the kernel, sockets of virtual machines
    Ports(Ports),
    /// Make a policy document the running appliance's policy, as one transaction
    Apply(Apply),
    /// Show what `apply` would change: exit status 0 nothing, 2 something, 1 error
    Diff(Diff),
    /// Go back to the policy of an earlier generation: what only later changes disconnected is live again
    Rollback(Rollback),
    /// Keep the change that `apply --confirm` made
    Confirm(Asked),
    /// List the generations: who made them, when, and what they did
    History(Asked),
    /// Wait until every worker judges by a generation
    Wait(Wait),
    /// Print the running appliance's whole policy, or that of an earlier generation, as a document
    Export(Export),
    /// Show the running appliance's state
    Show(Show),
    /// Show traffic, load, drops, rules and changes as they go by, from the stats page alone
    Top(Top),
    /// Add, replace or delete a security group
    Group {
        /// What to do
        #[command(subcommand)]
        command: GroupCommand,
    },
    /// Add, replace or delete one rule
    Rule {
        /// What to do
        #[command(subcommand)]
        command: RuleCommand,
    },
    /// Add, replace or delete a NIC
    Nic {
        /// What to do
        #[command(subcommand)]
        command: NicCommand,
    },
    /// Say which rules could go or let in less, each suggestion tried on what was seen of traffic
    Advise(Advise),
    /// List, count, disconnect or watch connections
    Connections(Connections),
    /// Print a completion script for a shell
    Completion {
        /// Which
        shell: Shell,
    },
    /// Write the manual pages, one a command, into a folder
    Man {
        /// Which; it is made if it is not there
        dir: PathBuf,
    },
    /// Say how a packet would be judged now, or under a policy file as the first of a connection, and why
    Explain(Explain),
    /// Show verdicts as they happen
    Trace(Trace),
    /// Say what was decided about a packet, also under rules that are no more
    Why(Why),
    /// Write frames with their verdicts to a pcapng file
    Capture(Capture),
    /// Speak Wireshark's extcap, which lists this program once it is linked into the extcap folder
    Extcap(Extcap),
    /// Run captures through the firewall, on the captures' own clock
    Replay(Replay),
}

/// How results are printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// For people.
    #[default]
    Table,
    /// For programs.
    Json,
}

/// Where the appliance is reached.
#[derive(Debug, Args)]
pub struct Client {
    /// The appliance's socket
    #[arg(long, value_name = "PATH", env = "PORTCULLIS_SOCKET", default_value = control::config::DEFAULT_SOCKET)]
    pub socket: PathBuf,
    /// An appliance over TCP instead, such as `https://fw1.example:9696`
    #[arg(long, value_name = "URL", env = "PORTCULLIS_URL")]
    pub url: Option<String>,
    /// A file that holds the token to show over TCP
    #[arg(long, value_name = "FILE", env = "PORTCULLIS_TOKEN_FILE")]
    pub token_file: Option<PathBuf>,
    /// Certificates (PEM) to trust instead of the system's
    #[arg(long, value_name = "FILE", env = "PORTCULLIS_CA")]
    pub ca: Option<PathBuf>,
}

/// `run`
#[derive(Debug, Args)]
pub struct Run {
    /// Configuration (TOML)
    #[arg(long, value_name = "FILE")]
    pub config: PathBuf,
    /// Policy document (YAML or JSON)
    #[arg(long, value_name = "FILE")]
    pub policy: Option<PathBuf>,
    /// Make the store, which must not be there yet
    #[arg(long)]
    pub new_store: bool,
    /// Begin without the connections that were kept
    #[arg(long)]
    pub cold: bool,
    /// Take the wires over from the appliance that runs with this configuration, with its connections: it forwards until this one is
    /// ready, and goes on if that fails
    #[arg(long, conflicts_with_all = ["cold", "new_store"])]
    pub take_over: bool,
}

/// `check`
#[derive(Debug, Args)]
pub struct Check {
    /// Configuration (TOML)
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// A store, which is looked at in a copy
    #[arg(long, value_name = "FILE")]
    pub store: Option<PathBuf>,
    /// Take warnings for errors: exit status 2
    #[arg(long)]
    pub strict: bool,
    /// Policy documents; `-` is standard input
    #[arg(value_name = "FILE")]
    pub files: Vec<PathBuf>,
}

/// `apply`
#[derive(Debug, Args)]
pub struct Apply {
    /// Policy document
    pub file: PathBuf,
    /// Accept a document that is empty, or has no NICs where there were some
    #[arg(long)]
    pub allow_empty: bool,
    /// How
    #[command(flatten)]
    pub edit: Edit,
}

/// `diff`
#[derive(Debug, Args)]
pub struct Diff {
    /// Policy document
    pub file: PathBuf,
    /// How to print the differences
    #[arg(short, long, value_enum, default_value_t)]
    pub output: Output,
    /// Where
    #[command(flatten)]
    pub client: Client,
}

/// `rollback`
#[derive(Debug, Args)]
pub struct Rollback {
    /// The generation, as `history` lists it
    pub generation: u32,
    /// How
    #[command(flatten)]
    pub edit: Edit,
}

/// `confirm`, `history`
#[derive(Debug, Args)]
pub struct Asked {
    /// How to print the answer
    #[arg(short, long, value_enum, default_value_t)]
    pub output: Output,
    /// Where
    #[command(flatten)]
    pub client: Client,
}

/// `wait`
#[derive(Debug, Args)]
pub struct Wait {
    /// Which
    #[arg(long, value_name = "N")]
    pub generation: u32,
    /// How to print its record
    #[arg(short, long, value_enum, default_value_t)]
    pub output: Output,
    /// Where
    #[command(flatten)]
    pub client: Client,
}

/// `export`
#[derive(Debug, Args)]
pub struct Export {
    /// The policy of this generation, as `history` lists it; the present one if left out
    #[arg(long, value_name = "N")]
    pub generation: Option<u32>,
    /// Where
    #[command(flatten)]
    pub client: Client,
}

/// What `show` shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Subject {
    /// NICs with their addresses, groups and limits.
    Nics,
    /// Security groups with their rules and members.
    Groups,
    /// Rules with what they did, and staged ones with what they would have done.
    Rules,
    /// Connections and tombstones.
    Connections,
    /// Packets by reason.
    Counters,
    /// Workers with their cores and load.
    Workers,
    /// The present generation.
    Snapshot,
    /// How this run began, and what became of the connections that the former one left.
    Restart,
    /// What is wrong, since when, and what mends it.
    Health,
}

/// `show`
#[derive(Debug, Args)]
pub struct Show {
    /// What
    #[arg(value_enum)]
    pub subject: Subject,
    /// Again and again, so many seconds apart; counters with their rates
    #[arg(long, value_name = "SECONDS", value_parser = interval)]
    pub watch: Option<f64>,
    /// How to print it
    #[arg(short, long, value_enum, default_value_t)]
    pub output: Output,
    /// Where
    #[command(flatten)]
    pub client: Client,
}

/// `connections`
#[derive(Debug, Args)]
pub struct Connections {
    /// What to do with them
    #[command(subcommand)]
    pub command: ConnectionsCommand,
}

/// What is done with connections.
#[derive(Debug, Subcommand)]
pub enum ConnectionsCommand {
    /// List them
    List {
        /// Which
        #[command(flatten)]
        selection: Selection,
        /// So many at most
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100_000))]
        limit: Option<u32>,
        /// Those behind the one with this `id` (-o json), the last of the page before
        #[arg(long, value_name = "WORKER-PLACE")]
        after: Option<String>,
    },
    /// Count them
    Count(Selection),
    /// Disconnect live ones: inbound ones stay shut until their timeout, outbound ones are gone
    Flush {
        /// Which
        #[command(flatten)]
        selection: Selection,
        /// Every connection, if nothing else is said
        #[arg(long)]
        all: bool,
    },
    /// List them again and again
    Watch {
        /// Which
        #[command(flatten)]
        selection: Selection,
        /// Seconds from one listing to the next
        #[arg(long, value_name = "SECONDS", default_value_t = 2.0, value_parser = interval)]
        interval: f64,
    },
}

fn interval(text: &str) -> Result<f64, String> {
    let seconds = text.parse::<f64>().ok().filter(|seconds| (0.1..=3600.0).contains(seconds));
    seconds.ok_or_else(|| "allowed: 0.1 to 3600 seconds".to_owned())
}

/// Which connections: those that fit everything that is said.
#[derive(Debug, Args)]
pub struct Selection {
    /// Of this NIC: its name, or project/name
    #[arg(long)]
    pub nic: Option<String>,
    /// Of NICs in this VPC
    #[arg(long)]
    pub vpc: Option<String>,
    /// With this address of the NIC, or one in this prefix
    #[arg(long, value_name = "PREFIX")]
    pub local: Option<String>,
    /// With this address of the other side, or one in this prefix
    #[arg(long, value_name = "PREFIX")]
    pub remote: Option<String>,
    /// With this port of the NIC's
    #[arg(long, value_name = "PORT")]
    pub local_port: Option<u16>,
    /// With this port of the other side
    #[arg(long, value_name = "PORT")]
    pub remote_port: Option<u16>,
    /// Of this protocol, by name or number
    #[arg(long)]
    pub protocol: Option<String>,
    /// In this state
    #[arg(long)]
    pub state: Option<String>,
    /// Opened `inbound` or `outbound`
    #[arg(long)]
    pub opened: Option<String>,
    /// Tombstones alone (or, with `false`, live ones alone)
    #[arg(long, num_args = 0..=1, default_missing_value = "true")]
    pub tombstone: Option<bool>,
    /// Let in by this rule: group#position
    #[arg(long)]
    pub rule: Option<String>,
    /// Opened or last judged at this generation or later
    #[arg(long, value_name = "GENERATION")]
    pub since: Option<u32>,
    /// Of this worker
    #[arg(long)]
    pub worker: Option<usize>,
    /// How to print the answer
    #[arg(short, long, value_enum, default_value_t)]
    pub output: Output,
    /// Where
    #[command(flatten)]
    pub client: Client,
}

/// `completion`
pub fn completion(shell: Shell) -> Result<ExitCode, Failure> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "portcullis", &mut script);
    print(&String::from_utf8_lossy(&script), false);
    Ok(ExitCode::SUCCESS)
}

/// `man`
pub fn man(dir: &std::path::Path) -> Result<ExitCode, Failure> {
    let written = std::fs::create_dir_all(dir).and_then(|()| clap_mangen::generate_to(Cli::command(), dir));
    written.map_err(|error| Failure::runtime(format!("{}: {error}", dir.display())))?;
    Ok(ExitCode::SUCCESS)
}

/// The side of the wire that a frame comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum From {
    /// From the instances.
    Inside,
    /// From the network.
    Outside,
}

/// `explain`
#[derive(Debug, Args)]
#[command(group(ArgGroup::new("subject").required(true).args(["description", "packet", "pcap"])))]
pub struct Explain {
    /// Policy document; without one the running appliance is asked, about the policy in force
    #[arg(long, value_name = "FILE")]
    pub policy: Option<PathBuf>,
    /// Configuration (TOML), for its quotas and settings
    #[arg(long, value_name = "FILE", requires = "policy")]
    pub config: Option<PathBuf>,
    /// As the first packet of a connection, whatever connections the running appliance has; by a policy file it always is
    #[arg(long)]
    pub fresh: bool,
    /// The judged NIC: its name, or project/name. A frame finds its own; with this, another one is an error
    #[arg(long, value_name = "NIC", required_unless_present_any = ["packet", "pcap"])]
    pub nic: Option<String>,
    /// An opening packet, such as `inbound tcp 198.51.100.9:40000 > 10.5.6.7:22`, `outbound icmp 10.5.6.7 > 192.0.2.1 type 8
    /// code 0` or `inbound udp [2001:db8::9]:5000 > [2001:db8::7]:53`
    pub description: Option<String>,
    /// A whole Ethernet frame in hexadecimal digits, with whitespace and colons anywhere
    #[arg(long, value_name = "HEX", requires = "from")]
    pub packet: Option<String>,
    /// A capture (pcap or pcapng) that the frame is taken from
    #[arg(long, value_name = "PCAP", requires = "from")]
    pub pcap: Option<PathBuf>,
    /// The frame's place in the capture, from 0
    #[arg(long, value_name = "N", conflicts_with_all = ["description", "packet"], default_value_t)]
    pub index: u64,
    /// The side that the frame comes from
    #[arg(long, value_enum, conflicts_with = "description")]
    pub from: Option<From>,
    /// How to print the verdict
    #[arg(short, long, value_enum, default_value_t)]
    pub output: Output,
    /// Where
    #[command(flatten)]
    pub client: Client,
}

/// `replay`
#[derive(Debug, Args)]
pub struct Replay {
    /// Policy document that holds from the first packet on
    #[arg(long, value_name = "FILE")]
    pub policy: PathBuf,
    /// Configuration (TOML): conntrack, timeouts and policy settings count
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Policies with the times from which on they hold (YAML)
    #[arg(long, value_name = "FILE")]
    pub events: Option<PathBuf>,
    /// What entered by the inside port (pcap or pcapng, plain or gzip; `-` for standard input)
    #[arg(long, value_name = "PCAP", required_unless_present_any = ["outside", "both"])]
    pub inside: Option<PathBuf>,
    /// What entered by the outside port
    #[arg(long, value_name = "PCAP")]
    pub outside: Option<PathBuf>,
    /// One capture of both directions, taken beside the instances
    #[arg(long, value_name = "PCAP", conflicts_with_all = ["inside", "outside"])]
    pub both: Option<PathBuf>,
    /// One JSON line a packet; `-` for standard output
    #[arg(long, value_name = "FILE")]
    pub verdicts: Option<PathBuf>,
    /// What leaves by the inside port
    #[arg(long, value_name = "PCAP")]
    pub pass_inside: Option<PathBuf>,
    /// What leaves by the outside port
    #[arg(long, value_name = "PCAP")]
    pub pass_outside: Option<PathBuf>,
    /// The flow log: a record of every connection and of everything that is refused
    #[arg(long, value_name = "FILE")]
    pub flow_log: Option<PathBuf>,
    /// What its lines look like
    #[arg(long, value_enum, default_value_t, requires = "flow_log")]
    pub flow_log_kind: FlowLines,
    /// What `trace` would show of these packets, a JSON line each; `-` for standard output
    #[arg(long, value_name = "FILE")]
    pub trace: Option<PathBuf>,
    /// What `capture` would write of these packets, as pcapng
    #[arg(long, value_name = "FILE")]
    pub capture: Option<PathBuf>,
    /// What was decided about a packet, such as `tcp 198.51.100.9:40000 > 10.5.6.7:22`, the summary goes to standard error then
    #[arg(long, value_name = "TUPLE", conflicts_with = "trace")]
    pub why: Option<String>,
    /// … up to then: seconds since 1970, or a time such as 2026-01-31T12:00:00Z
    #[arg(long, value_name = "TIME", requires = "why")]
    pub at: Option<String>,
    /// Which packets
    #[command(flatten)]
    pub packets: Packets,
    /// How to print the summary
    #[arg(short, long, value_enum, default_value_t)]
    pub output: Output,
}

/// Lines of a flow log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum FlowLines {
    /// Those of AWS VPC flow logs, version 2, with fields of ours behind.
    #[default]
    Aws,
    /// JSON objects.
    Json,
}
