//! Which packets a reader wants: as it is asked, checked against the names that there are, and as the worker compares it.

use engine::trace::{Addresses, Filter, MAX_SNAPLEN, Watch};
use engine::{NicSlot, Reason, Side};
use serde::Deserialize;
use utoipa::IntoParams;

use crate::commit::Committer;
use crate::compile::{NamedRule, range_of};
use crate::document::ObjectKey;
use crate::document::absent;
use crate::live::{BadFilter, NoSuchName, check_rule};
use crate::model::{Identity, Key, Policy, Prefix, ipv4_form, protocol};

use super::NameTable;

/// Bytes of a frame that are captured, if nothing is said.
const SNAPLEN: u32 = MAX_SNAPLEN;
/// The longest that a reader may ask for in seconds.
const LONGEST: f64 = 30.0 * 86_400.0;

/// What is asked: the query of a request.
#[derive(Clone, Debug, Default, Deserialize, IntoParams)]
#[serde(default, deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct FilterQuery {
    /// Judged for this NIC: its name, or project/name.
    #[param(value_type = String, required = false)]
    pub nic: Option<String>,
    /// A prefix or address of the other side.
    #[param(value_type = String, required = false)]
    pub remote: Option<String>,
    /// A prefix or address on the instances' side.
    #[param(value_type = String, required = false)]
    pub local: Option<String>,
    /// A port of either end.
    #[param(value_type = u16, required = false, maximum = 65_535)]
    pub port: Option<u16>,
    /// By name or number.
    #[param(value_type = String, required = false)]
    pub protocol: Option<String>,
    /// `pass` or `drop`.
    #[param(value_type = String, required = false, pattern = "^(pass|drop)$")]
    pub verdict: Option<String>,
    /// One reason, or several with commas between them.
    #[param(value_type = String, required = false, pattern = "^[a-z-]+(,[a-z-]+)*$")]
    pub reason: Option<String>,
    /// Decided by a rule of this security group: its name, or project/name.
    #[param(value_type = String, required = false)]
    pub group: Option<String>,
    /// Decided by this rule: `group#position`, or its identity.
    #[param(value_type = String, required = false)]
    pub rule: Option<String>,
    /// `inbound` or `outbound`, of a NIC.
    #[param(value_type = String, required = false, pattern = "^(inbound|outbound)$")]
    pub direction: Option<String>,
    /// From `inside` or `outside`.
    #[param(value_type = String, required = false, pattern = "^(inside|outside)$")]
    pub from: Option<String>,
    /// One of so many of these packets.
    #[param(value_type = u32, required = false, minimum = 1, maximum = 4_294_967_295_u32)]
    pub rate: Option<u32>,
    /// End after so many.
    #[param(value_type = u64, required = false, minimum = 1)]
    pub count: Option<u64>,
    /// End after so many seconds.
    #[param(value_type = f64, required = false, minimum = 0)]
    pub seconds: Option<f64>,
    /// Bytes of a frame at most, of a capture.
    #[param(value_type = u32, required = false, minimum = 1, maximum = 65_535)]
    pub snaplen: Option<u32>,
}

/// What a reader wants, read: nothing in it makes no sense.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct WatchRequest {
    nic: Option<Key>,
    group: Option<Key>,
    rule: Option<String>,
    /// All that needs no names.
    plain: Filter,
    one_in: u32,
    /// With bytes, and how many of a frame.
    pub captures: Option<u32>,
    /// Ends after so many.
    pub count: Option<u64>,
    /// Ends after so many seconds.
    pub seconds: Option<f64>,
}

fn prefix(what: &str, value: Option<&str>) -> Result<Option<Addresses>, BadFilter> {
    let Some(value) = value else { return Ok(None) };
    if let Some(v4) = ipv4_form(value) {
        return Err(BadFilter(format!("{what}: {value} is IPv4-mapped; allowed: {v4}")));
    }
    let prefix: Prefix = value.parse().map_err(|_| {
        BadFilter(format!("{what}: {value}; allowed: an address or a prefix such as 10.0.0.0/8"))
    })?;
    let (first, last, v6) = range_of(&prefix);
    Ok(Some(Addresses { v6, first, last }))
}

fn key(what: &str, value: Option<&str>) -> Result<Option<Key>, BadFilter> {
    let read = |name| {
        Key::parse(name).ok_or_else(|| BadFilter(format!("{what}: {name}; allowed: NAME or PROJECT/NAME")))
    };
    value.map(read).transpose()
}

fn one_of<T: Copy>(what: &str, value: Option<&str>, allowed: &[(&str, T)]) -> Result<Option<T>, BadFilter> {
    let Some(value) = value else { return Ok(None) };
    match allowed.iter().find(|(name, _)| *name == value) {
        Some((_, found)) => Ok(Some(*found)),
        None => {
            let names: Vec<_> = allowed.iter().map(|(name, _)| *name).collect();
            Err(BadFilter(format!("{what}: {value}; allowed: {}", names.join(", "))))
        }
    }
}

