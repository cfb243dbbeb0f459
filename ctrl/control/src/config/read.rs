//! TOML text into a [`Config`].

use super::eal::chooses_cores;
use super::flow_log::flow_logs;
use super::sandbox::sandbox;
use super::{
    Anonymous, Api, Config, Conntrack, Eal, FlushScope, Idle, InboundFlush, LOG_LEVELS, Log, LogFormat,
    Metrics, OnFlush, Persistence, PolicySettings, Source, Stats, Store, TcpPickup, Timeouts, Trace, Unknown,
    Wire, Workers,
};
use crate::document::{Limits, host_bits};
use crate::model::{Mode, Prefix, ipv4_form};
use crate::name;
use crate::registry::MOST_NICS;
use crate::source::{Diagnostic, Fault, Faults, Fields, Node, Value, decimal_nanos, parse_toml};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// The longest duration that any key takes.
const MAX_SECONDS: u64 = 30 * 24 * 3600;

/// Parses and validates a configuration; `file` is how diagnostics name it. Of faults the first is told.
pub fn parse_config(text: &str, file: &str) -> Result<Config, Diagnostic> {
    check_config(text, file).map(|checked| checked.config).map_err(|mut faults| faults.swap_remove(0))
}

/// A valid configuration.
#[derive(Clone, Debug)]
pub struct Checked {
    /// What it says.
    pub config: Config,
    /// What is accepted and yet likely a mistake.
    pub warnings: Vec<Diagnostic>,
    root: Arc<Node>,
    file: String,
}

impl Checked {
    /// What is wrong with the value at a path (`wire[0].inside`), beyond what the text can tell.
    pub fn fault(&self, path: &str, message: impl std::fmt::Display) -> Diagnostic {
        let file = &self.file;
        match self.root.find(path) {
            Some(node) => node.fault(message).in_tree(&self.root, file),
            None => Diagnostic::whole_file(file, format!("{path}: {message}")),
        }
    }
}

/// The same, with every fault, in the order of the file; there is at least one.
pub fn check_config(text: &str, file: &str) -> Result<Checked, Vec<Diagnostic>> {
    let root = parse_toml(text).map_err(|fault| vec![fault.in_file(file)])?;
    let (mut faults, mut warnings) = (Faults::default(), Faults::default());
    let config = config(&root, text, &mut faults, &mut warnings);
    if !faults.is_empty() {
        return Err(faults.told(&root, file));
    }
    let warnings = warnings.told(&root, file);
    Ok(Checked { config, warnings, root: Arc::new(root), file: file.to_owned() })
}

fn config(root: &Node, text: &str, faults: &mut Faults, warnings: &mut Faults) -> Config {
    let mut config = Config::default();
    let tables = [
        "eal",
        "wire",
        "workers",
        "conntrack",
        "timeouts",
        "policy",
        "api",
        "store",
        "log",
        "trace",
        "flow_log",
        "metrics",
        "stats",
        "sandbox",
    ];
    for (name, table) in root.keys(&tables, faults).iter().flat_map(Fields::in_order) {
        match name {
            "eal" => config.eal = eal(table, faults),
            "wire" => config.wires = wires(table, faults),
            "workers" => config.workers = workers(table, faults),
            "conntrack" => config.conntrack = conntrack(table, text, faults),
            "timeouts" => config.timeouts = timeouts(table, text, faults),
            "policy" => config.policy = policy(table, faults, warnings),
            "api" => config.api = api(table, faults),
            "store" => config.store = store(table, faults),
            "log" => config.log = log(table, faults),
            "trace" => config.trace = trace(table, faults),
            "flow_log" => config.flow_logs = flow_logs(table, text, faults),
            "metrics" => config.metrics = metrics(table, faults),
            "stats" => config.stats = stats(table, faults),
            "sandbox" => config.sandbox = sandbox(table, faults),
            // Noted by now.
            _ => {}
        }
    }
    config
}

