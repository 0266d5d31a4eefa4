//! Watches over silent instances.
//!
//! Pingora has one read timeout for an answer's head, its body and a tunnel, and it runs while the client is still
//! uploading. We promise more: the first byte within its own bound once the request has been sent, later bytes within
//! another, the whole request within a third, and no blame for an instance whose client stalls. So each attempt carries a
//! [`Watch`]: a moment by which something must have happened, moved forward by a plain store whenever it does. A sweeper
//! looks at all watches now and then, and shuts the socket down where the moment has passed; the lane then sees a broken
//! connection and finds [`Watch::has_fired`].
//!
//! The attempt pays for little of that: it leaves its deadline, and the number and the addresses of its connection. Only where
//! a moment has passed does the sweeper look for the socket behind them. The lane may have closed it by then and its number may
//! be another's, so what it finds must have the same two ends.
//!
//! With HTTP/2 the connection is not the attempt's alone; there the request's [`Leash`] is pulled instead, and so it is where
//! no descriptor is left to hold the socket with.
//!
//! While the client is slow to take an answer, nobody passes on what the instance sends, which is no silence of its: its bytes
//! wait in the lane's queue, where nobody sees them, or in the socket, where the sweeper does.

use crate::leash::Leash;
use parking_lot::Mutex;
use socket2::{SockAddr, SockRef};
use std::io;
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::ops::Deref;
use std::os::fd::{AsFd, BorrowedFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;
use vertice_core::time::Moment;

/// How often the sweeper looks: timeouts are late by at most this.
pub const SWEEP: Duration = Duration::from_millis(50);

/// How much longer an instance has whose answer was waiting for a client that did not take it.
const AFTER_WRITE_MS: u64 = 1000;

/// Where to find the socket of a connection that the lane holds.
#[derive(Clone, Copy, Debug)]
pub struct Line {
    /// Its number, as long as the connection is open.
    pub fd: RawFd,
    /// Our end.
    pub local: SocketAddr,
    /// The instance's end.
    pub peer: SocketAddr,
}

impl Line {
    /// A second handle of the socket; none when the connection has been closed, or no descriptor is left.
    fn open(&self) -> Option<TcpStream> {
        #[expect(unsafe_code, reason = "the number of a descriptor that another thread may close meanwhile")]
        // SAFETY: it is asked for its addresses and duplicated, both of which do nothing to whatever else has that number now;
        // where it is closed they fail. What is kept is the duplicate, and only when that has the connection's addresses.
        let borrowed = unsafe { BorrowedFd::borrow_raw(self.fd) };
        if !self.is_of(borrowed) {
            return None;
        }
        let socket = borrowed.try_clone_to_owned().ok()?;
        self.is_of(socket.as_fd()).then(|| TcpStream::from(socket))
    }

    fn is_of(&self, socket: BorrowedFd<'_>) -> bool {
        let socket = SockRef::from(&socket);
        let is = |address: io::Result<SockAddr>, ours| address.is_ok_and(|address| address.as_socket() == Some(ours));
        is(socket.local_addr(), self.local) && is(socket.peer_addr(), self.peer)
    }
}

/// How an attempt is ended.
#[derive(Debug)]
enum Target {
    /// The connection is shut down, when it is found, else the leash is pulled.
    Line(Line),
    /// A duplicate of the connection's socket.
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
        let is_over = has_passed(&self.end_ms);
        if !is_over && (!has_passed(&self.due_ms) || self.waits_for_client(now)) {
            return;
        }
        match &self.target {
            Target::Line(line) => self.end(line.open().as_ref(), is_over),
            Target::Socket(socket) => self.end(Some(socket), is_over),
            Target::Shared => self.end(None, is_over),
        }
    }

    /// Whether nobody passes anything on because the client takes nothing. Once it does, the lane needs a moment to get there.
    fn waits_for_client(&self, now: Moment) -> bool {
        let is_writing = self.leash.is_writing();
        if is_writing {
            self.due_ms.store(now.millis() + AFTER_WRITE_MS, Ordering::Relaxed);
        }
        is_writing
    }

    /// Ends the attempt, unless something waits to be read: a byte, an end, an error. When all of it `is_over`, that is too late.
    fn end(&self, socket: Option<&TcpStream>, is_over: bool) {
        // The lane's socket does not block, nor does a duplicate.
        let is_silent =
            |socket: &TcpStream| socket.peek(&mut [0]).is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock);
        if !(is_over || socket.is_none_or(is_silent)) || self.fired.swap(true, Ordering::AcqRel) {
            return;
        }
        match socket {
            // It may be closed already, which is as good.
            Some(socket) => drop(socket.shutdown(Shutdown::Both)),
            None => self.leash.pull(),
        }
    }
}

