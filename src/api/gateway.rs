//! `GET /gateway/status` and `GET /gateway/health-check/{service}`.

#[cfg(feature = "schema")]
use crate::schema;
use serde::{Deserialize, Serialize};

/// What is in force in this process.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct GatewayStatus {
    /// The predecessor's word for a gateway that answers.
    #[cfg_attr(feature = "schema", schemars(extend("const" = Self::OPERATIONAL)))]
    pub gateway: String,
    /// Version of the gateway.
    pub version: String,
    /// What it was built from.
    pub build: String,
    /// Seconds since the process started.
    pub uptime_seconds: f64,
    /// The store's breaker.
    pub circuit_breaker: CircuitBreaker,
    /// The routable services. The predecessor shows the same object under two names.
    pub cache: CacheStatus,
    /// The routable services.
    pub service_discovery_cache: CacheStatus,
    /// Results of health checks.
    pub health_cache: HealthCacheStatus,
    /// Every service with its instances, sorted by name.
    pub services: Vec<ServiceStatus>,
    /// The host names that endpoints use, and how resolving them goes.
    pub names: Vec<NameStatus>,
    /// Where registrations are persisted.
    pub store: StoreStatus,
    /// The gateway processes that share a registry, this one included.
    pub replicas: Vec<ReplicaStatus>,
    /// The routing table.
    pub snapshot: SnapshotStatus,
    /// Whether leases end as they should.
    #[serde(default)]
    pub leases: LeaseStatus,
    /// The configuration.
    #[serde(default)]
    pub config: ConfigStatus,
    /// Where this process listens.
    #[serde(default)]
    pub listeners: ListenerStatus,
}

/// Addresses as `ip:port`, with the ports that were picked.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ListenerStatus {
    /// Data plane.
    pub gateway: Vec<String>,
    /// Data plane, HTTP/2 without TLS.
    pub gateway_h2c: Vec<String>,
    /// Data plane, TLS.
    pub gateway_tls: Vec<String>,
    /// Registry.
    pub registry: Vec<String>,
    /// Registry, TLS.
    pub registry_tls: Vec<String>,
}

/// The configuration in force, and what came of the last attempt to change it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ConfigStatus {
    /// The file it was read from; `null` when there is none.
    pub file: Option<String>,
    /// Counts up with every reload that changed something; 1 at the start.
    pub generation: u64,
    /// Since when it is in force, in seconds since 1970.
    pub since: f64,
    /// The last reload; `null` when there was none.
    pub last_reload: Option<ReloadStatus>,
    /// Keys that have changed and hold until a restart.
    pub restart_needed: Vec<String>,
}

/// What came of a reload.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ReloadStatus {
    /// When, in seconds since 1970.
    pub at: f64,
    /// Whether the configuration was good. If not, nothing has changed.
    pub success: bool,
    /// Its mistakes, each with its place.
    pub errors: Vec<String>,
}

/// The answer to `POST /gateway/reload`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Reloaded {
    /// Whether something is another way now.
    #[cfg_attr(feature = "schema", schemars(extend("enum" = [Self::CHANGED, Self::UNCHANGED])))]
    pub message: String,
    /// Counts up with every reload that changed something; 1 at the start.
    pub generation: u64,
    /// Keys that have changed and hold until a restart.
    pub restart_needed: Vec<String>,
}

impl Reloaded {
    /// Another configuration is in force.
    pub const CHANGED: &str = "Configuration reloaded";
    /// It says what the one before said.
    pub const UNCHANGED: &str = "Nothing to change";
}

/// Leases, and whether they are believed. When most instances fall silent at once, nobody lapses: they are held and probed.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct LeaseStatus {
    /// Whether a mass lapse is suspected.
    pub holding: bool,
    /// Since when, in seconds since 1970; `null` while it is not.
    pub since: Option<f64>,
    /// Registered instances.
    pub instances: u64,
    /// Of these, not renewed in the last half of their TTL.
    pub silent: u64,
    /// Of these, past their deadline and held.
    pub held: u64,
    /// Of these, held before and given one more TTL to be renewed.
    pub on_grace: u64,
    /// Of the instances, past their deadline and probed, because another replica may have renewed them and the store is away.
    pub stale: u64,
}

