//! Watches over silent instances.
//!
//! Pingora has one read timeout for an answer's head, its body and a tunnel, and it runs while the client is still
//! uploading. We promise more: the first byte within its own bound once the request has been sent, later bytes within
//! another, the whole request within a third, and no blame for an instance whose client stalls. So each attempt carries a
//! [`Watch`]: a moment by which something must have happened, moved forward by a plain store whenever it does. A sweeper
//! looks at all watches now and then, and shuts the socket down where the moment has passed; the lane then sees a broken
//! connection and finds [`Watch::has_fired`].
//!
//! With HTTP/2 the connection is not the attempt's alone; there the request's [`Leash`] is pulled instead, and so it is where
//! no descriptor is left for a duplicate of the socket.
//!
//! While the client is slow to take an answer, nobody passes on what the instance sends, which is no silence of its: its bytes
//! wait in the lane's queue, where nobody sees them, or in the socket, where the sweeper does.

use crate::leash::Leash;
use parking_lot::Mutex;
use std::io;
use std::net::{Shutdown, TcpStream};
use std::os::fd::{BorrowedFd, RawFd};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;
use vertice_core::time::Moment;

/// How often the sweeper looks: timeouts are late by at most this.
pub const SWEEP: Duration = Duration::from_millis(50);

/// How much longer an instance has whose answer was waiting for a client that did not take it.
const AFTER_WRITE_MS: u64 = 1000;

/// How an attempt is ended.
#[derive(Debug)]
enum Target {
    /// A duplicate of the connection's socket: shutting it down can never hit another connection, even when the lane has
    /// closed its own descriptor and the number was given away again.
    Socket(TcpStream),
    /// The connection carries other requests, too: the leash is pulled.
    Shared,
}

/// One attempt's deadline.
#[derive(Debug)]
pub struct Watch {
    target: Target,
    /// Of the request, which tells whether its client takes what it is sent.
    leash: Arc<Leash>,
    due_ms: AtomicU64,
    end_ms: AtomicU64,
    fired: AtomicBool,
}

impl Watch {
    /// The instance must have sent something by then.
    pub fn expect_by(&self, due: Moment) {
        self.due_ms.store(due.millis(), Ordering::Relaxed);
    }

    /// Nothing is expected of the instance for now.
    pub fn pause(&self) {
        self.due_ms.store(u64::MAX, Ordering::Relaxed);
    }

    /// The attempt may last for ever.
    pub fn lift_end(&self) {
        self.end_ms.store(u64::MAX, Ordering::Relaxed);
    }

    /// Whether the connection was shut down because nothing happened.
    #[must_use]
    pub fn has_fired(&self) -> bool {
        self.fired.load(Ordering::Acquire)
    }

    fn check(&self, now: Moment) {
        let has_passed = |at_ms: &AtomicU64| now.millis() >= at_ms.load(Ordering::Relaxed);
        let is_over = has_passed(&self.end_ms) || (has_passed(&self.due_ms) && self.is_silent(now));
        if is_over && !self.fired.swap(true, Ordering::AcqRel) {
            match &self.target {
                // It may be closed already, which is as good.
                Target::Socket(socket) => drop(socket.shutdown(Shutdown::Both)),
                Target::Shared => self.leash.pull(),
            }
        }
    }

    /// Whether nothing waits to be read or passed on: no byte, no end, no error.
    fn is_silent(&self, now: Moment) -> bool {
        if self.leash.is_writing() {
            // As long as the client takes nothing nobody passes anything on. Once it does, the lane needs a moment to get there.
            self.due_ms.store(now.millis() + AFTER_WRITE_MS, Ordering::Relaxed);
            return false;
        }
        match &self.target {
            // The lane's socket does not block, nor does a duplicate.
            Target::Socket(socket) => socket.peek(&mut [0]).is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock),
            Target::Shared => true,
        }
    }
}

/// A bound in whole milliseconds, never early: whoever is ended by it finds it passed.
const fn in_full(moment: Moment) -> u64 {
    moment.nanos().div_ceil(1_000_000)
}

const SHARDS: usize = 16;

/// All watches. An attempt that is over drops its watch; the sweeper forgets it at its next round, so the lists are bounded
/// by the requests in flight and those finished since.
#[derive(Debug, Default)]
pub struct Watchdog {
    shards: [Mutex<Vec<Weak<Watch>>>; SHARDS],
    next: AtomicUsize,
}

impl Watchdog {
    /// Watches over the connection behind `fd`, which must be open during the call: the attempt is over at `end`, and nothing
    /// is expected of the instance yet.
    #[must_use]
    pub fn watch(&self, fd: RawFd, leash: Arc<Leash>, end: Moment) -> Arc<Watch> {
        match duplicate(fd) {
            Some(socket) => self.watch_socket(socket, leash, end),
            None => self.watch_shared(leash, end),
        }
    }

    /// Watches over the connection that `socket` is a duplicate of.
    #[must_use]
    pub fn watch_socket(&self, socket: TcpStream, leash: Arc<Leash>, end: Moment) -> Arc<Watch> {
        leash.let_go();
        self.watch_target(Target::Socket(socket), leash, end)
    }

    /// Watches over an attempt on a connection that others share: instead of the connection, the request's `leash` is pulled.
    #[must_use]
    pub fn watch_shared(&self, leash: Arc<Leash>, end: Moment) -> Arc<Watch> {
        leash.take();
        self.watch_target(Target::Shared, leash, end)
    }

    fn watch_target(&self, target: Target, leash: Arc<Leash>, end: Moment) -> Arc<Watch> {
        let (due_ms, end_ms) = (AtomicU64::new(u64::MAX), AtomicU64::new(in_full(end)));
        let watch = Arc::new(Watch { target, leash, due_ms, end_ms, fired: AtomicBool::new(false) });
        let shard = self.next.fetch_add(1, Ordering::Relaxed) % SHARDS;
        self.shards[shard].lock().push(Arc::downgrade(&watch));
        watch
    }

