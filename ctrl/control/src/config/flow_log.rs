//! `[[flow_log]]`: where records of connections and refusals go.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::read::{duration, path, set};
use crate::source::{Fault, Faults, Fields, Node, Value};

/// One flow log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FlowLog {
    /// What its records look like.
    pub kind: FlowKind,
    /// Where they go.
    pub target: FlowTarget,
    /// How often connections that last are told, and refusals: whole seconds.
    pub interval: Duration,
    /// Which of them.
    pub what: FlowWhat,
}

/// What records look like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FlowKind {
    /// Lines as those of AWS VPC flow logs, version 2, with fields of ours behind.
    Aws,
    /// A JSON object a line.
    Json,
    /// IPFIX (RFC 7011) over UDP.
    Ipfix,
    /// NetFlow version 9 (RFC 3954) over UDP.
    NetFlow9,
}

impl FlowKind {
    /// As the configuration spells it.
    pub fn name(self) -> &'static str {
        match self {
            FlowKind::Aws => "aws",
            FlowKind::Json => "json",
            FlowKind::Ipfix => "ipfix",
            FlowKind::NetFlow9 => "netflow9",
        }
    }
}

/// Where records go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FlowTarget {
    /// A file, which is put aside when it has grown to a size.
    File {
        /// Its path; those put aside are called as it is, with `.1`, `.2`, … behind.
        path: PathBuf,
        /// Bytes at which it is put aside.
        rotate_bytes: u64,
        /// How many put aside are kept.
        rotate_keep: u32,
        /// Each begins with the names of its fields.
        header: bool,
    },
    /// A collector, by UDP. An address, never a name: nobody waits for a name server.
    Collector(SocketAddr),
}

/// Which records are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FlowWhat {
    /// All of them.
    All,
    /// Of what passed.
    Accepted,
    /// Of what did not.
    Refused,
}

impl FlowLog {
    /// What it is called in metrics and in health: its kind, and where it goes.
    pub fn name(&self) -> String {
        match &self.target {
            FlowTarget::File { path, .. } => format!("{}:{}", self.kind.name(), path.display()),
            FlowTarget::Collector(address) => format!("{}:{address}", self.kind.name()),
        }
    }
}

const KINDS: [(&str, FlowKind); 4] = [
    ("aws", FlowKind::Aws),
    ("json", FlowKind::Json),
    ("ipfix", FlowKind::Ipfix),
    ("netflow9", FlowKind::NetFlow9),
];
const WHATS: [(&str, FlowWhat); 3] =
    [("all", FlowWhat::All), ("accepted", FlowWhat::Accepted), ("refused", FlowWhat::Refused)];

const KEYS: [&str; 8] =
    ["kind", "path", "collector", "interval", "what", "rotate_bytes", "rotate_keep", "header"];
/// Seconds of aggregation, unless the configuration says otherwise.
const INTERVAL: Duration = Duration::from_secs(60);
const ROTATE_BYTES: u64 = 100 << 20;
const ROTATE_KEEP: u32 = 10;
/// Each has a thread and a queue of its own.
const MOST: usize = 16;

pub(super) fn flow_logs(tables: &Node, text: &str, faults: &mut Faults) -> Vec<FlowLog> {
    let Value::List(items) = &tables.value else {
        faults.note(tables.no("list of flow logs", "tables [[flow_log]] with kind, and path or collector"));
        return Vec::new();
    };
    let mut logs: Vec<FlowLog> = Vec::new();
    for table in items {
        let Some((log, place)) = flow_log(table, text, faults) else { continue };
        if logs.iter().any(|above| above.target_name() == log.target_name()) {
            faults.add(place, format_args!("{} is in use above; allowed: once", log.target_name()));
        }
        logs.push(log);
    }
    if let Some(beyond) = items.get(MOST) {
        faults.add(beyond, format_args!("{} flow logs; allowed: at most {MOST}", items.len()));
    }
    logs
}

