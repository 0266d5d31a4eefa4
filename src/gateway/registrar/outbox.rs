//! What waits to be stored: keyed by instance, the last write wins, so it is bounded by the number of instances.

use crate::clock;
use parking_lot::{Condvar, Mutex};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::oneshot;
use vertice_core::name::{InstanceId, ServiceName};
use vertice_core::record::{Gone, Stored};
use vertice_core::time::Moment;

/// Renewals that are not urgent wait so long for others.
const COALESCE: Duration = Duration::from_secs(1);
/// So many of each kind wait at most. What does not fit is found missing when everything is compared again.
const WAITING_MAX: usize = 500_000;

/// An instance's place in the store.
pub type Key = (ServiceName, InstanceId);

/// One change of the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// The instance is now like this.
    Put(Stored),
    /// The instance is gone.
    Gone(Gone),
}

impl Change {
    /// Which instance it is about.
    #[must_use]
    pub fn key(&self) -> Key {
        match self {
            Self::Put(stored) => (stored.facts.service.clone(), stored.facts.id.clone()),
            Self::Gone(gone) => (gone.service.clone(), gone.id.clone()),
        }
    }

    /// Its place in the order of what happened to the instance.
    #[must_use]
    pub fn version_no(&self) -> u64 {
        match self {
            Self::Put(stored) => stored.facts.version_no,
            Self::Gone(gone) => gone.version_no,
        }
    }
}

/// What the registry wants of the store.
#[derive(Debug, Default)]
pub struct Work {
    /// What is to be written, in order.
    pub changes: Vec<Change>,
    /// Leases that were renewed, and whether that is urgent.
    pub renewals: Vec<(Stored, bool)>,
    /// What is to be read.
    pub fetches: Vec<Key>,
    /// Who wants to know when the changes, and all before them, are stored.
    pub waiting: Vec<oneshot::Sender<bool>>,
}

impl Work {
    fn is_empty(&self) -> bool {
        self.changes.is_empty() && self.renewals.is_empty() && self.fetches.is_empty() && self.waiting.is_empty()
    }
}

/// What waits, taken at once.
#[derive(Debug, Default)]
pub struct Batch {
    /// The last write of each instance.
    pub changes: BTreeMap<Key, Change>,
    /// When the first of them came.
    pub since: Option<Moment>,
    /// Instances that were renewed.
    pub renewals: BTreeMap<Key, Stored>,
    /// Instances to be read.
    pub fetches: BTreeSet<Key>,
    /// Who wants to know when it is stored.
    pub waiting: Vec<oneshot::Sender<bool>>,
}

impl Batch {
    /// Whether there is nothing to do.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty() && self.renewals.is_empty() && self.fetches.is_empty() && self.waiting.is_empty()
    }

    /// Tells those who wait, now. Whoever no longer waits has its answer already.
    pub fn answer(&mut self, is_stored: bool) {
        for waiting in self.waiting.drain(..) {
            let _ = waiting.send(is_stored);
        }
    }
}

#[derive(Debug, Default)]
struct Slot {
    batch: Batch,
    /// When the first of the renewals came.
    renewed: Option<Moment>,
    is_urgent: bool,
}

impl Slot {
    fn is_due(&self) -> bool {
        !(self.batch.changes.is_empty() && self.batch.fetches.is_empty() && self.batch.waiting.is_empty())
    }

    /// How long until the renewals are due; `None` without any.
    fn renewals_due(&self, now: Moment) -> Option<Duration> {
        let due = if self.is_urgent { Duration::ZERO } else { COALESCE };
        self.renewed.map(|since| since.plus(due).since(now))
    }
}

/// Between the registrar, which never waits, and the store's thread, which may.
#[derive(Debug, Default)]
pub struct Outbox {
    slot: Mutex<Slot>,
    news: Condvar,
    is_refusing: AtomicBool,
    dropped: AtomicU64,
}

