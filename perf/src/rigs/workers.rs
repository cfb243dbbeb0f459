//! Two workers against one: each polls `net_pcap` queues of its own, with its own frames or with
//! the other's. Beside it `dpdk-testpmd` on one core and on two, which share nothing: what the
//! machine itself gives.

use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use core_affinity::CoreId;
use crossbeam::utils::CachePadded;
use rustix::time::{ClockId, Timespec, clock_gettime};
use serde_json::{Value, json};

use super::captures::{self, Captures, POLICY, Spread};
use super::measure::Who;
use super::programs::{Bench, Sample};
use crate::floor::cpu::Cpu;
use crate::floor::{Rate, median};

const PORTS: [&str; 2] = ["net_pcap0", "net_pcap1"];

/// A case: who polls what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Case {
    /// Its name.
    pub name: &'static str,
    /// Who polls them.
    pub who: Who,
    /// What the queues bring.
    pub spread: Spread,
    /// Flows of all queues together, of this many of the usual flows: 1 or 2.
    pub flows_divided_by: u32,
}

/// One worker with all flows, the same with half of them, as each of two has, and two workers by
/// how much they hand off.
pub const CASES: [Case; 7] = [
    case("1 worker", Who::Portcullis, Spread::One, 1),
    case("1 worker, half of the flows", Who::Portcullis, Spread::One, 2),
    case("2 workers, by owner", Who::Portcullis, Spread::ByOwner, 1),
    case("2 workers, half handed off", Who::Portcullis, Spread::Crossed(4), 1),
    case("2 workers, all handed off", Who::Portcullis, Spread::Crossed(8), 1),
    case("testpmd 5tswap, 1 core", Who::Floor, Spread::One, 1),
    case("testpmd 5tswap, 2 cores", Who::Floor, Spread::ByOwner, 1),
];

const fn case(name: &'static str, who: Who, spread: Spread, flows_divided_by: u32) -> Case {
    Case { name, who, spread, flows_divided_by }
}

/// Until the first rounds through the captures are over, and caches and clocks have settled.
const SETTLE: Duration = Duration::from_millis(500);

/// What one case showed, round by round.
#[derive(Clone, Debug)]
pub struct Row {
    /// Which.
    pub case: Case,
    /// Its rates.
    pub rates: Vec<Rate>,
    /// Of the frames, the shares that found the ring to the other worker full.
    pub full: Vec<f64>,
    /// [`round_trip`] between the two cores, in ns: the longer of before and after.
    pub round_trips: Vec<f64>,
}

impl Row {
    /// The median of the rounds, in millions of packets a second.
    pub fn mpps(&self) -> f64 {
        median(&self.rates.iter().map(|rate| rate.mpps).collect::<Vec<_>>())
    }

    /// Its rate as a multiple of the same program's on one core.
    pub fn scaling(&self, rows: &[Row]) -> f64 {
        let base = rows.iter().find(|row| row.case.who == self.case.who);
        self.mpps() / base.map_or(f64::NAN, Row::mpps)
    }

    /// As an object.
    pub fn json(&self, rows: &[Row]) -> Value {
        json!({
            "case": self.case.name,
            "mpps": self.mpps(),
            "rounds_mpps": self.rates.iter().map(|rate| rate.mpps).collect::<Vec<_>>(),
            "cores": median(&self.rates.iter().map(|rate| rate.core_share).collect::<Vec<_>>()),
            "handoff_full": median(&self.full),
            "round_trips_ns": self.round_trips,
            "of_one_core": self.scaling(rows),
        })
    }
}

