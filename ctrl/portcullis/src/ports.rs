//! `ports`: what on this machine can be a port, as `init` takes it, and what keeps it from being one.

use std::process::ExitCode;

use serde::Serialize;

use crate::appliance::refusals;
use crate::cli::{self, Output};
use crate::client::table::aligned;
use crate::failure::{Failure, print};
use crate::machine::{Interface, Machine, PciNic};

/// Something that can be a port.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Candidate {
    /// As `init --inside` and `--outside` take it.
    pub port: String,
    /// `pci`, `interface`, `vhost-user` or `virtio-user`.
    pub kind: &'static str,
    /// How it can be had, the quickest first: kinds as `init --kind` takes them.
    pub by: Vec<&'static str>,
    /// The kernel's driver that has it.
    pub driver: Option<String>,
    /// The kernel's interface that it is.
    pub interface: Option<String>,
    /// The NIC on the PCI bus that it is.
    pub pci: Option<String>,
    /// `dpdk` (given to it), `kernel` or `nobody`: who has it.
    pub held_by: &'static str,
    /// `up`, `down`, or unknown.
    pub link: Option<&'static str>,
    /// Its Ethernet address.
    pub mac: Option<String>,
    /// Bytes of IP that it carries.
    pub mtu: Option<u16>,
    /// The NUMA node that it is at.
    pub numa: Option<u32>,
    /// Its speed, in Mbit/s.
    pub speed: Option<u32>,
    /// What is to be known or done before it is one.
    pub problem: Option<String>,
    /// What mends that.
    pub cure: Option<String>,
}

/// All of them: NICs first, then interfaces, then what comes by a socket.
pub fn candidates(machine: &Machine) -> Vec<Candidate> {
    let nics = machine.pci_nics();
    let mut all: Vec<Candidate> = nics.iter().map(|nic| of_nic(machine, nic)).collect();
    let is_one = |interface: &&Interface| interface.name != "lo";
    let interfaces = machine.interfaces.iter().filter(is_one);
    all.extend(interfaces.map(|interface| of_interface(machine, interface, &nics)));
    all.extend(of_sockets(machine));
    all
}

fn of_nic(machine: &Machine, nic: &PciNic) -> Candidate {
    let args = [];
    let asked = refusals::Machine { args: &args, log: "", sys: &machine.sys, dev: &machine.dev };
    let obstacle = asked.obstacle(&nic.address);
    let seen = nic.interface.as_deref().map(|name| Seen::of(machine, name)).unwrap_or_default();
    Candidate {
        port: nic.address.clone(),
        kind: "pci",
        by: vec!["pci"],
        driver: nic.driver.clone(),
        interface: nic.interface.clone(),
        pci: Some(nic.address.clone()),
        held_by: match &nic.driver {
            None => "nobody",
            Some(_) if nic.is_for_dpdk() => "dpdk",
            Some(_) => "kernel",
        },
        numa: nic.numa,
        link: seen.link,
        mac: seen.mac,
        mtu: seen.mtu,
        speed: seen.speed,
        problem: obstacle.as_ref().map(|trouble| trouble.found.clone()),
        cure: obstacle.map(|trouble| trouble.cure),
    }
}

fn of_interface(machine: &Machine, interface: &Interface, nics: &[PciNic]) -> Candidate {
    let name = &interface.name;
    let seen = Seen::of(machine, name);
    let nic = nics.iter().find(|nic| nic.interface.as_ref() == Some(name));
    let mut by = Vec::new();
    for (kind, driver) in [("af-xdp", "net_af_xdp"), ("af-packet", "net_af_packet")] {
        if machine.has_driver(driver) != Some(false) {
            by.push(kind);
        }
    }
    let (problem, cure) = if carries_default_route(machine, name) {
        let cure = format!("leave {name} to this machine, and take another");
        (
            Some(
                "this machine's default route goes by it: who is logged in through it is cut off".to_owned(),
            ),
            Some(cure),
        )
    } else if !interface.is_up {
        (Some("it is not set up".to_owned()), Some(format!("`ip link set {name} up`")))
    } else if !interface.is_running {
        let cure = "look at its other end: the cable, or the peer that is down";
        (Some("it has no carrier".to_owned()), Some(cure.to_owned()))
    } else {
        (None, None)
    };
    Candidate {
        port: name.clone(),
        kind: "interface",
        by,
        driver: seen.driver,
        interface: Some(name.clone()),
        pci: nic.map(|nic| nic.address.clone()),
        held_by: "kernel",
        link: seen.link,
        mac: seen.mac,
        mtu: seen.mtu,
        numa: nic.and_then(|nic| nic.numa),
        speed: seen.speed,
        problem,
        cure,
    }
}

