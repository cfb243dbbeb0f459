//! `replay`: captures against a policy, on the captures' own clock, through the same firewall as the appliance's workers.

pub mod capture;
mod files;
mod flows;
pub mod frame;
pub mod merge;
mod order;
mod output;
mod sides;
mod summary;
mod telling;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use control::api::types::Staged;
use control::commit::Committer;
use control::config::Config;
use control::document::{Event, Parsed};
use control::explain::owner;
use engine::burst::{Batch, Firewall, FirewallConfig};
use engine::conntrack::Secret;
use engine::counters::{ConnectionCounts, EngineCounters};
use engine::held_frames::HeldFrames;
use engine::io::BURST;
use engine::packet::{Arrival, PacketMeta};
use engine::snapshot::Snapshot;
use engine::time::{TICK_NS, reached};
use engine::verdict::StagedVerdict;
use engine::verdict::Verdict;

use crate::cli;
use crate::failure::{Failure, warn};
use crate::input;
use capture::CaptureFile;
use flows::FlowFile;
use frame::CapturedFrame;
use merge::Merge;
use order::{InOrder, Told};
use output::{Names, Output};
use sides::Sides;
use telling::Telling;

/// The command.
pub fn run(args: &cli::Replay) -> Result<ExitCode, Failure> {
    let config = input::config(args.config.as_deref())?;
    let Parsed { policy, mut warnings, .. } = input::policy(&args.policy, &config)?;
    let events = match &args.events {
        Some(path) => input::events(path, &config)?,
        None => Vec::new(),
    };
    warnings.extend(events.iter().flat_map(|event| event.warnings.clone()));
    files::refuse_shared(args)?;
    let open =
        |path: &Option<PathBuf>| path.as_deref().map(CaptureFile::open).transpose().map_err(Failure::input);
    // Of a capture of both directions each packet's side is told as it is read.
    let first = if args.both.is_some() { &args.both } else { &args.inside };
    let (inside, outside) = (open(first)?, open(&args.outside)?);
    let merge = Merge::new(packets_of(&inside)?, packets_of(&outside)?).map_err(Failure::input)?;
    let output =
        Output::new(args.verdicts.as_deref(), args.pass_inside.as_deref(), args.pass_outside.as_deref())
            .map_err(Failure::runtime)?;
    let start_ns = merge.peek_ns().unwrap_or(0);
    let mut replay = Replay::new(config, policy, &merge, output, args)?;
    replay.trace(args, &events, start_ns)?;
    replay.play(merge, events)?;
    replay.end_flows()?;
    replay.output.finish().map_err(Failure::runtime)?;
    if let Some(telling) = &mut replay.telling {
        telling.finish(&replay.committer)?;
    }
    let has_stdout = replay.telling.as_ref().is_some_and(Telling::has_stdout);
    summary::print(&replay.output, &replay.committer, args.output, has_stdout);
    // What ends in a fault is told by that alone.
    warnings.iter().for_each(warn);
    Ok(ExitCode::SUCCESS)
}

fn packets_of(file: &Option<CaptureFile>) -> Result<Option<capture::Packets<'_>>, Failure> {
    file.as_ref().map(CaptureFile::packets).transpose().map_err(Failure::input)
}

/// Frames on their way through the firewall.
#[derive(Default)]
struct InHand<'a> {
    batch: Batch<CapturedFrame<'a>>,
    /// Fragments whose first has not come.
    held: HeldFrames<CapturedFrame<'a>>,
    order: InOrder<'a>,
}

/// One worker's firewall, with the policy and its changes beside it.
struct Replay {
    committer: Committer,
    snapshot: Box<Snapshot>,
    firewall: Firewall,
    /// Until then segments of older connections may open them: no batch goes beyond it.
    grace_end_ns: u64,
    output: Output,
    /// The flow log, where one is wanted.
    flows: Option<FlowFile>,
    /// Tells of single packets, where that is asked for.
    telling: Option<Telling>,
    /// Tells sides, where the capture is of both directions.
    sides: Option<Sides>,
}

impl Replay {
    fn new(
        mut config: Config,
        policy: control::model::Policy,
        merge: &Merge,
        output: Output,
        args: &cli::Replay,
    ) -> Result<Replay, Failure> {
        config.conntrack.count = args.flow_log.is_some();
        let start_ns = merge.peek_ns().unwrap_or(0);
        let grace_end_ns = start_ns.saturating_add(config.conntrack.pickup_grace.as_nanos() as u64);
        let firewall = FirewallConfig {
            shard: control::compile::shard_config(&config, 0, 1),
            // No secret: the same capture gives the same verdicts, even where a full table has to choose.
            secret: Secret::new([0x9E37_79B9_7F4A_7C15, 0xD1B5_4A32_D192_ED03]),
            grace_end_ns,
        };
        let mut firewall = Firewall::new(
            &firewall,
            Arc::new(EngineCounters::new()),
            Arc::new(ConnectionCounts::of_one_worker()),
        );
        let flows = args
            .flow_log
            .as_deref()
            .map(|path| FlowFile::create(path, args.flow_log_kind, &config, start_ns, &mut firewall));
        let flows = flows.transpose().map_err(unwritten)?;
        let committer = Committer::new(config);
        let snapshot = Box::new(committer.initial());
        let sides = args.both.is_some().then(Sides::default);
        let telling = None;
        let mut replay =
            Replay { committer, snapshot, firewall, grace_end_ns, output, flows, telling, sides };
        replay.commit(policy, start_ns)?;
        Ok(replay)
    }

