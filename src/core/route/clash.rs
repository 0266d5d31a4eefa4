//! Routes that cannot stand beside each other.

use super::rules::LooksAt;
use super::{HostPattern, PathPattern, Pattern};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// How many different sets of header fields (with or without methods) the routes of one host and path may look at: each of
/// them costs a look-up.
pub const SHAPES_MAX: usize = 32;

/// Why a route cannot stand beside the others. Routes are named by their place in the list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Clash {
    /// Some requests match it and an earlier one, and neither is more specific.
    Conflict {
        /// The route.
        route: usize,
        /// The first one that it is in conflict with.
        earlier: usize,
        /// A request that both match: `GET shop.example.com/api with x-a: 1, x-b: 2`.
        request: String,
    },
    /// An earlier one takes all its requests.
    Shadowed {
        /// The route.
        route: usize,
        /// The earlier one.
        by: usize,
    },
    /// It is one set of header fields too many for its host and path, see [`SHAPES_MAX`].
    Crowded {
        /// The route.
        route: usize,
    },
}

impl Clash {
    /// The route it is about.
    #[must_use]
    pub const fn route(&self) -> usize {
        match self {
            Self::Conflict { route, .. } | Self::Shadowed { route, .. } | Self::Crowded { route } => *route,
        }
    }

    const fn earlier(&self) -> Option<usize> {
        match self {
            Self::Conflict { earlier, .. } => Some(*earlier),
            Self::Shadowed { by, .. } => Some(*by),
            Self::Crowded { .. } => None,
        }
    }
}

/// What clashes among the routes with these `patterns`: at most one clash for each, in their order. None means that whatever
/// the request, one route is the most specific.
///
/// Only routes of the same host and path can clash: of two others that match the same request, one is more specific by these.
/// And a more specific route never takes all requests of a less specific one, so that only equals can shadow each other.
#[must_use]
pub fn clashes(patterns: &[Pattern]) -> Vec<Clash> {
    let looks_at: Vec<LooksAt> = patterns.iter().map(LooksAt::of).collect();
    let mut found: BTreeMap<usize, Clash> = BTreeMap::new();
    for (place, here) in by_place(patterns) {
        let mut earlier = Earlier::default();
        for later in here {
            let known = found.get(&later).and_then(Clash::earlier);
            let tie = earlier.first_tie(patterns, &looks_at, later);
            if let Some(first) = tie.filter(|first| known.is_none_or(|known| *first < known)) {
                found.insert(later, clash(patterns, place, first, later));
            }
            earlier.add(&patterns[later], &looks_at[later], later);
            if earlier.by_shape.len() > SHAPES_MAX {
                found.entry(later).or_insert(Clash::Crowded { route: later });
                break;
            }
        }
    }
    found.into_values().collect()
}

/// The routes of one host and path that have been looked at. Those that look at the same fields and want other values are
/// not compared one by one: there may be thousands of them.
#[derive(Default)]
struct Earlier<'a> {
    by_shape: BTreeMap<&'a LooksAt, Vec<usize>>,
    by_values: BTreeMap<(&'a LooksAt, Vec<&'a str>), Vec<usize>>,
}

impl<'a> Earlier<'a> {
    fn add(&mut self, pattern: &'a Pattern, looks_at: &'a LooksAt, route: usize) {
        self.by_shape.entry(looks_at).or_default().push(route);
        self.by_values.entry((looks_at, looks_at.values_in(pattern))).or_default().push(route);
    }

    /// The first that matches some request as well as `later` does.
    fn first_tie(&self, patterns: &[Pattern], looks_at: &[LooksAt], later: usize) -> Option<usize> {
        let (pattern, own) = (&patterns[later], &looks_at[later]);
        let alike = self.by_values.get(&(own, own.values_in(pattern))).into_iter().flatten();
        let is_other = |(shape, _): &(&&LooksAt, &Vec<usize>)| shape.rank == own.rank && **shape != own;
        let others = self.by_shape.iter().filter(is_other).flat_map(|(_, routes)| routes);
        let can_meet = |earlier: &usize| {
            let earlier = &patterns[*earlier];
            headers_can_meet(earlier, pattern) && shared_method(earlier, pattern).is_some()
        };
        alike.chain(others).copied().filter(can_meet).min()
    }
}

