//! From a request's target to a service.

use super::fail::Failure;
use crate::aliases::Aliases;
use crate::telemetry::service::RouteMetrics;
use crate::upstream::{Hung, Service};
use std::collections::HashMap;
use std::sync::Arc;
use vertice_core::route::{self, StaticRoute, StaticRoutes};
use vertice_core::table::Snapshot;

/// What the operator configured about finding services.
#[derive(Debug, Default)]
pub struct Routing {
    routes: StaticRoutes,
    counters: HashMap<Arc<str>, RouteMetrics>,
    aliases: Arc<Aliases>,
}

/// Where a request goes.
#[derive(Debug)]
pub struct Plan {
    /// The service as it was when the request came.
    pub service: Arc<Service>,
    /// The configured route, unless it came under `/v2/`.
    pub route: Option<Arc<StaticRoute>>,
    /// What of the target is passed on begins here.
    pub rest_at: usize,
}

impl Routing {
    /// Routes and aliases. `seed` keeps clients from choosing paths that collide.
    #[must_use]
    pub fn new(routes: Vec<StaticRoute>, aliases: Arc<Aliases>, seed: u64) -> Self {
        let counters = routes.iter().map(|route| (route.name.clone(), RouteMetrics::default())).collect();
        Self { routes: StaticRoutes::new(routes, seed), counters, aliases }
    }

    /// The counters of a route.
    #[must_use]
    pub fn counters(&self, route: &StaticRoute) -> Option<&RouteMetrics> {
        self.counters.get(&route.name)
    }

    /// Whether this target is for a service at all: under `/v2/`, or matched by a route.
    #[must_use]
    pub fn covers(&self, target: &[u8]) -> bool {
        target.starts_with(b"/v2/") || self.routes.find(target).is_some()
    }

    /// Finds the service of a target.
    ///
    /// # Errors
    /// `not_found` when the target leads nowhere, `no_route` when it names a service that nobody knows.
    pub fn plan(&self, target: &[u8], table: &Snapshot<Hung>) -> Result<Plan, Failure> {
        if target.starts_with(b"/v2/") {
            let Some(v2) = route::split_v2(target) else { return Err(Failure::not_found()) };
            let rest_at = target.len() - v2.rest.len();
            let service = self.aliases.resolve(v2.service, table).ok_or_else(|| Failure::no_route(v2.service))?;
            return Ok(Plan { service: service.clone(), route: None, rest_at });
        }
        let found = self.routes.find(target).ok_or_else(Failure::not_found)?;
        let name = found.route.service.as_str();
        let service = self.aliases.resolve(name, table).ok_or_else(|| Failure::no_route(name))?;
        let rest_at = if found.route.rewrite.is_some() { found.rest_at } else { 0 };
        Ok(Plan { service: service.clone(), route: Some(found.route.clone()), rest_at })
    }
}
