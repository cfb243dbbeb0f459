//! `init`, `doctor` and `ports` on the command line.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::Output;

/// `init`
#[derive(Debug, Args)]
pub struct Init {
    /// Port towards the instances, as `portcullis ports` lists it: an interface of the kernel's, an address on the PCI bus, the path of a
    /// virtual machine's socket, or a name and arguments of DPDK's
    #[arg(long, value_name = "PORT")]
    pub inside: Option<String>,
    /// Port towards the network
    #[arg(long, value_name = "PORT")]
    pub outside: Option<String>,
    /// How interfaces of the kernel's are taken
    #[arg(long, value_enum, default_value_t)]
    pub kind: Kind,
    /// Where portcullis.toml and policy.yaml are written
    #[arg(default_value = ".")]
    pub dir: PathBuf,
}

/// How an interface of the kernel's is taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Kind {
    /// By a packet socket, which every interface has.
    #[default]
    AfPacket,
    /// By an XDP socket.
    AfXdp,
    /// As the NIC on the PCI bus that it is: DPDK's own driver takes it from the kernel.
    Pci,
}

/// `doctor`
#[derive(Debug, Args)]
pub struct Doctor {
    /// The configuration that is to run here; without one the machine alone is looked at
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// How to print it
    #[arg(short, long, value_enum, default_value_t)]
    pub output: Output,
}

/// `ports`
#[derive(Debug, Args)]
pub struct Ports {
    /// How to print them
    #[arg(short, long, value_enum, default_value_t)]
    pub output: Output,
}
