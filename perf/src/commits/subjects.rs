//! NICs whose permissions changes give and take, with a plain model of what is permitted by then.
//!
//! Every subject has a group of its own, an address group, a club that it shares with others, and a
//! peer that is or is not in the group which one of its rules names. So each kind of change can
//! take a permission away, and the model says which.

use std::fmt::Write;
use std::net::Ipv4Addr;

use control::document::{EditError, Limits, ObjectKey, RuleEdit, RuleSelector, edit_rule, put, remove};
use control::live::{ChangeRefused, Edit, Target};
use control::model::{Key, Policy};
use engine::Side;
use testkit::frame::{Build, tcp, udp};
use testkit::rng::Rng;

use super::world::Flow;

/// Subjects that share a club.
const CLUB: usize = 8;

/// A rule of a subject's own group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// Everything out.
    Out,
    /// One of two ports, from somewhere.
    Port(Way),
    /// The first port is denied after all.
    Deny,
    /// A port, from the address group.
    Listed,
    /// A port, from the peer's group.
    Peer,
}

/// A way in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// By a rule about one port.
    First,
    /// By a rule about another.
    Second,
    /// By being in the club.
    Club,
    /// By the client's being in the address group.
    Listed,
    /// By the client's being in the peers' group.
    Peer,
}

const WAYS: [Way; 5] = [Way::First, Way::Second, Way::Club, Way::Listed, Way::Peer];
const RULES: [Rule; 5] =
    [Rule::Port(Way::First), Rule::Port(Way::Second), Rule::Deny, Rule::Listed, Rule::Peer];

/// What may be otherwise of one subject.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subject {
    there: bool,
    rules: Vec<Rule>,
    in_club: bool,
    listed: bool,
    /// Whether the peer is there, and whether it is in its group.
    peer: Option<bool>,
}

/// All subjects, at one generation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct State(Vec<Subject>);

/// A change of one thing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    /// A rule more.
    AddRule(usize, Rule),
    /// A rule less.
    DeleteRule(usize, usize),
    /// A rule instead of another.
    SetRule(usize, usize, Rule),
    /// Into the club or out of it.
    Club(usize, bool),
    /// The client into the address group or out of it.
    List(usize, bool),
    /// The peer into its group, out of it, or gone.
    Peer(usize, Option<bool>),
    /// The subject is made or deleted.
    Nic(usize, bool),
}

impl Op {
    /// What kind of change it is.
    pub fn kind(&self) -> &'static str {
        match self {
            Op::AddRule(..) => "rule added",
            Op::DeleteRule(..) => "rule deleted",
            Op::SetRule(..) => "rule changed",
            Op::Club(..) => "membership",
            Op::List(..) => "address group",
            Op::Peer(..) => "member of a remote group",
            Op::Nic(_, true) => "NIC created",
            Op::Nic(_, false) => "NIC deleted",
        }
    }
}

impl Subject {
    fn new(n: usize) -> Subject {
        let rules = vec![Rule::Out, Rule::Port(Way::First), Rule::Listed, Rule::Peer];
        Subject { there: true, rules, in_club: n.is_multiple_of(2), listed: true, peer: Some(true) }
    }

    fn permits(&self, way: Way) -> bool {
        let has = |rule| self.rules.contains(&rule);
        self.there
            && match way {
                Way::First => has(Rule::Port(Way::First)) && !has(Rule::Deny),
                Way::Second => has(Rule::Port(Way::Second)),
                Way::Club => self.in_club,
                Way::Listed => has(Rule::Listed) && self.listed,
                Way::Peer => has(Rule::Peer) && self.peer == Some(true),
            }
    }
}

impl State {
    /// So many subjects, as they are at first.
    pub fn new(subjects: usize) -> State {
        State((0..subjects).map(Subject::new).collect())
    }

    /// Permissions here that are not there.
    pub fn more_than(&self, other: &State) -> Vec<(usize, Way)> {
        let all = (0..self.0.len()).flat_map(|n| WAYS.map(|way| (n, way)));
        all.filter(|&(n, way)| self.0[n].permits(way) && !other.0[n].permits(way)).collect()
    }

    /// Whether a subject stays for ever: it has outbound connections that nothing may touch.
    fn is_lasting(&self, subject: usize) -> bool {
        subject < self.0.len() / 2
    }

    /// Outbound connections of subjects that are flushed again and again, and stay.
    pub fn outbound(&self, each: u16) -> Vec<Flow> {
        let lasting = (0..self.0.len()).filter(|n| self.is_lasting(*n));
        let flow = |n, flow: u16| Flow {
            client: (address(n), 2000 + flow),
            server: (Ipv4Addr::new(192, 0, 2, 1), 443),
            from: Side::Inside,
        };
        lasting.flat_map(|n| (0..each).map(move |each| flow(n, each))).collect()
    }

