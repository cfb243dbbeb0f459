//! `init`: a first configuration and policy, for this machine. Nothing that is there is overwritten.

use std::io::Write;
use std::process::ExitCode;

use control::init::{InitContext, InterfaceDriver, is_pci, templates_for};

use crate::appliance::cores;
use crate::appliance::ports::offloads;
use crate::appliance::refusals;
use crate::cli::{self, Kind};
use crate::failure::{Failure, print, warn};
use crate::machine::Machine;
use crate::ports;

/// `init`
pub fn run(args: &cli::Init) -> Result<ExitCode, Failure> {
    let machine = Machine::here();
    let (Some(inside), Some(outside)) = (&args.inside, &args.outside) else {
        let candidates = ports::text(&ports::candidates(&machine));
        return Err(Failure::input(format!(
            "--inside PORT and --outside PORT name the two ports that a wire joins; what can be one here:\n{candidates}"
        )));
    };
    let named = [taken(&machine, inside, args.kind)?, taken(&machine, outside, args.kind)?];
    let told = notes(&machine, &named);
    told.warnings.iter().for_each(warn);
    let around = InitContext {
        by: if args.kind == Kind::AfXdp { InterfaceDriver::AfXdp } else { InterfaceDriver::AfPacket },
        core: core(&machine, &named, &cores::there()),
        notes: told.lines,
    };
    let templates = templates_for(&named[0], &named[1], &around).map_err(Failure::input)?;
    std::fs::create_dir_all(&args.dir)
        .map_err(|e| Failure::runtime(format!("{}: {e}", args.dir.display())))?;
    let files = [
        (args.dir.join("portcullis.toml"), templates.config),
        (args.dir.join("policy.yaml"), templates.policy),
    ];
    if let Some((path, _)) = files.iter().find(|(path, _)| path.exists()) {
        return Err(Failure::input(format!("{}: is there already, and is not overwritten", path.display())));
    }
    for (path, text) in &files {
        std::fs::File::create_new(path)
            .and_then(|mut file| file.write_all(text.as_bytes()))
            .map_err(|e| Failure::runtime(format!("{}: {e}", path.display())))?;
        print(&format!("{}\n", path.display()), false);
    }
    Ok(ExitCode::SUCCESS)
}

/// The port that is meant: of an interface, the NIC on the PCI bus where that is wanted.
fn taken(machine: &Machine, port: &str, kind: Kind) -> Result<String, Failure> {
    let is_interface = !port.starts_with("net_") && !port.starts_with('/') && !is_pci(port);
    if kind != Kind::Pci || !is_interface {
        return Ok(port.to_owned());
    }
    let nics = machine.pci_nics();
    let nic = nics.iter().find(|nic| nic.interface.as_deref() == Some(port));
    nic.map(|nic| nic.address.clone()).ok_or_else(|| {
        let known: Vec<&str> = nics.iter().filter_map(|nic| nic.interface.as_deref()).collect();
        let known = if known.is_empty() {
            "none here is".to_owned()
        } else {
            format!("allowed: {}", known.join(", "))
        };
        Failure::input(format!("{port:?} is no interface of a NIC on the PCI bus; {known}"))
    })
}

/// What the machine wants done before the start.
#[derive(Debug, Default)]
struct Notes {
    /// Lines for the configuration.
    lines: Vec<String>,
    /// What is likely a mistake.
    warnings: Vec<String>,
}

fn notes(machine: &Machine, ports: &[String; 2]) -> Notes {
    let mut notes = Notes::default();
    for port in ports {
        if is_pci(port) {
            of_nic(machine, port, &mut notes);
        } else if port.starts_with('/') {
            of_socket(port, &mut notes);
        } else if !port.starts_with("net_") {
            of_interface(machine, port, &mut notes);
        }
    }
    let mtus: Vec<u16> = ports.iter().filter_map(|port| machine.mtu_of(port)).collect();
    if let [inside, outside] = mtus[..]
        && inside != outside
    {
        let told = format!("{} has MTU {inside}, {} has {outside}", ports[0], ports[1]);
        notes.lines.push(format!("{told}; a wire wants the same on both sides, before the start:"));
        notes.lines.push(format!("  ip link set {} mtu {outside}", ports[0]));
        notes.warnings.push(format!("{told}: `run` wants the same on both sides"));
    }
    notes
}

