//! An instance's right to traffic, and when it ends.

use crate::record::ReplicaId;
use crate::time::Moment;
use std::time::Duration;

/// A lease held by another replica is looked into so long after its deadline: the interval at which replicas tell each other
/// of renewals.
pub const SHADOW: Duration = Duration::from_secs(1);

/// A lease: renewed by heartbeats, over at its deadline.
///
/// The deadline is always `renewed + ttl`, computed from the renewal's own time and never by adding to an earlier deadline
/// (Eureka adds twice, and its leases live twice as long as they say).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lease {
    ttl: Duration,
    deadline: Moment,
    /// When somebody must act because of it: its deadline, unless another replica holds it.
    due: Moment,
    holder: Option<ReplicaId>,
}

impl Lease {
    /// A lease that starts now.
    #[must_use]
    pub fn start(ttl: Duration, now: Moment) -> Self {
        let deadline = now.plus(ttl);
        Self { ttl, deadline, due: deadline, holder: None }
    }

    /// A lease that another replica holds, of which so much is left.
    #[must_use]
    pub fn elsewhere(ttl: Duration, left: Duration, holder: ReplicaId, now: Moment) -> Self {
        let deadline = now.plus(left.min(ttl));
        Self { ttl, deadline, due: deadline.plus(SHADOW), holder: Some(holder) }
    }

    /// The same lease, looked into at another time; its deadline stays.
    #[must_use]
    pub const fn due_at(self, due: Moment) -> Self {
        Self { due, ..self }
    }

    /// The same lease, in the hands of this replica.
    #[must_use]
    pub const fn held_here(self) -> Self {
        Self { holder: None, due: self.deadline, ..self }
    }

    /// The same lease, in the hands of another replica.
    #[must_use]
    pub const fn held_by(self, holder: ReplicaId) -> Self {
        Self { holder: Some(holder), ..self }
    }

    /// The same lease, renewed now.
    #[must_use]
    pub fn renewed(self, now: Moment) -> Self {
        Self::start(self.ttl, now)
    }

    /// The same lease in the same hands, with a whole TTL to go.
    #[must_use]
    pub fn refreshed(self, now: Moment) -> Self {
        match self.holder {
            Some(holder) => Self::elsewhere(self.ttl, self.ttl, holder, now),
            None => self.renewed(now),
        }
    }

    /// The same lease, ending so much later, and not before `earliest`.
    #[must_use]
    pub fn extended(self, by: Duration, earliest: Moment) -> Self {
        Self { deadline: self.deadline.plus(by).max(earliest), due: self.due.plus(by).max(earliest), ..self }
    }

    /// How long a renewal lasts.
    #[must_use]
    pub const fn ttl(self) -> Duration {
        self.ttl
    }

    /// When it lapses unless renewed before.
    #[must_use]
    pub const fn deadline(self) -> Moment {
        self.deadline
    }

    /// When somebody must act because of it.
    #[must_use]
    pub const fn due(self) -> Moment {
        self.due
    }

    /// The replica that holds it, if that is another one.
    #[must_use]
    pub const fn holder(self) -> Option<ReplicaId> {
        self.holder
    }

    /// When its last renewal lies half a TTL back and a twentieth more: those that renew every half TTL always come a little
    /// after it, and are not silent for that. Of renewals elsewhere one hears a [`SHADOW`] later.
    #[must_use]
    pub fn silent_from(self) -> Moment {
        let silent_from = self.deadline.minus(self.ttl / 20 * 9);
        if self.holder.is_some() { silent_from.plus(SHADOW) } else { silent_from }
    }

    /// Whether it has lapsed.
    #[must_use]
    pub fn is_over(self, now: Moment) -> bool {
        now >= self.deadline
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn over_exactly_at_the_deadline(ttl_ms in 1u64..3_600_000, start_ms in 0u64..1_000_000, renew_ms in 0u64..1_000_000) {
            let lease = Lease::start(Duration::from_millis(ttl_ms), Moment::from_millis(start_ms));
            let renewed = lease.renewed(Moment::from_millis(start_ms + renew_ms));
            let deadline = start_ms + renew_ms + ttl_ms;
            prop_assert!(!renewed.is_over(Moment::from_millis(deadline - 1)));
            prop_assert!(renewed.is_over(Moment::from_millis(deadline)));
            prop_assert_eq!(renewed.ttl(), lease.ttl());
        }
    }
}
