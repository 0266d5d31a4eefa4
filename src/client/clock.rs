//! The clocks of this crate; no other file reads one.
#![expect(clippy::disallowed_methods, reason = "the one file of this crate that reads clocks")]

use std::hash::{BuildHasher, RandomState};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Time since a start.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stopwatch(Instant);

impl Stopwatch {
    pub(crate) fn start() -> Self {
        Self(Instant::now())
    }

    pub(crate) fn elapsed(self) -> Duration {
        self.0.elapsed()
    }
}

/// Time since 1970; zero on a machine that believes to be older than that.
pub(crate) fn since_epoch() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// A number that differs from process to process: the key with which the standard library seeds its maps.
pub(crate) fn seed() -> u64 {
    RandomState::new().hash_one(0)
}
