//! What crosses between the replicas that share a store: instances, and graves of those that are gone.
//!
//! Everything here may arrive twice, late, out of order or never. Two rules make that harmless: of two statements about one
//! instance the one with the higher version holds, and what crosses is *remaining time*, never a timestamp.

use crate::cell::Cells;
use crate::name::{InstanceId, ServiceName};
use crate::table::Facts;
use crate::time::Moment;
use std::num::NonZeroU64;
use std::sync::Arc;
use std::time::Duration;

/// A gateway process. Drawn anew with each start, so that a restarted one is another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ReplicaId(NonZeroU64);

impl ReplicaId {
    /// Holds the leases of instances that registered with a predecessor of this program. It never lives.
    pub const PREDECESSOR: Self = Self::of(1);
    /// Holds the leases of which nobody knows who does.
    pub const NOBODY: Self = Self::of(2);

    /// A replica of that number; 0 counts as 3.
    #[must_use]
    pub const fn of(number: u64) -> Self {
        match NonZeroU64::new(number) {
            Some(number) => Self(number),
            None => Self(NonZeroU64::MIN.saturating_add(2)),
        }
    }

    /// Its number.
    #[must_use]
    pub const fn number(self) -> u64 {
        self.0.get()
    }
}

/// An instance on its way from one replica to others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// What it registered, in the version that this speaks of.
    pub facts: Arc<Facts>,
    /// What is left of its lease.
    pub left: Duration,
    /// Who renewed it last, and therefore decides when it lapses.
    pub holder: ReplicaId,
    /// What is left of an operator's drain.
    pub drain: Option<Duration>,
}

/// The grave of an instance: it is gone, and older statements about it are void.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gone {
    /// Its service.
    pub service: ServiceName,
    /// Its id.
    pub id: InstanceId,
    /// The version that ended it.
    pub version_no: u64,
    /// How it ended.
    pub why: Why,
    /// Who says so.
    pub by: ReplicaId,
    /// The grave is kept so long.
    pub kept: Duration,
    /// How long the instance may finish what it has, without new requests.
    pub finishing: Option<Duration>,
}

/// How an instance ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// Somebody said so: a deregistration, or a registration that took its place. Everything up to the grave's version is
    /// void.
    Removed,
    /// Its lease was over. Who knows of a later renewal says so by a new version.
    Lapsed,
}

/// How an instance stands in the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It is there, in this version.
    Record(u64),
    /// Its grave is.
    Gone(u64),
}

impl Standing {
    /// The version.
    #[must_use]
    pub const fn version_no(self) -> u64 {
        match self {
            Self::Record(version_no) | Self::Gone(version_no) => version_no,
        }
    }
}

/// News of the store itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoreNews {
    /// It cannot be used.
    Away {
        /// Whether other replicas were alive when that was last known: they may be renewing what is held here.
        others: bool,
    },
    /// It is used again: what waited is written, what it holds is read, and changes are followed.
    Following,
    /// It is not the one it was: flushed, or started without its data.
    Lost,
    /// What time it is there.
    Time {
        /// Microseconds since the Unix epoch.
        micros: u64,
    },
}

/// An instance on its way to the store. Its lease is read when it is written, not when it set out.
#[derive(Clone, Debug)]
pub struct Stored {
    /// What it registered.
    pub facts: Arc<Facts>,
    /// Where its lease and drain can be read.
    pub cells: Arc<Cells>,
}

/// Two are the same when they say the same of the same instance.
impl PartialEq for Stored {
    fn eq(&self, other: &Self) -> bool {
        self.facts == other.facts
    }
}

impl Eq for Stored {}

impl Stored {
    /// How it is now; `me` holds what no other replica does.
    #[must_use]
    pub fn record(&self, now: Moment, me: ReplicaId) -> Record {
        let lease = &self.cells.lease;
        Record {
            facts: self.facts.clone(),
            left: lease.deadline().since(now),
            holder: lease.holder().unwrap_or(me),
            drain: lease.drained_until().map(|until| until.since(now)).filter(|left| !left.is_zero()),
        }
    }
}
