//! Why a port cannot be had: a line that names the port, the reason that EAL or the kernel gives, and the cure.

use std::fmt;
use std::fs::{self, File};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use super::mtu;
use crate::machine::{FOR_DPDK, interface_of_device, link};

/// Drivers of the kernel beside which DPDK drives the device.
const BESIDE_DPDK: [&str; 3] = ["mlx5_core", "mlx4_core", "mana"];

/// What mends that a device needs physical addresses.
pub const PHYSICAL: &str = "reserve huge pages (vm.nr_hugepages) and run as root, or have an IOMMU (intel_iommu=on or amd_iommu=on \
                            on the kernel's command line)";

/// Where to look.
pub struct Machine<'a> {
    /// EAL's arguments.
    pub args: &'a [String],
    /// What EAL said when it started.
    pub log: &'a str,
    /// `/sys`.
    pub sys: &'a Path,
    /// `/dev`.
    pub dev: &'a Path,
}

/// What is the matter with a device, and what mends it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceProblem {
    /// What is the matter.
    pub found: String,
    /// What mends it; empty where nothing is known.
    pub cure: String,
}

impl DeviceProblem {
    fn new(found: impl Into<String>, cure: impl Into<String>) -> DeviceProblem {
        DeviceProblem { found: found.into(), cure: cure.into() }
    }
}

impl fmt::Display for DeviceProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &*self.cure {
            "" => f.write_str(&self.found),
            cure => write!(f, "{}: {cure}", self.found),
        }
    }
}

