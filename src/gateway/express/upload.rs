//! A request on its way to an instance.

use crate::accept::{Connection, Incoming, Pacing};
use crate::buffers::Buffer;
use crate::proxy::cause::Cause;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tokio::io::AsyncWrite;
use tokio::net::TcpStream;
use vertice_core::pace::PaceLimit;

/// A body up to this length is kept until there is an answer, so that the request can be sent once more.
const KEPT_BYTES_MAX: u64 = 64 * 1024;

/// So much of a body is copied behind its head, so that both are one write.
pub(super) const COPIED_BYTES_MAX: usize = 4 * 1024;

/// One read of a body that is not kept.
const WINDOW_BYTES: u64 = 64 * 1024;

/// The head that was written for the instance, and the body as it comes from the client.
#[derive(Debug)]
pub(super) struct Upload {
    head: Buffer,
    /// So much of the head has been written.
    written: usize,
    /// Where among the client's bytes those of the body begin that are to be written next.
    next: usize,
    /// How much of the body is still to be written.
    left: u64,
    /// Of a body that is not kept: what is under way, and how much of it has been written.
    window: Buffer,
    window_written: usize,
    is_kept: bool,
    pace: Option<PaceLimit>,
    /// Of a body that did not come with its head.
    pacing: Option<Box<Pacing>>,
    /// Whom it waits for.
    waits_for: Side,
    /// The instance takes no more; what it has said to that may still be read.
    is_refused: bool,
    has_begun: bool,
}

/// One end of an exchange.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    Client,
    Instance,
}

impl Upload {
    /// The `head` as it was written for the instance, and the body of what came in.
    pub(super) fn new(mut head: Buffer, client: &Connection, incoming: &Incoming<'_>) -> Self {
        let (body_at, pace) = (incoming.head.head_len, incoming.body_pace);
        let length = incoming.head.length().unwrap_or(0);
        let come = arrived(client, body_at, length);
        let copied = if come.len() <= COPIED_BYTES_MAX { come.len() } else { 0 };
        head.extend_from_slice(&come[..copied]);
        Self {
            head,
            written: 0,
            next: body_at + copied,
            left: length - copied as u64,
            window: Buffer::default(),
            window_written: 0,
            is_kept: length <= KEPT_BYTES_MAX,
            pace,
            pacing: None,
            waits_for: Side::Instance,
            is_refused: false,
            has_begun: false,
        }
    }

    /// Nothing is to be sent any more.
    pub(super) fn is_over(&self) -> bool {
        self.is_refused || self.is_sent()
    }

    /// The whole request has been handed over.
    pub(super) fn is_sent(&self) -> bool {
        self.left == 0 && self.written == self.head.len() && self.window_written == self.window.len()
    }

    /// Whether a byte was handed over.
    pub(super) const fn has_begun(&self) -> bool {
        self.has_begun
    }

    /// Whether it could be sent once more from its beginning.
    pub(super) fn is_repeatable(&self) -> bool {
        self.is_kept || !self.window.is_lent()
    }

    /// How many of the client's bytes the request is, as far as they wait there.
    pub(super) const fn used(&self) -> usize {
        self.next
    }

    /// Who has something to do next.
    pub(super) const fn waits_for(&self) -> Side {
        self.waits_for
    }

    /// Sends what there is. Ready when some of it was sent, or nothing is left to send.
    ///
    /// # Errors
    /// When the client fails to deliver its body.
    pub(super) fn poll(
        &mut self,
        client: &mut Connection,
        socket: &mut TcpStream,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), Cause>> {
        if self.is_over() {
            return Poll::Ready(Ok(()));
        }
        if !self.has_something(client) {
            self.waits_for = Side::Client;
            ready!(self.poll_more(client, cx))?;
        }
        self.waits_for = Side::Instance;
        match ready!(self.poll_write(client, socket, cx)) {
            Ok(bytes @ 1..) => self.account(bytes, client),
            // It may have answered before it closed.
            Ok(0) | Err(_) => self.is_refused = true,
        }
        Poll::Ready(Ok(()))
    }

    fn has_something(&self, client: &Connection) -> bool {
        let is_under_way = self.written < self.head.len() || self.window_written < self.window.len();
        is_under_way || !arrived(client, self.next, self.left).is_empty()
    }

    fn poll_write(&self, client: &Connection, socket: &mut TcpStream, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let (head, body) = (&self.head[self.written..], self.body(client));
        let socket = Pin::new(socket);
        match (head.is_empty(), body.is_empty()) {
            (false, true) => socket.poll_write(cx, head),
            (true, _) => socket.poll_write(cx, body),
            (false, false) => socket.poll_write_vectored(cx, &[IoSlice::new(head), IoSlice::new(body)]),
        }
    }

    /// What of the body is to be written next.
    fn body<'a>(&'a self, client: &'a Connection) -> &'a [u8] {
        let window = &self.window[self.window_written..];
        if window.is_empty() { arrived(client, self.next, self.left) } else { window }
    }

    fn account(&mut self, bytes: usize, client: &Connection) {
        self.has_begun = true;
        let of_head = bytes.min(self.head.len() - self.written);
        let of_body = bytes - of_head;
        self.written += of_head;
        if self.window_written < self.window.len() {
            self.window_written += of_body;
        } else {
            debug_assert!(of_body <= arrived(client, self.next, self.left).len(), "more was written than there was");
            self.next += of_body;
            self.left -= of_body as u64;
        }
        if self.written == self.head.len() {
            // A request that waits for its answer holds no buffer for it.
            (self.head, self.written) = (Buffer::default(), 0);
        }
    }

    /// Waits for more of the body.
    fn poll_more(&mut self, client: &mut Connection, cx: &mut Context<'_>) -> Poll<Result<(), Cause>> {
        let pacing = match (&mut self.pacing, self.pace) {
            (None, Some(limit)) => Some(self.pacing.insert(Box::new(Pacing::new(limit)))),
            (pacing, _) => pacing.as_mut(),
        };
        let read = if self.is_kept {
            client.poll_fill(cx, usize::try_from(self.left).unwrap_or(usize::MAX))
        } else {
            if !self.window.is_lent() {
                self.window = Buffer::large();
            }
            self.window.clear();
            self.window_written = 0;
            client.poll_read_into(cx, &mut self.window, self.left.min(WINDOW_BYTES) as usize)
        };
        let Poll::Ready(read) = read else {
            pacing.into_iter().for_each(|pacing| pacing.wait());
            return Poll::Pending;
        };
        let Ok(bytes @ 1..) = read else { return Poll::Ready(Err(Cause::ClientGone)) };
        if !self.is_kept {
            self.left -= bytes as u64;
        }
        let keeps_up = pacing.is_none_or(|pacing| pacing.came(bytes).is_ok());
        Poll::Ready(if keeps_up { Ok(()) } else { Err(Cause::BodyTooSlow) })
    }
}

/// What of a body has arrived, from `at` on.
fn arrived(client: &Connection, at: usize, left: u64) -> &[u8] {
    let come = client.ahead().get(at..).unwrap_or_default();
    &come[..come.len().min(usize::try_from(left).unwrap_or(usize::MAX))]
}
