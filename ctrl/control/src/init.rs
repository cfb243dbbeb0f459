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

/// Templates for a wire between two ports, each the name of a kernel interface (`eth1`, taken over with an AF_PACKET
/// vdev), of a DPDK vdev with its arguments if it has any (`net_pcap0,rx_pcap=in.pcap`), or a PCI address
/// (`0000:03:00.0`).
pub fn templates(inside: &str, outside: &str) -> Result<Templates, BadPort> {
    let same = inside == outside;
    let (inside, outside) = (port(inside, 0)?, port(outside, 1)?);
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
    let config = CONFIG
        .replace("@RINGS@\n", rings)
        .replace("@ARGS@", &args.join(", "))
        .replace("@INSIDE@", &quoted(&inside.name))
        .replace("@OUTSIDE@", &quoted(&outside.name));
    Ok(Templates { config, policy: POLICY.to_owned() })
}

/// `index` tells the two AF_PACKET vdevs apart.
fn port(text: &str, index: usize) -> Result<Port, BadPort> {
    let allowed = "an interface (eth1), a DPDK vdev (net_pcap0,rx_pcap=FILE) or a PCI address (0000:03:00.0)";
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
    // What the kernel refuses in a name, and the comma that would end the vdev's argument.
    if text.len() > MAX_INTERFACE || text.contains(['/', ':', ',']) || text == "." || text == ".." {
        return Err(bad());
    }
    let name = format!("net_af_packet{index}");
    let arg = format!("--vdev={name},iface={text},framecnt={RING_FRAMES}");
    Ok(Port { name, arg, pci: false })
}

/// `[DOMAIN:]BUS:DEVICE.FUNCTION` in hexadecimal, as lspci prints it.
fn is_pci(text: &str) -> bool {
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
