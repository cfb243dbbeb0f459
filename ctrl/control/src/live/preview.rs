//! What a change would do to the connections of this moment, one by one: asked of the workers, decided by the very snapshot
//! that it would publish.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::connections::{describe, is_live};
use super::locking::block_in_place;
use super::{Admitted, ChangeRefused, Live};
use crate::api::types::{self, Affected};
use crate::model::Identity;

/// Connections that a preview names; it counts all.
const NAMED: usize = 1000;

/// What would become of the connections.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Preview {
    /// Live ones that would not be.
    pub disconnected: u64,
    /// Ones that are not live and would be: a rollback brings them back.
    pub revived: u64,
    /// The disconnected by NIC.
    pub by_nic: BTreeMap<String, u64>,
    /// The disconnected by the rule that let them in.
    pub by_rule: BTreeMap<Arc<str>, u64>,
    /// The same by the rules' identities.
    pub by_rule_id: BTreeMap<Identity, u64>,
    /// The first of the disconnected.
    pub connections: Vec<types::Connection>,
}

impl Live {
    /// Looks at every connection under the present snapshot and under the one that the change would make.
    pub(super) async fn preview(&self, admitted: &Admitted, now_ns: u64) -> Result<Preview, ChangeRefused> {
        // A copy of the control side makes the change for itself: what it would publish is what a commit publishes.
        let (then, epoch) = block_in_place(|| {
            let (mut committer, epoch) = {
                let inner = self.inner();
                (inner.committer.clone(), inner.publisher.epoch())
            };
            (committer.carry_out(admitted.prepared.clone(), now_ns).snapshot, epoch)
        });
        let mut preview = Preview::default();
        self.scan(|inner, connections, now, worker| {
            debug_assert!(inner.publisher.epoch() == epoch, "changes take turns");
            let present = inner.publisher.current();
            for connection in connections {
                let was = is_live(connection, present) == Some(true);
                let is = is_live(connection, &then) == Some(true);
                preview.revived += u64::from(!was && is);
                if !was || is {
                    continue;
                }
                preview.disconnected += 1;
                let binding = present.binding(connection.entry.addr);
                if let Some(nic) = inner.committer.nic_name(binding.nic) {
                    *preview.by_nic.entry(nic.to_string()).or_default() += 1;
                }
                let rule = connection.entry.rule().get();
                if let Some(rule) = rule.and_then(|rule| inner.committer.compiler().rule(rule)) {
                    *preview.by_rule.entry(rule.name.clone()).or_default() += 1;
                    *preview.by_rule_id.entry(rule.identity).or_default() += 1;
                }
                if preview.connections.len() < NAMED {
                    preview.connections.extend(describe(&inner.committer, present, connection, now, worker));
                }
            }
        })
        .await?;
        Ok(preview)
    }
}

impl From<Preview> for Affected {
    fn from(preview: Preview) -> Affected {
        Affected {
            revived: preview.revived,
            by_nic: preview.by_nic,
            by_rule: preview.by_rule.into_iter().map(|(rule, n)| (rule.to_string(), n)).collect(),
            by_rule_id: preview.by_rule_id.into_iter().map(|(rule, n)| (rule.to_string(), n)).collect(),
            connections: preview.connections,
        }
    }
}
