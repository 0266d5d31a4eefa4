//! The registry: who holds a lease, as a state machine.
//!
//! Its whole surface is: here is a command and the time ([`Registry::apply`]), the time is now ([`Registry::expire`]), when
//! must I be called again ([`Registry::next_deadline`]), what shall I do now ([`Registry::drain`]), what changed
//! ([`Registry::take_changed`], [`Registry::build`]). The shell owns the sockets, the clock and the store.

mod drain;
mod graves;
mod hold;
mod leases;
mod resolution;
mod sharing;
mod stall;

use crate::balance::lineup::Lineup;
use crate::cell::Cells;
use crate::command::{Command, Deregistration, Effect, Limits, Policies, Refused, Registration, Renewal, Reply, Terms};
use crate::endpoint::{Endpoint, Guard, Host};
use crate::event::Event;
use crate::lease::Lease;
use crate::name::{InstanceId, ServiceName};
use crate::names::Names;
use crate::record::{ReplicaId, Stored, Why};
use crate::status::Status;
use crate::table::{Attach, Facts, Origin, Service, Upstream};
use crate::time::{Moment, Now};
use crate::version::Versions;
use drain::Drain;
use resolution::judged;
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

pub use hold::{LeaseFigures, Protection};
pub use stall::TICK;

/// The state of the registry.
#[derive(Debug)]
pub struct Registry {
    limits: Limits,
    default_ttl: Duration,
    guard: Guard,
    policies: Policies,
    services: BTreeMap<ServiceName, BTreeMap<InstanceId, Entry>>,
    fallbacks: BTreeMap<ServiceName, Entry>,
    instances: usize,
    drains: BTreeSet<leases::Place>,
    leases: leases::Leases,
    hold: hold::Hold,
    calls: stall::Calls,
    protection: Protection,
    names: Names,
    generation: u64,
    versions: Versions,
    sharing: Option<sharing::Sharing>,
    /// What is to be published, each at the generation of its last change.
    changed: BTreeMap<ServiceName, u64>,
    effects: Vec<Effect>,
}

/// One instance with everything that is not immutable.
#[derive(Debug)]
struct Entry {
    facts: Arc<Facts>,
    lease: Lease,
    addresses: Arc<[SocketAddr]>,
    cells: Arc<Cells>,
    drain: Option<Drain>,
}

impl Registry {
    /// An empty registry. `default_ttl` is for registrations that ask for none.
    #[must_use]
    pub fn new(limits: Limits, default_ttl: Duration) -> Self {
        Self {
            limits,
            default_ttl,
            guard: Guard::default(),
            policies: Policies::default(),
            services: BTreeMap::new(),
            fallbacks: BTreeMap::new(),
            instances: 0,
            drains: BTreeSet::new(),
            leases: leases::Leases::default(),
            hold: hold::Hold::default(),
            calls: stall::Calls::default(),
            protection: Protection::default(),
            names: Names::default(),
            generation: 0,
            versions: Versions::default(),
            sharing: None,
            changed: BTreeMap::new(),
            effects: Vec::new(),
        }
    }

    /// Counts generations from this one on, so that those of another process are not mistaken for ours.
    #[must_use]
    pub const fn starting_at(mut self, generation: u64) -> Self {
        self.generation = generation;
        self
    }

    /// The same registry, as `me`, one of several replicas that share a store. A lease that another one renewed is doubted
    /// `stale_after` that renewal, if it is over and the store cannot be asked.
    #[must_use]
    pub fn shared(mut self, me: ReplicaId, stale_after: Duration) -> Self {
        self.versions = Versions::shared(me);
        self.sharing = Some(sharing::Sharing::new(me, stale_after));
        self
    }

    /// The same registry, which doubts itself in other cases than the product does.
    #[must_use]
    pub fn protected(self, protection: Protection) -> Self {
        Self { protection, ..self }
    }

