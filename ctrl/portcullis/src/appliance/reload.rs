//! The policy file, read again: when it changes, and on SIGHUP.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use control::api::types::Receipt;
use control::api::types::State;
use control::document::parse_policy;
use control::health::{HealthBoard, Severity};
use control::live::{Author, Change, ChangeRefused, Live};
use control::memory;
use control::source::{MAX_DOCUMENT, text};
use tokio::sync::Notify;
use tokio::time::{sleep, timeout};
use tracing::{error, info, warn};

use super::watch::{FilePoller, LOOK_EVERY, Stamp, Watch};

/// The file says something else than what is in force.
const REFUSED: (&str, &str) = ("policy file", "refused");
const UNWATCHED: (&str, &str) = ("policy file", "unwatched");
/// How soon it is tried again where the moment was bad.
const RETRY: Duration = Duration::from_secs(1);
/// How long that is put off at most, as it goes on.
const LONGEST_RETRY: Duration = Duration::from_secs(16);

/// Why the file is not in force.
enum ReloadError {
    /// It must be mended.
    Wrong(String),
    /// The same file may do later.
    NotNow(String),
}

/// Applies the file each time it is told to, one time after the other. Never ends.
pub async fn serve(live: Live, path: PathBuf, again: Arc<Notify>) {
    let (mut patience, mut told) = (Duration::MAX, None);
    loop {
        // Tried again: told to, or after a while.
        let _ = timeout(patience, again.notified()).await;
        // A change that awaits its confirmation is not built upon; what the file says then counts afterwards.
        live.settled().await;
        let (reason, cure) = match reload(&live, &path).await {
            Ok(receipt) => {
                live.board().clear(REFUSED);
                receipt.warnings.iter().for_each(|warning| warn!("{warning}"));
                if receipt.state == State::Unchanged {
                    info!("{}: nothing has changed", path.display());
                }
                (patience, told) = (Duration::MAX, None);
                continue;
            }
            Err(ReloadError::Wrong(reason)) => {
                patience = Duration::MAX;
                (
                    reason,
                    "mend the file, or apply it with `portcullis apply`: it is read again when it changes, and on SIGHUP",
                )
            }
            Err(ReloadError::NotNow(reason)) => {
                // A large file costs its reader something each time.
                patience = if patience == Duration::MAX { RETRY } else { (2 * patience).min(LONGEST_RETRY) };
                (reason, "it is tried again by itself")
            }
        };
        if told.as_ref() != Some(&reason) {
            error!("{reason}; the policy stays as it was");
        }
        live.board().raise(
            REFUSED,
            Severity::Degraded,
            format!("{reason}; the policy in force is an older one"),
            cure,
        );
        told = Some(reason);
    }
}

/// Reads, validates and applies the file; refused, it says why in one line.
async fn reload(live: &Live, path: &Path) -> Result<Receipt, ReloadError> {
    let (file, policy) = (path.to_owned(), live.config().policy);
    let read = move || {
        let bytes = read_regular(&file)?;
        let name = file.display().to_string();
        let parsed = text(name.clone(), bytes).and_then(|text| parse_policy(&text, &name, &policy.limits));
        parsed.map_err(|diagnostic| ReloadError::Wrong(diagnostic.to_string()))
    };
    let document = tokio::task::spawn_blocking(read).await;
    let document = document.map_err(|error| ReloadError::NotNow(error.to_string()))??;
    let change = Change {
        max_removed_share: Some(policy.max_removed_share),
        ..Change::to(document, Author::file(path.display().to_string()))
    };
    live.apply(change).await.map_err(|refused| {
        let reason = format!("{}: {refused}", path.display());
        match refused {
            ChangeRefused::Store(_)
            | ChangeRefused::NoAnswer(_)
            | ChangeRefused::Exhausted(_)
            | ChangeRefused::Unconfirmed { .. }
            | ChangeRefused::Relieved => ReloadError::NotNow(reason),
            _ => ReloadError::Wrong(reason),
        }
    })
}

/// The bytes of a file that can be read to its end. Anything else could hold the reader up for good.
fn read_regular(path: &Path) -> Result<Vec<u8>, ReloadError> {
    let at = |what: &dyn std::fmt::Display| format!("{}: {what}", path.display());
    let not_now = |error: io::Error| ReloadError::NotNow(at(&error));
    let file = File::options().read(true).custom_flags(libc::O_NONBLOCK).open(path).map_err(not_now)?;
    let found = file.metadata().map_err(not_now)?;
    if !found.is_file() {
        return Err(ReloadError::Wrong(at(&"it is no file; allowed: a regular file, also behind links")));
    }
    if found.len() > MAX_DOCUMENT as u64 {
        let what = format!("it has {} bytes; allowed: {MAX_DOCUMENT}", found.len());
        return Err(ReloadError::Wrong(at(&what)));
    }
    let mut bytes = Vec::new();
    let room = memory::reserve(&mut bytes, found.len() as usize);
    room.map_err(|error| ReloadError::NotNow(at(&error)))?;
    // It may grow meanwhile: then it is read again.
    file.take(MAX_DOCUMENT as u64).read_to_end(&mut bytes).map_err(not_now)?;
    Ok(bytes)
}

/// Says when the file has changed since it bore the stamp `read`, by a watch that began then. Without notifications (a kernel without inotify, too many watches,
/// no descriptor to spare) it is looked at each second until they can be had.
pub async fn watch(
    path: PathBuf,
    mut watch: io::Result<Watch>,
    mut read: Stamp,
    again: Arc<Notify>,
    board: HealthBoard,
) {
    let mut glances = FilePoller::new(&path, read);
    loop {
        let failed = match watch {
            Ok(mut watch) => loop {
                board.clear(UNWATCHED);
                match watch.changed().await {
                    Ok(()) => again.notify_one(),
                    Err(error) => break error,
                }
            },
            Err(error) => error,
        };
        board.raise(
            UNWATCHED,
            Severity::Degraded,
            format!("changes of it are not told: {failed}; it is looked at each second"),
            "raise fs.inotify.max_user_watches and max_user_instances, or the limit of open files",
        );
        sleep(LOOK_EVERY).await;
        if glances.is_another() {
            glances.reads();
            read = Stamp::of(&path);
            again.notify_one();
        }
        watch = Watch::new(&path, read);
    }
}