impl Outbox {
    /// Adds work.
    pub fn put(&self, work: Work) {
        if work.is_empty() {
            return;
        }
        let mut slot = self.slot.lock();
        if !work.changes.is_empty() {
            slot.batch.since.get_or_insert_with(clock::mono);
        }
        for change in work.changes {
            let key = change.key();
            // What is written says how the lease is, too.
            slot.batch.renewals.remove(&key);
            if slot.batch.changes.len() < WAITING_MAX || slot.batch.changes.contains_key(&key) {
                slot.batch.changes.insert(key, change);
            } else {
                self.dropped.fetch_add(1, Ordering::Relaxed);
            }
        }
        for (stored, is_urgent) in work.renewals {
            self.put_renewal(&mut slot, stored, is_urgent);
        }
        for key in work.fetches {
            if slot.batch.fetches.len() < WAITING_MAX {
                slot.batch.fetches.insert(key);
            } else {
                self.dropped.fetch_add(1, Ordering::Relaxed);
            }
        }
        slot.batch.waiting.extend(work.waiting);
        if self.is_refusing.load(Ordering::Acquire) {
            slot.batch.answer(false);
        }
        self.news.notify_one();
    }

    fn put_renewal(&self, slot: &mut Slot, stored: Stored, is_urgent: bool) {
        let key = (stored.facts.service.clone(), stored.facts.id.clone());
        if slot.batch.changes.contains_key(&key) {
            return;
        }
        if slot.batch.renewals.len() >= WAITING_MAX && !slot.batch.renewals.contains_key(&key) {
            self.dropped.fetch_add(1, Ordering::Relaxed);
            return;
        }
        slot.renewed.get_or_insert_with(clock::mono);
        slot.is_urgent |= is_urgent;
        slot.batch.renewals.insert(key, stored);
    }

    /// Puts changes and renewals back that could not be stored, unless newer ones have come.
    pub fn put_back(&self, batch: Batch) {
        let mut slot = self.slot.lock();
        slot.batch.since = batch.since.or(slot.batch.since);
        for (key, change) in batch.changes {
            slot.batch.renewals.remove(&key);
            slot.batch.changes.entry(key).or_insert(change);
        }
        for (key, stored) in batch.renewals {
            if !slot.batch.changes.contains_key(&key) {
                slot.renewed.get_or_insert_with(clock::mono);
                slot.batch.renewals.entry(key).or_insert(stored);
            }
        }
    }

    /// Takes what is due, waiting at most so long for something: changes, what is to be read and urgent renewals are due at
    /// once, other renewals after a while.
    #[must_use]
    pub fn take(&self, wait: Duration) -> Option<Batch> {
        let until = clock::mono().plus(wait);
        let mut slot = self.slot.lock();
        loop {
            let now = clock::mono();
            let renewals_due = slot.renewals_due(now);
            let renewals = match renewals_due {
                Some(Duration::ZERO) => {
                    slot.renewed = None;
                    slot.is_urgent = false;
                    std::mem::take(&mut slot.batch.renewals)
                }
                _ => BTreeMap::new(),
            };
            if slot.is_due() || !renewals.is_empty() {
                let waiting_renewals = std::mem::take(&mut slot.batch.renewals);
                let batch = std::mem::replace(&mut slot.batch, Batch { renewals: waiting_renewals, ..Batch::default() });
                return Some(Batch { renewals, ..batch });
            }
            let left = until.since(now);
            if left.is_zero() {
                return None;
            }
            self.news.wait_for(&mut slot, renewals_due.filter(|due| !due.is_zero()).unwrap_or(left).min(left));
        }
    }

    /// Takes the changes that came meanwhile, and who waits for them; `None` when there are none.
    #[must_use]
    pub fn take_changes(&self) -> Option<Batch> {
        let mut slot = self.slot.lock();
        let Batch { changes, since, waiting, .. } = &mut slot.batch;
        let is_empty = changes.is_empty() && waiting.is_empty();
        let take = || Batch {
            changes: std::mem::take(changes),
            since: since.take(),
            waiting: std::mem::take(waiting),
            ..Batch::default()
        };
        (!is_empty).then(take)
    }

    /// What was renewed is due at once.
    pub fn hurry(&self) {
        self.slot.lock().is_urgent = true;
        self.news.notify_one();
    }

    /// From now on nobody waits: the store is away. Or, again, everybody does.
    pub fn refuse(&self, is_refusing: bool) {
        self.is_refusing.store(is_refusing, Ordering::Release);
        if is_refusing {
            self.slot.lock().batch.answer(false);
        }
    }

    /// How many changes wait.
    #[must_use]
    pub fn len(&self) -> usize {
        self.slot.lock().batch.changes.len()
    }

