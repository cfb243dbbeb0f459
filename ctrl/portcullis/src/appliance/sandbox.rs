//! What the appliance gives up once its ports are open, before a worker sees the first frame: see [`sandbox`].
//!
//! What stays is what it does later by itself: a port whose interface was deleted is attached again, logs are rotated, the policy file
//! and the tokens are read again, the store is opened again. Each kind of port has its row in docs/privileges.md.

use std::path::{Path, PathBuf};

use control::config::{Config, FlowTarget};
use sandbox::{Calls, Capability, Files, Outcome, Restrictions};
use tracing::{info, warn};

use super::environment::runtime_directory;
use super::mtu::{value, vdev};
use super::persist;
use super::ports::Ports;
use super::watch;

/// Options with which EAL keeps memory in files of hugetlbfs.
const HUGE_FILES: [&str; 6] =
    ["--file-prefix", "--no-shconf", "--proc-type", "--huge-dir", "--huge-unlink", "--legacy-mem"];

/// Gives it up, as the configuration says, and tells what holds. What does not is warned of: packets are judged all the same.
pub fn confine(config: &Config, policy: Option<&Path>, ports: &Ports) {
    let wished = &config.sandbox;
    let kinds: Vec<_> =
        ports.drivers().map(|(name, driver)| (driver, vdev(&config.eal.args, name))).collect();
    let mut held = Vec::new();
    if !wished.core_dumps {
        match sandbox::no_core_files() {
            Ok(()) => held.push("no core files".to_owned()),
            Err(why) => lacking(&format!("core files: {why}")),
        }
    }
    if wished.lock_memory {
        sandbox::raise_lock_limit();
    }
    let is_limited = sandbox::locked_memory_is_limited();
    let loads_programs = kinds.iter().any(|(driver, _)| *driver == "net_af_xdp");
    let outcomes = sandbox::confine(&Restrictions {
        no_new_privs: wished.no_new_privs,
        capabilities: wished
            .capabilities
            .then(|| kinds.iter().flat_map(|(its, on)| needed(its, *on, is_limited)).collect()),
        files: wished.landlock.then(|| files(config, policy, &kinds)),
        calls: wished.seccomp.then_some(Calls { bpf: loads_programs }),
    });
    for outcome in outcomes {
        match outcome {
            Outcome::Holds(words) => held.push(words),
            Outcome::Lacking(why) => lacking(&why),
        }
    }
    if !held.is_empty() {
        info!("sandbox: {}", held.join("; "));
    }
}

/// Keeps in memory what the workers use, which by now have touched it.
pub fn lock_memory(config: &Config) {
    if !config.sandbox.lock_memory {
        return;
    }
    match sandbox::lock_what_is_mapped() {
        Ok(()) => info!("sandbox: memory is locked"),
        Err(why) => lacking(&format!("lock_memory: {why}")),
    }
}

fn lacking(why: &str) {
    warn!("sandbox: {why}; the appliance goes on without this");
}

/// The capabilities that a port of this driver needs while it runs: `on` are the arguments of its vdev, none for a device of the machine;
/// `is_limited` is the memory that the process may lock without one.
fn needed(driver: &str, on: Option<&str>, is_limited: bool) -> Vec<Capability> {
    use Capability::{Bpf, IpcLock, NetAdmin, NetRaw};
    match (driver, on) {
        // Packet sockets, their promiscuous mode and their rings, which are locked, whenever an interface is made anew.
        ("net_af_packet", _) if is_limited => vec![NetRaw, NetAdmin, IpcLock],
        ("net_af_packet", _) => vec![NetRaw, NetAdmin],
        ("net_af_xdp", _) if is_limited => vec![NetRaw, NetAdmin, Bpf, IpcLock],
        ("net_af_xdp", _) => vec![NetRaw, NetAdmin, Bpf],
        ("net_pcap", Some(on)) if value(on, "iface").is_some() => vec![NetRaw, NetAdmin],
        ("net_tap", _) => vec![NetAdmin],
        ("net_pcap" | "net_memif" | "net_vhost" | "net_null" | "net_ring", _) => vec![],
        // DPDK maps into the IOMMU what memory it takes later, too.
        (_, None) => vec![IpcLock],
        // A driver that is not known here may do any of these.
        (_, Some(_)) => vec![NetRaw, NetAdmin, IpcLock],
    }
}

