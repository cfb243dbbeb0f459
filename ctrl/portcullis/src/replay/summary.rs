//! What a replay comes to: packets by reason, and what staged rules would have decided.

use std::collections::BTreeMap;

use control::api::types::Would;
use control::commit::Committer;
use control::compile::NamedRule;
use serde_json::{Map, json};

use super::output::Output;
use crate::cli;

/// Prints it where the verdict lines are not.
pub fn print(output: &Output, committer: &Committer, format: cli::Output, has_stdout: bool) {
    let (passed, dropped) = (output.passed, output.dropped);
    let staged = staged(output, committer);
    let text = match format {
        cli::Output::Json => {
            let reasons: Map<_, _> =
                output.counts().map(|(reason, count)| (reason.name().to_owned(), count.into())).collect();
            let packets = json!({ "in": passed + dropped, "pass": passed, "drop": dropped });
            let mut summary = json!({ "packets": packets, "reasons": reasons });
            if !staged.is_empty() {
                let rule = |(rule, would): &(NamedRule, Would)| json!({ "rule": &*rule.name, "rule_id": rule.identity.to_string(), "would": would });
                summary["staged"] = staged.iter().map(rule).collect();
            }
            format!("{summary}\n")
        }
        cli::Output::Table => {
            let lines = output.counts().map(|(reason, count)| format!("{:<20} {count}\n", reason.name()));
            let head = format!("packets: {} in, {passed} passed, {dropped} dropped\n", passed + dropped);
            std::iter::once(head).chain(lines).chain(staged.iter().map(line)).collect()
        }
    };
    crate::failure::print(&text, has_stdout || output.has_stdout());
}

fn line((rule, would): &(NamedRule, Would)) -> String {
    format!(
        "staged: {} ({}) would pass {} ({} of them dropped) and drop {} ({} of them passed)\n",
        rule.name, rule.identity, would.pass, would.pass_dropped, would.drop, would.drop_passed
    )
}

/// The staged rules that would have decided, and all of the last policy, each where it last stood.
fn staged(output: &Output, committer: &Committer) -> Vec<(NamedRule, Would)> {
    let (policy, numbers) = (committer.policy(), committer.compiler().numbers());
    let rules = policy.security_groups.iter().flat_map(|(key, group)| {
        group.rules.iter().filter(|rule| rule.staged).map(move |rule| (key, rule.meaning()))
    });
    let mut all: BTreeMap<_, _> =
        rules.filter_map(|(key, meaning)| Some((numbers.of(key, &meaning)?, Would::default()))).collect();
    all.extend(output.staged.iter().map(|(rule, would)| (*rule, *would)));
    all.into_iter()
        .filter_map(|(rule, would)| Some((committer.compiler().rule(rule)?.clone(), would)))
        .collect()
}
