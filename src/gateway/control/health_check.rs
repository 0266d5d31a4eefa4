//! `GET /gateway/health-check/{service}`: is a service well, without asking it every time.
//!
//! Layer 1 is this process's memory, layer 2 what other replicas found out, if the store is shared. Concurrent misses share one
//! probe: they queue at the entry's lock, and whoever gets it looks again before probing. A service whose probes fail is not
//! probed again while its breaker is open.

use super::error::Error;
use super::{Answer, Control, epoch_s, json, rounded};
use crate::clock;
use crate::random::random;
use crate::upstream::{Service, Upstream};
use dashmap::DashMap;
use http::StatusCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::Mutex;
use vertice_api::gateway::{CacheLayer, HealthCheck};
use vertice_core::breaker::{Admission, BreakerPolicy};
use vertice_core::cell::BreakerCell;
use vertice_core::outcome::Verdict;
use vertice_core::time::Moment;

/// Verdicts of the last few seconds.
#[derive(Clone, Debug)]
pub struct HealthCache {
    entries: Arc<DashMap<String, Arc<Entry>>>,
    /// How long a verdict holds.
    pub ttl: Duration,
    /// How many verdicts are kept at most.
    pub size_max: usize,
    hits: Arc<AtomicU64>,
    misses: Arc<AtomicU64>,
}

#[derive(Debug, Default)]
struct Entry {
    last: Mutex<Option<(Moment, HealthCheck)>>,
    breaker: BreakerCell,
    /// The newest registration that the verdicts are about; a newer one is asked afresh.
    version_no: AtomicU64,
}

impl HealthCache {
    /// An empty cache.
    #[must_use]
    pub fn new(ttl: Duration, size_max: usize) -> Self {
        Self { entries: Arc::default(), ttl, size_max, hits: Arc::default(), misses: Arc::default() }
    }

    /// The same verdicts, held for another while, and another number of them.
    #[must_use]
    pub fn bounded(&self, ttl: Duration, size_max: usize) -> Self {
        Self { ttl, size_max, ..self.clone() }
    }

    /// How many verdicts are kept.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether none is.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Hits and misses since the start.
    #[must_use]
    pub fn counts(&self) -> (u64, u64) {
        (self.hits.load(Ordering::Relaxed), self.misses.load(Ordering::Relaxed))
    }

    /// The entry of a service that exists; `keep` tells which services still do.
    fn entry(&self, name: &str, keep: impl Fn(&str) -> bool) -> Arc<Entry> {
        if let Some(entry) = self.entries.get(name) {
            return entry.clone();
        }
        if self.entries.len() >= self.size_max {
            self.entries.retain(|name, _| keep(name));
        }
        if self.entries.len() >= self.size_max {
            return Arc::default();
        }
        self.entries.entry(name.to_owned()).or_default().clone()
    }
}

pub(super) async fn check(control: &Control, name: &str) -> Answer {
    let table = control.table.load_full();
    let service = control.aliases.resolve(name, &table).ok_or_else(|| Error::not_found(name, table.generation()))?;
    let name = service.name.as_str();
    let cache = &control.health_cache;
    let entry = cache.entry(name, |name| table.get(name).is_some());
    let mut last = entry.last.lock().await;
    let version_no = service.instances.iter().map(|upstream| upstream.facts.version_no).max().unwrap_or(0);
    if entry.version_no.swap(version_no, Ordering::Relaxed) != version_no {
        *last = None;
        entry.breaker.try_now();
    }
    if let Some((at, verdict)) = last.as_ref()
        && clock::mono().since(*at) < cache.ttl
    {
        cache.hits.fetch_add(1, Ordering::Relaxed);
        control.metrics.health_hits.with_label_values(&["local"]).inc();
        let cached = HealthCheck { cached: true, cache_layer: Some(CacheLayer::Local), ..verdict.clone() };
        return json(StatusCode::OK, &cached);
    }
    let shared = control.store.redis().map(|redis| redis.health());
    if let Some(layer) = shared
        && let Some(verdict) = layer.get(name).await.filter(|verdict| is_about(verdict, service))
    {
        cache.hits.fetch_add(1, Ordering::Relaxed);
        control.metrics.health_hits.with_label_values(&["redis"]).inc();
        *last = Some((clock::mono(), verdict.clone()));
        return json(StatusCode::OK, &HealthCheck { cached: true, cache_layer: Some(CacheLayer::Redis), ..verdict });
    }
    cache.misses.fetch_add(1, Ordering::Relaxed);
    control.metrics.health_misses.inc();
    let verdict = probe(control, service, &entry.breaker).await;
    *last = Some((clock::mono(), verdict.clone()));
    if let Some(layer) = shared {
        layer.put(&verdict);
    }
    json(StatusCode::OK, &verdict)
}

/// Whether the verdict is about an instance that is still there, and younger than the newest registration.
fn is_about(verdict: &HealthCheck, service: &Service) -> bool {
    let newest = service.instances.iter().map(|upstream| upstream.facts.registered_wall_ms).max().unwrap_or(0);
    let is_there = |upstream: &Arc<Upstream>| upstream.facts.endpoint.to_string() == verdict.service_url;
    verdict.timestamp >= epoch_s(newest) && service.instances.iter().any(is_there)
}

async fn probe(control: &Control, service: &Service, breaker: &BreakerCell) -> HealthCheck {
    let policy = BreakerPolicy::default();
    let name = service.name.as_str();
    let upstream = reachable(service);
    let admitted = !matches!(breaker.admit(&policy, clock::mono()), Admission::Shed { .. });
    let started = clock::mono();
    let status = match upstream.filter(|_| admitted) {
        Some(upstream) => control.prober.probe(upstream).await,
        None => None,
    };
    let took = clock::mono().since(started);
    let healthy = status.is_some_and(|status| (200..300).contains(&status));
    if admitted {
        let verdict = if healthy { Verdict::Success } else { Verdict::Failure };
        breaker.record(verdict, &policy, clock::mono(), random());
        let result = if healthy { "healthy" } else { "unhealthy" };
        control.metrics.health_duration.with_label_values(&[name, result]).observe(took.as_secs_f64());
    }
    let phase = breaker.load().phase(clock::mono());
    control.metrics.health_breaker.with_label_values(&[name]).set(f64::from(phase.as_number()));
    if control.table.load().get(name).is_none() {
        // Gone meanwhile, and its series with it: they must not come back.
        service.x.remove();
    }
    HealthCheck {
        service_name: name.to_owned(),
        service_url: upstream.or(service.best()).map(|u| u.facts.endpoint.to_string()).unwrap_or_default(),
        healthy,
        status_code: status.unwrap_or(StatusCode::SERVICE_UNAVAILABLE.as_u16()),
        response_time_ms: rounded(took.as_secs_f64() * 1000.0),
        cached: false,
        cache_layer: None,
        timestamp: epoch_s(clock::wall_ms()),
    }
}

/// The instance that stands for the service, or another one that has an address.
fn reachable(service: &Service) -> Option<&Arc<Upstream>> {
    let has_address = |upstream: &&Arc<Upstream>| !upstream.addresses.is_empty();
    service.best().filter(has_address).or_else(|| service.instances.iter().find(has_address))
}
