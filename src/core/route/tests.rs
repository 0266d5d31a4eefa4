//! The look-up against a reference that tries every route; clashes against requests that tie.

use super::*;
use proptest::prelude::*;

/// A request in plain words.
#[derive(Clone, Debug, Default)]
struct Asked {
    method: &'static str,
    host: String,
    target: String,
    headers: Vec<(&'static str, &'static str)>,
}

impl Incoming for Asked {
    fn target(&self) -> &[u8] {
        self.target.as_bytes()
    }

    fn method(&self) -> &str {
        self.method
    }

    fn host(&self) -> &[u8] {
        self.host.as_bytes()
    }

    fn lines(&self, name: &str) -> impl Iterator<Item = &[u8]> {
        self.headers.iter().filter(move |(field, _)| *field == name).map(|(_, value)| value.as_bytes())
    }
}

fn asked(text: &str) -> Asked {
    let mut words = text.split(' ');
    let method = match words.next() {
        Some("POST") => "POST",
        Some("PUT") => "PUT",
        _ => "GET",
    };
    let url = words.next().unwrap_or_default();
    let (host, target) = url.split_at(url.find('/').unwrap_or(url.len()));
    Asked { method, host: host.to_owned(), target: target.to_owned(), headers: Vec::new() }
}

impl Asked {
    fn with(mut self, headers: &[(&'static str, &'static str)]) -> Self {
        self.headers.extend_from_slice(headers);
        self
    }
}

fn pattern(hosts: &[&str], path: &str, methods: &[&str], headers: &[(&str, &str)]) -> Pattern {
    let value = |value: &str| (value != "*").then(|| value.into());
    Pattern {
        hosts: hosts.iter().map(|host| HostPattern::parse(host).unwrap()).collect(),
        path: match path.strip_prefix('=') {
            Some(exact) => PathPattern::Exact(exact.into()),
            None => PathPattern::Prefix(path.into()),
        },
        methods: methods.iter().map(|method| (*method).into()).collect(),
        headers: headers.iter().map(|(name, text)| HeaderPattern { name: (*name).into(), value: value(text) }).collect(),
    }
}

fn patterns(routes: &[StaticRoute]) -> Vec<Pattern> {
    routes.iter().map(|route| route.pattern.clone()).collect()
}

/// Routes named by their number.
fn numbered(patterns: Vec<Pattern>) -> Vec<StaticRoute> {
    let service = ServiceName::parse("svc").unwrap();
    let route = |(number, pattern): (usize, Pattern)| StaticRoute {
        name: number.to_string().into(),
        pattern,
        service: service.clone(),
        rewrite: None,
        timeouts: None,
        allow_half_close: None,
        preserve_host: None,
        body_bytes: None,
        priority: None,
    };
    patterns.into_iter().enumerate().map(route).collect()
}

fn index(patterns: Vec<Pattern>) -> StaticRoutes {
    assert_eq!(clashes(&patterns), []);
    StaticRoutes::new(numbered(patterns), 7)
}

/// The number of the route and what is passed on of the target.
fn found<'a>(routes: &StaticRoutes, request: &'a Asked) -> Option<(usize, &'a str)> {
    routes.find(request).map(|found| (found.route.name.parse().unwrap(), &request.target[found.rest_at..]))
}

#[test]
fn the_longest_whole_segment_prefix_wins() {
    let routes = index(["/api", "/api/google/search/basic", "/x/"].map(|path| pattern(&[], path, &[], &[])).into());
    for (target, expected) in [
        ("/api/google/search/basic?q=a/b", Some((1, "?q=a/b"))),
        ("/api/google/search/basic/2", Some((1, "/2"))),
        ("/api/google/search/basics", Some((0, "/google/search/basics"))),
        ("/api/google/search?basic", Some((0, "/google/search?basic"))),
        ("/api//google/search/basic", Some((0, "//google/search/basic"))),
        ("/apix", None),
        ("//api", None),
        ("/x", Some((2, ""))),
        ("/x/", Some((2, "/"))),
        ("/x?/api", Some((2, "?/api"))),
        ("/", None),
        ("/?/api", None),
        ("", None),
    ] {
        assert_eq!(found(&routes, &asked(&format!("GET {target}"))), expected, "{target}");
    }
    let everything = index(vec![pattern(&[], "/", &[], &[])]);
    assert_eq!(found(&everything, &asked("GET /a?b")), Some((0, "/a?b")));
}

