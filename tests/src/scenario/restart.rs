//! A restart in the middle of a scenario: the process is gone, what it kept is found.

use control::commit::Committer;
use control::config::parse_config;
use control::persisted::{PersistedState, Tables};
use engine::Generation;
use engine::conntrack::persist::TableIdentity;
use engine::conntrack::restore::{self, ExpectedTable, PreviousProcess, RestoreCounts, SavedTable};
use engine::snapshot::AddressKey;

use super::Scenario;

/// What became of what was kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RestartOutcome {
    /// Connections that were read, tombstones among them.
    pub read: usize,
    /// That had expired by then.
    pub expired: u64,
    /// Places that are no entry.
    pub unverifiable: u64,
    /// What became of those that were read.
    pub taken_up: RestoreCounts,
}

impl Scenario {
    /// Under a configuration and a policy document, with connections that outlive it.
    pub fn kept(config: &str, policy: &str) -> Scenario {
        let mut scenario = Scenario::without_policy(config, true);
        scenario.apply(policy);
        scenario
    }

    /// The same without a look through the table's books after each step: for whoever counts
    /// instructions.
    pub fn unchecked(mut self) -> Scenario {
        self.is_recounted = false;
        self
    }

    /// What it, or a fork of it, has kept so far, read as the next process would read it.
    pub fn reading(&self) -> SavedTable {
        self.read(&self.bytes_kept(), 0.0, Generation(u32::MAX))
    }

    /// What its table was laid out with.
    pub fn birth(&self) -> TableIdentity {
        *self.region.expect("a scenario that keeps").birth()
    }

    /// What it has kept so far.
    pub fn bytes_kept(&self) -> Vec<u8> {
        self.region.expect("a scenario that keeps").bytes()
    }

    fn read(&self, bytes: &[u8], down: f64, generation: Generation) -> SavedTable {
        let birth = self.birth();
        let belongs = ExpectedTable { set: birth.set, boot: birth.boot, generation };
        let now_ns = birth.epoch_ns + self.now_ns + (down * 1e9) as u64;
        restore::read(bytes, &belongs, now_ns).unwrap_or_default()
    }

    /// Ends without a word, and begins again so many seconds later under a configuration and a
    /// policy document, after `damage` was done to what was kept.
    pub fn restart(
        self,
        down: f64,
        (config, policy): (&str, &str),
        damage: impl FnOnce(&mut Vec<u8>),
    ) -> (Scenario, RestartOutcome) {
        let mut bytes = self.bytes_kept();
        damage(&mut bytes);
        let birth = self.birth();
        let tables = Tables { set: birth.set, files: Vec::new(), boot: birth.boot };
        let state = PersistedState::decode(&PersistedState::of(&self.committer, &tables).encode());
        let state = state.unwrap_or_else(|e| panic!("{e}"));
        let since = PreviousProcess { generation: state.last_generation(), zero_ns: birth.epoch_ns };
        let reading = self.read(&bytes, down, since.generation);

        let mut next = Scenario::without_policy(config, true);
        next.now_ns = self.now_ns + (down * 1e9) as u64;
        let config = parse_config(config, "config").unwrap_or_else(|e| panic!("{e}"));
        (next.committer, next.snapshot) =
            Committer::restored(config, AddressKey::PUBLIC, state).unwrap_or_else(|e| panic!("{e}"));
        next.apply(policy);
        let SavedTable { connections, expired, unverifiable } = reading;
        let read = connections.len();
        let taken_up = next.firewall.restore(connections, &since, &next.snapshot, next.now_ns);
        (next, RestartOutcome { read, expired, unverifiable, taken_up })
    }
}
