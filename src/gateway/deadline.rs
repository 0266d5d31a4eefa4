//! A timer that is moved far more often than it fires.
//!
//! Every step of a request has a bound of its own, and nearly all end in time. So moving the bound is a plain store; the
//! runtime's timer stays where it was set until it fires, which is early by then, and is set anew only then, or when a bound
//! is nearer than it.

use crate::clock;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tokio::time::{Sleep, sleep_until};
use vertice_core::time::Moment;

/// See the module.
#[derive(Debug)]
pub struct Deadline {
    due: Moment,
    /// When the timer fires.
    armed: Moment,
    timer: Option<Pin<Box<Sleep>>>,
}

impl Default for Deadline {
    fn default() -> Self {
        Self { due: NEVER, armed: NEVER, timer: None }
    }
}

/// No bound.
pub const NEVER: Moment = Moment::from_nanos(u64::MAX);

impl Deadline {
    /// From now on the bound is `due`.
    pub const fn set(&mut self, due: Moment) {
        self.due = due;
    }

    /// Ready once the bound has passed; the task is woken for it.
    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.due == NEVER {
            return Poll::Pending;
        }
        loop {
            let timer = match &mut self.timer {
                Some(timer) => {
                    if self.due < self.armed {
                        timer.as_mut().reset(clock::timer(self.due));
                        self.armed = self.due;
                    }
                    timer
                }
                None => {
                    self.armed = self.due;
                    self.timer.insert(Box::pin(sleep_until(clock::timer(self.due))))
                }
            };
            ready!(timer.as_mut().poll(cx));
            if self.armed >= self.due {
                return Poll::Ready(());
            }
            timer.as_mut().reset(clock::timer(self.due));
            self.armed = self.due;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::poll_fn;
    use std::time::Duration;
    use tokio::time::timeout;

    async fn passes(deadline: &mut Deadline, after: Duration) -> Duration {
        let begun = clock::mono();
        deadline.set(begun.plus(after));
        poll_fn(|cx| deadline.poll(cx)).await;
        clock::mono().since(begun)
    }

    #[tokio::test]
    async fn it_passes_not_before_it_is_due_however_it_was_moved() {
        let mut deadline = Deadline::default();
        for after in [30, 5, 60, 1] {
            let after = Duration::from_millis(after);
            assert!(passes(&mut deadline, after).await >= after);
        }
        deadline.set(clock::mono().plus(Duration::from_secs(3600)));
        assert!(timeout(Duration::from_millis(5), poll_fn(|cx| deadline.poll(cx))).await.is_err());
        assert!(passes(&mut deadline, Duration::from_millis(5)).await < Duration::from_secs(60), "moved nearer");
        deadline.set(NEVER);
        assert!(timeout(Duration::from_millis(5), poll_fn(|cx| deadline.poll(cx))).await.is_err());
    }
}
