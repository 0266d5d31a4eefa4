//! What is known of a failed attempt, in the words of those who decide about another one.

use super::{Edge, ending};
use crate::clock;
use crate::proxy::again::{Lost, Point};
use crate::proxy::answer::is_interim;
use crate::proxy::ctx::Ctx;
use http::StatusCode;
use pingora::proxy::Session;
use pingora::{Error, ErrorSource, ErrorType, RetryType};
use vertice_core::retry::Failed;
use vertice_core::time::Moment;

impl Edge {
    /// After an attempt without a connection. Whether the request goes on.
    pub(super) fn after_no_connection(&self, session: &Session, error: &Error, ctx: &mut Ctx) -> bool {
        let cause = ending::cause(error, ctx);
        self.shared.again().after_no_connection(ctx, cause, failed(session), clock::mono())
    }

    /// After the head of an answer. Whether it is set aside.
    pub(super) fn after_answer(&self, session: &Session, status: StatusCode, ctx: &mut Ctx, now: Moment) -> bool {
        self.shared.again().after_answer(ctx, status, failed(session), now)
    }

    /// After a connection that broke, fell silent or carried no HTTP. Whether the request goes on.
    pub(super) fn after_failure(&self, session: &Session, error: &Error, is_reused: bool, ctx: &mut Ctx) -> bool {
        let lost = Lost { cause: ending::cause(error, ctx), at: point(error), is_reused };
        self.shared.again().after_failure(ctx, lost, failed(session), clock::mono())
    }
}

fn failed(session: &Session) -> Failed {
    Failed {
        untouched: false,
        idempotent: session.req_header().method.is_idempotent(),
        body_kept: !session.as_ref().retry_buffer_truncated(),
        answered: session.response_written().is_some_and(|head| !is_interim(head.status)),
    }
}

fn point(error: &Error) -> Point {
    match (error.esource(), error.etype()) {
        // The instance said so (HTTP/2: `GOAWAY`, `REFUSED_STREAM`), or we did not even try.
        _ if matches!(error.retry, RetryType::Decided(true)) => Point::Untouched,
        (ErrorSource::Upstream, ErrorType::WriteError) => Point::Writing,
        (ErrorSource::Upstream, ErrorType::ConnectionClosed | ErrorType::ReadError) => Point::Reading,
        _ => Point::Other,
    }
}
