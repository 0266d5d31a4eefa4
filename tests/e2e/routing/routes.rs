//! Configured routes: by path, prefix, host, method and header; which one wins; what the service is asked for; which ones are
//! refused (SPEC §4 "Static routes").

use std::collections::BTreeMap;
use std::process::Command;

use serde_json::{Value, json};

use crate::harness::gateway::PROGRAM;
use crate::harness::http::Request;
use crate::harness::process::run;
use crate::harness::scripts::text;
use crate::harness::{Conn, Gateway, PATIENCE, Response, Upstream, eventually, get, head, post};

/// A gateway with routes, and for each service one instance that answers with the service's name.
struct Routed {
    gateway: Gateway,
    services: BTreeMap<String, Upstream>,
}

impl Routed {
    fn start(routes: &str) -> Self {
        Self::over(Gateway::builder().config(routes).start(), routes)
    }

    fn over(gateway: Gateway, routes: &str) -> Self {
        let mut services = BTreeMap::new();
        for service in routes.lines().filter_map(|line| line.strip_prefix("service = '")?.strip_suffix('\'')) {
            let upstream = services.entry(service.to_owned()).or_insert_with(|| Upstream::start(text(service)));
            gateway.register(service, upstream);
        }
        Self { gateway, services }
    }

    /// Who answered, and the target that it was asked for.
    #[track_caller]
    fn ask(&self, request: Request) -> (String, String) {
        self.of(self.gateway.data(request).expect(200))
    }

    fn of(&self, answer: Response) -> (String, String) {
        let service = answer.text();
        let target = self.services[&service].last().target;
        (service, target)
    }

    #[track_caller]
    fn assert(&self, request: Request, service: &str, target: &str) {
        let asked = format!("{request:?}");
        assert_eq!(self.ask(request), (service.to_owned(), target.to_owned()), "{asked}");
    }

    #[track_caller]
    fn assert_nowhere(&self, request: Request) {
        self.gateway.data(request).problem(404, "not_found");
    }
}

#[test]
fn the_predecessors_route_keeps_working() {
    let routed = Routed::start(
        "[[routes]]\nname = 'search'\nprefix = '/api/google/search/basic'\nservice = 'google_osint_service'\n\
         rewrite = '/search/basic'\n",
    );
    routed.assert(get("/api/google/search/basic?q=a%2Fb&n=1"), "google_osint_service", "/search/basic?q=a%2Fb&n=1");
    routed.assert(post("/api/google/search/basic", &json!({"query": "x"})), "google_osint_service", "/search/basic");
    routed.assert_nowhere(get("/api/google/search/basics"));
}

#[test]
fn an_exact_path_is_the_whole_path_and_is_rewritten_as_a_whole() {
    let routed = Routed::start(
        "[[routes]]\nname = 'one'\npath = '/orders'\nservice = 'one'\nrewrite = '/v1/orders/'\n\
         [[routes]]\nname = 'kept'\npath = '/kept/'\nservice = 'kept'\n\
         [[routes]]\nname = 'stripped'\npath = '/stripped'\nservice = 'stripped'\nstrip = true\n\
         [[routes]]\nname = 'all'\nprefix = '/orders'\nservice = 'all'\nstrip = true\n",
    );
    routed.assert(get("/orders"), "one", "/v1/orders/");
    routed.assert(get("/orders?a=/b"), "one", "/v1/orders/?a=/b");
    routed.assert(get("/orders/"), "all", "/");
    routed.assert(get("/orders/7?a=b"), "all", "/7?a=b");
    routed.assert(get("/kept/?x"), "kept", "/kept/?x");
    routed.assert_nowhere(get("/kept"));
    routed.assert(get("/stripped?x"), "stripped", "/?x");
    routed.assert_nowhere(get("/%6Frders"));
}

