//! A machine that has everything, below a directory of its own, for tests that take something away.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;

use super::{Interface, Machine, Peer};

/// Its NIC.
pub const NIC: &str = "0000:03:00.0";

/// A machine with a NIC for DPDK, two interfaces, two nodes, four cores of which two are isolated, and all else as it should be.
pub struct Tree {
    root: tempfile::TempDir,
    pub machine: Machine,
}

impl Tree {
    pub fn new() -> Tree {
        let root = tempfile::tempdir().unwrap();
        let at = |name: &str| root.path().join(name);
        let interface = |name: &str| Interface {
            name: name.to_owned(),
            is_up: true,
            is_running: true,
            mtu: 1500,
            merges: vec![],
            peer: Some(Peer { name: format!("{name}-peer"), leaves: vec![] }),
        };
        let machine = Machine {
            sys: at("sys"),
            proc: at("proc"),
            dev: at("dev"),
            drivers: vec![at("dpdk")],
            interfaces: vec![interface("eth1"), interface("eth2")],
            is_synchronised: Some(true),
        };
        let planted = Tree { root, machine };
        for (path, text) in [
            ("sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages", "4096"),
            ("sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages", "4096"),
            ("sys/devices/system/node/node0/cpulist", "0-1"),
            ("sys/devices/system/node/node1/cpulist", "2-3"),
            ("sys/devices/system/node/node0/hugepages/hugepages-2048kB/free_hugepages", "2048"),
            ("sys/devices/system/node/node1/hugepages/hugepages-2048kB/free_hugepages", "2048"),
            ("sys/devices/system/cpu/online", "0-3"),
            ("sys/devices/system/cpu/isolated", "0,2"),
            ("sys/devices/system/cpu/cpu0/cpufreq/scaling_governor", "performance"),
            ("sys/devices/system/cpu/cpu0/topology/thread_siblings_list", "0"),
            ("sys/devices/system/clocksource/clocksource0/current_clocksource", "tsc"),
            ("sys/devices/system/clocksource/clocksource0/available_clocksource", "tsc hpet acpi_pm"),
            ("sys/kernel/iommu_groups/7/type", "DMA"),
            ("proc/cpuinfo", "flags : fpu tsc constant_tsc nonstop_tsc"),
            ("proc/mounts", "/dev/vda / ext4 rw 0 0\nhugetlbfs /dev/hugepages hugetlbfs rw 0 0"),
            ("proc/sys/kernel/osrelease", "6.1.0-57-amd64"),
            ("proc/self/status", "CapEff:\t000001ffffffffff"),
            ("proc/self/limits", "Max locked memory         8388608              8388608              bytes"),
            (
                "proc/interrupts",
                "      CPU0 CPU1 CPU2 CPU3\n 24:  0  9  0  0  PCI-MSI nvme0q1\nLOC: 9 9 9 9 timer",
            ),
            ("proc/irq/24/effective_affinity_list", "1"),
            ("dpdk/pmds-23.0/librte_net_af_packet.so.23", ""),
        ] {
            planted.write(path, text);
        }
        planted.device("vfio-pci", Some("7"));
        planted.write("dev/vfio/7", "");
        planted
    }

    pub fn write(&self, path: &str, text: &str) {
        let path = self.path(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, format!("{text}\n")).unwrap();
    }

    pub fn path(&self, path: &str) -> PathBuf {
        self.root.path().join(path)
    }

    /// The NIC, bound to a driver and in a group.
    pub fn device(&self, driver: &str, group: Option<&str>) {
        let device = self.path("sys/bus/pci/devices").join(NIC);
        let _ = fs::remove_dir_all(&device);
        fs::create_dir_all(&device).unwrap();
        for (name, text) in
            [("class", "0x020000"), ("vendor", "0x8086"), ("device", "0x10d3"), ("numa_node", "0")]
        {
            fs::write(device.join(name), format!("{text}\n")).unwrap();
        }
        symlink(format!("/drivers/{driver}"), device.join("driver")).unwrap();
        if let Some(group) = group {
            symlink(format!("/groups/{group}"), device.join("iommu_group")).unwrap();
        }
    }
}