/// Measures all cases, a round each in turn. Progress goes to stderr.
pub fn measure(bench: &Bench, flows: u32, rounds: u32, time: Duration) -> io::Result<Vec<Row>> {
    let empty = |case| Row { case, rates: Vec::new(), full: Vec::new(), round_trips: Vec::new() };
    let mut rows: Vec<Row> = CASES.map(empty).into();
    let both = [bench.forwarder, bench.generator];
    for round in 1..=rounds {
        for row in &mut rows {
            let captures =
                captures::write(&bench.directory, row.case.spread, flows / row.case.flows_divided_by)?;
            let before = round_trip(both);
            let (rate, full) = match row.case.who {
                Who::Portcullis => rate(bench, row.case, &captures, time)?,
                Who::Floor => (floor(bench, row.case, &captures, time)?, 0.0),
            };
            let round_trip = before.max(round_trip(both));
            eprintln!(
                "workers {round}: {}: {:.2} Mpps, {:.2} cores, {round_trip:.0} ns between them",
                row.case.name, rate.mpps, rate.core_share
            );
            row.rates.push(rate);
            row.full.push(full);
            row.round_trips.push(round_trip);
        }
    }
    Ok(rows)
}

/// One worker on the forwarder's core, or two on both.
fn cores(bench: &Bench, spread: Spread) -> Vec<usize> {
    [bench.forwarder, bench.generator][..spread.queues()].to_vec()
}

fn rate(bench: &Bench, case: Case, captures: &Captures, time: Duration) -> io::Result<(Rate, f64)> {
    let cores = cores(bench, case.spread);
    let appliance = bench.appliance((PORTS, &captures.vdevs(true)), POLICY, &cores)?;
    appliance.wait_for("established connections", |sample| sample.established() > 0)?;
    thread::sleep(SETTLE);
    let (before, cpu) = (appliance.sample()?, Cpu::of(appliance.id())?);
    thread::sleep(time);
    let (after, core_share) = (appliance.sample()?, Cpu::of(appliance.id())?.share_since(cpu));
    appliance.stop()?;
    let of = |count: fn(&Sample) -> u64| count(&after) - count(&before);
    let (established, passed) = (of(Sample::established), of(|sample| sample.packets("pass")));
    let (dropped, full) = (of(|sample| sample.packets("drop")), of(|sample| sample.reason("handoff-full")));
    // Queues that never end bring more than a worker that is behind can take from the other: only
    // that may drop, and does not count.
    if (established, dropped) != (passed, full) {
        return Err(io::Error::other(format!(
            "{}: {} and then {}",
            case.name, before.counters, after.counters
        )));
    }
    let mpps = passed as f64 / (after.at - before.at).as_secs_f64() / 1e6;
    Ok((Rate { mpps, core_share }, dropped as f64 / (passed + dropped) as f64))
}

/// The same ports under `dpdk-testpmd`, which polls the same queues on the same cores.
fn floor(bench: &Bench, case: Case, captures: &Captures, time: Duration) -> io::Result<Rate> {
    let cores = cores(bench, case.spread);
    let queues = [("rxq", cores.len()), ("txq", cores.len())].map(|(what, n)| format!("--{what}={n}"));
    let testpmd = bench.testpmd(&captures.vdevs(true), "5tswap", &cores, &queues, 1)?;
    let rates = |wanted: usize| -> io::Result<Vec<f64>> {
        let until = Instant::now() + Duration::from_secs(20 + wanted as u64);
        loop {
            let rates = rates(&testpmd.stdout());
            if rates.len() >= wanted {
                return Ok(rates);
            }
            if Instant::now() > until {
                return Err(io::Error::other(format!("no rates from dpdk-testpmd:\n{}", testpmd.stdout())));
            }
            thread::sleep(Duration::from_millis(20));
        }
    };
    // The first reports are of its start.
    rates(2)?;
    let cpu = Cpu::of(testpmd.id())?;
    let told = rates(2 + time.as_secs().max(1) as usize)?;
    let core_share = Cpu::of(testpmd.id())?.share_since(cpu);
    testpmd.interrupt(Duration::from_secs(10))?;
    Ok(Rate { mpps: median(&told[2..]) / 1e6, core_share })
}

/// Packets a second sent by both ports, report by report.
fn rates(said: &str) -> Vec<f64> {
    let each = said
        .lines()
        .filter_map(|line| line.trim().strip_prefix("Tx-pps:")?.split_whitespace().next()?.parse().ok());
    each.collect::<Vec<f64>>().chunks_exact(2).map(|ports| ports.iter().sum()).collect()
}

