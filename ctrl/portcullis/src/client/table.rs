//! Results as text for people.

use std::fmt::Write;

use control::api::types::{
    Affected, Began, Bytes, Carried, ChangeLine, Confirmation, Connection, Counters, Group, Health,
    LineChange, LinkState, Nic, ObjectKind, Packets, Problem, Receipt, Record, Restart, RuleFigures,
    Snapshot, State, Status, Worker,
};

use super::listing::by_nic;

/// Columns as wide as their widest cell, two blanks apart; numbers to the right.
pub fn aligned(head: &[&str], rows: &[Vec<String>]) -> String {
    let wide = |text: &str| text.chars().count();
    let mut widths: Vec<usize> = head.iter().map(|name| wide(name)).collect();
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(wide(cell));
        }
    }
    let is_number = |column: usize| {
        !rows.is_empty()
            && rows
                .iter()
                .all(|row| row[column].bytes().all(|b| b.is_ascii_digit() || b == b'.' || b == b'-'))
    };
    let right: Vec<bool> = (0..head.len()).map(is_number).collect();
    let mut text = String::new();
    let mut line = |cells: &mut dyn Iterator<Item = &str>| {
        let mut out = String::new();
        for ((cell, width), right) in cells.zip(&widths).zip(&right) {
            let pad = " ".repeat(width - wide(cell));
            let (before, after) = if *right { (&*pad, "") } else { ("", &*pad) };
            let _ = write!(out, "{before}{cell}{after}  ");
        }
        let _ = writeln!(text, "{}", out.trim_end());
    };
    line(&mut head.iter().copied());
    for row in rows {
        line(&mut row.iter().map(String::as_str));
    }
    text
}

fn or_dash<T: ToString>(value: Option<T>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| value.to_string())
}

fn listed(values: &[String]) -> String {
    if values.is_empty() { "-".to_owned() } else { values.join(",") }
}

/// What `apply` and `diff` did or would do.
pub fn receipt(receipt: &Receipt) -> String {
    let mut text = match receipt.state {
        State::Unchanged => format!("unchanged, generation {}\n", receipt.generation),
        State::DryRun => format!("nothing applied, generation {} stays\n", receipt.generation),
        State::Acknowledged => format!(
            "generation {}, acknowledged by {} workers in {} µs\n",
            receipt.generation,
            receipt.workers.len(),
            receipt.acknowledged_us.unwrap_or_default()
        ),
        State::Pending => {
            let pending: Vec<_> = receipt.pending.iter().map(ToString::to_string).collect();
            format!(
                "generation {}, published, pending: no answer yet from workers {}\n",
                receipt.generation,
                pending.join(", ")
            )
        }
        State::Unconfirmed => {
            format!("generation {}, rolls back unless `portcullis confirm` comes\n", receipt.generation)
        }
    };
    text += &receipt.changes.iter().map(line).collect::<String>();
    if receipt.changes_left_out > 0 {
        let _ = writeln!(text, "and {} lines more", receipt.changes_left_out);
    }
    let lists = [
        ("added", &receipt.added),
        ("changed", &receipt.changed),
        ("removed", &receipt.removed),
        ("flushed", &receipt.flushed),
        ("rejudged", &receipt.rejudged),
        ("ended", &receipt.ended),
    ];
    for (name, list) in lists.into_iter().filter(|(_, list)| !list.is_empty()) {
        let _ = writeln!(text, "{name:<13}{}", list.join(", "));
    }
    if receipt.state != State::Unchanged {
        let _ = writeln!(text, "{:<13}{} live connections", "disconnected", receipt.disconnected);
    }
    if let (State::DryRun, Some(affected)) = (receipt.state, &receipt.affected) {
        text += &disconnected(affected, receipt.disconnected);
    }
    text
}

/// One line of what a change changes: a sign, of what, and what.
fn line(line: &ChangeLine) -> String {
    let sign = match line.change {
        LineChange::Added => '+',
        LineChange::Changed => '~',
        LineChange::Removed => '-',
    };
    let kind = match line.kind {
        ObjectKind::Vpc => "vpc",
        ObjectKind::AddressGroup => "address group",
        ObjectKind::Group => "group",
        ObjectKind::Rule => "rule",
        ObjectKind::Nic => "nic",
    };
    let name = line.rule.as_ref().unwrap_or(&line.object);
    let id = line.rule_id.as_ref().map(|id| format!(" ({id})")).unwrap_or_default();
    let text = if line.text.is_empty() { String::new() } else { format!(": {}", line.text) };
    format!("{sign} {kind} {name}{id}{text}\n")
}

