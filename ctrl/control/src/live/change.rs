//! A change as it is asked for, and why it may be refused.

use std::time::Duration;

use super::WorkerTimeout;
use crate::api::types::Receipt;
use crate::commit::NoSuchGeneration;
use crate::document::Parsed;
use crate::model::Policy;
use crate::registry::OutOfSlots;

/// By which way a change came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The policy file, at the start, on a change of it or on SIGHUP.
    File,
    /// A client of the API.
    Api,
    /// The appliance itself: a confirmation that did not come.
    Timer,
}

impl Origin {
    /// As history shows it.
    pub fn name(self) -> &'static str {
        match self {
            Origin::File => "file",
            Origin::Api => "api",
            Origin::Timer => "timer",
        }
    }
}

/// Who changes the policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Author {
    /// By which way.
    pub origin: Origin,
    /// A user, a token's name, a file.
    pub who: String,
}

impl Author {
    /// Of a file.
    pub fn file(path: impl Into<String>) -> Author {
        Author { origin: Origin::File, who: path.into() }
    }

    /// A client.
    pub fn client(who: impl Into<String>) -> Author {
        Author { origin: Origin::Api, who: who.into() }
    }
}

/// Changes a policy that is in force by then, and says what of that is likely a mistake; or one line says why it cannot.
pub type Edit = Box<dyn FnOnce(&Policy) -> Result<Parsed, ChangeRefused> + Send>;

/// What the policy is to become.
pub enum Target {
    /// This document's, as a whole.
    Document(Parsed),
    /// What an earlier generation was (semantics 5.7).
    Generation(u32),
    /// The present one, with something else in it.
    Edited(Edit),
}

impl std::fmt::Debug for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Target::Document(_) => f.write_str("Document"),
            Target::Generation(generation) => write!(f, "Generation({generation})"),
            Target::Edited(_) => f.write_str("Edited"),
        }
    }
}

/// A change that is asked for.
#[derive(Debug)]
pub struct Change {
    /// What it leads to.
    pub target: Target,
    /// From whom it comes.
    pub author: Author,
    /// Only tell what would happen.
    pub dry_run: bool,
    /// Refuse to disconnect more live connections than this.
    pub max_disconnect: Option<u64>,
    /// Refuse to remove a larger share of the NICs, or NICs with a larger share of the connections.
    pub max_removed_share: Option<f64>,
    /// Accept an empty document, or one without NICs where there are some.
    pub allow_empty: bool,
    /// Roll back by itself unless a confirmation comes within this time.
    pub confirm: Option<Duration>,
    /// Refuse unless this is the present generation: nobody has changed the policy since the writer looked.
    pub if_generation: Option<u32>,
}

impl Change {
    /// With the guard against empty documents and no other.
    pub fn new(target: Target, author: Author) -> Change {
        Change {
            target,
            author,
            dry_run: false,
            max_disconnect: None,
            max_removed_share: None,
            allow_empty: false,
            confirm: None,
            if_generation: None,
        }
    }

    /// To this policy, as a whole.
    pub fn to(document: Parsed, author: Author) -> Change {
        Change::new(Target::Document(document), author)
    }

    /// Back to a generation.
    pub fn back_to(generation: u32, author: Author) -> Change {
        Change { allow_empty: true, ..Change::new(Target::Generation(generation), author) }
    }
}

/// Why a change was not applied. Nothing of it has happened.
#[derive(Debug)]
pub enum ChangeRefused {
    /// The document is empty.
    Empty,
    /// The document has no NICs, and the present policy has some.
    NoNics(usize),
    /// It would disconnect more than it may.
    DisconnectsTooMany {
        /// What it may.
        most: u64,
        /// What it would do.
        preview: Box<Receipt>,
    },
    /// It would remove more than it may.
    RemovesTooMuch {
        /// `NICs`, or the connections of those that go.
        what: &'static str,
        /// How many go.
        removed: u64,
        /// Of how many.
        there: u64,
        /// The share that may.
        share: f64,
    },
    /// The tables have no place for so many NICs or addresses.
    Exhausted(OutOfSlots),
    /// Another change awaits its confirmation.
    Unconfirmed {
        /// Which.
        generation: u32,
        /// For how long still.
        seconds: u64,
    },
    /// Nothing awaits a confirmation.
    NothingToConfirm,
    /// Somebody was there before.
    Stale {
        /// The generation that the writer knew.
        known: u32,
        /// The present one.
        present: u32,
    },
    /// There is no such generation.
    NoGeneration(NoSuchGeneration),
    /// An object that is not there.
    NotFound(String),
    /// Others need what an edit would take away.
    InUse(String),
    /// What an edit asks for makes no valid policy.
    Invalid(String),
    /// A worker does not say what the change would do to its connections.
    NoAnswer(WorkerTimeout),
    /// The store does not take it.
    Store(String),
    /// Another process has taken over meanwhile.
    Relieved,
}

impl std::fmt::Display for ChangeRefused {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            ChangeRefused::Empty => {
                f.write_str("the document is empty and would remove everything; allowed with --allow-empty")
            }
            ChangeRefused::NoNics(there) => {
                write!(f, "the document has no NICs, and there are {there}; allowed with --allow-empty")
            }
            ChangeRefused::DisconnectsTooMany { most, preview } => {
                write!(
                    f,
                    "it would disconnect {} live connections; allowed: at most {most}",
                    preview.disconnected
                )
            }
            ChangeRefused::RemovesTooMuch { what, removed, there, share } => write!(
                f,
                "it would take away {removed} of {there} {what}; allowed: a share of {share} ([policy] max_removed_share)"
            ),
            ChangeRefused::Exhausted(error) => error.fmt(f),
            ChangeRefused::Unconfirmed { generation, seconds } => write!(
                f,
                "generation {generation} awaits its confirmation for {seconds} s more; allowed until then: confirm, rollback"
            ),
            ChangeRefused::NothingToConfirm => f.write_str("nothing awaits a confirmation"),
            ChangeRefused::Stale { known, present } => {
                write!(f, "the policy has changed: it is generation {present} now, not {known}")
            }
            ChangeRefused::NoGeneration(error) => error.fmt(f),
            ChangeRefused::NotFound(what) => write!(f, "there is no {what}"),
            ChangeRefused::InUse(what) | ChangeRefused::Invalid(what) => f.write_str(what),
            ChangeRefused::NoAnswer(error) => error.fmt(f),
            ChangeRefused::Relieved => f.write_str("another process has taken over meanwhile: say it again"),
            ChangeRefused::Store(error) => write!(f, "the store does not take the change: {error}"),
        }
    }
}

impl From<WorkerTimeout> for ChangeRefused {
    fn from(error: WorkerTimeout) -> ChangeRefused {
        ChangeRefused::NoAnswer(error)
    }
}