#[test]
fn hosts_are_exact_or_wildcards_and_the_more_specific_wins() {
    let routed = Routed::start(
        "[[routes]]\nname = 'exact'\nhost = ['shop.example.com', '127.0.0.1', '[::1]']\nservice = 'exact'\n\
         [[routes]]\nname = 'below'\nhost = '*.example.com'\nservice = 'below'\nrewrite = '/base'\n\
         [[routes]]\nname = 'deeper'\nhost = '*.eu.example.com'\nprefix = '/eu'\nservice = 'deeper'\nstrip = true\n\
         [[routes]]\nname = 'any'\nprefix = '/a'\nservice = 'any'\n",
    );
    let at = |host: &str, target: &str| get(target).host(host);
    routed.assert(at("shop.example.com", "/a/b?c"), "exact", "/a/b?c");
    routed.assert(at("SHOP.Example.Com:8000", "/"), "exact", "/");
    routed.assert(at("shop.example.com.", "/a"), "exact", "/a");
    routed.assert(at("127.0.0.1:1", "/a"), "exact", "/a");
    routed.assert(at("[::1]:8000", "/a"), "exact", "/a");
    routed.assert(at("a.example.com", "/a"), "below", "/base/a");
    routed.assert(at("a.b.example.com:80", "/"), "below", "/base/");
    routed.assert(at("x.eu.example.com", "/eu/1"), "deeper", "/1");
    routed.assert(at("x.eu.example.com", "/us"), "below", "/base/us");
    routed.assert(at("example.com", "/a"), "any", "/a");
    routed.assert(at("shop.example.org", "/a"), "any", "/a");
    routed.assert_nowhere(at("example.com", "/b"));
    routed.assert_nowhere(at(&format!("{}.example.com", "a.".repeat(150)), "/b"));
    routed.assert(get("http://shop.example.com:81/a").host("shop.example.com:81"), "exact", "/a");
}

#[test]
fn the_gateways_own_paths_are_its_own_on_every_host() {
    let routed = Routed::start("[[routes]]\nname = 'all'\nhost = 'shop.example.com'\nservice = 'all'\n");
    routed.assert(get("/anything").host("shop.example.com"), "all", "/anything");
    let health = routed.gateway.data(get("/health").host("shop.example.com")).expect(200).json();
    assert!(health["components"].is_object(), "{health}");
    routed.gateway.data(get("/v2/unheard/x").host("shop.example.com")).problem(503, "no_route");
    // A write that this listener does not have, and its token with it, is not for a service either.
    let drain = post("/gateway/drain/all", &json!({})).host("shop.example.com").header("X-Registry-Token", "secret");
    routed.assert_nowhere(drain);
    let registry = get("/anything").host("shop.example.com").send(routed.gateway.registry);
    registry.problem(404, "not_found");
}

#[test]
fn methods_and_headers_choose_and_the_next_route_stands_in() {
    let routed = Routed::start(
        "[[routes]]\nname = 'writes'\nprefix = '/api'\nmethods = ['POST', 'PUT']\nservice = 'writes'\nrewrite = '/w'\n\
         [[routes]]\nname = 'canary'\nprefix = '/api'\nheaders = { X-Canary = '1' }\nservice = 'canary'\nstrip = true\n\
         [[routes]]\nname = 'tried'\nprefix = '/api'\nheaders = { x-canary = '*' }\nservice = 'tried'\n\
         [[routes]]\nname = 'both'\nprefix = '/api'\nservice = 'both'\n\
         headers = { x-canary = '1', x-user = 'Ana B' }\n\
         [[routes]]\nname = 'other'\nprefix = '/api'\nheaders = { x-canary = '2' }\nservice = 'other'\n\
         [[routes]]\nname = 'odd'\nprefix = '/odd'\nmethods = ['PURGE']\nservice = 'odd'\n\
         [[routes]]\nname = 'rest'\nprefix = '/'\nservice = 'rest'\n",
    );
    let canary = |value: &str| get("/api/x?q").header("x-CANARY", value);
    routed.assert(get("/api/x"), "rest", "/api/x");
    routed.assert(post("/api/x?q", &json!({})), "writes", "/w/x?q");
    routed.assert(post("/api/x", &json!({})).header("X-Canary", "1"), "writes", "/w/x");
    routed.assert(canary("1"), "canary", "/x?q");
    routed.assert(canary("2"), "other", "/api/x?q");
    routed.assert(canary("1, 2"), "tried", "/api/x?q");
    routed.assert(canary("zzz").header("X-Canary", "1"), "canary", "/x?q");
    routed.assert(canary("1").header("x-user", "Ana B"), "both", "/api/x?q");
    routed.assert(canary("1").header("x-user", "ana b"), "canary", "/x?q");
    routed.assert(Request::new("PURGE", "/odd"), "odd", "/odd");
    routed.assert(get("/odd"), "rest", "/odd");
    routed.gateway.data(head("/api/x")).expect(200);
    assert_eq!(routed.services["rest"].last().method, "HEAD");
}

