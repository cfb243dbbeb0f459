//! MTUs: what each wire carries, before DPDK starts. Kernel interfaces are asked by sysfs, and must agree with
//! `[[wire]] mtu` and with each other: a frame that one side takes and the other cannot send is a black hole.

use std::net::{Ipv4Addr, UdpSocket};
use std::os::fd::AsRawFd;

use control::config::Config;
use pmd::FRAME_OVERHEAD;
use rustix::process::{Resource, getrlimit};

/// The MTU of devices that say nothing else.
const USUAL: u16 = 1500;
/// The largest that a wire carries.
const MAX_MTU: u16 = 16_000;
/// What a slot of an AF_PACKET ring has besides the frame: the kernel's header and its alignment, rounded up.
const SLOT_HEADER: usize = 96;
/// A page, and the smallest block of such a ring.
const PAGE: usize = 4096;

/// The kernel interface behind a port, and its MTU.
struct Interface {
    name: String,
    mtu: u16,
}

/// What EAL is told of each vdev: `net_af_packet0,iface=eth1`.
fn told(args: &[String]) -> impl Iterator<Item = &str> {
    let of_two = args.windows(2).filter(|pair| pair[0] == "--vdev").map(|pair| pair[1].as_str());
    of_two.chain(args.iter().filter_map(|arg| arg.strip_prefix("--vdev=")))
}

/// The names of the vdevs that EAL is told to make.
pub fn vdevs(args: &[String]) -> impl Iterator<Item = &str> {
    told(args).map(|text| text.split(',').next().unwrap_or_default())
}

/// The arguments of the vdev called `port`: `iface=eth1,…`; `None` if EAL is not told to make it.
pub fn vdev<'a>(args: &'a [String], port: &str) -> Option<&'a str> {
    let found = told(args).find(|text| text.split(',').next() == Some(port))?;
    Some(found.split_once(',').map_or("", |(_, rest)| rest))
}

/// A device argument's value.
pub fn value<'a>(vdev: &'a str, key: &str) -> Option<&'a str> {
    vdev.split(',').find_map(|part| part.strip_prefix(key)?.strip_prefix('='))
}

/// The kernel interface that a port is on, if it is on one. What vhost-user calls so is the path of a socket.
pub fn interface<'a>(args: &'a [String], port: &str) -> Option<&'a str> {
    value(vdev(args, port)?, "iface").filter(|name| !name.contains('/'))
}

fn interface_of(config: &Config, port: &str, mtu_of: &dyn Fn(&str) -> Option<u16>) -> Option<Interface> {
    let name = interface(&config.eal.args, port)?;
    Some(Interface { name: name.to_owned(), mtu: mtu_of(name)? })
}

/// A kernel interface's MTU. Asked by a socket, which is of our own network namespace; sysfs may be another's.
pub fn mtu_of(interface: &str) -> Option<u16> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).ok()?;
    // SAFETY: an all-zero request is valid: an empty name and numbers.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    // The last byte stays 0.
    if interface.len() >= request.ifr_name.len() {
        return None;
    }
    for (to, from) in request.ifr_name.iter_mut().zip(interface.bytes()) {
        *to = from as libc::c_char;
    }
    // SAFETY: the descriptor is open, and the request lives and is of the kind that this call reads and writes.
    let status = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCGIFMTU, &mut request) };
    if status != 0 {
        return None;
    }
    // SAFETY: the call has written the MTU, a number, into this member of the union.
    let mtu = unsafe { request.ifr_ifru.ifru_mtu };
    Some(u16::try_from(mtu).unwrap_or(u16::MAX))
}

/// The MTU of each wire, in the order of the configuration; `None` where the devices decide. An error is one line.
pub fn resolve(config: &Config) -> Result<Vec<Option<u16>>, String> {
    resolve_by(config, &mtu_of)
}

/// The same, by what is said of interfaces' MTUs.
pub fn resolve_by(config: &Config, mtu_of: &dyn Fn(&str) -> Option<u16>) -> Result<Vec<Option<u16>>, String> {
    config.wires.iter().map(|wire| resolve_wire(config, wire, mtu_of)).collect()
}

