//! The first policy of a run: out of the store, out of the policy file, or none.

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;

use engine::Generation;
use engine::snapshot::{AddressKey, Snapshot};

use super::admit::refuse_to_empty;
use super::journal::{start_record, unix_seconds};
use crate::api::types::Record;
use crate::commit::Committer;
use crate::config::{Config, Source};
use crate::delta::Delta;
use crate::diff::diff;
use crate::model::Policy;
use crate::persisted::PersistedState;
use crate::store::{Contents, PastGeneration, Step, Store};

/// A policy file that was given at the start.
pub struct PolicyFile {
    /// Its path.
    pub path: String,
    /// What it says.
    pub policy: Policy,
}

/// What a run starts with.
pub struct StartState {
    /// With the first policy.
    pub committer: Committer,
    /// What workers start with.
    pub snapshot: Box<Snapshot>,
    /// The store with what it holds now.
    pub store: Option<(Store, Option<Contents>)>,
    /// What the operator should know.
    pub warnings: Vec<String>,
    /// The file was not taken up, as it would take away too much: it is to be offered again, which is refused into health.
    pub file_waits: bool,
    /// What was made of the state that a former process left.
    pub former: PreviousState,
}

/// What was made of the state that a former process left.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PreviousState {
    /// There was none.
    None,
    /// It is taken up: its last generation.
    Taken(Generation),
    /// It does not fit, and why.
    Unfit(String),
}

/// Decides between store and file (interfaces, `[policy] source`), before any worker runs: frames are judged by it from the
/// first one on. An error is one line. Where a former process left its state, the policy becomes from that what it is now, by changes
/// like any others: what they flush is flushed. With `goes_on` that process still runs and is about to be relieved: its policy is the
/// present one, and a file that says something else waits until this process is in charge.
pub fn begin(
    config: Config,
    store: Option<(Store, Option<Contents>)>,
    file: Option<PolicyFile>,
    kept: Option<PersistedState>,
    goes_on: bool,
) -> Result<StartState, String> {
    let file_governs = config.source() == Source::File;
    let max_removed_share = config.policy.max_removed_share;
    let mut file_waits = false;
    let mut committer = Committer::keyed(config, random_key());
    let mut snapshot = Box::new(committer.initial());
    let mut warnings = Vec::new();
    let (store, mut contents) = store.map_or((None, None), |(store, contents)| (Some(store), contents));
    warnings.extend(store.iter().flat_map(Store::notes).cloned());
    let mut former = PreviousState::None;
    if let Some(state) = kept {
        let generation = state.last_generation();
        let held = store.as_ref().map(|_| contents.as_ref());
        match take_up(committer.config(), state, held) {
            Ok(taken) => (committer, snapshot, former) = (taken.0, taken.1, PreviousState::Taken(generation)),
            Err(reason) => former = PreviousState::Unfit(reason),
        }
    }
    let is_taken = matches!(former, PreviousState::Taken(_));
    if is_taken && store.is_none() && file.is_none() && !goes_on {
        // Nobody says what the policy is: then there is none, as ever.
        let prepared = committer.prepare(Policy::default()).map_err(|error| error.to_string())?;
        snapshot = committer.carry_out(prepared, 0).snapshot;
    }
    if let Some(contents) = contents.as_ref().filter(|_| !is_taken) {
        let deltas = contents.history.iter().map(|past| past.delta.clone());
        snapshot = committer
            .resume(contents.policy.clone(), Generation(contents.generation), deltas)
            .map_err(|error| error.to_string())?;
    }
    let is_awaiting = contents.as_ref().is_some_and(|contents| contents.awaited.is_some());
    if let Some(PolicyFile { path, policy }) = file {
        let differs = diff(committer.policy(), &policy);
        if contents.is_some() && !file_governs && !differs.is_empty() {
            warnings.push(differences(&path, &differs));
        } else if goes_on && !differs.is_empty() {
            file_waits = true;
        } else if is_awaiting {
            warnings.push(format!("{path} waits: the generation in the store awaits its confirmation"));
        } else if let Some(refused) = refuse_to_empty(committer.policy(), &policy, max_removed_share) {
            warnings.push(format!(
                "{path}: {refused}; the run begins with the policy of {}",
                if store.is_some() { "the store" } else { "the run before" }
            ));
            file_waits = true;
        } else if !differs.is_empty() {
            let past = adopt(&mut committer, &mut snapshot, store.as_ref(), path, policy)?;
            if store.is_some() {
                let contents = contents.get_or_insert_default();
                (contents.policy, contents.generation) = (committer.policy().clone(), past.record.generation);
                contents.history.push(past);
            }
        }
    }
    let store = store.map(|store| (store, contents));
    Ok(StartState { committer, snapshot, store, warnings, file_waits, former })
}