/// The connections that a change would disconnect, one by one, as far as they are named.
fn disconnected(affected: &Affected, all: u64) -> String {
    let mut named: Vec<&Connection> = affected.connections.iter().collect();
    named.sort_by(|a, b| by_nic(a, b));
    let line = |c: &&Connection| {
        let (local, remote) = (side(&c.local, c.local_port), side(&c.remote, c.remote_port));
        let (from, to) = if c.opened == "inbound" { (remote, local) } else { (local, remote) };
        let rule = c.rule.as_ref().map(|rule| format!(", by {rule}")).unwrap_or_default();
        format!("    {}: {} {} {from} > {to}, {}{rule}\n", c.nic, c.opened, c.protocol, c.state)
    };
    let mut text: String = named.iter().map(line).collect();
    let rest = all.saturating_sub(named.len() as u64);
    if rest > 0 {
        let _ = writeln!(text, "    and {rest} more");
    }
    text
}

/// One connection in a line.
pub fn connection(c: &Connection) -> String {
    let (local, remote) = (side(&c.local, c.local_port), side(&c.remote, c.remote_port));
    let (from, to) = if c.opened == "inbound" { (remote, local) } else { (local, remote) };
    let rule = c.rule.as_ref().map(|rule| format!(", by {rule}")).unwrap_or_default();
    let dead = if c.tombstone { ", disconnected (a tombstone)" } else { "" };
    let left = c.expires_in.max(0.0);
    format!("{} {} {from} > {to}, {}{dead}{rule}, gone in {left:.0} s", c.opened, c.protocol, c.state)
}

fn side(address: &str, port: Option<u16>) -> String {
    match port {
        Some(port) if address.contains(':') => format!("[{address}]:{port}"),
        Some(port) => format!("{address}:{port}"),
        None => address.to_owned(),
    }
}

/// `history`
pub fn history(records: &[Record]) -> String {
    let row = |record: &Record| {
        let state = match (record.confirmation, record.state) {
            (Some(Confirmation::Awaited), _) => "unconfirmed",
            (Some(Confirmation::TakenBack), _) => "taken back",
            (_, State::Pending) => "pending",
            _ => "acknowledged",
        };
        let what = [("+", &record.added), ("~", &record.changed), ("-", &record.removed)];
        let what: Vec<String> = what
            .iter()
            .flat_map(|(sign, names)| names.iter().map(move |name| format!("{sign}{name}")))
            .collect();
        let back = record.back_to.map(|to| format!("back to {to}"));
        let what = back.into_iter().chain((!what.is_empty()).then(|| what.join(" "))).collect::<Vec<_>>();
        vec![
            record.generation.to_string(),
            moment(record.at),
            format!("{} ({})", record.who, record.origin),
            state.to_owned(),
            (record.disconnected + record.disconnected_by_rejudging).to_string(),
            if what.is_empty() { "-".to_owned() } else { what.join(": ") },
        ]
    };
    let head = ["generation", "at (UTC)", "by", "state", "disconnected", "what"];
    aligned(&head, &records.iter().map(row).collect::<Vec<_>>())
}

/// Seconds since 1970 as date and time, UTC.
pub fn moment(seconds: f64) -> String {
    let moment = jiff::Timestamp::from_second(seconds as i64).unwrap_or_default();
    moment.strftime("%Y-%m-%d %H:%M:%S").to_string()
}

fn packets(packets: &Packets) -> String {
    let observed = match packets.observed {
        0 => String::new(),
        observed => format!(", {observed} of them only observed"),
    };
    format!("packets: in {}, pass {}{observed}, drop {}", packets.received, packets.pass, packets.drop)
}

fn bytes(bytes: &Bytes) -> String {
    format!("bytes: in {}, pass {}, drop {}", bytes.received, bytes.pass, bytes.drop)
}

/// `show counters`
pub fn counters(counters: &Counters) -> String {
    let mut text = format!(
        "generation {}\n{}\n{}\n",
        counters.generation,
        packets(&counters.packets),
        bytes(&counters.bytes)
    );
    for setting in &counters.settings {
        let _ = writeln!(text, "not strict: {setting}");
    }
    let mut reasons: Vec<_> = counters.reasons.iter().collect();
    reasons.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
    let reasons: Vec<_> =
        reasons.into_iter().map(|(reason, count)| vec![reason.clone(), count.to_string()]).collect();
    text += &aligned(&["reason", "packets"], &reasons);
    let row = |first: Vec<String>, p: &Packets, b: &Bytes| {
        [first, [p.received, p.pass, p.drop, b.pass, b.drop].map(|n| n.to_string()).to_vec()].concat()
    };
    let workers: Vec<_> = counters
        .workers
        .iter()
        .map(|w| row(vec![w.id.to_string(), w.core.to_string()], &w.packets, &w.bytes))
        .collect();
    text += &aligned(&["worker", "core", "in", "pass", "drop", "bytes pass", "bytes drop"], &workers);
    let directions = counters
        .nics
        .iter()
        .flat_map(|nic| [(nic, "inbound", &nic.inbound), (nic, "outbound", &nic.outbound)]);
    let nics: Vec<_> = directions
        .map(|(nic, name, tally)| {
            row(vec![or_dash(nic.nic.as_ref()), name.to_owned()], &tally.packets, &tally.bytes)
        })
        .collect();
    text += &aligned(&["nic", "direction", "in", "pass", "drop", "bytes pass", "bytes drop"], &nics);
    let ports: Vec<_> = counters
        .ports
        .iter()
        .map(|port| {
            let numbers = [port.rx_packets, port.tx_packets, port.rx_lost, port.tx_lost];
            let link = match port.link {
                LinkState::Up => "up",
                LinkState::Down => "down",
                LinkState::Gone => "gone",
            };
            [vec![port.name.clone(), link.to_owned()], numbers.map(|n| n.to_string()).to_vec()].concat()
        })
        .collect();
    text + &aligned(&["port", "link", "received", "sent", "rx lost", "tx lost"], &ports)
}

