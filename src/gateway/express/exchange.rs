//! One attempt's bytes, in both directions at once.
//!
//! Nothing here knows what a request means. A call moves what can be moved without waiting, and says what it waits for by the
//! bound it sets; both directions go on while one of them waits, so that an instance may answer before it has read everything,
//! and a client may send on while it is answered.

use super::pool::Upstream;
use super::upload::{Side, Upload};
use crate::accept::Connection;
use crate::buffers::{Buffer, LARGE_BYTES, SMALL_BYTES};
use crate::clock;
use crate::proxy::cause::Cause;
use std::pin::pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::AsyncReadExt;
use vertice_core::time::Moment;

/// How long is waited for what.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    /// For more of the client's body.
    pub(super) body_stall: Duration,
    /// For the client to take more of its answer.
    pub(super) write_stall: Duration,
    /// For the instance to take more of the request.
    pub(super) instance_write: Duration,
    /// For the head of an answer, once the request has been sent, or behind an interim one.
    pub(super) first_byte: Duration,
    /// For each further byte.
    pub(super) silence: Duration,
    /// For everything.
    pub(super) end: Moment,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Exchange<'a> {
    client: &'a mut Connection,
    upstream: &'a mut Upstream,
    upload: Upload,
    bounds: Bounds,
    /// When the whole request had been handed over.
    sent: Option<Moment>,
    /// What came from the instance, and where of it begins what has not been used.
    come: Buffer,
    used: usize,
    /// What was put together for the client, and how much of it has been written.
    made: Buffer,
    written: usize,
    /// Bytes of `come` that go to the client as they are, behind what was made.
    passed: usize,
    /// Since when nothing has moved.
    since: Option<Moment>,
    has_come: bool,
    /// The answer has begun: its later bytes have a bound of their own.
    has_answer: bool,
}

impl<'a> Exchange<'a> {
    pub(super) fn new(client: &'a mut Connection, upstream: &'a mut Upstream, upload: Upload, bounds: Bounds) -> Self {
        Self {
            client,
            upstream,
            upload,
            bounds,
            sent: None,
            come: Buffer::default(),
            used: 0,
            made: Buffer::default(),
            written: 0,
            passed: 0,
            since: None,
            has_come: false,
            has_answer: false,
        }
    }

    /// The request, as far as it has been sent.
    pub(super) const fn upload(&self) -> &Upload {
        &self.upload
    }

    /// When the whole request had been handed over, if it has.
    pub(super) const fn sent(&self) -> Option<Moment> {
        self.sent
    }

    /// What came from the instance and has not been used.
    pub(super) fn come(&self) -> &[u8] {
        &self.come[self.used..]
    }

    /// Whether a byte of an answer has come.
    pub(super) const fn has_come(&self) -> bool {
        self.has_come
    }

    /// The first `bytes` of [`Self::come`] have been used.
    pub(super) fn use_up(&mut self, bytes: usize) {
        self.used += bytes;
    }

    /// What came and has not been used, and what is made for the client of it.
    pub(super) fn parts(&mut self) -> (&[u8], &mut Buffer) {
        if !self.made.is_lent() {
            self.made = Buffer::small();
        }
        (&self.come[self.used..], &mut self.made)
    }

    /// The first `bytes` of [`Self::come`] go to the client as they are, behind what was made.
    pub(super) const fn pass(&mut self, bytes: usize) {
        self.passed = bytes;
    }

    /// Later bytes of the answer are many: they come in larger pieces.
    pub(super) fn widen(&mut self) {
        self.upstream.says_much = true;
        if self.come().is_empty() && self.come.capacity() < LARGE_BYTES {
            (self.come, self.used) = (Buffer::large(), 0);
        }
    }

    /// The head of the answer has come.
    pub(super) const fn begin_answer(&mut self) {
        self.has_answer = true;
    }

