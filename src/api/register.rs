//! `POST /register` and `DELETE /deregister/{name}`.

use std::collections::BTreeMap;

#[cfg(feature = "schema")]
use crate::schema;
use serde::{Deserialize, Serialize};

/// Names of the request's fields.
pub mod field {
    /// Which service this is an instance of; required.
    pub const SERVICE_NAME: &str = "service_name";
    /// The instance's URL; required.
    pub const ENDPOINT: &str = "endpoint";
    /// Path of the health check.
    pub const HEALTH_ENDPOINT: &str = "health_endpoint";
    /// Strings by name.
    pub const METADATA: &str = "metadata";
    /// Identity within the service.
    pub const INSTANCE_ID: &str = "instance_id";
    /// Length of the lease in seconds.
    pub const TTL: &str = "ttl";
    /// Share of the traffic.
    pub const WEIGHT: &str = "weight";
    /// Where the instance runs.
    pub const ZONE: &str = "zone";
    /// Which version the instance runs.
    pub const VERSION: &str = "version";
    /// Words to select services by.
    pub const TAGS: &str = "tags";
    /// What the instance says of its own health.
    pub const STATUS: &str = "status";
}

/// The health path of a registration that names none.
pub const DEFAULT_HEALTH_ENDPOINT: &str = "/health";

/// Body of `POST /register`.
// What is absent or empty is not sent, except `metadata`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct RegisterRequest {
    /// Which service this is an instance of.
    #[cfg_attr(feature = "schema", schemars(schema_with = "schema::service_name"))]
    pub service_name: String,
    /// `http://host[:port][/prefix]` or `https://…`.
    #[cfg_attr(feature = "schema", schemars(schema_with = "schema::endpoint"))]
    pub endpoint: String,
    /// Path of the health check on the endpoint.
    #[serde(default = "default_health_endpoint")]
    #[cfg_attr(feature = "schema", schemars(schema_with = "schema::health_endpoint_or_null"))]
    pub health_endpoint: String,
    /// Strings by name, for display and selection.
    #[serde(default)]
    #[cfg_attr(feature = "schema", schemars(schema_with = "schema::metadata_or_null"))]
    pub metadata: BTreeMap<String, String>,
    /// Identity within the service. Without one it is the registrant's address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schemars(schema_with = "schema::instance_id_or_null"))]
    pub instance_id: Option<String>,
    /// Length of the lease in seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schemars(schema_with = "schema::ttl_or_null"))]
    pub ttl: Option<u64>,
    /// Share of the traffic compared with the other instances.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schemars(schema_with = "schema::weight_or_null"))]
    pub weight: Option<u16>,
    /// Where the instance runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schemars(schema_with = "schema::zone_or_null"))]
    pub zone: Option<String>,
    /// Which version the instance runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schemars(schema_with = "schema::version_or_null"))]
    pub version: Option<String>,
    /// Words to select services by.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[cfg_attr(feature = "schema", schemars(schema_with = "schema::tags_or_null"))]
    pub tags: Vec<String>,
    /// What the instance says of its own health.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schemars(schema_with = "schema::status_or_null"))]
    pub status: Option<String>,
}

fn default_health_endpoint() -> String {
    DEFAULT_HEALTH_ENDPOINT.to_owned()
}

/// Body of the `201` to `POST /register`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Registered {
    /// The predecessor's sentence.
    #[serde(default)]
    #[cfg_attr(feature = "schema", schemars(extend("const" = Self::MESSAGE)))]
    pub message: String,
    /// The service.
    #[cfg_attr(feature = "schema", schemars(schema_with = "schema::service_name"))]
    pub service_name: String,
    /// The identity under which the instance is known from now on. The predecessor sends none.
    #[serde(default)]
    #[cfg_attr(feature = "schema", schemars(schema_with = "schema::instance_id"))]
    pub instance_id: String,
    /// Length of the lease in seconds.
    #[serde(default)]
    pub ttl: u64,
    /// Whether the registration would survive this process now.
    #[serde(default)]
    pub durable: bool,
    /// `false` while the endpoint's name has no address yet; otherwise absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schemars(extend("const" = false)))]
    pub resolved: Option<bool>,
}

impl Registered {
    /// The predecessor's sentence.
    pub const MESSAGE: &str = "Service registered successfully";

