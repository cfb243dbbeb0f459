//! What a run says at its end, as a value, as JSON and as a table.

use engine::Side;
use serde::Serialize;

use crate::clock::Clock;
use crate::count::{Connections, Counts, Tally};
use crate::drive::{Ended, Measured};
use crate::tag::Class;

/// Times that a thread may lose its core without a word: on any machine it happens now and then.
const OFTEN: u64 = 3;

/// The result of a run.
#[derive(Clone, Debug, Serialize, PartialEq)]
pub struct Report {
    /// `stateless`, `stateful` or `capture`.
    pub mode: &'static str,
    /// Why sending ended: `duration`, `count`, `finished` or `interrupted`.
    pub ended: &'static str,
    /// How long was sent, in seconds.
    pub seconds: f64,
    /// Rates.
    pub rate: Rates,
    /// All frames together.
    pub packets: Packets,
    /// Of those that are to pass, the share that was lost.
    pub loss: f64,
    /// By what they were sent for, those that were sent.
    pub classes: Vec<ClassCounts>,
    /// By the way they go: `inbound` and `outbound`.
    pub directions: Directions,
    /// How long frames took, in nanoseconds; `None` if none told.
    pub latency_ns: Option<Latency>,
    /// Connections; `None` without.
    pub connections: Option<Connections>,
    /// What the devices count.
    pub ports: Vec<PortCounts>,
    /// The search; `None` without.
    pub search: Option<crate::search::SearchReport>,
    /// What others took of the generator's core; `None` where nobody looked.
    pub core: Option<crate::core_use::CoreUse>,
    /// What makes these numbers mean less than they seem to, a sentence each.
    pub warnings: Vec<String>,
}

/// Rates, in packets and bits a second. Bits are those of the frames, checksum included, without
/// preamble and gap.
#[derive(Clone, Copy, Debug, Serialize, PartialEq)]
pub struct Rates {
    /// Packets a second asked for; `None` without a limit.
    pub asked_pps: Option<f64>,
    /// Packets a second sent.
    pub sent_pps: f64,
    /// Packets a second received.
    pub received_pps: f64,
    /// Bits a second sent.
    pub sent_bps: f64,
    /// Bits a second received.
    pub received_bps: f64,
}

/// All frames together.
#[derive(Clone, Copy, Debug, Serialize, PartialEq)]
pub struct Packets {
    /// Frames that the schedule had; `None` without a limit.
    pub planned: Option<u64>,
    /// Frames that a port took.
    pub sent: u64,
    /// Frames that came back, duplicates included.
    pub received: u64,
    /// Frames that are to pass, and did not come.
    pub lost: u64,
    /// Frames that came again.
    pub duplicates: u64,
    /// Frames that came behind one that was sent after them.
    pub reordered: u64,
    /// Frames that nobody waited for.
    pub unexpected: UnexpectedCounts,
    /// Planned frames that were never built: the generator did not get its core in time.
    pub skipped_late: u64,
    /// Planned frames that were never built: the ports did not take them in time.
    pub skipped_blocked: u64,
    /// Times that a frame was offered and not taken; it was offered again.
    pub refused: u64,
}

/// Frames that nobody waited for.
#[derive(Clone, Copy, Debug, Serialize, PartialEq)]
pub struct UnexpectedCounts {
    /// All of them.
    pub total: u64,
    /// Not the generator's.
    pub foreign: u64,
    /// At the side that they were sent from.
    pub misdirected: u64,
    /// Of an earlier trial, or of a connection that is over.
    pub stale: u64,
}

/// The frames of one class.
#[derive(Clone, Copy, Debug, Serialize, PartialEq)]
pub struct ClassCounts {
    /// `flows`, `new`, `denied`, `hostile` or `flood`.
    pub class: &'static str,
    /// Whether a firewall is to let them pass. A flood is neither: it counts as not.
    pub admitted: bool,
    /// Their counts.
    #[serde(flatten)]
    pub counts: TallyCounts,
}

/// Frames of one kind.
#[derive(Clone, Copy, Debug, Serialize, PartialEq)]
pub struct TallyCounts {
    /// Sent.
    pub sent: u64,
    /// Come back, duplicates included.
    pub received: u64,
    /// Sent and not come back.
    pub lost: u64,
    /// Come again.
    pub duplicates: u64,
    /// Come behind one that was sent after them.
    pub reordered: u64,
}

/// By direction, relative to the instances.
#[derive(Clone, Copy, Debug, Serialize, PartialEq)]
pub struct Directions {
    /// Sent from outside.
    pub inbound: TallyCounts,
    /// Sent from inside.
    pub outbound: TallyCounts,
}

/// Latencies in nanoseconds.
#[derive(Clone, Copy, Debug, Serialize, PartialEq)]
#[allow(missing_docs)]
pub struct Latency {
    /// Frames that told.
    pub samples: u64,
    pub min: u64,
    pub mean: u64,
    pub p50: u64,
    pub p90: u64,
    pub p99: u64,
    pub p99_9: u64,
    pub p99_99: u64,
    pub max: u64,
}

