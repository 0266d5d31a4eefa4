//! The part of a connection that Pingora gets to see: one request at a time.
//!
//! A client may send its next request before the answer to the last one (pipelining), and Pingora either fails the request
//! in flight for that or parses the next head itself, behind our back. So Pingora reads through a [`Gate`], which lets
//! exactly the body of the current request pass and keeps what comes behind it for the next turn of the accept loop. While
//! nothing may pass, a read waits, and ends only when the client closes: that is how Pingora learns of a vanished client.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use async_trait::async_trait;
use bytes::BytesMut;
use parking_lot::Mutex;
use pingora::protocols::raw_connect::ProxyDigest;
use pingora::protocols::tls::{SslDigest, TlsRef};
use pingora::protocols::{
    ALPN, GetProxyDigest, GetSocketDigest, GetTimingDigest, Peek, Shutdown, SocketDigest, Ssl, Stream, TimingDigest, UniqueID,
    UniqueIDType,
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use vertice_core::chunks::{ChunkFraming, MalformedChunk};
use vertice_core::pace::PaceLimit;

use super::connection::Connection;
use super::gathering::Gathering;
use super::head::{BodyLength, Head};
use super::pacing::Pacing;
use crate::leash::{Cut, Leash};

/// Whether a request failed because its chunked body was malformed, which is the client's mistake: 400, and not the silence
/// that a lost connection gets.
#[must_use]
pub fn is_malformed_body(error: &pingora::Error) -> bool {
    is_caused_by::<MalformedChunk>(error)
}

/// Whether a request failed because its [`Leash`] was pulled.
#[must_use]
pub fn is_cut(error: &pingora::Error) -> bool {
    is_caused_by::<Cut>(error)
}

fn is_caused_by<E: std::error::Error + 'static>(error: &pingora::Error) -> bool {
    let cause = error.root_cause().downcast_ref::<io::Error>();
    cause.and_then(io::Error::get_ref).is_some_and(|inner| inner.is::<E>())
}

/// A connection with a gate between the client's bytes and the one who reads the current request.
#[derive(Debug)]
pub(super) struct Gate {
    /// Taken only at the end: by who gets it back, or, on drop, when it goes home.
    connection: Option<Connection>,
    /// Bytes for the client that wait for more.
    gathering: Gathering,
    passage: Passage,
    /// Of a body that must keep a pace.
    pacing: Option<Pacing>,
    /// Who waits for the answer to a handshake.
    waiter: Option<Waker>,
    leash: Arc<Leash>,
    home: Home,
}

/// What may pass.
#[derive(Debug)]
enum Passage {
    /// The rest of a body of known length.
    Length(u64),
    /// The rest of a chunked body.
    Chunked(ChunkFraming),
    /// Nothing, until the answer to a handshake is known: 101 opens the gate for everything, any other answer leaves it closed,
    /// and what the client has sent meanwhile is its next request. A client may not send before the 101 (RFC 6455 §4.1); who
    /// does it all the same shall not have it taken for the tunnel's by one side and for a request by the other.
    Handshake,
    /// Everything: after a 101 the bytes belong to another protocol.
    Everything,
}

/// Where the connection goes when Pingora drops the gate instead of handing it back, so that it can be closed gently.
#[derive(Clone, Debug, Default)]
pub(super) struct Home(Arc<Mutex<Option<Connection>>>);

impl Home {
    /// The connection, if Pingora gave up on a client that is still sending.
    pub(super) fn take(&self) -> Option<Connection> {
        self.0.lock().take()
    }
}

impl Gate {
    /// Takes the head out of what `connection` has read, its target in origin-form, and opens the gate for the body behind it,
    /// which must keep `pace`.
    pub(super) fn open(
        mut connection: Connection,
        head: &Head,
        pace: Option<PaceLimit>,
        leash: Arc<Leash>,
        home: Home,
    ) -> (Box<Self>, BytesMut) {
        connection.look_anew();
        let bytes = &connection.ahead()[..head.head_len];
        let request = match head.rewritten_target(bytes) {
            Some(target) => {
                let (before, behind) = (&bytes[head.head_start..head.target.start], &bytes[head.target.end..]);
                BytesMut::from([before, &target, behind].concat().as_slice())
            }
            None => BytesMut::from(&bytes[head.head_start..]),
        };
        connection.consume(head.head_len);
        let passage = match head.body {
            _ if head.websocket => Passage::Handshake,
            BodyLength::None => Passage::Length(0),
            BodyLength::Length(length) => Passage::Length(length),
            BodyLength::Chunked => Passage::Chunked(ChunkFraming::new()),
        };
        let pacing = pace.filter(|_| !matches!(passage, Passage::Length(0) | Passage::Handshake)).map(Pacing::new);
        let (connection, gathering) = (Some(connection), Gathering::default());
        (Box::new(Self { connection, gathering, passage, pacing, waiter: None, leash, home }), request)
    }

