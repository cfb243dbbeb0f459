//! Objects as rows.

use std::sync::Arc;

use redb::{ReadableTable, Table, TableDefinition, WriteTransaction};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_128;

use crate::delta::{Before, Delta};
use crate::document::{Limits, parse_policy};
use crate::export::export;
use crate::model::{Key, Policy};

const OBJECTS: TableDefinition<(u8, &str), &[u8]> = TableDefinition::new("objects");

/// The kinds of objects, as keys have them.
mod kind {
    pub const VPC: u8 = 1;
    pub const ADDRESS_GROUP: u8 = 2;
    pub const SECURITY_GROUP: u8 = 3;
    pub const NIC: u8 = 4;
}

/// One object.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Row<T> {
    /// The same as long as the object is there, and never another's.
    pub id: u64,
    /// The generation that last changed it.
    pub revision: u32,
    /// The object.
    pub object: T,
}

/// A value as JSON. Our types have no maps but those with text as keys, and no other reason to fail.
pub fn json<T: Serialize>(value: &T) -> Vec<u8> {
    serde_json::to_vec(value).unwrap_or_default()
}

/// Over all rows, in any order: the exclusive or of their hashes, so that a change costs what it changes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Digest(u64, u64);

impl Digest {
    /// Puts a row in, or takes it out again.
    fn toggle(&mut self, kind: u8, name: &str, value: &[u8]) {
        let hash = xxh3_128(&[&[kind], name.as_bytes(), &[0], value].concat());
        self.0 ^= hash as u64;
        self.1 ^= (hash >> 64) as u64;
    }
}

/// The name of an object in its key: the project always stands there.
trait Named {
    fn text(&self) -> String;
    fn of(text: &str) -> Option<Self>
    where
        Self: Sized;
}

impl Named for Arc<str> {
    fn text(&self) -> String {
        self.to_string()
    }

    fn of(text: &str) -> Option<Self> {
        Some(text.into())
    }
}

impl Named for Key {
    fn text(&self) -> String {
        format!("{}/{}", self.project, self.name)
    }

    fn of(text: &str) -> Option<Self> {
        text.split_once('/').map(|(project, name)| Key::new(project, name))
    }
}

/// The table of objects within a transaction.
pub struct Objects<'t>(Table<'t, (u8, &'static str), &'static [u8]>);

impl<'t> Objects<'t> {
    pub fn open(transaction: &'t WriteTransaction) -> Result<Objects<'t>, redb::Error> {
        Ok(Objects(transaction.open_table(OBJECTS)?))
    }

    /// Writes what a change has changed, and nothing else.
    pub fn replace(
        &mut self,
        delta: &Delta,
        policy: &Policy,
        revision: u32,
        next_id: &mut u64,
        digest: &mut Digest,
    ) -> Result<(), redb::Error> {
        fn now<'d, K: Ord + Clone, V: Eq>(
            before: &'d Before<K, Arc<V>>,
            objects: &'d crate::model::Objects<K, V>,
        ) -> impl Iterator<Item = (&'d K, Option<&'d Arc<V>>)> {
            before.iter().map(|(key, _)| (key, objects.get(key)))
        }
        let mut writer = Writer { table: &mut self.0, revision, next_id, digest };
        writer.write(kind::VPC, now(&delta.vpcs, &policy.vpcs))?;
        writer.write(kind::ADDRESS_GROUP, now(&delta.address_groups, &policy.address_groups))?;
        writer.write(kind::SECURITY_GROUP, now(&delta.security_groups, &policy.security_groups))?;
        writer.write(kind::NIC, now(&delta.nics, &policy.nics))
    }

    /// Writes what a change replaced in its place again.
    pub fn take_back(
        &mut self,
        delta: &Delta,
        revision: u32,
        next_id: &mut u64,
        digest: &mut Digest,
    ) -> Result<(), redb::Error> {
        fn then<K, V>(before: &Before<K, Arc<V>>) -> impl Iterator<Item = (&K, Option<&Arc<V>>)> {
            before.iter().map(|(key, value)| (key, value.as_ref()))
        }
        let mut writer = Writer { table: &mut self.0, revision, next_id, digest };
        writer.write(kind::VPC, then(&delta.vpcs))?;
        writer.write(kind::ADDRESS_GROUP, then(&delta.address_groups))?;
        writer.write(kind::SECURITY_GROUP, then(&delta.security_groups))?;
        writer.write(kind::NIC, then(&delta.nics))
    }

    /// The policy and the digest of what was read; says what is wrong.
    pub fn read(&self) -> Result<(Policy, Digest), String> {
        let (mut policy, mut digest) = (Policy::default(), Digest::default());
        for row in self.0.iter().map_err(|error| error.to_string())? {
            let (key, value) = row.map_err(|error| error.to_string())?;
            let ((kind, name), value) = (key.value(), value.value());
            digest.toggle(kind, name, value);
            match kind {
                kind::VPC => insert(&mut policy.vpcs, name, value)?,
                kind::ADDRESS_GROUP => insert(&mut policy.address_groups, name, value)?,
                kind::SECURITY_GROUP => insert(&mut policy.security_groups, name, value)?,
                kind::NIC => insert(&mut policy.nics, name, value)?,
                _ => return Err(format!("an object of the unknown kind {kind}")),
            }
        }
        Ok((policy, digest))
    }
}

fn insert<K: Named + Ord + Clone, V: DeserializeOwned + Eq>(
    objects: &mut crate::model::Objects<K, V>,
    name: &str,
    value: &[u8],
) -> Result<(), String> {
    let key = K::of(name).ok_or_else(|| format!("an object is named {name:?}"))?;
    let row: Row<Arc<V>> = serde_json::from_slice(value).map_err(|error| format!("{name}: {error}"))?;
    objects.insert(key, row.object);
    Ok(())
}

/// Where rows go.
struct Writer<'w, 't> {
    table: &'w mut Table<'t, (u8, &'static str), &'static [u8]>,
    revision: u32,
    next_id: &'w mut u64,
    digest: &'w mut Digest,
}

impl Writer<'_, '_> {
    fn write<'p, K: Named + 'p, V: Serialize + 'p>(
        &mut self,
        kind: u8,
        objects: impl Iterator<Item = (&'p K, Option<&'p V>)>,
    ) -> Result<(), redb::Error> {
        /// All that is wanted of a row that is replaced.
        #[derive(Deserialize)]
        struct Known {
            id: u64,
        }
        for (key, object) in objects {
            let name = key.text();
            let mut id = None;
            if let Some(old) = self.table.remove((kind, &*name))? {
                self.digest.toggle(kind, &name, old.value());
                id = serde_json::from_slice(old.value()).ok().map(|Known { id }| id);
            }
            let Some(object) = object else { continue };
            let id = id.unwrap_or_else(|| {
                let id = *self.next_id;
                *self.next_id += 1;
                id
            });
            let value = json(&Row { id, revision: self.revision, object });
            self.digest.toggle(kind, &name, &value);
            self.table.insert((kind, &*name), &*value)?;
        }
        Ok(())
    }
}

/// What was read must be a policy: written out as a document and read again with all of a document's checks but the quotas,
/// which are the configuration's, it is the same.
pub fn validate(policy: &Policy) -> Result<(), String> {
    let limits = Limits { rules_per_group: u32::MAX as _, groups_per_nic: u32::MAX as _ };
    let again = parse_policy(&export(policy), "store", &limits).map_err(|error| error.to_string())?;
    if again.policy == *policy { Ok(()) } else { Err("its objects make no policy".to_owned()) }
}
