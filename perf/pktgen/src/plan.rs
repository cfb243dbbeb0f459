//! What is to be sent: a [`Spec`] as its user writes it, and the [`Plan`] that it makes if it holds
//! together.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use crate::tag::{Class, TAG};

/// Bytes of a frame that lie behind what software sees of it.
pub const FCS: u16 = 4;
/// The shortest and the longest frame, checksum included.
pub const SIZES: std::ops::RangeInclusive<u16> = 64..=1518;
/// The customary mix: seven frames of 64 bytes, four of 594, one of 1,518.
pub const IMIX: [u16; 12] = [64, 594, 64, 64, 594, 64, 1518, 64, 594, 64, 594, 64];
/// Flows at most.
pub const FLOWS: u32 = 10_000_000;
/// Hosts of a side at most: the host part of an IPv4 network of 16 bits.
pub const HOSTS: u32 = 65_534;
/// The ports that openers of flows use, those that the single frames of [`Class::New`] use, and
/// those of a flood.
pub const FLOW_PORTS: std::ops::Range<u16> = 1024..32768;
/// Ports of [`Class::New`]: from here on to 65,535.
pub const NEW_PORTS: u32 = 32768;
/// Ports of a flood's sources: so many from here on.
pub const FLOOD_PORTS: std::ops::Range<u16> = 512..1024;
/// Entries of the table that deals out classes: shares are kept to a thousandth.
pub const SHARE_UNITS: usize = 1000;

/// How traffic comes about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Frames from templates, whatever comes back.
    Stateless,
    /// Connections: each side answers what reaches it.
    Stateful,
}

/// Which IP versions there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Versions {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
    /// Half of the flows each.
    Both,
}

/// Who opens flows; without connections, which way their frames go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum From {
    /// The network: inbound.
    Outside,
    /// The instances: outbound.
    Inside,
    /// Connections: either for half of the flows. Without connections: frames both ways, of flows
    /// that the network opened.
    Both,
}

/// How fast.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Rate {
    /// As fast as the ports take it.
    Unlimited,
    /// Packets a second, both directions and all classes together.
    Pps(f64),
}

/// Which share of the packets is not of the flows, each from 0 to 1.
#[derive(Clone, Copy, Debug, PartialEq, Default)]
pub struct Shares {
    /// Frames that are the only ones of their flow. With connections: of the turns of an open
    /// connection, how many close it to open another.
    pub new: f64,
    /// Frames to the port that the policy denies.
    pub denied: f64,
    /// Malformed and spoofed frames.
    pub hostile: f64,
    /// SYNs of a flood.
    pub flood: f64,
}

/// What is to be sent, as its user writes it.
#[derive(Clone, Debug, PartialEq)]
pub struct Spec {
    /// How traffic comes about.
    pub mode: Mode,
    /// Flows at once.
    pub flows: u32,
    /// Instances, inside.
    pub servers: u32,
    /// Hosts of the network, outside. `None`: as many as the flows want.
    pub clients: Option<u32>,
    /// IP versions.
    pub versions: Versions,
    /// The 802.1Q tag that every frame bears.
    pub vlan: Option<u16>,
    /// The share of the flows that is UDP; the rest is TCP.
    pub udp: f64,
    /// Who opens flows.
    pub from: From,
    /// Sizes of frames with a payload, used in this order, checksum of 4 bytes included. What is
    /// too short for the headers and the tag is lengthened where there is more than one size.
    /// Empty: the shortest that hold both.
    pub sizes: Vec<u16>,
    /// Flags of TCP frames without connections.
    pub tcp_flags: u8,
    /// The port that is admitted.
    pub port: u16,
    /// The port that the policy denies.
    pub denied_port: u16,
    /// The network of the instances: the first 16 bits count.
    pub inside_v4: Ipv4Addr,
    /// The network of the others: the first 16 bits count.
    pub outside_v4: Ipv4Addr,
    /// The network of the instances: the first 96 bits count.
    pub inside_v6: Ipv6Addr,
    /// The network of the others: the first 96 bits count.
    pub outside_v6: Ipv6Addr,
    /// The destination address of all frames, where what is tested routes instead of being a cable.
    pub gateway_mac: Option<[u8; 6]>,
    /// What is not of the flows.
    pub shares: Shares,
    /// How fast.
    pub rate: Rate,
    /// How much of the schedule may be caught up after the generator was kept from sending.
    pub catch_up: Duration,
    /// How long to send.
    pub duration: Option<Duration>,
    /// Packets to send; with connections, packets that are no answers.
    pub count: Option<u64>,
    /// Connections to open, each to be closed again.
    pub connections: Option<u64>,
    /// Requests of a connection before it closes; 0: it stays open.
    pub requests: u16,
    /// After so long without an answer a segment is sent again.
    pub timeout: Duration,
    /// How long to send before anything is counted.
    pub warmup: Duration,
    /// How long to receive after the last frame was sent.
    pub drain: Duration,
    /// Decides the order of classes, the addresses of a flood and the hostile frames.
    pub seed: u64,
}

