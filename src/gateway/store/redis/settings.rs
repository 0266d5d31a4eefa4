//! What the Redis store is told at its start.

use crate::config::RedisSettings;
use std::time::Duration;
use vertice_core::record::ReplicaId;

/// Who we are, and where Redis is.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where Redis is.
    pub redis: RedisSettings,
    /// This process.
    pub me: ReplicaId,
    /// What people call it.
    pub replica_id: String,
    /// Where it runs.
    pub zone: Option<String>,
    /// The lease of an instance that a predecessor registered.
    pub lease_ttl: Duration,
}
