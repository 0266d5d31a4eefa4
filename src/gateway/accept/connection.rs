//! A client's connection, and what of its bytes nobody has used yet.

use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, RawFd};
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::BufMut;
use pingora::protocols::l4::ext::get_tcp_info;
use pingora::protocols::{GetSocketDigest, SocketDigest, Stream};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Sleep, sleep};

use super::gathering::some;
use crate::buffers::{Buffer, SMALL_BYTES};
use crate::deadline::Deadline;
use vertice_core::time::Moment;

/// One read from the socket.
pub(super) const READ_BYTES: usize = 4096;

/// How much of later requests is taken in while an answer is pending. Beyond it the client waits in its socket buffer.
const AHEAD_BYTES_MAX: usize = 16 * 1024;

/// How often a client is looked at of which reading tells nothing: it has closed its sending side, and may, or has sent too much.
const RESET_LOOK: Duration = Duration::from_millis(50);

/// `TCP_CLOSE`: there is no connection any more.
const TCP_CLOSE: u8 = 7;

/// See the module. While it idles it holds no buffer.
#[derive(Debug)]
pub struct Connection {
    io: Io,
    client: Option<SocketAddr>,
    ahead: Buffer,
    /// So much at the front of `ahead` has been used.
    used: usize,
    client_closed: bool,
    /// When a client that has closed its sending side is next looked at.
    next_look: Option<Pin<Box<Sleep>>>,
    deadline: Deadline,
    /// When it is, as far as somebody has looked since it last waited.
    latest: Option<Moment>,
}

/// Who moves the bytes.
#[derive(Debug)]
enum Io {
    /// The plain socket, until something wants more of it.
    Tcp(TcpStream),
    /// Pingora's, for its proxy, and for TLS.
    Pingora(Stream),
}

impl Connection {
    /// A connection that has just been accepted.
    pub(super) fn accepted(socket: TcpStream) -> Self {
        let client = socket.peer_addr().ok();
        Self::over(Io::Tcp(socket), client)
    }

    /// One that Pingora's proxy can take over at any time.
    pub(super) fn over_pingora(stream: Stream) -> Self {
        let client = client_of(&stream);
        Self::over(Io::Pingora(stream), client)
    }

    fn over(io: Io, client: Option<SocketAddr>) -> Self {
        let (ahead, deadline) = (Buffer::default(), Deadline::default());
        Self { io, client, ahead, used: 0, client_closed: false, next_look: None, deadline, latest: None }
    }

    /// The other end.
    #[must_use]
    pub const fn client(&self) -> Option<SocketAddr> {
        self.client
    }

    /// Whether it is encrypted.
    #[must_use]
    pub fn is_encrypted(&self) -> bool {
        matches!(&self.io, Io::Pingora(stream) if stream.get_ssl_digest().is_some())
    }

    /// The bytes that arrived and were not used yet.
    #[must_use]
    pub fn ahead(&self) -> &[u8] {
        &self.ahead[self.used..]
    }

    /// The first `bytes` of [`Self::ahead`] have been used.
    pub fn consume(&mut self, bytes: usize) {
        self.used += bytes;
        if self.used >= self.ahead.len() {
            (self.ahead, self.used) = (Buffer::default(), 0);
        }
    }

    /// Puts bytes that were read back in front of the others.
    pub(super) fn put_back(&mut self, bytes: &[u8]) {
        let mut joined = Buffer::small();
        joined.extend_from_slice(bytes);
        joined.extend_from_slice(self.ahead());
        (self.ahead, self.used) = (joined, 0);
    }

    /// The moment it is now: who waits next need not look at the clock.
    pub const fn note_moment(&mut self, now: Moment) {
        self.latest = Some(now);
    }

    /// The moment that was noted, once.
    pub(super) const fn latest_moment(&mut self) -> Option<Moment> {
        self.latest.take()
    }

    /// The bound on what the connection waits for.
    pub const fn deadline(&mut self) -> &mut Deadline {
        &mut self.deadline
    }

    /// Reads up to `bytes_max` bytes and appends them to [`Self::ahead`]. `false` when the client has closed.
    ///
    /// # Errors
    /// When the connection is broken.
    pub fn poll_read_ahead(&mut self, cx: &mut Context<'_>, bytes_max: usize) -> Poll<io::Result<bool>> {
        // On the stack while it waits, so that an idle connection holds no buffer.
        let mut space = [MaybeUninit::uninit(); READ_BYTES];
        let mut buf = ReadBuf::uninit(&mut space[..bytes_max.min(READ_BYTES)]);
        ready!(self.poll_read(cx, &mut buf))?;
        if !buf.filled().is_empty() {
            self.append(buf.filled());
        }
        Poll::Ready(Ok(!self.client_closed))
    }

