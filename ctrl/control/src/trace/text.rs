//! A decision as it is told: a line of JSON with the keys of `replay`'s verdicts and more, or the comment beside a frame.

use std::fmt::Write;

use engine::trace::Record;
use engine::{Generation, RuleId, Side, addr_from_bits};
use serde_json::Value;

use super::{Decision, HistoryMatches, NameTable};
use crate::api::types::Staged;
use crate::explain::nearest::rule_text;
use crate::explain::text;
use crate::model::{Policy, protocol};

/// A decision with what is needed to tell it.
pub struct DecisionText<'d> {
    decision: &'d Decision,
    policy: &'d Policy,
}

/// Why, in words.
fn why(policy: &Policy, decision: &Decision) -> String {
    let Decision { record, nic, rule, ending, .. } = decision;
    let mut text = text::why(policy, &record.packet(), &record.verdict(), nic.as_deref());
    if let (Some(ending), Some(of)) = (ending, record.disconnected) {
        let who = ending.generation.map(|generation| format!("generation {generation} by "));
        text = format!(
            "{}{} disconnected its connection; what is left of it ends in {} s",
            who.unwrap_or_default(),
            ending.by,
            seconds(of.expires_in)
        );
    }
    if let Some(rule) = rule {
        text = format!("{}: {text}", rule.name);
    }
    if let Some(staged) = staged(decision) {
        text += &format!("; {}", staged.in_words());
    }
    text
}

/// What a staged rule would decide.
fn staged(decision: &Decision) -> Option<Staged> {
    let told = decision.record.staged.zip(decision.staged.as_ref());
    told.map(|(staged_verdict, rule)| Staged::of(&staged_verdict, rule))
}

/// Ticks as seconds.
fn seconds(ticks: u32) -> f64 {
    f64::from(ticks) / f64::from(engine::time::TICKS_PER_SECOND)
}

fn side(record: &Record) -> &'static str {
    if record.side == Side::Inside { "inside" } else { "outside" }
}

fn verdict(record: &Record) -> &'static str {
    if record.verdict().passes() { "pass" } else { "drop" }
}

/// The ends as the judged NIC's side and the other one see them, each with its port.
fn ends(record: &Record) -> Option<[(String, Option<u16>); 2]> {
    if !record.has_addresses() {
        return None;
    }
    let end = |bits, port| (addr_from_bits(bits, record.v6).to_string(), record.has_ports().then_some(port));
    let (src, dst) = (end(record.src, record.sport), end(record.dst, record.dport));
    Some(if record.side == Side::Inside { [src, dst] } else { [dst, src] })
}

