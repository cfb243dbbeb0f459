//! What a port is to have before EAL starts: its interface for itself, and the place of its socket.
//!
//! Interfaces of XDP sockets are had by one appliance at a time. The driver of a second one, refused by the kernel, takes the first
//! one's program off the interface as it goes, and the first receives nothing any more: so a second one must not come so far.
//!
//! A claim is an abstract socket: it is of a network namespace, as interfaces are, and goes with its process, however that ends.

use std::fs;
use std::io::ErrorKind;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::path::Path;

use control::config::Config;

use super::super::mtu;

/// The driver that they are of.
const XDP: &str = "net_af_xdp";

/// The driver whose ports are sockets of virtual machines.
const VHOST: &str = "net_vhost";

/// What is claimed, until it is dropped.
#[derive(Debug)]
pub struct Claims(#[expect(dead_code, reason = "held, not used")] Vec<UnixListener>);

/// Claims the interfaces that the wires' ports have by XDP sockets. An error is one line.
pub fn claim(config: &Config) -> Result<Claims, String> {
    let ports = config.wires.iter().flat_map(|wire| [&wire.inside, &wire.outside]);
    let of_interfaces = ports
        .filter(|port| port.starts_with(XDP))
        .filter_map(|port| Some((port, mtu::interface(&config.eal.args, port)?)));
    let claims = of_interfaces.map(|(port, interface)| {
        let name = format!("portcullis/xdp/{interface}");
        let bound = SocketAddr::from_abstract_name(&name).and_then(|name| UnixListener::bind_addr(&name));
        bound.map_err(|error| {
            format!(
                "the port {port} cannot be had: another process has {interface} by an XDP socket ({error}): `ss -xlp | grep {name}` \
                 names it"
            )
        })
    });
    Ok(Claims(claims.collect::<Result<_, _>>()?))
}

/// Removes sockets of virtual machines that an appliance left which was killed: the driver does not bind where one lies. One that
/// somebody listens at is left alone, and so is what the driver does not make (`client=1`).
pub fn remove_stale_sockets(config: &Config) {
    let args = &config.eal.args;
    let ports = config.wires.iter().flat_map(|wire| [&wire.inside, &wire.outside]);
    for port in ports.filter(|port| port.starts_with(VHOST)) {
        let Some(vdev) = mtu::vdev(args, port).filter(|vdev| mtu::value(vdev, "client") != Some("1")) else {
            continue;
        };
        let Some(path) = mtu::value(vdev, "iface").map(Path::new) else { continue };
        let is_socket = fs::symlink_metadata(path).is_ok_and(|there| there.file_type().is_socket());
        let is_stale = || UnixStream::connect(path).is_err_and(|e| e.kind() == ErrorKind::ConnectionRefused);
        if is_socket && is_stale() {
            // What stays is the driver's to tell.
            let _ = fs::remove_file(path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_virtual_machines_socket_that_nobody_listens_at_is_removed_and_no_other_file() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("vm.sock");
        let look = |client: &str| {
            let mut config = config(VHOST);
            config.eal.args = vec![format!("--vdev=net_vhost0,iface={}{client}", path.display())];
            remove_stale_sockets(&config);
            path.exists()
        };
        let listener = UnixListener::bind(&path).unwrap();
        assert!(look(""), "somebody listens");
        drop(listener);
        assert!(look(",client=1"), "it is another's");
        assert!(!look(""));
        fs::write(&path, "a file").unwrap();
        assert!(look(""));
    }

    fn config(driver: &str) -> Config {
        let mut config = Config::default();
        let interface = format!("x{}", std::process::id() % 1_000_000);
        config.eal.args = vec![format!("--vdev={driver}0,iface={interface}")];
        let (inside, outside) = (format!("{driver}0"), "net_null1".to_owned());
        config.wires = vec![control::config::Wire { name: "w".to_owned(), inside, outside, mtu: None }];
        config
    }

    #[test]
    fn an_interface_of_an_xdp_socket_is_had_once_and_free_again_when_its_holder_is_gone() {
        let first = claim(&config(XDP)).unwrap();
        let refused = claim(&config(XDP)).unwrap_err();
        assert!(
            refused.starts_with("the port net_af_xdp0 cannot be had: another process has x"),
            "{refused}"
        );
        assert!(refused.contains("`ss -xlp | grep portcullis/xdp/x"), "{refused}");
        // Packet sockets are nobody's alone.
        assert!(claim(&config("net_af_packet")).is_ok() && claim(&config("net_af_packet")).is_ok());
        drop(first);
        assert!(claim(&config(XDP)).is_ok());
    }
}
