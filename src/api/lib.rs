//! The wire contract of the Vértice Gateway: every path, header name and JSON body, each written once.
//!
//! Both sides use it: the gateway serialises the answers and the client reads them; the client serialises the requests.
//! The gateway does *not* deserialise [`RegisterRequest`]: it must name every bad field at once, so it walks the JSON
//! itself with the names in [`register::field`].
//!
//! **Invariant:** this crate knows serde and nothing else. It holds no rule (what is a valid name, which reason belongs to
//! which status): those live in `vertice-core`, whose words arrive here as strings.

pub mod gateway;
pub mod headers;
pub mod health;
pub mod heartbeat;
pub mod paths;
pub mod problem;
pub mod register;
pub mod service;

pub use gateway::{
    CacheLayer, CacheStatus, CircuitBreaker, GatewayStatus, HealthCacheStatus, HealthCheck, InstanceStatus, NameStatus,
    ReplicaStatus, ServiceStatus, SnapshotStatus, StoreStatus,
};
pub use health::{Component, Components, Health, Redis};
pub use heartbeat::{HeartbeatReceived, HeartbeatRequest};
pub use problem::{FieldError, Problem};
pub use register::{Deregistered, RegisterRequest, Registered};
pub use service::{Instance, ServiceInfo};
