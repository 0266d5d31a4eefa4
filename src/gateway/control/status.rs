//! `GET /gateway/status`: what is in force.

use super::{Answer, Control, epoch_s, json, reload, rounded};
use crate::clock;
use crate::listeners::Addresses;
use crate::store::redis::Replica;
use crate::upstream::{Service, Upstream};
use http::StatusCode;
use std::net::SocketAddr;
use std::sync::Arc;
use vertice_api::gateway::{
    CacheStatus, CircuitBreaker, GatewayStatus, HealthCacheStatus, InstanceStatus, LeaseStatus, ListenerStatus, NameStatus,
    RedisStatus, ReplicaStatus, ServiceStatus, SnapshotStatus, StoreStatus,
};
use vertice_core::balance;
use vertice_core::breaker::Phase;
use vertice_core::time::Moment;

pub(super) fn status(control: &Control) -> Answer {
    let now = clock::mono();
    let table = control.table.load_full();
    let mut services: Vec<&Arc<Service>> = table.iter().collect();
    services.sort_by(|a, b| a.name.cmp(&b.name));
    let routable = services.iter().filter(|service| !service.usable.is_empty()).map(|s| s.name.to_string()).collect();
    let discovery = discovery_cache(control, routable);
    let status = GatewayStatus {
        gateway: GatewayStatus::OPERATIONAL.to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        build: crate::BUILD.to_owned(),
        uptime_seconds: rounded(now.since(control.started.mono).as_secs_f64()),
        circuit_breaker: circuit_breaker(control),
        cache: discovery.clone(),
        service_discovery_cache: discovery,
        health_cache: health_cache(control),
        services: services.iter().map(|s| service_status(s, now)).collect(),
        names: names(control),
        store: StoreStatus {
            kind: control.store.kind.to_owned(),
            path: control.store.path.clone(),
            healthy: control.store.is_healthy(),
            detail: control.store.detail(),
            redis: redis(control, now),
        },
        replicas: replicas(control, now),
        snapshot: SnapshotStatus { generation: table.generation() },
        leases: leases(control, now),
        config: reload::status(control.reloads.standing()),
        listeners: listeners(&control.settings.listeners),
    };
    json(StatusCode::OK, &status)
}

fn listeners(addresses: &Addresses) -> ListenerStatus {
    let shown = |addresses: &[SocketAddr]| addresses.iter().map(SocketAddr::to_string).collect();
    ListenerStatus {
        gateway: shown(&addresses.gateway),
        gateway_h2c: shown(&addresses.gateway_h2c),
        gateway_tls: shown(&addresses.gateway_tls),
        registry: shown(&addresses.registry),
        registry_tls: shown(&addresses.registry_tls),
    }
}

/// The breaker in front of Redis; a local store has none.
fn circuit_breaker(control: &Control) -> CircuitBreaker {
    let Some(redis) = control.store.redis() else { return CircuitBreaker::closed() };
    CircuitBreaker {
        open: redis.phase() != Phase::Closed,
        failures: redis.failures(),
        opened_at: redis.opened_wall_ms().map(epoch_s),
        ..CircuitBreaker::closed()
    }
}

fn redis(control: &Control, now: Moment) -> Option<RedisStatus> {
    let redis = control.store.redis()?;
    Some(RedisStatus {
        address: redis.address(),
        following: redis.is_following(),
        pending: redis.outbox() as u64,
        compared_seconds_ago: redis.reconciled().map(|at| rounded(now.since(at).as_secs_f64())),
    })
}

/// This process first, then those that share its store.
fn replicas(control: &Control, now: Moment) -> Vec<ReplicaStatus> {
    let own = ReplicaStatus {
        replica_id: control.settings.replica_id.clone(),
        zone: control.settings.zone.clone(),
        local: true,
        version: Some(env!("CARGO_PKG_VERSION").to_owned()),
        seen_seconds_ago: 0.0,
    };
    let others = control.store.redis().map(|redis| redis.replicas()).unwrap_or_default();
    let other = |replica: Replica| ReplicaStatus {
        replica_id: replica.name,
        zone: replica.zone,
        local: false,
        version: Some(replica.version),
        seen_seconds_ago: rounded(now.since(replica.seen).as_secs_f64()),
    };
    let others = others.into_iter().filter(|replica| replica.id != control.settings.me);
    std::iter::once(own).chain(others.map(other)).collect()
}

fn leases(control: &Control, now: Moment) -> LeaseStatus {
    let figures = control.registrar.leases();
    let since = |since| rounded(epoch_s(clock::wall_ms()) - now.since(since).as_secs_f64());
    LeaseStatus {
        holding: figures.holding_since.is_some(),
        since: figures.holding_since.map(since),
        instances: figures.instances as u64,
        silent: figures.silent as u64,
        held: figures.held as u64,
        on_grace: figures.on_grace as u64,
        stale: figures.stale as u64,
    }
}

fn discovery_cache(control: &Control, services: Vec<String>) -> CacheStatus {
    CacheStatus {
        size: services.len() as u64,
        max_size: Some(control.settings.services_max as u64),
        ttl: control.settings.lease_ttl.as_secs_f64(),
        services,
    }
}

fn health_cache(control: &Control) -> HealthCacheStatus {
    let cache = &control.health_cache;
    let (hits, misses) = cache.counts();
    let asked = hits + misses;
    HealthCacheStatus {
        size: cache.len() as u64,
        max_size: cache.size_max as u64,
        ttl: cache.ttl.as_secs_f64(),
        hits,
        misses,
        hit_rate: if asked == 0 { 0.0 } else { hits as f64 / asked as f64 },
    }
}

fn service_status(service: &Service, now: Moment) -> ServiceStatus {
    let instances = service.instances.iter().map(|upstream| instance_status(service, upstream, now)).collect();
    ServiceStatus { service_name: service.name.to_string(), panic: balance::is_in_panic(service, now), instances }
}

fn instance_status(service: &Service, upstream: &Arc<Upstream>, now: Moment) -> InstanceStatus {
    let seen = balance::explain(service, upstream, now);
    InstanceStatus {
        held: upstream.cells.lease.is_held(),
        instance_id: upstream.facts.id.to_string(),
        endpoint: upstream.facts.endpoint.to_string(),
        status: upstream.status().as_str().to_owned(),
        breaker: seen.breaker.as_str().to_owned(),
        addresses: upstream.addresses.iter().map(ToString::to_string).collect(),
        in_flight: seen.in_flight.into(),
        ewma_ms: rounded(seen.average.unwrap_or_default().as_secs_f64() * 1000.0),
        ejected_seconds: rounded(seen.ejected_for.unwrap_or_default().as_secs_f64()),
        probe_passed: seen.probe,
        share: rounded(seen.share),
    }
}

fn names(control: &Control) -> Vec<NameStatus> {
    let state = |name: crate::resolve::NameState| NameStatus {
        name: name.host.to_string(),
        addresses: name.addresses.iter().map(ToString::to_string).collect(),
        error: name.error,
    };
    control.resolver.states().into_iter().map(state).collect()
}
