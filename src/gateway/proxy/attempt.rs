//! One attempt at an instance: from the pick to what was learned of it.

use super::watch::Watched;
use crate::clock;
use crate::random::random;
use crate::upstream::{Service, Upstream};
use parking_lot::Mutex;
use std::net::TcpStream;
use std::sync::Arc;
use std::time::Duration;
use vertice_core::balance::{self, NoPick, Preference, Tried};
use vertice_core::breaker::Phase;
use vertice_core::cell::InFlight;
use vertice_core::outcome::{Ending, Verdict};
use vertice_core::time::Moment;

/// A failure counts as at least this slow, so that an instance which fails fast attracts nothing.
const FAILURE_MICROS: f32 = 1_000_000.0;

/// An attempt under way. Ended by [`Attempt::end`]; one that is dropped before (its task was cancelled) has taught nothing,
/// and gives a half-open breaker its probe back.
#[derive(Debug)]
pub struct Attempt {
    service: Arc<Service>,
    upstream: Arc<Upstream>,
    in_flight: InFlight,
    address: usize,
    started: Moment,
    connected: Option<Moment>,
    sent: Option<Moment>,
    first_byte: Option<Moment>,
    ended: bool,
    /// Whether it is the one request that tries a half-open breaker.
    is_probe: bool,
    /// Whether a connection of its own is to be made, because a pooled one turned out to be dead.
    pub wants_fresh_connection: bool,
    /// Watches over the connection, once there is one, where the lane's own timers do not.
    pub watch: Option<Watched>,
    /// Where a connection for an upgrade leaves a duplicate of its socket.
    pub tunnel_socket: Option<Arc<Mutex<Option<TcpStream>>>>,
}

impl Attempt {
    /// Picks an instance of `service` that `tried` has not spent.
    ///
    /// # Errors
    /// [`NoPick`].
    pub fn start(service: &Arc<Service>, tried: &mut Tried, preference: &Preference, now: Moment) -> Result<Self, NoPick> {
        let pick = balance::pick(service, tried, preference, now, random())?;
        tried.note(&pick.upstream.cells, pick.address);
        Ok(Self::at(service, pick.upstream, pick.address, pick.probe, now))
    }

    /// The same instance and address once more, on a fresh connection, because the pooled one was dead. This attempt is over
    /// and has taught nothing; if it was a probe, the next one is it now.
    #[must_use]
    pub fn again(&mut self, now: Moment) -> Self {
        self.ended = true;
        let mut next = Self::at(&self.service, &self.upstream, self.address, self.is_probe, now);
        next.wants_fresh_connection = true;
        next
    }

    fn at(service: &Arc<Service>, upstream: &Arc<Upstream>, address: usize, is_probe: bool, started: Moment) -> Self {
        Self {
            service: service.clone(),
            upstream: upstream.clone(),
            in_flight: InFlight::start(upstream.cells.clone()),
            address,
            started,
            connected: None,
            sent: None,
            first_byte: None,
            ended: false,
            is_probe,
            wants_fresh_connection: false,
            watch: None,
            tunnel_socket: None,
        }
    }

    /// The instance.
    #[must_use]
    pub const fn upstream(&self) -> &Arc<Upstream> {
        &self.upstream
    }

    /// Which of the instance's addresses is tried.
    #[must_use]
    pub const fn address(&self) -> usize {
        self.address
    }

    /// There is a connection: from now on the client hands its request over.
    pub fn connected(&mut self, now: Moment) {
        self.connected = Some(now);
    }

    /// The whole request was handed over at `now`.
    pub fn sent(&mut self, now: Moment) {
        self.sent = Some(now);
    }

    /// The first byte of an answer came, unless one had come before.
    pub fn answered(&mut self, now: Moment) {
        self.first_byte.get_or_insert(now);
    }

    /// Whether it is the one request that tries a half-open breaker.
    #[must_use]
    pub const fn is_probe(&self) -> bool {
        self.is_probe
    }

    /// Whether a byte of an answer has come.
    #[must_use]
    pub const fn has_answer(&self) -> bool {
        self.first_byte.is_some()
    }

    /// Whether the watch over it has fired.
    #[must_use]
    pub fn timed_out(&self) -> bool {
        self.watch.as_ref().is_some_and(|watch| watch.has_fired())
    }

    /// Records how it ended at `now`; only the first call counts.
    pub fn end(&mut self, ending: Ending, now: Moment) {
        if std::mem::replace(&mut self.ended, true) {
            return;
        }
        let verdict = ending.verdict();
        let cells = self.in_flight.cells();
        let latency = self.took(now).map(|span| span.as_secs_f32() * 1e6);
        match (verdict, ending) {
            // How fast it fails says nothing about how fast it works.
            (Verdict::Success, Ending::Answered { status: 500.. }) => {}
            (Verdict::Success, _) => latency.into_iter().for_each(|micros| cells.load.observe(micros, now)),
            (Verdict::Failure, _) => cells.load.observe(latency.unwrap_or_default().max(FAILURE_MICROS), now),
            (Verdict::Neutral, _) => {}
        }
        if self.service.policy.outlier.compares(self.service.usable.len()) {
            cells.tally.note(ending, latency);
        }
        if ending == Ending::ConnectFailed {
            cells.address.failed(self.address, self.upstream.addresses.len());
        }
        let is_decided = cells.breaker.load().phase(now) != Phase::Closed;
        if is_decided && !self.is_probe {
            // Admitted before the breaker opened: its news is older than the decision, and the probe is another's.
            return;
        }
        let changed = cells.breaker.record(verdict, &self.service.policy.breaker, now, random());
        if let Some(transition) = changed {
            if transition.to == Phase::Closed {
                cells.standing.starts(now);
            }
            self.service.x.breaker_changed(transition);
            let (service, instance, to) = (&self.service.name, &self.upstream.facts.id, transition.to.as_str());
            tracing::warn!(%service, %instance, to, "circuit breaker changed");
        }
    }

    /// How long the instance took for the connection and for the first byte of its answer. The client's time in between, to hand
    /// its request over, is not the instance's; `None` when there was an answer before that was done.
    fn took(&self, now: Moment) -> Option<Duration> {
        let Some(connected) = self.connected else { return Some(now.since(self.started)) };
        let (sent, first_byte) = (self.sent?, self.first_byte.unwrap_or(now));
        (first_byte >= sent).then(|| connected.since(self.started) + first_byte.since(sent))
    }
}

impl Drop for Attempt {
    fn drop(&mut self) {
        if !self.ended {
            self.end(Ending::Ours, clock::mono());
        }
    }
}
