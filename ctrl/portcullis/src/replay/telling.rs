//! `replay --trace`, `--capture` and `--why`: what workers tell the running appliance of packets, told here of captures. The recorder
//! and its rings are the same; they are emptied behind every batch, so that nothing is ever lost.

use std::io::{self, Write};
use std::path::Path;
use std::sync::Arc;

use control::api::types::Whys;
use control::commit::Committer;
use control::model::Policy;
use control::plan::Plan;
use control::trace::pcapng::{self, Interface};
use control::trace::{
    Change, Changes, Decision, DecisionText, Event, History, NameTable, TupleFilter, WatchRequest, whys,
};
use engine::NicSlot;
use engine::burst::{Batch, Firewall};
use engine::io::BURST;
use engine::snapshot::Snapshot;
use engine::trace::{
    DecisionReader, DecisionWriter, MAX_SNAPLEN, Recorder, WatchReader, chunks_for, decisions, watch_set,
};

use super::frame::CapturedFrame;
use super::output::{Pending, Verdicts};
use crate::cli;
use crate::client::{as_option, moment, told};
use crate::failure::Failure;

/// Decisions about one packet that are kept.
const KEPT: usize = 10_000;

/// What is told, and where it goes.
pub struct Telling {
    recorder: Recorder,
    wishes: Vec<WatchRequest>,
    read: Option<WatchReader>,
    decided: Option<DecisionReader>,
    trace: Verdicts,
    capture: Option<Pending>,
    asked: Option<(TupleFilter, Option<u64>)>,
    history: History,
    names: NameTable,
    changes: Changes,
    /// How the answer is printed.
    output: cli::Output,
}

impl Telling {
    /// What the command line asks for, if it asks for any of it. Names must be those of one of these policies.
    pub fn new(args: &cli::Replay, committer: &Committer, start_ns: u64) -> Result<Option<Telling>, Failure> {
        let refused = |text: String| Failure::input(as_option(text));
        if args.trace.is_none() && args.capture.is_none() && args.why.is_none() {
            return match args.packets.is_open() {
                true => Ok(None),
                false => {
                    Err(Failure::input("a filter of packets is given; required beside: --trace or --capture"))
                }
            };
        }
        let asked = args.packets.asked();
        let wish = |captures| WatchRequest::read(&asked, captures).map_err(|error| refused(error.0));
        let wishes = [args.trace.as_ref().map(|_| wish(false)), args.capture.as_ref().map(|_| wish(true))];
        let wishes: Vec<WatchRequest> = wishes.into_iter().flatten().collect::<Result<_, _>>()?;
        let tuple = args.why.as_deref().map(TupleFilter::read).transpose();
        let tuple = tuple.map_err(|error| Failure::input(format!("--why: {error}")))?;
        let at = args.at.as_deref().map(moment).transpose()?;
        let at = at.and_then(|at| at.parse::<f64>().ok()).map(|seconds| (seconds * 1e9) as u64);
        let (told, decided) = tuple.is_some().then(|| decisions(2 * BURST, u32::MAX)).unzip();
        let mut capture =
            args.capture.as_deref().map(Pending::create).transpose().map_err(Failure::runtime)?;
        if let Some(capture) = &mut capture {
            let mut first = Vec::new();
            pcapng::begin(&mut first, &interfaces(args), MAX_SNAPLEN);
            capture.write_all(&first).map_err(Failure::runtime)?;
        }
        Ok(Some(Telling {
            recorder: Recorder::new(told as Option<DecisionWriter>),
            wishes,
            read: None,
            decided,
            trace: Verdicts::create(args.trace.as_deref()).map_err(Failure::runtime)?,
            capture,
            asked: tuple.map(|tuple| (tuple, at)),
            history: History::new(KEPT, start_ns),
            names: NameTable::of(committer),
            changes: Changes::default(),
            output: args.output,
        }))
    }

