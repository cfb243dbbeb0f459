//! The oracle: semantics.md §2–§6 as a plain, linear, slow model.
//!
//! It reads the policy itself, never what was compiled from it, and shares no code with the engine:
//! own parsing, linear scans of the rules, a map of connections, deadlines in nanoseconds. What it
//! says is what the page says; where the page leaves room, the reading chosen stands in a comment
//! beside its sentence.
//!
//! A connection "at its deadline is gone, at most 0.5 s late" (4.2): the oracle ends it exactly
//! there, and says `ambiguous` for half a second behind any deadline.
//! [`Oracle::clear_of_deadlines`] finds a moment that is not.
//!
//! It knows of workers only who judged a packet and which generation that one had: between the
//! publication of a change and its acknowledgement there are two (5). What a full table gives up
//! (6.1) is not foreseen but taken note of: see [`Oracle::evicted`] and [`FrameView::refusal`];
//! [`room`] says of each whether it is allowed. Left out: the bound on remembered fragments (4.6).

mod change;
mod connection;
mod fragments;
mod generation;
mod read;
pub mod room;
mod rules;
mod tcp;
mod track;
mod unruled;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use control::config::{Config, Unknown};
use control::model::{Key, Mode, Nic, Policy, Segment};
use engine::{Direction, Side};

use connection::{Connection, Tuple};
use fragments::{FragmentKey, Remembered, Waiting};
use generation::GenerationModel;
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
    /// The staged rule that would decide, and whether it would let the packet open a connection
    /// (3.9).
    pub staged: Option<(String, bool)>,
    /// Something reached its deadline less than half a second ago: another verdict may be right
    /// too.
    pub ambiguous: bool,
    /// Its connection belongs to another worker than the one that judged it.
    pub stray: bool,
    /// It follows a first fragment that another worker knows, but was said not to.
    pub forgotten: bool,
    /// It waits for its first fragment: see [`Oracle::settled`].
    pub held: bool,
}

/// A frame as the oracle gets to see it.
#[derive(Clone, Copy, Debug)]
pub struct FrameView<'f> {
    /// Who judges it.
    pub worker: usize,
    /// When, in nanoseconds.
    pub time_ns: u64,
    /// Where it came in.
    pub side: Side,
    /// The bytes captured.
    pub frame: &'f [u8],
    /// The bytes it had on the wire.
    pub original_len: usize,
    /// `table-full`, `nic-limit` or `fragment-no-first`, if the firewall said so. The first is for
    /// it to know and for the test to justify, the last likewise where there is a first; the second
    /// may count what has expired with a worker that was not polled since (6.2, 4.2).
    pub refusal: Option<&'static str>,
    /// A later fragment without a first is held, under this number. Else it has waited already, or
    /// may not.
    pub holds: Option<usize>,
    /// It has waited for a first, which did not come.
    pub in_vain: bool,
}

/// What tells one connection from all others at one moment.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Id {
    /// The NIC's address.
    pub local: IpAddr,
    /// The other one.
    pub remote: IpAddr,
    /// Protocol number.
    pub protocol: u8,
    /// Local port × 65536 + remote port; of ICMP identifier × 65536 + kind × 256, + 1 if the
    /// network asked.
    pub column: u32,
    /// Whose it is.
    pub nic: String,
}

/// A connection as `show connections` has it.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct View {
    /// Which it is.
    pub id: Id,
    /// Whether its opening packet was inbound.
    pub inbound: bool,
    /// As `show connections` spells it.
    pub state: &'static str,
    /// Whether both sides have confirmed it (6.1).
    pub confirmed: bool,
    /// Whether it is disconnected.
    pub tombstone: bool,
    /// Whether it would be, judged now: "what judging now would give" (5.4).
    pub refused: bool,
    /// When it ends.
    pub deadline_ns: u64,
    /// The oracle's number for the NIC's address: one that came back is another (5.5).
    pub place: u32,
}

/// A firewall on paper.
pub struct Oracle {
    config: Config,
    start_ns: u64,
    /// All generations, from the empty policy on.
    eras: Vec<GenerationModel>,
    /// Numbers given to NICs and addresses.
    numbers: u32,
    /// Since when those are gone that are not there.
    gone: BTreeMap<u32, u64>,
    /// The generation that each worker judges by.
    workers: Vec<usize>,
    /// Of the packet being judged: by whom, under which generation and policy.
    worker: usize,
    era: usize,
    policy: Arc<Policy>,
    refusal: Option<&'static str>,
    stray: bool,
    forgotten: bool,
    now: u64,
    connections: BTreeMap<Tuple, Connection>,
    /// Expired connections, whose worker was not polled since.
    unfound: Vec<(Tuple, usize)>,
    fragments: BTreeMap<FragmentKey, Remembered>,
    /// Later fragments ahead of their first, and those that are so no more.
    waiting: Vec<Waiting>,
    released: Vec<(Waiting, bool)>,
    /// The packet being judged has waited in vain.
    in_vain: bool,
    /// Of the packet being judged: the number under which it may be held, whether it is, what was
    /// shown.
    holds: Option<usize>,
    held: bool,
    shown: (Vec<u8>, usize),
}

