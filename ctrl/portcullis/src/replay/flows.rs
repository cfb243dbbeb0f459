//! The flow log of a replay: the appliance's records, on the captures' clock, into one file. Nothing is lost here: who reads captures can
//! wait for a disk.

use std::io::{self, Write};
use std::path::Path;
use std::sync::Arc;

use control::commit::Committer;
use control::compile::NamedRule;
use control::config::Config;
use engine::burst::Firewall;
use engine::conntrack::flow_accounting::{FlowEvent, FlowRequests};
use engine::ring::{Consumer, ring};
use engine::snapshot::Snapshot;
use engine::{NicSlot, RuleId};

use super::output::Pending;
use crate::cli::FlowLines;
use crate::flow::gather::FlowCollector;
use crate::flow::lines;
use crate::flow::record::{NameSource, Record};

/// Tellings that wait to be taken: more than one batch of packets can make.
const RING: usize = 1 << 16;
/// Seconds of aggregation where no flow log of the configuration says otherwise.
const INTERVAL: u64 = 60;

/// Names as the policy has them.
pub struct OfPolicy<'c>(pub &'c Committer);

impl NameSource for OfPolicy<'_> {
    fn nic(&mut self, nic: NicSlot) -> Option<Arc<str>> {
        self.0.nic_name(nic)
    }

    fn rule(&mut self, rule: RuleId) -> Option<NamedRule> {
        self.0.compiler().rule(rule).cloned()
    }
}

/// The file, and what goes into it.
pub struct FlowFile {
    pending: Pending,
    put: fn(&Record, &mut String),
    gatherer: FlowCollector,
    ring: Consumer<FlowEvent>,
    text: String,
}

impl FlowFile {
    /// From the moment of the first packet on; the firewall tells it of connections.
    pub fn create(
        path: &Path,
        form: FlowLines,
        config: &Config,
        start_ns: u64,
        firewall: &mut Firewall,
    ) -> io::Result<FlowFile> {
        let interval = config.flow_logs.first().map_or(INTERVAL, |log| log.interval.as_secs());
        let (tellings, ring) = ring(RING);
        firewall.export_flows_to(tellings, Arc::new(FlowRequests::default()));
        Ok(FlowFile {
            pending: Pending::create(path)?,
            put: if form == FlowLines::Json { lines::json } else { lines::aws },
            gatherer: FlowCollector::new(&[interval * 1_000_000_000], start_ns),
            ring,
            text: String::new(),
        })
    }

    /// When the present interval ends.
    pub fn interval_end_ns(&self) -> u64 {
        self.gatherer.next_end_ns()
    }

    /// Takes what the firewall has told, and writes what is due.
    pub fn take(&mut self, committer: &Committer) -> io::Result<()> {
        let (gatherer, names) = (&mut self.gatherer, &mut OfPolicy(committer));
        self.ring.take(usize::MAX, |told| gatherer.take_up(&told, 0, names));
        self.text.clear();
        let (text, put) = (&mut self.text, self.put);
        gatherer.take(|_, records, _| records.iter().for_each(|record| put(record, text)));
        self.pending.writer.write_all(self.text.as_bytes())
    }

    /// The present interval, or the whole replay, is over: what lasts is told, and what was refused.
    pub fn end_interval(
        &mut self,
        at_ns: Option<u64>,
        firewall: &mut Firewall,
        snapshot: &Snapshot,
        committer: &Committer,
    ) -> io::Result<()> {
        while !firewall.export_all_flows(snapshot) {
            self.take(committer)?;
        }
        self.take(committer)?;
        match at_ns {
            Some(at_ns) => self.gatherer.end_intervals(at_ns, &mut OfPolicy(committer)),
            None => self.gatherer.end(&mut OfPolicy(committer)),
        }
        self.take(committer)
    }

    /// Puts the file in its place.
    pub fn finish(&mut self) -> io::Result<()> {
        self.pending.finish()
    }
}