/// A bound in whole milliseconds, never early: whoever is ended by it finds it passed.
const fn in_full(moment: Moment) -> u64 {
    moment.nanos().div_ceil(1_000_000)
}

const SHARDS: usize = 16;

/// Places of watches; those that are free are listed, and taken before another is made.
#[derive(Debug, Default)]
struct Shard {
    places: Vec<Option<Arc<Watch>>>,
    free: Vec<usize>,
}

/// All watches, as many as there are attempts. Threads keep to lists of their own, as far as there are enough.
#[derive(Debug, Default)]
pub struct Watchdog {
    shards: [Arc<Mutex<Shard>>; SHARDS],
}

/// A watch that the sweeper looks at until this is dropped.
#[derive(Debug)]
pub struct Watched {
    watch: Arc<Watch>,
    shard: Arc<Mutex<Shard>>,
    place: usize,
}

impl Deref for Watched {
    type Target = Watch;

    fn deref(&self) -> &Watch {
        &self.watch
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        let mut shard = self.shard.lock();
        if let Some(place) = shard.places.get_mut(self.place) {
            *place = None;
            shard.free.push(self.place);
        }
    }
}

impl Watchdog {
    /// Watches over the connection at `line`, which is the attempt's alone: the attempt is over at `end`, and nothing is expected
    /// of the instance yet. Without a line there is only the `leash`.
    #[must_use]
    pub fn watch(&self, line: Option<Line>, leash: Arc<Leash>, end: Moment) -> Watched {
        leash.take();
        self.watch_target(line.map_or(Target::Shared, Target::Line), leash, end)
    }

    /// Watches over the connection that `socket` is a duplicate of.
    #[must_use]
    pub fn watch_socket(&self, socket: TcpStream, leash: Arc<Leash>, end: Moment) -> Watched {
        leash.let_go();
        self.watch_target(Target::Socket(socket), leash, end)
    }

    /// Watches over an attempt on a connection that others share: instead of the connection, the request's `leash` is pulled.
    #[must_use]
    pub fn watch_shared(&self, leash: Arc<Leash>, end: Moment) -> Watched {
        self.watch(None, leash, end)
    }

    fn watch_target(&self, target: Target, leash: Arc<Leash>, end: Moment) -> Watched {
        let (due_ms, end_ms) = (AtomicU64::new(u64::MAX), AtomicU64::new(in_full(end)));
        let watch = Arc::new(Watch { target, leash, due_ms, end_ms, fired: AtomicBool::new(false) });
        let shard = self.shards[own_shard()].clone();
        let mut places = shard.lock();
        let place = places.free.pop().unwrap_or(places.places.len());
        match places.places.get_mut(place) {
            Some(free) => *free = Some(watch.clone()),
            None => places.places.push(Some(watch.clone())),
        }
        drop(places);
        Watched { watch, shard, place }
    }

    /// Looks at every watch once.
    pub fn sweep(&self, now: Moment) {
        for shard in &self.shards {
            shard.lock().places.iter().flatten().for_each(|watch| watch.check(now));
        }
    }
}