impl Default for Spec {
    fn default() -> Spec {
        Spec {
            mode: Mode::Stateless,
            flows: 1000,
            servers: 16,
            clients: None,
            versions: Versions::V4,
            vlan: None,
            udp: 1.0,
            from: From::Outside,
            sizes: Vec::new(),
            tcp_flags: 0x02,
            port: 80,
            denied_port: 23,
            inside_v4: Ipv4Addr::new(198, 19, 0, 0),
            outside_v4: Ipv4Addr::new(198, 18, 0, 0),
            inside_v6: Ipv6Addr::new(0x2001, 2, 0, 1, 0, 0, 0, 0),
            outside_v6: Ipv6Addr::new(0x2001, 2, 0, 2, 0, 0, 0, 0),
            gateway_mac: None,
            shares: Shares::default(),
            rate: Rate::Unlimited,
            catch_up: Duration::from_millis(1),
            duration: Some(Duration::from_secs(10)),
            count: None,
            connections: None,
            requests: 0,
            timeout: Duration::from_secs(1),
            warmup: Duration::ZERO,
            drain: Duration::from_millis(200),
            seed: 1,
        }
    }
}

/// What does not hold together, and what is allowed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Invalid {
    /// The field of the [`Spec`], as the command line calls it.
    pub field: &'static str,
    /// What was found.
    pub found: String,
    /// What is allowed.
    pub allowed: String,
}

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "--{} {}: allowed: {}", self.field, self.found, self.allowed)
    }
}

impl std::error::Error for Invalid {}

fn check(
    holds: bool,
    field: &'static str,
    found: impl fmt::Display,
    allowed: impl Into<String>,
) -> Result<(), Invalid> {
    if holds { Ok(()) } else { Err(Invalid { field, found: found.to_string(), allowed: allowed.into() }) }
}

/// What is to be sent, checked.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    spec: Spec,
    clients: u32,
}

impl std::ops::Deref for Plan {
    type Target = Spec;

    fn deref(&self) -> &Spec {
        &self.spec
    }
}

impl Plan {
    /// Checks a specification.
    pub fn new(mut spec: Spec) -> Result<Plan, Invalid> {
        check_hosts(&spec)?;
        check_frames(&spec)?;
        check_shares(&spec)?;
        check_end(&spec)?;
        let wanted = spec.flows.div_ceil(spec.servers).clamp(1, HOSTS);
        let clients = spec.clients.unwrap_or(wanted);
        let room = u64::from(spec.servers) * u64::from(clients) * FLOW_PORTS.len() as u64;
        check(
            u64::from(spec.flows) <= room,
            "flows",
            spec.flows,
            format!("up to {room} with {} servers and {clients} clients", spec.servers),
        )?;
        if spec.sizes.is_empty() {
            // Lengthened where that is too short.
            spec.sizes.push(*SIZES.start());
        }
        Ok(Plan { spec, clients })
    }

    /// Hosts of the network, outside.
    pub fn clients(&self) -> u32 {
        self.clients
    }

    /// Bytes before the IP header.
    pub fn link(&self) -> usize {
        if self.vlan.is_some() { 18 } else { 14 }
    }

