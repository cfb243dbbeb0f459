//! The lab with a router in the appliance's place: Linux's own connection tracking, asked packet by
//! packet.
//!
//! The hosts are mute (their addresses are taken away), so every packet is the test's. A probe that
//! is not tracked follows each packet: once it has come out at the far end, the packet has too, or
//! never will.

use std::{
    fs::{self, File},
    io::{self, Read, Seek},
    time::{Duration, Instant},
};

use engine::Side;
use rustix::thread::{CpuSet, sched_getcpu, sched_setaffinity};

use super::{At, CLIENT_MAC, CLIENT_V4, INSIDE, Lab, OUTSIDE, SERVER_MAC, SERVER_V4, Wire, on_path};
use crate::frame::{Build, Mac, checksum, udp};

/// The discard service's port, for probes alone.
const PROBES: u16 = 9;
/// A probe that has not come by then is lost, and the test with it.
const LOST: Duration = Duration::from_secs(5);

/// As strict as the kernel gets, and without what needs checksums.
const SETTINGS: [(&str, &str); 8] = [
    ("ipv4/ip_forward", "1"),
    ("ipv4/conf/all/rp_filter", "0"),
    ("ipv4/conf/outside/rp_filter", "0"),
    ("ipv4/conf/inside/rp_filter", "0"),
    ("netfilter/nf_conntrack_tcp_be_liberal", "0"),
    ("netfilter/nf_conntrack_tcp_loose", "0"),
    ("netfilter/nf_conntrack_tcp_ignore_invalid_rst", "0"),
    ("netfilter/nf_conntrack_checksum", "0"),
];

/// A kernel that tracks connections between two mute hosts.
#[derive(Debug)]
pub struct Router {
    table: File,
    /// The hosts' ends: of the server (inside), of the client (outside).
    hosts: [Wire; 2],
    /// The router's own MACs, on those wires.
    macs: [Mac; 2],
    id: u16,
    /// The last, so that nothing holds its namespaces when it goes.
    lab: Lab,
}

impl Router {
    /// What this machine lacks; `None` if it can have one.
    pub fn missing() -> Option<String> {
        if let Some(reason) = Lab::missing() {
            return Some(reason);
        }
        if !on_path("nft") {
            return Some("the router needs nft (Debian: nftables)".into());
        }
        if !fs::exists("/proc/sys/net/netfilter/nf_conntrack_max").unwrap_or(false) {
            return Some("this kernel tracks no connections".into());
        }
        None
    }

    /// A router that lets pass what belongs to connections, and of the rest what `new` lets open
    /// one: rules of nftables that end in `accept`. The calling thread stays on its core from now
    /// on, which keeps packets in order.
    pub fn new(new: &str) -> io::Result<Router> {
        let mut core = CpuSet::new();
        core.set(sched_getcpu());
        sched_setaffinity(None, &core)?;
        let lab = Lab::new()?;
        let run = |at, words: &[&str]| {
            lab.run(at, words, Duration::from_secs(10))?.success().map_err(io::Error::other).map(|_| ())
        };
        for host in [At::Client, At::Server] {
            run(host, &["ip", "address", "flush", "dev", "eth0"])?;
        }
        // Before the settings: only who uses connection tracking has it.
        run(At::Appliance, &["nft", &ruleset(new)])?;
        lab.within(At::Appliance, || {
            SETTINGS.iter().try_for_each(|(key, value)| fs::write(format!("/proc/sys/net/{key}"), value))
        })??;
        for (address, mac, interface) in [(CLIENT_V4, CLIENT_MAC, OUTSIDE), (SERVER_V4, SERVER_MAC, INSIDE)] {
            run(At::Appliance, &["ip", "route", "add", address, "dev", interface])?;
            let neighbour =
                ["ip", "neighbour", "add", address, "lladdr", mac, "dev", interface, "nud", "permanent"];
            run(At::Appliance, &neighbour)?;
        }
        let mac = |interface: &str| -> io::Result<Mac> {
            let path = format!("/sys/class/net/{interface}/address");
            // /sys shows the namespace that it was mounted in: `ip netns exec` mounts it anew.
            let told = lab.run(At::Appliance, ["cat", &path], Duration::from_secs(10))?;
            Ok(Mac::from(told.success().map_err(io::Error::other)?.stdout.trim()))
        };
        Ok(Router {
            table: lab.within(At::Appliance, || File::open("/proc/thread-self/net/nf_conntrack"))??,
            hosts: [lab.wire(At::Server, "eth0")?, lab.wire(At::Client, "eth0")?],
            macs: [mac(INSIDE)?, mac(OUTSIDE)?],
            id: 0,
            lab,
        })
    }

    /// Its lab.
    pub fn lab(&self) -> &Lab {
        &self.lab
    }

    /// Sends an IPv4 packet in an untagged frame from a side; whether it came out on the other one.
    pub fn carries(&mut self, from: Side, frame: &[u8]) -> io::Result<bool> {
        let id = self.send(from, frame)?;
        let (src, dst) = if from == Side::Inside { (SERVER_V4, CLIENT_V4) } else { (CLIENT_V4, SERVER_V4) };
        let probe = self.send(from, &udp((src, PROBES), (dst, PROBES)).frame())?;
        let until = Instant::now() + LOST;
        let mut came = false;
        while let Some(frame) = self.hosts[from.other() as usize].next(until)? {
            if frame.len() < 34
                || frame[6..12] != self.macs[from.other() as usize].0
                || frame[12..14] != [8, 0]
            {
                continue;
            }
            match u16::from_be_bytes([frame[18], frame[19]]) {
                found if found == id => came = true,
                found if found == probe => return Ok(came),
                _ => {}
            }
        }
        Err(io::Error::new(io::ErrorKind::TimedOut, "a probe did not come through the router"))
    }

    /// Sends a frame to the router with an identification of its own, and tells that.
    fn send(&mut self, from: Side, frame: &[u8]) -> io::Result<u16> {
        self.id = self.id.wrapping_add(1);
        let mut frame = frame.to_vec();
        frame[..6].copy_from_slice(&self.macs[from as usize].0);
        frame[18..20].copy_from_slice(&self.id.to_be_bytes());
        frame[24..26].fill(0);
        let header = 14..14 + usize::from(frame[14] & 0xF) * 4;
        let sum = checksum(&[&frame[header]]);
        frame[24..26].copy_from_slice(&sum.to_be_bytes());
        self.hosts[from as usize].send(&frame)?;
        Ok(self.id)
    }

    /// The kernel's state of the TCP connection between these ports; `None` if it has none.
    pub fn tcp_state(&mut self, ports: (u16, u16)) -> io::Result<Option<String>> {
        let mut table = String::new();
        self.table.rewind()?;
        self.table.read_to_string(&mut table)?;
        let pair = |a, b| format!(" sport={a} dport={b} ");
        let (there, back) = (pair(ports.0, ports.1), pair(ports.1, ports.0));
        let line = table.lines().find(|line| {
            line.split_whitespace().nth(2) == Some("tcp") && line.contains(&there) && line.contains(&back)
        });
        Ok(line.and_then(|line| line.split_whitespace().nth(5)).map(str::to_owned))
    }
}

fn ruleset(new: &str) -> String {
    format!(
        "table inet router {{
            chain early {{
                type filter hook prerouting priority raw
                udp dport {PROBES} notrack
            }}
            chain forward {{
                type filter hook forward priority filter; policy drop
                udp dport {PROBES} accept
                ct state established,related accept
                ct state invalid drop
                {new}
            }}
        }}"
    )
}
