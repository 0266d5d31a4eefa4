//! From a request to a service.

use super::fail::Failure;
use super::fields::Fields;
use crate::aliases::Aliases;
use crate::telemetry::service::RouteMetrics;
use crate::upstream::{Hung, Service};
use http::Method;
use std::collections::HashMap;
use std::sync::Arc;
use vertice_core::route::{self, Incoming, Match, StaticRoute, StaticRoutes};
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

/// What of a request decides where it goes.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a, F> {
    /// The target in origin-form.
    pub target: &'a [u8],
    /// The method.
    pub method: &'a Method,
    /// The header fields.
    pub fields: &'a F,
}

/// How a request leads to a service.
#[derive(Clone, Copy, Debug)]
pub enum Way<'a> {
    /// Its target names the service: `/v2/<service>/…`.
    V2,
    /// A configured route matches.
    Route(Match<'a>),
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

    /// Which way leads from the request to a service; none when it is not for a service at all.
    #[must_use]
    pub fn find(&self, request: &Asked<'_, impl Fields>) -> Option<Way<'_>> {
        if request.target.starts_with(b"/v2/") { Some(Way::V2) } else { self.routes.find(request).map(Way::Route) }
    }

    /// Finds the service at the end of the way.
    ///
    /// # Errors
    /// `not_found` when the target names no service, `no_route` when nobody knows the one it names.
    pub fn plan(&self, way: Way<'_>, target: &[u8], table: &Snapshot<Hung>) -> Result<Plan, Failure> {
        let Way::Route(found) = way else {
            let Some(v2) = route::split_v2(target) else { return Err(Failure::not_found()) };
            let rest_at = target.len() - v2.rest.len();
            let service = self.aliases.resolve(v2.service, table).ok_or_else(|| Failure::no_route(v2.service))?;
            return Ok(Plan { service: service.clone(), route: None, rest_at });
        };
        let name = found.route.service.as_str();
        let service = self.aliases.resolve(name, table).ok_or_else(|| Failure::no_route(name))?;
        let rest_at = if found.route.rewrite.is_some() { found.rest_at } else { 0 };
        Ok(Plan { service: service.clone(), route: Some(found.route.clone()), rest_at })
    }
}

impl<F: Fields> Incoming for Asked<'_, F> {
    fn target(&self) -> &[u8] {
        self.target
    }

    fn method(&self) -> &str {
        self.method.as_str()
    }

    /// A target in absolute-form has been checked to name the same host.
    fn host(&self) -> &[u8] {
        self.fields.first("host").unwrap_or_default()
    }

    fn lines(&self, name: &str) -> impl Iterator<Item = &[u8]> {
        self.fields.all(name)
    }
}
