//! `explain`: the verdict on a packet, and why. Described in words, given as bytes or taken out of a capture, the packet is
//! a frame, and the frame goes the way of every frame: read, resolved and judged by the firewall of the workers, here
//! with an empty table of connections. Nothing of what follows decides anything.

mod describe;
mod frame;
mod nearest;
mod words;

use std::process::ExitCode;
use std::sync::Arc;

use control::commit::Committer;
use control::config::Config;
use control::model::{Key, Policy};
use engine::burst::{Batch, Firewall, FirewallConfig};
use engine::cells::{Cells, Population};
use engine::classify::Query;
use engine::conntrack::{Secret, ShardConfig};
use engine::io::Frame;
use engine::judge::{Step, resolve};
use engine::lane::Lane;
use engine::verdict::Verdict;
use engine::{Reason, Side};
use serde_json::{Value, json};

use crate::cli;
use crate::failure::{Failure, print};
use crate::input;
use crate::replay::capture::CaptureFile;
use describe::Described;
use nearest::Near;

/// Connections that the table has room for: one packet opens at most one.
const ROOM: u32 = 64;

/// The frame in question.
struct Subject {
    bytes: Vec<u8>,
    /// Bytes it had on the wire, where a capture cut it.
    original: usize,
    side: Side,
}

impl Frame for Subject {
    fn head(&self) -> &[u8] {
        &self.bytes
    }

    fn captured(&self) -> usize {
        self.bytes.len()
    }

    fn wire_len(&self) -> usize {
        self.original.max(self.bytes.len())
    }
}

/// The command.
pub fn run(args: &cli::Explain) -> Result<ExitCode, Failure> {
    let config = input::config(args.config.as_deref())?;
    let policy = input::policy(&args.policy, &config)?.policy;
    let wanted = args.nic.as_deref().map(|name| find_nic(args, &policy, name)).transpose()?;
    let subject = subject(args, &policy, wanted.as_ref())?;
    let explained = Explained::new(config, policy, subject)?;
    if let Some(wanted) = &wanted {
        explained.check_nic(wanted, args.description.is_some())?;
    }
    match args.output {
        cli::Output::Json => print(&format!("{}\n", explained.json()), false),
        cli::Output::Table => print(&explained.text(), false),
    }
    Ok(ExitCode::SUCCESS)
}

fn find_nic(args: &cli::Explain, policy: &Policy, name: &str) -> Result<Key, Failure> {
    let found = policy.nics.keys().find(|key| key.to_string() == name);
    found.cloned().ok_or_else(|| {
        let names: Vec<_> = policy.nics.keys().take(10).map(ToString::to_string).collect();
        let document = args.policy.display();
        Failure::input(format!("{document}: no NIC {name:?}; there are: {}", names.join(", ")))
    })
}

/// The frame that the command line asks about.
fn subject(args: &cli::Explain, policy: &Policy, wanted: Option<&Key>) -> Result<Subject, Failure> {
    if let (Some(text), Some(key)) = (&args.description, wanted) {
        return described(&Described::read(text)?, policy, key);
    }
    let side = match args.from {
        Some(cli::From::Outside) => Side::Outside,
        Some(cli::From::Inside) => Side::Inside,
        None => return Err(Failure::input("--from is missing; allowed: inside, outside")),
    };
    if let Some(path) = &args.pcap {
        let file = CaptureFile::open(path).map_err(Failure::input)?;
        let packet = file.packet(args.index).map_err(Failure::input)?;
        return Ok(Subject { bytes: packet.data.to_vec(), original: packet.original as usize, side });
    }
    let bytes = hex(args.packet.as_deref().unwrap_or_default())?;
    Ok(Subject { original: bytes.len(), bytes, side })
}

fn described(described: &Described, policy: &Policy, key: &Key) -> Result<Subject, Failure> {
    let nic = &policy.nics[key];
    let addresses: Vec<_> = nic.all_addresses().map(|address| address.to_string()).collect();
    if !nic.all_addresses().any(|address| address == described.local()) {
        return Err(Failure::input(format!(
            "{} is no address of {key}; it has: {}",
            described.local(),
            addresses.join(", ")
        )));
    }
    let bytes = described.frame(nic, policy.vpcs[&nic.vpc].segment);
    Ok(Subject { original: bytes.len(), bytes, side: described.side() })
}

/// The bytes of an Ethernet frame written as pairs of hexadecimal digits.
fn hex(text: &str) -> Result<Vec<u8>, Failure> {
    let bad = |what: String| {
        Failure::input(format!(
            "--packet: {what}; allowed: pairs of hexadecimal digits, with whitespace and colons anywhere"
        ))
    };
    let mut digits = Vec::with_capacity(text.len());
    for (at, c) in text.chars().enumerate() {
        match c.to_digit(16) {
            Some(digit) => digits.push(digit as u8),
            None if c == ':' || c.is_whitespace() => {}
            None => return Err(bad(format!("{c:?} at character {}", at + 1))),
        }
    }
    if digits.is_empty() {
        return Err(bad("no digits".to_owned()));
    }
    let (pairs, rest) = digits.as_chunks::<2>();
    if !rest.is_empty() {
        return Err(bad(format!("{} digits, the last without its pair", digits.len())));
    }
    Ok(pairs.iter().map(|[high, low]| high << 4 | low).collect())
}

/// A frame, its verdict, and what led to it.
struct Explained {
    policy: Policy,
    subject: Subject,
    lane: Lane,
    verdict: Verdict,
    nic: Option<Arc<str>>,
    rule: Option<Arc<str>>,
    nearest: Vec<Near>,
}