impl FlowLog {
    fn target_name(&self) -> String {
        match &self.target {
            FlowTarget::File { path, .. } => path.display().to_string(),
            FlowTarget::Collector(address) => address.to_string(),
        }
    }
}

/// One of them, with the place of its target.
fn flow_log<'t>(table: &'t Node, text: &str, faults: &mut Faults) -> Option<(FlowLog, &'t Node)> {
    let fields = table.keys(&KEYS, faults)?;
    let kind = fields.needed("kind", faults).and_then(|node| faults.take(node.one_of("kind", &KINDS)));
    let (mut interval, mut what) = (INTERVAL, FlowWhat::All);
    set(&mut interval, &fields, "interval", faults, |node| whole_seconds(node, text));
    set(&mut what, &fields, "what", faults, |node| node.one_of("what", &WHATS));
    let (target, place) = match kind? {
        FlowKind::Aws | FlowKind::Json => file(&fields, kind?, faults)?,
        FlowKind::Ipfix | FlowKind::NetFlow9 => collector_of(&fields, kind?, faults)?,
    };
    Some((FlowLog { kind: kind?, target, interval, what }, place))
}

/// What stands there and belongs to the other kinds.
fn refuse(keys: &[&str], fields: &Fields<'_>, kind: FlowKind, takes: &str, faults: &mut Faults) {
    for key in keys {
        if let Some(node) = fields.get(key) {
            faults.add(node, format_args!("{key} with kind {:?}; allowed with it: {takes}", kind.name()));
        }
    }
}

fn file<'t>(fields: &Fields<'t>, kind: FlowKind, faults: &mut Faults) -> Option<(FlowTarget, &'t Node)> {
    refuse(&["collector"], fields, kind, "path", faults);
    if kind == FlowKind::Json {
        refuse(&["header"], fields, kind, "path, rotate_bytes, rotate_keep", faults);
    }
    let (mut rotate_bytes, mut rotate_keep, mut header) = (ROTATE_BYTES, ROTATE_KEEP, false);
    set(&mut header, fields, "header", faults, Node::bool);
    set(&mut rotate_bytes, fields, "rotate_bytes", faults, |node| node.int("size in bytes", 4096..=1 << 40));
    set(&mut rotate_keep, fields, "rotate_keep", faults, |node| node.int("number of files", 1..=1000));
    let node = fields.needed("path", faults)?;
    let path = faults.take(path(node))?;
    Some((FlowTarget::File { path, rotate_bytes, rotate_keep, header }, node))
}

fn collector_of<'t>(
    fields: &Fields<'t>,
    kind: FlowKind,
    faults: &mut Faults,
) -> Option<(FlowTarget, &'t Node)> {
    refuse(&["path", "rotate_bytes", "rotate_keep", "header"], fields, kind, "collector", faults);
    let node = fields.needed("collector", faults)?;
    Some((FlowTarget::Collector(faults.take(collector(node))?), node))
}

fn collector(node: &Node) -> Result<SocketAddr, Fault> {
    const ALLOWED: &str =
        "an IP address and a port, such as 127.0.0.1:2055 or [2001:db8::1]:4739; names are not looked up";
    let text = node.text("collector", ALLOWED)?;
    let address: SocketAddr = text.parse().map_err(|_| node.no("collector", ALLOWED))?;
    let is_one = address.port() != 0 && !address.ip().is_unspecified() && !address.ip().is_multicast();
    is_one.then_some(address).ok_or_else(|| node.no("collector", ALLOWED))
}

/// Seconds of the longest interval: a day.
const LONGEST: u64 = 86_400;

fn whole_seconds(node: &Node, text: &str) -> Result<Duration, Fault> {
    let no = || node.no("interval", format_args!("a whole number of seconds from 1 to {LONGEST}"));
    let interval = duration(node, text, 1).map_err(|_| no())?;
    let is_one = interval.subsec_nanos() == 0 && (1..=LONGEST).contains(&interval.as_secs());
    is_one.then_some(interval).ok_or_else(no)
}
