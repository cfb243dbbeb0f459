//! `explain`: the verdict on a described opening packet, by the classifier of the data path.

use std::net::IpAddr;
use std::process::ExitCode;

use control::commit::Committer;
use control::model::protocol;
use engine::classify::{Field, Judgement, Query};
use engine::snapshot::{Binding, Snapshot};
use engine::{Direction, RuleId, addr_bits, proto};
use serde_json::{Value, json};

use crate::cli;
use crate::failure::{Failure, print};
use crate::input;

/// Rules that are named as nearest, at most.
const NEAREST: usize = 3;

/// What was described.
#[derive(Debug, PartialEq, Eq)]
struct Described {
    direction: Direction,
    protocol: u8,
    source: (IpAddr, Option<u16>),
    destination: (IpAddr, Option<u16>),
    icmp: (u8, u8),
}

impl Described {
    fn local(&self) -> IpAddr {
        if self.direction == Direction::Inbound { self.destination.0 } else { self.source.0 }
    }

    fn remote(&self) -> IpAddr {
        if self.direction == Direction::Inbound { self.source.0 } else { self.destination.0 }
    }

    fn query(&self) -> Query {
        let (remote, v6) = addr_bits(self.remote());
        let is_icmp = self.protocol == if v6 { proto::ICMPV6 } else { proto::ICMP };
        let port = match self.destination.1 {
            Some(port) if proto::has_ports(self.protocol) => port,
            _ if is_icmp => u16::from_be_bytes([self.icmp.0, self.icmp.1]),
            _ => 0,
        };
        Query { direction: self.direction, v6, protocol: self.protocol, port, remote }
    }
}

const FORM: &str =
    "allowed: \"inbound|outbound PROTOCOL SOURCE[:PORT] > DESTINATION[:PORT] [type N [code N]]\"";

fn describe(text: &str) -> Result<Described, Failure> {
    let bad = |what: String| Failure::input(format!("{what}; {FORM}"));
    let words: Vec<&str> = text.split_whitespace().collect();
    let [direction, protocol, source, ">", destination, rest @ ..] = words.as_slice() else {
        return Err(bad(format!("{text:?} is no description of a packet")));
    };
    let direction = match *direction {
        "inbound" => Direction::Inbound,
        "outbound" => Direction::Outbound,
        other => return Err(bad(format!("direction {other:?}"))),
    };
    let protocol = protocol::by_name(protocol)
        .or_else(|| protocol.parse().ok())
        .ok_or_else(|| bad(format!("protocol {protocol:?}")))?;
    let source = endpoint(source).ok_or_else(|| bad(format!("source {source:?}")))?;
    let destination = endpoint(destination).ok_or_else(|| bad(format!("destination {destination:?}")))?;
    if source.0.is_ipv4() != destination.0.is_ipv4() {
        return Err(bad(format!("{} and {} are of two families", source.0, destination.0)));
    }
    if proto::has_ports(protocol) && destination.1.is_none() {
        return Err(bad("the destination has no port".to_owned()));
    }
    // An echo request, where nothing else is said.
    let echo = if destination.0.is_ipv4() { 8 } else { 128 };
    let number = |word: &str| word.parse::<u8>().map_err(|_| bad(format!("{word:?} is no number of 0-255")));
    let icmp = match rest {
        [] => (echo, 0),
        ["type", kind] => (number(kind)?, 0),
        ["type", kind, "code", code] => (number(kind)?, number(code)?),
        _ => return Err(bad(format!("{:?} behind the destination", rest.join(" ")))),
    };
    Ok(Described { direction, protocol, source, destination, icmp })
}

/// `1.2.3.4`, `1.2.3.4:5`, `2001:db8::1`, `[2001:db8::1]:5`.
fn endpoint(text: &str) -> Option<(IpAddr, Option<u16>)> {
    if let Ok(addr) = text.parse() {
        return Some((addr, None));
    }
    let socket: std::net::SocketAddr = text.parse().ok()?;
    Some((socket.ip(), Some(socket.port())))
}

fn field_name(field: Field, query: &Query) -> &'static str {
    let is_icmp = query.protocol == if query.v6 { proto::ICMPV6 } else { proto::ICMP };
    match field {
        Field::Protocol => "protocol",
        Field::Ports if is_icmp => "icmp_type",
        Field::Ports => "ports",
        Field::Remote => "remote",
    }
}

