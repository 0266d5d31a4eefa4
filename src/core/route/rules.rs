//! Methods and headers: the look-up's last step, among the routes of one host and path.

use super::{HeaderPattern, Incoming, Map, Pattern, StaticRoute, new_map};
use foldhash::quality::FixedState;
use std::cmp::Reverse;
use std::sync::Arc;

/// Of a field that a request has in several lines, this many are looked at, from the first: a request cannot make the
/// look-up try any number of combinations.
pub const LINES_MAX: usize = 4;

/// The routes of one host and path. Routes that look at the same things are a [`Shape`], and of each shape the one that
/// matches is found by its values, however many there are.
#[derive(Clone, Debug, Default)]
pub(super) struct Rules {
    /// The most specific first.
    shapes: Vec<Shape>,
}

#[derive(Clone, Debug)]
struct Shape {
    looks_at: LooksAt,
    routes: Step,
}

/// What a route looks at beside host and path. The order is that of rank.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct LooksAt {
    pub(super) rank: Rank,
    /// Fields whose values count.
    values: Vec<Arc<str>>,
    /// Fields that only have to be there.
    presence: Vec<Arc<str>>,
}

/// How specific a route is among those of its host and path: the first is the most specific.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Rank {
    method: Reverse<bool>,
    headers: Reverse<usize>,
    values: Reverse<usize>,
}

/// A decision on one value after the other: the method, if it counts, then those of the fields.
#[derive(Clone, Debug)]
enum Step {
    Value(Map<Step>),
    Route(Arc<StaticRoute>),
}

impl LooksAt {
    pub(super) fn of(pattern: &Pattern) -> Self {
        let names = |wanted: fn(&HeaderPattern) -> bool| {
            let mut names: Vec<_> = pattern.headers.iter().filter(|header| wanted(header)).map(|h| h.name.clone()).collect();
            names.sort();
            names
        };
        let values = names(|header| header.value.is_some());
        let rank = Rank {
            method: Reverse(!pattern.methods.is_empty()),
            headers: Reverse(pattern.headers.len()),
            values: Reverse(values.len()),
        };
        Self { rank, values, presence: names(|header| header.value.is_none()) }
    }

    /// What a route that looks at this wants to see, field by field.
    pub(super) fn values_in<'p>(&self, pattern: &'p Pattern) -> Vec<&'p str> {
        let value_of = |name: &Arc<str>| pattern.headers.iter().find(|header| header.name == *name)?.value.as_deref();
        self.values.iter().filter_map(value_of).collect()
    }
}

impl Rules {
    pub(super) fn insert(&mut self, route: &Arc<StaticRoute>, hash: &FixedState) {
        let looks_at = LooksAt::of(&route.pattern);
        let at = self.shapes.binary_search_by(|shape| shape.looks_at.cmp(&looks_at)).unwrap_or_else(|at| {
            self.shapes.insert(at, Shape { looks_at, routes: Step::Value(new_map(hash)) });
            at
        });
        let Shape { looks_at, routes } = &mut self.shapes[at];
        let values = looks_at.values_in(&route.pattern);
        if route.pattern.methods.is_empty() {
            routes.insert(values.iter().copied(), route, hash);
        }
        for method in &route.pattern.methods {
            routes.insert(std::iter::once(&**method).chain(values.iter().copied()), route, hash);
        }
    }

    pub(super) fn find(&self, request: &impl Incoming) -> Option<&Arc<StaticRoute>> {
        self.shapes.iter().find_map(|shape| shape.find(request))
    }
}

impl Shape {
    fn find(&self, request: &impl Incoming) -> Option<&Arc<StaticRoute>> {
        let LooksAt { rank, values, presence } = &self.looks_at;
        let routes = match (&self.routes, rank.method) {
            (Step::Value(methods), Reverse(true)) => methods.get(request.method().as_bytes())?,
            (routes, _) => routes,
        };
        if presence.iter().any(|name| request.lines(name).next().is_none()) {
            return None;
        }
        routes.find(values, request)
    }
}

impl Step {
    fn insert<'a>(&mut self, mut values: impl Iterator<Item = &'a str>, route: &Arc<StaticRoute>, hash: &FixedState) {
        match (values.next(), self) {
            (None, step) => *step = Self::Route(route.clone()),
            (Some(value), Self::Value(next)) => {
                let step = next.entry(value.as_bytes().into()).or_insert_with(|| Self::Value(new_map(hash)));
                step.insert(values, route, hash);
            }
            (Some(_), Self::Route(_)) => {}
        }
    }

    /// Of several lines that lead somewhere the first wins.
    fn find(&self, fields: &[Arc<str>], request: &impl Incoming) -> Option<&Arc<StaticRoute>> {
        let (next, name, others) = match (self, fields) {
            (Self::Route(route), _) => return Some(route),
            (Self::Value(next), [name, others @ ..]) => (next, name, others),
            (Self::Value(_), []) => return None,
        };
        let lines = || request.lines(name).take(LINES_MAX);
        // A repeated value leads where it led before; followed again, repetitions would multiply from field to field.
        let is_new = |(at, line): &(usize, &[u8])| *at == 0 || !lines().take(*at).any(|earlier| earlier == *line);
        let mut steps = lines().enumerate().filter(is_new).filter_map(|(_, line)| next.get(line));
        steps.find_map(|step| step.find(others, request))
    }
}