    /// Gets the connection back out of the stream that Pingora returned, if the current request was read to its end, so that
    /// the next byte begins another one.
    pub(super) fn close(stream: Stream) -> Option<Connection> {
        let mut gate: Box<Self> = stream.into_any().downcast().ok()?;
        if gate.at_boundary() { gate.connection.take() } else { None }
    }

    fn at_boundary(&self) -> bool {
        match &self.passage {
            Passage::Length(left) => *left == 0,
            Passage::Chunked(framing) => framing.is_done(),
            Passage::Handshake | Passage::Everything => true,
        }
    }

    fn connection(&mut self) -> io::Result<&mut Connection> {
        self.connection.as_mut().ok_or_else(|| io::ErrorKind::NotConnected.into())
    }

    fn outgoing(&mut self) -> io::Result<(Pin<&mut Stream>, &mut Gathering)> {
        let stream = self.connection.as_mut().and_then(Connection::pingora_mut).ok_or(io::ErrorKind::NotConnected)?;
        Ok((Pin::new(stream), &mut self.gathering))
    }

    fn look(&self) -> Option<&Stream> {
        self.connection.as_ref()?.pingora()
    }

    /// Nothing may pass: takes later requests in until the client closes.
    fn poll_closed(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let half_close = self.leash.allows_half_close();
        self.connection()?.poll_gone(cx, half_close, 0)
    }

    /// Looks at what the client is sent while a handshake is under way. Each head comes in a write of its own.
    fn note_answer(&mut self, bytes: &[u8]) {
        if !matches!(self.passage, Passage::Handshake) {
            return;
        }
        match bytes.get(..12) {
            Some(b"HTTP/1.1 101") => self.passage = Passage::Everything,
            Some(start) if start.starts_with(b"HTTP/1.1 1") => return,
            _ => self.passage = Passage::Length(0),
        }
        self.waiter.take().into_iter().for_each(Waker::wake);
    }

    /// Gives up to `bytes_max` bytes, first those that are there already.
    fn poll_pass(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>, bytes_max: u64) -> Poll<io::Result<usize>> {
        let room = usize::try_from(bytes_max).unwrap_or(usize::MAX).min(buf.remaining());
        let connection = self.connection.as_mut().ok_or(io::ErrorKind::NotConnected)?;
        let ahead = connection.ahead();
        if !ahead.is_empty() {
            let given = room.min(ahead.len());
            buf.put_slice(&ahead[..given]);
            connection.consume(given);
            return Poll::Ready(Ok(given));
        }
        // A caller that reads into a slice has it initialized already; then this costs nothing.
        let mut part = ReadBuf::new(buf.initialize_unfilled_to(room));
        let Poll::Ready(result) = connection.poll_read(cx, &mut part) else {
            self.pacing.iter_mut().for_each(Pacing::wait);
            return Poll::Pending;
        };
        result?;
        let read = part.filled().len();
        if let Some(pacing) = &mut self.pacing {
            pacing.came(read)?;
        }
        buf.advance(read);
        Poll::Ready(Ok(read))
    }

    fn poll_length(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>, left: u64) -> Poll<io::Result<()>> {
        let passed = ready!(self.poll_pass(cx, buf, left))?;
        self.passage = Passage::Length(left - passed as u64);
        Poll::Ready(Ok(()))
    }

