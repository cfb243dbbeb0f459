//! What is measured of a rig with a generator: the highest rate without loss of each who forwards,
//! then how long frames take below it.

use std::io;
use std::time::Duration;

use serde_json::{Value, json};

use crate::floor::median;

/// Who forwards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Who {
    /// The firewall.
    Portcullis,
    /// Who knows of no connection: what receiving, touching a header and sending cost by
    /// themselves.
    Floor,
}

/// Both, in the order in which they take turns.
pub const BOTH: [Who; 2] = [Who::Portcullis, Who::Floor];

/// What the generator is to do.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Load {
    /// Search the highest rate without loss, in trials of this length, to a hundredth of `max_pps`.
    Search {
        /// The highest rate tried.
        max_pps: f64,
        /// The length of a trial.
        trial: Duration,
    },
    /// UDP both ways, of 64 bytes.
    Rate {
        /// Flows at once. A warm-up at this rate has to reach all of them.
        flows: u32,
        /// Packets a second, both ways together.
        pps: f64,
        /// For how long.
        time: Duration,
    },
    /// TCP, each connection from its handshake over three requests and answers to its end, at 4,000
    /// packets a second.
    Connections(u64),
}

/// Instances of the traffic.
pub const SERVERS: u32 = 64;
/// Flows at once, of what is measured.
pub const FLOWS: u32 = 10_000;
/// Sent before anything is counted: every flow is established by then.
pub const WARM_UP: Duration = Duration::from_millis(500);
/// What may be caught up with: the system takes the generator's core now and then, and it is not
/// the forwarder that is late then.
pub const CATCH_UP: Duration = Duration::from_millis(100);

/// Two cores: a generator on one, who forwards on the other.
pub trait Rig {
    /// Its name.
    fn name(&self) -> &'static str;

    /// What the floor is.
    fn floor(&self) -> &'static str;

    /// Has the generator do this through `who`; its result.
    fn generate(&mut self, who: Who, load: &Load) -> io::Result<Value>;
}

/// How long frames took, in nanoseconds, and what became of them.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Delay {
    /// The 50th, 99th and 99.9th of a hundred.
    pub percentiles: [f64; 3],
    /// Frames lost.
    pub lost: u64,
    /// The rate that was kept.
    pub sent_pps: f64,
}

/// What was measured of one who forwards.
#[derive(Clone, Debug, Default)]
pub struct Measured {
    /// Highest rates without loss, packets a second; 0 where even the lowest rate tried lost some.
    pub ndr: Vec<f64>,
    /// True if one of them is the highest rate tried.
    pub at_maximum: bool,
    /// At 80 % of its own.
    pub own: Vec<Delay>,
    /// At 80 % of the smaller one of both.
    pub common: Vec<Delay>,
}

/// How much is measured.
#[derive(Clone, Copy, Debug)]
pub struct Effort {
    /// Rounds, each of both in turn.
    pub rounds: u32,
    /// The highest rate tried.
    pub max_pps: f64,
    /// A trial of the search.
    pub trial: Duration,
    /// A measurement of latencies.
    pub time: Duration,
}

/// The part of the highest rate at which latencies are taken.
const SHARE: f64 = 0.8;

/// Measures both in turn. Progress goes to stderr.
pub fn measure(rig: &mut impl Rig, effort: &Effort) -> io::Result<[Measured; 2]> {
    let mut measured = [Measured::default(), Measured::default()];
    for round in 1..=effort.rounds {
        for (who, measured) in BOTH.into_iter().zip(&mut measured) {
            let load = Load::Search { max_pps: effort.max_pps, trial: effort.trial };
            let result = rig.generate(who, &load)?;
            let ndr = &result["search"]["ndr"];
            measured.ndr.push(ndr["pps"].as_f64().unwrap_or(0.0));
            measured.at_maximum |= ndr["at_maximum"] == true;
            eprintln!("{} {round}: {who:?} {:.2} Mpps", rig.name(), ndr["pps"].as_f64().unwrap_or(0.0) / 1e6);
        }
    }
    let ndr = [0, 1].map(|at| median(&measured[at].ndr));
    let common = ndr[0].min(ndr[1]);
    for round in 1..=effort.rounds {
        for ((who, measured), own) in BOTH.into_iter().zip(&mut measured).zip(ndr) {
            for (pps, into) in [(own, &mut measured.own), (common, &mut measured.common)] {
                let load = Load::Rate { flows: FLOWS, pps: SHARE * pps, time: effort.time };
                let delay = delay(&rig.generate(who, &load)?)?;
                eprintln!("{} {round}: {who:?} at {:.2} Mpps: {delay:?}", rig.name(), SHARE * pps / 1e6);
                into.push(delay);
            }
        }
    }
    Ok(measured)
}

