//! From a request to a service, in three steps: [`Routing::find`] sees the way, [`Routing::plan`] where it leads, and [`admit`]
//! takes the request in. Nothing is counted or taken before the last, so that a lane can look where a request would go and leave
//! it to the other.

use super::affinity;
use super::attempt::Attempt;
use super::ctx::{Ctx, Forward};
use super::fail::Failure;
use super::fields::Fields;
use crate::aliases::Aliases;
use crate::telemetry::metrics::Metrics;
use crate::telemetry::service::RouteMetrics;
use crate::upstream::{Hung, Service};
use http::Method;
use std::collections::HashMap;
use std::sync::Arc;
use vertice_core::reason::Reason;
use vertice_core::route::{self, Incoming, Match, StaticRoute, StaticRoutes};
use vertice_core::table::Snapshot;

/// What the operator configured about finding services.
#[derive(Debug, Default)]
pub struct Routing {
    routes: StaticRoutes,
    counters: HashMap<Arc<str>, RouteMetrics>,
    aliases: Arc<Aliases>,
    own: OwnPaths,
}

/// Which paths lead to the gateway itself: they win over routes.
#[derive(Clone, Copy, Debug)]
pub struct OwnPaths(pub fn(&str) -> bool);

impl Default for OwnPaths {
    /// None does.
    fn default() -> Self {
        Self(|_| false)
    }
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
    /// Of the routing table that says so.
    pub generation: u64,
}

impl Plan {
    /// Whether a lane can serve the request that speaks plain HTTP/1.1 with instances, and takes a client that closes its sending
    /// side for gone.
    #[must_use]
    pub fn is_plain(&self) -> bool {
        self.service.x.is_plain && !self.allows_half_close()
    }

    /// Whether a client that closes its sending side after its request still wants the answer.
    #[must_use]
    pub fn allows_half_close(&self) -> bool {
        let of_route = self.route.as_ref().and_then(|route| route.allow_half_close);
        of_route.unwrap_or(self.service.policy.allow_half_close)
    }
}

/// What of a request decides where it goes.
#[derive(Debug)]
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
    /// Routes and aliases, and what neither may lead away from. `seed` keeps clients from choosing paths that collide.
    #[must_use]
    pub fn new(routes: Vec<StaticRoute>, aliases: Arc<Aliases>, own: OwnPaths, seed: u64) -> Self {
        let counters = routes.iter().map(|route| (route.name.clone(), RouteMetrics::default())).collect();
        Self { routes: StaticRoutes::new(routes, seed), counters, aliases, own }
    }

    /// The counters of a route.
    #[must_use]
    pub fn counters(&self, route: &StaticRoute) -> Option<&RouteMetrics> {
        self.counters.get(&route.name)
    }

    /// Which way leads from the request to a service; none when it is not for a service at all.
    #[must_use]
    pub fn find(&self, request: &Asked<'_, impl Fields>) -> Option<Way<'_>> {
        if request.target.starts_with(b"/v2/") {
            return Some(Way::V2);
        }
        let found = self.routes.find(request)?;
        let is_own = std::str::from_utf8(route::path_of(request.target)).is_ok_and(self.own.0);
        (!is_own).then_some(Way::Route(found))
    }

    /// Finds the service at the end of the way.
    ///
    /// # Errors
    /// `not_found` when the target names no service, `no_route` when nobody knows the one it names.
    pub fn plan(&self, way: Way<'_>, target: &[u8], table: &Snapshot<Hung>) -> Result<Plan, Failure> {
        let generation = table.generation();
        let Way::Route(found) = way else {
            let Some(v2) = route::split_v2(target) else { return Err(Failure::not_found()) };
            let rest_at = target.len() - v2.rest.len();
            let service = self.aliases.resolve(v2.service, table).ok_or_else(|| Failure::no_route(v2.service))?;
            return Ok(Plan { service: service.clone(), route: None, rest_at, generation });
        };
        let name = found.route.service.as_str();
        let service = self.aliases.resolve(name, table).ok_or_else(|| Failure::no_route(name))?;
        let rest_at = if found.route.rewrite.is_some() { found.rest_at } else { 0 };
        Ok(Plan { service: service.clone(), route: Some(found.route.clone()), rest_at, generation })
    }
}

/// Takes the request in: its places, its share of what may come, and the first pick, so that a refusal costs no connection. It has
/// just arrived, so the moment it did is now. `length` is what it says of its body.
///
/// `ctx.forward` is set whether it was taken in or not, because a refusal is the service's in the metrics; its next attempt only
/// when it was.
///
/// # Errors
/// What it is refused with.
pub fn admit(ctx: &mut Ctx, plan: Plan, fields: &impl Fields, length: Option<u64>, metrics: &Metrics) -> Result<(), Failure> {
    let (now, client, generation) = (ctx.started, ctx.client.as_ref(), plan.generation);
    let preference = affinity::preference(&plan.service, fields, client);
    let forward = ctx.forward.insert(Forward::new(plan, preference, now));
    forward.service.cells.retry_budget.earn();
    if let Some(explanation) = &mut ctx.explanation {
        explanation.found(&forward.service, forward.route.as_ref().map(|route| &*route.name), generation, now);
    }
    if let Some(limit) = forward.body_limit()
        && length.is_some_and(|length| length > limit)
    {
        metrics.limit_hit("body_bytes");
        return Err(Failure::new(Reason::BodyTooLarge, format!("The body is larger than {limit} bytes.")));
    }
    let (quoted, taken_in) = ctx.rules.take_in(forward, client, fields, now, metrics);
    ctx.quoted = quoted;
    taken_in?;
    let first = Attempt::start(&forward.service, &mut forward.tried, &forward.preference, now);
    forward.next = Some(first.map_err(|refusal| Failure::no_pick(refusal, forward.service.name.as_str(), now))?);
    Ok(())
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