/// What a device counts.
#[derive(Clone, Debug, Serialize, PartialEq, Default)]
#[allow(missing_docs)]
pub struct PortCounts {
    pub name: String,
    pub driver: String,
    pub rx_packets: u64,
    pub tx_packets: u64,
    pub rx_missed: u64,
    pub rx_errors: u64,
    pub tx_errors: u64,
    pub rx_no_buffer: u64,
    pub rx_oversize: u64,
    pub tx_oversize: u64,
}

impl From<Tally> for TallyCounts {
    fn from(tally: Tally) -> TallyCounts {
        let Tally { sent, received, duplicates, reordered, .. } = tally;
        TallyCounts { sent, received, lost: tally.lost(), duplicates, reordered }
    }
}

/// What the report cannot read from the counts.
#[derive(Clone, Copy, Debug)]
pub struct Context {
    /// The mode's name.
    pub mode: &'static str,
    /// Packets a second asked for.
    pub asked_pps: Option<f64>,
    /// True if there are connections.
    pub has_connections: bool,
}

impl Report {
    /// Of a measurement.
    pub fn new(measured: &Measured, clock: &Clock, context: &Context) -> Report {
        let counts = &measured.counts;
        let (total, admitted) = (counts.total(), counts.admitted());
        let seconds = clock.seconds(measured.cycles);
        let a_second = |n: u64| if seconds > 0.0 { n as f64 / seconds } else { 0.0 };
        let unexpected = counts.unexpected;
        Report {
            mode: context.mode,
            ended: match measured.ended {
                Ended::Duration => "duration",
                Ended::Count => "count",
                Ended::Finished => "finished",
                Ended::Stopped => "interrupted",
            },
            seconds,
            rate: Rates {
                asked_pps: context.asked_pps,
                sent_pps: a_second(total.sent),
                received_pps: a_second(total.received),
                sent_bps: a_second(total.sent_bytes * 8),
                received_bps: a_second(total.received_bytes * 8),
            },
            packets: Packets {
                planned: measured.planned,
                sent: total.sent,
                received: total.received,
                lost: admitted.lost(),
                duplicates: total.duplicates,
                reordered: total.reordered,
                unexpected: UnexpectedCounts {
                    total: unexpected.total(),
                    foreign: unexpected.foreign,
                    misdirected: unexpected.misdirected,
                    stale: unexpected.stale,
                },
                skipped_late: measured.late,
                skipped_blocked: measured.blocked,
                refused: counts.refused,
            },
            loss: share(admitted.lost(), admitted.sent),
            classes: classes(counts),
            directions: Directions {
                inbound: counts.from(Side::Outside).into(),
                outbound: counts.from(Side::Inside).into(),
            },
            latency_ns: latency(counts, clock),
            connections: context.has_connections.then_some(counts.connections),
            ports: Vec::new(),
            search: None,
            core: None,
            warnings: Vec::new(),
        }
    }

    /// Notes what makes the numbers mean less than they seem to.
    pub fn warn(&mut self) {
        for port in self.ports.iter().filter(|port| port.driver == "net_null") {
            self.warnings.push(format!(
                "{} has no peer: DPDK's null device swallows what is sent and makes up what is received, so nothing was \
                 tested",
                port.name
            ));
        }
        if let Some(core) = &self.core
            && (core.interruptions >= OFTEN || core.stolen_ms > 0)
        {
            self.warnings.push(format!(
                "core {} was taken from the generator: {} times by other threads, {} ms by the hypervisor; loss and latency \
                 may be the generator's own",
                core.core, core.interruptions, core.stolen_ms
            ));
        }
        let searches = self.search.iter().flat_map(|search| [("NDR", search.ndr), ("PDR", search.pdr)]);
        for (name, found) in searches {
            if found.is_some_and(|found| found.at_minimum) {
                self.warnings.push(format!(
                    "the search for the {name} ended at its minimum: --min-rate lets it try lower rates"
                ));
            }
        }
    }

    /// The counts of a class; zeros if none of it was sent.
    pub fn class(&self, class: Class) -> TallyCounts {
        let found = self.classes.iter().find(|counts| counts.class == class.name());
        found.map_or_else(|| Tally::default().into(), |counts| counts.counts)
    }
}

/// `part` of `whole`; 0 of nothing.
pub fn share(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}

fn classes(counts: &Counts) -> Vec<ClassCounts> {
    let each = Class::ALL.into_iter().map(|class| (class, counts.class(class)));
    let sent = each.filter(|(_, tally)| tally.sent + tally.received > 0);
    sent.map(|(class, tally)| ClassCounts {
        class: class.name(),
        admitted: class.is_admitted(),
        counts: tally.into(),
    })
    .collect()
}

fn latency(counts: &Counts, clock: &Clock) -> Option<Latency> {
    let histogram = &counts.latency;
    let at = |quantile: f64| clock.nanos(histogram.value_at_quantile(quantile));
    (!histogram.is_empty()).then(|| Latency {
        samples: histogram.len(),
        min: clock.nanos(histogram.min()),
        mean: clock.nanos(histogram.mean() as u64),
        p50: at(0.5),
        p90: at(0.9),
        p99: at(0.99),
        p99_9: at(0.999),
        p99_99: at(0.9999),
        max: clock.nanos(histogram.max()),
    })
}
