//! The threads that serve connections.
//!
//! Each has a runtime of its own, and a connection stays with the one that it was given to: what it touches with each request
//! (pools, buffers, timers) belongs to that thread alone, and no request wakes another thread. Connections are given out by
//! count, since two that keep a thread busy are worse than one on each of two, and nothing moves them later.

use std::future::poll_fn;
use std::io;
use std::net;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;

use super::drain::ListenGuard;

/// How long a thread may take to drop its connections at the end. Longer takes only one that is stuck.
const END_MAX: Duration = Duration::from_secs(5);

/// More connections than there can be: those of a worker that is no more.
const GONE: usize = usize::MAX / 2;

/// Serves one worker's connections.
pub trait Serve: Send + Sync + 'static {
    /// Serves a connection to its end. It must have counted the connection in its drain by the time it first waits: until
    /// then, the listener that it came from counts as open.
    fn serve(self: Arc<Self>, stream: TcpStream) -> impl Future<Output = ()> + Send;

    /// Accepting ran into the limit of that name.
    fn limit_hit(&self, limit: &'static str);
}

/// Threads that serve connections until this is dropped.
#[derive(Debug)]
pub struct Workers {
    crew: Crew,
    threads: Vec<Thread>,
}

/// Those who can be given connections.
#[derive(Clone, Debug)]
pub(super) struct Crew(Arc<[Arc<Worker>]>);

#[derive(Debug)]
struct Worker {
    runtime: Handle,
    /// Given to it and not yet ended.
    connections: AtomicUsize,
}

#[derive(Debug)]
struct Thread {
    name: String,
    /// Dropped, it ends the thread.
    stop: oneshot::Sender<()>,
    /// Disconnected when the thread has ended.
    ended: Receiver<()>,
}

impl Workers {
    /// Starts `count` threads, at least one, called after `service`.
    ///
    /// # Errors
    /// When the system refuses a thread, or what a runtime needs.
    pub fn start(service: &str, count: usize) -> io::Result<Self> {
        let started: io::Result<Vec<_>> = (0..count.max(1)).map(|n| start(format!("{service}-{n}"))).collect();
        let (crew, threads): (Vec<_>, Vec<_>) = started?.into_iter().unzip();
        Ok(Self { crew: Crew(crew.into()), threads })
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.threads.len()
    }

    pub(super) fn crew(&self) -> Crew {
        self.crew.clone()
    }
}

/// Ends the threads, and what they still serve with them.
impl Drop for Workers {
    fn drop(&mut self) {
        let tell = |Thread { name, stop, ended }| {
            drop(stop);
            (name, ended)
        };
        // All are told before one is waited for.
        let ending: Vec<(String, Receiver<()>)> = self.threads.drain(..).map(tell).collect();
        for (name, ended) in ending {
            if ended.recv_timeout(END_MAX) == Err(RecvTimeoutError::Timeout) {
                tracing::error!("the thread {name} is stuck and was left behind");
            }
        }
    }
}

fn start(name: String) -> io::Result<(Arc<Worker>, Thread)> {
    let runtime = Builder::new_current_thread().enable_all().thread_name(format!("{name}-blocking")).build()?;
    let worker = Arc::new(Worker { runtime: runtime.handle().clone(), connections: AtomicUsize::new(0) });
    let ((stop, stopped), (alive, ended)) = (oneshot::channel::<()>(), sync_channel::<()>(0));
    let mark = Mark { worker: worker.clone(), _alive: alive };
    thread::Builder::new().name(name.clone()).spawn(move || {
        let _mark = mark;
        // Whatever is spawned on the runtime runs meanwhile. That the sender is gone is how it ends.
        let _ = runtime.block_on(stopped);
        // Without waiting for what it does on other threads, which may wait for the outside world.
        runtime.shutdown_background();
    })?;
    Ok((worker, Thread { name, stop, ended }))
}

/// Dropped with the thread, even if that panics: nobody shall find it idle and give it more.
struct Mark {
    worker: Arc<Worker>,
    _alive: SyncSender<()>,
}

impl Drop for Mark {
    fn drop(&mut self) {
        self.worker.connections.fetch_add(GONE, Relaxed);
    }
}

