//! Huge pages, and where they lie.

use super::MachineCheck;
use crate::appliance::environment::Environment;
use crate::appliance::mtu;
use crate::machine::names;

const HUGE_PAGES: &str = "huge-pages";
/// What EAL and its devices take beside the pool of buffers.
const BESIDE: u64 = 64 << 20;

/// Huge pages of one size.
struct Pages {
    kilobytes: u64,
    all: u64,
    free: u64,
}

impl Pages {
    fn bytes(&self) -> u64 {
        (self.free * self.kilobytes) << 10
    }

    fn told(&self) -> String {
        let Pages { kilobytes, all, free } = self;
        let size = if *kilobytes >= 1 << 20 {
            format!("{} GB", kilobytes >> 20)
        } else {
            format!("{} MB", kilobytes >> 10)
        };
        format!("{all} huge pages of {size}, {free} free")
    }
}

impl MachineCheck<'_> {
    pub(super) fn memory(&mut self) {
        let has = |option: &str| {
            self.args().iter().any(|arg| arg == option || arg.starts_with(&format!("{option}=")))
        };
        let without = has("--no-huge");
        let wishes =
            ["--socket-mem", "--huge-dir", "--in-memory", "--legacy-mem"].iter().any(|wish| has(wish));
        let pages = self.pages("kernel/mm/hugepages");
        let (free, needed) = (pages.iter().map(Pages::bytes).sum::<u64>(), self.needed());
        let is_mounted = self
            .machine
            .proc_text("mounts")
            .is_some_and(|mounts| mounts.lines().any(|line| line.split(' ').nth(2) == Some("hugetlbfs")));
        let reserve = format!(
            "`sysctl -w vm.nr_hugepages={}`, and the same line in /etc/sysctl.d for the next start",
            needed.div_ceil(2 << 20)
        );
        let told: Vec<String> = pages.iter().filter(|pages| pages.all > 0).map(Pages::told).collect();
        let told = if told.is_empty() { "there are no huge pages".to_owned() } else { told.join("; ") };
        const COST: &str = "the appliance runs without them: more misses of the TLB, and no port that wants physical addresses";
        if self.runs {
            self.ok(HUGE_PAGES, None, format!("{told}; the running appliance has what it needs"));
        } else if free >= needed && is_mounted {
            self.ok(HUGE_PAGES, None, format!("{told}; {} MB are needed", needed >> 20));
        } else if without {
            self.warn(
                HUGE_PAGES,
                None,
                format!("eal.args says --no-huge; {told}"),
                (COST, format!("{reserve}; then take --no-huge out")),
            );
        } else if free > 0 && is_mounted && self.checked.is_some() {
            let short = format!("{told}; {} MB are needed", needed >> 20);
            self.fail(HUGE_PAGES, None, short, reserve);
        } else if wishes && self.checked.is_some() && !is_mounted {
            self.fail(
                HUGE_PAGES,
                None,
                format!("{told}, and eal.args asks for some"),
                self.mount(&reserve, free),
            );
        } else if wishes && self.checked.is_some() {
            self.fail(HUGE_PAGES, None, format!("{told}, and eal.args asks for some"), reserve);
        } else if !is_mounted && free > 0 {
            let cure = self.mount(&reserve, free);
            self.warn(HUGE_PAGES, None, format!("{told}, and no hugetlbfs is mounted"), (COST, cure));
        } else {
            self.warn(HUGE_PAGES, None, told, (COST, reserve));
        }
        self.nodes_memory();
    }

    fn mount(&self, reserve: &str, free: u64) -> String {
        const MOUNT: &str = "`mkdir -p /dev/hugepages && mount -t hugetlbfs hugetlbfs /dev/hugepages`";
        if free > 0 { MOUNT.to_owned() } else { format!("{reserve}; {MOUNT}") }
    }

    /// Bytes of huge pages that a start takes.
    fn needed(&self) -> u64 {
        let by_interface = |name: &str| self.machine.mtu_of(name);
        let room = mtu::resolve_by(&self.config, &by_interface)
            .and_then(|mtus| mtu::buffer_sizing(&self.config, &mtus))
            .unwrap_or(mtu::BufferSizing { args: Vec::new(), buffer: 2048 });
        let environment = Environment::new(&self.config, &room, 0, true);
        environment.pool_bytes() + BESIDE
    }

    /// The huge pages below a directory of sysfs, by their size.
    fn pages(&self, directory: &str) -> Vec<Pages> {
        let of = |name: String| {
            let kilobytes = name.strip_prefix("hugepages-")?.strip_suffix("kB")?.parse().ok()?;
            let number = |file: &str| {
                let text = self.machine.sys_text(format!("{directory}/{name}/{file}"));
                text.and_then(|text| text.parse().ok()).unwrap_or_default()
            };
            Some(Pages { kilobytes, all: number("nr_hugepages"), free: number("free_hugepages") })
        };
        names(&self.machine.sys.join(directory)).into_iter().filter_map(of).collect()
    }

    /// A port's node wants huge pages of its own.
    fn nodes_memory(&mut self) {
        let nodes = self.machine.nodes();
        if nodes.len() < 2 {
            return;
        }
        let free_at = |node: u32| -> u64 {
            self.pages(&format!("devices/system/node/node{node}/hugepages")).iter().map(Pages::bytes).sum()
        };
        let all: u64 = nodes.iter().map(|node| free_at(*node)).sum();
        let bare: Vec<(String, u32)> = self
            .ports()
            .into_iter()
            .filter_map(|port| Some((port.clone(), self.machine.pci_nic(&port)?.numa?)))
            .filter(|(_, node)| all > 0 && free_at(*node) == 0)
            .collect();
        for (port, node) in bare {
            let found = format!("it is at NUMA node {node}, which has no free huge pages; other nodes have");
            let cost = "every packet's buffer lies at another node: a trip between processors a packet";
            let cure = format!(
                "`echo N >/sys/devices/system/node/node{node}/hugepages/hugepages-2048kB/nr_hugepages`, before the start"
            );
            self.warn(HUGE_PAGES, Some(port), found, (cost, cure));
        }
    }
}
