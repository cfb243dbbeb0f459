//! `explain`: the verdict on a packet, and why, under a policy file or by the running appliance. Both ask [`control::explain`].

use std::fmt::Write;
use std::process::ExitCode;

use control::api::types::{Explanation, Question, Side};
use control::commit::Committer;
use control::document::Parsed;
use control::explain::{ExplainError, ScratchFirewall};
use engine::io::Frame;

use crate::cli;
use crate::client;
use crate::failure::{Failure, print, warn};
use crate::input;
use crate::replay::capture::CaptureFile;
use crate::replay::frame::CapturedFrame;
use crate::replay::merge::Merged;

/// The command.
pub fn run(args: &cli::Explain) -> Result<ExitCode, Failure> {
    let question = question(args)?;
    let explanation = match &args.policy {
        Some(policy) => offline(args, policy, &question)?,
        None => client::explain(&args.client, &question)?,
    };
    match args.output {
        cli::Output::Json => {
            let json = serde_json::to_string(&explanation).map_err(Failure::runtime)?;
            print(&format!("{json}\n"), false);
        }
        cli::Output::Table => print(&text(&explanation), false),
    }
    Ok(ExitCode::SUCCESS)
}

/// What the command line asks.
fn question(args: &cli::Explain) -> Result<Question, Failure> {
    let from = args.from.map(|from| match from {
        cli::From::Inside => Side::Inside,
        cli::From::Outside => Side::Outside,
    });
    let mut question = Question {
        nic: args.nic.clone(),
        description: args.description.clone(),
        frame: args.packet.clone(),
        from,
        length: None,
        without_addresses: None,
        fresh: args.fresh,
    };
    if let Some(path) = &args.pcap {
        let file = CaptureFile::open(path).map_err(Failure::input)?;
        let packet = file.packet(args.index).map_err(Failure::input)?;
        let side =
            if args.from == Some(cli::From::Inside) { engine::Side::Inside } else { engine::Side::Outside };
        let frame = CapturedFrame::new(Merged { packet, side, at_ns: 0 });
        let mut bytes = vec![0; frame.captured()];
        frame.gather(&mut bytes);
        question.length = Some(frame.wire_len() as u32);
        question.without_addresses = frame.lacks_addresses().then_some(true);
        question.frame = Some(bytes.iter().fold(String::new(), |mut digits, byte| {
            // Writing to a text does not fail.
            let _ = write!(digits, "{byte:02x}");
            digits
        }));
    }
    Ok(question)
}

/// By the policy in a file.
fn offline(args: &cli::Explain, path: &std::path::Path, question: &Question) -> Result<Explanation, Failure> {
    let config = input::config(args.config.as_deref())?;
    let Parsed { policy, warnings, .. } = input::policy(path, &config)?;
    let bench = ScratchFirewall::new(&config, false);
    let mut committer = Committer::new(config);
    let snapshot = match committer.commit(policy, 0).map_err(Failure::runtime)? {
        Some(commit) => commit.snapshot,
        None => Box::new(committer.initial()),
    };
    let explanation = bench.explain(&committer, &snapshot, question).map_err(|error| {
        Failure::input(match &error {
            // As the command line names what is at fault.
            ExplainError::NoNic { .. } => format!("{}: {error}", path.display()),
            ExplainError::Frame(_) if args.packet.is_some() => {
                error.to_string().replacen("frame:", "--packet:", 1)
            }
            ExplainError::OtherNic { .. } => format!("--{error}"),
            _ => error.to_string(),
        })
    })?;
    // What ends in a fault is told by that alone.
    warnings.iter().for_each(warn);
    Ok(explanation)
}

/// As people read it.
fn text(explanation: &Explanation) -> String {
    let Explanation { verdict, reason, why, nearest, packet, .. } = explanation;
    let from = if explanation.from == Side::Inside { "inside" } else { "outside" };
    let direction = explanation.direction.as_deref().unwrap_or("none");
    let observed = if explanation.observed { " (observed: it would drop)" } else { "" };
    let rule = match (&explanation.rule, &explanation.rule_text) {
        (Some(rule), Some(text)) => {
            format!("{rule} ({}): {text}", explanation.rule_id.as_deref().unwrap_or("no id"))
        }
        (Some(rule), None) => rule.clone(),
        (None, _) => "none".to_owned(),
    };
    let mut lines = vec![
        format!("packet:    from {from}: {packet}"),
        format!("nic:       {}", explanation.nic.as_deref().unwrap_or("none")),
        format!("direction: {direction}"),
        format!("verdict:   {verdict}{observed}"),
        format!("reason:    {reason}: {why}"),
        format!("rule:      {rule}"),
    ];
    if let Some(staged) = &explanation.staged {
        lines.push(format!("staged:    {}", staged.in_words()));
    }
    if let Some(connection) = &explanation.connection {
        lines.push(format!("connection: {}", client::table::connection(connection)));
    }
    if matches!(reason.as_str(), "no-rule" | "denied") && nearest.is_empty() {
        lines.push(format!("nearest:   none: no {direction} rule of this NIC's groups allows anything"));
    }
    for near in nearest {
        let told: Vec<_> = near
            .found
            .iter()
            .map(|m| format!("{} (rule: {}, packet: {})", m.field, m.rule, m.packet))
            .collect();
        lines.push(format!(
            "nearest:   {} ({}): {}: does not fit in {}",
            near.rule,
            near.rule_id,
            near.rule_text,
            told.join(", ")
        ));
    }
    lines.push(String::new());
    lines.join("\n")
}
