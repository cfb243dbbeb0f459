//! The oracle: semantics.md §2–§6 as a plain, linear, slow model.
//!
//! It reads the policy itself, never what was compiled from it, and shares no code with the engine: own parsing, linear
//! scans of the rules, a map of connections, deadlines in nanoseconds. What it says is what the page says; where the page
//! leaves room, the reading chosen stands in a comment beside its sentence.
//!
//! A connection "at its deadline is gone, at most 0.5 s late" (4.2): the oracle ends it exactly there, and says `ambiguous`
//! for half a second behind any deadline. [`Oracle::clear_of_deadlines`] finds a moment that is not.
//!
//! Left out: a full table and its evictions (6.1), the bound on remembered fragments (4.6), `pickup_grace`, rollbacks (5.7).

mod change;
mod connection;
mod read;
mod rules;
mod tcp;
mod track;
mod unruled;

use std::collections::HashMap;
use std::net::IpAddr;

use control::config::{Config, OnFlush, Unknown};
use control::model::{Key, Mode, Nic, Policy, Segment};
use engine::{Direction, Side};

use connection::{Column, Connection, Tuple};
use read::{ARP, Bytes, Fragment, IPV4, IPV6, Ip, Link, Tag, Tunnel};

/// How late the end of a connection may be (4.2).
pub const GRACE_NS: u64 = 500_000_000;

/// What the oracle says of one frame, by the names of interfaces.md.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Verdict {
    /// Whether it goes on.
    pub pass: bool,
    /// Whether it does only because nothing is enforced.
    pub observed: bool,
    /// Why.
    pub reason: &'static str,
    /// Whose frame it is.
    pub nic: Option<String>,
    /// `None` exactly when `nic` is.
    pub direction: Option<Direction>,
    /// The rule of `new` and `denied`.
    pub rule: Option<String>,
    /// Something reached its deadline less than half a second ago: another verdict may be right too.
    pub ambiguous: bool,
}

/// A connection as `show connections` has it.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct View {
    /// Whose it is.
    pub nic: String,
    /// Whether its opening packet was inbound.
    pub inbound: bool,
    /// Protocol number.
    pub protocol: u8,
    /// The NIC's address.
    pub local: IpAddr,
    /// The other one.
    pub remote: IpAddr,
    /// The ports, local first, of protocols with ports.
    pub ports: Option<(u16, u16)>,
    /// As `show connections` spells it.
    pub state: &'static str,
    /// Whether it is disconnected.
    pub tombstone: bool,
    /// When it ends.
    pub deadline_ns: u64,
}

/// A firewall on paper.
pub struct Oracle {
    config: Config,
    policy: Policy,
    now: u64,
    connections: HashMap<Tuple, Connection>,
    fragments: HashMap<FragmentKey, Remembered>,
}

/// "Remembered by (NIC, direction, source, destination, protocol, id)" (4.6).
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct FragmentKey {
    nic: Key,
    side: Side,
    src: IpAddr,
    dst: IpAddr,
    protocol: u8,
    id: u32,
}

/// The verdict on a first fragment.
#[derive(Clone, Debug)]
struct Remembered {
    outcome: Outcome,
    until: u64,
    /// Where the L4 header ends, counted from behind the fragment header.
    headers: usize,
}

/// A verdict before anybody asked who observes.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Outcome {
    reason: &'static str,
    nic: Option<Key>,
    rule: Option<String>,
    /// The connection that it belongs to, for the fragments behind it.
    of: Option<Tuple>,
}

impl Outcome {
    fn nobody(reason: &'static str) -> Outcome {
        Outcome::of(reason, None)
    }

    fn of(reason: &'static str, nic: Option<&Nic>) -> Outcome {
        Outcome { reason, nic: nic.map(|nic| nic.key.clone()), rule: None, of: None }
    }

    fn passes(&self) -> bool {
        matches!(self.reason, "established" | "new" | "related" | "fragment" | "control")
    }
}

