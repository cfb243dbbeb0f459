//! How much of a core a process had: on a machine that others use too, a rate means little without
//! it.

use std::{
    fs, io,
    time::{Duration, Instant},
};

/// Ticks a second in `/proc`, on every Linux that DPDK runs on.
const TICKS: f64 = 100.0;

/// A process's processor time at a moment.
#[derive(Clone, Copy, Debug)]
pub struct Cpu {
    at: Instant,
    used: Duration,
}

impl Cpu {
    /// Now.
    pub fn of(process: u32) -> io::Result<Cpu> {
        let stat = fs::read_to_string(format!("/proc/{process}/stat"))?;
        let ticks = ticks(&stat).ok_or_else(|| io::Error::other(format!("no times in {stat:?}")))?;
        Ok(Cpu { at: Instant::now(), used: Duration::from_secs_f64(ticks / TICKS) })
    }

    /// The share of one core that it had since then.
    pub fn share_since(self, before: Cpu) -> f64 {
        (self.used - before.used).as_secs_f64() / (self.at - before.at).as_secs_f64()
    }
}

/// User and system time. The name in parentheses may hold anything.
fn ticks(stat: &str) -> Option<f64> {
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    Some(fields.next()?.parse::<f64>().ok()? + fields.next()?.parse::<f64>().ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn user_and_system_time_add_up() {
        assert_eq!(ticks("7 (a ) b) R 1 2 3 4 5 6 7 8 9 10 300 40 0 0"), Some(340.0));
        assert!(Cpu::of(std::process::id()).is_ok());
    }
}
