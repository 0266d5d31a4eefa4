//! The part of a connection that Pingora gets to see: one request at a time.
//!
//! A client may send its next request before the answer to the last one (pipelining), and Pingora either fails the request
//! in flight for that or parses the next head itself, behind our back. So Pingora reads through a [`Gate`], which lets
//! exactly the body of the current request pass and keeps what comes behind it for the next turn of the accept loop. While
//! nothing may pass, a read waits, and ends only when the client closes: that is how Pingora learns of a vanished client.

use std::future::poll_fn;
use std::io;
use std::mem::MaybeUninit;
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
use tokio::time::{Sleep, sleep};
use vertice_core::chunks::{ChunkFraming, MalformedChunk};
use vertice_core::pace::PaceLimit;

use super::head::{BodyLength, Head};
use super::pacing::Pacing;
use crate::leash::{Cut, Leash};

/// One read from the socket.
const READ_BYTES: usize = 4096;

/// How much of later requests is taken in while an answer is pending. Beyond it the client waits in its socket buffer.
const AHEAD_BYTES_MAX: usize = 16 * 1024;

/// How often a client is looked at of which reading tells nothing: it has closed its sending side, and may, or has sent too much.
const RESET_LOOK: Duration = Duration::from_millis(50);

/// `TCP_CLOSE`: there is no connection any more.
const TCP_CLOSE: u8 = 7;

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
    /// Taken only on drop, when it goes home.
    stream: Option<Stream>,
    /// Bytes of the client that nobody has used yet.
    ahead: BytesMut,
    passage: Passage,
    client_closed: bool,
    /// Of a body that must keep a pace.
    pacing: Option<Pacing>,
    /// Who waits for the answer to a handshake.
    waiter: Option<Waker>,
    leash: Arc<Leash>,
    /// When a client that has closed its sending side is next looked at.
    next_look: Option<Pin<Box<Sleep>>>,
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
pub(super) struct Home(Arc<Mutex<Option<Stream>>>);

impl Home {
    /// The connection, if Pingora gave up on a client that is still sending.
    pub(super) fn take(&self) -> Option<Stream> {
        self.0.lock().take()
    }
}

impl Gate {
    /// A closed gate in front of `stream`.
    pub(super) fn new(stream: Stream, home: Home) -> Self {
        Self {
            stream: Some(stream),
            ahead: BytesMut::new(),
            passage: Passage::Length(0),
            client_closed: false,
            pacing: None,
            waiter: None,
            leash: Arc::default(),
            next_look: None,
            home,
        }
    }

    /// Gets a gate back out of the stream that Pingora returned, unless the stream is another one.
    pub(super) fn from_stream(stream: Stream) -> Option<Box<Self>> {
        stream.into_any().downcast().ok()
    }

    /// The bytes that arrived and were not used yet.
    pub(super) fn ahead(&self) -> &[u8] {
        &self.ahead
    }

    /// The current request has been read to its end, so that the next byte begins another one.
    pub(super) fn at_boundary(&self) -> bool {
        match &self.passage {
            Passage::Length(left) => *left == 0,
            Passage::Chunked(framing) => framing.is_done(),
            Passage::Handshake | Passage::Everything => true,
        }
    }

    /// Waits for more bytes and appends them to [`Self::ahead`]. `false` when the client has closed.
    ///
    /// The buffer is on the stack while it waits: an idle connection holds none. Losing the future loses no byte.
    pub(super) async fn read_ahead(&mut self) -> io::Result<bool> {
        poll_fn(|cx| self.poll_read_ahead(cx, READ_BYTES)).await
    }

    /// Takes the head out of [`Self::ahead`], its target in origin-form, and opens the gate for the body behind it, which
    /// must keep `pace`.
    pub(super) fn open_for(&mut self, head: &Head, pace: Option<PaceLimit>, leash: Arc<Leash>) -> BytesMut {
        (self.leash, self.next_look) = (leash, None);
        let mut bytes = self.ahead.split_to(head.head_len);
        if self.ahead.is_empty() {
            self.ahead = BytesMut::new();
        }
        self.passage = match head.body {
            _ if head.websocket => Passage::Handshake,
            BodyLength::None => Passage::Length(0),
            BodyLength::Length(length) => Passage::Length(length),
            BodyLength::Chunked => Passage::Chunked(ChunkFraming::new()),
        };
        self.pacing = pace.filter(|_| !matches!(self.passage, Passage::Length(0) | Passage::Handshake)).map(Pacing::new);
        match head.rewritten_target(&bytes) {
            Some(target) => {
                let (before, behind) = (&bytes[head.head_start..head.target.start], &bytes[head.target.end..]);
                BytesMut::from([before, &target, behind].concat().as_slice())
            }
            None => bytes.split_off(head.head_start),
        }
    }

    /// Takes the connection itself out, without the bytes that were read ahead. The gate is of no use afterwards.
    pub(super) fn take_stream(&mut self) -> Option<Stream> {
        self.stream.take()
    }

    fn stream(&mut self) -> io::Result<&mut Stream> {
        self.stream.as_mut().ok_or_else(|| io::ErrorKind::NotConnected.into())
    }

