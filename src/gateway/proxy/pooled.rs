//! A connection that has waited in a pool, before a request is put on it that can be sent only once.
//!
//! An instance closes connections that were idle for a while, and a request that is under way by then is lost. Pools give them up
//! before that; but they count from when this process read the last answer, until this process runs its timer, and neither
//! happens on time where many wait for a processor. The kernel knows both exactly: when the last byte came, and whether the
//! instance has closed its side. Asking costs 0.4 µs, so only requests pay for it that cannot be sent again.

use http::Method;
use std::time::Duration;

/// The kernel's number for a connection that neither side has closed.
const ESTABLISHED: u8 = 1;

/// Whether a request cannot be sent again for sure: it is not idempotent, or its body may be too large to be kept.
#[must_use]
pub fn is_sent_once(method: &Method, has_body: bool) -> bool {
    !method.is_idempotent() || has_body
}

/// Whether the instance has closed a connection in that state (`tcpi_state`), or may do so at any moment: its last byte came
/// `idle_ms` (`tcpi_last_data_recv`) ago, and a pool may keep it for `limit`.
#[must_use]
pub fn is_spent(state: u8, idle_ms: u32, limit: Option<Duration>) -> bool {
    state > ESTABLISHED || limit.is_some_and(|limit| Duration::from_millis(idle_ms.into()) >= limit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_closed_or_about_to_be_is_spent() {
        let limit = Some(Duration::from_secs(4));
        assert!(is_spent(8, 0, limit) && is_spent(ESTABLISHED, 4000, limit));
        assert!(!is_spent(ESTABLISHED, 3999, limit) && !is_spent(ESTABLISHED, u32::MAX, None));
        assert!(is_sent_once(&Method::POST, false) && is_sent_once(&Method::PUT, true) && !is_sent_once(&Method::GET, false));
    }
}
