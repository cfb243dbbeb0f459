//! What is measured, in rows: a table for people, one JSON object for programs.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use serde_json::{Map, Value, json};

use super::rig::{Lap, histogram};

/// A measurement's rows, in order.
#[derive(Default)]
pub struct Report(Vec<(String, Value)>);

impl Report {
    /// A row.
    pub fn row(&mut self, what: &str, value: impl Into<Value>) {
        self.0.push((what.to_owned(), value.into()));
    }

    /// A row of milliseconds.
    pub fn ms(&mut self, what: &str, time: Duration) {
        self.row(&format!("{what}, ms"), round(time.as_secs_f64() * 1e3));
    }

    /// A row of a distribution, each value divided by `unit`.
    pub fn spread(&mut self, what: &str, values: &Histogram<u64>, unit: f64) {
        let at = |quantile| round(values.value_at_quantile(quantile) as f64 / unit);
        let max = round(values.max() as f64 / unit);
        self.row(
            what,
            json!({"n": values.len(), "p50": at(0.5), "p99": at(0.99), "p99.9": at(0.999), "max": max}),
        );
    }

    /// Rows of what the worker did.
    pub fn lap(&mut self, what: &str, lap: &Lap) {
        self.row(&format!("{what}: Mpps"), round(lap.mpps()));
        self.row(&format!("{what}: share of the core"), round(lap.core_share()));
        self.spread(&format!("{what}: bursts of 2x64, us"), &lap.bursts, 1e3);
    }

    /// All rows as one object.
    pub fn json(self) -> Value {
        Value::Object(Map::from_iter(self.0))
    }

    /// All rows, a line each.
    pub fn table(&self) -> String {
        let width = self.0.iter().map(|(what, _)| what.len()).max().unwrap_or_default();
        self.0.iter().map(|(what, value)| format!("{what:width$}  {}\n", cell(value))).collect()
    }
}

fn cell(value: &Value) -> String {
    match value {
        Value::Object(parts) => {
            let parts: Vec<_> = parts.iter().map(|(name, value)| format!("{name} {value}")).collect();
            parts.join("  ")
        }
        other => other.to_string(),
    }
}

/// Three digits behind the point.
fn round(value: f64) -> f64 {
    (value * 1e3).round() / 1e3
}

/// What the disk under `directory` takes to keep `count` small appends, one by one, in nanoseconds.
pub fn bare_fsync(directory: &Path, count: u32) -> io::Result<Histogram<u64>> {
    let path = directory.join("fsync");
    let mut file = File::create(&path)?;
    let mut times = histogram();
    for _ in 0..count {
        file.write_all(&[7; 256])?;
        let begin = Instant::now();
        file.sync_all()?;
        times.saturating_record(begin.elapsed().as_nanos() as u64);
    }
    fs::remove_file(path)?;
    Ok(times)
}

/// Memory that this process has now, in MB.
pub fn resident_mb() -> f64 {
    status_mb("VmRSS:")
}

/// Memory that this process has had at most, in MB.
pub fn peak_resident_mb() -> f64 {
    status_mb("VmHWM:")
}

fn status_mb(key: &str) -> f64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix(key));
    let kb: Option<f64> = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
    round(kb.unwrap_or_default() / 1e3)
}
