//! Every metric there is, in one struct.

use prometheus::core::Collector;
use prometheus::{
    Counter, GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts,
    Registry, TextEncoder,
};
use vertice_core::priority::Priority;
use vertice_core::reason::Reason;

/// Two families share a name, or a label is malformed: a mistake in this file.
pub use prometheus::Error as MetricsError;

/// Seconds; the last ones lie beyond every alert threshold.
const REQUEST_BUCKETS: [f64; 14] = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];
/// Seconds; registrations take tens of microseconds, and must not take longer than 250 ms.
const REGISTRY_BUCKETS: [f64; 12] = [0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.05, 0.1, 0.25, 1.0];

/// Seconds; from a handful of services to hundreds of thousands of instances.
const RECONCILE_BUCKETS: [f64; 10] = [0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 15.0, 60.0];

/// Which listener a scrape came to, so that scraping both never doubles a sum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Data plane, health cache and process.
    DataPlane,
    /// Registry, store and process.
    ControlPlane,
    /// Everything: the other listener is off.
    All,
}

/// The families. Handles that are used per request are resolved once, per service, in [`super::service`].
pub struct Metrics {
    data_plane: Registry,
    control_plane: Registry,
    process: Registry,
    /// `http_requests_total{service,route,method,status}`
    pub requests: IntCounterVec,
    /// `http_request_duration_seconds{service}`
    pub request_duration: HistogramVec,
    /// `vertice_gateway_answers_total{reason}`, by the reason's place in [`Reason::ALL`]
    answers: Vec<IntCounter>,
    /// `vertice_upstream_retries_total{service}`
    pub retries: IntCounterVec,
    /// `vertice_full_lane_requests_total{service}`
    pub full_lane: IntCounterVec,
    /// `vertice_breaker_transitions_total{service,to}`
    pub breaker_transitions: IntCounterVec,
    /// `vertice_outlier_ejections_total{service,cause}`
    pub ejections: IntCounterVec,
    /// `vertice_outlier_ejected{service}`
    pub ejected: IntGaugeVec,
    /// `vertice_active_probes_total{service,result}`
    pub active_probes: IntCounterVec,
    /// `vertice_active_probes_failing{service}`
    pub failing: IntGaugeVec,
    /// `vertice_balance_panic{service}`
    pub panicking: IntGaugeVec,
    /// `vertice_service_instances{service,state}`
    pub service_instances: IntGaugeVec,
    /// `vertice_requests_in_flight`
    in_flight: IntGauge,
    /// `vertice_connections`
    pub connections: IntGauge,
    /// `vertice_limit_hits_total{limit}`
    pub limit_hits: IntCounterVec,
    /// `vertice_rate_limited_total{rate_limit}`
    rate_limited: IntCounterVec,
    /// `vertice_rate_limit_keys{rate_limit}`
    rate_limit_keys: IntGaugeVec,
    /// `vertice_requests_shed_total{limit,priority}`
    shed: IntCounterVec,
    /// `vertice_service_concurrency{service,kind}`
    pub service_concurrency: IntGaugeVec,
    /// `vertice_access_log_dropped_total`
    pub access_dropped: IntCounter,
    /// `vertice_panics_total`
    pub panics: IntCounter,
    /// `vertice_snapshot_generation`
    pub generation: IntGauge,
    /// `vertice_snapshot_publish_seconds`
    pub publish_duration: Histogram,
    /// `registry_operations_total{operation,status}`
    pub operations: IntCounterVec,
    /// `registry_operation_duration_seconds{operation}`
    pub operation_duration: HistogramVec,
    /// `registry_active_services`
    pub active_services: IntGauge,
    /// `registry_active_instances`
    pub active_instances: IntGauge,
    /// `registry_circuit_breaker_open`
    pub store_breaker_open: IntGauge,
    /// `registry_propagation_seconds{scope="local"}`
    pub propagation_local: Histogram,
    /// `registry_propagation_seconds{scope="replica"}`
    pub propagation_replica: Histogram,
    /// `registry_lapses_total`
    pub lapses: IntCounter,
    /// `vertice_watchers{kind}`
    watchers: IntGaugeVec,
    /// `vertice_watch_events_total{event}`
    pub watch_events: IntCounterVec,
    /// `vertice_watchers_cut_total`
    pub watchers_cut: IntCounter,
    /// `registry_leases_held`
    pub leases_held: IntGauge,
    /// `registry_leases_stale`
    pub leases_stale: IntGauge,
    /// `registry_instances_silent`
    pub instances_silent: IntGauge,
    /// `registry_lease_holds_total`
    pub holds: IntCounter,
    /// `registry_held_evictions_total`
    pub held_evictions: IntCounter,
    /// `registry_held_probes_total{result}`
    pub held_probes: IntCounterVec,
    /// `vertice_stall_seconds_total`
    pub stall_seconds: Counter,
    /// `vertice_registrar_queue_length`
    pub registrar_queue: IntGauge,
    /// `vertice_store_write_seconds`
    pub store_write_duration: Histogram,
    /// `vertice_store_errors_total`
    pub store_errors: IntCounter,
    /// `vertice_store_pending`
    pub store_pending: IntGauge,
    /// `vertice_store_records_skipped_total{reason}`
    pub store_skipped: IntCounterVec,
    /// `vertice_store_events_total{result}`
    pub store_events: IntCounterVec,
    /// `vertice_store_resyncs_total{reason}`
    pub store_resyncs: IntCounterVec,
    /// `vertice_store_reconcile_seconds`
    pub store_reconcile_duration: Histogram,
    /// `redis_circuit_breaker_state`
    pub redis_breaker: IntGauge,
    /// `redis_operation_duration_seconds{operation}`
    pub redis_duration: HistogramVec,
    /// `redis_failures_total{error_type}`
    pub redis_failures: IntCounterVec,
    /// `vertice_config_reloads_total{result}`
    pub config_reloads: IntCounterVec,
    /// `vertice_config_last_reload_success`
    pub config_reload_success: IntGauge,
    /// `vertice_config_last_reload_success_timestamp_seconds`
    pub config_reload_success_time: IntGauge,
    /// `vertice_dns_lookups_total{result}`
    pub dns_lookups: IntCounterVec,
    /// `vertice_dns_lookups_in_flight`
    pub dns_in_flight: IntGauge,
    /// `vertice_dns_names{state}`
    pub dns_names: IntGaugeVec,
    /// `health_cache_hits_total{cache_layer}`
    pub health_hits: IntCounterVec,
    /// `health_cache_misses_total`
    pub health_misses: IntCounter,
    /// `health_circuit_breaker_state{service_name}`
    pub health_breaker: GaugeVec,
    /// `health_check_duration_seconds{service_name,result}`
    pub health_duration: HistogramVec,
}

