//! What the API answers, as JSON: the shapes of the interfaces page with more keys beside them.

mod advice;
mod change;
mod counters;
mod now;
mod ports;
mod restart;
mod rules;
mod told;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

pub use advice::{Advice, Advised, Decider, Replayed, Seen, Suggestion};
pub use change::{ChangeLine, LineChange, ObjectKind};
pub use counters::{Bytes, Counters, NicCounters, Packets, Tallied, WorkerCounters};
pub use now::{AwaitedConfirmation, May, Now, NowEvent, NowWorker, Whoami};
pub use ports::{LinkState, PortCounters};
pub use restart::{Began, Restart};
pub use rules::{RuleFigures, Would};
pub use told::{Disconnected, Staged, Told, Whys};

/// What became of a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// Every worker judges by it.
    Acknowledged,
    /// It is published, and some worker did not answer in time.
    Pending,
    /// It is in force and rolls back by itself unless it is confirmed.
    Unconfirmed,
    /// Nothing was applied, as asked.
    DryRun,
    /// There was nothing to change.
    Unchanged,
}

/// The receipt of a change. Names are those of objects, `project/name` outside the project `default`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Receipt {
    /// What became of it.
    pub state: State,
    /// The generation that it made; the present one where it made none.
    pub generation: u32,
    /// When: seconds since 1970.
    pub at: f64,
    /// Who asked for it: a user, a token's name, a file.
    pub who: String,
    /// By which way: `file`, `api`, or `timer` for a confirmation that did not come.
    pub origin: String,
    /// Objects that are new.
    pub added: Vec<String>,
    /// Objects there before and after that differ.
    pub changed: Vec<String>,
    /// Objects that are gone.
    pub removed: Vec<String>,
    /// The same line by line, down to the rules; the first thousand.
    #[serde(default)]
    pub changes: Vec<ChangeLine>,
    /// How many lines there are beyond these.
    #[serde(default)]
    pub changes_left_out: usize,
    /// NICs whose inbound connections it disconnects.
    pub flushed: Vec<String>,
    /// NICs whose inbound connections are judged again.
    pub rejudged: Vec<String>,
    /// NICs that end with it, and all of their connections.
    pub ended: Vec<String>,
    /// Live connections that it disconnects. Where `affected` stands beside, all of them, counted one by one; else the inbound
    /// ones of flushed and ended NICs, by the NICs' counters, and those that re-judging disconnects follow in the history.
    pub disconnected: u64,
    /// Microseconds from the validated document to the publication; null if nothing was published.
    pub publish_us: Option<u64>,
    /// Microseconds from the publication until the last worker judged by it; null if nothing was published, or not all have
    /// answered.
    pub acknowledged_us: Option<u64>,
    /// The same by worker.
    pub workers: Vec<Acknowledgement>,
    /// Workers that did not answer in time.
    pub pending: Vec<usize>,
    /// What the operator should know beside.
    pub warnings: Vec<String>,
    /// Of a dry run, or where a limit of disconnected connections was given: which connections these are.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub affected: Option<Affected>,
}

/// The connections that a change would disconnect, as they were when the workers were asked.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Affected {
    /// Disconnected ones that would be live again: by a rollback.
    pub revived: u64,
    /// How many of which NIC would be disconnected.
    pub by_nic: BTreeMap<String, u64>,
    /// How many that which rule let in.
    pub by_rule: BTreeMap<String, u64>,
    /// The same by the rules' identities.
    pub by_rule_id: BTreeMap<String, u64>,
    /// The first thousand of them.
    pub connections: Vec<Connection>,
}

/// When a worker began to judge by a change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Acknowledgement {
    /// Which worker.
    pub id: usize,
    /// Microseconds after the publication; null if it has not yet.
    pub acknowledged_us: Option<u64>,
}

/// What became of a confirmation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Confirmation {
    /// It is awaited.
    Awaited,
    /// It came.
    Confirmed,
    /// It did not come in time, or somebody went back: the change is taken back.
    TakenBack,
}

