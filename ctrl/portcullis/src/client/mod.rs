//! Commands that talk to the running appliance.

use std::process::ExitCode;

use crate::cli;
use crate::failure::Failure;

fn absent() -> Result<ExitCode, Failure> {
    Err(Failure::runtime("not built yet"))
}

/// `apply`
pub fn apply(_: &cli::Apply) -> Result<ExitCode, Failure> {
    absent()
}

/// `diff`
pub fn diff(_: &cli::Diff) -> Result<ExitCode, Failure> {
    absent()
}

/// `export`
pub fn export(_: &cli::Client) -> Result<ExitCode, Failure> {
    absent()
}

/// `show`
pub fn show(_: &cli::Show) -> Result<ExitCode, Failure> {
    absent()
}