fn of_nic(machine: &Machine, port: &str, notes: &mut Notes) {
    let domain = if port.matches(':').count() == 1 { "0000:" } else { "" };
    let address = format!("{domain}{}", port.to_ascii_lowercase());
    let Some(nic) = machine.pci_nic(&address) else {
        return notes.warnings.push(format!(
            "there is no NIC {address} on the PCI bus here: `portcullis ports` lists those that there are"
        ));
    };
    let asked = refusals::Machine { args: &[], log: "", sys: &machine.sys, dev: &machine.dev };
    if machine.sys.join("kernel/iommu_groups").read_dir().is_ok_and(|mut groups| groups.next().is_none()) {
        notes.lines.push("There is no IOMMU, which vfio-pci wants: intel_iommu=on or amd_iommu=on on the kernel's command line.".to_owned());
    }
    if nic.is_for_dpdk() {
        let driver = nic.driver.unwrap_or_default();
        let trouble = asked.obstacle(&address).map_or_else(String::new, |trouble| format!("; {trouble}"));
        return notes.lines.push(format!("{address} is bound to {driver}{trouble}."));
    }
    let back = nic.driver.as_ref().map_or_else(String::new, |driver| {
        let whose = nic.interface.as_ref().map_or_else(String::new, |name| format!(" as {name}"));
        format!(" The kernel's {driver} has it{whose}; with that name it is given back.")
    });
    notes
        .lines
        .push(format!("Before the start, and again after each boot, {address} is given to DPDK.{back}"));
    notes.lines.push("  modprobe vfio-pci".to_owned());
    notes.lines.push(format!("  dpdk-devbind.py --bind=vfio-pci {address}"));
    if nic.interface.as_deref().is_some_and(|name| ports::carries_default_route(machine, name)) {
        let name = nic.interface.unwrap_or_default();
        notes.warnings.push(format!("this machine's default route goes by {name}, which then goes"));
    }
}

fn of_socket(path: &str, notes: &mut Notes) {
    notes.lines.push(format!(
        "The appliance makes {path}; a virtual machine that comes to it shares its memory. For QEMU:"
    ));
    notes
        .lines
        .push("  -object memory-backend-memfd,id=mem,share=on,size=4G -numa node,memdev=mem".to_owned());
    notes.lines.push(format!(
        "  -chardev socket,id=chr,path={path},reconnect=1 -netdev vhost-user,id=net,chardev=chr -device virtio-net-pci,netdev=net"
    ));
}

fn of_interface(machine: &Machine, name: &str, notes: &mut Notes) {
    let Some(interface) = machine.interface(name) else {
        return notes.warnings.push(format!(
            "there is no interface {name} here (yet): `portcullis ports` lists those that there are"
        ));
    };
    let mut todo = Vec::new();
    if !interface.is_up {
        todo.push(format!("  ip link set {name} up"));
    }
    if !interface.merges.is_empty() && machine.sys.join(format!("class/net/{name}/device")).exists() {
        todo.push(format!("  ethtool -K {name} {} off", interface.merges.join(" off ")));
    }
    if let Some(peer) = interface.peer.as_ref().filter(|peer| !peer.leaves.is_empty()) {
        todo.push(format!("  {}", offloads::cure(name, Some(&peer.name)).trim_matches('`')));
    }
    if !todo.is_empty() {
        notes.lines.push(format!("Before the start, for {name}:"));
        notes.lines.append(&mut todo);
    }
    if ports::carries_default_route(machine, name) {
        notes.warnings.push(format!(
            "this machine's default route goes by {name}: what its packets meet is the policy"
        ));
    }
}

