//! A machine that has everything, one fault planted at a time: each is named by its check, with its cure.

use std::fs;
use std::ops::{Deref, DerefMut};

use control::config::check_config;

use super::*;
use crate::machine::planted::{NIC, Tree};

/// What is to run on it.
struct Planted {
    tree: Tree,
    config: String,
}

impl Deref for Planted {
    type Target = Tree;

    fn deref(&self) -> &Tree {
        &self.tree
    }
}

impl DerefMut for Planted {
    fn deref_mut(&mut self) -> &mut Tree {
        &mut self.tree
    }
}

impl Planted {
    fn new() -> Planted {
        let tree = Tree::new();
        let config = format!(
            "[eal]\nargs = [\"--allow={NIC}\", \"--vdev=net_af_packet0,iface=eth1,framecnt=16384\", \
             \"--vdev=net_af_packet1,iface=eth2,framecnt=16384\"]\n\
             [[wire]]\nname = \"w\"\ninside = \"net_af_packet0\"\noutside = \"net_af_packet1\"\n\
             [workers]\ncores = [0]\n[api]\nsocket = \"{0}/api.sock\"\n[store]\npath = \"{0}/store.redb\"\n",
            tree.path("").display()
        );
        Planted { tree, config }
    }

    /// The wire's inside is the NIC.
    fn on_pci(mut self) -> Planted {
        self.config = self.config.replace("inside = \"net_af_packet0\"", &format!("inside = \"{NIC}\""));
        self.config = self.config.replace("\"--vdev=net_af_packet0,iface=eth1,framecnt=16384\", ", "");
        self
    }

    fn saying(mut self, from: &str, to: &str) -> Planted {
        assert!(self.config.contains(from), "{from}: {}", self.config);
        self.config = self.config.replace(from, to);
        self
    }

    fn examined(&self) -> Vec<Finding> {
        let checked = check_config(&self.config, "c.toml").unwrap_or_else(|faults| panic!("{faults:?}"));
        examine(&self.machine, Some(&checked), false)
    }

    /// What is not as it should be.
    fn troubles(&self) -> Vec<Finding> {
        self.examined().into_iter().filter(|finding| finding.status != Status::Ok).collect()
    }

    /// Exactly this is wrong, with these words and this cure.
    #[track_caller]
    fn is_told(&self, check: &str, status: Status, found: &str, cure: &str) {
        let troubles = self.troubles();
        let told = troubles.iter().find(|finding| finding.check == check && finding.found.contains(found));
        let told = told.unwrap_or_else(|| panic!("{check}: {found}: {troubles:#?}"));
        assert_eq!(told.status, status, "{told:?}");
        assert!(told.cure.contains(cure) && !told.cost.is_empty(), "{told:?}");
        let others: Vec<_> = troubles.iter().filter(|finding| finding.check != check).collect();
        assert!(others.is_empty(), "one fault was planted: {others:#?}");
    }
}

#[test]
fn a_machine_that_has_everything_passes_every_check() {
    for planted in [Planted::new(), Planted::new().on_pci()] {
        assert_eq!(planted.troubles(), []);
        let checks: std::collections::BTreeSet<_> =
            planted.examined().iter().map(|finding| finding.check).collect();
        for check in [
            "capabilities",
            "clock",
            "configuration",
            "governor",
            "huge-pages",
            "interrupts",
            "iommu",
            "isolation",
            "kernel",
            "link",
            "mtu",
            "offloads",
            "queues",
            "rings",
            "store",
            "time",
        ] {
            assert!(checks.contains(check), "{check}: {checks:?}");
        }
    }
}

#[test]
fn huge_pages_are_too_few_or_none() {
    let few = Planted::new();
    few.write("sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages", "8");
    few.is_told("huge-pages", Status::Fail, "8 free; ", "`sysctl -w vm.nr_hugepages=");
    let none = Planted::new();
    for file in ["nr_hugepages", "free_hugepages"] {
        none.write(&format!("sys/kernel/mm/hugepages/hugepages-2048kB/{file}"), "0");
    }
    none.is_told("huge-pages", Status::Warn, "there are no huge pages", "vm.nr_hugepages=");
    let asked = none.saying("args = [", "args = [\"--socket-mem=64\", ");
    asked.is_told("huge-pages", Status::Fail, "eal.args asks for some", "vm.nr_hugepages=");
    let unmounted = Planted::new();
    unmounted.write("proc/mounts", "/dev/vda / ext4 rw 0 0");
    unmounted.is_told("huge-pages", Status::Warn, "no hugetlbfs is mounted", "mount -t hugetlbfs");
    let elsewhere = Planted::new().on_pci();
    elsewhere.write("sys/devices/system/node/node0/hugepages/hugepages-2048kB/free_hugepages", "0");
    elsewhere.is_told("huge-pages", Status::Warn, "NUMA node 0, which has no free", "node0/hugepages");
}