    /// Carries out a command.
    ///
    /// # Errors
    /// [`Refused`]; then nothing has changed.
    pub fn apply(&mut self, command: Command, now: Now) -> Result<Reply, Refused> {
        let now = Now { mono: self.called_at(now.mono), ..now };
        match command {
            Command::Register(registration) => self.register(*registration, now),
            Command::Renew(renewal) => self.renew(renewal, now),
            Command::Deregister(deregistration) => self.deregister(&deregistration, now),
            Command::Drain(draining) => self.drain_instances(&draining, now),
            Command::Resolved { host, addresses } => {
                self.resolved(&host, &addresses, now);
                self.names.forget_unused(&host);
                Ok(Reply::Done)
            }
            Command::Restore(facts) => self.restore(*facts, now),
            Command::SetPolicies(policies) => {
                self.set_policies(policies);
                Ok(Reply::Done)
            }
            Command::SetTerms(terms) => {
                self.set_terms(terms);
                Ok(Reply::Done)
            }
            Command::SetFallbacks(fallbacks) => {
                self.set_fallbacks(fallbacks, now);
                Ok(Reply::Done)
            }
            Command::SetGuard(guard) => {
                self.set_guard(guard);
                Ok(Reply::Done)
            }
            Command::Probed { no, passed } => {
                self.probed(no, passed, now.mono);
                Ok(Reply::Done)
            }
            Command::Merge(record) => self.merge(*record, now),
            Command::MergeGone(gone) => {
                self.merge_gone(gone, now);
                Ok(Reply::Done)
            }
            Command::Renewed { service, id, version_no, left, holder } => {
                self.renewed_there(service, id, version_no, left, holder, now);
                Ok(Reply::Done)
            }
            Command::Compare { service, stored } => {
                self.compare(&service, stored, now);
                Ok(Reply::Done)
            }
            Command::Fetched { service, id, record, is_holder_alive } => {
                self.fetched(&service, &id, record.map(|record| *record), is_holder_alive, now)
            }
            Command::Store(news) => {
                self.store_news(news, now);
                Ok(Reply::Done)
            }
        }
    }

    /// Ends the drains that are over, and removes or holds every instance whose lease is; tells how many leases lapsed. To
    /// be called at the next deadline and every [`TICK`].
    pub fn expire(&mut self, now: Moment) -> usize {
        let now = self.called_at(now);
        self.end_drains(now);
        if let Some(sharing) = &mut self.sharing {
            sharing.graves.expire(now);
        }
        let lapsed = self.lapse_or_hold(now);
        self.probe_due(now);
        lapsed
    }

