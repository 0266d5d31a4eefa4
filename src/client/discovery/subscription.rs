//! Hearing of changes.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use vertice_core::name::ServiceName;

use super::cache::Answer;
use super::handle::{DiscoveryError, Handle};
use super::service::Service;
use super::shared::Questions;

/// Tells what has become of a service: first how it is, then each time it is different from the last telling. Changes that
/// follow each other faster than they are heard are told as one. A heartbeat is no change.
#[derive(Debug)]
pub struct Subscription {
    handle: Arc<Handle>,
    name: ServiceName,
    /// Revision of what was told last.
    told: u64,
}

impl Subscription {
    pub(crate) const fn new(handle: Arc<Handle>, name: ServiceName) -> Self {
        Self { handle, name, told: 0 }
    }

    /// The service.
    #[must_use]
    pub const fn name(&self) -> &ServiceName {
        &self.name
    }

    /// Waits for a change, at most this long. `None` when there was none. A service that is gone is an error
    /// ([`DiscoveryError::NotRegistered`], unless there is a fallback), and a change like any other: go on waiting.
    pub fn wait(&mut self, at_most: Duration) -> Option<Result<Service, DiscoveryError>> {
        let (name, told) = (&self.name, self.told);
        let (answer, revision) = self.handle.shared.wait(at_most, |questions| news(questions, name, told))?;
        self.told = revision;
        Some(self.handle.judge(&self.name, answer))
    }

    /// [`Subscription::wait`] as a future, without an end. Dropping it loses no change.
    pub fn changed(&mut self) -> Changed<'_> {
        Changed { subscription: self, waker: None }
    }
}

/// A change that is waited for. See [`Subscription::changed`].
#[derive(Debug)]
#[must_use = "futures do nothing unless polled"]
pub struct Changed<'a> {
    subscription: &'a mut Subscription,
    waker: Option<u64>,
}

impl Future for Changed<'_> {
    type Output = Result<Service, DiscoveryError>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        let Subscription { handle, name, told } = this.subscription;
        let found = handle.shared.poll(&mut this.waker, context, |questions| news(questions, name, *told));
        found.map(|(answer, revision)| {
            *told = revision;
            handle.judge(name, answer)
        })
    }
}

impl Drop for Changed<'_> {
    fn drop(&mut self) {
        self.subscription.handle.shared.forget(self.waker.take());
    }
}

/// What the registry says, when that is something else than what was told. Its absence is not news.
fn news(questions: &mut Questions<'_>, name: &ServiceName, told: u64) -> Option<(Answer, u64)> {
    let (answer, revision) = questions.look(name);
    match answer {
        Answer::Present(_) | Answer::Absent if revision != told => Some((answer, revision)),
        // Not asked for yet, or forgotten among too many others.
        Answer::Unasked => {
            questions.ask(name);
            None
        }
        _ => None,
    }
}
