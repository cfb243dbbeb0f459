//! The machine as `doctor`, `ports` and `init` see it: what sysfs, procfs and `/dev` say, below whatever roots, and the interfaces
//! of this network namespace. Nothing is changed by looking.
//!
//! sysfs may be another namespace's, so interfaces are asked of the kernel by sockets and handed in as values: a test plants both.

mod ethtool;
mod nics;
#[cfg(test)]
pub mod planted;

use std::fs;
use std::path::{Path, PathBuf};

pub use nics::{FOR_DPDK, PciNic, interface_of_device, link};

use crate::appliance::mtu;
use crate::appliance::ports::{interfaces, offloads};

/// Where to look, and what was asked of the kernel already.
#[derive(Clone, Debug)]
pub struct Machine {
    /// `/sys`.
    pub sys: PathBuf,
    /// `/proc`.
    pub proc: PathBuf,
    /// `/dev`.
    pub dev: PathBuf,
    /// Where DPDK's drivers lie, a file each.
    pub drivers: Vec<PathBuf>,
    /// The kernel's interfaces.
    pub interfaces: Vec<Interface>,
    /// Whether the wall clock follows another; `None` where the kernel does not tell.
    pub is_synchronised: Option<bool>,
}

/// A kernel's interface.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Interface {
    /// Its name.
    pub name: String,
    /// Whether it is set up by its administrator.
    pub is_up: bool,
    /// Whether it has a carrier, too.
    pub is_running: bool,
    /// Bytes of IP that it carries.
    pub mtu: u16,
    /// Work that it does on what comes in, so that frames are no longer those of the wire: `gro`, `lro`.
    pub merges: Vec<&'static str>,
    /// The other end of a veth, in this namespace.
    pub peer: Option<Peer>,
}

/// The other end of a veth.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Peer {
    /// Its name.
    pub name: String,
    /// Work that its kernel leaves to it: `tx`, `tso`.
    pub leaves: Vec<&'static str>,
}

impl Machine {
    /// This one.
    pub fn here() -> Machine {
        let all = interfaces::all().unwrap_or_default();
        let interfaces = all.iter().map(|on| {
            let peer = offloads::peer_of(on, &all).map(|peer| Peer {
                name: peer.name.clone(),
                leaves: ethtool::on(&peer.name, &ethtool::LEFT_TO_A_DEVICE),
            });
            Interface {
                name: on.name.clone(),
                is_up: on.is_up,
                is_running: on.is_running,
                mtu: mtu::mtu_of(&on.name).unwrap_or_default(),
                merges: ethtool::on(&on.name, &ethtool::MERGES),
                peer,
            }
        });
        let root = |path: &str| PathBuf::from(path);
        Machine {
            sys: root("/sys"),
            proc: root("/proc"),
            dev: root("/dev"),
            drivers: [
                "/usr/lib/x86_64-linux-gnu",
                "/usr/lib/aarch64-linux-gnu",
                "/usr/lib64",
                "/usr/local/lib",
            ]
            .iter()
            .map(|library| Path::new(library).join("dpdk"))
            .collect(),
            interfaces: interfaces.collect(),
            is_synchronised: is_synchronised(),
        }
    }

    /// The interface of this name.
    pub fn interface(&self, name: &str) -> Option<&Interface> {
        self.interfaces.iter().find(|interface| interface.name == name)
    }

    /// The MTU of the interface of this name.
    pub fn mtu_of(&self, name: &str) -> Option<u16> {
        self.interface(name).map(|interface| interface.mtu)
    }

    /// A file's text below `/sys`, without the blanks around it.
    pub fn sys_text(&self, path: impl AsRef<Path>) -> Option<String> {
        text(&self.sys.join(path))
    }

    /// A file's text below `/proc`.
    pub fn proc_text(&self, path: impl AsRef<Path>) -> Option<String> {
        text(&self.proc.join(path))
    }