#[test]
fn an_exact_path_is_the_whole_path() {
    let routes = index(["=/a/b", "/a", "=/", "=/c/"].map(|path| pattern(&[], path, &[], &[])).into());
    for (target, expected) in [
        ("/a/b", Some((0, ""))),
        ("/a/b?x=/a", Some((0, "?x=/a"))),
        ("/a/b/", Some((1, "/b/"))),
        ("/a/B", Some((1, "/B"))),
        ("/", Some((2, ""))),
        ("/?q", Some((2, "?q"))),
        ("/c", None),
        ("/c/", Some((3, ""))),
        ("/c/d", None),
    ] {
        assert_eq!(found(&routes, &asked(&format!("GET {target}"))), expected, "{target}");
    }
}

#[test]
fn the_more_specific_host_wins_and_others_stand_in() {
    let hosts: [&[&str]; 5] = [&[], &["*.com"], &["*.example.com"], &["shop.example.com", "[::1]"], &["*.x.org"]];
    let mut patterns: Vec<_> = hosts.iter().map(|hosts| pattern(hosts, "/", &[], &[])).collect();
    patterns[3].path = PathPattern::Prefix("/cart".into());
    let routes = index(patterns);
    for (url, expected) in [
        ("shop.example.com/cart", 3),
        ("SHOP.Example.com:8000/cart/1", 3),
        ("shop.example.com./cart", 3),
        ("[::1]:8000/cart", 3),
        ("shop.example.com/other", 2),
        ("a.shop.example.com/cart", 2),
        ("example.com/cart", 1),
        ("com/cart", 0),
        (".com/cart", 0),
        ("shop.example.org/cart", 0),
        ("x.org/", 0),
        ("y.x.org:1/", 4),
        ("/cart", 0),
    ] {
        let request = asked(&format!("GET {url}"));
        assert_eq!(found(&routes, &request).map(|(number, _)| number), Some(expected), "{url}");
    }
}

#[test]
fn methods_and_headers_decide_last_and_all_must_match() {
    let routes = index(vec![
        pattern(&[], "/", &[], &[]),
        pattern(&[], "/a", &["POST", "PUT"], &[]),
        pattern(&[], "/a", &[], &[("x-a", "1")]),
        pattern(&[], "/a", &[], &[("x-a", "2")]),
        pattern(&[], "/a", &[], &[("x-a", "*")]),
        pattern(&[], "/a", &[], &[("x-a", "1"), ("x-b", "1")]),
        pattern(&[], "/a", &["POST"], &[("x-b", "*")]),
    ]);
    for (request, headers, expected) in [
        ("GET /a", &[][..], 0),
        ("PUT /a", &[("x-a", "1")], 1),
        ("POST /a", &[("x-a", "1")], 1),
        ("POST /a", &[("x-b", "")], 6),
        ("GET /a", &[("x-a", "1")], 2),
        ("GET /a", &[("x-a", "2")], 3),
        ("GET /a", &[("x-a", "1,2")], 4),
        ("GET /a", &[("x-a", "1"), ("x-b", "1")], 5),
        ("GET /a", &[("x-a", "1"), ("x-b", "2")], 2),
        ("GET /a", &[("x-b", "1")], 0),
    ] {
        let request = asked(request).with(headers);
        assert_eq!(found(&routes, &request).map(|(number, _)| number), Some(expected), "{request:?}");
    }
}

