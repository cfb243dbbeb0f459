//! `advise`: rules that could go, or could let in less.

use std::fmt::Write;
use std::process::ExitCode;

use control::api::types::{Advice, Advised, Replayed, Seen, Suggestion};
use hyper::Method;

use super::http::{encoded, request};
use super::packets::moment;
use super::table::moment as date;
use super::{parsed, print_answer};
use crate::cli;
use crate::failure::{Failure, print};

/// `advise`
pub fn advise(args: &cli::Advise) -> Result<ExitCode, Failure> {
    let since =
        moment(&args.since).map_err(|failure| failure.reworded(|text| text.replace("--at:", "--since:")))?;
    let mut target = format!("/v1/advice?limit={}&since={since}", args.limit);
    if let Some(bad) = args.groups.iter().find(|name| name.contains('#')) {
        return Err(Failure::input(format!("{bad:?} is no name of a group; allowed: NAME or PROJECT/NAME")));
    }
    if !args.groups.is_empty() {
        // No name has one.
        target += &format!("&groups={}", encoded(&args.groups.join("#")));
    }
    if args.document {
        target += "&document=true";
    }
    let body = request(&args.client, Method::GET, &target, Vec::new())?.success()?;
    if args.document {
        print(&parsed::<Advice>(&body)?.document.unwrap_or_default(), false);
        return Ok(ExitCode::SUCCESS);
    }
    print_answer(&body, args.output, |body| Ok(text(&parsed::<Advice>(body)?)))
}

/// For people.
fn text(advice: &Advice) -> String {
    let mut text = seen(&advice.seen);
    for suggestion in &advice.suggestions {
        text.push('\n');
        suggested(suggestion, &mut text);
    }
    // Writing to a text does not fail.
    let _ = match advice.suggestions.len() {
        0 => writeln!(text, "\nnothing to suggest"),
        count => {
            let safe = advice.suggestions.iter().filter(|suggestion| suggestion.safe).count();
            writeln!(
                text,
                "\n{count} suggestions; the {safe} safe ones together: {}",
                replayed(&advice.together)
            )
        }
    };
    if advice.more {
        text += "there may be more: --limit, or ask again when these are made\n";
    }
    let since = date(advice.watched_since);
    if advice.too_young > 0 {
        let _ = writeln!(
            text,
            "{} idle rules are left out: they are counted since after {since} (--since)",
            advice.too_young
        );
    }
    if advice.too_briefly_seen > 0 {
        let _ = writeln!(
            text,
            "{} rules that may be too broad are left out: what is known of their traffic begins after {since} (--since)",
            advice.too_briefly_seen
        );
    }
    text
}

/// What all of it rests on.
fn seen(seen: &Seen) -> String {
    let mut text = format!(
        "seen: {} connections that opened and {} that were refused since {} UTC, and {} that live\n",
        seen.opened,
        seen.refused,
        date(seen.since),
        seen.live
    );
    let _ = writeln!(
        text,
        "the history has {} of at most {} decisions; what it has not is not known",
        seen.kept, seen.most
    );
    if let Some(at) = seen.lost_at {
        let _ =
            writeln!(text, "{} decisions were lost on their way to it, the last {} UTC", seen.lost, date(at));
    }
    if seen.left_out > 0 {
        let _ = writeln!(
            text,
            "{} openings were not looked at, for want of room: nothing is called safe",
            seen.left_out
        );
    }
    text
}

fn suggested(suggestion: &Suggestion, text: &mut String) {
    let kind = match suggestion.kind {
        Advised::Shadowed => "shadowed",
        Advised::Redundant => "redundant",
        Advised::OverBroad => "over-broad",
        Advised::NeverHit => "never hit",
        Advised::NoMembers => "no members",
    };
    let Suggestion { group, why, flushes, command, .. } = suggestion;
    let _ = match (&suggestion.rule, &suggestion.rule_id, &suggestion.rule_text) {
        (Some(rule), Some(id), Some(says)) => writeln!(text, "{kind}: {rule} ({id}): {says}"),
        _ => writeln!(text, "{kind}: group {group}"),
    };
    let _ = writeln!(text, "  why: {why}");
    for decider in &suggestion.by {
        let _ = writeln!(text, "  by: {} ({})", decider.rule, decider.rule_id);
    }
    for narrow in &suggestion.narrow {
        let _ = writeln!(text, "  instead: {narrow}");
    }
    let safe = if suggestion.safe { "" } else { ": NOT SAFE" };
    let _ = writeln!(text, "  replayed: {}{safe}", replayed(&suggestion.replayed));
    if suggestion.loosens {
        *text += "  it denies: without it more may pass than was seen\n";
    }
    let _ = writeln!(text, "  flushes: {flushes} NICs; --dry-run names the connections");
    let _ = writeln!(text, "  do: {command}");
    for staged in &suggestion.trial {
        let _ = writeln!(text, "  or first, on trial: {staged}");
    }
}

fn replayed(replayed: &Replayed) -> String {
    format!(
        "would deny {} of {} opened and {} live connections, and let open {} refused ones",
        replayed.would_deny, replayed.opened, replayed.live, replayed.would_pass
    )
}