    /// The answer for an instance whose endpoint has an address, or (`resolved` false) has none yet.
    #[must_use]
    pub fn new(
        service_name: impl Into<String>,
        instance_id: impl Into<String>,
        ttl: u64,
        durable: bool,
        resolved: bool,
    ) -> Self {
        Self {
            message: Self::MESSAGE.to_owned(),
            service_name: service_name.into(),
            instance_id: instance_id.into(),
            ttl,
            durable,
            resolved: (!resolved).then_some(false),
        }
    }
}

/// Body of the `200` to `DELETE /deregister/{name}`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Deregistered {
    /// The predecessor's sentence.
    #[cfg_attr(feature = "schema", schemars(extend("const" = Self::MESSAGE)))]
    pub message: String,
    /// The service.
    pub service_name: String,
}

impl Deregistered {
    /// The predecessor's sentence.
    pub const MESSAGE: &str = "Service deregistered";

    /// The answer, whether or not there was something to deregister.
    #[must_use]
    pub fn new(service_name: impl Into<String>) -> Self {
        Self { message: Self::MESSAGE.to_owned(), service_name: service_name.into() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_minimal_request_is_what_the_predecessor_sends() {
        let request = RegisterRequest {
            service_name: "osint_service".into(),
            endpoint: "http://osint:8049".into(),
            health_endpoint: "/health".into(),
            metadata: [("version", "1.0.0"), ("status", "healthy")].map(|(k, v)| (k.into(), v.into())).into(),
            ..RegisterRequest::default()
        };
        assert_eq!(
            serde_json::to_string(&request).unwrap(),
            r#"{"service_name":"osint_service","endpoint":"http://osint:8049","health_endpoint":"/health","metadata":{"status":"healthy","version":"1.0.0"}}"#
        );
    }

    #[test]
    fn a_full_request_names_every_field_once() {
        let request = RegisterRequest {
            service_name: "abc".into(),
            endpoint: "http://a".into(),
            health_endpoint: "/h".into(),
            metadata: BTreeMap::new(),
            instance_id: Some("a:80".into()),
            ttl: Some(30),
            weight: Some(100),
            zone: Some("z".into()),
            version: Some("1".into()),
            tags: vec!["x".into()],
            status: Some("healthy".into()),
        };
        let text = serde_json::to_string(&request).unwrap();
        assert_eq!(
            text,
            r#"{"service_name":"abc","endpoint":"http://a","health_endpoint":"/h","metadata":{},"instance_id":"a:80","ttl":30,"weight":100,"zone":"z","version":"1","tags":["x"],"status":"healthy"}"#
        );
        let object: serde_json::Map<String, serde_json::Value> = serde_json::from_str(&text).unwrap();
        for name in [
            field::SERVICE_NAME,
            field::ENDPOINT,
            field::HEALTH_ENDPOINT,
            field::METADATA,
            field::INSTANCE_ID,
            field::TTL,
            field::WEIGHT,
            field::ZONE,
            field::VERSION,
            field::TAGS,
            field::STATUS,
        ] {
            assert!(object.contains_key(name), "{name}");
        }
        assert_eq!(object.len(), 11);
        assert_eq!(serde_json::from_str::<RegisterRequest>(&text).unwrap(), request);
    }

    #[test]
    fn defaults_of_a_request() {
        let request: RegisterRequest =
            serde_json::from_str(r#"{"service_name":"abc","endpoint":"http://a","surplus":1}"#).unwrap();
        assert_eq!(request.health_endpoint, "/health");
        assert!(request.metadata.is_empty() && request.tags.is_empty());
    }

    #[test]
    fn answers() {
        assert_eq!(
            serde_json::to_string(&Registered::new("abc", "a:80", 60, true, true)).unwrap(),
            r#"{"message":"Service registered successfully","service_name":"abc","instance_id":"a:80","ttl":60,"durable":true}"#
        );
        assert_eq!(
            serde_json::to_string(&Registered::new("abc", "a:80", 60, false, false)).unwrap(),
            r#"{"message":"Service registered successfully","service_name":"abc","instance_id":"a:80","ttl":60,"durable":false,"resolved":false}"#
        );
        assert_eq!(
            serde_json::to_string(&Deregistered::new("abc")).unwrap(),
            r#"{"message":"Service deregistered","service_name":"abc"}"#
        );
    }
}