impl Machine<'_> {
    /// The line about a port that was refused.
    pub fn tell(&self, error: &pmd::Error) -> String {
        match error {
            pmd::Error::NoSuchPort { name, .. } if is_pci(name) => {
                format!("the port {name} cannot be had: {}", self.about_pci(name))
            }
            pmd::Error::NoSuchPort { name, reason: None, .. } if mtu::vdev(self.args, name).is_none() => {
                format!("{error}; a virtual device is made by --vdev={name},… among eal.args")
            }
            pmd::Error::NoSuchPort { name, reason: Some(reason), .. } => {
                let interface = mtu::interface(self.args, name).unwrap_or_default();
                with_cure(error, about_driver(reason, interface))
            }
            pmd::Error::Port { port, reason, .. } => {
                let interface = mtu::interface(self.args, port).unwrap_or_default();
                with_cure(error, about_driver(reason, interface))
            }
            pmd::Error::TooManyQueues { driver, asked, .. } if driver == "net_af_packet" => {
                format!("{error}; qpairs={asked} among its arguments gives it as many as there are workers")
            }
            pmd::Error::TooManyQueues { offered, .. } => {
                format!("{error}; workers.cores may have {offered} at most with this port")
            }
            _ => error.to_string(),
        }
    }

    /// What is the matter with a PCI device that EAL has made no port of.
    fn about_pci(&self, address: &str) -> DeviceProblem {
        let device = self.device(address);
        let said = self.said(address);
        let wants_physical = said.contains("IOVA")
            || said.contains("physical address")
            || self.log.contains("Expecting 'PA' IOVA");
        match (self.obstacle(address), link(&device.join("driver"))) {
            (Some(obstacle), _) => obstacle,
            _ if wants_physical => {
                DeviceProblem::new(format!("{said}: it needs physical addresses"), PHYSICAL)
            }
            (None, Some(driver)) if BESIDE_DPDK.contains(&driver.as_str()) => {
                let cure = "look whether its driver's plugin and libibverbs are installed";
                DeviceProblem::new(format!("{said}; {cure}"), "")
            }
            (None, Some(driver)) if driver == "vfio-pci" => {
                let group = link(&device.join("iommu_group")).unwrap_or_default();
                let all =
                    format!("all devices of its IOMMU group {group} must be bound to vfio-pci or to nothing");
                DeviceProblem::new(format!("{said}; {all}"), "")
            }
            (None, driver) => {
                DeviceProblem::new(format!("{said}; it is bound to {}", driver.unwrap_or_default()), "")
            }
        }
    }

    fn device(&self, address: &str) -> PathBuf {
        self.sys.join("bus/pci/devices").join(address)
    }

    /// What keeps EAL from taking a PCI device, as far as that can be known before it tries; `None` if nothing does.
    pub fn obstacle(&self, address: &str) -> Option<DeviceProblem> {
        let device = self.device(address);
        let words: Vec<&str> = self.args.iter().flat_map(|arg| arg.split(['=', ' '])).collect();
        if words.contains(&"--no-pci") {
            return Some(DeviceProblem::new("eal.args says --no-pci", "take that out"));
        }
        if !device.exists() {
            let cure = "`lspci -D` lists those that there are";
            return Some(DeviceProblem::new("there is no PCI device of this address", cure));
        }
        let class = fs::read_to_string(device.join("class")).unwrap_or_default();
        if !class.starts_with("0x02") {
            let found = format!("it is no network device (its class is {})", class.trim());
            return Some(DeviceProblem::new(found, "`lspci -D` lists those that there are"));
        }
        let short = address.strip_prefix("0000:").unwrap_or(address);
        let names_it =
            |word: &&str| word.split(',').next().is_some_and(|word| word == address || word == short);
        let of = |options: [&'static str; 2]| {
            let given = words.windows(2).filter(move |pair| options.contains(&pair[0])).map(|pair| pair[1]);
            given.collect::<Vec<_>>()
        };
        if of(["--block", "-b"]).iter().any(names_it) {
            return Some(DeviceProblem::new("eal.args blocks it", "take that out"));
        }
        let allowed = of(["--allow", "-a"]);
        if !allowed.is_empty() && !allowed.iter().any(names_it) {
            return Some(DeviceProblem::new(
                "eal.args allows other devices only",
                format!("add --allow={address}"),
            ));
        }
        let bind = format!("`dpdk-devbind.py --bind=vfio-pci {address}` gives it to DPDK");
        match link(&device.join("driver")) {
            None => Some(DeviceProblem::new("no driver of the kernel has it", bind)),
            Some(driver) if driver == "vfio-pci" => self.obstacle_of_vfio(&device),
            Some(driver) if FOR_DPDK.contains(&driver.as_str()) || BESIDE_DPDK.contains(&driver.as_str()) => {
                None
            }
            Some(driver) => {
                let whose = interface_of_device(&device)
                    .map_or_else(String::new, |interface| format!(" as {interface}, which then goes"));
                Some(DeviceProblem::new(format!("the kernel's driver {driver} has it{whose}"), bind))
            }
        }
    }

    /// The same of a device that is bound to vfio-pci: its group's file must be there, and ours to open.
    fn obstacle_of_vfio(&self, device: &Path) -> Option<DeviceProblem> {
        let Some(group) = link(&device.join("iommu_group")) else {
            let cure = "say intel_iommu=on or amd_iommu=on on the kernel's command line, or without one write 1 to \
                        /sys/module/vfio/parameters/enable_unsafe_noiommu_mode";
            return Some(DeviceProblem::new("there is no IOMMU for it", cure));
        };
        let files = [self.dev.join("vfio").join(&group), self.dev.join(format!("vfio/noiommu-{group}"))];
        let file = files.iter().find(|file| file.exists()).unwrap_or(&files[0]);
        let error = File::options().read(true).write(true).open(file).err()?;
        let file = file.display();
        Some(match error.kind() {
            ErrorKind::PermissionDenied => {
                DeviceProblem::new(format!("{file} may not be opened"), "run as root, or own it")
            }
            _ if error.raw_os_error() == Some(libc::EBUSY) => {
                DeviceProblem::new(format!("another process has {file}"), format!("`fuser {file}` names it"))
            }
            ErrorKind::NotFound => {
                DeviceProblem::new(format!("{file}: {error}"), "`modprobe vfio-pci`, and bind it again")
            }
            _ => DeviceProblem::new(format!("{file}: {error}"), ""),
        })
    }

    /// What EAL and the driver said of a device.
    fn said(&self, address: &str) -> String {
        let short = address.strip_prefix("0000:").unwrap_or(address);
        let failed = |line: &&str| {
            let line = line.to_ascii_lowercase();
            ["fail", "error", "cannot", "can't", "not ", "unable", "expecting"]
                .iter()
                .any(|word| line.contains(word))
        };
        let lines: Vec<&str> = self.log.lines().map(str::trim).collect();
        let named = lines.iter().copied().filter(|line| line.contains(short) && failed(line));
        // Drivers speak of "the device" between two lines that name it.
        let others = lines.iter().copied().filter(|line| {
            failed(line) && ["vfio", "VFIO", "IOVA", "PCI", "pci"].iter().any(|word| line.contains(word))
        });
        let mut said: Vec<&str> = Vec::new();
        for line in named.chain(others) {
            let line = line.strip_prefix("EAL: ").unwrap_or(line);
            if !said.contains(&line) && said.len() < 3 {
                said.push(line);
            }
        }
        if said.is_empty() {
            "EAL has no driver for it, and said nothing".to_owned()
        } else {
            said.join("; ")
        }
    }
}

