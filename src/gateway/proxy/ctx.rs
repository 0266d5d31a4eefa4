//! What a request carries through its phases.

use super::admit::Plan;
use super::attempt::Attempt;
use super::client::Client;
use super::explain::Explanation;
use super::fields::Fields;
use super::headers;
use super::limits::Quoted;
use super::overload::{Permit, is_event_stream};
use super::rules::Rules;
use crate::request_id::RequestId;
use crate::telemetry::metrics::RequestInFlight;
use crate::upstream::Service;
use http::StatusCode;
use std::net::IpAddr;
use std::sync::Arc;
use vertice_core::balance::{Preference, Tried};
use vertice_core::outcome::Ending;
use vertice_core::policy::Timeouts;
use vertice_core::reason::Reason;
use vertice_core::route::StaticRoute;
use vertice_core::time::Moment;

/// The state of one request.
#[derive(Debug)]
pub struct Ctx {
    /// When its head had arrived.
    pub started: Moment,
    /// The rules that were in force then.
    pub rules: Arc<Rules>,
    /// Who sent it.
    pub client: Option<Client>,
    /// Its id.
    pub request_id: RequestId,
    /// Where it goes, once that is known.
    pub forward: Option<Forward>,
    /// How it stands with its rate limits, if there are any.
    pub quoted: Option<Quoted>,
    /// Why the gateway answered itself, if it did.
    pub reason: Option<Reason>,
    /// Bytes of the request's body that this attempt was given so far.
    pub body_bytes: u64,
    /// Interim answers that came so far.
    pub interim: u16,
    /// How it was decided, when an operator asks.
    pub explanation: Option<Box<Explanation>>,
    /// How it watches the registry, if it does.
    pub watch: Option<&'static str>,
    /// A probe of the gateway itself, whose success is no news.
    pub is_probe: bool,
    /// Counts it for as long as it lives, however it ends.
    in_flight: Option<RequestInFlight>,
}

/// A request on its way to a service.
#[derive(Debug)]
pub struct Forward {
    /// The service as it was when the request came, or at the last retry.
    pub service: Arc<Service>,
    /// The configured route, if any.
    pub route: Option<Arc<StaticRoute>>,
    /// What of the target is passed on begins here.
    pub rest_at: usize,
    /// How long we wait.
    pub timeouts: Timeouts,
    /// When the whole request is given up.
    pub end: Moment,
    /// Whether a client that closes its sending side after its request still wants the answer.
    pub allows_half_close: bool,
    /// Whether it asks for an upgrade.
    pub is_upgrade: bool,
    /// Whether the instance agreed to the upgrade.
    pub is_tunnel: bool,
    /// Nothing but the end of the connection ends the answer's body.
    pub ends_by_close: bool,
    /// Who shall take it.
    pub preference: Preference,
    /// Its places among the requests under way.
    pub permit: Permit,
    /// Whom it was sent to so far.
    pub tried: Tried,
    /// The attempt that comes next.
    pub next: Option<Attempt>,
    /// The attempt under way.
    pub attempt: Option<Attempt>,
    /// Whether the lane that serves it asks instances in plain HTTP/1.1 and in nothing else.
    pub is_plain: bool,
    /// A dead pooled connection to the instance that is tried has been replaced once.
    pub stale_retried: bool,
    /// Some of the body has been handed to the instance.
    pub body_started: bool,
    /// The whole request has been handed to the instance.
    pub request_sent: bool,
}

impl Forward {
    /// As planned, for a request that came at `started`; nothing has been counted or taken.
    #[must_use]
    pub fn new(plan: Plan, preference: Preference, started: Moment) -> Self {
        let allows_half_close = plan.allows_half_close();
        let Plan { service, route, rest_at, .. } = plan;
        let timeouts = route.as_ref().and_then(|route| route.timeouts).unwrap_or(service.policy.timeouts);
        Self {
            service,
            route,
            rest_at,
            timeouts,
            end: timeouts.request.map_or(Moment::from_nanos(u64::MAX), |whole| started.plus(whole)),
            allows_half_close,
            is_upgrade: false,
            is_tunnel: false,
            ends_by_close: false,
            preference,
            permit: Permit::default(),
            tried: Tried::default(),
            next: None,
            attempt: None,
            is_plain: false,
            stale_retried: false,
            body_started: false,
            request_sent: false,
        }
    }

