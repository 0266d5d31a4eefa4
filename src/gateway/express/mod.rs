//! The express lane: moves the bytes of plain requests itself.
//!
//! A request that is provably plain ([`Head::is_plain`](crate::accept::Head), for a service whose instances speak plain
//! HTTP/1.1) needs nothing of what Pingora's proxy can do beyond that, and costs half without it. Everything that decides is the
//! same as in the full lane, and stands in `proxy/`; this room holds no rule of its own. What is not plain is left untouched, for
//! the full lane.
//!
//! **Invariant:** between its head and its answer a plain request allocates nothing: buffers and connections are lent by the
//! worker's thread, and come back.

pub mod answer;
pub mod body;
mod connect;
mod date;
mod exchange;
mod flight;
mod pool;
mod request;
mod upload;

use crate::accept::{Connection, ExpressLane, Incoming, Served};
use crate::clock;
use crate::lanes::Shared;
use crate::problem;
use crate::proxy::admit::{self, Asked};
use crate::proxy::again::pause;
use crate::proxy::cause::Cause;
use crate::proxy::ctx::Ctx;
use crate::proxy::explain::EXPLAIN;
use crate::proxy::fail::{self, Failure};
use crate::proxy::fields::Fields;
use bytes::Bytes;
use date::date;
use flight::{Attempted, Flight};
use http::{Method, Response};
use request::Request;
use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;

/// See the module.
pub struct Express {
    shared: Arc<Shared>,
    is_open: bool,
}

impl Express {
    /// A lane for listeners from which services can be reached; for others it is never open.
    #[must_use]
    pub const fn new(shared: Arc<Shared>, is_open: bool) -> Self {
        Self { shared, is_open }
    }

    /// Takes the request in, if it is plain; with what it is refused, if it is.
    fn admit<'a>(&'a self, client: &Connection, incoming: Incoming<'a>) -> Option<(Flight<'a>, Option<Failure>)> {
        if !self.is_open || !incoming.head.is_plain || !incoming.fields.is_complete() {
            return None;
        }
        let rules = self.shared.rules.load();
        let request = Request::new(client.ahead(), &incoming);
        let (fields, target) = (request.fields(), request.target());
        if !rules.settings.express || fields.has(EXPLAIN) {
            return None;
        }
        let method = Method::from_bytes(request.method()).ok()?;
        let plan = {
            let way = rules.routing.find(&Asked { target, method: &method, fields })?;
            // Who is nowhere to be found is told so by the other lane.
            rules.routing.plan(way, target, &self.shared.table.load()).ok()?
        };
        if !plan.is_plain() {
            return None;
        }
        let rules = arc_swap::Guard::into_inner(rules);
        let mut ctx = Ctx::new(clock::mono(), rules, self.shared.metrics.request_starts());
        ctx.identify(client.client().map(|peer| peer.ip()), fields);
        let refused = admit::admit(&mut ctx, plan, fields, incoming.head.length(), &self.shared.metrics).err();
        if let Some(forward) = &mut ctx.forward {
            forward.is_plain = true;
        }
        Some((Flight::new(&self.shared, incoming, method, ctx), refused))
    }
}

impl ExpressLane for Express {
    async fn serve(&self, client: &mut Connection, incoming: Incoming<'_>) -> Served {
        let Some((mut flight, refused)) = self.admit(client, incoming) else { return Served::Untouched };
        match refused {
            None => flight.fly(client).await,
            Some(failure) => flight.refuse(client, &failure).await,
        }
    }
}

impl std::fmt::Debug for Express {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Express").field("is_open", &self.is_open).finish_non_exhaustive()
    }
}

impl Flight<'_> {
    /// Tries instances until one has answered, or none is left.
    async fn fly(&mut self, client: &mut Connection) -> Served {
        loop {
            if let Some(pause) = self.ctx.forward.as_ref().and_then(pause) {
                tokio::time::sleep(pause).await;
            }
            let (cause, is_sending) = match self.attempt(client).await {
                Attempted::Delivered { is_sending, used, at } => {
                    self.conclude(client, None, at);
                    client.consume(used);
                    client.note_moment(at);
                    return if self.closes { Served::Ended { is_sending } } else { Served::Complete };
                }
                Attempted::SetAside => continue,
                Attempted::Unconnected(cause) => {
                    let failed = self.failed(true);
                    if self.shared.again().after_no_connection(&mut self.ctx, cause, failed, clock::mono()) {
                        continue;
                    }
                    (cause, self.awaits_body(client))
                }
                Attempted::Broken { lost, is_repeatable, is_sending } => {
                    let failed = self.failed(is_repeatable);
                    if self.shared.again().after_failure(&mut self.ctx, lost, failed, clock::mono()) {
                        continue;
                    }
                    (lost.cause, is_sending)
                }
            };
            return self.fail(client, cause, is_sending).await;
        }
    }

    /// Ends a request that no instance has answered, or not to its end.
    async fn fail(&mut self, client: &mut Connection, cause: Cause, is_sending: bool) -> Served {
        let service = self.ctx.forward.as_ref().map_or("", |forward| forward.service.name.as_str());
        // Behind the head of an answer nobody can be told anything but that it ends too early.
        if let Some(failure) = cause.failure(service).filter(|_| self.status.is_none()) {
            self.closes = true;
            let response = fail::response(&mut self.ctx, &failure, &self.shared.metrics);
            self.answer(client, &response).await;
        }
        self.conclude(client, Some(cause), clock::mono());
        Served::Ended { is_sending }
    }

    /// Answers a request that is not taken in.
    async fn refuse(&mut self, client: &mut Connection, failure: &Failure) -> Served {
        let is_sending = self.awaits_body(client);
        self.closes = is_sending || self.ends_connection();
        let response = fail::response(&mut self.ctx, failure, &self.shared.metrics);
        let is_written = self.answer(client, &response).await;
        self.conclude(client, None, clock::mono());
        client.consume(self.incoming.head.head_len + self.body_come(client));
        if self.closes || !is_written { Served::Ended { is_sending } } else { Served::Complete }
    }

    /// Writes an answer of the gateway's own. Whether the client has taken it.
    async fn answer(&mut self, client: &mut Connection, response: &Response<Bytes>) -> bool {
        let now = clock::mono();
        let date = date(now);
        let date = std::str::from_utf8(&date).unwrap_or_default();
        let bytes = problem::wire(response, self.method != Method::HEAD, self.closes, date);
        self.status = Some(response.status());
        self.bytes = if self.method == Method::HEAD { 0 } else { response.body().len() as u64 };
        client.deadline().set(now.plus(self.ctx.rules.settings.write_stall));
        let mut written = 0;
        poll_fn(|cx| {
            loop {
                match client.poll_send(cx, &bytes[written..], b"") {
                    Poll::Pending => return client.deadline().poll(cx).map(|()| false),
                    Poll::Ready(Ok(0)) => return Poll::Ready(true),
                    Poll::Ready(Ok(bytes)) => written += bytes,
                    Poll::Ready(Err(_)) => return Poll::Ready(false),
                }
            }
        })
        .await
    }
}