    /// A value of `/proc/self/status`, such as `CapEff`.
    pub fn status(&self, key: &str) -> Option<String> {
        let status = self.proc_text("self/status")?;
        let line = status.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'))?;
        Some(line.trim().to_owned())
    }

    /// Whether this process has a capability, by its number; `None` where procfs does not tell.
    pub fn has_capability(&self, number: u32) -> Option<bool> {
        let effective = u64::from_str_radix(&self.status("CapEff")?, 16).ok()?;
        Some(effective >> number & 1 != 0)
    }

    /// Bytes that this process may lock without `CAP_IPC_LOCK`; `None` for any number.
    pub fn lock_limit(&self) -> Option<u64> {
        let limits = self.proc_text("self/limits")?;
        let line = limits.lines().find_map(|line| line.strip_prefix("Max locked memory"))?;
        line.split_whitespace().next()?.parse().ok()
    }

    /// Cores of a list in sysfs, such as `1-3,8`.
    pub fn cores(&self, path: &str) -> Vec<usize> {
        self.sys_text(path).map(|text| listed(&text)).unwrap_or_default()
    }

    /// The NUMA nodes.
    pub fn nodes(&self) -> Vec<u32> {
        let node = |name: String| name.strip_prefix("node")?.parse().ok();
        let mut nodes: Vec<u32> =
            names(&self.sys.join("devices/system/node")).into_iter().filter_map(node).collect();
        nodes.sort_unstable();
        nodes
    }

    /// The NUMA node that a core is of.
    pub fn node_of_core(&self, core: usize) -> Option<u32> {
        let has_it =
            |node: &u32| self.cores(&format!("devices/system/node/node{node}/cpulist")).contains(&core);
        self.nodes().into_iter().find(has_it)
    }

    /// Whether DPDK's driver of this name (`net_af_xdp`) is installed; `None` where no drivers are found at all, as when they are
    /// linked into the program.
    pub fn has_driver(&self, name: &str) -> Option<bool> {
        let mut found = false;
        for directory in &self.drivers {
            for plugins in names(directory).into_iter().filter(|name| name.starts_with("pmds-")) {
                let plugins = directory.join(plugins);
                found = true;
                let begins = format!("librte_{name}.so");
                if names(&plugins).iter().any(|file| file.starts_with(&begins)) {
                    return Some(true);
                }
            }
        }
        found.then_some(false)
    }
}

/// A small file's text, without the blanks around it.
fn text(path: &Path) -> Option<String> {
    Some(fs::read_to_string(path).ok()?.trim().to_owned())
}

/// What lies in a directory, by name and in their order.
pub fn names(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let mut names: Vec<String> =
        entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort_unstable();
    names
}

/// Numbers of a list such as `1-3,8`.
pub fn listed(text: &str) -> Vec<usize> {
    let range = |part: &str| -> Option<std::ops::RangeInclusive<usize>> {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        Some(first.trim().parse().ok()?..=last.trim().parse().ok()?)
    };
    text.split(',').filter_map(range).flatten().collect()
}

/// Asks the kernel whether something (NTP, PTP) steers the wall clock.
fn is_synchronised() -> Option<bool> {
    // SAFETY: all-zero is a valid request: nothing is to be changed.
    let mut request: libc::timex = unsafe { std::mem::zeroed() };
    // SAFETY: the request lives and is of the kind that the call reads and writes.
    match unsafe { libc::adjtimex(&mut request) } {
        -1 => None,
        _ => Some(request.status & libc::STA_UNSYNC == 0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_cores_are_read_as_the_kernel_writes_them() {
        assert_eq!(listed("1-3,8"), [1, 2, 3, 8]);
        assert_eq!(listed("0"), [0]);
        assert_eq!(listed(""), [0usize; 0]);
    }

    #[test]
    fn this_machine_can_be_looked_at() {
        let here = Machine::here();
        assert!(here.interface("lo").is_some_and(|lo| lo.mtu > 0 && lo.peer.is_none()), "{here:?}");
        assert!(here.status("CapEff").is_some() && here.has_capability(0).is_some());
    }
}