    /// Whether nothing waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How much did not fit since this was last asked.
    #[must_use]
    pub fn take_dropped(&self) -> u64 {
        self.dropped.swap(0, Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use vertice_core::record::{ReplicaId, Why};

    fn gone(id: &str, version_no: u64) -> Change {
        Change::Gone(Gone {
            service: ServiceName::parse("svc").unwrap(),
            id: InstanceId::parse(id).unwrap(),
            version_no,
            why: Why::Removed,
            by: ReplicaId::of(9),
            kept: Duration::from_secs(60),
            finishing: None,
        })
    }

    fn changes(changes: Vec<Change>) -> Work {
        Work { changes, ..Work::default() }
    }

    fn renewal(id: &str, is_urgent: bool) -> Work {
        let facts = crate::store::suite::facts("svc", id, 1);
        let stored = Stored { facts: Arc::new(facts), cells: Arc::default() };
        Work { renewals: vec![(stored, is_urgent)], ..Work::default() }
    }

    #[test]
    fn the_last_write_of_an_instance_wins_and_put_back_never_beats_a_newer_one() {
        let outbox = Outbox::default();
        outbox.put(changes(vec![gone("a", 1), gone("b", 1)]));
        outbox.put(changes(vec![gone("a", 2)]));
        assert_eq!(outbox.len(), 2);
        let failed = outbox.take(Duration::ZERO).unwrap();
        assert!(outbox.take(Duration::ZERO).is_none());
        outbox.put(changes(vec![gone("a", 3)]));
        outbox.put_back(failed);
        let versions: Vec<u64> = outbox.take(Duration::ZERO).unwrap().changes.values().map(Change::version_no).collect();
        assert_eq!(versions, [3, 1]);
    }

    #[test]
    fn renewals_wait_for_others_unless_one_is_urgent() {
        let outbox = Outbox::default();
        outbox.put(renewal("a", false));
        assert!(outbox.take(Duration::ZERO).is_none(), "not due yet");
        outbox.put(changes(vec![gone("b", 1)]));
        assert!(outbox.take(Duration::ZERO).unwrap().renewals.is_empty(), "a change does not hurry them");
        outbox.put(renewal("c", true));
        assert_eq!(outbox.take(Duration::ZERO).unwrap().renewals.len(), 2);
        outbox.put(renewal("a", false));
        assert_eq!(outbox.take(Duration::from_secs(60)).unwrap().renewals.len(), 1, "due after a while");
    }

    #[test]
    fn what_somebody_waits_for_can_be_taken_alone() {
        let outbox = Outbox::default();
        outbox.put(renewal("a", false));
        assert!(outbox.take_changes().is_none());
        outbox.put(Work { fetches: vec![gone("c", 1).key()], ..changes(vec![gone("b", 1)]) });
        let batch = outbox.take_changes().unwrap();
        assert_eq!((batch.changes.len(), batch.renewals.len(), batch.fetches.len()), (1, 0, 0));
        assert_eq!(outbox.take(Duration::ZERO).unwrap().fetches.len(), 1);
        assert!(outbox.take(Duration::ZERO).is_none(), "the renewal is not due yet");
        outbox.hurry();
        assert_eq!(outbox.take(Duration::ZERO).unwrap().renewals.len(), 1);
    }

    #[test]
    fn a_write_makes_the_renewal_before_it_superfluous() {
        let outbox = Outbox::default();
        outbox.put(renewal("a", true));
        outbox.put(changes(vec![gone("a", 2)]));
        outbox.put(renewal("a", true));
        let batch = outbox.take(Duration::ZERO).unwrap();
        assert_eq!((batch.changes.len(), batch.renewals.len()), (1, 0));
        assert!(outbox.take(Duration::ZERO).is_none());
    }

    #[test]
    fn nobody_waits_for_a_store_that_is_away() {
        let outbox = Outbox::default();
        let (sender, mut before) = oneshot::channel();
        outbox.put(Work { waiting: vec![sender], ..changes(vec![gone("a", 1)]) });
        outbox.refuse(true);
        assert_eq!(before.try_recv(), Ok(false));
        let (sender, mut after) = oneshot::channel();
        outbox.put(Work { waiting: vec![sender], ..changes(vec![gone("b", 1)]) });
        assert_eq!(after.try_recv(), Ok(false));
        assert_eq!(outbox.len(), 2, "what was to be written still is");
        outbox.refuse(false);
        let (sender, mut again) = oneshot::channel();
        outbox.put(Work { waiting: vec![sender], ..Work::default() });
        assert!(again.try_recv().is_err(), "waits");
    }
}
