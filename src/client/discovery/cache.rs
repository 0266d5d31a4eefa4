//! What is known of the services that somebody asked for.
//!
//! **Invariant:** no I/O, no clock; at most [`Cache::new`]'s number of services, the one not asked for longest goes first.
//! What was known stays known until a registry says something else: stale beats nothing.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use vertice_api::ServiceInfo;
use vertice_core::name::ServiceName;

use super::service::{Known, Service};

/// What the cache says to a question.
#[derive(Clone, Debug)]
pub enum Answer {
    /// The service is registered.
    Present(Service),
    /// The registry says that there is no such service.
    Absent,
    /// No registry has ever said anything about it, and the last try failed for this reason.
    Failed(Arc<str>),
    /// A first answer is awaited.
    Awaited,
    /// Nobody asked for it, or not lately.
    Unasked,
}

/// Knowledge by service.
#[derive(Debug)]
pub(crate) struct Cache {
    entries: BTreeMap<ServiceName, Entry>,
    services_max: usize,
    stale_after: Duration,
    /// When a registry last proved that nothing had happened that we have not heard of.
    proof: Duration,
    /// Counts questions; orders entries by their last one.
    questions: u64,
    /// Counts changes. Never goes back, not even when a service is forgotten and comes back.
    revisions: u64,
    news: bool,
}

#[derive(Debug)]
struct Entry {
    said: Said,
    revision: u64,
    /// Somebody waits for the first answer.
    wanted: bool,
    /// How the last try to get a first answer ended.
    failure: Option<(Duration, Arc<str>)>,
    /// Whether the watch would tell of a change.
    live: bool,
    /// When a registry last said what is known.
    confirmed: Duration,
    /// No lookup before.
    next_lookup: Duration,
    /// The last question.
    asked: u64,
    turn: Arc<AtomicU64>,
}

/// What a registry said.
#[derive(Debug)]
enum Said {
    Nothing,
    Absent,
    Present(Arc<Known>),
}