    /// When [`Registry::expire`] must be called next.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Moment> {
        let drain = self.drains.first().map(|(until, ..)| *until);
        let probe = self.hold.next_deadline(&self.protection);
        self.leases.next_deadline().into_iter().chain(probe).chain(drain).min()
    }

    /// What the shell must do, in order; empties the list.
    #[must_use]
    pub fn drain(&mut self) -> Vec<Effect> {
        std::mem::take(&mut self.effects)
    }

    /// The services whose visible state changed since the last call, each at the generation of its last change: no two
    /// have the same.
    #[must_use]
    pub fn take_changed(&mut self) -> BTreeMap<ServiceName, u64> {
        std::mem::take(&mut self.changed)
    }

    /// Counts up with every visible change.
    #[must_use]
    pub const fn generation(&self) -> u64 {
        self.generation
    }

    /// How many services have a registered instance.
    #[must_use]
    pub fn service_count(&self) -> usize {
        self.services.len()
    }

    /// How many instances are registered.
    #[must_use]
    pub const fn instance_count(&self) -> usize {
        self.instances
    }

    /// The facts of every registered instance.
    pub fn facts(&self) -> impl Iterator<Item = &Arc<Facts>> {
        self.services.values().flat_map(|instances| instances.values().map(|entry| &entry.facts))
    }

    /// Builds the table's entry for a service: its registered instances, else its fallback, else nothing. What hung on
    /// unchanged instances of `old` is carried over, unless the policy it was made by is another one now.
    #[must_use]
    pub fn build<X: Attach>(
        &self,
        name: &ServiceName,
        changed_at: u64,
        old: Option<&Arc<Service<X>>>,
        attach: &X,
    ) -> Option<Service<X>> {
        let registered = self.services.get(name).into_iter().flat_map(BTreeMap::values);
        let fallback = self.fallbacks.get(name).filter(|_| !self.services.contains_key(name));
        let policy = self.policies.of(name);
        let kept = old.filter(|service| service.policy == *policy).into_iter().flat_map(|service| service.instances.iter());
        let carried: BTreeMap<&InstanceId, &Arc<Upstream<X>>> = kept.map(|upstream| (&upstream.facts.id, upstream)).collect();
        let instances: Box<[_]> = registered
            .chain(fallback)
            .map(|entry| match carried.get(&entry.facts.id) {
                Some(upstream) if entry.is_shown_by(upstream) => Arc::clone(upstream),
                _ => Arc::new(Upstream {
                    facts: entry.facts.clone(),
                    addresses: entry.addresses.clone(),
                    cells: entry.cells.clone(),
                    is_draining: entry.drain.is_some(),
                    is_leaving: entry.is_leaving(),
                    token: if policy.balance.sticky.enabled { attach.token(&entry.facts) } else { 0 },
                    x: attach.instance(&entry.facts, &entry.addresses, policy),
                }),
            })
            .collect();
        if instances.is_empty() {
            return None;
        }
        let (usable, lineup) = Lineup::arrange(&instances, &policy.balance, old.map(|service| &service.lineup));
        let x = attach.service(name, &usable, old.map(|service| &service.x));
        Some(Service {
            name: name.clone(),
            policy: policy.clone(),
            instances,
            usable,
            lineup,
            cells: old.map_or_else(Arc::default, |service| service.cells.clone()),
            is_fallback: fallback.is_some(),
            changed_at,
            x,
        })
    }

    fn register(&mut self, registration: Registration, now: Now) -> Result<Reply, Refused> {
        let Registration { service, id, registrant, endpoint, resolved, .. } = &registration;
        let (id, origin) = match id {
            Some(id) => (id.clone(), Origin::Registered),
            None => (InstanceId::of_registrant(*registrant), Origin::RegisteredByAddress),
        };
        if let Host::Address(address) = endpoint.host()
            && let Some(why) = self.guard.judge(SocketAddr::new(*address, endpoint.port()))
        {
            return Err(Refused::Address(why));
        }
        let replaced = self.replaced_by(service, &id, endpoint);
        self.check_limits(service, replaced.len())?;
        // Held until the new registration uses the name itself, so that its last good answer outlives the old one.
        let (service, held) = (service.clone(), endpoint.name().cloned());
        if let Some(host) = &held {
            self.hold_name(host, &service);
            // Unlike what comes from the store, this answer is newer than any that is known.
            self.resolved(host, resolved.as_deref().unwrap_or_default(), now);
        }
        let cells = self.inherited_cells(&service, &replaced, endpoint);
        cells.registered(now.mono);
        let version_no = self.versions.next(now);
        for old in &replaced {
            let gone = self.take_out(&service, old).filter(|gone| *old != id && !gone.is_leaving());
            if let Some(gone) = gone {
                self.bury(&gone.facts, Why::Removed, version_no, None, now.mono);
            }
        }
        let mut facts = facts_of(registration, id.clone(), origin, self.default_ttl, now.wall_ms, version_no);
        facts.resolved = held.as_ref().map_or_else(Vec::new, |host| self.names.addresses(host).to_vec());
        let (ttl, facts) = (facts.ttl, Arc::new(facts));
        let resolved = self.insert(facts.clone(), Lease::start(ttl, now.mono), cells.clone(), now.wall_ms);
        self.release_name_of(&facts);
        self.effects.push(Effect::Persist(Stored { facts, cells }));
        self.effects.push(Effect::Tell(Event::Registered { service, instance: id.clone(), replaced: !replaced.is_empty() }));
        Ok(Reply::Registered { id, ttl, resolved })
    }

    /// The instances that a registration under `id` at `endpoint` takes the place of: the one of that id, and any at the
    /// same endpoint, whatever its id.
    fn replaced_by(&self, service: &ServiceName, id: &InstanceId, endpoint: &Endpoint) -> Vec<InstanceId> {
        let same = |(other, entry): &(&InstanceId, &Entry)| *other == id || entry.facts.endpoint == *endpoint;
        self.services.get(service).into_iter().flatten().filter(same).map(|(other, _)| other.clone()).collect()
    }

    /// Breaker and averages belong to the endpoint: kept when it is registered anew, fresh when the instance moved.
    fn inherited_cells(&self, service: &ServiceName, replaced: &[InstanceId], endpoint: &Endpoint) -> Arc<Cells> {
        let entries = replaced.iter().filter_map(|id| self.services.get(service)?.get(id));
        let kept = entries.into_iter().find(|entry| entry.facts.endpoint == *endpoint).map(|entry| entry.cells.clone());
        kept.unwrap_or_default()
    }

    fn check_limits(&self, service: &ServiceName, replaced: usize) -> Result<(), Refused> {
        let held = self.services.get(service).map_or(0, BTreeMap::len);
        if held == 0 && self.services.len() >= self.limits.services {
            Err(Refused::Full("services"))
        } else if replaced == 0 && self.instances >= self.limits.instances {
            Err(Refused::Full("instances"))
        } else if replaced == 0 && held >= self.limits.per_service {
            Err(Refused::Full("instances of one service"))
        } else {
            Ok(())
        }
    }

    fn renew(&mut self, renewal: Renewal, now: Now) -> Result<Reply, Refused> {
        let ids = self.meant_by(&renewal);
        if ids.is_empty() {
            return Err(Refused::NotRegistered);
        }
        for id in &ids {
            self.renew_one(&renewal, id, now);
        }
        Ok(Reply::Renewed(ids.len()))
    }

    /// A named instance is meant; else the caller's own registration; else the only one; else all that came without an id.
    fn meant_by(&self, renewal: &Renewal) -> Vec<InstanceId> {
        let Some(instances) = self.services.get(&renewal.service) else { return Vec::new() };
        if let Some(id) = &renewal.id {
            return instances.contains_key(id).then(|| id.clone()).into_iter().collect();
        }
        if let Some(own) = own_registration(instances, renewal.registrant) {
            return vec![own];
        }
        let by_address = |(_, entry): &(&InstanceId, &Entry)| entry.facts.origin == Origin::RegisteredByAddress;
        match instances.len() {
            1 => instances.keys().cloned().collect(),
            _ => instances.iter().filter(by_address).map(|(id, _)| id.clone()).collect(),
        }
    }

    fn renew_one(&mut self, renewal: &Renewal, id: &InstanceId, now: Now) {
        let Some(entry) = self.services.get_mut(&renewal.service).and_then(|instances| instances.get_mut(id)) else { return };
        self.leases.end(entry.lease, &renewal.service, id);
        self.hold.release(&renewal.service, id);
        let left = entry.lease.deadline().since(now.mono);
        entry.lease = entry.lease.renewed(now.mono);
        self.leases.start(entry.lease, &renewal.service, id);
        entry.cells.lease.set(entry.lease, now.wall_ms);
        let status = renewal.status.unwrap_or(entry.facts.status);
        let new_metadata = renewal.metadata.as_ref().filter(|metadata| **metadata != entry.facts.metadata);
        if status == entry.facts.status && new_metadata.is_none() {
            let told = entry.on_its_way();
            self.tell_renewal(told, left);
            return;
        }
        let status_changed = status != entry.facts.status;
        if status.takes_traffic() && !entry.facts.status.takes_traffic() {
            entry.cells.standing.starts(now.mono);
        }
        let facts = Arc::make_mut(&mut entry.facts);
        facts.version_no = self.versions.change(facts.version_no, now);
        facts.status = status;
        if let Some(metadata) = new_metadata {
            facts.metadata = metadata.clone();
        }
        self.effects.extend(entry.stored());
        self.touch(renewal.service.clone());
        if status_changed {
            let (service, instance) = (renewal.service.clone(), id.clone());
            self.effects.push(Effect::Tell(Event::StatusChanged { service, instance, status }));
        }
    }

    fn deregister(&mut self, request: &Deregistration, now: Now) -> Result<Reply, Refused> {
        let none = BTreeMap::new();
        let instances = self.services.get(&request.service).unwrap_or(&none);
        let ids: Vec<InstanceId> = if let Some(id) = &request.id {
            instances.contains_key(id).then(|| id.clone()).into_iter().collect()
        } else if request.all || instances.len() <= 1 {
            instances.keys().cloned().collect()
        } else if let Some(own) = own_registration(instances, request.registrant) {
            vec![own]
        } else {
            return Err(Refused::Ambiguous { instances: instances.len() });
        };
        if ids.is_empty() && (request.id.is_some() || self.is_away()) {
            let id = request.id.clone().unwrap_or_else(|| InstanceId::of_registrant(request.registrant));
            self.deregister_unseen(&request.service, id, now);
        }
        if let Some(span) = request.drain {
            ids.iter().for_each(|id| self.leave(&request.service, id, span, now));
            return Ok(Reply::Deregistered(ids.len()));
        }
        for id in &ids {
            let version_no = self.versions.next(now);
            self.remove(&request.service, id, Why::Removed, |_| version_no, now.mono);
            let (service, instance) = (request.service.clone(), id.clone());
            self.effects.push(Effect::Tell(Event::Deregistered { service, instance }));
        }
        Ok(Reply::Deregistered(ids.len()))
    }

    fn restore(&mut self, facts: Facts, now: Now) -> Result<Reply, Refused> {
        let (service, instance) = (facts.service.clone(), facts.id.clone());
        let rivals = self.replaced_by(&service, &instance, &facts.endpoint);
        if rivals.contains(&instance) {
            return Ok(Reply::Done);
        }
        self.check_limits(&service, rivals.len())?;
        self.versions.saw(facts.version_no, now.mono);
        // A store that lost a removal may hold one endpoint under two ids: the later registration is the true one.
        let newest = |id: &InstanceId| self.services[&service][id].facts.version_no > facts.version_no;
        if rivals.iter().any(newest) {
            self.bury(&facts, Why::Removed, facts.version_no, None, now.mono);
            return Ok(Reply::Done);
        }
        for rival in &rivals {
            self.remove(&service, rival, Why::Removed, |rival| rival.version_no, now.mono);
        }
        let facts = Arc::new(facts);
        self.hold_name_of(&facts, now);
        // Nothing was heard of it since: the time of a restart is not a heartbeat's.
        self.insert(facts.clone(), Lease::start(facts.ttl, now.mono), Arc::default(), facts.registered_wall_ms);
        self.release_name_of(&facts);
        self.effects.push(Effect::Tell(Event::Restored { service, instance }));
        Ok(Reply::Done)
    }

    /// Puts an instance in; tells whether it has an address.
    fn insert(&mut self, facts: Arc<Facts>, lease: Lease, cells: Arc<Cells>, renewed_wall_ms: u64) -> bool {
        cells.lease.set(lease, renewed_wall_ms);
        cells.lease.set_drained_until(None);
        let addresses = self.addresses_of(&facts);
        let resolved = !addresses.is_empty();
        let (service, id) = (facts.service.clone(), facts.id.clone());
        if let Some(sharing) = &mut self.sharing {
            sharing.graves.close(&service, &id);
        }
        self.leases.start(lease, &service, &id);
        let entry = Entry { facts, lease, addresses, cells, drain: None };
        self.services.entry(service.clone()).or_default().insert(id, entry);
        self.instances += 1;
        self.touch(service);
        resolved
    }

    /// Takes an instance out and out of the store; `version_no` tells which version of it ends.
    fn remove(&mut self, service: &ServiceName, id: &InstanceId, why: Why, version_no: impl Fn(&Facts) -> u64, now: Moment) {
        if let Some(entry) = self.take_out(service, id).filter(|entry| !entry.is_leaving()) {
            self.bury(&entry.facts, why, version_no(&entry.facts), None, now);
        }
    }

    /// Its lease is over.
    fn lapse(&mut self, service: &ServiceName, id: &InstanceId, now: Moment) {
        self.remove(service, id, Why::Lapsed, |facts| facts.version_no, now);
    }

    /// Takes an instance out, here.
    fn take_out(&mut self, service: &ServiceName, id: &InstanceId) -> Option<Entry> {
        let instances = self.services.get_mut(service)?;
        let entry = instances.remove(id)?;
        if instances.is_empty() {
            self.services.remove(service);
        }
        self.instances -= 1;
        self.leases.end(entry.lease, service, id);
        self.hold.release(service, id);
        if let Some(drain) = entry.drain {
            self.drains.remove(&(drain.until, service.clone(), id.clone()));
        }
        self.release_name_of(&entry.facts);
        self.touch(service.clone());
        Some(entry)
    }

    fn known(&self, service: &ServiceName, id: &InstanceId) -> Option<&Entry> {
        self.services.get(service)?.get(id)
    }

    fn entry(&mut self, service: &ServiceName, id: &InstanceId) -> Option<&mut Entry> {
        self.services.get_mut(service)?.get_mut(id)
    }

    fn touch(&mut self, service: ServiceName) {
        self.generation += 1;
        self.changed.insert(service, self.generation);
    }

    /// Instances at an address that is refused from now on stay listed and get no traffic.
    fn set_guard(&mut self, guard: Guard) {
        self.guard = guard;
        let mut changed = BTreeSet::new();
        let registered = self.services.iter_mut().flat_map(|(name, entries)| entries.values_mut().map(move |e| (name, e)));
        for (name, entry) in registered.chain(&mut self.fallbacks) {
            let addresses = judged(&self.guard, &entry.facts, &self.names);
            if addresses != entry.addresses {
                entry.addresses = addresses;
                changed.insert(name.clone());
            }
        }
        changed.into_iter().for_each(|name| self.touch(name));
    }

    const fn set_terms(&mut self, terms: Terms) {
        self.limits = terms.limits;
        self.default_ttl = terms.ttl;
        if let Some(sharing) = &mut self.sharing {
            sharing.doubt_after(terms.stale_after);
        }
    }

    fn set_policies(&mut self, policies: Policies) {
        if policies == self.policies {
            return;
        }
        let before = std::mem::replace(&mut self.policies, policies);
        let names = self.services.keys().chain(self.fallbacks.keys());
        let changed: Vec<ServiceName> = names.filter(|name| before.of(name) != self.policies.of(name)).cloned().collect();
        changed.into_iter().for_each(|name| self.touch(name));
    }

    fn set_fallbacks(&mut self, fallbacks: BTreeMap<ServiceName, Endpoint>, now: Now) {
        let mut old = std::mem::take(&mut self.fallbacks);
        for (name, endpoint) in fallbacks {
            if old.get(&name).is_some_and(|entry| entry.facts.endpoint == endpoint) {
                self.fallbacks.extend(old.remove_entry(&name));
                continue;
            }
            let facts = Arc::new(fallback_facts(name.clone(), endpoint, now.wall_ms));
            let addresses = self.addresses_of(&facts);
            let lease = Lease::start(facts.ttl, now.mono);
            let entry = Entry { facts, lease, addresses, cells: Arc::default(), drain: None };
            self.fallbacks.insert(name.clone(), entry);
            self.touch(name);
        }
        for (name, entry) in old {
            if let Some(host) = entry.facts.endpoint.name() {
                self.release_name(host, &name);
            }
            self.touch(name);
        }
    }
}

