//! The store that replicas share, as far as its protocol goes: scripts that compare before they write, an index, events with
//! contiguous numbers, a log of renewals, and who of the replicas is alive. It has a clock of its own.

use super::Key;
use crate::trouble::Fault;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;
use vertice_core::name::{InstanceId, ServiceName};
use vertice_core::record::{Gone, Record, ReplicaId, Standing, Why};
use vertice_core::table::Facts;

/// Events kept; a replica that falls further behind finds a gap.
const EVENTS_MAX: usize = 60;
const RENEWALS_MAX: usize = 30;
/// A record is kept so much longer than its lease.
const KEPT_BEYOND_MS: u64 = 24 * 3_600_000;
/// A replica lives that was heard of in the last so many milliseconds.
const ALIVE_MS: u64 = 10_000;
const FORGOTTEN_MS: u64 = 60_000;

/// Everything that the store holds.
#[derive(Clone, Debug, Default)]
pub(crate) struct Store {
    slots: BTreeMap<Key, Slot>,
    index: BTreeMap<ServiceName, BTreeMap<InstanceId, (Standing, Option<u64>)>>,
    epoch: Option<u64>,
    numbers: u64,
    events: VecDeque<Event>,
    renewals: VecDeque<Renewals>,
    /// The last ids of both streams; they grow with the store's clock.
    pub(crate) ends: (u64, u64),
    beats: BTreeMap<ReplicaId, u64>,
    /// Events ever, whatever was lost.
    pub(crate) events_ever: u64,
}

/// What is kept of one instance.
#[derive(Clone, Debug)]
pub(crate) struct Slot {
    pub(crate) version_no: u64,
    pub(crate) what: What,
    ends_ms: u64,
    /// True time of the last write that was told.
    pub(crate) told_ms: u64,
}

#[derive(Clone, Debug)]
pub(crate) enum What {
    Record { facts: Arc<Facts>, holder: ReplicaId, until_ms: u64, drain_until_ms: Option<u64> },
    Grave { why: Why, by: ReplicaId, finishing_until_ms: Option<u64> },
}

/// A line of the stream of events.
#[derive(Clone, Debug)]
pub(crate) struct Event {
    pub(crate) id: u64,
    /// When it was written, on the store's clock. Ids do not tell: they never go back, and the clock may.
    pub(crate) at_ms: u64,
    pub(crate) number: u64,
    pub(crate) by: ReplicaId,
    pub(crate) change: Change,
}

/// What a replica is told, as it was when it was written.
#[derive(Clone, Debug)]
pub(crate) enum Change {
    Put(Record),
    Gone(Gone),
}

/// A line of the stream of renewals.
#[derive(Clone, Debug)]
pub(crate) struct Renewals {
    pub(crate) id: u64,
    pub(crate) at_ms: u64,
    pub(crate) by: ReplicaId,
    pub(crate) renewed: Vec<(Key, u64, Duration)>,
}

/// What a write came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Written {
    Done,
    /// There is a newer version, or a grave.
    Newer,
    /// Its lease runs, in other hands.
    Alive,
    /// There is nothing of it.
    Absent,
}

/// What the store says of one instance.
#[derive(Clone, Debug)]
pub(crate) enum Found {
    Record(Record, bool),
    Grave(Gone),
    Nothing,
}

/// The two clocks that a script sees: the store's own decides, the true one is for the oracle.
#[derive(Clone, Copy, Debug)]
pub(crate) struct At {
    pub(crate) store_ms: u64,
    pub(crate) true_ms: u64,
}

impl Store {
    /// The script `beat`: who is alive besides the caller, and the store's epoch.
    pub(crate) fn beat(&mut self, by: ReplicaId, fresh_epoch: u64, at: At) -> (u64, bool) {
        let now_ms = at.store_ms;
        self.beats.insert(by, now_ms);
        self.beats.retain(|_, beaten_ms| *beaten_ms + FORGOTTEN_MS > now_ms);
        let others = self.beats.keys().any(|id| *id != by && self.is_alive(*id, now_ms));
        (*self.epoch.get_or_insert(fresh_epoch), others)
    }

    fn is_alive(&self, id: ReplicaId, now_ms: u64) -> bool {
        // Nobody lives in the future: such a beat was noted by a clock that was ahead.
        self.beats.get(&id).is_some_and(|beaten_ms| beaten_ms + ALIVE_MS > now_ms && *beaten_ms <= now_ms + ALIVE_MS)
    }

