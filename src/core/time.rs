//! Time as an argument.

use std::time::Duration;

/// A point on the process's monotonic clock, in nanoseconds since an origin that only the shell knows.
///
/// It never crosses a process boundary: what other machines hear is *remaining time*, never a timestamp.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Moment(u64);

impl Moment {
    /// The origin.
    pub const ZERO: Self = Self(0);

    /// The moment `nanos` nanoseconds after the origin.
    #[must_use]
    pub const fn from_nanos(nanos: u64) -> Self {
        Self(nanos)
    }

    /// The moment `millis` milliseconds after the origin.
    #[must_use]
    pub const fn from_millis(millis: u64) -> Self {
        Self(millis.saturating_mul(1_000_000))
    }

    /// Nanoseconds since the origin.
    #[must_use]
    pub const fn nanos(self) -> u64 {
        self.0
    }

    /// Whole milliseconds since the origin.
    #[must_use]
    pub const fn millis(self) -> u64 {
        self.0 / 1_000_000
    }

    /// This moment moved into the future; stops at the end of the clock (584 years).
    #[must_use]
    pub fn plus(self, duration: Duration) -> Self {
        let nanos = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        Self(self.0.saturating_add(nanos))
    }

    /// This moment moved into the past; stops at the origin.
    #[must_use]
    pub fn minus(self, duration: Duration) -> Self {
        let nanos = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        Self(self.0.saturating_sub(nanos))
    }

    /// How long after `earlier` this is; zero when it is not after.
    #[must_use]
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

/// A span in whole seconds, rounded up: whoever comes back after so many is not early. Fractions of a millisecond do not count.
#[must_use]
pub fn seconds_up(span: Duration) -> u32 {
    u32::try_from(span.as_millis().div_ceil(1000)).unwrap_or(u32::MAX)
}

/// Both clocks at once: the monotonic one decides, the wall one is only shown to people.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Now {
    /// Decides leases, breakers and everything else.
    pub mono: Moment,
    /// Milliseconds since the Unix epoch, for `registered_at`, `last_heartbeat` and logs.
    pub wall_ms: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_seconds_are_rounded_up() {
        let up = |millis| seconds_up(Duration::from_millis(millis));
        assert_eq!([up(0), up(1), up(1000), up(1001), up(86_400_000)], [0, 1, 1, 2, 86_400]);
        assert_eq!(seconds_up(Duration::MAX), u32::MAX);
    }
}