/// A generation in `history`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Record {
    /// Its number.
    pub generation: u32,
    /// When it was published: seconds since 1970.
    pub at: f64,
    /// Who asked for it.
    pub who: String,
    /// By which way: `file`, `api`, `timer`, or `start`.
    pub origin: String,
    /// The generation that it went back to, if it is a rollback.
    pub back_to: Option<u32>,
    /// `pending` or `acknowledged`.
    pub state: State,
    /// What became of its confirmation, where it wanted one.
    pub confirmation: Option<Confirmation>,
    /// Objects that are new.
    pub added: Vec<String>,
    /// Objects that differ.
    pub changed: Vec<String>,
    /// Objects that are gone.
    pub removed: Vec<String>,
    /// NICs flushed.
    pub flushed: usize,
    /// NICs whose inbound connections were judged again.
    pub rejudged: usize,
    /// NICs that ended.
    pub ended: usize,
    /// Live inbound connections that it disconnected at once.
    pub disconnected: u64,
    /// Connections that were judged again and refused while it was the present generation.
    pub disconnected_by_rejudging: u64,
    /// Microseconds until it was published.
    pub publish_us: Option<u64>,
    /// Microseconds from then until every worker judged by it.
    pub acknowledged_us: Option<u64>,
}

/// A refusal, whatever was asked.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Refusal {
    /// One line; of a bad document `file:line:column: what was found and what is allowed`.
    pub error: String,
    /// What would have happened, where a guard refused it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub preview: Option<Box<Receipt>>,
}

/// One of `show connections`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Connection {
    /// Whose it is.
    pub nic: String,
    /// `inbound` or `outbound`: the direction of the packet that opened it.
    pub opened: String,
    /// By name, or by number where it has no name.
    pub protocol: String,
    /// The NIC's address.
    pub local: String,
    /// The NIC's port; null for protocols without.
    pub local_port: Option<u16>,
    /// The other side's address.
    pub remote: String,
    /// The other side's port.
    pub remote_port: Option<u16>,
    /// Its state.
    pub state: String,
    /// Disconnected by a change: its packets drop. What judging now would give, where that is due.
    pub tombstone: bool,
    /// Seconds until it is gone if no packet comes.
    pub expires_in: f64,
    /// The rule that let it in; null if nothing is known of one.
    pub rule: Option<String>,
    /// The same by its identity, wherever it stands now.
    pub rule_id: Option<String>,
    /// Who has it.
    pub worker: usize,
    /// Worker-place: where it lies as long as it is there. A page of a listing goes on behind the last of the page before.
    #[serde(default)]
    pub id: String,
    /// ICMP: what request and reply have in common.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub icmp: Option<Icmp>,
    /// The generation at which it was last found live, or at which re-judging ended it.
    pub generation: u32,
    /// Packets since it opened, where they are counted (`[conntrack] count`, or any flow log).
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub packets: Option<Carried>,
    /// Bytes of frames likewise, without the check sequence (FCS).
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub bytes: Option<Carried>,
}

/// What a connection has carried either way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Carried {
    /// Towards the NIC.
    pub inbound: u64,
    /// From it.
    pub outbound: u64,
}

impl Carried {
    /// As the data path has them: from inside, then from outside.
    pub fn of([outbound, inbound]: [u64; 2]) -> Carried {
        Carried { inbound, outbound }
    }
}

/// How many connections fit a filter, or were disconnected.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Count {
    /// That many.
    pub count: u64,
}

/// How the appliance is, all in all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// Nothing is wrong.
    Ok,
    /// Packets are judged, and something else is not as it should be.
    Degraded,
    /// Packets are not judged, or nobody can change how.
    Failed,
}

/// Something that is wrong, or was within the last hour.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Problem {
    /// What it is about: `port eth0`, `store`, `worker 1`.
    pub what: String,
    /// When it was noticed: seconds since 1970.
    pub since: u64,
    /// What is wrong.
    pub problem: String,
    /// What mends it.
    pub cure: String,
    /// When it was over: seconds since 1970.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    #[schema(required = false)]
    pub ended: Option<u64>,
}

/// How the appliance is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Health {
    /// The worst of what lasts.
    pub status: Status,
    /// What is wrong, or was within the last hour.
    pub problems: Vec<Problem>,
    /// The present generation.
    pub generation: u32,
    /// Workers that do not judge by it yet.
    pub lagging: Vec<usize>,
}