/// The state of a former process, brought to where the store is: `held` is what that holds, where there is one.
fn take_up(
    config: &Config,
    state: PersistedState,
    held: Option<Option<&Contents>>,
) -> Result<(Committer, Box<Snapshot>), String> {
    let kept = state.generation;
    let (mut committer, mut snapshot) = Committer::restored(config.clone(), random_key(), state)?;
    let contents = match held {
        None => return Ok((committer, snapshot)),
        Some(contents) => contents.ok_or("the store is new")?,
    };
    let Contents { policy, generation, history, .. } = contents;
    let ahead = generation
        .checked_sub(kept)
        .ok_or_else(|| format!("the store holds generation {generation}, and generation {kept} was kept"))?;
    if ahead as usize > history.len() {
        return Err(format!("the store's history does not reach back to generation {kept}, which was kept"));
    }
    // From the newest back to what was kept.
    let (mut policy, mut since) = (policy.clone(), Vec::new());
    for past in history.iter().rev().take(ahead as usize) {
        since.push(policy.clone());
        past.delta.revert(&mut policy);
    }
    if Delta::between(committer.policy(), &policy) != Delta::default() {
        return Err(format!("the store's generation {kept} is another than the one that was kept"));
    }
    // One by one, so that what one of them ended stays ended though the next took it back. A rollback counts as any other change here:
    // it flushes, where it would have brought back.
    for policy in since.into_iter().rev() {
        let prepared = committer.prepare(policy).map_err(|error| error.to_string())?;
        snapshot = committer.carry_out(prepared, 0).snapshot;
    }
    committer.remember(history.iter().map(|past| past.delta.clone()));
    Ok((committer, snapshot))
}

/// Drawn for this start. The standard library keys its hash tables by what the system has at random.
fn random_key() -> AddressKey {
    AddressKey([0, 1].map(|word: u64| RandomState::new().hash_one(word)))
}

fn differences(path: &str, diff: &crate::diff::Diff) -> String {
    let named = |what: &str, names: &[String]| match names {
        [] => String::new(),
        names if names.len() > 5 => {
            format!(" {what} {} and {} more;", names[..5].join(", "), names.len() - 5)
        }
        names => format!(" {what} {};", names.join(", ")),
    };
    format!(
        "{path} DIFFERS from the store, and the store governs (policy.source = \"api\"); applying the file would have:{}{}{}",
        named("added", &diff.added),
        named("changed", &diff.changed),
        named("removed", &diff.removed)
    )
}

/// The file's policy as a generation of its own, durable where there is a store.
fn adopt(
    committer: &mut Committer,
    snapshot: &mut Box<Snapshot>,
    store: Option<&Store>,
    path: String,
    policy: Policy,
) -> Result<PastGeneration, String> {
    let prepared = committer.prepare(policy).map_err(|error| error.to_string())?;
    let diff = &prepared.plan.diff;
    let record = Record {
        at: unix_seconds(),
        who: path,
        origin: super::Origin::File.name().to_owned(),
        added: diff.added.clone(),
        changed: diff.changed.clone(),
        removed: diff.removed.clone(),
        ..start_record(committer.generation().0 + 1)
    };
    let past = PastGeneration { record, delta: Arc::clone(&prepared.delta) };
    if let Some(store) = store {
        let oldest = prepared.oldest.0;
        let step = Step { policy: prepared.policy(), past: &past, awaited: None, oldest };
        store.commit(&step).map_err(|error| error.to_string())?;
    }
    *snapshot = committer.carry_out(prepared, 0).snapshot;
    Ok(past)
}
