//! Everything compared with what the store has, a few services at a time, so that changes and beats go on meanwhile.

use super::contents::READ_MAX;
use super::failure::Failure;
use super::predecessor::Flat;
use super::shared::Shared;
use super::shelf::Shelf;
use crate::clock;
use crate::registrar::outbox::{Outbox, Work};
use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;
use vertice_core::command::Command;
use vertice_core::name::ServiceName;
use vertice_core::record::{ReplicaId, Stored};
use vertice_core::time::Moment;

/// One under way.
pub(super) struct Reconcile {
    why: &'static str,
    started: Moment,
    names: VecDeque<ServiceName>,
    /// Services that the predecessor's index names.
    flat: BTreeSet<ServiceName>,
    /// Services that the predecessor is not shown, or not as they are.
    unshown: BTreeSet<ServiceName>,
}

impl Reconcile {
    /// Lists the services.
    pub(super) fn start(shared: &Shared, shelf: &mut Shelf, why: &'static str) -> Result<Self, Failure> {
        shared.metrics.store_resyncs.with_label_values(&[why]).inc();
        let started = clock::mono();
        let flat = shelf.names("services:index")?;
        let mut names = shelf.names("vx:names")?;
        names.extend(flat.iter().cloned());
        let table = shared.table.load_full();
        names.extend(table.iter().filter(|service| !service.is_fallback).map(|service| service.name.clone()));
        Ok(Self { why, started, names: names.into_iter().collect(), flat, unshown: BTreeSet::new() })
    }

    /// Compares the next few services. Tells whether that was all.
    pub(super) fn step(&mut self, shared: &Shared, outbox: &Outbox, shelf: &mut Shelf) -> Result<bool, Failure> {
        let names: Vec<ServiceName> = self.names.drain(..self.names.len().min(READ_MAX)).collect();
        if names.is_empty() {
            return Ok(true);
        }
        let indexes = shelf.indexes(&names)?;
        for (service, index) in names.iter().zip(indexes) {
            // Of what cannot be read nothing is known, not even that it is empty.
            let Some(index) = index else { continue };
            if !index.stale.is_empty() {
                shelf.tidy(service, &index.stale)?;
            }
            shared.deliver(Command::Compare { service: service.clone(), stored: index.standings });
        }
        let (flat, unlisted): (Vec<ServiceName>, Vec<_>) = names.into_iter().partition(|name| self.flat.contains(name));
        self.unshown.extend(unlisted);
        self.take_up(shared, outbox, shelf, &flat)?;
        Ok(self.names.is_empty())
    }

    /// Notes that it is over. Services that the predecessor is not shown, or not as they are, although a gateway
    /// may have them.
    pub(super) fn finished(self, shared: &Shared) -> BTreeSet<ServiceName> {
        shared.state.reconciled_now();
        let took = clock::mono().since(self.started);
        shared.metrics.store_reconcile_duration.observe(took.as_secs_f64());
        tracing::debug!(why = self.why, ?took, "compared with Redis");
        self.unshown
    }

    /// Takes up what the predecessor wrote in these services' flat records.
    fn take_up(&mut self, shared: &Shared, outbox: &Outbox, shelf: &mut Shelf, names: &[ServiceName]) -> Result<(), Failure> {
        let records = shelf.flats_as_shown(names)?;
        let Some(store_micros) = shared.state.store_micros(clock::mono()) else { return Ok(()) };
        for (service, (flat, shown)) in names.iter().zip(records) {
            let (Some(flat), Some(shown)) = (flat, shown) else {
                self.unshown.insert(service.clone());
                continue;
            };
            match shown.filter(|(endpoint, _)| *endpoint == flat.endpoint.to_string()) {
                // A gateway wrote it. The predecessor may have renewed it since.
                Some((_, last_heartbeat)) if flat.last_heartbeat > last_heartbeat + 0.001 => {
                    renewed(shared, outbox, service, &flat);
                }
                Some(_) if is_outdated(shared, service, &flat) => drop(self.unshown.insert(service.clone())),
                Some(_) => {}
                None => {
                    let Some(record) = flat.record(service, shared.settings.lease_ttl, store_micros) else { continue };
                    match is_shown(shared, service, &flat, record.facts.version_no) {
                        // What was noted of it is lost.
                        true => renewed(shared, outbox, service, &flat),
                        false => shared.deliver(Command::Merge(Box::new(record))),
                    }
                }
            }
        }
        Ok(())
    }
}

/// Whether a gateway did not get to showing what it had written. What the store has decides which of two is outdated.
fn is_outdated(shared: &Shared, service: &ServiceName, flat: &Flat) -> bool {
    let table = shared.table.load_full();
    let best = table.get(service.as_str()).filter(|service| !service.is_fallback).and_then(|service| service.best());
    best.is_some_and(|best| {
        let facts = &best.facts;
        let of_facts = (&facts.endpoint, &*facts.health_endpoint, &facts.metadata);
        of_facts != (&flat.endpoint, flat.health_endpoint.as_str(), &flat.metadata)
    })
}

/// Whether it shows an instance that registered with a gateway. As a registration of the predecessor's, with a version made of
/// its time, it could count as newer than what it shows, and take its place.
fn is_shown(shared: &Shared, service: &ServiceName, flat: &Flat, version_no: u64) -> bool {
    let table = shared.table.load_full();
    let known = table.get(service.as_str()).filter(|service| !service.is_fallback);
    known.is_some_and(|known| {
        let mut facts = known.instances.iter().map(|upstream| &upstream.facts);
        facts.any(|facts| flat.shows(facts) && facts.version_no != version_no)
    })
}

/// The predecessor renewed an instance that is registered with us: here, and for the other replicas in the store.
fn renewed(shared: &Shared, outbox: &Outbox, service: &ServiceName, flat: &Flat) {
    let table = shared.table.load_full();
    let Some(known) = table.get(service.as_str()).filter(|service| !service.is_fallback) else { return };
    let Some(upstream) = known.instances.iter().find(|upstream| upstream.facts.endpoint == flat.endpoint) else { return };
    let facts = &upstream.facts;
    let left = flat.left.min(facts.ttl);
    if upstream.cells.lease.deadline().since(clock::mono()) + Duration::from_secs(1) >= left {
        return;
    }
    let renewed = Command::Renewed {
        service: facts.service.clone(),
        id: facts.id.clone(),
        version_no: facts.version_no,
        left,
        holder: ReplicaId::PREDECESSOR,
    };
    if shared.handle.carry_out(renewed, || !shared.is_stopping()) {
        let stored = Stored { facts: facts.clone(), cells: upstream.cells.clone() };
        outbox.put(Work { renewals: vec![(stored, true)], ..Work::default() });
    }
}
