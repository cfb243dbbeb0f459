//! What a change needs before anything is written: a plan, and places for all that is new. Whatever can be refused is refused
//! here; what comes later changes a copy, the disk, and then what is in force, which cannot fail.

use super::{ChangeRefused, Inner, Target};
use crate::commit::{NoRollback, Prepared};
use crate::document::Parsed;
use crate::model::Policy;
use engine::Generation;

/// NICs of which fewer are few: where there are no more, each is a large share.
const FEW_NICS: u64 = 5;
/// The same of connections.
const FEW_CONNECTIONS: u64 = 1000;

impl Inner {
    /// Works a change out, and says what of it is likely a mistake.
    pub(super) fn prepare(
        &mut self,
        target: Target,
        allow_empty: bool,
        now_ns: u64,
    ) -> Result<(Prepared, Vec<String>), ChangeRefused> {
        self.committer.recycle(now_ns);
        self.recycle_idle(false);
        let there = self.committer.policy().nics.len();
        let Parsed { policy, warnings, .. } = match target {
            Target::Generation(to) => {
                let to = Generation(to);
                let mut prepared = self.committer.prepare_rollback(to, now_ns);
                if matches!(prepared, Err(NoRollback::Exhausted(_))) {
                    self.recycle_idle(true);
                    prepared = self.committer.prepare_rollback(to, now_ns);
                }
                return prepared.map(|prepared| (prepared, Vec::new())).map_err(|error| match error {
                    NoRollback::NoSuchGeneration(error) => ChangeRefused::NoGeneration(error),
                    NoRollback::Exhausted(error) => ChangeRefused::Exhausted(error),
                });
            }
            Target::Edited(edit) => edit(self.committer.policy())?,
            Target::Document(Parsed { empty: true, .. }) if !allow_empty => return Err(ChangeRefused::Empty),
            Target::Document(Parsed { policy, .. })
                if policy.nics.is_empty() && there > 0 && !allow_empty =>
            {
                return Err(ChangeRefused::NoNics(there));
            }
            Target::Document(parsed) => parsed,
        };
        let first = self.committer.prepare(policy.clone());
        let prepared = first.or_else(|_| {
            self.recycle_idle(true);
            self.committer.prepare(policy)
        });
        let warnings = warnings.iter().map(ToString::to_string).collect();
        Ok((prepared.map_err(ChangeRefused::Exhausted)?, warnings))
    }

    /// The guard against files that were cut short.
    pub(super) fn refuse_large_removal(
        &self,
        prepared: &Prepared,
        share: Option<f64>,
    ) -> Result<(), ChangeRefused> {
        let Some(share) = share else { return Ok(()) };
        let nics = self.committer.policy().nics.len() as u64;
        let gone = prepared.plan.ended.iter().filter(|key| !prepared.policy().nics.contains_key(*key));
        let (mut removed, mut connections) = (0, 0);
        let held =
            |key| self.committer.nic_slot(key).map_or(0, |slot| u64::from(self.connection_counts.get(slot)));
        for key in gone {
            removed += 1;
            connections += held(key);
        }
        if let Some(refused) = takes_away(removed, nics, share) {
            return Err(refused);
        }
        let there: u64 = match connections >= FEW_CONNECTIONS {
            true => self.committer.policy().nics.keys().map(held).sum(),
            false => return Ok(()),
        };
        if connections as f64 > share * there as f64 {
            let what = "connections, with their NICs";
            return Err(ChangeRefused::RemovesTooMuch { what, removed: connections, there, share });
        }
        Ok(())
    }

    /// Gives back places of NICs that are gone and have no connections left, once all workers know that they are gone.
    fn recycle_idle(&mut self, all: bool) {
        if self.publisher.all_acknowledged(self.publisher.epoch()) {
            let connection_counts = &self.connection_counts;
            self.committer.recycle_idle(all, |nic| connection_counts.get(nic) == 0);
        }
    }
}

/// The guards that a policy file meets at a start, where no connections are counted yet: as one that is read again, it may not
/// take away all NICs or too large a share of them. There is nothing to compare with where nothing was stored.
pub(super) fn refuse_to_empty(stored: &Policy, file: &Policy, share: f64) -> Option<ChangeRefused> {
    let there = stored.nics.len();
    if file.nics.is_empty() && there > 0 {
        return Some(ChangeRefused::NoNics(there));
    }
    let removed = stored.nics.keys().filter(|key| !file.nics.contains_key(*key)).count();
    takes_away(removed as u64, there as u64, share)
}

fn takes_away(removed: u64, there: u64, share: f64) -> Option<ChangeRefused> {
    let what = "NICs";
    let is_too_much = removed >= FEW_NICS && removed as f64 > share * there as f64;
    is_too_much.then_some(ChangeRefused::RemovesTooMuch { what, removed, there, share })
}
