//! Ends a request from outside, where no socket of its own could be shut down.
//!
//! A request to an instance that speaks HTTP/2 shares its connection with others, so a watch over it cannot end the
//! connection. It ends the other side instead: the next read of the client's request fails with [`Cut`], whereupon the
//! lane takes the request back from the instance. Each request has a leash; the accept room holds one end, and whatever
//! serves the request finds the other by [`Leash::current`].

use parking_lot::Mutex;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Waker};

tokio::task_local! {
    static CURRENT: Arc<Leash>;
}

/// Why a read failed: somebody pulled the leash.
#[derive(Debug, thiserror::Error)]
#[error("the request was given up")]
pub struct Cut;

impl From<Cut> for io::Error {
    fn from(cut: Cut) -> Self {
        Self::other(cut)
    }
}

/// See the module.
#[derive(Debug, Default)]
pub struct Leash {
    /// Somebody may pull it: readers ask.
    held: AtomicBool,
    cut: AtomicBool,
    /// The client is not taking what is being written to it.
    writing: AtomicBool,
    /// A client that closes its sending side is not taken for gone.
    half_close: AtomicBool,
    reader: Mutex<Option<Waker>>,
}

impl Leash {
    /// The leash of the request that the current task serves.
    #[must_use]
    pub fn current() -> Option<Arc<Self>> {
        CURRENT.try_with(Arc::clone).ok()
    }

    /// Runs `serving` with this leash as the current one.
    pub async fn hold<F: Future>(self: Arc<Self>, serving: F) -> F::Output {
        CURRENT.scope(self, serving).await
    }

    /// Another request begins, of which nothing is known yet. Who still holds on to the last one's leash keeps that.
    pub fn renew(leash: &mut Arc<Self>) {
        match Arc::get_mut(leash) {
            Some(own) => *own = Self::default(),
            None => *leash = Arc::default(),
        }
    }

    /// An attempt begins whose watch may pull the leash; what ended an earlier one does not end this one. Before that nobody
    /// may be reading the request.
    pub fn take(&self) {
        self.cut.store(false, Ordering::SeqCst);
        self.held.store(true, Ordering::SeqCst);
    }

    /// An attempt begins whose watch will not pull the leash; nor does what ended an earlier one.
    pub fn let_go(&self) {
        self.held.store(false, Ordering::SeqCst);
        self.cut.store(false, Ordering::SeqCst);
    }

    /// The next read of the request fails, also one that waits already.
    pub fn pull(&self) {
        self.cut.store(true, Ordering::SeqCst);
        let waiting = self.reader.lock().take();
        waiting.into_iter().for_each(Waker::wake);
    }

    /// Ready when the leash was pulled; the reader asks before each read.
    pub fn poll_pulled(&self, cx: &Context<'_>) -> Poll<Cut> {
        if !self.held.load(Ordering::Relaxed) {
            return Poll::Pending;
        }
        let mut reader = self.reader.lock();
        if !reader.as_ref().is_some_and(|known| known.will_wake(cx.waker())) {
            *reader = Some(cx.waker().clone());
        }
        drop(reader);
        // It may have been pulled before anybody was there to be woken.
        if self.cut.load(Ordering::SeqCst) { Poll::Ready(Cut) } else { Poll::Pending }
    }

    /// Notes whether bytes for the client wait because it does not take them.
    pub fn set_writing(&self, is_writing: bool) {
        self.writing.store(is_writing, Ordering::Relaxed);
    }

    /// Whether they do.
    #[must_use]
    pub fn is_writing(&self) -> bool {
        self.writing.load(Ordering::Relaxed)
    }

    /// From now on a client that closes its sending side is not taken for gone.
    pub fn allow_half_close(&self) {
        self.half_close.store(true, Ordering::Relaxed);
    }

    /// Whether that is so.
    #[must_use]
    pub fn allows_half_close(&self) -> bool {
        self.half_close.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::poll_fn;

    fn is_pulled(leash: &Leash) -> bool {
        leash.poll_pulled(&Context::from_waker(Waker::noop())).is_ready()
    }

    #[tokio::test]
    async fn a_waiting_read_learns_of_it_and_so_does_a_later_one() {
        assert!(Leash::current().is_none());
        let leash = Arc::<Leash>::default();
        leash.pull();
        assert!(!is_pulled(&leash), "nobody holds it");
        leash.take();
        let reading = tokio::spawn(leash.clone().hold(async {
            let own = Leash::current().unwrap();
            poll_fn(|cx| own.poll_pulled(cx)).await
        }));
        tokio::task::yield_now().await;
        leash.pull();
        assert_eq!(reading.await.unwrap().to_string(), "the request was given up");
        assert!(is_pulled(&leash));
        leash.take();
        assert!(!is_pulled(&leash));
    }

    #[test]
    fn the_next_request_finds_nothing_of_the_last_one() {
        let mut leash = Arc::<Leash>::default();
        leash.take();
        leash.pull();
        leash.allow_half_close();
        let place = Arc::as_ptr(&leash);
        Leash::renew(&mut leash);
        assert!(!is_pulled(&leash) && !leash.allows_half_close() && Arc::as_ptr(&leash) == place);
        let held = leash.clone();
        Leash::renew(&mut leash);
        assert!(!Arc::ptr_eq(&held, &leash));
    }
}
