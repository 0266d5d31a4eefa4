//! What is replaced is freed by the registrar, whoever reads it last.

use super::*;
use std::sync::Weak;
use std::time::Duration;
use vertice_core::command::{Limits, Registration};
use vertice_core::endpoint::Endpoint;
use vertice_core::name::{InstanceId, ServiceName};
use vertice_core::status::Status;
use vertice_core::table::Snapshot;

fn registrar() -> (Registrar, Arc<Table>) {
    let metrics = Arc::new(Metrics::new().unwrap());
    let table = Arc::new(Table::from_pointee(Snapshot::empty(42)));
    let hung = Hung { metrics: metrics.clone(), naming: crate::upstream::NamingKey::new(None) };
    let (refresh, timeout) = (Duration::from_secs(5), Duration::from_secs(2));
    let names = crate::resolve::Settings { servers: Vec::new(), refresh, timeout, concurrency: 1 };
    let board = Arc::new(NoticeBoard::new(table.clone(), 16, 16, metrics.clone()));
    let registry = Registry::new(Limits { services: 100, instances: 1000, per_service: 1000 }, Duration::from_secs(3600));
    let (registrar, _) =
        Registrar::new(registry, table.clone(), hung, board, Arc::default(), Resolver::new(names, metrics), 16);
    (registrar, table)
}

fn register(n: usize) -> Command {
    Command::Register(Box::new(Registration {
        service: ServiceName::parse("svc").unwrap(),
        id: Some(InstanceId::parse(&format!("i-{n}")).unwrap()),
        registrant: std::net::Ipv4Addr::LOCALHOST.into(),
        endpoint: Endpoint::parse(&format!("http://10.0.0.1:{}", 8000 + n)).unwrap(),
        resolved: None,
        health_endpoint: "/health".into(),
        metadata: std::collections::BTreeMap::new(),
        ttl: None,
        weight: 100,
        zone: None,
        version: None,
        tags: Vec::new(),
        status: Status::Healthy,
    }))
}

fn is_freed<T>(weak: &Weak<T>) -> bool {
    weak.strong_count() == 0
}

#[test]
fn a_table_that_was_replaced_is_freed_by_the_registrar_and_never_by_its_reader() {
    let (mut registrar, table) = registrar();
    registrar.restore(std::iter::once(register(0)));
    // As a request does it while it is admitted, and as a look-up does it.
    let (guard, reader) = (table.load(), table.load_full());
    let retired = Arc::downgrade(&reader);
    registrar.restore(std::iter::once(register(1)));
    drop(guard);
    drop(reader);
    assert!(!is_freed(&retired), "the reader freed it");
    registrar.restore(std::iter::empty());
    assert!(is_freed(&retired), "nobody reads it, and it is still there");
    // Without a reader it goes with the publish.
    let unread = Arc::downgrade(&table.load_full());
    registrar.restore(std::iter::once(register(2)));
    assert!(is_freed(&unread));
}

#[test]
fn a_large_service_that_was_replaced_is_not_freed_by_the_request_that_had_it() {
    let (mut registrar, table) = registrar();
    registrar.restore((0..100).map(register));
    let of_request = table.load().get("svc").unwrap().clone();
    let retired = Arc::downgrade(&of_request);
    registrar.restore(std::iter::once(register(100)));
    drop(of_request);
    assert!(!is_freed(&retired), "the request freed it");
    registrar.restore(std::iter::empty());
    assert!(is_freed(&retired));
}
