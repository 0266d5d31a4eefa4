//! How many requests may be under way at once, for a service and for this process; who is shed first.

use super::client::Client;
use super::fail::Failure;
use super::fields::{self, Fields};
use crate::telemetry::metrics::Metrics;
use http::StatusCode;
use std::sync::Arc;
use vertice_core::cell::ServiceCells;
use vertice_core::concurrency::{Concurrency, Slots};
use vertice_core::priority::Priority;
use vertice_core::reason::Reason;
use vertice_core::time::Moment;

/// A request's places in what is bounded; given back when it is dropped, however the request ends. Where nothing is bounded it
/// is empty.
#[derive(Debug, Default)]
pub struct Permit {
    service: Option<(Arc<ServiceCells>, Concurrency)>,
    /// Whether the service's answer has begun.
    has_answer: bool,
    process: Option<Arc<Slots>>,
    /// When the request had been sent, where answers are timed.
    sent: Option<Moment>,
}

/// Requests of this process to services, all together.
#[derive(Clone, Debug, Default)]
pub struct Process {
    /// No more at once, if bounded.
    pub max: Option<u32>,
    /// Those under way.
    pub slots: Arc<Slots>,
}

impl Permit {
    /// Takes a place of the process and one of the service, or none. `priority` is only asked for where something is bounded.
    ///
    /// # Errors
    /// `overloaded`.
    pub fn take(
        process: &Process,
        service: (&Arc<ServiceCells>, &Concurrency),
        priority: impl FnOnce() -> Priority,
        metrics: &Metrics,
    ) -> Result<Self, Failure> {
        let (cells, policy) = service;
        let mut permit = Self::default();
        if process.max.is_none() && !policy.is_bounded() {
            return Ok(permit);
        }
        let priority = priority();
        if let Some(max) = process.max {
            if process.slots.take(max, priority).is_none() {
                return Err(shed("requests", "The gateway serves as many requests as it may.", priority, metrics));
            }
            permit.process = Some(process.slots.clone());
        }
        if policy.is_bounded() {
            if !cells.concurrency.admit(policy, priority) {
                return Err(shed("concurrency", "The service has as many requests as it can work on.", priority, metrics));
            }
            permit.service = Some((cells.clone(), *policy));
        }
        Ok(permit)
    }

    /// The request has been sent: from now on it is the instance's time.
    pub fn sent(&mut self, now: Moment) {
        self.sent = self.service.as_ref().filter(|(_, policy)| policy.is_adaptive).map(|_| now);
    }

