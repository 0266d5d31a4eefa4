//! What the operator decided about requests, in one piece: a request takes it once and keeps it to its end, so that a reload in
//! between cannot show it one half of the old decisions and one of the new.

use super::admit::Routing;
use super::client::Client;
use super::ctx::Forward;
use super::fail::Failure;
use super::fields::Fields;
use super::limits::{self, Asked, Quoted};
use super::overload::{self, Permit, Process};
use crate::rates::Rate;
use crate::telemetry::metrics::Metrics;
use ipnet::IpNet;
use std::sync::Arc;
use std::time::Duration;
use vertice_core::time::Moment;

/// The rules of all requests that begin while they are in force.
#[derive(Debug, Default)]
pub struct Rules {
    /// Bounds, and whom to trust.
    pub settings: Settings,
    /// Routes and aliases.
    pub routing: Routing,
    /// How many requests may come.
    pub rates: Vec<Arc<Rate>>,
    /// How many may be under way.
    pub process: Process,
}

/// What a lane was configured with.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Settings {
    /// Whose word about the client counts.
    pub trusted_proxies: Vec<IpNet>,
    /// How long a client's body may stall.
    pub body_stall: Duration,
    /// How long a client may refuse to take more of an answer.
    pub write_stall: Duration,
    /// How long a client connection may idle between requests.
    pub idle_keepalive: Duration,
    /// Whether the access log tells of probes that succeeded.
    pub logs_probes: bool,
    /// Whether plain requests take the express lane; otherwise every request takes the full one.
    pub express: bool,
}

impl Rules {
    /// Takes a request in: a place among those under way, and its share of what may come. What it is told of its rate limits is
    /// told whether it was taken in or not.
    pub fn take_in(
        &self,
        forward: &mut Forward,
        client: Option<&Client>,
        fields: &impl Fields,
        now: Moment,
        metrics: &Metrics,
    ) -> (Option<Quoted>, Result<(), Failure>) {
        let (service, route) = (&forward.service, forward.route.as_deref());
        let priority = || {
            let configured = route.and_then(|route| route.priority).unwrap_or(service.policy.priority);
            overload::priority(configured, client, fields)
        };
        // First, because a place can be given back without a trace.
        match Permit::take(&self.process, (&service.cells, &service.policy.concurrency), priority, metrics) {
            Ok(permit) if self.rates.is_empty() => {
                forward.permit = permit;
                (None, Ok(()))
            }
            Ok(permit) => {
                let asked = Asked { service: &service.name, route: route.map(|route| &*route.name), client, fields };
                let answer = limits::admit(&self.rates, &asked, now, metrics);
                if answer.1.is_ok() {
                    forward.permit = permit;
                }
                answer
            }
            Err(shed) => (None, Err(shed)),
        }
    }
}
