//! Records as lines: those of AWS VPC flow logs with our fields behind, and JSON objects.

use std::fmt::{Display, Write};

use control::model::protocol;
use engine::Direction;
use serde_json::json;

use super::record::{Record, reverse};

/// The names of the fields, in their order: what a file begins with where it has a header.
pub const AWS_HEADER: &str = "version account-id interface-id srcaddr dstaddr srcport dstport protocol packets bytes start \
                              end action log-status direction reason rule generation\n";

const SECOND: u64 = 1_000_000_000;

/// A line a direction of judgement: that in which the connection was opened, or a packet refused, and the other one, if packets went
/// there. One that has carried nothing has ended all the same, and is told by one.
pub fn aws(record: &Record, out: &mut String) {
    let is_empty = record.packets == [0, 0];
    if record.packets[0] > 0 || is_empty {
        aws_way(record, false, out);
    }
    if record.packets[1] > 0 {
        aws_way(record, true, out);
    }
}

fn aws_way(record: &Record, is_back: bool, out: &mut String) {
    let way = usize::from(is_back);
    let other = 1 - way;
    let direction = if is_back { reverse(record.direction) } else { record.direction };
    let (project, nic) = record.owner().unzip();
    // AWS has no ports for ICMP.
    let ports = if record.protocol.is_some_and(engine::proto::has_ports) { record.ports } else { [0, 0] };
    let address = |at: usize| OrDash(record.ends.map(|ends| ends[at]));
    // Writing to a text does not fail.
    let _ = writeln!(
        out,
        "2 {} {} {} {} {} {} {} {} {} {} {} {} OK {} {} {} {}",
        OrDash(project.map(Word)),
        OrDash(nic.map(Word)),
        address(way),
        address(other),
        ports[way],
        ports[other],
        OrDash(record.protocol),
        record.packets[way],
        record.bytes[way],
        record.start_ns / SECOND,
        record.end_ns / SECOND,
        record.action(),
        direction.name(),
        record.reason(),
        OrDash(record.rule.as_ref().map(|rule| Word(&rule.name))),
        record.generation,
    );
}

/// `-` for nothing.
struct OrDash<T>(Option<T>);

impl<T: Display> Display for OrDash<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.0 {
            Some(value) => value.fmt(f),
            None => f.write_char('-'),
        }
    }
}

/// A name in a line whose fields are parted by spaces: white space, and the sign itself, stand as `%` and the hexadecimal digits of their
/// bytes; a name that is nothing but the dash, which stands for nothing, likewise.
struct Word<'n>(&'n str);

impl Display for Word<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for c in self.0.chars() {
            if c.is_whitespace() || c == '%' || c == '-' && self.0 == "-" {
                let mut bytes = [0; 4];
                c.encode_utf8(&mut bytes).bytes().try_for_each(|byte| write!(f, "%{byte:02X}"))?;
            } else {
                f.write_char(c)?;
            }
        }
        Ok(())
    }
}

/// An object a record, both directions in it.
pub fn json(record: &Record, out: &mut String) {
    let is_inbound = record.direction == Direction::Inbound;
    // Ends come opener first, and the NIC's is the opener of what is outbound.
    let (local, remote) = if is_inbound { (1, 0) } else { (0, 1) };
    let (inbound, outbound) = if is_inbound { (0, 1) } else { (1, 0) };
    let has_ports = record.protocol.is_some_and(engine::proto::has_ports);
    let is_icmp = matches!(record.protocol, Some(engine::proto::ICMP | engine::proto::ICMPV6));
    let port = |at: usize| has_ports.then(|| record.ports[at]);
    let (project, nic) = record.owner().unzip();
    let by_number = |number: u8| protocol::name(number).map_or_else(|| number.to_string(), str::to_owned);
    let mut object = json!({
        "project": project,
        "nic": nic.map(|_| record.nic.as_deref()),
        "direction": record.direction.name(),
        "protocol": record.protocol.map(by_number),
        "local": record.ends.map(|ends| ends[local]),
        "local_port": port(local),
        "remote": record.ends.map(|ends| ends[remote]),
        "remote_port": port(remote),
        "packets": { "inbound": record.packets[inbound], "outbound": record.packets[outbound] },
        "bytes": { "inbound": record.bytes[inbound], "outbound": record.bytes[outbound] },
        "opened": seconds(record.opened_ns),
        "start": seconds(record.start_ns),
        "end": seconds(record.end_ns),
        "action": record.action(),
        "reason": record.reason(),
        "rule": record.rule.as_ref().map(|rule| &*rule.name),
        "rule_id": record.rule.as_ref().map(|rule| rule.identity.to_string()),
        "generation": record.generation,
    });
    if is_icmp {
        let [kind, code] = record.ports[1].to_be_bytes();
        object["icmp"] = json!({ "type": kind, "code": code });
    }
    if record.observed {
        object["observed"] = true.into();
    }
    let _ = writeln!(out, "{object}");
}

/// To the millisecond, which a double holds exactly enough.
fn seconds(ns: u64) -> f64 {
    (ns / 1_000_000) as f64 / 1000.0
}