    /// Has single packets told of from now on, if that is asked for.
    fn trace(&mut self, args: &cli::Replay, events: &[Event], start_ns: u64) -> Result<(), Failure> {
        let Some(mut telling) = Telling::new(args, &self.committer, start_ns)? else { return Ok(()) };
        telling.check(&self.committer, events.iter().map(|event| &event.policy))?;
        telling.begin(&self.committer, None);
        self.telling = Some(telling);
        Ok(())
    }

    fn commit(&mut self, policy: control::model::Policy, now_ns: u64) -> Result<(), Failure> {
        if let Some(commit) = self.committer.commit(policy, now_ns).map_err(Failure::runtime)? {
            self.snapshot = commit.snapshot;
            if let Some(telling) = &mut self.telling {
                telling.begin(&self.committer, Some(&commit.plan));
            }
        }
        if let Some(sides) = &mut self.sides {
            sides.know(self.committer.policy());
        }
        Ok(())
    }

    fn play(&mut self, mut merge: Merge<'_>, events: Vec<Event>) -> Result<(), Failure> {
        let mut events = events.into_iter().peekable();
        let mut hand = InHand::default();
        let mut begun_ns = 0;
        while let Some(next_ns) = merge.peek_ns() {
            let ends_grace = begun_ns < self.grace_end_ns && self.grace_end_ns <= next_ns;
            // Fragments held for a first are judged with its batch: soon after it.
            let is_long = next_ns.saturating_sub(begun_ns) > TICK_NS;
            if events.peek().is_some_and(|event| event.at_ns <= next_ns)
                || hand.batch.frames.len() == BURST
                || ends_grace
                || is_long
            {
                self.judge(&mut hand)?;
            }
            while let Some(event) = events.next_if(|event| event.at_ns <= next_ns) {
                self.end_waits(&mut hand, event.at_ns)?;
                self.commit(event.policy, event.at_ns)?;
            }
            self.end_waits(&mut hand, next_ns)?;
            if self.flows.as_ref().is_some_and(|flows| flows.interval_end_ns() <= next_ns) {
                self.judge(&mut hand)?;
                self.end_interval(Some(next_ns))?;
            }
            let Some(merged) = merge.next().map_err(Failure::input)? else { break };
            let mut frame = CapturedFrame::new(merged);
            if hand.batch.frames.is_empty() {
                begun_ns = merged.at_ns;
                self.firewall.now(merged.at_ns);
                self.firewall.begin(&self.snapshot);
            }
            if let [pkt] = hand.batch.pkts.grow(1) {
                self.read(&mut frame, pkt);
            }
            hand.batch.frames.push(frame);
        }
        self.judge(&mut hand)?;
        // The first fragments that these wait for are in no capture.
        self.firewall.fragment_queue_mut().release_all();
        self.take_up(&mut hand)?;
        for event in events {
            self.commit(event.policy, event.at_ns)?;
        }
        Ok(())
    }

    /// Reads a frame into its packet metadata. What its capture does not tell, its side or its Ethernet source, is
    /// found out by a first reading and told in a second.
    #[inline]
    fn read(&mut self, frame: &mut CapturedFrame<'_>, pkt: &mut PacketMeta) {
        let now = self.firewall.now(frame.merged.at_ns);
        let mut arrival = Arrival { side: frame.merged.side, wire: 0, tunnels: self.snapshot.tunnels, now };
        self.firewall.read_into(frame, &arrival, pkt);
        if self.sides.is_none() && !frame.lacks_addresses() {
            return;
        }
        if let Some(sides) = &self.sides {
            arrival.side = sides.of(&self.snapshot, pkt, frame);
            frame.merged.side = arrival.side;
        }
        if frame.lacks_addresses()
            && let Some(mac) = owner::source_mac(&self.snapshot, pkt, |at| frame.byte(at))
        {
            frame.set_source(mac);
        }
        self.firewall.read_into(frame, &arrival, pkt);
    }

