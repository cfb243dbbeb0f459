//! When frames are due. The schedule is absolute: frame number n is due n / rate after the start,
//! however late those before it were.

use std::time::Duration;

use crate::clock::Clock;
use crate::plan::Rate;

/// A schedule, and how far it is fulfilled.
#[derive(Clone, Debug)]
pub struct Pacer {
    start: u64,
    /// Frames a cycle; none if there is no limit.
    per_cycle: Option<f64>,
    /// Frames that may be caught up with.
    most_behind: u64,
    done: u64,
    late: u64,
    blocked: u64,
}

/// The least that may be caught up with, whatever the rate: a few bursts.
const BURSTS: u64 = 256;

impl Pacer {
    /// From cycle `start` on. What the schedule is behind by more than `catch_up` is skipped
    /// instead of sent in a flood.
    pub fn new(rate: Rate, catch_up: Duration, clock: &Clock, start: u64) -> Pacer {
        let (per_cycle, most_behind) = match rate {
            Rate::Unlimited => (None, 0),
            Rate::Pps(pps) => (Some(pps / clock.hz()), ((pps * catch_up.as_secs_f64()) as u64).max(BURSTS)),
        };
        Pacer { start, per_cycle, most_behind, done: 0, late: 0, blocked: 0 }
    }

    /// Frames that are due at cycle `now`. `blocked`: the ports took nothing lately, so that it is
    /// not the generator that is late.
    #[inline]
    pub fn due(&mut self, now: u64, blocked: bool) -> u64 {
        let Some(planned) = self.planned(now) else { return u64::MAX };
        let behind = planned.saturating_sub(self.done + self.skipped());
        if behind > self.most_behind {
            *(if blocked { &mut self.blocked } else { &mut self.late }) += behind - self.most_behind;
            return self.most_behind;
        }
        behind
    }

    /// Frames that were due by cycle `now`; `None` without a limit.
    #[inline]
    pub fn planned(&self, now: u64) -> Option<u64> {
        self.per_cycle.map(|per_cycle| (now.saturating_sub(self.start) as f64 * per_cycle) as u64)
    }

    /// One frame more is built.
    #[inline]
    pub fn done(&mut self) {
        self.done += 1;
    }

    /// Frames that were skipped since the generator was kept from its work.
    pub fn late(&self) -> u64 {
        self.late
    }

    /// Frames that were skipped since the ports did not take them in time.
    pub fn blocked(&self) -> u64 {
        self.blocked
    }

    fn skipped(&self) -> u64 {
        self.late + self.blocked
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pacer(pps: f64) -> Pacer {
        Pacer::new(Rate::Pps(pps), Duration::from_millis(1), &Clock::with_hz(1e9), 1000)
    }

    #[test]
    fn frames_are_due_by_an_absolute_schedule() {
        let mut pacer = pacer(1e6);
        assert_eq!((pacer.due(0, false), pacer.due(1000, false), pacer.due(1999, false)), (0, 0, 0));
        let mut sent = 0;
        for now in (1000..5_001_000).step_by(777) {
            for _ in 0..pacer.due(now, false) {
                pacer.done();
                sent += 1;
            }
            assert_eq!(Some(sent), pacer.planned(now));
        }
        assert_eq!((sent, pacer.late()), (4999, 0));
    }

    #[test]
    fn a_little_is_caught_up_with_and_the_rest_is_skipped_and_told() {
        let mut pacer = pacer(1e6);
        assert_eq!(pacer.due(501_000, false), 500);
        assert_eq!(pacer.due(3_001_000, false), 1000);
        assert_eq!((pacer.late(), pacer.blocked()), (2000, 0));
        assert_eq!(pacer.due(4_001_000, true), 1000);
        assert_eq!((pacer.late(), pacer.blocked()), (2000, 1000));
        (0..1000).for_each(|_| pacer.done());
        assert_eq!(pacer.due(4_001_000, false), 0);
        assert_eq!(pacer.due(4_006_000, false), 5);
    }

    #[test]
    fn answers_sent_out_of_turn_are_made_up_for() {
        let mut pacer = pacer(1e6);
        (0..10).for_each(|_| pacer.done());
        assert_eq!((pacer.due(6_000, false), pacer.due(12_000, false)), (0, 1));
    }

    #[test]
    fn without_a_limit_everything_is_due() {
        let mut pacer = Pacer::new(Rate::Unlimited, Duration::ZERO, &Clock::with_hz(1e9), 0);
        assert_eq!((pacer.due(5, false), pacer.planned(5)), (u64::MAX, None));
    }
}
