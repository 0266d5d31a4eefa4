//! A counter that one thread raises and another waits for: how a test steps a scripted service forward.

use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use super::PATIENCE;

/// Shared by the test and the script.
#[derive(Clone, Default)]
pub(crate) struct Gate {
    inner: Arc<(Mutex<u64>, Condvar)>,
}

impl Gate {
    /// A gate nobody has passed.
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// Lets one more through.
    pub(crate) fn open(&self) {
        self.add(1);
    }

    /// Raises the counter.
    pub(crate) fn add(&self, by: u64) {
        *self.inner.0.lock().unwrap() += by;
        self.inner.1.notify_all();
    }

    /// How often it was opened.
    pub(crate) fn count(&self) -> u64 {
        *self.inner.0.lock().unwrap()
    }

    /// Waits until it was opened `count` times; tells whether that happened within `limit`.
    pub(crate) fn reached_within(&self, count: u64, limit: Duration) -> bool {
        let guard = self.inner.0.lock().unwrap();
        let (guard, _) = self.inner.1.wait_timeout_while(guard, limit, |seen| *seen < count).unwrap();
        *guard >= count
    }

    /// Waits until it was opened `count` times; fails the test after [`PATIENCE`].
    pub(crate) fn wait(&self, count: u64) {
        assert!(self.reached_within(count, PATIENCE), "gate stayed at {} of {count}", self.count());
    }
}