/// The list of the thread.
fn own_shard() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local! {
        static OWN: usize = NEXT.fetch_add(1, Ordering::Relaxed) % SHARDS;
    }
    // A thread that ends has none of its own any more.
    OWN.try_with(|own| *own).unwrap_or(0)
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

    fn line(stream: &TcpStream) -> Option<Line> {
        Some(Line { fd: stream.as_raw_fd(), local: stream.local_addr().unwrap(), peer: stream.peer_addr().unwrap() })
    }

    const NEVER: Moment = Moment::from_nanos(u64::MAX);

    #[test]
    fn a_silent_connection_is_shut_down_and_a_lively_one_is_not() {
        let ((mut silent, _silent), (lively, _lively)) = (connection(), connection());
        let dog = Watchdog::default();
        let watch = |stream: &TcpStream| dog.watch(line(stream), Arc::default(), NEVER);
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
        assert!(dog.shards.iter().all(|shard| shard.lock().places.iter().all(Option::is_none)));
    }

    #[test]
    fn bytes_that_nobody_reads_are_no_silence_but_the_end_is_the_end() {
        let (ours, mut instance) = connection();
        let dog = Watchdog::default();
        let watch = dog.watch(line(&ours), Arc::default(), Moment::from_millis(1000));
        watch.expect_by(Moment::from_millis(100));
        instance.write_all(b"x").unwrap();
        while ours.peek(&mut [0]).is_err() {}
        dog.sweep(Moment::from_millis(999));
        assert!(!watch.has_fired());
        let other = dog.watch(line(&ours), Arc::default(), Moment::from_millis(1000));
        other.lift_end();
        dog.sweep(Moment::from_millis(1000));
        assert!(watch.has_fired() && !other.has_fired());
    }

    #[test]
    fn without_a_descriptor_the_leash_is_pulled_and_the_next_attempt_lets_it_go() {
        let (dog, leash) = (Watchdog::default(), Arc::<Leash>::default());
        let is_pulled = || leash.poll_pulled(&std::task::Context::from_waker(std::task::Waker::noop())).is_ready();
        let watch = dog.watch(None, leash.clone(), NEVER);
        watch.expect_by(Moment::from_millis(100));
        dog.sweep(Moment::from_millis(100));
        assert!(watch.has_fired() && is_pulled());
        let (ours, _instance) = connection();
        let _next = dog.watch(line(&ours), leash.clone(), NEVER);
        assert!(!is_pulled());
    }

    #[test]
    fn a_number_that_was_given_away_again_is_left_alone() {
        let ((ours, instance), (other, mut others), dog) = (connection(), connection(), Watchdog::default());
        let (leash, place) = (Arc::<Leash>::default(), Line { fd: other.as_raw_fd(), ..line(&ours).unwrap() });
        let watch = dog.watch(Some(place), leash.clone(), NEVER);
        watch.expect_by(Moment::from_millis(100));
        drop((ours, instance));
        dog.sweep(Moment::from_millis(100));
        let is_pulled = leash.poll_pulled(&std::task::Context::from_waker(std::task::Waker::noop())).is_ready();
        assert!(watch.has_fired() && is_pulled);
        (&other).write_all(b"x").unwrap();
        assert_eq!(others.read(&mut [0; 1]).unwrap(), 1);
    }

    #[test]
    fn places_are_used_again() {
        let dog = Watchdog::default();
        let watch = || dog.watch(None, Arc::default(), NEVER);
        let mut some: Vec<_> = (0..10).map(|_| watch()).collect();
        for _ in 0..100 {
            drop(some.remove(3));
            some.push(watch());
        }
        assert_eq!(dog.shards.iter().map(|shard| shard.lock().places.len()).sum::<usize>(), 10);
    }

    #[test]
    fn an_instance_is_not_silent_while_its_client_takes_nothing() {
        let ((ours, _instance), dog, leash) = (connection(), Watchdog::default(), Arc::<Leash>::default());
        let watch = dog.watch(line(&ours), leash.clone(), NEVER);
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
