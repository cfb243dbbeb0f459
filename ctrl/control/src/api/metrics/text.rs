//! Families as text.

use std::fmt;

use axum::body::Bytes;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, NoLabelSet, prometheus_text, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;
use stats::{Family, Histogram, Kind, PREFIX, Value};

/// Bytes of a piece of an answer.
const PIECE: usize = 64 << 10;

/// How metrics are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    OpenMetrics,
    Classic,
}

impl Format {
    pub fn content_type(self) -> &'static str {
        match self {
            Format::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Format::Classic => prometheus_text::CONTENT_TYPE,
        }
    }
}

/// Text in pieces, so that those that were sent need no memory.
#[derive(Default)]
struct Pieces {
    full: Vec<Bytes>,
    last: String,
}

impl fmt::Write for Pieces {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        if self.last.len() + text.len() > PIECE {
            self.full.push(std::mem::take(&mut self.last).into());
        }
        if self.last.capacity() == 0 {
            self.last.reserve(PIECE);
        }
        self.last.push_str(text);
        Ok(())
    }
}

/// Families in a format.
pub(super) fn encode(families: Vec<Family>, format: Format) -> Result<Vec<Bytes>, fmt::Error> {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Families(families)));
    let mut pieces = Pieces::default();
    match format {
        Format::OpenMetrics => text::encode(&mut pieces, &registry)?,
        Format::Classic => prometheus_text::encode(&mut pieces, &registry)?,
    }
    pieces.full.push(pieces.last.into());
    Ok(pieces.full)
}

#[derive(Debug)]
struct Families(Vec<Family>);

impl Collector for Families {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|family| encode_family(family, &mut encoder))
    }
}

fn encode_family(family: &Family, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
    let kind = match family.kind {
        Kind::Counter => MetricType::Counter,
        Kind::Gauge => MetricType::Gauge,
        Kind::Histogram => MetricType::Histogram,
        Kind::Info => MetricType::Info,
    };
    let name = format!("{PREFIX}{}", family.name);
    let mut metric = encoder.encode_descriptor(&name, family.help, None, kind)?;
    for series in &family.series {
        let labels: Vec<(&str, &str)> =
            family.labels.iter().copied().zip(series.labels.iter().map(|value| &**value)).collect();
        match (&series.value, family.kind) {
            (Value::Histogram(Histogram { bounds, counts, sum }), _) => {
                let bounds = bounds.iter().copied().chain([f64::INFINITY]);
                let buckets: Vec<(f64, u64)> = bounds.zip(counts.iter().copied()).collect();
                metric.encode_family(&labels)?.encode_histogram::<NoLabelSet>(
                    *sum,
                    counts.iter().sum(),
                    &buckets,
                    None,
                )?;
            }
            (Value::Number(_), Kind::Info) => metric.encode_info(&labels)?,
            (Value::Number(value), Kind::Counter) => {
                metric.encode_family(&labels)?.encode_counter::<NoLabelSet, u64, u64>(value, None)?;
            }
            (Value::Number(value), _) => metric.encode_family(&labels)?.encode_gauge(value)?,
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn families() -> Vec<Family> {
        let packets = Family::new("packets", Kind::Counter, &["nic"], "Packets.");
        let rule = Family::new("rule", Kind::Info, &["description"], "A rule.");
        let empty = Family::new("flow_records", Kind::Counter, &["sink"], "Records.");
        let bursts = Family::new("bursts", Kind::Histogram, &[], "Bursts.");
        let observed = Histogram { bounds: &[1.0, 2.5], counts: vec![1, 2, 3], sum: 20.0 };
        vec![
            packets.with(["a \"b\" \\".into()], u64::MAX),
            rule.with(["two\nlines".into()], 1),
            empty,
            bursts.of(observed),
        ]
    }

    fn text(format: Format) -> String {
        let pieces = encode(families(), format).unwrap();
        pieces.iter().map(|piece| std::str::from_utf8(piece).unwrap()).collect()
    }

    #[test]
    fn open_metrics_names_families_without_suffixes_and_ends_with_a_mark() {
        let expected = r#"# HELP portcullis_packets Packets.
# TYPE portcullis_packets counter
portcullis_packets_total{nic="a \"b\" \\"} 18446744073709551615
# HELP portcullis_rule A rule.
# TYPE portcullis_rule info
portcullis_rule_info{description="two\nlines"} 1
# HELP portcullis_flow_records Records.
# TYPE portcullis_flow_records counter
# HELP portcullis_bursts Bursts.
# TYPE portcullis_bursts histogram
portcullis_bursts_sum 20.0
portcullis_bursts_count 6
portcullis_bursts_bucket{le="1.0"} 1
portcullis_bursts_bucket{le="2.5"} 3
portcullis_bursts_bucket{le="+Inf"} 6
# EOF
"#;
        assert_eq!(text(Format::OpenMetrics), expected);
    }

    #[test]
    fn the_classic_format_names_families_as_their_samples() {
        let text = text(Format::Classic);
        for line in [
            "# HELP portcullis_packets_total Packets.",
            "# TYPE portcullis_packets_total counter",
            "# TYPE portcullis_rule_info gauge",
            "# TYPE portcullis_flow_records_total counter",
            "portcullis_bursts_bucket{le=\"+Inf\"} 6",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}:\n{text}");
        }
        assert!(!text.contains("# EOF") && !text.contains("# UNIT"));
    }

    #[test]
    fn a_long_text_comes_in_pieces_that_make_it_up() {
        let mut family = Family::new("packets", Kind::Counter, &["nic"], "Packets.");
        (0..20_000u64).for_each(|n| family.push([n.to_string().into()], n));
        let pieces = encode(vec![family], Format::Classic).unwrap();
        assert!(pieces.len() > 8 && pieces.iter().all(|piece| !piece.is_empty() && piece.len() <= PIECE));
        let text: Vec<u8> = pieces.concat();
        assert_eq!(text.iter().filter(|byte| **byte == b'\n').count(), 20_002);
    }
}