impl Oracle {
    /// Under the empty policy.
    pub fn new(config: &Config) -> Oracle {
        Oracle {
            config: config.clone(),
            policy: Policy::default(),
            now: 0,
            connections: HashMap::new(),
            fragments: HashMap::new(),
        }
    }

    /// Applies a policy as one transaction (5).
    pub fn apply(&mut self, policy: &Policy) {
        let change = change::change(&self.policy, policy, &self.config.policy);
        let rejudge = self.config.policy.on_flush == OnFlush::Rejudge;
        // "Deleting a NIC ends its connections"; "an address taken away ends its connections" (5.5): no tombstones.
        let ended = |nic: &Key, local: IpAddr| {
            change.ended.contains(nic) || change.lost.contains(&(nic.clone(), local))
        };
        self.connections.retain(|tuple, _| !ended(&tuple.nic, tuple.local));
        self.fragments
            .retain(|key, _| !ended(&key.nic, if key.side == Side::Inside { key.src } else { key.dst }));
        for (tuple, connection) in &mut self.connections {
            // "Outbound connections keep the verdict they opened with, whatever changes" (5.3).
            if !connection.is_inbound() {
                continue;
            }
            if change.flushed.contains(&tuple.nic) && !rejudge {
                // "It is a tombstone … until the deadline that the connection had when it was disconnected" (5.2).
                connection.tombstone = true;
            } else if change.flushed.contains(&tuple.nic) || change.rejudged.contains(&tuple.nic) {
                connection.rejudge = true;
            }
        }
        if !rejudge {
            // "A flush forgets the fragments of inbound connections and of drops" (4.6).
            let connections = &self.connections;
            let inbound =
                |tuple: &Tuple| connections.get(tuple).is_some_and(|connection| connection.is_inbound());
            self.fragments.retain(|key, first| {
                !change.flushed.contains(&key.nic)
                    || first.outcome.passes() && !first.outcome.of.as_ref().is_some_and(inbound)
            });
        }
        self.policy = policy.clone();
    }

    /// The first moment from `ns` on that is not within half a second behind a deadline.
    pub fn clear_of_deadlines(&self, mut ns: u64) -> u64 {
        while let Some(deadline) = self.deadlines().find(|deadline| is_grey(*deadline, ns)) {
            ns = deadline + GRACE_NS;
        }
        ns
    }