/// A host name in use.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct NameStatus {
    /// The name.
    pub name: String,
    /// The last good answer; empty while there was none.
    pub addresses: Vec<String>,
    /// Why the last look-up failed; `null` when it did not.
    pub error: Option<String>,
}

impl GatewayStatus {
    /// The predecessor's word.
    pub const OPERATIONAL: &str = "operational";
}

/// The store's breaker; with the embedded store always closed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct CircuitBreaker {
    /// Whether the store is being left alone.
    pub open: bool,
    /// Failures in a row.
    pub failures: u32,
    /// How many of them open it.
    pub threshold: u32,
    /// When it opened, in seconds since 1970; `null` while closed.
    pub opened_at: Option<f64>,
}

impl CircuitBreaker {
    /// Failures in a row that open the store's breaker.
    pub const THRESHOLD: u32 = 3;

    /// A breaker that lets everything through.
    #[must_use]
    pub const fn closed() -> Self {
        Self { open: false, failures: 0, threshold: Self::THRESHOLD, opened_at: None }
    }
}

/// The routable services, seen as the cache that the predecessor had.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct CacheStatus {
    /// How many there are.
    pub size: u64,
    /// How many there may be; `null` when nothing limits them.
    pub max_size: Option<u64>,
    /// Length of a lease in seconds.
    pub ttl: f64,
    /// Their names, sorted.
    pub services: Vec<String>,
}

/// The in-process layer of the health-check cache.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct HealthCacheStatus {
    /// Results held now.
    pub size: u64,
    /// How many may be held.
    pub max_size: u64,
    /// How long a result is used, in seconds.
    pub ttl: f64,
    /// Checks answered from the cache.
    pub hits: u64,
    /// Checks that had to ask the service.
    pub misses: u64,
    /// Hits among all checks, 0 to 1; 0 before the first.
    pub hit_rate: f64,
}

/// One service.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ServiceStatus {
    /// The service.
    #[cfg_attr(feature = "schema", schemars(schema_with = "schema::service_name"))]
    pub service_name: String,
    /// Whether ejections and failed probes are ignored, because too few instances are left.
    #[serde(default)]
    pub panic: bool,
    /// Its instances.
    pub instances: Vec<InstanceStatus>,
}

/// One instance as the data plane sees it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct InstanceStatus {
    /// Identity within the service.
    #[cfg_attr(feature = "schema", schemars(schema_with = "schema::instance_id"))]
    pub instance_id: String,
    /// Its URL.
    #[cfg_attr(feature = "schema", schemars(schema_with = "schema::endpoint"))]
    pub endpoint: String,
    /// What it says of its own health.
    #[cfg_attr(feature = "schema", schemars(schema_with = "schema::status"))]
    pub status: String,
    /// State of its breaker: `closed`, `open` or `half_open`.
    #[cfg_attr(feature = "schema", schemars(schema_with = "schema::breaker"))]
    pub breaker: String,
    /// Socket addresses in use; empty while its name does not resolve.
    pub addresses: Vec<String>,
    /// Requests on their way now.
    pub in_flight: u64,
    /// Smoothed latency in milliseconds.
    pub ewma_ms: f64,
    /// Whether its lease is over and it is held.
    #[serde(default)]
    pub held: bool,
    /// For how many seconds more it is ejected, because it did worse than the others; 0 when it is not.
    #[serde(default)]
    pub ejected_seconds: f64,
    /// Whether it passes its active probes; `null` before the first one, and where there are none.
    #[serde(default)]
    pub probe_passed: Option<bool>,
    /// The part of its share of traffic that it gets now, 0.1 to 1: less than 1 while it starts slowly.
    #[serde(default = "whole")]
    pub share: f64,
}

const fn whole() -> f64 {
    1.0
}

