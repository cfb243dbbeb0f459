//! What could be tidied up in the rules.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Suggestions about rules, with what they rest on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Advice {
    /// The generation that it is about.
    pub generation: u32,
    /// When: seconds since 1970.
    pub at: f64,
    /// What was seen: what is not in it may be all the same.
    pub seen: Seen,
    /// Rules and history had to be watched since then, or for longer, for anything to be said of what was not seen.
    pub watched_since: f64,
    /// Rules that did nothing and are not watched for that long.
    pub too_young: usize,
    /// Rules that may be too broad, if traffic had been seen for that long.
    pub too_briefly_seen: usize,
    /// By group and position, those that stand on no traffic first.
    pub suggestions: Vec<Suggestion>,
    /// There may be more: as many were found as were asked for.
    pub more: bool,
    /// All safe ones of these suggestions together.
    pub together: Replayed,
    /// The whole policy as these would leave it, as a document; null unless it is asked for.
    pub document: Option<String>,
}

/// What was seen of traffic.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Seen {
    /// The history has every decision since then, but for those that were lost.
    pub since: f64,
    /// Decisions in the history.
    pub kept: usize,
    /// How many it may hold: older ones are gone.
    pub most: usize,
    /// Decisions that were lost on their way to it, since the start.
    pub lost: u64,
    /// When that was last.
    pub lost_at: Option<f64>,
    /// Decisions of the history that opened a connection of a NIC that is there.
    pub opened: u64,
    /// Decisions of the history by which the rules refused one.
    pub refused: u64,
    /// Live connections.
    pub live: u64,
    /// Of all these, those that there was no room to look at: nothing is safe then.
    pub left_out: u64,
}

/// What is wrong with a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Advised {
    /// Other rules decide every packet that it matches before it does, for each NIC that has it.
    Shadowed,
    /// Without it, other rules decide the same about every packet that it matches, for each NIC that has it.
    Redundant,
    /// It lets open more than what was seen.
    OverBroad,
    /// It has decided nothing.
    NeverHit,
    /// Nobody is in its group, and no rule names that.
    NoMembers,
}

/// One suggestion.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Suggestion {
    /// What is wrong.
    pub kind: Advised,
    /// The group.
    pub group: String,
    /// The rule, group#position; null where the whole group is meant.
    pub rule: Option<String>,
    /// Its identity.
    pub rule_id: Option<String>,
    /// What it says.
    pub rule_text: Option<String>,
    /// Why, in a sentence.
    pub why: String,
    /// Since when the rule is counted: seconds since 1970.
    pub since: Option<u64>,
    /// Connections that it has let open since then, or would have, if it is staged.
    pub connections: u64,
    /// Packets that it has denied since then, or would have.
    pub denied: u64,
    /// The rules that decide in its place.
    pub by: Vec<Decider>,
    /// What would stand in its place.
    pub narrow: Vec<String>,
    /// What the change would have done to what was seen.
    pub replayed: Replayed,
    /// It would have changed no verdict that was seen.
    pub safe: bool,
    /// It denies: without it more may pass than was seen.
    pub loosens: bool,
    /// NICs whose inbound connections the change flushes, as any change of their rules does.
    pub flushes: usize,
    /// The command that makes the change.
    pub command: String,
    /// The same as a document for `PATCH /v1/policy`; null for a group that goes.
    #[schema(value_type = Option<Object>)]
    pub document: Option<serde_json::Value>,
    /// Commands that stage it first: as long as what they stage would drop nothing, the change denies nobody. None where it needs no
    /// trial, or where there is no room for one.
    pub trial: Vec<String>,
}

/// A rule that decides in another's place.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
pub struct Decider {
    /// Group#position.
    pub rule: String,
    /// Its identity.
    pub rule_id: String,
}

/// A change judged by what was seen of the NICs that it is about.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Replayed {
    /// Connections of the history that opened and would today.
    pub opened: u64,
    /// Live ones.
    pub live: u64,
    /// Of the opened and the live, those that it would deny.
    pub would_deny: u64,
    /// Refused ones of the history that it would let open.
    pub would_pass: u64,
}