impl Explained {
    fn new(config: Config, policy: Policy, mut subject: Subject) -> Result<Explained, Failure> {
        let shard = control::compile::shard_config(&config, 0, 1);
        let firewall = FirewallConfig {
            shard: ShardConfig { capacity: ROOM, unconfirmed: ROOM, ..shard },
            // One packet meets no bucket that anybody could aim at.
            secret: Secret::new([0, 0]),
            grace_end_ns: 0,
        };
        let mut firewall = Firewall::new(&firewall, Arc::new(Cells::new()), Arc::new(Population::new()));
        let mut committer = Committer::new(config);
        let snapshot = match committer.commit(policy.clone(), 0).map_err(Failure::runtime)? {
            Some(commit) => commit.snapshot,
            None => Box::new(committer.initial()),
        };

        let side = subject.side;
        let now = firewall.now(0);
        firewall.begin(&snapshot);
        let lane = firewall.read(&mut subject, side, snapshot.tunnels, now);
        let mut batch = Batch::default();
        batch.push(subject, lane);
        firewall.judge(&snapshot, &mut batch);
        let (Some(subject), Some(lane), Some(verdict)) =
            (batch.frames.pop(), batch.lanes.pop(), batch.verdicts.pop())
        else {
            return Err(Failure::runtime("the firewall gave no verdict"));
        };

        let rules_refused = matches!(verdict.reason, Reason::NoRule | Reason::Denied);
        let nearest = match resolve(&snapshot, &lane, &subject.bytes) {
            Step::Nic(nic) if rules_refused => {
                let query = Query {
                    direction: lane.side.direction(),
                    v6: lane.v6,
                    protocol: lane.proto,
                    port: lane.dport,
                    remote: lane.remote(),
                };
                nearest::nearest(&committer, &snapshot, nic, &query)
            }
            _ => Vec::new(),
        };
        let nic = committer.nic_name(verdict.nic);
        let rule = verdict.rule.get().and_then(|rule| committer.compiler().rule_name(rule));
        Ok(Explained { policy, subject, lane, verdict, nic, rule, nearest })
    }

    /// Refuses to explain one NIC's verdict as that of another.
    fn check_nic(&self, wanted: &Key, is_described: bool) -> Result<(), Failure> {
        match self.nic.as_deref() {
            Some(found) if found == wanted.to_string() => Ok(()),
            Some(found) => Err(Failure::input(format!(
                "--nic {wanted}: the packet is judged as {found}'s, not {wanted}'s"
            ))),
            None if is_described => Ok(()),
            None => Err(Failure::input(format!(
                "--nic {wanted}: the packet is judged as no NIC's: {}: {}",
                self.verdict.reason.name(),
                self.why()
            ))),
        }
    }

    /// The reason in words.
    fn why(&self) -> String {
        words::why(&self.policy, &self.lane, &self.verdict, self.nic.as_deref())
    }

    fn verdict_word(&self) -> &'static str {
        if self.verdict.passes() { "pass" } else { "drop" }
    }

    fn json(&self) -> Value {
        let nearest: Vec<_> = self.nearest.iter().map(Near::json).collect();
        let from = if self.subject.side == Side::Inside { "inside" } else { "outside" };
        let mut value = json!({
            "verdict": self.verdict_word(),
            "reason": self.verdict.reason.name(),
            "why": self.why(),
            "rule": self.rule.as_deref(),
            "nearest": nearest,
            "from": from,
            "nic": self.nic.as_deref(),
            "direction": self.nic.as_ref().map(|_| self.subject.side.direction().name()),
            "packet": words::packet(&self.lane, &self.subject),
        });
        if self.verdict.observed {
            value["observed"] = true.into();
        }
        value
    }

    fn text(&self) -> String {
        let from = if self.subject.side == Side::Inside { "inside" } else { "outside" };
        let direction = self.nic.as_ref().map_or("none", |_| self.subject.side.direction().name());
        let observed = if self.verdict.observed { " (observed: it would drop)" } else { "" };
        let rule = match &self.rule {
            Some(rule) => format!("{rule}: {}", nearest::rule_text(&self.policy, rule)),
            None => "none".to_owned(),
        };
        let mut lines = vec![
            format!("packet:    from {from}: {}", words::packet(&self.lane, &self.subject)),
            format!("nic:       {}", self.nic.as_deref().unwrap_or("none")),
            format!("direction: {direction}"),
            format!("verdict:   {}{observed}", self.verdict_word()),
            format!("reason:    {}: {}", self.verdict.reason.name(), self.why()),
            format!("rule:      {rule}"),
        ];
        if matches!(self.verdict.reason, Reason::NoRule | Reason::Denied) && self.nearest.is_empty() {
            lines.push(format!("nearest:   none: no {direction} rule of this NIC's groups allows anything"));
        }
        for near in &self.nearest {
            lines.push(format!(
                "nearest:   {}: {}: does not fit in {}",
                near.rule,
                nearest::rule_text(&self.policy, &near.rule),
                near.told()
            ));
        }
        lines.push(String::new());
        lines.join("\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hexadecimal_digits_may_stand_apart_but_not_alone() {
        assert_eq!(hex("02:00 0a\n0B").unwrap(), [2, 0, 10, 11]);
        for (bad, told) in [
            ("", "no digits"),
            (" : ", "no digits"),
            ("020", "3 digits, the last without its pair"),
            ("02 0g", "'g' at character 5"),
            ("0x02", "'x' at character 2"),
        ] {
            let refusal = format!("{:?}", hex(bad).unwrap_err());
            assert!(refusal.contains(told) && refusal.contains("allowed: "), "{bad:?}: {refusal}");
        }
    }
}
