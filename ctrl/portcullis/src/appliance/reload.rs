//! The policy file, read again: when it changes, and on SIGHUP.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use control::api::shape::Receipt;
use control::api::shape::State;
use control::document::parse_policy;
use control::live::{Author, Change, Live};
use control::source::read_file;
use tokio::sync::Notify;
use tracing::{error, info, warn};

use super::watch::Watch;

/// Applies the file each time it is told to, one time after the other. Never ends.
pub async fn serve(live: Live, path: PathBuf, again: Arc<Notify>) {
    loop {
        again.notified().await;
        // A change that awaits its confirmation is not built upon; what the file says then counts afterwards.
        live.settled().await;
        match reload(&live, &path).await {
            Ok(Receipt { state: State::Unchanged, .. }) => info!("{}: nothing has changed", path.display()),
            Ok(receipt) => report(&path, &receipt),
            Err(reason) => error!("{reason}; the policy stays as it was"),
        }
    }
}

fn report(path: &Path, receipt: &Receipt) {
    let Receipt { generation, disconnected, pending, .. } = receipt;
    info!("{}: applied as generation {generation}, {disconnected} connections disconnected", path.display());
    if !pending.is_empty() {
        warn!("generation {generation} is not acknowledged yet by workers {pending:?}");
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
pub async fn watch(watch: std::io::Result<Watch>, again: Arc<Notify>) {
    let failed = match watch {
        Ok(mut watch) => loop {
            match watch.changed().await {
                Ok(()) => again.notify_one(),
                Err(error) => break error,
            }
        },
        Err(error) => error,
    };
    warn!("the policy file is not watched, send SIGHUP after changes: {failed}");
}
