//! Random command sequences against a registry so plain that it can be read against the specification.

use super::*;
use proptest::prelude::*;
use std::ops::RangeInclusive;

const SERVICES: [&str; 3] = ["aaa", "bbb", "ccc"];
/// The last two look like registrants, to see the two kinds of identity meet.
const IDS: [&str; 5] = ["i0", "i1", "i2", "10.9.0.0", "10.9.0.1"];
const ENDPOINTS: [&str; 6] =
    ["http://10.0.0.1:80", "http://10.0.0.2:80", "http://10.0.0.3:80", "http://db-a:80", "http://db-a:81", "http://db-b:80"];
const HOSTS: [&str; 2] = ["db-a", "db-b"];
const LIMITS: Limits = Limits { services: 2, instances: 5, per_service: 3 };

#[derive(Clone, Debug)]
enum Step {
    Register { service: usize, id: Option<usize>, registrant: u8, endpoint: usize, ttl_s: Option<u64>, status: usize },
    Renew { service: usize, id: Option<usize>, registrant: u8, status: Option<usize>, metadata: Option<u8> },
    Deregister { service: usize, id: Option<usize>, registrant: u8, all: bool, drain_ms: Option<u64> },
    Drain { service: usize, id: Option<usize>, span_ms: Option<u64> },
    Resolve { host: usize, last_octet: u8 },
    Wait { ms: u64 },
    Restart,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let ids = || proptest::option::of(0..IDS.len());
    let who = || (0..SERVICES.len(), ids(), 0u8..3);
    let register = (who(), 0..ENDPOINTS.len(), proptest::option::of(1u64..5), 0usize..5).prop_map(
        |((service, id, registrant), endpoint, ttl_s, status)| Step::Register {
            service,
            id,
            registrant,
            endpoint,
            ttl_s,
            status,
        },
    );
    let renew = (who(), proptest::option::of(0usize..5), proptest::option::of(0u8..3))
        .prop_map(|((service, id, registrant), status, metadata)| Step::Renew { service, id, registrant, status, metadata });
    let deregister = (who(), prop::bool::weighted(0.2), proptest::option::of(1u64..3000))
        .prop_map(|((service, id, registrant), all, drain_ms)| Step::Deregister { service, id, registrant, all, drain_ms });
    let drain = (0..SERVICES.len(), ids(), proptest::option::weighted(0.7, 1u64..3000))
        .prop_map(|(service, id, span_ms)| Step::Drain { service, id, span_ms });
    let step = prop_oneof![
        5 => register,
        4 => renew,
        2 => deregister,
        1 => drain,
        1 => (0..HOSTS.len(), 1u8..4).prop_map(|(host, last_octet)| Step::Resolve { host, last_octet }),
        3 => (0u64..2500).prop_map(|ms| Step::Wait { ms }),
        1 => Just(Step::Restart),
    ];
    proptest::collection::vec(step, 1..60)
}

/// An instance as the specification speaks of it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Alive {
    service: &'static str,
    id: String,
    by_address: bool,
    endpoint: String,
    status: Status,
    metadata: BTreeMap<String, String>,
    ttl_ms: u64,
    deadline_ms: u64,
    drain: Option<Until>,
}

/// A time without new requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Until {
    ms: u64,
    leaves: bool,
}

/// The specification, naively: a list.
#[derive(Default)]
struct Model {
    alive: Vec<Alive>,
}

impl Model {
    fn of(&self, service: &str) -> Vec<usize> {
        (0..self.alive.len()).filter(|&n| self.alive[n].service == service).collect()
    }

    fn services(&self) -> usize {
        self.alive.iter().map(|alive| alive.service).collect::<BTreeSet<_>>().len()
    }

    fn register(&mut self, new: Alive) -> Result<Reply, Refused> {
        let same = |old: &Alive| old.service == new.service && (old.id == new.id || old.endpoint == new.endpoint);
        if !self.alive.iter().any(same) {
            let held = self.of(new.service).len();
            if held == 0 && self.services() == LIMITS.services {
                return Err(Refused::Full("services"));
            }
            if self.alive.len() == LIMITS.instances {
                return Err(Refused::Full("instances"));
            }
            if held == LIMITS.per_service {
                return Err(Refused::Full("instances of one service"));
            }
        }
        self.alive.retain(|old| !same(old));
        self.alive.push(new);
        Ok(Reply::Done)
    }

