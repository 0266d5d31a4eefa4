//! Listening sockets that are ours before anything runs.
//!
//! Pingora binds inside its service, retries a taken port for half a minute and then panics in a task of its own, and never
//! tells which port it got. Here the socket is bound first: a taken port is an error at once, port 0 works, and clients that
//! come before the service runs wait in the backlog.

use std::io;
use std::net::{SocketAddr, TcpListener};

use socket2::{Domain, Protocol, Socket, Type};

/// Connections that may wait to be accepted; the kernel caps it at `net.core.somaxconn`.
const BACKLOG: i32 = 65_535;

/// How much of an answer the kernel may hold back before a client has taken what went before.
const UNSENT_BYTES_MAX: u32 = 128 * 1024;

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
        // Inherited as well, and so paid for once: what is written is meant to leave.
        socket.set_tcp_nodelay(true)?;
        socket.bind(&address.into())?;
        socket.listen(BACKLOG)?;
        let listener = TcpListener::from(socket);
        let local_addr = listener.local_addr()?;
        Ok(Self { listener, local_addr })
    }

    pub(super) fn into_listener(self) -> TcpListener {
        self.listener
    }
}
