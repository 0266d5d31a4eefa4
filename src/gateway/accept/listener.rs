//! Listening sockets that are ours before Pingora starts.
//!
//! Pingora binds inside its service, retries a taken port for half a minute and then panics in a task of its own, and never
//! tells which port it got. Here the socket is bound first: a taken port is an error at once, port 0 works, and clients that
//! come before the service runs wait in the backlog. Pingora adopts the socket through the table of inherited listeners,
//! the same table that a hot upgrade passes on.

use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsRawFd, IntoRawFd};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use pingora::apps::{HttpServerApp, ServerApp};
use pingora::listeners::{L4BufferSettings, ListenerConfig};
use pingora::protocols::l4::stream::Stream;
use pingora::protocols::{GetSocketDigest, SocketDigest};
use pingora::server::{Fds, ListenFds, ShutdownWatch};
use pingora::services::Service;
use pingora::services::listening;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::time::sleep;

use super::app::AcceptApp;
use super::drain::Drain;

/// Connections that may wait to be accepted; the kernel caps it at `net.core.somaxconn`.
const BACKLOG: i32 = 65_535;

/// Pingora's read buffer per connection: none. Its default of 64 KiB is paid by every idle connection, and nobody would read
/// through it: the gate takes heads in with a buffer of its own, and bodies go straight into the reader's.
const READ_BUFFER_BYTES: usize = 0;

/// How much of an answer the kernel may hold back before a client has taken what went before.
const UNSENT_BYTES_MAX: u32 = 128 * 1024;

/// How many clients that wait in a closing listener's queue are still served.
const WAITING_MAX: usize = 4096;

/// How long the tasks of accepted connections may take to begin, and so to be counted.
const SETTLE: Duration = Duration::from_millis(20);

/// Why an address could not be listened on.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Another socket listens there.
    #[error("failed to listen on {0}: the address is already in use (gateway.listen and registry.listen choose others)")]
    InUse(SocketAddr),
    /// The operating system said no.
    #[error("failed to listen on {address}: {cause}")]
    Refused {
        /// The address asked for.
        address: SocketAddr,
        /// Its reason.
        cause: io::Error,
    },
}

/// A socket that listens already, though nobody accepts from it yet.
#[derive(Debug)]
pub struct BoundListener {
    listener: TcpListener,
    local_addr: SocketAddr,
}

impl BoundListener {
    /// Listens on `address`. Port 0 picks a free port; `[::]` takes IPv4 clients too.
    ///
    /// # Errors
    /// [`BindError`], at once and with the address in it.
    pub fn bind(address: SocketAddr) -> Result<Self, BindError> {
        Self::listen(address).map_err(|cause| match cause.kind() {
            io::ErrorKind::AddrInUse => BindError::InUse(address),
            _ => BindError::Refused { address, cause },
        })
    }

    /// The address, with the port that was picked.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    fn listen(address: SocketAddr) -> io::Result<Self> {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
        socket.set_reuse_address(true)?;
        if address.is_ipv6() && address.ip().is_unspecified() {
            socket.set_only_v6(false)?;
        }
        socket.set_nonblocking(true)?;
        // Inherited by accepted sockets. Without it the kernel buffers megabytes for a slow client and reports the socket
        // writable only when a third of that is gone, which reads like a client that has stopped taking bytes.
        socket.set_tcp_notsent_lowat(UNSENT_BYTES_MAX)?;
        socket.bind(&address.into())?;
        socket.listen(BACKLOG)?;
        let listener = TcpListener::from(socket);
        let local_addr = listener.local_addr()?;
        Ok(Self { listener, local_addr })
    }

    /// The name under which Pingora looks the socket up.
    fn key(&self) -> String {
        self.local_addr.to_string()
    }
}

/// Listeners that speak alike.
pub struct Entrance<P> {
    /// Where.
    pub listeners: Vec<BoundListener>,
    /// Who takes the connections.
    pub app: AcceptApp<P>,
}

/// The Pingora service that accepts at all `entrances` and gives each connection to that entrance's app. `threads` as in
/// Pingora: none means the server's setting. The listeners close when `drain`, which all apps share, says so.
#[must_use]
pub fn service<P>(name: &str, entrances: Vec<Entrance<P>>, drain: Arc<Drain>, threads: Option<usize>) -> AcceptService<P>
where
    P: HttpServerApp + Send + Sync + 'static,
{
    let doors = entrances.into_iter().map(|entrance| Door::new(name, entrance)).collect();
    AcceptService { name: name.to_owned(), doors, drain, threads }
}