    fn deadlines(&self) -> impl Iterator<Item = u64> + '_ {
        let connections = self.connections.values().map(|connection| connection.deadline);
        connections.chain(self.fragments.values().map(|first| first.until))
    }

    /// The live connections and tombstones at a moment, in order.
    pub fn connections(&self, ns: u64) -> Vec<View> {
        let live = self.connections.iter().filter(|(_, connection)| ns < connection.deadline);
        let mut views: Vec<View> = live
            .map(|(tuple, connection)| View {
                nic: tuple.nic.to_string(),
                inbound: connection.is_inbound(),
                protocol: tuple.protocol,
                local: tuple.local,
                remote: tuple.remote,
                ports: match tuple.column {
                    Column::Ports(local, remote) => Some((local, remote)),
                    _ => None,
                },
                state: connection.kind.name(),
                tombstone: connection.tombstone,
                deadline_ns: connection.deadline,
            })
            .collect();
        views.sort();
        views
    }

    /// Judges a frame that came in by `side` and had `original_len` bytes on the wire.
    pub fn judge(&mut self, time_ns: u64, side: Side, frame: &[u8], original_len: usize) -> Verdict {
        // The clock "never runs back" (interfaces.md).
        self.now = self.now.max(time_ns);
        let now = self.now;
        let ambiguous = self.deadlines().any(|deadline| is_grey(deadline, now));
        self.connections.retain(|_, connection| now < connection.deadline + GRACE_NS);
        self.fragments.retain(|_, first| now < first.until + GRACE_NS);

        let outcome = self.decide(side, Bytes { data: frame, wire: original_len });
        // "`mode = "observe"`, for all or on a NIC" (2.8).
        let own = outcome.nic.as_ref().and_then(|nic| self.policy.nics[nic].mode);
        let observed = !outcome.passes() && own.unwrap_or(self.config.policy.mode) == Mode::Observe;
        Verdict {
            pass: outcome.passes() || observed,
            observed,
            reason: outcome.reason,
            direction: outcome.nic.is_some().then_some(match side {
                Side::Inside => Direction::Outbound,
                Side::Outside => Direction::Inbound,
            }),
            nic: outcome.nic.map(|nic| nic.to_string()),
            rule: outcome.rule,
            ambiguous,
        }
    }

    /// The checks in the order of 2.1, up to the segment.
    fn decide(&mut self, side: Side, frame: Bytes<'_>) -> Outcome {
        let Some(link) = Link::read(frame) else { return Outcome::nobody("malformed") };
        // "Destination 01:80:C2:00:00:00–0F, before segments" (2.8).
        let link_local = link.dst[..5] == [1, 0x80, 0xc2, 0, 0] && link.dst[5] < 16;
        if self.config.policy.pass_link_local && link_local {
            return Outcome::nobody("control");
        }
        let tunnels = self.policy.vpcs.values().any(|vpc| matches!(vpc.segment, Segment::Vni(_)));
        match link.tag {
            Tag::Odd => self.unknown_segment(),
            Tag::Vlan(id) => self.decide_in(side, Segment::Vlan(id), &link),
            Tag::Untagged if tunnels => self.decide_tunnel(side, &link),
            Tag::Untagged => self.decide_in(side, Segment::Untagged, &link),
        }
    }

    fn unknown_segment(&self) -> Outcome {
        let passes = self.config.policy.unknown_segment == Unknown::Pass;
        Outcome::nobody(if passes { "control" } else { "unknown-segment" })
    }

    fn unknown_nic(&self, reason: &'static str) -> Outcome {
        let passes = self.config.policy.unknown_nic == Unknown::Pass;
        Outcome::nobody(if passes { "control" } else { reason })
    }

    /// With `unknown_nic = "pass"` "frames of nobody's … NIC pass as `control`" (2.8): ARP and the like of a stranger too.
    fn or_unknown(&self, outcome: Outcome) -> Outcome {
        let strangers = outcome.reason == "spoofed" && outcome.nic.is_none();
        if strangers { self.unknown_nic("spoofed") } else { outcome }
    }

    /// An untagged frame where some VPC has a VNI (2.2).
    fn decide_tunnel(&mut self, side: Side, link: &Link<'_>) -> Outcome {
        let outer = match link.ethertype {
            // "Untagged ARP and ICMPv6 133–137 pass unread as `control`."
            ARP => return Outcome::nobody("control"),
            IPV4 | IPV6 => Ip::read(link.ethertype == IPV6, link.payload),
            _ => return self.unknown_segment(),
        };
        // "Everything else untagged (lying outer lengths too) is `unknown-segment`."
        let Ok(outer) = outer else { return self.unknown_segment() };
        match read::tunnel(&outer) {
            Tunnel::Malformed => Outcome::nobody("malformed"),
            Tunnel::Inner(vni, inner) => match Link::read(inner) {
                None => Outcome::nobody("malformed"),
                // "A tag inside a tunnel: `unknown-segment`."
                Some(inner) if inner.tagged => self.unknown_segment(),
                Some(inner) => self.decide_in(side, Segment::Vni(vni), &inner),
            },
            Tunnel::None => {
                let later = matches!(outer.fragment, Fragment::Later(_));
                let kind = outer.l4.data.first().copied().unwrap_or_default();
                if outer.v6 && outer.is_icmp() && !later && (133..=137).contains(&kind) {
                    return Outcome::nobody("control");
                }
                self.unknown_segment()
            }
        }
    }

    /// From the segment on: what is not IP, headers, traffic that no rule judges.
    fn decide_in(&mut self, side: Side, segment: Segment, link: &Link<'_>) -> Outcome {
        let Some(vpc) = rules::vpc_of(&self.policy, segment) else { return self.unknown_segment() };
        let vpc = vpc.name.clone();
        match link.ethertype {
            ARP => return self.or_unknown(unruled::arp(&self.policy, &vpc, side, link)),
            IPV4 | IPV6 => {}
            other if self.config.policy.pass_ethertypes.contains(&other) => {
                return Outcome::nobody("control");
            }
            _ => return Outcome::nobody("not-ip"),
        }
        let Ok(ip) = Ip::read(link.ethertype == IPV6, link.payload) else {
            return Outcome::nobody("malformed");
        };
        if let Some(outcome) = unruled::ip(&self.policy, &vpc, side, link, &ip) {
            let outcome = self.or_unknown(outcome);
            // "Control frames are remembered too" (4.6); a spoofed one says nothing about its owner's.
            if outcome.reason != "spoofed" {
                self.remember(side, &ip, &outcome);
            }
            return outcome;
        }
        // "From outside, as `control`" (2.8).
        let multicast = self.config.policy.pass_multicast.iter().any(|prefix| prefix.contains(ip.dst));
        if side == Side::Outside && multicast {
            return Outcome::nobody("control");
        }
        self.decide_nic(side, &vpc, link, &ip)
    }

    /// NIC and source MAC (2.3), then what conntrack and rules say.
    fn decide_nic(&mut self, side: Side, vpc: &str, link: &Link<'_>, ip: &Ip<'_>) -> Outcome {
        let (local, mac, unknown) = match side {
            Side::Inside => (ip.src, link.src, "unknown-source"),
            Side::Outside => (ip.dst, link.dst, "unknown-destination"),
        };
        let Some(nic) = rules::owner(&self.policy, vpc, local, mac).cloned() else {
            return self.unknown_nic(unknown);
        };
        let spoofed = match side {
            Side::Inside => !rules::mac_fits(&nic, local, mac),
            // "A frame from outside whose source is an address of that same NIC."
            Side::Outside => rules::has(&nic, ip.src),
        };
        if spoofed {
            return Outcome::of("spoofed", Some(&nic));
        }
        if let Fragment::Later(offset) = ip.fragment {
            return self.follow(side, &nic, ip, offset);
        }
        let outcome = self.track(side, &nic, ip);
        self.remember(side, ip, &outcome);
        outcome
    }

    /// "Its verdict is remembered … for 5 s from then" (4.6).
    fn remember(&mut self, side: Side, ip: &Ip<'_>, outcome: &Outcome) {
        if ip.fragment != Fragment::First {
            return;
        }
        if let Some(nic) = &outcome.nic {
            let until = self.now + self.config.timeouts.fragment.as_nanos() as u64;
            let headers = ip.headers_behind_fragment();
            let key = fragment_key(nic, side, ip);
            self.fragments.insert(key, Remembered { outcome: outcome.clone(), until, headers });
        }
    }

    /// "Later fragments follow it" (4.6).
    fn follow(&self, side: Side, nic: &Nic, ip: &Ip<'_>, offset: usize) -> Outcome {
        let first = self.fragments.get(&fragment_key(&nic.key, side, ip));
        match first.filter(|first| self.now < first.until) {
            None => Outcome::of("fragment-no-first", Some(nic)),
            // The rule of a denied first is the one that denies what follows.
            Some(first) if !first.outcome.passes() => first.outcome.clone(),
            Some(first) if offset < first.headers => Outcome::of("malformed", Some(nic)),
            Some(_) => Outcome::of("fragment", Some(nic)),
        }
    }
}

fn fragment_key(nic: &Key, side: Side, ip: &Ip<'_>) -> FragmentKey {
    let protocol = if ip.v6 { ip.fragment_protocol } else { ip.protocol };
    FragmentKey { nic: nic.clone(), side, src: ip.src, dst: ip.dst, protocol, id: ip.id }
}

fn is_grey(deadline: u64, now: u64) -> bool {
    deadline <= now && now < deadline + GRACE_NS
}