/// Puts the value of `key` into `slot`, where the key is given; one that cannot be read is noted.
pub(super) fn set<'t, T>(
    slot: &mut T,
    fields: &Fields<'t>,
    key: &str,
    faults: &mut Faults,
    read: impl FnOnce(&'t Node) -> Result<T, Fault>,
) {
    if let Some(value) = fields.optional(key, faults, read) {
        *slot = value;
    }
}

/// The items of a list, none of them twice.
fn distinct<'t, T: PartialEq>(
    node: &'t Node,
    what: &str,
    mut read: impl FnMut(&'t Node) -> Result<T, Fault>,
) -> Result<Vec<T>, Fault> {
    let mut values = Vec::new();
    for item in node.list(what)? {
        let value = read(item)?;
        if values.contains(&value) {
            return Err(item.fault(format_args!("{} stands twice; allowed: once", item.value.describe())));
        }
        values.push(value);
    }
    Ok(values)
}

fn eal(table: &Node, faults: &mut Faults) -> Eal {
    let mut eal = Eal::default();
    let Some(fields) = table.keys(&["args", "telemetry"], faults) else { return eal };
    set(&mut eal.telemetry, &fields, "telemetry", faults, Node::bool);
    let args = faults.take(fields.items("args", "arguments of DPDK")).unwrap_or_default();
    eal.args = args.iter().filter_map(|node| faults.take(eal_arg(node))).collect();
    eal
}

fn eal_arg(node: &Node) -> Result<String, Fault> {
    let arg = node.text("argument", "text")?;
    if arg.is_empty() || arg.contains('\0') {
        return Err(node.no("argument", "text that is not empty, without NUL"));
    }
    if chooses_cores(arg) {
        return Err(node.fault(format_args!(
            "{} chooses cores; allowed: every argument that does not, workers.cores decides",
            node.value.describe()
        )));
    }
    Ok(arg.to_owned())
}

/// From what every IPv4 host takes (RFC 791) to more than any jumbo frame.
const MTU: RangeInclusive<u16> = 576..=16_000;

fn wires(tables: &Node, faults: &mut Faults) -> Vec<Wire> {
    let Value::List(tables) = &tables.value else {
        faults.note(tables.no("list of wires", "tables [[wire]] with name, inside and outside"));
        return Vec::new();
    };
    let (mut names, mut ports) = (Vec::new(), Vec::new());
    tables.iter().filter_map(|table| wire(table, &mut names, &mut ports, faults)).collect()
}