#[test]
fn a_route_that_nobody_stands_in_for_is_404() {
    let routed = Routed::start("[[routes]]\nname = 'gets'\npath = '/a'\nmethods = ['GET']\nservice = 'gets'\n");
    routed.assert(get("/a"), "gets", "/a");
    assert_eq!(routed.gateway.data(head("/a")).expect(404).reason(), Some("not_found"));
    routed.assert_nowhere(post("/a", &json!({})));
}

#[test]
fn a_request_without_a_host_finds_routes_for_any_host() {
    let routed = Routed::start(
        "[[routes]]\nname = 'hosted'\nhost = '*.com'\nservice = 'hosted'\n\
         [[routes]]\nname = 'any'\nprefix = '/a'\nservice = 'any'\n",
    );
    let old = |request: &str| {
        let mut conn = Conn::open(routed.gateway.gateway);
        conn.send(request);
        conn.response("GET")
    };
    assert_eq!(routed.of(old("GET /a/b HTTP/1.0\r\n\r\n").expect(200)), ("any".to_owned(), "/a/b".to_owned()));
    old("GET /b HTTP/1.0\r\n\r\n").problem(404, "not_found");
    let hosted = old("GET /a/b HTTP/1.0\r\nHost: a.com\r\n\r\n").expect(200);
    assert_eq!(routed.of(hosted).0, "hosted");
}

#[test]
fn the_routes_name_is_in_metrics_and_access_log() {
    let routes = "[[routes]]\nname = 'by-host'\nhost = 'shop.example.com'\nservice = 'shop'\n\
                  [[routes]]\nname = 'by-header'\nprefix = '/a'\nheaders = { x-a = '1' }\nservice = 'shop'\n";
    let gateway = Gateway::builder().config(routes).env("VERTICE_LOG__ACCESS", "json").start();
    let routed = Routed::over(gateway, routes);
    routed.ask(get("/a").host("shop.example.com").header("X-Request-ID", "logged-1"));
    routed.ask(get("/a").header("x-a", "1"));
    routed.ask(get("/a/b").header("x-a", "1"));
    let metrics = routed.gateway.metrics();
    let count = |route: &str| metrics.only("http_requests_total", &[("route", route), ("service", "shop")]);
    assert_eq!((count("by-host"), count("by-header")), (1.0, 2.0));
    let logged = || routed.gateway.process.stdout().lines().find(|line| line.contains("logged-1")).map(str::to_owned);
    eventually("the line", || logged().is_some());
    let line: Value = serde_json::from_str(&logged().unwrap()).unwrap();
    assert_eq!(line["vertice.route"], "by-host", "{line}");
}

#[test]
fn routes_in_each_others_way_are_refused_with_both_names_and_lines() {
    let toml = "[[routes]]\nname = 'first'\nprefix = '/api'\nheaders = { x-a = '1' }\nservice = 'abc'\n\
                [[routes]]\nname = 'second'\nprefix = '/api'\nheaders = { x-b = '2' }\nservice = 'abc'\n\
                [[routes]]\nname = 'third'\nhost = 'a.com'\nservice = 'abc'\n\
                [[routes]]\nname = 'fourth'\nhost = 'A.com'\nservice = 'abc'\n\
                [[routes]]\nname = 'fifth'\npath = '/health'\nservice = 'abc'\n";
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("vertice.toml");
    std::fs::write(&path, toml).unwrap();
    for subcommand in ["check", "run"] {
        let mut command = Command::new(PROGRAM);
        command.args([subcommand, "--config", path.to_str().unwrap()]);
        let finished = run(command, &[], PATIENCE);
        assert_eq!(finished.code, Some(78), "{}", finished.stderr);
        let told = finished.stdout + &finished.stderr;
        let file = path.display();
        for expected in [
            format!("{file}:8:10: routes[1].prefix: route \"second\" is in conflict with \"first\" ({file}:3:10): "),
            "GET /api with x-a: 1, x-b: 2 matches both".to_owned(),
            format!("{file}:17:8: routes[3].host: route \"fourth\" can never win: \"third\" ({file}:13:8)"),
            format!("{file}:21:8: routes[4].path: \"/health\" cannot be routed"),
        ] {
            assert!(told.contains(&expected), "{expected} is missing in:\n{told}");
        }
    }
}
