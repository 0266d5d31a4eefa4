//! One plain request, from its head to the last byte of its answer.

use super::answer::{self, AnswerHead};
use super::body::{Body, Piece};
use super::connect;
use super::date::date;
use super::exchange::{Bounds, Exchange};
use super::pool::{self, Upstream};
use super::request::Request;
use super::upload::{COPIED_BYTES_MAX, Upload};
use crate::accept::{Connection, Incoming};
use crate::buffers::Buffer;
use crate::clock;
use crate::lanes::Shared;
use crate::proxy::again::{Lost, Point};
use crate::proxy::answer::{Unfit, add, hear};
use crate::proxy::cause::Cause;
use crate::proxy::conclude::{Ended, conclude};
use crate::proxy::ctx::Ctx;
use crate::proxy::outgoing::Outgoing;
use crate::proxy::pooled::is_sent_once;
use http::{Method, StatusCode, Version};
use std::future::poll_fn;
use std::net::SocketAddr;
use std::time::Duration;
use vertice_core::retry::Failed;
use vertice_core::time::Moment;

/// More of a body than this comes in larger pieces.
const MANY_BYTES: u64 = 16 * 1024;

/// See the module.
pub(super) struct Flight<'a> {
    pub(super) shared: &'a Shared,
    pub(super) incoming: Incoming<'a>,
    pub(super) method: Method,
    pub(super) ctx: Ctx,
    /// The status that the client was sent.
    pub(super) status: Option<StatusCode>,
    /// Bytes of the answer's body that the client was sent.
    pub(super) bytes: u64,
    /// The connection is closed behind the answer.
    pub(super) closes: bool,
}

/// How an attempt ended.
#[derive(Clone, Copy, Debug)]
pub(super) enum Attempted {
    /// With a whole answer.
    Delivered {
        /// The client may still be sending its request.
        is_sending: bool,
        /// So many of the client's bytes were the request.
        used: usize,
        at: Moment,
    },
    /// Before there was a connection.
    Unconnected(Cause),
    /// Another one follows, for this answer said that the instance could not serve.
    SetAside,
    /// In the middle.
    Broken {
        lost: Lost,
        /// The request could be sent once more from its beginning.
        is_repeatable: bool,
        /// The client may still be sending it.
        is_sending: bool,
    },
}

/// Why there is no whole answer.
enum Stop {
    SetAside,
    Cause(Cause),
}

impl From<Cause> for Stop {
    fn from(cause: Cause) -> Self {
        Self::Cause(cause)
    }
}

impl From<Unfit> for Stop {
    fn from(_unfit: Unfit) -> Self {
        Self::Cause(Cause::Invalid)
    }
}

/// A head of an answer.
enum Heard {
    /// Another one follows.
    Interim,
    /// The answer itself.
    Final {
        /// What follows it.
        body: Body,
        /// Whether the instance keeps the connection.
        keeps_connection: bool,
    },
}

impl<'a> Flight<'a> {
    pub(super) const fn new(shared: &'a Shared, incoming: Incoming<'a>, method: Method, ctx: Ctx) -> Self {
        Self { shared, incoming, method, ctx, status: None, bytes: 0, closes: false }
    }

    /// What is known of the request when an attempt has failed.
    pub(super) fn failed(&self, body_kept: bool) -> Failed {
        Failed { untouched: false, idempotent: self.method.is_idempotent(), body_kept, answered: self.status.is_some() }
    }

    /// Tries the instance that was picked.
    pub(super) async fn attempt(&mut self, client: &mut Connection) -> Attempted {
        // The moment the request came is near enough for its first attempt.
        let begun = if self.ctx.forward.as_ref().is_none_or(|forward| forward.tried.attempts() <= 1) {
            self.ctx.started
        } else {
            clock::mono()
        };
        let Some((address, wants_fresh)) = self.begin(begun) else { return Attempted::Unconnected(Cause::Internal) };
        let (mut upstream, is_reused) = match self.waiting(address, wants_fresh, begun) {
            Some(upstream) => (upstream, true),
            None => match self.connect(address, begun).await {
                Ok(upstream) => (upstream, false),
                Err(cause) => return Attempted::Unconnected(cause),
            },
        };
        self.ctx.connected(is_reused, if is_reused { begun } else { clock::mono() });
        let upload = Upload::new(self.head_for_instance(client), client, &self.incoming);
        let mut exchange = Exchange::new(client, &mut upstream, upload, self.bounds());
        let result = self.converse(&mut exchange).await;
        let (upload, is_clean) = (exchange.upload(), exchange.come().is_empty());
        let is_sending = !upload.is_sent();
        match result {
            Ok(keeps_connection) => {
                let (used, at) = (upload.used(), clock::mono());
                if keeps_connection && is_clean && !is_sending {
                    upstream.says_much &= self.bytes > MANY_BYTES;
                    self.release(address, upstream, at);
                }
                Attempted::Delivered { is_sending, used, at }
            }
            Err(Stop::SetAside) => Attempted::SetAside,
            Err(Stop::Cause(cause)) => {
                let at = match cause {
                    Cause::Reset if is_reused && !upload.has_begun() => Point::Untouched,
                    Cause::Reset if !exchange.has_come() => Point::Reading,
                    _ => Point::Other,
                };
                let (is_repeatable, sent) = (upload.is_repeatable(), exchange.sent());
                if let (Some(forward), Some(sent)) = (&mut self.ctx.forward, sent) {
                    forward.sent(sent);
                }
                Attempted::Broken { lost: Lost { cause, at, is_reused }, is_repeatable, is_sending }
            }
        }
    }

