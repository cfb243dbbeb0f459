//! What people see: the table at the end, and the line on the way.

use std::fmt::Write as _;
use std::io::{IsTerminal, Write as _};
use std::time::Instant;

use pktgen::report::{Report, TallyCounts};
use pktgen::{Progress, search::Found};

/// With thin groups of three digits, as people read them.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() * 4 / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// `1.234 Mpps`
fn rate(number: f64, unit: &str) -> String {
    match number {
        1e9.. => format!("{:.3} G{unit}", number / 1e9),
        1e6.. => format!("{:.3} M{unit}", number / 1e6),
        1e3.. => format!("{:.3} k{unit}", number / 1e3),
        _ => format!("{number:.1} {unit}"),
    }
}

/// `1.234 µs`
fn time(nanos: u64) -> String {
    match nanos as f64 {
        n @ 1e9.. => format!("{:.3} s", n / 1e9),
        n @ 1e6.. => format!("{:.3} ms", n / 1e6),
        n @ 1e3.. => format!("{:.3} us", n / 1e3),
        n => format!("{n} ns"),
    }
}

fn row(text: &mut String, name: &str, counts: &TallyCounts) {
    let TallyCounts { sent, received, lost, duplicates, reordered } = *counts;
    let cells = [sent, received, lost, duplicates, reordered].map(|n| format!("{:>16}", grouped(n))).concat();
    let _ = writeln!(text, "{name:<10}{cells}");
}

fn found(text: &mut String, name: &str, found: &Found) {
    let allowed = found.allowed_loss * 100.0;
    let _ = match found.pps {
        None => writeln!(
            text,
            "{name}: not even the lowest rate keeps to a loss of {allowed} %: the search ended at its minimum"
        ),
        Some(pps) if found.at_maximum => {
            writeln!(
                text,
                "{name}: {} or more, the highest rate tried (loss allowed: {allowed} %)",
                rate(pps, "pps")
            )
        }
        Some(pps) if found.at_minimum => {
            writeln!(
                text,
                "{name}: {}, the lowest rate tried: the search ended at its minimum (loss allowed: {allowed} %)",
                rate(pps, "pps")
            )
        }
        Some(pps) => writeln!(text, "{name}: {} (loss allowed: {allowed} %)", rate(pps, "pps")),
    };
}

