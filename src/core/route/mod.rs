//! From a request to a service: which part of the target names it, or which configured route matches; and what the instance
//! is asked for.
//!
//! Bytes in, slices out: nothing is decoded or normalised, so `%2F` and dot segments reach the service as they came.
//!
//! A route matches by host, path, method and headers. Of the routes that match a request wholly, the most specific wins: by
//! host (exact, then the longest wildcard, then any), then by path (exact, then the longest prefix), then one that names
//! methods, then the one with more headers, then with more of their values given. Two routes that one request can match
//! equally well are a [`Clash`]; where there is none, the order of the routes means nothing.
//!
//! **Invariant:** finding a route costs the same however many routes there are that do not match: each step is one look-up
//! in a map, and no step allocates. Its bounds are those of the configuration (deepest prefix, longest wildcard, sets of
//! headers on one path), not the length of what the client sent.

mod clash;
mod host;
mod path;
mod rules;
mod target;
#[cfg(test)]
mod tests;

pub use clash::{Clash, SHAPES_MAX, clashes};
pub use host::{HOST_BYTES_MAX, HostPattern};
pub use rules::LINES_MAX;
pub use target::{V2, path_of, split_v2, write_target};

use crate::name::ServiceName;
use crate::policy::Timeouts;
use crate::priority::Priority;
use foldhash::quality::FixedState;
use host::Hosts;
use std::collections::HashMap;
use std::sync::Arc;

/// A map whose keys clients cannot choose so that they collide.
type Map<V> = HashMap<Box<[u8]>, V, FixedState>;

fn new_map<V>(hash: &FixedState) -> Map<V> {
    HashMap::with_hasher(hash.clone())
}

/// What of a request the routes look at.
pub trait Incoming {
    /// The target in origin-form: path and query.
    fn target(&self) -> &[u8];
    /// The method.
    fn method(&self) -> &str;
    /// The host it is for, as sent: any case, with or without a port. Empty when there is none.
    fn host(&self) -> &[u8];
    /// The values of the header field `name` (lower case), one for each line.
    fn lines(&self, name: &str) -> impl Iterator<Item = &[u8]>;
}

/// A configured route: requests that lead to a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StaticRoute {
    /// Its name, used as a metric label and in logs.
    pub name: Arc<str>,
    /// Which requests it takes.
    pub pattern: Pattern,
    /// Where it leads.
    pub service: ServiceName,
    /// What the matched path or prefix becomes; `None` leaves the path as it is.
    pub rewrite: Option<Arc<str>>,
    /// Timeouts instead of the service's.
    pub timeouts: Option<Timeouts>,
    /// `allow_half_close` instead of the service's.
    pub allow_half_close: Option<bool>,
    /// `preserve_host` instead of the service's.
    pub preserve_host: Option<bool>,
    /// How large a request's body may be, instead of the service's limit; the inner `None` is no limit.
    pub body_bytes: Option<Option<u64>>,
    /// How important its requests are, instead of what the service says.
    pub priority: Option<Priority>,
}

/// Which requests a route takes: those that match all of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern {
    /// One of these hosts; empty for any.
    pub hosts: Vec<HostPattern>,
    /// This path.
    pub path: PathPattern,
    /// One of these methods, compared with their case; empty for any.
    pub methods: Vec<Arc<str>>,
    /// All of these header fields; no name twice.
    pub headers: Vec<HeaderPattern>,
}

/// Which paths match.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum PathPattern {
    /// The path as a whole, byte for byte.
    Exact(Arc<str>),
    /// Whole segments at its beginning: `/api/a` matches `/api/a`, `/api/a/b` and `/api/a?x`, not `/api/ab`. A slash at the
    /// end does not count, and `/` matches every path.
    Prefix(Arc<str>),
}

impl PathPattern {
    /// As written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        match self {
            Self::Exact(text) | Self::Prefix(text) => text,
        }
    }
}

/// Which header fields match.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct HeaderPattern {
    /// The field's name, in lower case.
    pub name: Arc<str>,
    /// The whole value of one of its lines; `None` when it only has to be there.
    pub value: Option<Arc<str>>,
}

/// All configured routes, arranged for look-up.
#[derive(Clone, Debug, Default)]
pub struct StaticRoutes {
    all: Vec<Arc<StaticRoute>>,
    hosts: Hosts,
}

/// A route that matched.
#[derive(Clone, Copy, Debug)]
pub struct Match<'a> {
    /// The route.
    pub route: &'a Arc<StaticRoute>,
    /// Where what follows the matched path or prefix begins in the target; that has the query.
    pub rest_at: usize,
}

impl StaticRoutes {
    /// Builds the look-up. Of routes that [`clashes`] complains about, any may win: the configuration refuses them before.
    #[must_use]
    pub fn new(routes: Vec<StaticRoute>, seed: u64) -> Self {
        let all: Vec<Arc<StaticRoute>> = routes.into_iter().map(Arc::new).collect();
        let mut hosts = Hosts::new(&FixedState::with_seed(seed));
        all.iter().for_each(|route| hosts.insert(route));
        Self { all, hosts }
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// All routes, in the order they were given.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<StaticRoute>> {
        self.all.iter()
    }

    /// The most specific route that matches the request.
    #[must_use]
    pub fn find(&self, request: &impl Incoming) -> Option<Match<'_>> {
        if self.all.is_empty() { None } else { self.hosts.find(request) }
    }
}
