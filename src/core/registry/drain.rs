//! Taking instances out of rotation: an operator's drain, and a deregistration that leaves time to finish.
//!
//! A drain is the operator's word and not the instance's: heartbeats go on and may report any status, and none of them ends
//! it. A new registration does, because it speaks for a new process. A drain is not stored: after a restart the instance is
//! back in rotation. A deregistration is, from its first moment, so that a restart cannot bring back who was leaving.

use super::{Entry, Registry};
use crate::command::{Draining, Effect, Refused, Reply};
use crate::event::Event;
use crate::name::{InstanceId, ServiceName};
use crate::record::{Stored, Why};
use crate::time::{Moment, Now};
use std::time::Duration;

/// A time without new requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Drain {
    /// When it is over.
    pub(super) until: Moment,
    /// Whether the instance is removed then, instead of coming back.
    pub(super) leaves: bool,
}

impl Registry {
    /// Starts, prolongs or ends an operator's drain.
    pub(super) fn drain_instances(&mut self, request: &Draining, now: Now) -> Result<Reply, Refused> {
        let instances = self.services.get(&request.service).ok_or(Refused::NotRegistered)?;
        let ids: Vec<InstanceId> = match &request.id {
            Some(id) => instances.contains_key(id).then(|| id.clone()).into_iter().collect(),
            None => instances.keys().cloned().collect(),
        };
        if ids.is_empty() {
            return Err(Refused::NotRegistered);
        }
        for id in &ids {
            match request.span {
                Some(span) => self.start_drain(&request.service, id, span, false, now),
                None => self.return_to_rotation(&request.service, id, now.mono),
            }
            self.restate(&request.service, id, 0, now);
        }
        Ok(Reply::Draining(ids))
    }

    /// Lets an instance finish what it has before it goes. It is out of the store at once.
    pub(super) fn leave(&mut self, service: &ServiceName, id: &InstanceId, span: Duration, now: Now) {
        let staying = self.entry(service, id).filter(|entry| !entry.is_leaving()).map(|entry| entry.facts.clone());
        self.start_drain(service, id, span, true, now);
        if let Some(facts) = staying {
            let version_no = self.versions.next(now);
            self.bury(&facts, Why::Removed, version_no, Some(span), now.mono);
        }
    }

    /// Ends the drains that are over.
    pub(super) fn end_drains(&mut self, now: Moment) {
        while self.drains.first().is_some_and(|(until, ..)| *until <= now) {
            let Some((_, service, id)) = self.drains.pop_first() else { break };
            if self.entry(&service, &id).is_some_and(|entry| entry.is_leaving()) {
                self.take_out(&service, &id);
                self.effects.push(Effect::Tell(Event::Deregistered { service, instance: id }));
            } else {
                self.return_to_rotation(&service, &id, now);
            }
        }
    }

    pub(super) fn start_drain(&mut self, service: &ServiceName, id: &InstanceId, span: Duration, leaves: bool, now: Now) {
        let until = now.mono.plus(span);
        let Some(entry) = self.entry(service, id) else { return };
        let before = entry.drain;
        // Whoever is leaving leaves: an operator's drain may give it more time, and does not keep it.
        let leaves = leaves || entry.is_leaving();
        entry.drain = Some(Drain { until, leaves });
        entry.cells.lease.set_drained_until(Some(until));
        if let Some(before) = before {
            self.drains.remove(&(before.until, service.clone(), id.clone()));
        } else {
            self.touch(service.clone());
        }
        self.drains.insert((until, service.clone(), id.clone()));
        let (service, instance) = (service.clone(), id.clone());
        self.effects.push(Effect::Tell(Event::DrainStarted { service, instance, span, leaves }));
    }

    /// Ends a drain, but not a departure.
    fn return_to_rotation(&mut self, service: &ServiceName, id: &InstanceId, now: Moment) {
        let Some(entry) = self.entry(service, id) else { return };
        let Some(drain) = entry.drain.filter(|drain| !drain.leaves) else { return };
        entry.drain = None;
        entry.cells.lease.set_drained_until(None);
        entry.cells.standing.starts(now);
        self.drains.remove(&(drain.until, service.clone(), id.clone()));
        self.touch(service.clone());
        self.effects.push(Effect::Tell(Event::DrainEnded { service: service.clone(), instance: id.clone() }));
    }
}

impl Entry {
    /// The write that brings it to the store.
    pub(super) fn stored(&self) -> Option<Effect> {
        self.on_its_way().map(Effect::Persist)
    }

    /// What the store, and other replicas, are told of it. Whoever is leaving is out of it and stays out.
    pub(super) fn on_its_way(&self) -> Option<Stored> {
        (!self.is_leaving()).then(|| Stored { facts: self.facts.clone(), cells: self.cells.clone() })
    }

    /// Whether it has been deregistered and is only finishing.
    pub(super) fn is_leaving(&self) -> bool {
        self.drain.is_some_and(|drain| drain.leaves)
    }
}
