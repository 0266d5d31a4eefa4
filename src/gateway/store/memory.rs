//! The store for "no store": forgets everything with the process, and says so.

use super::local::{Entry, Local, Values, Write};
use super::{Store, StoreError, SyncJob};
use crate::registrar::outbox::{Change, Key};
use std::collections::{BTreeMap, HashMap};
use vertice_core::table::Facts;

/// Instances in memory, for when no durable store can be had.
pub struct Memory(Local<Heap>);

/// Keys and values on the heap.
#[derive(Debug, Default)]
struct Heap(HashMap<Vec<u8>, Vec<u8>>);

impl Default for Memory {
    fn default() -> Self {
        Self(Local::new(Heap::default()))
    }
}

impl Values for Heap {
    fn write(&mut self, batch: &[Write]) -> Result<(), StoreError> {
        for write in batch {
            match &write.value {
                Some(value) => self.0.insert(write.key.clone(), value.clone()),
                None => self.0.remove(&write.key),
            };
        }
        Ok(())
    }

    fn get(&mut self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(self.0.get(key).cloned())
    }

    fn begin_sync(&mut self) -> Result<Option<SyncJob>, StoreError> {
        Ok(None)
    }

    fn sync_failed(&mut self) {}

    fn load(&mut self) -> Result<Vec<Entry>, StoreError> {
        Ok(self.0.iter().map(|(key, value)| (key.clone(), value.clone())).collect())
    }
}

impl Store for Memory {
    fn write(&mut self, changes: &BTreeMap<Key, Change>) -> Result<Vec<Key>, StoreError> {
        self.0.write(changes)
    }

    fn begin_sync(&mut self) -> Result<Option<SyncJob>, StoreError> {
        Ok(None)
    }

    fn load(&mut self) -> Result<Vec<Facts>, StoreError> {
        self.0.load()
    }

    fn is_durable(&self) -> bool {
        false
    }

    fn kind(&self) -> &'static str {
        "memory"
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::suite;

    #[test]
    fn behaves_as_a_store() {
        suite::run(|| Box::new(Memory::default()));
    }

    #[test]
    fn does_not_claim_to_be_durable() {
        assert!(!Memory::default().is_durable());
    }
}
