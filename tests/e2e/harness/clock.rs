//! The only clock of the tests, and waiting for conditions.

use std::time::{Duration, Instant};

use super::PATIENCE;

/// The time now.
#[expect(clippy::disallowed_methods, reason = "the one place where the tests read a clock")]
pub(crate) fn now() -> Instant {
    Instant::now()
}

/// Seconds since 1970.
#[expect(clippy::disallowed_methods, reason = "the one place where the tests read a clock")]
pub(crate) fn epoch_s() -> f64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs_f64()
}

/// A short rest between two looks at a condition.
pub(crate) fn breathe() {
    std::thread::sleep(Duration::from_millis(10));
}

/// Asks `probe` until it gives a value; fails the test when it does not within [`PATIENCE`].
#[track_caller]
pub(crate) fn wait_for<T>(what: &str, probe: impl FnMut() -> Option<T>) -> T {
    wait_within(PATIENCE, what, probe)
}

/// The same, for what takes longer by its nature.
#[track_caller]
pub(crate) fn wait_within<T>(limit: Duration, what: &str, mut probe: impl FnMut() -> Option<T>) -> T {
    let start = now();
    loop {
        if let Some(value) = probe() {
            return value;
        }
        assert!(start.elapsed() < limit, "waited {limit:?} in vain for: {what}");
        breathe();
    }
}

/// Asks `probe` until it is true; fails the test when it does not become true within [`PATIENCE`].
#[track_caller]
pub(crate) fn eventually(what: &str, mut probe: impl FnMut() -> bool) {
    wait_for(what, || probe().then_some(()));
}
