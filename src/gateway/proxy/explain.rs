//! How a request was decided, for an operator who asks with `X-Vertice-Explain: 1`: who could have taken it, in which state they
//! were, whom it was sent to and what came of that.

use crate::upstream::{Service, Upstream};
use http::HeaderValue;
use serde::Serialize;
use std::net::SocketAddr;
use std::sync::Arc;
use vertice_core::balance;
use vertice_core::outcome::Ending;
use vertice_core::reason::Reason;
use vertice_core::time::Moment;

/// Asks for an explanation, and carries it back.
pub const EXPLAIN: &str = "x-vertice-explain";

/// No more instances are listed: the field has to fit into clients' limits of a head.
const CANDIDATES_MAX: usize = 24;

/// What happened so far. Times are microseconds since the request's head had arrived.
#[derive(Debug, Serialize)]
pub struct Explanation {
    #[serde(skip)]
    started: Moment,
    /// Of the routing table that the request was decided by.
    generation: u64,
    service: Option<String>,
    route: Option<String>,
    algorithm: Option<&'static str>,
    candidates: Vec<Candidate>,
    /// How many are not listed.
    candidates_omitted: usize,
    attempts: Vec<Attempted>,
    /// Whose answer this is; none when it is the gateway's own.
    choice: Option<String>,
    reason: Option<&'static str>,
    total_us: u64,
}

/// An instance as it was before the first pick.
#[derive(Debug, Serialize)]
struct Candidate {
    instance: String,
    status: &'static str,
    /// Whether it takes traffic, its breaker aside.
    usable: bool,
    breaker: &'static str,
    /// For how long it is still passed over, because it did worse than the others.
    #[serde(skip_serializing_if = "Option::is_none")]
    ejected_ms: Option<u128>,
    /// What its active probes say.
    #[serde(skip_serializing_if = "Option::is_none")]
    probe_passed: Option<bool>,
    /// The part of its share that it gets.
    share: f64,
    in_flight: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    average_us: Option<u64>,
    weight: u16,
    #[serde(skip_serializing_if = "Option::is_none")]
    zone: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<String>,
}

/// One attempt.
#[derive(Debug, Serialize)]
struct Attempted {
    instance: String,
    address: Option<SocketAddr>,
    started_us: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    connected_us: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reused: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    answered_us: Option<u64>,
    ending: Option<String>,
}

impl Explanation {
    /// Of a request that arrived at `started` and is decided by the table of that generation.
    #[must_use]
    pub const fn new(started: Moment, generation: u64) -> Self {
        Self {
            started,
            generation,
            service: None,
            route: None,
            algorithm: None,
            candidates: Vec::new(),
            candidates_omitted: 0,
            attempts: Vec::new(),
            choice: None,
            reason: None,
            total_us: 0,
        }
    }

    /// The service was found, by that route if it was a configured one.
    pub fn found(&mut self, service: &Service, route: Option<&str>, generation: u64, now: Moment) {
        self.generation = generation;
        self.service = Some(service.name.to_string());
        self.route = route.map(str::to_owned);
        self.algorithm = Some(service.policy.balance.algorithm.as_str());
        let listed = service.instances.iter().take(CANDIDATES_MAX);
        self.candidates = listed.map(|upstream| Candidate::of(service, upstream, now)).collect();
        self.candidates_omitted = service.instances.len() - self.candidates.len();
    }

    /// An attempt begins.
    pub fn tries(&mut self, upstream: &Upstream, address: usize, now: Moment) {
        let started_us = self.since_start(now);
        self.attempts.push(Attempted {
            instance: upstream.facts.id.to_string(),
            address: upstream.addresses.get(address).copied(),
            started_us,
            connected_us: None,
            reused: None,
            answered_us: None,
            ending: None,
        });
    }

    /// The attempt has a connection.
    pub fn connected(&mut self, reused: bool, now: Moment) {
        let at = self.since_start(now);
        if let Some(attempt) = self.attempts.last_mut() {
            (attempt.connected_us, attempt.reused) = (Some(at), Some(reused));
        }
    }

    /// The attempt has the head of an answer.
    pub fn answered(&mut self, status: u16, now: Moment) {
        let at = self.since_start(now);
        if let Some(attempt) = self.attempts.last_mut() {
            attempt.answered_us = Some(at);
            attempt.ending = Some(status.to_string());
        }
    }

    /// The attempt failed.
    pub fn failed(&mut self, ending: Ending) {
        if let Some(attempt) = self.attempts.last_mut() {
            attempt.ending = Some(ending.as_str().to_owned());
        }
    }

    /// The whole of it, as a field's value: JSON in ASCII. `reason` when the answer is the gateway's own.
    #[must_use]
    pub fn field(&mut self, reason: Option<Reason>, now: Moment) -> Option<HeaderValue> {
        self.total_us = self.since_start(now);
        self.reason = reason.map(Reason::as_str);
        self.choice = self.attempts.last().filter(|_| reason.is_none()).map(|attempt| attempt.instance.clone());
        HeaderValue::from_str(&ascii(&serde_json::to_string(self).ok()?)).ok()
    }

    fn since_start(&self, now: Moment) -> u64 {
        u64::try_from(now.since(self.started).as_micros()).unwrap_or(u64::MAX)
    }
}

impl Candidate {
    fn of(service: &Service, upstream: &Arc<Upstream>, now: Moment) -> Self {
        let seen = balance::explain(service, upstream, now);
        Self {
            instance: upstream.facts.id.to_string(),
            status: upstream.status().as_str(),
            usable: seen.is_usable,
            breaker: seen.breaker.as_str(),
            ejected_ms: seen.ejected_for.map(|span| span.as_millis()),
            probe_passed: seen.probe,
            share: seen.share,
            in_flight: seen.in_flight,
            average_us: seen.average.map(|average| u64::try_from(average.as_micros()).unwrap_or(u64::MAX)),
            weight: seen.weight,
            zone: upstream.facts.zone.as_deref().map(str::to_owned),
            version: upstream.facts.version.as_deref().map(str::to_owned),
        }
    }
}

/// The same JSON with everything beyond ASCII escaped: a field's value is no place for it.
fn ascii(json: &str) -> String {
    let mut out = String::with_capacity(json.len());
    let mut units = [0; 2];
    for c in json.chars() {
        if c.is_ascii() {
            out.push(c);
        } else {
            c.encode_utf16(&mut units).iter().for_each(|unit| out.push_str(&format!("\\u{unit:04x}")));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_field_is_ascii_and_means_the_same() {
        let mut explanation = Explanation::new(Moment::from_millis(5), 7);
        explanation.service = Some("größe \u{1F600}\n".to_owned());
        let field = explanation.field(Some(Reason::NoRoute), Moment::from_millis(6)).unwrap();
        assert!(field.as_bytes().iter().all(|byte| (0x20..0x7f).contains(byte)));
        let read: serde_json::Value = serde_json::from_slice(field.as_bytes()).unwrap();
        assert_eq!(read["service"], "größe \u{1F600}\n");
        assert_eq!((read["reason"].as_str(), read["total_us"].as_u64()), (Some("no_route"), Some(1000)));
    }
}
