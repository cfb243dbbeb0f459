//! Files that commands read, and what the engine is given of a configuration.

use std::path::Path;
use std::time::Duration;

use control::config::{Config, parse_config};
use control::document::{Event, Parsed, parse_events, parse_policy};
use control::source::read_file;
use engine::conntrack::{ShardConfig, Timeouts};
use engine::time::TICK_NS;

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

/// Worker `worker`'s part of the connection table among `workers`.
pub fn shard_config(config: &Config, worker: u32, workers: u32) -> ShardConfig {
    let part = |all: u32| (all / workers + u32::from(worker < all % workers)).max(1);
    let capacity = part(config.conntrack.capacity);
    let unconfirmed = (f64::from(capacity) * config.conntrack.unconfirmed_share) as u32;
    let t = &config.timeouts;
    ShardConfig {
        capacity,
        unconfirmed: unconfirmed.max(1),
        timeouts: Timeouts {
            tcp_syn: ticks(t.tcp_syn),
            tcp_established: ticks(t.tcp_established),
            tcp_fin: ticks(t.tcp_fin),
            icmp: ticks(t.icmp),
            one_way: ticks(t.one_way),
            two_way: ticks(t.two_way),
            fragment: ticks(t.fragment),
        },
    }
}

/// In ticks, rounded up.
fn ticks(duration: Duration) -> u32 {
    duration.as_nanos().div_ceil(u128::from(TICK_NS)) as u32
}
