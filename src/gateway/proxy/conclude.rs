//! What is recorded of a request when it is over: for the instance, in metrics, in the access log.

use super::answer::is_interim;
use super::attempt::Attempt;
use super::cause::Cause;
use super::ctx::{Ctx, Forward};
use super::fields::Fields;
use crate::clock;
use crate::telemetry::access::{AccessLog, Entry};
use crate::telemetry::metrics::Metrics;
use http::{Method, StatusCode, Version};
use std::time::Duration;
use vertice_core::outcome::Ending;
use vertice_core::reason::Reason;
use vertice_core::route;
use vertice_core::time::Moment;

/// How a request ended, as the lane that moved its bytes knows it.
#[derive(Debug)]
pub struct Ended<'a, F> {
    /// Its method.
    pub method: &'a Method,
    /// Its target, as the client sent it.
    pub target: &'a [u8],
    /// What the client spoke.
    pub version: Version,
    /// Its header fields.
    pub fields: &'a F,
    /// The status that the client was sent last, interim ones included.
    pub status: Option<StatusCode>,
    /// Bytes that it was sent of the answer's body.
    pub bytes: usize,
    /// What ended it before its answer was complete, if anything did.
    pub cause: Option<Cause>,
}

/// Records it.
pub fn conclude(ctx: &mut Ctx, ended: &Ended<'_, impl Fields>, now: Moment, metrics: &Metrics, access: &AccessLog) {
    let status = answer_status(ended.status);
    if let Some(limit) = limit(ended.cause, ctx) {
        metrics.limit_hit(limit);
    }
    let took = now.since(ctx.started);
    if let Some(forward) = &mut ctx.forward {
        conclude_attempt(forward, ended.cause, status, now);
        let service = &forward.service.x;
        service.duration.observe(took.as_secs_f64());
        // 499: the client left before there was an answer (nginx's number for it).
        let counted = if status == 0 { 499 } else { status };
        match forward.route.as_ref().and_then(|route| Some((route, ctx.rules.routing.counters(route)?))) {
            Some((route, counters)) => service.count_routed(counters, &route.name, ended.method, counted),
            None => service.count(ended.method, counted),
        }
    }
    if access.is_on() && ctx.is_logged(status, ended.cause.is_some()) {
        write_access_log(ctx, ended, status, took, access);
    }
}

/// An interim answer is none: a client that left after it left before its answer.
fn answer_status(sent: Option<StatusCode>) -> u16 {
    sent.filter(|status| !is_interim(*status)).map_or(0, |status| status.as_u16())
}

/// The limit that the client ran into, as its metric names it.
fn limit(cause: Option<Cause>, ctx: &Ctx) -> Option<&'static str> {
    if let Some(tunnel) = ctx.forward.as_ref().filter(|forward| forward.is_tunnel) {
        // Both sides are watched; to the tunnel an instance that is shut down has only come to its end.
        let has_fired = tunnel.attempt.as_ref().is_some_and(Attempt::timed_out);
        if has_fired || cause == Some(Cause::BodyStalled) {
            return Some("tunnel_idle");
        }
    }
    cause.and_then(Cause::limit)
}

fn conclude_attempt(forward: &mut Forward, cause: Option<Cause>, status: u16, now: Moment) {
    let request_sent = forward.request_sent;
    let Some(attempt) = &mut forward.attempt else { return };
    let ending = match cause {
        Some(cause) => cause.ending(request_sent),
        None if status == 0 => Ending::Ours,
        None => Ending::Answered { status },
    };
    attempt.end(ending, now);
}

fn write_access_log(ctx: &Ctx, ended: &Ended<'_, impl Fields>, status: u16, took: Duration, access: &AccessLog) {
    let forward = ctx.forward.as_ref();
    let attempt = forward.and_then(|forward| forward.attempt.as_ref());
    let whole = |figure: u128| u64::try_from(figure).unwrap_or(u64::MAX);
    access.write(&Entry {
        time_ms: clock::wall_ms().saturating_sub(whole(took.as_millis())),
        method: ended.method.as_str(),
        path: route::path_of(ended.target),
        version: match ended.version {
            Version::HTTP_10 => "1.0",
            Version::HTTP_2 => "2",
            _ => "1.1",
        },
        status,
        client: ctx.client.map(|client| client.address),
        bytes: ended.bytes,
        duration_us: whole(took.as_micros()),
        service: forward.map_or("", |forward| forward.service.name.as_str()),
        route: forward.and_then(|forward| forward.route.as_ref()).map_or("", |route| &route.name),
        instance: attempt.map_or("", |attempt| attempt.upstream().facts.id.as_str()),
        retries: forward.map_or(0, |forward| forward.tried.attempts().saturating_sub(1)),
        watch: ctx.watch.unwrap_or_default(),
        reason: ctx.reason.map_or("", Reason::as_str),
        request_id: ctx.request_id.as_str(),
        user_agent: ended.fields.first("user-agent").unwrap_or_default(),
        traceparent: ended.fields.first("traceparent").unwrap_or_default(),
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interim_answer_is_none_and_a_tunnel_is_one() {
        assert_eq!(answer_status(None), 0);
        assert_eq!(answer_status(Some(StatusCode::EARLY_HINTS)), 0);
        assert_eq!(answer_status(Some(StatusCode::SWITCHING_PROTOCOLS)), 101);
        assert_eq!(answer_status(Some(StatusCode::BAD_GATEWAY)), 502);
    }
}
