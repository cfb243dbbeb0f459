//! The world of the cycle cases: its policy, its flows and their frames, by number.

use std::net::{Ipv4Addr, Ipv6Addr};

use testkit::frame::{Build, Packet, Tcp, tcp, udp, vxlan};

use crate::memory::Pool;

/// How a flow's frames look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// Untagged IPv4.
    V4,
    /// Untagged IPv6.
    V6,
    /// IPv4 behind an 802.1Q tag.
    Vlan,
    /// IPv4 in VXLAN.
    Vxlan,
}

/// What a frame does in its flow: the client is outside, the server is a NIC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The client's SYN.
    Syn,
    /// The server's answer.
    SynAck,
    /// The client's acknowledgment.
    Ack,
    /// In-window data of the client.
    Question,
    /// In-window data of the server.
    Answer,
    /// A datagram of the client.
    UdpQuestion,
    /// A datagram of the server.
    UdpAnswer,
    /// The first of two fragments of a datagram of the client.
    FirstFragment,
    /// The other one.
    LastFragment,
}

impl Kind {
    fn is_inbound(self) -> bool {
        !matches!(self, Kind::SynAck | Kind::Answer | Kind::UdpAnswer)
    }
}

/// NICs 1 … `nics` with a MAC and an address each, all under the same rules.
#[derive(Clone, Copy, Debug)]
pub struct World {
    /// How many NICs.
    pub nics: u32,
    /// Rules a NIC.
    pub rules: u32,
    /// How frames look.
    pub shape: Shape,
    /// All flows are of one client's ports, of which it has 60,000 at most.
    pub one_client: bool,
}

/// The port that the rules let everybody in by.
const OPEN_PORT: u16 = 22;
/// Bytes of payload that make a TCP frame one of 64 bytes, its checksum included.
const PAYLOAD: [u8; 6] = [0; 6];

impl World {
    /// 1,000 NICs of 50 rules over IPv4.
    pub const USUAL: World = World { nics: 1_000, rules: 50, shape: Shape::V4, one_client: false };

    /// The policy document: groups of 50 rules, of which one admits port 22, one lets everything
    /// out, and the others admit other ports from small networks.
    pub fn policy(&self) -> String {
        let segment = match self.shape {
            Shape::Vxlan => "{vni: 77}",
            Shape::Vlan => "{vlan: 77}",
            Shape::V4 | Shape::V6 => "{untagged: true}",
        };
        let mut text = format!("vpcs: [{{name: prod, segment: {segment}}}]\nsecurity_groups:\n");
        let groups: Vec<String> = (0..self.rules.div_ceil(50).max(1)).map(|g| format!("g{g}")).collect();
        for (g, name) in groups.iter().enumerate() {
            text += &format!("  - name: {name}\n    rules:\n");
            for rule in g as u32 * 50..self.rules.min(g as u32 * 50 + 50) {
                text += &self.rule(rule);
            }
        }
        text += "nics:\n";
        for n in 1..=self.nics {
            let [.., a, b, c] = n.to_be_bytes();
            text += &format!(
                "  - {{name: n{n}, vpc: prod, mac: \"02:00:00:{a:02x}:{b:02x}:{c:02x}\", addresses: [\"{}\"], \
                 security_groups: [{}]}}\n",
                self.address(n),
                groups.join(", ")
            );
        }
        text
    }

    fn rule(&self, rule: u32) -> String {
        let remote = match self.shape {
            Shape::V6 => format!("\"fd00:{rule:x}::/64\""),
            _ => format!("172.{}.{}.0/24", 16 + rule / 256, rule % 256),
        };
        match rule {
            0 => format!("      - {{direction: inbound, protocol: tcp, ports: {OPEN_PORT}}}\n"),
            1 => "      - {direction: outbound}\n".to_owned(),
            2 => format!("      - {{direction: inbound, protocol: udp, ports: {OPEN_PORT}}}\n"),
            _ => format!(
                "      - {{direction: inbound, protocol: tcp, ports: {}-{}, remote: {remote}}}\n",
                1000 + rule,
                1010 + rule,
            ),
        }
    }

    fn address(&self, nic: u32) -> String {
        let [.., a, b, c] = nic.to_be_bytes();
        match self.shape {
            Shape::V6 => format!("fd77::{nic:x}"),
            _ => format!("10.{a}.{b}.{c}"),
        }
    }

    /// Which NIC a flow belongs to.
    pub fn nic_of(&self, flow: u32) -> u32 {
        flow % self.nics + 1
    }

    /// A flow's client where all have the same: an address, and a port of its own.
    fn port_of_one(flow: u32) -> (u32, u16) {
        (0x6000_0000, 1024 + flow as u16)
    }

    /// A flow's client: an address that sixteen flows have in common, and a port.
    pub fn client(flow: u32) -> (u32, u16) {
        (0x6000_0000 | flow >> 4, 1024 + (flow & 15) as u16)
    }

    /// A frame of each of the flows from `first` on.
    pub fn frames(&self, kind: Kind, first: u32, count: u32) -> Pool {
        let template = self.template(kind);
        let at = Offsets::of(self.shape);
        Pool::new(count as usize, &template, |n, frame| self.patch(kind, first + n as u32, &at, frame))
    }