    fn poll_chunked(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let passed = ready!(self.poll_pass(cx, buf, u64::MAX))?;
        let Passage::Chunked(framing) = &mut self.passage else { return Poll::Ready(Ok(())) };
        let body =
            framing.advance(&buf.filled()[before..]).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
        if body < passed {
            // What was already there is gone from the front, so the surplus goes back there.
            let surplus = &buf.filled()[before + body..];
            self.connection.iter_mut().for_each(|connection| connection.put_back(surplus));
            buf.set_filled(before + body);
        }
        Poll::Ready(Ok(()))
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        let is_sending = !self.at_boundary();
        if let Ok((to, gathering)) = self.outgoing() {
            gathering.let_go(to);
        }
        if let Some(connection) = self.connection.take().filter(|connection| connection.wants_patience(is_sending)) {
            *self.home.0.lock() = Some(connection);
        }
    }
}

impl AsyncRead for Gate {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let gate = self.get_mut();
        if buf.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        if let Poll::Ready(cut) = gate.leash.poll_pulled(cx) {
            return Poll::Ready(Err(cut.into()));
        }
        match &gate.passage {
            Passage::Length(0) => gate.poll_closed(cx),
            Passage::Handshake => {
                gate.waiter = Some(cx.waker().clone());
                gate.poll_closed(cx)
            }
            Passage::Length(left) => {
                let left = *left;
                gate.poll_length(cx, buf, left)
            }
            Passage::Chunked(framing) if framing.is_done() => gate.poll_closed(cx),
            Passage::Chunked(_) => gate.poll_chunked(cx, buf),
            Passage::Everything => gate.poll_pass(cx, buf, u64::MAX).map_ok(|_| ()),
        }
    }
}

impl AsyncWrite for Gate {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.note_answer(buf);
        let (to, gathering) = self.outgoing()?;
        let written = gathering.poll_write(to, cx, &[io::IoSlice::new(buf)]);
        self.leash.set_writing(written.is_pending());
        written
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // Over TLS a write is taken in before the client has taken it.
        let (to, gathering) = self.outgoing()?;
        let flushed = gathering.poll_flush(to, cx);
        self.leash.set_writing(flushed.is_pending());
        flushed
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.as_mut().poll_flush(cx))?;
        self.outgoing()?.0.poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.note_answer(bufs.first().map_or(&[], |buf| buf));
        let (to, gathering) = self.outgoing()?;
        let written = gathering.poll_write(to, cx, bufs);
        self.leash.set_writing(written.is_pending());
        written
    }

    fn is_write_vectored(&self) -> bool {
        self.look().is_some_and(AsyncWrite::is_write_vectored)
    }
}

#[async_trait]
impl Shutdown for Gate {
    async fn shutdown(&mut self) {
        if let Ok((mut to, gathering)) = self.outgoing() {
            gathering.let_go(to.as_mut());
            to.shutdown().await;
        }
    }
}

impl UniqueID for Gate {
    fn id(&self) -> UniqueIDType {
        self.look().map_or(0, |stream| stream.id())
    }
}

impl Ssl for Gate {
    fn get_ssl(&self) -> Option<&TlsRef> {
        self.look()?.get_ssl()
    }

    fn get_ssl_digest(&self) -> Option<Arc<SslDigest>> {
        self.look()?.get_ssl_digest()
    }

    fn selected_alpn_proto(&self) -> Option<ALPN> {
        self.look()?.selected_alpn_proto()
    }
}

impl GetTimingDigest for Gate {
    fn get_timing_digest(&self) -> Vec<Option<TimingDigest>> {
        self.look().map(|stream| stream.get_timing_digest()).unwrap_or_default()
    }

    fn get_read_pending_time(&self) -> Duration {
        self.look().map(|stream| stream.get_read_pending_time()).unwrap_or_default()
    }

    fn get_write_pending_time(&self) -> Duration {
        self.look().map(|stream| stream.get_write_pending_time()).unwrap_or_default()
    }
}

impl GetProxyDigest for Gate {
    fn get_proxy_digest(&self) -> Option<Arc<ProxyDigest>> {
        self.look()?.get_proxy_digest()
    }
}

impl GetSocketDigest for Gate {
    fn get_socket_digest(&self) -> Option<Arc<SocketDigest>> {
        self.look()?.get_socket_digest()
    }
}

/// Peeking is for the HTTP/2 preface, which is looked for before there is a gate.
impl Peek for Gate {}