    /// Looks at every watch once.
    pub fn sweep(&self, now: Moment) {
        for shard in &self.shards {
            shard.lock().retain(|watch| {
                watch.upgrade().is_some_and(|watch| {
                    watch.check(now);
                    true
                })
            });
        }
    }
}

/// A second handle of the socket; none when there is no socket, or no descriptor is left.
fn duplicate(fd: RawFd) -> Option<TcpStream> {
    if fd < 0 {
        return None;
    }
    #[expect(unsafe_code, reason = "Pingora lends the descriptor for the duration of the call; it is duplicated at once")]
    // SAFETY: the caller has the descriptor from `connected_to_upstream`, which holds the connection while it runs.
    let borrowed = unsafe { BorrowedFd::borrow_raw(fd) };
    Some(TcpStream::from(borrowed.try_clone_to_owned().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::net::TcpListener;
    use std::os::fd::AsRawFd;

    /// Our end of a connection, as the lane has it, and the instance's.
    fn connection() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let ours = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        ours.set_nonblocking(true).unwrap();
        (ours, listener.accept().unwrap().0)
    }

    const NEVER: Moment = Moment::from_nanos(u64::MAX);

    #[test]
    fn a_silent_connection_is_shut_down_and_a_lively_one_is_not() {
        let ((mut silent, _silent), (lively, _lively)) = (connection(), connection());
        let dog = Watchdog::default();
        let watch = |stream: &TcpStream| dog.watch(stream.as_raw_fd(), Arc::default(), NEVER);
        let (silent_watch, lively_watch) = (watch(&silent), watch(&lively));
        dog.sweep(Moment::from_millis(1_000_000));
        assert!(!silent_watch.has_fired(), "nothing was expected of it");
        silent_watch.expect_by(Moment::from_millis(100));
        lively_watch.expect_by(Moment::from_millis(100));
        dog.sweep(Moment::from_millis(99));
        assert!(!silent_watch.has_fired());
        lively_watch.expect_by(Moment::from_millis(500));
        dog.sweep(Moment::from_millis(100));
        assert!(silent_watch.has_fired() && !lively_watch.has_fired());
        assert_eq!(silent.read(&mut [0; 1]).unwrap(), 0);
        lively_watch.pause();
        dog.sweep(Moment::from_millis(1_000_000));
        assert!(!lively_watch.has_fired());
        drop((silent_watch, lively_watch));
        dog.sweep(Moment::ZERO);
        assert!(dog.shards.iter().all(|shard| shard.lock().is_empty()));
    }

    #[test]
    fn bytes_that_nobody_reads_are_no_silence_but_the_end_is_the_end() {
        let (ours, mut instance) = connection();
        let dog = Watchdog::default();
        let watch = dog.watch(ours.as_raw_fd(), Arc::default(), Moment::from_millis(1000));
        watch.expect_by(Moment::from_millis(100));
        instance.write_all(b"x").unwrap();
        while watch.is_silent(Moment::ZERO) {}
        dog.sweep(Moment::from_millis(999));
        assert!(!watch.has_fired());
        let other = dog.watch(ours.as_raw_fd(), Arc::default(), Moment::from_millis(1000));
        other.lift_end();
        dog.sweep(Moment::from_millis(1000));
        assert!(watch.has_fired() && !other.has_fired());
    }

    #[test]
    fn without_a_descriptor_the_leash_is_pulled_and_the_next_attempt_lets_it_go() {
        let (dog, leash) = (Watchdog::default(), Arc::<Leash>::default());
        let is_pulled = || leash.poll_pulled(&std::task::Context::from_waker(std::task::Waker::noop())).is_ready();
        let watch = dog.watch(-1, leash.clone(), NEVER);
        watch.expect_by(Moment::from_millis(100));
        dog.sweep(Moment::from_millis(100));
        assert!(watch.has_fired() && is_pulled());
        let (ours, _instance) = connection();
        let _next = dog.watch(ours.as_raw_fd(), leash.clone(), NEVER);
        assert!(!is_pulled());
    }

    #[test]
    fn an_instance_is_not_silent_while_its_client_takes_nothing() {
        let ((ours, _instance), dog, leash) = (connection(), Watchdog::default(), Arc::<Leash>::default());
        let watch = dog.watch(ours.as_raw_fd(), leash.clone(), NEVER);
        watch.expect_by(Moment::from_millis(100));
        leash.set_writing(true);
        dog.sweep(Moment::from_millis(100));
        leash.set_writing(false);
        dog.sweep(Moment::from_millis(99 + AFTER_WRITE_MS));
        assert!(!watch.has_fired());
        dog.sweep(Moment::from_millis(100 + AFTER_WRITE_MS));
        assert!(watch.has_fired());
    }

    #[test]
    fn a_shared_connection_is_left_alone_and_a_client_that_takes_nothing_is_no_silence() {
        let (dog, leash) = (Watchdog::default(), Arc::<Leash>::default());
        let watch = dog.watch_shared(leash.clone(), NEVER);
        let is_pulled = || leash.poll_pulled(&std::task::Context::from_waker(std::task::Waker::noop())).is_ready();
        watch.expect_by(Moment::from_millis(100));
        leash.set_writing(true);
        dog.sweep(Moment::from_millis(100));
        leash.set_writing(false);
        dog.sweep(Moment::from_millis(101));
        assert!(!watch.has_fired() && !is_pulled());
        dog.sweep(Moment::from_millis(100 + AFTER_WRITE_MS));
        assert!(watch.has_fired() && is_pulled());
    }
}
