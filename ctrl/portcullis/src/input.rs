//! Files that commands read, `-` being standard input, and what is wrong with them.

use std::path::Path;

use control::config::{Checked, Config, check_config, parse_config};
use control::document::{Event, Parsed, check_policy, parse_events, parse_policy};
use control::source::{Diagnostic, input_name, read_input};

use crate::failure::Failure;

/// The configuration in a file, or the defaults.
pub fn config(path: Option<&Path>) -> Result<Config, Failure> {
    let Some(path) = path else { return Ok(Config::default()) };
    let text = read_input(path).map_err(Failure::input)?;
    parse_config(&text, &input_name(path)).map_err(Failure::input)
}

/// The configuration in a file, or all that is wrong with its text.
pub fn checked_config(path: &Path) -> Result<Checked, Vec<Diagnostic>> {
    let text = read_input(path).map_err(|fault| vec![fault])?;
    check_config(&text, &input_name(path))
}

/// The policy in a file.
pub fn policy(path: &Path, config: &Config) -> Result<Parsed, Failure> {
    let text = read_input(path).map_err(Failure::input)?;
    parse_policy(&text, &input_name(path), &config.policy.limits).map_err(Failure::input)
}

/// The policy in a file, or all that is wrong with it.
pub fn checked_policy(path: &Path, config: &Config) -> Result<Parsed, Vec<Diagnostic>> {
    let text = read_input(path).map_err(|fault| vec![fault])?;
    check_policy(&text, &input_name(path), &config.policy.limits)
}

/// The events in a file.
pub fn events(path: &Path, config: &Config) -> Result<Vec<Event>, Failure> {
    let text = read_input(path).map_err(Failure::input)?;
    let base = path.parent().unwrap_or(Path::new(""));
    parse_events(&text, &input_name(path), base, &config.policy.limits).map_err(Failure::input)
}