/// How much more arithmetic two cores do than one, each in its own registers: cores of a virtual
/// machine may be threads of one core, or slow each other down by their heat, and no program scales
/// better than that.
pub fn arithmetic(cores: [usize; 2]) -> f64 {
    let alone = turns(cores[0]) + turns(cores[1]);
    let together: f64 = thread::scope(|scope| {
        let threads = cores.map(|core| scope.spawn(move || turns(core)));
        threads.map(|thread| thread.join().unwrap_or(f64::NAN)).iter().sum()
    });
    2.0 * together / alone
}

/// Nanoseconds that a cache line takes from one core to the other and back, the least of many
/// tries. A virtual machine's cores may lie on one cache or on two, and may be moved from one
/// second to the next: what two workers hand over goes this way.
pub fn round_trip(cores: [usize; 2]) -> f64 {
    const TRIES: usize = 100;
    const TRIPS: usize = 200;
    let ball = CachePadded::new(AtomicUsize::new(0));
    // Each waits for its own turn: even ones are the first's.
    let play = |core: usize, first: usize| {
        core_affinity::set_for_current(CoreId { id: core });
        let mut least = f64::INFINITY;
        let mut turns = (first..2 * TRIES * TRIPS).step_by(2);
        for _ in 0..TRIES {
            let begin = Instant::now();
            for turn in turns.by_ref().take(TRIPS) {
                while ball.load(Ordering::Acquire) != turn {
                    std::hint::spin_loop();
                }
                ball.store(turn + 1, Ordering::Release);
            }
            least = least.min(begin.elapsed().as_secs_f64() * 1e9 / TRIPS as f64);
        }
        least
    };
    thread::scope(|scope| {
        let threads = [0, 1].map(|first| scope.spawn(move || play(cores[first], first)));
        threads.map(|thread| thread.join().unwrap_or(f64::NAN)).into_iter().fold(f64::INFINITY, f64::min)
    })
}

/// Turns of a loop a second of this core.
fn turns(core: usize) -> f64 {
    const TURNS: u64 = 100_000_000;
    core_affinity::set_for_current(CoreId { id: core });
    let begin = clock_gettime(ClockId::ThreadCPUTime);
    // Eight chains, so that a turn is bound by what the core does at once.
    let mut chains = [1u64, 2, 3, 4, 5, 6, 7, 8];
    for turn in 0..TURNS {
        chains = std::hint::black_box(chains.map(|chain| chain.wrapping_mul(3).wrapping_add(turn)));
    }
    let end = clock_gettime(ClockId::ThreadCPUTime);
    let seconds = |time: Timespec| time.tv_sec as f64 + time.tv_nsec as f64 / 1e9;
    TURNS as f64 / (seconds(end) - seconds(begin))
}

/// Plays captures once through two workers: what each has to judge, and what the appliance counted.
pub fn count(bench: &Bench, spread: Spread, flows: u32) -> io::Result<([u64; 2], Sample)> {
    let captures = captures::write(&bench.directory, spread, flows)?;
    let frames = captures.flows.map(|by_queue| 2 * u64::from(by_queue.iter().sum::<u32>()));
    let appliance = bench.appliance((PORTS, &captures.vdevs(false)), POLICY, &cores(bench, spread))?;
    let sample = appliance.wait_for("all frames", |sample| sample.packets("in") == frames[0] + frames[1])?;
    appliance.stop()?;
    Ok((frames, sample))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_case_is_compared_with_its_own_program_on_one_core() {
        let row = |at: usize, mpps| Row {
            case: CASES[at],
            rates: vec![Rate { mpps, core_share: 1.0 }],
            full: vec![0.0],
            round_trips: vec![100.0],
        };
        let rows = [row(0, 10.0), row(2, 19.0), row(5, 30.0), row(6, 45.0)];
        assert_eq!(rows.each_ref().map(|row| row.scaling(&rows)), [1.0, 1.9, 1.0, 1.5]);
        assert_eq!(rates("  Tx-pps:   5   Tx-bps: 1\n Tx-pps: 7\n Tx-pps: 9\n"), [12.0]);
    }
}
