//! `top` on the command line.

use std::path::PathBuf;

use clap::Args;

use super::{Output, interval};

/// `top`
#[derive(Debug, Args)]
pub struct Top {
    /// The stats page; without it, `stats` beside the socket
    #[arg(long, value_name = "FILE")]
    pub page: Option<PathBuf>,
    /// The appliance's socket: nothing is asked there, the page lies beside it
    #[arg(long, value_name = "PATH", env = "PORTCULLIS_SOCKET", default_value = control::config::DEFAULT_SOCKET)]
    pub socket: PathBuf,
    /// Seconds from one look at the page to the next; it is written every second
    #[arg(long, value_name = "SECONDS", default_value_t = 1.0, value_parser = interval)]
    pub interval: f64,
    /// Print everything once and end
    #[arg(long)]
    pub once: bool,
    /// How to print it
    #[arg(short, long, value_enum, default_value_t, requires = "once")]
    pub output: Output,
}