/// Sockets of virtual machines, and the kernel's vhost.
fn of_sockets(machine: &Machine) -> Vec<Candidate> {
    let kinds = [
        ("/run/portcullis/NAME.sock", "vhost-user", "net_vhost"),
        ("net_virtio_user0,path=/run/portcullis/NAME.sock", "virtio-user", "net_virtio"),
    ];
    let are_there = kinds.into_iter().filter(|(.., driver)| machine.has_driver(driver) != Some(false));
    are_there
        .map(|(port, kind, _)| Candidate {
            port: port.to_owned(),
            kind,
            by: vec![if kind == "vhost-user" { "vhost" } else { "vdev" }],
            driver: None,
            interface: None,
            pci: None,
            held_by: "nobody",
            link: None,
            mac: None,
            mtu: None,
            numa: None,
            speed: None,
            problem: None,
            cure: None,
        })
        .collect()
}

/// What sysfs says of an interface.
#[derive(Default)]
struct Seen {
    driver: Option<String>,
    link: Option<&'static str>,
    mac: Option<String>,
    mtu: Option<u16>,
    speed: Option<u32>,
}

impl Seen {
    fn of(machine: &Machine, name: &str) -> Seen {
        let known = machine.interface(name);
        let word = |file: &str| machine.sys_text(format!("class/net/{name}/{file}"));
        Seen {
            driver: crate::machine::link(&machine.sys.join(format!("class/net/{name}/device/driver"))),
            link: known.map(|interface| if interface.is_running { "up" } else { "down" }),
            mac: word("address").filter(|mac| !mac.is_empty()),
            mtu: known.map(|interface| interface.mtu),
            // -1 where nobody knows.
            speed: word("speed").and_then(|speed| speed.parse().ok()),
        }
    }
}

/// True if packets of this machine's own to everywhere leave by this interface.
pub fn carries_default_route(machine: &Machine, name: &str) -> bool {
    let routes = machine.proc_text("self/net/route").unwrap_or_default();
    routes.lines().skip(1).any(|line| {
        let mut words = line.split_whitespace();
        words.next() == Some(name) && words.next() == Some("00000000")
    })
}

/// `ports`
pub fn run(args: &cli::Ports) -> Result<ExitCode, Failure> {
    let all = candidates(&Machine::here());
    let told = match args.output {
        Output::Json => format!("{}\n", serde_json::to_string(&all).map_err(Failure::runtime)?),
        Output::Table => text(&all),
    };
    print(&told, false);
    Ok(ExitCode::SUCCESS)
}