/// Where registrations are persisted.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct StoreStatus {
    /// `embedded`, `redis` or `memory`.
    #[cfg_attr(feature = "schema", schemars(extend("enum" = ["embedded", "redis", "memory"])))]
    pub kind: String,
    /// The file or directory; `null` when there is none.
    pub path: Option<String>,
    /// Whether a registration made now would survive this process.
    pub healthy: bool,
    /// Why not, for people; `null` when there is nothing to say.
    pub detail: Option<String>,
    /// More about Redis; `null` when it is not used.
    pub redis: Option<RedisStatus>,
}

/// The Redis store, seen from one replica.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct RedisStatus {
    /// The server that is written to; `null` when there is none now.
    pub address: Option<String>,
    /// Whether the changes of other replicas are followed as they happen.
    pub following: bool,
    /// Changes that wait to be written.
    pub pending: u64,
    /// Seconds since everything was last compared with what is held here; `null` before the first time.
    pub compared_seconds_ago: Option<f64>,
}

/// One gateway process.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ReplicaStatus {
    /// Its name.
    pub replica_id: String,
    /// Where it runs; `null` when it did not say.
    pub zone: Option<String>,
    /// Whether it is the process that answers.
    pub local: bool,
    /// Its release; `null` when it did not say.
    pub version: Option<String>,
    /// Seconds since it was last heard of.
    pub seen_seconds_ago: f64,
}

/// The routing table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct SnapshotStatus {
    /// Grows by one with each published table.
    pub generation: u64,
}

/// Answer of `GET /gateway/health-check/{service}`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct HealthCheck {
    /// The service.
    #[cfg_attr(feature = "schema", schemars(schema_with = "schema::service_name"))]
    pub service_name: String,
    /// URL of the instance that was asked.
    pub service_url: String,
    /// Whether it answered 2xx in time.
    pub healthy: bool,
    /// Its answer; 503 when there was none.
    pub status_code: u16,
    /// How long this check took, in milliseconds.
    pub response_time_ms: f64,
    /// Whether the result comes from a cache.
    pub cached: bool,
    /// Which cache; `null` when it was asked just now.
    pub cache_layer: Option<CacheLayer>,
    /// When it was asked, in seconds since 1970.
    pub timestamp: f64,
}

/// A layer of the health-check cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum CacheLayer {
    /// This process.
    Local,
    /// The shared store.
    Redis,
}

/// Body of the `200` to `POST /gateway/drain/{name}`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Drained {
    /// What is so now: they drain, or drain no longer.
    #[cfg_attr(feature = "schema", schemars(extend("enum" = [Self::STARTED, Self::ENDED])))]
    pub message: String,
    /// The service.
    #[cfg_attr(feature = "schema", schemars(schema_with = "schema::service_name"))]
    pub service_name: String,
    /// The instances that were meant.
    pub instances: Vec<String>,
    /// How long they get no new requests; 0 when the drain was ended.
    pub seconds: f64,
}