    /// The sizes of frames of one kind as bytes that software writes, checksum left out.
    pub fn lengths(&self, v6: bool, udp: bool) -> impl Iterator<Item = usize> + '_ {
        let least = self.shortest(v6, udp);
        self.sizes.iter().map(move |size| usize::from((*size).max(least) - FCS))
    }

    /// The same without a limit.
    pub fn without_rate(&self) -> Plan {
        Plan { spec: Spec { rate: Rate::Unlimited, ..self.spec.clone() }, clients: self.clients }
    }

    /// Classes in the order in which they are dealt out, round and round; each as often as its
    /// share says.
    pub fn deal(&self) -> Vec<Class> {
        // With connections a new one is a turn's affair, not a frame's.
        let new = if self.mode == Mode::Stateless { self.shares.new } else { 0.0 };
        let shares = [0.0, new, self.shares.denied, self.shares.hostile, self.shares.flood];
        let mut deal = vec![Class::Flow; SHARE_UNITS];
        let mut free: Vec<usize> = (0..SHARE_UNITS).collect();
        let mut random = self.seed;
        for (class, share) in Class::ALL.into_iter().zip(shares) {
            for _ in 0..((share * SHARE_UNITS as f64).round() as usize).min(free.len()) {
                random = mix(random);
                deal[free.swap_remove((random % free.len() as u64) as usize)] = class;
            }
        }
        deal
    }

    fn shortest(&self, v6: bool, udp: bool) -> u16 {
        let headers = self.link() + if v6 { 40 } else { 20 } + if udp { 8 } else { 20 };
        ((headers + TAG) as u16 + FCS).max(*SIZES.start())
    }
}