/// The report as a table.
pub fn table(report: &Report) -> String {
    let mut text = String::new();
    let packets = &report.packets;
    let _ = writeln!(text, "{} for {:.3} s, ended by {}", report.mode, report.seconds, report.ended);
    let _ = writeln!(
        text,
        "sent {} ({}), received {} ({}){}",
        rate(report.rate.sent_pps, "pps"),
        rate(report.rate.sent_bps, "bit/s"),
        rate(report.rate.received_pps, "pps"),
        rate(report.rate.received_bps, "bit/s"),
        report.rate.asked_pps.map(|pps| format!(", asked for {}", rate(pps, "pps"))).unwrap_or_default()
    );
    let heads =
        ["sent", "received", "lost", "duplicates", "reordered"].map(|head| format!("{head:>16}")).concat();
    let _ = writeln!(text, "\n{:<10}{heads}", "");
    for class in &report.classes {
        row(&mut text, class.class, &class.counts);
    }
    row(&mut text, "inbound", &report.directions.inbound);
    row(&mut text, "outbound", &report.directions.outbound);
    let _ = writeln!(
        text,
        "\nadmitted packets lost: {} ({:.6} %); unexpected: {} (foreign {}, misdirected {}, stale {})",
        grouped(packets.lost),
        report.loss * 100.0,
        grouped(packets.unexpected.total),
        grouped(packets.unexpected.foreign),
        grouped(packets.unexpected.misdirected),
        grouped(packets.unexpected.stale)
    );
    if packets.skipped_late + packets.skipped_blocked > 0 {
        let _ = writeln!(
            text,
            "not sent in time: {} (the generator was late), {} (the ports were full)",
            grouped(packets.skipped_late),
            grouped(packets.skipped_blocked)
        );
    }
    if let Some(connections) = &report.connections {
        let _ = writeln!(
            text,
            "connections: opened {}, established {}, closed {}, reset {}, failed {}; requests {}, answered {}; segments sent again {}, \
             UDP timeouts {}",
            grouped(connections.opened),
            grouped(connections.established),
            grouped(connections.closed),
            grouped(connections.reset),
            grouped(connections.failed),
            grouped(connections.requests),
            grouped(connections.responses),
            grouped(connections.retransmits),
            grouped(connections.timeouts)
        );
    }
    if let Some(latency) = &report.latency_ns {
        let _ = writeln!(
            text,
            "latency of {}: min {}, p50 {}, p90 {}, p99 {}, p99.9 {}, p99.99 {}, max {}",
            grouped(latency.samples),
            time(latency.min),
            time(latency.p50),
            time(latency.p90),
            time(latency.p99),
            time(latency.p99_9),
            time(latency.p99_99),
            time(latency.max)
        );
    }
    if let Some(search) = &report.search {
        let _ =
            writeln!(text, "\n{:>16}{:>16}{:>16}{:>16}{:>12}", "trial", "sent", "offered", "lost", "loss");
        for trial in &search.trials {
            let _ = writeln!(
                text,
                "{:>16}{:>16}{:>16}{:>16}{:>10.4} %",
                rate(trial.pps, "pps"),
                rate(trial.sent_pps, "pps"),
                grouped(trial.offered),
                grouped(trial.lost),
                trial.loss * 100.0
            );
        }
        search.ndr.iter().for_each(|ndr| found(&mut text, "NDR", ndr));
        search.pdr.iter().for_each(|pdr| found(&mut text, "PDR", pdr));
    }
    for warning in &report.warnings {
        let _ = writeln!(text, "warning: {warning}");
    }
    text
}

/// The line that tells how far it is, on standard error.
pub struct Line {
    shown: bool,
    terminal: bool,
    last: (Instant, Progress),
}

impl Line {
    /// Shown on a terminal, or if `wanted`.
    pub fn new(wanted: bool) -> Line {
        let terminal = std::io::stderr().is_terminal();
        Line { shown: terminal || wanted, terminal, last: (Instant::now(), Progress::default()) }
    }

    /// Shows it anew.
    pub fn show(&mut self, progress: &Progress) {
        if !self.shown {
            return;
        }
        let (then, before) = self.last;
        let seconds = then.elapsed().as_secs_f64().max(1e-3);
        let since = |now: u64, then: u64| rate(now.saturating_sub(then) as f64 / seconds, "pps");
        let trial = if progress.trial > 0 { format!("trial {}: ", progress.trial) } else { String::new() };
        let line = format!(
            "{trial}sent {} ({}), received {} ({}), missing {}",
            grouped(progress.sent),
            since(progress.sent, before.sent),
            grouped(progress.received),
            since(progress.received, before.received),
            grouped(progress.missing)
        );
        self.last = (Instant::now(), *progress);
        let mut stderr = std::io::stderr();
        let _ = if self.terminal { write!(stderr, "\r\x1b[K{line}") } else { writeln!(stderr, "{line}") };
        let _ = stderr.flush();
    }

    /// Leaves the terminal's line to what follows.
    pub fn end(&self) {
        if self.shown && self.terminal {
            let _ = write!(std::io::stderr(), "\r\x1b[K");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_as_people_read_them() {
        assert_eq!([0, 999, 1000, 1_234_567].map(grouped), ["0", "999", "1,000", "1,234,567"]);
        assert_eq!((rate(12.0, "pps"), rate(2_500_000.0, "pps")), ("12.0 pps".into(), "2.500 Mpps".into()));
        assert_eq!(
            (time(12), time(1500), time(2_000_000_000)),
            ("12 ns".into(), "1.500 us".into(), "2.000 s".into())
        );
    }
}
