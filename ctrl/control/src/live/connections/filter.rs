//! Which connections are meant.

use std::net::IpAddr;

use serde::Deserialize;

use super::super::Inner;
use crate::api::shape::Connection;
use crate::model::{Key, Prefix, protocol};

/// Connections that fit everything it names; the default fits all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    nic: Option<Key>,
    vpc: Option<String>,
    remote: Option<Prefix>,
    local: Option<Prefix>,
    protocol: Option<String>,
    state: Option<String>,
    opened: Option<String>,
    tombstone: Option<bool>,
    rule: Option<String>,
    since: Option<u32>,
    worker: Option<usize>,
}

/// A filter as it is written: the query of a request.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Written {
    /// A NIC's name, or project/name.
    pub nic: Option<String>,
    /// A VPC's name.
    pub vpc: Option<String>,
    /// A prefix or address of the other side.
    pub remote: Option<String>,
    /// A prefix or address of the NIC.
    pub local: Option<String>,
    /// By name or number.
    pub protocol: Option<String>,
    /// One of the states.
    pub state: Option<String>,
    /// `inbound` or `outbound`.
    pub opened: Option<String>,
    /// Tombstones alone, or live connections alone.
    pub tombstone: Option<bool>,
    /// `group#position`
    pub rule: Option<String>,
    /// Last found live, or disconnected, at this generation or later.
    pub since: Option<u32>,
    /// A worker's number.
    pub worker: Option<usize>,
    /// Every connection is meant; a flush without any other condition wants it said.
    pub all: bool,
}

/// A filter that makes no sense: one line with what was found and what is allowed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadFilter(pub String);

const STATES: [&str; 8] =
    ["syn-sent", "syn-received", "established", "fin-wait", "closing", "one-way", "two-way", "icmp"];

impl Filter {
    /// Reads what was written.
    pub fn read(written: &Written) -> Result<Filter, BadFilter> {
        let one_of = |what: &str, value: &Option<String>, allowed: &[&str]| match value {
            Some(value) if !allowed.contains(&value.as_str()) => {
                Err(BadFilter(format!("{what}: {value}; allowed: {}", allowed.join(", "))))
            }
            value => Ok(value.clone()),
        };
        let prefix = |what: &str, value: &Option<String>| {
            let parsed = value.as_ref().map(|value| {
                value.parse::<Prefix>().map_err(|_| {
                    BadFilter(format!("{what}: {value}; allowed: an address or a prefix such as 10.0.0.0/8"))
                })
            });
            parsed.transpose()
        };
        let nic = written.nic.as_ref().map(|name| {
            Key::parse(name).ok_or_else(|| BadFilter(format!("nic: {name}; allowed: NAME or PROJECT/NAME")))
        });
        let protocol = written.protocol.as_ref().map(|name| {
            let number = protocol::by_name(name).or_else(|| name.parse().ok());
            let shown =
                number.map(|number| protocol::name(number).map_or_else(|| number.to_string(), str::to_owned));
            shown.ok_or_else(|| BadFilter(format!("protocol: {name}; allowed: a name such as tcp, or 0-255")))
        });
        Ok(Filter {
            nic: nic.transpose()?,
            vpc: written.vpc.clone(),
            remote: prefix("remote", &written.remote)?,
            local: prefix("local", &written.local)?,
            protocol: protocol.transpose()?,
            state: one_of("state", &written.state, &STATES)?,
            opened: one_of("opened", &written.opened, &["inbound", "outbound"])?,
            tombstone: written.tombstone,
            rule: written.rule.clone(),
            since: written.since,
            worker: written.worker,
        })
    }

    /// True if everything fits.
    pub fn is_open(&self) -> bool {
        *self == Filter::default()
    }

    pub(super) fn holds(&self, inner: &Inner, connection: &Connection) -> bool {
        fn is<T: PartialEq + ?Sized>(wanted: Option<&T>, found: &T) -> bool {
            wanted.is_none_or(|wanted| wanted == found)
        }
        let within = |prefix: &Option<Prefix>, address: &str| {
            prefix
                .is_none_or(|prefix| address.parse::<IpAddr>().is_ok_and(|address| prefix.contains(address)))
        };
        let in_vpc = |vpc: &String| {
            let nic = Key::parse(&connection.nic).and_then(|key| inner.committer.policy().nics.get(&key));
            nic.is_some_and(|nic| *nic.vpc == **vpc)
        };
        is(self.nic.as_ref().map(ToString::to_string).as_deref(), connection.nic.as_str())
            && is(self.protocol.as_deref(), connection.protocol.as_str())
            && is(self.state.as_deref(), connection.state.as_str())
            && is(self.opened.as_deref(), connection.opened.as_str())
            && is(self.tombstone.as_ref(), &connection.tombstone)
            && is(self.worker.as_ref(), &connection.worker)
            && self.since.is_none_or(|since| connection.generation >= since)
            && self.rule.as_ref().is_none_or(|rule| connection.rule.as_ref() == Some(rule))
            && within(&self.remote, &connection.remote)
            && within(&self.local, &connection.local)
            && self.vpc.as_ref().is_none_or(in_vpc)
    }
}
