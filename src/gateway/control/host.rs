//! Whether the host keeps up, told by how late our own timers fire.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use vertice_core::time::Moment;

/// A timer later than this means that the host is busy.
const LATE: Duration = Duration::from_millis(500);
/// For so long after the last late timer.
const REMEMBERED: Duration = Duration::from_secs(10);

/// The last late timer. A busy host is told, and nothing else: requests are still served.
#[derive(Debug, Default)]
pub struct Host {
    late_until_ms: AtomicU64,
}

impl Host {
    /// Notes how late a timer fired.
    pub fn note(&self, lateness: Duration, now: Moment) {
        if lateness >= LATE {
            self.late_until_ms.store(now.plus(REMEMBERED).millis(), Ordering::Relaxed);
        }
    }

    /// Whether a timer was late a short while ago.
    #[must_use]
    pub fn is_busy(&self, now: Moment) -> bool {
        now.millis() < self.late_until_ms.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_late_timer_is_remembered_for_ten_seconds() {
        let host = Host::default();
        host.note(Duration::from_millis(499), Moment::ZERO);
        assert!(!host.is_busy(Moment::ZERO));
        host.note(LATE, Moment::from_millis(1000));
        assert!(host.is_busy(Moment::from_millis(10_999)));
        assert!(!host.is_busy(Moment::from_millis(11_000)));
    }
}
