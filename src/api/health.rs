//! `GET /health` and `GET /readyz`.

#[cfg(feature = "schema")]
use crate::schema;
use serde::{Deserialize, Serialize};

/// How the process is. The HTTP status is 503 only while it drains or cannot serve.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Health {
    /// `healthy` or `degraded`.
    #[cfg_attr(feature = "schema", schemars(extend("enum" = ["healthy", "degraded"])))]
    pub status: String,
    /// The Redis store.
    pub redis: Redis,
    /// The store's breaker: `closed`, `open` or `half_open`.
    #[cfg_attr(feature = "schema", schemars(schema_with = "schema::breaker"))]
    pub circuit_breaker: String,
    /// How many services are registered.
    pub active_services: u64,
    /// Seconds since the process started.
    pub uptime_seconds: f64,
    /// What the verdict is made of.
    pub components: Components,
}

/// How the Redis store is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum Redis {
    /// Answers.
    Healthy,
    /// Answers, but something is not as it should be.
    Degraded,
    /// Configured and not usable.
    Unhealthy,
    /// Not configured.
    Disabled,
}

/// The parts of the process; all of them are always there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Components {
    /// The Redis store.
    pub redis: Component,
    /// The store in use.
    pub store: Component,
    /// Resolution of endpoints given as names.
    pub dns: Component,
    /// Leases and their expiry.
    pub leases: Component,
}

/// One part.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Component {
    /// One word: `healthy`, `degraded`, `unhealthy` or `disabled`.
    #[cfg_attr(feature = "schema", schemars(extend("enum" = ["healthy", "degraded", "unhealthy", "disabled"])))]
    pub status: String,
    /// Why, for people; absent when there is nothing to say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
}

/// Answer of `GET /readyz`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Readiness {
    /// `ready` with status 200, `draining` with 503.
    #[cfg_attr(feature = "schema", schemars(extend("enum" = [Self::READY, Self::DRAINING])))]
    pub status: String,
}

impl Readiness {
    /// Traffic may be sent here.
    pub const READY: &str = "ready";
    /// The process is on its way out.
    pub const DRAINING: &str = "draining";

    /// The answer.
    #[must_use]
    pub fn new(is_draining: bool) -> Self {
        Self { status: if is_draining { Self::DRAINING } else { Self::READY }.to_owned() }
    }
}

impl Component {
    /// A part that is as it should be.
    #[must_use]
    pub fn healthy() -> Self {
        Self { status: "healthy".into(), detail: None }
    }

    /// A part that is not as it should be, and why.
    #[must_use]
    pub fn new(status: impl Into<String>, detail: impl Into<String>) -> Self {
        Self { status: status.into(), detail: Some(detail.into()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readiness() {
        assert_eq!(serde_json::to_string(&Readiness::new(false)).unwrap(), r#"{"status":"ready"}"#);
        assert_eq!(serde_json::to_string(&Readiness::new(true)).unwrap(), r#"{"status":"draining"}"#);
    }

    #[test]
    fn bytes() {
        let health = Health {
            status: "degraded".into(),
            redis: Redis::Disabled,
            circuit_breaker: "closed".into(),
            active_services: 3,
            uptime_seconds: 1.5,
            components: Components {
                redis: Component { status: "disabled".into(), detail: None },
                store: Component::new("degraded", "disk is full"),
                dns: Component::healthy(),
                leases: Component::healthy(),
            },
        };
        let text = serde_json::to_string(&health).unwrap();
        assert_eq!(
            text,
            concat!(
                r#"{"status":"degraded","redis":"disabled","circuit_breaker":"closed","active_services":3,"uptime_seconds":1.5,"#,
                r#""components":{"redis":{"status":"disabled"},"store":{"status":"degraded","detail":"disk is full"},"#,
                r#""dns":{"status":"healthy"},"leases":{"status":"healthy"}}}"#
            )
        );
        assert_eq!(serde_json::from_str::<Health>(&text).unwrap(), health);
    }
}
