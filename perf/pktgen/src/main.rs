//! `portcullis-pktgen`: a load generator for firewalls.

mod cli;
mod number;
mod output;
mod start;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    let args = cli::Args::parse();
    match start::start(&args) {
        Ok(status) => ExitCode::from(status),
        Err(failure) => {
            eprintln!("portcullis-pktgen: {}", failure.message);
            ExitCode::from(failure.status)
        }
    }
}