/// A host, whether the path is exact, and the path.
type PlaceOf<'a> = (Option<&'a HostPattern>, bool, &'a str);

/// The routes of each host and path, in their order.
fn by_place(patterns: &[Pattern]) -> BTreeMap<PlaceOf<'_>, Vec<usize>> {
    let mut places: BTreeMap<PlaceOf<'_>, Vec<usize>> = BTreeMap::new();
    for (index, pattern) in patterns.iter().enumerate() {
        let (is_exact, path) = match &pattern.path {
            PathPattern::Exact(path) => (true, &**path),
            PathPattern::Prefix(prefix) => (false, prefix.trim_end_matches('/')),
        };
        let hosts: BTreeSet<Option<&HostPattern>> = match &pattern.hosts[..] {
            [] => [None].into(),
            hosts => hosts.iter().map(Some).collect(),
        };
        hosts.into_iter().for_each(|host| places.entry((host, is_exact, path)).or_default().push(index));
    }
    places
}

/// A method that both take.
fn shared_method<'a>(a: &'a Pattern, b: &'a Pattern) -> Option<&'a str> {
    match (&a.methods[..], &b.methods[..]) {
        ([], []) => Some("GET"),
        ([], some) | (some, []) => some.first().map(|method| &**method),
        (some, others) => some.iter().find(|method| others.contains(method)).map(|method| &**method),
    }
}

/// Whether a request can have the fields that both look for. A field cannot have two values; a request with the field in two lines can,
/// and there the first line decides.
fn headers_can_meet(a: &Pattern, b: &Pattern) -> bool {
    let differs = |name: &Arc<str>, value: &Option<Arc<str>>| {
        let other = b.headers.iter().find(|header| header.name == *name).map(|header| &header.value);
        matches!((value, other), (Some(value), Some(Some(other))) if value != other)
    };
    !a.headers.iter().any(|header| differs(&header.name, &header.value))
}

fn clash(patterns: &[Pattern], place: PlaceOf<'_>, earlier: usize, later: usize) -> Clash {
    if takes_all_of(&patterns[earlier], &patterns[later]) {
        return Clash::Shadowed { route: later, by: earlier };
    }
    Clash::Conflict { route: later, earlier, request: witness(place, &patterns[earlier], &patterns[later]) }
}

/// Whether every request of `covered` is one of `route` too, for routes that tie.
fn takes_all_of(route: &Pattern, covered: &Pattern) -> bool {
    covered.hosts.iter().all(|host| route.hosts.contains(host))
        && covered.methods.iter().all(|method| route.methods.contains(method))
        && covered.headers.iter().all(|header| route.headers.contains(header))
}

/// A request that matches both.
fn witness((host, _, path): PlaceOf<'_>, a: &Pattern, b: &Pattern) -> String {
    let method = shared_method(a, b).unwrap_or("GET");
    let host = host.map(HostPattern::example).unwrap_or_default();
    let path = if path.is_empty() { "/" } else { path };
    let mut fields: BTreeMap<&str, &str> = BTreeMap::new();
    for header in a.headers.iter().chain(&b.headers) {
        let value = fields.entry(&header.name).or_insert("anything");
        *value = header.value.as_deref().unwrap_or(value);
    }
    let fields: Vec<String> = fields.iter().map(|(name, value)| format!("{name}: {value}")).collect();
    let with = if fields.is_empty() { "" } else { " with " };
    format!("{method} {host}{path}{with}{}", fields.join(", "))
}