#[test]
fn of_a_repeated_field_any_of_the_first_lines_counts_and_the_earlier_one_more() {
    let value = |value| pattern(&[], "/a", &[], &[("x-a", value)]);
    let routes = index(vec![pattern(&[], "/", &[], &[]), value("1"), value("2")]);
    for (values, expected) in
        [(&["1", "2"][..], 1), (&["2", "1"], 2), (&["x", "x", "x", "2"], 2), (&["x", "x", "x", "x", "2"], 0), (&["1, 2"], 0)]
    {
        let headers: Vec<_> = values.iter().map(|value| ("x-a", *value)).collect();
        let request = asked("GET /a").with(&headers);
        assert_eq!(found(&routes, &request).map(|(number, _)| number), Some(expected), "{values:?}");
    }
}

#[test]
fn clashes_name_both_routes_and_a_request() {
    let clash = |a: Pattern, b: Pattern| clashes(&[a, b]);
    let conflict = |request: &str| vec![Clash::Conflict { route: 1, earlier: 0, request: request.to_owned() }];
    let shadowed = vec![Clash::Shadowed { route: 1, by: 0 }];
    let headers = |headers: &[(&str, &str)]| pattern(&[], "/a", &[], headers);
    let methods = |methods: &[&str]| pattern(&[], "/a", methods, &[]);
    let hosts = |hosts: &[&str]| pattern(hosts, "/", &[], &[]);

    assert_eq!(clash(headers(&[("a", "1")]), headers(&[("b", "2")])), conflict("GET /a with a: 1, b: 2"));
    assert_eq!(clash(headers(&[("a", "1")]), headers(&[("a", "2")])), []);
    assert_eq!(clash(headers(&[("a", "1")]), headers(&[("a", "*")])), []);
    let crossed = [headers(&[("a", "1"), ("b", "*")]), headers(&[("a", "*"), ("b", "1")])];
    assert_eq!(clash(crossed[0].clone(), crossed[1].clone()), conflict("GET /a with a: 1, b: 1"));
    assert_eq!(clash(headers(&[("a", "*")]), headers(&[("b", "*")])), conflict("GET /a with a: anything, b: anything"));
    assert_eq!(clash(methods(&["GET", "PUT"]), methods(&["POST", "PUT"])), conflict("PUT /a"));
    assert_eq!(clash(methods(&["GET"]), methods(&["POST"])), []);
    assert_eq!(clash(methods(&["GET"]), methods(&[])), []);
    assert_eq!(clash(methods(&["GET", "PUT"]), methods(&["PUT"])), shadowed);
    assert_eq!(clash(methods(&["PUT"]), methods(&["GET", "PUT"])), conflict("PUT /a"));
    assert_eq!(clash(methods(&[]), pattern(&[], "/a/", &[], &[])), shadowed);
    assert_eq!(clash(methods(&[]), pattern(&[], "=/a", &[], &[])), []);
    assert_eq!(clash(hosts(&["a.b", "*.c"]), hosts(&["*.c", "d.e"])), conflict("GET any.c/"));
    assert_eq!(clash(hosts(&["a.b", "*.c"]), hosts(&["A.B."])), shadowed);
    assert_eq!(clash(hosts(&["*.c"]), hosts(&["*.b.c", "a.c"])), []);
    assert_eq!(clash(hosts(&[]), hosts(&["a.c"])), []);
}

#[test]
fn sets_of_headers_on_one_path_are_bounded() {
    let name = |number: usize| format!("x-{number}");
    // Equal in rank and, for the value of the field they share, never in conflict.
    let shape = |number: usize| pattern(&[], "/a", &[], &[("x-a", &number.to_string()), (&name(number), "*")]);
    let mut patterns: Vec<_> = (0..SHAPES_MAX).map(shape).collect();
    assert_eq!(clashes(&patterns), []);
    patterns.push(pattern(&[], "/b", &[], &[("x-b", "*")]));
    patterns.push(shape(SHAPES_MAX));
    assert_eq!(clashes(&patterns), [Clash::Crowded { route: SHAPES_MAX + 1 }]);
}

