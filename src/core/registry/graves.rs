//! Who is gone, so that an older statement about it, which another replica or the store still makes, brings nobody back.
//!
//! A grave is kept longer than any lease that could have been running when it was dug; after that nobody can hold the
//! instance any more. Their number is bounded: when there are too many, those that end first go first, and are counted.

use crate::name::{InstanceId, ServiceName};
use crate::record::{Gone, Record, ReplicaId, Why};
use crate::time::Moment;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

type Key = (ServiceName, InstanceId);

/// A grave is kept so much longer than the lease of its instance.
pub(super) const KEPT_BEYOND: Duration = Duration::from_secs(60);

/// All graves.
#[derive(Debug, Default)]
pub(super) struct Graves {
    by_key: BTreeMap<Key, Grave>,
    by_end: BTreeSet<(Moment, Key)>,
    /// Graves given up for lack of room.
    dropped: u64,
}

#[derive(Debug)]
struct Grave {
    gone: Gone,
    until: Moment,
}

impl Graves {
    /// Digs a grave, unless there is a newer one; at most `max` are kept.
    pub(super) fn dig(&mut self, gone: Gone, now: Moment, max: usize) {
        let key = (gone.service.clone(), gone.id.clone());
        if self.by_key.get(&key).is_some_and(|grave| grave.gone.version_no > gone.version_no) {
            return;
        }
        let until = now.plus(gone.kept);
        if let Some(before) = self.by_key.insert(key.clone(), Grave { gone, until }) {
            self.by_end.remove(&(before.until, key.clone()));
        }
        self.by_end.insert((until, key));
        while self.by_key.len() > max.max(1) {
            let Some((_, first)) = self.by_end.pop_first() else { break };
            self.by_key.remove(&first);
            self.dropped += 1;
        }
    }

    /// Closes those whose time is over.
    pub(super) fn expire(&mut self, now: Moment) {
        while self.by_end.first().is_some_and(|(until, _)| *until <= now) {
            if let Some((_, key)) = self.by_end.pop_first() {
                self.by_key.remove(&key);
            }
        }
    }

    /// The instance is back.
    pub(super) fn close(&mut self, service: &ServiceName, id: &InstanceId) {
        let key = (service.clone(), id.clone());
        if let Some(grave) = self.by_key.remove(&key) {
            self.by_end.remove(&(grave.until, key));
        }
    }

    /// The grave of an instance.
    pub(super) fn of(&self, service: &ServiceName, id: &InstanceId) -> Option<&Gone> {
        if self.by_key.is_empty() {
            return None;
        }
        self.by_key.get(&(service.clone(), id.clone())).map(|grave| &grave.gone)
    }

    /// The grave that makes a record void.
    pub(super) fn against(&self, record: &Record) -> Option<&Gone> {
        self.of(&record.facts.service, &record.facts.id).filter(|gone| gone.voids(record))
    }

    /// Gives every grave of `me` another version.
    pub(super) fn renumber(&mut self, me: ReplicaId, number: impl Fn(u64) -> u64) -> Vec<Gone> {
        let mine = self.by_key.values_mut().filter(|grave| grave.gone.by == me);
        mine.map(|grave| {
            grave.gone.version_no = number(grave.gone.version_no);
            grave.gone.clone()
        })
        .collect()
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.by_key.len()
    }

    /// How many were given up for lack of room, ever.
    pub(super) const fn dropped(&self) -> u64 {
        self.dropped
    }
}

impl Gone {
    /// Whether the record is an older statement than this grave. A lapse is no statement against whoever renewed the very
    /// same version elsewhere.
    fn voids(&self, record: &Record) -> bool {
        let version_no = record.facts.version_no;
        let is_renewed = self.why == Why::Lapsed && record.holder != self.by && !record.left.is_zero();
        version_no < self.version_no || (version_no == self.version_no && !is_renewed)
    }
}