/// A verdict before anybody asked who observes.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Outcome {
    reason: &'static str,
    nic: Option<Key>,
    rule: Option<String>,
    /// See [`Verdict::staged`].
    staged: Option<(String, bool)>,
    /// The connection that it belongs to, for the fragments behind it.
    of: Option<Tuple>,
    /// Whether that one is inbound.
    inbound: bool,
}

impl Outcome {
    fn nobody(reason: &'static str) -> Outcome {
        Outcome::of(reason, None)
    }

    fn of(reason: &'static str, nic: Option<&Nic>) -> Outcome {
        Outcome {
            reason,
            nic: nic.map(|nic| nic.key.clone()),
            rule: None,
            staged: None,
            of: None,
            inbound: false,
        }
    }

    fn passes(&self) -> bool {
        matches!(self.reason, "established" | "new" | "related" | "fragment" | "control")
    }
}

impl Oracle {
    /// Under the empty policy, from a start at `start_ns` on.
    pub fn new(config: &Config, start_ns: u64, workers: usize) -> Oracle {
        Oracle {
            config: config.clone(),
            start_ns,
            eras: vec![GenerationModel::default()],
            numbers: 0,
            gone: BTreeMap::new(),
            workers: vec![0; workers],
            worker: 0,
            era: 0,
            policy: Arc::default(),
            refusal: None,
            stray: false,
            forgotten: false,
            now: 0,
            connections: BTreeMap::new(),
            unfound: Vec::new(),
            fragments: BTreeMap::new(),
            waiting: vec![],
            released: vec![],
            in_vain: false,
            holds: None,
            held: false,
            shown: Default::default(),
        }
    }

    /// A policy is applied as one transaction (5): the number of the generation that it makes.
    /// "Applying a policy identical to the present one changes nothing" (5.6): `None`.
    pub fn commit(&mut self, policy: &Policy, ns: u64) -> Option<u32> {
        let present = self.eras.last().expect("the empty policy is there");
        if change::is_in_force(&present.policy, policy) {
            return None;
        }
        let next = present.then(policy, &self.config.policy, &mut self.numbers);
        Some(self.follows(next, ns))
    }

    /// Goes back to a generation (5.7): the number of the one that this makes.
    pub fn rollback(&mut self, to: u32, ns: u64) -> u32 {
        let t = &self.config.timeouts;
        let tcp = [t.tcp_syn, t.tcp_established, t.tcp_fin, t.tcp_half_closed];
        let others = [t.icmp, t.one_way, t.two_way, t.fragment];
        let longest = tcp.into_iter().chain(others).max().unwrap_or_default().as_nanos() as u64;
        let is_over = |number| self.gone.get(&number).is_some_and(|since| ns - since > 2 * longest);
        let next = GenerationModel::back(&self.eras, to, is_over, &mut self.numbers);
        self.follows(next, ns)
    }

    fn follows(&mut self, next: GenerationModel, ns: u64) -> u32 {
        let present = self.eras.last().expect("the empty policy is there");
        self.gone.extend(present.numbers().map(|number| (number, ns)));
        for number in next.numbers() {
            self.gone.remove(&number);
        }
        self.eras.push(next);
        self.eras.len() as u32 - 1
    }

    /// From now on this worker judges by that generation.
    pub fn adopt(&mut self, worker: usize, generation: u32) {
        self.workers[worker] = generation as usize;
    }

    /// A worker was polled at this moment: what had expired with it is found.
    pub fn polled(&mut self, worker: usize, ns: u64) {
        self.at(ns);
        self.unfound.retain(|(_, whose)| *whose != worker);
    }

    /// The firewall has given up a connection for another.
    pub fn evicted(&mut self, view: &View) {
        self.connections.retain(|tuple, _| tuple.place != view.place || tuple.id() != view.id);
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
        let fragments = self.fragments.values().map(|first| first.until);
        let waiting = self.waiting.iter().map(|waiting| waiting.until);
        let grace = Some(self.grace_end()).filter(|end| *end > self.start_ns);
        connections.chain(fragments).chain(waiting).chain(grace)
    }

    /// NICs of a generation's policy.
    pub fn nics(&self, generation: u32) -> u32 {
        self.eras[generation as usize].policy.nics.len() as u32
    }

