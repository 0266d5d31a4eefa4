//! Connections to instances that wait for their next request, one pool for each worker.
//!
//! A worker's connections are its own thread's, so that taking and giving back needs no lock. What was used last is taken first:
//! that is the one least likely to be closed by its instance, and those that are not needed any more run out of time.

use crate::clock;
use foldhash::quality::RandomState;
use rustix::io::Errno;
use rustix::net::{RecvFlags, recv};
use std::cell::RefCell;
use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::net::TcpStream;
use vertice_core::time::Moment;

/// Connections that wait, to one address.
const PER_ADDRESS_MAX: usize = 1024;

/// Connections that wait, all together.
const ALL_MAX: usize = 4096;

/// How often those are closed whose time is over, or whose instance has closed them.
const SWEEP: Duration = Duration::from_secs(1);

thread_local! {
    static POOL: RefCell<Pool> = RefCell::new(Pool::default());
}

#[derive(Debug, Default)]
struct Pool {
    waiting: HashMap<SocketAddr, Vec<Waiting>, RandomState>,
    count: usize,
    /// Somebody looks after it.
    is_swept: bool,
}

/// A connection to an instance.
#[derive(Debug)]
pub(super) struct Upstream {
    pub(super) socket: TcpStream,
    /// The latest answer over it was a large one: so may be the next.
    pub(super) says_much: bool,
}

#[derive(Debug)]
struct Waiting {
    upstream: Upstream,
    until: Moment,
}

/// A connection to that address which may be used. Whether its instance has closed it, or spoken out of turn, is known to the
/// runtime as of when it last looked; `ask_kernel` tells whether that is to be asked, too, for a system call.
#[must_use]
pub(super) fn take(address: SocketAddr, now: Moment, ask_kernel: bool) -> Option<Upstream> {
    POOL.with(|pool| pool.borrow_mut().take(address, now, ask_kernel))
}

/// Keeps a connection until then. `false` when there are too many: it is closed.
pub(super) fn keep(address: SocketAddr, upstream: Upstream, until: Moment) -> bool {
    let (is_kept, wants_sweeper) = POOL.with(|pool| {
        let mut pool = pool.borrow_mut();
        let is_kept = pool.keep(address, Waiting { upstream, until });
        (is_kept, is_kept && !std::mem::replace(&mut pool.is_swept, true))
    });
    if wants_sweeper {
        tokio::spawn(sweep());
    }
    is_kept
}

/// As long as something waits. On the worker's own runtime, which has this one thread.
async fn sweep() {
    loop {
        tokio::time::sleep(SWEEP).await;
        if POOL.with(|pool| pool.borrow_mut().sweep(clock::mono())) {
            return;
        }
    }
}

impl Pool {
    fn take(&mut self, address: SocketAddr, now: Moment, ask_kernel: bool) -> Option<Upstream> {
        let waiting = self.waiting.get_mut(&address)?;
        while let Some(last) = waiting.pop() {
            self.count -= 1;
            if last.is_usable(now, ask_kernel) {
                return Some(last.upstream);
            }
        }
        None
    }

    fn keep(&mut self, address: SocketAddr, waiting: Waiting) -> bool {
        let of_address = self.waiting.entry(address).or_default();
        let has_room = of_address.len() < PER_ADDRESS_MAX && self.count < ALL_MAX;
        if has_room {
            of_address.push(waiting);
            self.count += 1;
        }
        has_room
    }

    /// Closes what is of no more use. Whether nothing is left, and nobody looks after it any more.
    fn sweep(&mut self, now: Moment) -> bool {
        self.waiting.retain(|_, of_address| {
            of_address.retain(|waiting| waiting.is_usable(now, false));
            !of_address.is_empty()
        });
        self.count = self.waiting.values().map(Vec::len).sum();
        self.is_swept = self.count > 0;
        !self.is_swept
    }
}

impl Waiting {
    /// Whether its time is not over, and nothing came: whatever an instance sends now is no answer.
    fn is_usable(&self, now: Moment, ask_kernel: bool) -> bool {
        let socket = &self.upstream.socket;
        let is_silent = || socket.try_read(&mut [0]).is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock);
        let has_nothing = || recv(socket, &mut [0], RecvFlags::PEEK | RecvFlags::DONTWAIT) == Err(Errno::AGAIN);
        now < self.until && is_silent() && (!ask_kernel || has_nothing())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::AsyncWriteExt;
    use tokio::net::TcpListener;

    async fn connection() -> (SocketAddr, TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let ours = TcpStream::connect(address).await.unwrap();
        (address, ours, listener.accept().await.unwrap().0)
    }

    fn waiting(socket: TcpStream, until: u64) -> Waiting {
        Waiting { upstream: Upstream { socket, says_much: false }, until: Moment::from_millis(until) }
    }

    #[tokio::test]
    async fn the_last_one_is_taken_first_and_none_too_late() {
        let (address, first, _first) = connection().await;
        let (_, second, _second) = connection().await;
        let last = second.local_addr().unwrap();
        let mut pool = Pool::default();
        assert!(pool.keep(address, waiting(first, 100)) && pool.keep(address, waiting(second, 200)));
        assert!(pool.take("127.0.0.1:1".parse().unwrap(), Moment::ZERO, false).is_none());
        assert_eq!(pool.take(address, Moment::from_millis(50), false).unwrap().socket.local_addr().unwrap(), last);
        assert!(pool.take(address, Moment::from_millis(100), false).is_none());
        assert_eq!(pool.count, 0);
    }

    #[tokio::test]
    async fn what_an_instance_has_closed_or_spoken_on_is_not_taken() {
        let (address, closed, instance) = connection().await;
        let (_, spoken, mut other) = connection().await;
        let (_, fine, _fine) = connection().await;
        // The runtime has not looked for news since.
        drop(instance);
        other.write_all(b"HTTP/1.1 408 Too Late\r\n\r\n").await.unwrap();
        let mut pool = Pool::default();
        for socket in [fine, closed, spoken] {
            assert!(pool.keep(address, waiting(socket, 100)));
        }
        assert!(pool.take(address, Moment::ZERO, true).is_some() && pool.take(address, Moment::ZERO, true).is_none());
    }

    #[tokio::test]
    async fn a_sweep_leaves_what_may_still_be_used() {
        let (address, first, _first) = connection().await;
        let (other, second, _second) = connection().await;
        let mut pool = Pool::default();
        assert!(pool.keep(address, waiting(first, 100)) && pool.keep(other, waiting(second, 200)));
        assert!(!pool.sweep(Moment::from_millis(100)));
        assert_eq!((pool.count, pool.waiting.len()), (1, 1));
        assert!(pool.sweep(Moment::from_millis(200)) && pool.waiting.is_empty() && !pool.is_swept);
    }
}