#[test]
fn a_nic_is_not_dpdks_to_take() {
    let kernels = Planted::new().on_pci();
    kernels.device("e1000e", Some("7"));
    kernels.is_told(
        "ports",
        Status::Fail,
        "the kernel's driver e1000e has it",
        "dpdk-devbind.py --bind=vfio-pci 0000:03:00.0",
    );
    let absent = Planted::new().on_pci();
    fs::remove_dir_all(absent.path("sys/bus/pci/devices")).unwrap();
    absent.is_told("ports", Status::Fail, "there is no PCI device of this address", "lspci -D");
    let no_group = Planted::new().on_pci();
    no_group.device("vfio-pci", None);
    no_group.is_told("ports", Status::Fail, "there is no IOMMU for it", "intel_iommu=on");
    let closed = Planted::new().on_pci();
    fs::remove_file(closed.path("dev/vfio/7")).unwrap();
    closed.is_told("ports", Status::Fail, "dev/vfio/7: No such file", "modprobe vfio-pci");
    let uio = Planted::new().on_pci();
    uio.device("uio_pci_generic", None);
    assert_eq!(uio.troubles(), []);
    uio.write("sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages", "0");
    let told = uio.troubles();
    assert!(
        told.iter().any(|finding| finding.check == "ports" && finding.found.contains("physical addresses")),
        "{told:#?}"
    );
}

#[test]
fn there_is_no_iommu() {
    let without = Planted::new();
    fs::remove_dir_all(without.path("sys/kernel/iommu_groups")).unwrap();
    without.is_told("iommu", Status::Warn, "there is no IOMMU", "intel_iommu=on");
    without.write("sys/module/vfio/parameters/enable_unsafe_noiommu_mode", "Y");
    without.is_told("iommu", Status::Warn, "unsafe", "amd_iommu=on");
}

#[test]
fn the_user_lacks_capabilities() {
    let nobody = Planted::new();
    nobody.write("proc/self/status", "CapEff:\t0000000000004000");
    nobody.is_told(
        "capabilities",
        Status::Fail,
        "CAP_NET_ADMIN, CAP_NET_RAW",
        "AmbientCapabilities=CAP_NET_ADMIN CAP_NET_RAW",
    );
    let locked = Planted::new().on_pci();
    // All but CAP_IPC_LOCK: a NIC's memory is locked. Its ring of AF_PACKET is beyond 8 MB, too.
    locked.write("proc/self/status", "CapEff:\t000001ffffffbfff");
    let told = locked.troubles();
    let is_told = |check: &str, found: &str| {
        told.iter().any(|f| f.check == check && f.status == Status::Fail && f.found.contains(found))
    };
    assert!(
        is_told("capabilities", "CAP_IPC_LOCK") && is_told("rings", "8192 kB may be locked"),
        "{told:#?}"
    );
}

#[test]
fn rings_are_small() {
    let small = Planted::new().saying("eth1,framecnt=16384", "eth1,framecnt=512");
    small.is_told(
        "rings",
        Status::Warn,
        "framecnt is 512: 0.6 ms",
        "framecnt=16384 among the arguments of net_af_packet0",
    );
    let clipped = Planted::new().saying(",framecnt=16384", "");
    assert_eq!(clipped.troubles(), []);
    clipped.write("proc/self/status", "CapEff:\t000001ffffffbfff");
    clipped.is_told("rings", Status::Warn, "framecnt is 768", "LimitMEMLOCK=infinity");
}