impl Cache {
    pub(crate) fn new(services_max: usize, stale_after: Duration) -> Self {
        Self {
            entries: BTreeMap::new(),
            services_max: services_max.max(1),
            stale_after,
            proof: Duration::ZERO,
            questions: 0,
            revisions: 0,
            news: false,
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    pub(crate) fn has(&self, name: &ServiceName) -> bool {
        self.entries.contains_key(name)
    }

    /// What is known, and the revision of that.
    pub(crate) fn look(&mut self, name: &ServiceName, now: Duration) -> (Answer, u64) {
        self.questions += 1;
        let Some(entry) = self.entries.get_mut(name) else { return (Answer::Unasked, 0) };
        entry.asked = self.questions;
        let answer = match (&entry.said, &entry.failure) {
            (Said::Present(known), _) => {
                Answer::Present(Service::new(Arc::clone(known), entry.age(self.proof, now), self.stale_after))
            }
            (Said::Absent, _) => Answer::Absent,
            (Said::Nothing, Some((_, cause))) if !entry.wanted => Answer::Failed(Arc::clone(cause)),
            (Said::Nothing, _) if entry.wanted => Answer::Awaited,
            (Said::Nothing, _) => Answer::Unasked,
        };
        (answer, entry.revision)
    }

    /// When the last try to get a first answer failed.
    pub(crate) fn failed_at(&self, name: &ServiceName) -> Option<Duration> {
        self.entries.get(name)?.failure.as_ref().map(|(at, _)| *at)
    }

    /// Somebody waits for the first answer from now on. False when there is no room for another service.
    pub(crate) fn want(&mut self, name: &ServiceName, now: Duration) -> bool {
        if !self.entries.contains_key(name) && !self.make_room() {
            return false;
        }
        self.questions += 1;
        let entry = self.entries.entry(name.clone()).or_insert_with(|| Entry::new(now));
        (entry.wanted, entry.failure, entry.asked, entry.next_lookup) = (true, None, self.questions, now);
        true
    }

    fn make_room(&mut self) -> bool {
        while self.entries.len() >= self.services_max {
            let unwanted = self.entries.iter().filter(|(_, entry)| !entry.wanted);
            let Some(oldest) = unwanted.min_by_key(|(_, entry)| entry.asked).map(|(name, _)| name.clone()) else {
                return false;
            };
            self.entries.remove(&oldest);
        }
        true
    }

    /// A registry says what the service is like now; `None`: not registered. `live`: a change would be heard of.
    pub(crate) fn told(&mut self, name: &ServiceName, info: Option<ServiceInfo>, live: bool, now: Duration) {
        let Some(entry) = self.entries.get_mut(name) else { return };
        let unchanged = match (&entry.said, &info) {
            (Said::Present(known), Some(info)) => known.says_the_same_as(info),
            (Said::Absent, None) => true,
            _ => false,
        };
        if !unchanged {
            self.revisions += 1;
            entry.revision = self.revisions;
            entry.said = info.map_or(Said::Absent, |info| {
                let turn = Arc::clone(&entry.turn);
                Said::Present(Arc::new(Known::of_registry(info, name.clone(), self.revisions, turn)))
            });
            self.news = true;
        }
        self.news |= entry.wanted;
        (entry.wanted, entry.failure, entry.live, entry.confirmed) = (false, None, live, now);
    }

    /// A lookup has ended; the next one comes no sooner than this.
    pub(crate) fn next_lookup(&mut self, name: &ServiceName, at: Duration) {
        if let Some(entry) = self.entries.get_mut(name) {
            entry.next_lookup = at;
        }
    }

    /// There will be no first answer for now.
    pub(crate) fn failed(&mut self, name: &ServiceName, cause: &Arc<str>, now: Duration) {
        if let Some(entry) = self.entries.get_mut(name).filter(|entry| entry.wanted) {
            (entry.wanted, entry.failure) = (false, Some((now, Arc::clone(cause))));
            self.news = true;
        }
    }

    /// There will be no first answer for anybody for now.
    pub(crate) fn all_failed(&mut self, cause: &Arc<str>, now: Duration) {
        for entry in self.entries.values_mut().filter(|entry| entry.wanted) {
            (entry.wanted, entry.failure) = (false, Some((now, Arc::clone(cause))));
            self.news = true;
        }
    }

    /// The registry is there, and has told everything that happened.
    pub(crate) fn proven(&mut self, now: Duration) {
        self.proof = now;
    }

    /// From here on changes may have been missed: every service is to be looked up anew.
    pub(crate) fn unproven(&mut self) {
        for entry in self.entries.values_mut() {
            if std::mem::take(&mut entry.live) {
                entry.confirmed = entry.confirmed.max(self.proof);
            }
            entry.next_lookup = Duration::ZERO;
        }
    }

    /// Who waits for a first answer.
    pub(crate) fn wanted(&self) -> Option<&ServiceName> {
        self.entries.iter().find(|(_, entry)| entry.wanted).map(|(name, _)| name)
    }

    /// A service whose lookup is due.
    pub(crate) fn due(&self, now: Duration) -> Option<&ServiceName> {
        self.entries.iter().find(|(_, entry)| entry.next_lookup <= now).map(|(name, _)| name)
    }

    /// When the next lookup is due.
    pub(crate) fn next_due(&self) -> Option<Duration> {
        self.entries.values().map(|entry| entry.next_lookup).min()
    }

    /// Whether anybody could want to hear of what happened since the last call.
    pub(crate) fn take_news(&mut self) -> bool {
        std::mem::take(&mut self.news)
    }
}

impl Entry {
    fn new(now: Duration) -> Self {
        Self {
            said: Said::Nothing,
            revision: 0,
            wanted: false,
            failure: None,
            live: false,
            confirmed: now,
            next_lookup: now,
            asked: 0,
            turn: Arc::default(),
        }
    }

    fn age(&self, proof: Duration, now: Duration) -> Duration {
        let confirmed = if self.live { self.confirmed.max(proof) } else { self.confirmed };
        now.saturating_sub(confirmed)
    }
}
