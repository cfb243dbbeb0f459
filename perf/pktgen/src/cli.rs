//! The command line, and the plan that it makes.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, ValueEnum};
use pktgen::plan::{From, Mode, Rate, Shares, Spec, Versions};

use crate::number::{self, Sizes};

const EXAMPLES: &str = "\
Examples:
  # As fast as one core can, over a ring in memory:
  portcullis-pktgen --outside net_ring0 --duration 3 -- --no-pci --vdev=net_ring0
  # 100,000 connections through a firewall between two interfaces, 200,000 packets a second:
  portcullis-pktgen --mode stateful --flows 100k --requests 10 --rate 200k --inside net_memif0 --outside net_memif1 \\
      -- --no-pci --vdev=net_memif0,role=client,socket=/tmp/in.sock --vdev=net_memif1,role=client,socket=/tmp/out.sock
  # The highest rate without loss:
  portcullis-pktgen --search ndr --max-rate 20Mpps --trial 2 --outside net_ring0 -- --no-pci --vdev=net_ring0

Exit status: 0 done, 1 loss above --max-loss or a failure, 2 bad arguments.";

/// Load generator for firewalls: flows in both directions, loss to the packet, latency, zero-loss
/// rate.
#[derive(Debug, Parser)]
#[command(name = "portcullis-pktgen", version, after_help = EXAMPLES, max_term_width = 120)]
pub struct Args {
    /// Print the manual page, and nothing else
    #[arg(long, hide = true, exclusive = true)]
    pub man: bool,
    /// The port towards the instances. Without it, --outside is both sides
    #[arg(long, value_name = "PORT", help_heading = "Ports")]
    pub inside: Option<String>,
    /// The port towards the network
    #[arg(long, value_name = "PORT", help_heading = "Ports")]
    pub outside: Option<String>,
    /// The core that polls; by default the last one
    #[arg(long, value_name = "CORE", help_heading = "Ports")]
    pub core: Option<usize>,
    /// Frames of the ports' rings
    #[arg(long, value_name = "FRAMES", default_value_t = 1024, value_parser = clap::value_parser!(u16).range(64..=8192), help_heading = "Ports")]
    pub ring: u16,
    /// How long to wait for the links
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = number::time, help_heading = "Ports")]
    pub wait: Duration,

    /// How traffic comes about
    #[arg(long, value_enum, default_value_t = ModeName::Stateless, help_heading = "Traffic")]
    pub mode: ModeName,
    /// Flows at once, up to 10M
    #[arg(long, value_name = "N", default_value = "1000", value_parser = number::count32, help_heading = "Traffic")]
    pub flows: u32,
    /// Instances, inside
    #[arg(long, value_name = "N", default_value = "16", value_parser = number::count32, help_heading = "Traffic")]
    pub servers: u32,
    /// Hosts outside; by default as many as the flows want
    #[arg(long, value_name = "N", value_parser = number::count32, help_heading = "Traffic")]
    pub clients: Option<u32>,
    /// Sizes of frames, checksum included: 64 to 1518, several with commas, or imix (7:4:1 of 64,
    /// 594, 1518) [default: the shortest]
    #[arg(long, value_name = "BYTES", help_heading = "Traffic")]
    pub size: Option<Sizes>,
    /// IP versions
    #[arg(long, value_enum, default_value_t = IpName::V4, help_heading = "Traffic")]
    pub ip: IpName,
    /// The VLAN of every frame
    #[arg(long, value_name = "ID", help_heading = "Traffic")]
    pub vlan: Option<u16>,
    /// The share of UDP flows, the rest is TCP [default: 1 stateless, 0 stateful]
    #[arg(long, value_name = "SHARE", value_parser = number::share, help_heading = "Traffic")]
    pub udp: Option<f64>,
    /// Who opens flows; stateless: which way frames go
    #[arg(long, value_enum, default_value_t = FromName::Outside, help_heading = "Traffic")]
    pub from: FromName,
    /// Flags of TCP frames, stateless
    #[arg(long, value_name = "FLAGS", default_value = "syn", value_parser = number::tcp_flags, help_heading = "Traffic")]
    pub tcp_flags: u8,
    /// Requests of a connection before it closes; 0: it stays open
    #[arg(long, value_name = "N", default_value_t = 0, help_heading = "Traffic")]
    pub requests: u16,
    /// After so long without an answer a segment is sent again
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = number::time, help_heading = "Traffic")]
    pub timeout: Duration,
    /// The share of packets that open a connection of their own; stateful: of turns that close one
    /// to open another
    #[arg(long, value_name = "SHARE", default_value = "0", value_parser = number::share, help_heading = "Traffic")]
    pub new: f64,
    /// The share of packets that the policy denies
    #[arg(long, value_name = "SHARE", default_value = "0", value_parser = number::share, help_heading = "Traffic")]
    pub denied: f64,
    /// The share of malformed and spoofed packets
    #[arg(long, value_name = "SHARE", default_value = "0", value_parser = number::share, help_heading = "Traffic")]
    pub hostile: f64,
    /// The share of SYNs of a flood
    #[arg(long, value_name = "SHARE", default_value = "0", value_parser = number::share, help_heading = "Traffic")]
    pub flood: f64,
    /// The port that is admitted
    #[arg(long, value_name = "PORT", default_value_t = 80, help_heading = "Traffic")]
    pub port: u16,
    /// The port that is denied
    #[arg(long, value_name = "PORT", default_value_t = 23, help_heading = "Traffic")]
    pub denied_port: u16,
    /// The instances' network
    #[arg(long, value_name = "NET", default_value = "198.19.0.0/16", value_parser = number::network_v4, help_heading = "Traffic")]
    pub inside_net: Ipv4Addr,
    /// The others' network
    #[arg(long, value_name = "NET", default_value = "198.18.0.0/16", value_parser = number::network_v4, help_heading = "Traffic")]
    pub outside_net: Ipv4Addr,
    /// The instances' IPv6 network
    #[arg(long, value_name = "NET", default_value = "2001:2:0:1::/96", value_parser = number::network_v6, help_heading = "Traffic")]
    pub inside_net6: Ipv6Addr,
    /// The others' IPv6 network
    #[arg(long, value_name = "NET", default_value = "2001:2:0:2::/96", value_parser = number::network_v6, help_heading = "Traffic")]
    pub outside_net6: Ipv6Addr,
    /// The destination MAC of all frames, where a router is tested
    #[arg(long, value_name = "MAC", value_parser = number::mac, help_heading = "Traffic")]
    pub gateway_mac: Option<[u8; 6]>,
    /// Decides what is random
    #[arg(long, value_name = "N", default_value_t = 1, help_heading = "Traffic")]
    pub seed: u64,

    /// Packets a second, all together: 150000, 150kpps, 2Mpps, or unlimited
    #[arg(long, value_name = "PPS", default_value = "unlimited", value_parser = number::rate, help_heading = "Rate and time")]
    pub rate: Rate,
    /// How long to send [default: 10s, without --count and --connections]
    #[arg(long, value_name = "TIME", value_parser = number::time, help_heading = "Rate and time")]
    pub duration: Option<Duration>,
    /// Packets to send, answers aside
    #[arg(long, value_name = "N", value_parser = number::count, help_heading = "Rate and time")]
    pub count: Option<u64>,
    /// Connections to open and close; needs --mode stateful and --requests
    #[arg(long, value_name = "N", value_parser = number::count, help_heading = "Rate and time")]
    pub connections: Option<u64>,
    /// How long to send before counting
    #[arg(long, value_name = "TIME", default_value = "0s", value_parser = number::time, help_heading = "Rate and time")]
    pub warmup: Duration,
    /// How long to receive after the last packet was sent
    #[arg(long, value_name = "TIME", default_value = "200ms", value_parser = number::time, help_heading = "Rate and time")]
    pub drain: Duration,
    /// How much of the schedule may be caught up with after a delay
    #[arg(long, value_name = "TIME", default_value = "1ms", value_parser = number::time, help_heading = "Rate and time")]
    pub catch_up: Duration,
    /// The share of admitted packets that may be lost; with more the exit status is 1
    #[arg(long, value_name = "SHARE", value_parser = number::share, help_heading = "Rate and time")]
    pub max_loss: Option<f64>,

    /// Search the highest rate without loss (ndr), with little loss (pdr), or both
    #[arg(long, value_enum, help_heading = "Search")]
    pub search: Option<SearchName>,
    /// The lowest rate tried [default: a thousandth of the highest]
    #[arg(long, value_name = "PPS", value_parser = number::pps, requires = "search", help_heading = "Search")]
    pub min_rate: Option<f64>,
    /// The highest rate tried
    #[arg(long, value_name = "PPS", value_parser = number::pps, requires = "search", help_heading = "Search")]
    pub max_rate: Option<f64>,
    /// How long a trial sends
    #[arg(long, value_name = "TIME", default_value = "2s", value_parser = number::time, help_heading = "Search")]
    pub trial: Duration,
    /// How finely, as a share of the highest rate
    #[arg(long, value_name = "SHARE", default_value = "1%", value_parser = number::share, help_heading = "Search")]
    pub resolution: f64,
    /// The loss that pdr allows
    #[arg(long, value_name = "SHARE", default_value = "0.5%", value_parser = number::share, help_heading = "Search")]
    pub pdr_loss: f64,

    /// Print the result for programs
    #[arg(short, long, value_enum, default_value_t = OutputName::Table, help_heading = "Output")]
    pub output: OutputName,
    /// Show how far it is, also where standard error is no terminal
    #[arg(long, help_heading = "Output")]
    pub progress: bool,
    /// Print a policy for `portcullis` that admits what is to be admitted, and send nothing
    #[arg(long, help_heading = "Output")]
    pub print_policy: bool,
    /// Send over a cable in memory instead of ports: for --write-sent-…, or to try arguments
    #[arg(long, help_heading = "Output")]
    pub dry_run: bool,

    #[command(flatten)]
    pub captures: Captures,

    /// DPDK's arguments, behind `--`
    #[arg(last = true, value_name = "EAL ARGUMENTS")]
    pub eal: Vec<String>,
}

