//! The workers' cores, the clock and the kernel.

use super::MachineCheck;
use crate::machine::listed;

const ISOLATION: &str = "isolation";
const INTERRUPTS: &str = "interrupts";
const GOVERNOR: &str = "governor";
const CLOCK: &str = "clock";
const TIME: &str = "time";
const KERNEL: &str = "kernel";
/// Interrupts that are told of one core.
const TOLD: usize = 3;
/// Clocks that are read without entering the kernel.
const FAST: [&str; 3] = ["tsc", "kvm-clock", "arch_sys_counter"];
/// The oldest kernel that this was tried with.
const OLDEST: (u32, u32) = (5, 10);

impl MachineCheck<'_> {
    pub(super) fn cores(&mut self) {
        let cores = self.config.workers.cores.clone();
        let isolated = self.machine.cores("devices/system/cpu/isolated");
        if self.checked.is_none() {
            let told = self.machine.sys_text("devices/system/cpu/isolated").filter(|text| !text.is_empty());
            let told = told.map_or_else(
                || "no core is isolated".to_owned(),
                |list| format!("cores {list} are isolated"),
            );
            self.ok(ISOLATION, None, told);
        }
        let online = self.machine.cores("devices/system/cpu/online");
        for core in &cores {
            let on = Some(format!("core {core}"));
            if isolated.contains(core) {
                self.ok(ISOLATION, on.clone(), "it is isolated");
            } else {
                let found = "other programs run on it: it is not isolated";
                let cost = "a worker that is away from its core for milliseconds: latency, and full rings";
                let cure =
                    format!("isolcpus={core} nohz_full={core} rcu_nocbs={core} on the kernel's command line");
                self.warn(ISOLATION, on.clone(), found, (cost, cure));
            }
            self.sibling(*core, &cores);
        }
        if !online.is_empty() && online.iter().all(|core| cores.contains(core)) {
            let found = "workers have every core: the control side runs on theirs";
            let cost = "each change and each client takes a worker's time";
            self.warn(ISOLATION, None, found, (cost, "leave one core out of [workers] cores"));
        }
        self.interrupts(&cores, &online);
        self.governor(if cores.is_empty() { &online } else { &cores });
    }

    /// Two threads of one core share what a worker wants for itself.
    fn sibling(&mut self, core: usize, cores: &[usize]) {
        let siblings =
            self.machine.cores(&format!("devices/system/cpu/cpu{core}/topology/thread_siblings_list"));
        let other = cores.iter().find(|other| **other > core && siblings.contains(other));
        if let Some(other) = other {
            let found = format!("it and core {other} are threads of one core, and both have a worker");
            let cost = "two workers share one core's units: little more than one has alone";
            self.warn(
                ISOLATION,
                Some(format!("core {core}")),
                found,
                (cost, "one worker a core: leave one of them out"),
            );
        }
    }

    fn interrupts(&mut self, cores: &[usize], online: &[usize]) {
        let Some(table) = self.machine.proc_text("interrupts") else { return };
        let mut lines = table.lines();
        let head: Vec<usize> = lines
            .next()
            .unwrap_or_default()
            .split_whitespace()
            .filter_map(|word| word.strip_prefix("CPU")?.parse().ok())
            .collect();
        let rows: Vec<Vec<&str>> = lines.map(|line| line.split_whitespace().collect()).collect();
        for core in cores {
            let Some(column) = head.iter().position(|of| of == core) else { continue };
            let mut found: Vec<(u64, u32, String)> =
                rows.iter().filter_map(|row| self.of_core(row, *core, column)).collect();
            found.sort_by(|a, b| b.cmp(a));
            let on = Some(format!("core {core}"));
            if found.is_empty() {
                self.ok(INTERRUPTS, on, "no device interrupts it");
                continue;
            }
            let told: Vec<String> = found
                .iter()
                .take(TOLD)
                .map(|(count, number, name)| format!("{number} ({name}, {count} so far)"))
                .collect();
            let more = if found.len() > TOLD {
                format!(" and {} others", found.len() - TOLD)
            } else {
                String::new()
            };
            let elsewhere = online.iter().find(|other| !cores.contains(other)).copied().unwrap_or_default();
            let numbers: Vec<String> = found.iter().map(|(_, number, _)| number.to_string()).collect();
            let cure = format!(
                "`for i in {}; do echo {elsewhere} >/proc/irq/$i/smp_affinity_list; done`, and IRQBALANCE_BANNED_CPULIST={core} \
                 where irqbalance runs",
                numbers.join(" ")
            );
            let found = format!("devices interrupt it: {}{more}", told.join(", "));
            self.warn(
                INTERRUPTS,
                on,
                found,
                ("a burst waits for tens of microseconds at each of them", cure),
            );
        }
    }

    /// An interrupt that a core gets: how often it did, its number, and whose it is.
    fn of_core(&self, row: &[&str], core: usize, column: usize) -> Option<(u64, u32, String)> {
        let number: u32 = row.first()?.strip_suffix(':')?.parse().ok()?;
        let count: u64 = row.get(column + 1)?.parse().ok()?;
        let affinity = self.machine.proc_text(format!("irq/{number}/effective_affinity_list"));
        let is_its = affinity.is_none_or(|list| listed(&list).contains(&core));
        (count > 0 && is_its).then(|| (count, number, (*row.last().unwrap_or(&"")).to_owned()))
    }

    fn governor(&mut self, cores: &[usize]) {
        let of = |core: &usize| {
            let governor =
                self.machine.sys_text(format!("devices/system/cpu/cpu{core}/cpufreq/scaling_governor"))?;
            Some((*core, governor))
        };
        let found: Vec<(usize, String)> = cores.iter().filter_map(of).collect();
        let slow: Vec<String> = found
            .iter()
            .filter(|(_, governor)| governor != "performance")
            .map(|(core, governor)| format!("core {core}: {governor}"))
            .collect();
        if !slow.is_empty() {
            let list: Vec<String> = found.iter().map(|(core, _)| core.to_string()).collect();
            let cure = format!("`cpupower -c {} frequency-set -g performance`", list.join(","));
            let cost =
                "the core's clock follows a load that polling does not show: a third of the rate and more";
            self.warn(GOVERNOR, None, slow.join(", "), (cost, cure));
        } else if found.is_empty() {
            self.ok(GOVERNOR, None, "the kernel does not steer the cores' clocks");
        } else {
            self.ok(GOVERNOR, None, "performance");
        }
    }

    pub(super) fn clock(&mut self) {
        let directory = "devices/system/clocksource/clocksource0";
        let Some(source) = self.machine.sys_text(format!("{directory}/current_clocksource")) else { return };
        let flags = self.machine.proc_text("cpuinfo").unwrap_or_default();
        let has = |flag: &str| flags.split_whitespace().any(|word| word == flag);
        let available =
            self.machine.sys_text(format!("{directory}/available_clocksource")).unwrap_or_default();
        if !FAST.contains(&&*source) {
            let cure = if available.split(' ').any(|name| name == "tsc") {
                format!("`echo tsc >/sys/{directory}/current_clocksource`")
            } else {
                "tsc=reliable on the kernel's command line, where the machine's is".to_owned()
            };
            let found = format!("the kernel's clock is {source}");
            self.warn(CLOCK, None, found, ("each poll enters the kernel to read it: half of the rate", cure));
        } else if source == "tsc" && !(has("constant_tsc") && has("nonstop_tsc")) {
            let found = "the TSC is not constant or stops in deep sleep (flags constant_tsc, nonstop_tsc)";
            let cost = "times of DPDK's and of `show workers` are off";
            self.warn(CLOCK, None, found, (cost, "processor.max_cstate=1 on the kernel's command line"));
        } else {
            self.ok(CLOCK, None, source);
        }
        match self.machine.is_synchronised {
            Some(false) => {
                let cost = "stamps of logs, flow records and `--at` are off, and certificates may be refused";
                let cure = "`systemctl enable --now systemd-timesyncd`, or chrony";
                self.warn(TIME, None, "the wall clock follows no other", (cost, cure));
            }
            Some(true) => self.ok(TIME, None, "the wall clock is synchronised"),
            None => {}
        }
    }

    pub(super) fn kernel(&mut self) {
        let Some(release) = self.machine.proc_text("sys/kernel/osrelease") else { return };
        let mut numbers = release.split(['.', '-']).map_while(|part| part.parse::<u32>().ok());
        let version = (numbers.next().unwrap_or_default(), numbers.next().unwrap_or_default());
        let ports = self.ports();
        let xdp = ports.iter().any(|port| port.starts_with("net_af_xdp"));
        let found = format!("Linux {release}");
        let newer = "a newer kernel";
        if xdp && version < (5, 4) {
            return self.fail(KERNEL, None, format!("{found}: AF_XDP ports want 5.4"), newer);
        }
        for kind in ["net_af_xdp", "net_af_packet", "net_vhost"] {
            let wanted = ports.iter().any(|port| port.starts_with(kind));
            if wanted && self.machine.has_driver(kind) == Some(false) {
                let package = kind.replace('_', "-");
                let found = format!("DPDK's driver {kind} is not installed");
                self.fail(
                    KERNEL,
                    Some(kind.to_owned()),
                    found,
                    format!("`apt-get install librte-{package}23`"),
                );
            }
        }
        if version < OLDEST {
            let (major, minor) = OLDEST;
            let cost = "nobody has tried it: word of changed links and of peers' offloads may lack";
            self.warn(KERNEL, None, format!("{found}; the oldest tried is {major}.{minor}"), (cost, newer));
        } else {
            self.ok(KERNEL, None, found);
        }
    }
}
