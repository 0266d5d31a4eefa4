//! `GET /health` and `/readyz`.

use super::{Answer, Control, json, rounded};
use crate::clock;
use http::StatusCode;
use vertice_api::{Component, Components, Health, Redis};

pub(super) fn health(control: &Control) -> Answer {
    let draining = control.is_draining();
    let redis = if control.settings.redis_configured { Redis::Unhealthy } else { Redis::Disabled };
    let is_busy = control.host.is_busy(clock::mono());
    let is_well = redis == Redis::Disabled && control.store.is_healthy() && !is_busy;
    let health = Health {
        status: if is_well && !draining { "healthy" } else { "degraded" }.to_owned(),
        redis,
        circuit_breaker: "closed".to_owned(),
        active_services: u64::try_from(control.metrics.active_services.get()).unwrap_or(0),
        uptime_seconds: rounded(clock::mono().since(control.started.mono).as_secs_f64()),
        components: Components {
            redis: match redis {
                Redis::Disabled => Component { status: "disabled".to_owned(), detail: None },
                _ => Component::new("unhealthy", "Redis is configured, but this version cannot use it yet"),
            },
            store: match control.store.detail() {
                None if control.store.is_healthy() => Component::healthy(),
                detail => Component::new("degraded", detail.unwrap_or_default()),
            },
            dns: dns(control),
            leases: match is_busy {
                true => Component::new("degraded", "the host is busy: timers run late"),
                false => Component::healthy(),
            },
        },
    };
    json(if draining { StatusCode::SERVICE_UNAVAILABLE } else { StatusCode::OK }, &health)
}

pub(super) fn readyz(control: &Control) -> Answer {
    if control.is_draining() {
        return json(StatusCode::SERVICE_UNAVAILABLE, &serde_json::json!({"status": "draining"}));
    }
    json(StatusCode::OK, &serde_json::json!({"status": "ready"}))
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
