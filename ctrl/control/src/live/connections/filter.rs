//! Which connections are meant.

mod known;

use std::net::IpAddr;

use engine::conntrack::Connection as Entry;
use engine::{addr_from_bits, proto};
use serde::Deserialize;
use utoipa::IntoParams;

use super::super::Inner;
use crate::api::types::Connection;
use crate::model::{Key, Prefix, ipv4_form, protocol};
pub(crate) use known::check_rule;
pub use known::{Known, NoSuchName};

/// Connections that fit everything it names; the default fits all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    nic: Option<Key>,
    vpc: Option<String>,
    remote: Option<Prefix>,
    local: Option<Prefix>,
    remote_port: Option<u16>,
    local_port: Option<u16>,
    protocol: Option<String>,
    state: Option<String>,
    opened: Option<String>,
    tombstone: Option<bool>,
    rule: Option<String>,
    since: Option<u32>,
    worker: Option<usize>,
}

/// A filter as it is written: the query of a request.
#[derive(Clone, Debug, Default, Deserialize, IntoParams)]
#[serde(default, deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct Written {
    /// A NIC's name, or project/name.
    #[param(value_type = String, required = false)]
    pub nic: Option<String>,
    /// A VPC's name.
    #[param(value_type = String, required = false)]
    pub vpc: Option<String>,
    /// A prefix or address of the other side.
    #[param(value_type = String, required = false)]
    pub remote: Option<String>,
    /// A prefix or address of the NIC.
    #[param(value_type = String, required = false)]
    pub local: Option<String>,
    /// A port of the other side.
    #[param(value_type = u16, required = false, maximum = 65_535)]
    pub remote_port: Option<u16>,
    /// A port of the NIC's.
    #[param(value_type = u16, required = false, maximum = 65_535)]
    pub local_port: Option<u16>,
    /// By name or number.
    #[param(value_type = String, required = false)]
    pub protocol: Option<String>,
    /// One of the states.
    #[param(value_type = String, required = false, pattern = "^(syn-sent|syn-received|established|fin-wait|closing|one-way|two-way|icmp)$")]
    pub state: Option<String>,
    /// `inbound` or `outbound`.
    #[param(value_type = String, required = false, pattern = "^(inbound|outbound)$")]
    pub opened: Option<String>,
    /// Tombstones alone, or live connections alone.
    #[param(value_type = bool, required = false)]
    pub tombstone: Option<bool>,
    /// `group#position`, or the rule's identity.
    #[param(value_type = String, required = false)]
    pub rule: Option<String>,
    /// Last found live, or disconnected, at this generation or later.
    #[param(value_type = u32, required = false, maximum = 4_294_967_295_u32)]
    pub since: Option<u32>,
    /// A worker's number.
    #[param(value_type = u32, required = false, maximum = 4_294_967_295_u32)]
    pub worker: Option<u32>,
    /// A listing: so many connections at most; all, if left out.
    #[param(value_type = u32, required = false, minimum = 1, maximum = 100_000)]
    pub limit: Option<u32>,
    /// A listing: those behind the one with this `id`, whether or not it is still there: the last of the page before.
    #[param(value_type = String, required = false, example = "0-41", pattern = "^[0-9]{1,9}-[0-9]{1,9}$")]
    pub after: Option<String>,
    /// A listing: answered after so many milliseconds at the latest, with what was found by then. Where there may be more, the header
    /// `portcullis-next` says behind which `id` to go on.
    #[param(value_type = u32, required = false, minimum = 1, maximum = 10_000)]
    pub within: Option<u32>,
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
                if let Some(v4) = ipv4_form(value) {
                    return Err(BadFilter(format!("{what}: {value} is IPv4-mapped; allowed: {v4}")));
                }
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
            remote_port: written.remote_port,
            local_port: written.local_port,
            protocol: protocol.transpose()?,
            state: one_of("state", &written.state, &STATES)?,
            opened: one_of("opened", &written.opened, &["inbound", "outbound"])?,
            tombstone: written.tombstone,
            rule: written.rule.clone(),
            since: written.since,
            worker: written.worker.map(|worker| worker as usize),
        })
    }

    /// True if everything fits.
    pub fn is_open(&self) -> bool {
        *self == Filter::default()
    }

    /// False of most entries that do not fit, by what they are made of: texts are made of the others alone.
    pub(super) fn may_hold(&self, connection: &Entry) -> bool {
        let Entry { entry, remote, .. } = connection;
        let has_ports = proto::has_ports(entry.protocol());
        let is_port = |wanted: Option<u16>, found: u32| {
            wanted.is_none_or(|wanted| has_ports && u32::from(wanted) == found & 0xffff)
        };
        is_port(self.local_port, entry.ports >> 16)
            && is_port(self.remote_port, entry.ports)
            && self.remote.is_none_or(|prefix| prefix.contains(addr_from_bits(*remote, entry.is_v6())))
            && self.opened.as_deref().is_none_or(|opened| (opened == "inbound") == entry.is_inbound())
            && self.state.as_deref().is_none_or(|state| state == entry.state().name())
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
            && self.remote_port.is_none_or(|port| connection.remote_port == Some(port))
            && self.local_port.is_none_or(|port| connection.local_port == Some(port))
            && self.since.is_none_or(|since| connection.generation >= since)
            && self.rule.as_ref().is_none_or(|rule| is_rule(connection, rule))
            && within(&self.remote, &connection.remote)
            && within(&self.local, &connection.local)
            && self.vpc.as_ref().is_none_or(in_vpc)
    }
}

/// True if the connection's rule has this name or this identity.
fn is_rule(connection: &Connection, wanted: &str) -> bool {
    [&connection.rule, &connection.rule_id].into_iter().any(|rule| rule.as_deref() == Some(wanted))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ipv4_mapped_address_is_refused_with_the_form_to_write() {
        for (written, form) in [("::ffff:10.0.0.7", "10.0.0.7"), ("::ffff:10.0.0.7/120", "10.0.0.0/24")] {
            let local = Written { local: Some(written.to_owned()), ..Written::default() };
            let remote = Written { remote: Some(written.to_owned()), ..Written::default() };
            for (which, filter) in [("local", local), ("remote", remote)] {
                let BadFilter(refusal) = Filter::read(&filter).unwrap_err();
                assert_eq!(refusal, format!("{which}: {written} is IPv4-mapped; allowed: {form}"));
            }
        }
    }
}
