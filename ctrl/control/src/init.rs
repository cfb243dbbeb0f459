//! A first configuration and policy, for `portcullis init`.
//!
//! Both are for an appliance that is put into a running network: everything is judged and counted, nothing dropped,
//! until the operator has seen that only what should would drop.

use std::fmt;

/// What `init` writes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Templates {
    /// The configuration, TOML.
    pub config: String,
    /// The policy, YAML.
    pub policy: String,
}

/// A port that cannot be one, with what is allowed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadPort(String);

impl fmt::Display for BadPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for BadPort {}

/// The longest name of a kernel's interface.
const MAX_INTERFACE: usize = 15;

/// The longest path of a socket.
const MAX_SOCKET: usize = 107;

/// Frames of an AF_PACKET ring: 20 ms at 800,000 frames a second.
const RING_FRAMES: u32 = 16_384;

/// What is said of them.
const RINGS: &str = "\
# framecnt: frames that an AF_PACKET ring holds while the worker is away from its core. 16384 are 20 ms at 800,000 frames
# a second, 10 Gbit/s of full frames. Each takes 2 kB of locked memory in each direction: 64 MB a port and worker. What
# finds no room is counted (`portcullis show counters`, rx lost) and in `portcullis show health`.
";

/// A port as the operator names it, and what DPDK needs to have it.
struct Port {
    name: String,
    /// The EAL argument that makes or takes the device.
    arg: String,
    pci: bool,
}

/// How DPDK takes an interface of the kernel's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum InterfaceDriver {
    /// By a packet socket, which any interface has.
    #[default]
    AfPacket,
    /// By an XDP socket: faster, and for kernels and drivers that have them.
    AfXdp,
}

/// What the machine is like, as far as it goes into what is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InitContext {
    /// How interfaces are taken.
    pub by: InterfaceDriver,
    /// The worker's core.
    pub core: usize,
    /// Lines to be told beside the ports: what is to be done before the start.
    pub notes: Vec<String>,
}

impl Default for InitContext {
    fn default() -> InitContext {
        InitContext { by: InterfaceDriver::AfPacket, core: 1, notes: Vec::new() }
    }
}

/// Templates for a wire between two ports, each the name of a kernel interface (`eth1`, taken over with an AF_PACKET
/// vdev), of a DPDK vdev with its arguments if it has any (`net_pcap0,rx_pcap=in.pcap`), a PCI address
/// (`0000:03:00.0`), or the socket of a virtual machine (`/run/vm1.sock`, which vhost-user goes over).
pub fn templates(inside: &str, outside: &str) -> Result<Templates, BadPort> {
    templates_for(inside, outside, &InitContext::default())
}

/// The same, for a machine that was looked at.
pub fn templates_for(inside: &str, outside: &str, around: &InitContext) -> Result<Templates, BadPort> {
    let same = inside == outside;
    let (inside, outside) = (port(inside, 0, around.by)?, port(outside, 1, around.by)?);
    if same || inside.name == outside.name {
        return Err(BadPort(format!("{:?} is both inside and outside; allowed: two ports", inside.name)));
    }
    let mut args: Vec<&str> = Vec::new();
    if !inside.pci && !outside.pci {
        args.push("--no-pci");
    }
    args.extend([&*inside.arg, &*outside.arg]);
    let rings = if args.iter().any(|arg| arg.contains("framecnt=")) { RINGS } else { "" };
    let args: Vec<String> = args.into_iter().map(quoted).collect();
    let notes: String =
        around.notes.iter().map(|line| format!("# {line}").trim_end().to_owned() + "\n").collect();
    let config = CONFIG
        .replace("@RINGS@\n", rings)
        .replace("@NOTES@\n", &notes)
        .replace("@CORE@", &around.core.to_string())
        .replace("@ARGS@", &args.join(", "))
        .replace("@INSIDE@", &quoted(&inside.name))
        .replace("@OUTSIDE@", &quoted(&outside.name));
    Ok(Templates { config, policy: POLICY.to_owned() })
}

/// `index` tells the two ports' vdevs apart.
fn port(text: &str, index: usize, by: InterfaceDriver) -> Result<Port, BadPort> {
    let allowed = "an interface (eth1), a DPDK vdev (net_pcap0,rx_pcap=FILE), a PCI address (0000:03:00.0) or a virtual machine's socket \
                   (/run/vm1.sock)";
    let bad = || BadPort(format!("{text:?} is no port; allowed: {allowed}"));
    if text.is_empty() || text.chars().any(|c| c.is_control() || c.is_whitespace()) {
        return Err(bad());
    }
    if is_pci(text) {
        // DPDK names the port by the whole address, however it was asked for.
        let domain = if text.matches(':').count() == 1 { "0000:" } else { "" };
        let name = format!("{domain}{}", text.to_ascii_lowercase());
        return Ok(Port { arg: format!("--allow={name}"), name, pci: true });
    }
    if text.starts_with("net_") {
        let name = text.split(',').next().unwrap_or(text).to_owned();
        return Ok(Port { name, arg: format!("--vdev={text}"), pci: false });
    }
    if text.starts_with('/') {
        // The address of a socket has 108 bytes, one of which ends it.
        if text.len() > MAX_SOCKET || text.contains(',') || text.ends_with('/') {
            return Err(bad());
        }
        let name = format!("net_vhost{index}");
        return Ok(Port { arg: format!("--vdev={name},iface={text}"), name, pci: false });
    }
    // What the kernel refuses in a name, and the comma that would end the vdev's argument.
    if text.len() > MAX_INTERFACE || text.contains(['/', ':', ',']) || text == "." || text == ".." {
        return Err(bad());
    }
    let (name, arg) = match by {
        InterfaceDriver::AfPacket => {
            let name = format!("net_af_packet{index}");
            let arg = format!("--vdev={name},iface={text},framecnt={RING_FRAMES}");
            (name, arg)
        }
        InterfaceDriver::AfXdp => {
            let name = format!("net_af_xdp{index}");
            let arg = format!("--vdev={name},iface={text}");
            (name, arg)
        }
    };
    Ok(Port { name, arg, pci: false })
}

/// `[DOMAIN:]BUS:DEVICE.FUNCTION` in hexadecimal, as lspci prints it.
pub fn is_pci(text: &str) -> bool {
    let hex = |part: &str, len: usize| part.len() == len && part.bytes().all(|b| b.is_ascii_hexdigit());
    let Some((rest, function)) = text.rsplit_once('.') else { return false };
    let mut parts = rest.rsplit(':');
    let (device, bus, domain) = (parts.next(), parts.next(), parts.next());
    parts.next().is_none()
        && hex(function, 1)
        && device.is_some_and(|part| hex(part, 2))
        && bus.is_some_and(|part| hex(part, 2))
        && domain.is_none_or(|part| hex(part, 4))
}

fn quoted(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

const CONFIG: &str = include_str!("init/config.toml");
const POLICY: &str = include_str!("init/policy.yaml");
