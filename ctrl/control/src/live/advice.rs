//! What is known of the traffic, gathered for advice about rules.

use std::collections::{HashMap, HashSet};
use std::time::{SystemTime, UNIX_EPOCH};

use engine::{NicSlot, Reason};

use super::connections::is_live;
use super::locking::block_in_place;
use super::{Live, WorkerTimeout};
use crate::advise::{AdviceRequest, Evidence, ObservedOpenings, RuleUse, advise};
use crate::api::types;
use crate::model::Key;

impl Live {
    /// Suggestions about rules, each tried on what was seen. One at a time: each takes memory for what it looks at.
    pub async fn advise(&self, asked: &AdviceRequest) -> Result<types::Advice, WorkerTimeout> {
        let _turn = self.shared.advising.lock().await;
        let (mut seen, mut told, mut held_by) =
            (ObservedOpenings::default(), types::Seen::default(), HashSet::new());
        self.scan(|inner, connections, _, _| {
            let snapshot = inner.publisher.current();
            for connection in connections.iter().filter(|c| is_live(c, snapshot) == Some(true)) {
                let binding = snapshot.binding(connection.entry.addr);
                seen.hold(binding.nic, connection);
                held_by.extend(connection.entry.rule().get());
                told.live += 1;
            }
        })
        .await?;
        // What workers have told by now is in the history.
        block_in_place(|| self.trace().drain());
        let advice = block_in_place(|| {
            let (committer, counters, rules_since) = {
                let inner = self.inner();
                let counters: Vec<_> = inner.workers.iter().map(|worker| worker.counters.clone()).collect();
                (inner.committer.clone(), counters, inner.rules_since.clone())
            };
            let mut told_by: HashMap<_, u64> = HashMap::new();
            let mut places: HashMap<_, Option<NicSlot>> = HashMap::new();
            let reach = self.trace().each_decision(|decision| {
                let Some(name) = &decision.nic else { return };
                let place = places.entry(name.clone());
                let place = place.or_insert_with(|| committer.nic_slot(&Key::parse(name)?));
                let Some(nic) = *place else { return };
                match seen.tell(nic, &decision.record) {
                    Some(true) => told.opened += 1,
                    Some(false) => told.refused += 1,
                    None => return,
                }
                if decision.record.reason == Reason::New
                    && let Some(rule) = decision.record.rule.get()
                {
                    *told_by.entry(rule).or_default() += 1;
                }
            });
            let seconds = |ns: u64| ns as f64 / 1e9;
            told.since = seconds(reach.since_ns);
            (told.kept, told.most, told.lost) = (reach.kept, reach.most, reach.lost);
            told.lost_at = (reach.lost != 0).then(|| seconds(reach.lost_ns));
            let numbers = committer.compiler().numbers();
            let did = |rule: engine::RuleId| RuleUse {
                since: rules_since.get(rule.0 as usize).copied(),
                opened: counters.iter().map(|counters| counters.rules.opened(rule)).sum(),
                denied: counters.iter().map(|counters| counters.rules.denied(rule)).sum(),
            };
            let number = |key: &Key, meaning: &crate::model::Meaning| numbers.of(key, meaning);
            let evidence = Evidence { seen, told, number: &number, did: &did, told_by, held_by };
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
            advise(&committer, evidence, asked, now)
        });
        Ok(advice)
    }
}
