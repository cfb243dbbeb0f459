//! Time in cycles of the time stamp counter, and how many of them a second has.

use std::time::{Duration, Instant};

/// How long the counter is compared with the system's clock.
const CALIBRATION: Duration = Duration::from_millis(60);

/// The present cycle. One counter serves all cores of a machine with `constant_tsc`; elsewhere than
/// on x86-64 it is the system's clock in nanoseconds.
#[inline]
pub fn cycles() -> u64 {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: every x86-64 has the counter, and user code may read it.
    unsafe {
        core::arch::x86_64::_rdtsc()
    }
    #[cfg(not(target_arch = "x86_64"))]
    {
        use std::sync::LazyLock;
        static START: LazyLock<Instant> = LazyLock::new(Instant::now);
        START.elapsed().as_nanos() as u64
    }
}

/// What a cycle is worth.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Clock {
    hz: f64,
}

impl Clock {
    /// Compares the counter with the system's clock for 60 ms.
    pub fn calibrate() -> Clock {
        let (begin, first) = pair();
        std::thread::sleep(CALIBRATION);
        let (end, last) = pair();
        Clock { hz: (last - first) as f64 / (end - begin).as_secs_f64() }
    }

    /// With so many cycles a second.
    pub fn with_hz(hz: f64) -> Clock {
        Clock { hz }
    }

    /// Cycles a second.
    pub fn hz(&self) -> f64 {
        self.hz
    }

    /// Cycles of a time.
    pub fn cycles_of(&self, time: Duration) -> u64 {
        (time.as_secs_f64() * self.hz) as u64
    }

    /// Seconds of so many cycles.
    pub fn seconds(&self, cycles: u64) -> f64 {
        cycles as f64 / self.hz
    }

    /// Nanoseconds of so many cycles.
    pub fn nanos(&self, cycles: u64) -> u64 {
        (cycles as f64 * 1e9 / self.hz).round() as u64
    }
}

/// The same moment on both clocks: of several readings the one that took the fewest cycles, so that
/// nothing came between.
fn pair() -> (Instant, u64) {
    let readings = (0..32).map(|_| {
        let before = cycles();
        let now = Instant::now();
        let after = cycles();
        (after - before, now, before + (after - before) / 2)
    });
    let (_, now, cycle) = readings.min_by_key(|reading| reading.0).expect("32 readings");
    (now, cycle)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cycles_and_time_are_converted_both_ways() {
        let clock = Clock::with_hz(2.5e9);
        assert_eq!(clock.cycles_of(Duration::from_millis(2)), 5_000_000);
        assert_eq!((clock.seconds(5_000_000_000), clock.nanos(5)), (2.0, 2));
        assert!(Clock::calibrate().hz() > 1e8, "no counter is that slow");
        let before = cycles();
        assert!(cycles() >= before);
    }
}
