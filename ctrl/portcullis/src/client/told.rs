//! Verdicts on single packets, for people.

use std::fmt::Write;

use control::api::types::{Told, Whys};

/// Seconds since 1970 as a time of day, or with its date, UTC.
fn moment(seconds: f64, format: &str) -> String {
    let moment = jiff::Timestamp::from_microsecond((seconds * 1e6).round() as i64).unwrap_or_default();
    moment.strftime(format).to_string()
}

/// One line: when, what, whose, the packet, and why.
pub fn told(told: &Told) -> String {
    let Told { verdict, reason, packet, why, .. } = told;
    let observed = if told.observed { " (observed)" } else { "" };
    let direction = told.direction.as_deref().unwrap_or("-");
    let nic = told.nic.as_deref().unwrap_or("-");
    format!(
        "{} {verdict} {reason}{observed} {direction} {nic}: {packet}: {why} [generation {}, worker {}]\n",
        moment(told.time, "%H:%M:%S%.6f"),
        told.generation,
        told.worker
    )
}

/// `why`
pub fn decisions(whys: &Whys) -> String {
    const FORMAT: &str = "%Y-%m-%d %H:%M:%S%.6f UTC";
    let mut text = String::new();
    for decision in &whys.decisions {
        let Told { verdict, reason, packet, why, generation, .. } = decision;
        let observed = if decision.observed { " (observed)" } else { "" };
        let nic = decision.nic.as_deref().unwrap_or("no NIC");
        let direction = decision.direction.as_deref().map_or(String::new(), |way| format!("{way} "));
        // Writing to a text does not fail.
        let _ = writeln!(text, "{}  {verdict}: {reason}{observed}", moment(decision.time, FORMAT));
        let _ = writeln!(text, "  packet: {direction}{packet}");
        let _ = writeln!(text, "  judged for {nic} by generation {generation}");
        let _ = writeln!(text, "  why: {why}");
        if let Some(rule) = &decision.rule {
            let id = decision.rule_id.as_deref().unwrap_or("no id");
            let says = decision.rule_text.as_deref().unwrap_or("what it said is not known any more");
            let _ = writeln!(text, "  rule: {rule} ({id}): {says}");
        }
    }
    if whys.decisions.is_empty() {
        text += "nothing was decided about it\n";
    }
    if whys.left_out > 0 {
        let _ = writeln!(text, "{} older decisions are left out: --limit", whys.left_out);
    }
    let _ = writeln!(
        text,
        "the history goes back to {} ({} of at most {} decisions; packets of established connections are none)",
        moment(whys.since, FORMAT),
        whys.kept,
        whys.most
    );
    if let Some(at) = whys.lost_at {
        let _ = writeln!(
            text,
            "{} decisions were lost on their way to it, the last {}",
            whys.lost,
            moment(at, FORMAT)
        );
    }
    text
}
