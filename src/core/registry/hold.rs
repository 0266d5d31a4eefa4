//! When leases are not believed.
//!
//! One sidecar that dies stops one heartbeat. When the heartbeats of most instances stop at once, it is likelier that they
//! cannot reach us than that all of them died, and removing them would turn a fault of the network into an outage of
//! everything behind it. So the registry asks itself, **when a lease is due and before it is lapsed**: are there at least 10
//! registered instances, and have more than half of them not been renewed in the last half of their own TTL? If so it
//! *holds*: nobody lapses, and whoever passes its deadline is *held*. If not, the due lease lapses at once; no lapse is ever
//! delayed in order to find out. Fallbacks hold no lease and do not count.
//!
//! Decisions taken here:
//!
//! - **"The last half" is 55 % of the TTL.** Sidecars renew every half TTL and therefore arrive a moment after it. In a fleet
//!   that beats in step all of them would be late together, for that moment, and the one that did die would be held for it.
//!   A true silence is not missed: when the first lease ends, the last heartbeats of the others lie between a half and a
//!   whole TTL back, nine tenths of them more than 55 %.
//! - **Held instances are probed** at their health endpoint every 5 s, the first time at once, and removed after 2 failed
//!   probes in a row: those did die. A passed probe keeps the instance, and it stays held. So do not trust a hold to keep a
//!   service whose health endpoint does not answer.
//! - **A renewal ends it for its instance**, and so does a registration.
//! - **The hold ends when its condition does**: half of the instances have been renewed again, or fewer than 10 are left. Who
//!   is still past its deadline gets *grace*: one TTL from that moment, because its sidecar may be in back-off and has not
//!   had its turn. It goes on being probed, counts as silent, and lapses when the grace is over, unless by then most
//!   instances are silent again; then it is held again.
//! - **Probing is bounded:** 256 at once and 500 a second, oldest first, so that the interval stretches when thousands are
//!   held (100 000 take 200 s a round) and no burst of connections leaves the process. A probe without a result for two
//!   minutes never has one (the shell bounds each far below), and its slot is free again.
//! - **A probe is known by its number.** Its result counts only if the instance is still waiting for that very probe:
//!   whoever was renewed, registered anew or removed meanwhile is not touched by it.

use super::sharing::Verdict;
use super::{Registry, lapsed};
use crate::command::{Effect, Probe};
use crate::event::Event;
use crate::lease::Lease;
use crate::name::{InstanceId, ServiceName};
use crate::time::Moment;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// A probe whose result has not come after this never will: its slot is free again.
const PROBE_LOST: Duration = Duration::from_secs(120);
/// After a pause so many probes may start together.
const PROBES_TOGETHER: u32 = 8;

/// When the registry doubts itself instead of its instances. The default is the product's; simulations try others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Protection {
    /// With fewer instances nobody is ever held.
    pub instances_min: usize,
    /// More than this share of silent instances, in per cent, is a fault of our own.
    pub silent_percent: usize,
    /// Between two probes of one held instance.
    pub probe_every: Duration,
    /// So many failed probes in a row remove a held instance.
    pub probe_failures: u32,
    /// Probes under way at once.
    pub probes_max: usize,
    /// Between the starts of two probes of any instances.
    pub probe_spacing: Duration,
    /// Not having been called for longer than this means having been stopped. More than [`super::TICK`].
    pub stall_min: Duration,
}

impl Default for Protection {
    fn default() -> Self {
        Self {
            instances_min: 10,
            silent_percent: 50,
            probe_every: Duration::from_secs(5),
            probe_failures: 2,
            probes_max: 256,
            probe_spacing: Duration::from_millis(2),
            stall_min: super::TICK + Duration::from_millis(500),
        }
    }
}

/// How the leases are, in figures.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LeaseFigures {
    /// Registered instances.
    pub instances: usize,
    /// Of these, not renewed lately.
    pub silent: usize,
    /// Since when the registry holds, if it does.
    pub holding_since: Option<Moment>,
    /// Instances past their deadline that the hold keeps.
    pub held: usize,
    /// Instances that were held and have one more TTL to be renewed.
    pub on_grace: usize,
    /// Instances past their deadline that may have been renewed at another replica; the store cannot be asked.
    pub stale: usize,
    /// Instances that are known to be gone, in case somebody still says otherwise.
    pub graves: usize,
    /// How many of those were forgotten early, ever, because there were too many.
    pub graves_dropped: u64,
}

impl Registry {
    /// How the leases were at the last call of [`Registry::expire`].
    #[must_use]
    pub fn lease_figures(&self) -> LeaseFigures {
        let hold = &self.hold;
        LeaseFigures {
            instances: self.instances,
            silent: self.leases.silent(self.instances),
            holding_since: hold.since,
            held: hold.held.len() - hold.on_grace - hold.stale,
            on_grace: hold.on_grace,
            stale: hold.stale,
            graves: self.sharing.as_ref().map_or(0, |sharing| sharing.graves.len()),
            graves_dropped: self.sharing.as_ref().map_or(0, |sharing| sharing.graves.dropped()),
        }
    }