    /// The attempt that comes next is under way. Where it goes, and whether over a new connection.
    fn begin(&mut self, now: Moment) -> Option<(SocketAddr, bool)> {
        let attempt = self.ctx.begin(now)?;
        let address = attempt.upstream().addresses.get(attempt.address())?;
        Some((*address, attempt.wants_fresh_connection))
    }

    /// A connection that waits for a request.
    fn waiting(&self, address: SocketAddr, wants_fresh: bool, now: Moment) -> Option<Upstream> {
        let forward = self.ctx.forward.as_ref().filter(|_| !wants_fresh)?;
        let is_sent_once = is_sent_once(&self.method, self.length() > 0);
        // A pipelined request follows the last answer before the runtime looks again.
        let checks = (is_sent_once, self.incoming.is_pipelined);
        connect::waiting(address, now, checks, forward.service.policy.connections.keepalive)
    }

    /// A new connection.
    async fn connect(&self, address: SocketAddr, now: Moment) -> Result<Upstream, Cause> {
        let Some(forward) = &self.ctx.forward else { return Err(Cause::Internal) };
        let left = forward.end.since(now).max(Duration::from_millis(1));
        connect::fresh(address, forward.timeouts.connect.min(left)).await
    }

    fn head_for_instance(&self, client: &Connection) -> Buffer {
        let mut head = Buffer::small();
        let request = Request::new(client.ahead(), &self.incoming);
        let scheme = if client.is_encrypted() { "https" } else { "http" };
        if let Some(outgoing) = Outgoing::of(&self.ctx, request.fields(), scheme) {
            request.write(&outgoing, &mut head);
        }
        head
    }

    fn bounds(&self) -> Bounds {
        let settings = &self.ctx.rules.settings;
        let forward = self.ctx.forward.as_ref();
        let timeouts = forward.map(|forward| forward.timeouts).unwrap_or_default();
        Bounds {
            body_stall: settings.body_stall,
            write_stall: settings.write_stall,
            instance_write: forward.map_or(settings.write_stall, |forward| forward.service.policy.connections.write_stall),
            first_byte: timeouts.first_byte,
            silence: timeouts.silence,
            end: forward.map_or(self.ctx.started, |forward| forward.end),
        }
    }

    /// Sends the request and delivers the answer. Whether the instance keeps the connection.
    async fn converse(&mut self, exchange: &mut Exchange<'_>) -> Result<bool, Stop> {
        let (mut body, keeps_connection) = loop {
            match self.hear(exchange)? {
                Some(Heard::Final { body, keeps_connection }) => break (body, keeps_connection),
                Some(Heard::Interim) => poll_fn(|cx| exchange.poll_deliver(cx)).await?,
                None => {
                    if poll_fn(|cx| exchange.poll_answer(cx)).await? == 0 {
                        return Err(Cause::Reset.into());
                    }
                }
            }
        };
        loop {
            let passed = self.pass(exchange, &mut body);
            // What was right goes out before what was not breaks it off.
            poll_fn(|cx| exchange.poll_deliver(cx)).await?;
            let taken = passed?;
            if body.is_done() {
                return Ok(keeps_connection);
            }
            if taken as u64 >= MANY_BYTES || matches!(body, Body::Length(MANY_BYTES..)) {
                exchange.widen();
            }
            if poll_fn(|cx| exchange.poll_answer(cx)).await? == 0 && !body.close(exchange.parts().1) {
                return Err(Cause::Reset.into());
            }
        }
    }

    /// Has what came of the body go on to the client. How much it was.
    fn pass(&mut self, exchange: &mut Exchange<'_>, body: &mut Body) -> Result<usize, Cause> {
        let (come, made) = exchange.parts();
        let piece = body.pass(come, made).map_err(|_| Cause::Invalid);
        if let Body::Chunked(framing) = body {
            self.bytes = framing.data();
        }
        let piece = piece?;
        match piece {
            Piece::AsIs(bytes) if bytes <= COPIED_BYTES_MAX && !made.is_empty() => {
                made.extend_from_slice(&come[..bytes]);
                exchange.use_up(bytes);
            }
            Piece::AsIs(bytes) => exchange.pass(bytes),
            Piece::Rewritten(bytes) => exchange.use_up(bytes),
        }
        if !matches!(body, Body::Chunked(_)) {
            self.bytes += piece.taken() as u64;
        }
        Ok(piece.taken())
    }