/// Captures read and written.
#[derive(Debug, clap::Args)]
pub struct Captures {
    /// Send this capture's frames from the inside instead of generated ones
    #[arg(long, value_name = "FILE", help_heading = "Captures")]
    pub play_inside: Option<PathBuf>,
    /// Send this capture's frames from the outside instead of generated ones
    #[arg(long, value_name = "FILE", help_heading = "Captures")]
    pub play_outside: Option<PathBuf>,
    /// When the captures' frames are sent: by --rate, or as they were captured
    #[arg(long, value_enum, default_value_t = TimingName::Rate, help_heading = "Captures")]
    pub timing: TimingName,
    /// How often to play the captures; 0: until --duration or --count ends it
    #[arg(long, value_name = "N", default_value_t = 1, help_heading = "Captures")]
    pub loops: u64,
    /// Write what is sent from the inside
    #[arg(long, value_name = "FILE", help_heading = "Captures")]
    pub write_sent_inside: Option<PathBuf>,
    /// Write what is sent from the outside
    #[arg(long, value_name = "FILE", help_heading = "Captures")]
    pub write_sent_outside: Option<PathBuf>,
    /// Write what is received at the inside
    #[arg(long, value_name = "FILE", help_heading = "Captures")]
    pub write_received_inside: Option<PathBuf>,
    /// Write what is received at the outside
    #[arg(long, value_name = "FILE", help_heading = "Captures")]
    pub write_received_outside: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ModeName {
    Stateless,
    Stateful,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum IpName {
    #[value(name = "4")]
    V4,
    #[value(name = "6")]
    V6,
    Both,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum FromName {
    Outside,
    Inside,
    Both,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum SearchName {
    Ndr,
    Pdr,
    Both,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum OutputName {
    Table,
    Json,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum TimingName {
    Rate,
    Original,
}

impl Captures {
    /// True if frames come from captures.
    pub fn plays(&self) -> bool {
        self.play_inside.is_some() || self.play_outside.is_some()
    }
}

impl Args {
    /// What is to be sent.
    pub fn spec(&self) -> Spec {
        let stateful = self.mode == ModeName::Stateful;
        let udp = self.udp.unwrap_or(if stateful { 0.0 } else { 1.0 });
        let ends = self.count.is_some() || self.connections.is_some();
        let default = || match self.captures.plays() && self.captures.loops > 0 {
            // It ends by itself.
            true => Some(Duration::MAX),
            false => (!ends).then_some(Duration::from_secs(10)),
        };
        Spec {
            mode: if stateful { Mode::Stateful } else { Mode::Stateless },
            flows: self.flows,
            servers: self.servers,
            clients: self.clients,
            versions: match self.ip {
                IpName::V4 => Versions::V4,
                IpName::V6 => Versions::V6,
                IpName::Both => Versions::Both,
            },
            vlan: self.vlan,
            udp,
            from: match self.from {
                FromName::Outside => From::Outside,
                FromName::Inside => From::Inside,
                FromName::Both => From::Both,
            },
            sizes: self.size.as_ref().map(|sizes| sizes.0.clone()).unwrap_or_default(),
            tcp_flags: self.tcp_flags,
            port: self.port,
            denied_port: self.denied_port,
            inside_v4: self.inside_net,
            outside_v4: self.outside_net,
            inside_v6: self.inside_net6,
            outside_v6: self.outside_net6,
            gateway_mac: self.gateway_mac,
            shares: Shares { new: self.new, denied: self.denied, hostile: self.hostile, flood: self.flood },
            rate: self.rate,
            catch_up: self.catch_up,
            duration: self.duration.or_else(default),
            count: self.count,
            connections: self.connections,
            requests: self.requests,
            timeout: self.timeout,
            warmup: self.warmup,
            drain: self.drain,
            seed: self.seed,
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_holds_together_and_has_the_librarys_defaults() {
        Args::command().debug_assert();
        let args = Args::parse_from(["portcullis-pktgen"]);
        assert_eq!(args.spec(), Spec::default());
    }
}
