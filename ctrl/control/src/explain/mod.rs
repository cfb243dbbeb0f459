//! The verdict on a packet, and why. Described in words or given as bytes, the packet is a frame, and the frame goes the way of
//! every frame: read, resolved and judged by the firewall of the workers, here with an empty table of connections, or with copies
//! of the NIC's connections that the workers have. Nothing of what follows decides anything.

pub(crate) mod describe;
mod frame;
pub(crate) mod nearest;
pub mod owner;
pub(crate) mod text;

use std::fmt;
use std::sync::Arc;

use engine::burst::{Batch, Firewall, FirewallConfig};
use engine::classify::Query;
use engine::conntrack::Connection;
use engine::conntrack::{Secret, ShardConfig};
use engine::counters::{ConnectionCounts, EngineCounters};
use engine::io::Frame;
use engine::packet::PacketMeta;
use engine::resolve::{Resolution, resolve};
use engine::snapshot::{Binding, Snapshot};
use engine::{Reason, Side};

use crate::api::types::{self, Explanation, Question};
use crate::commit::Committer;
use crate::compile::shard_config;
use crate::config::Config;
use crate::live::{describe, is_live};
use crate::model::{Key, Policy};
use crate::similar_names;
use describe::DescribedPacket;
pub use nearest::in_words;

/// Connections that the table has room for besides those that are copied in: one packet opens at most one.
const ROOM: u32 = 64;

/// A connection that a worker has, with that worker.
pub type HeldConnection = (Connection, usize);

/// Why there is no verdict; [`fmt::Display`] gives one line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ExplainError {
    /// What is asked makes no sense.
    Senseless(String),
    /// The frame is not written as it must be.
    Frame(String),
    /// No NIC has the name.
    NoNic {
        /// The name.
        asked: String,
        /// Some that are near it.
        near: Vec<String>,
    },
    /// The packet is another NIC's.
    OtherNic {
        /// The one that was asked about.
        asked: Key,
        /// Whose it is.
        told: String,
    },
}

impl fmt::Display for ExplainError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ExplainError::Senseless(what) => f.write_str(what),
            ExplainError::Frame(what) => write!(f, "frame: {what}"),
            ExplainError::NoNic { asked, near } => {
                write!(f, "no NIC {asked:?}; {}", similar_names::listed(near))
            }
            ExplainError::OtherNic { asked, told } => write!(f, "nic {asked}: {told}"),
        }
    }
}

impl std::error::Error for ExplainError {}

/// The frame in question.
struct SubjectFrame {
    bytes: Vec<u8>,
    /// Bytes it had on the wire, where a capture cut it.
    original: usize,
    side: Side,
    /// Its Ethernet addresses are made up.
    lacks_addresses: bool,
}

impl Frame for SubjectFrame {
    fn head(&self) -> &[u8] {
        &self.bytes
    }

    fn captured(&self) -> usize {
        self.bytes.len()
    }

    fn wire_len(&self) -> usize {
        self.original.max(self.bytes.len())
    }
}

/// A firewall of its own.
pub struct ScratchFirewall {
    firewall: Firewall,
    /// When the packet comes, by the workers' clock.
    at_ns: u64,
    /// Copies of these are in its table.
    held: Vec<HeldConnection>,
}

impl ScratchFirewall {
    /// With this configuration, and nothing in its table; `in_grace`: it is so soon after a start that segments in mid-stream may
    /// open connections. Takes memory of its own: nothing to be done under a lock.
    pub fn new(config: &Config, in_grace: bool) -> ScratchFirewall {
        ScratchFirewall::with(config, u64::from(in_grace), 0, Vec::new())
    }

    /// The same at a moment of an appliance that runs, with connections that its workers have.
    pub fn running(config: &Config, at_ns: u64, held: Vec<HeldConnection>) -> ScratchFirewall {
        ScratchFirewall::with(config, config.conntrack.pickup_grace.as_nanos() as u64, at_ns, held)
    }

    fn with(config: &Config, grace_end_ns: u64, at_ns: u64, held: Vec<HeldConnection>) -> ScratchFirewall {
        let shard = shard_config(config, 0, 1);
        let capacity = ROOM + held.len() as u32;
        let firewall = FirewallConfig {
            shard: ShardConfig { capacity, unconfirmed: capacity, ..shard },
            // One packet meets no bucket that anybody could aim at.
            secret: Secret::new([0, 0]),
            grace_end_ns,
        };
        let firewall = Firewall::new(
            &firewall,
            Arc::new(EngineCounters::new()),
            Arc::new(ConnectionCounts::of_one_worker()),
        );
        ScratchFirewall { firewall, at_ns, held }
    }

