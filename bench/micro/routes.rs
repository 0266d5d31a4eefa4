//! What finding a configured route costs: among few and many, of all kinds, and where the request or the configuration
//! makes it as dear as it gets.

use criterion::{BenchmarkId, Criterion};
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use std::hint::black_box;
use std::sync::Arc;
use vertice_core::route::{HeaderPattern, HostPattern, PathPattern, Pattern, StaticRoute, clashes};
use vertice_gateway::proxy::admit::{Asked, OwnPaths, Routing, Way};

/// The longest target that is accepted by default.
const TARGET_BYTES: usize = 16 * 1024;

pub(crate) fn find(c: &mut Criterion) {
    let mut group = c.benchmark_group("route");
    for count in [10, 1000] {
        let routing = routing((0..count).map(of_any_kind).collect());
        // One of each kind, from the middle.
        let at = |kind: usize| count / 2 + kind;
        let plain = || Request::new("GET", "gateway.example.com:8000", "");
        let requests = [
            ("/v2/", plain().target("/v2/nmap_service/scan?target=10.0.0.1")),
            ("prefix", plain().target(&format!("/api/area{}/search/basic?q=1", at(0)))),
            ("prefix, 6 more segments", plain().target(&format!("/api/area{}/search/a/b/c/d/e/f?q=1", at(0)))),
            ("exact path", plain().target(&format!("/exact/{}?q=1", at(1)))),
            ("host", Request::new("GET", &format!("Host{}.example.com:8000", at(2)), "/any?q=1")),
            ("wildcard", Request::new("GET", &format!("www.wild{}.example.com", at(3)), "/any?q=1")),
            ("method and header", Request::new("POST", "x", "/one/path").with("x-tenant", &at(4).to_string())),
            ("none", plain().target("/favicon.ico")),
            ("none, known host", Request::new("GET", &format!("host{}.example.com", at(2)), "/favicon.ico")),
            ("none, other header", Request::new("POST", "x", "/one/path").with("x-tenant", "nobody")),
        ];
        for (kind, request) in requests {
            let is_found = routing.find(&request.asked()).is_some();
            assert_eq!(is_found, !kind.starts_with("none"), "{kind}");
            let id = BenchmarkId::new(kind, format!("{count} routes"));
            group.bench_function(id, |b| b.iter(|| black_box(rest_at(&routing, black_box(&request)))));
        }
    }
    group.finish();
}

pub(crate) fn find_at_worst(c: &mut Criterion) {
    let mut group = c.benchmark_group("route at worst");
    let mut bench = |name: &str, routing: &Routing, request: &Request| {
        group.bench_function(name, |b| b.iter(|| black_box(rest_at(routing, black_box(request)))));
    };

    let by_value = |at: usize| with_headers(route(at, "/one/path"), &[("x-tenant", at.to_string())]);
    let tenants = routing((0..1000).map(by_value).collect());
    let tenant = |value: &str| Request::new("GET", "x", "/one/path").with("x-tenant", value);
    bench("1000 routes by header value: match", &tenants, &tenant("999"));
    bench("1000 routes by header value: none", &tenants, &tenant("nobody"));

    // All but the last value lead on, whichever lines are combined.
    let in_grid = |at: usize| {
        let value = |divisor: usize| (at / divisor % 10).to_string();
        with_headers(route(at, "/grid"), &[("x-a", value(100)), ("x-b", value(10)), ("x-c", value(1))])
    };
    let grid = routing((0..1000).map(in_grid).collect());
    let mut lines = Request::new("GET", "x", "/grid");
    for at in 0..12 {
        let name = ["x-a", "x-b", "x-c"][at / 4];
        lines = lines.with(name, &if name == "x-c" { format!("no{at}") } else { (at % 4).to_string() });
    }
    bench("1000 routes by 3 headers, 4 lines of each: none", &grid, &lines);

    let sets = |at: usize| with_headers(route(at, "/sets"), &[("x-tenant", at.to_string()), (&format!("x-{at}"), "*".into())]);
    let sets = routing((0..32).map(sets).collect());
    bench("32 sets of headers on one path: none", &sets, &tenant("nobody").target("/sets"));

    let any = routing((0..1000).map(of_any_kind).collect());
    let slashes = Request::new("GET", "x", &"/".repeat(TARGET_BYTES));
    bench("16 KiB of slashes, 1000 routes: none", &any, &slashes);

    // As deep as prefixes get, and each of them only with a field that is missing.
    let deep = |at: usize| with_headers(route(at, &"/a".repeat(at + 1)), &[("x-tenant", "1".into())]);
    let deep = routing((0..512).map(deep).collect());
    let follows = Request::new("GET", "x", &"/a".repeat(TARGET_BYTES / 2));
    bench("16 KiB along 512 prefixes inside each other: none", &deep, &follows);
    group.finish();
}

