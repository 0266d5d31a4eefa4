//! What waits to be stored: keyed by instance, the last write wins, so it is bounded by the number of instances.

use parking_lot::{Condvar, Mutex};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::oneshot;
use vertice_core::name::{InstanceId, ServiceName};
use vertice_core::table::Facts;

/// One change of the store.
#[derive(Clone, Debug)]
pub enum Write {
    /// The instance is now like this.
    Put(Arc<Facts>),
    /// The instance is gone.
    Delete {
        /// Its service.
        service: ServiceName,
        /// Its id.
        id: InstanceId,
    },
}

/// An instance's place in the store.
pub type Key = (ServiceName, InstanceId);

/// Everything that waits, taken at once.
#[derive(Debug, Default)]
pub struct Batch {
    /// The last write of each instance; `None` deletes.
    pub changes: BTreeMap<Key, Option<Arc<Facts>>>,
    /// Who wants to know when it is stored.
    pub waiting: Vec<oneshot::Sender<bool>>,
}

/// Between the registrar, which never waits, and the store's thread, which may.
#[derive(Debug, Default)]
pub struct Outbox {
    batch: Mutex<Option<Batch>>,
    news: Condvar,
}

impl Outbox {
    /// Adds changes and those who wait for them.
    pub fn put(&self, writes: Vec<Write>, waiting: Vec<oneshot::Sender<bool>>) {
        let mut slot = self.batch.lock();
        let batch = slot.get_or_insert_default();
        for write in writes {
            match write {
                Write::Put(facts) => batch.changes.insert((facts.service.clone(), facts.id.clone()), Some(facts)),
                Write::Delete { service, id } => batch.changes.insert((service, id), None),
            };
        }
        batch.waiting.extend(waiting);
        self.news.notify_one();
    }

    /// Puts changes back that could not be stored, unless newer ones have come.
    pub fn put_back(&self, changes: BTreeMap<Key, Option<Arc<Facts>>>) {
        let mut slot = self.batch.lock();
        let batch = slot.get_or_insert_default();
        for (key, change) in changes {
            batch.changes.entry(key).or_insert(change);
        }
    }

    /// Takes everything, waiting at most so long for something.
    #[must_use]
    pub fn take(&self, wait: Duration) -> Option<Batch> {
        let mut slot = self.batch.lock();
        if slot.is_none() {
            self.news.wait_for(&mut slot, wait);
        }
        slot.take()
    }

    /// How many changes wait.
    #[must_use]
    pub fn len(&self) -> usize {
        self.batch.lock().as_ref().map_or(0, |batch| batch.changes.len())
    }

    /// Whether nothing waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn delete(id: &str) -> Write {
        Write::Delete { service: ServiceName::parse("svc").unwrap(), id: InstanceId::parse(id).unwrap() }
    }

    #[test]
    fn the_last_write_of_an_instance_wins_and_put_back_never_beats_a_newer_one() {
        let outbox = Outbox::default();
        outbox.put(vec![delete("a"), delete("b")], Vec::new());
        outbox.put(vec![delete("a")], Vec::new());
        assert_eq!(outbox.len(), 2);
        let failed = outbox.take(Duration::ZERO).unwrap();
        assert!(outbox.take(Duration::ZERO).is_none());
        outbox.put(vec![delete("a")], Vec::new());
        outbox.put_back(failed.changes);
        assert_eq!(outbox.len(), 2);
    }
}