    /// Some change that is possible now.
    pub fn random_op(&self, rng: &mut Rng) -> Op {
        let at = rng.below(self.0.len());
        let subject = &self.0[at];
        let rule = RULES[rng.below(RULES.len())];
        let place = subject.rules.iter().position(|there| *there == rule);
        match (rng.below(8), place) {
            (0..=2, Some(place)) => {
                let unused: Vec<_> = RULES.iter().filter(|rule| !subject.rules.contains(rule)).collect();
                match unused.get(rng.below(unused.len() * 2)) {
                    Some(other) => Op::SetRule(at, place, **other),
                    None => Op::DeleteRule(at, place),
                }
            }
            (0..=2, None) => Op::AddRule(at, rule),
            (3 | 4, _) if subject.there => Op::Club(at, !subject.in_club),
            (5, _) => Op::List(at, !subject.listed),
            (6, _) => Op::Peer(
                at,
                [Some(true), Some(false), None]
                    .into_iter()
                    .filter(|peer| *peer != subject.peer)
                    .nth(rng.below(2))
                    .flatten(),
            ),
            _ if !self.is_lasting(at) => Op::Nic(at, !subject.there),
            _ => Op::List(at, !subject.listed),
        }
    }

    /// What is then.
    pub fn after(&self, op: Op) -> State {
        let mut state = self.clone();
        match op {
            Op::AddRule(at, rule) => state.0[at].rules.push(rule),
            Op::DeleteRule(at, place) => drop(state.0[at].rules.remove(place)),
            Op::SetRule(at, place, rule) => state.0[at].rules[place] = rule,
            Op::Club(at, is) => state.0[at].in_club = is,
            Op::List(at, is) => state.0[at].listed = is,
            Op::Peer(at, peer) => state.0[at].peer = peer,
            Op::Nic(at, is) => state.0[at].there = is,
        }
        state
    }

    /// What one asks the control side for, for `op` to come true; `self` is what is to be.
    pub fn target(&self, op: Op) -> Target {
        let limits = Limits::default();
        let subject = |at: usize| nic_text(at, &self.0[at]);
        let edit: Edit = match op {
            Op::AddRule(at, rule) => edited(at, RuleEdit::Add(rule_text(at, rule)), limits),
            Op::DeleteRule(at, place) => edited(at, RuleEdit::Delete(RuleSelector::Position(place)), limits),
            Op::SetRule(at, place, rule) => {
                edited(at, RuleEdit::Set(RuleSelector::Position(place), rule_text(at, rule)), limits)
            }
            Op::Club(at, _) | Op::Nic(at, true) => placed(ObjectKey::Nic(key("s", at)), subject(at), limits),
            Op::List(at, is) => placed(ObjectKey::AddressGroup(key("list", at)), list_text(at, is), limits),
            Op::Peer(at, Some(is)) => placed(ObjectKey::Nic(key("p", at)), peer_text(at, is), limits),
            Op::Peer(at, None) => removed(ObjectKey::Nic(key("p", at))),
            Op::Nic(at, false) => removed(ObjectKey::Nic(key("s", at))),
        };
        Target::Edited(edit)
    }

    /// The subjects' part of a document: address groups, security groups, NICs.
    pub fn sections(&self) -> [String; 3] {
        let [mut lists, mut groups, mut nics] =
            [String::from("address_groups:\n"), String::new(), String::new()];
        for (at, subject) in self.0.iter().enumerate() {
            let rules: Vec<_> = subject.rules.iter().map(|rule| rule_text(at, *rule)).collect();
            let _ = writeln!(lists, "  - {}", list_text(at, subject.listed));
            let _ = writeln!(groups, "  - {{name: sg{at}, rules: [{}]}}", rules.join(", "));
            let _ = writeln!(groups, "  - {{name: peers{at}}}");
            if at % CLUB == 0 {
                let _ = writeln!(
                    groups,
                    "  - {{name: club{}, rules: [{{direction: inbound, protocol: tcp, ports: 443}}, \
                     {{direction: inbound, protocol: udp, ports: 443}}]}}",
                    at / CLUB
                );
            }
            let _ = writeln!(nics, "  - {}", nic_text(at, subject));
            let _ = writeln!(nics, "  - {}", peer_text(at, true));
        }
        [lists, groups, nics]
    }
}

fn key(kind: &str, at: usize) -> Key {
    Key::in_default(format!("{kind}{at}"))
}

fn refused(error: EditError) -> ChangeRefused {
    error.into()
}

