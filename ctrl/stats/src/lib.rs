//! What an appliance counts, as [families](Family) of series with labels: one list that `/metrics` and the stats page both show.
//!
//! Nothing here knows the engine: a program that only reads needs no more than this package.

use std::sync::Arc;

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
