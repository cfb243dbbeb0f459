//! Time in ticks of an eighth of a second, as deadlines count it.

/// Nanoseconds of one tick.
pub const TICK_NS: u64 = 125_000_000;

/// The tick that a clock begins with: near the wrap, so that every test and every run crosses it.
pub const FIRST_TICK: u32 = 0u32.wrapping_sub(64);

/// Ticks of one second.
pub const TICKS_PER_SECOND: u32 = 8;

/// A moment: the tick it lies in, and the tick that a timeout counted from it is rounded up to, so
/// that nothing ends early and everything at most one tick late (semantics 4.2 allows four).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[repr(C)]
pub struct Now {
    /// The tick that has begun.
    pub tick: u32,
    /// `tick`, or the next one if some of it has passed already.
    pub ceil: u32,
}

/// True if `a` is at or behind `b` on the wrapping line of ticks. Right as long as the two lie less
/// than 8 years apart, which [`Clock`] and the timer wheel see to.
#[inline]
pub fn reached(now: u32, deadline: u32) -> bool {
    now.wrapping_sub(deadline) as i32 >= 0
}

/// Turns nanoseconds since any fixed moment into ticks that never run back, and never jump further
/// than any deadline can lie ahead: a clock that leaps a century ends every connection, and wraps
/// nothing.
#[derive(Clone, Debug)]
pub struct Clock {
    last_ns: u64,
    tick_start_ns: u64,
    tick: u32,
    leap: u32,
    /// The tick from which on ticks stand for their nanoseconds again, and the moment before the
    /// last leap.
    leapt: (u32, Moment),
    /// Ticks left out by leaps.
    lag: u64,
}

/// A tick, and the nanosecond at which it begins.
#[derive(Clone, Copy, Debug, Default)]
struct Moment {
    tick: u32,
    ns: u64,
}

/// What turns ticks back into nanoseconds.
#[derive(Clone, Copy, Debug, Default)]
pub struct Anchor {
    /// The present tick.
    pub tick: u32,
    ns: u64,
    leapt: (u32, Moment),
}

impl Anchor {
    /// When a tick began that lies no further back than the longest timeout.
    pub fn ns_of(&self, tick: u32) -> u64 {
        let Anchor { leapt: (end, before), .. } = *self;
        let is_before = !reached(tick, end);
        let (from, ns) = if is_before { (before.tick, before.ns) } else { (self.tick, self.ns) };
        let ticks = i64::from(tick.wrapping_sub(from) as i32);
        ns.saturating_add_signed(ticks * TICK_NS as i64)
    }
}

impl Clock {
    /// `longest` is the longest timeout, in ticks.
    pub fn new(longest: u32) -> Clock {
        let tick = FIRST_TICK;
        let leapt = (tick, Moment { tick, ns: 0 });
        Clock { last_ns: 0, tick_start_ns: 0, tick, leap: longest.saturating_add(2), leapt, lag: 0 }
    }

    /// The moment `ns`; an earlier one than the last counts as the last.
    #[inline]
    pub fn at(&mut self, ns: u64) -> Now {
        let ns = ns.max(self.last_ns);
        self.last_ns = ns;
        if ns - self.tick_start_ns >= TICK_NS {
            self.advance(ns);
        }
        Now { tick: self.tick, ceil: self.tick.wrapping_add(u32::from(ns > self.tick_start_ns)) }
    }

    #[cold]
    fn advance(&mut self, ns: u64) {
        let ticks = (ns - self.tick_start_ns) / TICK_NS;
        let before = Moment { tick: self.tick, ns: self.tick_start_ns };
        self.tick_start_ns += ticks * TICK_NS;
        self.tick = self.tick.wrapping_add(ticks.min(u64::from(self.leap)) as u32);
        if ticks > u64::from(self.leap) {
            self.leapt = (self.tick, before);
            self.lag += ticks - u64::from(self.leap);
        }
    }

    /// What turns its ticks back into nanoseconds.
    #[inline]
    pub fn anchor(&self) -> Anchor {
        Anchor { tick: self.tick, ns: self.tick_start_ns, leapt: self.leapt }
    }

    /// Ticks that its leaps have left out in all.
    pub fn lag(&self) -> u64 {
        self.lag
    }

    /// The last moment asked for.
    pub fn last_ns(&self) -> u64 {
        self.last_ns
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timeout_never_ends_early_and_at_most_a_tick_late() {
        let mut clock = Clock::new(80_000);
        for start in [0, 1, TICK_NS - 1, TICK_NS, 5 * TICK_NS + 17] {
            let mut clock = clock.clone();
            let deadline = clock.at(start).ceil.wrapping_add(30 * TICKS_PER_SECOND);
            let end = start + 30_000_000_000;
            assert!(!reached(clock.at(end - 1).tick, deadline));
            assert!(reached(clock.at(end + TICK_NS).tick, deadline));
        }
        assert_eq!(clock.at(0).tick, 0u32.wrapping_sub(64));
    }

    #[test]
    fn a_leap_of_a_century_passes_every_deadline_and_wraps_none() {
        let mut clock = Clock::new(80_000);
        let deadline = clock.at(5).ceil.wrapping_add(80_000);
        assert!(reached(clock.at(100 * 365 * 86_400_000_000_000).tick, deadline));
    }

    #[test]
    fn ticks_turn_back_into_nanoseconds_across_leaps_too() {
        let mut clock = Clock::new(80);
        let mut seen = Vec::new();
        for ns in [7, 3 * TICK_NS, 80 * TICK_NS + 5, 1_000_000 * TICK_NS, 1_000_003 * TICK_NS + 1] {
            seen.push((clock.at(ns).tick, ns / TICK_NS * TICK_NS));
        }
        let anchor = clock.anchor();
        for (tick, ns) in seen {
            assert_eq!(anchor.ns_of(tick), ns);
        }
    }

    #[test]
    fn time_does_not_run_back() {
        let mut clock = Clock::new(80_000);
        let later = clock.at(10 * TICK_NS);
        assert_eq!(clock.at(3), later);
    }
}