fn delay(result: &Value) -> io::Result<Delay> {
    let latency = &result["latency_ns"];
    let of = |key: &str| {
        latency[key].as_f64().ok_or_else(|| io::Error::other(format!("no frame came through: {result}")))
    };
    Ok(Delay {
        percentiles: [of("p50")?, of("p99")?, of("p99_9")?],
        lost: result["packets"]["lost"].as_u64().unwrap_or(0),
        sent_pps: result["rate"]["sent_pps"].as_f64().unwrap_or(0.0),
    })
}

/// Medians of the percentiles.
pub fn medians(delays: &[Delay]) -> [f64; 3] {
    [0, 1, 2].map(|at| median(&delays.iter().map(|delay| delay.percentiles[at]).collect::<Vec<_>>()))
}

impl Measured {
    /// As an object.
    pub fn json(&self) -> Value {
        let delays = |delays: &[Delay]| {
            let [p50, p99, p99_9] = medians(delays);
            let lost: u64 = delays.iter().map(|delay| delay.lost).sum();
            let sent = median(&delays.iter().map(|delay| delay.sent_pps).collect::<Vec<_>>());
            json!({"p50_ns": p50, "p99_ns": p99, "p99_9_ns": p99_9, "lost": lost, "sent_mpps": sent / 1e6})
        };
        json!({
            "ndr_mpps": median(&self.ndr) / 1e6,
            "ndr_rounds_mpps": self.ndr.iter().map(|pps| pps / 1e6).collect::<Vec<_>>(),
            "at_maximum": self.at_maximum,
            "at_80_of_own": delays(&self.own),
            "at_80_of_smaller": delays(&self.common),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Carries 4 Mpps as the firewall and 5 Mpps as the floor; 1 and 0.5 microseconds.
    struct Told(Vec<(Who, Load)>);

    impl Rig for Told {
        fn name(&self) -> &'static str {
            "told"
        }

        fn floor(&self) -> &'static str {
            "nothing"
        }

        fn generate(&mut self, who: Who, load: &Load) -> io::Result<Value> {
            self.0.push((who, *load));
            let (pps, ns) = if who == Who::Portcullis { (4e6, 1000) } else { (5e6, 500) };
            Ok(json!({
                "search": {"ndr": {"pps": pps, "at_maximum": false}},
                "latency_ns": {"p50": ns, "p99": 2 * ns, "p99_9": 3 * ns},
                "packets": {"lost": 1}, "rate": {"sent_pps": pps},
            }))
        }
    }

    #[test]
    fn latencies_are_taken_at_four_fifths_of_its_own_and_of_the_smaller_rate() {
        let second = Duration::from_secs(1);
        let effort = Effort { rounds: 3, max_pps: 1e7, trial: second, time: second };
        let mut rig = Told(Vec::new());
        let [ours, floor] = measure(&mut rig, &effort).unwrap();
        let rates: Vec<f64> = rig
            .0
            .iter()
            .filter_map(|(_, load)| match load {
                Load::Rate { pps, .. } => Some(*pps),
                _ => None,
            })
            .collect();
        assert_eq!(rates, [3.2e6, 3.2e6, 4e6, 3.2e6].repeat(3));
        assert_eq!((ours.ndr.len(), ours.own.len(), floor.common.len()), (3, 3, 3));
        assert_eq!(medians(&floor.common), [500.0, 1000.0, 1500.0]);
        assert_eq!(ours.json()["at_80_of_own"]["lost"], 3);
    }
}