    /// Fragments whose time is over by then wait no more.
    #[inline]
    fn end_waits<'a>(&mut self, hand: &mut InHand<'a>, at_ns: u64) -> Result<(), Failure> {
        let Some(deadline) = self.firewall.fragment_queue().next_deadline() else { return Ok(()) };
        let tick = self.firewall.now(at_ns).tick;
        if !reached(tick, deadline) {
            return Ok(());
        }
        // What came before comes before.
        self.judge(hand)?;
        self.firewall.fragment_queue_mut().expire(tick);
        self.take_up(hand)
    }

    /// Judges what is in hand, and what has waited for it.
    fn judge<'a>(&mut self, hand: &mut InHand<'a>) -> Result<(), Failure> {
        if hand.batch.frames.is_empty() {
            return Ok(());
        }
        self.judge_batch(hand)?;
        self.take_up(hand)
    }

    /// Judges fragments that wait no more.
    fn take_up<'a>(&mut self, hand: &mut InHand<'a>) -> Result<(), Failure> {
        while self.firewall.fragment_queue().has_released() {
            self.firewall.begin(&self.snapshot);
            let now = self.firewall.now(0);
            while hand.batch.frames.len() < BURST
                && let Some((frame, pkt, _)) =
                    self.firewall.next_released(&self.snapshot, &mut hand.held, now)
            {
                hand.batch.push(frame, pkt);
            }
            self.judge_batch(hand)?;
        }
        Ok(())
    }

    fn judge_batch<'a>(&mut self, hand: &mut InHand<'a>) -> Result<(), Failure> {
        let InHand { batch, held, order } = hand;
        self.firewall.judge(&self.snapshot, batch);
        if let Some(telling) = &mut self.telling {
            telling.note(&mut self.firewall, &self.snapshot, batch).map_err(unwritten)?;
        }
        let mut tickets = batch.tickets.iter();
        let mut staged = batch.staged.iter().peekable();
        for (place, ((mut frame, pkt), verdict)) in
            batch.frames.drain(..).zip(batch.pkts.iter()).zip(batch.verdicts.iter()).enumerate()
        {
            let staged_verdict =
                staged.next_if(|(at, _)| *at == place).map(|(_, staged_verdict)| staged_verdict);
            if !verdict.held {
                self.tell(frame, (verdict, staged_verdict), order)?;
            } else if let Some(ticket) = tickets.next() {
                frame.number = Some(order.push(frame.merged, None));
                held.keep(*ticket, frame, pkt.clone());
            }
        }
        let now = batch.pkts.last().map(|pkt| pkt.now).unwrap_or_default();
        batch.clear();
        self.firewall.upkeep(&self.snapshot, now, false);
        match &mut self.flows {
            Some(flows) => flows.take(&self.committer).map_err(unwritten),
            None => Ok(()),
        }
    }

    /// An interval of the flow log, or all of it, is over.
    fn end_interval(&mut self, at_ns: Option<u64>) -> Result<(), Failure> {
        let Replay { flows, firewall, snapshot, committer, .. } = self;
        let Some(flows) = flows else { return Ok(()) };
        flows.end_interval(at_ns, firewall, snapshot, committer).map_err(unwritten)
    }

    /// What lasts is told as it stands after the last packet and the last change.
    fn end_flows(&mut self) -> Result<(), Failure> {
        self.firewall.begin(&self.snapshot);
        let now = self.firewall.now(0);
        // In slices: what is told in each has room in the ring.
        while !self.firewall.settle_some(&self.snapshot, now) {
            self.end_interval(None)?;
        }
        self.end_interval(None)?;
        self.flows.as_mut().map_or(Ok(()), FlowFile::finish).map_err(unwritten)
    }

    /// Writes a verdict in its place.
    #[inline]
    fn tell<'a>(
        &mut self,
        frame: CapturedFrame<'a>,
        (verdict, staged_verdict): (&Verdict, Option<&StagedVerdict>),
        order: &mut InOrder<'a>,
    ) -> Result<(), Failure> {
        let (mut nic, mut rule, mut staged) = (None, None, None);
        let compiler = self.committer.compiler();
        if let Some(staged_verdict) = staged_verdict {
            self.output.stage(staged_verdict);
            staged = compiler.rule(staged_verdict.rule).map(|rule| Staged::of(staged_verdict, rule));
        }
        if self.output.wants_lines() {
            nic = self.committer.nic_name(verdict.nic);
            rule = verdict.rule.get().and_then(|rule| compiler.rule(rule));
        }
        if order.is_empty() {
            let names = Names { nic: nic.as_deref(), rule, staged: staged.as_ref() };
            let written = self.output.packet(&frame.merged.packet, frame.merged.side, verdict, &names);
            return written.map_err(unwritten);
        }
        let told = Told { verdict: *verdict, nic, rule: rule.cloned(), staged };
        match frame.number {
            Some(number) => order.settle(number, frame.merged, told),
            None => drop(order.push(frame.merged, Some(told))),
        }
        while let Some((merged, Told { verdict, nic, rule, staged })) = order.next() {
            let names = Names { nic: nic.as_deref(), rule: rule.as_ref(), staged: staged.as_ref() };
            self.output.packet(&merged.packet, merged.side, &verdict, &names).map_err(unwritten)?;
        }
        Ok(())
    }
}

/// A file that cannot hold what it is to hold is bad input; one that cannot be written is not.
fn unwritten(error: std::io::Error) -> Failure {
    match error.kind() {
        std::io::ErrorKind::InvalidInput => Failure::input(error),
        _ => Failure::runtime(error),
    }
}
