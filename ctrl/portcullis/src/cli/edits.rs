//! Single edits: groups, rules, NICs.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::{Client, Output};

/// What all changes have in common.
#[derive(Debug, Args)]
pub struct Edit {
    /// Only say what would change
    #[arg(long)]
    pub dry_run: bool,
    /// Roll back by itself unless `confirm` comes within so many seconds
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub confirm: Option<u64>,
    /// Refuse (exit status 2) if more live connections than this would be disconnected
    #[arg(long, value_name = "N")]
    pub max_disconnect: Option<u64>,
    /// Refuse (exit status 2) unless this is the present generation
    #[arg(long, value_name = "GENERATION")]
    pub if_generation: Option<u32>,
    /// How to print the receipt
    #[arg(short, long, value_enum, default_value_t)]
    pub output: Output,
    /// Where
    #[command(flatten)]
    pub client: Client,
}

/// `group`
#[derive(Debug, Subcommand)]
pub enum GroupCommand {
    /// Make a group without rules
    Add {
        /// Its name, or project/name
        name: String,
        /// Free text
        #[arg(long, default_value = "")]
        description: String,
        /// How
        #[command(flatten)]
        edit: Edit,
    },
    /// Put a group in the place of the one that has its name, or beside the others
    Set {
        /// Its name, or project/name
        name: String,
        /// The group as it stands in a document's section; `-` is standard input
        file: PathBuf,
        /// How
        #[command(flatten)]
        edit: Edit,
    },
    /// Take a group away that nothing uses
    Delete {
        /// Its name, or project/name
        name: String,
        /// How
        #[command(flatten)]
        edit: Edit,
    },
}

/// `rule`
#[derive(Debug, Subcommand)]
pub enum RuleCommand {
    /// Add a rule at the end of a group's list
    Add {
        /// The group: its name, or project/name
        group: String,
        /// As in a document: `{direction: inbound, protocol: tcp, ports: 22, remote: 198.51.100.0/24}`
        rule: String,
        /// How
        #[command(flatten)]
        edit: Edit,
    },
    /// Put a rule in another's place
    Set {
        /// Which: group#position as verdicts name it, or its id (r-…), alone or as group#id
        place: String,
        /// As in a document
        rule: String,
        /// How
        #[command(flatten)]
        edit: Edit,
    },
    /// Take a rule away; those behind it move up
    Delete {
        /// Which: group#position, or its id (r-…), alone or as group#id
        place: String,
        /// How
        #[command(flatten)]
        edit: Edit,
    },
}

/// `nic`
#[derive(Debug, Subcommand)]
pub enum NicCommand {
    /// Add a NIC
    Add {
        /// Its name, or project/name
        name: String,
        /// Its VPC
        #[arg(long)]
        vpc: String,
        /// Its MAC
        #[arg(long)]
        mac: Option<String>,
        /// Its addresses
        #[arg(long = "address", value_name = "ADDRESS")]
        addresses: Vec<String>,
        /// Virtual addresses that it may use beside them
        #[arg(long = "allowed-address", value_name = "ADDRESS")]
        allowed_addresses: Vec<String>,
        /// Its groups; none given: `default`
        #[arg(long = "group", value_name = "GROUP")]
        groups: Vec<String>,
        /// How many connections it may have
        #[arg(long, value_name = "N")]
        max_connections: Option<u32>,
        /// `enforce` or `observe`
        #[arg(long)]
        mode: Option<String>,
        /// How
        #[command(flatten)]
        edit: Edit,
    },
    /// Put a NIC in the place of the one that has its name, or beside the others
    Set {
        /// Its name, or project/name
        name: String,
        /// The NIC as it stands in a document's section; `-` is standard input
        file: PathBuf,
        /// How
        #[command(flatten)]
        edit: Edit,
    },
    /// Take a NIC away, with all its connections
    Delete {
        /// Its name, or project/name
        name: String,
        /// How
        #[command(flatten)]
        edit: Edit,
    },
}
