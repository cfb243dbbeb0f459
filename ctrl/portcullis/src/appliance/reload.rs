//! The policy file, read again: when it changes, and on SIGHUP.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use control::api::shape::Receipt;
use control::api::shape::State;
use control::document::parse_policy;
use control::health::{Board, Severity};
use control::live::{Author, Change, Live};
use control::source::read_file;
use tokio::sync::Notify;
use tracing::{error, info, warn};

use super::watch::Watch;

/// The file says something else than what is in force.
const REFUSED: (&str, &str) = ("policy file", "refused");

/// Applies the file each time it is told to, one time after the other. Never ends.
pub async fn serve(live: Live, path: PathBuf, again: Arc<Notify>) {
    loop {
        again.notified().await;
        // A change that awaits its confirmation is not built upon; what the file says then counts afterwards.
        live.settled().await;
        match reload(&live, &path).await {
            Ok(receipt) => {
                live.board().clear(REFUSED);
                receipt.warnings.iter().for_each(|warning| warn!("{warning}"));
                if receipt.state == State::Unchanged {
                    info!("{}: nothing has changed", path.display());
                }
            }
            Err(reason) => {
                error!("{reason}; the policy stays as it was");
                live.board().raise(
                    REFUSED,
                    Severity::Degraded,
                    format!("{reason}; the policy in force is an older one"),
                    "mend the file: it is read again when it changes, and on SIGHUP",
                );
            }
        }
    }
}

/// Reads, validates and applies the file; refused, it says why in one line.
async fn reload(live: &Live, path: &Path) -> Result<Receipt, String> {
    let (file, limits) = (path.to_owned(), live.config().policy.limits);
    let read = move || {
        let text = read_file(&file)?;
        parse_policy(&text, &file.display().to_string(), &limits)
    };
    let document = tokio::task::spawn_blocking(read).await.map_err(|error| error.to_string())?;
    let document = document.map_err(|diagnostic| diagnostic.to_string())?;
    let author = Author::file(path.display().to_string());
    let applied = live.apply(Change::to(document, author)).await;
    applied.map_err(|refused| format!("{}: {refused}", path.display()))
}

/// Says when the file has changed. Without a watch (a kernel without inotify, too many watches), SIGHUP is left.
pub async fn watch(watch: std::io::Result<Watch>, again: Arc<Notify>, board: Board) {
    let failed = match watch {
        Ok(mut watch) => loop {
            match watch.changed().await {
                Ok(()) => again.notify_one(),
                Err(error) => break error,
            }
        },
        Err(error) => error,
    };
    board.raise(
        ("policy file", "unwatched"),
        Severity::Degraded,
        format!("it is not watched: {failed}"),
        "send SIGHUP after changes, or raise fs.inotify.max_user_watches and restart",
    );
}