/// What tells an ICMP connection from others between the same addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Icmp {
    /// The identifier.
    pub identifier: u16,
    /// Type of the request that opened it.
    #[serde(rename = "type")]
    pub kind: u8,
    /// Code of that request.
    pub code: u8,
}

/// One of `show nics`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Nic {
    /// Its name.
    pub nic: String,
    /// Its VPC.
    pub vpc: String,
    /// Its MAC.
    pub mac: Option<String>,
    /// Its fixed addresses.
    pub addresses: Vec<String>,
    /// Its virtual addresses.
    pub allowed_addresses: Vec<String>,
    /// Its groups.
    pub security_groups: Vec<String>,
    /// `enforce` or `observe`.
    pub mode: String,
    /// Connections that it has, tombstones included.
    pub connections: u32,
    /// Connections that it may have.
    pub max_connections: Option<u32>,
    /// Connections that it may always have, however full the table is.
    pub fair_share: u32,
    /// Whether it has more: at a full table others may take from those.
    pub above_share: bool,
    /// Confirmed connections that have given way to those of NICs below their share.
    pub displaced: u64,
    /// Inbound connections that the next flush would disconnect.
    pub live_inbound: u64,
    /// The generation of its last flush, or of its creation.
    pub flushed_at: u32,
    /// Its packets towards the instance, from the start or its creation on.
    pub inbound: Packets,
    /// The same in bytes.
    pub inbound_bytes: Bytes,
    /// Its packets from the instance.
    pub outbound: Packets,
    /// The same in bytes.
    pub outbound_bytes: Bytes,
}

/// One of `show groups`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Group {
    /// Its name.
    pub group: String,
    /// What it is for.
    pub description: String,
    /// Whether it is there without any document's defining it.
    pub implied: bool,
    /// Whether all of its rules are staged.
    #[serde(default)]
    pub staged: bool,
    /// Its rules, inbound ones.
    pub inbound_rules: usize,
    /// Its rules, outbound ones.
    pub outbound_rules: usize,
    /// Its rules, in their order.
    pub rules: Vec<GroupRule>,
    /// NICs that are in it.
    pub nics: Vec<String>,
}

/// A rule of a group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct GroupRule {
    /// Its name: group#position.
    pub rule: String,
    /// Its identity, which follows from what it matches and does.
    pub rule_id: String,
    /// What it says.
    pub rule_text: String,
    /// It is judged beside the others and told, and not enforced.
    #[serde(default)]
    pub staged: bool,
}

/// One of `show workers`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Worker {
    /// Which.
    pub id: usize,
    /// Its core.
    pub core: usize,
    /// The NUMA node of its core; null where the machine has none.
    pub numa_node: Option<u32>,
    /// Its queue pairs: one of each port.
    pub queues: u32,
    /// Whether it has acknowledged the present generation.
    pub acknowledged: bool,
    /// Entries of its table: connections, tombstones, what expired and was not found yet. Null if it does not answer.
    pub connections: Option<u32>,
    /// Entries that fit.
    pub capacity: u32,
    /// Turns of its loop since the start.
    pub polls: u64,
    /// Of them, those that found frames.
    pub busy_polls: u64,
    /// Times that it slept between two turns, where `[workers] idle` lets it.
    pub sleeps: u64,
    /// Frames that its queues of the ports brought.
    pub received: u64,
    /// Of them, those that went to the workers which own their connections.
    pub handed_over: u64,
    /// Frames that came from other workers.
    pub taken_over: u64,
    /// Frames that its queues brought, in percent of an equal part for each worker: how evenly the devices' RSS spreads them.
    pub received_percent: u64,
    /// What is uneven or far: a queue that brings most, frames that belong to others, a device at another NUMA node.
    pub notes: Vec<String>,
    /// Packets that it has judged, in percent of an equal part for each worker: 100 where all are loaded alike.
    pub load_percent: u64,
    /// The share of its time since the start that went into turns with frames, in percent.
    pub busy_percent: u64,
    /// Cycles of the time-stamp counter that went into such turns.
    pub busy_cycles: u64,
    /// Cycles of all others, with what lay between them.
    pub idle_cycles: u64,
    /// Bursts that its queues brought, by size: up to 1, 2, 4, … frames, each without those before it.
    pub bursts: Vec<u64>,
    /// Frames that a burst had on average, in hundredths.
    pub burst_hundredths: u64,
    /// Its packets.
    #[serde(flatten)]
    pub packets: Packets,
}