    /// Reads up to `bytes_max` bytes straight into what is [ahead](Self::ahead): for a body that is under way. None when the
    /// client has closed.
    ///
    /// # Errors
    /// When the connection is broken.
    pub fn poll_fill(&mut self, cx: &mut Context<'_>, bytes_max: usize) -> Poll<io::Result<usize>> {
        self.let_go_of_used(bytes_max.min(READ_BYTES));
        let mut ahead = std::mem::take(&mut self.ahead);
        let read = self.poll_read_into(cx, &mut ahead, bytes_max);
        self.ahead = ahead;
        read
    }

    /// Reads up to `bytes_max` bytes past what is [ahead](Self::ahead). None when the client has closed.
    ///
    /// # Errors
    /// When the connection is broken.
    pub fn poll_read_into(&mut self, cx: &mut Context<'_>, buffer: &mut Vec<u8>, bytes_max: usize) -> Poll<io::Result<usize>> {
        if buffer.capacity() - buffer.len() < bytes_max.min(READ_BYTES) {
            buffer.reserve(bytes_max.min(SMALL_BYTES));
        }
        let mut room = buffer.limit(bytes_max);
        let read = ready!(match &mut self.io {
            Io::Tcp(socket) => pin!(socket.read_buf(&mut room)).poll(cx),
            Io::Pingora(stream) => pin!(stream.read_buf(&mut room)).poll(cx),
        })?;
        self.client_closed |= read == 0;
        Poll::Ready(Ok(read))
    }

    /// Reads past [`Self::ahead`], which must be empty, or already be somebody's.
    ///
    /// # Errors
    /// When the connection is broken.
    pub fn poll_read(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(match &mut self.io {
            Io::Tcp(socket) => Pin::new(socket).poll_read(cx, buf),
            Io::Pingora(stream) => Pin::new(stream).poll_read(cx, buf),
        })?;
        self.client_closed |= buf.filled().len() == before;
        Poll::Ready(Ok(()))
    }

    /// Nothing more is wanted of the client for now: takes later requests in until it has gone. `half_close` tells whether one
    /// that has closed its sending side has not. The first `own` bytes of [`Self::ahead`] are those of the request under way. An
    /// error or `Ok` both mean that it has gone.
    ///
    /// # Errors
    /// When the connection is broken.
    pub fn poll_gone(&mut self, cx: &mut Context<'_>, half_close: bool, own: usize) -> Poll<io::Result<()>> {
        while !self.client_closed {
            let later = self.ahead().len().saturating_sub(own);
            let room = AHEAD_BYTES_MAX.saturating_sub(later);
            if room == 0 {
                // Its end could only be read behind what it has sent.
                return self.poll_reset(cx);
            }
            ready!(self.poll_read_ahead(cx, room))?;
        }
        if half_close { self.poll_reset(cx) } else { Poll::Ready(Ok(())) }
    }

