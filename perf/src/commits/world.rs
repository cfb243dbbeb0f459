//! The policy of a cloud of some size, and the connections of those NICs that no change touches.

use std::fmt::Write;
use std::net::Ipv4Addr;

use engine::Side;
use testkit::frame::{Build, tcp};
use testkit::rng::Rng;

use super::rig::Rig;
use crate::memory::{PoolFrame, kept};

/// How large a policy is.
#[derive(Clone, Copy, Debug)]
pub struct Size {
    /// NICs.
    pub nics: u32,
    /// Groups, among which the NICs are dealt out.
    pub groups: u32,
    /// Rules of each of these groups, at most 50.
    pub rules: u32,
    /// Every NIC has three more groups, so that no two have the same ordered set: as many sets of
    /// rules as NICs.
    pub own_sets: bool,
}

/// NICs that connections run to while the group of the first one is edited: none of them may be in
/// that.
pub const UNTOUCHED_NICS: u32 = 1000;

impl Size {
    /// What one appliance is to bear: 10,000 NICs, 2,000 groups, 100,000 rules.
    pub const FULL: Size = Size { nics: 10_000, groups: 2_000, rules: 50, own_sets: false };
    /// Enough to be right or wrong.
    pub const SMALL: Size = Size { nics: 40, groups: 8, rules: 5, own_sets: false };

    /// The sections `security_groups` and `nics` of the document, to which others may be appended;
    /// `nics` comes last. Every NIC is in a group of its own kind, and in `everyone`, which lets
    /// SSH in, all out, and its own members talk.
    pub fn sections(self) -> [String; 2] {
        let mut groups = String::from(
            "  - {name: everyone, rules: [{direction: inbound, protocol: tcp, ports: 22}, {direction: outbound}, \
             {direction: inbound, protocol: tcp, ports: 9000, remote_group: everyone}]}\n",
        );
        for group in 0..self.groups {
            let _ = writeln!(groups, "  - name: g{group}\n    rules:");
            for rule in 0..self.rules {
                let port = 10_000 + rule * 20 + group % 20;
                let remote = Ipv4Addr::from(0xAC10_0000 | (((group * self.rules + rule) % 4096) << 8));
                let _ = writeln!(
                    groups,
                    "      - {{direction: inbound, protocol: tcp, ports: {port}-{}, remote: {remote}/24}}",
                    port + 10
                );
            }
        }
        let mut nics = String::new();
        for nic in 0..self.nics {
            let _ = writeln!(nics, "  - {}", self.nic(nic, true));
        }
        [groups, nics]
    }

    /// A NIC as it stands in a document, in `everyone` or not.
    pub fn nic(self, nic: u32, in_everyone: bool) -> String {
        let everyone = if in_everyone { "everyone, " } else { "" };
        let groups: Vec<String> = self.groups_of(nic).iter().map(|group| format!("g{group}")).collect();
        format!(
            "{{name: n{nic}, vpc: prod, addresses: [{}], security_groups: [{everyone}{}]}}",
            address(nic),
            groups.join(", ")
        )
    }

    fn groups_of(self, nic: u32) -> Vec<u32> {
        let mut groups = vec![nic % self.groups];
        let mut rng = Rng::new(u64::from(nic));
        let lowest = u32::from(nic <= UNTOUCHED_NICS);
        while self.own_sets && groups.len() < 4 {
            let group = lowest + rng.below((self.groups - lowest) as usize) as u32;
            if !groups.contains(&group) {
                groups.push(group);
            }
        }
        groups
    }

    /// A whole document.
    pub fn document(self) -> String {
        document(&self.sections(), "")
    }
}

/// A document of two sections, and what stands before them.
pub fn document([groups, nics]: &[String; 2], address_groups: &str) -> String {
    format!(
        "vpcs: [{{name: prod, segment: {{untagged: true}}}}]\n{address_groups}security_groups:\n{groups}nics:\n{nics}"
    )
}

/// A NIC's address.
pub fn address(nic: u32) -> Ipv4Addr {
    Ipv4Addr::from(0x0A00_0001 + nic)
}

/// A TCP connection: who opened it, who answered.
#[derive(Clone, Copy, Debug)]
pub struct Flow {
    /// Who opened it.
    pub client: (Ipv4Addr, u16),
    /// The other.
    pub server: (Ipv4Addr, u16),
    /// Where the client is.
    pub from: Side,
}

impl Flow {
    /// The connection `n`: to the SSH port of a NIC.
    pub fn inbound(n: u32, nic: u32) -> Flow {
        let client = (Ipv4Addr::from(0xC612_0000 + n / 60_000), 1024 + (n % 60_000) as u16);
        Flow { client, server: (address(nic), 22), from: Side::Outside }
    }

    /// The handshake: who sends what, in this order.
    fn handshake(&self) -> [(Side, Vec<u8>); 3] {
        let (c, s, back) = (self.client, self.server, self.from.other());
        [
            (self.from, tcp(c, s).syn().seq(1000).window(60_000).frame()),
            (back, tcp(s, c).syn().seq(5000).ack(1001).window(60_000).frame()),
            (self.from, tcp(c, s).seq(1001).ack(5001).window(60_000).frame()),
        ]
    }

    /// A segment each way, as it may be sent again and again.
    pub fn data(&self) -> [(Side, Vec<u8>); 2] {
        let (c, s) = (self.client, self.server);
        [
            (self.from, tcp(c, s).seq(1001).ack(5001).window(60_000).payload([0; 6]).frame()),
            (self.from.other(), tcp(s, c).seq(5001).ack(1001).window(60_000).payload([0; 6]).frame()),
        ]
    }
}

/// Opens the connections; every packet of the handshakes must pass. What they send from then on, by
/// side, in random order.
pub fn open(rig: &Rig, flows: &[Flow]) -> [Vec<PoolFrame>; 2] {
    let mut frames: [Vec<Vec<u8>>; 2] = Default::default();
    for some in flows.chunks(50_000) {
        for step in 0..3 {
            let mut sides: [Vec<Vec<u8>>; 2] = Default::default();
            for flow in some {
                let [.., (side, frame)] = &flow.handshake()[..=step] else { continue };
                sides[*side as usize].push(frame.clone());
            }
            for (side, frames) in [Side::Inside, Side::Outside].into_iter().zip(sides) {
                let sent = rig.play_once(side, kept(&frames));
                assert_eq!(sent, frames.len() as u64, "step {step} of the handshakes");
            }
        }
        for (side, frame) in some.iter().flat_map(Flow::data) {
            frames[side as usize].push(frame);
        }
    }
    let mut rng = Rng::new(7);
    frames.map(|frames| {
        let mut frames = kept(&frames);
        for at in (1..frames.len()).rev() {
            frames.swap(at, rng.below(at + 1));
        }
        frames
    })
}