fn resolve_wire(
    config: &Config,
    wire: &control::config::Wire,
    mtu_of: &dyn Fn(&str) -> Option<u16>,
) -> Result<Option<u16>, String> {
    let sides = [("inside", &wire.inside), ("outside", &wire.outside)];
    let known: Vec<_> = sides
        .into_iter()
        .filter_map(|(side, port)| Some((side, port, interface_of(config, port, mtu_of)?)))
        .collect();
    if let Some(mtu) = wire.mtu {
        for (side, port, Interface { name, mtu: own }) in &known {
            if *own != mtu {
                return Err(format!(
                    "wire {:?}: {side} {port} is on {name}, whose MTU is {own}; [[wire]] mtu says {mtu}: \
                     `ip link set {name} mtu {mtu}` mends it",
                    wire.name
                ));
            }
        }
        return Ok(Some(mtu));
    }
    if let Some((side, port, Interface { name, mtu })) = known.iter().find(|(.., on)| on.mtu > MAX_MTU) {
        return Err(format!(
            "wire {:?}: {side} {port} is on {name}, whose MTU is {mtu}; allowed: at most {MAX_MTU}, such as by `ip link \
             set {name} mtu {USUAL}`",
            wire.name
        ));
    }
    match &known[..] {
        [] => Ok(None),
        [(.., one)] => Ok(Some(one.mtu)),
        [(_, inside, one), (_, outside, other), ..] if one.mtu != other.mtu => Err(format!(
            "wire {:?}: inside {inside} ({}) has MTU {}, outside {outside} ({}) has {}; allowed: the same on both sides",
            wire.name, one.name, one.mtu, other.name, other.mtu
        )),
        [(.., one), ..] => Ok(Some(one.mtu)),
    }
}

/// What DPDK is to be told and to have ready for the wires' frames.
#[derive(Debug, PartialEq, Eq)]
pub struct BufferSizing {
    /// EAL's arguments, with AF_PACKET rings whose slots hold the frames.
    pub args: Vec<String>,
    /// Bytes that a buffer holds.
    pub buffer: usize,
}

/// Makes room for the wires' frames. An error is one line.
pub fn buffer_sizing(config: &Config, mtus: &[Option<u16>]) -> Result<BufferSizing, String> {
    // One of each direction, a queue pair.
    let ports =
        config.wires.iter().flat_map(|wire| [&wire.inside, &wire.outside]).filter(is_packet_port).count();
    buffer_sizing_with(config, mtus, ring_size(2 * ports * config.workers.cores.len()))
}

/// True for a port of AF_PACKET.
fn is_packet_port(port: &&String) -> bool {
    port.starts_with("net_af_packet")
}

/// The same, with so many bytes for a ring.
pub fn buffer_sizing_with(
    config: &Config,
    mtus: &[Option<u16>],
    ring: usize,
) -> Result<BufferSizing, String> {
    let mut room =
        BufferSizing { args: config.eal.args.clone(), buffer: usize::from(USUAL) + FRAME_OVERHEAD };
    for (wire, mtu) in config.wires.iter().zip(mtus) {
        let mtu = mtu.unwrap_or(USUAL).max(USUAL);
        room.buffer = room.buffer.max(usize::from(mtu) + FRAME_OVERHEAD);
        for port in [&wire.inside, &wire.outside].into_iter().filter(is_packet_port) {
            // The driver wants buffers that hold whatever a slot does.
            let slot = make_slots(&mut room.args, port, mtu, ring)?;
            room.buffer = room.buffer.max(slot);
        }
    }
    Ok(room)
}

/// Bytes of a ring unless the arguments say how many frames it has (`framecnt`): 20 ms at 10 Gbit/s are 25 MB, and 16,384
/// slots for usual frames are 20 ms at 800,000 frames a second, which is more than one core forwards through the kernel.
const RING: usize = 32 << 20;
/// The block of a ring where the arguments say nothing else.
const DRIVERS_BLOCK: usize = PAGE;

/// Slots of a port's rings that hold frames of this MTU, and as many of them as 20 ms bring; their size in bytes.
fn make_slots(args: &mut [String], port: &str, mtu: u16, ring: usize) -> Result<usize, String> {
    const DRIVERS_OWN: usize = 2048;
    let Some(vdev) = vdev(args, port).map(str::to_owned) else { return Ok(0) };
    let needed = usize::from(mtu) + FRAME_OVERHEAD + SLOT_HEADER;
    let number = |key: &str| value(&vdev, key).and_then(|given| given.parse::<usize>().ok());
    let mut more = String::new();
    let (slot, block) = match number("framesz") {
        Some(given) if given < needed => {
            // Whole pages, one a block: a block that is no multiple of its slots is refused.
            let slot = if needed <= DRIVERS_OWN { DRIVERS_OWN } else { needed.next_multiple_of(PAGE) };
            return Err(format!(
                "port {port}: framesz={given} does not hold frames of MTU {mtu}; allowed: at least {needed}, such as \
                 framesz={slot},blocksz={slot}"
            ));
        }
        Some(given) => (given, number("blocksz").unwrap_or(DRIVERS_BLOCK)),
        None if needed <= DRIVERS_OWN => (DRIVERS_OWN, number("blocksz").unwrap_or(DRIVERS_BLOCK)),
        None => {
            let slot = needed.next_multiple_of(PAGE);
            more = format!(",framesz={slot},blocksz={slot}");
            (slot, slot)
        }
    };
    if number("framecnt").is_none() {
        // Whole blocks; what does not fit is the driver's to refuse.
        let of_block = (block / slot).max(1);
        more += &format!(",framecnt={}", (ring / slot / of_block).max(1) * of_block);
    }
    let larger = format!("{port},{vdev}{more}");
    for arg in args {
        let is_option = arg.starts_with("--vdev=");
        if arg.strip_prefix("--vdev=").unwrap_or(arg).split(',').next() == Some(port) {
            *arg = if is_option { format!("--vdev={larger}") } else { larger.clone() };
        }
    }
    Ok(slot)
}