    /// An answer begins at `now`. What is a tunnel or an event stream from now on is no work any more, and gives its places back.
    pub fn answered(&mut self, status: StatusCode, fields: &impl Fields, now: Moment) {
        let is_tunnel = status == StatusCode::SWITCHING_PROTOCOLS;
        if let (Some((cells, policy)), Some(sent)) = (&self.service, self.sent.take())
            && !is_tunnel
            // A service that fails fast would look as if it could work so fast.
            && !status.is_server_error()
        {
            cells.concurrency.observe(policy, now.since(sent), now);
        }
        if is_tunnel || is_event_stream(fields) {
            *self = Self::default();
        } else if let (Some((cells, policy)), false) = (&self.service, self.has_answer) {
            cells.concurrency.answered(policy);
            self.has_answer = true;
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if let Some((cells, policy)) = &self.service {
            cells.concurrency.release(policy, self.has_answer);
        }
        if let Some(slots) = &self.process {
            slots.give_back();
        }
    }
}

/// How important a request is: as configured, or less when it says so. A client cannot raise itself; a trusted proxy can, with
/// `X-Vertice-Priority`. What browsers send by themselves (RFC 9218) passes through proxies, and only ever lowers.
#[must_use]
pub fn priority(configured: Priority, client: Option<&Client>, fields: &impl Fields) -> Priority {
    let text = |name: &str| fields.first(name).and_then(fields::text);
    match text("x-vertice-priority").and_then(|word| Priority::parse(word.trim())) {
        Some(asked) if client.is_some_and(|client| client.is_trusted) => asked,
        Some(asked) => asked.min(configured),
        None => text("priority").and_then(urgency).map_or(configured, |asked| Priority::of_urgency(asked).min(configured)),
    }
}

/// The parameter `u` of RFC 9218 §4.1.
fn urgency(field: &str) -> Option<u8> {
    let digit = field.split(',').find_map(|member| member.trim().strip_prefix("u="))?;
    digit.split(';').next()?.trim().parse().ok().filter(|urgency| *urgency <= 7)
}

fn shed(limit: &str, detail: &'static str, priority: Priority, metrics: &Metrics) -> Failure {
    metrics.limit_hit(limit);
    metrics.shed(limit, priority);
    Failure::new(Reason::Overloaded, detail)
}

/// Whether an answer is a stream of events, which may last for ever.
#[must_use]
pub fn is_event_stream(fields: &impl Fields) -> bool {
    let kind = fields.first("content-type").and_then(|kind| kind.get(..17));
    kind.is_some_and(|kind| kind.eq_ignore_ascii_case(b"text/event-stream"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;
    use http::{HeaderMap, HeaderValue};
    use std::net::{IpAddr, Ipv4Addr};

    const FIXED: Concurrency = Concurrency { max: Some(2), is_adaptive: false, min: 1 };
    const ADAPTIVE: Concurrency = Concurrency { max: None, is_adaptive: true, min: 2 };

    fn fields(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (name.parse().unwrap(), HeaderValue::from_static(value))).collect()
    }

    fn take(process: &Process, cells: &Arc<ServiceCells>, policy: &Concurrency) -> Result<Permit, Failure> {
        Permit::take(process, (cells, policy), || Priority::Critical, &Metrics::new().unwrap())
    }

    #[test]
    fn places_are_given_back_however_it_ends() {
        let (cells, process) = (Arc::<ServiceCells>::default(), Process { max: Some(3), ..Process::default() });
        let held = [0, 1].map(|_| take(&process, &cells, &FIXED).unwrap());
        let refusal = take(&process, &cells, &FIXED).unwrap_err();
        assert_eq!((refusal.reason, refusal.retry_after_s), (Reason::Overloaded, Some(1)));
        assert_eq!((cells.concurrency.in_flight(&FIXED), process.slots.taken()), (2, 2), "who was refused holds nothing");
        drop(held);
        assert_eq!((cells.concurrency.in_flight(&FIXED), process.slots.taken()), (0, 0));
    }

    #[test]
    fn the_process_is_protected_whatever_services_may() {
        let (cells, process) = (Arc::<ServiceCells>::default(), Process { max: Some(1), ..Process::default() });
        let _held = take(&process, &cells, &Concurrency::default()).unwrap();
        assert!(take(&process, &cells, &Concurrency::default()).is_err());
        assert_eq!(cells.concurrency.in_flight(&Concurrency::default()), 0, "a service without a limit is not counted");
    }

    #[test]
    fn tunnels_and_event_streams_hold_no_place_once_they_stand() {
        let (cells, process) = (Arc::<ServiceCells>::default(), Process { max: Some(9), ..Process::default() });
        let answers = [
            (StatusCode::SWITCHING_PROTOCOLS, fields(&[])),
            (StatusCode::OK, fields(&[("content-type", "text/event-stream; charset=utf-8")])),
        ];
        for (status, fields) in answers {
            let mut permit = take(&process, &cells, &FIXED).unwrap();
            permit.answered(status, &fields, clock::mono());
            assert_eq!((cells.concurrency.in_flight(&FIXED), process.slots.taken()), (0, 0), "{status}");
        }
        let mut permit = take(&process, &cells, &FIXED).unwrap();
        permit.answered(StatusCode::OK, &fields(&[("content-type", "text/plain")]), clock::mono());
        assert_eq!(cells.concurrency.in_flight(&FIXED), 1);
    }

    #[test]
    fn what_an_adaptive_limit_counts_is_given_back_once() {
        let cells = Arc::<ServiceCells>::default();
        let in_flight = || cells.concurrency.in_flight(&ADAPTIVE);
        for answers in 0..3 {
            let mut permit = take(&Process::default(), &cells, &ADAPTIVE).unwrap();
            assert_eq!(in_flight(), 1);
            for _ in 0..answers {
                permit.answered(StatusCode::OK, &HeaderMap::new(), clock::mono());
                assert_eq!(in_flight(), 0);
            }
            drop(permit);
            assert_eq!(in_flight(), 0, "after {answers} answers");
        }
    }

    #[test]
    fn only_good_answers_to_whole_requests_are_samples() {
        let samples = |status: StatusCode, is_sent: bool| {
            let cells = Arc::<ServiceCells>::default();
            let before = cells.concurrency.limit(&ADAPTIVE);
            for _ in 0..10 {
                let mut permit = take(&Process::default(), &cells, &ADAPTIVE).unwrap();
                if is_sent {
                    permit.sent(clock::mono());
                }
                permit.answered(status, &HeaderMap::new(), clock::mono());
            }
            // One request at a time uses half of a limit of 2, so a window with enough samples raises it.
            cells.concurrency.limit(&ADAPTIVE) != before
        };
        assert!(samples(StatusCode::OK, true));
        assert!(!samples(StatusCode::OK, false));
        assert!(!samples(StatusCode::SERVICE_UNAVAILABLE, true));
        assert!(!samples(StatusCode::INTERNAL_SERVER_ERROR, true));
        assert!(!samples(StatusCode::SWITCHING_PROTOCOLS, true));
    }

    #[test]
    fn a_client_lowers_itself_and_only_a_trusted_proxy_raises() {
        let address = IpAddr::V4(Ipv4Addr::LOCALHOST);
        let client = |is_trusted| Client { peer: address, address, is_trusted };
        let of = |pairs: &[(&'static str, &'static str)], is_trusted| {
            priority(Priority::Normal, Some(&client(is_trusted)), &fields(pairs))
        };
        assert_eq!(of(&[], false), Priority::Normal);
        assert_eq!(of(&[("x-vertice-priority", "low")], false), Priority::Low);
        assert_eq!(of(&[("x-vertice-priority", "critical")], false), Priority::Normal);
        assert_eq!(of(&[("x-vertice-priority", "critical")], true), Priority::Critical);
        assert_eq!(of(&[("priority", "u=7, i")], false), Priority::Low);
        assert_eq!(of(&[("priority", "i, u=5;x=1")], false), Priority::Low);
        assert_eq!(of(&[("priority", "u=0")], true), Priority::Normal, "browsers say so of every page");
        assert_eq!(of(&[("x-vertice-priority", "urgent"), ("priority", "u=8")], true), Priority::Normal);
        assert_eq!(priority(Priority::Low, None, &fields(&[("x-vertice-priority", "high")])), Priority::Low);
    }
}
