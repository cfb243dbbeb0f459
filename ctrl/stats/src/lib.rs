//! What an appliance counts, as [families](Family) of series with labels: one list that `/metrics`
//! and the stats page both show.
//!
//! Nothing here knows the engine: a program that only reads needs no more than this package.
//!
//! # The stats page
//!
//! A file that the appliance writes every second and that any process may map and read, at any
//! rate, also when the appliance is gone: then what it wrote last stays. Whoever reads takes
//! nothing from anybody. All numbers are of 64 bits, little-endian.
//!
//! | byte | what |
//! | --- | --- |
//! | 0 | `PCSTATS1` |
//! | 8 | the version of this layout: 1 |
//! | 16 | how often the page was published, *p* |
//! | 24 | when it was published last, in nanoseconds since 1970: older than some seconds, its writer is gone or stuck |
//! | 32 | when its writer started, in nanoseconds since 1970 |
//! | 40 | the writer's process |
//! | 48 | when the writer ended in order, or 0 |
//! | 64 | the first half: where it begins, its room in bytes, the number of its directory, the directory's length in bytes, the number of its values: five numbers |
//! | 104 | the second half, likewise |
//!
//! The half *p* mod 2 is valid; the writer fills the other one and then adds 1 to *p*. So a reader
//! looks at *p*, copies that half, and looks again: the same *p* says that nothing of the copy was
//! written meanwhile. A writer that is killed at any moment leaves a valid half behind.
//!
//! A half holds its values, each a number, and behind them its directory: JSON, a list of families
//!
//! ```json
//! {"name": "portcullis_packets_total", "help": "…", "type": "counter", "labels": ["worker", "direction"], "at": 12, "series": [["0", "inbound"]]}
//! ```
//!
//! The value of series *i* of a family lies at `at` + *i*. A histogram has `bounds`, and `bounds` +
//! 2 values a series: how many observations were at most each bound and above the one before, how
//! many were above all, and the sum as a floating-point number. The directory changes only when its
//! number does, so it need not be read each time. The file grows and is replaced as a whole by the
//! next start.
//!
//! [`Reader`] does all of this; `docs/examples/stats.py` does it in Python.

#[cfg_attr(loom, allow(dead_code))]
mod page;

use std::sync::Arc;

pub use page::{Directory, Listed};
#[cfg(not(loom))]
pub use page::{Page, Reader, Unreadable, Writer};

/// What every name begins with.
pub const PREFIX: &str = "portcullis_";

/// What a family's values mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// It only grows, from 0.
    Counter,
    /// It goes up and down.
    Gauge,
    /// How many observations there were, by size.
    Histogram,
    /// Always 1: what there is to say lies in the labels.
    Info,
}

impl Kind {
    /// As pages and expositions call it.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
            Kind::Info => "info",
        }
    }

    /// What follows a family's name in that of its samples.
    pub fn suffix(self) -> &'static str {
        match self {
            Kind::Counter => "_total",
            Kind::Info => "_info",
            Kind::Gauge | Kind::Histogram => "",
        }
    }
}

/// One series' value.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// A number.
    Number(u64),
    /// Observations by size.
    Histogram(Histogram),
}

/// Observations by size.
#[derive(Clone, Debug, PartialEq)]
pub struct Histogram {
    /// The upper bound of each size but the last, which has none.
    pub bounds: &'static [f64],
    /// Observations of each size, without those of smaller ones: one more than bounds.
    pub counts: Vec<u64>,
    /// All observations together.
    pub sum: f64,
}

/// One series.
#[derive(Clone, Debug, PartialEq)]
pub struct Series {
    /// The values of the family's labels, in their order.
    pub labels: Vec<Arc<str>>,
    /// Its value.
    pub value: Value,
}

/// Series of one name.
#[derive(Clone, Debug, PartialEq)]
pub struct Family {
    /// Its name, without [`PREFIX`] and without the suffix of its kind.
    pub name: &'static str,
    /// What it counts, in words.
    pub help: &'static str,
    /// What its values mean.
    pub kind: Kind,
    /// The names of its labels.
    pub labels: &'static [&'static str],
    /// Its series; there may be none.
    pub series: Vec<Series>,
}

impl Family {
    /// Without series.
    pub fn new(
        name: &'static str,
        kind: Kind,
        labels: &'static [&'static str],
        help: &'static str,
    ) -> Family {
        Family { name, help, kind, labels, series: Vec::new() }
    }

    /// One more series.
    pub fn push(&mut self, labels: impl Into<Vec<Arc<str>>>, value: u64) {
        let labels = labels.into();
        debug_assert_eq!(labels.len(), self.labels.len(), "{}", self.name);
        self.series.push(Series { labels, value: Value::Number(value) });
    }

    /// The same with one series.
    pub fn with(mut self, labels: impl Into<Vec<Arc<str>>>, value: u64) -> Family {
        self.push(labels, value);
        self
    }

    /// The same with observations as its one series, which has no labels.
    pub fn of(mut self, observed: Histogram) -> Family {
        self.series.push(Series { labels: Vec::new(), value: Value::Histogram(observed) });
        self
    }

    /// The name of its samples; of a histogram's, less what tells them apart.
    pub fn sample_name(&self) -> String {
        format!("{PREFIX}{}{}", self.name, self.kind.suffix())
    }
}
