//! Connections that a former process left, on their way to the workers of this one.

use std::io;
use std::sync::Arc;
use std::sync::mpsc;

use control::commit::Committer;
use control::persisted::Tables;
use crossbeam::channel::{Receiver, Sender};
use engine::conntrack::persist::PersistentMemory;
use engine::conntrack::restore::{PreviousProcess, RestoreCounts, SavedConnection};

use super::state_dir::StateDir;

/// What a worker begins with that keeps its connections.
pub struct WorkerShare {
    /// Where they lie.
    pub memory: PersistentMemory,
    /// Those of the former process that it owns.
    pub connections: Vec<SavedConnection>,
    /// What is known of that process.
    pub since: PreviousProcess,
    /// What became of them is told here...
    pub told: mpsc::Sender<RestoreCounts>,
    /// ... and frames are waited with until here comes something.
    pub go: Receiver<()>,
}

/// Connections finding their places, before the first frame.
pub struct Restoration {
    folder: Arc<StateDir>,
    tables: Tables,
    told: mpsc::Receiver<RestoreCounts>,
    go: Sender<()>,
    workers: usize,
}

impl Restoration {
    /// Shares of new tables, one a worker, with what each has to take up.
    pub fn prepare(
        folder: &Arc<StateDir>,
        (tables, memories): (Tables, Vec<PersistentMemory>),
        dealt: Vec<Vec<SavedConnection>>,
        since: PreviousProcess,
    ) -> (Restoration, Vec<WorkerShare>) {
        let workers = memories.len();
        let ((tells, told), (go, goes)) = (mpsc::channel(), crossbeam::channel::bounded(workers));
        let share = |(memory, connections)| WorkerShare {
            memory,
            connections,
            since,
            told: tells.clone(),
            go: goes.clone(),
        };
        let shares = memories.into_iter().zip(dealt).map(share).collect();
        (Restoration { folder: folder.clone(), tables, told, go, workers }, shares)
    }

    /// Waits for all workers, writes down where the connections are now, and lets frames come: what became of the connections, and where
    /// they lie. `None` if a worker did not start, or `is_ours` says that another process goes on; that needs its tables until then.
    pub fn finish(
        self,
        committer: &Committer,
        is_ours: Option<&mut dyn FnMut() -> bool>,
    ) -> Option<(RestoreCounts, Tables, io::Result<()>)> {
        let mut all = RestoreCounts::default();
        for _ in 0..self.workers {
            all += self.told.recv().ok()?;
        }
        let written = self.folder.keep_or_forget(&self.tables, committer);
        match is_ours {
            Some(is_ours) => {
                if !is_ours() {
                    return None;
                }
            }
            None => self.folder.remove_others(Some(&self.tables)),
        }
        for _ in 0..self.workers {
            let _ = self.go.send(());
        }
        Some((all, self.tables, written))
    }
}
