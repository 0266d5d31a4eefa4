//! Another attempt after a failed one: whether there is one, with whom, and when.

use super::attempt::Attempt;
use super::cause::Cause;
use super::ctx::{Ctx, Forward};
use super::explain::Explanation;
use crate::random::random;
use crate::resolve::Resolver;
use crate::telemetry::metrics::Metrics;
use crate::upstream::{Service, Table};
use http::StatusCode;
use std::sync::Arc;
use std::time::Duration;
use vertice_core::backoff::Backoff;
use vertice_core::balance;
use vertice_core::outcome::Ending;
use vertice_core::retry::Failed;
use vertice_core::time::Moment;

/// What is needed for it. Each of its functions ends the attempt under way, and answers whether another one follows, which then is
/// `ctx.forward.next`. A lane says what it knows of the request in [`Failed`]; `untouched` is found out here.
#[derive(Clone, Copy, Debug)]
pub struct Again<'a> {
    /// Who can be asked now, so that a re-registration is seen.
    pub table: &'a Table,
    /// Looks names up again under which nobody could be reached.
    pub resolver: &'a Resolver,
    /// Where a spent budget is counted.
    pub metrics: &'a Metrics,
}

/// How a connection was lost to an instance that had, or was being, handed a request.
#[derive(Clone, Copy, Debug)]
pub struct Lost {
    /// What it was.
    pub cause: Cause,
    /// What that tells of the request.
    pub at: Point,
    /// Whether the connection came from the pool.
    pub is_reused: bool,
}

/// Where in a request it was that the connection was lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Point {
    /// Before the instance looked at it: it said so itself (HTTP/2), or nothing had been sent.
    Untouched,
    /// It broke while the request was being written.
    Writing,
    /// It was closed, or broke, while an answer was read or waited for.
    Reading,
    /// It did not break.
    Other,
}

impl Again<'_> {
    /// After an attempt without a connection.
    pub fn after_no_connection(&self, ctx: &mut Ctx, cause: Cause, failed: Failed, now: Moment) -> bool {
        let Some(forward) = &mut ctx.forward else { return false };
        // Where no port or descriptor is left, another instance would not help. All else is the instance's, in whatever way no
        // connection came of it.
        let is_ours = cause == Cause::NoPort;
        let ending = if is_ours { Ending::Ours } else { Ending::ConnectFailed };
        if let Some(mut attempt) = forward.attempt.take() {
            attempt.end(ending, now);
            note(&mut ctx.explanation, ending);
            if let Some(host) = attempt.upstream().facts.endpoint.name() {
                self.resolver.nudge(host);
            }
        }
        !is_ours && self.pick(forward, Failed { untouched: true, ..failed }, now)
    }

    /// After the head of an answer. One that says that the instance could not serve (502, 503 or 504) is set aside for that of
    /// another instance, if there is one; else it is passed on as it is.
    pub fn after_answer(&self, ctx: &mut Ctx, status: StatusCode, failed: Failed, now: Moment) -> bool {
        let Some(forward) = &mut ctx.forward else { return false };
        let (Some(attempt), status @ 502..=504) = (&mut forward.attempt, status.as_u16()) else { return false };
        attempt.end(Ending::Answered { status }, now);
        self.pick(forward, failed, now)
    }

    /// After a connection that broke, fell silent or carried no HTTP.
    pub fn after_failure(&self, ctx: &mut Ctx, lost: Lost, failed: Failed, now: Moment) -> bool {
        let Some(forward) = &mut ctx.forward else { return false };
        if forward.next.is_some() {
            // An answer was set aside.
            return true;
        }
        let Some(attempt) = &mut forward.attempt else { return false };
        let Lost { cause, at, is_reused } = lost;
        let untouched = at == Point::Untouched || (at == Point::Writing && is_reused && !forward.body_started);
        let failed = Failed { untouched, ..failed };
        let is_stale = untouched || (is_reused && matches!(at, Point::Writing | Point::Reading));
        if is_stale && !attempt.has_answer() && cause != Cause::TimedOut {
            // The instance closed the connection while it was idle, or moved on from it: no failure of its.
            note(&mut ctx.explanation, Ending::StaleConnection);
            if failed.may_repeat() && !std::mem::replace(&mut forward.stale_retried, true) {
                forward.next = Some(attempt.again(now));
                return true;
            }
            attempt.end(Ending::StaleConnection, now);
            return self.pick(forward, failed, now);
        }
        let ending = cause.ending(forward.request_sent);
        attempt.end(ending, now);
        note(&mut ctx.explanation, ending);
        let is_instances = matches!(ending, Ending::Reset | Ending::Invalid | Ending::TimedOut { request_sent: true });
        is_instances && self.pick(forward, failed, now)
    }

    /// Picks whom to try next.
    fn pick(&self, forward: &mut Forward, failed: Failed, now: Moment) -> bool {
        if !failed.may_repeat() || now >= forward.end {
            return false;
        }
        let table = self.table.load();
        // A lane that speaks plain HTTP only keeps to those who do.
        let is_for_lane = |service: &&Arc<Service>| !forward.is_plain || service.x.is_plain;
        if let Some(service) = table.get(forward.service.name.as_str()).filter(is_for_lane) {
            forward.service = service.clone();
        }
        let retry = forward.service.policy.retry;
        if forward.tried.attempts() >= retry.attempts || !balance::has_other(&forward.service, &forward.tried) {
            return false;
        }
        if !forward.service.cells.retry_budget.take(retry.budget, now) {
            self.metrics.limit_hit("retry_budget");
            return false;
        }
        forward.next = Attempt::start(&forward.service, &mut forward.tried, &forward.preference, now).ok();
        // Another instance's pooled connection may be dead, too.
        forward.stale_retried = false;
        forward.next.is_some()
    }
}

/// How long the next attempt is put off. A dead pooled connection is replaced at once.
#[must_use]
pub fn pause(forward: &Forward) -> Option<Duration> {
    let attempts = forward.tried.attempts();
    let is_fresh = forward.next.as_ref().is_some_and(|next| next.wants_fresh_connection);
    if attempts <= 1 || is_fresh {
        return None;
    }
    let retry = forward.service.policy.retry;
    let backoff = Backoff { first: retry.backoff, max: retry.backoff_max };
    Some(backoff.wait(attempts - 1, random()))
}

fn note(explanation: &mut Option<Box<Explanation>>, ending: Ending) {
    if let Some(explanation) = explanation {
        explanation.failed(ending);
    }
}
