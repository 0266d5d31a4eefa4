//! Every lease in the order in which somebody must act because of it, and every instance in the order in which it falls silent.
//!
//! How many instances are silent is asked whenever a lease is due. So it is kept, not counted: an instance leaves the second
//! order when its moment has passed and comes back with its next renewal, which is one step per renewal however many
//! instances there are and however often the question is asked.

use crate::lease::Lease;
use crate::name::{InstanceId, ServiceName};
use crate::time::Moment;
use std::collections::BTreeSet;

/// An instance, by when something is due for it.
pub(super) type Place = (Moment, ServiceName, InstanceId);

/// The two orders.
#[derive(Debug, Default)]
pub(super) struct Leases {
    deadlines: BTreeSet<Place>,
    /// Instances that were renewed lately, by when that is no longer so; all others are silent.
    fresh: BTreeSet<Place>,
}

impl Leases {
    /// Counts on a lease that was started or renewed.
    pub(super) fn start(&mut self, lease: Lease, service: &ServiceName, id: &InstanceId) {
        self.deadlines.insert((lease.due(), service.clone(), id.clone()));
        self.fresh.insert((lease.silent_from(), service.clone(), id.clone()));
    }

    /// Counts on a lease that was given, or put off, without a renewal: its instance is as silent as it was.
    pub(super) fn start_silent(&mut self, lease: Lease, service: &ServiceName, id: &InstanceId) {
        self.deadlines.insert((lease.due(), service.clone(), id.clone()));
    }

    /// Has nobody act because of a lease, for now.
    pub(super) fn put_off(&mut self, lease: Lease, service: &ServiceName, id: &InstanceId) {
        self.deadlines.remove(&(lease.due(), service.clone(), id.clone()));
    }

    /// Forgets a lease, wherever it stands.
    pub(super) fn end(&mut self, lease: Lease, service: &ServiceName, id: &InstanceId) {
        self.deadlines.remove(&(lease.due(), service.clone(), id.clone()));
        self.fresh.remove(&(lease.silent_from(), service.clone(), id.clone()));
    }

    /// When the next lease is due.
    pub(super) fn next_deadline(&self) -> Option<Moment> {
        self.deadlines.first().map(|(deadline, ..)| *deadline)
    }

    /// Takes the instance whose lease is due first, if it is.
    pub(super) fn take_due(&mut self, now: Moment) -> Option<(ServiceName, InstanceId)> {
        self.next_deadline().filter(|deadline| *deadline <= now)?;
        self.deadlines.pop_first().map(|(_, service, id)| (service, id))
    }

    /// Lets those fall silent that do by now.
    pub(super) fn fall_silent(&mut self, now: Moment) {
        while self.fresh.first().is_some_and(|(moment, ..)| *moment <= now) {
            self.fresh.pop_first();
        }
    }

    /// How many of so many instances have not been renewed lately.
    pub(super) fn silent(&self, instances: usize) -> usize {
        instances.saturating_sub(self.fresh.len())
    }

    /// Whether the instance has been renewed lately.
    pub(super) fn is_fresh(&self, lease: Lease, service: &ServiceName, id: &InstanceId) -> bool {
        self.fresh.contains(&(lease.silent_from(), service.clone(), id.clone()))
    }

    /// Both orders at once, from nothing.
    pub(super) fn of(deadlines: Vec<Place>, fresh: Vec<Place>) -> Self {
        Self { deadlines: deadlines.into_iter().collect(), fresh: fresh.into_iter().collect() }
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.deadlines.len()
    }
}