/// A step of a random sequence, and a hash of its argument.
#[inline]
pub fn mix(value: u64) -> u64 {
    let value = value.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let value = (value ^ value >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let value = (value ^ value >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
    value ^ value >> 31
}

fn check_hosts(spec: &Spec) -> Result<(), Invalid> {
    check((1..=FLOWS).contains(&spec.flows), "flows", spec.flows, format!("1 to {FLOWS}"))?;
    check((1..=HOSTS).contains(&spec.servers), "servers", spec.servers, format!("1 to {HOSTS}"))?;
    if let Some(clients) = spec.clients {
        check((1..=HOSTS).contains(&clients), "clients", clients, format!("1 to {HOSTS}"))?;
    }
    let low = 1..FLOOD_PORTS.start;
    check(low.contains(&spec.port), "port", spec.port, "1 to 511")?;
    check(
        low.contains(&spec.denied_port) && spec.denied_port != spec.port,
        "denied-port",
        spec.denied_port,
        format!("1 to 511, but for --port {}", spec.port),
    )?;
    let same_v4 = spec.inside_v4.octets()[..2] == spec.outside_v4.octets()[..2];
    check(
        !same_v4,
        "inside-net",
        spec.inside_v4,
        format!("another /16 than --outside-net {}", spec.outside_v4),
    )?;
    let same_v6 = spec.inside_v6.octets()[..12] == spec.outside_v6.octets()[..12];
    check(
        !same_v6,
        "inside-net6",
        spec.inside_v6,
        format!("another /96 than --outside-net6 {}", spec.outside_v6),
    )
}

fn check_frames(spec: &Spec) -> Result<(), Invalid> {
    if let Some(vlan) = spec.vlan {
        check((1..=4094).contains(&vlan), "vlan", vlan, "1 to 4094")?;
    }
    check((0.0..=1.0).contains(&spec.udp), "udp", spec.udp, "a share from 0 to 1")?;
    for size in &spec.sizes {
        check(SIZES.contains(size), "size", size, "64 to 1518, checksum included")?;
    }
    let plan = Plan { spec: spec.clone(), clients: 1 };
    let v6 = spec.versions != Versions::V4;
    if let [size] = spec.sizes[..] {
        let least = plan.shortest(v6, spec.udp == 1.0);
        let what = format!(
            "{}{}",
            if v6 { "IPv6" } else { "IPv4" },
            if spec.udp == 1.0 { " and UDP" } else { " and TCP" }
        );
        let tagged = if spec.vlan.is_some() { " with a VLAN tag" } else { "" };
        check(
            size >= least,
            "size",
            size,
            format!("{least} to 1518 for {what}{tagged} (the payload holds a tag of 14 bytes)"),
        )?;
    }
    check(spec.tcp_flags < 0x40, "tcp-flags", spec.tcp_flags, "some of fin, syn, rst, psh, ack, urg")
}

fn check_shares(spec: &Spec) -> Result<(), Invalid> {
    let Shares { new, denied, hostile, flood } = spec.shares;
    for (field, share) in [("new", new), ("denied", denied), ("hostile", hostile), ("flood", flood)] {
        check((0.0..=1.0).contains(&share), field, share, "a share from 0 to 1")?;
    }
    let sum = denied + hostile + flood + if spec.mode == Mode::Stateless { new } else { 0.0 };
    check(sum < 1.0 + 1e-9, "hostile", hostile, format!("shares of at most 1 together; they are {sum}"))
}

fn check_end(spec: &Spec) -> Result<(), Invalid> {
    if let Rate::Pps(rate) = spec.rate {
        check(
            rate.is_finite() && rate > 0.0,
            "rate",
            rate,
            "packets a second above 0, such as 150000 or 2Mpps",
        )?;
    }
    let stateful = spec.mode == Mode::Stateful;
    check(
        stateful || spec.connections.is_none(),
        "connections",
        spec.connections.unwrap_or(0),
        "with --mode stateful only",
    )?;
    check(
        spec.connections.is_none() || spec.requests > 0,
        "connections",
        spec.connections.unwrap_or(0),
        "with --requests of 1 or more, after which each connection closes",
    )?;
    check(
        spec.connections.is_none() || spec.udp == 0.0,
        "connections",
        spec.connections.unwrap_or(0),
        "without --udp",
    )?;
    check(stateful || spec.requests == 0, "requests", spec.requests, "0, or --mode stateful")?;
    check(
        spec.timeout >= Duration::from_millis(20),
        "timeout",
        format!("{:?}", spec.timeout),
        "20ms or more",
    )?;
    let ends = spec.duration.is_some() || spec.count.is_some() || spec.connections.is_some();
    check(ends, "duration", "(none)", "a time, or a --count or --connections")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(spec: Spec) -> String {
        Plan::new(spec).unwrap_err().to_string()
    }

    #[test]
    fn what_does_not_hold_together_is_refused_with_what_is_allowed() {
        let spec = Spec::default;
        assert_eq!(refused(Spec { flows: 0, ..spec() }), "--flows 0: allowed: 1 to 10000000");
        assert_eq!(
            refused(Spec { flows: 100_000, servers: 1, clients: Some(2), ..spec() }),
            "--flows 100000: allowed: up to 63488 with 1 servers and 2 clients"
        );
        assert_eq!(
            refused(Spec { versions: Versions::V6, sizes: vec![64], ..spec() }),
            "--size 64: allowed: 80 to 1518 for IPv6 and UDP (the payload holds a tag of 14 bytes)"
        );
        assert_eq!(refused(Spec { vlan: Some(4095), ..spec() }), "--vlan 4095: allowed: 1 to 4094");
        assert_eq!(
            refused(Spec { denied_port: 80, ..spec() }),
            "--denied-port 80: allowed: 1 to 511, but for --port 80"
        );
        let shares = Shares { denied: 0.6, hostile: 0.5, ..Shares::default() };
        assert_eq!(
            refused(Spec { shares, ..spec() }),
            "--hostile 0.5: allowed: shares of at most 1 together; they are 1.1"
        );
        assert_eq!(
            refused(Spec { connections: Some(5), ..spec() }),
            "--connections 5: allowed: with --mode stateful only"
        );
        assert!(
            refused(Spec { rate: Rate::Pps(0.0), ..spec() })
                .starts_with("--rate 0: allowed: packets a second above 0")
        );
    }

    #[test]
    fn frames_of_64_bytes_hold_a_tag_beside_a_vlan() {
        let plan = Plan::new(Spec { vlan: Some(5), ..Spec::default() }).unwrap();
        assert_eq!(plan.lengths(false, true).collect::<Vec<_>>(), [60]);
        // In a mix, what is too short is lengthened.
        let plan =
            Plan::new(Spec { sizes: IMIX.to_vec(), versions: Versions::V6, ..Spec::default() }).unwrap();
        assert_eq!(plan.lengths(true, true).min(), Some(76));
        assert_eq!(plan.lengths(true, true).sum::<usize>(), 7 * 76 + 4 * 590 + 1514);
    }

    #[test]
    fn ten_million_flows_have_room() {
        let plan = Plan::new(Spec { flows: FLOWS, ..Spec::default() }).unwrap();
        assert_eq!(plan.clients(), HOSTS);
    }

    #[test]
    fn classes_are_dealt_out_by_their_shares() {
        let shares = Shares { new: 0.1, denied: 0.02, hostile: 0.003, flood: 0.25 };
        let count = |mode| {
            let deal = Plan::new(Spec { shares, mode, ..Spec::default() }).unwrap().deal();
            Class::ALL.map(|class| deal.iter().filter(|dealt| **dealt == class).count())
        };
        assert_eq!(count(Mode::Stateless), [627, 100, 20, 3, 250]);
        assert_eq!(count(Mode::Stateful), [727, 0, 20, 3, 250]);
    }
}