fn reasons(value: Option<&str>) -> Result<Option<u32>, BadFilter> {
    let Some(value) = value else { return Ok(None) };
    let all: Vec<_> = Reason::ALL.into_iter().map(|reason| (reason.name(), reason)).collect();
    let mut bits = 0;
    for name in value.split(',') {
        bits |= one_of("reason", Some(name), &all)?.map_or(0, |reason| 1 << reason as u32);
    }
    Ok(Some(bits))
}

impl WatchRequest {
    /// Reads what is asked; `captures` where frames are wanted, too.
    pub fn read(asked: &FilterQuery, captures: bool) -> Result<WatchRequest, BadFilter> {
        let number = |name: &str| {
            let number = protocol::by_name(name).or_else(|| name.parse().ok());
            let allowed = "allowed: a name such as tcp, or 0-255";
            number.ok_or_else(|| BadFilter(format!("protocol: {name}; {allowed}")))
        };
        let plain = Filter {
            nic: None,
            remote: prefix("remote", asked.remote.as_deref())?,
            local: prefix("local", asked.local.as_deref())?,
            port: asked.port,
            protocol: asked.protocol.as_deref().map(number).transpose()?,
            passes: one_of("verdict", asked.verdict.as_deref(), &[("pass", true), ("drop", false)])?,
            reasons: reasons(asked.reason.as_deref())?,
            rules: None,
            direction: one_of(
                "direction",
                asked.direction.as_deref(),
                &[("inbound", engine::Direction::Inbound), ("outbound", engine::Direction::Outbound)],
            )?,
            side: one_of(
                "from",
                asked.from.as_deref(),
                &[("inside", Side::Inside), ("outside", Side::Outside)],
            )?,
        };
        let bad = |what: &str, found: String, allowed: &str| {
            Err(BadFilter(format!("{what}: {found}; allowed: {allowed}")))
        };
        match asked {
            FilterQuery { rate: Some(0), .. } => {
                return bad("rate", "0".to_owned(), "1 and more: one of so many");
            }
            FilterQuery { count: Some(0), .. } => return bad("count", "0".to_owned(), "1 and more"),
            FilterQuery { seconds: Some(s), .. } if !(*s > 0.0 && *s <= LONGEST) => {
                return bad("seconds", s.to_string(), "above 0, at most 30 days");
            }
            FilterQuery { snaplen: Some(_), .. } if !captures => {
                return bad("snaplen", "a trace has no bytes".to_owned(), "with a capture");
            }
            FilterQuery { snaplen: Some(len), .. } if !(1..=MAX_SNAPLEN).contains(len) => {
                return bad("snaplen", len.to_string(), "1 to 65535");
            }
            _ => {}
        }
        Ok(WatchRequest {
            nic: key("nic", asked.nic.as_deref())?,
            group: key("group", asked.group.as_deref())?,
            rule: asked.rule.clone(),
            plain,
            one_in: asked.rate.unwrap_or(1),
            captures: captures.then(|| asked.snaplen.unwrap_or(SNAPLEN)),
            count: asked.count,
            seconds: asked.seconds,
        })
    }

    /// Refuses a NIC, a group or a rule that is not there. It takes a while where there are many names.
    pub fn check(&self, names: &NameTable) -> Result<(), NoSuchName> {
        let policy: &Policy = &names.policy;
        if let Some(key) = self.nic.as_ref().filter(|key| !policy.nics.contains_key(*key)) {
            return Err(NoSuchName(format!("nic: no {}", absent(policy, &ObjectKey::Nic(key.clone())))));
        }
        if let Some(key) = self.group.as_ref().filter(|key| !policy.security_groups.contains_key(*key)) {
            let group = ObjectKey::SecurityGroup(key.clone());
            return Err(NoSuchName(format!("group: no {}", absent(policy, &group))));
        }
        self.rule.as_ref().map_or(Ok(()), |rule| check_rule(rule, policy, names.rules()))
    }

    /// True if it has to be worked out again where names have changed.
    pub(super) fn has_names(&self) -> bool {
        self.nic.is_some() || self.group.is_some() || self.rule.is_some()
    }

    /// As workers compare it, by the numbers of now. What is no more fits nothing.
    pub fn watch(&self, committer: &Committer) -> Watch {
        let nic = self.nic.as_ref().map(|key| committer.nic_slot(key).unwrap_or(NicSlot(u32::MAX)));
        let identity = self.rule.as_ref().and_then(|rule| rule.parse::<Identity>().ok());
        let group = self.group.as_ref().map(ToString::to_string);
        let is_one = |rule: &NamedRule| {
            let of_group = group
                .as_deref()
                .is_none_or(|group| rule.name.strip_prefix(group).is_some_and(|rest| rest.starts_with('#')));
            of_group
                && match (&self.rule, identity) {
                    (_, Some(identity)) => rule.identity == identity,
                    (Some(name), None) => *rule.name == **name,
                    (None, None) => true,
                }
        };
        let has_rules = self.rule.is_some() || self.group.is_some();
        let rules = has_rules.then(|| NameTable::of(committer).rules_that(is_one));
        let filter = Filter { nic, rules, ..self.plain.clone() };
        Watch { filter, one_in: self.one_in, captures: self.captures.is_some() }
    }
}
