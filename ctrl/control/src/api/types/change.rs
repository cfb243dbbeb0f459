//! One line of what a change of policy changes.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// One thing that a change adds, changes or removes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ChangeLine {
    /// Of what.
    pub kind: ObjectKind,
    /// Its name; of a rule, its group's.
    pub object: String,
    /// What becomes of it.
    pub change: LineChange,
    /// Of a rule, `group#position`: where it will stand, or stood if it is removed.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub rule: Option<String>,
    /// Of a rule, what it is told by wherever it stands.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub rule_id: Option<String>,
    /// What it says, or what differs of it.
    pub text: String,
}

/// A kind of object, or a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ObjectKind {
    /// A VPC.
    Vpc,
    /// An address group.
    AddressGroup,
    /// A security group.
    Group,
    /// A rule of a security group.
    Rule,
    /// A NIC.
    Nic,
}

/// What becomes of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum LineChange {
    /// It is new.
    Added,
    /// It is there before and after, and differs.
    Changed,
    /// It is gone.
    Removed,
}
