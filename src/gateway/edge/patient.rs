//! Connections for upgrades, whose reads wait a moment after a write.
//!
//! Pingora 0.9.1 ends a tunnel before it has begun when the instance's 101 is read before Pingora's own "the request has no
//! body" has passed through an internal queue: both are ready at once, and a coin decides (its issue 946). A connection
//! that is not ready for reading right after the request was written lets the queue win. Which write that is cannot be seen
//! through TLS, so it holds for the first few. Only requests that ask for an upgrade use it.

use crate::proxy::cause::Cause;
use async_trait::async_trait;
use parking_lot::Mutex;
use pingora::connectors::L4Connect;
use pingora::protocols::l4::socket::SocketAddr;
use pingora::protocols::l4::stream::Stream;
use pingora::protocols::l4::virt::{VirtualSockOpt, VirtualSocket, VirtualSocketStream};
use pingora::{Error, ErrorType, OrErr, Result};
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpSocket, TcpStream};

/// How often a read is put off; the queue needs one round.
const PUT_OFF: u8 = 2;

/// After how many writes: a TLS handshake's and the request's are among them.
const WRITES: u8 = 16;

/// Connects, and leaves a duplicate of the socket for the watch: Pingora sees no descriptor of such a connection.
#[derive(Debug)]
pub(super) struct PatientConnector {
    timeout: Duration,
    socket: Arc<Mutex<Option<std::net::TcpStream>>>,
}

impl PatientConnector {
    /// A connector, and where the socket's duplicate will be.
    pub(super) fn new(timeout: Duration) -> (Self, Arc<Mutex<Option<std::net::TcpStream>>>) {
        let socket = Arc::<Mutex<_>>::default();
        (Self { timeout, socket: socket.clone() }, socket)
    }
}

#[async_trait]
impl L4Connect for PatientConnector {
    async fn connect(&self, address: &SocketAddr) -> Result<Stream> {
        let SocketAddr::Inet(address) = address else {
            return Error::e_explain(ErrorType::InternalError, "instances have internet addresses");
        };
        // Without a descriptor there is no socket, which is not the instance's fault.
        let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() };
        let socket = socket.or_err(ErrorType::InternalError, "making a socket for an upgrade")?;
        let connecting = tokio::time::timeout(self.timeout, socket.connect(*address)).await;
        let tcp = match connecting {
            Err(_) => return Error::e_explain(ErrorType::ConnectTimedout, "no connection in time"),
            Ok(result) => result.map_err(|error| Error::because(kind(&error), "connecting for an upgrade", error))?,
        };
        tcp.set_nodelay(true).or_err(ErrorType::ConnectError, "setting TCP_NODELAY")?;
        *self.socket.lock() = socket2::SockRef::from(&tcp).try_clone().ok().map(Into::into);
        Ok(VirtualSocketStream::new(Box::new(PatientSocket { tcp, put_off: PUT_OFF, writes: WRITES })).into())
    }
}

/// Whether it is the instance that cannot be connected to, or the gateway that has no port left.
fn kind(error: &io::Error) -> ErrorType {
    match Cause::of_connecting(error) {
        Cause::NoPort => ErrorType::InternalError,
        Cause::ConnectTimedOut => ErrorType::ConnectTimedout,
        _ => ErrorType::ConnectError,
    }
}

#[derive(Debug)]
struct PatientSocket {
    tcp: TcpStream,
    put_off: u8,
    writes: u8,
}

impl AsyncRead for PatientSocket {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.put_off > 0 {
            self.put_off -= 1;
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        Pin::new(&mut self.tcp).poll_read(cx, buf)
    }
}

impl AsyncWrite for PatientSocket {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        if let Some(left) = self.writes.checked_sub(1) {
            (self.writes, self.put_off) = (left, PUT_OFF);
        }
        Pin::new(&mut self.tcp).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_shutdown(cx)
    }
}

impl VirtualSocket for PatientSocket {
    fn set_socket_option(&self, option: VirtualSockOpt) -> io::Result<()> {
        match option {
            VirtualSockOpt::NoDelay => self.tcp.set_nodelay(true),
            _ => Ok(()),
        }
    }
}