/// `show snapshot`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Snapshot {
    /// Its generation.
    pub generation: u32,
    /// Objects in it.
    pub vpcs: usize,
    /// NICs in it.
    pub nics: usize,
    /// Addresses of NICs.
    pub addresses: usize,
    /// Address groups in it.
    pub address_groups: usize,
    /// Security groups in it.
    pub security_groups: usize,
    /// Rules of all groups.
    pub rules: usize,
    /// Distinct lists of groups, each compiled once.
    pub policies: usize,
    /// The last generation that ended or disconnected connections.
    pub last_ending: u32,
    /// Whether every worker has acknowledged it.
    pub acknowledged: bool,
    /// Older snapshots that are not freed yet.
    pub in_limbo: usize,
    /// Settings that let pass what the defaults would not (semantics 2.8).
    pub settings: Vec<String>,
}

/// The side of a wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Side {
    /// Of the instances.
    Inside,
    /// Of the network.
    Outside,
}

/// A packet that `explain` is asked about: a description with a NIC, or a frame with the side that it comes from.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Question {
    /// The judged NIC: its name, or project/name. A frame finds its own; with this, another one is refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(required = false)]
    pub nic: Option<String>,
    /// An opening packet in words, such as `inbound tcp 198.51.100.9:40000 > 10.5.6.7:22`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(required = false)]
    pub description: Option<String>,
    /// A whole Ethernet frame in hexadecimal digits, with whitespace and colons anywhere.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(required = false)]
    pub frame: Option<String>,
    /// Where the frame comes from.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(required = false)]
    pub from: Option<Side>,
    /// Bytes that the frame had on the wire, where a capture cut it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(required = false, maximum = 4_294_967_295_u32)]
    pub length: Option<u32>,
    /// The frame's Ethernet addresses are made up, as for a capture that has none: no MAC is checked.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(required = false)]
    pub without_addresses: Option<bool>,
    /// As the first packet of a connection, whatever connections there are.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    #[schema(required = false)]
    pub fresh: bool,
}

/// `explain`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Explanation {
    /// `pass` or `drop`.
    pub verdict: String,
    /// The one reason.
    pub reason: String,
    /// The same in words.
    pub why: String,
    /// The rule that decides: group#position; null where none does.
    pub rule: Option<String>,
    /// The same by its identity.
    pub rule_id: Option<String>,
    /// What that rule says.
    pub rule_text: Option<String>,
    /// For a drop by the rules, those that came nearest to letting it pass.
    pub nearest: Vec<Near>,
    /// Where the packet comes from.
    pub from: Side,
    /// Whose it is; null where nobody's.
    pub nic: Option<String>,
    /// `inbound` or `outbound`, of a NIC.
    pub direction: Option<String>,
    /// What the packet is, as far as it could be read.
    pub packet: String,
    /// It would drop, and observe mode lets it pass.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub observed: bool,
    /// What a staged rule would decide; left out where none would.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(required = false)]
    pub staged: Option<Staged>,
    /// The generation that it was judged by.
    pub generation: u32,
    /// The connection or tombstone that it is of, as it was before the packet; left out where there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(required = false)]
    pub connection: Option<Connection>,
}

/// A rule that allows, but not this packet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Near {
    /// Its name: group#position.
    pub rule: String,
    /// Its identity.
    pub rule_id: String,
    /// What it says.
    pub rule_text: String,
    /// Fields that do not fit.
    pub mismatch: Vec<String>,
    /// The same, with what rule and packet have there.
    pub found: Vec<Mismatch>,
}

/// A field that does not fit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Mismatch {
    /// Its name in documents.
    pub field: String,
    /// What the rule has there.
    pub rule: String,
    /// What the packet has.
    pub packet: String,
}