impl Drained {
    /// The instances get no new requests.
    pub const STARTED: &str = "Draining";
    /// The instances get requests again, as far as their status allows.
    pub const ENDED: &str = "Drain ended";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn status() {
        let cache = CacheStatus { size: 1, max_size: None, ttl: 60.0, services: vec!["abc".into()] };
        let status = GatewayStatus {
            gateway: GatewayStatus::OPERATIONAL.into(),
            version: "0.1.0".into(),
            build: "abcdef0".into(),
            uptime_seconds: 2.5,
            circuit_breaker: CircuitBreaker::closed(),
            cache: cache.clone(),
            service_discovery_cache: cache,
            health_cache: HealthCacheStatus { size: 0, max_size: 10_000, ttl: 5.0, hits: 3, misses: 1, hit_rate: 0.75 },
            services: vec![ServiceStatus {
                service_name: "abc".into(),
                panic: false,
                instances: vec![InstanceStatus {
                    instance_id: "a:80".into(),
                    endpoint: "http://a".into(),
                    status: "healthy".into(),
                    breaker: "closed".into(),
                    addresses: vec!["10.0.0.1:80".into()],
                    in_flight: 0,
                    ewma_ms: 1.25,
                    held: false,
                    ejected_seconds: 0.0,
                    probe_passed: Some(true),
                    share: 1.0,
                }],
            }],
            names: vec![NameStatus { name: "a".into(), addresses: vec!["10.0.0.1".into()], error: None }],
            store: StoreStatus {
                kind: "embedded".into(),
                path: Some("./vertice-data".into()),
                healthy: true,
                detail: None,
                redis: None,
            },
            replicas: vec![ReplicaStatus {
                replica_id: "r1".into(),
                zone: None,
                local: true,
                version: None,
                seen_seconds_ago: 0.0,
            }],
            snapshot: SnapshotStatus { generation: 9 },
            leases: LeaseStatus { holding: true, since: Some(1.5), instances: 12, silent: 11, held: 10, on_grace: 0, stale: 0 },
            config: ConfigStatus {
                file: Some("v.toml".into()),
                generation: 2,
                since: 1.5,
                last_reload: Some(ReloadStatus { at: 2.5, success: false, errors: vec!["v.toml:1:1: no".into()] }),
                restart_needed: vec!["gateway.listen".into()],
            },
            listeners: ListenerStatus { gateway: vec!["0.0.0.0:8000".into()], ..ListenerStatus::default() },
        };
        let text = serde_json::to_string(&status).unwrap();
        assert_eq!(
            text,
            concat!(
                r#"{"gateway":"operational","version":"0.1.0","build":"abcdef0","uptime_seconds":2.5,"#,
                r#""circuit_breaker":{"open":false,"failures":0,"threshold":3,"opened_at":null},"#,
                r#""cache":{"size":1,"max_size":null,"ttl":60.0,"services":["abc"]},"#,
                r#""service_discovery_cache":{"size":1,"max_size":null,"ttl":60.0,"services":["abc"]},"#,
                r#""health_cache":{"size":0,"max_size":10000,"ttl":5.0,"hits":3,"misses":1,"hit_rate":0.75},"#,
                r#""services":[{"service_name":"abc","panic":false,"instances":[{"instance_id":"a:80","endpoint":"http://a","status":"healthy","#,
                r#""breaker":"closed","addresses":["10.0.0.1:80"],"in_flight":0,"ewma_ms":1.25,"held":false,"ejected_seconds":0.0,"probe_passed":true,"share":1.0}]}],"#,
                r#""names":[{"name":"a","addresses":["10.0.0.1"],"error":null}],"#,
                r#""store":{"kind":"embedded","path":"./vertice-data","healthy":true,"detail":null,"redis":null},"#,
                r#""replicas":[{"replica_id":"r1","zone":null,"local":true,"version":null,"seen_seconds_ago":0.0}],"snapshot":{"generation":9},"#,
                r#""leases":{"holding":true,"since":1.5,"instances":12,"silent":11,"held":10,"on_grace":0,"stale":0},"#,
                r#""config":{"file":"v.toml","generation":2,"since":1.5,"last_reload":{"at":2.5,"success":false,"#,
                r#""errors":["v.toml:1:1: no"]},"restart_needed":["gateway.listen"]},"#,
                r#""listeners":{"gateway":["0.0.0.0:8000"],"gateway_h2c":[],"gateway_tls":[],"registry":[],"registry_tls":[]}}"#
            )
        );
        assert_eq!(serde_json::from_str::<GatewayStatus>(&text).unwrap(), status);
    }

    #[test]
    fn health_check() {
        let check = HealthCheck {
            service_name: "abc".into(),
            service_url: "http://a".into(),
            healthy: true,
            status_code: 200,
            response_time_ms: 1.5,
            cached: false,
            cache_layer: None,
            timestamp: 1_700_000_000.5,
        };
        assert_eq!(
            serde_json::to_string(&check).unwrap(),
            r#"{"service_name":"abc","service_url":"http://a","healthy":true,"status_code":200,"response_time_ms":1.5,"cached":false,"cache_layer":null,"timestamp":1700000000.5}"#
        );
        assert_eq!(serde_json::to_string(&Some(CacheLayer::Local)).unwrap(), r#""local""#);
    }
}