/// `show connections`
pub fn connections(connections: &[Connection]) -> String {
    let row = |c: &Connection| {
        vec![
            c.nic.clone(),
            c.opened.clone(),
            c.protocol.clone(),
            side(&c.local, c.local_port),
            side(&c.remote, c.remote_port),
            if c.tombstone { format!("{} (tombstone)", c.state) } else { c.state.clone() },
            format!("{:.1}", c.expires_in),
            or_dash(c.rule.as_ref()),
            c.worker.to_string(),
        ]
    };
    let mut head = vec!["nic", "opened", "protocol", "local", "remote", "state", "expires", "rule", "worker"];
    let mut rows: Vec<_> = connections.iter().map(row).collect();
    if connections.iter().any(|c| c.packets.is_some()) {
        head.extend(["packets in", "out", "bytes in", "out"]);
        for (row, c) in rows.iter_mut().zip(connections) {
            let both =
                |carried: Option<Carried>| carried.map_or([None; 2], |c| [Some(c.inbound), Some(c.outbound)]);
            row.extend([both(c.packets), both(c.bytes)].concat().into_iter().map(or_dash));
        }
    }
    aligned(&head, &rows)
}

/// `show nics`
pub fn nics(nics: &[Nic]) -> String {
    let row = |nic: &Nic| {
        vec![
            nic.nic.clone(),
            nic.vpc.clone(),
            or_dash(nic.mac.as_ref()),
            listed(&[&nic.addresses[..], &nic.allowed_addresses[..]].concat()),
            listed(&nic.security_groups),
            nic.mode.clone(),
            nic.connections.to_string(),
            or_dash(nic.max_connections),
            format!("{}{}", nic.fair_share, if nic.above_share { " (above)" } else { "" }),
            nic.displaced.to_string(),
            (nic.inbound.received + nic.outbound.received).to_string(),
            (nic.inbound_bytes.received + nic.outbound_bytes.received).to_string(),
            (nic.inbound.drop + nic.outbound.drop).to_string(),
        ]
    };
    let head = [
        "nic",
        "vpc",
        "mac",
        "addresses",
        "groups",
        "mode",
        "connections",
        "limit",
        "share",
        "displaced",
        "packets",
        "bytes",
        "drop",
    ];
    aligned(&head, &nics.iter().map(row).collect::<Vec<_>>())
}

/// `show groups`
pub fn groups(groups: &[Group]) -> String {
    let row = |group: &Group| {
        vec![
            if group.implied { format!("{} (implied)", group.group) } else { group.group.clone() },
            group.inbound_rules.to_string(),
            group.outbound_rules.to_string(),
            listed(&group.nics),
        ]
    };
    aligned(
        &["group", "inbound rules", "outbound rules", "nics"],
        &groups.iter().map(row).collect::<Vec<_>>(),
    )
}

/// `show workers`
pub fn workers(workers: &[Worker]) -> String {
    let row = |worker: &Worker| {
        let numbers = [
            worker.polls,
            worker.busy_polls,
            worker.packets.received,
            worker.packets.pass,
            worker.packets.drop,
        ];
        let table = format!("{}/{}", or_dash(worker.connections), worker.capacity);
        let acknowledged = if worker.acknowledged { "yes" } else { "no" };
        let place = [worker.id.to_string(), worker.core.to_string(), or_dash(worker.numa_node)];
        let first =
            [place.to_vec(), vec![worker.queues.to_string(), acknowledged.to_owned(), table]].concat();
        let rows = [worker.received, worker.handed_over, worker.taken_over].map(|n| n.to_string());
        let shares = [worker.received_percent, worker.load_percent, worker.busy_percent];
        let shares = shares.map(|percent| format!("{percent} %"));
        let fill = format!("{}.{:02}", worker.burst_hundredths / 100, worker.burst_hundredths % 100);
        let last = [rows.to_vec(), shares.to_vec(), vec![fill]].concat();
        [first, numbers.map(|n| n.to_string()).to_vec(), last].concat()
    };
    let head = [
        "worker",
        "core",
        "node",
        "queues",
        "up to date",
        "connections",
        "polls",
        "busy",
        "in",
        "pass",
        "drop",
        "received",
        "handed over",
        "taken over",
        "rss",
        "load",
        "busy time",
        "burst",
    ];
    let mut text = aligned(&head, &workers.iter().map(row).collect::<Vec<_>>());
    for worker in workers {
        for note in &worker.notes {
            let _ = writeln!(text, "worker {}: {note}", worker.id);
        }
    }
    text
}

