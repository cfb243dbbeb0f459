//! Which of DPDK's arguments are ours to give.

/// Options by which DPDK chooses cores; `[workers] cores` does that.
const LONG: [&str; 3] = ["lcores", "main-lcore", "master-lcore"];
/// The same for options of one letter: core lists, core masks and service cores.
const SHORT: [char; 4] = ['l', 'c', 's', 'S'];
/// DPDK's options of one letter without a value, behind which another may follow in the same argument.
const FLAGS: [char; 2] = ['v', 'h'];

/// Whether DPDK would take the argument for a choice of cores, in any form that getopt reads: `-l`, `-l1`, `--lcores`,
/// `--lcores=1`, `--lco=1`.
pub(super) fn chooses_cores(arg: &str) -> bool {
    if let Some(long) = arg.strip_prefix("--") {
        let name = long.split('=').next().unwrap_or_default();
        // getopt takes an abbreviation; a single letter of these is ambiguous, and refused by DPDK itself.
        return name.len() > 1 && LONG.iter().any(|option| option.starts_with(name));
    }
    arg.strip_prefix('-').is_some_and(|short| short.trim_start_matches(FLAGS).starts_with(SHORT))
}

#[cfg(test)]
mod tests {
    use super::chooses_cores;

    #[test]
    fn every_spelling_of_a_core_choice_is_seen() {
        for arg in ["-l", "-l1", "-l0-3", "-c", "-c0x3", "-vl1", "-s", "-S2", "--lcores", "--lcores=(0-1)@2"]
        {
            assert!(chooses_cores(arg), "{arg}");
        }
        for arg in ["--lco=1", "--main-lcore=1", "--main-lcore", "--main-l", "--master-lcore=0"] {
            assert!(chooses_cores(arg), "{arg}");
        }
    }

    #[test]
    fn other_arguments_are_left_alone() {
        for arg in
            ["--no-pci", "--vdev=net_null0", "-n4", "-a", "-a0000:00:01.0", "--log-level=lib.eal:debug"]
        {
            assert!(!chooses_cores(arg), "{arg}");
        }
        for arg in
            ["--legacy-mem", "-m", "--no-huge", "--file-prefix=l", "1", "", "-", "--", "--match-allocations"]
        {
            assert!(!chooses_cores(arg), "{arg}");
        }
    }
}