fn with_cure(error: &pmd::Error, cure: Option<String>) -> String {
    cure.map_or_else(|| error.to_string(), |cure| format!("{error}; {cure}"))
}

/// What mends the reason that a virtual device's driver gave.
fn about_driver(reason: &str, interface: &str) -> Option<String> {
    let has = |words: &[&str]| words.iter().any(|word| reason.contains(word));
    if has(&["SIOCGIFINDEX", "No such device"]) && !interface.is_empty() {
        return Some(format!(
            "there is no interface {interface} in this network namespace: `ip link` lists those that there are"
        ));
    }
    // What may not be locked is told by EAGAIN: see mmap(2).
    let is_locked_out =
        has(&["mmap"]) && has(&["Resource temporarily unavailable", "Cannot allocate memory"]);
    if !is_locked_out && has(&["Operation not permitted", "Permission denied", "AF_PACKET socket", "EPERM"]) {
        return Some(
            "it takes root, or CAP_NET_RAW and CAP_NET_ADMIN (and CAP_IPC_LOCK for its rings)".to_owned(),
        );
    }
    if has(&["PACKET_RX_RING", "PACKET_TX_RING", "mmap", "Cannot allocate memory", "rx_ring", "tx_ring"]) {
        return Some(
            "its rings take framecnt × framesz bytes of locked memory twice: make framecnt smaller, or raise `ulimit -l` \
             (LimitMEMLOCK=infinity under systemd)"
                .to_owned(),
        );
    }
    if has(&["memif", "MEMIF"]) {
        return Some(
            "start the peer with role=server first; look at socket= and id= of both ends".to_owned(),
        );
    }
    if has(&["pcap", "No such file"]) {
        return Some("look at the files and interfaces among its arguments".to_owned());
    }
    None
}

