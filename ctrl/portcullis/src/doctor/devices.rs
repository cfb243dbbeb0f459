//! The ports: their drivers, the IOMMU, queues, RSS, MTUs, links, and what their peers leave undone.

use std::path::Path;

use super::MachineCheck;
use crate::appliance::mtu;
use crate::appliance::ports::{claims, offloads};
use crate::appliance::preflight::{self, MachineView, PreflightReport, is_pci_address};
use crate::appliance::refusals;

const PORTS: &str = "ports";
const IOMMU: &str = "iommu";
const QUEUES: &str = "queues";
const RSS: &str = "rss";
const MTU: &str = "mtu";
const LINK: &str = "link";
const OFFLOADS: &str = "offloads";
const NUMA: &str = "numa";

impl MachineCheck<'_> {
    pub(super) fn devices(&mut self) {
        self.iommu();
        if self.checked.is_none() {
            return self.candidates();
        }
        self.names_of_ports();
        for port in self.ports() {
            if is_pci_address(&port) {
                self.pci_port(&port);
            } else if let Some(interface) = mtu::interface(self.args(), &port).map(str::to_owned) {
                self.interface_port(&port, &interface);
            }
            self.queues_and_rss(&port);
        }
    }

    /// What `check` says of ports and sizes.
    fn names_of_ports(&mut self) {
        let Some(checked) = self.checked else { return };
        let by_interface = |name: &str| self.machine.mtu_of(name);
        let here = MachineView { sys: &self.machine.sys, mtu_of: &by_interface };
        let mut found = PreflightReport::default();
        preflight::ports(checked, &here, &mut found);
        for fault in &found.faults {
            self.fail(
                PORTS,
                None,
                fault.to_string(),
                "name a port that eal.args makes: `portcullis check --config FILE`",
            );
        }
        // PCI devices are told of with more words below.
        for absent in found.absent.iter().filter(|absent| !absent.to_string().contains("no PCI device")) {
            let cure = "`ip link` lists those that there are; `portcullis ports` those that can be a port";
            self.fail(PORTS, None, absent.to_string(), cure);
        }
        for warning in &found.warnings {
            self.warn(
                PORTS,
                None,
                warning.to_string(),
                ("a device that nobody polls", "put it on a wire, or take it out"),
            );
        }
        if !self.runs
            && let Err(message) = claims::claim(&self.config)
        {
            self.fail(PORTS, None, message, "end that process first");
        }
        let mut found = PreflightReport::default();
        preflight::sizes(checked, &here, &mut found);
        for fault in &found.faults {
            self.fail(
                MTU,
                None,
                fault.to_string(),
                "the same MTU on both sides of a wire: `ip link set IFACE mtu N`",
            );
        }
        if found.faults.is_empty() {
            self.ok(MTU, None, "both sides of every wire carry the same, as far as interfaces tell");
        }
    }

    fn pci_port(&mut self, port: &str) {
        let args = self.args().to_vec();
        let machine =
            refusals::Machine { args: &args, log: "", sys: &self.machine.sys, dev: &self.machine.dev };
        let of_port = Some(port.to_owned());
        let nic = self.machine.pci_nic(port);
        match machine.obstacle(port).filter(|_| !self.runs) {
            Some(trouble) => self.fail(PORTS, of_port.clone(), trouble.found, trouble.cure),
            None => {
                let driver = nic.as_ref().and_then(|nic| nic.driver.clone()).unwrap_or_default();
                self.ok(PORTS, of_port.clone(), format!("it is bound to {driver}"));
            }
        }
        let Some(nic) = nic else { return };
        let is_uio = nic.driver.as_deref().is_some_and(|driver| driver.contains("uio"));
        if is_uio && !self.runs && !self.has_huge_pages() {
            let found =
                "it is bound to uio, which wants physical addresses, and there are no free huge pages";
            self.fail(PORTS, of_port.clone(), found, refusals::PHYSICAL);
        }
        let cores = self.config.workers.cores.iter();
        let node_of = |core: &usize| Some((*core, self.machine.node_of_core(*core)?));
        let far: Vec<String> = cores
            .filter_map(node_of)
            .filter(|(_, node)| nic.numa.is_some_and(|own| own != *node))
            .map(|(core, node)| format!("core {core} is at node {node}"))
            .collect();
        if let Some(own) = nic.numa.filter(|_| !far.is_empty()) {
            let near =
                self.machine.sys_text(format!("devices/system/node/node{own}/cpulist")).unwrap_or_default();
            let found = format!("it is at NUMA node {own}, {}", far.join(", "));
            let cost = "each frame crosses from processor to processor: a tenth to a third of the rate";
            self.warn(
                NUMA,
                of_port,
                found,
                (cost, format!("[workers] cores among those of node {own}: {near}")),
            );
        }
    }

    fn has_huge_pages(&self) -> bool {
        let directory = self.machine.sys.join("kernel/mm/hugepages");
        crate::machine::names(&directory).iter().any(|size| {
            let free = self.machine.sys_text(format!("kernel/mm/hugepages/{size}/free_hugepages"));
            free.is_some_and(|free| free != "0")
        }) && !self.args().iter().any(|arg| arg == "--no-huge")
    }

    fn interface_port(&mut self, port: &str, name: &str) {
        let Some(interface) = self.machine.interface(name).cloned() else { return };
        let on = Some(port.to_owned());
        if !interface.is_up {
            let found = format!("{name} is not set up");
            self.warn(
                LINK,
                on.clone(),
                found,
                ("nothing comes or goes by it", format!("`ip link set {name} up`")),
            );
        } else if !interface.is_running {
            let cure = format!("look at the other end of {name}: its cable, or its peer that is down");
            self.warn(
                LINK,
                on.clone(),
                format!("{name} has no carrier"),
                ("nothing comes or goes by it", cure),
            );
        } else {
            self.ok(LINK, on.clone(), format!("{name} is up"));
        }
        const COST: &str = "frames arrive longer than the MTU and are dropped: TCP crawls";
        if !interface.merges.is_empty()
            && self.machine.sys.join("class/net").join(name).join("device").exists()
        {
            let cure = format!("`ethtool -K {name} {} off`", interface.merges.join(" off "));
            self.warn(
                OFFLOADS,
                on.clone(),
                format!("{name} joins segments that come in ({})", interface.merges.join(", ")),
                (COST, cure),
            );
        }
        match interface.peer.filter(|peer| !peer.leaves.is_empty()) {
            Some(peer) => {
                let found = format!(
                    "its peer {} leaves work to a device that does none ({})",
                    peer.name,
                    peer.leaves.join(", ")
                );
                let cost =
                    "frames come without checksums or longer than the MTU: whoever gets them drops them";
                self.warn(OFFLOADS, on, found, (cost, offloads::cure(name, Some(&peer.name))));
            }
            None => self.ok(OFFLOADS, on, "nothing is seen that leaves frames unfinished"),
        }
    }

    /// Whether a port has a queue pair a worker, and spreads connections as workers own them.
    fn queues_and_rss(&mut self, port: &str) {
        let workers = self.config.workers.cores.len();
        let on = Some(port.to_owned());
        let vdev = mtu::vdev(self.args(), port).map(str::to_owned).unwrap_or_default();
        let number = |key: &str| mtu::value(&vdev, key).and_then(|value| value.parse::<usize>().ok());
        let nic = self.machine.pci_nic(port);
        let (offered, is_symmetric) = if port.starts_with("net_af_packet") {
            (Some(number("qpairs").unwrap_or(1)), Some(false))
        } else if port.starts_with("net_af_xdp") {
            (Some(number("queue_count").unwrap_or(1)), Some(false))
        } else if port.starts_with("net_vhost") || port.starts_with("net_virtio_user") {
            (Some(number("queues").unwrap_or(1)), Some(false))
        } else {
            let known = nic.and_then(|nic| nic.abilities());
            (known.map(|(queues, _)| usize::from(queues)), known.map(|(_, symmetric)| symmetric))
        };
        match offered {
            Some(offered) if offered < workers => {
                let cure = if port.starts_with("net_af_packet") {
                    format!("qpairs={workers} among its arguments, or [workers] cores with {offered} of them")
                } else {
                    format!("[workers] cores with {offered} of them")
                };
                let found = format!("it has {offered} queue pairs for {workers} workers");
                return self.fail(QUEUES, on, found, cure);
            }
            Some(offered) => {
                self.ok(QUEUES, on.clone(), format!("{offered} queue pairs for {workers} workers"))
            }
            None => self.ok(
                QUEUES,
                on.clone(),
                format!("its device tells at the start whether it has {workers} queue pairs"),
            ),
        }
        if workers > 1 && is_symmetric == Some(false) {
            let found = "it takes no key of ours: frames come to any worker";
            let cost = "a frame in two is handed from worker to worker, a cache line's trip each";
            let cure = "a NIC that takes a symmetric RSS key (docs/nics.md), or one worker";
            self.warn(RSS, on, found, (cost, cure));
        }
    }

    /// An IOMMU, where PCI devices are to be taken.
    fn iommu(&mut self) {
        let groups = crate::machine::names(&self.machine.sys.join("kernel/iommu_groups")).len();
        let nics = self.machine.pci_nics();
        let wanted = self.ports().iter().any(|port| is_pci_address(port));
        let unsafe_mode = self.machine.sys_text("module/vfio/parameters/enable_unsafe_noiommu_mode");
        let has_module = self.machine.sys.join("bus/pci/drivers/vfio-pci").exists();
        const COST: &str =
            "no NIC can be given to vfio-pci; through the kernel (AF_PACKET, AF_XDP) a fraction of the rate";
        if groups > 0 {
            let module =
                if has_module { "vfio-pci is loaded" } else { "vfio-pci is not loaded: `modprobe vfio-pci`" };
            self.ok(IOMMU, None, format!("{groups} IOMMU groups; {module}"));
        } else if unsafe_mode.is_some_and(|mode| mode == "Y" || mode == "1") {
            let cost = "a NIC may write anywhere in memory";
            self.warn(IOMMU, None, "there is no IOMMU; vfio runs without one (unsafe)", (cost, ON));
        } else if wanted || !nics.is_empty() {
            self.warn(IOMMU, None, "there is no IOMMU", (COST, ON));
        } else {
            self.ok(IOMMU, None, "there is no IOMMU, and no NIC on the PCI bus that would want one");
        }
    }

    /// Without a configuration: what could be a port.
    fn candidates(&mut self) {
        let nics = self.machine.pci_nics();
        let bound = nics.iter().filter(|nic| nic.is_for_dpdk()).count();
        let found = format!(
            "{} NICs on the PCI bus, {bound} of them given to DPDK, {} interfaces of the kernel: `portcullis ports` lists them",
            nics.len(),
            self.machine.interfaces.iter().filter(|interface| interface.name != "lo").count()
        );
        self.ok(PORTS, None, found);
    }

    /// What `check` says of other files than ports.
    pub(super) fn files(&mut self) {
        let Some(checked) = self.checked else { return };
        let mut found = PreflightReport::of_text(checked);
        preflight::cores(checked, &mut found);
        preflight::files(checked, &mut found);
        for fault in &found.faults {
            let cure = "mend what the line names: `portcullis check --config FILE` tells it, too";
            self.fail("configuration", None, fault.to_string(), cure);
        }
        for absent in &found.absent {
            let cost = "what is to be written there is lost until it is there";
            self.warn("configuration", None, absent.to_string(), (cost, "make the directory: `mkdir -p`"));
        }
        for warning in &found.warnings {
            let cost = "likely a mistake";
            self.warn("configuration", None, warning.to_string(), (cost, "mend what the line names"));
        }
        if found.faults.is_empty() && found.absent.is_empty() && found.warnings.is_empty() {
            self.ok("configuration", None, "it is valid, and so are the files that it names");
        }
        self.place_of_socket(&checked.config.api.socket);
    }

    fn place_of_socket(&mut self, socket: &Path) {
        let on = Some(socket.display().to_string());
        if self.runs {
            let cure = "`systemctl restart portcullis`, or end it first: one appliance a socket";
            return self.warn(
                "socket",
                on,
                "an appliance answers there already",
                ("another `run` is refused", cure),
            );
        }
        match super::store::nearest_directory(socket) {
            Some(directory) if super::store::may_write(&directory) => {}
            Some(directory) => {
                let found = format!("this user may not make it in {}", directory.display());
                self.fail("socket", on, found, "run as the directory's owner, or [api] socket elsewhere");
            }
            None => {}
        }
    }
}

/// What turns an IOMMU on.
const ON: &str =
    "intel_iommu=on or amd_iommu=on on the kernel's command line (and VT-d or AMD-Vi in the firmware)";