impl<'d> DecisionText<'d> {
    /// Of a decision; the policy lends its words.
    pub fn new(decision: &'d Decision, policy: &'d Policy) -> DecisionText<'d> {
        DecisionText { decision, policy }
    }

    /// Appends it as a JSON object, without a newline.
    pub fn write_json(&self, out: &mut String) {
        let Decision { record, worker, nic, rule, ending, .. } = self.decision;
        let text = |value: Option<&str>| value.map_or(Value::Null, Value::from);
        let (whole, nanos) = (record.at_ns / 1_000_000_000, record.at_ns % 1_000_000_000);
        // Of a stamp in microseconds no more, as its capture has it.
        let fraction =
            if nanos.is_multiple_of(1000) { format!("{:06}", nanos / 1000) } else { format!("{nanos:09}") };
        // Writing to a text does not fail.
        let _ = write!(
            out,
            "{{\"from\":\"{}\",\"index\":{},\"time\":{whole}.{fraction},\"nic\":{},\"direction\":{},\"verdict\":\"{}\",\
             \"reason\":\"{}\",\"rule\":{},\"rule_id\":{},\"worker\":{worker},\"generation\":{},\"bytes\":{},\"packet\":{},\"why\":{}",
            side(record),
            record.index,
            text(nic.as_deref()),
            text(record.direction().map(|direction| direction.name())),
            verdict(record),
            record.reason.name(),
            text(rule.as_ref().map(|rule| &*rule.name)),
            text(rule.as_ref().map(|rule| rule.identity.to_string()).as_deref()),
            record.generation.0,
            record.len,
            Value::from(text::of_record(record)),
            Value::from(why(self.policy, self.decision)),
        );
        if let Some([(local, local_port), (remote, remote_port)]) = ends(record) {
            let port = |port: Option<u16>| port.map_or(Value::Null, Value::from);
            let name = protocol::name(record.proto).map_or_else(|| record.proto.to_string(), str::to_owned);
            let _ = write!(
                out,
                ",\"protocol\":\"{name}\",\"local\":\"{local}\",\"local_port\":{},\"remote\":\"{remote}\",\"remote_port\":{}",
                port(local_port),
                port(remote_port)
            );
        }
        if record.observed {
            out.push_str(",\"observed\":true");
        }
        if let Some(Staged { rule, rule_id, verdict, differs }) = staged(self.decision) {
            let rule = Value::from(rule);
            let _ = write!(
                out,
                ",\"staged\":{{\"rule\":{rule},\"rule_id\":\"{rule_id}\",\"verdict\":\"{verdict}\",\"differs\":{differs}}}"
            );
        }
        if let (Some(ending), Some(of)) = (ending, record.disconnected) {
            let _ = write!(
                out,
                ",\"disconnected\":{{\"generation\":{},\"by\":{},\"expires_in\":{:?}}}",
                ending.generation.map_or(Value::Null, Value::from),
                Value::from(&*ending.by),
                seconds(of.expires_in)
            );
        }
        out.push('}');
    }

    /// What stands beside a captured frame.
    pub fn comment(&self) -> String {
        let Decision { record, nic, rule, .. } = self.decision;
        debug_assert!(rule.is_none() || record.rule != RuleId::NONE);
        let rule_id = rule.as_ref().map(|rule| rule.identity.to_string());
        let mut text = format!(
            "verdict={} reason={} rule={} rule_id={} nic={} direction={} generation={}",
            verdict(record),
            record.reason.name(),
            rule.as_ref().map_or("-", |rule| &*rule.name),
            rule_id.as_deref().unwrap_or("-"),
            nic.as_deref().unwrap_or("-"),
            record.direction().map_or("-", |direction| direction.name()),
            record.generation.0
        );
        if record.observed {
            text.push_str(" observed=true");
        }
        if let Some(Staged { rule, rule_id, verdict, .. }) = staged(self.decision) {
            text += &format!(" staged={rule} staged_id={rule_id} staged_verdict={verdict}");
        }
        text
    }
}

/// What was found of a packet: [`crate::api::types::Whys`], with the policies of then as far as they are known; those of now lend their
/// words for the others.
pub fn whys(
    recalled: &HistoryMatches,
    mut names: NameTable,
    policy_at: impl Fn(Generation) -> Option<Policy>,
) -> String {
    let seconds = |ns: u64| format!("{}.{:06}", ns / 1_000_000_000, ns / 1000 % 1_000_000);
    let lost_at = if recalled.lost == 0 { "null".to_owned() } else { seconds(recalled.lost_ns) };
    let mut text = format!(
        "{{\"since\":{},\"kept\":{},\"most\":{},\"lost\":{},\"lost_at\":{lost_at},\"left_out\":{},\"decisions\":[",
        seconds(recalled.since_ns),
        recalled.kept,
        recalled.most,
        recalled.lost,
        recalled.left_out,
    );
    for (at, decision) in recalled.decisions.iter().enumerate() {
        let generation = decision.record.generation;
        if names.generation != generation
            && let Some(policy) = policy_at(generation)
        {
            (names.generation, names.policy) = (generation, policy);
        }
        text.push_str(if at == 0 { "" } else { "," });
        DecisionText::new(decision, &names.policy).write_json(&mut text);
        text.pop();
        let says = decision.rule.as_ref().map(|rule| rule_text(&names.policy, &rule.name));
        let says = says.filter(|says| !says.is_empty()).map_or(Value::Null, Value::from);
        // Writing to a text does not fail.
        let _ = write!(text, ",\"rule_text\":{says}}}");
    }
    text.push_str("]}");
    text
}
