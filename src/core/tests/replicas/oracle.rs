//! Who must be there and who must be gone, from what clients asked, which replica carried it out, when in true time, and who
//! was told that it was done. It knows the promises, not how they are kept.

use super::Key;
use std::collections::{BTreeMap, BTreeSet};
use vertice_core::command::{Command, Refused, Reply};

/// Changes of one instance at two replicas within so long of each other may come out either way: what the replicas know of the
/// store's time is off by what messages took.
const AT_ONCE_MS: u64 = 1_500;

/// A life of a replica.
pub(crate) type Life = (usize, u32);

#[derive(Default)]
pub(crate) struct Oracle {
    known: BTreeMap<Key, Known>,
    /// Changes that clients made.
    pub(crate) changes: u64,
}

/// What is known of one instance.
#[derive(Debug, Default)]
struct Known {
    ttl_ms: u64,
    well: Option<Well>,
    /// Since it was last deregistered, in the order in which they were carried out.
    registrations: Vec<Registered>,
    removed: Option<Removed>,
    /// Another one took its place: nobody means it any more.
    is_displaced: bool,
    /// Something was said of it that was numbered by a guess, and may come out later than what follows.
    is_haunted: bool,
}

/// It has been renewed without a break.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Well {
    pub(crate) since_ms: u64,
    /// Since when it was never late.
    pub(crate) prompt_since_ms: u64,
    pub(crate) last_ms: u64,
    pub(crate) ttl_ms: u64,
    /// Who heard the last renewal.
    pub(crate) by: Life,
}

impl Well {
    /// Whether its lease runs.
    pub(crate) const fn runs(&self, now_ms: u64) -> bool {
        now_ms < self.last_ms + self.ttl_ms
    }
}

#[derive(Debug)]
struct Registered {
    at_ms: u64,
    by: Life,
    version_no: u64,
    endpoint: String,
    is_acknowledged: bool,
    is_durable: bool,
    /// Whoever carried it out died, or the store lost data: it may be gone.
    is_doubtful: bool,
}

/// It was deregistered.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Removed {
    pub(crate) at_ms: u64,
    pub(crate) by: Life,
    pub(crate) is_acknowledged: bool,
}

/// What a request was about: kept until its answer is given.
#[derive(Clone, Debug, Default)]
pub(crate) struct Receipt(Option<(Key, u64)>);

impl Oracle {
    /// A request was carried out; its instance has that version now, where it was.
    pub(crate) fn applied(
        &mut self,
        command: &Command,
        reply: &Result<Reply, Refused>,
        version_no: u64,
        by: Life,
        now_ms: u64,
    ) -> Receipt {
        match (command, reply) {
            (Command::Register(registration), Ok(Reply::Registered { id, ttl, .. })) => {
                self.changes += 1;
                let key = (registration.service.clone(), id.clone());
                let endpoint = registration.endpoint.authority();
                self.take_places(&key, &endpoint);
                let known = self.known.entry(key.clone()).or_default();
                (known.removed, known.is_displaced) = (None, false);
                known.ttl_ms = ttl.as_millis() as u64;
                known.heard(by, now_ms);
                let (is_acknowledged, is_durable, is_doubtful) = (false, false, false);
                let at_ms = now_ms;
                let it = Registered { at_ms, by, version_no, endpoint, is_acknowledged, is_durable, is_doubtful };
                known.registrations.push(it);
                Receipt(Some((key, now_ms)))
            }
            (Command::Renew(renewal), Ok(Reply::Renewed(_))) => {
                let Some(id) = &renewal.id else { return Receipt::default() };
                let known = self.known.entry((renewal.service.clone(), id.clone())).or_default();
                // Somebody may not have heard yet that what it renews was deregistered, or registered anew, since.
                let last = known.registrations.iter().rev().find(|it| !it.is_doubtful);
                if known.removed.is_none() && last.is_none_or(|last| last.version_no <= version_no) {
                    known.heard(by, now_ms);
                }
                Receipt::default()
            }
            (Command::Deregister(request), Ok(_)) => {
                let Some(id) = &request.id else { return Receipt::default() };
                self.changes += 1;
                let key = (request.service.clone(), id.clone());
                let known = self.known.entry(key.clone()).or_default();
                let is_close = |it: &Registered| it.by != by && it.at_ms + AT_ONCE_MS > now_ms;
                let is_close = known.registrations.iter().any(is_close);
                *known = Known { is_haunted: known.is_haunted, ..Known::default() };
                if !is_close {
                    known.removed = Some(Removed { at_ms: now_ms, by, is_acknowledged: false });
                }
                Receipt(Some((key, now_ms)))
            }
            _ => Receipt::default(),
        }
    }

    /// Whoever was at that endpoint under another id is no more.
    fn take_places(&mut self, key: &Key, endpoint: &str) {
        let others = self.known.iter_mut().filter(|(other, _)| other.0 == key.0 && *other != key);
        for (_, known) in others {
            // One of which nothing is claimed may be anywhere.
            let is_displaced = known.registrations.iter().any(|it| it.endpoint == endpoint);
            if is_displaced || known.registrations.is_empty() {
                let Known { ttl_ms, removed, is_haunted, .. } = *known;
                *known = Known { ttl_ms, removed, is_displaced, is_haunted, ..Known::default() };
            }
        }
    }

