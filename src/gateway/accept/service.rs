//! Accepting connections, and giving them to the workers.
//!
//! Each listener is accepted at by one worker, which gives every connection to whoever has the fewest. Measured against the
//! other ways (bench/RESULTS.md): workers that all accept from one socket wake each other for every connection, and whoever is
//! quickest gets most of a burst; sockets of their own (`SO_REUSEPORT`) share by a hash, unevenly among few connections, and
//! let a second process take the port unnoticed.

use std::io;
use std::net;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use pingora::server::{ListenFds, ShutdownWatch};
use pingora::services::Service;
use tokio::net::TcpListener;
use tokio::task::{JoinHandle, yield_now};
use tokio::time::sleep;

use super::drain::Drain;
use super::listener::BoundListener;
use super::workers::{Crew, Serve, Socket, Workers};
use crate::descriptors;

/// How many clients that wait in a closing listener's queue are still served.
const WAITING_MAX: usize = 4096;

/// So many are accepted in a row before the requests of others have their turn.
const BURST: usize = 8;

/// How long nothing is accepted after the system has refused: what it lacks is not there again at once.
const PAUSE: Duration = Duration::from_millis(100);

/// Listeners that speak alike.
pub struct Entrance<A> {
    /// Where.
    pub listeners: Vec<BoundListener>,
    /// Who takes the connections: each worker's own, in their order.
    pub apps: Vec<Arc<A>>,
}

/// The Pingora service that accepts at all `entrances` and has `workers` serve the connections. The listeners close when
/// `drain`, which all apps share, says so.
#[must_use]
pub fn service<A: Serve>(name: &str, workers: &Workers, entrances: Vec<Entrance<A>>, drain: Arc<Drain>) -> AcceptService<A> {
    AcceptService { name: name.to_owned(), entrances, crew: workers.crew(), drain }
}

/// See [`service`].
pub struct AcceptService<A> {
    name: String,
    entrances: Vec<Entrance<A>>,
    crew: Crew,
    drain: Arc<Drain>,
}

impl<A: Serve> AcceptService<A> {
    /// Has each listener accepted at, by the workers in turn.
    fn open(&mut self, table: Option<&ListenFds>) -> Vec<JoinHandle<()>> {
        let mut open = Vec::new();
        for Entrance { listeners, apps } in self.entrances.drain(..) {
            let apps: Arc<[Arc<A>]> = apps.into();
            for bound in listeners {
                let (key, listener) = (key(&bound), bound.into_listener());
                // What a process that takes over would be given.
                table.into_iter().for_each(|table| table.lock().add(key.clone(), listener.as_raw_fd()));
                let (here, runtime) = self.crew.receptionist(open.len());
                let door = Door { apps: apps.clone(), crew: self.crew.clone(), here, drain: self.drain.clone() };
                open.push(runtime.spawn(door.accept(listener)));
            }
        }
        open
    }
}

/// One listener's way to the workers.
struct Door<A> {
    apps: Arc<[Arc<A>]>,
    crew: Crew,
    /// The worker that accepts.
    here: usize,
    drain: Arc<Drain>,
}

impl<A: Serve> Door<A> {
    /// Accepts until the drain closes the listeners, then gives away whoever waits: closing would reset their connections.
    async fn accept(self, listener: net::TcpListener) {
        let listener = match TcpListener::from_std(listener) {
            Ok(listener) => listener,
            Err(error) => return tracing::error!(%error, "failed to watch a listener: nobody is accepted at it"),
        };
        let mut over = self.drain.listening_over_watch();
        tokio::select! {
            biased;
            // An error means that the drain is gone, which is the end as well.
            _ = over.wait_for(|over| *over) => {}
            () = self.accept_all(&listener) => {}
        }
        let Ok(listener) = listener.into_std() else { return };
        for _ in 0..WAITING_MAX {
            let accepted = listener.accept().and_then(|(stream, _)| stream.set_nonblocking(true).map(|()| stream));
            // Any error ends it, too: the listener closes now.
            let Ok(stream) = accepted else { return };
            self.give(Socket::Loose(stream));
        }
    }

    async fn accept_all(&self, listener: &TcpListener) {
        let mut is_refused = false;
        loop {
            for _ in 0..BURST {
                match listener.accept().await {
                    Ok((stream, _)) => {
                        is_refused = false;
                        self.give(Socket::Here(stream));
                    }
                    // That client has gone, and the next one is not to wait for it.
                    Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
                    Err(error) => {
                        self.complain(&error, is_refused);
                        is_refused = true;
                        sleep(PAUSE).await;
                    }
                }
            }
            yield_now().await;
        }
    }

    fn give(&self, socket: Socket) {
        self.crew.give(self.here, &self.apps, socket, self.drain.listen());
    }

    /// Counts it, and says so once, however long it lasts.
    fn complain(&self, error: &io::Error, is_known: bool) {
        if descriptors::are_used_up(error) {
            self.apps.get(self.here).iter().for_each(|app| app.limit_hit("descriptors"));
        }
        if !is_known {
            tracing::warn!(%error, "failed to accept connections; they wait");
        }
    }
}

/// The address of a listener, as Pingora's table of listeners spells it.
fn key(bound: &BoundListener) -> String {
    bound.local_addr().to_string()
}

#[async_trait]
impl<A: Serve> Service for AcceptService<A> {
    async fn start_service(&mut self, fds: Option<ListenFds>, mut shutdown: ShutdownWatch, _listeners_per_fd: usize) {
        let drain = self.drain.clone();
        let _listening = drain.listen();
        let open = self.open(fds.as_ref());
        let mut over = drain.listening_over_watch();
        tokio::select! {
            // An error means that the drain is gone, which is the end as well.
            () = async { let _ = over.wait_for(|over| *over).await; } => {}
            // Pingora wants to stop by itself, which a hot upgrade does.
            Ok(_) = shutdown.wait_for(|stopping| *stopping) => drain.stop_listening(),
        }
        for door in open {
            // A task that panicked has been counted as such.
            let _ = door.await;
        }
    }

    fn name(&self) -> &str {
        &self.name
    }

    /// It only waits.
    fn threads(&self) -> Option<usize> {
        Some(1)
    }

    fn listen_addresses(&self) -> Option<Vec<String>> {
        Some(self.entrances.iter().flat_map(|entrance| entrance.listeners.iter().map(key)).collect())
    }
}