    /// `count` UDP frames from random sources to ports that no rule admits.
    pub fn denied(&self, count: u32) -> Pool {
        let template = self.template(Kind::UdpQuestion);
        let at = Offsets::of(self.shape);
        let mut rng = testkit::rng::Rng::new(9);
        Pool::new(count as usize, &template, |n, frame| {
            self.patch(Kind::UdpQuestion, n as u32, &at, frame);
            frame[at.src..at.src + 4].copy_from_slice(&(0xB000_0000 | rng.u32() >> 6).to_be_bytes());
            frame[at.ports..at.ports + 2].copy_from_slice(&rng.u16().to_be_bytes());
            frame[at.ports + 2..at.ports + 4].copy_from_slice(&(30_000 | rng.u16() & 0x3FFF).to_be_bytes());
        })
    }

    /// Two fragments of a datagram of each of the flows from `first` on: the first is frame 2n, the
    /// other 2n + 1. IPv4 only.
    pub fn fragments(&self, first: u32, count: u32) -> Pool {
        let kinds = [Kind::FirstFragment, Kind::LastFragment];
        let templates = kinds.map(|kind| self.template(kind));
        let at = Offsets::of(self.shape);
        Pool::new(2 * count as usize, &templates[0], |n, frame| {
            let flow = first + (n / 2) as u32;
            frame.copy_from_slice(&templates[n % 2]);
            self.patch(kinds[n % 2], flow, &at, frame);
            frame[at.src - 8..at.src - 6].copy_from_slice(&(flow as u16).to_be_bytes());
        })
    }

    fn patch(&self, kind: Kind, flow: u32, at: &Offsets, frame: &mut [u8]) {
        let nic = self.nic_of(flow).to_be_bytes();
        let (client, port) = if self.one_client { World::port_of_one(flow) } else { World::client(flow) };
        let (nic_at, client_at, port_at, mac_at) = match kind.is_inbound() {
            true => (at.dst, at.src, at.ports, at.link),
            false => (at.src, at.dst, at.ports + 2, at.link + 6),
        };
        // The low bytes of an IPv6 address, and all but the first of an IPv4 one.
        frame[nic_at + at.len - 3..nic_at + at.len].copy_from_slice(&nic[1..]);
        frame[client_at + at.len - 4..client_at + at.len].copy_from_slice(&client.to_be_bytes());
        if kind != Kind::LastFragment {
            frame[port_at..port_at + 2].copy_from_slice(&port.to_be_bytes());
        }
        frame[mac_at..mac_at + 6].copy_from_slice(&[2, 0, 0, nic[1], nic[2], nic[3]]);
    }

    /// The frame of flow 0 and NIC 1, checksums included; of the others they are not put right, as
    /// nobody looks.
    fn template(&self, kind: Kind) -> Vec<u8> {
        let server = self.address(1);
        let client = match self.shape {
            Shape::V6 => Ipv6Addr::new(0xfd99, 0, 0, 0, 0, 0, 0, 1).to_string(),
            _ => Ipv4Addr::from(World::client(0).0).to_string(),
        };
        let (client, server) = ((client.as_str(), 1024), (server.as_str(), OPEN_PORT));
        let inner = match kind {
            Kind::Syn => self.frame(client_segment(client, server).syn().seq(1000)),
            Kind::SynAck => self.frame(server_segment(client, server).syn().seq(5000).ack(1001)),
            Kind::Ack => self.frame(client_segment(client, server).seq(1001).ack(5001)),
            Kind::Question => self.frame(client_segment(client, server).seq(1001).ack(5001).payload(PAYLOAD)),
            Kind::Answer => self.frame(server_segment(client, server).seq(5001).ack(1001).payload(PAYLOAD)),
            Kind::UdpQuestion => self.frame(udp(client, server).payload([0; 18])),
            Kind::UdpAnswer => self.frame(udp(server, client).payload([0; 18])),
            Kind::FirstFragment => udp(client, server).payload([0; 40]).fragments(24).swap_remove(0),
            Kind::LastFragment => udp(client, server).payload([0; 40]).fragments(24).swap_remove(1),
        };
        match self.shape {
            Shape::Vxlan => vxlan("192.0.2.1", "192.0.2.2", 77, &inner).frame(),
            _ => inner,
        }
    }

    fn frame(&self, packet: impl Build) -> Vec<u8> {
        if self.shape == Shape::Vlan { packet.vlan(77).frame() } else { packet.frame() }
    }
}

type End<'a> = (&'a str, u16);

fn client_segment(client: End<'_>, server: End<'_>) -> Packet<Tcp> {
    tcp(client, server).window(60_000)
}

fn server_segment(client: End<'_>, server: End<'_>) -> Packet<Tcp> {
    tcp(server, client).window(60_000)
}

/// Where the fields lie that differ from flow to flow.
struct Offsets {
    link: usize,
    src: usize,
    dst: usize,
    ports: usize,
    /// Bytes of an address.
    len: usize,
}

impl Offsets {
    fn of(shape: Shape) -> Offsets {
        match shape {
            Shape::V4 => Offsets { link: 0, src: 26, dst: 30, ports: 34, len: 4 },
            Shape::Vlan => Offsets { link: 0, src: 30, dst: 34, ports: 38, len: 4 },
            Shape::V6 => Offsets { link: 0, src: 22, dst: 38, ports: 54, len: 16 },
            Shape::Vxlan => Offsets { link: 50, src: 76, dst: 80, ports: 84, len: 4 },
        }
    }
}