    /// Claims nothing of an instance until it registers again; not even then, if what was said of it was numbered by a guess.
    pub(crate) fn forget(&mut self, key: &Key, is_guess: bool) {
        let known = self.known.entry(key.clone()).or_default();
        *known = Known { ttl_ms: known.ttl_ms, is_haunted: known.is_haunted, ..Known::default() };
        if is_guess {
            // Its client's other instance may be where it is.
            let client = |key: &Key| key.1.as_str().split('-').next().map(str::to_owned);
            let its = self.known.iter_mut().filter(|(other, _)| other.0 == key.0 && client(other) == client(key));
            its.for_each(|(_, known)| known.is_haunted = true);
        }
    }

    /// Claims nothing any more of any instance that there is.
    pub(crate) fn haunt_all(&mut self) {
        self.known.values_mut().for_each(|known| known.is_haunted = true);
    }

    /// The client was told.
    pub(crate) fn acknowledged(&mut self, receipt: &Receipt, is_durable: bool) {
        let Some((key, at_ms)) = &receipt.0 else { return };
        let Some(known) = self.known.get_mut(key) else { return };
        for registered in known.registrations.iter_mut().filter(|it| it.at_ms == *at_ms) {
            (registered.is_acknowledged, registered.is_durable) = (true, is_durable);
        }
        if let Some(removed) = known.removed.as_mut().filter(|removed| removed.at_ms == *at_ms) {
            removed.is_acknowledged = true;
        }
    }

    /// A replica died, with everything that it had not told yet.
    pub(crate) fn died(&mut self, life: Life, was_following: bool, now_ms: u64) {
        for known in self.known.values_mut() {
            known.registrations.iter_mut().filter(|it| it.by == life).for_each(|it| it.is_doubtful |= !it.is_durable);
            let is_lately = |at_ms: u64| !was_following || at_ms + 3_000 > now_ms;
            known.well = known.well.filter(|well| well.by != life || !is_lately(well.last_ms));
            known.removed = known.removed.filter(|removed| removed.by != life || !is_lately(removed.at_ms));
        }
    }

    /// The store lost data: what only dead replicas knew may be gone.
    pub(crate) fn store_lost_data(&mut self) {
        for known in self.known.values_mut() {
            known.registrations.iter_mut().for_each(|it| it.is_durable = false);
        }
    }

    /// After so many deaths that nobody may know anything but the store.
    pub(crate) fn doubt_what_is_not_durable(&mut self, lives: &BTreeSet<Life>) {
        for known in self.known.values_mut() {
            let in_doubt = |it: &&mut Registered| !it.is_durable && !lives.contains(&it.by);
            known.registrations.iter_mut().filter(in_doubt).for_each(|it| it.is_doubtful = true);
        }
    }

    /// Who is being renewed.
    pub(crate) fn well(&self) -> impl Iterator<Item = (&Key, &Well)> {
        self.known.iter().filter_map(|(key, known)| known.well.as_ref().map(|well| (key, well)))
    }

    /// Who was registered for certain, in the store, and has not been removed.
    pub(crate) fn durable(&self) -> impl Iterator<Item = &Key> {
        let is_durable = |known: &Known| known.registrations.last().is_some_and(|it| it.is_acknowledged && it.is_durable);
        self.known.iter().filter(move |(_, known)| is_durable(known)).map(|(key, _)| key)
    }

    /// The version of its last registration.
    pub(crate) fn registered_no(&self, key: &Key) -> Option<u64> {
        let known = self.known.get(key).filter(|known| !known.is_haunted)?;
        known.registrations.last().map(|it| it.version_no)
    }

    pub(crate) fn well_of(&self, key: &Key) -> Option<Well> {
        self.known.get(key).and_then(|known| known.well)
    }

    /// Who was deregistered and has not registered since.
    pub(crate) fn removed(&self) -> impl Iterator<Item = (&Key, &Removed)> {
        let sure = self.known.iter().filter(|(_, known)| !known.is_haunted);
        sure.filter_map(|(key, known)| known.removed.as_ref().map(|removed| (key, removed)))
    }

    /// Where an instance may be, once everybody has talked to everybody: where its last acknowledged registration put it, or
    /// one after that, or one at the same time.
    pub(crate) fn endpoints(&self, key: &Key) -> Vec<&str> {
        let Some(known) = self.known.get(key).filter(|known| !known.is_haunted) else { return Vec::new() };
        let sure = |it: &&Registered| !it.is_doubtful;
        let last = known.registrations.iter().rev().find(sure);
        let might = |it: &&Registered| last.is_none_or(|last| it.at_ms + AT_ONCE_MS > last.at_ms);
        known.registrations.iter().filter(might).map(|it| it.endpoint.as_str()).collect()
    }
}

impl Known {
    fn heard(&mut self, by: Life, now_ms: u64) {
        let ttl_ms = self.ttl_ms;
        let before = self.well.filter(|well| well.runs(now_ms));
        let since_ms = before.map_or(now_ms, |well| well.since_ms);
        let prompt = before.filter(|well| now_ms < well.last_ms + well.ttl_ms * 6 / 10);
        let prompt_since_ms = prompt.map_or(now_ms, |well| well.prompt_since_ms);
        self.well =
            (ttl_ms > 0 && !self.is_displaced).then_some(Well { since_ms, prompt_since_ms, last_ms: now_ms, ttl_ms, by });
    }
}