    /// The verdict under `snapshot`, which is `committer`'s, told by its names.
    pub fn explain(
        mut self,
        committer: &Committer,
        snapshot: &Snapshot,
        question: &Question,
    ) -> Result<Explanation, ExplainError> {
        let policy = committer.policy();
        let wanted = question.nic.as_deref().map(|name| find_nic(policy, name)).transpose()?;
        let subject = subject(question, policy, wanted.as_ref())?;
        let explanation = self.judge(committer, snapshot, subject);
        if let Some(wanted) = wanted {
            check_nic(&explanation, wanted, question.description.is_some())?;
        }
        Ok(explanation)
    }

    fn judge(
        &mut self,
        committer: &Committer,
        snapshot: &Snapshot,
        mut subject: SubjectFrame,
    ) -> Explanation {
        let side = subject.side;
        let now = self.firewall.now(self.at_ns);
        self.firewall.begin(snapshot);
        for (connection, _) in &self.held {
            // There is room for each of them.
            self.firewall.copy_in(connection, snapshot, now);
        }
        let mut pkt = self.firewall.read(&mut subject, side, snapshot.tunnels, now);
        if subject.lacks_addresses
            && let Some(mac) = owner::source_mac(snapshot, &pkt, |at| subject.bytes.get(at).copied())
            && let Some(source) = subject.bytes.get_mut(6..12)
        {
            source.copy_from_slice(&mac);
            pkt = self.firewall.read(&mut subject, side, snapshot.tunnels, now);
        }
        let connection = match resolve(snapshot, &pkt, &subject.bytes) {
            Resolution::Nic(nic) => self.connection(committer, snapshot, nic, &pkt, &subject.bytes),
            _ => None,
        };
        let mut batch = Batch::default();
        batch.push(subject, pkt);
        self.firewall.judge(snapshot, &mut batch);
        let (subject, pkt, verdict) = (&batch.frames[0], &batch.pkts[0], &batch.verdicts[0]);
        let staged = batch.staged.first().and_then(|(_, staged_verdict)| {
            let rule = committer.compiler().rule(staged_verdict.rule)?;
            Some(types::Staged::of(staged_verdict, rule))
        });

        let rules_refused = matches!(verdict.reason, Reason::NoRule | Reason::Denied);
        let nearest = match resolve(snapshot, pkt, &subject.bytes) {
            Resolution::Nic(nic) if rules_refused => {
                let query = Query {
                    direction: pkt.side.direction(),
                    v6: pkt.v6,
                    protocol: pkt.proto,
                    port: pkt.dport,
                    remote: pkt.remote(),
                };
                nearest::nearest(committer, snapshot, nic, &query)
            }
            _ => Vec::new(),
        };
        let policy = committer.policy();
        let nic = committer.nic_name(verdict.nic);
        let rule = verdict.rule.get().and_then(|rule| committer.compiler().rule(rule));
        Explanation {
            verdict: if verdict.passes() { "pass" } else { "drop" }.to_owned(),
            reason: verdict.reason.name().to_owned(),
            why: text::why(policy, pkt, verdict, nic.as_deref()),
            rule_text: rule.map(|rule| nearest::rule_text(policy, &rule.name)),
            rule: rule.map(|rule| rule.name.to_string()),
            rule_id: rule.map(|rule| rule.identity.to_string()),
            nearest,
            from: if side == Side::Inside { types::Side::Inside } else { types::Side::Outside },
            direction: nic.as_ref().map(|_| side.direction().name().to_owned()),
            nic: nic.map(|nic| nic.to_string()),
            packet: text::packet(pkt, subject.captured(), subject.wire_len()),
            observed: verdict.observed,
            staged,
            generation: snapshot.generation.0,
            connection,
        }
    }

    /// The connection that the packet is of, as it is before the packet.
    fn connection(
        &self,
        committer: &Committer,
        snapshot: &Snapshot,
        nic: &Binding,
        pkt: &PacketMeta,
        bytes: &[u8],
    ) -> Option<types::Connection> {
        let shard = self.firewall.shard();
        let flow = self.firewall.connection_of(pkt, nic, bytes)?;
        let (key, remote) = (shard.entry(flow).key(), shard.remote(flow));
        let mut held = self.held.iter();
        let (connection, worker) = held.find(|(c, _)| c.entry.has_key(&key) && c.remote == remote)?;
        let is_live = is_live(connection, snapshot)?;
        let told = describe(committer, snapshot, connection, pkt.now.ceil, *worker)?;
        Some(types::Connection { tombstone: !is_live, ..told })
    }
}

