//! PCI devices that are NICs.

use std::fs;
use std::path::Path;

use super::{Machine, names};

/// Drivers of the kernel that leave a device to DPDK.
pub const FOR_DPDK: [&str; 4] = ["vfio-pci", "uio_pci_generic", "igb_uio", "vfio-platform"];

/// A NIC on the PCI bus.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PciNic {
    /// `0000:03:00.0`.
    pub address: String,
    /// Its maker and model, `8086:10d3`.
    pub id: String,
    /// The kernel's driver that has it.
    pub driver: Option<String>,
    /// The kernel's interface that it is.
    pub interface: Option<String>,
    /// The number of its IOMMU group.
    pub iommu_group: Option<String>,
    /// The NUMA node that it is at.
    pub numa: Option<u32>,
}

impl PciNic {
    /// True if it is DPDK's to take.
    pub fn is_for_dpdk(&self) -> bool {
        self.driver.as_deref().is_some_and(|driver| FOR_DPDK.contains(&driver))
    }

    /// Queue pairs that DPDK's driver offers, and whether it takes a symmetric key, where that was measured (docs/nics.md).
    pub fn abilities(&self) -> Option<(u16, bool)> {
        match &*self.id {
            // e1000 and e1000e, as virtual machines have them: the second queue receives nothing.
            "8086:100e" | "8086:10d3" => Some((2, false)),
            // vmxnet3.
            "15ad:07b0" => Some((8, false)),
            _ => None,
        }
    }
}

impl Machine {
    /// The NICs on its PCI bus, by address.
    pub fn pci_nics(&self) -> Vec<PciNic> {
        let devices = names(&self.sys.join("bus/pci/devices"));
        devices.iter().filter_map(|address| self.pci_nic(address)).collect()
    }

    /// The NIC of this address; `None` if there is none, or something else.
    pub fn pci_nic(&self, address: &str) -> Option<PciNic> {
        let device = self.sys.join("bus/pci/devices").join(address);
        let word = |name: &str| super::text(&device.join(name));
        if !word("class")?.starts_with("0x02") {
            return None;
        }
        let id =
            |name: &str| word(name).map(|text| text.trim_start_matches("0x").to_owned()).unwrap_or_default();
        Some(PciNic {
            address: address.to_owned(),
            id: format!("{}:{}", id("vendor"), id("device")),
            driver: link(&device.join("driver")),
            interface: interface_of_device(&device),
            iommu_group: link(&device.join("iommu_group")),
            numa: word("numa_node").and_then(|node| node.parse().ok()),
        })
    }
}

/// The kernel's interface that a device is: its own, or that of the virtio device on it.
pub fn interface_of_device(device: &Path) -> Option<String> {
    let first = |directory: &Path| names(&directory.join("net")).into_iter().next();
    let on_it = || names(device).into_iter().filter(|name| name.starts_with("virtio"));
    first(device).or_else(|| on_it().find_map(|name| first(&device.join(name))))
}

/// The name that a symbolic link leads to.
pub fn link(path: &Path) -> Option<String> {
    Some(fs::read_link(path).ok()?.file_name()?.to_string_lossy().into_owned())
}
