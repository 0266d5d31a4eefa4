//! `POST /heartbeat`.

use std::collections::BTreeMap;

#[cfg(feature = "schema")]
use crate::schema;
use serde::{Deserialize, Serialize};

/// Body of `POST /heartbeat`.
// What is absent is not sent; the field names are those of `register::field`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct HeartbeatRequest {
    /// The service.
    #[cfg_attr(feature = "schema", schemars(schema_with = "schema::service_name"))]
    pub service_name: String,
    /// Which instance; without one, the caller's own registration.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schemars(schema_with = "schema::instance_id_or_null"))]
    pub instance_id: Option<String>,
    /// What the instance says of its own health now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schemars(schema_with = "schema::status_or_null"))]
    pub status: Option<String>,
    /// Replaces the metadata of the registration.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schemars(schema_with = "schema::metadata_or_null"))]
    pub metadata: Option<BTreeMap<String, String>>,
}

/// Body of the `200` to `POST /heartbeat`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct HeartbeatReceived {
    /// The predecessor's sentence.
    #[cfg_attr(feature = "schema", schemars(extend("const" = Self::MESSAGE)))]
    pub message: String,
    /// The service.
    #[cfg_attr(feature = "schema", schemars(schema_with = "schema::service_name"))]
    pub service_name: String,
}

impl HeartbeatReceived {
    /// The predecessor's sentence.
    pub const MESSAGE: &str = "Heartbeat received";

    /// The answer.
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
        let request = HeartbeatRequest { service_name: "osint_service".into(), ..HeartbeatRequest::default() };
        assert_eq!(serde_json::to_string(&request).unwrap(), r#"{"service_name":"osint_service"}"#);
    }

    #[test]
    fn a_full_request() {
        let request = HeartbeatRequest {
            service_name: "abc".into(),
            instance_id: Some("a:80".into()),
            status: Some("degraded".into()),
            metadata: Some(BTreeMap::new()),
        };
        assert_eq!(
            serde_json::to_string(&request).unwrap(),
            r#"{"service_name":"abc","instance_id":"a:80","status":"degraded","metadata":{}}"#
        );
    }

    #[test]
    fn answer() {
        assert_eq!(
            serde_json::to_string(&HeartbeatReceived::new("abc")).unwrap(),
            r#"{"message":"Heartbeat received","service_name":"abc"}"#
        );
    }
}