/// Everything the reference knows about how well a route fits.
type Fit = ((u8, usize), (u8, usize), bool, usize, usize);

/// How well the route matches, if it does.
fn fit(route: &StaticRoute, request: &Asked) -> Option<Fit> {
    let Pattern { hosts, path, methods, headers } = &route.pattern;
    let asked = request.host.to_lowercase();
    let asked = asked.split(':').next().unwrap_or_default().trim_end_matches('.');
    let host = |host: &HostPattern| match host {
        HostPattern::Exact(exact) => (**exact == *asked).then_some((2, 0)),
        HostPattern::Below(below) => (asked.len() > below.len() && asked.ends_with(&**below)).then_some((1, below.len())),
    };
    let host = if hosts.is_empty() { Some((0, 0)) } else { hosts.iter().filter_map(host).max() };
    let asked = request.target.split('?').next().unwrap_or_default();
    let path = match path {
        PathPattern::Exact(exact) => (**exact == *asked).then_some((1, 0)),
        PathPattern::Prefix(prefix) => {
            let prefix = prefix.trim_end_matches('/');
            format!("{asked}/").starts_with(&format!("{prefix}/")).then_some((0, prefix.len()))
        }
    };
    let method = methods.is_empty() || methods.iter().any(|method| **method == *request.method);
    let header = |header: &HeaderPattern| {
        request
            .headers
            .iter()
            .any(|(name, value)| *name == &*header.name && header.value.as_deref().is_none_or(|v| v == *value))
    };
    let values = headers.iter().filter(|header| header.value.is_some()).count();
    let matches = method && headers.iter().all(header);
    Some((host.filter(|_| matches)?, path?, !methods.is_empty(), headers.len(), values))
}

/// The routes that no other one beats.
fn best(routes: &[StaticRoute], request: &Asked) -> Vec<usize> {
    let fits: Vec<_> = routes.iter().map(|route| fit(route, request)).collect();
    let best = fits.iter().max().copied().flatten();
    (0..routes.len()).filter(|at| best.is_some() && fits[*at] == best).collect()
}

const HOSTS: [&str; 4] = ["a.x", "b.a.x", "*.x", "*.a.x"];
const PATHS: [&str; 7] = ["/", "/a", "/a/b", "/a/b/c", "=/a", "=/a/b", "=/"];
const METHODS: [&str; 3] = ["GET", "POST", "PUT"];
const FIELDS: [&str; 3] = ["x-a", "x-b", "x-c"];

fn some_pattern() -> impl Strategy<Value = Pattern> {
    let hosts = proptest::sample::subsequence(&HOSTS[..], 0..3);
    let methods = proptest::sample::subsequence(&METHODS[..], 0..3);
    let headers = proptest::collection::vec(proptest::option::weighted(0.4, proptest::sample::select(&["1", "2", "*"][..])), 3);
    (hosts, proptest::sample::select(&PATHS[..]), methods, headers).prop_map(|(hosts, path, methods, values)| {
        let headers: Vec<_> = FIELDS.iter().zip(values).filter_map(|(name, value)| Some((*name, value?))).collect();
        pattern(&hosts, path, &methods, &headers)
    })
}

/// Few enough places that routes meet.
fn some_routes() -> impl Strategy<Value = Vec<StaticRoute>> {
    proptest::collection::vec(some_pattern(), 1..12).prop_map(numbered)
}