impl Metrics {
    /// Creates and registers every family.
    ///
    /// # Errors
    /// When two families share a name: a mistake in this file.
    pub fn new() -> Result<Self, prometheus::Error> {
        let (d, c, p) = (Registry::new(), Registry::new(), Registry::new());
        let answers =
            counters(&d, "vertice_gateway_answers_total", "Answers that the gateway made up itself, by reason.", &["reason"])?;
        p.register(Box::new(prometheus::process_collector::ProcessCollector::for_self()))?;
        let build = gauges(&p, "vertice_build_info", "1; its labels tell the build.", &["version"])?;
        build.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1.0);
        let propagation = histograms(
            &c,
            "registry_propagation_seconds",
            "From a change's arrival until requests see it.",
            &["scope"],
            &REGISTRY_BUCKETS,
        )?;
        Ok(Self {
            answers: Reason::ALL.iter().map(|reason| answers.with_label_values(&[reason.as_str()])).collect(),
            requests: counters(&d, "http_requests_total", "Requests.", &["service", "route", "method", "status"])?,
            request_duration: histograms(
                &d,
                "http_request_duration_seconds",
                "From the request's head to the end of its answer.",
                &["service"],
                &REQUEST_BUCKETS,
            )?,
            retries: counters(&d, "vertice_upstream_retries_total", "Attempts after the first one.", &["service"])?,
            full_lane: counters(
                &d,
                "vertice_full_lane_requests_total",
                "Requests that the express lane left to the full one.",
                &["service"],
            )?,
            breaker_transitions: counters(
                &d,
                "vertice_breaker_transitions_total",
                "Changes of instances' circuit breakers, by the state they went to.",
                &["service", "to"],
            )?,
            ejections: counters(
                &d,
                "vertice_outlier_ejections_total",
                "Instances ejected because they did worse than the others of their service.",
                &["service", "cause"],
            )?,
            ejected: int_gauges(&d, "vertice_outlier_ejected", "Instances that are ejected now.", &["service"])?,
            active_probes: counters(&d, "vertice_active_probes_total", "Active probes, by result.", &["service", "result"])?,
            failing: int_gauges(&d, "vertice_active_probes_failing", "Instances whose active probes fail.", &["service"])?,
            panicking: int_gauges(
                &d,
                "vertice_balance_panic",
                "1 while ejections and failed probes are ignored, because too few instances are left.",
                &["service"],
            )?,
            service_instances: int_gauges(
                &d,
                "vertice_service_instances",
                "Instances of a service: registered, and those that take traffic.",
                &["service", "state"],
            )?,
            in_flight: int_gauge(&d, "vertice_requests_in_flight", "Requests under way.")?,
            connections: int_gauge(&d, "vertice_connections", "Open client connections.")?,
            limit_hits: counters(&p, "vertice_limit_hits_total", "How often a limit was hit.", &["limit"])?,
            rate_limited: counters(&d, "vertice_rate_limited_total", "Requests refused by a rate limit.", &["rate_limit"])?,
            rate_limit_keys: int_gauges(
                &d,
                "vertice_rate_limit_keys",
                "Quotas that a rate limit keeps apart.",
                &["rate_limit"],
            )?,
            shed: counters(
                &d,
                "vertice_requests_shed_total",
                "Requests refused because too many were under way.",
                &["limit", "priority"],
            )?,
            service_concurrency: int_gauges(
                &d,
                "vertice_service_concurrency",
                "Requests of a service under way, and how many there may be; only where that is bounded.",
                &["service", "kind"],
            )?,
            access_dropped: counter(&d, "vertice_access_log_dropped_total", "Access log lines dropped: its queue was full.")?,
            panics: counter(&p, "vertice_panics_total", "Panics caught; each one is a defect.")?,
            generation: int_gauge(&d, "vertice_snapshot_generation", "Generation of the routing table.")?,
            publish_duration: histogram(
                &c,
                "vertice_snapshot_publish_seconds",
                "Building and publishing a routing table.",
                &REGISTRY_BUCKETS,
            )?,
            operations: counters(
                &c,
                "registry_operations_total",
                "Registry operations, by outcome.",
                &["operation", "status"],
            )?,
            operation_duration: histograms(
                &c,
                "registry_operation_duration_seconds",
                "Registry operations, from request to answer.",
                &["operation"],
                &REGISTRY_BUCKETS,
            )?,
            active_services: int_gauge(&c, "registry_active_services", "Services with a registered instance.")?,
            active_instances: int_gauge(&c, "registry_active_instances", "Registered instances.")?,
            store_breaker_open: int_gauge(
                &c,
                "registry_circuit_breaker_open",
                "1 while the store's circuit breaker is open; only Redis has one.",
            )?,
            propagation_local: propagation.with_label_values(&["local"]),
            propagation_replica: propagation.with_label_values(&["replica"]),
            lapses: counter(&c, "registry_lapses_total", "Leases that ran out.")?,
            watchers: int_gauges(&c, "vertice_watchers", "Clients that wait for changes of the registry.", &["kind"])?,
            watch_events: counters(&c, "vertice_watch_events_total", "Events handed to watchers' streams.", &["event"])?,
            watchers_cut: counter(&c, "vertice_watchers_cut_total", "Watchers cut off because they did not read.")?,
            leases_stale: int_gauge(
                &c,
                "registry_leases_stale",
                "Instances past their deadline that are probed, because another replica may have renewed them.",
            )?,
            leases_held: int_gauge(
                &c,
                "registry_leases_held",
                "Instances past their deadline that are kept, because most instances are silent.",
            )?,
            instances_silent: int_gauge(
                &c,
                "registry_instances_silent",
                "Instances that have not been renewed in the last half of their TTL.",
            )?,
            holds: counter(&c, "registry_lease_holds_total", "How often a mass lapse was suspected.")?,
            held_evictions: counter(
                &c,
                "registry_held_evictions_total",
                "Held instances that were removed because their health endpoint failed.",
            )?,
            held_probes: counters(&c, "registry_held_probes_total", "Probes of held instances, by result.", &["result"])?,
            stall_seconds: add(
                &c,
                Counter::new("vertice_stall_seconds_total", "Time in which this process did not run; leases were extended.")?,
            )?,
            registrar_queue: int_gauge(&c, "vertice_registrar_queue_length", "Commands that wait for the registrar.")?,
            store_write_duration: histogram(&c, "vertice_store_write_seconds", "Writes to the store.", &REGISTRY_BUCKETS)?,
            store_errors: counter(&c, "vertice_store_errors_total", "Failed writes to the store; they are repeated.")?,
            store_pending: int_gauge(&c, "vertice_store_pending", "Changes that wait to be written.")?,
            store_skipped: counters(
                &c,
                "vertice_store_records_skipped_total",
                "Foreign or damaged entries of the store that were left alone, by reason.",
                &["reason"],
            )?,
            store_events: counters(&c, "vertice_store_events_total", "Events read from the store, by result.", &["result"])?,
            store_resyncs: counters(
                &c,
                "vertice_store_resyncs_total",
                "How often everything was compared with the store, by reason.",
                &["reason"],
            )?,
            store_reconcile_duration: histogram(
                &c,
                "vertice_store_reconcile_seconds",
                "Comparing everything with the store.",
                &RECONCILE_BUCKETS,
            )?,
            redis_breaker: int_gauge(
                &c,
                "redis_circuit_breaker_state",
                "Redis' circuit breaker: 0 closed, 1 open, 2 half-open.",
            )?,
            redis_duration: histograms(
                &c,
                "redis_operation_duration_seconds",
                "Operations on Redis; a pipeline is one.",
                &["operation"],
                &REGISTRY_BUCKETS,
            )?,
            redis_failures: counters(&c, "redis_failures_total", "Failed operations on Redis.", &["error_type"])?,
            config_reloads: counters(
                &p,
                "vertice_config_reloads_total",
                "Reloads of the configuration, by result.",
                &["result"],
            )?,
            config_reload_success: int_gauge(
                &p,
                "vertice_config_last_reload_success",
                "1 unless the last configuration that was read was refused.",
            )?,
            config_reload_success_time: int_gauge(
                &p,
                "vertice_config_last_reload_success_timestamp_seconds",
                "When a configuration was last read that was good.",
            )?,
            dns_lookups: counters(&c, "vertice_dns_lookups_total", "Name look-ups, by result.", &["result"])?,
            dns_in_flight: int_gauge(&c, "vertice_dns_lookups_in_flight", "Name look-ups under way.")?,
            dns_names: int_gauges(&c, "vertice_dns_names", "Names that instances use, by state.", &["state"])?,
            health_hits: counters(&d, "health_cache_hits_total", "Health checks answered from a cache.", &["cache_layer"])?,
            health_misses: counter(&d, "health_cache_misses_total", "Health checks that no cache could answer.")?,
            health_breaker: gauges(
                &d,
                "health_circuit_breaker_state",
                "Breaker of a service's health check: 0 closed, 1 open, 2 half-open.",
                &["service_name"],
            )?,
            health_duration: histograms(
                &d,
                "health_check_duration_seconds",
                "Health check probes.",
                &["service_name", "result"],
                &REQUEST_BUCKETS,
            )?,
            data_plane: d,
            control_plane: c,
            process: p,
        })
    }

    /// Counts an answer that the gateway made up itself.
    pub fn answered(&self, reason: Reason) {
        if let Some(at) = Reason::ALL.iter().position(|other| *other == reason) {
            self.answers[at].inc();
        }
    }

    /// Counts a request as under way for as long as the guard lives.
    #[must_use]
    pub fn request_starts(&self) -> RequestInFlight {
        self.in_flight.inc();
        RequestInFlight(self.in_flight.clone())
    }

    /// Counts a watcher for as long as the guard lives.
    #[must_use]
    pub fn watcher_starts(&self, kind: &str) -> WatcherGauge {
        let gauge = self.watchers.with_label_values(&[kind]);
        gauge.inc();
        WatcherGauge(gauge)
    }

    /// Counts a limit that was hit.
    pub fn limit_hit(&self, limit: &str) {
        self.limit_hits.with_label_values(&[limit]).inc();
    }

    /// Counts a request that was refused because too many were under way.
    pub fn shed(&self, limit: &str, priority: Priority) {
        let word = Priority::ALL.iter().find(|(_, other)| *other == priority).map_or("", |(word, _)| word);
        self.shed.with_label_values(&[limit, word]).inc();
    }

    /// Counts a request that a rate limit refused.
    pub fn rate_limited(&self, name: &str) {
        self.rate_limited.with_label_values(&[name]).inc();
    }

    /// Tells how many quotas a rate limit keeps apart.
    pub fn rate_limit_keys(&self, name: &str, count: usize) {
        self.rate_limit_keys.with_label_values(&[name]).set(i64::try_from(count).unwrap_or(i64::MAX));
    }

    /// Removes a rate limit's series: it is gone.
    pub fn rate_limit_gone(&self, name: &str) {
        // A series that never existed cannot be removed, which is fine.
        let _ = self.rate_limited.remove_label_values(&[name]);
        let _ = self.rate_limit_keys.remove_label_values(&[name]);
    }

    /// A configuration was read at that time, in milliseconds since 1970, and is in force or, being bad, is not. The one of the
    /// start is no reload.
    pub fn config_read(&self, is_good: bool, wall_ms: u64) {
        self.config_reload_success.set(is_good.into());
        if is_good {
            self.config_reload_success_time.set(i64::try_from(wall_ms / 1000).unwrap_or(i64::MAX));
        }
    }

    /// The text format of the families in `scope`.
    #[must_use]
    pub fn render(&self, scope: Scope) -> String {
        let mut families = self.process.gather();
        if scope != Scope::ControlPlane {
            families.extend(self.data_plane.gather());
        }
        if scope != Scope::DataPlane {
            families.extend(self.control_plane.gather());
        }
        families.sort_by(|a, b| a.name().cmp(b.name()));
        TextEncoder::new().encode_to_string(&families).unwrap_or_default()
    }
}