    /// Waits for more of the answer. Meanwhile the rest of the request is sent, and the client is listened to. How many bytes
    /// came; none when the instance has closed the connection.
    ///
    /// # Errors
    /// Why there will be no more.
    pub(super) fn poll_answer(&mut self, cx: &mut Context<'_>) -> Poll<Result<usize, Cause>> {
        self.poll_upload(cx)?;
        if let Poll::Ready(read) = self.poll_read(cx) {
            if self.has_answer || !self.upload.is_over() {
                self.since = None;
            }
            self.has_come |= matches!(read, Ok(1..));
            return Poll::Ready(read.map_err(|_| Cause::Reset));
        }
        if self.poll_client_gone(cx).is_ready() {
            return Poll::Ready(Err(Cause::ClientGone));
        }
        let (patience, cause) = match (self.upload.is_over(), self.upload.waits_for()) {
            (true, _) if self.has_answer => (self.bounds.silence, Cause::TimedOut),
            (true, _) => (self.bounds.first_byte, Cause::TimedOut),
            (false, Side::Client) => (self.bounds.body_stall, Cause::BodyStalled),
            (false, Side::Instance) => (self.bounds.instance_write, Cause::TimedOut),
        };
        self.poll_late(cx, patience, cause).map(Err)
    }

    /// Writes what was made and what is passed on to the client, until all of it has been written.
    ///
    /// # Errors
    /// Why it cannot be.
    pub(super) fn poll_deliver(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Cause>> {
        loop {
            let (made, passed) = (&self.made[self.written..], &self.come[self.used..self.used + self.passed]);
            match self.client.poll_send(cx, made, passed) {
                Poll::Pending => break,
                Poll::Ready(Err(_)) => return Poll::Ready(Err(Cause::ClientGone)),
                Poll::Ready(Ok(0)) => {
                    (self.made, self.written, self.since) = (Buffer::default(), 0, None);
                    return Poll::Ready(Ok(()));
                }
                Poll::Ready(Ok(bytes)) => {
                    let of_made = bytes.min(self.made.len() - self.written);
                    self.written += of_made;
                    self.used += bytes - of_made;
                    self.passed -= bytes - of_made;
                    self.since = None;
                }
            }
        }
        self.poll_upload(cx)?;
        self.poll_late(cx, self.bounds.write_stall, Cause::WriteStalled).map(Err)
    }

    /// Listens to a client of whom nothing is wanted for now. Who sends a body has its end read behind that.
    fn poll_client_gone(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match (self.upload.is_over(), self.upload.waits_for()) {
            (true, _) => self.client.poll_gone(cx, false, self.upload.used()).map(drop),
            // Nothing more of the body is read until the instance takes it.
            (false, Side::Instance) => self.client.poll_reset(cx).map(drop),
            (false, Side::Client) => Poll::Pending,
        }
    }

    /// Sends as much of the request as can be sent now.
    fn poll_upload(&mut self, cx: &mut Context<'_>) -> Result<(), Cause> {
        while !self.upload.is_over() {
            let side = self.upload.waits_for();
            match self.upload.poll(self.client, &mut self.upstream.socket, cx) {
                Poll::Ready(moved) => moved?,
                Poll::Pending => {
                    if self.upload.waits_for() != side {
                        // What one of them has waited is not the other's silence.
                        self.since = None;
                    }
                    return Ok(());
                }
            }
            self.since = None;
            if self.upload.is_sent() {
                let now = clock::mono();
                (self.sent, self.since) = (Some(now), Some(now));
            }
        }
        Ok(())
    }

    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<std::io::Result<usize>> {
        if !self.come.is_lent() {
            // Who waits holds no buffer.
            ready!(self.upstream.socket.poll_read_ready(cx))?;
            self.come = if self.upstream.says_much { Buffer::large() } else { Buffer::small() };
        } else if self.used == self.come.len() {
            self.come.clear();
            self.used = 0;
        } else if self.come.len() == self.come.capacity() {
            self.come.drain(..self.used);
            self.used = 0;
            self.come.reserve(SMALL_BYTES);
        }
        pin!(self.upstream.socket.read_buf(&mut *self.come)).poll(cx)
    }

    /// Ready when nothing has moved for so long, or everything takes too long.
    fn poll_late(&mut self, cx: &mut Context<'_>, patience: Duration, cause: Cause) -> Poll<Cause> {
        let due = self.since.get_or_insert_with(clock::mono).plus(patience);
        self.client.deadline().set(due.min(self.bounds.end));
        ready!(self.client.deadline().poll(cx));
        Poll::Ready(if self.bounds.end <= due { Cause::TimedOut } else { cause })
    }
}
