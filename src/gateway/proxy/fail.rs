//! Failures of the data plane: what the gateway answers when it cannot pass an answer on.

use super::answer;
use super::ctx::Ctx;
use crate::problem;
use crate::telemetry::metrics::Metrics;
use bytes::Bytes;
use http::Response;
use std::borrow::Cow;
use vertice_core::balance::NoPick;
use vertice_core::reason::Reason;
use vertice_core::time::{Moment, seconds_up};

/// An answer of our own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// Why.
    pub reason: Reason,
    /// A sentence for people; never an instance's address.
    pub detail: Cow<'static, str>,
    /// Seconds after which a retry makes sense.
    pub retry_after_s: Option<u32>,
}

/// Notes that the request is answered with this failure.
pub fn note(ctx: &mut Ctx, failure: &Failure, metrics: &Metrics) {
    ctx.reason = Some(failure.reason);
    metrics.answered(failure.reason);
}

/// Notes it, and makes the answer.
pub fn response(ctx: &mut Ctx, failure: &Failure, metrics: &Metrics) -> Response<Bytes> {
    note(ctx, failure, metrics);
    let mut response = problem::response(failure.reason, &failure.detail, failure.retry_after_s, &ctx.request_id, Vec::new());
    answer::add_standing(ctx, response.headers_mut());
    response
}

impl Failure {
    /// A failure with the usual `Retry-After` of its reason.
    #[must_use]
    pub fn new(reason: Reason, detail: impl Into<Cow<'static, str>>) -> Self {
        Self { reason, detail: detail.into(), retry_after_s: reason.retry_after_s() }
    }

    /// The path leads nowhere.
    #[must_use]
    pub fn not_found() -> Self {
        Self::new(Reason::NotFound, "No route leads from this path to a service.")
    }

    /// The service is unknown. The sentence is the predecessor's; its clients look for it.
    #[must_use]
    pub fn no_route(service: &str) -> Self {
        Self::new(Reason::NoRoute, unavailable(service))
    }

    /// Nobody can be picked.
    #[must_use]
    pub fn no_pick(refusal: NoPick, service: &str, now: Moment) -> Self {
        match refusal {
            NoPick::NoInstance => {
                let detail = format!("{} It is registered, but none of its instances takes traffic now.", unavailable(service));
                Self::new(Reason::NoInstance, detail)
            }
            NoPick::BreakerOpen { until } => {
                let retry_after_s = Some(seconds_up(until.since(now)).clamp(1, 3600));
                let detail = format!(
                    "Every instance of service '{}' has failed repeatedly; its circuit breaker is open.",
                    shown(service)
                );
                Self { reason: Reason::BreakerOpen, detail: detail.into(), retry_after_s }
            }
            NoPick::Exhausted => Self::connect(service),
        }
    }

    /// No instance could be connected to.
    #[must_use]
    pub fn connect(service: &str) -> Self {
        Self::new(Reason::UpstreamConnect, format!("No connection to service '{}' could be made.", shown(service)))
    }

    /// The instance closed the connection too early.
    #[must_use]
    pub fn reset(service: &str) -> Self {
        Self::new(Reason::UpstreamReset, format!("Service '{}' closed the connection before answering.", shown(service)))
    }

    /// The instance's answer is not HTTP.
    #[must_use]
    pub fn invalid(service: &str) -> Self {
        Self::new(Reason::UpstreamInvalid, format!("Service '{}' gave an answer that is not valid HTTP.", shown(service)))
    }

    /// The instance was silent for too long.
    #[must_use]
    pub fn timeout(service: &str) -> Self {
        Self::new(Reason::UpstreamTimeout, format!("Service '{}' did not answer in time.", shown(service)))
    }
}

fn unavailable(service: &str) -> String {
    format!("Service '{}' is not available. It may be down or not registered in the service registry.", shown(service))
}

/// Names come from clients: bounded, and without control characters.
fn shown(service: &str) -> String {
    service.chars().filter(|c| !c.is_control()).take(64).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retry_after_is_what_is_left_rounded_up() {
        let until = Moment::from_millis(30_001);
        let after = |now| Failure::no_pick(NoPick::BreakerOpen { until }, "x", Moment::from_millis(now)).retry_after_s;
        assert_eq!(after(0), Some(31));
        assert_eq!(after(30_000), Some(1));
        assert_eq!(after(40_000), Some(1));
    }

    #[test]
    fn the_predecessor_s_sentence() {
        let failure = Failure::no_route("nmap_service");
        assert_eq!(
            failure.detail,
            "Service 'nmap_service' is not available. It may be down or not registered in the service registry."
        );
    }
}