    /// The generation that a worker judges by.
    pub fn generation(&self, worker: usize) -> u32 {
        self.workers[worker] as u32
    }

    /// When something was last heard of a connection (4.2).
    pub fn heard_ns(&self, view: &View) -> u64 {
        let t = &self.config.timeouts;
        let timeout = match view.state {
            "established" => t.tcp_established,
            "fin-wait" => t.tcp_half_closed,
            "closing" => t.tcp_fin,
            "syn-sent" | "syn-received" => t.tcp_syn,
            "two-way" => t.two_way,
            "one-way" => t.one_way,
            _ => t.icmp,
        };
        view.deadline_ns - timeout.as_nanos() as u64
    }

    /// The connections and tombstones of a worker at a moment, under a generation not before the
    /// one that it judges by, in order: with `held` the live ones, without those that a change has
    /// ended, which a rollback may want.
    pub fn connections(&mut self, worker: usize, generation: u32, ns: u64, held: bool) -> Vec<View> {
        let now = generation as usize;
        let mut views = Vec::new();
        for (tuple, connection) in &mut self.connections {
            let is_theirs = connection.worker == worker && ns < connection.deadline;
            if !is_theirs || self.eras[now].holds(tuple.place) != held {
                continue;
            }
            connection.follow(&self.eras, now, &tuple.nic);
            let policy = &self.eras[now].policy;
            let is_due = held && connection.fate.rejudge;
            let say = || rules::say(policy, &policy.nics[&tuple.nic], &connection.opening);
            let refused = is_due && !matches!(say(), rules::Say::Allowed(_));
            views.push(View {
                id: tuple.id(),
                inbound: connection.is_inbound(),
                state: connection.kind.name(),
                confirmed: connection.kind.is_confirmed(),
                tombstone: connection.is_tombstone(),
                refused: refused || connection.is_tombstone(),
                deadline_ns: connection.deadline,
                place: tuple.place,
            });
        }
        views.sort();
        views
    }

    fn at(&mut self, ns: u64) {
        // The clock "never runs back" (interfaces.md).
        self.now = self.now.max(ns);
        let now = self.now;
        let unfound = &mut self.unfound;
        self.connections.retain(|tuple, connection| {
            let stays = now < connection.deadline + GRACE_NS;
            if !stays {
                unfound.push((tuple.clone(), connection.worker));
            }
            stays
        });
        self.fragments.retain(|_, first| now < first.until + GRACE_NS);
    }

    /// Judges a frame.
    pub fn judge(&mut self, sight: &FrameView<'_>) -> Verdict {
        self.at(sight.time_ns);
        let now = self.now;
        let ambiguous = self.deadlines().any(|deadline| is_grey(deadline, now));
        (self.worker, self.refusal) = (sight.worker, sight.refusal);
        (self.stray, self.forgotten, self.held) = (false, false, false);
        (self.holds, self.in_vain) = (sight.holds, sight.in_vain);
        if sight.holds.is_some() {
            self.end_waits();
            self.shown = (sight.frame.to_vec(), sight.original_len);
        }
        self.era = self.workers[sight.worker];
        self.policy = self.eras[self.era].policy.clone();

        let outcome = self.decide(sight.side, Bytes { data: sight.frame, wire: sight.original_len });
        // "`mode = "observe"`, for all or on a NIC" (2.8).
        let own = outcome.nic.as_ref().and_then(|nic| self.policy.nics[nic].mode);
        let observed = !outcome.passes() && own.unwrap_or(self.config.policy.mode) == Mode::Observe;
        Verdict {
            pass: outcome.passes() || observed,
            observed,
            reason: outcome.reason,
            direction: outcome.nic.is_some().then_some(match sight.side {
                Side::Inside => Direction::Outbound,
                Side::Outside => Direction::Inbound,
            }),
            nic: outcome.nic.map(|nic| nic.to_string()),
            rule: outcome.rule,
            staged: outcome.staged,
            ambiguous,
            stray: self.stray,
            forgotten: self.forgotten,
            held: self.held,
        }
    }

    fn grace_end(&self) -> u64 {
        self.start_ns + self.config.conntrack.pickup_grace.as_nanos() as u64
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

    /// With `unknown_nic = "pass"` "frames of nobody's … NIC pass as `control`" (2.8): ARP and the
    /// like of a stranger too.
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
            // "Control frames are remembered too" (4.6); a spoofed one says nothing about its
            // owner's.
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
            Side::Inside => {
                !rules::mac_fits(&nic, local, mac) && !rules::is_virtual_router(&nic, ip.protocol, mac)
            }
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
}

fn is_grey(deadline: u64, now: u64) -> bool {
    deadline <= now && now < deadline + GRACE_NS
}