/// The worker's core: an isolated one, of the NICs' node where they are at one; else 1, which leaves 0 to everything else; else the last.
fn core(machine: &Machine, ports: &[String; 2], there: &[usize]) -> usize {
    let node = ports.iter().find_map(|port| machine.pci_nic(port)?.numa);
    let is_near = |core: &usize| node.is_none() || machine.node_of_core(*core) == node;
    let isolated: Vec<usize> = machine
        .cores("devices/system/cpu/isolated")
        .into_iter()
        .filter(|core| there.contains(core))
        .collect();
    let near = isolated.iter().copied().find(is_near).or(isolated.first().copied());
    let usual = || there.iter().copied().find(|core| *core > 0 && is_near(core));
    near.or_else(usual)
        .or_else(|| there.iter().copied().find(|core| *core > 0))
        .or(there.last().copied())
        .unwrap_or(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::planted::{NIC, Tree};

    fn told(tree: &Tree, inside: &str, outside: &str) -> (String, Vec<String>) {
        let Notes { lines, warnings } = notes(&tree.machine, &[inside.to_owned(), outside.to_owned()]);
        (lines.join("\n"), warnings)
    }

    #[test]
    fn a_nic_is_given_to_dpdk_by_commands_and_told_by_whose_name_it_is_given_back() {
        let tree = Tree::new();
        assert_eq!(told(&tree, NIC, "net_null0"), (format!("{NIC} is bound to vfio-pci."), vec![]));
        tree.device("ixgbe", Some("7"));
        tree.write(&format!("sys/bus/pci/devices/{NIC}/net/eth9/type"), "1");
        let (lines, warnings) = told(&tree, "03:00.0", "eth2");
        assert!(
            lines.contains("The kernel's ixgbe has it as eth9; with that name it is given back."),
            "{lines}"
        );
        assert!(
            lines.ends_with("\n  modprobe vfio-pci\n  dpdk-devbind.py --bind=vfio-pci 0000:03:00.0"),
            "{lines}"
        );
        assert_eq!(warnings, [""; 0]);
        std::fs::remove_dir_all(tree.path("sys/kernel/iommu_groups/7")).unwrap();
        assert!(
            told(&tree, NIC, "eth2").0.starts_with("There is no IOMMU, which vfio-pci wants: intel_iommu=on")
        );
        tree.write("proc/self/net/route", "Iface\tDestination\neth9\t00000000");
        let (_, warnings) = told(&tree, NIC, "0000:09:00.0");
        assert!(
            warnings[0].contains("default route goes by eth9") && warnings[1].contains("no NIC 0000:09:00.0"),
            "{warnings:?}"
        );
    }

    #[test]
    fn an_interface_is_named_by_its_nic_where_that_is_wanted() {
        let tree = Tree::new();
        tree.device("ixgbe", None);
        tree.write(&format!("sys/bus/pci/devices/{NIC}/net/eth9/type"), "1");
        let taken = |port: &str, kind| taken(&tree.machine, port, kind);
        assert_eq!(taken("eth9", Kind::Pci).unwrap(), NIC);
        assert_eq!(taken("eth9", Kind::AfPacket).unwrap(), "eth9");
        assert_eq!(taken("net_null0", Kind::Pci).unwrap(), "net_null0");
        let refused = taken("eth1", Kind::Pci).unwrap_err();
        assert_eq!(refused.message(), "\"eth1\" is no interface of a NIC on the PCI bus; allowed: eth9");
    }

    #[test]
    fn interfaces_are_made_ready_by_commands() {
        let mut tree = Tree::new();
        assert_eq!(told(&tree, "eth1", "eth2"), (String::new(), vec![]));
        tree.machine.interfaces[0].is_up = false;
        tree.machine.interfaces[1].peer.as_mut().unwrap().leaves = vec!["tx"];
        tree.machine.interfaces[1].mtu = 9000;
        let (lines, warnings) = told(&tree, "eth1", "eth2");
        let lines: Vec<&str> = lines.lines().collect();
        assert_eq!(lines[..2], ["Before the start, for eth1:", "  ip link set eth1 up"]);
        assert_eq!(
            lines[2..4],
            ["Before the start, for eth2:", "  ethtool -K eth2-peer tx off tso off gso off"]
        );
        assert_eq!(lines[5..], ["  ip link set eth1 mtu 9000"]);
        assert!(warnings[0].starts_with("eth1 has MTU 1500, eth2 has 9000"), "{warnings:?}");
        assert!(told(&tree, "eth8", "net_null0").1[0].contains("no interface eth8 here"));
        assert!(told(&tree, "/run/vm1.sock", "eth2").0.contains("-chardev socket,id=chr,path=/run/vm1.sock"));
    }

    #[test]
    fn the_workers_core_is_isolated_and_near_where_there_is_such_a_one() {
        let tree = Tree::new();
        let ports = |inside: &str| [inside.to_owned(), "eth2".to_owned()];
        let core = |tree: &Tree, inside: &str, there: &[usize]| core(&tree.machine, &ports(inside), there);
        std::fs::write(tree.path(&format!("sys/bus/pci/devices/{NIC}/numa_node")), "1").unwrap();
        assert_eq!(core(&tree, NIC, &[0, 1, 2, 3]), 2, "isolated are 0 and 2, and 2 is of node 1");
        assert_eq!(core(&tree, "eth1", &[0, 1, 2, 3]), 0);
        tree.write("sys/devices/system/cpu/isolated", "");
        assert_eq!(core(&tree, "eth1", &[0, 1, 2, 3]), 1);
        assert_eq!(core(&tree, NIC, &[0, 1, 2, 3]), 2, "the first of node 1");
        assert_eq!((core(&tree, NIC, &[0, 1]), core(&tree, NIC, &[0])), (1, 0));
    }
}
