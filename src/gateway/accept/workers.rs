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
