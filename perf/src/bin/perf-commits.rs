//! Changes while packets are forwarded at full rate: what must hold, and how long it takes. A
//! table, or JSON with `--json`. Exit status 1 if something does not hold that must; times are
//! told, not judged.

use std::{error::Error, path::PathBuf, process::ExitCode, time::Duration};

use clap::{Parser, Subcommand};
use perf::commits::{
    preview,
    report::{Report, bare_fsync},
    rig::Setup,
    scale, storm, undo, wholesale,
    world::Size,
};

#[derive(Parser)]
#[command(about = "Changes of the policy under fire: correctness, and times")]
struct Arguments {
    /// One JSON object instead of a table.
    #[arg(long, global = true)]
    json: bool,
    /// Where the store is made, in a directory of its own [default: the directory for temporary
    /// files].
    #[arg(long, global = true)]
    directory: Option<PathBuf>,
    /// Do not pin the worker to a core of its own.
    #[arg(long, global = true)]
    share: bool,
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// Random changes; whatever they take away is tried before, meanwhile and afterwards.
    Storm {
        #[arg(long, default_value_t = 10_000)]
        commits: u32,
        #[arg(long, default_value_t = Size::FULL.nics)]
        nics: u32,
        #[arg(long, default_value_t = Size::FULL.groups)]
        groups: u32,
        #[arg(long, default_value_t = 1)]
        seed: u64,
    },
    /// 10,000 NICs, 2,000 groups, 100,000 rules.
    Scale {
        /// Every NIC with an ordered set of groups of its own: 10,000 sets of rules.
        #[arg(long)]
        sets: bool,
        #[arg(long, default_value_t = 200)]
        edits: u32,
        #[arg(long, default_value_t = 20)]
        moves: u32,
    },
    /// A bad change, and its rollback.
    Undo {
        #[arg(long, default_value_t = 100_000)]
        connections: u32,
    },
    /// All NICs come, go, and are brought back.
    Wholesale {
        #[arg(long, default_value_t = 100_000)]
        nics: u32,
    },
    /// A dry run.
    Preview {
        #[arg(long, default_value_t = 1_000_000)]
        connections: u32,
        #[arg(long, default_value_t = 5)]
        rounds: u32,
    },
}