/// See [`Metrics::request_starts`].
#[derive(Debug)]
pub struct RequestInFlight(IntGauge);

impl Drop for RequestInFlight {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// See [`Metrics::watcher_starts`].
#[derive(Debug)]
pub struct WatcherGauge(IntGauge);

impl Drop for WatcherGauge {
    fn drop(&mut self) {
        self.0.dec();
    }
}

impl std::fmt::Debug for Metrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

fn add<C: Collector + Clone + 'static>(registry: &Registry, family: C) -> Result<C, prometheus::Error> {
    registry.register(Box::new(family.clone()))?;
    Ok(family)
}

fn counter(registry: &Registry, name: &str, help: &str) -> Result<IntCounter, prometheus::Error> {
    add(registry, IntCounter::new(name, help)?)
}

fn counters(registry: &Registry, name: &str, help: &str, labels: &[&str]) -> Result<IntCounterVec, prometheus::Error> {
    add(registry, IntCounterVec::new(Opts::new(name, help), labels)?)
}

fn int_gauge(registry: &Registry, name: &str, help: &str) -> Result<IntGauge, prometheus::Error> {
    add(registry, IntGauge::new(name, help)?)
}

fn int_gauges(registry: &Registry, name: &str, help: &str, labels: &[&str]) -> Result<IntGaugeVec, prometheus::Error> {
    add(registry, IntGaugeVec::new(Opts::new(name, help), labels)?)
}

