//! How often the registry's own calls may be made (`limits.registry`): a runaway sidecar or script must not keep the registry from
//! the others.

use super::call::Call;
use super::error::Error;
use crate::clock;
use crate::rates::{Rate, Rates};
use crate::telemetry::metrics::Metrics;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;
use vertice_core::limiter::{By, Quota, RateLimit, Verdict};
use vertice_core::reason::Reason;
use vertice_core::time::seconds_up;

/// So many addresses, and instances, are told apart.
const KEYS_MAX: usize = 200_000;

/// The limits of registry calls, and what is owed to them.
#[derive(Debug)]
pub struct Quotas {
    rates: Rates,
    register: Arc<Rate>,
    lookup: Arc<Rate>,
    deregister: Arc<Rate>,
    heartbeat: Arc<Rate>,
    metrics: Arc<Metrics>,
}

impl Quotas {
    /// The quotas: registrations, look-ups and deregistrations by address, heartbeats by instance.
    #[must_use]
    pub fn new(metrics: Arc<Metrics>) -> Self {
        let rates = Rates::new(metrics.clone());
        let limits = [
            limit("registry:register", 100, 1, 100),
            limit("registry:lookup", 1_000, 1, 1_000),
            limit("registry:deregister", 10, 1, 10),
            limit("registry:heartbeat", 10, 30, 20),
        ];
        let adopted = <[Arc<Rate>; 4]>::try_from(rates.adopt(&limits, clock::mono()))
            .expect("invariant: each limit that is adopted is given back");
        let [register, lookup, deregister, heartbeat] = adopted;
        Self { rates, register, lookup, deregister, heartbeat, metrics }
    }

    /// Counts a call by its caller's address; heartbeats are counted by [`Quotas::heartbeat`].
    ///
    /// # Errors
    /// `rate_limited`.
    pub(super) fn call(&self, call: Call, address: IpAddr) -> Result<(), Error> {
        let rate = match call {
            Call::Register => &self.register,
            Call::Services | Call::Service => &self.lookup,
            Call::Deregister => &self.deregister,
            _ => return Ok(()),
        };
        self.count(rate, address.to_string().as_bytes())
    }

    /// Counts a heartbeat of an instance: by the id it sent, else by its registrant's address.
    ///
    /// # Errors
    /// `rate_limited`.
    pub(super) fn heartbeat(&self, service: &str, instance: Option<&str>, address: IpAddr) -> Result<(), Error> {
        let key = match instance {
            Some(id) => format!("{service} {id}"),
            None => format!("{service} {address}"),
        };
        self.count(&self.heartbeat, key.as_bytes())
    }

    /// Forgets who owes nothing.
    pub fn sweep(&self) {
        self.rates.sweep(clock::mono());
    }

    fn count(&self, rate: &Rate, key: &[u8]) -> Result<(), Error> {
        match rate.admit(key, clock::mono(), &self.metrics) {
            Verdict::Admitted(_) => Ok(()),
            Verdict::Refused { retry, .. } => {
                self.metrics.limit_hit("registry_calls");
                let seconds = seconds_up(retry).max(1);
                let detail = format!("Too many calls of this kind. Try again in {seconds} s.");
                Err(Error { retry_after_s: Some(seconds), ..Error::new(Reason::RateLimited, detail) })
            }
        }
    }
}

fn limit(name: &str, requests: u32, seconds: u64, burst: u32) -> RateLimit {
    let quota = Quota::new(requests, Duration::from_secs(seconds), burst);
    RateLimit {
        name: name.into(),
        quota: quota.expect("invariant: the figures of the specification can be kept"),
        by: By::Client,
        services: Vec::new(),
        routes: Vec::new(),
        is_shared: false,
        keys_max: KEYS_MAX,
    }
}
