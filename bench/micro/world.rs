//! Registries with many services, for the benches.

use std::sync::Arc;
use std::time::Duration;
use vertice_core::command::{Command, Limits, Registration};
use vertice_core::endpoint::Endpoint;
use vertice_core::name::{InstanceId, ServiceName};
use vertice_core::registry::Registry;
use vertice_core::seed;
use vertice_core::status::Status;
use vertice_core::table::Snapshot;
use vertice_gateway::noticeboard::NoticeBoard;
use vertice_gateway::registrar::outbox::Outbox;
use vertice_gateway::registrar::{Handle, Registrar};
use vertice_gateway::resolve::{Resolver, Settings};
use vertice_gateway::telemetry::metrics::Metrics;
use vertice_gateway::upstream::{Hung, NamingKey, Table};

/// As `limits.registry_queue`.
const QUEUE: usize = 65_536;

/// An empty registry with room for everything here; its leases outlive every bench.
pub(crate) fn registry() -> Registry {
    Registry::new(Limits { services: 20_000, instances: 200_000, per_service: 10_000 }, Duration::from_secs(3600))
}

/// The gateway's registrar, with so many services of so many instances registered and published.
pub(crate) fn registrar(
    services: usize,
    instances: usize,
    outbox: &Arc<Outbox>,
    metrics: &Arc<Metrics>,
) -> (Registrar, Arc<Table>, Handle) {
    let table = Arc::new(Table::from_pointee(Snapshot::empty(42)));
    let hung = Hung { metrics: metrics.clone(), naming: NamingKey::new(None) };
    let (refresh, timeout) = (Duration::from_secs(5), Duration::from_secs(2));
    let resolver = Resolver::new(Settings { servers: Vec::new(), refresh, timeout, concurrency: 1 }, metrics.clone());
    let board = Arc::new(NoticeBoard::new(table.clone(), QUEUE, QUEUE, metrics.clone()));
    let (mut registrar, handle) = Registrar::new(registry(), table.clone(), hung, board, outbox.clone(), resolver, QUEUE);
    registrar.restore((0..services * instances).map(|at| register(at / instances, at % instances)));
    (registrar, table, handle)
}

/// Metrics of their own, since a registry takes each name once.
pub(crate) fn metrics() -> Arc<Metrics> {
    Arc::new(Metrics::new().expect("every name is there once"))
}

/// The command with which an instance of a service registers, as from a sidecar.
pub(crate) fn register(service_no: usize, instance_no: usize) -> Command {
    let [_, _, high, low] = u32::try_from(service_no).unwrap_or(0).to_be_bytes();
    let endpoint = format!("http://10.{high}.{low}.{}:8080", 1 + instance_no % 250);
    Command::Register(Box::new(Registration {
        service: service(service_no),
        id: Some(instance(instance_no)),
        registrant: std::net::Ipv4Addr::LOCALHOST.into(),
        endpoint: Endpoint::parse(&endpoint).expect("an address and a port"),
        resolved: None,
        health_endpoint: "/health".into(),
        metadata: [("version", "1.4.2"), ("team", "recon")].map(|(key, value)| (key.to_owned(), value.to_owned())).into(),
        ttl: None,
        weight: 100,
        zone: None,
        version: Some("1.4.2".into()),
        tags: Vec::new(),
        status: Status::Healthy,
    }))
}

/// The name of a service.
pub(crate) fn service(service_no: usize) -> ServiceName {
    ServiceName::parse(&format!("scanner_{service_no:05}_service")).expect("a good name")
}

/// The id of an instance.
pub(crate) fn instance(instance_no: usize) -> InstanceId {
    InstanceId::parse(&format!("replica-{instance_no}")).expect("a good id")
}

/// The names of the services in random order, the same each time.
pub(crate) fn shuffled_names(services: usize) -> Vec<String> {
    let mut names: Vec<_> = (0..services).map(|at| service(at).as_str().to_owned()).collect();
    names.sort_by_cached_key(|name| seed::mix(name.bytes().fold(0, |sum, byte| seed::mix(sum ^ u64::from(byte)))));
    names
}