fn gauges(registry: &Registry, name: &str, help: &str, labels: &[&str]) -> Result<GaugeVec, prometheus::Error> {
    add(registry, prometheus::core::GenericGaugeVec::new(Opts::new(name, help), labels)?)
}

fn histogram(registry: &Registry, name: &str, help: &str, buckets: &[f64]) -> Result<Histogram, prometheus::Error> {
    add(registry, Histogram::with_opts(HistogramOpts::new(name, help).buckets(buckets.to_vec()))?)
}

fn histograms(
    registry: &Registry,
    name: &str,
    help: &str,
    labels: &[&str],
    buckets: &[f64],
) -> Result<HistogramVec, prometheus::Error> {
    add(registry, HistogramVec::new(HistogramOpts::new(name, help).buckets(buckets.to_vec()), labels)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_two_listeners_share_only_process_families() {
        let metrics = Metrics::new().unwrap();
        metrics.active_services.set(3);
        metrics.answered(Reason::NoRoute);
        let (data, control) = (metrics.render(Scope::DataPlane), metrics.render(Scope::ControlPlane));
        assert!(data.contains("vertice_gateway_answers_total{reason=\"no_route\"} 1"));
        assert!(control.contains("registry_active_services 3"));
        assert!(!data.contains("registry_active_services") && !control.contains("vertice_gateway_answers_total"));
        assert!(data.contains("process_resident_memory_bytes") && control.contains("process_resident_memory_bytes"));
        let all = metrics.render(Scope::All);
        assert!(all.contains("registry_active_services 3") && all.contains("vertice_gateway_answers_total"));
    }
}
