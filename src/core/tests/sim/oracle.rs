//! Who must be alive and who must be gone, from what was sent, applied and acknowledged. [`super::rules`] knows when.
//!
//! Where two outcomes are right (a request without an id, close to a lapse) the oracle claims nothing.

use super::Envelope;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use vertice_core::command::{Command, Deregistration, Refused, Registration, Renewal, Reply};
use vertice_core::endpoint::Endpoint;
use vertice_core::name::{InstanceId, ServiceName};
use vertice_core::registry::Registry;
use vertice_core::table::Facts;

/// An instance.
pub(crate) type Key = (ServiceName, InstanceId);

#[derive(Default)]
pub(crate) struct Oracle {
    known: BTreeMap<Key, Known>,
    /// Those whose removal was acknowledged and that have not registered since.
    removed: BTreeSet<Key>,
    births: u64,
}

/// What is known about an instance.
#[derive(Debug)]
struct Known {
    /// Distinguishes it from an earlier instance of the same key; 0 when nothing is claimed about it.
    birth: u64,
    /// The last acknowledged registration, and those applied since, in order. Empty: not known.
    registrations: Vec<Applied>,
    /// Whether a registration of it is in the store for certain.
    durable: bool,
    /// It is registered for certain until then, unless a request removes it.
    sure_until_ms: u64,
    /// A renewal lasts so long.
    ttl_ms: u64,
    /// It was acknowledged to be alive until then.
    kept_until_ms: u64,
}

#[derive(Debug)]
struct Applied {
    client: usize,
    turn: u64,
    endpoint: Endpoint,
    kept_until_ms: u64,
    ttl_ms: u64,
}

/// What an applied request was about: kept with its answer until that is given.
#[derive(Clone, Debug, Default)]
pub(crate) struct Receipt {
    target: Option<(Key, u64)>,
}

impl Oracle {
    /// A request was carried out.
    pub(crate) fn applied(
        &mut self,
        envelope: &Envelope,
        reply: &Result<Reply, Refused>,
        now_ms: u64,
        registry: &Registry,
    ) -> Receipt {
        let is_there = |key: &Key| registry.facts().any(|facts| facts.service == key.0 && facts.id == key.1);
        self.known.retain(|key, known| known.sure_until_ms > now_ms || known.kept_until_ms > now_ms || is_there(key));
        match (&envelope.command, reply) {
            (Command::Register(registration), Ok(Reply::Registered { ttl, .. })) => {
                self.registered(envelope, registration, ttl.as_millis() as u64, now_ms)
            }
            (Command::Renew(renewal), Ok(Reply::Renewed(_))) => self.renewed(renewal, now_ms, registry),
            (Command::Deregister(request), Ok(Reply::Deregistered(count))) => self.deregistered(request, *count, now_ms),
            _ => Receipt::default(),
        }
    }

    fn registered(&mut self, envelope: &Envelope, registration: &Registration, ttl_ms: u64, now_ms: u64) -> Receipt {
        let key = key(&registration.service, registration.id.as_ref(), registration.registrant);
        // The same endpoint is the same instance, whatever its id.
        let others = |other: &Key| *other != key && other.0 == key.0;
        self.known.retain(|other, known| !others(other) || known.endpoint() != Some(&registration.endpoint));
        let nowhere = |(other, known): &(&Key, &mut Known)| others(other) && known.endpoint().is_none();
        self.known.iter_mut().filter(nowhere).for_each(|(_, known)| known.disclaim());
        self.removed.remove(&key);
        self.births += 1;
        let births = self.births;
        let known = self.known.entry(key.clone()).or_insert_with(|| Known::born(births, ttl_ms));
        let kept_until_ms = envelope.sent_ms + ttl_ms;
        if known.birth == 0 {
            known.birth = births;
        }
        known.touch(ttl_ms, now_ms);
        known.kept_until_ms = known.kept_until_ms.min(kept_until_ms);
        let (client, turn, endpoint) = (envelope.client, envelope.turn, registration.endpoint.clone());
        known.registrations.push(Applied { client, turn, endpoint, kept_until_ms, ttl_ms });
        Receipt { target: Some((key, known.birth)) }
    }

    fn renewed(&mut self, renewal: &Renewal, now_ms: u64, registry: &Registry) -> Receipt {
        let key = key(&renewal.service, renewal.id.as_ref(), renewal.registrant);
        if renewal.id.is_none() && !self.is_alive(&key, now_ms) {
            self.adopt(registry, &renewal.service);
            return Receipt::default();
        }
        self.adopt(registry, &renewal.service);
        let target = self.known.get_mut(&key).map(|known| {
            known.touch(known.ttl_ms, now_ms);
            (key, known.birth)
        });
        Receipt { target }
    }

    /// Instances that were lost sight of (perhaps replaced, but that was undone by a crash) and have been renewed.
    fn adopt(&mut self, registry: &Registry, service: &ServiceName) {
        for facts in registry.facts().filter(|facts| facts.service == *service) {
            self.births += 1;
            let known = Known::born(self.births, facts.ttl.as_millis() as u64);
            self.known.entry((facts.service.clone(), facts.id.clone())).or_insert(known);
        }
    }

