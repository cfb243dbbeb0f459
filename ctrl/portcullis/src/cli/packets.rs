//! Commands about single packets.

use std::path::PathBuf;

use clap::Args;
use control::trace::FilterQuery;

use super::{Client, Output};

/// Which packets: those that fit everything that is said.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Filter")]
pub struct Packets {
    /// Judged for this NIC: its name, or project/name
    #[arg(long)]
    pub nic: Option<String>,
    /// With this address of the other side, or one in this prefix
    #[arg(long, value_name = "PREFIX")]
    pub remote: Option<String>,
    /// With this address on the instances' side, or one in this prefix
    #[arg(long, value_name = "PREFIX")]
    pub local: Option<String>,
    /// With this port at either end
    #[arg(long)]
    pub port: Option<u16>,
    /// Of this protocol, by name or number
    #[arg(long)]
    pub protocol: Option<String>,
    /// `pass` or `drop`
    #[arg(long)]
    pub verdict: Option<String>,
    /// For this reason, or one of several with commas between them
    #[arg(long)]
    pub reason: Option<String>,
    /// Decided by a rule of this group: its name, or project/name
    #[arg(long)]
    pub group: Option<String>,
    /// Decided by this rule: group#position, or its id
    #[arg(long)]
    pub rule: Option<String>,
    /// `inbound` or `outbound`
    #[arg(long)]
    pub direction: Option<String>,
    /// From `inside` or `outside`
    #[arg(long)]
    pub from: Option<String>,
}

/// The parameters of a filter, each an option of that name here.
pub const PARAMETERS: [&str; 11] =
    ["nic", "remote", "local", "port", "protocol", "verdict", "reason", "group", "rule", "direction", "from"];

impl Packets {
    /// As the API and `replay` take it.
    pub fn asked(&self) -> FilterQuery {
        let Packets { nic, remote, local, port, protocol, verdict, reason, group, rule, direction, from } =
            self.clone();
        FilterQuery {
            nic,
            remote,
            local,
            port,
            protocol,
            verdict,
            reason,
            group,
            rule,
            direction,
            from,
            ..FilterQuery::default()
        }
    }

    /// True if everything fits.
    pub fn is_open(&self) -> bool {
        let Packets { nic, remote, local, protocol, verdict, reason, group, rule, direction, from, port } =
            self;
        let texts = [nic, remote, local, protocol, verdict, reason, group, rule, direction, from];
        texts.into_iter().all(Option::is_none) && port.is_none()
    }
}

/// `trace`
#[derive(Debug, Args)]
pub struct Trace {
    /// Which packets
    #[command(flatten)]
    pub packets: Packets,
    /// End after so many
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub count: Option<u64>,
    /// One of so many of these packets
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub rate: Option<u32>,
    /// End after so many seconds
    #[arg(long, value_name = "N")]
    pub seconds: Option<f64>,
    /// How to print them: for people, or a JSON object a line
    #[arg(short, long, value_enum, default_value_t)]
    pub output: Output,
    /// Where
    #[command(flatten)]
    pub client: Client,
}

/// `why`
#[derive(Debug, Args)]
pub struct Why {
    /// The packet, such as `tcp 198.51.100.9:40000 > 10.5.6.7:22`, either way; with `inbound` or `outbound` in front, that way alone
    #[arg(required = true, num_args = 1.., value_name = "TUPLE")]
    pub tuple: Vec<String>,
    /// What was decided up to then: seconds since 1970, a time such as 2026-01-31T12:00:00Z, or how long ago, such as `-90s` or `-5m`
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    pub at: Option<String>,
    /// The last so many decisions
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub limit: u32,
    /// How to print the answer
    #[arg(short, long, value_enum, default_value_t)]
    pub output: Output,
    /// Where
    #[command(flatten)]
    pub client: Client,
}

/// `capture`
#[derive(Debug, Args)]
pub struct Capture {
    /// The pcapng file; `-` for standard output
    #[arg(long, value_name = "FILE")]
    pub write: PathBuf,
    /// Which packets
    #[command(flatten)]
    pub packets: Packets,
    /// End after so many
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub count: Option<u64>,
    /// End after so many seconds
    #[arg(long, value_name = "N")]
    pub seconds: Option<f64>,
    /// One of so many of these packets
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub rate: Option<u32>,
    /// Bytes of a frame at most
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=65_535))]
    pub snaplen: Option<u32>,
    /// Where
    #[command(flatten)]
    pub client: Client,
}

/// `extcap`: what Wireshark asks of a program in its extcap folder.
#[derive(Debug, Args)]
pub struct Extcap {
    /// List the interfaces
    #[arg(long)]
    pub extcap_interfaces: bool,
    /// Which version asks
    #[arg(long, num_args = 0..=1, default_missing_value = "", value_name = "VERSION")]
    pub extcap_version: Option<String>,
    /// The interface that is meant
    #[arg(long, value_name = "NAME")]
    pub extcap_interface: Option<String>,
    /// List its link types
    #[arg(long)]
    pub extcap_dlts: bool,
    /// List its options
    #[arg(long)]
    pub extcap_config: bool,
    /// A capture filter to check, or to use
    #[arg(long, value_name = "FILTER", num_args = 0..=1, default_missing_value = "")]
    pub extcap_capture_filter: Option<String>,
    /// Capture
    #[arg(long)]
    pub capture: bool,
    /// Where frames go
    #[arg(long, value_name = "FIFO")]
    pub fifo: Option<PathBuf>,
    /// Which packets
    #[command(flatten)]
    pub packets: Packets,
    /// One of so many of these packets
    #[arg(long, value_name = "N")]
    pub rate: Option<u32>,
    /// Bytes of a frame at most
    #[arg(long, value_name = "N")]
    pub snaplen: Option<u32>,
    /// End after so many
    #[arg(long, value_name = "N")]
    pub count: Option<u64>,
    /// Where
    #[command(flatten)]
    pub client: Client,
}

/// Arguments as Wireshark gives them to a program in its extcap folder, which knows of no subcommand, are those of `extcap`.
pub fn with_extcap(mut args: Vec<std::ffi::OsString>) -> Vec<std::ffi::OsString> {
    let is_asked = args.get(1).and_then(|first| first.to_str()).is_some_and(|first| {
        first == "--capture" || first.starts_with("--extcap-") || first.starts_with("--fifo")
    });
    if is_asked {
        args.insert(1, "extcap".into());
    }
    args
}