    /// Whom a request means: the named one; else the caller's own; `None` when neither was asked for or exists.
    fn named_or_own(&self, service: &str, id: Option<&str>, registrant: &str) -> Option<Vec<usize>> {
        let mut those = self.of(service);
        if let Some(id) = id {
            those.retain(|&n| self.alive[n].id == id);
            return Some(those);
        }
        those.retain(|&n| self.alive[n].by_address && self.alive[n].id == registrant);
        (!those.is_empty()).then_some(those)
    }

    fn renewed(&self, service: &str, id: Option<&str>, registrant: &str) -> Vec<usize> {
        self.named_or_own(service, id, registrant).unwrap_or_else(|| {
            let mut those = self.of(service);
            if those.len() > 1 {
                those.retain(|&n| self.alive[n].by_address);
            }
            those
        })
    }

    fn deregister(
        &mut self,
        service: &str,
        id: Option<&str>,
        registrant: &str,
        all: bool,
        drain_until_ms: Option<u64>,
    ) -> Result<Reply, Refused> {
        let everybody = self.of(service);
        let those = match self.named_or_own(service, id, registrant) {
            _ if all && id.is_none() => everybody,
            Some(those) => those,
            None if everybody.len() > 1 => return Err(Refused::Ambiguous { instances: everybody.len() }),
            None => everybody,
        };
        let gone = those.len();
        for n in those.into_iter().rev() {
            match drain_until_ms {
                Some(ms) => self.alive[n].drain = Some(Until { ms, leaves: true }),
                None => drop(self.alive.remove(n)),
            }
        }
        Ok(Reply::Deregistered(gone))
    }

    fn drain(&mut self, service: &str, id: Option<&str>, until_ms: Option<u64>) -> Result<Reply, Refused> {
        let mut those = self.of(service);
        those.retain(|&n| id.is_none_or(|id| self.alive[n].id == id));
        if those.is_empty() {
            return Err(Refused::NotRegistered);
        }
        for &n in &those {
            let drain = &mut self.alive[n].drain;
            let leaves = drain.is_some_and(|drain| drain.leaves);
            match until_ms {
                Some(ms) => *drain = Some(Until { ms, leaves }),
                None => *drain = drain.filter(|drain| drain.leaves),
            }
        }
        let mut ids: Vec<InstanceId> = those.iter().map(|&n| self::id(&self.alive[n].id)).collect();
        ids.sort();
        Ok(Reply::Draining(ids))
    }

    /// Time passes; tells how many leases lapse. Of those that leave and whose lease ends as well, either may come first.
    fn pass_to(&mut self, now_ms: u64) -> RangeInclusive<usize> {
        let is_either =
            |alive: &&Alive| alive.deadline_ms <= now_ms && alive.drain.is_some_and(|drain| drain.leaves && drain.ms <= now_ms);
        let either = self.alive.iter().filter(is_either).count();
        self.alive.retain(|alive| alive.drain.is_none_or(|drain| !drain.leaves || drain.ms > now_ms));
        for alive in &mut self.alive {
            alive.drain = alive.drain.filter(|drain| drain.ms > now_ms);
        }
        let before = self.alive.len();
        self.alive.retain(|alive| alive.deadline_ms > now_ms);
        let lapsed = before - self.alive.len();
        lapsed..=lapsed + either
    }
}

/// The registry, its store and its resolver's list of names beside the model.
struct Pair {
    rig: Rig,
    model: Model,
    store: BTreeMap<(ServiceName, InstanceId), Arc<Facts>>,
    wanted: BTreeSet<String>,
    now_ms: u64,
}

impl Pair {
    fn new() -> Self {
        let rig = Rig::with_limits(LIMITS);
        Self { rig, model: Model::default(), store: BTreeMap::new(), wanted: BTreeSet::new(), now_ms: 0 }
    }

