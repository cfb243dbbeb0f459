//! Portcullis: a bare-metal virtual firewall that enforces cloud security groups on DPDK ports.

mod appliance;
mod check;
mod cli;
mod client;
mod doctor;
mod explain;
mod failure;
mod flow;
mod init;
mod input;
mod machine;
mod memory;
mod ports;
mod replay;
mod top;

use std::process::ExitCode;

use clap::Parser;
use cli::Command;

fn main() -> ExitCode {
    let args = cli::with_extcap(std::env::args_os().collect());
    let result = match cli::Cli::parse_from(args).command {
        Command::Init(args) => init::run(&args),
        Command::Run(args) => appliance::run(&args),
        Command::Check(args) => check::check(&args),
        Command::Doctor(args) => doctor::run(&args),
        Command::Ports(args) => ports::run(&args),
        Command::Apply(args) => client::apply(&args),
        Command::Diff(args) => client::diff(&args),
        Command::Rollback(args) => client::rollback(&args),
        Command::Confirm(args) => client::confirm(&args),
        Command::History(args) => client::history(&args),
        Command::Wait(args) => client::wait(&args),
        Command::Export(args) => client::export(&args),
        Command::Show(args) => client::show(&args),
        Command::Top(args) => top::run(&args),
        Command::Advise(args) => client::advise(&args),
        Command::Connections(args) => client::connections(&args),
        Command::Group { command } => client::group(&command),
        Command::Rule { command } => client::rule(&command),
        Command::Nic { command } => client::nic(&command),
        Command::Completion { shell } => cli::completion(shell),
        Command::Man { dir } => cli::man(&dir),
        Command::Explain(args) => explain::run(&args),
        Command::Trace(args) => client::trace(&args),
        Command::Why(args) => client::why(&args),
        Command::Capture(args) => client::capture(&args),
        Command::Extcap(args) => client::extcap(&args),
        Command::Replay(args) => replay::run(&args),
    };
    result.unwrap_or_else(failure::Failure::report)
}
