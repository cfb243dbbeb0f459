//! Files that commands read, and what the engine is given of a configuration.

use std::path::Path;

use control::config::{Config, parse_config};
use control::document::{Event, Parsed, parse_events, parse_policy};
use control::source::read_file;

use crate::failure::Failure;

/// The configuration in a file, or the defaults.
pub fn config(path: Option<&Path>) -> Result<Config, Failure> {
    let Some(path) = path else { return Ok(Config::default()) };
    let text = read_file(path).map_err(Failure::input)?;
    parse_config(&text, &path.display().to_string()).map_err(Failure::input)
}

/// The policy in a file.
pub fn policy(path: &Path, config: &Config) -> Result<Parsed, Failure> {
    let text = read_file(path).map_err(Failure::input)?;
    parse_policy(&text, &path.display().to_string(), &config.policy.limits).map_err(Failure::input)
}

/// The events in a file.
pub fn events(path: &Path, config: &Config) -> Result<Vec<Event>, Failure> {
    let text = read_file(path).map_err(Failure::input)?;
    let base = path.parent().unwrap_or(Path::new(""));
    parse_events(&text, &path.display().to_string(), base, &config.policy.limits).map_err(Failure::input)
}
