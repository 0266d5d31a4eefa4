//! Paths: the look-up's second step, among the routes of one host.

use super::rules::Rules;
use super::{Incoming, Map, Match, PathPattern, StaticRoute, new_map};
use foldhash::quality::FixedState;
use std::sync::Arc;

/// The routes of one host by path.
///
/// Prefixes are a tree of segments. A look-up walks down for as long as there is such a segment, and back up to the first
/// place with a route that matches: a target with more segments than any prefix costs nothing more.
#[derive(Clone, Debug, Default)]
pub(super) struct Paths {
    exact: Map<Rules>,
    /// The bytes of the longest key of `exact`.
    exact_longest: usize,
    root: Place,
    /// All places but the root, by number.
    places: Vec<Place>,
}

/// The end of a prefix, or of a part of one.
#[derive(Clone, Debug, Default)]
struct Place {
    /// What one more segment leads to.
    below: Map<usize>,
    /// The place with one segment less, unless that is the root.
    above: Option<usize>,
    /// The prefix's length in bytes.
    end: usize,
    rules: Rules,
}

impl Paths {
    pub(super) fn new(hash: &FixedState) -> Self {
        let root = Place { below: new_map(hash), ..Place::default() };
        Self { exact: new_map(hash), exact_longest: 0, root, places: Vec::new() }
    }

    pub(super) fn insert(&mut self, route: &Arc<StaticRoute>) {
        let hash = self.exact.hasher().clone();
        match &route.pattern.path {
            PathPattern::Exact(path) => {
                self.exact_longest = self.exact_longest.max(path.len());
                self.exact.entry(path.as_bytes().into()).or_default().insert(route, &hash);
            }
            PathPattern::Prefix(prefix) => self.place(prefix.as_bytes()).rules.insert(route, &hash),
        }
    }

    /// The exact path, then the prefixes from the longest to the shortest.
    pub(super) fn find(&self, request: &impl Incoming) -> Option<Match<'_>> {
        let target = request.target();
        self.find_exact(target, request).or_else(|| self.find_prefix(target, request))
    }

    fn find_exact(&self, target: &[u8], request: &impl Incoming) -> Option<Match<'_>> {
        if self.exact.is_empty() {
            return None;
        }
        // A path that has not ended by then is none of ours.
        let window = &target[..target.len().min(self.exact_longest + 1)];
        let path = super::path_of(window);
        let route = self.exact.get(path)?.find(request)?;
        Some(Match { route, rest_at: path.len() })
    }

    fn find_prefix(&self, target: &[u8], request: &impl Incoming) -> Option<Match<'_>> {
        let mut place = self.deepest(target);
        loop {
            if let Some(route) = place.rules.find(request) {
                return Some(Match { route, rest_at: place.end });
            }
            if place.end == 0 {
                return None;
            }
            place = place.above.map_or(&self.root, |above| &self.places[above]);
        }
    }

    /// How far down the tree the target leads.
    fn deepest(&self, target: &[u8]) -> &Place {
        let mut place = &self.root;
        while !place.below.is_empty()
            && let Some(next) = next_segment(target, place.end).and_then(|segment| place.below.get(segment))
        {
            place = &self.places[*next];
        }
        place
    }

    /// The place of a prefix, made if it is not there.
    fn place(&mut self, prefix: &[u8]) -> &mut Place {
        let hash = self.exact.hasher().clone();
        let mut at = None;
        let mut end = 0;
        while let Some(segment) = next_segment(prefix, end).filter(|segment| !segment.is_empty()) {
            end += 1 + segment.len();
            let new = self.places.len();
            let next = *self.at(at).below.entry(segment.into()).or_insert(new);
            if next == new {
                self.places.push(Place { below: new_map(&hash), above: at, end, rules: Rules::default() });
            }
            at = Some(next);
        }
        self.at(at)
    }

    fn at(&mut self, place: Option<usize>) -> &mut Place {
        place.map_or(&mut self.root, |at| &mut self.places[at])
    }
}

/// The segment behind the slash at `at`, if the path goes on there.
fn next_segment(target: &[u8], at: usize) -> Option<&[u8]> {
    let tail = target.get(at..)?.strip_prefix(b"/")?;
    let end = tail.iter().position(|&b| b == b'/' || b == b'?').unwrap_or(tail.len());
    Some(&tail[..end])
}
