//! `run`: the appliance.

use std::process::ExitCode;

use crate::cli;
use crate::failure::Failure;

/// The command.
pub fn run(_: &cli::Run) -> Result<ExitCode, Failure> {
    Err(Failure::runtime("not built yet"))
}
