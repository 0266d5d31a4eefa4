//! The wire contract of the Vértice Gateway: every path, header name and JSON body, each written once.
//!
//! Both sides use it: the gateway serialises the answers and the client reads them; the client serialises the requests.
//! The gateway does *not* deserialise [`RegisterRequest`]: it must name every bad field at once, so it walks the JSON
//! itself with the names in [`register::field`].
//!
//! With the feature `schema` every body can describe itself as JSON Schema; only the gateway asks for it.
//!
//! **Invariant:** this crate knows serde and nothing else (and schemars, when described). It holds no rule (what is a valid name, which reason belongs to
//! which status): those live in `vertice-core`, whose words arrive here as strings.

pub mod gateway;
pub mod headers;
pub mod health;
pub mod heartbeat;
pub mod paths;
pub mod problem;
pub mod register;
#[cfg(feature = "schema")]
pub mod schema;
pub mod service;

pub use gateway::{
    CacheLayer, CacheStatus, CircuitBreaker, GatewayStatus, HealthCacheStatus, HealthCheck, InstanceStatus, NameStatus,
    RedisStatus, ReplicaStatus, ServiceStatus, SnapshotStatus, StoreStatus,
};
pub use health::{Component, Components, Health, Readiness, Redis};
pub use heartbeat::{HeartbeatReceived, HeartbeatRequest};
pub use problem::{FieldError, Problem};
pub use register::{Deregistered, RegisterRequest, Registered};
pub use service::{Instance, ServiceInfo};
