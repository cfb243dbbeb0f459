//! What this user may: capabilities and locked memory; and the sizes of rings, which hang on it.

use super::MachineCheck;
use crate::appliance::mtu;

const CAPABILITIES: &str = "capabilities";
const RINGS: &str = "rings";

/// Capabilities by their numbers in `linux/capability.h`.
const NET_ADMIN: (u32, &str) = (12, "CAP_NET_ADMIN");
const NET_RAW: (u32, &str) = (13, "CAP_NET_RAW");
const IPC_LOCK: (u32, &str) = (14, "CAP_IPC_LOCK");
const SYS_ADMIN: (u32, &str) = (21, "CAP_SYS_ADMIN");
const BPF: (u32, &str) = (39, "CAP_BPF");

/// Frames that an AF_PACKET ring holds where nobody says anything else: 20 ms at 800,000 frames a second.
const USUAL_RING: usize = 16_384;

impl MachineCheck<'_> {
    pub(super) fn process(&mut self) {
        self.capabilities();
        self.rings();
    }

    fn capabilities(&mut self) {
        let ports = self.ports();
        let is_made_by = |driver: &str| ports.iter().any(|port| port.starts_with(driver));
        let mut needed = Vec::new();
        if is_made_by("net_af_packet") {
            needed.extend([NET_RAW, NET_ADMIN]);
        }
        if is_made_by("net_af_xdp") {
            needed.extend([NET_RAW, NET_ADMIN, BPF]);
        }
        if is_made_by("net_tap") {
            needed.push(NET_ADMIN);
        }
        if ports.iter().any(|port| self.machine.pci_nic(port).is_some_and(|nic| nic.is_for_dpdk()))
            && self.machine.lock_limit().is_some()
        {
            needed.push(IPC_LOCK);
        }
        let is_lacking = |(number, _): &(u32, &str)| self.machine.has_capability(*number) == Some(false);
        // What administers the system may do as BPF may.
        let mut lacking: Vec<(u32, &str)> = needed.into_iter().filter(is_lacking).collect();
        lacking.retain(|capability| *capability != BPF || is_lacking(&SYS_ADMIN));
        lacking.sort_unstable();
        lacking.dedup();
        let names: Vec<&str> = lacking.iter().map(|(_, name)| *name).collect();
        if names.is_empty() {
            return self.ok(CAPABILITIES, None, "this user may all that the ports need");
        }
        let cure = format!(
            "run as root, or with them: `systemctl edit portcullis` and `AmbientCapabilities={0}`, `CapabilityBoundingSet={0}`",
            names.join(" ")
        );
        self.fail(CAPABILITIES, None, format!("this user lacks {}", names.join(", ")), cure);
    }

    /// Rings of AF_PACKET: frames that wait while a worker is away, in locked memory.
    fn rings(&mut self) {
        let is_one = |port: &String| port.starts_with("net_af_packet");
        let ports: Vec<String> = self.ports().into_iter().filter(is_one).collect();
        if ports.is_empty() {
            return;
        }
        let limit =
            self.machine.lock_limit().filter(|_| self.machine.has_capability(IPC_LOCK.0) == Some(false));
        let by_interface = |name: &str| self.machine.mtu_of(name);
        // Where MTUs differ that is told elsewhere.
        let unknown = |_| vec![None; self.config.wires.len()];
        let mtus = mtu::resolve_by(&self.config, &by_interface).unwrap_or_else(unknown);
        let rings = 2 * ports.len() * self.config.workers.cores.len();
        let within = mtu::ring_within(rings, limit, limit.is_none());
        let Ok(room) = mtu::buffer_sizing_with(&self.config, &mtus, within) else { return };
        let number = |port: &str, key: &str| {
            let vdev = mtu::vdev(&room.args, port)?;
            mtu::value(vdev, key)?.parse::<usize>().ok()
        };
        let mut locked = 0;
        for port in &ports {
            let frames = number(port, "framecnt").unwrap_or_default();
            let slot = number(port, "framesz").unwrap_or(2048);
            locked += 2 * self.config.workers.cores.len() * frames * slot;
            let milliseconds = frames as f64 / 800.0;
            let found = format!("framecnt is {frames}: {milliseconds:.1} ms at 800,000 frames a second");
            if frames >= USUAL_RING * 2048 / slot.max(2048) {
                self.ok(RINGS, Some(port.clone()), found);
            } else {
                let cost = "frames are lost while the worker is away from its core for longer";
                let says =
                    mtu::vdev(self.args(), port).is_some_and(|vdev| mtu::value(vdev, "framecnt").is_some());
                let cure = if says {
                    format!("framecnt={USUAL_RING} among the arguments of {port}")
                } else {
                    "`ulimit -l unlimited` (LimitMEMLOCK=infinity under systemd), or CAP_IPC_LOCK".to_owned()
                };
                self.warn(RINGS, Some(port.clone()), found, (cost, cure));
            }
        }
        if let Some(limit) = limit.filter(|limit| locked as u64 > *limit) {
            let found = format!(
                "AF_PACKET rings take {} kB of locked memory, {} kB may be locked",
                locked >> 10,
                limit >> 10
            );
            let cure = "make framecnt smaller, or `ulimit -l unlimited` (LimitMEMLOCK=infinity under systemd), or CAP_IPC_LOCK";
            self.fail(RINGS, None, found, cure);
        }
    }
}