/// `show rules`
pub fn rules(rules: &[RuleFigures]) -> String {
    let head = ["rule", "id", "nics", "since", "connections", "denied", "would pass", "would drop", "text"];
    let row = |rule: &RuleFigures| {
        let would = |all: u64, other: u64, became: &str| match other {
            0 => all.to_string(),
            _ => format!("{all} ({other} {became})"),
        };
        let enforced = |count: u64| if rule.staged { "-".to_owned() } else { count.to_string() };
        vec![
            rule.rule.clone(),
            rule.rule_id.clone(),
            rule.nics.to_string(),
            or_dash(rule.since.map(|since| moment(since as f64))),
            enforced(rule.connections),
            enforced(rule.denied),
            or_dash(
                rule.would
                    .map(|staged_verdict| would(staged_verdict.pass, staged_verdict.pass_dropped, "dropped")),
            ),
            or_dash(
                rule.would
                    .map(|staged_verdict| would(staged_verdict.drop, staged_verdict.drop_passed, "passed")),
            ),
            rule.rule_text.clone(),
        ]
    };
    aligned(&head, &rules.iter().map(row).collect::<Vec<_>>())
}

/// `show restart`
pub fn restart(restart: &Restart) -> String {
    let mut text = match restart.began {
        Began::Off => {
            return "connections are not kept: a restart forgets them ([conntrack] keep)\n".to_owned();
        }
        Began::Warm => "warm".to_owned(),
        Began::TookOver => "took over".to_owned(),
        Began::Cold => "cold".to_owned(),
    };
    if let Some(reason) = &restart.reason {
        let _ = write!(text, ": {reason}");
    }
    text.push('\n');
    if let Some(folder) = &restart.folder {
        let _ = writeln!(text, "{:<17}{folder}", "kept in");
    }
    if let Some(generation) = restart.generation {
        let _ = writeln!(text, "{:<17}{generation}", "left at");
    }
    for (what, count) in [
        ("live", restart.live),
        ("tombstones", restart.tombstones),
        ("ended", restart.ended),
        ("expired", restart.expired),
        ("unverifiable", restart.unverifiable),
        ("no room", restart.left_out),
    ] {
        let _ = writeln!(text, "{what:<17}{count}");
    }
    let _ = writeln!(text, "{:<17}{} ms", "took", restart.took_us / 1000);
    text
}

/// `show snapshot`
pub fn snapshot(snapshot: &Snapshot) -> String {
    let mut text = String::new();
    let numbers = [
        ("generation", snapshot.generation as usize),
        ("vpcs", snapshot.vpcs),
        ("nics", snapshot.nics),
        ("addresses", snapshot.addresses),
        ("address groups", snapshot.address_groups),
        ("security groups", snapshot.security_groups),
        ("rules", snapshot.rules),
        ("policies", snapshot.policies),
        ("last ending", snapshot.last_ending as usize),
        ("in limbo", snapshot.in_limbo),
    ];
    for (name, number) in numbers {
        let _ = writeln!(text, "{name:<17}{number}");
    }
    let _ = writeln!(text, "{:<17}{}", "acknowledged", if snapshot.acknowledged { "yes" } else { "no" });
    for setting in &snapshot.settings {
        let _ = writeln!(text, "not strict: {setting}");
    }
    text
}

/// `show health`
pub fn health(health: &Health) -> String {
    let status = match health.status {
        Status::Ok => "ok",
        Status::Degraded => "degraded",
        Status::Failed => "failed",
    };
    let mut text = format!("{status}, generation {}\n", health.generation);
    for Problem { what, since, problem, cure, ended } in &health.problems {
        let (since, ended) = (moment(*since as f64), ended.map(|ended| moment(ended as f64)));
        let when =
            ended.map_or_else(|| format!("since {since}"), |ended| format!("{since} to {ended}, over"));
        let _ = writeln!(text, "{what} ({when}): {problem}\n    cure: {cure}");
    }
    text
}
