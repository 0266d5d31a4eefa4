//! A service as its callers see it.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use vertice_api::{Instance, ServiceInfo};
use vertice_core::name::ServiceName;
use vertice_core::status::Status;
use vertice_core::table::Wheel;

use crate::authority;

/// What is known of a service at one moment. Cheap to clone; does not change by itself.
#[derive(Clone, Debug)]
pub struct Service {
    known: Arc<Known>,
    age: Duration,
    is_stale: bool,
}

impl Service {
    pub(crate) fn new(known: Arc<Known>, age: Duration, stale_after: Duration) -> Self {
        Self { known, age, is_stale: age > stale_after }
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &ServiceName {
        &self.known.name
    }

    /// All its instances, whatever their status.
    #[must_use]
    pub fn instances(&self) -> &[Instance] {
        &self.known.instances
    }

    /// Those that may be sent requests.
    pub fn usable(&self) -> impl Iterator<Item = &Instance> {
        self.known.usable.iter().filter_map(|&index| self.known.instances.get(index))
    }

    /// The next usable instance: they take turns, each as often as its weight says. All snapshots of a service share the
    /// turns. `None` when no instance takes traffic.
    #[must_use]
    pub fn pick(&self) -> Option<&Instance> {
        let index = *self.known.usable.get(self.known.wheel.advance())?;
        self.known.instances.get(index)
    }

    /// How long ago this was last known to be true: 0 to 15 s while the registry is watched.
    #[must_use]
    pub const fn age(&self) -> Duration {
        self.age
    }

    /// Whether the registry has not been heard of for so long that this may have changed.
    #[must_use]
    pub const fn is_stale(&self) -> bool {
        self.is_stale
    }

    /// Whether this is not from a registry but from the program's own configuration.
    #[must_use]
    pub fn is_fallback(&self) -> bool {
        self.known.is_fallback
    }

    /// Grows with every change that [`crate::discovery::Subscription`] would report.
    #[must_use]
    pub fn revision(&self) -> u64 {
        self.known.revision
    }
}

/// The part of [`Service`] that is shared by all who ask between two changes.
#[derive(Debug)]
pub(crate) struct Known {
    name: ServiceName,
    instances: Box<[Instance]>,
    /// Indices of the instances that take traffic.
    usable: Box<[usize]>,
    wheel: Wheel,
    pub(crate) revision: u64,
    is_fallback: bool,
}

impl Known {
    /// What a registry says.
    pub(crate) fn of_registry(info: ServiceInfo, name: ServiceName, revision: u64, turn: Arc<AtomicU64>) -> Self {
        Self::new(name, instances(info), revision, turn, false)
    }

    /// What the program itself says.
    pub(crate) fn of_fallback(endpoint: &str, name: ServiceName, turn: Arc<AtomicU64>) -> Self {
        Self::new(name, vec![lone_instance(endpoint.to_owned())], 0, turn, true)
    }

    fn new(name: ServiceName, instances: Vec<Instance>, revision: u64, turn: Arc<AtomicU64>, is_fallback: bool) -> Self {
        let takes_traffic =
            |instance: &Instance| instance.weight > 0 && Status::parse(&instance.status).is_some_and(Status::takes_traffic);
        let usable: Box<[usize]> = (0..instances.len()).filter(|&index| takes_traffic(&instances[index])).collect();
        let wheel = Wheel::new(usable.iter().map(|&index| instances[index].weight), turn);
        Self { name, instances: instances.into(), usable, wheel, revision, is_fallback }
    }

    /// Whether the registry says anything new. Heartbeats and what follows from them are not news.
    pub(crate) fn says_the_same_as(&self, info: &ServiceInfo) -> bool {
        let lasting = |i: &Instance| Instance {
            registered_at: 0.0,
            last_heartbeat: 0.0,
            ttl_remaining: 0,
            breaker: String::new(),
            ..i.clone()
        };
        let told = instances(info.clone());
        self.instances.len() == told.len() && self.instances.iter().zip(&told).all(|(a, b)| lasting(a) == lasting(b))
    }
}

/// The predecessor names only one instance, in the flat fields.
fn instances(info: ServiceInfo) -> Vec<Instance> {
    if info.instances.is_empty() {
        let flat = lone_instance(info.endpoint);
        return vec![Instance {
            health_endpoint: info.health_endpoint,
            metadata: info.metadata,
            registered_at: info.registered_at,
            last_heartbeat: info.last_heartbeat,
            ttl_remaining: info.ttl_remaining,
            ..flat
        }];
    }
    let mut instances = info.instances;
    instances.sort_by(|a, b| a.instance_id.cmp(&b.instance_id));
    instances
}

fn lone_instance(endpoint: String) -> Instance {
    Instance {
        instance_id: authority::of(&endpoint),
        endpoint,
        health_endpoint: vertice_api::register::DEFAULT_HEALTH_ENDPOINT.to_owned(),
        metadata: std::collections::BTreeMap::new(),
        weight: USUAL_WEIGHT,
        zone: None,
        version: None,
        status: Status::Healthy.as_str().to_owned(),
        breaker: "closed".to_owned(),
        registered_at: 0.0,
        last_heartbeat: 0.0,
        ttl_remaining: 0,
    }
}

/// What the registry gives an instance that asks for no weight.
const USUAL_WEIGHT: u16 = 100;
