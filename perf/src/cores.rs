//! Which core is measured.

use std::{fs, io};

use rustix::thread::sched_getaffinity;

/// The core for everything else, and the one that is measured, of those that this process may use.
/// Devices interrupt the measured one least: a disk that the control side writes to may have its
/// interrupts on any core, and often nobody can move them.
///
/// # Errors
/// If there is only one.
pub fn cores() -> io::Result<(usize, usize)> {
    let allowed = sched_getaffinity(None)?;
    let cores: Vec<usize> = (0..1024).filter(|&core| allowed.is_set(core)).collect();
    let interrupts = fs::read_to_string("/proc/interrupts").unwrap_or_default();
    divide(&cores, &interrupts)
        .ok_or_else(|| io::Error::other("a comparison needs two cores: one is polled without end"))
}

fn divide(cores: &[usize], interrupts: &str) -> Option<(usize, usize)> {
    let counts: Vec<_> = cores.iter().map(|&core| (of_devices(interrupts, core), core)).collect();
    // The last one of those that are alike.
    let (_, measured) = counts.iter().copied().min_by_key(|&(count, core)| (count, usize::MAX - core))?;
    let other = cores.iter().copied().find(|&core| core != measured)?;
    Some((other, measured))
}

/// Interrupts of devices on a core since the machine came up. In `/proc/interrupts` these have
/// numbers, others names; a column a core that is on.
fn of_devices(interrupts: &str, core: usize) -> u64 {
    let mut lines = interrupts.lines();
    let name = format!("CPU{core}");
    let Some(column) = lines.next().and_then(|head| head.split_whitespace().position(|cpu| cpu == name))
    else {
        return 0;
    };
    let count = |line: &str| {
        let (number, counts) = line.split_once(':')?;
        number.trim().parse::<u32>().ok()?;
        counts.split_whitespace().nth(column)?.parse::<u64>().ok()
    };
    lines.filter_map(count).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    const INTERRUPTS: &str = "           CPU0       CPU2       CPU3\n\
                              \x2024:        100          1          1   IO-APIC   5-edge      ACPI:Ged\n\
                              \x2036:          0     131417          2   PCI-MSIX-0000:00:02.0   1-edge      virtio1-req.0\n\
                              LOC:         10          0  900000   Local timer interrupts\n\
                              ERR:          0\n";

    #[test]
    fn devices_interrupts_are_told_from_the_systems_own() {
        assert_eq!([0, 2, 3].map(|core| of_devices(INTERRUPTS, core)), [100, 131_418, 3]);
        assert_eq!(of_devices(INTERRUPTS, 1), 0);
        assert_eq!(of_devices("", 0), 0);
    }

    #[test]
    fn the_quietest_core_is_measured_and_the_first_of_the_others_does_the_rest() {
        assert_eq!(divide(&[0, 2, 3], INTERRUPTS), Some((0, 3)));
        assert_eq!(divide(&[0, 2], INTERRUPTS), Some((2, 0)));
        assert_eq!(divide(&[0, 1, 2, 3], ""), Some((0, 3)));
        assert_eq!(divide(&[2], INTERRUPTS), None);
    }
}
