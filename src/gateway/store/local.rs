//! A store for this process alone, on top of keys and values.

use super::{Store, StoreError, SyncJob, codec};
use crate::registrar::outbox::{Change, Key};
use std::collections::BTreeMap;
use vertice_core::record::Gone;
use vertice_core::table::Facts;

/// One key and the value stored under it.
pub(super) type Entry = (Vec<u8>, Vec<u8>);

/// One change of a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Write {
    /// What is changed.
    pub(super) key: Vec<u8>,
    /// The new value; `None` deletes the key, which need not exist.
    pub(super) value: Option<Vec<u8>>,
}

/// Keys and values; what they mean is no business of theirs.
pub(super) trait Values: Send {
    /// Writes the whole batch or nothing, later changes of one key winning over earlier ones.
    fn write(&mut self, batch: &[Write]) -> Result<(), StoreError>;

    /// The value of a key.
    fn get(&mut self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError>;

    /// See [`Store::begin_sync`].
    fn begin_sync(&mut self) -> Result<Option<SyncJob>, StoreError>;

    /// See [`Store::sync_failed`].
    fn sync_failed(&mut self);

    /// Everything, in no particular order.
    fn load(&mut self) -> Result<Vec<Entry>, StoreError>;
}

/// So many graves are remembered. Nothing but the order of this process's own writes depends on them, and the outbox keeps that.
const GRAVES_MAX: usize = 10_000;

/// Instances as values, each under its key.
pub(super) struct Local<V> {
    pub(super) values: V,
    graves: BTreeMap<Key, u64>,
}

impl<V: Values> Local<V> {
    pub(super) fn new(values: V) -> Self {
        Self { values, graves: BTreeMap::new() }
    }

    /// The version that the store knows, of an instance or its grave. What cannot be read has none.
    fn known(&mut self, key: &Key, bytes: &[u8]) -> Result<Option<(u64, bool)>, StoreError> {
        let stored = self.values.get(bytes)?.and_then(|value| codec::version_no(&value)).map(|version_no| (version_no, false));
        Ok(stored.max(self.graves.get(key).map(|version_no| (*version_no, true))))
    }
}

impl<V: Values> Store for Local<V> {
    fn write(&mut self, changes: &BTreeMap<Key, Change>) -> Result<Vec<Key>, StoreError> {
        let (mut batch, mut beaten, mut gone) = (Vec::with_capacity(changes.len()), Vec::new(), Vec::new());
        for (key, change) in changes {
            let bytes = codec::key(&key.0, &key.1);
            let known = self.known(key, &bytes)?;
            let is_beaten = known.is_some_and(|(known, is_gone)| match change {
                Change::Put(stored) => known > stored.facts.version_no || (known == stored.facts.version_no && is_gone),
                Change::Gone(gone) => known > gone.version_no,
            });
            if is_beaten {
                beaten.push(key.clone());
                continue;
            }
            match change {
                Change::Put(stored) => batch.push(Write { key: bytes, value: Some(codec::encode(&stored.facts)) }),
                Change::Gone(grave) => {
                    batch.push(Write { key: bytes, value: None });
                    gone.push(grave);
                }
            }
        }
        self.values.write(&batch)?;
        gone.into_iter().for_each(|grave| self.remember(grave));
        Ok(beaten)
    }

    fn begin_sync(&mut self) -> Result<Option<SyncJob>, StoreError> {
        self.values.begin_sync()
    }

    fn sync_failed(&mut self) {
        self.values.sync_failed();
    }

    fn load(&mut self) -> Result<Vec<Facts>, StoreError> {
        let entries = self.values.load()?;
        Ok(entries.iter().filter_map(|(_, value)| codec::decode(value).ok()).collect())
    }

    fn is_durable(&self) -> bool {
        true
    }

    fn kind(&self) -> &'static str {
        "embedded"
    }
}

impl<V> Local<V> {
    fn remember(&mut self, grave: &Gone) {
        if self.graves.len() >= GRAVES_MAX {
            self.graves.pop_first();
        }
        self.graves.insert((grave.service.clone(), grave.id.clone()), grave.version_no);
    }
}
