//! A gateway process: its registry, its clocks, what waits to be written, and how far it is with the store.

use super::Key;
use super::fleet::Envelope;
use super::oracle::Receipt;
use super::reader::Reader;
use super::store::Change;
use super::writer::Writer;
use crate::rng::Rng;
use crate::trouble::Fault;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;
use vertice_core::command::{Command, Effect, Probe, Refused, Reply};
use vertice_core::record::{Gone, Record, ReplicaId, Stored};
use vertice_core::registry::Registry;
use vertice_core::table::{Bare, Facts};
use vertice_core::time::{Moment, Now};

/// Wall clocks begin here.
pub(crate) const EPOCH_MS: u64 = 1_700_000_000_000;

/// A gateway process.
pub(crate) struct Replica {
    /// `None` while it is down.
    pub(crate) registry: Option<Registry>,
    pub(crate) id: ReplicaId,
    /// Counts starts, so that timers of a former life are void.
    pub(crate) life: u32,
    pub(crate) clock: Clock,
    pub(crate) outbox: Outbox,
    /// Answers that wait for the store.
    pub(crate) waiting: VecDeque<Waiting>,
    pub(crate) writer: Writer,
    pub(crate) reader: Reader,
    /// Whether clients are let in.
    pub(crate) serves: bool,
    /// Since when it has followed the store without a break.
    pub(crate) following_since_ms: Option<u64>,
    /// It gets no calls until then.
    pub(crate) stalled_until_ms: u64,
    pub(crate) wake_for: Option<Moment>,
}

/// What its clocks say, and what it believes that the store's says.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Clock {
    born_ms: u64,
    drift_ppm: u64,
    wall_offset_ms: u64,
    /// The store's milliseconds at [`Moment::ZERO`].
    pub(crate) store_ms: Option<i64>,
}

/// What waits for the store: of each instance the last write.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    pub(crate) writes: BTreeMap<Key, Write>,
    pub(crate) renewals: BTreeMap<Key, Stored>,
    pub(crate) fetches: BTreeSet<Key>,
    pub(crate) is_urgent: bool,
    /// Graves that were told, for a fault that tells none twice.
    told: BTreeSet<(Key, u64)>,
}

#[derive(Clone, Debug)]
pub(crate) enum Write {
    Put(Stored),
    Gone(Gone),
}

/// An answer that waits for the store, until then.
#[derive(Debug)]
pub(crate) struct Waiting {
    pub(crate) key: Key,
    pub(crate) version_no: u64,
    pub(crate) until_ms: u64,
    pub(crate) envelope: Envelope,
    pub(crate) reply: Result<Reply, Refused>,
    pub(crate) receipt: Receipt,
}

impl Replica {
    pub(crate) fn new() -> Self {
        Self {
            registry: None,
            id: ReplicaId::NOBODY,
            life: 0,
            clock: Clock::default(),
            outbox: Outbox::default(),
            waiting: VecDeque::new(),
            writer: Writer::default(),
            reader: Reader::default(),
            serves: false,
            following_since_ms: None,
            stalled_until_ms: 0,
            wake_for: None,
        }
    }

    pub(crate) fn now(&self, true_ms: u64) -> Now {
        self.clock.now(true_ms)
    }

    /// Takes over what the registry wants to be done; the probes are left.
    pub(crate) fn take_effects(&mut self, fault: Option<Fault>) -> Vec<Probe> {
        let Some(registry) = &mut self.registry else { return Vec::new() };
        let mut probes = Vec::new();
        for effect in registry.drain() {
            match effect {
                Effect::Persist(stored) => self.outbox.write(Write::Put(stored)),
                Effect::Forget(gone) if fault == Some(Fault::NoGraves) && self.outbox.is_told(&gone) => {}
                Effect::Forget(gone) => self.outbox.write(Write::Gone(gone)),
                Effect::Renewal { stored, is_urgent } => {
                    self.outbox.is_urgent |= is_urgent;
                    self.outbox.renewals.insert(key_of(&stored.facts), stored);
                }
                Effect::Fetch { service, id } => {
                    self.outbox.fetches.insert((service, id));
                }
                Effect::Probe(probe) => probes.push(probe),
                Effect::Tell(_) | Effect::WantName(_) | Effect::DropName(_) => {}
            }
        }
        probes
    }

