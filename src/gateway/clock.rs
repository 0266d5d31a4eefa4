//! The only file that reads a clock.
//!
//! Everything else is told the time, so that it can be tested with any.

use std::sync::LazyLock;
use std::time::{Instant, SystemTime, UNIX_EPOCH};
use vertice_core::time::{Moment, Now};

static ORIGIN: LazyLock<Instant> = LazyLock::new(read);

/// The monotonic clock.
#[must_use]
pub fn mono() -> Moment {
    let nanos = read().saturating_duration_since(*ORIGIN).as_nanos();
    Moment::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
}

/// Milliseconds since the Unix epoch.
#[must_use]
pub fn wall_ms() -> u64 {
    #[expect(clippy::disallowed_methods, reason = "this is the file that reads clocks")]
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX)
}

/// Both clocks.
#[must_use]
pub fn now() -> Now {
    Now { mono: mono(), wall_ms: wall_ms() }
}

/// The moment as tokio's timers understand it.
#[must_use]
pub fn timer(moment: Moment) -> tokio::time::Instant {
    let since_origin = moment.since(Moment::ZERO);
    tokio::time::Instant::from_std(ORIGIN.checked_add(since_origin).unwrap_or_else(read))
}

#[expect(clippy::disallowed_methods, reason = "this is the file that reads clocks")]
fn read() -> Instant {
    Instant::now()
}