    /// Refuses a name that neither the first policy has nor one of those to come.
    pub fn check<'p>(
        &self,
        committer: &Committer,
        events: impl Iterator<Item = &'p Policy> + Clone,
    ) -> Result<(), Failure> {
        let names = NameTable::of(committer);
        for wish in &self.wishes {
            let Err(first) = wish.check(&names) else { continue };
            if !events.clone().any(|policy| wish.check(&names.with_policy(policy)).is_ok()) {
                return Err(Failure::input(as_option(first.0)));
            }
        }
        Ok(())
    }

    /// True if it takes standard output.
    pub fn has_stdout(&self) -> bool {
        self.trace.is_stdout() || self.asked.is_some()
    }

    /// A policy is in force from now on: the first, or an event's that does what its plan says.
    pub fn begin(&mut self, committer: &Committer, plan: Option<&Plan>) {
        self.names = NameTable::of(committer);
        // NICs that end leave no tombstone.
        let flushed = plan.into_iter().flat_map(|plan| &plan.flushed);
        let mut flushed: Box<[NicSlot]> = flushed.filter_map(|key| committer.nic_slot(key)).collect();
        flushed.sort_unstable();
        let by = if plan.is_some() { "--events" } else { "--policy" };
        let generation = committer.generation();
        self.changes.push(Change { generation, by: by.into(), back_to: None, flushed });
        if self.wishes.is_empty() {
            return;
        }
        let watches = self.wishes.iter().map(|wish| wish.watch(committer)).collect();
        let (watch_set, read) =
            watch_set(watches, MAX_SNAPLEN, 2 * BURST, BURST * (MAX_SNAPLEN as usize + 1));
        self.recorder.watch(Some(watch_set));
        self.read = Some(read);
    }

    /// Tells of a batch that was judged.
    pub fn note(
        &mut self,
        firewall: &mut Firewall,
        snapshot: &Snapshot,
        batch: &Batch<CapturedFrame<'_>>,
    ) -> io::Result<()> {
        self.recorder.record_burst(firewall, snapshot, batch);
        let Telling { read, decided, names, changes, history, asked, trace, capture, wishes, .. } = self;
        if let (Some(decided), Some((tuple, _))) = (decided, asked) {
            decided.records.take(usize::MAX, |record| {
                if tuple.fits(&record) {
                    history.push(Decision::new(record, 0, names, changes));
                }
            });
        }
        let Some(WatchReader { records, pieces, .. }) = read else { return Ok(()) };
        let (mut failed, mut line, mut block) = (Ok(()), String::new(), Vec::new());
        records.take(usize::MAX, |record| {
            let mut bytes = Vec::new();
            if let Some(pieces) = pieces {
                pieces.take(chunks_for(record.captured), |piece| bytes.extend(piece));
            }
            bytes.truncate(record.captured as usize);
            let decision = Decision::new(record, 0, names, changes);
            for (bit, wish) in wishes.iter().enumerate().filter(|(bit, _)| record.wanted >> bit & 1 != 0) {
                debug_assert!(bit < 2);
                if wish.captures.is_none() {
                    line.clear();
                    DecisionText::new(&decision, &names.policy).write_json(&mut line);
                    line.push('\n');
                    keep(&mut failed, trace.write_line(line.as_bytes()));
                } else if let Some(capture) = capture {
                    block.clear();
                    let event = Event { decision: decision.clone(), bytes: Arc::from(&*bytes) };
                    pcapng::event(&mut block, &event, &names.policy);
                    keep(&mut failed, capture.write_all(&block));
                }
            }
        });
        failed
    }

    /// Puts the files in their places, and prints the answer that was asked for.
    pub fn finish(&mut self, committer: &Committer) -> Result<(), Failure> {
        self.trace.finish().map_err(Failure::runtime)?;
        if let Some(capture) = &mut self.capture {
            capture.finish().map_err(Failure::runtime)?;
        }
        let Some((tuple, at)) = &self.asked else { return Ok(()) };
        let recalled = self.history.recall(tuple, *at, KEPT);
        let json = whys(&recalled, self.names.clone(), |generation| committer.policy_at(generation).ok());
        let text = match self.output {
            cli::Output::Json => format!("{json}\n"),
            cli::Output::Table => {
                let whys: Whys = serde_json::from_str(&json).map_err(Failure::runtime)?;
                told::decisions(&whys)
            }
        };
        crate::failure::print(&text, false);
        Ok(())
    }
}

/// The first of several results that failed.
fn keep(failed: &mut io::Result<()>, result: io::Result<()>) {
    if failed.is_ok() {
        *failed = result;
    }
}

/// The captures as interfaces, inside before outside; one of both directions is both.
fn interfaces(args: &cli::Replay) -> [Interface; 2] {
    let name = |path: &Option<std::path::PathBuf>| {
        let path = path.as_deref().or(args.both.as_deref()).unwrap_or(Path::new("none"));
        path.display().to_string()
    };
    [(name(&args.inside), "inside"), (name(&args.outside), "outside")]
        .map(|(name, side)| Interface { name, description: side.to_owned() })
}