    fn step(&mut self, step: &Step) -> Result<(), TestCaseError> {
        let generation = self.rig.registry.generation();
        let before = self.shown();
        match *step {
            Step::Register { service, id, registrant, endpoint, ttl_s, status } => {
                self.register(
                    SERVICES[service],
                    id.map(|n| IDS[n]),
                    registrant,
                    ENDPOINTS[endpoint],
                    ttl_s,
                    Status::ALL[status],
                )?;
            }
            Step::Renew { service, id, registrant, status, metadata } => {
                let metadata = metadata.map(|n| (0..n).map(|n| (n.to_string(), "x".to_owned())).collect());
                self.renew(SERVICES[service], id.map(|n| IDS[n]), registrant, status.map(|n| Status::ALL[n]), metadata)?;
            }
            Step::Deregister { service, id, registrant, all, drain_ms } => {
                let (service, instance, registrant) = (SERVICES[service], id.map(|n| IDS[n]), format!("10.9.0.{registrant}"));
                let drain = drain_ms.map(Duration::from_millis);
                let request = Deregistration { service: name(service), all, drain, ..farewell(instance, &registrant) };
                let reply = self.rig.deregister(request);
                let until_ms = drain_ms.map(|ms| self.now_ms + ms);
                prop_assert_eq!(reply, self.model.deregister(service, instance, &registrant, all, until_ms));
            }
            Step::Drain { service, id, span_ms } => {
                let (service, instance) = (SERVICES[service], id.map(|n| IDS[n]));
                let span = span_ms.map(Duration::from_millis);
                let reply =
                    self.rig.apply(Command::Drain(Draining { service: name(service), id: instance.map(self::id), span }));
                prop_assert_eq!(reply, self.model.drain(service, instance, span_ms.map(|ms| self.now_ms + ms)));
            }
            Step::Resolve { host, last_octet } => self.rig.resolve(HOSTS[host], &[&format!("10.1.0.{last_octet}")]),
            Step::Wait { ms } => {
                self.now_ms += ms;
                let (lapsed, expected) = (self.rig.pass_to(self.now_ms), self.model.pass_to(self.now_ms));
                prop_assert!(expected.contains(&lapsed), "{lapsed} lapsed, not {expected:?}");
            }
            Step::Restart => return self.restart(),
        }
        self.take_effects();
        prop_assert!(self.rig.registry.generation() >= generation);
        if self.shown() != before {
            prop_assert!(self.rig.registry.generation() > generation, "a visible change without a new generation");
        }
        Ok(())
    }

    fn register(
        &mut self,
        service: &'static str,
        instance: Option<&str>,
        registrant: u8,
        url: &str,
        ttl_s: Option<u64>,
        status: Status,
    ) -> Result<(), TestCaseError> {
        let registrant = format!("10.9.0.{registrant}");
        let ttl = ttl_s.map(Duration::from_secs);
        let expected_id = instance.unwrap_or(&registrant).to_owned();
        let ttl_ms = ttl_s.unwrap_or(TTL.as_secs()) * 1000;
        let expected = self.model.register(Alive {
            service,
            id: expected_id.clone(),
            by_address: instance.is_none(),
            endpoint: endpoint(url).to_string(),
            status,
            metadata: BTreeMap::new(),
            ttl_ms,
            deadline_ms: self.now_ms + ttl_ms,
            drain: None,
        });
        let request =
            Registration { service: name(service), id: instance.map(id), ttl, status, ..registration(&registrant, url) };
        match self.rig.register(request) {
            Ok(Reply::Registered { id, ttl, .. }) => {
                prop_assert!(expected.is_ok());
                prop_assert_eq!((id.as_str(), ttl), (&*expected_id, Duration::from_millis(ttl_ms)));
            }
            reply => prop_assert_eq!(reply, expected),
        }
        Ok(())
    }

    fn renew(
        &mut self,
        service: &str,
        instance: Option<&str>,
        registrant: u8,
        status: Option<Status>,
        metadata: Option<BTreeMap<String, String>>,
    ) -> Result<(), TestCaseError> {
        let registrant = format!("10.9.0.{registrant}");
        let those = self.model.renewed(service, instance, &registrant);
        for &n in &those {
            let alive = &mut self.model.alive[n];
            alive.deadline_ms = self.now_ms + alive.ttl_ms;
            alive.status = status.unwrap_or(alive.status);
            alive.metadata = metadata.clone().unwrap_or(std::mem::take(&mut alive.metadata));
        }
        let request = Renewal { service: name(service), status, metadata, ..heartbeat(instance, &registrant) };
        let expected = if those.is_empty() { Err(Refused::NotRegistered) } else { Ok(Reply::Renewed(those.len())) };
        prop_assert_eq!(self.rig.renew(request), expected);
        Ok(())
    }

