//! The stats page: see the package's documentation.

// In the builds that check the model no memory is mapped: loom's atomics do not lie in any.
#[cfg(not(loom))]
mod map;
#[cfg_attr(loom, allow(dead_code))]
mod protocol;
#[cfg(not(loom))]
mod reader;
#[cfg(not(loom))]
mod writer;

use serde::{Deserialize, Serialize};

use crate::{Family, Kind, Value};
#[cfg(not(loom))]
pub use reader::{Page, Reader, Unreadable};
#[cfg(not(loom))]
pub use writer::Writer;

/// What the file begins with.
const MAGIC: u64 = u64::from_le_bytes(*b"PCSTATS1");
const VERSION: u64 = 1;
/// Bytes before the halves.
const HEAD: usize = 4096;

/// The words of the head.
mod word {
    pub const MAGIC: usize = 0;
    pub const VERSION: usize = 1;
    pub const PUBLISHED: usize = 2;
    pub const WRITTEN: usize = 3;
    pub const STARTED: usize = 4;
    pub const PROCESS: usize = 5;
    pub const ENDED: usize = 6;
    /// Of a half: its offset, its room, the number and the length of its directory, its values.
    pub const HALVES: [usize; 2] = [8, 13];
}

/// The words of a half, from [`word::HALVES`] on.
mod half {
    pub const OFFSET: usize = 0;
    pub const ROOM: usize = 1;
    pub const DIRECTORY: usize = 2;
    pub const LENGTH: usize = 3;
    pub const VALUES: usize = 4;
}

/// A family in a page's directory.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Listed {
    /// The name of its samples.
    pub name: String,
    /// What it counts, in words.
    pub help: String,
    /// `counter`, `gauge`, `histogram` or `info`.
    #[serde(rename = "type")]
    pub kind: String,
    /// The names of its labels.
    pub labels: Vec<String>,
    /// Of a histogram, the upper bounds.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub bounds: Option<Vec<f64>>,
    /// Where the value of its first series lies.
    pub at: usize,
    /// The values of the labels of each series.
    pub series: Vec<Vec<String>>,
}

impl Listed {
    /// Values of a series.
    pub fn width(&self) -> usize {
        self.bounds.as_ref().map_or(1, |bounds| bounds.len() + 2)
    }
}

/// What lies where in a page.
pub type Directory = Vec<Listed>;

/// The directory of families, and their values.
fn laid_out(families: &[Family]) -> (Directory, Vec<u64>) {
    let (mut directory, mut values) = (Directory::new(), Vec::new());
    for family in families {
        let bounds = family.series.iter().find_map(|series| match &series.value {
            Value::Histogram(histogram) => Some(histogram.bounds.to_vec()),
            Value::Number(_) => None,
        });
        let owned = |label: &str| label.to_owned();
        directory.push(Listed {
            name: family.sample_name(),
            help: family.help.to_owned(),
            kind: family.kind.name().to_owned(),
            labels: family.labels.iter().map(|label| owned(label)).collect(),
            bounds: bounds.filter(|_| family.kind == Kind::Histogram),
            at: values.len(),
            series: family
                .series
                .iter()
                .map(|s| s.labels.iter().map(|label| owned(label)).collect())
                .collect(),
        });
        for series in &family.series {
            match &series.value {
                Value::Number(number) => values.push(*number),
                Value::Histogram(histogram) => {
                    values.extend(&histogram.counts);
                    values.push(histogram.sum.to_bits());
                }
            }
        }
    }
    (directory, values)
}