    /// The script `put`.
    pub(crate) fn put(&mut self, record: Record, by: ReplicaId, at: At, fault: Option<Fault>) -> Written {
        self.forget_ended(at.store_ms);
        let now_ms = at.store_ms;
        let version_no = record.facts.version_no;
        let key = (record.facts.service.clone(), record.facts.id.clone());
        let offered_ms = now_ms + ms(record.left);
        if let Some(slot) = self.slots.get_mut(&key).filter(|_| fault != Some(Fault::NoComparison)) {
            match &mut slot.what {
                What::Record { holder, until_ms, .. } if slot.version_no == version_no && fault != Some(Fault::Echo) => {
                    if is_later(offered_ms, *until_ms, now_ms + ms(record.facts.ttl)) {
                        (*until_ms, *holder) = (offered_ms, record.holder);
                        slot.ends_ms = offered_ms + KEPT_BEYOND_MS;
                    }
                    return Written::Done;
                }
                _ if slot.version_no < version_no => {}
                What::Record { .. } if slot.version_no == version_no => {}
                _ => return Written::Newer,
            }
        }
        let drain_until_ms = record.drain.map(|left| now_ms + ms(left));
        let (facts, holder) = (record.facts.clone(), record.holder);
        let what = What::Record { facts, holder, until_ms: offered_ms, drain_until_ms };
        let ends_ms = offered_ms + KEPT_BEYOND_MS;
        self.index.entry(key.0.clone()).or_default().insert(key.1.clone(), (Standing::Record(version_no), None));
        self.slots.insert(key, Slot { version_no, what, ends_ms, told_ms: at.true_ms });
        self.tell(by, Change::Put(record), at);
        Written::Done
    }

    /// The script `gone`.
    pub(crate) fn gone(&mut self, gone: Gone, at: At, fault: Option<Fault>) -> Written {
        self.forget_ended(at.store_ms);
        let now_ms = at.store_ms;
        let key = (gone.service.clone(), gone.id.clone());
        if let Some(slot) = self.slots.get(&key).filter(|_| fault != Some(Fault::NoComparison)) {
            match &slot.what {
                What::Grave { .. } if slot.version_no >= gone.version_no => return Written::Done,
                What::Record { .. } if slot.version_no > gone.version_no => return Written::Newer,
                // A lease that has more left than any lease lasts was written by another clock.
                What::Record { holder, until_ms, .. }
                    if gone.why == Why::Lapsed
                        && slot.version_no == gone.version_no
                        && *holder != gone.by
                        && *until_ms > now_ms
                        && *until_ms <= now_ms + ms(gone.kept) =>
                {
                    return Written::Alive;
                }
                _ => {}
            }
        }
        if fault == Some(Fault::NoGraves) {
            self.slots.remove(&key);
            self.index.entry(key.0).or_default().remove(&key.1);
        } else {
            let ends_ms = now_ms + ms(gone.kept);
            let finishing_until_ms = gone.finishing.map(|span| now_ms + ms(span));
            let what = What::Grave { why: gone.why, by: gone.by, finishing_until_ms };
            let standing = (Standing::Gone(gone.version_no), Some(ends_ms));
            self.index.entry(key.0.clone()).or_default().insert(key.1.clone(), standing);
            self.slots.insert(key, Slot { version_no: gone.version_no, what, ends_ms, told_ms: at.true_ms });
        }
        self.tell(gone.by, Change::Gone(gone), at);
        Written::Done
    }

    /// The script `renew`, for several; what it renewed goes to the log in one line.
    pub(crate) fn renew(&mut self, renewals: &[(Key, u64, Duration)], by: ReplicaId, at: At) -> Vec<Written> {
        self.forget_ended(at.store_ms);
        let mut renewed = Vec::new();
        let answers = renewals.iter().map(|(key, version_no, left)| {
            let Some(slot) = self.slots.get_mut(key) else { return Written::Absent };
            match &mut slot.what {
                What::Record { facts, holder, until_ms, .. } if slot.version_no == *version_no => {
                    let offered_ms = at.store_ms + ms(*left);
                    if is_later(offered_ms, *until_ms, at.store_ms + ms(facts.ttl)) {
                        (*until_ms, *holder) = (offered_ms, by);
                        slot.ends_ms = offered_ms + KEPT_BEYOND_MS;
                    }
                    renewed.push((key.clone(), *version_no, *left));
                    Written::Done
                }
                What::Record { .. } if slot.version_no < *version_no => Written::Absent,
                _ => Written::Newer,
            }
        });
        let answers = answers.collect();
        if !renewed.is_empty() {
            self.ends.1 = (self.ends.1 + 1).max(at.store_ms << 16);
            self.renewals.push_back(Renewals { id: self.ends.1, at_ms: at.store_ms, by, renewed });
            if self.renewals.len() > RENEWALS_MAX {
                self.renewals.pop_front();
            }
        }
        answers
    }

