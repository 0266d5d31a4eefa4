//! Metric handles of one service, resolved once so that a request only increments them.

use super::metrics::Metrics;
use arc_swap::ArcSwapOption;
use http::Method;
use prometheus::{Histogram, IntCounter};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use vertice_core::cell::Transition;
use vertice_core::outlier::{Cause, Shed};

/// The methods with a label of their own; others count as `_OTHER` (OpenTelemetry's rule), so that clients cannot invent
/// series.
const METHODS: [&str; 10] = ["GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "CONNECT", "_OTHER"];

const PROBE_RESULTS: [&str; 2] = ["failed", "passed"];

/// The route label of requests under `/v2/`.
pub const V2_ROUTE: &str = "v2";

/// Handles of one service.
pub struct ServiceMetrics {
    all: Arc<Metrics>,
    service: Box<str>,
    /// `http_request_duration_seconds{service}`
    pub duration: Histogram,
    /// `vertice_upstream_retries_total{service}`
    pub retries: IntCounter,
    /// `vertice_full_lane_requests_total{service}`: what it lacks of the service's requests took the express lane, which so pays
    /// nothing for being counted.
    pub full_lane: IntCounter,
    v2: RouteMetrics,
    /// The service is gone: what still ends must not bring its series back.
    gone: AtomicBool,
}

impl ServiceMetrics {
    /// Resolves the handles of `service`.
    #[must_use]
    pub fn new(all: &Arc<Metrics>, service: &str) -> Self {
        Self {
            all: all.clone(),
            service: service.into(),
            duration: all.request_duration.with_label_values(&[service]),
            retries: all.retries.with_label_values(&[service]),
            full_lane: all.full_lane.with_label_values(&[service]),
            v2: RouteMetrics::default(),
            gone: AtomicBool::new(false),
        }
    }

    /// Counts a finished request under `/v2/`.
    pub fn count(&self, method: &Method, status: u16) {
        if self.gone.load(Ordering::Relaxed) {
            return;
        }
        self.v2.count(&self.all, &self.service, V2_ROUTE, method, status);
    }

    /// Counts a finished request of a configured route.
    pub fn count_routed(&self, counters: &RouteMetrics, route: &str, method: &Method, status: u16) {
        if self.gone.load(Ordering::Relaxed) {
            return;
        }
        counters.count(&self.all, &self.service, route, method, status);
    }

    /// Counts a change of a breaker.
    pub fn breaker_changed(&self, transition: Transition) {
        if self.gone.load(Ordering::Relaxed) {
            return;
        }
        self.all.breaker_transitions.with_label_values(&[&*self.service, transition.to.as_str()]).inc();
    }

    /// Counts an ejection.
    pub fn ejected(&self, cause: Cause) {
        if self.gone.load(Ordering::Relaxed) {
            return;
        }
        self.all.ejections.with_label_values(&[&*self.service, cause.as_str()]).inc();
    }

    /// Counts an active probe.
    pub fn probed(&self, passed: bool) {
        if self.gone.load(Ordering::Relaxed) {
            return;
        }
        self.all.active_probes.with_label_values(&[&*self.service, PROBE_RESULTS[usize::from(passed)]]).inc();
    }

    /// Tells how many instances something is held against.
    pub fn set_shed(&self, shed: Shed) {
        if self.gone.load(Ordering::Relaxed) {
            return;
        }
        let service = &[&*self.service];
        self.all.ejected.with_label_values(service).set(shed.ejected.into());
        self.all.failing.with_label_values(service).set(shed.failed.into());
        self.all.panicking.with_label_values(service).set(shed.panics.into());
    }

    /// Tells how many instances there are.
    pub fn set_instances(&self, registered: usize, usable: usize) {
        let set = |state: &str, count: usize| {
            let gauge = self.all.service_instances.with_label_values(&[&*self.service, state]);
            gauge.set(i64::try_from(count).unwrap_or(i64::MAX));
        };
        set("registered", registered);
        set("usable", usable);
    }

    /// Tells how many of its requests are under way, and how many may be.
    pub fn set_concurrency(&self, in_flight: u32, limit: u32) {
        if self.gone.load(Ordering::Relaxed) {
            return;
        }
        for (kind, count) in [("in_flight", in_flight), ("limit", limit)] {
            self.all.service_concurrency.with_label_values(&[&*self.service, kind]).set(count.into());
        }
    }

    /// Removes the service's series: it is gone.
    pub fn remove(&self) {
        self.gone.store(true, Ordering::Relaxed);
        let service = &*self.service;
        // A series that never existed cannot be removed, which is fine.
        let _ = self.all.request_duration.remove_label_values(&[service]);
        let _ = self.all.retries.remove_label_values(&[service]);
        let _ = self.all.full_lane.remove_label_values(&[service]);
        let _ = self.all.health_breaker.remove_label_values(&[service]);
        for gauge in [&self.all.ejected, &self.all.failing, &self.all.panicking] {
            let _ = gauge.remove_label_values(&[service]);
        }
        for cause in Cause::ALL {
            let _ = self.all.ejections.remove_label_values(&[service, cause.as_str()]);
        }
        for result in PROBE_RESULTS {
            let _ = self.all.active_probes.remove_label_values(&[service, result]);
        }
        for phase in ["closed", "open", "half_open"] {
            let _ = self.all.breaker_transitions.remove_label_values(&[service, phase]);
        }
        for kind in ["in_flight", "limit"] {
            let _ = self.all.service_concurrency.remove_label_values(&[service, kind]);
        }
        for state in ["registered", "usable"] {
            let _ = self.all.service_instances.remove_label_values(&[service, state]);
        }
        for result in ["healthy", "unhealthy"] {
            let _ = self.all.health_duration.remove_label_values(&[service, result]);
        }
        self.v2.remove(&self.all, service, V2_ROUTE);
    }
}

impl std::fmt::Debug for ServiceMetrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ServiceMetrics").field("service", &self.service).finish_non_exhaustive()
    }
}

