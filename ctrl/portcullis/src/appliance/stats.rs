//! The stats page: everything that is counted, written into a file that other programs map.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use control::live::Live;
use stats::Writer;
use tokio::time::{MissedTickBehavior, interval};
use tracing::warn;

use super::health::supervised;

/// How often it is written.
const EVERY: Duration = Duration::from_secs(1);

/// Begins to write it, within a runtime. Without a place for it, the appliance goes on without.
pub fn start(live: &Live) -> Option<Arc<Mutex<Writer>>> {
    let path = live.config().stats_page();
    let writer = match Writer::create(&path) {
        Ok(writer) => Arc::new(Mutex::new(writer)),
        Err(error) => {
            warn!("there is no stats page: {}: {error}; [stats] page names another place", path.display());
            return None;
        }
    };
    let (live, kept) = (live.clone(), writer.clone());
    supervised(&live.clone(), "writing of the stats page", move || {
        let (live, writer) = (live.clone(), writer.clone());
        async move {
            let mut tick = interval(EVERY);
            tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                tick.tick().await;
                let (live, writer) = (live.clone(), writer.clone());
                // On a thread that serves nobody: it takes a while among many NICs.
                let written = tokio::task::spawn_blocking(move || write(&live, &writer)).await;
                if written.is_err() {
                    return;
                }
            }
        }
    });
    Some(kept)
}

/// Writes it for the last time.
pub fn end(live: &Live, writer: &Mutex<Writer>) {
    write(live, writer);
    writer.lock().unwrap_or_else(PoisonError::into_inner).end();
}

fn write(live: &Live, writer: &Mutex<Writer>) {
    let figures = live.page_figures();
    if let Err(error) = writer.lock().unwrap_or_else(PoisonError::into_inner).write(&figures) {
        warn!("the stats page is not written: {error}");
    }
}