/// For people.
pub fn text(all: &[Candidate]) -> String {
    let or_dash = |value: Option<String>| value.unwrap_or_else(|| "-".to_owned());
    let row = |candidate: &Candidate| {
        let Candidate { port, held_by, by, driver, link, mac, numa, speed, mtu, .. } = candidate;
        vec![
            port.clone(),
            candidate.kind.to_owned(),
            by.join(","),
            (*held_by).to_owned(),
            or_dash(driver.clone()),
            or_dash(link.map(str::to_owned)),
            or_dash(mac.clone()),
            or_dash(mtu.map(|mtu| mtu.to_string())),
            or_dash(numa.map(|node| node.to_string())),
            or_dash(speed.map(|speed| speed.to_string())),
        ]
    };
    let head = ["port", "kind", "by", "held by", "driver", "link", "mac", "mtu", "numa", "Mbit/s"];
    let rows: Vec<Vec<String>> = all.iter().map(row).collect();
    let mut text = aligned(&head, &rows);
    for candidate in all {
        if let Some(problem) = &candidate.problem {
            let cure = candidate.cure.as_ref().filter(|cure| !cure.is_empty());
            let cure = cure.map_or_else(String::new, |cure| format!(": {cure}"));
            text += &format!("{}: {problem}{cure}\n", candidate.port);
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::planted::{NIC, Tree};

    #[test]
    fn a_nic_is_listed_with_who_has_it_and_what_gives_it_to_dpdk() {
        let tree = Tree::new();
        let nic = |tree: &Tree| candidates(&tree.machine).into_iter().find(|one| one.port == NIC).unwrap();
        let bound = nic(&tree);
        assert_eq!((bound.held_by, bound.driver.as_deref(), bound.numa), ("dpdk", Some("vfio-pci"), Some(0)));
        assert_eq!((bound.kind, bound.by, bound.problem), ("pci", vec!["pci"], None));
        tree.device("ixgbe", Some("7"));
        tree.write(&format!("sys/bus/pci/devices/{NIC}/net/eth2/type"), "1");
        tree.write("sys/class/net/eth2/address", "02:00:00:00:00:02");
        tree.write("sys/class/net/eth2/speed", "10000");
        let kernels = nic(&tree);
        assert_eq!(
            (kernels.held_by, kernels.interface.as_deref(), kernels.link),
            ("kernel", Some("eth2"), Some("up"))
        );
        assert_eq!((kernels.mac.as_deref(), kernels.speed), (Some("02:00:00:00:00:02"), Some(10_000)));
        assert_eq!(
            kernels.problem.as_deref(),
            Some("the kernel's driver ixgbe has it as eth2, which then goes")
        );
        assert!(kernels.cure.unwrap().contains("dpdk-devbind.py --bind=vfio-pci 0000:03:00.0"));
        let all = candidates(&tree.machine);
        let eth2 = all.iter().find(|one| one.port == "eth2").unwrap();
        assert_eq!((eth2.pci.as_deref(), eth2.numa, &eth2.by[..]), (Some(NIC), Some(0), &["af-packet"][..]));
    }

    #[test]
    fn a_nic_of_virtio_is_known_by_the_interface_of_its_virtio_device() {
        let tree = Tree::new();
        tree.device("virtio-pci", None);
        tree.write(&format!("sys/bus/pci/devices/{NIC}/virtio3/net/eth7/type"), "1");
        let nic = tree.machine.pci_nic(NIC).unwrap();
        assert_eq!(nic.interface.as_deref(), Some("eth7"));
    }

    #[test]
    fn what_drivers_are_installed_decides_how_a_port_can_be_had() {
        let tree = Tree::new();
        let sockets = |tree: &Tree| {
            let all = candidates(&tree.machine);
            all.iter().filter(|one| one.held_by == "nobody").map(|one| one.kind).collect::<Vec<_>>()
        };
        assert!(sockets(&tree).is_empty());
        for name in ["af_xdp", "vhost", "virtio"] {
            tree.write(&format!("dpdk/pmds-23.0/librte_net_{name}.so.23.0"), "");
        }
        assert_eq!(sockets(&tree), ["vhost-user", "virtio-user"]);
        let eth1 = candidates(&tree.machine).into_iter().find(|one| one.port == "eth1").unwrap();
        assert_eq!(eth1.by, ["af-xdp", "af-packet"]);
        fs_removed(&tree);
        let all = candidates(&tree.machine);
        let eth1 = all.iter().find(|one| one.port == "eth1").unwrap();
        assert_eq!(eth1.by, ["af-xdp", "af-packet"], "drivers that are linked in are no files");
    }

    fn fs_removed(tree: &Tree) {
        std::fs::remove_dir_all(tree.path("dpdk")).unwrap();
    }

    #[test]
    fn who_carries_the_default_route_is_told_as_a_danger_and_people_see_all_of_it() {
        let mut tree = Tree::new();
        tree.write(
            "proc/self/net/route",
            "Iface\tDestination\tGateway\neth1\t00000000\t0102A8C0\neth2\t0002A8C0\t0",
        );
        tree.machine.interfaces[1].is_running = false;
        let text = text(&candidates(&tree.machine));
        assert!(text.contains("\neth1: this machine's default route goes by it"), "{text}");
        assert!(text.contains("\neth2: it has no carrier: look at its other end"), "{text}");
        assert!(text.starts_with("port ") && text.contains("\n0000:03:00.0  pci "), "{text}");
    }
}
