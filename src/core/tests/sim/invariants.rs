//! What must hold of a registry and its table at any time.

use super::{LIMITS, SERVICES};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::sync::Arc;
use vertice_core::name::{InstanceId, ServiceName};
use vertice_core::registry::Registry;
use vertice_core::table::{Bare, Facts, Service, Snapshot};

pub(crate) fn check_limits(registry: &Registry) -> Result<(), String> {
    let mut by_service = BTreeMap::<_, usize>::new();
    registry.facts().for_each(|facts| *by_service.entry(&facts.service).or_default() += 1);
    same("counted instances", registry.instance_count(), by_service.values().sum())?;
    same("counted services", registry.service_count(), by_service.len())?;
    let most = by_service.values().copied().max().unwrap_or(0);
    if registry.instance_count() > LIMITS.instances || by_service.len() > LIMITS.services || most > LIMITS.per_service {
        return Err(format!("a limit is exceeded: {by_service:?}"));
    }
    Ok(())
}

/// The table that grew change by change is the one that would be built from nothing.
pub(crate) fn check_table(registry: &Registry, snapshot: &Snapshot<Bare>) -> Result<(), String> {
    same("generations", snapshot.generation(), registry.generation())?;
    let names: BTreeSet<ServiceName> = SERVICES.iter().map(|name| ServiceName::parse(name).unwrap()).collect();
    let mut services = 0;
    for name in &names {
        let changed_at = snapshot.get(name.as_str()).map_or(0, |service| service.changed_at);
        let fresh = registry.build(name, changed_at, None, &Bare);
        services += usize::from(fresh.is_some());
        same("service", snapshot.get(name.as_str()).map(|service| in_full(service)), fresh.as_ref().map(in_full))?;
    }
    same("services", (snapshot.len(), snapshot.iter().count()), (services, services))
}

type InFull = (Vec<(Arc<Facts>, Vec<std::net::SocketAddr>, usize)>, Vec<InstanceId>, bool);

fn in_full(service: &Service<Bare>) -> InFull {
    let instances = service.instances.iter();
    let each = instances.map(|it| (it.facts.clone(), it.addresses.to_vec(), Arc::as_ptr(&it.cells).addr())).collect();
    (each, service.usable.iter().map(|it| it.facts.id.clone()).collect(), service.is_fallback)
}

pub(crate) fn same<T: PartialEq + Debug>(what: &str, one: T, other: T) -> Result<(), String> {
    if one == other { Ok(()) } else { Err(format!("{what} differ:\n  {one:?}\n  {other:?}")) }
}