#[test]
fn a_workers_core_is_shared() {
    let shared = Planted::new();
    shared.write("sys/devices/system/cpu/isolated", "");
    shared.is_told("isolation", Status::Warn, "it is not isolated", "isolcpus=0 nohz_full=0");
    let all = Planted::new();
    all.write("sys/devices/system/cpu/online", "0");
    all.is_told("isolation", Status::Warn, "workers have every core", "leave one core out");
    let threads = Planted::new().saying("cores = [0]", "cores = [0, 1]");
    threads.write("sys/devices/system/cpu/isolated", "0-1");
    threads.write("sys/devices/system/cpu/cpu0/topology/thread_siblings_list", "0-1");
    let told = threads.troubles();
    assert!(
        told.iter().any(|f| f.check == "isolation" && f.found.contains("threads of one core")),
        "{told:#?}"
    );
}

#[test]
fn devices_interrupt_a_worker() {
    let planted = Planted::new();
    planted.write(
        "proc/interrupts",
        "      CPU0 CPU1\n 24:  7  9  PCI-MSI nvme0q1\n 25: 5 0 PCI-MSI eth9-rx\nLOC: 9 9 timer",
    );
    planted.write("proc/irq/24/effective_affinity_list", "0");
    planted.write("proc/irq/25/effective_affinity_list", "1");
    planted.is_told(
        "interrupts",
        Status::Warn,
        "24 (nvme0q1, 7 so far)",
        "for i in 24; do echo 1 >/proc/irq/$i/smp_affinity_list",
    );
}

#[test]
fn the_governor_saves_power() {
    let planted = Planted::new();
    planted.write("sys/devices/system/cpu/cpu0/cpufreq/scaling_governor", "powersave");
    planted.is_told(
        "governor",
        Status::Warn,
        "core 0: powersave",
        "`cpupower -c 0 frequency-set -g performance`",
    );
}

#[test]
fn ports_have_too_few_queues_or_take_no_key() {
    // Whoever runs this may have but one core.
    let config = |planted: &Planted| check_config(&planted.config, "c.toml").unwrap();
    let few = Planted::new().saying("cores = [0]", "cores = [0, 2]");
    let told = examine(&few.machine, Some(&config(&few)), false);
    let queues = told.iter().find(|f| f.check == "queues" && f.status == Status::Fail).unwrap();
    assert_eq!(queues.found, "it has 1 queue pairs for 2 workers");
    assert!(queues.cure.starts_with("qpairs=2 among its arguments"), "{queues:?}");
    let spread = few.saying(",framecnt=16384", ",framecnt=16384,qpairs=2");
    let told = examine(&spread.machine, Some(&config(&spread)), false);
    assert!(told.iter().all(|f| f.check != "queues" || f.status == Status::Ok), "{told:#?}");
    let rss = told.iter().find(|f| f.check == "rss" && f.status == Status::Warn).unwrap();
    assert!(rss.found.contains("no key of ours") && rss.cure.contains("docs/nics.md"), "{rss:?}");
}

#[test]
fn mtus_differ() {
    let mut planted = Planted::new();
    planted.machine.interfaces[1].mtu = 9000;
    planted.is_told(
        "mtu",
        Status::Fail,
        "has MTU 1500, outside net_af_packet1 (eth2) has 9000",
        "ip link set IFACE mtu",
    );
}

#[test]
fn interfaces_are_absent_down_or_have_peers_that_leave_work_undone() {
    let mut down = Planted::new();
    down.machine.interfaces[0].is_up = false;
    down.is_told("link", Status::Warn, "eth1 is not set up", "`ip link set eth1 up`");
    let mut no_carrier = Planted::new();
    no_carrier.machine.interfaces[0].is_running = false;
    no_carrier.is_told("link", Status::Warn, "eth1 has no carrier", "look at the other end");
    let mut lazy = Planted::new();
    lazy.machine.interfaces[1].peer.as_mut().unwrap().leaves = vec!["tx", "tso"];
    lazy.is_told(
        "offloads",
        Status::Warn,
        "its peer eth2-peer leaves work",
        "`ethtool -K eth2-peer tx off tso off gso off`",
    );
    let mut merging = Planted::new();
    merging.machine.interfaces[0].merges = vec!["gro", "lro"];
    merging.write("sys/class/net/eth1/device/class", "0x020000");
    merging.is_told("offloads", Status::Warn, "eth1 joins segments", "`ethtool -K eth1 gro off lro off`");
    let mut absent = Planted::new();
    absent.machine.interfaces.remove(1);
    absent.is_told("ports", Status::Fail, "the interface eth2 of net_af_packet1 is not there", "`ip link`");
}

