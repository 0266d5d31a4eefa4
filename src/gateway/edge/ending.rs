//! How requests end: Pingora's errors as endings and failures, and what is recorded of a request.

use super::Shared;
use crate::accept::{is_cut, is_malformed_body, is_slow_body};
use crate::clock;
use crate::proxy::answer::is_interim;
use crate::proxy::attempt::Attempt;
use crate::proxy::cause::Cause;
use crate::proxy::ctx::{Ctx, Forward};
use crate::proxy::fail::Failure;
use crate::telemetry::access::Entry;
use pingora::protocols::http::v2::client::PING_TIMEDOUT;
use pingora::proxy::Session;
use pingora::{Error, ErrorSource, ErrorType};
use vertice_core::outcome::Ending;
use vertice_core::reason::Reason;
use vertice_core::route;

/// What an error of Pingora's means.
pub(super) fn cause(error: &Error, ctx: &Ctx) -> Cause {
    use ErrorType as E;
    let has_fired = ctx.forward.as_ref().and_then(|forward| forward.attempt.as_ref()).is_some_and(Attempt::timed_out);
    match (error.esource(), error.etype()) {
        _ if ctx.reason == Some(Reason::BodyTooLarge) => Cause::BodyTooLarge,
        // The watch may have fired over a connection that nobody reads from because the client is slow to take the answer.
        (source, _) if has_fired && (*source != ErrorSource::Downstream || is_cut(error)) => Cause::TimedOut,
        _ if is_malformed_body(error) => Cause::BodyMalformed,
        _ if is_slow_body(error) => Cause::BodyTooSlow,
        (ErrorSource::Downstream, E::ReadTimedout) => Cause::BodyStalled,
        (ErrorSource::Downstream, E::WriteTimedout) => Cause::WriteStalled,
        (ErrorSource::Downstream, E::ReadError | E::WriteError | E::ConnectionClosed) => Cause::ClientGone,
        (ErrorSource::Downstream, _) => Cause::RequestMalformed,
        (ErrorSource::Upstream, E::ConnectTimedout | E::TLSHandshakeTimedout) => Cause::ConnectTimedOut,
        (ErrorSource::Upstream, E::ReadTimedout | E::WriteTimedout) => Cause::TimedOut,
        (ErrorSource::Upstream, E::ConnectRefused | E::ConnectNoRoute | E::ConnectError | E::ConnectProxyFailure) => {
            Cause::NoConnection
        }
        (ErrorSource::Upstream, E::TLSHandshakeFailure | E::InvalidCert) => Cause::NoConnection,
        // Pingora says so when the gateway has no port or descriptor left for a connection.
        (ErrorSource::Upstream, E::InternalError) => Cause::NoPort,
        (ErrorSource::Upstream, etype) if is_break(etype) => Cause::Reset,
        (ErrorSource::Upstream, _) => Cause::Invalid,
        _ => Cause::Internal,
    }
}

/// The connection broke, or with HTTP/2 the request's part of it.
fn is_break(etype: &ErrorType) -> bool {
    use ErrorType::{ConnectionClosed, H2Error, ReadError, WriteError};
    matches!(etype, ReadError | WriteError | ConnectionClosed | H2Error) || *etype == PING_TIMEDOUT
}

/// What the client is told; `None` when there is nobody to tell.
pub(super) fn failure(error: &Error, ctx: &Ctx) -> Option<Failure> {
    cause(error, ctx).failure(ctx.forward.as_ref().map_or("", |forward| forward.service.name.as_str()))
}

/// The limit that the client ran into, as its metric names it.
fn limit(error: Option<&Error>, ctx: &Ctx) -> Option<&'static str> {
    let cause = error.map(|error| cause(error, ctx));
    if let Some(tunnel) = ctx.forward.as_ref().filter(|forward| forward.is_tunnel) {
        // Both sides are watched; to the tunnel an instance that is shut down has only come to its end.
        let has_fired = tunnel.attempt.as_ref().is_some_and(Attempt::timed_out);
        if has_fired || cause == Some(Cause::BodyStalled) {
            return Some("tunnel_idle");
        }
    }
    cause.and_then(Cause::limit)
}

/// Records how a request ended: for the instance, in metrics, in the access log.
pub(super) fn conclude(shared: &Shared, session: &Session, error: Option<&Error>, ctx: &mut Ctx) {
    let status = session.response_written().map_or(0, |head| answer_status(head.status));
    if let Some(limit) = limit(error, ctx) {
        shared.metrics.limit_hit(limit);
    }
    let cause = error.map(|error| cause(error, ctx));
    if let Some(forward) = &mut ctx.forward {
        conclude_attempt(forward, cause, status);
        let took = clock::mono().since(ctx.started);
        let service = &forward.service.x;
        service.duration.observe(took.as_secs_f64());
        // 499: the client left before there was an answer (nginx's number for it).
        let counted = if status == 0 { 499 } else { status };
        let method = &session.req_header().method;
        match forward.route.as_ref().and_then(|route| Some((route, ctx.rules.routing.counters(route)?))) {
            Some((route, counters)) => service.count_routed(counters, &route.name, method, counted),
            None => service.count(method, counted),
        }
    }
    if shared.access.is_on() {
        write_access_log(shared, session, ctx, status);
    }
}

/// An interim answer is none: a client that left after it left before its answer.
fn answer_status(written: http::StatusCode) -> u16 {
    if is_interim(written) { 0 } else { written.as_u16() }
}

fn conclude_attempt(forward: &mut Forward, cause: Option<Cause>, status: u16) {
    let request_sent = forward.request_sent;
    let Some(attempt) = &mut forward.attempt else { return };
    let now = clock::mono();
    match cause {
        Some(cause) => attempt.end(cause.ending(request_sent), now),
        None if status == 0 => attempt.end(Ending::Ours, now),
        None => attempt.end(Ending::Answered { status }, now),
    }
}

fn write_access_log(shared: &Shared, session: &Session, ctx: &Ctx, status: u16) {
    let head = session.req_header();
    let field = |name: &str| head.headers.get(name).map_or(&b""[..], |value| value.as_bytes());
    let forward = ctx.forward.as_ref();
    let attempt = forward.and_then(|forward| forward.attempt.as_ref());
    let took = clock::mono().since(ctx.started);
    let millis = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
    shared.access.write(&Entry {
        time_ms: clock::wall_ms().saturating_sub(millis),
        method: head.method.as_str(),
        path: route::path_of(head.raw_path()),
        version: match head.version {
            http::Version::HTTP_10 => "1.0",
            http::Version::HTTP_2 => "2",
            _ => "1.1",
        },
        status,
        client: ctx.client.map(|client| client.address),
        bytes: session.body_bytes_sent(),
        duration_us: u64::try_from(took.as_micros()).unwrap_or(u64::MAX),
        service: forward.map_or("", |forward| forward.service.name.as_str()),
        route: forward.and_then(|forward| forward.route.as_ref()).map_or("", |route| &route.name),
        instance: attempt.map_or("", |attempt| attempt.upstream().facts.id.as_str()),
        retries: forward.map_or(0, |forward| forward.tried.attempts().saturating_sub(1)),
        watch: ctx.watch.unwrap_or_default(),
        reason: ctx.reason.map_or("", Reason::as_str),
        request_id: ctx.request_id.as_str(),
        user_agent: field("user-agent"),
        traceparent: field("traceparent"),
    });
}