/// The rules that came nearest to letting it pass: those that allow, with the fewest fields that do not fit.
fn nearest(committer: &Committer, snapshot: &Snapshot, nic: &Binding, query: &Query) -> Vec<Value> {
    let mut rules: Vec<_> = snapshot
        .policy(nic)
        .mismatches(snapshot, nic.vpc, query)
        .into_iter()
        .filter(|(_, denies, _)| !denies)
        .collect();
    rules.sort_by_key(|(_, _, fields)| fields.len());
    let name = |rule: RuleId| committer.compiler().rule_name(rule).unwrap_or_default().to_string();
    rules
        .into_iter()
        .take(NEAREST)
        .map(|(rule, _, fields)| {
            let mut mismatch: Vec<_> = fields.into_iter().map(|field| field_name(field, query)).collect();
            // All of it fits, and still a deny rule came first.
            if mismatch.is_empty() {
                mismatch.push("priority");
            }
            json!({ "rule": name(rule), "mismatch": mismatch })
        })
        .collect()
}

fn verdict(committer: &Committer, snapshot: &Snapshot, described: &Described, nic: &Binding) -> Value {
    let query = described.query();
    let name = |rule| committer.compiler().rule_name(rule).map(|name| name.to_string());
    let (verdict, reason, rule) = match snapshot.policy(nic).judge(snapshot, nic.vpc, &query) {
        Judgement::Allow(rule) => ("pass", "new", name(rule)),
        Judgement::Deny(rule) => ("drop", "denied", name(rule)),
        Judgement::NoRule => ("drop", "no-rule", None),
    };
    let nearest = if verdict == "drop" { nearest(committer, snapshot, nic, &query) } else { Vec::new() };
    json!({ "verdict": verdict, "reason": reason, "rule": rule, "nearest": nearest })
}

fn as_table(value: &Value) -> String {
    let mut text =
        format!("{}: {}", value["verdict"].as_str().unwrap_or(""), value["reason"].as_str().unwrap_or(""));
    if let Some(rule) = value["rule"].as_str() {
        text += &format!(" by {rule}");
    }
    text.push('\n');
    for near in value["nearest"].as_array().into_iter().flatten() {
        let mismatch: Vec<_> =
            near["mismatch"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        text += &format!(
            "  nearest: {}: does not fit in {}\n",
            near["rule"].as_str().unwrap_or(""),
            mismatch.join(", ")
        );
    }
    text
}

/// The command.
pub fn run(args: &cli::Explain) -> Result<ExitCode, Failure> {
    let config = input::config(args.config.as_deref())?;
    let policy = input::policy(&args.policy, &config)?.policy;
    let described = describe(&args.packet)?;
    let Some(key) = policy.nics.keys().find(|key| key.to_string() == args.nic).cloned() else {
        let names: Vec<_> = policy.nics.keys().take(10).map(ToString::to_string).collect();
        return Err(Failure::input(format!(
            "{}: no NIC {:?}; there are: {}",
            args.policy.display(),
            args.nic,
            names.join(", ")
        )));
    };
    let addresses: Vec<_> = policy.nics[&key].all_addresses().collect();
    if !addresses.contains(&described.local()) {
        let addresses: Vec<_> = addresses.iter().map(ToString::to_string).collect();
        return Err(Failure::input(format!(
            "{} is no address of {key}; it has: {}",
            described.local(),
            addresses.join(", ")
        )));
    }
    let mut committer = Committer::new(config);
    let snapshot = match committer.commit(policy, 0).map_err(Failure::runtime)? {
        Some(commit) => commit.snapshot,
        None => Box::new(committer.initial()),
    };
    let Some(id) = committer.registry().nics.get(&key).and_then(|nic| nic.addresses.get(&described.local()))
    else {
        return Err(Failure::runtime("the NIC has no place in the compiled policy"));
    };
    let value = verdict(&committer, &snapshot, &described, snapshot.binding(*id));
    match args.output {
        cli::Output::Json => print(&format!("{value}\n"), false),
        cli::Output::Table => print(&as_table(&value), false),
    }
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_description_reads_like_the_packet() {
        let tcp = describe("inbound tcp 198.51.100.9:40000 > 10.5.6.7:22");
        assert!(
            tcp.is_ok_and(|d| d.query().port == 22 && d.protocol == 6 && d.direction == Direction::Inbound)
        );
        let ping = describe("outbound icmpv6 2001:db8::7 > 2001:db8::9");
        assert!(ping.is_ok_and(|d| d.query().port == 128 << 8 && d.query().v6));
        assert!(describe("inbound tcp 198.51.100.9 > 10.5.6.7").is_err());
        assert!(describe("sideways tcp 1.1.1.1:1 > 2.2.2.2:2").is_err());
    }
}