#[test]
fn a_worker_is_far_from_its_nic() {
    let planted = Planted::new().on_pci();
    fs::write(planted.path("sys/bus/pci/devices").join(NIC).join("numa_node"), "1").unwrap();
    planted.is_told(
        "numa",
        Status::Warn,
        "it is at NUMA node 1, core 0 is at node 0",
        "[workers] cores among those of node 1: 2-3",
    );
}

#[test]
fn clocks_are_slow_or_follow_nobody() {
    let slow = Planted::new();
    slow.write("sys/devices/system/clocksource/clocksource0/current_clocksource", "hpet");
    slow.is_told(
        "clock",
        Status::Warn,
        "the kernel's clock is hpet",
        "`echo tsc >/sys/devices/system/clocksource",
    );
    let stops = Planted::new();
    stops.write("proc/cpuinfo", "flags : fpu tsc");
    stops.is_told("clock", Status::Warn, "not constant", "max_cstate");
    let mut alone = Planted::new();
    alone.machine.is_synchronised = Some(false);
    alone.is_told("time", Status::Warn, "follows no other", "systemd-timesyncd");
}

#[test]
fn the_store_has_no_place() {
    // `run` makes directories that lack.
    assert_eq!(Planted::new().saying("/store.redb", "/new/store.redb").troubles(), []);
    let gone = Planted::new().saying("/store.redb\"", "/store.redb\"\nmust_exist = true");
    gone.is_told("store", Status::Fail, "it is not there, and must_exist", "`portcullis run --new-store`");
    let witnessed = Planted::new();
    witnessed.write("store.redb.witness", "");
    witnessed.is_told("store", Status::Fail, "its witness says that it was", "bring a copy back");
    let network = Planted::new();
    network.write("proc/mounts", "s:/x / nfs4 rw 0 0\nhugetlbfs /dev/hugepages hugetlbfs rw 0 0");
    network.is_told("store", Status::Warn, "the file system is nfs4", "on a local disk");
    let damaged = Planted::new();
    damaged.write("store.redb", "this is none");
    damaged.is_told("store", Status::Fail, "store.redb", "portcullis check --store");
}

#[test]
fn a_flow_log_has_no_directory() {
    let absent = Planted::new();
    let path = absent.path("no/flow.json");
    let log = format!("[[flow_log]]\nkind = \"json\"\npath = \"{}\"\n[api]", path.display());
    let absent = absent.saying("[api]", &log);
    absent.is_told("configuration", Status::Warn, "no is not there (yet)", "`mkdir -p`");
}

#[test]
fn the_kernel_is_old_or_a_driver_is_missing() {
    let old = Planted::new();
    old.write("proc/sys/kernel/osrelease", "4.19.0-9-amd64");
    old.is_told("kernel", Status::Warn, "the oldest tried is 5.10", "a newer kernel");
    let missing = Planted::new();
    fs::remove_file(missing.path("dpdk/pmds-23.0/librte_net_af_packet.so.23")).unwrap();
    missing.is_told("kernel", Status::Fail, "net_af_packet is not installed", "librte-net-af-packet23");
}

#[test]
fn a_running_appliance_holds_what_it_holds() {
    let planted = Planted::new().on_pci();
    planted.write("sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages", "0");
    fs::remove_file(planted.path("dev/vfio/7")).unwrap();
    let checked = check_config(&planted.config, "c.toml").unwrap();
    let found = examine(&planted.machine, Some(&checked), true);
    let troubles: Vec<_> = found.iter().filter(|finding| finding.status != Status::Ok).collect();
    assert_eq!(troubles.len(), 1, "{troubles:#?}");
    assert_eq!((troubles[0].check, troubles[0].status), ("socket", Status::Warn));
}

#[test]
fn the_worst_comes_first_and_the_end_says_whether_it_would_start() {
    let mut planted = Planted::new();
    planted.machine.interfaces[1].mtu = 9000;
    planted.write("sys/devices/system/cpu/isolated", "");
    let text = text(&planted.examined());
    let lines: Vec<&str> = text.lines().collect();
    assert!(
        lines[0].starts_with("FAIL  mtu: ") && lines[1].starts_with("      costs: `run` does not start"),
        "{text}"
    );
    assert!(
        lines[2].starts_with("      mend: ") && lines[3].starts_with("warn  isolation core 0: "),
        "{text}"
    );
    assert!(lines.last().unwrap().ends_with("1 failed, 1 warnings: `run` would not start"), "{text}");
}
