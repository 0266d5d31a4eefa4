//! The registry, driven as the shell drives it: commands in, effects out, snapshots published.

use super::*;
use crate::command::{Draining, Limits, Probe};
use crate::outcome::Verdict;
use crate::policy::Policy;
use crate::table::Snapshot;
use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering};

mod away;
mod drain;
mod effects;
mod hold;
mod identity;
mod leases;
mod model;
mod sharing;
mod stall;
mod table;

const TTL: Duration = Duration::from_secs(60);
const ROOMY: Limits = Limits { services: 100, instances: 1000, per_service: 100 };

fn name(text: &str) -> ServiceName {
    ServiceName::parse(text).unwrap()
}

fn id(text: &str) -> InstanceId {
    InstanceId::parse(text).unwrap()
}

fn endpoint(text: &str) -> Endpoint {
    Endpoint::parse(text).unwrap()
}

fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn at(ms: u64) -> Now {
    Now { mono: Moment::from_millis(ms), wall_ms: 1_700_000_000_000 + ms }
}

/// A registration of service `svc` by `registrant`; ids and the rest are set with struct update syntax.
fn registration(registrant: &str, endpoint_url: &str) -> Registration {
    Registration {
        service: name("svc"),
        id: None,
        registrant: address(registrant),
        endpoint: endpoint(endpoint_url),
        resolved: None,
        health_endpoint: "/health".into(),
        metadata: BTreeMap::new(),
        ttl: None,
        weight: 100,
        zone: None,
        version: None,
        tags: Vec::new(),
        status: Status::Healthy,
    }
}

fn with_id(instance: &str, endpoint_url: &str) -> Registration {
    Registration { id: Some(id(instance)), ..registration("10.9.0.1", endpoint_url) }
}

fn heartbeat(instance: Option<&str>, registrant: &str) -> Renewal {
    Renewal { service: name("svc"), id: instance.map(id), registrant: address(registrant), status: None, metadata: None }
}

fn farewell(instance: Option<&str>, registrant: &str) -> Deregistration {
    Deregistration { service: name("svc"), id: instance.map(id), all: false, registrant: address(registrant), drain: None }
}

/// Numbers what it makes, so that a test sees what was made anew.
#[derive(Debug, Default)]
struct Numbered(AtomicUsize);

impl Attach for Numbered {
    type Service = usize;
    type Instance = usize;

    fn service(&self, _: &ServiceName, _: &[Arc<Upstream<Self>>], old: Option<&usize>) -> usize {
        old.map_or(0, |old| old + 1)
    }

    fn instance(&self, _: &Facts, _: &[SocketAddr], _: &Policy) -> usize {
        self.0.fetch_add(1, Ordering::Relaxed)
    }
}

/// A registry with its published table, at a moment that only the test moves.
struct Rig {
    registry: Registry,
    snapshot: Snapshot<Numbered>,
    attach: Numbered,
    now: Now,
    ticked: Moment,
}

impl Rig {
    fn new() -> Self {
        Self::with_limits(ROOMY)
    }

    fn with_limits(limits: Limits) -> Self {
        let registry = Registry::new(limits, TTL);
        Self { registry, snapshot: Snapshot::empty(7), attach: Numbered::default(), now: at(0), ticked: Moment::ZERO }
    }

    /// Carries out a command now; the leases that ended before are looked at before.
    fn apply(&mut self, command: Command) -> Result<Reply, Refused> {
        self.tick();
        let reply = self.registry.apply(command, self.now);
        self.publish();
        reply
    }

    fn register(&mut self, registration: Registration) -> Result<Reply, Refused> {
        self.apply(Command::Register(Box::new(registration)))
    }

    fn renew(&mut self, renewal: Renewal) -> Result<Reply, Refused> {
        self.apply(Command::Renew(renewal))
    }

    fn deregister(&mut self, deregistration: Deregistration) -> Result<Reply, Refused> {
        self.apply(Command::Deregister(deregistration))
    }

    fn resolve(&mut self, host: &str, addresses: &[&str]) {
        let addresses = addresses.iter().map(|text| address(text)).collect();
        self.apply(Command::Resolved { host: host.into(), addresses }).unwrap();
    }

    fn fallbacks(&mut self, entries: &[(&str, &str)]) {
        let entries = entries.iter().map(|(service, url)| (name(service), endpoint(url))).collect();
        self.apply(Command::SetFallbacks(entries)).unwrap();
    }

    /// Moves the clock and lets leases lapse; tells how many did.
    fn pass_to(&mut self, ms: u64) -> usize {
        self.now = at(ms);
        let lapsed = self.tick() + self.registry.expire(self.now.mono);
        self.publish();
        lapsed
    }

