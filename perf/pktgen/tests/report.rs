//! What a report says of a measurement whose every figure is known.

use engine::Side;
use pktgen::Report;
use pktgen::clock::Clock;
use pktgen::count::{Connections, Counts, Tally};
use pktgen::drive::{Ended, Measured};
use pktgen::report::{Context, TallyCounts};
use pktgen::tag::Class;
use serde_json::{Value, json};

/// Each of these quantiles is a value of its own: 50 %, 90 %, 99 %, 99.9 %, 99.99 % and one frame
/// more, in cycles.
const LATENCIES: [(u64, u64); 7] = [
    (1, 500),
    (5_000, 5_000),
    (4_000, 70_000),
    (900, 900_000),
    (90, 11_000_000),
    (8, 130_000_000),
    (1, 1_500_000_000),
];

/// A measurement in which no two figures are equal.
fn measured() -> Measured {
    let mut counts = Counts::default();
    let mut next = 1000;
    for class in [Class::Flow, Class::New, Class::Denied, Class::Hostile, Class::Flood] {
        for side in [Side::Inside, Side::Outside] {
            next += 101;
            *counts.of(class, side) = Tally {
                sent: next,
                sent_bytes: 100 * next + 1,
                received: next - 31,
                received_bytes: 90 * next + 2,
                duplicates: 7 + next % 5,
                reordered: 13 + next % 7,
            };
        }
    }
    counts.unexpected.foreign = 3;
    counts.unexpected.misdirected = 50;
    counts.unexpected.stale = 700;
    counts.refused = 4321;
    counts.connections = Connections {
        opened: 11,
        established: 12,
        closed: 14,
        reset: 18,
        failed: 26,
        retransmits: 42,
        requests: 74,
        responses: 138,
        timeouts: 266,
    };
    for (samples, cycles) in LATENCIES {
        (0..samples).for_each(|_| counts.note_latency(cycles));
    }
    Measured {
        counts,
        cycles: 5_000_000_000,
        planned: Some(99_999),
        late: 88,
        blocked: 77,
        ended: Ended::Stopped,
    }
}

#[test]
fn every_field_of_the_report_has_the_figure_that_it_is_named_after() {
    let context = Context { mode: "stateful", asked_pps: Some(123.0), has_connections: true };
    // Two and a half cycles a nanosecond: 2 s.
    let report = Report::new(&measured(), &Clock::with_hz(2.5e9), &context);
    let mut told = serde_json::to_value(&report).unwrap();
    let latency = told["latency_ns"].take();
    let tally = |sent: [u64; 2]| {
        let sum = |of: fn(u64) -> u64| sent.iter().map(|n| of(*n)).sum::<u64>();
        let (duplicates, reordered) = (sum(|n| 7 + n % 5), sum(|n| 13 + n % 7));
        let all = sum(|n| n);
        json!({ "sent": all, "received": all - 62, "lost": 62 + duplicates, "duplicates": duplicates, "reordered": reordered })
    };
    let class = |name: &str, admitted: bool, sent: [u64; 2]| {
        let mut value = tally(sent);
        value["class"] = name.into();
        value["admitted"] = admitted.into();
        value
    };
    // All numbers by hand: sent are 1101, 1202, … 2010, of each class inside and outside.
    let expected = json!({
        "mode": "stateful",
        "ended": "interrupted",
        "seconds": 2.0,
        "rate": {
            "asked_pps": 123.0,
            "sent_pps": 15_555.0 / 2.0,
            "received_pps": (15_555.0 - 310.0) / 2.0,
            "sent_bps": (100.0 * 15_555.0 + 10.0) * 4.0,
            "received_bps": (90.0 * 15_555.0 + 20.0) * 4.0,
        },
        "packets": {
            "planned": 99_999,
            "sent": 15_555,
            "received": 15_245,
            "lost": 4 * 31 + (8 + 9 + 10 + 11),
            "duplicates": told["packets"]["duplicates"],
            "reordered": told["packets"]["reordered"],
            "unexpected": { "total": 753, "foreign": 3, "misdirected": 50, "stale": 700 },
            "skipped_late": 88,
            "skipped_blocked": 77,
            "refused": 4321,
        },
        "loss": f64::from(4 * 31 + 38) / f64::from(1101 + 1202 + 1303 + 1404),
        "classes": [
            class("flows", true, [1101, 1202]),
            class("new", true, [1303, 1404]),
            class("denied", false, [1505, 1606]),
            class("hostile", false, [1707, 1808]),
            class("flood", false, [1909, 2010]),
        ],
        "directions": told["directions"],
        "latency_ns": null,
        "connections": {
            "opened": 11, "established": 12, "closed": 14, "reset": 18, "failed": 26,
            "retransmits": 42, "requests": 74, "responses": 138, "timeouts": 266,
        },
        "ports": [],
        "search": null,
        "core": null,
        "warnings": [],
    });
    assert_eq!(told, expected);
    let sums = |key: &str| -> u64 {
        let classes = told["classes"].as_array().unwrap();
        classes.iter().map(|class| class[key].as_u64().unwrap()).sum()
    };
    for key in ["sent", "received", "duplicates", "reordered"] {
        assert_eq!(told["packets"][key], sums(key), "{key}");
        let both: u64 =
            ["inbound", "outbound"].map(|way| told["directions"][way][key].as_u64().unwrap()).iter().sum();
        assert_eq!(both, sums(key), "{key}");
    }
    assert_eq!(told["directions"]["outbound"]["sent"], 1101 + 1303 + 1505 + 1707 + 1909);
    quantiles(&latency);
}

/// Two and a half cycles are a nanosecond; three digits are kept.
fn quantiles(latency: &Value) {
    assert_eq!(latency["samples"], 10_000);
    let sum: u64 = LATENCIES.iter().map(|(samples, cycles)| samples * cycles).sum();
    let expected = [
        ("min", 200.0),
        ("mean", sum as f64 / 10_000.0 / 2.5),
        ("p50", 2_000.0),
        ("p90", 28_000.0),
        ("p99", 360_000.0),
        ("p99_9", 4_400_000.0),
        ("p99_99", 52_000_000.0),
        ("max", 600_000_000.0),
    ];
    for (name, nanos) in expected {
        let told = latency[name].as_f64().unwrap();
        assert!((told - nanos).abs() <= nanos * 0.001 + 1.0, "{name}: {told}, not {nanos}");
    }
}

#[test]
fn a_run_in_which_nothing_came_has_no_latency_and_no_share_of_nothing() {
    let counts = Counts::default();
    let measured = Measured { counts, cycles: 0, planned: None, late: 0, blocked: 0, ended: Ended::Finished };
    let context = Context { mode: "capture", asked_pps: None, has_connections: false };
    let report = Report::new(&measured, &Clock::with_hz(1e9), &context);
    assert_eq!(
        (report.latency_ns, report.connections, report.loss, report.classes.len()),
        (None, None, 0.0, 0)
    );
    assert_eq!((report.rate.sent_pps, report.rate.sent_bps, report.ended), (0.0, 0.0, "finished"));
    assert_eq!(report.class(Class::Flow), counts_of_nothing());
}

fn counts_of_nothing() -> TallyCounts {
    TallyCounts { sent: 0, received: 0, lost: 0, duplicates: 0, reordered: 0 }
}