/// True for `DOMAIN:BUS:DEVICE.FUNCTION`.
fn is_pci(name: &str) -> bool {
    let parts: Vec<&str> = name.split([':', '.']).collect();
    let is_hex = |part: &&str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_hexdigit());
    (3..=4).contains(&parts.len()) && name.contains(':') && name.contains('.') && parts.iter().all(is_hex)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    const ADDRESS: &str = "0000:03:00.0";

    /// A machine with one PCI device.
    struct Made(tempfile::TempDir);

    impl Made {
        fn new(class: &str) -> Made {
            let made = Made(tempfile::tempdir().unwrap());
            fs::create_dir_all(made.device()).unwrap();
            fs::write(made.device().join("class"), format!("{class}\n")).unwrap();
            fs::create_dir_all(made.0.path().join("dev/vfio")).unwrap();
            made
        }

        fn device(&self) -> std::path::PathBuf {
            self.0.path().join("sys/bus/pci/devices").join(ADDRESS)
        }

        fn driver(self, name: &str) -> Made {
            symlink(format!("/sys/bus/pci/drivers/{name}"), self.device().join("driver")).unwrap();
            self
        }

        fn group(self) -> Made {
            symlink("/sys/kernel/iommu_groups/7", self.device().join("iommu_group")).unwrap();
            self
        }

        fn tell(&self, args: &[&str], log: &str) -> String {
            let args: Vec<String> = args.iter().map(ToString::to_string).collect();
            let (sys, dev) = (self.0.path().join("sys"), self.0.path().join("dev"));
            let machine = Machine { args: &args, log, sys: &sys, dev: &dev };
            let told = machine.tell(&no_such(ADDRESS, None));
            assert!(told.starts_with("the port 0000:03:00.0 cannot be had: "), "{told}");
            told["the port 0000:03:00.0 cannot be had: ".len()..].to_owned()
        }
    }

    fn no_such(name: &str, reason: Option<&str>) -> pmd::Error {
        let (name, reason) = (name.to_owned(), reason.map(str::to_owned));
        pmd::Error::NoSuchPort { name, reason, available: Vec::new() }
    }

    #[test]
    fn a_pci_device_is_told_by_what_keeps_it_from_being_a_port() {
        const NIC: &str = "0x020000";
        let told = |made: &Made, args: &[&str], part: &str| {
            let told = made.tell(args, "");
            assert!(told.contains(part), "{part}: {told}");
        };
        let made = Made::new(NIC);
        told(&made, &["--no-pci"], "eal.args says --no-pci");
        told(&made, &["--allow=0000:04:00.0"], "add --allow=0000:03:00.0");
        told(&made, &["-a", "04:00.0"], "add --allow=0000:03:00.0");
        told(&made, &["--block", "03:00.0"], "eal.args blocks it");
        told(
            &made,
            &["-a", "03:00.0,class=eth"],
            "no driver of the kernel has it: `dpdk-devbind.py --bind=vfio-pci",
        );
        let with_kernel = Made::new(NIC).driver("ixgbe");
        fs::create_dir_all(with_kernel.device().join("net/eth3")).unwrap();
        told(
            &with_kernel,
            &[],
            "the kernel's driver ixgbe has it as eth3, which then goes: `dpdk-devbind.py",
        );
        told(&Made::new("0x010802").driver("nvme"), &[], "it is no network device (its class is 0x010802)");
        told(&Made::new(NIC).driver("vfio-pci"), &[], "there is no IOMMU for it: say intel_iommu=on");
        let held = Made::new(NIC).driver("vfio-pci").group();
        told(&held, &[], "vfio/7: No such file");
        fs::remove_dir_all(held.device()).unwrap();
        told(&held, &[], "there is no PCI device of this address: `lspci -D`");
    }

    #[test]
    fn what_eal_said_of_a_device_is_told_with_the_cure() {
        let bound = Made::new("0x020000").driver("uio_pci_generic");
        let said = "EAL: Probe PCI driver: net_ixgbe (8086:10fb) device: 0000:03:00.0 (socket 0)\n\
                    EAL: Expecting 'PA' IOVA mode but current mode is 'VA', not initializing\n\
                    EAL: Requested device 0000:03:00.0 cannot be used\n";
        let told = bound.tell(&[], said);
        assert!(told.contains("Requested device 0000:03:00.0 cannot be used; Expecting 'PA'"), "{told}");
        assert!(told.contains("it needs physical addresses: reserve huge pages"), "{told}");
    }

    #[test]
    fn a_virtual_device_is_told_with_its_drivers_reason_and_the_cure() {
        let args = ["--vdev=net_af_packet0,iface=eth9".to_owned()];
        let machine = Machine { args: &args, log: "", sys: Path::new("/sys"), dev: Path::new("/dev") };
        let told = |name: &str, reason: Option<&str>| machine.tell(&no_such(name, reason));
        let missing = told("net_af_packet0", Some("ioctl failed (SIOCGIFINDEX):No such device"));
        assert!(missing.contains("net_af_packet0 did not come up: ioctl failed"), "{missing}");
        assert!(missing.ends_with(
            "there is no interface eth9 in this network namespace: `ip link` lists those that there are"
        ));
        let refused = told("net_af_packet0", Some("could not open AF_PACKET socket:Operation not permitted"));
        assert!(refused.ends_with("CAP_IPC_LOCK for its rings)"), "{refused}");
        let ring = "call to mmap failed on AF_PACKET socket for eth1:Resource temporarily unavailable";
        let locked_out = told("net_af_packet0", Some(ring));
        assert!(locked_out.ends_with("(LimitMEMLOCK=infinity under systemd)"), "{locked_out}");
        let unmade = told("net_af_packet1", None);
        assert!(
            unmade.ends_with("a virtual device is made by --vdev=net_af_packet1,… among eal.args"),
            "{unmade}"
        );
        let queues = |driver: &str| pmd::Error::TooManyQueues {
            port: "p".to_owned(),
            driver: driver.to_owned(),
            asked: 2,
            offered: 1,
        };
        assert!(machine.tell(&queues("net_af_packet")).contains("qpairs=2 among its arguments"));
        assert!(
            machine.tell(&queues("net_pcap")).ends_with("workers.cores may have 1 at most with this port")
        );
    }
}
