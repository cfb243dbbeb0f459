//! `portcullis-pktgen`: a load generator for firewalls.

mod cli;
mod number;
mod output;
mod start;

use std::process::ExitCode;

use clap::{CommandFactory, Parser};

fn main() -> ExitCode {
    let args = cli::Args::parse();
    if args.man {
        return match clap_mangen::Man::new(cli::Args::command()).render(&mut std::io::stdout()) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("portcullis-pktgen: {error}");
                ExitCode::FAILURE
            }
        };
    }
    match start::start(&args) {
        Ok(status) => ExitCode::from(status),
        Err(failure) => {
            eprintln!("portcullis-pktgen: {}", failure.message);
            ExitCode::from(failure.status)
        }
    }
}
