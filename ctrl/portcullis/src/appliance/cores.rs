//! Which thread runs where: each worker on its core, everything else off these cores where there are others.

use control::config::Config;
use core_affinity::CoreId;
use rustix::thread::{CpuSet, sched_setaffinity};

/// The cores of this process, divided.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cores {
    /// One a worker.
    pub workers: Vec<usize>,
    /// The others; all of them where the workers leave none.
    pub control: Vec<usize>,
}

impl Cores {
    /// Divides what the system lets this process use; an error is one line about a core that is not there.
    pub fn divide(config: &Config) -> Result<Cores, String> {
        divide(&config.workers.cores, &there())
    }

    /// The workers' cores that are not there, by their places in the configuration; each with a line about it.
    pub fn missing(config: &Config) -> Vec<(usize, String)> {
        let there = there();
        let cores = config.workers.cores.iter().enumerate();
        cores
            .filter(|(_, core)| !there.contains(core))
            .map(|(at, core)| (at, absent(*core, &there)))
            .collect()
    }

    /// Keeps this thread, and those that it makes from now on, to the control side's cores.
    pub fn keep_to_control(&self) {
        let mut set = CpuSet::new();
        // More cores than the set holds would not be there to be divided.
        self.control.iter().filter(|core| **core < CpuSet::MAX_CPU).for_each(|core| set.set(*core));
        // Refused only if none of them is there any more; then it stays where it was.
        let _ = sched_setaffinity(None, &set);
    }
}

/// The cores that the system lets this process use.
pub fn there() -> Vec<usize> {
    core_affinity::get_core_ids().unwrap_or_default().iter().map(|core| core.id).collect()
}

fn absent(core: usize, there: &[usize]) -> String {
    let list: Vec<_> = there.iter().map(ToString::to_string).collect();
    format!("core {core} is not there; allowed: {}", list.join(", "))
}

fn divide(wanted: &[usize], there: &[usize]) -> Result<Cores, String> {
    if let Some(missing) = wanted.iter().find(|core| !there.contains(core)) {
        return Err(format!("workers.cores: {}", absent(*missing, there)));
    }
    let others: Vec<usize> = there.iter().filter(|core| !wanted.contains(core)).copied().collect();
    let control = if others.is_empty() { there.to_vec() } else { others };
    Ok(Cores { workers: wanted.to_vec(), control })
}

/// Pins this thread to one core; false if the system refuses.
pub fn pin(core: usize) -> bool {
    core_affinity::set_for_current(CoreId { id: core })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_control_side_keeps_off_the_workers_cores_where_it_can() {
        let cores =
            |workers: &[usize], control: &[usize]| Cores { workers: workers.into(), control: control.into() };
        assert_eq!(divide(&[1, 2], &[0, 1, 2, 3]), Ok(cores(&[1, 2], &[0, 3])));
        assert_eq!(divide(&[1, 0], &[0, 1]), Ok(cores(&[1, 0], &[0, 1])));
        let refused = divide(&[1, 9], &[0, 1]).unwrap_err();
        assert_eq!(refused, "workers.cores: core 9 is not there; allowed: 0, 1");
    }
}