/// Request counters of one service on one route, made when first used: most methods and statuses never occur.
///
/// Each method has a list of the statuses seen so far, replaced as a whole when a new one turns up, so that counting is a
/// load and a short scan.
#[derive(Debug, Default)]
pub struct RouteMetrics {
    methods: [ArcSwapOption<Vec<(u16, IntCounter)>>; METHODS.len()],
}

impl RouteMetrics {
    fn count(&self, all: &Metrics, service: &str, route: &str, method: &Method, status: u16) {
        let method = METHODS.iter().position(|known| *known == method.as_str()).unwrap_or(METHODS.len() - 1);
        let status = status.clamp(100, 599);
        let seen = self.methods[method].load();
        if let Some((_, counter)) = seen.iter().flat_map(|seen| seen.iter()).find(|(known, _)| *known == status) {
            return counter.inc();
        }
        let counter = all.requests.with_label_values(&[service, route, METHODS[method], &*status.to_string()]);
        counter.inc();
        self.methods[method].rcu(|seen| {
            let mut longer: Vec<_> = seen.iter().flat_map(|seen| seen.iter().cloned()).collect();
            longer.push((status, counter.clone()));
            Some(Arc::new(longer))
        });
    }

    fn remove(&self, all: &Metrics, service: &str, route: &str) {
        for (method, seen) in self.methods.iter().enumerate() {
            for (status, _) in seen.load().iter().flat_map(|seen| seen.iter()) {
                let _ = all.requests.remove_label_values(&[service, route, METHODS[method], &*status.to_string()]);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::metrics::Scope;
    use super::*;

    #[test]
    fn a_service_s_series_come_and_go_with_it() {
        let all = Arc::new(Metrics::new().unwrap());
        let service = ServiceMetrics::new(&all, "nmap_service");
        service.count(&Method::GET, 200);
        service.count(&Method::from_bytes(b"BREW").unwrap(), 418);
        service.set_instances(2, 1);
        service.ejected(Cause::Latency);
        service.probed(true);
        service.set_shed(Shed { ejected: 1, failed: 0, panics: true });
        let text = all.render(Scope::DataPlane);
        assert!(
            text.contains(r#"http_requests_total{method="GET",route="v2",service="nmap_service",status="200"} 1"#),
            "{text}"
        );
        assert!(text.contains(r#"method="_OTHER""#));
        service.remove();
        assert!(!all.render(Scope::All).contains("nmap_service"));
    }
}