/// Bytes that a ring may have where `rings` of them are to be locked in memory.
fn ring_size(rings: usize) -> usize {
    let limit = getrlimit(Resource::Memlock).current;
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    ring_within(rings, limit, may_lock(&status))
}

/// The same, where so much may be locked.
pub fn ring_within(rings: usize, limit: Option<u64>, may_lock: bool) -> usize {
    match limit {
        // Some is left for what else is locked.
        Some(limit) if !may_lock => RING.min(limit as usize / 4 * 3 / rings.max(1)),
        _ => RING,
    }
}

/// True if a process with this `/proc/PID/status` may lock any amount of memory (CAP_IPC_LOCK).
fn may_lock(status: &str) -> bool {
    const CAP_IPC_LOCK: u32 = 14;
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    effective
        .and_then(|text| u64::from_str_radix(text.trim(), 16).ok())
        .is_none_or(|all| all >> CAP_IPC_LOCK & 1 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(args: &[&str], mtu: Option<u16>) -> Config {
        let mut config = Config::default();
        config.eal.args = args.iter().map(ToString::to_string).collect();
        let (inside, outside) = ("net_af_packet0".to_owned(), "net_null1".to_owned());
        config.wires = vec![control::config::Wire { name: "w".to_owned(), inside, outside, mtu }];
        config
    }

    #[test]
    fn a_vdev_is_found_in_either_spelling() {
        let args =
            ["--vdev=net_a0,iface=x,framesz=1".to_owned(), "--vdev".to_owned(), "net_a1,iface=y".to_owned()];
        assert_eq!(interface(&args, "net_a0"), Some("x"));
        assert_eq!(interface(&args, "net_a1"), Some("y"));
        assert_eq!((interface(&args, "net_a"), value("iface=x,framesz=1", "frame")), (None, None));
    }

    #[test]
    fn slots_grow_with_the_mtu_and_small_ones_are_refused() {
        let room = |args: &[&str], mtu| {
            let room = buffer_sizing(&config(args, Some(mtu)), &[Some(mtu)]);
            room.map(|room| (room.args.join(" "), room.buffer))
        };
        let usual = "--vdev=net_af_packet0,iface=lo";
        // Whoever runs this may be held to less locked memory.
        let frames = |slot: usize| ring_size(2) / slot;
        let with = |more: &str, slot| format!("{usual}{more},framecnt={}", frames(slot));
        assert_eq!(room(&[usual], 1500).unwrap(), (with("", 2048), 2048));
        for (mtu, slot) in [(1900, 2048), (1960, 4096), (9000, 12_288), (16_000, 16_384)] {
            let more = if slot == 2048 { String::new() } else { format!(",framesz={slot},blocksz={slot}") };
            assert_eq!(room(&[usual], mtu).unwrap(), (with(&more, slot), slot), "MTU {mtu}");
        }
        let given = ["--vdev", "net_af_packet0,iface=lo,framesz=32768,blocksz=32768,framecnt=64"];
        assert_eq!(room(&given, 9000).unwrap(), (given.join(" "), 32_768));
        let refused = room(&["--vdev=net_af_packet0,iface=lo,framesz=4096"], 9000).unwrap_err();
        assert!(refused.contains("framesz=4096 does not hold frames of MTU 9000"), "{refused}");
        assert_eq!(room(&["--vdev=net_null0"], 9000).unwrap(), ("--vdev=net_null0".to_owned(), 9022));
    }

    #[test]
    fn rings_hold_twenty_milliseconds_or_what_may_be_locked() {
        assert_eq!(ring_within(4, None, false) / 2048, 16_384);
        assert_eq!(ring_within(4, Some(8 << 20), true), RING);
        // 8 MB, as systems begin with: four rings, and a quarter for everything else.
        assert_eq!(ring_within(4, Some(8 << 20), false), 3 << 19);
        assert!(may_lock("CapEff:\t000001ffffffffff\n") && !may_lock("CapEff:\t0000000000003000\n"));
    }

    #[test]
    fn an_interface_that_differs_is_told_with_the_command_that_mends_it() {
        let args = ["--vdev=net_af_packet0,iface=lo"];
        let refused = resolve(&config(&args, Some(1400))).unwrap_err();
        assert!(refused.contains("`ip link set lo mtu 1400` mends it"), "{refused}");
        assert_eq!(mtu_of("no-such-interface"), None);
        assert_eq!(resolve(&config(&["--vdev=net_null0"], None)).unwrap(), [None]);
        assert_eq!(resolve(&config(&["--vdev=net_null0"], Some(9000))).unwrap(), [Some(9000)]);
    }
}
