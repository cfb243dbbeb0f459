//! What rules did.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// One of `show rules`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RuleFigures {
    /// Its name: group#position.
    pub rule: String,
    /// Its identity, which follows from what it matches and does.
    pub rule_id: String,
    /// Its group.
    pub group: String,
    /// What it says.
    pub rule_text: String,
    /// It is judged beside the others and told, and not enforced.
    pub staged: bool,
    /// NICs that are in its group.
    pub nics: usize,
    /// Since when it is counted: seconds since 1970; null where no NIC has had it yet.
    pub since: Option<u64>,
    /// Connections that it has let open.
    pub connections: u64,
    /// Packets that it has denied, or would have where drops are only observed.
    pub denied: u64,
    /// Of a staged rule, what it would have done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(required = false)]
    pub would: Option<Would>,
}

/// What a staged rule would have done, if it had been enforced: packets that opened a connection or that the rules refused.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Would {
    /// It would have let them open a connection.
    pub pass: u64,
    /// Of those, the ones that were refused.
    pub pass_dropped: u64,
    /// It would have denied them.
    pub drop: u64,
    /// Of those, the ones that opened a connection.
    pub drop_passed: u64,
}
