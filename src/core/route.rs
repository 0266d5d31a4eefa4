//! From a request target to a service: which part names the service, and what the instance is asked for.
//!
//! Bytes in, slices out: nothing is decoded or normalised, so `%2F` and dot segments reach the service as they came.

use crate::name::ServiceName;
use crate::policy::Timeouts;
use std::collections::HashMap;
use std::sync::Arc;

/// A target under `/v2/`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct V2<'a> {
    /// The service as spelled by the client.
    pub service: &'a str,
    /// What follows it: empty, or starting with `/` or `?`.
    pub rest: &'a [u8],
}

/// Splits `/v2/<service>/rest?query`. `None` when the target is not under `/v2/`, or its service is not text.
#[must_use]
pub fn split_v2(target: &[u8]) -> Option<V2<'_>> {
    let tail = target.strip_prefix(b"/v2/")?;
    let end = tail.iter().position(|&b| b == b'/' || b == b'?').unwrap_or(tail.len());
    let (service, rest) = tail.split_at(end);
    let service = std::str::from_utf8(service).ok()?;
    Some(V2 { service, rest })
}

/// The path part of a target, without its query.
#[must_use]
pub fn path_of(target: &[u8]) -> &[u8] {
    let end = target.iter().position(|&b| b == b'?').unwrap_or(target.len());
    &target[..end]
}

/// Appends the target that the instance gets: its endpoint's prefix, then `head` (a rewritten prefix, or nothing), then
/// `rest`, with a `/` where the path would be empty.
pub fn write_target(out: &mut Vec<u8>, endpoint_prefix: &str, head: &str, rest: &[u8]) {
    out.extend_from_slice(endpoint_prefix.as_bytes());
    let head = if rest.starts_with(b"/") { head.trim_end_matches('/') } else { head };
    out.extend_from_slice(head.as_bytes());
    if !rest.starts_with(b"/") && (out.is_empty() || head.is_empty()) {
        out.push(b'/');
    }
    out.extend_from_slice(rest);
}

/// A configured route: a path prefix that leads to a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StaticRoute {
    /// Its name, used as a metric label and in logs.
    pub name: Arc<str>,
    /// Matches whole path segments: `/api/a` matches `/api/a`, `/api/a/b` and `/api/a?x`, not `/api/ab`.
    pub prefix: Arc<str>,
    /// Where it leads.
    pub service: ServiceName,
    /// What the matched prefix becomes; `None` leaves the path as it is.
    pub rewrite: Option<Arc<str>>,
    /// Timeouts instead of the service's.
    pub timeouts: Option<Timeouts>,
    /// `preserve_host` instead of the service's.
    pub preserve_host: Option<bool>,
}

/// All configured routes. The longest matching prefix wins; the cost of a look-up grows with the number of segments in the
/// path, not with the number of routes.
#[derive(Clone, Debug, Default)]
pub struct StaticRoutes {
    by_prefix: HashMap<Box<[u8]>, Arc<StaticRoute>, foldhash::quality::FixedState>,
    longest: usize,
}

/// A route that matched.
#[derive(Clone, Debug)]
pub struct Match<'a> {
    /// The route.
    pub route: &'a Arc<StaticRoute>,
    /// What follows the matched prefix, query included.
    pub rest_at: usize,
}

impl StaticRoutes {
    /// Builds the look-up. Later duplicates of a prefix win; the configuration refuses them before.
    #[must_use]
    pub fn new(routes: Vec<StaticRoute>, seed: u64) -> Self {
        let mut by_prefix = HashMap::with_hasher(foldhash::quality::FixedState::with_seed(seed));
        let mut longest = 0;
        for route in routes {
            let key = route.prefix.trim_end_matches('/').as_bytes();
            longest = longest.max(key.len());
            by_prefix.insert(key.into(), Arc::new(route));
        }
        Self { by_prefix, longest }
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.by_prefix.is_empty()
    }

    /// All routes, in no particular order.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<StaticRoute>> {
        self.by_prefix.values()
    }

    /// The route with the longest prefix of `target`.
    #[must_use]
    pub fn find(&self, target: &[u8]) -> Option<Match<'_>> {
        if self.by_prefix.is_empty() {
            return None;
        }
        let path = path_of(target);
        let mut end = path.len();
        loop {
            if end <= self.longest
                && let Some(route) = self.by_prefix.get(&path[..end])
            {
                return Some(Match { route, rest_at: end });
            }
            end = path[..end].iter().rposition(|&b| b == b'/')?;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn target(prefix: &str, head: &str, rest: &str) -> String {
        let mut out = Vec::new();
        write_target(&mut out, prefix, head, rest.as_bytes());
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn v2_targets() {
        for (text, service, rest) in [
            ("/v2/svc", "svc", ""),
            ("/v2/svc?x=1", "svc", "?x=1"),
            ("/v2/svc/", "svc", "/"),
            ("/v2/svc/a%2Fb/../c?q=/", "svc", "/a%2Fb/../c?q=/"),
            ("/v2//x", "", "/x"),
        ] {
            assert_eq!(split_v2(text.as_bytes()), Some(V2 { service, rest: rest.as_bytes() }));
        }
        assert_eq!(split_v2(b"/v2"), None);
        assert_eq!(split_v2(b"/v3/x"), None);
    }

    #[test]
    fn targets_for_the_instance() {
        assert_eq!(target("", "", ""), "/");
        assert_eq!(target("", "", "?x=1"), "/?x=1");
        assert_eq!(target("", "", "/a//b?c"), "/a//b?c");
        assert_eq!(target("/api", "", ""), "/api/");
        assert_eq!(target("/api", "", "/x"), "/api/x");
        assert_eq!(target("", "/search/basic", ""), "/search/basic");
        assert_eq!(target("", "/search/basic", "?q=1"), "/search/basic?q=1");
        assert_eq!(target("", "/search/", "/x"), "/search/x");
        assert_eq!(target("", "/", "/x"), "/x");
        assert_eq!(target("/p", "/", ""), "/p/");
    }

    fn routes(prefixes: &[&str]) -> StaticRoutes {
        let route = |prefix: &&str| StaticRoute {
            name: (*prefix).into(),
            prefix: (*prefix).into(),
            service: ServiceName::parse("svc").unwrap(),
            rewrite: None,
            timeouts: None,
            preserve_host: None,
        };
        StaticRoutes::new(prefixes.iter().map(route).collect(), 0)
    }

    #[test]
    fn the_longest_whole_segment_prefix_wins() {
        let routes = routes(&["/api", "/api/google/search/basic", "/x/"]);
        let find = |target: &str| routes.find(target.as_bytes()).map(|m| (m.route.prefix.to_string(), m.rest_at));
        assert_eq!(find("/api/google/search/basic?q=a/b"), Some(("/api/google/search/basic".into(), 24)));
        assert_eq!(find("/api/google/search/basic/2"), Some(("/api/google/search/basic".into(), 24)));
        assert_eq!(find("/api/google/search/basics"), Some(("/api".into(), 4)));
        assert_eq!(find("/apix"), None);
        assert_eq!(find("/x"), Some(("/x/".into(), 2)));
        assert_eq!(find("/"), None);
        assert_eq!(find(""), None);
    }

    proptest! {
        #[test]
        fn splitting_never_panics_and_keeps_every_byte(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            let mut target = b"/v2/".to_vec();
            target.extend(&bytes);
            if let Some(v2) = split_v2(&target) {
                prop_assert_eq!([b"/v2/", v2.service.as_bytes(), v2.rest].concat(), target.clone());
            }
            let _ = routes(&["/a", "/a/b"]).find(&bytes);
        }
    }
}
