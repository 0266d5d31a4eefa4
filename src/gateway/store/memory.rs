//! The store for "no store": forgets everything with the process, and says so.

use std::collections::HashMap;

use super::{Change, Record, Store, StoreError, SyncJob};

/// Records in memory, for when no durable store can be had.
#[derive(Debug, Default)]
pub struct Memory {
    records: HashMap<Vec<u8>, Vec<u8>>,
}

impl Store for Memory {
    fn write(&mut self, batch: &[Change]) -> Result<(), StoreError> {
        for change in batch {
            match &change.value {
                Some(value) => self.records.insert(change.key.clone(), value.clone()),
                None => self.records.remove(&change.key),
            };
        }
        Ok(())
    }

    fn begin_sync(&mut self) -> Result<Option<SyncJob>, StoreError> {
        Ok(None)
    }

    fn load(&mut self) -> Result<Vec<Record>, StoreError> {
        let records = self.records.iter();
        Ok(records.map(|(k, v)| (k.clone(), v.clone())).collect())
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
