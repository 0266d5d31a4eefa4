//! `GET /health` and `/readyz`.

use super::{Answer, Control, json, rounded};
use crate::clock;
use http::StatusCode;
use vertice_api::{Component, Components, Health, Readiness, Redis};
use vertice_core::breaker::Phase;
use vertice_core::registry::LeaseFigures;

pub(super) fn health(control: &Control) -> Answer {
    let draining = control.is_draining();
    let redis = redis(control);
    let leases = leases(control);
    let is_well = control.store.is_healthy() && leases.detail.is_none();
    let health = Health {
        status: if is_well && !draining { "healthy" } else { "degraded" }.to_owned(),
        redis,
        circuit_breaker: control.store.redis().map_or(Phase::Closed, |redis| redis.phase()).as_str().to_owned(),
        active_services: u64::try_from(control.metrics.active_services.get()).unwrap_or(0),
        uptime_seconds: rounded(clock::mono().since(control.started.mono).as_secs_f64()),
        components: Components {
            redis: match redis {
                Redis::Disabled => Component { status: "disabled".to_owned(), detail: None },
                Redis::Healthy => Component::healthy(),
                Redis::Degraded => Component::new("degraded", control.store.detail().unwrap_or_default()),
                Redis::Unhealthy => Component::new("unhealthy", control.store.detail().unwrap_or_default()),
            },
            store: match control.store.detail() {
                None if control.store.is_healthy() => Component::healthy(),
                detail => Component::new("degraded", detail.unwrap_or_default()),
            },
            dns: dns(control),
            leases,
        },
    };
    json(if draining { StatusCode::SERVICE_UNAVAILABLE } else { StatusCode::OK }, &health)
}

pub(super) fn readyz(control: &Control) -> Answer {
    let is_draining = control.is_draining();
    let status = if is_draining { StatusCode::SERVICE_UNAVAILABLE } else { StatusCode::OK };
    json(status, &Readiness::new(is_draining))
}

/// Whether Redis, if it is used, takes what it is given and tells what the other replicas do.
fn redis(control: &Control) -> Redis {
    match control.store.redis() {
        None => Redis::Disabled,
        Some(redis) if redis.is_following() && redis.trouble_hearing().is_none() => Redis::Healthy,
        Some(redis) if redis.is_connected() => Redis::Degraded,
        Some(_) => Redis::Unhealthy,
    }
}

/// Whether leases end as they should.
fn leases(control: &Control) -> Component {
    let LeaseFigures { instances, silent, holding_since, held, .. } = control.registrar.leases();
    if holding_since.is_some() {
        let detail = format!(
            "mass lapse suspected: {silent} of {instances} instances have not been renewed; holding {held}, probing them"
        );
        return Component::new("degraded", detail);
    }
    match control.host.is_busy(clock::mono()) {
        true => {
            Component::new("degraded", "timers ran late a moment ago: this process was stopped, or the host has too much to do")
        }
        false => Component::healthy(),
    }
}

/// Names that do not resolve are the operator's business, not the gateway's health: shown, without degrading.
fn dns(control: &Control) -> Component {
    let failing: Vec<String> = control
        .resolver
        .states()
        .into_iter()
        .filter_map(|name| name.error.map(|error| format!("{}: {error}", name.host)))
        .take(10)
        .collect();
    if failing.is_empty() { Component::healthy() } else { Component::new("degraded", failing.join("; ")) }
}