/// Every request that can make a difference to such routes, as long as no field is repeated.
fn universe() -> Vec<Asked> {
    let mut all = Vec::new();
    for host in ["", "a.x", "b.a.x", "c.b.a.x", "c.x", "x"] {
        for target in ["/", "/a", "/a/b", "/a/b/c/d", "/ab", "/a/", "/a?b"] {
            for method in ["GET", "POST", "PUT", "DELETE"] {
                all.push(Asked { method, host: host.to_owned(), target: target.to_owned(), headers: Vec::new() });
            }
        }
    }
    for name in FIELDS {
        let with = |asked: &Asked| ["1", "2", "3"].map(|value| asked.clone().with(&[(name, value)]));
        let more: Vec<Asked> = all.iter().flat_map(with).collect();
        all.extend(more);
    }
    all
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn routes_clash_exactly_when_some_request_ties(routes in some_routes()) {
        let clashing: std::collections::BTreeSet<usize> = clashes(&patterns(&routes)).iter().map(Clash::route).collect();
        let ties: Vec<Vec<usize>> = universe().iter().map(|request| best(&routes, request)).filter(|best| best.len() > 1).collect();
        prop_assert_eq!(clashing.is_empty(), ties.is_empty(), "{:?}", ties);
        for tie in ties {
            // All but the first are told.
            prop_assert!(tie[1..].iter().all(|route| clashing.contains(route)), "{:?} of {:?}", tie, clashing);
        }
    }

    #[test]
    fn the_index_finds_what_trying_every_route_finds(mut routes in some_routes(), seed: u64) {
        // What the configuration refuses is left out.
        let clashing: Vec<usize> = clashes(&patterns(&routes)).iter().map(Clash::route).collect();
        let mut at = 0;
        routes.retain(|_| { at += 1; !clashing.contains(&(at - 1)) });
        let index = StaticRoutes::new(routes.clone(), seed);
        for request in universe() {
            let expected = best(&routes, &request);
            prop_assert!(expected.len() < 2, "{:?} is a tie of {:?}", request, expected);
            let found = index.find(&request);
            prop_assert_eq!(found.map(|found| &found.route.name), expected.first().map(|at| &routes[*at].name), "{:?}", request);
        }
    }

    /// Repeated fields can tie; then one of the best is found, and the same whatever the order of the routes.
    #[test]
    fn repeated_fields_find_one_of_the_best(
        mut routes in some_routes(),
        lines in proptest::collection::vec((proptest::sample::select(&FIELDS[..]), proptest::sample::select(&["1", "2", "3"][..])), 0..6),
        which in any::<proptest::sample::Index>(),
    ) {
        let clashing: Vec<usize> = clashes(&patterns(&routes)).iter().map(Clash::route).collect();
        let mut at = 0;
        routes.retain(|_| { at += 1; !clashing.contains(&(at - 1)) });
        let mut request = which.get(&universe()).clone();
        request.headers = lines;
        for name in FIELDS {
            let mut count = 0;
            request.headers.retain(|(field, _)| { count += usize::from(*field == name); *field != name || count <= LINES_MAX });
        }
        let expected = best(&routes, &request);
        let name_of = |routes: Vec<StaticRoute>| StaticRoutes::new(routes, 1).find(&request).map(|found| found.route.name.clone());
        let found = name_of(routes.clone());
        prop_assert_eq!(found.is_some(), !expected.is_empty());
        prop_assert!(expected.is_empty() || expected.iter().any(|at| Some(&routes[*at].name) == found.as_ref()));
        routes.reverse();
        prop_assert_eq!(name_of(routes), found);
    }

    #[test]
    fn nothing_a_client_sends_makes_it_panic(target in proptest::collection::vec(any::<u8>(), 0..40), host in "\\PC{0,300}") {
        struct Raw(Vec<u8>, String);
        impl Incoming for Raw {
            fn target(&self) -> &[u8] { &self.0 }
            fn method(&self) -> &str { "" }
            fn host(&self) -> &[u8] { self.1.as_bytes() }
            fn lines(&self, _: &str) -> impl Iterator<Item = &[u8]> { std::iter::empty() }
        }
        let routes = index(vec![pattern(&["*.a", "b"], "/a/b", &[], &[]), pattern(&[], "=/a", &[], &[])]);
        let _ = routes.find(&Raw(target, host));
    }
}