/// One of them, beside those whose names and ports these are.
fn wire<'t>(
    table: &'t Node,
    names: &mut Vec<&'t str>,
    ports: &mut Vec<&'t str>,
    faults: &mut Faults,
) -> Option<Wire> {
    let fields = table.keys(&["name", "inside", "outside", "mtu"], faults)?;
    let distinct = |key: &str,
                    above: &mut Vec<&'t str>,
                    faults: &mut Faults,
                    read: fn(&'t Node) -> Result<&'t str, Fault>| {
        let node = fields.needed(key, faults)?;
        let text = faults.take(read(node))?;
        if above.contains(&text) {
            let message = match key {
                "name" => format!("a wire {text:?} stands above; allowed: once"),
                _ => format!("the port {text:?} is in use above; allowed: once"),
            };
            faults.add(node, message);
        }
        above.push(text);
        Some(text.to_owned())
    };
    let name = distinct("name", names, faults, wire_name);
    let inside = distinct("inside", ports, faults, port_name);
    let outside = distinct("outside", ports, faults, port_name);
    let mtu = fields.optional("mtu", faults, |node| node.int("MTU", MTU));
    Some(Wire { name: name?, inside: inside?, outside: outside?, mtu })
}

fn wire_name(node: &Node) -> Result<&str, Fault> {
    const ALLOWED: &str = "1-255 characters, no control characters, no '/', no '#'";
    let name = node.text("name", ALLOWED)?;
    name::check(name).map(|()| name).map_err(|_| node.no("name", ALLOWED))
}

fn port_name(node: &Node) -> Result<&str, Fault> {
    const ALLOWED: &str = "the name of a DPDK port";
    let port = node.text("port", ALLOWED)?;
    let is_name = !port.is_empty() && !port.chars().any(|c| c.is_control() || c.is_whitespace());
    is_name.then_some(port).ok_or_else(|| node.no("port", ALLOWED))
}

fn workers(table: &Node, faults: &mut Faults) -> Workers {
    let mut workers = Workers::default();
    let Some(fields) = table.keys(&["cores", "idle"], faults) else { return workers };
    set(&mut workers.cores, &fields, "cores", faults, |node| {
        let cores = distinct(node, "cores", |core| core.int("core", 0..=1023))?;
        if cores.is_empty() { Err(node.fault("no core is given; allowed: at least one")) } else { Ok(cores) }
    });
    set(&mut workers.idle, &fields, "idle", faults, |node| {
        node.one_of("idle", &[("poll", Idle::Poll), ("park", Idle::Park)])
    });
    workers
}

fn conntrack(table: &Node, text: &str, faults: &mut Faults) -> Conntrack {
    const KEYS: [&str; 7] =
        ["capacity", "unconfirmed_share", "tcp_window_check", "tcp_pickup", "pickup_grace", "count", "keep"];
    let mut conntrack = Conntrack::default();
    let Some(fields) = table.keys(&KEYS, faults) else { return conntrack };
    set(&mut conntrack.capacity, &fields, "capacity", faults, |node| node.int("capacity", 1..=1 << 28));
    set(&mut conntrack.unconfirmed_share, &fields, "unconfirmed_share", faults, |node| {
        let share = match node.value {
            Value::Float(share) => Some(share),
            Value::Int(1) => Some(1.0),
            _ => None,
        };
        let allowed = share.filter(|share| *share > 0.0 && *share <= 1.0);
        allowed.ok_or_else(|| node.no("share", "above 0 and at most 1"))
    });
    set(&mut conntrack.tcp_window_check, &fields, "tcp_window_check", faults, Node::bool);
    set(&mut conntrack.tcp_pickup, &fields, "tcp_pickup", faults, |node| {
        node.one_of("tcp_pickup", &[("strict", TcpPickup::Strict), ("loose", TcpPickup::Loose)])
    });
    set(&mut conntrack.pickup_grace, &fields, "pickup_grace", faults, |node| duration(node, text, 0));
    set(&mut conntrack.count, &fields, "count", faults, Node::bool);
    set(&mut conntrack.keep, &fields, "keep", faults, keep);
    conntrack
}

fn keep(node: &Node) -> Result<Persistence, Fault> {
    let no = || node.no("place to keep connections", "\"off\", \"auto\" or the absolute path of a folder");
    match &node.value {
        Value::Text(text) if text == "off" => Ok(Persistence::Off),
        Value::Text(text) if text == "auto" => Ok(Persistence::Auto),
        Value::Text(text) if text.starts_with('/') => path(node).map(Persistence::At),
        _ => Err(no()),
    }
}

fn timeouts(table: &Node, text: &str, faults: &mut Faults) -> Timeouts {
    let mut timeouts = Timeouts::default();
    let Timeouts {
        tcp_syn,
        tcp_established,
        tcp_fin,
        tcp_half_closed,
        tcp_reset,
        icmp,
        one_way,
        two_way,
        fragment,
    } = &mut timeouts;
    let slots = [
        ("tcp_syn", tcp_syn),
        ("tcp_established", tcp_established),
        ("tcp_fin", tcp_fin),
        ("tcp_half_closed", tcp_half_closed),
        ("tcp_reset", tcp_reset),
        ("icmp", icmp),
        ("one_way", one_way),
        ("two_way", two_way),
        ("fragment", fragment),
    ];
    let Some(fields) = table.keys(&slots.each_ref().map(|(key, _)| *key), faults) else { return timeouts };
    for (key, slot) in slots {
        set(slot, &fields, key, faults, |node| duration(node, text, 1));
    }
    if fields.get("tcp_half_closed").is_none() {
        timeouts.tcp_half_closed = timeouts.tcp_fin;
    }
    timeouts
}

/// A number of seconds, of at least so many nanoseconds.
pub(super) fn duration(node: &Node, text: &str, least: u64) -> Result<Duration, Fault> {
    let nanos = match node.value {
        Value::Int(seconds) => u64::try_from(seconds).ok().and_then(|s| s.checked_mul(1_000_000_000)),
        Value::Float(_) => decimal_nanos(&node.at.slice(text).replace('_', "")),
        _ => None,
    };
    let most = Duration::from_secs(MAX_SECONDS);
    let from = if least == 0 { "from" } else { "above" };
    nanos
        .filter(|nanos| *nanos >= least)
        .map(Duration::from_nanos)
        .filter(|duration| *duration <= most)
        .ok_or_else(|| node.no("duration", format_args!("a number of seconds {from} 0 to {MAX_SECONDS}")))
}

fn policy(table: &Node, faults: &mut Faults, warnings: &mut Faults) -> PolicySettings {
    const KEYS: [&str; 13] = [
        "inbound_flush",
        "flush_scope",
        "on_flush",
        "rules_per_group",
        "groups_per_nic",
        "pass_ethertypes",
        "mode",
        "unknown_segment",
        "unknown_nic",
        "pass_link_local",
        "pass_multicast",
        "source",
        "max_removed_share",
    ];
    let mut policy = PolicySettings::default();
    let Some(fields) = table.keys(&KEYS, faults) else { return policy };
    let unknown =
        |key| move |node: &Node| node.one_of(key, &[("drop", Unknown::Drop), ("pass", Unknown::Pass)]);
    set(&mut policy.inbound_flush, &fields, "inbound_flush", faults, |node| {
        let words = [("any-rule", InboundFlush::AnyRule), ("inbound-rules", InboundFlush::InboundRules)];
        node.one_of("inbound_flush", &words)
    });
    set(&mut policy.flush_scope, &fields, "flush_scope", faults, |node| {
        node.one_of("flush_scope", &[("group", FlushScope::Group), ("joined", FlushScope::Joined)])
    });
    set(&mut policy.on_flush, &fields, "on_flush", faults, |node| {
        node.one_of("on_flush", &[("tombstone", OnFlush::Tombstone), ("rejudge", OnFlush::Rejudge)])
    });
    set(&mut policy.max_removed_share, &fields, "max_removed_share", faults, |node| match node.value {
        Value::Int(whole @ (0 | 1)) => Ok(whole as f64),
        Value::Float(share) if (0.0..=1.0).contains(&share) => Ok(share),
        _ => Err(node.no("share", "0 to 1")),
    });
    let Limits { rules_per_group, groups_per_nic } = &mut policy.limits;
    set(rules_per_group, &fields, "rules_per_group", faults, |node| node.int("quota", 1..=1000));
    set(groups_per_nic, &fields, "groups_per_nic", faults, |node| node.int("quota", 1..=100));
    set(&mut policy.pass_ethertypes, &fields, "pass_ethertypes", faults, |node| {
        distinct(node, "ethertypes", pass_ethertype)
    });
    set(&mut policy.mode, &fields, "mode", faults, |node| {
        node.one_of("mode", &[("enforce", Mode::Enforce), ("observe", Mode::Observe)])
    });
    set(&mut policy.unknown_segment, &fields, "unknown_segment", faults, unknown("unknown_segment"));
    set(&mut policy.unknown_nic, &fields, "unknown_nic", faults, unknown("unknown_nic"));
    set(&mut policy.pass_link_local, &fields, "pass_link_local", faults, Node::bool);
    set(&mut policy.pass_multicast, &fields, "pass_multicast", faults, |node| {
        distinct(node, "multicast prefixes", |node| multicast_prefix(node, warnings))
    });
    set(&mut policy.source, &fields, "source", faults, |node| {
        node.one_of("source", &[("file", Some(Source::File)), ("api", Some(Source::Api))])
    });
    policy
}

/// What is judged by other checks cannot be passed here: IP, ARP, and the tags that carry a segment.
fn pass_ethertype(node: &Node) -> Result<u16, Fault> {
    const OTHERWISE_JUDGED: [u16; 5] = [0x0800, 0x0806, 0x86dd, 0x8100, 0x88a8];
    const ALLOWED: &str =
        "0x0600-0xffff but 0x0800 (IPv4), 0x0806 (ARP), 0x86dd (IPv6), 0x8100 and 0x88a8 (VLAN)";
    match node.value {
        Value::Int(i) => u16::try_from(i).ok(),
        _ => None,
    }
    .filter(|ethertype| *ethertype >= 0x600 && !OTHERWISE_JUDGED.contains(ethertype))
    .ok_or_else(|| node.no("ethertype to pass", ALLOWED))
}

fn multicast_prefix(node: &Node, warnings: &mut Faults) -> Result<Prefix, Fault> {
    const ALLOWED: &str = "a prefix in 224.0.0.0/4 or ff00::/8";
    let prefix: Prefix = node.parsed_address("multicast prefix", ALLOWED)?;
    let all = [
        Prefix::new(IpAddr::V4(Ipv4Addr::new(224, 0, 0, 0)), 4),
        Prefix::new(IpAddr::V6(Ipv6Addr::new(0xff00, 0, 0, 0, 0, 0, 0, 0)), 8),
    ];
    let within = |all: Prefix| all.len() <= prefix.len() && all.contains(prefix.addr());
    if !all.into_iter().flatten().any(within) {
        return Err(node.no("multicast prefix", ALLOWED));
    }
    host_bits(node, &prefix, warnings);
    Ok(prefix)
}

fn api(table: &Node, faults: &mut Faults) -> Api {
    const KEYS: [&str; 8] =
        ["socket", "socket_group", "anonymous", "listen", "tls_cert", "tls_key", "token_file", "console"];
    let mut api = Api::default();
    let Some(fields) = table.keys(&KEYS, faults) else { return api };
    let before = faults.len();
    set(&mut api.socket, &fields, "socket", faults, socket_path);
    set(&mut api.socket_group, &fields, "socket_group", faults, |node| {
        let group = node.text("group", "the name of a group")?;
        if group.is_empty() {
            Err(node.no("group", "the name of a group"))
        } else {
            Ok(Some(group.to_owned()))
        }
    });
    let anonymous = [("none", Anonymous::None), ("read", Anonymous::Read), ("write", Anonymous::Write)];
    set(&mut api.anonymous, &fields, "anonymous", faults, |node| node.one_of("anonymous", &anonymous));
    set(&mut api.listen, &fields, "listen", faults, |node| {
        let listen: SocketAddr = node.parsed("address to listen on", "ADDRESS:PORT or [ADDRESS]:PORT")?;
        match ipv4_form(&listen.ip().to_string()) {
            Some(v4) => {
                Err(node.fault(format_args!("{listen} is IPv4-mapped; allowed: {v4}:{}", listen.port())))
            }
            None => Ok(Some(listen)),
        }
    });
    for (key, slot) in
        [("tls_cert", &mut api.tls_cert), ("tls_key", &mut api.tls_key), ("token_file", &mut api.token_file)]
    {
        set(slot, &fields, key, faults, |node| path(node).map(Some));
    }
    set(&mut api.console, &fields, "console", faults, Node::bool);
    if faults.len() > before {
        return api;
    }
    if let Some(node) = fields.get("console").filter(|_| api.console && api.listen.is_none()) {
        faults.note(
            node.fault(
                "true without listen: a browser reaches no socket; allowed: false, or listen beside it",
            ),
        );
    }
    for (key, other, missing) in
        [("tls_cert", "tls_key", api.tls_key.is_none()), ("tls_key", "tls_cert", api.tls_cert.is_none())]
    {
        if let Some(node) = fields.get(key).filter(|_| missing) {
            faults.note(node.fault(format_args!("{key} without {other}; allowed: both or neither")));
        }
    }
    let guarded = api.tls_cert.is_some() && api.token_file.is_some();
    if let (Some(node), Some(listen)) = (fields.get("listen"), api.listen)
        && !listen.ip().is_loopback()
        && !guarded
    {
        faults.note(node.fault(format_args!(
            "{listen} is open to others without TLS and a token; allowed: a loopback address, or tls_cert, tls_key and \
             token_file beside it"
        )));
    }
    if let (Some(node), Some(listen)) = (fields.get("listen"), api.listen)
        && api.token_file.is_none()
        && api.anonymous == Anonymous::None
    {
        faults.note(node.fault(format_args!(
            "{listen} without a token lets nobody ask, or everybody on this machine; allowed: token_file beside it, or \
             anonymous = \"read\" or \"write\""
        )));
    }
    if let Some(node) = fields.get("anonymous")
        && api.anonymous != Anonymous::None
        && api.listen.is_some_and(|listen| !listen.ip().is_loopback())
    {
        faults.note(node.fault("strangers on an address that is not loopback; allowed there: none"));
    }
    api
}

fn store(table: &Node, faults: &mut Faults) -> Store {
    let mut store = Store::default();
    let Some(fields) = table.keys(&["path", "witness", "must_exist"], faults) else { return store };
    set(&mut store.path, &fields, "path", faults, |node| path(node).map(Some));
    set(&mut store.witness, &fields, "witness", faults, |node| path(node).map(Some));
    set(&mut store.must_exist, &fields, "must_exist", faults, Node::bool);
    for key in ["witness", "must_exist"] {
        if let Some(node) = fields.get(key).filter(|_| fields.get("path").is_none()) {
            faults.add(node, format_args!("{key} is given and there is no store; required with it: path"));
        }
    }
    if let Some(node) =
        fields.get("witness").filter(|_| store.witness.is_some() && store.witness == store.path)
    {
        faults.add(node, "it is the store itself; allowed: another file, best on another disk");
    }
    store
}

fn log(table: &Node, faults: &mut Faults) -> Log {
    let mut log = Log::default();
    let Some(fields) = table.keys(&["level", "format"], faults) else { return log };
    set(&mut log.level, &fields, "level", faults, |node| node.one_of("level", &LOG_LEVELS));
    set(&mut log.format, &fields, "format", faults, |node| {
        node.one_of("format", &[("text", LogFormat::Text), ("json", LogFormat::Json)])
    });
    log
}

/// Decisions that may be remembered: 1.8 GB of them.
const MOST_HISTORY: usize = 10_000_000;

fn trace(table: &Node, faults: &mut Faults) -> Trace {
    let mut trace = Trace::default();
    let Some(fields) = table.keys(&["history"], faults) else { return trace };
    set(&mut trace.history, &fields, "history", faults, |node| node.int("history", 0..=MOST_HISTORY));
    trace
}

fn metrics(table: &Node, faults: &mut Faults) -> Metrics {
    let mut metrics = Metrics::default();
    let Some(fields) = table.keys(&["nics"], faults) else { return metrics };
    set(&mut metrics.nics, &fields, "nics", faults, |node| node.int("number of NICs", 0..=MOST_NICS));
    metrics
}

fn stats(table: &Node, faults: &mut Faults) -> Stats {
    let mut stats = Stats::default();
    let Some(fields) = table.keys(&["page"], faults) else { return stats };
    set(&mut stats.page, &fields, "page", faults, |node| path(node).map(Some));
    stats
}

pub(super) fn path(node: &Node) -> Result<PathBuf, Fault> {
    let text = node.text("path", "the path of a file")?;
    if text.is_empty() || text.contains('\0') {
        return Err(node.no("path", "the path of a file"));
    }
    Ok(text.into())
}

/// What `sun_path` of a unix socket's address holds beside its NUL.
const MAX_SOCKET_PATH: usize = 107;

fn socket_path(node: &Node) -> Result<PathBuf, Fault> {
    let path = path(node)?;
    if path.as_os_str().len() > MAX_SOCKET_PATH {
        return Err(node.fault(format_args!(
            "a path of {} bytes; allowed: at most {MAX_SOCKET_PATH} for a unix socket",
            path.as_os_str().len()
        )));
    }
    Ok(path)
}