fn edited(at: usize, edit: RuleEdit, limits: Limits) -> Edit {
    Box::new(move |policy: &Policy| edit_rule(policy, &key("sg", at), &edit, &limits).map_err(refused))
}

fn placed(key: ObjectKey, text: String, limits: Limits) -> Edit {
    Box::new(move |policy: &Policy| put(policy, &key, &text, &limits).map_err(refused))
}

fn removed(key: ObjectKey) -> Edit {
    Box::new(move |policy: &Policy| Ok(remove(policy, &key).map_err(refused)?.into()))
}

fn protocol(subject: usize) -> &'static str {
    if subject.is_multiple_of(2) { "tcp" } else { "udp" }
}

fn rule_text(at: usize, rule: Rule) -> String {
    let (protocol, port) = (protocol(at), |way| port(way));
    match rule {
        Rule::Out => "{direction: outbound}".to_owned(),
        Rule::Port(way) => format!("{{direction: inbound, protocol: {protocol}, ports: {}}}", port(way)),
        Rule::Deny => format!(
            "{{direction: inbound, protocol: {protocol}, ports: {}, action: deny, priority: 1}}",
            port(Way::First)
        ),
        Rule::Listed => format!(
            "{{direction: inbound, protocol: {protocol}, ports: {}, remote_address_group: list{at}}}",
            port(Way::Listed)
        ),
        Rule::Peer => format!(
            "{{direction: inbound, protocol: {protocol}, ports: {}, remote_group: peers{at}}}",
            port(Way::Peer)
        ),
    }
}

fn nic_text(at: usize, subject: &Subject) -> String {
    let club = if subject.in_club { format!(", club{}", at / CLUB) } else { String::new() };
    format!("{{name: s{at}, vpc: prod, addresses: [{}], security_groups: [sg{at}{club}]}}", address(at))
}

fn peer_text(at: usize, is_in: bool) -> String {
    let groups = if is_in { format!("peers{at}") } else { String::new() };
    format!("{{name: p{at}, vpc: prod, addresses: [{}], security_groups: [{groups}]}}", peer(at))
}

fn list_text(at: usize, is_listed: bool) -> String {
    let client = if is_listed { listed(at) } else { Ipv4Addr::new(203, 0, 114, at as u8) };
    format!("{{name: list{at}, addresses: [{client}]}}")
}

fn address(at: usize) -> Ipv4Addr {
    Ipv4Addr::new(10, 200, 0, at as u8)
}

fn peer(at: usize) -> Ipv4Addr {
    Ipv4Addr::new(10, 201, 0, at as u8)
}

fn listed(at: usize) -> Ipv4Addr {
    Ipv4Addr::new(203, 0, 113, at as u8)
}

fn port(way: Way) -> u16 {
    match way {
        Way::First => 8001,
        Way::Second => 8002,
        Way::Club => 443,
        Way::Listed => 8443,
        Way::Peer => 5432,
    }
}

/// One try to get in.
#[derive(Clone, Copy, Debug)]
pub struct Try {
    client: (Ipv4Addr, u16),
    server: (Ipv4Addr, u16),
    is_tcp: bool,
}

impl Try {
    /// By this way, as the `n`th one.
    pub fn new(subject: usize, way: Way, n: u32) -> Try {
        let client = match way {
            Way::First | Way::Second | Way::Club => Ipv4Addr::from(0xC633_6401 + n % 200),
            Way::Listed => listed(subject),
            Way::Peer => peer(subject),
        };
        let client = (client, 1024 + (n % 64_000) as u16);
        Try { client, server: (address(subject), port(way)), is_tcp: protocol(subject) == "tcp" }
    }

    /// The packet that opens.
    pub fn opening(&self) -> Vec<u8> {
        if self.is_tcp {
            tcp(self.client, self.server).syn().seq(1000).window(60_000).frame()
        } else {
            udp(self.client, self.server).payload([0; 6]).frame()
        }
    }

    /// The instance's answer to it.
    pub fn answer(&self) -> Vec<u8> {
        if self.is_tcp {
            tcp(self.server, self.client).syn().seq(5000).ack(1001).window(60_000).frame()
        } else {
            self.reply()
        }
    }

    /// What the client sends from then on.
    pub fn data(&self) -> Vec<u8> {
        if self.is_tcp {
            tcp(self.client, self.server).seq(1001).ack(5001).window(60_000).frame()
        } else {
            self.opening()
        }
    }

    /// What the instance sends from then on.
    pub fn reply(&self) -> Vec<u8> {
        if self.is_tcp {
            tcp(self.server, self.client).seq(5001).ack(1001).window(60_000).frame()
        } else {
            udp(self.server, self.client).payload([0; 6]).frame()
        }
    }
}
