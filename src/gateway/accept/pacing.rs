//! How fast a request's body comes, as the one who reads it sees it.

use std::io;
use std::time::Duration;

use tokio::time::Instant;
use vertice_core::pace::{Pace, PaceLimit};

/// Whether a request failed because its body kept coming, but too slowly: 408.
#[must_use]
pub fn is_slow_body(error: &pingora::Error) -> bool {
    let cause = error.root_cause().downcast_ref::<io::Error>();
    cause.and_then(io::Error::get_ref).is_some_and(|inner| inner.is::<SlowBody>())
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the body comes too slowly")]
struct SlowBody;

/// The pace of one body. It runs only while a reader of ours has found nothing to read: when nobody reads, because the instance
/// is slow to take what came before, the client is not waited for.
#[derive(Debug)]
pub struct Pacing {
    limit: PaceLimit,
    pace: Pace,
    waiting_since: Option<Instant>,
}

impl Pacing {
    /// At the first byte of the body.
    #[must_use]
    pub fn new(limit: PaceLimit) -> Self {
        Self { limit, pace: Pace::default(), waiting_since: None }
    }

    /// A reader waits from now on, unless one does already.
    pub fn wait(&mut self) {
        self.waiting_since.get_or_insert_with(Instant::now);
    }

    /// So many bytes have come, which ends the wait.
    ///
    /// # Errors
    /// When they have come too slowly; [`is_slow_body`] knows the error.
    pub fn came(&mut self, bytes: usize) -> io::Result<()> {
        let waited = self.waiting_since.take().map_or(Duration::ZERO, |since| since.elapsed());
        if self.pace.keeps_up(&self.limit, waited, bytes as u64) {
            return Ok(());
        }
        Err(io::Error::new(io::ErrorKind::TimedOut, SlowBody))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::time::advance;

    const LIMIT: PaceLimit = PaceLimit { bytes_per_second: 100, window: Duration::from_secs(30) };

    #[tokio::test(start_paused = true)]
    async fn only_the_time_of_a_waiting_reader_counts() {
        let mut pacing = Pacing::new(LIMIT);
        for _ in 0..100 {
            // Somebody is busy elsewhere.
            advance(Duration::from_secs(60)).await;
            pacing.wait();
            advance(Duration::from_millis(1)).await;
            pacing.wait();
            pacing.came(1).unwrap();
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_trickle_is_too_slow() {
        let mut pacing = Pacing::new(LIMIT);
        let mut seconds = 0;
        let error = loop {
            pacing.wait();
            advance(Duration::from_secs(1)).await;
            seconds += 1;
            if let Err(error) = pacing.came(10) {
                break error;
            }
        };
        assert!((30..=36).contains(&seconds), "{seconds} s");
        let error = pingora::Error::because(pingora::ErrorType::ReadError, "reading the body", error);
        assert!(is_slow_body(&error));
        let error = pingora::Error::because(pingora::ErrorType::ReadError, "x", io::Error::from(io::ErrorKind::TimedOut));
        assert!(!is_slow_body(&error));
    }
}
