//! TOML text into a [`Config`].

use super::eal::chooses_cores;
use super::{
    Anonymous, Api, Config, Conntrack, Eal, FlushScope, Idle, InboundFlush, LOG_LEVELS, Log, LogFormat,
    OnFlush, PolicySettings, Source, Store, TcpPickup, Timeouts, Unknown, Wire, Workers,
};
use crate::document::Limits;
use crate::model::{Mode, Prefix, ipv4_form};
use crate::name;
use crate::source::{Diagnostic, Fault, Fields, Node, Value, decimal_nanos, parse_toml};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

/// The longest duration that any key takes.
const MAX_SECONDS: u64 = 30 * 24 * 3600;

/// Parses and validates a configuration; `file` is how diagnostics name it.
pub fn parse_config(text: &str, file: &str) -> Result<Config, Diagnostic> {
    let root = parse_toml(text).map_err(|fault| fault.in_file(file))?;
    config(&root, text).map_err(|fault| fault.in_tree(&root, file))
}

fn config(root: &Node, text: &str) -> Result<Config, Fault> {
    let mut config = Config::default();
    let tables = ["eal", "wire", "workers", "conntrack", "timeouts", "policy", "api", "store", "log"];
    for (name, table) in root.fields(&tables)?.in_order() {
        match name {
            "eal" => config.eal = eal(table)?,
            "wire" => config.wires = wires(table)?,
            "workers" => config.workers = workers(table)?,
            "conntrack" => config.conntrack = conntrack(table, text)?,
            "timeouts" => config.timeouts = timeouts(table, text)?,
            "policy" => config.policy = policy(table)?,
            "api" => config.api = api(table)?,
            "store" => config.store = store(table)?,
            _ => config.log = log(table)?,
        }
    }
    Ok(config)
}

/// Puts the value of `key` into `slot`, where the key is given.
fn set<'t, T>(
    slot: &mut T,
    fields: &Fields<'t>,
    key: &str,
    read: impl FnOnce(&'t Node) -> Result<T, Fault>,
) -> Result<(), Fault> {
    if let Some(node) = fields.get(key) {
        *slot = read(node)?;
    }
    Ok(())
}

