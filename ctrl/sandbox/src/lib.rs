//! What a process gives up for good: capabilities, new privileges, files, system calls, core files.
//!
//! A process that reads what strangers send may be taken over by one of them. What it gave up then is out of reach, too. All of
//! this is done once, by [`confine`], when what needs more is open already; it holds for every thread that is there and for those
//! that are started later. Each part is tried by itself: what the kernel lacks is told, and the others hold all the same.

mod calls;
mod capabilities;
mod files;
mod memory;
mod threads;

pub use calls::Calls;
pub use capabilities::Capability;
pub use files::Files;
pub use memory::{lock_what_is_mapped, locked_memory_is_limited, no_core_files, raise_lock_limit};

use threads::Step;

/// What is to be given up. `None` and false leave things as they are.
#[derive(Clone, Debug, Default)]
pub struct Restrictions {
    /// Whatever is executed later gains nothing by it. [`Self::files`] and [`Self::calls`] imply it.
    pub no_new_privs: bool,
    /// The capabilities that are kept, of those that the process has.
    pub capabilities: Option<Vec<Capability>>,
    /// The files that stay in reach.
    pub files: Option<Files>,
    /// The system calls that stay.
    pub calls: Option<Calls>,
}

/// What has become of one wish.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It holds for every thread: a few words for the log.
    Holds(String),
    /// It does not: why.
    Lacking(String),
}

/// Gives it up, on all threads. The outcomes stand in the order of the wishes.
pub fn confine(wishes: &Restrictions) -> Vec<Outcome> {
    let mut outcomes = Vec::new();
    let implied = wishes.files.is_some() || wishes.calls.is_some();
    if wishes.no_new_privs || implied {
        let done = threads::on_all(Step::NoNewPrivs);
        outcomes.push(told("no_new_privs", done.map(|()| "no new privileges".to_owned())));
    }
    // Before capabilities go: none is needed for it, but a kernel may want one where new privileges are not given up.
    if let Some(files) = &wishes.files {
        outcomes.push(told("landlock", files.restrict()));
    }
    if let Some(kept) = &wishes.capabilities {
        outcomes.push(told("capabilities", capabilities::keep(kept)));
    }
    // Last: what is done above are system calls, too.
    if let Some(calls) = &wishes.calls {
        outcomes.push(told("seccomp", calls.restrict()));
    }
    outcomes
}

fn told(what: &str, done: Result<String, String>) -> Outcome {
    match done {
        Ok(words) => Outcome::Holds(words),
        Err(why) => Outcome::Lacking(format!("{what}: {why}")),
    }
}