impl Crew {
    /// Who accepts at the listener of that number: one after the other.
    pub(super) fn receptionist(&self, listener: usize) -> (usize, &Handle) {
        let here = listener % self.0.len();
        (here, &self.0[here].runtime)
    }

    /// Gives a connection, accepted by the worker `here`, to whoever has the fewest. `apps` are theirs. `arrival` is dropped as
    /// soon as the connection is served.
    pub(super) fn give<A: Serve>(&self, here: usize, apps: &[Arc<A>], socket: Socket, arrival: ListenGuard) {
        let to = fewest(here, self.0.len(), |n| self.0[n].connections.load(Relaxed));
        let (Some(worker), Some(app)) = (self.0.get(to), apps.get(to).cloned()) else { return };
        let Ok(socket) = (if to == here { Ok(socket) } else { socket.loose() }) else { return };
        let place = Place::take(worker.clone());
        // For its own thread this is an entry in a queue; another one is woken.
        worker.runtime.spawn(async move {
            let _place = place;
            let Ok(stream) = socket.here() else { return };
            let (mut serving, mut arrival) = (pin!(app.serve(stream)), Some(arrival));
            poll_fn(|cx| {
                let served = serving.as_mut().poll(cx);
                arrival = None;
                served
            })
            .await;
        });
    }
}

/// An accepted connection, on its way to a worker.
#[derive(Debug)]
pub(super) enum Socket {
    /// Registered with the runtime that accepted it.
    Here(TcpStream),
    /// With none.
    Loose(net::TcpStream),
}

impl Socket {
    fn loose(self) -> io::Result<Self> {
        match self {
            Self::Here(stream) => stream.into_std().map(Self::Loose),
            Self::Loose(_) => Ok(self),
        }
    }

    /// Registered with the runtime that this is called on.
    fn here(self) -> io::Result<TcpStream> {
        match self {
            Self::Here(stream) => Ok(stream),
            Self::Loose(stream) => TcpStream::from_std(stream),
        }
    }
}

/// One connection of a worker.
struct Place(Arc<Worker>);

impl Place {
    fn take(worker: Arc<Worker>) -> Self {
        worker.connections.fetch_add(1, Relaxed);
        Self(worker)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.connections.fetch_sub(1, Relaxed);
    }
}

