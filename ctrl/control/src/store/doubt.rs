//! Changes that were refused and may lie in the file all the same: undone before anything else is written.

use redb::Database;

use super::rows::{self, Digest, Objects};
use super::witness::WitnessRecord;
use super::{Awaited, Contents, HISTORY, PastGeneration, get, put};
use crate::api::types::Confirmation;

/// What may lie there.
#[derive(Clone, Debug)]
pub(super) enum InDoubt {
    /// A generation.
    Generation(u32),
    /// A confirmation.
    Settled {
        /// Of which.
        generation: u32,
        /// Its row in the history before.
        row: Option<Vec<u8>>,
        /// What awaited the confirmation.
        awaited: Option<Awaited>,
    },
}

impl InDoubt {
    /// What a witness tells of a store with these contents.
    pub fn told(told: &WitnessRecord, contents: &Contents) -> Option<InDoubt> {
        if told.refused == Some(contents.generation) {
            return Some(InDoubt::Generation(contents.generation));
        }
        let awaited = told.awaited.filter(|awaited| awaited.generation == contents.generation)?;
        let last = contents.history.last().cloned().map(|mut last| {
            last.record.confirmation = Some(Confirmation::Awaited);
            rows::json(&last)
        });
        let generation = contents.generation;
        contents.awaited.is_none().then_some(InDoubt::Settled {
            generation,
            row: last,
            awaited: Some(awaited),
        })
    }

    /// Makes the file what it was before. When this returns, that is on the disk.
    pub fn undo(&self, database: &Database) -> Result<(), redb::Error> {
        let transaction = database.begin_write()?;
        match self {
            InDoubt::Generation(refused) => {
                if get(&transaction, "generation")? != Some(*refused) {
                    return Ok(transaction.abort()?);
                }
                let mut history = transaction.open_table(HISTORY)?;
                let row = history.remove(refused)?.map(|row| row.value().to_vec());
                drop(history);
                let past: Option<PastGeneration> = row.and_then(|row| serde_json::from_slice(&row).ok());
                let Some(PastGeneration { delta, .. }) = past else {
                    let what = format!("what generation {refused} replaced is not known");
                    return Err(redb::Error::Corrupted(what));
                };
                let mut digest: Digest = get(&transaction, "digest")?.unwrap_or_default();
                let mut next_id = get(&transaction, "next_id")?.unwrap_or(1);
                let mut objects = Objects::open(&transaction)?;
                objects.take_back(&delta, refused - 1, &mut next_id, &mut digest)?;
                drop(objects);
                put(&transaction, "next_id", &next_id)?;
                put(&transaction, "digest", &digest)?;
                put(&transaction, "generation", &(refused - 1))?;
                let awaited: Option<Awaited> = get(&transaction, "unconfirmed_before")?.flatten();
                put(&transaction, "unconfirmed", &awaited)?;
            }
            InDoubt::Settled { generation, row, awaited } => {
                put(&transaction, "unconfirmed", awaited)?;
                if let Some(row) = row {
                    transaction.open_table(HISTORY)?.insert(generation, &**row)?;
                }
            }
        }
        Ok(transaction.commit()?)
    }
}