    /// What it knows, as a reader of its table sees it.
    pub(crate) fn shown(&self) -> BTreeMap<Key, Shown> {
        let Some(registry) = &self.registry else { return BTreeMap::new() };
        let services: BTreeSet<_> = registry.facts().map(|facts| facts.service.clone()).collect();
        let built = services.iter().filter_map(|name| registry.build(name, 0, None, &Bare));
        let upstreams = built.flat_map(|service| service.instances.into_vec());
        upstreams.map(|upstream| (key_of(&upstream.facts), Shown::of(&upstream.facts, upstream.is_draining))).collect()
    }

    /// The event that another replica wrote, as a command at this one.
    pub(crate) fn heard(&self, change: Change, age: Duration) -> Command {
        match change {
            Change::Put(record) => Command::Merge(Box::new(Record {
                left: record.left.saturating_sub(age),
                drain: record.drain.map(|left| left.saturating_sub(age)).filter(|left| !left.is_zero()),
                ..record
            })),
            Change::Gone(gone) => Command::MergeGone(Gone {
                kept: gone.kept.saturating_sub(age),
                finishing: gone.finishing.map(|span| span.saturating_sub(age)).filter(|span| !span.is_zero()),
                ..gone
            }),
        }
    }
}

/// What can be seen of an instance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Shown {
    pub(crate) version_no: u64,
    pub(crate) endpoint: String,
    pub(crate) status: vertice_core::status::Status,
    pub(crate) is_draining: bool,
}

impl Shown {
    pub(crate) fn of(facts: &Facts, is_draining: bool) -> Self {
        let endpoint = facts.endpoint.authority();
        Self { version_no: facts.version_no, endpoint, status: facts.status, is_draining }
    }
}

impl Clock {
    /// Clocks of a process that starts now: minutes off, and not quite of the right speed.
    pub(crate) fn start(true_ms: u64, rng: &mut Rng) -> Self {
        Self { born_ms: true_ms, drift_ppm: rng.below(200), wall_offset_ms: rng.below(600_000), store_ms: None }
    }

    pub(crate) fn now(&self, true_ms: u64) -> Now {
        let nanos = (true_ms - self.born_ms) * (999_900 + self.drift_ppm);
        Now { mono: Moment::from_nanos(nanos), wall_ms: EPOCH_MS - 300_000 + true_ms + self.wall_offset_ms }
    }

    /// The store has told its time.
    pub(crate) fn learn(&mut self, store_ms: u64, now: Moment) {
        self.store_ms = Some(store_ms as i64 - now.millis() as i64);
    }

    /// How long ago something was written at that time on the store's clock.
    pub(crate) fn age(&self, written_ms: u64, now: Moment) -> Duration {
        let store_ms = self.store_ms.map_or(written_ms as i64, |zero_ms| zero_ms + now.millis() as i64);
        Duration::from_millis(u64::try_from(store_ms - written_ms as i64).unwrap_or(0))
    }
}

impl Outbox {
    pub(crate) fn write(&mut self, write: Write) {
        let key = write.key();
        // A whole write tells of the renewal, too.
        self.renewals.remove(&key);
        self.writes.insert(key, write);
    }

    fn is_told(&mut self, gone: &Gone) -> bool {
        !self.told.insert(((gone.service.clone(), gone.id.clone()), gone.version_no))
    }

    /// It could not be written; a newer one may have come.
    pub(crate) fn write_back(&mut self, write: Write) {
        self.writes.entry(write.key()).or_insert(write);
    }

    /// Everything, records first.
    pub(crate) fn take_writes(&mut self) -> Vec<Write> {
        let (puts, graves): (Vec<Write>, Vec<Write>) =
            std::mem::take(&mut self.writes).into_values().partition(|write| matches!(write, Write::Put(_)));
        puts.into_iter().chain(graves).collect()
    }
}

impl Write {
    pub(crate) fn key(&self) -> Key {
        match self {
            Self::Put(stored) => key_of(&stored.facts),
            Self::Gone(gone) => (gone.service.clone(), gone.id.clone()),
        }
    }

    pub(crate) fn version_no(&self) -> u64 {
        match self {
            Self::Put(stored) => stored.facts.version_no,
            Self::Gone(gone) => gone.version_no,
        }
    }
}

pub(crate) fn key_of(facts: &Facts) -> Key {
    (facts.service.clone(), facts.id.clone())
}