/// The items of a list, none of them twice.
fn distinct<'t, T: PartialEq>(
    node: &'t Node,
    what: &str,
    read: impl Fn(&'t Node) -> Result<T, Fault>,
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

fn eal(table: &Node) -> Result<Eal, Fault> {
    let mut eal = Eal::default();
    set(&mut eal.args, &table.fields(&["args"])?, "args", |node| {
        node.list("arguments of DPDK")?.iter().map(eal_arg).collect()
    })?;
    Ok(eal)
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

fn wires(tables: &Node) -> Result<Vec<Wire>, Fault> {
    let mut wires: Vec<Wire> = Vec::new();
    let mut ports: Vec<&str> = Vec::new();
    let Value::List(tables) = &tables.value else {
        return Err(tables.no("list of wires", "tables [[wire]] with name, inside and outside"));
    };
    for table in tables {
        let fields = table.fields(&["name", "inside", "outside", "mtu"])?;
        let name_node = fields.required("name")?;
        let allowed = "1-255 characters, no control characters, no '/', no '#'";
        let name = name_node.text("name", allowed)?;
        if name::check(name).is_err() {
            return Err(name_node.no("name", allowed));
        }
        if wires.iter().any(|wire| wire.name == name) {
            return Err(name_node.fault(format_args!("a wire {name:?} stands above; allowed: once")));
        }
        for side in ["inside", "outside"] {
            let node = fields.required(side)?;
            let port = node.text("port", "the name of a DPDK port")?;
            if port.is_empty() || port.chars().any(|c| c.is_control() || c.is_whitespace()) {
                return Err(node.no("port", "the name of a DPDK port"));
            }
            if ports.contains(&port) {
                return Err(node.fault(format_args!("the port {port:?} is in use above; allowed: once")));
            }
            ports.push(port);
        }
        let port = |side| fields.required(side)?.text("port", "the name of a DPDK port").map(str::to_owned);
        let (inside, outside) = (port("inside")?, port("outside")?);
        let mut mtu = None;
        set(&mut mtu, &fields, "mtu", |node| node.int("MTU", MTU).map(Some))?;
        wires.push(Wire { name: name.to_owned(), inside, outside, mtu });
    }
    Ok(wires)
}

fn workers(table: &Node) -> Result<Workers, Fault> {
    let mut workers = Workers::default();
    let fields = table.fields(&["cores", "idle"])?;
    set(&mut workers.cores, &fields, "cores", |node| {
        let cores = distinct(node, "cores", |core| core.int("core", 0..=1023))?;
        if cores.is_empty() { Err(node.fault("no core is given; allowed: at least one")) } else { Ok(cores) }
    })?;
    set(&mut workers.idle, &fields, "idle", |node| {
        node.one_of("idle", &[("poll", Idle::Poll), ("park", Idle::Park)])
    })?;
    Ok(workers)
}

fn conntrack(table: &Node, text: &str) -> Result<Conntrack, Fault> {
    let fields =
        table.fields(&["capacity", "unconfirmed_share", "tcp_window_check", "tcp_pickup", "pickup_grace"])?;
    let mut conntrack = Conntrack::default();
    set(&mut conntrack.capacity, &fields, "capacity", |node| node.int("capacity", 1..=1 << 28))?;
    set(&mut conntrack.unconfirmed_share, &fields, "unconfirmed_share", |node| {
        let share = match node.value {
            Value::Float(share) => Some(share),
            Value::Int(1) => Some(1.0),
            _ => None,
        };
        let allowed = share.filter(|share| *share > 0.0 && *share <= 1.0);
        allowed.ok_or_else(|| node.no("share", "above 0 and at most 1"))
    })?;
    set(&mut conntrack.tcp_window_check, &fields, "tcp_window_check", Node::bool)?;
    set(&mut conntrack.tcp_pickup, &fields, "tcp_pickup", |node| {
        node.one_of("tcp_pickup", &[("strict", TcpPickup::Strict), ("loose", TcpPickup::Loose)])
    })?;
    set(&mut conntrack.pickup_grace, &fields, "pickup_grace", |node| duration(node, text, 0))?;
    Ok(conntrack)
}

fn timeouts(table: &Node, text: &str) -> Result<Timeouts, Fault> {
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
    let fields = table.fields(&slots.each_ref().map(|(key, _)| *key))?;
    for (key, slot) in slots {
        set(slot, &fields, key, |node| duration(node, text, 1))?;
    }
    if fields.get("tcp_half_closed").is_none() {
        timeouts.tcp_half_closed = timeouts.tcp_fin;
    }
    Ok(timeouts)
}

/// A number of seconds, of at least so many nanoseconds.
fn duration(node: &Node, text: &str, least: u64) -> Result<Duration, Fault> {
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

fn policy(table: &Node) -> Result<PolicySettings, Fault> {
    let fields = table.fields(&[
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
    ])?;
    let mut policy = PolicySettings::default();
    let unknown =
        |key| move |node: &Node| node.one_of(key, &[("drop", Unknown::Drop), ("pass", Unknown::Pass)]);
    set(&mut policy.inbound_flush, &fields, "inbound_flush", |node| {
        let words = [("any-rule", InboundFlush::AnyRule), ("inbound-rules", InboundFlush::InboundRules)];
        node.one_of("inbound_flush", &words)
    })?;
    set(&mut policy.flush_scope, &fields, "flush_scope", |node| {
        node.one_of("flush_scope", &[("group", FlushScope::Group), ("joined", FlushScope::Joined)])
    })?;
    set(&mut policy.on_flush, &fields, "on_flush", |node| {
        node.one_of("on_flush", &[("tombstone", OnFlush::Tombstone), ("rejudge", OnFlush::Rejudge)])
    })?;
    let Limits { rules_per_group, groups_per_nic } = &mut policy.limits;
    set(rules_per_group, &fields, "rules_per_group", |node| node.int("quota", 1..=1000))?;
    set(groups_per_nic, &fields, "groups_per_nic", |node| node.int("quota", 1..=100))?;
    set(&mut policy.pass_ethertypes, &fields, "pass_ethertypes", |node| {
        distinct(node, "ethertypes", pass_ethertype)
    })?;
    set(&mut policy.mode, &fields, "mode", |node| {
        node.one_of("mode", &[("enforce", Mode::Enforce), ("observe", Mode::Observe)])
    })?;
    set(&mut policy.unknown_segment, &fields, "unknown_segment", unknown("unknown_segment"))?;
    set(&mut policy.unknown_nic, &fields, "unknown_nic", unknown("unknown_nic"))?;
    set(&mut policy.pass_link_local, &fields, "pass_link_local", Node::bool)?;
    set(&mut policy.pass_multicast, &fields, "pass_multicast", |node| {
        distinct(node, "multicast prefixes", multicast_prefix)
    })?;
    set(&mut policy.source, &fields, "source", |node| {
        node.one_of("source", &[("file", Some(Source::File)), ("api", Some(Source::Api))])
    })?;
    Ok(policy)
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

fn multicast_prefix(node: &Node) -> Result<Prefix, Fault> {
    const ALLOWED: &str = "a prefix in 224.0.0.0/4 or ff00::/8";
    let prefix: Prefix = node.parsed_address("multicast prefix", ALLOWED)?;
    let all = [
        Prefix::new(IpAddr::V4(Ipv4Addr::new(224, 0, 0, 0)), 4),
        Prefix::new(IpAddr::V6(Ipv6Addr::new(0xff00, 0, 0, 0, 0, 0, 0, 0)), 8),
    ];
    let within = |all: Prefix| all.len() <= prefix.len() && all.contains(prefix.addr());
    if all.into_iter().flatten().any(within) { Ok(prefix) } else { Err(node.no("multicast prefix", ALLOWED)) }
}

fn api(table: &Node) -> Result<Api, Fault> {
    let fields = table.fields(&[
        "socket",
        "socket_group",
        "anonymous",
        "listen",
        "tls_cert",
        "tls_key",
        "token_file",
    ])?;
    let mut api = Api::default();
    set(&mut api.socket, &fields, "socket", socket_path)?;
    set(&mut api.socket_group, &fields, "socket_group", |node| {
        let group = node.text("group", "the name of a group")?;
        if group.is_empty() {
            Err(node.no("group", "the name of a group"))
        } else {
            Ok(Some(group.to_owned()))
        }
    })?;
    let anonymous = [("none", Anonymous::None), ("read", Anonymous::Read), ("write", Anonymous::Write)];
    set(&mut api.anonymous, &fields, "anonymous", |node| node.one_of("anonymous", &anonymous))?;
    set(&mut api.listen, &fields, "listen", |node| {
        let listen: SocketAddr = node.parsed("address to listen on", "ADDRESS:PORT or [ADDRESS]:PORT")?;
        match ipv4_form(&listen.ip().to_string()) {
            Some(v4) => {
                Err(node.fault(format_args!("{listen} is IPv4-mapped; allowed: {v4}:{}", listen.port())))
            }
            None => Ok(Some(listen)),
        }
    })?;
    for (key, slot) in
        [("tls_cert", &mut api.tls_cert), ("tls_key", &mut api.tls_key), ("token_file", &mut api.token_file)]
    {
        set(slot, &fields, key, |node| path(node).map(Some))?;
    }
    for (key, other, missing) in
        [("tls_cert", "tls_key", api.tls_key.is_none()), ("tls_key", "tls_cert", api.tls_cert.is_none())]
    {
        if let Some(node) = fields.get(key).filter(|_| missing) {
            return Err(node.fault(format_args!("{key} without {other}; allowed: both or neither")));
        }
    }
    let guarded = api.tls_cert.is_some() && api.token_file.is_some();
    if let (Some(node), Some(listen)) = (fields.get("listen"), api.listen)
        && !listen.ip().is_loopback()
        && !guarded
    {
        return Err(node.fault(format_args!(
            "{listen} is open to others without TLS and a token; allowed: a loopback address, or tls_cert, tls_key and \
             token_file beside it"
        )));
    }
    if let (Some(node), Some(listen)) = (fields.get("listen"), api.listen)
        && api.token_file.is_none()
        && api.anonymous == Anonymous::None
    {
        return Err(node.fault(format_args!(
            "{listen} without a token lets nobody ask, or everybody on this machine; allowed: token_file beside it, or \
             anonymous = \"read\" or \"write\""
        )));
    }
    if let Some(node) = fields.get("anonymous")
        && api.anonymous != Anonymous::None
        && api.listen.is_some_and(|listen| !listen.ip().is_loopback())
    {
        return Err(node.fault("strangers on an address that is not loopback; allowed there: none"));
    }
    Ok(api)
}

fn store(table: &Node) -> Result<Store, Fault> {
    let mut store = Store::default();
    let fields = table.fields(&["path", "witness", "must_exist"])?;
    set(&mut store.path, &fields, "path", |node| path(node).map(Some))?;
    set(&mut store.witness, &fields, "witness", |node| path(node).map(Some))?;
    set(&mut store.must_exist, &fields, "must_exist", Node::bool)?;
    for key in ["witness", "must_exist"] {
        if let Some(node) = fields.get(key).filter(|_| store.path.is_none()) {
            return Err(
                node.fault(format_args!("{key} is given and there is no store; required with it: path"))
            );
        }
    }
    if let Some(node) = fields.get("witness").filter(|_| store.witness == store.path) {
        return Err(node.fault("it is the store itself; allowed: another file, best on another disk"));
    }
    Ok(store)
}

fn log(table: &Node) -> Result<Log, Fault> {
    let fields = table.fields(&["level", "format"])?;
    let mut log = Log::default();
    set(&mut log.level, &fields, "level", |node| node.one_of("level", &LOG_LEVELS))?;
    set(&mut log.format, &fields, "format", |node| {
        node.one_of("format", &[("text", LogFormat::Text), ("json", LogFormat::Json)])
    })?;
    Ok(log)
}

fn path(node: &Node) -> Result<PathBuf, Fault> {
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
