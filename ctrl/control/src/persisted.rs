//! What the control side leaves to the next process, beside the tables of connections: the policy in force, and who holds which
//! place since when. One file, written anew before each change reaches any worker.
//!
//! ```text
//! magic 8 · format 4 · length 8 · xxh3 of the rest 8 · JSON
//! ```

use engine::Generation;
use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64;

use crate::commit::Committer;
use crate::delta::Delta;
use crate::model::Policy;
use crate::{compile, registry};

/// The format's number. Another one is not read.
pub const VERSION: u32 = 1;
const MAGIC: [u8; 8] = *b"PCCTRL\r\n";
const HEAD: usize = 28;

/// Which tables of connections belong to it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tables {
    /// The set's number, as its tables bear it.
    pub set: u64,
    /// Their files, by worker.
    pub files: Vec<String>,
    /// The machine's boot.
    pub boot: [u64; 2],
}

/// All of it.
#[derive(Serialize, Deserialize)]
pub struct PersistedState {
    /// The tables of connections.
    pub tables: Tables,
    /// The generation in force.
    pub generation: u32,
    pub(crate) last_ending: u32,
    /// What becoming the empty policy would replace: the policy.
    policy: Delta,
    pub(crate) registry: registry::PersistedRegistry,
    pub(crate) compiler: compile::PersistedNumbers,
}

impl PersistedState {
    /// Of a committer.
    pub fn of(committer: &Committer, tables: &Tables) -> PersistedState {
        PersistedState {
            tables: tables.clone(),
            generation: committer.generation().0,
            last_ending: committer.last_ending().0,
            policy: Delta::between(committer.policy(), &Policy::default()),
            registry: committer.registry().to_persisted(),
            compiler: committer.compiler().to_persisted(),
        }
    }

    /// The policy.
    pub fn policy(&self) -> Policy {
        let mut policy = Policy::default();
        self.policy.revert(&mut policy);
        policy
    }

    /// As bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = vec![0; HEAD];
        // Maps have text as keys; there is no other reason to fail.
        if serde_json::to_writer(&mut bytes, self).is_err() {
            bytes.truncate(HEAD);
        }
        let (len, sum) = ((bytes.len() - HEAD) as u64, xxh3_64(&bytes[HEAD..]));
        bytes[..8].copy_from_slice(&MAGIC);
        bytes[8..12].copy_from_slice(&VERSION.to_le_bytes());
        bytes[12..20].copy_from_slice(&len.to_le_bytes());
        bytes[20..HEAD].copy_from_slice(&sum.to_le_bytes());
        bytes
    }

    /// What was written, whatever bytes these are; else what is wrong with them.
    pub fn decode(bytes: &[u8]) -> Result<PersistedState, String> {
        let (Some(head), Some(rest)) = (bytes.get(..HEAD), bytes.get(HEAD..)) else {
            return Err("it is cut short".to_owned());
        };
        let number = |from: usize| head[from..].first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes));
        let version = head[8..].first_chunk().map_or(0, |bytes| u32::from_le_bytes(*bytes));
        if head[..8] != MAGIC {
            return Err("it is no kept state".to_owned());
        }
        if version != VERSION {
            return Err(format!("its format is {version}, and {VERSION} is read"));
        }
        if rest.len() as u64 != number(12) || xxh3_64(rest) != number(20) {
            return Err("it is damaged".to_owned());
        }
        serde_json::from_slice(rest).map_err(|error| format!("it is damaged: {error}"))
    }

    /// The last generation that a connection can bear.
    pub fn last_generation(&self) -> Generation {
        Generation(self.generation)
    }
}

/// Where the state of each change goes, before any worker hears of it.
pub type StateWriter = Box<dyn FnMut(&Committer) + Send>;