    /// What it has of one instance, and whether the holder of its lease is alive.
    pub(crate) fn fetch(&mut self, key: &Key, at: At) -> Found {
        self.forget_ended(at.store_ms);
        let Some(slot) = self.slots.get(key) else {
            // Whoever finds an entry without its key tidies it.
            if let Some(entries) = self.index.get_mut(&key.0) {
                entries.remove(&key.1);
            }
            return Found::Nothing;
        };
        let left = |until_ms: u64| Duration::from_millis(until_ms.saturating_sub(at.store_ms));
        match &slot.what {
            What::Record { facts, holder, until_ms, drain_until_ms } => {
                let drain = drain_until_ms.map(left).filter(|left| !left.is_zero());
                let record = Record { facts: facts.clone(), left: left(*until_ms), holder: *holder, drain };
                Found::Record(record, self.is_alive(*holder, at.store_ms))
            }
            What::Grave { why, by, finishing_until_ms } => Found::Grave(Gone {
                service: key.0.clone(),
                id: key.1.clone(),
                version_no: slot.version_no,
                why: *why,
                by: *by,
                kept: left(slot.ends_ms),
                finishing: finishing_until_ms.map(left).filter(|left| !left.is_zero()),
            }),
        }
    }

    /// The names of which it has anything.
    pub(crate) fn names(&self) -> BTreeSet<ServiceName> {
        self.index.keys().cloned().collect()
    }

    /// How the instances of a service stand, from the index alone.
    pub(crate) fn standings(&mut self, service: &ServiceName, at: At) -> Vec<(InstanceId, Standing)> {
        let Some(entries) = self.index.get_mut(service) else { return Vec::new() };
        entries.retain(|_, (_, ends_ms)| ends_ms.is_none_or(|ends_ms| ends_ms > at.store_ms));
        let standings = entries.iter().map(|(id, (standing, _))| (id.clone(), *standing)).collect();
        if entries.is_empty() {
            self.index.remove(service);
        }
        standings
    }

    /// The number of the last event, and the ends of both streams.
    pub(crate) fn note(&self) -> (u64, (u64, u64)) {
        (self.numbers, self.ends)
    }

    /// What was told after those ids.
    pub(crate) fn read(&self, after: (u64, u64)) -> (Vec<Event>, Vec<Renewals>) {
        let events = self.events.iter().filter(|event| event.id > after.0);
        let renewals = self.renewals.iter().filter(|renewals| renewals.id > after.1);
        (events.cloned().collect(), renewals.cloned().collect())
    }

    /// FLUSHALL, or a start without data.
    pub(crate) fn flush(&mut self) {
        *self = Self { events_ever: self.events_ever, ..Self::default() };
    }

    /// Another one takes over, which had not heard of the latest writes.
    pub(crate) fn fail_over(&mut self, copy: Self) {
        let events_ever = self.events_ever;
        *self = Self { events_ever, ..copy };
    }

    /// What it holds, for the oracle.
    pub(crate) fn slots(&self) -> &BTreeMap<Key, Slot> {
        &self.slots
    }

    /// The versions of everything that is kept for some seconds yet.
    pub(crate) fn versions(&self, now_ms: u64) -> BTreeMap<Key, u64> {
        let kept = self.slots.iter().filter(|(_, slot)| slot.ends_ms > now_ms + 5_000);
        kept.map(|(key, slot)| (key.clone(), slot.version_no)).collect()
    }

    fn tell(&mut self, by: ReplicaId, change: Change, at: At) {
        self.numbers += 1;
        self.events_ever += 1;
        self.ends.0 = (self.ends.0 + 1).max(at.store_ms << 16);
        self.events.push_back(Event { id: self.ends.0, at_ms: at.store_ms, number: self.numbers, by, change });
        if self.events.len() > EVENTS_MAX {
            self.events.pop_front();
        }
    }

    fn forget_ended(&mut self, now_ms: u64) {
        self.slots.retain(|_, slot| slot.ends_ms > now_ms);
    }
}

/// Whether a renewal counts: it ends later, or the other one ends later than any can, written by a clock that was ahead.
const fn is_later(offered_ms: u64, until_ms: u64, possible_ms: u64) -> bool {
    offered_ms > until_ms || until_ms > possible_ms + 1_000
}

pub(crate) fn ms(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX / 4).min(u64::MAX / 4)
}