    fn deregistered(&mut self, request: &Deregistration, count: usize, now_ms: u64) -> Receipt {
        let key = key(&request.service, request.id.as_ref(), request.registrant);
        if request.id.is_some() || (!request.all && self.is_alive(&key, now_ms)) {
            self.known.remove(&key);
            return Receipt { target: Some((key, 0)) };
        }
        for (_, known) in self.known.iter_mut().filter(|(other, _)| other.0 == key.0 && count > 0) {
            known.disclaim();
        }
        Receipt::default()
    }

    /// The client has its answer.
    pub(crate) fn acknowledged(&mut self, envelope: &Envelope, reply: &Result<Reply, Refused>, receipt: &Receipt) {
        let Some((key, birth)) = &receipt.target else { return };
        if matches!(reply, Ok(Reply::Deregistered(_))) {
            if !self.known.contains_key(key) {
                self.removed.insert(key.clone());
            }
            return;
        }
        let Some(known) = self.known.get_mut(key).filter(|known| known.birth == *birth) else { return };
        if matches!(envelope.command, Command::Register(_)) {
            let is_it = |applied: &Applied| (applied.client, applied.turn) == (envelope.client, envelope.turn);
            let Some(at) = known.registrations.iter().position(is_it) else { return };
            known.registrations.drain(..at);
            known.durable = true;
            let kept = known.registrations.iter().map(|applied| applied.kept_until_ms).min().unwrap_or(0);
            known.kept_until_ms = known.kept_until_ms.max(kept);
        } else if known.durable {
            let ttl_ms = known.registrations.iter().map(|applied| applied.ttl_ms).min().unwrap_or(known.ttl_ms);
            known.kept_until_ms = known.kept_until_ms.max(envelope.sent_ms + ttl_ms);
        }
    }

    /// A process starts with what the store holds.
    pub(crate) fn restarted(&mut self, store: &BTreeMap<Key, Arc<Facts>>, now_ms: u64) -> Result<(), String> {
        if let Some((key, known)) = self.known.iter().find(|(key, k)| k.kept_until_ms > now_ms && !store.contains_key(*key)) {
            return Err(format!("{} was acknowledged and is not in the store: {known:?}", key.1));
        }
        self.known.retain(|key, _| store.contains_key(key));
        for (key, facts) in store {
            let ttl_ms = facts.ttl.as_millis() as u64;
            self.births += 1;
            let births = self.births;
            let known = self.known.entry(key.clone()).or_insert_with(|| Known::born(births, ttl_ms));
            known.touch(ttl_ms, now_ms);
            known.durable = true;
            known.registrations.retain(|applied| applied.endpoint == facts.endpoint);
        }
        Ok(())
    }

    /// Every acknowledged lease is visible.
    pub(crate) fn check_kept(&self, now_ms: u64, visible: impl Fn(&Key) -> Option<Arc<Facts>>) -> Result<(), String> {
        for (key, known) in self.known.iter().filter(|(_, known)| known.kept_until_ms > now_ms) {
            let Some(facts) = visible(key) else {
                return Err(format!("{} of {} was acknowledged and is not in the table: {known:?}", key.1, key.0));
            };
            let mut endpoints = known.registrations.iter().map(|applied| &applied.endpoint);
            if !known.registrations.is_empty() && !endpoints.any(|endpoint| *endpoint == facts.endpoint) {
                return Err(format!("{} is at {}, but it was acknowledged elsewhere: {known:?}", key.1, facts.endpoint));
            }
        }
        Ok(())
    }

    /// Nobody who was removed is there.
    pub(crate) fn check_gone<'a>(&self, mut alive: impl Iterator<Item = &'a Arc<Facts>>) -> Result<(), String> {
        if self.removed.is_empty() {
            return Ok(());
        }
        let is_removed = |facts: &&Arc<Facts>| self.removed.contains(&(facts.service.clone(), facts.id.clone()));
        match alive.find(is_removed) {
            Some(facts) => Err(format!("{} of {} was acknowledged as removed and is there", facts.id, facts.service)),
            None => Ok(()),
        }
    }

    fn is_alive(&self, key: &Key, now_ms: u64) -> bool {
        self.known.get(key).is_some_and(|known| known.sure_until_ms > now_ms)
    }
}

impl Known {
    fn born(birth: u64, ttl_ms: u64) -> Self {
        let registrations = Vec::new();
        Self { birth, registrations, durable: false, sure_until_ms: 0, ttl_ms, kept_until_ms: 0 }
    }

    /// Where it is now, if known.
    fn endpoint(&self) -> Option<&Endpoint> {
        self.registrations.last().map(|applied| &applied.endpoint)
    }

    /// It may or may not have been removed; answers that are still on their way say nothing about it.
    fn disclaim(&mut self) {
        (self.birth, self.kept_until_ms, self.sure_until_ms, self.durable) = (0, 0, 0, false);
    }

    /// Its lease was started or renewed for certain.
    fn touch(&mut self, ttl_ms: u64, now_ms: u64) {
        self.ttl_ms = ttl_ms;
        self.sure_until_ms = now_ms + ttl_ms;
    }
}

fn key(service: &ServiceName, id: Option<&InstanceId>, registrant: IpAddr) -> Key {
    (service.clone(), id.cloned().unwrap_or_else(|| InstanceId::of_registrant(registrant)))
}