/// See [`service`].
pub struct AcceptService<P> {
    name: String,
    doors: Vec<Door<P>>,
    drain: Arc<Drain>,
    threads: Option<usize>,
}

/// An entrance, and Pingora's way through it.
struct Door<P> {
    inner: listening::Service<AcceptApp<P>>,
    listeners: Vec<BoundListener>,
    app: Arc<AcceptApp<P>>,
}

impl<P> Door<P>
where
    P: HttpServerApp + Send + Sync + 'static,
{
    fn new(name: &str, entrance: Entrance<P>) -> Self {
        let Entrance { listeners, app } = entrance;
        let mut inner = listening::Service::new(name.to_owned(), app.clone());
        for listener in &listeners {
            let buffer = L4BufferSettings::default().read(READ_BUFFER_BYTES);
            inner.add_listener(ListenerConfig::tcp(listener.key()).l4_buffer(buffer));
        }
        Self { inner, listeners, app: Arc::new(app) }
    }

    /// Puts our sockets where Pingora looks for them, and gives a duplicate of each. One that Pingora inherited from the
    /// process before us is kept instead.
    fn hand_over_listeners(&mut self, table: &ListenFds) -> Vec<TcpListener> {
        let mut table = table.lock();
        let mut duplicates = Vec::new();
        for listener in self.listeners.drain(..) {
            if table.get(&listener.key()).is_none() {
                duplicates.extend(listener.listener.try_clone());
                table.add(listener.key(), listener.listener.into_raw_fd());
            }
        }
        duplicates
    }

    /// Has Pingora accept until `over` turns true, then serves whoever waits.
    async fn accept(mut self, table: ListenFds, over: ShutdownWatch, listeners_per_fd: usize) {
        let ours = if *over.borrow() {
            self.listeners.drain(..).map(|bound| bound.listener).collect()
        } else {
            let ours = self.hand_over_listeners(&table);
            self.inner.start_service(Some(table), over, listeners_per_fd).await;
            ours
        };
        ours.iter().for_each(|listener| serve_waiting(&self.app, listener));
    }
}

/// Serves the clients that have connected and wait to be accepted: closing the listener would reset their connections.
fn serve_waiting<P>(app: &Arc<AcceptApp<P>>, listener: &TcpListener)
where
    P: HttpServerApp + Send + Sync + 'static,
{
    for _ in 0..WAITING_MAX {
        // Any error ends it, too: the listener closes now.
        let Ok(stream) = listener.accept().and_then(|(stream, _)| as_pingora(stream)) else { return };
        let (app, shutdown) = (app.clone(), app.drain().listening_over_watch());
        tokio::spawn(async move { app.process_new(Box::new(stream), &shutdown).await });
    }
}

/// A connection as Pingora's own accept loop would give it.
fn as_pingora(stream: TcpStream) -> io::Result<Stream> {
    stream.set_nonblocking(true)?;
    stream.set_nodelay(true)?;
    let mut stream = Stream::from(tokio::net::TcpStream::from_std(stream)?);
    let digest = SocketDigest::from_raw_fd(stream.as_raw_fd());
    stream.set_socket_digest(digest);
    Ok(stream)
}

#[async_trait]
impl<P> Service for AcceptService<P>
where
    P: HttpServerApp + Send + Sync + 'static,
    AcceptApp<P>: ServerApp,
{
    async fn start_service(&mut self, fds: Option<ListenFds>, mut shutdown: ShutdownWatch, listeners_per_fd: usize) {
        let table = fds.unwrap_or_else(|| Arc::new(Mutex::new(Fds::new())));
        let drain = self.drain.clone();
        let _listening = drain.listen();
        let accepting: Vec<_> = self
            .doors
            .drain(..)
            .map(|door| tokio::spawn(door.accept(table.clone(), drain.listening_over_watch(), listeners_per_fd)))
            .collect();
        let mut over = drain.listening_over_watch();
        tokio::select! {
            // An error means that the drain is gone, which is the end as well.
            () = async { let _ = over.wait_for(|over| *over).await; } => {}
            // Pingora wants to stop by itself, which a hot upgrade does.
            Ok(_) = shutdown.wait_for(|stopping| *stopping) => drain.stop_listening(),
        }
        for door in accepting {
            // A task that panicked has been counted as such.
            let _ = door.await;
        }
        sleep(SETTLE).await;
    }

    fn name(&self) -> &str {
        &self.name
    }

    fn threads(&self) -> Option<usize> {
        self.threads
    }

    fn listen_addresses(&self) -> Option<Vec<String>> {
        Some(self.doors.iter().flat_map(|door| door.listeners.iter().map(BoundListener::key)).collect())
    }
}
