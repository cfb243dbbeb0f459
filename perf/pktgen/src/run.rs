//! A run: warm-up, measurement, report.

use std::time::Duration;

use crate::clock::Clock;
use crate::drive::{Ended, Measured, Phase, drive};
use crate::monitor::Monitor;
use crate::plan::{Mode, Plan, Rate};
use crate::play::{Playback, Reels, Timing};
use crate::port::{Port, Ports};
use crate::report::{Context, Report, share};
use crate::search::{Search, Trial, search};
use crate::source::Source;
use crate::stateful::Stateful;
use crate::stateless::Stateless;

/// Sends what the plan says over the ports, measures, and tells the result. The calling thread
/// polls the ports until the end; pin it to a core of its own. `monitor` shows others how far it
/// is, and lets them end it early, with its result.
pub fn run<P: Port>(ports: &mut Ports<P>, plan: &Plan, monitor: &Monitor) -> Report {
    let mut generator = Generator::new(plan);
    generator.warm_up(ports, monitor);
    generator.measure(ports, monitor)
}

/// Traffic that goes on over several measurements.
pub struct Generator {
    plan: Plan,
    clock: Clock,
    traffic: Traffic,
    epoch: u8,
}

enum Traffic {
    Stateless(Box<Stateless>),
    Stateful(Box<Stateful>),
    Playback(Playback),
}

impl Generator {
    /// Makes templates and room for all flows; nothing is sent yet.
    pub fn new(plan: &Plan) -> Generator {
        let clock = Clock::calibrate();
        let traffic = match plan.mode {
            Mode::Stateless => Traffic::Stateless(Box::new(Stateless::new(plan))),
            Mode::Stateful => Traffic::Stateful(Box::new(Stateful::new(plan, &clock))),
        };
        Generator { plan: plan.clone(), clock, traffic, epoch: 0 }
    }

    /// Plays captures instead; of the plan rate, times and count hold. With the original timing its
    /// rate does not.
    pub fn play(plan: &Plan, reels: Reels, timing: Timing, loops: u64) -> Generator {
        let clock = Clock::calibrate();
        let mut plan = plan.clone();
        if timing == Timing::Original {
            plan = plan.without_rate();
        }
        let traffic = Traffic::Playback(Playback::new(reels, timing, loops, &clock));
        Generator { plan, clock, traffic, epoch: 0 }
    }

    /// What a cycle is worth.
    pub fn clock(&self) -> &Clock {
        &self.clock
    }

    /// Sends for the plan's warm-up, if it has one, and counts nothing.
    pub fn warm_up<P: Port>(&mut self, ports: &mut Ports<P>, monitor: &Monitor) {
        if self.plan.warmup > Duration::ZERO {
            let phase = Phase { duration: Some(self.plan.warmup), count: None, ..self.phase() };
            self.drive(ports, &phase, monitor);
        }
    }

    /// Sends what the plan says, and tells the result.
    pub fn measure<P: Port>(&mut self, ports: &mut Ports<P>, monitor: &Monitor) -> Report {
        let phase = self.phase();
        let measured = self.drive(ports, &phase, monitor);
        Report::new(&measured, &self.clock, &self.context())
    }

    /// Sends at this rate for so long, whatever the plan says of both.
    pub fn trial<P: Port>(
        &mut self,
        ports: &mut Ports<P>,
        pps: f64,
        duration: Duration,
        monitor: &Monitor,
    ) -> Measured {
        let phase = Phase { rate: Rate::Pps(pps), duration: Some(duration), count: None, ..self.phase() };
        self.drive(ports, &phase, monitor)
    }

    /// Searches the highest rates with no (`ndr`) and little (`pdr`) loss, in trials of this
    /// length. The report is of one trial more at the rate found, or of the last one if none was
    /// found, and holds the search.
    pub fn search<P: Port>(
        &mut self,
        ports: &mut Ports<P>,
        wanted: &Search,
        (ndr, pdr): (bool, bool),
        trial: Duration,
        monitor: &Monitor,
    ) -> Report {
        let (mut number, mut last) = (0, None);
        let found = search(wanted, ndr, pdr, |pps| {
            if monitor.is_stopped() {
                return None;
            }
            number += 1;
            monitor.begin_trial(number);
            let measured = self.trial(ports, pps, trial, monitor);
            let told = (measured.ended != Ended::Stopped).then(|| summary(&measured, pps, &self.clock));
            last = Some((pps, measured));
            told
        });
        let rate = [found.ndr, found.pdr].into_iter().flatten().find_map(|found| found.pps);
        if let Some(pps) = rate.filter(|_| !monitor.is_stopped()) {
            last = Some((pps, self.trial(ports, pps, trial, monitor)));
        }
        let (pps, measured) = last
            .unwrap_or_else(|| (wanted.max_pps, self.trial(ports, wanted.max_pps, Duration::ZERO, monitor)));
        let context = Context { asked_pps: Some(pps), ..self.context() };
        Report { search: Some(found), ..Report::new(&measured, &self.clock, &context) }
    }

    /// What the report says of the plan.
    pub fn context(&self) -> Context {
        let asked_pps = match self.plan.rate {
            Rate::Pps(pps) => Some(pps),
            Rate::Unlimited => None,
        };
        match self.traffic {
            Traffic::Stateless(_) => Context { mode: "stateless", asked_pps, has_connections: false },
            Traffic::Stateful(_) => Context { mode: "stateful", asked_pps, has_connections: true },
            Traffic::Playback(_) => Context { mode: "capture", asked_pps, has_connections: false },
        }
    }

    fn phase(&self) -> Phase {
        Phase {
            rate: self.plan.rate,
            catch_up: self.plan.catch_up,
            duration: self.plan.duration,
            count: self.plan.count,
            drain: self.plan.drain,
        }
    }

    fn drive<P: Port>(&mut self, ports: &mut Ports<P>, phase: &Phase, monitor: &Monitor) -> Measured {
        self.epoch = self.epoch.wrapping_add(1);
        match &mut self.traffic {
            Traffic::Stateless(source) => {
                source.begin(self.epoch);
                drive(ports, &mut **source, phase, &self.clock, monitor)
            }
            Traffic::Stateful(source) => {
                source.begin(self.epoch);
                drive(ports, &mut **source, phase, &self.clock, monitor)
            }
            Traffic::Playback(source) => {
                source.begin(self.epoch);
                drive(ports, source, phase, &self.clock, monitor)
            }
        }
    }
}

/// A trial in one line. What the ports did not take in time is lost: whoever is tested did not
/// fetch it.
fn summary(measured: &Measured, pps: f64, clock: &Clock) -> Trial {
    let (admitted, total) = (measured.counts.admitted(), measured.counts.total());
    let (offered, lost) = (admitted.sent + measured.blocked, admitted.lost() + measured.blocked);
    let seconds = clock.seconds(measured.cycles).max(1e-9);
    let sent_pps = total.sent as f64 / seconds;
    Trial { pps, sent_pps, offered, lost, loss: share(lost, offered), skipped_late: measured.late }
}