    /// Lets every lease lapse that is due, or holds it; tells how many lapsed.
    pub(super) fn lapse_or_hold(&mut self, now: Moment) -> usize {
        self.leases.fall_silent(now);
        // Neither holding nor lapsing a silent instance can turn the answer: it is asked once for all that are due.
        let is_suspicious = self.is_mostly_silent();
        if !is_suspicious {
            self.end_hold(now);
        }
        let mut count = 0;
        while let Some((service, id)) = self.leases.take_due(now) {
            let verdict = if is_suspicious { Verdict::Hold } else { self.verdict(&service, &id, now) };
            match verdict {
                Verdict::Hold => self.hold(service, id, now),
                Verdict::Lapse => {
                    self.lapse(&service, &id, now);
                    self.effects.push(lapsed(service, id));
                    count += 1;
                }
                Verdict::Ask => self.ask(service, id, now),
                Verdict::Probe => self.keep_stale(service, id, now),
                Verdict::Wait(until) => self.due_at(&service, &id, until),
            }
        }
        count
    }

    /// Asks for the probes that are due.
    pub(super) fn probe_due(&mut self, now: Moment) {
        self.hold.forget_lost(now, &self.protection);
        while let Some(probe) = self.hold.ask(now, &self.protection) {
            self.effects.push(Effect::Probe(probe));
        }
    }

    /// A probe has ended: the instance is kept, or removed if it was the last failure it was allowed.
    pub(super) fn probed(&mut self, no: u64, passed: bool, now: Moment) {
        let Some((service, id)) = self.hold.answered(no, passed, now, &self.protection) else { return };
        self.lapse(&service, &id, now);
        let failures = self.protection.probe_failures;
        self.effects.push(Effect::Tell(Event::Evicted { service, instance: id, failures }));
    }

    pub(super) fn is_mostly_silent(&self) -> bool {
        let silent = self.leases.silent(self.instances);
        self.instances >= self.protection.instances_min && silent * 100 > self.instances * self.protection.silent_percent
    }

    fn hold(&mut self, service: ServiceName, id: InstanceId, now: Moment) {
        if self.hold.since.is_none() {
            self.hold.since = Some(now);
            let (instances, silent) = (self.instances, self.leases.silent(self.instances));
            self.effects.push(Effect::Tell(Event::HoldStarted { instances, silent }));
        }
        self.keep(service, id, Reason::MassLapse, now);
    }

    /// Keeps an instance whose lease is over, because it cannot be known whether it was renewed at another replica.
    fn keep_stale(&mut self, service: ServiceName, id: InstanceId, now: Moment) {
        self.keep(service, id, Reason::Stale, now);
    }

    fn keep(&mut self, service: ServiceName, id: InstanceId, reason: Reason, now: Moment) {
        if let Some(entry) = self.known(&service, &id) {
            entry.cells.lease.set_held(true);
        }
        self.hold.keep((service, id), reason, now);
    }

    fn end_hold(&mut self, now: Moment) {
        let Some(since) = self.hold.since.take() else { return };
        let held = self.hold.give_grace();
        let on_grace = held.len();
        for (service, id) in held {
            let entry = self.services.get_mut(&service).and_then(|instances| instances.get_mut(&id));
            if let Some(entry) = entry {
                entry.lease = Lease::start(entry.lease.ttl(), now);
                entry.cells.lease.set_lease(entry.lease);
                entry.cells.lease.set_held(false);
                self.leases.start_silent(entry.lease, &service, &id);
            }
        }
        let lasted = now.since(since);
        self.effects.push(Effect::Tell(Event::HoldEnded { lasted, instances: self.instances, on_grace }));
    }
}

type Key = (ServiceName, InstanceId);

/// Whether the registry holds, whom, and who is probed when.
#[derive(Debug, Default)]
pub(super) struct Hold {
    since: Option<Moment>,
    held: BTreeMap<Key, Held>,
    on_grace: usize,
    /// Of those held, for [`Reason::Stale`].
    stale: usize,
    /// Those that wait for their next probe, by when it is due.
    waiting: BTreeSet<(Moment, Key)>,
    /// Probes under way. Numbers grow with time, so the first is the oldest.
    asked: BTreeMap<u64, Asked>,
    asked_last: u64,
    /// No probe starts before.
    next_start: Moment,
}

#[derive(Debug)]
struct Held {
    reason: Reason,
    has_grace: bool,
    /// Probes that failed in a row.
    failures: u32,
    next: Next,
}

/// Why an instance is kept beyond its lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reason {
    MassLapse,
    /// It may have been renewed at another replica, and the store cannot be asked.
    Stale,
}

/// An instance's next probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    Due(Moment),
    UnderWay(u64),
}

#[derive(Debug)]
struct Asked {
    key: Key,
    at: Moment,
}

impl Hold {
    /// When there is something to do about probes.
    pub(super) fn next_deadline(&self, protection: &Protection) -> Option<Moment> {
        let lost = self.asked.first_key_value().map(|(_, asked)| asked.at.plus(PROBE_LOST));
        let due = self.waiting.first().map(|(due, _)| (*due).max(self.next_start));
        let due = due.filter(|_| self.asked.len() < protection.probes_max);
        lost.into_iter().chain(due).min()
    }

