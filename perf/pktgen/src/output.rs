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
    use pktgen::count::Connections;
    use pktgen::report::{ClassCounts, Directions, Latency, Packets, Rates, UnexpectedCounts};
    use pktgen::search::{SearchReport, Trial};

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

    fn tally(first: u64) -> TallyCounts {
        TallyCounts {
            sent: first,
            received: first + 1,
            lost: first + 2,
            duplicates: first + 3,
            reordered: first + 4,
        }
    }

    /// A report in which no two figures are equal.
    fn report() -> Report {
        let found = |pps, at_maximum, at_minimum, allowed_loss| Found {
            allowed_loss,
            pps,
            sent_pps: pps,
            at_maximum,
            at_minimum,
        };
        Report {
            mode: "stateful",
            ended: "duration",
            seconds: 2.5,
            rate: Rates {
                asked_pps: Some(1e6),
                sent_pps: 987_654.0,
                received_pps: 876_543.0,
                sent_bps: 1.5e9,
                received_bps: 2e9,
            },
            packets: Packets {
                planned: Some(1),
                sent: 2,
                received: 3,
                lost: 1004,
                duplicates: 5,
                reordered: 6,
                unexpected: UnexpectedCounts { total: 60, foreign: 10, misdirected: 20, stale: 30 },
                skipped_late: 71,
                skipped_blocked: 72,
                refused: 8,
            },
            loss: 0.0125,
            classes: vec![
                ClassCounts { class: "flows", admitted: true, counts: tally(100) },
                ClassCounts { class: "hostile", admitted: false, counts: tally(200) },
            ],
            directions: Directions { inbound: tally(300), outbound: tally(1_234_567) },
            latency_ns: Some(Latency {
                samples: 91,
                min: 92,
                mean: 93,
                p50: 1_094,
                p90: 2_095,
                p99: 3_096,
                p99_9: 4_000_097,
                p99_99: 5_000_098,
                max: 6_000_000_099,
            }),
            connections: Some(Connections {
                opened: 11,
                established: 12,
                closed: 13,
                reset: 14,
                failed: 15,
                retransmits: 16,
                requests: 17,
                responses: 18,
                timeouts: 19,
            }),
            ports: Vec::new(),
            search: Some(SearchReport {
                ndr: Some(found(Some(2.5e6), false, false, 0.0)),
                pdr: Some(found(Some(3.5e6), true, false, 0.005)),
                trials: vec![Trial {
                    pps: 4e6,
                    sent_pps: 3.9e6,
                    offered: 41,
                    lost: 42,
                    loss: 0.25,
                    skipped_late: 43,
                }],
            }),
            core: None,
            warnings: vec!["something".to_owned()],
        }
    }

    const TABLE: &str = "\
stateful for 2.500 s, ended by duration
sent 987.654 kpps (1.500 Gbit/s), received 876.543 kpps (2.000 Gbit/s), asked for 1.000 Mpps

                      sent        received            lost      duplicates       reordered
flows                  100             101             102             103             104
hostile                200             201             202             203             204
inbound                300             301             302             303             304
outbound         1,234,567       1,234,568       1,234,569       1,234,570       1,234,571

admitted packets lost: 1,004 (1.250000 %); unexpected: 60 (foreign 10, misdirected 20, stale 30)
not sent in time: 71 (the generator was late), 72 (the ports were full)
connections: opened 11, established 12, closed 13, reset 14, failed 15; requests 17, answered 18; segments sent again 16, UDP timeouts 19
latency of 91: min 92 ns, p50 1.094 us, p90 2.095 us, p99 3.096 us, p99.9 4.000 ms, p99.99 5.000 ms, max 6.000 s

           trial            sent         offered            lost        loss
      4.000 Mpps      3.900 Mpps              41              42   25.0000 %
NDR: 2.500 Mpps (loss allowed: 0 %)
PDR: 3.500 Mpps or more, the highest rate tried (loss allowed: 0.5 %)
warning: something
";

    #[test]
    fn the_table_has_every_figure_in_its_place_and_leaves_out_what_there_is_not() {
        assert_eq!(table(&report()), TABLE);
        let mut bare = report();
        (bare.latency_ns, bare.connections, bare.search, bare.rate.asked_pps) = (None, None, None, None);
        (bare.packets.skipped_late, bare.packets.skipped_blocked) = (0, 0);
        bare.warnings.clear();
        let told = table(&bare);
        for absent in ["latency", "connections", "trial", "NDR", "asked for", "not sent", "warning"] {
            assert!(!told.contains(absent), "{absent}: {told}");
        }
        // One of them is enough.
        for (late, blocked) in [(1, 0), (0, 1)] {
            (bare.packets.skipped_late, bare.packets.skipped_blocked) = (late, blocked);
            let line =
                format!("not sent in time: {late} (the generator was late), {blocked} (the ports were full)");
            assert!(table(&bare).contains(&line));
        }
    }

    #[test]
    fn what_a_search_found_is_said_in_its_own_words() {
        let told = |pps, at_maximum, at_minimum| {
            let mut text = String::new();
            found(
                &mut text,
                "NDR",
                &Found { allowed_loss: 0.001, pps, sent_pps: None, at_maximum, at_minimum },
            );
            text
        };
        let minimum = "the search ended at its minimum";
        assert_eq!(
            told(None, false, true),
            format!("NDR: not even the lowest rate keeps to a loss of 0.1 %: {minimum}\n")
        );
        assert_eq!(
            told(Some(1e4), false, true),
            format!("NDR: 10.000 kpps, the lowest rate tried: {minimum} (loss allowed: 0.1 %)\n")
        );
        assert_eq!(told(Some(999.94), false, false), "NDR: 999.9 pps (loss allowed: 0.1 %)\n");
    }

    #[test]
    fn units_change_at_their_bounds() {
        assert_eq!(
            [999.0, 1e3, 999_999.0, 1e6, 1e9].map(|number| rate(number, "pps")),
            ["999.0 pps", "1.000 kpps", "999.999 kpps", "1.000 Mpps", "1.000 Gpps"]
        );
        assert_eq!(
            [999, 1_000, 999_999, 1_000_000, 999_999_000, 1_000_000_000].map(time),
            ["999 ns", "1.000 us", "999.999 us", "1.000 ms", "999.999 ms", "1.000 s"]
        );
        assert_eq!(
            [99, 100, 12_345, 123_456, 1_000_000].map(grouped),
            ["99", "100", "12,345", "123,456", "1,000,000"]
        );
    }
}