    fn poll_read_ahead(&mut self, cx: &mut Context<'_>, bytes_max: usize) -> Poll<io::Result<bool>> {
        let mut space = [MaybeUninit::uninit(); READ_BYTES];
        let mut buf = ReadBuf::uninit(&mut space[..bytes_max.min(READ_BYTES)]);
        ready!(Pin::new(self.stream()?).poll_read(cx, &mut buf))?;
        self.ahead.extend_from_slice(buf.filled());
        self.client_closed = buf.filled().is_empty();
        Poll::Ready(Ok(!self.client_closed))
    }

    /// Nothing may pass: takes later requests in until the client closes. An error or `Ok` both end the wait.
    fn poll_closed(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.client_closed {
            let room = AHEAD_BYTES_MAX.saturating_sub(self.ahead.len());
            if room == 0 {
                // Its end could only be read behind what it has sent.
                return self.poll_reset(cx);
            }
            ready!(self.poll_read_ahead(cx, room))?;
        }
        if self.leash.allows_half_close() { self.poll_reset(cx) } else { Poll::Ready(Ok(())) }
    }

    /// The client will send nothing more, and that is all right, or it has sent more than is taken in: waits until it resets the
    /// connection, of which reading says nothing any more.
    fn poll_reset(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            let look = self.next_look.get_or_insert_with(|| Box::pin(sleep(RESET_LOOK)));
            ready!(look.as_mut().poll(cx));
            self.next_look = None;
            let socket = self.stream()?.get_socket_digest();
            if socket.and_then(|socket| socket.tcp_info()).is_none_or(|info| info.tcpi_state == TCP_CLOSE) {
                return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
            }
        }
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
        if !self.ahead.is_empty() {
            let given = self.ahead.split_to(room.min(self.ahead.len()));
            buf.put_slice(&given);
            return Poll::Ready(Ok(given.len()));
        }
        // A caller that reads into a slice has it initialized already; then this costs nothing.
        let mut part = ReadBuf::new(buf.initialize_unfilled_to(room));
        let Poll::Ready(result) = Pin::new(self.stream()?).poll_read(cx, &mut part) else {
            self.pacing.iter_mut().for_each(Pacing::wait);
            return Poll::Pending;
        };
        result?;
        let read = part.filled().len();
        if let Some(pacing) = &mut self.pacing {
            pacing.came(read)?;
        }
        buf.advance(read);
        self.client_closed |= read == 0;
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
            // What was already there is gone from `ahead` front first, so the surplus goes back to the front.
            let mut surplus = BytesMut::from(&buf.filled()[before + body..]);
            surplus.extend_from_slice(&self.ahead);
            self.ahead = surplus;
            buf.set_filled(before + body);
        }
        Poll::Ready(Ok(()))
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        // Closing a socket with unread bytes resets it, and a reset may destroy the answer before the client has read it.
        let client_still_sends = !self.at_boundary() || !self.ahead.is_empty();
        if let Some(stream) = self.stream.take().filter(|_| client_still_sends && !self.client_closed) {
            *self.home.0.lock() = Some(stream);
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
        let written = Pin::new(self.stream()?).poll_write(cx, buf);
        self.leash.set_writing(written.is_pending());
        written
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // Over TLS a write is taken in before the client has taken it.
        let flushed = Pin::new(self.stream()?).poll_flush(cx);
        self.leash.set_writing(flushed.is_pending());
        flushed
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(self.stream()?).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.note_answer(bufs.first().map_or(&[], |buf| buf));
        let written = Pin::new(self.stream()?).poll_write_vectored(cx, bufs);
        self.leash.set_writing(written.is_pending());
        written
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.as_ref().is_some_and(AsyncWrite::is_write_vectored)
    }
}

#[async_trait]
impl Shutdown for Gate {
    async fn shutdown(&mut self) {
        if let Some(stream) = &mut self.stream {
            stream.shutdown().await;
        }
    }
}

impl UniqueID for Gate {
    fn id(&self) -> UniqueIDType {
        self.stream.as_ref().map_or(0, |stream| stream.id())
    }
}

impl Ssl for Gate {
    fn get_ssl(&self) -> Option<&TlsRef> {
        self.stream.as_ref()?.get_ssl()
    }

    fn get_ssl_digest(&self) -> Option<Arc<SslDigest>> {
        self.stream.as_ref()?.get_ssl_digest()
    }

    fn selected_alpn_proto(&self) -> Option<ALPN> {
        self.stream.as_ref()?.selected_alpn_proto()
    }
}

impl GetTimingDigest for Gate {
    fn get_timing_digest(&self) -> Vec<Option<TimingDigest>> {
        self.stream.as_ref().map(|stream| stream.get_timing_digest()).unwrap_or_default()
    }

    fn get_read_pending_time(&self) -> Duration {
        self.stream.as_ref().map(|stream| stream.get_read_pending_time()).unwrap_or_default()
    }

    fn get_write_pending_time(&self) -> Duration {
        self.stream.as_ref().map(|stream| stream.get_write_pending_time()).unwrap_or_default()
    }
}

impl GetProxyDigest for Gate {
    fn get_proxy_digest(&self) -> Option<Arc<ProxyDigest>> {
        self.stream.as_ref()?.get_proxy_digest()
    }
}

impl GetSocketDigest for Gate {
    fn get_socket_digest(&self) -> Option<Arc<SocketDigest>> {
        self.stream.as_ref()?.get_socket_digest()
    }
}

/// Peeking is for the HTTP/2 preface, which is looked for before there is a gate.
impl Peek for Gate {}