    /// The process dies; a new one restores what the store holds, each lease with one fresh ttl.
    fn restart(&mut self) -> Result<(), TestCaseError> {
        let now = self.rig.now;
        self.rig = Rig { now, ..Rig::with_limits(LIMITS) };
        self.wanted.clear();
        for facts in self.store.values() {
            prop_assert_eq!(self.rig.apply(Command::Restore(Box::new((**facts).clone()))), Ok(Reply::Done));
        }
        self.model.alive.retain(|alive| alive.drain.is_none_or(|drain| !drain.leaves));
        for alive in &mut self.model.alive {
            alive.deadline_ms = self.now_ms + alive.ttl_ms;
            alive.drain = None;
        }
        self.take_effects();
        Ok(())
    }

    fn take_effects(&mut self) {
        for effect in self.rig.registry.drain() {
            match effect {
                Effect::Persist(Stored { facts, .. }) => {
                    self.store.insert((facts.service.clone(), facts.id.clone()), facts);
                }
                Effect::Forget(gone) => {
                    assert!(self.store.remove(&(gone.service, gone.id)).is_some(), "forgot a stranger");
                }
                Effect::Renewal { .. } | Effect::Fetch { .. } => panic!("there are no other replicas"),
                Effect::WantName(host) => assert!(self.wanted.insert(host.to_string()), "{host} wanted twice"),
                Effect::DropName(host) => assert!(self.wanted.remove(&*host), "{host} dropped twice"),
                Effect::Tell(_) | Effect::Probe(_) => {}
            }
        }
    }

    /// What the published table shows apart from the time left, which has no generation.
    fn shown(&self) -> Vec<Alive> {
        self.listing().into_iter().map(|alive| Alive { deadline_ms: 0, ..alive }).collect()
    }

    /// What the published table shows, in the model's words.
    fn listing(&self) -> Vec<Alive> {
        let mut listing: Vec<Alive> = Vec::new();
        for service in SERVICES {
            for upstream in self.rig.service(service).iter().flat_map(|service| service.instances.iter()) {
                let facts = &upstream.facts;
                listing.push(Alive {
                    service,
                    id: facts.id.to_string(),
                    by_address: facts.origin == Origin::RegisteredByAddress,
                    endpoint: facts.endpoint.to_string(),
                    status: upstream.status(),
                    metadata: facts.metadata.clone(),
                    ttl_ms: u64::try_from(facts.ttl.as_millis()).unwrap(),
                    deadline_ms: upstream.cells.lease.deadline().millis(),
                    drain: None,
                });
            }
        }
        listing.sort();
        listing
    }

    fn check(&self) -> Result<(), TestCaseError> {
        let shown = |alive: &Alive| match alive.drain {
            Some(_) => Alive { status: Status::Draining, drain: None, ..alive.clone() },
            None => alive.clone(),
        };
        let mut expected: Vec<Alive> = self.model.alive.iter().map(shown).collect();
        expected.sort();
        prop_assert_eq!(self.listing(), expected);
        let registry = &self.rig.registry;
        prop_assert_eq!(registry.instance_count(), self.model.alive.len());
        prop_assert_eq!(registry.service_count(), self.model.services());
        prop_assert_eq!(self.rig.snapshot.len(), self.model.services());
        let due = |alive: &Alive| alive.drain.map_or(alive.deadline_ms, |drain| drain.ms.min(alive.deadline_ms));
        let first = self.model.alive.iter().map(due).min().map(Moment::from_millis);
        prop_assert_eq!(registry.next_deadline(), first);
        prop_assert_eq!(registry.leases.len(), self.model.alive.len());
        let stored: Vec<_> = self.store.values().collect();
        let leaving = |facts: &Facts| {
            let is_it = |alive: &&Alive| alive.service == facts.service.as_str() && alive.id == facts.id.as_str();
            self.model.alive.iter().find(is_it).and_then(|alive| alive.drain).is_some_and(|drain| drain.leaves)
        };
        prop_assert_eq!(stored, registry.facts().filter(|facts| !leaving(facts)).collect::<Vec<_>>());
        let used: BTreeSet<String> =
            registry.facts().filter_map(|facts| facts.endpoint.name().map(ToString::to_string)).collect();
        prop_assert_eq!(&self.wanted, &used);
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn the_registry_does_what_a_plain_list_does(steps in steps()) {
        let mut pair = Pair::new();
        for step in &steps {
            pair.step(step)?;
            pair.check()?;
        }
    }
}