impl Entry {
    fn is_shown_by<X: Attach>(&self, upstream: &Upstream<X>) -> bool {
        Arc::ptr_eq(&self.cells, &upstream.cells)
            && Arc::ptr_eq(&self.facts, &upstream.facts)
            && self.addresses == upstream.addresses
            && self.drain.is_some() == upstream.is_draining
            && self.is_leaving() == upstream.is_leaving
    }
}

fn lapsed(service: ServiceName, instance: InstanceId) -> Effect {
    Effect::Tell(Event::Lapsed { service, instance })
}

fn own_registration(instances: &BTreeMap<InstanceId, Entry>, registrant: std::net::IpAddr) -> Option<InstanceId> {
    let own = InstanceId::of_registrant(registrant);
    let entry = instances.get(&own)?;
    (entry.facts.origin == Origin::RegisteredByAddress).then_some(own)
}

fn facts_of(
    registration: Registration,
    id: InstanceId,
    origin: Origin,
    default_ttl: Duration,
    wall_ms: u64,
    version_no: u64,
) -> Facts {
    Facts {
        service: registration.service,
        id,
        origin,
        endpoint: registration.endpoint,
        health_endpoint: registration.health_endpoint,
        metadata: registration.metadata,
        weight: registration.weight,
        zone: registration.zone,
        version: registration.version,
        tags: registration.tags,
        status: registration.status,
        ttl: registration.ttl.unwrap_or(default_ttl),
        resolved: Vec::new(),
        registered_wall_ms: wall_ms,
        version_no,
    }
}

fn fallback_facts(service: ServiceName, endpoint: Endpoint, wall_ms: u64) -> Facts {
    let id = InstanceId::parse("fallback").unwrap_or_else(|_| InstanceId::of_registrant([0, 0, 0, 0].into()));
    Facts {
        service,
        id,
        origin: Origin::Fallback,
        endpoint,
        health_endpoint: "/health".into(),
        metadata: BTreeMap::new(),
        weight: crate::bounds::WEIGHT_DEFAULT,
        zone: None,
        version: None,
        tags: Vec::new(),
        status: Status::Healthy,
        ttl: Duration::MAX,
        resolved: Vec::new(),
        registered_wall_ms: wall_ms,
        version_no: 0,
    }
}

#[cfg(test)]
mod tests;