fn main() -> Result<ExitCode, Box<dyn Error>> {
    let Arguments { json, directory, share, what } = Arguments::parse();
    let mut builder = tempfile::Builder::new();
    let builder = builder.prefix("perf-commits-");
    let directory = match directory {
        Some(parent) => builder.tempdir_in(parent)?,
        None => builder.tempdir()?,
    };
    let setup = |capacity| Setup { capacity, pinned: !share };
    let fsync = bare_fsync(directory.path(), 1000)?;
    let mut report = Report::default();
    report.spread("bare fsync, us", &fsync, 1e3);
    let holds = match what {
        What::Storm { commits, nics, groups, seed } => {
            let size = Size { nics, groups, ..Size::FULL };
            let plan = storm::Plan {
                commits,
                size,
                subjects: 64,
                flows: (10_000, 10),
                calm: Duration::from_secs(5),
                seed,
                setup: setup(1 << 20),
            };
            let outcome = storm::run(&plan, directory.path());
            let target = 5e6 + 2.0 * fsync.value_at_quantile(0.99) as f64;
            report.row("target of receipts' p99, us", (target / 1e3).round());
            told_storm(&mut report, &outcome);
            outcome.passed_late == 0 && outcome.held_up == 0 && outcome.flows.1 == 0
        }
        What::Scale { sets, edits, moves } => {
            let calm = Duration::from_secs(5);
            let size = Size { own_sets: sets, ..Size::FULL };
            let plan = scale::Plan { size, edits, moves, flows: 10_000, calm, setup: setup(1 << 20) };
            let outcome = scale::run(&plan, directory.path());
            told_scale(&mut report, &outcome);
            outcome.flows.1 == 0
        }
        What::Undo { connections } => {
            let size = Size { nics: 1000, groups: 100, rules: 20, own_sets: false };
            let outcome =
                undo::run(&undo::Plan { size, connections, setup: setup(1 << 20) }, directory.path());
            told_undo(&mut report, &outcome);
            outcome.forbidden_passed == 0
                && outcome.passed[1] == 0
                && outcome.passed[2] as f64 >= 0.999 * outcome.connections[1] as f64
        }
        What::Wholesale { nics } => {
            let outcome = wholesale::run(nics);
            report.ms("all NICs come", outcome.apply);
            report.ms("all go", outcome.delete);
            report.ms("rolled back: all are who they were", outcome.rollback);
            report.ms("each gets another address", outcome.readdress);
            report.ms("rolled back: each has its address", outcome.rollback_addresses);
            true
        }
        What::Preview { connections, rounds } => {
            let calm = Duration::from_secs(3);
            let setup = setup(connections.saturating_mul(2));
            let plan = preview::Plan { size: Size::FULL, connections, rounds, calm, setup };
            let rounds = preview::run(&plan, directory.path());
            for (number, round) in (1..).zip(&rounds) {
                told_preview(&mut report, number, round);
            }
            rounds.iter().all(|round| round.disconnected == u64::from(connections))
        }
    };
    report.row("holds", holds);
    if json {
        println!("{}", report.json());
    } else {
        print!("{}", report.table());
    }
    Ok(if holds { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn told_storm(report: &mut Report, outcome: &storm::Outcome) {
    report.row("commits", outcome.commits);
    report.row("of these, rollbacks", outcome.rollbacks);
    report.row("permissions taken, each tried", outcome.taken);
    report.row("permissions given, each tried", outcome.given);
    report.row("packets on taken permissions, passed before the receipt", outcome.passed_in_time);
    report.row("the same, tried first after the receipt", outcome.tried_late);
    report.row("the same, passed after the receipt", outcome.passed_late);
    report.row("given permissions that held a packet up", outcome.held_up);
    report.row("packets of untouched connections", outcome.flows.0);
    report.row("of these, lost", outcome.flows.1);
    report.spread("receipt, us", &outcome.receipts, 1e3);
    for (kind, receipts) in &outcome.by_kind {
        report.spread(&format!("receipt, {kind}, us"), receipts, 1e3);
    }
    report.spread("begin to publication, us", &outcome.published_us, 1.0);
    report.spread("publication to acknowledgement, us", &outcome.acknowledged_us, 1.0);
    report.lap("without changes", &outcome.laps[0]);
    report.lap("with changes", &outcome.laps[1]);
}

fn told_scale(report: &mut Report, outcome: &scale::Outcome) {
    report.row("document, bytes", outcome.document);
    report.ms("document read", outcome.load.0);
    report.ms("document applied to an empty appliance", outcome.load.1);
    report.spread("one rule, receipt, us", &outcome.one_rule, 1e3);
    report.spread("one rule, begin to publication, us", &outcome.published_us, 1.0);
    report.spread("one rule, publication to acknowledgement, us", &outcome.acknowledged_us, 1.0);
    report.ms("whole document with one rule changed, read", outcome.whole.0);
    report.ms("whole document with one rule changed, applied", outcome.whole.1);
    report.spread("member of the largest group, receipt, us", &outcome.members, 1e3);
    report.row("NICs flushed by that", outcome.flushed);
    let [first, policy, last] = outcome.resident_mb;
    report.row("memory before the policy, MB", first);
    report.row("memory with the policy, MB", policy);
    report.row("memory at the end, frames included, MB", last);
    report.row("packets of untouched connections", outcome.flows.0);
    report.row("of these, lost", outcome.flows.1);
    report.lap("without changes", &outcome.laps[0]);
    report.lap("with changes of one rule", &outcome.laps[1]);
}

fn told_undo(report: &mut Report, outcome: &undo::Outcome) {
    report.row("connections that an earlier change forbids", outcome.connections[0]);
    report.row("other connections", outcome.connections[1]);
    report.row("others, passed before the bad change", outcome.passed[0]);
    report.row("others, passed under the bad change", outcome.passed[1]);
    report.row("others, passed after its rollback", outcome.passed[2]);
    report.row("packets of the forbidden that passed", outcome.forbidden_passed);
    report.ms("bad change, receipt", outcome.changes[0]);
    report.ms("rollback, receipt", outcome.changes[1]);
    report.ms("from receipt to receipt", outcome.bad_for);
}

fn told_preview(report: &mut Report, number: u32, round: &preview::Round) {
    report.ms(&format!("dry run {number}"), round.took);
    report.row(&format!("dry run {number}: disconnected by it"), round.disconnected);
    for (when, lap) in ["before", "during"].into_iter().zip(&round.laps) {
        report.lap(&format!("dry run {number}, {when} it"), lap);
    }
}