    /// Calls the registry as often as it is promised, up to now; tells how many leases lapsed.
    fn tick(&mut self) -> usize {
        let mut lapsed = 0;
        while self.ticked.plus(TICK) < self.now.mono {
            self.ticked = self.ticked.plus(TICK);
            lapsed += self.registry.expire(self.ticked);
        }
        self.publish();
        lapsed
    }

    fn publish(&mut self) {
        let changed = self.registry.take_changed();
        let built = |(name, at): (ServiceName, u64)| {
            let old = self.snapshot.get(name.as_str());
            let service = self.registry.build(&name, at, old, &self.attach).map(Arc::new);
            (name, service)
        };
        let changes = changed.into_iter().map(built).collect();
        self.snapshot = self.snapshot.with(self.registry.generation(), changes);
    }

    fn service(&self, service: &str) -> Option<&Arc<Service<Numbered>>> {
        self.snapshot.get(service)
    }

    fn upstream(&self, instance: &str) -> Arc<Upstream<Numbered>> {
        let instances = &self.service("svc").expect("svc is published").instances;
        instances.iter().find(|upstream| upstream.facts.id.as_str() == instance).expect("the instance is published").clone()
    }

    /// `id@endpoint` of every published instance of `svc`, in order.
    fn listed(&self) -> Vec<String> {
        let instances = self.service("svc").map_or(&[][..], |service| &service.instances);
        instances.iter().map(|upstream| format!("{}@{}", upstream.facts.id, upstream.facts.endpoint)).collect()
    }

    fn usable(&self) -> Vec<String> {
        let usable = self.service("svc").map_or(&[][..], |service| &service.usable);
        usable.iter().map(|upstream| upstream.facts.id.to_string()).collect()
    }

    fn addresses(&self, instance: &str) -> Vec<String> {
        self.upstream(instance).addresses.iter().map(SocketAddr::to_string).collect()
    }

    /// What the shell was told to do since the last call, in short.
    fn told(&mut self) -> Vec<String> {
        self.registry.drain().iter().map(in_short).collect()
    }
}

fn in_short(effect: &Effect) -> String {
    match effect {
        Effect::Persist(stored) => format!("persist {}", stored.facts.id),
        Effect::Forget(gone) => format!("forget {}", gone.id),
        Effect::Renewal { stored, is_urgent: false } => format!("renewed {}", stored.facts.id),
        Effect::Renewal { stored, is_urgent: true } => format!("renewed {} at last", stored.facts.id),
        Effect::Fetch { id, .. } => format!("fetch {id}"),
        Effect::Tell(Event::Learned { instance, replaced: false, .. }) => format!("learned {instance}"),
        Effect::Tell(Event::Learned { instance, replaced: true, .. }) => format!("learned anew {instance}"),
        Effect::Tell(Event::Departed { instance, .. }) => format!("departed {instance}"),
        Effect::WantName(host) => format!("want {host}"),
        Effect::DropName(host) => format!("drop {host}"),
        Effect::Tell(Event::Registered { instance, replaced: false, .. }) => format!("registered {instance}"),
        Effect::Tell(Event::Registered { instance, replaced: true, .. }) => format!("replaced {instance}"),
        Effect::Tell(Event::Deregistered { instance, .. }) => format!("deregistered {instance}"),
        Effect::Tell(Event::DrainStarted { instance, leaves: false, .. }) => format!("drain {instance}"),
        Effect::Tell(Event::DrainStarted { instance, leaves: true, .. }) => format!("{instance} leaves"),
        Effect::Tell(Event::DrainEnded { instance, .. }) => format!("drained {instance}"),
        Effect::Tell(Event::Lapsed { instance, .. }) => format!("lapsed {instance}"),
        Effect::Tell(Event::Restored { instance, .. }) => format!("restored {instance}"),
        Effect::Probe(Probe { no, instance, .. }) => format!("probe {no} {instance}"),
        Effect::Tell(Event::HoldStarted { instances, silent }) => format!("hold: {silent} of {instances}"),
        Effect::Tell(Event::HoldEnded { on_grace, .. }) => format!("hold ended: {on_grace} on grace"),
        Effect::Tell(Event::Evicted { instance, failures, .. }) => format!("evicted {instance} after {failures}"),
        Effect::Tell(Event::Stalled { stall, leases }) => format!("stalled {stall:?}: {leases}"),
        Effect::Tell(Event::StatusChanged { instance, status, .. }) => format!("{instance} is {status}"),
    }
}
