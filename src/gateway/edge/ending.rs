//! How requests end: Pingora's errors in words of the rules.

use crate::accept::{is_cut, is_malformed_body, is_slow_body};
use crate::clock;
use crate::lanes::Shared;
use crate::proxy::attempt::Attempt;
use crate::proxy::cause::Cause;
use crate::proxy::conclude::{self, Ended};
use crate::proxy::ctx::Ctx;
use crate::proxy::fail::Failure;
use pingora::protocols::http::v2::client::PING_TIMEDOUT;
use pingora::proxy::Session;
use pingora::{Error, ErrorSource, ErrorType};
use vertice_core::reason::Reason;

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

/// Records how a request ended.
pub(super) fn conclude(shared: &Shared, session: &Session, error: Option<&Error>, ctx: &mut Ctx) {
    let head = session.req_header();
    let ended = Ended {
        method: &head.method,
        target: head.raw_path(),
        version: head.version,
        fields: &head.headers,
        status: session.response_written().map(|head| head.status),
        bytes: session.body_bytes_sent(),
        cause: error.map(|error| cause(error, ctx)),
    };
    conclude::conclude(ctx, &ended, clock::mono(), &shared.metrics, &shared.access);
}
