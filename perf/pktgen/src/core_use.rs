//! Whether the generator had its core to itself: what others took of it makes a rate lower and a
//! loss larger than what is tested is to blame for.

use std::fs;

use serde::Serialize;

/// What the generating thread's core did for others while it measured.
#[derive(Clone, Copy, Debug, Serialize, PartialEq, Eq)]
pub struct CoreUse {
    /// Which core.
    pub core: usize,
    /// Times that the thread had to leave it to another one.
    pub interruptions: u64,
    /// Milliseconds that the hypervisor gave to other machines.
    pub stolen_ms: u64,
}

/// The counters at a moment.
pub struct Watch {
    core: usize,
    interruptions: u64,
    stolen: u64,
}

/// Milliseconds of a tick of /proc/stat (`USER_HZ` is 100).
const TICK_MS: u64 = 10;

impl Watch {
    /// Begins, on the thread that generates.
    pub fn begin(core: usize) -> Watch {
        let (status, stat) = read();
        Watch { core, interruptions: interruptions(&status), stolen: stolen(&stat, core) }
    }

    /// Ends, on the same thread.
    pub fn end(self) -> CoreUse {
        let (status, stat) = read();
        CoreUse {
            core: self.core,
            interruptions: interruptions(&status).saturating_sub(self.interruptions),
            stolen_ms: stolen(&stat, self.core).saturating_sub(self.stolen) * TICK_MS,
        }
    }
}

fn read() -> (String, String) {
    ["/proc/thread-self/status", "/proc/stat"].map(|path| fs::read_to_string(path).unwrap_or_default()).into()
}

/// The thread's involuntary context switches, by its status.
fn interruptions(status: &str) -> u64 {
    let line = status.lines().find_map(|line| line.strip_prefix("nonvoluntary_ctxt_switches:"));
    line.and_then(|number| number.trim().parse().ok()).unwrap_or(0)
}

/// Ticks that were stolen of a core: the eighth number of its line.
fn stolen(stat: &str, core: usize) -> u64 {
    let head = format!("cpu{core} ");
    let line = stat.lines().find_map(|line| line.strip_prefix(&head));
    line.and_then(|numbers| numbers.split_whitespace().nth(7)?.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_numbers_are_read_where_they_stand() {
        let status = "Name:\tx\nvoluntary_ctxt_switches:\t7\nnonvoluntary_ctxt_switches:\t42\n";
        assert_eq!((interruptions(status), interruptions("")), (42, 0));
        let stat =
            "cpu  1 2 3 4 5 6 7 8 9 10\ncpu1 11 12 13 14 15 16 17 18 19 20\ncpu10 0 0 0 0 0 0 0 99 0 0\n";
        assert_eq!([0, 1, 10].map(|core| stolen(stat, core)), [0, 18, 99]);
    }

    #[test]
    fn a_thread_that_others_push_off_its_core_knows_it() {
        let watch = Watch::begin(0);
        let core = core_affinity::get_core_ids().unwrap()[0];
        let stop = std::sync::atomic::AtomicBool::new(false);
        let spin = || {
            core_affinity::set_for_current(core);
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                std::hint::spin_loop();
            }
        };
        let used = std::thread::scope(|scope| {
            scope.spawn(spin);
            let measured = scope.spawn(|| {
                core_affinity::set_for_current(core);
                let watch = Watch::begin(core.id);
                let begin = std::time::Instant::now();
                while begin.elapsed().as_millis() < 300 {}
                watch.end()
            });
            let used = measured.join().unwrap();
            stop.store(true, std::sync::atomic::Ordering::Relaxed);
            used
        });
        assert!(used.interruptions > 0, "{used:?}");
        assert_eq!(watch.end().core, 0);
    }
}
