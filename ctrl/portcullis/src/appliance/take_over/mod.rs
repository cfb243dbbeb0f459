//! One process takes the wires over from another, which goes on until the very last step and again if that fails.
//!
//! ```text
//! new process                                 running one
//! ───────────                                 ───────────
//! reads its configuration
//! hello                         ──────────▶   changes wait from here on; the store is closed
//!                               ◀──────────   prepare: the API's listeners, the lock on what is kept
//! reads the store, compiles, starts DPDK,
//! lays out its tables
//! let-go                        ──────────▶   gives up ports that one process alone can have; its workers stand still
//!                               ◀──────────   gone
//! opens the ports, takes the connections up,
//! writes down where they are
//! ready                         ──────────▶   will never go on by itself from here on
//!                               ◀──────────   yours
//! frames move                                 ends
//! ```
//!
//! Up to `yours` either may fail, end or be silent for too long: then the running process forwards on, with its own ports, tables and store.
//! From `yours` on the new one is in charge. So at no time do both forward, and none does for longer than the ports take.
//!
//! The messages are lines of JSON over a socket beside the API's (`PATH.take-over`), for the same user and root; descriptors come with
//! `prepare`. The first line names the protocol: the next release speaks this one, too.

mod giving;
mod line;
#[cfg(test)]
mod model;
mod taking;

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

pub use giving::{Fate, Giver, Grip, Heard};
pub use line::Line;
pub use taking::{Taking, beside_another, plug_exclusive, set_aside};

/// The protocol that is spoken.
const PROTOCOL: u32 = 1;
/// How long the new process may prepare itself: a store of a hundred thousand NICs takes seconds.
const PREPARES: Duration = Duration::from_secs(120);
/// How long the running one may take to stand still, with a change that is under way.
const STANDS_STILL: Duration = Duration::from_secs(20);
/// How long either waits for the other's next word while nothing is forwarded.
const DARK: Duration = Duration::from_secs(5);

/// What is said.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "take-over", rename_all = "kebab-case")]
pub enum Word {
    /// By the new process, first.
    Hello { protocol: u32, version: String },
    /// Prepare yourself; nothing changes until you are ready. With descriptors: the lock, the API's listener, this socket's, and where
    /// `tcp` is set the listener over TCP.
    Prepare(Prepare),
    /// By the new process: it is prepared.
    LetGo,
    /// Nobody forwards.
    Gone,
    /// By the new process: it could forward.
    Ready,
    /// It does from now on.
    Yours,
    /// By either, and the last word: it can't.
    No { reason: String },
}

/// What the running process tells of itself.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Prepare {
    version: String,
    process: u32,
    /// Where its connections are kept.
    folder: PathBuf,
    /// It listens over TCP, too.
    tcp: bool,
    /// Where its supervisor listens (`NOTIFY_SOCKET`), and the microseconds in which that wants a call (`WATCHDOG_USEC`).
    supervisor: Option<String>,
    watchdog: Option<String>,
}

/// The socket beside the API's.
fn beside(socket: &Path) -> PathBuf {
    let mut name = socket.as_os_str().to_owned();
    name.push(".take-over");
    name.into()
}
