//! Another attempt after a failed one: whether there is one, and with whom.

use super::{Edge, ending};
use crate::clock;
use crate::proxy::answer::is_interim;
use crate::proxy::attempt::Attempt;
use crate::proxy::ctx::{Ctx, Forward};
use crate::proxy::explain::Explanation;
use pingora::proxy::Session;
use pingora::{Error, ErrorSource, ErrorType, RetryType};
use vertice_core::balance;
use vertice_core::outcome::Ending;
use vertice_core::retry::Failed;

impl Edge {
    /// After an attempt without a connection. Whether the request goes on.
    pub(super) fn after_no_connection(&self, session: &Session, error: &Error, ctx: &mut Ctx) -> bool {
        let Some(forward) = &mut ctx.forward else { return false };
        // Pingora says so when there is no port or descriptor left: another instance would not help.
        let is_ours = matches!(error.etype(), ErrorType::InternalError);
        if let Some(mut attempt) = forward.attempt.take() {
            let ending = if is_ours { Ending::Ours } else { Ending::ConnectFailed };
            attempt.end(ending, clock::mono());
            note(&mut ctx.explanation, ending);
            if let Some(host) = attempt.upstream().facts.endpoint.name() {
                self.shared.resolver.nudge(host);
            }
        }
        !is_ours && self.pick_again(forward, Failed { untouched: true, ..failed(session) })
    }

    /// After an answer that says that the instance could not serve: 502, 503 or 504. Whether it is set aside for that of another
    /// instance; else it is passed on as it is.
    pub(super) fn after_refusal(&self, session: &Session, status: u16, ctx: &mut Ctx) -> bool {
        let Some(forward) = &mut ctx.forward else { return false };
        let Some(attempt) = &mut forward.attempt else { return false };
        attempt.end(Ending::Answered { status }, clock::mono());
        self.pick_again(forward, failed(session))
    }

    /// After a connection that broke, fell silent or carried no HTTP. Whether the request goes on.
    pub(super) fn after_failure(&self, session: &Session, error: &Error, is_reused: bool, ctx: &mut Ctx) -> bool {
        let Some(forward) = &mut ctx.forward else { return false };
        if forward.next.is_some() {
            // An answer was set aside.
            return true;
        }
        let request_sent = forward.request_sent;
        let Some(attempt) = &mut forward.attempt else { return false };
        let untouched = is_untouched(error) || (is_write_error(error) && is_reused && !forward.body_started);
        let failed = Failed { untouched, ..failed(session) };
        if !attempt.has_answer() && !attempt.timed_out() && (untouched || (is_reused && is_broken(error))) {
            // The instance closed the connection while it was idle, or moved on from it: no failure of its.
            if failed.may_repeat() && !std::mem::replace(&mut forward.stale_retried, true) {
                forward.next = Some(attempt.again(clock::mono()));
                note(&mut ctx.explanation, Ending::StaleConnection);
                return true;
            }
            attempt.end(Ending::StaleConnection, clock::mono());
            note(&mut ctx.explanation, Ending::StaleConnection);
            return self.pick_again(forward, failed);
        }
        let ending = ending::ending(error, attempt, request_sent);
        attempt.end(ending, clock::mono());
        note(&mut ctx.explanation, ending);
        let is_instances = matches!(ending, Ending::Reset | Ending::Invalid | Ending::TimedOut { request_sent: true });
        is_instances && self.pick_again(forward, failed)
    }

    /// Picks whom to try next, from the table as it is now, so that a re-registration is seen.
    fn pick_again(&self, forward: &mut Forward, failed: Failed) -> bool {
        let now = clock::mono();
        if !failed.may_repeat() || now >= forward.end {
            return false;
        }
        let table = self.shared.table.load();
        if let Some(service) = table.get(forward.service.name.as_str()) {
            forward.service = service.clone();
        }
        let retry = forward.service.policy.retry;
        if forward.tried.attempts() >= retry.attempts || !balance::has_other(&forward.service, &forward.tried) {
            return false;
        }
        if !forward.service.cells.retry_budget.take(retry.budget, now) {
            self.shared.metrics.limit_hit("retry_budget");
            return false;
        }
        forward.next = Attempt::start(&forward.service, &mut forward.tried, &forward.preference, now).ok();
        // Another instance's pooled connection may be dead, too.
        forward.stale_retried = false;
        forward.next.is_some()
    }
}

fn note(explanation: &mut Option<Box<Explanation>>, ending: Ending) {
    if let Some(explanation) = explanation {
        explanation.failed(ending);
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

/// Whether the instance said that it has not looked at the request (HTTP/2: `GOAWAY`, `REFUSED_STREAM`).
fn is_untouched(error: &Error) -> bool {
    matches!(error.retry, RetryType::Decided(true))
}

fn is_write_error(error: &Error) -> bool {
    *error.esource() == ErrorSource::Upstream && matches!(error.etype(), ErrorType::WriteError)
}

fn is_broken(error: &Error) -> bool {
    let broken = matches!(error.etype(), ErrorType::ConnectionClosed | ErrorType::ReadError | ErrorType::WriteError);
    *error.esource() == ErrorSource::Upstream && broken
}
