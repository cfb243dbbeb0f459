//! What is wrong with the appliance: raised where it is noticed, kept while it lasts and for an hour after
//! (interfaces, "Health").

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tracing::{info, warn};

use crate::api::types::{Problem, Status};

/// How long a problem that ended stays listed.
const KEPT: Duration = Duration::from_secs(3600);
/// Problems listed at most; the longest ended go first.
const MOST: usize = 512;

/// How bad a problem is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Packets are judged, and something else is not as it should be.
    Degraded,
    /// Packets are not judged, or nobody can change how.
    Failed,
}

/// Everything that is or was wrong. Cheap to clone; all clones are the same board.
#[derive(Clone, Debug, Default)]
pub struct HealthBoard(Arc<Mutex<Vec<Entry>>>);

#[derive(Clone, Debug)]
struct Entry {
    what: String,
    kind: &'static str,
    severity: Severity,
    problem: String,
    cure: String,
    since: SystemTime,
    ended: Option<SystemTime>,
}

impl HealthBoard {
    fn entries(&self) -> MutexGuard<'_, Vec<Entry>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Something is wrong with `what`, such as `port eth0`. A problem of the same `kind` that lasts keeps its
    /// beginning; its words are replaced.
    pub fn raise(
        &self,
        (what, kind): (&str, &'static str),
        severity: Severity,
        problem: impl Into<String>,
        cure: impl Into<String>,
    ) {
        let (problem, cure) = (problem.into(), cure.into());
        let mut entries = self.entries();
        let same = |entry: &&mut Entry| entry.what == what && entry.kind == kind && entry.ended.is_none();
        if let Some(entry) = entries.iter_mut().find(same) {
            (entry.severity, entry.problem, entry.cure) = (severity, problem, cure);
            return;
        }
        warn!("{what}: {problem}; {cure}");
        let (what, since) = (what.to_owned(), SystemTime::now());
        entries.push(Entry { what, kind, severity, problem, cure, since, ended: None });
        forget(&mut entries);
    }

    /// That problem is over, if there was one.
    pub fn clear(&self, (what, kind): (&str, &'static str)) {
        for entry in self.entries().iter_mut() {
            if entry.what == what && entry.kind == kind && entry.ended.is_none() {
                entry.ended = Some(SystemTime::now());
                info!("{what}: over: {}", entry.problem);
            }
        }
    }

    /// Whether that problem lasts.
    pub fn is_raised(&self, (what, kind): (&str, &'static str)) -> bool {
        self.entries().iter().any(|entry| entry.what == what && entry.kind == kind && entry.ended.is_none())
    }

    /// What is wrong, and how bad all of it is together.
    pub fn list(&self) -> (Status, Vec<Problem>) {
        let mut entries = self.entries();
        forget(&mut entries);
        let worst = entries.iter().filter(|entry| entry.ended.is_none()).map(|entry| entry.severity).max();
        let status = match worst {
            None => Status::Ok,
            Some(Severity::Degraded) => Status::Degraded,
            Some(Severity::Failed) => Status::Failed,
        };
        let problems = entries.iter().map(|entry| Problem {
            what: entry.what.clone(),
            since: seconds(entry.since),
            problem: entry.problem.clone(),
            cure: entry.cure.clone(),
            ended: entry.ended.map(seconds),
        });
        (status, problems.collect())
    }
}

fn seconds(at: SystemTime) -> u64 {
    at.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

/// Drops what ended long ago. A clock that ran back makes nothing older than it is.
fn forget(entries: &mut Vec<Entry>) {
    entries.retain(|entry| {
        let since = entry.ended.map(|ended| ended.elapsed().unwrap_or_default());
        since.is_none_or(|since| since < KEPT)
    });
    while entries.len() > MOST {
        let Some(oldest) = entries.iter().position(|entry| entry.ended.is_some()) else { break };
        entries.remove(oldest);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DOWN: (&str, &str) = ("port eth0", "down");

    #[test]
    fn the_worst_problem_that_lasts_is_the_status_and_an_ended_one_stays_listed() {
        let board = HealthBoard::default();
        assert_eq!(board.list(), (Status::Ok, Vec::new()));
        board.raise(DOWN, Severity::Degraded, "its link is down", "look at the cable");
        board.raise(("store", "write"), Severity::Failed, "no space", "free some");
        assert_eq!(board.list().0, Status::Failed);
        board.clear(("store", "write"));
        board.clear(("store", "write"));
        let (status, problems) = board.list();
        assert_eq!((status, problems.len()), (Status::Degraded, 2));
        assert!(problems[0].ended.is_none() && problems[1].ended.is_some());
        board.clear(DOWN);
        assert_eq!(board.list().0, Status::Ok);
    }

    #[test]
    fn a_problem_that_lasts_is_one_and_one_that_comes_back_is_another() {
        let board = HealthBoard::default();
        board.raise(DOWN, Severity::Degraded, "its link is down", "");
        let since = board.list().1[0].since;
        board.raise(DOWN, Severity::Degraded, "its link is still down", "");
        let (_, problems) = board.list();
        assert_eq!((problems.len(), problems[0].since), (1, since));
        assert_eq!(problems[0].problem, "its link is still down");
        board.clear(DOWN);
        board.raise(DOWN, Severity::Degraded, "its link is down", "");
        assert_eq!(board.list().1.len(), 2);
        board.raise(("port eth0", "lost"), Severity::Degraded, "frames are lost", "");
        assert_eq!(board.list().1.len(), 3, "two kinds of one thing stand beside each other");
    }

    #[test]
    fn what_ended_makes_room_and_what_lasts_does_not() {
        let board = HealthBoard::default();
        for n in 0..2 * MOST {
            let what = format!("port {n}");
            board.raise((&what, "down"), Severity::Degraded, "", "");
            if n > 0 {
                board.clear((&what, "down"));
            }
        }
        let (_, problems) = board.list();
        assert_eq!((problems.len(), problems[0].what.as_str()), (MOST, "port 0"));
    }
}