    /// The instance was renewed, registered anew or removed. What is being asked about it goes on, and says nothing.
    pub(super) fn release(&mut self, service: &ServiceName, id: &InstanceId) {
        if self.held.is_empty() {
            return;
        }
        let key = (service.clone(), id.clone());
        let Some(held) = self.held.remove(&key) else { return };
        self.on_grace -= usize::from(held.has_grace);
        self.stale -= usize::from(held.reason == Reason::Stale);
        if let Next::Due(due) = held.next {
            self.waiting.remove(&(due, key));
        }
    }

    /// Lets those go that are only kept because the store was away.
    pub(super) fn take_stale(&mut self) -> Vec<Key> {
        let stale = self.held.iter().filter(|(_, held)| held.reason == Reason::Stale).map(|(key, _)| key.clone());
        let stale: Vec<Key> = if self.stale == 0 { Vec::new() } else { stale.collect() };
        stale.iter().for_each(|(service, id)| self.release(service, id));
        stale
    }

    /// Whether the instance is past its deadline and kept.
    pub(super) fn holds(&self, service: &ServiceName, id: &InstanceId) -> bool {
        !self.held.is_empty() && self.held.get(&(service.clone(), id.clone())).is_some_and(|held| !held.has_grace)
    }

    /// We were stopped: what is under way failed because of us, if it did. Asked again at once.
    pub(super) fn stalled(&mut self, now: Moment) {
        let is_under_way = |no, key| self.held.get(key).is_some_and(|held| held.next == Next::UnderWay(no));
        let asked = self.asked.iter().filter(|(no, asked)| is_under_way(**no, &asked.key));
        for key in asked.map(|(_, asked)| asked.key.clone()).collect::<Vec<_>>() {
            self.wait(key, now);
        }
    }

    fn keep(&mut self, key: Key, reason: Reason, now: Moment) {
        self.stale += usize::from(reason == Reason::Stale);
        if let Some(held) = self.held.get_mut(&key) {
            self.on_grace -= usize::from(std::mem::take(&mut held.has_grace));
            self.stale -= usize::from(std::mem::replace(&mut held.reason, reason) == Reason::Stale);
            return;
        }
        self.held.insert(key.clone(), Held { reason, has_grace: false, failures: 0, next: Next::Due(now) });
        self.waiting.insert((now, key));
    }

    /// Those without a deadline, which get one now.
    fn give_grace(&mut self) -> Vec<Key> {
        self.on_grace = self.held.len() - self.stale;
        let held = self.held.iter_mut().filter(|(_, held)| held.reason == Reason::MassLapse);
        held.filter_map(|(key, held)| (!std::mem::replace(&mut held.has_grace, true)).then(|| key.clone())).collect()
    }

    fn ask(&mut self, now: Moment, protection: &Protection) -> Option<Probe> {
        let is_due = self.waiting.first().is_some_and(|(due, _)| *due <= now);
        if !is_due || self.next_start > now || self.asked.len() >= protection.probes_max {
            return None;
        }
        let (_, key) = self.waiting.pop_first()?;
        let spacing = protection.probe_spacing;
        self.next_start = self.next_start.max(now.minus(spacing * PROBES_TOGETHER)).plus(spacing);
        self.asked_last += 1;
        let no = self.asked_last;
        if let Some(held) = self.held.get_mut(&key) {
            held.next = Next::UnderWay(no);
        }
        let (service, instance) = key.clone();
        self.asked.insert(no, Asked { key, at: now });
        Some(Probe { no, service, instance })
    }

    /// Notes a result; the instance that must go because of it.
    fn answered(&mut self, no: u64, passed: bool, now: Moment, protection: &Protection) -> Option<Key> {
        let Asked { key, at } = self.asked.remove(&no)?;
        let held = self.held.get_mut(&key).filter(|held| held.next == Next::UnderWay(no))?;
        held.failures = if passed { 0 } else { held.failures + 1 };
        if held.failures >= protection.probe_failures {
            return Some(key);
        }
        self.wait(key, at.plus(protection.probe_every).max(now));
        None
    }

    fn forget_lost(&mut self, now: Moment, protection: &Protection) {
        while let Some(first) = self.asked.first_entry().filter(|first| first.get().at.plus(PROBE_LOST) <= now) {
            let (no, Asked { key, .. }) = first.remove_entry();
            if self.held.get(&key).is_some_and(|held| held.next == Next::UnderWay(no)) {
                self.wait(key, now.plus(protection.probe_every));
            }
        }
    }

    /// The instance, if it is kept at all, is probed next at `due`.
    fn wait(&mut self, key: Key, due: Moment) {
        let Some(held) = self.held.get_mut(&key) else { return };
        if let Next::Due(before) = std::mem::replace(&mut held.next, Next::Due(due)) {
            self.waiting.remove(&(before, key.clone()));
        }
        self.waiting.insert((due, key));
    }
}
