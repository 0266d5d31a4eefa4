//! Which services changed when: what a watcher needs to go on where it left off.
//!
//! The log knows each service once, at the generation of its last change, and remembers a bounded number of services, gone
//! ones included. What a reader knew at some index plus what [`ChangeLog::since`] tells is what it would know had it read all
//! along. A storm of changes to a few services therefore forgets nothing; only changes of many different ones do.

use crate::name::ServiceName;
use std::collections::BTreeMap;
use std::ops::Bound;

/// The last change of each service, as far as remembered.
#[derive(Debug)]
pub struct ChangeLog {
    services_max: usize,
    /// Everything that changed after this generation is here.
    floor: u64,
    /// Everything that changed up to this generation has been noted.
    head: u64,
    by_name: BTreeMap<ServiceName, u64>,
    by_generation: BTreeMap<u64, ServiceName>,
}

/// What happened since an index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Since {
    /// Nothing.
    Nothing,
    /// These services changed, each with the generation of its last change, oldest first.
    Changes(Vec<(u64, ServiceName)>),
    /// The index is too old: some of what changed since has been forgotten.
    Unknown,
}

impl ChangeLog {
    /// A log that begins at generation `first` and remembers the changes of up to `services_max` services, at least one.
    #[must_use]
    pub fn new(first: u64, services_max: usize) -> Self {
        let services_max = services_max.max(1);
        Self { services_max, floor: first, head: first, by_name: BTreeMap::new(), by_generation: BTreeMap::new() }
    }

    /// Everything that changed up to this generation has been noted.
    #[must_use]
    pub const fn head(&self) -> u64 {
        self.head
    }

    /// Notes all changes up to the generation `head`. Each has a generation of its own; their order does not matter.
    pub fn note_all(&mut self, head: u64, changes: impl IntoIterator<Item = (u64, ServiceName)>) {
        changes.into_iter().for_each(|(generation, service)| self.note(generation, service));
        self.head = self.head.max(head);
    }

    fn note(&mut self, generation: u64, service: ServiceName) {
        if generation <= self.floor {
            return;
        }
        if let Some(before) = self.by_name.insert(service.clone(), generation) {
            self.by_generation.remove(&before);
        }
        self.by_generation.insert(generation, service);
        while self.by_generation.len() > self.services_max {
            let Some((oldest, service)) = self.by_generation.pop_first() else { break };
            self.by_name.remove(&service);
            self.floor = oldest;
        }
    }

    /// What changed after `index`: at most the `count_max` oldest changes, so that a reader can take them in portions, the
    /// last generation of one being the index of the next.
    #[must_use]
    pub fn since(&self, index: u64, count_max: usize) -> Since {
        if index < self.floor {
            return Since::Unknown;
        }
        let after = self.by_generation.range((Bound::Excluded(index), Bound::Unbounded));
        let changes: Vec<_> = after.take(count_max).map(|(generation, name)| (*generation, name.clone())).collect();
        if changes.is_empty() { Since::Nothing } else { Since::Changes(changes) }
    }

    /// The generation at which the service last changed; `None` when that is forgotten or never happened.
    #[must_use]
    pub fn changed_at(&self, service: &str) -> Option<u64> {
        self.by_name.get(service).copied()
    }

    /// Whether it is certain that the service has not changed after `index`.
    #[must_use]
    pub fn is_unchanged_since(&self, service: &str, index: u64) -> bool {
        self.changed_at(service).map_or(index >= self.floor, |changed| changed <= index)
    }
}

#[cfg(test)]
mod tests;
