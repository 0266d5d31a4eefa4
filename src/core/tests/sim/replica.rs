//! A gateway process and the records on its disk, as far as the registry needs them.

use super::oracle::Key;
use super::rng::Rng;
use super::{Batch, Envelope, Fault};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use vertice_core::command::Effect;
use vertice_core::name::ServiceName;
use vertice_core::record::Stored;
use vertice_core::registry::Registry;
use vertice_core::table::{Bare, Facts, Snapshot};
use vertice_core::time::{Moment, Now};

/// A gateway process.
pub(crate) struct Replica {
    /// `None` while it is down.
    pub(crate) registry: Option<Registry>,
    pub(crate) snapshot: Snapshot<Bare>,
    /// Counts starts, so that timers of a former life are void.
    pub(crate) life: u32,
    /// Its clock starts anew with each life.
    pub(crate) born_ms: u64,
    pub(crate) inbox: Vec<Envelope>,
    pub(crate) unwritten: VecDeque<Batch>,
    pub(crate) written_last_ms: u64,
    pub(crate) wake_for: Option<Moment>,
    pub(crate) wanted: BTreeSet<Arc<str>>,
    /// It gets no calls until then.
    pub(crate) stalled_until_ms: u64,
    /// Whether it changed since it was looked at.
    pub(crate) news: bool,
    pub(crate) generation_last: u64,
}

impl Replica {
    pub(crate) fn new() -> Self {
        Self {
            registry: None,
            snapshot: Snapshot::empty(1),
            life: 0,
            born_ms: 0,
            inbox: Vec::new(),
            unwritten: VecDeque::new(),
            written_last_ms: 0,
            wake_for: None,
            wanted: BTreeSet::new(),
            stalled_until_ms: 0,
            news: false,
            generation_last: 0,
        }
    }

    pub(crate) fn now(&self, clock_ms: u64) -> Now {
        Now { mono: Moment::from_millis(clock_ms - self.born_ms), wall_ms: 1_700_000_000_000 + clock_ms }
    }

    pub(crate) fn publish(&mut self) {
        let Some(registry) = &mut self.registry else { return };
        self.generation_last = self.snapshot.generation();
        let changed = registry.take_changed();
        if changed.is_empty() {
            return;
        }
        self.news = true;
        let snapshot = &self.snapshot;
        let built = |(name, at): (ServiceName, u64)| {
            let service = registry.build(&name, at, snapshot.get(name.as_str()), &Bare).map(Arc::new);
            (name, service)
        };
        let changes = changed.into_iter().map(built).collect();
        self.snapshot = self.snapshot.with(registry.generation(), changes);
    }
}

/// The records on disk.
#[derive(Clone, Default)]
pub(crate) struct ModelStore {
    pub(crate) records: BTreeMap<Key, Arc<Facts>>,
}

impl ModelStore {
    /// Writes a batch, all of it or nothing.
    pub(crate) fn write(&mut self, effects: &[Effect], fault: Option<Fault>, rng: &mut Rng) {
        for effect in effects {
            match effect {
                Effect::Persist(_) if fault == Some(Fault::LeakyStore) && rng.percent(2) => {}
                Effect::Persist(Stored { facts, .. }) => {
                    self.records.insert((facts.service.clone(), facts.id.clone()), facts.clone());
                }
                Effect::Forget(_) if fault == Some(Fault::DeafStore) => {}
                Effect::Forget(gone) => {
                    self.records.remove(&(gone.service.clone(), gone.id.clone()));
                }
                Effect::Tell(_) | Effect::WantName(_) | Effect::DropName(_) | Effect::Probe(_) => {}
                Effect::Renewal { .. } | Effect::Fetch { .. } => {}
            }
        }
    }
}
