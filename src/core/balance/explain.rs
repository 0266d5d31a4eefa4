//! What a pick would make of each instance, for people.

use super::round::share;
use crate::breaker::Phase;
use crate::table::{Attach, Service, Upstream};
use crate::time::Moment;
use std::sync::Arc;
use std::time::Duration;

/// An instance as a pick sees it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Candidate {
    /// Whether it takes traffic: its status allows it, it has a weight and an address.
    pub is_usable: bool,
    /// Its breaker.
    pub breaker: Phase,
    /// How long it is still ejected, if it is.
    pub ejected_for: Option<Duration>,
    /// What its active probes say; `None` before the first one.
    pub probe: Option<bool>,
    /// Whether it is in our own zone, where that is preferred.
    pub is_near: Option<bool>,
    /// Its weight.
    pub weight: u16,
    /// The part of its share that it gets now: below 1 while it starts slowly.
    pub share: f64,
    /// Requests under way.
    pub in_flight: u32,
    /// The average response time; `None` before the first answer.
    pub average: Option<Duration>,
}

impl Candidate {
    /// Whether it is passed over while enough others are left.
    #[must_use]
    pub const fn is_out(&self) -> bool {
        self.ejected_for.is_some() || matches!(self.probe, Some(false))
    }
}

/// What is known about an instance of the service.
#[must_use]
pub fn explain<X: Attach>(service: &Service<X>, upstream: &Arc<Upstream<X>>, now: Moment) -> Candidate {
    let cells = &upstream.cells;
    let zone = service.policy.balance.zone.as_ref();
    Candidate {
        is_usable: upstream.takes_traffic(),
        breaker: cells.breaker.load().phase(now),
        ejected_for: cells.standing.ejected_until(now).map(|until| until.since(now)),
        probe: cells.standing.probed().verdict(),
        is_near: zone.map(|zone| upstream.facts.zone.as_ref() == Some(zone)),
        weight: upstream.facts.weight,
        share: share(service, upstream, now),
        in_flight: cells.load.in_flight(),
        average: cells.load.ewma().micros().map(|micros| Duration::from_secs_f32(micros / 1e6)),
    }
}
