//! What is told of single packets.

use engine::verdict::StagedVerdict;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Side;
use crate::compile::NamedRule;

/// One packet's verdict as it happened: `replay`'s keys, and more.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Told {
    /// Where it came from.
    pub from: Side,
    /// Its place among the packets of its worker, or of its capture.
    pub index: u64,
    /// When: seconds since 1970.
    pub time: f64,
    /// Whose it was; null where nobody's.
    pub nic: Option<String>,
    /// `inbound` or `outbound`, of a NIC.
    pub direction: Option<String>,
    /// `pass` or `drop`.
    pub verdict: String,
    /// The one reason.
    pub reason: String,
    /// The rule that decided, where it stood then; null where none did.
    pub rule: Option<String>,
    /// The same by its identity.
    pub rule_id: Option<String>,
    /// The worker that judged it.
    pub worker: usize,
    /// The generation that it was judged by.
    pub generation: u32,
    /// Bytes of the frame.
    pub bytes: u32,
    /// What the packet was, as far as it could be read.
    pub packet: String,
    /// The reason in words.
    pub why: String,
    /// Of an IP packet, its protocol by name or number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(required = false)]
    pub protocol: Option<String>,
    /// Its address on the instances' side.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(required = false)]
    pub local: Option<String>,
    /// Its port there.
    #[serde(default)]
    #[schema(required = false)]
    pub local_port: Option<u16>,
    /// Its address on the other side.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(required = false)]
    pub remote: Option<String>,
    /// Its port there.
    #[serde(default)]
    #[schema(required = false)]
    pub remote_port: Option<u16>,
    /// It would drop, and observe mode let it pass.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub observed: bool,
    /// What a staged rule would decide; left out where none would.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(required = false)]
    pub staged: Option<Staged>,
    /// Of a packet of a disconnected connection.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(required = false)]
    pub disconnected: Option<Disconnected>,
    /// In the answer of `why`: what the rule said then; null where that is not known any more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(required = false)]
    pub rule_text: Option<String>,
}

/// What a staged rule would decide about a packet, if it were enforced.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Staged {
    /// The rule: group#position.
    pub rule: String,
    /// The same by its identity.
    pub rule_id: String,
    /// `pass` or `drop`.
    pub verdict: String,
    /// The packet's verdict is another.
    pub differs: bool,
}

impl Staged {
    /// What was found of a packet, by the rule's name.
    pub fn of(staged_verdict: &StagedVerdict, rule: &NamedRule) -> Staged {
        Staged {
            rule: rule.name.to_string(),
            rule_id: rule.identity.to_string(),
            verdict: if staged_verdict.allows { "pass" } else { "drop" }.to_owned(),
            differs: staged_verdict.differs,
        }
    }

    /// The same as one line.
    pub fn in_words(&self) -> String {
        let Staged { rule, rule_id, verdict, differs } = self;
        let differs = if *differs { "another verdict" } else { "the same verdict" };
        format!("{verdict} by {rule} ({rule_id}) if it were enforced: {differs}")
    }
}

/// How a connection was disconnected.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Disconnected {
    /// The generation that did it; null where an operator did.
    pub generation: Option<u32>,
    /// Who made that.
    pub by: String,
    /// Seconds until its ends may open another.
    pub expires_in: f64,
}

/// `why`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Whys {
    /// How far back the history goes: seconds since 1970. But for what was lost, no decision since then is missing.
    pub since: f64,
    /// Decisions in it, about whatever packets.
    pub kept: usize,
    /// How many there may be.
    pub most: usize,
    /// Decisions that were lost on their way to it, since the start.
    pub lost: u64,
    /// When one was lost last.
    pub lost_at: Option<f64>,
    /// Decisions about the packet that are older than those listed.
    pub left_out: usize,
    /// Those about the packet, the last one last.
    pub decisions: Vec<Told>,
}