/// Who of `count` has the fewest; `here` if nobody has fewer.
fn fewest(here: usize, count: usize, connections: impl Fn(usize) -> usize) -> usize {
    (0..count).map(|step| (here + step) % count).min_by_key(|n| connections(*n)).unwrap_or(here)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::io::{Read, Write};
    use std::net::{SocketAddr, TcpStream as Client};
    use std::sync::Barrier;

    use parking_lot::Mutex;
    use pingora::services::Service;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::time::Instant;

    use super::super::drain::Drain;
    use super::super::listener::BoundListener;
    use super::super::service::{Entrance, service};
    use super::*;

    /// Longer than anything here takes, short enough to see that it hangs.
    const PATIENCE: Duration = Duration::from_secs(20);

    /// Sends back what it is sent, and panics when that is `p`.
    #[derive(Default)]
    struct Echo {
        drain: Arc<Drain>,
        /// How many connections each thread has begun to serve.
        served: Mutex<BTreeMap<String, usize>>,
    }

    impl Serve for Echo {
        async fn serve(self: Arc<Self>, mut stream: TcpStream) {
            let _connection = self.drain.connect();
            let thread = thread::current().name().unwrap_or_default().to_owned();
            *self.served.lock().entry(thread).or_default() += 1;
            while let Ok(byte) = stream.read_u8().await {
                assert_ne!(byte, b'p', "as it was asked to");
                stream.write_u8(byte).await.unwrap();
            }
        }

        fn limit_hit(&self, limit: &'static str) {
            panic!("{limit}");
        }
    }

    /// An echo on a free port, served by `count` workers.
    fn listen(count: usize) -> (Workers, Arc<Echo>, SocketAddr) {
        let (workers, echo) = (Workers::start("echo", count).unwrap(), Arc::<Echo>::default());
        let listener = BoundListener::bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = listener.local_addr();
        let entrance = Entrance { listeners: vec![listener], apps: vec![echo.clone(); count] };
        let mut service = service("echo", &workers, vec![entrance], echo.drain.clone());
        tokio::spawn(async move {
            let (_keep, shutdown) = tokio::sync::watch::channel(false);
            service.start_service(None, shutdown, 1).await;
        });
        (workers, echo, address)
    }

    fn connect(address: SocketAddr) -> Client {
        let client = Client::connect(address).unwrap();
        client.set_read_timeout(Some(PATIENCE)).unwrap();
        client
    }

    fn ask(mut client: &Client, byte: u8) -> io::Result<u8> {
        let mut answer = [0];
        client.write_all(&[byte]).and_then(|()| client.read_exact(&mut answer)).map(|()| answer[0])
    }

    #[test]
    fn the_fewest_are_sought_and_nobody_is_troubled_without_need() {
        for (here, connections, expected) in [
            (0, &[0][..], 0),
            (0, &[1, 0], 1),
            (0, &[1, 1], 0),
            (1, &[1, 1], 1),
            (1, &[2, 3, 2], 2),
            (2, &[4, 3, 5, 3], 3),
            (0, &[7, GONE + 1], 0),
        ] {
            assert_eq!(fewest(here, connections.len(), |n| connections[n]), expected, "{here} of {connections:?}");
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn connections_are_shared_out_evenly_and_stay_so() {
        let (workers, echo, address) = listen(3);
        let mut clients: Vec<Client> = (0..30).map(|_| connect(address)).collect();
        clients.iter().for_each(|client| assert_eq!(ask(client, b'a').unwrap(), b'a'));
        let even =
            |count| [("echo-0", count), ("echo-1", count), ("echo-2", count)].map(|(name, n)| (name.to_owned(), n)).into();
        assert_eq!(*echo.served.lock(), even(10));
        // Whoever has lost some is given as many.
        clients.truncate(15);
        let held = || workers.crew.0.iter().map(|worker| worker.connections.load(Relaxed)).sum::<usize>();
        while held() > 15 {
            tokio::task::yield_now().await;
        }
        clients.extend((0..15).map(|_| connect(address)));
        clients.iter().for_each(|client| assert_eq!(ask(client, b'b').unwrap(), b'b'));
        assert_eq!(*echo.served.lock(), even(15));
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_panic_ends_its_own_connection_and_no_other() {
        let (_workers, echo, address) = listen(1);
        let bystander = connect(address);
        for _ in 0..3 {
            assert!(ask(&connect(address), b'p').is_err());
            assert_eq!(ask(&bystander, b'a').unwrap(), b'a');
        }
        assert_eq!(echo.served.lock()["echo-0"], 4);
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn nothing_is_served_after_the_end() {
        let (workers, echo, address) = listen(2);
        let clients = [connect(address), connect(address)];
        clients.iter().for_each(|client| assert_eq!(ask(client, b'a').unwrap(), b'a'));
        drop(workers);
        assert_eq!(echo.drain.connections(), 0);
        clients.iter().for_each(|client| assert!(ask(client, b'a').is_err()));
        assert!(Client::connect(address).is_err(), "the port is closed");
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_drain_does_not_end_before_an_accepted_connection_is_served() {
        let (workers, echo, address) = listen(2);
        let first = connect(address);
        assert_eq!(ask(&first, b'a').unwrap(), b'a');
        let busy = Arc::new(Barrier::new(2));
        let until = busy.clone();
        workers.crew.0[1].runtime.spawn(async move {
            until.wait();
        });
        // The other worker accepts it, and knows that this one has none.
        let second = connect(address);
        while workers.crew.0[1].connections.load(Relaxed) == 0 {
            tokio::task::yield_now().await;
        }
        echo.drain.stop_listening();
        drop(first);
        assert!(!echo.drain.drained(Instant::now() + Duration::from_millis(200)).await, "somebody was not served yet");
        busy.wait();
        assert_eq!(ask(&second, b'a').unwrap(), b'a');
        drop(second);
        assert!(echo.drain.drained(Instant::now() + PATIENCE).await);
    }
}