struct Request {
    method: Method,
    target: Vec<u8>,
    headers: HeaderMap,
}

impl Request {
    fn new(method: &str, host: &str, target: &str) -> Self {
        let mut headers = HeaderMap::new();
        let all = [("host", host), ("user-agent", "curl/8.5.0"), ("accept", "*/*")];
        headers.extend(all.map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_str(value).expect("text"))));
        Self { method: method.parse().expect("a method"), target: target.into(), headers }
    }

    fn target(self, target: &str) -> Self {
        Self { target: target.into(), ..self }
    }

    fn with(mut self, name: &'static str, value: &str) -> Self {
        self.headers.append(name, HeaderValue::from_str(value).expect("text"));
        self
    }

    fn asked(&self) -> Asked<'_, HeaderMap> {
        Asked { target: &self.target, method: &self.method, fields: &self.headers }
    }
}

fn rest_at(routing: &Routing, request: &Request) -> Option<usize> {
    routing.find(&request.asked()).map(|way| match way {
        Way::V2 => 0,
        Way::Route(found) => found.rest_at,
    })
}

fn routing(routes: Vec<StaticRoute>) -> Routing {
    let patterns: Vec<Pattern> = routes.iter().map(|route| route.pattern.clone()).collect();
    assert_eq!(clashes(&patterns), []);
    Routing::new(routes, Arc::default(), OwnPaths::default(), 7)
}

/// By turns: a prefix, an exact path, a host, a wildcard, a method with a header.
fn of_any_kind(at: usize) -> StaticRoute {
    let mut route = route(at, &format!("/api/area{at}/search"));
    match at % 5 {
        0 => {}
        1 => route.pattern.path = PathPattern::Exact(format!("/exact/{at}").into()),
        2 => set_host(&mut route, &format!("host{at}.example.com")),
        3 => set_host(&mut route, &format!("*.wild{at}.example.com")),
        _ => {
            route = with_headers(self::route(at, "/one/path"), &[("x-tenant", at.to_string())]);
            route.pattern.methods = vec!["POST".into(), "PUT".into()];
        }
    }
    route
}

fn set_host(route: &mut StaticRoute, host: &str) {
    route.pattern.hosts = vec![HostPattern::parse(host).expect("a host")];
    route.pattern.path = PathPattern::Prefix("/any".into());
}

fn with_headers(mut route: StaticRoute, headers: &[(&str, String)]) -> StaticRoute {
    let value = |value: &str| (value != "*").then(|| value.into());
    route.pattern.headers =
        headers.iter().map(|(name, text)| HeaderPattern { name: (*name).into(), value: value(text) }).collect();
    route
}

fn route(at: usize, prefix: &str) -> StaticRoute {
    StaticRoute {
        name: format!("area{at}").into(),
        pattern: Pattern {
            hosts: Vec::new(),
            path: PathPattern::Prefix(prefix.into()),
            methods: Vec::new(),
            headers: Vec::new(),
        },
        service: crate::world::service(at),
        rewrite: None,
        timeouts: None,
        allow_half_close: None,
        preserve_host: None,
        body_bytes: None,
        priority: None,
    }
}