fn find_nic(policy: &Policy, name: &str) -> Result<Key, ExplainError> {
    let key = Key::parse(name).unwrap_or_else(|| Key::in_default(name));
    if policy.nics.contains_key(&key) {
        return Ok(key);
    }
    Err(ExplainError::NoNic { asked: name.to_owned(), near: similar_names::nearest_of(&policy.nics, &key) })
}

/// The frame that is asked about.
fn subject(question: &Question, policy: &Policy, nic: Option<&Key>) -> Result<SubjectFrame, ExplainError> {
    let senseless = |what: &str| Err(ExplainError::Senseless(what.to_owned()));
    match (question, nic) {
        (Question { without_addresses: Some(_), frame: None, .. }, _) => {
            senseless("without_addresses: allowed beside a frame only")
        }
        (Question { description: Some(text), frame: None, from: None, length: None, .. }, Some(key)) => {
            described(&DescribedPacket::read(text)?, policy, key)
        }
        (Question { description: Some(_), frame: None, from: None, length: None, .. }, None) => {
            senseless("nic: missing; allowed beside a description: the name of a NIC")
        }
        (Question { description: None, frame: Some(frame), from: Some(side), .. }, _) => {
            let bytes = hex(frame)?;
            let original = question.length.map_or(bytes.len(), |length| length as usize);
            let side = if *side == types::Side::Inside { Side::Inside } else { Side::Outside };
            let lacks_addresses = question.without_addresses == Some(true);
            Ok(SubjectFrame { bytes, original, side, lacks_addresses })
        }
        (Question { description: None, frame: Some(_), from: None, .. }, _) => {
            senseless("from: missing; allowed beside a frame: inside, outside")
        }
        _ => senseless("allowed: a description with a nic, or a frame with from, and perhaps length and nic"),
    }
}

fn described(described: &DescribedPacket, policy: &Policy, key: &Key) -> Result<SubjectFrame, ExplainError> {
    let nic = &policy.nics[key];
    let addresses: Vec<_> = nic.all_addresses().map(|address| address.to_string()).collect();
    if !nic.all_addresses().any(|address| address == described.local()) {
        return Err(ExplainError::Senseless(format!(
            "{} is no address of {key}; it has: {}",
            described.local(),
            addresses.join(", ")
        )));
    }
    let bytes = described.frame(nic, policy.vpcs[&nic.vpc].segment);
    Ok(SubjectFrame { original: bytes.len(), bytes, side: described.side(), lacks_addresses: false })
}

/// The bytes of an Ethernet frame written as pairs of hexadecimal digits.
fn hex(text: &str) -> Result<Vec<u8>, ExplainError> {
    let bad = |what: String| {
        ExplainError::Frame(format!(
            "{what}; allowed: pairs of hexadecimal digits, with whitespace and colons anywhere"
        ))
    };
    let mut digits = Vec::with_capacity(text.len());
    for (at, c) in text.chars().enumerate() {
        match c.to_digit(16) {
            Some(digit) => digits.push(digit as u8),
            None if c == ':' || c.is_whitespace() => {}
            None => return Err(bad(format!("{c:?} at character {}", at + 1))),
        }
    }
    if digits.is_empty() {
        return Err(bad("no digits".to_owned()));
    }
    let (pairs, rest) = digits.as_chunks::<2>();
    if !rest.is_empty() {
        return Err(bad(format!("{} digits, the last without its pair", digits.len())));
    }
    Ok(pairs.iter().map(|[high, low]| high << 4 | low).collect())
}

/// Refuses to explain one NIC's verdict as that of another.
fn check_nic(explanation: &Explanation, wanted: Key, is_described: bool) -> Result<(), ExplainError> {
    let told = match &explanation.nic {
        Some(found) if *found == wanted.to_string() => return Ok(()),
        None if is_described => return Ok(()),
        Some(found) => format!("the packet is judged as {found}'s, not {wanted}'s"),
        None => {
            format!("the packet is judged as no NIC's: {}: {}", explanation.reason, explanation.why)
        }
    };
    Err(ExplainError::OtherNic { asked: wanted, told })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hexadecimal_digits_may_stand_apart_but_not_alone() {
        assert_eq!(hex("02:00 0a\n0B").unwrap(), [2, 0, 10, 11]);
        for (bad, told) in [
            ("", "no digits"),
            (" : ", "no digits"),
            ("020", "3 digits, the last without its pair"),
            ("02 0g", "'g' at character 5"),
            ("0x02", "'x' at character 2"),
        ] {
            let refusal = hex(bad).unwrap_err().to_string();
            assert!(refusal.contains(told) && refusal.contains("allowed: "), "{bad:?}: {refusal}");
        }
    }
}