    /// The head of the answer that is passed on has come; `is_tunnel` has been set where it begins one.
    pub fn answered(&mut self, status: StatusCode, fields: &impl Fields, now: Moment) {
        self.permit.answered(status, fields, now);
        let Some(attempt) = &mut self.attempt else { return };
        attempt.answered(now);
        if self.is_tunnel || (attempt.is_probe() && is_event_stream(fields)) {
            // It may last for hours; that it was opened is the news, and a half-open breaker waits for it.
            attempt.end(Ending::Answered { status: status.as_u16() }, now);
        }
    }

    /// The whole request has been handed to the instance: from now on it is the instance's time.
    pub fn sent(&mut self, now: Moment) {
        self.request_sent = true;
        self.permit.sent(now);
        self.attempt.iter_mut().for_each(|attempt| attempt.sent(now));
    }

    /// How large the request's body may be.
    #[must_use]
    pub fn body_limit(&self) -> Option<u64> {
        let of_route = self.route.as_ref().and_then(|route| route.body_bytes);
        of_route.unwrap_or(self.service.policy.body_bytes)
    }
}

impl Ctx {
    /// A request that has just arrived.
    #[must_use]
    pub fn new(started: Moment, rules: Arc<Rules>, in_flight: RequestInFlight) -> Self {
        Self {
            started,
            rules,
            client: None,
            request_id: RequestId::UNKNOWN,
            forward: None,
            quoted: None,
            reason: None,
            body_bytes: 0,
            interim: 0,
            explanation: None,
            watch: None,
            is_probe: false,
            in_flight: Some(in_flight),
        }
    }

    /// Who sent it, and what it is called.
    pub fn identify(&mut self, peer: Option<IpAddr>, fields: &impl Fields) {
        let trusted = &self.rules.settings.trusted_proxies;
        self.client = peer.map(|peer| Client::find(peer, fields, trusted));
        self.request_id = headers::request_id(fields);
    }

    /// The next attempt is the one under way from now on.
    pub fn begin(&mut self, now: Moment) -> Option<&mut Attempt> {
        let forward = self.forward.as_mut()?;
        let next = forward.next.take()?;
        if forward.tried.attempts() > 1 || next.wants_fresh_connection {
            forward.service.x.retries.inc();
        }
        (forward.body_started, forward.request_sent) = (false, false);
        // A body that was kept for another attempt is counted once more.
        self.body_bytes = 0;
        if let Some(explanation) = &mut self.explanation {
            explanation.tries(next.upstream(), next.address(), now);
        }
        Some(forward.attempt.insert(next))
    }

    /// It has a connection, which came from the pool or not.
    pub fn connected(&mut self, reused: bool, now: Moment) {
        if let Some(explanation) = &mut self.explanation {
            explanation.connected(reused, now);
        }
        if let Some(attempt) = self.forward.as_mut().and_then(|forward| forward.attempt.as_mut()) {
            attempt.connected(now);
        }
    }

    /// Whether the access log tells of it: of probes as a rule only when they fail.
    #[must_use]
    pub fn is_logged(&self, status: u16, has_failed: bool) -> bool {
        !self.is_probe || self.rules.settings.logs_probes || has_failed || !(200..300).contains(&status)
    }

    /// From now on it waits for changes of the registry, which is no work: it counts as a watcher instead.
    pub fn watches(&mut self, kind: &'static str) {
        self.watch = Some(kind);
        self.in_flight = None;
    }
}