    /// Reads a head of the answer out of what has come; none when it is not complete.
    fn hear(&mut self, exchange: &mut Exchange<'_>) -> Result<Option<Heard>, Stop> {
        if exchange.come().is_empty() {
            return Ok(None);
        }
        let (sent, is_repeatable) = (exchange.sent(), exchange.upload().is_repeatable());
        let is_sending = !exchange.upload().is_sent();
        let (come, made) = exchange.parts();
        let mut room = answer::room();
        let metrics = &self.shared.metrics;
        let read = AnswerHead::read(come, &mut room).map_err(|unfit| unfit.counted(metrics))?;
        let Some(head) = read else { return Ok(None) };
        let len = head.len;
        let Some(framing) = hear(&mut self.ctx, head.status, head.version, &head.fields, metrics)? else {
            head.write(made);
            made.extend_from_slice(b"\r\n");
            exchange.use_up(len);
            return Ok(Some(Heard::Interim));
        };
        let now = clock::mono();
        if let (Some(forward), Some(sent)) = (&mut self.ctx.forward, sent) {
            forward.sent(sent);
        }
        let failed = self.failed(is_repeatable);
        if self.shared.again().after_answer(&mut self.ctx, head.status, failed, now) {
            return Err(Stop::SetAside);
        }
        if let Some(forward) = &mut self.ctx.forward {
            forward.answered(head.status, &head.fields, now);
        }
        let body = head.body(framing, self.method == Method::HEAD);
        self.closes = is_sending || self.ends_connection();
        self.status = Some(head.status);
        head.write(made);
        add(&mut self.ctx, head.status, &head.fields, &mut **made);
        self.finish_head(&head, &body, now, made);
        // An instance that answered before it had the request may take the rest of it for the next one.
        let keeps_connection = head.keeps_connection() && body != Body::UntilClose && !is_sending;
        exchange.use_up(len);
        exchange.begin_answer();
        Ok(Some(Heard::Final { body, keeps_connection }))
    }

    /// Appends what the lane itself says in the head of an answer.
    fn finish_head(&self, head: &AnswerHead<'_, '_>, body: &Body, now: Moment, out: &mut Vec<u8>) {
        if !head.has_date() {
            out.extend_from_slice(b"Date: ");
            out.extend_from_slice(&date(now));
            out.extend_from_slice(b"\r\n");
        }
        if head.is_chunked() || *body == Body::UntilClose {
            out.extend_from_slice(b"Transfer-Encoding: chunked\r\n");
        }
        out.extend_from_slice(if self.closes { b"Connection: close\r\n\r\n" } else { b"Connection: keep-alive\r\n\r\n" });
    }

    /// Gives the connection back for the next request.
    fn release(&self, address: SocketAddr, upstream: Upstream, now: Moment) {
        let Some(forward) = &self.ctx.forward else { return };
        let until = now.plus(forward.service.policy.connections.keepalive);
        if !pool::keep(address, upstream, until) {
            self.shared.metrics.limit_hit("pooled_connections");
        }
    }

    /// Whether the connection is closed behind the answer, whatever that is.
    pub(super) fn ends_connection(&self) -> bool {
        self.incoming.is_last || self.incoming.head.wants_close || self.shared.drain.is_draining()
    }

    /// How much of the request's body waits among the client's bytes.
    pub(super) fn body_come(&self, client: &Connection) -> usize {
        let behind = client.ahead().len().saturating_sub(self.incoming.head.head_len);
        behind.min(usize::try_from(self.length()).unwrap_or(usize::MAX))
    }

    /// Whether the client has yet to send some of it.
    pub(super) fn awaits_body(&self, client: &Connection) -> bool {
        (self.body_come(client) as u64) < self.length()
    }

    /// Records how the request ended at `now`.
    pub(super) fn conclude(&mut self, client: &Connection, cause: Option<Cause>, now: Moment) {
        let request = Request::new(client.ahead(), &self.incoming);
        let ended = Ended {
            method: &self.method,
            target: request.target(),
            version: Version::HTTP_11,
            fields: request.fields(),
            status: self.status,
            bytes: usize::try_from(self.bytes).unwrap_or(usize::MAX),
            cause,
        };
        conclude(&mut self.ctx, &ended, now, &self.shared.metrics, &self.shared.access);
    }

    fn length(&self) -> u64 {
        self.incoming.head.length().unwrap_or(0)
    }
}