    /// The client will send nothing more, and that is all right, or it has sent more than is taken in: waits until it resets the
    /// connection, of which reading says nothing any more. It never completes with `Ok`.
    ///
    /// # Errors
    /// When the client has reset the connection.
    pub fn poll_reset(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            let look = self.next_look.get_or_insert_with(|| Box::pin(sleep(RESET_LOOK)));
            ready!(look.as_mut().poll(cx));
            self.next_look = None;
            if self.is_reset() {
                return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
            }
        }
    }

    fn is_reset(&self) -> bool {
        let state = match &self.io {
            Io::Tcp(socket) => get_tcp_info(socket.as_raw_fd()).ok().map(|info| info.tcpi_state),
            Io::Pingora(stream) => stream.get_socket_digest().and_then(|socket| socket.tcp_info()).map(|info| info.tcpi_state),
        };
        state.is_none_or(|state| state == TCP_CLOSE)
    }

    /// Forgets that a client with a closed sending side was looked at: another request begins.
    pub(super) fn look_anew(&mut self) {
        self.next_look = None;
    }

    /// Writes some of `first` and then of `second`; how much. None when both are empty and nothing waits to be sent any more.
    ///
    /// # Errors
    /// When the connection is broken, or takes nothing more.
    pub fn poll_send(&mut self, cx: &mut Context<'_>, first: &[u8], second: &[u8]) -> Poll<io::Result<usize>> {
        let parts = [IoSlice::new(first), IoSlice::new(second)];
        let parts = match (first.is_empty(), second.is_empty()) {
            (true, true) => return self.poll_flush(cx).map_ok(|()| 0),
            (true, false) => &parts[1..],
            (false, true) => &parts[..1],
            (false, false) => &parts[..],
        };
        let written = match &mut self.io {
            Io::Tcp(socket) if parts.len() == 1 => Pin::new(socket).poll_write(cx, &parts[0]),
            Io::Tcp(socket) => Pin::new(socket).poll_write_vectored(cx, parts),
            Io::Pingora(stream) => Pin::new(stream).poll_write_vectored(cx, parts),
        };
        written.map(|written| some(written?))
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.io {
            // The system has what was written to it.
            Io::Tcp(_) => Poll::Ready(Ok(())),
            Io::Pingora(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    /// The same connection for Pingora's proxy.
    pub(super) fn for_pingora(self) -> Self {
        let Io::Tcp(socket) = self.io else { return self };
        Self { io: Io::Pingora(pingora_stream(socket)), ..self }
    }

    /// Whether closing at once could lose what was written: closing a socket with unread bytes resets it, and a reset may destroy
    /// the answer before the client has read it.
    pub(super) fn wants_patience(&self, is_sending: bool) -> bool {
        !self.client_closed && (is_sending || !self.ahead().is_empty())
    }

    /// The stream, if it is Pingora's.
    pub(super) fn pingora(&self) -> Option<&Stream> {
        match &self.io {
            Io::Tcp(_) => None,
            Io::Pingora(stream) => Some(stream),
        }
    }

    /// The same, to write to it.
    pub(super) fn pingora_mut(&mut self) -> Option<&mut Stream> {
        match &mut self.io {
            Io::Tcp(_) => None,
            Io::Pingora(stream) => Some(stream),
        }
    }

    /// The connection itself, without the bytes that were read ahead.
    pub(super) fn into_stream(self) -> Stream {
        match self.io {
            Io::Tcp(socket) => pingora_stream(socket),
            Io::Pingora(stream) => stream,
        }
    }

    fn append(&mut self, bytes: &[u8]) {
        if !self.ahead.is_lent() {
            self.ahead = Buffer::small();
        }
        self.let_go_of_used(bytes.len());
        self.ahead.extend_from_slice(bytes);
    }

    /// What has been used makes room for so many bytes, before the buffer grows for them: of a client that always has something
    /// ahead, it would never shrink again.
    fn let_go_of_used(&mut self, bytes: usize) {
        if self.used > 0 && self.ahead.len() + bytes > self.ahead.capacity() {
            self.ahead.drain(..self.used);
            self.used = 0;
        }
    }
}

/// The socket as Pingora's own accept loop would give it.
pub(super) fn pingora_stream(socket: TcpStream) -> Stream {
    let fd: RawFd = socket.as_raw_fd();
    let mut stream = pingora::protocols::l4::stream::Stream::from(socket);
    stream.set_socket_digest(SocketDigest::from_raw_fd(fd));
    Box::new(stream)
}

fn client_of(stream: &Stream) -> Option<SocketAddr> {
    stream.get_socket_digest()?.peer_addr()?.as_inet().copied()
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::io::AsyncWriteExt;
    use tokio::net::TcpListener;

    use super::*;

    async fn connection() -> (Connection, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        (Connection::accepted(listener.accept().await.unwrap().0), client)
    }

    #[tokio::test]
    async fn a_client_that_always_has_something_ahead_takes_no_more_room_for_it() {
        const BODY: usize = 12 * 1024;
        let (mut connection, mut client) = connection().await;
        for _ in 0..200 {
            client.write_all(&[b'x'; BODY + 1]).await.unwrap();
            let mut body = BODY;
            while body > 0 {
                body -= poll_fn(|cx| connection.poll_fill(cx, body)).await.unwrap();
            }
            // The next request has begun before this one is over.
            assert!(poll_fn(|cx| connection.poll_read_ahead(cx, 1)).await.unwrap());
            connection.consume(BODY);
            assert_eq!(connection.ahead().len() % BODY, connection.ahead().len());
        }
        assert!(connection.ahead.capacity() <= 4 * BODY, "{} bytes", connection.ahead.capacity());
    }

    #[tokio::test]
    async fn a_client_has_gone_however_large_the_request_that_is_under_way() {
        let (mut connection, mut client) = connection().await;
        let own = 3 * AHEAD_BYTES_MAX;
        client.write_all(&vec![b'x'; own + 1]).await.unwrap();
        while connection.ahead().len() < own {
            let left = own - connection.ahead().len();
            poll_fn(|cx| connection.poll_fill(cx, left)).await.unwrap();
        }
        drop(client);
        poll_fn(|cx| connection.poll_gone(cx, false, own)).await.unwrap();
        assert_eq!(connection.ahead().len(), own + 1, "what it asked for next was taken in first");
    }
}
