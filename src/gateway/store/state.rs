//! How the store is doing, for those who show it.

use super::redis::RedisState;
use parking_lot::Mutex;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// How the store is doing, for `/health` and status.
#[derive(Debug)]
pub struct StoreState {
    /// `embedded`, `redis` or `memory`.
    pub kind: &'static str,
    /// Where it is, if anywhere.
    pub path: Option<String>,
    /// Whether it was asked for and could not be had, or lost records; shown for as long as the process lives.
    pub trouble: Option<String>,
    /// Whether acknowledged writes survive the process.
    pub is_durable: bool,
    failing: AtomicBool,
    last_error: Mutex<Option<String>>,
    redis: Option<Arc<RedisState>>,
}

impl StoreState {
    /// A store that works, as far as is known.
    #[must_use]
    pub fn new(kind: &'static str, path: Option<String>, is_durable: bool, trouble: Option<String>) -> Self {
        Self { kind, path, trouble, is_durable, failing: AtomicBool::new(false), last_error: Mutex::default(), redis: None }
    }

    /// The store that replicas share.
    #[must_use]
    pub fn shared(redis: Arc<RedisState>) -> Self {
        Self { redis: Some(redis), ..Self::new("redis", None, true, None) }
    }

    /// The details, when replicas share it.
    #[must_use]
    pub const fn redis(&self) -> Option<&Arc<RedisState>> {
        self.redis.as_ref()
    }

    /// Whether writes succeed and nothing went wrong at the start.
    #[must_use]
    pub fn is_healthy(&self) -> bool {
        let is_in_step = self.redis.as_ref().is_none_or(|redis| redis.is_following() && redis.trouble_hearing().is_none());
        self.trouble.is_none() && is_in_step && !self.failing.load(Ordering::Relaxed)
    }

    /// What is wrong, if anything is.
    #[must_use]
    pub fn detail(&self) -> Option<String> {
        if let Some(redis) = self.redis.as_ref().filter(|redis| !redis.is_following()) {
            let what = if redis.is_connected() { "comparing with Redis" } else { "Redis is away" };
            return Some(redis.last_error().map_or_else(|| what.to_owned(), |error| format!("{what}: {error}")));
        }
        if let Some(trouble) = self.redis.as_ref().and_then(|redis| redis.trouble_hearing()) {
            return Some(format!("what other replicas do is only found by comparing: {trouble}"));
        }
        self.last_error.lock().clone().filter(|_| self.failing.load(Ordering::Relaxed)).or_else(|| self.trouble.clone())
    }

    pub(super) fn note(&self, error: Option<String>) {
        let was_failing = self.failing.swap(error.is_some(), Ordering::Relaxed);
        match &error {
            Some(error) if !was_failing => tracing::error!(%error, "store not writable; changes are kept and tried again"),
            None if was_failing => tracing::info!("store writable again"),
            _ => {}
        }
        if error.is_some() {
            *self.last_error.lock() = error;
        }
    }
}