/// The files that the appliance comes back to.
fn files(config: &Config, policy: Option<&Path>, kinds: &[(&str, Option<&str>)]) -> Files {
    let mut read: Vec<PathBuf> =
        ["/proc", "/sys", "/etc/passwd", "/etc/group", "/dev/urandom"].map(PathBuf::from).into();
    read.extend(config.sandbox.paths.iter().cloned());
    // Its own symbols, for the report of a panic.
    read.extend(std::env::current_exe());
    if let Some(policy) = policy.filter(|path| *path != Path::new("-")) {
        read.extend(watch::directories(policy));
    }
    read.extend(config.api.token_file.as_deref().and_then(Files::directory_of));

    let page = config.stats_page();
    let socket = |(driver, on): &(&str, Option<&str>)| match (*driver, (*on)?) {
        ("net_memif", on) if value(on, "socket-abstract") == Some("no") => {
            value(on, "socket").map(str::to_owned)
        }
        ("net_vhost", on) => value(on, "iface").map(str::to_owned),
        _ => None,
    };
    let sockets: Vec<String> = kinds.iter().filter_map(socket).collect();
    let logs = config.flow_logs.iter().filter_map(|log| match &log.target {
        FlowTarget::File { path, .. } => Some(path.as_path()),
        _ => None,
    });
    let written = [config.store.path.as_deref(), config.store.witness.as_deref()].into_iter().flatten();
    let written = written
        .chain([config.api.socket.as_path(), page.as_path()])
        .chain(logs)
        .chain(sockets.iter().map(Path::new));
    let mut write: Vec<PathBuf> = written.filter_map(Files::directory_of).collect();
    write.extend(persist::place(config));
    write.push(runtime_directory().join("dpdk"));
    if config.eal.args.iter().any(|arg| HUGE_FILES.iter().any(|option| arg.starts_with(option))) {
        write.extend(huge_page_mounts());
    }
    let mut devices = Vec::new();
    if kinds.iter().any(|(driver, _)| *driver == "net_tap") {
        devices.push("/dev/net/tun".into());
    }
    if kinds.iter().any(|(driver, _)| *driver == "net_af_xdp") {
        write.push("/sys/fs/bpf".into());
    }
    Files { read, write, devices }
}

fn huge_page_mounts() -> Vec<PathBuf> {
    let mounts = std::fs::read_to_string("/proc/mounts").unwrap_or_default();
    let of_kind = mounts.lines().filter(|line| line.split(' ').nth(2) == Some("hugetlbfs"));
    of_kind.filter_map(|line| Some(line.split(' ').nth(1)?.into())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use control::config::parse_config;

    #[test]
    fn each_kind_of_port_keeps_what_it_needs_while_it_runs() {
        use Capability::{Bpf, IpcLock, NetAdmin, NetRaw};
        assert_eq!(needed("net_af_packet", Some("iface=eth1"), false), [NetRaw, NetAdmin]);
        assert_eq!(needed("net_af_packet", Some("iface=eth1"), true), [NetRaw, NetAdmin, IpcLock]);
        assert_eq!(needed("net_af_xdp", Some("iface=eth1"), false), [NetRaw, NetAdmin, Bpf]);
        assert_eq!(needed("net_tap", Some("iface=tap0"), false), [NetAdmin]);
        assert_eq!(needed("net_pcap", Some("iface=eth1"), false), [NetRaw, NetAdmin]);
        for (driver, on) in [
            ("net_pcap", "rx_pcap=a"),
            ("net_memif", "role=server"),
            ("net_vhost", "iface=/s"),
            ("net_null", ""),
            ("net_ring", ""),
        ] {
            assert_eq!(needed(driver, Some(on), true), [], "{driver}");
        }
        assert_eq!(needed("net_ice", None, false), [IpcLock]);
        assert_eq!(needed("net_bonding", Some("mode=1"), false), [NetRaw, NetAdmin, IpcLock]);
    }

    #[test]
    fn what_is_written_later_stays_in_reach_and_what_is_read_is_not_written() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path();
        for name in ["etc", "run", "store", "witness", "logs", "memif", "vhost", "tokens", "srv/1"] {
            std::fs::create_dir_all(root.join(name)).unwrap();
        }
        std::os::unix::fs::symlink("../srv/1/policy.yaml", root.join("etc/policy.yaml")).unwrap();
        let root = root.display();
        let config = format!(
            "[api]\nsocket = \"{root}/run/api.sock\"\ntoken_file = \"{root}/tokens/t\"\n\
             [store]\npath = \"{root}/store/s.redb\"\nwitness = \"{root}/witness/w\"\n\
             [[flow_log]]\nkind = \"json\"\npath = \"{root}/logs/later/flow.json\"\n\
             [conntrack]\nkeep = \"{root}/kept\"\n[sandbox]\npaths = [\"/srv\"]\n"
        );
        let config = parse_config(&config, "c").unwrap();
        let memif = format!("role=server,socket={root}/memif/m.sock,socket-abstract=no");
        let vhost = format!("iface={root}/vhost/v.sock");
        let kinds = [("net_memif", Some(&*memif)), ("net_vhost", Some(&*vhost))];
        let files = files(&config, Some(&PathBuf::from(format!("{root}/etc/policy.yaml"))), &kinds);
        let has = |list: &[PathBuf], name: &str| list.contains(&PathBuf::from(format!("{root}/{name}")));
        for written in ["run", "store", "witness", "logs", "memif", "vhost", "kept"] {
            assert!(has(&files.write, written), "{written}: {:?}", files.write);
        }
        // The directory of the link, and that of what it points to.
        for read in ["etc", "srv/1", "tokens"] {
            assert!(has(&files.read, read) && !has(&files.write, read), "{read}: {files:?}");
        }
        assert!(files.read.contains(&PathBuf::from("/srv")) && files.devices.is_empty());
        // Nor is everything, for a file that lies near the root.
        assert_eq!(
            watch::directories(Path::new("/etc/portcullis/policy.yaml")),
            [PathBuf::from("/etc/portcullis")]
        );
        assert!(!files.read.contains(&PathBuf::from("/")) && !files.write.contains(&PathBuf::from("/")));
    }
}
