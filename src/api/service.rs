//! `GET /services` and `GET /services/{name}`.
//!
//! Without options the list is a plain sorted array of names; with `detail=1` it is an array of [`ServiceInfo`].

use std::collections::BTreeMap;

#[cfg(feature = "schema")]
use crate::schema;
use serde::{Deserialize, Serialize};

/// One service: the flat fields are those of its best instance, as the predecessor's clients expect them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ServiceInfo {
    /// The service.
    #[cfg_attr(feature = "schema", schemars(schema_with = "schema::service_name"))]
    pub service_name: String,
    /// URL of the best instance.
    #[cfg_attr(feature = "schema", schemars(schema_with = "schema::endpoint"))]
    pub endpoint: String,
    /// Path of its health check.
    #[cfg_attr(feature = "schema", schemars(schema_with = "schema::health_endpoint"))]
    pub health_endpoint: String,
    /// Its metadata.
    #[serde(default)]
    #[cfg_attr(feature = "schema", schemars(schema_with = "schema::metadata"))]
    pub metadata: BTreeMap<String, String>,
    /// When it was last registered, in seconds since 1970.
    pub registered_at: f64,
    /// When it was last heard of, in seconds since 1970.
    pub last_heartbeat: f64,
    /// Whole seconds left of its lease.
    pub ttl_remaining: u64,
    /// All instances. The predecessor sends none.
    #[serde(default)]
    pub instances: Vec<Instance>,
    /// Index of the registry at the time of the answer.
    #[serde(default)]
    pub index: u64,
}

/// One instance of a service.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Instance {
    /// Identity within the service.
    #[cfg_attr(feature = "schema", schemars(schema_with = "schema::instance_id"))]
    pub instance_id: String,
    /// Its URL.
    #[cfg_attr(feature = "schema", schemars(schema_with = "schema::endpoint"))]
    pub endpoint: String,
    /// Path of its health check.
    #[cfg_attr(feature = "schema", schemars(schema_with = "schema::health_endpoint"))]
    pub health_endpoint: String,
    /// Strings by name.
    #[serde(default)]
    #[cfg_attr(feature = "schema", schemars(schema_with = "schema::metadata"))]
    pub metadata: BTreeMap<String, String>,
    /// Share of the traffic compared with the other instances.
    #[cfg_attr(feature = "schema", schemars(schema_with = "schema::weight"))]
    pub weight: u16,
    /// Where it runs; `null` when it did not say.
    #[cfg_attr(feature = "schema", schemars(schema_with = "schema::zone_or_null"))]
    pub zone: Option<String>,
    /// Which version it runs; `null` when it did not say.
    #[cfg_attr(feature = "schema", schemars(schema_with = "schema::version_or_null"))]
    pub version: Option<String>,
    /// What it says of its own health: `starting`, `healthy`, `degraded`, `unhealthy` or `draining`.
    #[cfg_attr(feature = "schema", schemars(schema_with = "schema::status"))]
    pub status: String,
    /// State of its breaker: `closed`, `open` or `half_open`.
    #[cfg_attr(feature = "schema", schemars(schema_with = "schema::breaker"))]
    pub breaker: String,
    /// When it was last registered, in seconds since 1970.
    pub registered_at: f64,
    /// When it was last heard of, in seconds since 1970.
    pub last_heartbeat: f64,
    /// Whole seconds left of its lease.
    pub ttl_remaining: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn instance() -> Instance {
        Instance {
            instance_id: "osint:8049".into(),
            endpoint: "http://osint:8049".into(),
            health_endpoint: "/health".into(),
            metadata: [("version".into(), "1.0.0".into())].into(),
            weight: 100,
            zone: None,
            version: Some("1.0.0".into()),
            status: "healthy".into(),
            breaker: "closed".into(),
            registered_at: 1_700_000_000.0,
            last_heartbeat: 1_700_000_030.25,
            ttl_remaining: 60,
        }
    }

    #[test]
    fn a_service_is_flat_and_lists_its_instances() {
        let instance = instance();
        let info = ServiceInfo {
            service_name: "osint_service".into(),
            endpoint: instance.endpoint.clone(),
            health_endpoint: instance.health_endpoint.clone(),
            metadata: instance.metadata.clone(),
            registered_at: instance.registered_at,
            last_heartbeat: instance.last_heartbeat,
            ttl_remaining: instance.ttl_remaining,
            instances: vec![instance],
            index: 7,
        };
        let text = serde_json::to_string(&info).unwrap();
        assert_eq!(
            text,
            concat!(
                r#"{"service_name":"osint_service","endpoint":"http://osint:8049","health_endpoint":"/health","#,
                r#""metadata":{"version":"1.0.0"},"registered_at":1700000000.0,"last_heartbeat":1700000030.25,"ttl_remaining":60,"#,
                r#""instances":[{"instance_id":"osint:8049","endpoint":"http://osint:8049","health_endpoint":"/health","#,
                r#""metadata":{"version":"1.0.0"},"weight":100,"zone":null,"version":"1.0.0","status":"healthy","breaker":"closed","#,
                r#""registered_at":1700000000.0,"last_heartbeat":1700000030.25,"ttl_remaining":60}],"index":7}"#
            )
        );
        assert_eq!(serde_json::from_str::<ServiceInfo>(&text).unwrap(), info);
    }

    #[test]
    fn the_predecessors_answer_is_read() {
        let info: ServiceInfo = serde_json::from_str(
            r#"{"service_name":"abc","endpoint":"http://a","health_endpoint":"/health","metadata":{},"registered_at":1.5,"last_heartbeat":2,"ttl_remaining":3}"#,
        )
        .unwrap();
        assert!(info.instances.is_empty());
        assert_eq!(info.last_heartbeat, 2.0);
    }
}
